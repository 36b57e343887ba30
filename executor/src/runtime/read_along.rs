//! Whoever reads what a guest logs while it runs.

use std::sync::Arc;

use crate::abi::sinks::LogRecord;
use crate::streams::Pipe;
use crate::worker::Door;

/// Where lines go at once. None of them waits for a reader.
#[derive(Clone)]
pub(crate) enum ReadAlong {
    /// The reader of the call.
    Here(Arc<Pipe>),
    /// In a worker: the executor, which has the reader.
    ThroughDoor(Arc<Door>),
}

impl ReadAlong {
    /// Shows a line.
    pub(crate) fn show(&self, line: &LogRecord) {
        match self {
            Self::Here(pipe) => pipe.offer(line),
            Self::ThroughDoor(door) => door.say_line(line),
        }
    }

    /// Says that so many lines stand here which nobody is shown.
    pub(crate) fn miss(&self, lines: u64) {
        match self {
            Self::Here(pipe) => pipe.miss(lines),
            Self::ThroughDoor(door) => door.say_missed(lines),
        }
    }
}
