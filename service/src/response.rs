//! Bodies of responses, of three origins in one type, counted until their last byte has gone.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use crate::answers::Watched;
use crate::body::{BodyError, BoxError};
use crate::budget::Loan;
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

/// A response body.
pub(crate) struct ResponseBody<B> {
    source: Source<B>,
    stage: Stage,
}

impl<B> ResponseBody<B> {
    /// A body whose length is known and counted.
    pub(crate) const fn whole(source: Source<B>, underway: Underway) -> Self {
        Self { source, stage: Stage::Whole(underway) }
    }

    /// A body whose length is not known before.
    pub(crate) const fn parts(source: Source<B>, ended: Ended) -> Self {
        Self { source, stage: Stage::Parts(ended) }
    }

    fn hand_out(&mut self, bytes: Bytes) -> Result<Frame<Piece>, BoxError> {
        let length = bytes.len() as u64;
        let ended = match std::mem::replace(&mut self.stage, Stage::Over) {
            // The usual case: one piece, and with it goes the answer.
            Stage::Whole(underway) if underway.bytes == length => {
                let underway = Some(underway.unless_shared(&bytes));
                return Ok(Frame::data(Piece { bytes, underway }));
            }
            Stage::Whole(underway) => Ended::begin(&underway.ended.0),
            Stage::Parts(ended) => ended,
            // More than it said; hyper does not send it.
            Stage::Over => return Ok(Frame::data(Piece { bytes, underway: None })),
        };
        let part = Underway::begin(Ended::begin(&ended.0), length).map_err(|_| BodyError::Overloaded)?;
        self.stage = Stage::Parts(ended);
        let underway = Some(part.unless_shared(&bytes));
        Ok(Frame::data(Piece { bytes, underway }))
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
        let frame = match &mut this.source {
            Source::App(body) => std::task::ready!(Pin::new(body).poll_frame(context))
                .map(|frame| frame.map_err(Into::<BoxError>::into)),
            Source::Grpc(body) => std::task::ready!(Pin::new(body).poll_frame(context)),
            Source::Own(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
        };
        let handed = frame.map(|frame| match frame?.into_data() {
            Ok(bytes) => this.hand_out(bytes),
            // What is no data is trailers.
            Err(other) => Ok(Frame::trailers(other.into_trailers().unwrap_or_default())),
        });
        Poll::Ready(handed)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::App(body) => body.is_end_stream(),
            Source::Grpc(body) => body.is_end_stream(),
            Source::Own(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size()
    }
}
