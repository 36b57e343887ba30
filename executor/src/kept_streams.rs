//! Streams that outlive the connection of their reader: whose each is, how many there are, and how long they are kept.
//!
//! A stream belongs to the caller who began its call. To everybody else it is as if there were none, whoever guesses its name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use executor_engine::ModuleDigest;
use parking_lot::Mutex;

use crate::admission::Denied;
use crate::callers::Caller;
use crate::stream_window::Window;

/// Streams of all callers, running and ended; one caller has at most half of them.
const MAX_STREAMS: usize = 128;

/// Bytes of results of those that ended.
const MAX_RESULTS: usize = 64 << 20;

/// How long the end of a call is kept for a reader who comes back.
const KEPT: Duration = Duration::from_secs(60);

/// Every stream that is kept. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeptStreams {
    streams: Arc<Mutex<HashMap<Arc<str>, Stream>>>,
}

#[derive(Debug)]
struct Stream {
    owner: Arc<str>,
    /// Agent and module of the call; nothing while it is about to begin.
    release: Option<(String, ModuleDigest)>,
    window: Arc<Window>,
}

/// A stream that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Agent and module of the call.
    pub(crate) release: (String, ModuleDigest),
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
    /// The call began: the name of its stream, and where its events go.
    pub(crate) fn begun(mut self, agent: &str, digest: ModuleDigest) -> (Arc<str>, Arc<Window>) {
        if let Some(stream) = self.streams.streams.lock().get_mut(&self.id) {
            stream.release = Some((agent.to_owned(), digest));
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
    /// Room for the stream of one more call.
    ///
    /// # Errors
    ///
    /// `streams_full` when all of them, or half of them by this caller, are in use.
    pub(crate) fn begin(&self, caller: &Caller, now: Instant) -> Result<Place, Denied> {
        let mut name = [0; 16];
        let failed =
            |_| Denied::new("internal", "the stream cannot be named").for_operator("no random bytes");
        aws_lc_rs::rand::fill(&mut name).map_err(failed)?;
        let (id, window): (Arc<str>, _) = (hex::encode(name).into(), Arc::<Window>::default());
        let mut streams = self.streams.lock();
        forget_what_is_over(&mut streams, now);
        let owner = Arc::clone(caller.name());
        let own = streams.values().filter(|stream| stream.owner == owner).count();
        let full = if own >= MAX_STREAMS / 2 {
            !forget_oldest(&mut streams, |stream| stream.owner == owner)
        } else {
            streams.len() >= MAX_STREAMS && !forget_oldest(&mut streams, |_| true)
        };
        if full {
            let text = "too many streams are kept; retry later, or call without `resumable`";
            return Err(Denied::new("streams_full", text));
        }
        let stream = Stream { owner, release: None, window: Arc::clone(&window) };
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
        forget_what_is_over(&mut streams, now);
        let own = streams.get(id).filter(|stream| stream.owner == *caller.name());
        let found = own.and_then(|stream| {
            Some(Found { release: stream.release.clone()?, window: Arc::clone(&stream.window) })
        });
        found.ok_or_else(|| {
            Denied::new("stream_unknown", "this caller began no stream of this name, or it is kept no longer")
        })
    }

    /// Makes room where the results of calls that ended take too much, the oldest ones first.
    pub(crate) fn ended(&self) {
        let mut streams = self.streams.lock();
        loop {
            let results = streams.values().filter_map(|stream| stream.window.ended());
            if results.map(|(_, bytes)| bytes).sum::<usize>() <= MAX_RESULTS
                || !forget_oldest(&mut streams, |_| true)
            {
                return;
            }
        }
    }
}

fn forget_what_is_over(streams: &mut HashMap<Arc<str>, Stream>, now: Instant) {
    streams.retain(|_, stream| {
        let ended = stream.window.ended();
        ended.is_none_or(|(at, _)| now.saturating_duration_since(at) < KEPT)
    });
}

/// Forgets the stream that ended first, of those; whether there was one. One that is read is kept.
fn forget_oldest(streams: &mut HashMap<Arc<str>, Stream>, of: impl Fn(&Stream) -> bool) -> bool {
    let ended = streams.iter().filter(|(_, stream)| of(stream));
    let ended = ended.filter_map(|(id, stream)| Some((stream.window.ended()?.0, Arc::clone(id))));
    match ended.min_by_key(|(at, _)| *at) {
        Some((_, id)) => streams.remove(&id).is_some(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::executor::Next;

    fn begin(streams: &KeptStreams, who: &str) -> Result<(Arc<str>, Arc<Window>), Denied> {
        let place = streams.begin(&Caller::new(who), clock::monotonic())?;
        Ok(place.begun("a.b", ModuleDigest::of(b"")))
    }

    fn end(window: &Window) {
        window.push(Next::Ended(Err(Denied::new("trap", "it trapped"))));
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
        let place = streams.begin(&Caller::new("a"), now).unwrap();
        let name = Arc::clone(&place.id);
        assert_eq!(streams.find(&Caller::new("a"), &name, now).unwrap_err().code, "stream_unknown");
        drop(place);
        assert_eq!(streams.streams.lock().len(), 1);
        let later = |seconds| clock::monotonic() + KEPT + Duration::from_secs(seconds);
        assert!(streams.find(&Caller::new("a"), &id, later(1)).is_ok(), "it runs");
        end(&window);
        assert!(streams.find(&Caller::new("a"), &id, clock::monotonic()).is_ok(), "it has just ended");
        assert_eq!(streams.find(&Caller::new("a"), &id, later(1)).unwrap_err().code, "stream_unknown");
    }

    #[test]
    fn streams_are_bounded_and_those_that_ended_make_room() {
        let streams = KeptStreams::default();
        let own: Vec<_> = (0..MAX_STREAMS / 2).map(|_| begin(&streams, "a").unwrap()).collect();
        assert_eq!(begin(&streams, "a").unwrap_err().code, "streams_full", "half of them are one caller's");
        for n in 0..MAX_STREAMS / 2 {
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
}
