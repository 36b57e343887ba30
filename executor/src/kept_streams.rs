//! Streams that outlive the connection of their reader: whose each is, how many there are, and how long they are kept.
//!
//! A stream belongs to the caller who began its call. To everybody else it is as if there were none, whoever guesses its name.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use executor_engine::ModuleDigest;
use parking_lot::Mutex;

use crate::admission::Denied;
use crate::callers::Caller;
use crate::clock;
use crate::stream_window::Window;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Streams of all callers, running and ended; one caller has at most half of them.
    streams: usize,
    /// Bytes of results of those that ended.
    results: usize,
    /// Bytes of inputs of calls under way, which outlive the connections that they came by. Those of one caller have at most half
    /// of them, or are one input.
    inputs: usize,
    /// How long the end of a call is kept for a reader who comes back.
    kept: Duration,
}

const ROOM: Room = Room { streams: 128, results: 64 << 20, inputs: 64 << 20, kept: Duration::from_secs(60) };

/// Every stream that is kept. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct KeptStreams {
    room: Room,
    streams: Arc<Mutex<HashMap<Arc<str>, Stream>>>,
    /// Whether somebody forgets in time what is over.
    is_swept: Arc<AtomicBool>,
}

impl Default for KeptStreams {
    fn default() -> Self {
        Self { room: ROOM, streams: Arc::default(), is_swept: Arc::default() }
    }
}

#[derive(Debug)]
struct Stream {
    owner: Arc<str>,
    /// Agent and module of the call; nothing while it is about to begin.
    release: Option<(String, ModuleDigest)>,
    /// Bytes of the input that the call began with.
    input: usize,
    /// When the call ended, once it has: what it streamed may wait for its reader much longer.
    over: Arc<OnceLock<Instant>>,
    window: Arc<Window>,
}

impl Stream {
    /// Bytes of the call's input, while it has one.
    fn input(&self) -> usize {
        if self.over.get().is_some() { 0 } else { self.input }
    }
}

/// A stream that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Agent and module of the call.
    pub(crate) release: (String, ModuleDigest),
    /// When the call ended, once it has.
    pub(crate) over: Arc<OnceLock<Instant>>,
    /// Its events.
    pub(crate) window: Arc<Window>,
}

/// A stream whose call is about to begin. Dropped before it began, it was never there.
#[derive(Debug)]
pub(crate) struct Place {
    streams: KeptStreams,
    id: Arc<str>,
    window: Arc<Window>,
    begun: bool,
}

impl Place {
    /// The call began, and says when it is over: the name of its stream, and where its events go.
    pub(crate) fn begun(
        mut self,
        agent: &str,
        digest: ModuleDigest,
        over: &Arc<OnceLock<Instant>>,
    ) -> (Arc<str>, Arc<Window>) {
        if let Some(stream) = self.streams.streams.lock().get_mut(&self.id) {
            stream.release = Some((agent.to_owned(), digest));
            stream.over = Arc::clone(over);
        }
        self.begun = true;
        (Arc::clone(&self.id), Arc::clone(&self.window))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.begun {
            self.streams.streams.lock().remove(&self.id);
        }
    }
}

