//! Calls whose streams are read, by a reader who may come back.
//!
//! A plain reader is part of its call: where it goes, the call ends. Of a resumable call the events are kept, and the call
//! goes on without a reader for a while; whoever began it reads on from any event that is still kept. What an agent streamed
//! is not handed out any more once the agent may not run or is loaded no longer.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use executor_engine::ModuleDigest;

use super::Executor;
use super::calling::{Next, Streaming, Terms};
use crate::admission::Denied;
use crate::callers::Caller;
use crate::clock;
use crate::stream_window::{Reader, Told, Window};

/// How long a call goes on that nobody reads.
const ALONE: Duration = Duration::from_secs(30);

/// How long after the end of a call its reader hears of it as whoever reads along: like a plain reader, however the release was withdrawn
/// meanwhile. Who comes so far later is judged as if he had come back for it, whatever waited for him until then.
const ALONG: Duration = Duration::from_secs(5);

/// What a reader hears.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on its way to the connection")]
pub enum Heard {
    /// By which name the stream is read again.
    Begun(Arc<str>),
    /// What comes next, by its number where the stream can be read again.
    Next(Option<u64>, Next),
    /// So many events would come first, and are kept no longer.
    Gone(u64),
    /// Another reader goes on with the stream; nothing follows.
    Replaced,
}

/// Reads a call.
pub struct Reading(Source);

enum Source {
    /// Dropping it ends the call.
    Plain(Streaming),
    /// Dropping it leaves the call to whoever reads on.
    Kept(KeptReading),
}

/// Reads a call whose events are kept.
struct KeptReading {
    /// The name of the stream, until it was told.
    begun: Option<Arc<str>>,
    /// Nothing once the rest was refused.
    reader: Option<Reader>,
    executor: Arc<Executor>,
    /// Agent and module of the call.
    release: (String, ModuleDigest),
    /// When the call ended, once it has.
    over: Arc<OnceLock<Instant>>,
}

impl Reading {
    /// The next thing; nothing after the end.
    pub async fn next(&mut self) -> Option<Heard> {
        match &mut self.0 {
            Source::Plain(streaming) => streaming.next().await.map(|next| Heard::Next(None, next)),
            Source::Kept(kept) => kept.next().await,
        }
    }
}

impl KeptReading {
    async fn next(&mut self) -> Option<Heard> {
        if let Some(id) = self.begun.take() {
            return Some(Heard::Begun(id));
        }
        let told = self.reader.as_mut()?.next().await?;
        Some(self.heard(told, clock::monotonic()))
    }

    /// What is heard of this at a time.
    fn heard(&mut self, told: Told, now: Instant) -> Heard {
        let metrics = &self.executor.parts.metrics;
        match told {
            Told::Event(number, next) => match self.refused(now) {
                None => Heard::Next(Some(number), next),
                Some(denied) => {
                    metrics.resumable(denied.code, 1);
                    self.reader = None;
                    Heard::Next(None, Next::Ended(Err(denied)))
                }
            },
            Told::Gone(events) => Heard::Gone(events),
            Told::Replaced => {
                metrics.resumable("reader_replaced", 1);
                Heard::Replaced
            }
        }
    }

    /// Why nothing more is handed out, if so.
    fn refused(&self, now: Instant) -> Option<Denied> {
        let ended_at = *self.over.get()?;
        if now.saturating_duration_since(ended_at) < ALONG {
            return None;
        }
        let (agent, digest) = &self.release;
        self.executor.may_be_told(agent, *digest).err()
    }
}

impl Executor {
    /// Runs an agent once, with a reader for what it streams.
    ///
    /// # Errors
    ///
    /// A denial when the agent is unknown or may not run now; `streams_full` for a resumable call that there is no room for. How the
    /// call ended is the last thing that is read.
    pub async fn execute_and_read(
        self: &Arc<Self>,
        name: &str,
        input: Bytes,
        terms: Terms,
    ) -> Result<Reading, Denied> {
        if !terms.resumable {
            return self
                .execute_streaming(name, input, terms)
                .await
                .map(|plain| Reading(Source::Plain(plain)));
        }
        let metrics = &self.parts.metrics;
        let place = self.kept.begin(&terms.caller, input.len(), clock::monotonic());
        let place = place.inspect_err(|denied| metrics.resumable(denied.code, 1))?;
        let streaming = self.execute_streaming(name, input, terms).await;
        let streaming = streaming.inspect_err(|denied| metrics.resumable(denied.code, 1))?;
        let (agent, digest) = streaming.release();
        let (release, over) = ((agent.to_owned(), digest), Arc::clone(streaming.over()));
        let (id, window) = place.begun(agent, digest, &over);
        let reader = window.read(0)?;
        metrics.resumable("begun", 1);
        tokio::spawn(Arc::clone(self).keep_streaming(streaming, window, Arc::clone(&id)));
        Ok(self.kept_reading(Some(id), reader, release, over))
    }

