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
    fn of_others(mut self) -> Self {
        if self.loan == Loan::Budget {
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

/// Longest frame of a body that comes in parts that waits while there is no room for it; a longer one ends its answer. A piece of
/// a stream is shorter.
const LONGEST_WAITING: usize = 256 * 1024;
/// The part of the room for answers that may be waited in besides, of all peers together and of each.
pub(crate) const WAITING_ROOM: u64 = 8;
/// What goes of it at once: half of what each connection has for itself, so that a stream flows whatever others leave unread.
const PART: usize = 32 * 1024;
/// How long a part waits for room before its answer ends in the middle.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two looks whether there is room.
const LOOK: Duration = Duration::from_millis(20);

/// Bytes of a body that have not gone yet, because there was no room for them. They are counted apart while they wait.
struct Held {
    bytes: Bytes,
    place: Place,
    /// Since when they wait, and until the next look.
    waiting: Option<(Duration, Pin<Box<Sleep>>)>,
}

/// A place in the waiting room.
struct Place {
    ended: Ended,
    bytes: u64,
    loan: Loan,
}

impl Place {
    /// `None`: too many wait already.
    fn take(ended: Ended, bytes: u64) -> Option<Self> {
        let loan = ended.0.waiting().lend(bytes)?;
        Some(Self { ended, bytes, loan })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ended.0.waiting().give_back(self.loan, self.bytes);
    }
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
    fn hand_out(&mut self, bytes: Bytes) -> Result<Option<Frame<Piece>>, BodyError> {
        let length = bytes.len() as u64;
        // tonic hands out one half of a buffer and keeps the other: nobody else holds these bytes.
        let shared = !bytes.is_unique() && !matches!(self.source, Source::Grpc(_));
        let ended = match std::mem::replace(&mut self.stage, Stage::Over) {
            // The usual case: one piece, and with it goes the answer.
            Stage::Whole(underway) if underway.bytes == length => {
                let underway = Some(if shared { underway.of_others() } else { underway });
                return Ok(Some(Frame::data(Piece { bytes, underway })));
            }
            Stage::Whole(underway) => Ended::begin(&underway.ended.0),
            Stage::Parts(ended) => ended,
            // More than it said; hyper does not send it.
            Stage::Over => return Ok(Some(Frame::data(Piece { bytes, underway: None }))),
        };
        let part = Ended::begin(&ended.0);
        let part = if shared { Ok(Underway::uncounted(part, length)) } else { Underway::begin(part, length) };
        // All of it is counted from here on, as what goes or as what waits.
        let handed = match part {
            Ok(part) => Some(Frame::data(Piece { bytes, underway: Some(part) })),
            Err(part) if bytes.len() <= LONGEST_WAITING => {
                let place = Place::take(part, length).ok_or(BodyError::Overloaded)?;
                self.held = Some(Held { bytes, place, waiting: None });
                None
            }
            Err(_) => return Err(BodyError::Overloaded),
        };
        self.stage = Stage::Parts(ended);
        Ok(handed)
    }

    /// The next part of what is held, if there is room for it.
    fn hand_out_part(&mut self) -> Option<Frame<Piece>> {
        let held = self.held.as_mut()?;
        let length = held.bytes.len().min(PART);
        let part = Underway::begin(Ended::begin(&held.place.ended.0), length as u64).ok()?;
        held.waiting = None;
        // Copied: a part would keep all of it from being freed, and only the part is counted when the rest has gone.
        let bytes = Bytes::copy_from_slice(held.bytes.get(..length).unwrap_or_default());
        held.bytes.advance(length);
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
                self.stage = Stage::Over;
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
                    Ok(Some(frame)) => Some(Ok(frame)),
                    Ok(None) => return this.poll_held(context).map(Some),
                    Err(error) => Some(Err(error.into())),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use bytes::BytesMut;
    use http_body_util::{BodyExt as _, Full};

    use super::*;
    use crate::budget::{Account, Budget, Standing};

    const MIB: usize = 1024 * 1024;

    /// tonic encodes into a buffer that it keeps: what it hands out of it is never unique, and nobody else holds it all the same.
    #[test]
    fn the_half_of_a_buffer_that_grpc_hands_out_is_counted_and_a_page_is_not() {
        let mut buffer = BytesMut::zeroed(2 * MIB);
        let half = buffer.split_to(MIB).freeze();
        let page = Bytes::from(vec![0; MIB]);
        assert!(!half.is_unique());
        let budget = Arc::new(Budget::new(10 << 20, 4 << 20));
        let account = Account::new(&budget, &Arc::default(), Standing::Anonymous, &Arc::default());
        let activity = Arc::new(Activity::new(Arc::clone(&account), Arc::clone(&account), account));
        let from_grpc = Full::new(half).map_err(|never| match never {}).boxed_unsync();
        let from_app = Full::new(page.clone());
        for (source, counted) in [(Source::Grpc(from_grpc), MIB), (Source::App(from_app), 0)] {
            let mut body = ResponseBody::parts(source, Ended::begin(&activity));
            let mut context = Context::from_waker(std::task::Waker::noop());
            let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) else {
                panic!("a frame")
            };
            assert_eq!(budget.held(), counted as u64);
            assert_eq!(frame.into_data().map_err(|_| "trailers").unwrap().remaining(), MIB);
            assert_eq!(budget.held(), 0);
        }
        drop((buffer, page));
    }
}
