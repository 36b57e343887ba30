//! A guest's way out of a worker: every question goes to the executor, which decides.

use std::time::Duration;

use executor_engine::frames::{Ask, FromWorker, MAX_FRAME, ToWorker};
use parking_lot::Mutex;

use super::channel::{Channel, ChannelError};
use crate::abi::ErrorCode;
use crate::abi::sinks::LogRecord;

/// How long a side may take nothing of what it is sent, at a time; the executor ends a worker it has given up.
const PAUSE: Duration = Duration::from_secs(60);

/// The worker's end of one lane.
pub(crate) struct Door(Mutex<Channel>);

impl Door {
    pub(super) fn new(channel: Channel) -> Self {
        Self(Mutex::new(channel))
    }

    /// The next call's frame.
    pub(super) fn next(&self) -> Result<Vec<u8>, ChannelError> {
        self.0.lock().receive_patiently(MAX_FRAME)
    }

    /// Says something.
    pub(super) fn say(&self, message: &FromWorker<'_>) -> Result<(), ChannelError> {
        self.0.lock().send(&message.encode(), &[], PAUSE, &mut || true)
    }

    /// Tells a line of the guest's log. Where that fails the executor is gone, which the next question finds.
    pub(crate) fn say_line(&self, line: &LogRecord) {
        let _ = self.say(&FromWorker::Line { level: line.level as u8, text: &line.text });
    }

    /// Tells that so many lines stand here which are not told; as [`Self::say_line`].
    pub(crate) fn say_missed(&self, lines: u64) {
        let _ = self.say(&FromWorker::Missed { lines });
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask(&self, ask: Ask<'_>) -> Result<Vec<u8>, ErrorCode> {
        let mut channel = self.0.lock();
        let answer = channel
            .send(&FromWorker::Ask(ask).encode(), &[], PAUSE, &mut || true)
            .and_then(|()| channel.receive_patiently(MAX_FRAME));
        let Ok(answer) = answer else { return Err(ErrorCode::Io) };
        match ToWorker::decode(&answer) {
            Ok(ToWorker::Answer(Ok(bytes))) => Ok(bytes.to_vec()),
            Ok(ToWorker::Answer(Err(code))) => Err(ErrorCode::from_code(code).unwrap_or(ErrorCode::Io)),
            Ok(ToWorker::Call(_)) | Err(_) => Err(ErrorCode::Io),
        }
    }

    /// Asks for a number.
    pub(crate) fn ask_number(&self, ask: Ask<'_>) -> Result<u64, ErrorCode> {
        let answer = self.ask(ask)?;
        answer.try_into().map(u64::from_le_bytes).map_err(|_| ErrorCode::Io)
    }
}
