//! Signing off the caller's thread, with bounded threads and a bounded queue.
//!
//! Signers block; an asynchronous server must not call them on its workers. A [`SigningPool`] has a fixed number of
//! threads and a queue of fixed length; when the queue is full the answer is [`Error::Transient`] at once, which a
//! server turns into a 503. The returned [`PendingSignature`] is a future and can also be waited for.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};

use crate::algorithm::SignatureAlgorithm;
use crate::error::Error;
use crate::intent::SigningIntent;
use crate::signer::{Input, Pace, Signature, Signer};

/// What is signed, owned.
#[derive(Clone, Debug)]
pub enum OwnedInput {
    /// The whole message.
    Message(Vec<u8>),
    /// The digest of the message under the algorithm's own hash.
    Digest(Vec<u8>),
}

impl OwnedInput {
    fn as_input(&self) -> Input<'_> {
        match self {
            Self::Message(message) => Input::Message(message),
            Self::Digest(digest) => Input::Digest(digest),
        }
    }
}

struct Job {
    signer: Arc<dyn Signer>,
    input: OwnedInput,
    algorithm: SignatureAlgorithm,
    intent: SigningIntent,
    answer: Answer,
}

/// Signatures that wait for a thread. A job wakes one thread, and none while all are busy.
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    limit: usize,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Threads that sleep: only then is there anybody to wake, which is a call of the system.
    idle: usize,
    stopped: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; nothing once the pool has stopped and all is done.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.stopped {
                return None;
            }
            waiting.idle += 1;
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.idle -= 1;
        }
    }
}

/// Threads that sign.
pub struct SigningPool {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl SigningPool {
    /// Starts `threads` threads (at least one) with a queue of `queue` waiting signatures (at least one).
    ///
    /// # Errors
    /// [`Error::Permanent`] when the system refuses a thread.
    pub fn new(threads: usize, queue: usize) -> Result<Self, Error> {
        let queue =
            Arc::new(Queue { waiting: Mutex::default(), filled: Condvar::new(), limit: queue.max(1) });
        // Dropped with those that run when the system refuses one, so that none is left behind.
        let mut pool = Self { queue, threads: Vec::new() };
        for number in 0..threads.max(1) {
            let queue = Arc::clone(&pool.queue);
            let thread = thread::Builder::new()
                .name(format!("signer-{number}"))
                .spawn(move || work(&queue))
                .map_err(|e| Error::Permanent { detail: format!("cannot start a signing thread: {e}") })?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Hands in one signature. Dropping the returned value does not cancel it.
    ///
    /// # Errors
    /// [`Error::Transient`] when the queue is full; nothing was signed then.
    pub fn submit(
        &self,
        signer: Arc<dyn Signer>,
        input: OwnedInput,
        algorithm: SignatureAlgorithm,
        intent: SigningIntent,
    ) -> Result<PendingSignature, Error> {
        let shared = Arc::new(Shared::default());
        let job =
            Job { signer, input, algorithm, intent, answer: Answer { shared: Some(Arc::clone(&shared)) } };
        let mut waiting = self.queue.lock();
        if waiting.jobs.len() >= self.queue.limit {
            return Err(Error::Transient { detail: "the signing queue is full".to_owned() });
        }
        waiting.jobs.push_back(job);
        let wake = waiting.idle > 0;
        drop(waiting);
        if wake {
            self.queue.filled.notify_one();
        }
        Ok(PendingSignature { shared })
    }

    /// As [`Self::submit`], but what a [`Pace::Prompt`] signer signs is signed on the caller's thread before this returns: for
    /// callers of whom there are few at once, not for what strangers ask for in any number.
    ///
    /// # Errors
    /// As [`Self::submit`]; a prompt signer has no queue that could be full.
    pub fn submit_or_sign(
        &self,
        signer: Arc<dyn Signer>,
        input: OwnedInput,
        algorithm: SignatureAlgorithm,
        intent: SigningIntent,
    ) -> Result<PendingSignature, Error> {
        match signer.pace() {
            Pace::Blocks => self.submit(signer, input, algorithm, intent),
            Pace::Prompt => {
                let state =
                    State { result: Some(signed(&*signer, &input, algorithm, &intent)), ..State::default() };
                let shared = Shared { state: Mutex::new(state), ready: Condvar::new() };
                Ok(PendingSignature { shared: Arc::new(shared) })
            }
        }
    }
}

/// Signs; a signer that panics leaves it open whether there is a signature.
fn signed(
    signer: &dyn Signer,
    input: &OwnedInput,
    algorithm: SignatureAlgorithm,
    intent: &SigningIntent,
) -> Result<Signature, Error> {
    let result = catch_unwind(AssertUnwindSafe(|| signer.sign(input.as_input(), algorithm, intent)));
    result.unwrap_or_else(|_| Err(Error::Ambiguous { detail: "the signer panicked".to_owned() }))
}

impl Drop for SigningPool {
    /// Lets the queued signatures finish, then stops the threads.
    fn drop(&mut self) {
        self.queue.lock().stopped = true;
        self.queue.filled.notify_all();
        for thread in self.threads.drain(..) {
            // A panic was answered as ambiguous already.
            let _ = thread.join();
        }
    }
}

fn work(queue: &Queue) {
    while let Some(mut job) = queue.next() {
        let result = signed(&*job.signer, &job.input, job.algorithm, &job.intent);
        job.answer.give(result);
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    result: Option<Result<Signature, Error>>,
    waker: Option<Waker>,
    /// A thread sleeps until there is a result.
    blocked: bool,
}

/// The giving half: answers even when it is dropped unanswered.
struct Answer {
    shared: Option<Arc<Shared>>,
}

impl Answer {
    fn give(&mut self, result: Result<Signature, Error>) {
        let Some(shared) = self.shared.take() else { return };
        let (waker, blocked) = {
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.result = Some(result);
            (state.waker.take(), state.blocked)
        };
        if blocked {
            shared.ready.notify_all();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.give(Err(Error::Transient { detail: "the signing pool stopped before it signed".to_owned() }));
    }
}

/// A signature that is being made. A future; or [`PendingSignature::wait`].
#[must_use = "the signature is made even if nobody takes it"]
pub struct PendingSignature {
    shared: Arc<Shared>,
}

impl PendingSignature {
    /// Blocks until the signature is made or refused.
    ///
    /// # Errors
    /// As [`Signer::sign`].
    pub fn wait(self) -> Result<Signature, Error> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = state.result.take() {
                return result;
            }
            state.blocked = true;
            state = self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Future for PendingSignature {
    type Output = Result<Signature, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests;
