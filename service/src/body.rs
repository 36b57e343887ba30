//! Bodies of requests, bounded in length and in patience.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::budget::{Account, Loan};
use crate::clock::monotonic;
use crate::config::Limits;

/// Slowest body, in bytes a second, that is worth a place beyond the body timeout: a client on a bad mobile connection
/// reaches several times as much.
pub(crate) const SLOWEST: u64 = 16 * 1024;

/// Boxed error of a body, as hyper takes it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a body cannot be read, or written, to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The connection failed.
    #[error("the connection failed while the body was read")]
    Connection(#[source] hyper::Error),
    /// Too many bytes of answers, or of request bodies, are under way to go on with this one.
    #[error("too many bytes are under way")]
    Overloaded,
    /// The client paused for too long.
    #[error("the client stopped sending the body")]
    Stalled,
    /// It is longer than allowed.
    #[error("the request body is longer than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
}

/// How reading a request body went; the dispatcher answers by it, whatever the routes made of the error, and keeps it until
/// there is an answer: so long its bytes count.
#[derive(Debug)]
pub(crate) struct Outcome {
    state: AtomicU8,
    account: Arc<Account>,
    /// Bytes that came, by where they are counted.
    free: AtomicU64,
    borrowed: AtomicU64,
    /// What was left of it by whoever was to read it; see `linger`.
    rest: Mutex<Option<Incoming>>,
}

/// What becomes of a body that is not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// It is dropped, and the connection with it.
    Dropped,
    /// It is kept for the dispatcher.
    Kept,
}

/// A failure to read a body, as the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFailure {
    NoRoom,
    Stalled,
    TooLarge,
}

impl Outcome {
    const STALLED: u8 = 1;
    const TOO_LARGE: u8 = 2;
    const READ: u8 = 3;
    const NO_ROOM: u8 = 4;

    fn new(account: &Arc<Account>) -> Self {
        Self {
            state: AtomicU8::new(0),
            account: Arc::clone(account),
            free: AtomicU64::new(0),
            borrowed: AtomicU64::new(0),
            rest: Mutex::default(),
        }
    }

    /// Counts bytes that came; whether there is room for them.
    fn came(&self, bytes: u64) -> bool {
        match self.account.lend(bytes) {
            Some(Loan::Budget) => {
                self.account.moved(bytes);
                self.borrowed.fetch_add(bytes, Ordering::Relaxed);
            }
            Some(_) => drop(self.free.fetch_add(bytes, Ordering::Relaxed)),
            None => return false,
        }
        true
    }

    /// The body was read to its end: what it holds waits for the server now.
    fn is_whole(&self) {
        if self.state.swap(Self::READ, Ordering::Relaxed) != Self::READ {
            self.account.settle(self.borrowed.load(Ordering::Relaxed));
        }
    }

    /// Whether a part of the body was left on the connection, which then serves no other request.
    pub(crate) fn left_unread(&self) -> bool {
        self.state.load(Ordering::Relaxed) != Self::READ
    }

    /// What was left, once.
    pub(crate) fn take_rest(&self) -> Option<Incoming> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn failure(&self) -> Option<BodyFailure> {
        match self.state.load(Ordering::Relaxed) {
            Self::STALLED => Some(BodyFailure::Stalled),
            Self::TOO_LARGE => Some(BodyFailure::TooLarge),
            Self::NO_ROOM => Some(BodyFailure::NoRoom),
            _ => None,
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        self.account.give_back(Loan::Free, *self.free.get_mut());
        // What all connections share is not touched by a body that took nothing of it.
        let borrowed = *self.borrowed.get_mut();
        if borrowed > 0 {
            if *self.state.get_mut() == Self::READ {
                self.account.unsettle(borrowed);
            }
            self.account.give_back(Loan::Budget, borrowed);
        }
    }
}

/// A request body. Ends with [`BodyError::TooLarge`] one byte past the limit and with [`BodyError::Stalled`] when the
/// client pauses for longer than the stall timeout, or takes longer than the body timeout for the whole; with
/// [`BodyError::Overloaded`] when the bodies of all requests hold too many bytes.
#[derive(Debug)]
pub struct RequestBody {
    /// There until it is dropped.
    incoming: Option<Incoming>,
    leftover: Leftover,
    limit: u64,
    remaining: u64,
    stall: Duration,
    /// Time for the whole body, beyond what [`SLOWEST`] allows for the bytes that came.
    patience: Duration,
    /// When it was first waited for.
    began: Option<Duration>,
    /// Armed only while waiting for the client; a body that is already there costs no timer.
    waiting: Option<Pin<Box<Sleep>>>,
    outcome: Option<Arc<Outcome>>,
}

impl RequestBody {
    /// `account` is where its bytes are counted.
    pub(crate) fn new(
        incoming: Incoming,
        limits: &Limits,
        leftover: Leftover,
        account: &Arc<Account>,
    ) -> Self {
        // A request without a body cannot fail to be read, and most reads have none.
        let outcome = (!incoming.is_end_stream()).then(|| Arc::new(Outcome::new(account)));
        Self {
            incoming: Some(incoming),
            leftover,
            limit: limits.body_bytes,
            remaining: limits.body_bytes,
            stall: limits.stall_timeout,
            patience: limits.body_timeout,
            began: None,
            waiting: None,
            outcome,
        }
    }

