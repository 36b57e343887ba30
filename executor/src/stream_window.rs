//! What a call streamed last, by number, for a reader whose connection may break.
//!
//! While somebody reads, nothing is lost that was not read: whoever fills the window waits for a slow reader, and the guest
//! behind it. While nobody reads, the oldest events make room for new ones, and whoever comes back is told how many are gone.
//! There is one reader at a time: the one who came last, for the one before is a connection that broke, as a rule.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::admission::Denied;
use crate::clock;
use crate::executor::{Executed, Next, instance_of, not_kept, size_of_result};
use crate::streams::StreamEvent;

/// Events that are kept, and their bytes; the end of the call is kept besides.
const MAX_EVENTS: usize = 512;
const ROOM: usize = 512 << 10;

/// How far a reader may be behind before he is waited for. What is read already fills the rest of the window.
const MAX_BEHIND: usize = 128;
const BEHIND_ROOM: usize = 256 << 10;

/// What a reader is told.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on its way to the connection")]
pub(crate) enum Told {
    /// An event, by its number.
    Event(u64, Next),
    /// So many events would come first, and are kept no longer.
    Gone(u64),
    /// Somebody else reads now; nothing follows.
    Replaced,
}

/// The last events of one call.
#[derive(Debug, Default)]
pub(crate) struct Window {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<StreamEvent>,
    /// Number of the oldest one that is kept.
    first: u64,
    /// Bytes of all of them.
    bytes: usize,
    /// Has the number after the last of them.
    ended: Option<Ended>,
    /// Who reads, by the count of those who have.
    reader: Option<u64>,
    readers: u64,
    /// Number of the event that the reader takes next.
    position: u64,
    /// Since when nobody reads.
    alone_since: Option<Instant>,
}

/// The end of the call.
#[derive(Debug)]
struct Ended {
    at: Instant,
    result: Arc<Result<Executed, Denied>>,
    /// What the result takes.
    bytes: usize,
}

/// The end of a call, as whoever keeps it sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    /// What its result takes.
    pub(crate) bytes: usize,
    /// Since when nobody reads it, if nobody does.
    pub(crate) unread_since: Option<Instant>,
    /// Whether who reads has taken it.
    pub(crate) is_taken: bool,
}

impl State {
    /// The number of the event that comes next, or of the end.
    fn next(&self) -> u64 {
        self.first.saturating_add(self.events.len() as u64)
    }

    /// How many events there have been, the end among them.
    fn count(&self) -> u64 {
        self.next().saturating_add(u64::from(self.ended.is_some()))
    }

    /// Gives the place to a reader who wants this event next.
    fn seat(&mut self, next: u64) -> u64 {
        self.readers += 1;
        self.reader = Some(self.readers);
        self.position = next.max(self.first);
        self.alone_since = None;
        self.readers
    }