impl KeptStreams {
    /// Room for the stream of one more call, with so many bytes of input.
    ///
    /// # Errors
    ///
    /// `streams_full` when all of them, or half of them by this caller, are in use; or as much of the room for inputs.
    pub(crate) fn begin(&self, caller: &Caller, input: usize, now: Instant) -> Result<Place, Denied> {
        let mut name = [0; 16];
        let failed =
            |_| Denied::new("internal", "the stream cannot be named").for_operator("no random bytes");
        aws_lc_rs::rand::fill(&mut name).map_err(failed)?;
        let (id, window): (Arc<str>, _) = (hex::encode(name).into(), Arc::<Window>::default());
        let mut streams = self.streams.lock();
        self.forget_what_is_over(&mut streams, now);
        let owner = Arc::clone(caller.name());
        let (mut all_inputs, mut own_inputs) = (0, 0);
        for stream in streams.values() {
            all_inputs += stream.input();
            own_inputs += if stream.owner == owner { stream.input() } else { 0 };
        }
        // Alone an input may be longer: it is bounded by what a call takes.
        let fits = |held: usize, room: usize| held == 0 || input == 0 || held.saturating_add(input) <= room;
        if !fits(all_inputs, self.room.inputs) || !fits(own_inputs, self.room.inputs / 2) {
            let text =
                "inputs of resumable calls take too much room; retry later, or call without `resumable`";
            return Err(Denied::new("streams_full", text));
        }
        let own = streams.values().filter(|stream| stream.owner == owner).count();
        let full = if own >= self.room.streams / 2 {
            !forget_oldest(&mut streams, |stream| stream.owner == owner)
        } else {
            streams.len() >= self.room.streams && !forget_oldest(&mut streams, |_| true)
        };
        if full {
            let text = "too many streams are kept; retry later, or call without `resumable`";
            return Err(Denied::new("streams_full", text));
        }
        let stream =
            Stream { owner, release: None, input, over: Arc::default(), window: Arc::clone(&window) };
        streams.insert(Arc::clone(&id), stream);
        Ok(Place { streams: self.clone(), id, window, begun: false })
    }

    /// The stream of this name, if it is the caller's.
    ///
    /// # Errors
    ///
    /// `stream_unknown`.
    pub(crate) fn find(&self, caller: &Caller, id: &str, now: Instant) -> Result<Found, Denied> {
        let mut streams = self.streams.lock();
        self.forget_what_is_over(&mut streams, now);
        let own = streams.get(id).filter(|stream| stream.owner == *caller.name());
        let found = own.and_then(|stream| {
            let (over, window) = (Arc::clone(&stream.over), Arc::clone(&stream.window));
            Some(Found { release: stream.release.clone()?, over, window })
        });
        found.ok_or_else(|| {
            Denied::new("stream_unknown", "this caller began no stream of this name, or it is kept no longer")
        })
    }

    /// A stream ended. Where results take too much, others of them make room: first those that nobody reads, the oldest before the
    /// rest, then those that their readers have taken, then the largest. That they ran stays known of those calls. How many results had
    /// to make room.
    pub(crate) fn ended(&self, id: &str, now: Instant) -> u64 {
        let mut streams = self.streams.lock();
        self.forget_what_is_over(&mut streams, now);
        let results = || streams.iter().filter_map(|(id, stream)| Some((id, stream, stream.window.end()?)));
        let mut given_up = 0;
        while results().map(|(_, _, end)| end.bytes).sum::<usize>() > self.room.results {
            // Whoever reads this one has had no time to take it.
            let others = results().filter(|(other, _, end)| end.unread_since.is_some() || &***other != id);
            let largest = others.filter(|(_, _, end)| end.bytes > 0).min_by_key(|(_, _, end)| {
                (end.unread_since.is_none(), end.unread_since, !end.is_taken, Reverse(end.bytes))
            });
            match largest {
                Some((_, stream, _)) => stream.window.give_up_result(),
                None => return given_up,
            }
            given_up += 1;
        }
        given_up
    }

    /// How many there are, and the bytes that they take.
    pub(crate) fn held(&self) -> (usize, usize) {
        let streams = self.streams.lock();
        let bytes = streams.values().map(|stream| stream.window.bytes().saturating_add(stream.input()));
        (streams.len(), bytes.fold(0, usize::saturating_add))
    }

    /// Sees to it that what is over is forgotten in time, for somebody may come for no other stream. After [`Self::ended`]. One task
    /// does it for all of them: each of its own would outlive its stream where that gives way to others.
    pub(crate) fn sweep(&self) {
        if self.is_swept.swap(true, Ordering::AcqRel) {
            return;
        }
        let kept = self.clone();
        tokio::spawn(async move {
            while let Some(left) = kept.left(clock::monotonic()) {
                tokio::time::sleep(left).await;
            }
        });
    }

