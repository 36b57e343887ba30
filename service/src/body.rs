//! Bodies in both directions: requests bounded in length and in patience, responses of three origins in one type.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::clock::monotonic;
use crate::watch::Activity;

/// Slowest body, in bytes a second, that is worth a place beyond the body timeout: a client on a bad mobile connection
/// reaches several times as much.
const SLOWEST: u64 = 16 * 1024;

/// Boxed error of a body, as hyper takes it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request body cannot be read to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The connection failed.
    #[error("the connection failed while the body was read")]
    Connection(#[source] hyper::Error),
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

/// How reading a request body went; the dispatcher answers by it, whatever the routes made of the error.
#[derive(Debug, Default)]
pub(crate) struct Outcome(AtomicU8);

/// A failure to read a body, as the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFailure {
    Stalled,
    TooLarge,
}

impl Outcome {
    const STALLED: u8 = 1;
    const TOO_LARGE: u8 = 2;
    const READ: u8 = 3;

    /// Whether a part of the body was left on the connection, which then serves no other request.
    pub(crate) fn left_unread(&self) -> bool {
        self.0.load(Ordering::Relaxed) != Self::READ
    }

    pub(crate) fn failure(&self) -> Option<BodyFailure> {
        match self.0.load(Ordering::Relaxed) {
            Self::STALLED => Some(BodyFailure::Stalled),
            Self::TOO_LARGE => Some(BodyFailure::TooLarge),
            _ => None,
        }
    }
}

/// A request body. Ends with [`BodyError::TooLarge`] one byte past the limit and with [`BodyError::Stalled`] when the
/// client pauses for longer than the stall timeout, or takes longer than the body timeout for the whole.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
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
    pub(crate) fn new(incoming: Incoming, limit: u64, stall: Duration, patience: Duration) -> Self {
        // A request without a body cannot fail to be read, and most reads have none.
        let outcome = (!incoming.is_end_stream()).then(Arc::default);
        Self { incoming, limit, remaining: limit, stall, patience, began: None, waiting: None, outcome }
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

    fn came_to(&self, outcome: u8) {
        if let Some(shared) = &self.outcome {
            shared.0.store(outcome, Ordering::Relaxed);
        }
    }

    fn failed(&self, outcome: u8, error: BodyError) -> Option<Result<Frame<Bytes>, BodyError>> {
        self.came_to(outcome);
        Some(Err(error))
    }

    /// A body without a limit on its whole length; for gRPC, whose messages are limited one by one.
    pub(crate) const fn unbounded(incoming: Incoming) -> Self {
        let (limit, forever) = (u64::MAX, Duration::MAX);
        Self {
            incoming,
            limit,
            remaining: limit,
            stall: forever,
            patience: forever,
            began: None,
            waiting: None,
            outcome: None,
        }
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
        let Poll::Ready(outcome) = Pin::new(&mut this.incoming).poll_frame(context) else {
            if this.stall == Duration::MAX {
                return Poll::Pending;
            }
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
            this.came_to(Outcome::READ);
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
                if this.incoming.is_end_stream() {
                    this.came_to(Outcome::READ);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None => Poll::Ready(this.failed(Outcome::TOO_LARGE, BodyError::TooLarge { limit: this.limit })),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Where a response body comes from.
pub(crate) enum Source<B> {
    /// The routes of the server.
    App(B),
    /// gRPC.
    Grpc(UnsyncBoxBody<Bytes, BoxError>),
    /// This crate: problems, health, metrics.
    Own(Option<Bytes>),
}

impl<B: Body> Source<B> {
    /// Length in bytes, where it is known before the end.
    pub(crate) fn exact_length(&self) -> Option<u64> {
        match self {
            Self::App(body) => body.size_hint().exact(),
            Self::Grpc(_) => None,
            Self::Own(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}

/// A response body; when it is gone, the request has ended.
pub(crate) struct ResponseBody<B> {
    source: Source<B>,
    _ended: Ended,
}

/// Tells the watcher that a request ended, however it ended.
pub(crate) struct Ended(Arc<Activity>);

impl Ended {
    pub(crate) fn begin(activity: &Arc<Activity>) -> Self {
        activity.request_began();
        Self(Arc::clone(activity))
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

impl<B> ResponseBody<B> {
    pub(crate) const fn new(source: Source<B>, ended: Ended) -> Self {
        Self { source, _ended: ended }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.source {
            Source::App(body) => {
                Pin::new(body).poll_frame(context).map(|frame| frame.map(|f| f.map_err(Into::into)))
            }
            Source::Grpc(body) => Pin::new(body).poll_frame(context),
            Source::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::App(body) => body.is_end_stream(),
            Source::Grpc(body) => body.is_end_stream(),
            Source::Own(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::App(body) => body.size_hint(),
            Source::Grpc(body) => body.size_hint(),
            Source::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
        }
    }
}
