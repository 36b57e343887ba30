//! Streams: the same for core modules and components. They exist in calls that have a reader.

use executor_engine::frames::Ask;

use super::{ErrorCode, MAX_NAME_BYTES, short_enough};
use crate::clock;
use crate::runtime::{GuestState, KillCause, Rated};
use crate::streams::StreamIndex;

impl GuestState {
    /// Opens a stream, unless the call has one answer only.
    pub(crate) fn open_stream(&mut self, id: &str) -> Result<StreamIndex, ErrorCode> {
        short_enough(id, MAX_NAME_BYTES)?;
        if let Some(door) = self.door() {
            return door.ask_number(Ask::OpenStream { id }).map(StreamIndex::numbered);
        }
        self.spend(Rated::Stream, 0)?;
        self.extras().streams.as_mut().ok_or(ErrorCode::NotSupported)?.open(id)
    }

    /// Sends a piece; waits while the reader is slow, but not longer than the call may take.
    pub(crate) fn write_stream(&mut self, stream: StreamIndex, bytes: &[u8]) -> Result<u32, ErrorCode> {
        if let Some(door) = self.door() {
            let taken = door.ask_number(Ask::WriteStream { stream: stream.number(), bytes })?;
            return u32::try_from(taken).map_err(|_| ErrorCode::Io);
        }
        self.spend(Rated::Stream, 0)?;
        let (limit, go_on) = (self.limits().streamed, self.patience());
        let sent =
            self.extras().streams.as_mut().ok_or(ErrorCode::BadHandle)?.write(stream, bytes, limit, go_on);
        self.unless_the_reader_rests(sent)
    }

    /// Ends a stream; gives the number of its pieces.
    pub(crate) fn end_stream(&mut self, stream: StreamIndex) -> Result<u64, ErrorCode> {
        if let Some(door) = self.door() {
            return door.ask_number(Ask::EndStream { stream: stream.number() });
        }
        let go_on = self.patience();
        let ended = self.extras().streams.as_mut().ok_or(ErrorCode::BadHandle)?.end(stream, go_on);
        self.unless_the_reader_rests(ended)
    }

    /// What a reader takes and when is nothing that a guest of the deterministic profile may answer by: one who takes nothing for too
    /// long ends the call. What the guest is told is then nobody's, since the call has no result any more.
    fn unless_the_reader_rests<T>(&self, sent: Result<T, ErrorCode>) -> Result<T, ErrorCode> {
        let rests = matches!(sent, Err(ErrorCode::TimedOut)) && clock::monotonic() < self.deadline();
        if rests && self.seed().is_some() {
            self.kill().raise(KillCause::CallerGone);
            return Err(ErrorCode::Limit);
        }
        sent
    }

    /// Whether a host function may wait any longer. The tick does not reach it while it waits.
    fn patience(&self) -> impl Fn() -> Result<(), ErrorCode> + use<> {
        let (kill, deadline) = (self.kill(), self.deadline());
        move || match kill.raised() {
            Some(KillCause::Revoked) => Err(ErrorCode::Revoked),
            Some(_) => Err(ErrorCode::Limit),
            None if clock::monotonic() >= deadline => Err(ErrorCode::TimedOut),
            None => Ok(()),
        }
    }
}
