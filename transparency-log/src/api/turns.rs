//! Turns at work that is dear and that anybody may ask for: so many at once, of one address at most a share of them, and nobody
//! waits for ever. A turn is over when the work is done, not when whoever asked for it went away.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use service::Problem;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Turns of one address at once, where nothing else is said. Who asks for more waits behind itself, and not before others.
pub(crate) const OF_ONE: usize = 2;

/// The turns of one sort of work.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    of_one: usize,
    /// Longest wait for one.
    patience: Duration,
    peers: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

/// A turn; over when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Turn {
    /// Does the work on a thread that may block. It goes on when its request is given up (a reset, a closed connection), and
    /// so does the turn: else a client that keeps resetting had as much work done at once as it likes.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let in_turn = move || {
            let _turn = self;
            work()
        };
        tokio::task::spawn_blocking(in_turn).await.map_err(Problem::internal)
    }
}

impl Turns {
    pub(crate) fn new(at_once: usize, of_one: usize, patience: Duration) -> Self {
        Self { all: Arc::new(Semaphore::new(at_once)), of_one, patience, peers: Mutex::default() }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// 503 when it does not come in time.
    pub(crate) async fn next(&self, peer: IpAddr) -> Result<Turn, Problem> {
        let own = self.of(peer);
        let turn = async {
            // First among its own: the queue of all then has two of each address, however often it asks.
            let own = own.acquire_owned().await?;
            Ok::<_, tokio::sync::AcquireError>(Turn {
                _own: own,
                _all: self.all.clone().acquire_owned().await?,
            })
        };
        match tokio::time::timeout(self.patience, turn).await {
            Ok(turn) => turn.map_err(Problem::internal),
            Err(_) => Err(Problem::unavailable("overloaded", 1)
                .with_detail("too much is asked for at once; repeat the call later")),
        }
    }

    fn of(&self, peer: IpAddr) -> Arc<Semaphore> {
        let mut peers = self.peers.lock();
        if let Some(known) = peers.get(&peer).and_then(Weak::upgrade) {
            return known;
        }
        if peers.len() == peers.capacity() {
            peers.retain(|_, turns| turns.strong_count() > 0);
        }
        let turns = Arc::new(Semaphore::new(self.of_one));
        peers.insert(peer, Arc::downgrade(&turns));
        turns
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn address(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    #[tokio::test]
    async fn an_address_that_asks_for_much_waits_behind_itself_and_not_for_ever() {
        let turns = Arc::new(Turns::new(3, OF_ONE, Duration::from_millis(200)));
        let held = [turns.next(address(1)).await.unwrap(), turns.next(address(1)).await.unwrap()];
        let asked: Vec<_> = (0..1000)
            .map(|_| {
                let turns = turns.clone();
                tokio::spawn(async move { turns.next(address(1)).await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        // Another one does not wait at all.
        let other = tokio::time::timeout(Duration::from_millis(150), turns.next(address(2))).await;
        drop(other.unwrap().unwrap());
        for asked in asked {
            let refused = asked.await.unwrap().unwrap_err();
            assert_eq!((refused.status().as_u16(), refused.code()), (503, "overloaded"));
        }
        drop(held);
        turns.next(address(1)).await.unwrap();
        assert_eq!(turns.all.available_permits(), 3);
    }

    /// Requests are reset as soon as their work runs, again and again.
    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_keeps_its_turn() {
        let turns = Arc::new(Turns::new(3, OF_ONE, Duration::from_millis(20)));
        let running = Arc::new(AtomicUsize::new(0));
        let (mut ends, mut refused) = (Vec::new(), 0);
        for request in 0..20 {
            let (turns, running) = (turns.clone(), running.clone());
            let (began, has_begun) = tokio::sync::oneshot::channel();
            let (end, ended) = mpsc::channel::<()>();
            ends.push(end);
            let work = move || {
                running.fetch_add(1, Ordering::SeqCst);
                let _ = began.send(());
                let _ = ended.recv();
                running.fetch_sub(1, Ordering::SeqCst);
            };
            let asked = tokio::spawn(async move { turns.next(address(request % 4)).await?.run(work).await });
            if has_begun.await.is_err() {
                assert_eq!(asked.await.unwrap().unwrap_err().code(), "overloaded");
                refused += 1;
                continue;
            }
            asked.abort();
            assert!(asked.await.unwrap_err().is_cancelled());
        }
        assert_eq!((running.load(Ordering::SeqCst), refused), (3, 17));
        assert_eq!(turns.all.available_permits(), 0);
        drop(ends);
        while running.load(Ordering::SeqCst) > 0 || turns.all.available_permits() < 3 {
            tokio::task::yield_now().await;
        }
    }
}
