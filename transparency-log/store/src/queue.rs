//! The bounded queue before the sequencer, and its batching rule.
//!
//! A lone writer's entry is taken at once. When several connections were active in the last tenth of a second, the batch
//! waits until as many entries as half of them would send are there, at most 4 ms: the others then go on being served
//! while the batch is synced. While they are few it waits for all of them; if these came in one burst they wait for our
//! answer and nobody else will come, else entries arrive by themselves, and more of them share a batch's two syncs and
//! pages when it waits to the end.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::clock::Clock;
use crate::entry::Item;
use crate::error::{Error, Result};

/// Identifies a connection for batching; any stable number will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct WriterId(pub u64);

/// Limits of the queue and of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Entries in one batch.
    pub max_entries: usize,
    /// Longest time that an entry waits for others.
    pub max_wait: Duration,
    /// Entries waiting; more are refused with [`Error::Overloaded`].
    pub queue_entries: usize,
    /// Bytes waiting; more are refused with [`Error::Overloaded`].
    pub queue_bytes: usize,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            max_entries: 1024,
            max_wait: Duration::from_millis(4),
            queue_entries: 16_384,
            queue_bytes: 64 << 20,
        }
    }
}

const WINDOW: Duration = Duration::from_millis(100);
/// Below this many connections a batch waits for all of them.
const FEW: usize = 8;

#[derive(Debug)]
pub(crate) struct Queue {
    batching: Batching,
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug)]
struct State {
    items: Vec<Item>,
    bytes: usize,
    /// When the oldest waiting item came.
    first_at: Duration,
    /// The sequencer sleeps until so many items wait.
    wake_at: usize,
    active: ActiveWriters,
    end: Option<End>,
}

/// Why the queue takes no more.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Closed,
    Failed(String),
}

impl Queue {
    pub(crate) fn new(batching: Batching) -> Self {
        let state = State {
            items: Vec::new(),
            bytes: 0,
            first_at: Duration::ZERO,
            wake_at: usize::MAX,
            active: ActiveWriters::new(),
            end: None,
        };
        Self { batching, state: Mutex::new(state), filled: Condvar::new() }
    }

    /// Queues items of one writer.
    pub(crate) fn push(
        &self,
        writer: WriterId,
        items: impl ExactSizeIterator<Item = Item>,
        bytes: usize,
        clock: &dyn Clock,
    ) -> Result<()> {
        let mut state = self.state.lock();
        match &state.end {
            None => {}
            Some(End::Closed) => return Err(Error::Stopped("the server is shutting down".to_owned())),
            Some(End::Failed(cause)) => return Err(Error::Stopped(cause.clone())),
        }
        if state.items.len() + items.len() > self.batching.queue_entries
            || state.bytes + bytes > self.batching.queue_bytes
        {
            return Err(Error::Overloaded { retry_after: Duration::from_secs(1) });
        }
        if state.items.is_empty() {
            state.first_at = clock.elapsed();
        }
        state.items.extend(items);
        state.bytes += bytes;
        state.active.note(writer);
        if state.items.len() >= state.wake_at {
            state.wake_at = usize::MAX;
            drop(state);
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits until there is something to take or the queue has ended; false when `patience` passed before.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        let mut state = self.state.lock();
        if state.items.is_empty() && state.end.is_none() {
            state.wake_at = 1;
            self.filled.wait_for(&mut state, patience);
        }
        !state.items.is_empty() || state.end.is_some()
    }

    /// Moves the next batch into `batch`; false once the queue is closed and empty.
    pub(crate) fn take(&self, batch: &mut Vec<Item>, clock: &dyn Clock) -> bool {
        let mut state = self.state.lock();
        while state.items.is_empty() {
            if state.end.is_some() {
                return false;
            }
            state.wake_at = 1;
            self.filled.wait(&mut state);
        }
        let mut now = clock.elapsed();
        let active = state.active.count(now);
        let target = if active <= FEW { active } else { active / 2 }.min(self.batching.max_entries);
        let until = state.first_at + self.batching.max_wait;
        while now < until && state.end.is_none() {
            let enough = if (2..=FEW).contains(&active) && now > state.first_at + self.batching.max_wait / 4 {
                (2 * FEW).min(self.batching.max_entries)
            } else {
                target
            };
            if state.items.len() >= enough {
                break;
            }
            state.wake_at = enough;
            self.filled.wait_for(&mut state, until - now);
            now = clock.elapsed();
        }
        state.wake_at = usize::MAX;
        batch.clear();
        if state.items.len() <= self.batching.max_entries {
            std::mem::swap(&mut state.items, batch);
            state.bytes = 0;
        } else {
            batch.extend(state.items.drain(..self.batching.max_entries));
            let taken: usize = batch.iter().map(|item| item.entry.stored_length()).sum();
            state.bytes = state.bytes.saturating_sub(taken);
            state.first_at = now;
        }
        true
    }

    /// Refuses further items; what waits is still taken unless the end is a failure.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.state.lock();
        if let End::Failed(cause) = &end {
            for item in state.items.drain(..) {
                // The submitter may have gone; nobody else is to be told.
                let _ = item.reply.send(Err(Error::Stopped(cause.clone())));
            }
            state.bytes = 0;
        }
        if state.end.is_none() {
            state.end = Some(end);
        }
        drop(state);
        self.filled.notify_all();
    }

