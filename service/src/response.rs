//! Bodies of responses, of three origins in one type, counted until their last byte has gone.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::Sleep;

use crate::answers::Watched;
use crate::body::{BodyError, BoxError};
use crate::budget::Loan;
use crate::clock::monotonic;
use crate::watch::Activity;

/// Where a response body comes from.
pub(crate) enum Source<B> {
    /// The routes of the server.
    App(B),
    /// gRPC.
    Grpc(UnsyncBoxBody<Bytes, BoxError>),
    /// This crate: problems, health, metrics.
    Own(Option<Bytes>),
}

impl<B> Source<B>
where
    B: Body<Data = Bytes>,
{
    /// How long it is, if that is known before.
    pub(crate) fn exact_length(&self) -> Option<u64> {
        self.size().exact()
    }

    /// The first piece of it, if it is there already.
    pub(crate) fn first_piece(&mut self) -> Option<Bytes>
    where
        B: Unpin,
    {
        match self {
            Self::App(body) => {
                let mut context = Context::from_waker(std::task::Waker::noop());
                match Pin::new(body).poll_frame(&mut context) {
                    Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
                    _ => None,
                }
            }
            Self::Grpc(_) => None,
            Self::Own(bytes) => bytes.take(),
        }
    }

    fn size(&self) -> SizeHint {
        match self {
            Self::App(body) => body.size_hint(),
            Self::Grpc(body) => body.size_hint(),
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
        }
    }
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

/// An answer, or a part of one, whose bytes are counted and watched until it is dropped.
pub(crate) struct Underway {
    ended: Ended,
    bytes: u64,
    loan: Loan,
    watched: Watched,
}

impl Underway {
    /// An answer of `bytes`; the request back, if there is no room for it.
    pub(crate) fn begin(ended: Ended, bytes: u64) -> Result<Self, Ended> {
        match ended.0.answers().account().lend(bytes) {
            Some(loan) => Ok(Self::with(ended, bytes, loan)),
            None => Err(ended),
        }
    }

    /// An answer that is given whether there is room or not: that there is none, or bytes that somebody else holds as well.
    pub(crate) fn uncounted(ended: Ended, bytes: u64) -> Self {
        Self::with(ended, bytes, Loan::Nothing)
    }

    fn with(ended: Ended, bytes: u64, loan: Loan) -> Self {
        let watched = ended.0.answers().watch(bytes);
        Self { ended, bytes, loan, watched }
    }

    /// Bytes that somebody else holds as well (a cache, the program itself) cost no memory.
    fn unless_shared(mut self, bytes: &Bytes) -> Self {
        if self.loan == Loan::Budget && !bytes.is_unique() {
            self.ended.0.answers().account().give_back(self.loan, self.bytes);
            self.loan = Loan::Nothing;
        }
        self
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let answers = self.ended.0.answers();
        answers.forget(&self.watched);
        answers.account().give_back(self.loan, self.bytes);
    }
}

/// Bytes of a body, as hyper and h2 hold them until they were written: nothing is under way any more when the last of them
/// is gone, which can be long after the body itself.
pub(crate) struct Piece {
    bytes: Bytes,
    underway: Option<Underway>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        let Some(underway) = &self.underway else { return };
        if let Watched::Long(sent) = &underway.watched {
            sent.fetch_add(count as u64, Ordering::Relaxed);
        }
        if underway.loan == Loan::Budget {
            underway.ended.0.answers().account().moved(count as u64);
        }
    }
}

/// What of a body is still to be handed out.
enum Stage {
    /// All of it, and it is known how much that is.
    Whole(Underway),
    /// Parts that come when they come; each counts by itself.
    Parts(Ended),
    /// Nothing.
    Over,
}

/// Longest part of a body that comes in parts: what waits for room is little, and so is what one part takes of it.
const PART: usize = 256 * 1024;
/// How long a part waits for room before its answer ends in the middle.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two looks whether there is room.
const LOOK: Duration = Duration::from_millis(20);

/// Bytes of a body that have not gone yet, because there was no room for them or they were many.
struct Held {
    bytes: Bytes,
    /// Whether somebody else holds them as well, which parts of them cannot tell.
    shared: bool,
    /// Since when they wait, and until the next look.
    waiting: Option<(Duration, Pin<Box<Sleep>>)>,
}

/// A response body.
pub(crate) struct ResponseBody<B> {
    source: Source<B>,
    stage: Stage,
    held: Option<Held>,
}

