//! Signing off the caller's thread, with bounded threads and a bounded queue.
//!
//! Signers block; an asynchronous server must not call them on its workers. A [`SigningPool`] has a fixed number of
//! threads and a queue of fixed length; when the queue is full the answer is [`Error::Transient`] at once, which a
//! server turns into a 503. The returned [`PendingSignature`] is a future and can also be waited for.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};

use crate::algorithm::SignatureAlgorithm;
use crate::error::Error;
use crate::intent::SigningIntent;
use crate::signer::{Input, Signature, Signer};

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

/// Threads that sign.
pub struct SigningPool {
    queue: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl SigningPool {
    /// Starts `threads` threads (at least one) with a queue of `queue` waiting signatures (at least one).
    ///
    /// # Errors
    /// [`Error::Permanent`] when the system refuses a thread.
    pub fn new(threads: usize, queue: usize) -> Result<Self, Error> {
        let (sender, receiver) = sync_channel::<Job>(queue.max(1));
        let receiver = Arc::new(Mutex::new(receiver));
        let threads = (0..threads.max(1))
            .map(|number| {
                let receiver = Arc::clone(&receiver);
                thread::Builder::new()
                    .name(format!("signer-{number}"))
                    .spawn(move || work(&receiver))
                    .map_err(|e| Error::Permanent { detail: format!("cannot start a signing thread: {e}") })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { queue: Some(sender), threads })
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
        let busy = |detail: &str| Error::Transient { detail: detail.to_owned() };
        let Some(queue) = &self.queue else { return Err(busy("the signing pool is stopped")) };
        queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => busy("the signing queue is full"),
            TrySendError::Disconnected(_) => busy("the signing pool is stopped"),
        })?;
        Ok(PendingSignature { shared })
    }
}

impl Drop for SigningPool {
    /// Lets the queued signatures finish, then stops the threads.
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            // A panic was answered as ambiguous already.
            let _ = thread.join();
        }
    }
}

fn work(receiver: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is held only while waiting for a job; one idle thread waits in recv, the others at the lock.
        let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut job) = job else { return };
        let result = catch_unwind(AssertUnwindSafe(|| {
            job.signer.sign(job.input.as_input(), job.algorithm, &job.intent)
        }));
        job.answer.give(
            result.unwrap_or_else(|_| Err(Error::Ambiguous { detail: "the signer panicked".to_owned() })),
        );
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
}

/// The giving half: answers even when it is dropped unanswered.
struct Answer {
    shared: Option<Arc<Shared>>,
}

impl Answer {
    fn give(&mut self, result: Result<Signature, Error>) {
        let Some(shared) = self.shared.take() else { return };
        let waker = {
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.result = Some(result);
            state.waker.take()
        };
        shared.ready.notify_all();
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
