//! Answers to calls with an idempotency key: the key that comes again gets the first answer, and nothing runs twice.
//!
//! A key is one caller's own. It is known from the moment its call is taken until some time after that ended, and stands for
//! one request: another one under the same key is refused. Where answers take more memory than they may, those of whoever
//! keeps most go first. What stays known of them is that they ran, so that they do not run again. Inputs of calls under way have as
//! much room of their own: such a call outlives its connection, and with it what bounds the bytes of requests.
//!
//! What did not run leaves no trace. Nothing of this outlives the process.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::admission::Denied;
use crate::callers::Caller;
use crate::clock;
use crate::executor::Repeatable;
use crate::runtime::InstanceId;

/// Longest key, bytes.
const MAX_KEY: usize = 128;

/// What one answer takes besides its bytes.
const ENVELOPE: usize = 512;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct AnswerLimits {
    /// After the end of a call.
    pub window: Duration,
    /// Keys of all callers; one caller has at most half of them.
    pub keys: usize,
    /// Bytes of answers, and as many of inputs of calls under way. Those of one caller have at most half of them, or are one input.
    pub bytes: usize,
}

/// One caller's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    caller: Arc<str>,
    text: Arc<str>,
}

impl Key {
    /// # Errors
    ///
    /// `invalid_argument` for a text that is no key.
    pub(crate) fn of(caller: &Caller, text: &str) -> Result<Self, Denied> {
        if text.is_empty() || text.len() > MAX_KEY || !text.bytes().all(|b| b.is_ascii_graphic()) {
            let text =
                format!("`idempotency_key` has 1 to {MAX_KEY} printable characters of ASCII, and no space");
            return Err(Denied::new("invalid_argument", text));
        }
        Ok(Self { caller: Arc::clone(caller.name()), text: text.into() })
    }
}

/// SHA-256 of what a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request([u8; 32]);

impl Request {
    /// Of an agent as it was named, an input and a session. How long a caller waits, and who follows the call, is not what it
    /// asks for.
    pub(crate) fn of(agent: &str, session: Option<&str>, input: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        // Each part after its length: no two requests are the same bytes.
        for part in [agent.as_bytes(), session.unwrap_or_default().as_bytes(), input] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self(digest)
    }
}

/// What is kept of a call: `T` is its answer.
#[derive(Debug)]
pub(crate) enum Told<T> {
    /// How it ended.
    Answer(Arc<T>),
    /// It ran, as this instance if that is known. The answer had to make room, or nobody knows it.
    NotKept(Option<InstanceId>),
}

impl<T> Clone for Told<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Answer(answer) => Self::Answer(Arc::clone(answer)),
            Self::NotKept(instance) => Self::NotKept(*instance),
        }
    }
}

/// Who comes with a key.
pub(crate) enum Coming<T> {
    /// Nobody had it: the call is to be made.
    First(First<T>),
    /// Somebody had it.
    Again(Again<T>),
}

/// Waits for the answer of a call that another request makes or made.
pub(crate) struct Again<T>(watch::Receiver<Option<Told<T>>>);

impl<T> Again<T> {
    /// What became of it.
    pub(crate) async fn told(mut self) -> Told<T> {
        // Its sender lives as long as the key, and says what there is to say before the key goes.
        let told = self.0.wait_for(Option::is_some).await;
        told.ok().and_then(|told| told.clone()).unwrap_or(Told::NotKept(None))
    }
}

/// Must say how its call ended. Dropped without a word, nobody knows whether it ran, and it does not run again.
pub(crate) struct First<T> {
    answers: Arc<Mutex<Inner<T>>>,
    key: Option<Key>,
    /// Bytes of the call's input.
    input: usize,
}

impl<T> First<T> {
    /// The call ran as this instance and ended so; `bytes` is what the answer takes.
    pub(crate) fn ran(mut self, answer: Arc<T>, instance: Option<InstanceId>, bytes: usize, now: Instant) {
        if let Some(key) = self.key.take() {
            let bytes = bytes.saturating_add(ENVELOPE);
            let mut answers = self.answers.lock();
            answers.input_left(&key, self.input);
            answers.end(&key, Told::Answer(answer), instance, bytes, now);
        }
    }

    /// Nothing ran. Whoever waits is told the same, and whoever comes next is the first.
    pub(crate) fn did_not_run(mut self, answer: Arc<T>) {
        if let Some(key) = self.key.take() {
            let mut answers = self.answers.lock();
            answers.input_left(&key, self.input);
            if let Some(entry) = answers.keys.remove(&key) {
                entry.told.send_replace(Some(Told::Answer(answer)));
                answers.left(&key);
            }
        }
    }
}