impl<B> ResponseBody<B> {
    /// A body whose length is known and counted.
    pub(crate) const fn whole(source: Source<B>, underway: Underway) -> Self {
        Self { source, stage: Stage::Whole(underway), held: None }
    }

    /// A body whose length is not known before.
    pub(crate) const fn parts(source: Source<B>, ended: Ended) -> Self {
        Self { source, stage: Stage::Parts(ended), held: None }
    }

    /// Bytes that came from the source; `None`: they are held until there is room.
    fn hand_out(&mut self, bytes: Bytes) -> Option<Frame<Piece>> {
        let length = bytes.len() as u64;
        let ended = match std::mem::replace(&mut self.stage, Stage::Over) {
            // The usual case: one piece, and with it goes the answer.
            Stage::Whole(underway) if underway.bytes == length => {
                let underway = Some(underway.unless_shared(&bytes));
                return Some(Frame::data(Piece { bytes, underway }));
            }
            Stage::Whole(underway) => Ended::begin(&underway.ended.0),
            Stage::Parts(ended) => ended,
            // More than it said; hyper does not send it.
            Stage::Over => return Some(Frame::data(Piece { bytes, underway: None })),
        };
        self.stage = Stage::Parts(ended);
        self.held = Some(Held { shared: !bytes.is_unique(), bytes, waiting: None });
        self.hand_out_part()
    }

    /// The next part of what is held, if there is room for it.
    fn hand_out_part(&mut self) -> Option<Frame<Piece>> {
        let (Stage::Parts(ended), Some(held)) = (&self.stage, &mut self.held) else { return None };
        let length = held.bytes.len().min(PART);
        let (part, size) = (Ended::begin(&ended.0), length as u64);
        let part =
            if held.shared { Underway::uncounted(part, size) } else { Underway::begin(part, size).ok()? };
        held.waiting = None;
        let bytes = held.bytes.split_to(length);
        if held.bytes.is_empty() {
            self.held = None;
        }
        Some(Frame::data(Piece { bytes, underway: Some(part) }))
    }

    /// What is held, once there is room for it. Whoever makes the body is not asked for more meanwhile, and waits as well.
    fn poll_held(&mut self, context: &mut Context<'_>) -> Poll<Result<Frame<Piece>, BoxError>> {
        loop {
            if let Some((_, look)) = self.held.as_mut().and_then(|held| held.waiting.as_mut()) {
                std::task::ready!(look.as_mut().poll(context));
            }
            if let Some(frame) = self.hand_out_part() {
                return Poll::Ready(Ok(frame));
            }
            let Some(held) = &mut self.held else { return Poll::Ready(Err(BodyError::Overloaded.into())) };
            let now = monotonic();
            let since = held.waiting.as_ref().map_or(now, |(since, _)| *since);
            if now.saturating_sub(since) >= PATIENCE {
                self.held = None;
                return Poll::Ready(Err(BodyError::Overloaded.into()));
            }
            held.waiting = Some((since, Box::pin(tokio::time::sleep(LOOK))));
        }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Piece;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BoxError>>> {
        let this = &mut *self;
        if this.held.is_some() {
            return this.poll_held(context).map(Some);
        }
        let frame = match &mut this.source {
            Source::App(body) => std::task::ready!(Pin::new(body).poll_frame(context))
                .map(|frame| frame.map_err(Into::<BoxError>::into)),
            Source::Grpc(body) => std::task::ready!(Pin::new(body).poll_frame(context)),
            Source::Own(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
        };
        let handed = match frame {
            None => None,
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => match this.hand_out(bytes) {
                    Some(frame) => Some(Ok(frame)),
                    None => return this.poll_held(context).map(Some),
                },
                // What is no data is trailers.
                Err(other) => Some(Ok(Frame::trailers(other.into_trailers().unwrap_or_default()))),
            },
        };
        Poll::Ready(handed)
    }

    fn is_end_stream(&self) -> bool {
        if self.held.is_some() {
            return false;
        }
        match &self.source {
            Source::App(body) => body.is_end_stream(),
            Source::Grpc(body) => body.is_end_stream(),
            Source::Own(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let (mut size, held) =
            (self.source.size(), self.held.as_ref().map_or(0, |held| held.bytes.len() as u64));
        let (lower, upper) = (size.lower(), size.upper());
        if let Some(upper) = upper {
            size.set_upper(upper.saturating_add(held));
        }
        size.set_lower(lower.saturating_add(held));
        size
    }
}