    /// Keeps what a call streams for whoever reads it, until it ends and its end is over.
    async fn keep_streaming(self: Arc<Self>, streaming: Streaming, window: Arc<Window>, id: Arc<str>) {
        let metrics = &self.parts.metrics;
        if fill(streaming, &window, ALONE).await == Filled::LeftAlone {
            metrics.resumable("caller_gone", 1);
        }
        metrics.resumable("answer_not_kept", self.kept.ended(&id, clock::monotonic()));
        self.kept.sweep();
    }

    fn kept_reading(
        self: &Arc<Self>,
        begun: Option<Arc<str>>,
        reader: Reader,
        release: (String, ModuleDigest),
        over: Arc<OnceLock<Instant>>,
    ) -> Reading {
        let executor = Arc::clone(self);
        Reading(Source::Kept(KeptReading { begun, reader: Some(reader), executor, release, over }))
    }

    /// Reads on, from an event by its number.
    ///
    /// # Errors
    ///
    /// `stream_unknown` for a stream that this caller did not begin or that is kept no longer; `invalid_argument` for an event
    /// that there has not been; a denial when the agent may not run any more, or a step of the pipeline; `not_loaded`.
    pub fn read_on(self: &Arc<Self>, caller: &Caller, id: &str, from: u64) -> Result<Reading, Denied> {
        let reading = self.reading(caller, id, from);
        let counted = reading.as_ref().map_or_else(|denied| denied.code, |_| "read_on");
        self.parts.metrics.resumable(counted, 1);
        reading
    }

    fn reading(self: &Arc<Self>, caller: &Caller, id: &str, from: u64) -> Result<Reading, Denied> {
        let found = self.kept.find(caller, id, clock::monotonic())?;
        let (agent, digest) = &found.release;
        self.may_be_told(agent, *digest)?;
        let reader = found.window.read_later(from)?;
        Ok(self.kept_reading(None, reader, found.release, found.over))
    }

    /// How many streams are kept, and the bytes that they take.
    pub(crate) fn kept_streams(&self) -> (u64, u64) {
        let (streams, bytes) = self.kept.held();
        (streams as u64, bytes as u64)
    }
}

/// How the stream of a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// With its call.
    Whole,
    /// Nobody read it any more.
    LeftAlone,
}

