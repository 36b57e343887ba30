//! The queue in front of the instance pool: fair, bounded, and a typed refusal where it ends.
//!
//! A call holds a place until it ends, also while its guest waits for a reader or for another host. So an agent has at most
//! its share of the places: whoever opens calls and does not read them holds up calls of the same agent and no others.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::admission::Denied;

/// Threads that run guests.
pub(crate) const MAX_RUNNING: usize = executor_engine::limits::MAX_RUNNING as usize;
/// Threads beside them: whatever stops guests (announced revocations, policies, the addresses of evidence) must find one when
/// all guests run and all their names are being looked up.
const RESERVE: usize = 64;
/// Ceiling of the runtime's threads for blocking work.
pub(crate) const BLOCKING_THREADS: usize = MAX_RUNNING + crate::egress::MAX_LOOKUPS + RESERVE;

/// Callers that may wait for each one that runs.
const WAITING_PER_PLACE: usize = 4;

/// The share of one agent, where the operator says nothing: a quarter, and in a small pool this many.
const SMALLEST_SHARE: usize = 8;

/// Places for calls.
pub(crate) struct Queue {
    places: Lane,
    share: usize,
    /// Callers that wait, for a place of their agent or for any.
    waiting: AtomicUsize,
}

/// The places of one agent, counted from its first call on.
///
/// A step of a pipeline has no place in the queue: its pipeline has one, and waits for nobody who may wait for it. What it has
/// is one of the runs of its own agent, and so has every call, taken after everything else. Whoever has a run is running, so
/// that a wait for one always ends, and an agent runs no more often than it has places, whoever calls it.
#[derive(Default)]
pub(crate) struct Share(OnceLock<Own>);

struct Own {
    calls: Lane,
    runs: Arc<Semaphore>,
}

impl Own {
    fn new(places: usize) -> Self {
        Self { calls: Lane::new(places), runs: Arc::new(Semaphore::new(places)) }
    }
}

impl Share {
    /// This many places, whatever the usual share is.
    pub(crate) fn of_places(places: usize) -> Self {
        Self(OnceLock::from(Own::new(places)))
    }
}

/// A place for one call, given back when dropped.
pub(crate) struct Place {
    _of_agent: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
    _run: OwnedSemaphorePermit,
}

impl Queue {
    /// As many places as there are slots and threads; `of_agent` of them for one agent, or the usual share.
    pub(crate) fn new(slots: u32, of_agent: Option<u32>) -> Self {
        let places = usize::try_from(slots).unwrap_or(MAX_RUNNING).min(MAX_RUNNING);
        let share = match of_agent {
            Some(share) => usize::try_from(share).unwrap_or(places),
            None => (places / 4).max(SMALLEST_SHARE),
        };
        Self { places: Lane::new(places), share: share.clamp(1, places.max(1)), waiting: AtomicUsize::new(0) }
    }

    /// Callers that wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits for a place, in order of arrival; refuses when too many wait already.
    pub(crate) async fn enter(&self, share: &Share) -> Result<Place, Denied> {
        let own = self.own(share);
        let of_agent =
            own.calls.enter(&self.waiting, "too many calls of this agent are under way; retry later").await?;
        let of_all =
            self.places.enter(&self.waiting, "too many calls wait for an instance; retry later").await?;
        let run = Arc::clone(&own.runs).acquire_owned().await.map_err(|_| closed())?;
        Ok(Place { _of_agent: of_agent, _of_all: of_all, _run: run })
    }

    /// What a step of a pipeline waits for: a run of its own agent.
    #[cfg(any(test, feature = "pipelines"))]
    pub(crate) fn run(
        &self,
        share: &Share,
    ) -> impl Future<Output = Result<OwnedSemaphorePermit, Denied>> + Send + 'static {
        let runs = Arc::clone(&self.own(share).runs);
        async move { runs.acquire_owned().await.map_err(|_| closed()) }
    }

    fn own<'a>(&self, share: &'a Share) -> &'a Own {
        share.0.get_or_init(|| Own::new(self.share))
    }
}