impl<T> Drop for First<T> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            let mut answers = self.answers.lock();
            answers.input_left(&key, self.input);
            answers.end(&key, Told::NotKept(None), None, 0, clock::monotonic());
        }
    }
}

/// The keys that are known, and their answers.
pub(crate) struct Answers<T = Repeatable> {
    inner: Arc<Mutex<Inner<T>>>,
}

struct Inner<T> {
    limits: AnswerLimits,
    keys: HashMap<Key, Entry<T>>,
    /// Keys of calls that ended, in that order.
    ended: VecDeque<(Instant, Key)>,
    callers: HashMap<Arc<str>, Held>,
    bytes: usize,
    /// Bytes of inputs of calls under way.
    inputs: usize,
}

struct Entry<T> {
    request: Request,
    told: watch::Sender<Option<Told<T>>>,
    instance: Option<InstanceId>,
    /// What its answer takes, while there is one.
    bytes: usize,
}

/// What is kept for one caller.
#[derive(Default)]
struct Held {
    keys: usize,
    bytes: usize,
    inputs: usize,
    /// Keys with an answer, in the order in which their calls ended.
    kept: VecDeque<Key>,
}

impl<T> Answers<T> {
    pub(crate) fn new(limits: AnswerLimits) -> Self {
        let (keys, ended, callers) = (HashMap::new(), VecDeque::new(), HashMap::new());
        let inner = Inner { limits, keys, ended, callers, bytes: 0, inputs: 0 };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Takes a request under a key, with so many bytes of input.
    ///
    /// # Errors
    ///
    /// `idempotency_key_reused` when the key stands for another request, `idempotency_keys_full` when there is no room for it.
    pub(crate) fn come(
        &self,
        key: Key,
        request: Request,
        input: usize,
        now: Instant,
    ) -> Result<Coming<T>, Denied> {
        let mut inner = self.inner.lock();
        inner.forget_what_is_over(now);
        if let Some(entry) = inner.keys.get(&key) {
            if entry.request != request {
                let text = "this idempotency key stands for another request; use a new one for each";
                return Err(Denied::new("idempotency_key_reused", text));
            }
            return Ok(Coming::Again(Again(entry.told.subscribe())));
        }
        let (own, inputs) = inner.callers.get(&key.caller).map_or((0, 0), |held| (held.keys, held.inputs));
        if inner.keys.len() >= inner.limits.keys || own >= inner.limits.keys.div_ceil(2) {
            let text = "too many idempotency keys are in use; retry later, or call without one";
            return Err(Denied::new("idempotency_keys_full", text));
        }
        // Alone an input may be longer than the room, as an answer may: it is bounded by what a call takes.
        let fits = |held: usize, room: usize| held == 0 || input == 0 || held.saturating_add(input) <= room;
        let room = inner.limits.bytes;
        if !fits(inner.inputs, room) || !fits(inputs, room.div_ceil(2)) {
            let text =
                "inputs of calls with idempotency keys take too much room; retry later, or call without one";
            return Err(Denied::new("idempotency_keys_full", text));
        }
        inner.inputs = inner.inputs.saturating_add(input);
        let held = inner.callers.entry(Arc::clone(&key.caller)).or_default();
        (held.keys, held.inputs) = (held.keys + 1, held.inputs.saturating_add(input));
        let entry = Entry { request, told: watch::Sender::new(None), instance: None, bytes: 0 };
        inner.keys.insert(key.clone(), entry);
        Ok(Coming::First(First { answers: Arc::clone(&self.inner), key: Some(key), input }))
    }
}

impl<T> Inner<T> {
    fn forget_what_is_over(&mut self, now: Instant) {
        let window = self.limits.window;
        let over = |(at, _): &(Instant, Key)| now.saturating_duration_since(*at) >= window;
        while self.ended.front().is_some_and(over) {
            let Some((_, key)) = self.ended.pop_front() else { return };
            if self.keys.get(&key).is_some_and(|entry| entry.bytes > 0) {
                self.let_go(&key.caller);
            }
            self.keys.remove(&key);
            self.left(&key);
        }
    }

    /// The call of a key has its input no longer.
    fn input_left(&mut self, key: &Key, input: usize) {
        self.inputs = self.inputs.saturating_sub(input);
        if let Some(held) = self.callers.get_mut(&key.caller) {
            held.inputs = held.inputs.saturating_sub(input);
        }
    }

    /// A key is known no longer.
    fn left(&mut self, key: &Key) {
        if let Some(held) = self.callers.get_mut(&key.caller) {
            held.keys = held.keys.saturating_sub(1);
            if held.keys == 0 {
                self.callers.remove(&key.caller);
            }
        }
    }