/// Takes what a call streams, as fast as its reader does; ends a call that nobody has read for so long.
async fn fill(mut streaming: Streaming, window: &Window, alone: Duration) -> Filled {
    let everything = async {
        loop {
            match streaming.next().await {
                Some(next) => window.put(next).await,
                None => return,
            }
        }
    };
    tokio::select! {
        () = everything => Filled::Whole,
        () = window.left_alone(alone) => {
            let text = format!("nobody read this stream for {} seconds", alone.as_secs());
            window.finish(Err(Denied::new("caller_gone", text)));
            Filled::LeftAlone
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{GrantSet, GrantSources};
    use crate::runtime::{CallLimits, Selector};
    use crate::testing::{Server, admitted, patient, wat_echo, wat_spin};

    /// Streams pieces of one byte for as long as it may.
    const TALKS: &str = r#"(module
      (import "mentat" "start_stream" (func $start (param i32 i32) (result i32)))
      (import "mentat" "write_stream" (func $write (param i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 0) "talk")
      (func (export "process") (result i32) (local $s i32)
        (local.set $s (call $start (i32.const 0) (i32.const 4)))
        (loop $l (drop (call $write (local.get $s) (i32.const 0) (i32.const 1))) (br $l))
        (i32.const 0)))"#;

    fn streaming() -> GrantSet {
        let granted = vec!["extension:stream".parse().unwrap()];
        GrantSources::default().grant(&granted, granted.clone(), &[]).unwrap()
    }

    async fn server(text: &str, agent: &str) -> Server {
        let server = Server::start().await;
        let admitted = admitted(text, streaming(), CallLimits::default()).called(agent, "r@example.org");
        server.executor.admit_for_test(admitted).await;
        server
    }

    fn runs(server: &Server, agent: &str) -> bool {
        server.executor.runtime().live().list().iter().any(|live| live.owner.agent == agent)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_call_that_nobody_reads_ends_after_a_time_and_says_so() {
        let agent = "resume.alone";
        let server = server(wat_spin(), agent).await;
        let begun = server.executor.execute_streaming(agent, Bytes::new(), Terms::default()).await.unwrap();
        let window = Arc::<Window>::default();
        drop(window.read(0).unwrap());
        assert_eq!(fill(begun, &window, Duration::from_millis(30)).await, Filled::LeftAlone);
        while runs(&server, agent) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let told = window.read(0).unwrap().next().await;
        let Some(Told::Event(0, Next::Ended(Err(denied)))) = told else { panic!("{told:?}") };
        assert_eq!(denied.code, "caller_gone");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_call_goes_on_without_its_reader_and_what_it_streams_makes_room() {
        let agent = "resume.talks";
        let server = server(TALKS, agent).await;
        let mut first = server.executor.execute_and_read(agent, Bytes::new(), resumable()).await.unwrap();
        let Some(Heard::Begun(id)) = first.next().await else { panic!("no name") };
        assert!(matches!(first.next().await, Some(Heard::Next(Some(0), Next::Event(_)))));
        drop(first);
        let caller = Caller::default();
        let mut next = 1;
        let gone = loop {
            assert!(runs(&server, agent), "it ended with its reader");
            let mut reading = server.executor.read_on(&caller, &id, next).unwrap();
            match reading.next().await.unwrap() {
                Heard::Gone(events) => break events,
                Heard::Next(Some(number), Next::Event(_)) => {
                    assert_eq!(number, next);
                    next += 1;
                }
                other => panic!("{other:?}"),
            }
            drop(reading);
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!(gone > 0);
        server.executor.revoke_for_test(agent, &server.executor.find(agent).unwrap().digest);
        let refused = server.executor.read_on(&caller, &id, next).err().unwrap();
        assert_eq!(refused.code, "revoked", "what it streamed is nobody's any more");
        // Nobody judges what is not there any more, and it was revoked when it went.
        server.executor.unload(agent).await.unwrap();
        let refused = server.executor.read_on(&caller, &id, next).err().unwrap();
        assert_eq!(refused.code, "not_loaded");
    }

    fn resumable() -> Terms {
        Terms { resumable: true, ..Terms::default() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_takes_the_end_long_after_it_is_judged_as_if_he_came_back() {
        let agent = "resume.late";
        let server = server(wat_echo(), agent).await;
        let begin = async || {
            let begun = server.executor.execute_and_read(agent, Bytes::new(), resumable()).await.unwrap();
            let Reading(Source::Kept(mut kept)) = begun else { panic!("it is not kept") };
            assert!(matches!(kept.next().await, Some(Heard::Begun(_))));
            let told = kept.reader.as_mut().unwrap().next().await.unwrap();
            let ended_at = *kept.over.get().unwrap();
            (kept, told, ended_at)
        };
        let ((mut along, first, at), (mut late, second, ended_at)) = (begin().await, begin().await);
        server.executor.revoke_for_test(agent, &server.executor.find(agent).unwrap().digest);
        assert!(matches!(along.heard(first, at), Heard::Next(Some(0), Next::Ended(Ok(_)))));
        let heard = late.heard(second, ended_at + ALONG);
        let Heard::Next(None, Next::Ended(Err(denied))) = heard else { panic!("{heard:?}") };
        assert_eq!(denied.code, "revoked");
        assert!(late.next().await.is_none(), "and nothing follows");
        assert_eq!(server.counted("mentatlab_resumable_streams_total{reason=\"revoked\"}"), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_stuck_before_the_end_is_judged_by_when_the_call_ended() {
        let agent = "resume.stuck";
        // More than a reader may be behind: its end does not come to where he reads before he takes something.
        let counts = TALKS.replace("(local $s i32)", "(local $s i32) (local $n i32)").replace(
            "(br $l)",
            "(br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 300)))",
        );
        let server = server(&counts, agent).await;
        let begun = server.executor.execute_and_read(agent, Bytes::new(), resumable()).await.unwrap();
        let Reading(Source::Kept(mut kept)) = begun else { panic!("it is not kept") };
        let Some(Heard::Begun(id)) = kept.next().await else { panic!("no name") };
        let over = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                match kept.over.get() {
                    Some(over) => break *over,
                    None => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        });
        let over = over.await.expect("the call waits for its reader");
        let found = server.executor.kept.find(&Caller::default(), &id, over).unwrap();
        assert!(found.window.end().is_none());
        server.executor.revoke_for_test(agent, &server.executor.find(agent).unwrap().digest);
        for (number, now) in [(0, over), (1, over + ALONG)] {
            let told = kept.reader.as_mut().unwrap().next().await.unwrap();
            match kept.heard(told, now) {
                Heard::Next(Some(0), Next::Event(_)) => assert_eq!(number, 0),
                Heard::Next(None, Next::Ended(Err(denied))) => {
                    assert_eq!((number, denied.code), (1, "revoked"));
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(kept.next().await.is_none(), "and nothing follows");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn calls_that_are_over_leave_no_task_each() {
        let agent = "resume.over";
        let server = server(wat_echo(), agent).await;
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        for _ in 0..200 {
            let begun = server.executor.execute_and_read(agent, Bytes::new(), resumable()).await;
            let mut reading = begun.unwrap();
            while reading.next().await.is_some() {}
        }
        // Those of the last ones may be about to end.
        let over = async {
            while tasks() > before + 50 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), over)
            .await
            .expect("they sleep until their streams are over");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_result_takes_room_until_its_reader_comes_so_far_or_goes() {
        let agent = "resume.unread";
        let server = server(wat_echo(), agent).await;
        let unread = &server.executor.unread;
        let until = async |fits: fn(usize) -> bool| {
            let looks = async {
                while !fits(unread.bytes()) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), looks).await.expect("it is counted");
        };
        let begin = async || {
            let input = Bytes::from(vec![7; 1000]);
            server.executor.execute_streaming(agent, input, Terms::default()).await.unwrap()
        };
        let (mut read, left) = (begin().await, begin().await);
        until(|bytes| bytes >= 2000).await;
        assert!(server.counted("mentatlab_results_unread_bytes") >= 2000);
        let Some(Next::Ended(Ok(done))) = read.next().await else { panic!("no result") };
        assert_eq!(done.outcome.output.len(), 1000);
        until(|bytes| (1000..2000).contains(&bytes)).await;
        drop(left);
        until(|bytes| bytes == 0).await;
    }

    #[tokio::test]
    async fn who_is_refused_a_beginning_is_counted_whatever_refuses_him() {
        let server = server(wat_echo(), "resume.known").await;
        let refused = server.executor.execute_and_read("resume.unknown", Bytes::new(), resumable()).await;
        assert_eq!(refused.err().unwrap().code, "not_loaded");
        let counted = |reason: &str| {
            server.counted(&format!("mentatlab_resumable_streams_total{{reason=\"{reason}\"}}"))
        };
        assert_eq!((counted("not_loaded"), counted("begun")), (1, 0));
    }

    #[cfg(feature = "pipelines")]
    #[tokio::test(flavor = "multi_thread")]
    async fn the_stream_of_a_pipeline_whose_step_may_not_run_is_not_read_on() {
        use crate::executor::composing_tests::{DRAFT, Draft, agent, compose};
        let server = Server::start().await;
        let step = agent(&server, "resume.step", crate::testing::wat_echo()).await;
        let steps = [Draft { name: "only", agent: "resume.step", module: &step, ..DRAFT }];
        compose(&server, "resume.whole", &steps).await;
        let terms = Terms { resumable: true, ..Terms::default() };
        let input = Bytes::from_static(b"said");
        let mut first = server.executor.execute_and_read("resume.whole", input, terms).await.unwrap();
        let Some(Heard::Begun(id)) = first.next().await else { panic!("no name") };
        while first.next().await.is_some() {}
        let caller = Caller::default();
        let mut again = server.executor.read_on(&caller, &id, 0).unwrap();
        assert!(matches!(again.next().await, Some(Heard::Next(_, Next::Ended(Ok(_))))));
        server.executor.revoke_for_test("resume.step", &step);
        assert_eq!(server.executor.read_on(&caller, &id, 0).err().unwrap().code, "revoked");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn inputs_of_resumable_calls_have_bounded_room_until_they_end() {
        let agent = "resume.inputs";
        let server = Server::start().await;
        let admitted = admitted(wat_spin(), streaming(), patient()).called(agent, "r@example.org");
        server.executor.admit_for_test(admitted).await;
        // One caller has half of 64 MiB.
        let input = Bytes::from(vec![0; 17 << 20]);
        let begin = async || {
            let terms = Terms { resumable: true, ..Terms::default() };
            server.executor.execute_and_read(agent, input.clone(), terms).await
        };
        // Whoever sent it hangs up, and it is still there.
        drop(begin().await.unwrap());
        assert_eq!(begin().await.err().unwrap().code, "streams_full");
        let counted = |reason: &str| {
            server.counted(&format!("mentatlab_resumable_streams_total{{reason=\"{reason}\"}}"))
        };
        assert_eq!((counted("begun"), counted("streams_full")), (1, 1));
        assert_eq!(server.counted("mentatlab_streams_kept"), 1);
        assert!(server.counted("mentatlab_streams_kept_bytes") >= 17 << 20);
        let selector = Selector { agent: Some(agent.into()), ..Selector::default() };
        assert_eq!(server.executor.stop(&selector).unwrap(), 1);
        let next = loop {
            match begin().await {
                Ok(next) => break next,
                Err(denied) => assert_eq!(denied.code, "streams_full"),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        drop(next);
        server.executor.stop(&selector).unwrap();
    }

    #[tokio::test]
    async fn only_calls_whose_streams_are_read_are_resumable() {
        let server = server(wat_spin(), "resume.plain").await;
        let terms = Terms { resumable: true, ..Terms::default() };
        let refused = server.executor.execute("resume.plain", Bytes::new(), terms).await.unwrap_err();
        assert_eq!(refused.code, "invalid_argument");
    }
}