fn closed() -> Denied {
    Denied::new("pool_exhausted", "no more calls are taken")
}

struct Lane {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    limit: usize,
}

impl Lane {
    fn new(places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            waiting: AtomicUsize::new(0),
            limit: places * WAITING_PER_PLACE,
        }
    }

    async fn enter(&self, all: &AtomicUsize, why_not: &'static str) -> Result<OwnedSemaphorePermit, Denied> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let full = || Denied::new("pool_exhausted", why_not);
        let (here, _anywhere) = (Waiter::of(&self.waiting), Waiter::of(all));
        if here.before >= self.limit {
            return Err(full());
        }
        Arc::clone(&self.places).acquire_owned().await.map_err(|_| full())
    }
}

/// Counts a caller out, also when it goes away while it waits.
struct Waiter<'a> {
    count: &'a AtomicUsize,
    /// How many waited before it.
    before: usize,
}

impl<'a> Waiter<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiters_are_served_in_order_and_bounded() {
        let queue = Arc::new(Queue::new(1, None));
        let agent = Arc::new(Share::default());
        let first = queue.enter(&agent).await.unwrap();
        let waiters: Vec<_> = (0..WAITING_PER_PLACE)
            .map(|_| {
                let (queue, agent) = (Arc::clone(&queue), Arc::clone(&agent));
                tokio::spawn(async move { queue.enter(&agent).await.map(drop) })
            })
            .collect();
        let lane = &agent.0.get().unwrap().calls;
        while lane.waiting.load(Ordering::Relaxed) < WAITING_PER_PLACE {
            tokio::task::yield_now().await;
        }
        assert_eq!(queue.enter(&agent).await.err().unwrap().code, "pool_exhausted");
        assert_eq!(queue.waiting(), WAITING_PER_PLACE);
        drop(first);
        for waiter in waiters {
            waiter.await.unwrap().unwrap();
        }
        assert_eq!((lane.waiting.load(Ordering::Relaxed), queue.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn one_agent_never_has_every_place() {
        for (slots, of_agent, share) in
            [(1000, None, 128), (16, None, 8), (4, None, 4), (64, Some(60), 60), (64, Some(900), 64)]
        {
            let queue = Queue::new(slots, of_agent);
            let (greedy, other) = (Share::default(), Share::default());
            let mut held = Vec::new();
            for _ in 0..share {
                held.push(queue.enter(&greedy).await.unwrap());
            }
            let next = tokio::time::timeout(std::time::Duration::from_millis(1), queue.enter(&greedy)).await;
            assert!(next.is_err(), "{slots}: the share is {share}");
            assert_eq!(
                greedy.0.get().unwrap().calls.waiting.load(Ordering::Relaxed),
                0,
                "who goes away is not counted"
            );
            if share < usize::try_from(slots).unwrap() {
                held.push(queue.enter(&other).await.unwrap());
            }
        }
    }

    #[tokio::test]
    async fn a_step_waits_for_a_run_of_its_agent_and_for_nothing_that_waits_for_it() {
        let queue = Queue::new(1, None);
        let (pipeline, step) = (Share::default(), Share::of_places(1));
        let whole = queue.enter(&pipeline).await.unwrap();
        // A caller of the step's agent has its place already, and waits for the one that the pipeline has.
        let mut caller = std::pin::pin!(queue.enter(&step));
        assert!(futures_util::poll!(caller.as_mut()).is_pending());
        let run = queue.run(&step).await.unwrap();
        let mut second = std::pin::pin!(queue.run(&step));
        assert!(futures_util::poll!(second.as_mut()).is_pending(), "one at a time");
        drop(whole);
        assert!(futures_util::poll!(caller.as_mut()).is_pending(), "also for those who call it");
        drop(run);
        drop(second.await.unwrap());
        caller.await.unwrap();
    }
}