    /// How long the next piece may take: a pause is bounded, and so is the sum of them, or a byte now and then would hold
    /// a connection for ever.
    fn allowed_pause(&mut self) -> Duration {
        let now = monotonic();
        let began = *self.began.get_or_insert(now);
        let received = self.limit.saturating_sub(self.remaining);
        let whole = self.patience.saturating_add(Duration::from_secs(received / SLOWEST));
        self.stall.min(whole.saturating_sub(now.saturating_sub(began)))
    }

    pub(crate) fn outcome(&self) -> Option<Arc<Outcome>> {
        self.outcome.clone()
    }

    fn is_whole(&self) {
        if let Some(shared) = &self.outcome {
            shared.is_whole();
        }
    }

    fn failed(&self, outcome: u8, error: BodyError) -> Option<Result<Frame<Bytes>, BodyError>> {
        if let Some(shared) = &self.outcome {
            shared.state.store(outcome, Ordering::Relaxed);
        }
        Some(Err(error))
    }

    /// None at all.
    pub(crate) const fn none() -> Self {
        let nothing = Duration::ZERO;
        Self {
            incoming: None,
            leftover: Leftover::Dropped,
            limit: 0,
            remaining: 0,
            stall: nothing,
            patience: nothing,
            began: None,
            waiting: None,
            outcome: None,
        }
    }

    /// A body without a limit on its whole length; for gRPC, whose messages are limited one by one. Bytes and time are
    /// counted as of any other.
    pub(crate) fn messages(incoming: Incoming, limits: &Limits, account: &Arc<Account>) -> Self {
        let mut body = Self::new(incoming, limits, Leftover::Dropped, account);
        (body.limit, body.remaining) = (u64::MAX, u64::MAX);
        body
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        let Poll::Ready(outcome) = Pin::new(&mut *incoming).poll_frame(context) else {
            if this.waiting.is_none() {
                let pause = this.allowed_pause();
                this.waiting = Some(Box::pin(tokio::time::sleep(pause)));
            }
            if let Some(waiting) = &mut this.waiting {
                std::task::ready!(waiting.as_mut().poll(context));
            }
            return Poll::Ready(this.failed(Outcome::STALLED, BodyError::Stalled));
        };
        this.waiting = None;
        let Some(frame) = outcome else {
            this.is_whole();
            return Poll::Ready(None);
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return Poll::Ready(Some(Err(BodyError::Connection(error)))),
        };
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        match this.remaining.checked_sub(length) {
            Some(remaining) => {
                this.remaining = remaining;
                if this.outcome.as_ref().is_some_and(|outcome| !outcome.came(length)) {
                    return Poll::Ready(this.failed(Outcome::NO_ROOM, BodyError::Overloaded));
                }
                if this.is_end_stream() {
                    this.is_whole();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None => Poll::Ready(this.failed(Outcome::TOO_LARGE, BodyError::TooLarge { limit: this.limit })),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.leftover == Leftover::Kept
            && let Some(outcome) = &self.outcome
            && outcome.left_unread()
            && outcome.failure().is_none()
        {
            *outcome.rest.lock().unwrap_or_else(PoisonError::into_inner) = self.incoming.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Budget, Standing, now};

    #[test]
    fn a_body_that_is_whole_is_not_slow_while_the_server_works_on_it() {
        const BYTES: u64 = 4 << 20;
        let budget = Arc::new(Budget::new(64 * BYTES, 64 * BYTES));
        let account = Account::new(&budget, &Arc::default(), Standing::Anonymous, &Arc::default());
        let later = now() + 600_000;
        let (answered, arriving) = (Outcome::new(&account), Outcome::new(&account));
        assert!(answered.came(BYTES));
        assert!(account.lasts(later) > 32_000);
        answered.is_whole();
        answered.is_whole();
        assert_eq!(account.lasts(later), 0);
        assert!(arriving.came(BYTES));
        assert!(account.lasts(later) > 32_000, "another one does not come");
        drop(answered);
        assert!(account.lasts(later) > 32_000);
        drop(arriving);
        assert_eq!((account.lasts(later), budget.held()), (0, 0));
    }
}