    /// Entries waiting.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().items.len()
    }
}

/// Counts connections that wrote in the last window, in constant space.
#[derive(Debug)]
struct ActiveWriters {
    marks: Vec<u32>,
    epoch: u32,
    current: usize,
    previous: usize,
    since: Duration,
}

impl ActiveWriters {
    fn new() -> Self {
        Self { marks: vec![0; 1024], epoch: 1, current: 0, previous: 0, since: Duration::ZERO }
    }

    fn note(&mut self, writer: WriterId) {
        let slot = usize::try_from(writer.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54).unwrap_or_default();
        if let Some(mark) = self.marks.get_mut(slot)
            && *mark != self.epoch
        {
            *mark = self.epoch;
            self.current += 1;
        }
    }

    /// How many there are.
    fn count(&mut self, now: Duration) -> usize {
        let active = self.current.max(self.previous);
        if now >= self.since + WINDOW {
            self.previous = self.current;
            self.current = 0;
            self.since = now;
            self.epoch = self.epoch.wrapping_add(1).max(1);
        }
        active
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Ack, Entry};
    use bytes::Bytes;
    use tokio::sync::oneshot;

    /// Advances by a step at each look.
    #[derive(Debug)]
    struct Stepping(std::sync::atomic::AtomicU64, u64);

    impl Clock for Stepping {
        fn unix_millis(&self) -> u64 {
            0
        }
        fn elapsed(&self) -> Duration {
            Duration::from_micros(self.0.fetch_add(self.1, std::sync::atomic::Ordering::SeqCst))
        }
    }

    /// Two writers' entries are there; how often `take` looked at the clock before it took them.
    fn looks(step_micros: u64) -> u64 {
        let queue = Queue::new(Batching::default());
        let clock = Stepping(std::sync::atomic::AtomicU64::new(0), step_micros);
        for writer in 1..3 {
            queue.push(WriterId(writer), [item()].into_iter(), 3, &clock).unwrap();
        }
        let mut batch = Vec::new();
        assert!(queue.take(&mut batch, &clock));
        assert_eq!(batch.len(), 2);
        clock.0.load(std::sync::atomic::Ordering::SeqCst) / step_micros
    }

    #[test]
    fn few_writers_are_served_at_once_in_a_burst_and_wait_for_others_when_they_come_by_themselves() {
        // One look when the first came, one when both are there: a burst.
        assert_eq!(looks(10), 2);
        // They came over more than a millisecond: the batch waits to the end of its time.
        assert!(looks(1500) > 2);
    }

    #[derive(Debug)]
    struct Fixed;

    impl Clock for Fixed {
        fn unix_millis(&self) -> u64 {
            0
        }
        fn elapsed(&self) -> Duration {
            Duration::from_secs(1)
        }
    }

    fn item() -> Item {
        let (reply, _) = oneshot::channel();
        Item { entry: Entry::plain(Bytes::from_static(b"abc")).unwrap(), ack: Ack::Sequenced, reply }
    }

    #[test]
    fn overload_is_refused_and_taking_makes_room() {
        let queue = Queue::new(Batching { queue_entries: 2, max_entries: 1, ..Batching::default() });
        for _ in 0..2 {
            queue.push(WriterId(1), [item()].into_iter(), 3, &Fixed).unwrap();
        }
        let refused = queue.push(WriterId(1), [item()].into_iter(), 3, &Fixed);
        assert!(matches!(refused, Err(Error::Overloaded { .. })), "{refused:?}");
        let mut batch = Vec::new();
        assert!(queue.take(&mut batch, &Fixed));
        assert_eq!((batch.len(), queue.len()), (1, 1));
        queue.push(WriterId(1), [item()].into_iter(), 3, &Fixed).unwrap();
    }

    #[test]
    fn a_closed_queue_is_emptied_and_a_failed_one_answers_at_once() {
        let queue = Queue::new(Batching::default());
        queue.push(WriterId(1), [item()].into_iter(), 3, &Fixed).unwrap();
        queue.end(End::Closed);
        assert!(matches!(queue.push(WriterId(1), [item()].into_iter(), 3, &Fixed), Err(Error::Stopped(_))));
        let mut batch = Vec::new();
        assert!(queue.take(&mut batch, &Fixed));
        assert!(!queue.take(&mut batch, &Fixed));

        let queue = Queue::new(Batching::default());
        let (reply, mut answer) = oneshot::channel();
        let waiting = Item { reply, ..item() };
        queue.push(WriterId(1), [waiting].into_iter(), 3, &Fixed).unwrap();
        queue.end(End::Failed("disk".to_owned()));
        assert!(matches!(answer.try_recv().unwrap(), Err(Error::Stopped(cause)) if cause == "disk"));
    }

    #[test]
    fn counts_connections_not_entries() {
        let mut active = ActiveWriters::new();
        for _ in 0..1000 {
            active.note(WriterId(7));
        }
        assert_eq!(active.count(Duration::from_millis(50)), 1);
        for id in 0..256 {
            active.note(WriterId(id));
        }
        assert!(active.count(Duration::from_millis(60)) > 180);
        // Two silent windows later nobody counts any more.
        active.count(Duration::from_millis(400));
        active.count(Duration::from_millis(700));
        assert_eq!(active.count(Duration::from_millis(1000)), 0);
    }
}