    fn end(&mut self, key: &Key, told: Told<T>, instance: Option<InstanceId>, bytes: usize, now: Instant) {
        let Some(entry) = self.keys.get_mut(key) else { return };
        entry.instance = instance;
        entry.told.send_replace(Some(told));
        self.ended.push_back((now, key.clone()));
        if bytes == 0 {
            return;
        }
        entry.bytes = bytes;
        self.bytes = self.bytes.saturating_add(bytes);
        if let Some(held) = self.callers.get_mut(&key.caller) {
            held.bytes = held.bytes.saturating_add(bytes);
            held.kept.push_back(key.clone());
        }
        while self.bytes > self.limits.bytes {
            let most = self.callers.iter().max_by_key(|(_, held)| held.bytes);
            let Some(caller) = most.map(|(caller, _)| Arc::clone(caller)) else { return };
            if !self.let_go(&caller) {
                return;
            }
        }
    }

    /// Gives up the oldest answer of a caller; whether there was one.
    fn let_go(&mut self, caller: &Arc<str>) -> bool {
        let Some(held) = self.callers.get_mut(caller) else { return false };
        let Some(key) = held.kept.pop_front() else { return false };
        if let Some(entry) = self.keys.get_mut(&key) {
            let bytes = std::mem::take(&mut entry.bytes);
            held.bytes = held.bytes.saturating_sub(bytes);
            self.bytes = self.bytes.saturating_sub(bytes);
            entry.told.send_replace(Some(Told::NotKept(entry.instance)));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn answers(keys: usize, bytes: usize) -> Answers<u32> {
        Answers::new(AnswerLimits { window: WINDOW, keys, bytes })
    }

    fn key(caller: &str, text: &str) -> Key {
        Key::of(&Caller::new(caller), text).unwrap()
    }

    fn first(answers: &Answers<u32>, key: Key, now: Instant) -> First<u32> {
        match answers.come(key, Request::of("a", None, b""), 0, now) {
            Ok(Coming::First(first)) => first,
            Ok(Coming::Again(_)) => panic!("it was there before"),
            Err(denied) => panic!("{denied}"),
        }
    }

    async fn again(answers: &Answers<u32>, key: Key, now: Instant) -> Option<u32> {
        match answers.come(key, Request::of("a", None, b""), 0, now).unwrap() {
            Coming::First(_) => panic!("it was not there before"),
            Coming::Again(again) => match again.told().await {
                Told::Answer(answer) => Some(*answer),
                Told::NotKept(_) => None,
            },
        }
    }

    #[tokio::test]
    async fn a_key_has_one_answer_for_one_caller_and_one_request_until_its_time_is_over() {
        let (answers, now) = (answers(10, 1 << 20), clock::monotonic());
        let call = first(&answers, key("c", "k"), now);
        let Ok(Coming::Again(waits)) = answers.come(key("c", "k"), Request::of("a", None, b""), 0, now)
        else {
            panic!("in flight")
        };
        let waits = tokio::spawn(waits.told());
        let other = answers.come(key("c", "k"), Request::of("a", Some("s"), b""), 0, now);
        assert_eq!(other.map(drop).unwrap_err().code, "idempotency_key_reused");
        call.ran(Arc::new(7), None, 1, now);
        assert!(matches!(waits.await.unwrap(), Told::Answer(answer) if *answer == 7));
        assert_eq!(again(&answers, key("c", "k"), now + WINDOW / 2).await, Some(7));
        // Nobody sees what another caller was answered.
        first(&answers, key("d", "k"), now).ran(Arc::new(8), None, 1, now);
        assert_eq!(again(&answers, key("c", "k"), now).await, Some(7));
        // The time counts from the end, also where the answer was asked for meanwhile.
        first(&answers, key("c", "k"), now + WINDOW).ran(Arc::new(9), None, 1, now + WINDOW);
        assert_eq!(again(&answers, key("c", "k"), now + WINDOW).await, Some(9));
    }

    #[tokio::test]
    async fn what_did_not_run_may_run_and_what_may_have_run_does_not() {
        let (answers, now) = (answers(10, 1 << 20), clock::monotonic());
        let call = first(&answers, key("c", "k"), now);
        let Ok(Coming::Again(waits)) = answers.come(key("c", "k"), Request::of("a", None, b""), 0, now)
        else {
            panic!("in flight")
        };
        call.did_not_run(Arc::new(1));
        assert!(matches!(waits.told().await, Told::Answer(answer) if *answer == 1));
        drop(first(&answers, key("c", "k"), now));
        assert_eq!(again(&answers, key("c", "k"), now).await, None, "its end is not known");
    }

    #[tokio::test]
    async fn keys_are_bounded_and_one_caller_has_at_most_half() {
        let (answers, now) = (answers(4, 1 << 20), clock::monotonic());
        let _held = [first(&answers, key("c", "1"), now), first(&answers, key("c", "2"), now)];
        let full = |caller: &str, at| {
            let come = answers.come(key(caller, "3"), Request::of("a", None, b""), 0, at);
            come.err().map(|denied| denied.code)
        };
        assert_eq!(full("c", now), Some("idempotency_keys_full"));
        first(&answers, key("d", "1"), now).ran(Arc::new(0), None, 1, now);
        first(&answers, key("e", "1"), now).ran(Arc::new(0), None, 1, now);
        assert_eq!(full("f", now), Some("idempotency_keys_full"));
        assert_eq!(full("f", now + WINDOW), None, "two were forgotten");
        let inner = answers.inner.lock();
        // That last request was dropped without a word, and stays known.
        assert_eq!((inner.keys.len(), inner.callers.len(), inner.bytes), (3, 2, 0));
    }

    #[tokio::test]
    async fn answers_are_bounded_and_whoever_keeps_most_gives_way() {
        let (answers, now) = (answers(100, 10 * (1000 + ENVELOPE)), clock::monotonic());
        first(&answers, key("small", "k"), now).ran(Arc::new(1), None, 1000, now);
        for n in 0..20_u32 {
            first(&answers, key("large", &n.to_string()), now).ran(Arc::new(n), None, 1000, now);
        }
        assert_eq!(again(&answers, key("small", "k"), now).await, Some(1));
        assert_eq!(again(&answers, key("large", "10"), now).await, None);
        assert_eq!(again(&answers, key("large", "11"), now).await, Some(11));
        // One that is larger than all of the room is not kept, and pushes nobody else out.
        first(&answers, key("huge", "k"), now).ran(Arc::new(2), None, 1 << 20, now);
        assert_eq!(again(&answers, key("huge", "k"), now).await, None);
        assert_eq!(again(&answers, key("small", "k"), now).await, Some(1));
        assert!(answers.inner.lock().bytes <= 10 * (1000 + ENVELOPE));
        let later = now + WINDOW;
        drop(answers.come(key("x", "x"), Request::of("a", None, b""), 0, later));
        let inner = answers.inner.lock();
        assert_eq!((inner.keys.len(), inner.callers.len(), inner.bytes), (1, 1, 0));
    }

    #[tokio::test]
    async fn inputs_of_calls_under_way_are_bounded_and_one_caller_has_at_most_half() {
        let (answers, now) = (answers(100, 1000), clock::monotonic());
        let come = |caller: &str, text: &str, input: usize| {
            let request = Request::of("a", None, text.as_bytes());
            answers.come(key(caller, text), request, input, now)
        };
        let begun = |caller: &str, text: &str, input: usize| match come(caller, text, input) {
            Ok(Coming::First(first)) => first,
            _ => panic!("{caller} {text} was not begun"),
        };
        let full = |caller: &str, input: usize| come(caller, "full", input).err().map(|denied| denied.code);
        let mut under_way = vec![begun("c", "1", 300), begun("c", "2", 200)];
        assert_eq!(full("c", 1), Some("idempotency_keys_full"));
        under_way.push(begun("d", "1", 400));
        assert_eq!(full("e", 101), Some("idempotency_keys_full"), "of all callers");
        under_way.push(begun("e", "1", 100));
        // However a call ends, its input is gone.
        for (n, first) in under_way.into_iter().enumerate() {
            match n {
                0 => first.ran(Arc::new(0), None, 1, now),
                1 => first.did_not_run(Arc::new(0)),
                _ => drop(first),
            }
        }
        assert_eq!(answers.inner.lock().inputs, 0);
        assert!(answers.inner.lock().callers.values().all(|held| held.inputs == 0));
        // Longer than all of the room: alone.
        let large = begun("c", "large", 5000);
        assert_eq!(full("d", 1), Some("idempotency_keys_full"));
        drop(begun("d", "empty", 0));
        drop(large);
        drop(begun("d", "after", 1));
    }

    #[test]
    fn keys_and_requests_are_told_apart() {
        let caller = Caller::default();
        for wrong in ["", "a b", "ä", "a\n", &"x".repeat(MAX_KEY + 1)] {
            assert_eq!(Key::of(&caller, wrong).unwrap_err().code, "invalid_argument", "{wrong}");
        }
        assert!(Key::of(&caller, &"x".repeat(MAX_KEY)).is_ok());
        let requests = [("ab", None, "c"), ("a", None, "bc"), ("a", Some("b"), "c"), ("a", Some("c"), "b")]
            .map(|(agent, session, input)| Request::of(agent, session, input.as_bytes()).0);
        for (n, one) in requests.iter().enumerate() {
            assert!(!requests.iter().skip(n + 1).any(|other| other == one));
        }
    }
}
