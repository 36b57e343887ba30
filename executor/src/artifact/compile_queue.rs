//! Who compiles next: the signers who wait, in turn.
//!
//! A module may keep a compiler busy for a minute, and whoever may load modules may load many. In one line for all, one signer's
//! hundred modules would be before everybody else's one. So each signer has a line of his own, of limited length, and a compiler that
//! becomes free takes the first module of the line whose turn it is.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Most modules of one signer that wait.
pub(super) const MAX_WAITING: usize = 16;

/// Compilers, and those who wait for one. Cheap to clone; clones are the same.
#[derive(Debug)]
pub(super) struct CompileQueue<K: Eq + Hash + Clone>(Arc<Mutex<Lines<K>>>);

#[derive(Debug)]
struct Lines<K: Eq + Hash + Clone> {
    /// Compilers that nobody has.
    free: usize,
    /// By signer, none of them empty.
    waiting: HashMap<K, VecDeque<Waiter<K>>>,
    /// The signers who wait, the next one first.
    order: VecDeque<K>,
    names: u64,
}

#[derive(Debug)]
struct Waiter<K: Eq + Hash + Clone> {
    name: u64,
    called: oneshot::Sender<Turn<K>>,
}

/// The line of this signer is full. Nobody else's is the longer for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// One compiler, until it is dropped: then it goes to whoever is next.
#[derive(Debug)]
pub(super) struct Turn<K: Eq + Hash + Clone>(Option<Arc<Mutex<Lines<K>>>>);

impl<K: Eq + Hash + Clone> CompileQueue<K> {
    /// With so many compilers.
    pub(super) fn new(compilers: usize) -> Self {
        let lines =
            Lines { free: compilers.max(1), waiting: HashMap::new(), order: VecDeque::new(), names: 0 };
        Self(Arc::new(Mutex::new(lines)))
    }

    /// Waits for a compiler. Whoever stops waiting leaves the line.
    pub(super) async fn enter(&self, signer: &K) -> Result<Turn<K>, Full> {
        let (name, mut called) = {
            let mut lines = self.0.lock();
            if lines.free > 0 {
                lines.free -= 1;
                return Ok(Turn(Some(Arc::clone(&self.0))));
            }
            lines.join(signer)?
        };
        let _left = Leave { lines: &self.0, signer, name };
        // Nobody but the queue has the other end, and it is dropped with the line only.
        (&mut called).await.map_err(|_| Full)
    }
}

impl<K: Eq + Hash + Clone> Lines<K> {
    fn join(&mut self, signer: &K) -> Result<(u64, oneshot::Receiver<Turn<K>>), Full> {
        let line = self.waiting.entry(signer.clone()).or_default();
        if line.len() >= MAX_WAITING {
            return Err(Full);
        }
        if line.is_empty() {
            self.order.push_back(signer.clone());
        }
        let name = self.names;
        self.names += 1;
        let (called, call) = oneshot::channel();
        line.push_back(Waiter { name, called });
        Ok((name, call))
    }

    /// The first of the line whose turn it is. A signer with more modules goes to the end.
    fn next(&mut self) -> Option<Waiter<K>> {
        let signer = self.order.pop_front()?;
        let line = self.waiting.get_mut(&signer)?;
        let next = line.pop_front();
        if line.is_empty() {
            self.waiting.remove(&signer);
        } else {
            self.order.push_back(signer);
        }
        next
    }

    fn leave(&mut self, signer: &K, name: u64) {
        let Some(line) = self.waiting.get_mut(signer) else { return };
        line.retain(|waiter| waiter.name != name);
        if line.is_empty() {
            self.waiting.remove(signer);
            self.order.retain(|known| known != signer);
        }
    }
}

/// Takes one that stopped waiting out of its line.
struct Leave<'a, K: Eq + Hash + Clone> {
    lines: &'a Mutex<Lines<K>>,
    signer: &'a K,
    name: u64,
}

impl<K: Eq + Hash + Clone> Drop for Leave<'_, K> {
    fn drop(&mut self) {
        self.lines.lock().leave(self.signer, self.name);
    }
}

impl<K: Eq + Hash + Clone> Drop for Turn<K> {
    fn drop(&mut self) {
        let Some(mut lines) = self.0.take() else { return };
        loop {
            let next = {
                let mut lines = lines.lock();
                let next = lines.next();
                if next.is_none() {
                    lines.free += 1;
                }
                next
            };
            let Some(waiter) = next else { return };
            match waiter.called.send(Turn(Some(lines))) {
                Ok(()) => return,
                // It left in this moment; what was for it is for the next one.
                Err(mut turn) => match turn.0.take() {
                    Some(back) => lines = back,
                    None => return,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn signers_take_turns_however_many_modules_one_of_them_has() {
        let queue = Arc::new(CompileQueue::new(1));
        let held = queue.enter(&"first").await.unwrap();
        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        for (signer, count) in [("many", MAX_WAITING), ("one", 1), ("two", 2)] {
            for _ in 0..count {
                let (queue, told) = (Arc::clone(&queue), told.clone());
                tokio::spawn(async move {
                    let turn = queue.enter(&signer).await.unwrap();
                    told.send(signer).unwrap();
                    drop(turn);
                });
                tokio::task::yield_now().await;
            }
        }
        drop((held, told));
        let mut all = Vec::new();
        while let Some(signer) = order.recv().await {
            all.push(signer);
        }
        assert_eq!(all[..6], ["many", "one", "two", "many", "two", "many"]);
        assert_eq!(all.len(), MAX_WAITING + 3);
        let lines = queue.0.lock();
        assert_eq!((lines.free, lines.waiting.len(), lines.order.len()), (1, 0, 0));
    }

    #[tokio::test]
    async fn a_full_line_is_its_signers_own() {
        let queue = CompileQueue::new(1);
        let held = queue.enter(&"many").await.unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(queue.enter(&"many"))).collect();
        for one in &mut waiting {
            assert!(poll!(one.as_mut()).is_pending());
        }
        assert_eq!(queue.enter(&"many").await.err(), Some(Full));
        let mut other = pin!(queue.enter(&"one"));
        assert!(poll!(other.as_mut()).is_pending());
        // Whoever gives up makes room, also with the turn that was given to him and that he did not take.
        drop(waiting.pop());
        let mut last = pin!(queue.enter(&"many"));
        assert!(poll!(last.as_mut()).is_pending());
        drop(held);
        drop(waiting.remove(0));
        let turn = other.await.unwrap();
        drop((turn, waiting));
        drop(last.await.unwrap());
        let lines = queue.0.lock();
        assert_eq!((lines.free, lines.waiting.len(), lines.order.len()), (1, 0, 0));
    }

    #[tokio::test]
    async fn as_many_run_as_there_are_compilers() {
        let queue = CompileQueue::new(2);
        let (first, second) = (queue.enter(&1).await.unwrap(), queue.enter(&1).await.unwrap());
        let mut third = pin!(queue.enter(&2));
        assert!(poll!(third.as_mut()).is_pending());
        drop(second);
        let third = third.await.unwrap();
        assert_eq!(queue.0.lock().free, 0);
        drop((first, third));
        assert_eq!(queue.0.lock().free, 2);
    }
}