    /// How long until the first of those that ended may be over; nothing where there is none, and nobody sweeps any more.
    fn left(&self, now: Instant) -> Option<Duration> {
        let mut streams = self.streams.lock();
        self.forget_what_is_over(&mut streams, now);
        let kept = self.room.kept;
        let left = |since| kept.saturating_sub(now.saturating_duration_since(since));
        let ended = streams.values().filter_map(|stream| stream.window.end());
        let first = ended.map(|end| end.unread_since.map_or(kept, left)).min();
        if first.is_none() {
            // Under the lock: a stream whose end was not seen here takes it after its end, and then finds that nobody sweeps.
            self.is_swept.store(false, Ordering::Release);
        }
        first
    }

    fn forget_what_is_over(&self, streams: &mut HashMap<Arc<str>, Stream>, now: Instant) {
        streams.retain(|_, stream| {
            let since = stream.window.end().and_then(|end| end.unread_since);
            let is_over = since.is_some_and(|since| now.saturating_duration_since(since) >= self.room.kept);
            if is_over {
                stream.window.forget();
            }
            !is_over
        });
    }
}

/// Forgets the stream that ended first, of those; whether there was one. One that is read is kept.
fn forget_oldest(streams: &mut HashMap<Arc<str>, Stream>, of: impl Fn(&Stream) -> bool) -> bool {
    let ended = streams.iter().filter(|(_, stream)| of(stream));
    let ended = ended.filter_map(|(id, stream)| Some((stream.window.end()?.unread_since?, Arc::clone(id))));
    match ended.min_by_key(|(since, _)| *since) {
        Some((_, id)) => streams.remove(&id).inspect(|stream| stream.window.forget()).is_some(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{Executed, Next};
    use crate::runtime::{InstanceId, Outcome, Usage};
    use crate::stream_window::{Reader, Told};
    use crate::streams::StreamEvent;

    fn begin(streams: &KeptStreams, who: &str) -> Result<(Arc<str>, Arc<Window>), Denied> {
        let place = streams.begin(&Caller::new(who), 0, clock::monotonic())?;
        Ok(place.begun("a.b", ModuleDigest::of(b""), &Arc::default()))
    }

    fn end(window: &Window) {
        window.finish(Err(Denied::new("trap", "it trapped")));
    }

    #[test]
    fn a_stream_is_its_callers_alone_and_only_for_a_time() {
        let streams = KeptStreams::default();
        let now = clock::monotonic();
        let (id, window) = begin(&streams, "a").unwrap();
        let found = streams.find(&Caller::new("a"), &id, now).unwrap();
        assert!(Arc::ptr_eq(&found.window, &window) && found.release.0 == "a.b");
        for (who, name) in [("b", &*id), ("", &*id), ("a", "none")] {
            let refused = streams.find(&Caller::new(who), name, now).unwrap_err();
            assert_eq!(refused.code, "stream_unknown", "{who} {name}");
        }
        // One that did not begin was never there.
        let place = streams.begin(&Caller::new("a"), 0, now).unwrap();
        let name = Arc::clone(&place.id);
        assert_eq!(streams.find(&Caller::new("a"), &name, now).unwrap_err().code, "stream_unknown");
        drop(place);
        assert_eq!(streams.streams.lock().len(), 1);
        let later = |seconds| clock::monotonic() + ROOM.kept + Duration::from_secs(seconds);
        assert!(streams.find(&Caller::new("a"), &id, later(1)).is_ok(), "it runs");
        end(&window);
        assert!(streams.find(&Caller::new("a"), &id, clock::monotonic()).is_ok(), "it has just ended");
        assert_eq!(streams.find(&Caller::new("a"), &id, later(1)).unwrap_err().code, "stream_unknown");
    }

    #[test]
    fn streams_are_bounded_and_those_that_ended_make_room() {
        let streams = KeptStreams::default();
        let own: Vec<_> = (0..ROOM.streams / 2).map(|_| begin(&streams, "a").unwrap()).collect();
        assert_eq!(begin(&streams, "a").unwrap_err().code, "streams_full", "half of them are one caller's");
        for n in 0..ROOM.streams / 2 {
            begin(&streams, &format!("other {n}")).unwrap();
        }
        assert_eq!(begin(&streams, "b").unwrap_err().code, "streams_full");
        end(&own[1].1);
        end(&own[0].1);
        begin(&streams, "b").unwrap();
        let kept = |(id, _): &(Arc<str>, _)| streams.find(&Caller::new("a"), id, clock::monotonic()).is_ok();
        assert_eq!((kept(&own[0]), kept(&own[1])), (true, false), "the one that ended first is gone");
        let reader = own[0].1.read(0).unwrap();
        assert_eq!(begin(&streams, "b").unwrap_err().code, "streams_full", "what is read is kept");
        drop(reader);
        begin(&streams, "b").unwrap();
    }

    #[test]
    fn inputs_are_bounded_until_their_calls_end() {
        let streams = with(Room { inputs: 100, ..ROOM });
        let begin = |who: &str, input| {
            let place = streams.begin(&Caller::new(who), input, clock::monotonic())?;
            let over = Arc::<OnceLock<Instant>>::default();
            let (_, window) = place.begun("a.b", ModuleDigest::of(b""), &over);
            Ok::<_, Denied>((over, window))
        };
        let refused = |who, input| begin(who, input).unwrap_err().code == "streams_full";
        let (over, window) = begin("a", 30).unwrap();
        assert!(refused("a", 21), "half of the room is one caller's");
        begin("a", 20).unwrap();
        begin("a", 0).unwrap();
        begin("b", 45).unwrap();
        assert!(refused("c", 6));
        // One that never began has left.
        drop(streams.begin(&Caller::new("c"), 5, clock::monotonic()).unwrap());
        begin("c", 5).unwrap();
        assert!(refused("c", 6), "it has its input still");
        assert_eq!(streams.held().1, 100);
        // However much its reader has before him.
        over.set(clock::monotonic()).unwrap();
        assert!(window.end().is_none());
        begin("c", 30).unwrap();
        let alone = with(Room { inputs: 100, ..ROOM });
        alone.begin(&Caller::new("a"), 101, clock::monotonic()).unwrap();
    }

    fn with(room: Room) -> KeptStreams {
        KeptStreams { room, ..KeptStreams::default() }
    }

    fn instance() -> InstanceId {
        InstanceId::parse("i-0123456789abcdef").unwrap()
    }

    /// Ends a call with an output of so many bytes.
    fn end_with(streams: &KeptStreams, id: &str, window: &Window, bytes: usize) -> u64 {
        let outcome = Outcome {
            instance: instance(),
            output: vec![7; bytes],
            exit_code: 0,
            usage: Usage::default(),
            log: Vec::new(),
            metrics: Vec::new(),
        };
        let digest = ModuleDigest::of(b"");
        window.finish(Ok(Executed { digest, outcome, repeated: false, receipt: None }));
        streams.ended(id, clock::monotonic())
    }

    /// What a reader is told at the end: bytes of the output, or why there are none.
    async fn end_of(mut reader: Reader) -> Result<usize, &'static str> {
        let Some(Told::Event(0, Next::Ended(result))) = reader.next().await else { panic!("no end") };
        result.map(|done| done.outcome.output.len()).map_err(|denied| {
            assert_eq!(denied.said.unwrap().instance, instance(), "by it, the receipt is found");
            denied.code
        })
    }

    #[tokio::test]
    async fn results_are_bounded_while_they_are_read_as_well() {
        let streams = with(Room { results: 100, ..ROOM });
        let given_up = std::cell::Cell::new(0);
        let ended = |bytes| {
            let (id, window) = begin(&streams, "a").unwrap();
            let reader = window.read(0).unwrap();
            given_up.set(given_up.get() + end_with(&streams, &id, &window, bytes));
            (window, reader)
        };
        let (unread, taken, small, large) = (ended(10), ended(15), ended(20), ended(40));
        drop(unread.1);
        let mut reading = taken.1;
        assert!(reading.next().await.is_some());
        let kept = |window: &Arc<Window>| window.end().unwrap().bytes > 0;
        let mut held = Vec::new();
        for (bytes, expected) in [
            (20, [false, true, true, true]),
            (15, [false, false, true, true]),
            (20, [false, false, true, false]),
            // Too much for all of them: who reads it gets it all the same.
            (101, [false; 4]),
        ] {
            held.push(ended(bytes));
            let windows = [&unread.0, &taken.0, &small.0, &large.0];
            assert_eq!(windows.map(kept), expected, "{bytes}");
        }
        assert_eq!((given_up.get(), streams.held()), (7, (8, 101)));
        assert_eq!(end_of(held.pop().unwrap().1).await, Ok(101));
        assert_eq!(end_of(large.1).await, Err("answer_not_kept"));
        assert_eq!(end_of(unread.0.read(0).unwrap()).await, Err("answer_not_kept"));
    }

    #[tokio::test]
    async fn what_is_over_is_forgotten_though_nobody_comes() {
        let streams = with(Room { kept: Duration::from_millis(50), ..ROOM });
        let (id, window) = begin(&streams, "a").unwrap();
        let reader = window.read(0).unwrap();
        end(&window);
        streams.ended(&id, clock::monotonic());
        streams.sweep();
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(streams.held().0, 1, "somebody reads it");
        drop(reader);
        let nobody_sweeps = async {
            while streams.is_swept.load(Ordering::Acquire) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), nobody_sweeps).await.unwrap();
        assert_eq!(streams.held(), (0, 0));
        // Whoever ends next has somebody again.
        let (id, window) = begin(&streams, "a").unwrap();
        end(&window);
        streams.ended(&id, clock::monotonic());
        streams.sweep();
        assert!(streams.is_swept.load(Ordering::Acquire));
    }

    #[tokio::test]
    async fn one_task_forgets_all_that_ended() {
        let streams = KeptStreams::default();
        for _ in 0..1000 {
            let (id, window) = begin(&streams, "a").unwrap();
            end(&window);
            streams.ended(&id, clock::monotonic());
            streams.sweep();
            tokio::task::yield_now().await;
        }
        assert_eq!(Arc::strong_count(&streams.streams), 2, "each task has one");
    }

    #[tokio::test]
    async fn a_reader_who_is_stuck_keeps_nothing_of_a_stream_that_is_forgotten() {
        let streams = with(Room { streams: 2, ..ROOM });
        let ended = async |who: &'static str| {
            let (id, window) = begin(&streams, who).unwrap();
            let stuck = window.read(0).unwrap();
            let text = "a line".to_owned();
            let line = crate::abi::sinks::LogRecord { level: crate::abi::sinks::Level::Info, text };
            window.put(Next::Event(StreamEvent::Log(line))).await;
            end_with(&streams, &id, &window, 1000);
            // Another one takes the place, and goes.
            drop(window.read(0).unwrap());
            assert!(window.bytes() > 1000);
            (id, window, stuck)
        };
        // One more makes it give way.
        let (_, window, mut stuck) = ended("a").await;
        begin(&streams, "a").unwrap();
        assert_eq!(window.bytes(), 0);
        assert!(matches!(stuck.next().await, Some(Told::Replaced)));
        // Its time is over.
        let (id, window, _stuck) = ended("b").await;
        let later = clock::monotonic() + ROOM.kept + Duration::from_secs(1);
        assert_eq!(streams.find(&Caller::new("b"), &id, later).unwrap_err().code, "stream_unknown");
        assert_eq!(window.bytes(), 0);
    }
}