    fn event(&self, number: u64) -> Option<&StreamEvent> {
        self.events.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn push(&mut self, event: StreamEvent) {
        self.bytes = self.bytes.saturating_add(event.size());
        self.events.push_back(event);
        while (self.events.len() > MAX_EVENTS || self.bytes > ROOM) && self.events.len() > 1 {
            let gone = self.events.pop_front().as_ref().map_or(0, StreamEvent::size);
            self.bytes = self.bytes.saturating_sub(gone);
            self.first = self.first.saturating_add(1);
        }
    }

    /// Keeps of the result only that there was one.
    fn give_up_result(&mut self) {
        if let Some(ended) = &mut self.ended {
            ended.bytes = 0;
            ended.result = Arc::new(Err(not_kept(instance_of(&ended.result))));
        }
    }

    /// Whether the reader keeps up, or there is none to wait for.
    fn has_room(&self) -> bool {
        if self.reader.is_none() {
            return true;
        }
        let taken = usize::try_from(self.position.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let behind = self.events.iter().skip(taken);
        behind.clone().count() < MAX_BEHIND && behind.map(StreamEvent::size).sum::<usize>() < BEHIND_ROOM
    }
}

impl Window {
    /// Puts in what comes next, once the reader has come so far that nothing goes that he has not read; nothing after the end.
    pub(crate) async fn put(&self, next: Next) {
        let event = match next {
            // A piece of a long write holds all of it, however little of it is kept here.
            Next::Event(StreamEvent::Data { stream, sequence, bytes }) => {
                StreamEvent::Data { stream, sequence, bytes: Bytes::copy_from_slice(&bytes) }
            }
            Next::Event(event) => event,
            Next::Ended(result) => return self.finish(result),
        };
        loop {
            let changed = self.changed.notified();
            {
                // In one step: who reads may come at any time.
                let mut state = self.state.lock();
                if state.ended.is_some() {
                    return;
                }
                if state.has_room() {
                    state.push(event);
                    break;
                }
            }
            changed.await;
        }
        self.changed.notify_waiters();
    }

    /// Puts in how the call ended, if nobody has said so yet: for that there is always room.
    pub(crate) fn finish(&self, result: Result<Executed, Denied>) {
        let mut state = self.state.lock();
        if state.ended.is_none() {
            let bytes = size_of_result(&result);
            state.ended = Some(Ended { at: clock::monotonic(), result: Arc::new(result), bytes });
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Waits until nobody has read for so long.
    pub(crate) async fn left_alone(&self, patience: Duration) {
        loop {
            let changed = self.changed.notified();
            let since = self.state.lock().alone_since;
            let Some(since) = since else {
                changed.await;
                continue;
            };
            let left = patience.saturating_sub(clock::monotonic().saturating_duration_since(since));
            if left.is_zero() {
                return;
            }
            // Whether somebody came meanwhile is looked at again.
            let _ = tokio::time::timeout(left, changed).await;
        }
    }

    /// A reader from a number on, in place of the one before.
    ///
    /// # Errors
    ///
    /// `invalid_argument` for the number of an event that there has not been.
    pub(crate) fn read(self: &Arc<Self>, from: u64) -> Result<Reader, Denied> {
        let mut reader = self.read_later(from)?;
        reader.id = Some(self.state.lock().seat(from));
        self.changed.notify_waiters();
        Ok(reader)
    }

    /// A reader who takes the place of the one before when it reads: not everybody who is answered wants the answer's body.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub(crate) fn read_later(self: &Arc<Self>, from: u64) -> Result<Reader, Denied> {
        let state = self.state.lock();
        if from > state.count() {
            let text = format!("this stream has had {} events so far", state.count());
            return Err(Denied::new("invalid_argument", text));
        }
        drop(state);
        Ok(Reader { window: Arc::clone(self), id: None, next: from, is_replaced: false })
    }

    /// The end of the call, if it has ended.
    pub(crate) fn end(&self) -> Option<End> {
        let state = self.state.lock();
        let ended = state.ended.as_ref()?;
        let unread_since = match state.reader {
            Some(_) => None,
            None => Some(state.alone_since.map_or(ended.at, |since| since.max(ended.at))),
        };
        Some(End { bytes: ended.bytes, unread_since, is_taken: state.position > state.next() })
    }

    /// What its events and its result take.
    pub(crate) fn bytes(&self) -> usize {
        let state = self.state.lock();
        state.bytes.saturating_add(state.ended.as_ref().map_or(0, |ended| ended.bytes))
    }

    /// Keeps of the result only that there was one.
    pub(crate) fn give_up_result(&self) {
        self.state.lock().give_up_result();
    }

    /// Keeps nothing but that it ended: nobody finds it any more, and a reader who is stuck may have it for as long as he likes.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock();
        state.give_up_result();
        state.first = state.next();
        state.bytes = 0;
        let events = std::mem::take(&mut state.events);
        drop(state);
        drop(events);
    }
}

/// Reads a window. Dropping it leaves the window to whoever comes next.
#[derive(Debug)]
pub(crate) struct Reader {
    window: Arc<Window>,
    /// Once it has its place.
    id: Option<u64>,
    next: u64,
    is_replaced: bool,
}

impl Reader {
    /// The next thing; nothing after the end.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            let changed = self.window.changed.notified();
            {
                let mut state = self.window.state.lock();
                if self.id.is_none() {
                    self.id = Some(state.seat(self.next));
                    self.window.changed.notify_waiters();
                }
                if state.reader != self.id {
                    let told = (!self.is_replaced).then_some(Told::Replaced);
                    self.is_replaced = true;
                    return told;
                }
                let gone = state.first.saturating_sub(self.next);
                if gone > 0 {
                    self.next = state.first;
                    state.position = self.next;
                    return Some(Told::Gone(gone));
                }
                let number = self.next;
                if number >= state.count() {
                    if state.ended.is_some() {
                        return None;
                    }
                } else {
                    let event = state.event(number).cloned();
                    let result = state.ended.as_ref().map(|ended| Arc::clone(&ended.result));
                    self.next += 1;
                    state.position = self.next;
                    drop(state);
                    self.window.changed.notify_waiters();
                    // An output may be long: it is copied where nobody waits for it.
                    let result = || result.map(|result| Next::Ended(Arc::unwrap_or_clone(result)));
                    return event.map(Next::Event).or_else(result).map(|next| Told::Event(number, next));
                }
            }
            changed.await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.window.state.lock();
        if self.id.is_some() && state.reader == self.id {
            state.reader = None;
            state.alone_since = Some(clock::monotonic());
        }
        drop(state);
        self.window.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(sequence: u64, bytes: usize) -> Next {
        let bytes = Bytes::from(vec![7; bytes]);
        Next::Event(StreamEvent::Data { stream: "s".into(), sequence, bytes })
    }

    fn end(window: &Window) {
        window.finish(Err(Denied::new("trap", "it trapped")));
    }

    /// What a reader is told next, in a word.
    async fn told(reader: &mut Reader) -> String {
        match tokio::time::timeout(Duration::from_secs(5), reader.next()).await.unwrap() {
            None => "nothing".into(),
            Some(Told::Gone(events)) => format!("{events} gone"),
            Some(Told::Replaced) => "replaced".into(),
            Some(Told::Event(number, Next::Event(StreamEvent::Data { sequence, .. }))) => {
                assert_eq!(number, sequence, "one stream, and nothing else");
                format!("event {number}")
            }
            Some(Told::Event(number, _)) => format!("end {number}"),
        }
    }

    #[tokio::test]
    async fn a_reader_goes_on_where_the_one_before_left() {
        let window = Arc::new(Window::default());
        let mut first = window.read(0).unwrap();
        for n in 0..3 {
            window.put(data(n, 1)).await;
        }
        assert_eq!((told(&mut first).await, told(&mut first).await), ("event 0".into(), "event 1".into()));
        drop(first);
        window.put(data(3, 1)).await;
        // By the last number that arrived, whatever the first one took.
        let mut second = window.read(1).unwrap();
        for expected in ["event 1", "event 2", "event 3"] {
            assert_eq!(told(&mut second).await, expected);
        }
        end(&window);
        window.put(data(9, 1)).await;
        assert_eq!((told(&mut second).await, told(&mut second).await), ("end 4".into(), "nothing".into()));
        drop(second);
        let mut third = window.read(4).unwrap();
        assert_eq!((told(&mut third).await, told(&mut third).await), ("end 4".into(), "nothing".into()));
        assert_eq!(told(&mut window.read(5).unwrap()).await, "nothing");
        assert_eq!(window.read(6).unwrap_err().code, "invalid_argument");
    }

    #[tokio::test]
    async fn what_nobody_read_makes_room_and_the_gap_is_said() {
        for (count, bytes, kept) in [(MAX_EVENTS as u64 + 40, 1, MAX_EVENTS as u64), (10, ROOM / 4, 4)] {
            let window = Arc::new(Window::default());
            drop(window.read(0).unwrap());
            for n in 0..count {
                window.put(data(n, bytes)).await;
            }
            assert!(window.state.lock().bytes <= ROOM);
            let mut reader = window.read(2).unwrap();
            assert_eq!(told(&mut reader).await, format!("{} gone", count - kept - 2));
            assert_eq!(told(&mut reader).await, format!("event {}", count - kept));
        }
    }

    #[tokio::test]
    async fn a_piece_that_is_kept_keeps_nothing_of_the_write_that_it_was_cut_from() {
        let window = Arc::new(Window::default());
        let whole = Bytes::from(vec![7; 8 << 20]);
        let bytes = whole.slice(4096..8192);
        window.put(Next::Event(StreamEvent::Data { stream: "s".into(), sequence: 0, bytes })).await;
        assert!(whole.is_unique());
        assert_eq!(told(&mut window.read(0).unwrap()).await, "event 0");
    }

    #[tokio::test]
    async fn who_comes_last_reads_and_the_one_before_is_told() {
        let window = Arc::new(Window::default());
        let mut first = window.read(0).unwrap();
        window.put(data(0, 1)).await;
        let mut second = window.read(0).unwrap();
        assert_eq!((told(&mut first).await, told(&mut first).await), ("replaced".into(), "nothing".into()));
        drop(first);
        assert_eq!(told(&mut second).await, "event 0", "whoever was replaced takes nobody's place along");
    }

    #[tokio::test]
    async fn who_reads_nothing_takes_nobodys_place() {
        let window = Arc::new(Window::default());
        let mut first = window.read(0).unwrap();
        window.put(data(0, 1)).await;
        let mut later = window.read_later(1).unwrap();
        drop(window.read_later(0).unwrap());
        assert_eq!(window.read_later(2).unwrap_err().code, "invalid_argument");
        window.put(data(1, 1)).await;
        assert_eq!(told(&mut first).await, "event 0");
        assert_eq!((told(&mut later).await, told(&mut first).await), ("event 1".into(), "replaced".into()));
    }

    #[tokio::test]
    async fn a_slow_reader_is_waited_for_and_nobody_is_not() {
        let window = Arc::new(Window::default());
        let mut reader = window.read(0).unwrap();
        let waits = async |sequence, bytes| {
            let put = window.put(data(sequence, bytes));
            tokio::time::timeout(Duration::from_millis(20), put).await.is_err()
        };
        let mut sent = 0;
        while !waits(sent, 1).await {
            sent += 1;
        }
        assert_eq!(sent, MAX_BEHIND as u64);
        assert_eq!(told(&mut reader).await, "event 0");
        assert!(!waits(sent, BEHIND_ROOM).await);
        assert!(waits(sent + 1, 1).await);
        drop(reader);
        assert!(!waits(sent + 1, 1).await, "there is nobody to wait for");
    }

    #[tokio::test]
    async fn who_comes_back_to_a_full_window_loses_nothing_of_it() {
        let window = Arc::new(Window::default());
        for n in 0..MAX_EVENTS as u64 {
            window.put(data(n, 1)).await;
        }
        let mut reader = window.read(0).unwrap();
        let mut next = std::pin::pin!(window.put(data(MAX_EVENTS as u64, 1)));
        let waits = tokio::time::timeout(Duration::from_millis(20), next.as_mut()).await;
        assert!(waits.is_err());
        for n in 0..MAX_EVENTS as u64 {
            assert_eq!(told(&mut reader).await, format!("event {n}"));
        }
        next.await;
        assert_eq!(told(&mut reader).await, format!("event {MAX_EVENTS}"));
    }

    #[tokio::test]
    async fn a_window_is_alone_from_when_its_reader_left() {
        let window = Arc::new(Window::default());
        let alone = async || {
            tokio::time::timeout(Duration::from_millis(200), window.left_alone(Duration::from_millis(20)))
                .await
        };
        let reader = window.read(0).unwrap();
        assert!(alone().await.is_err(), "somebody reads");
        drop(reader);
        assert!(alone().await.is_ok());
        end(&window);
        let unread = || window.end().unwrap().unread_since;
        assert!(unread().is_some());
        let reader = window.read(0).unwrap();
        assert!(unread().is_none() && alone().await.is_err(), "somebody is back");
        drop(reader);
        assert!(unread().is_some());
    }
}
