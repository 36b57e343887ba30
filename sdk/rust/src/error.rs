//! Why a call failed.

use alloc::string::String;
use core::fmt;

/// What agents and this crate return.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why a call failed. Its text becomes a log line, its number the exit code.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The agent's own reason.
    Agent {
        /// The exit code; 0 would mean success and becomes 1.
        code: i32,
        /// For people.
        message: String,
    },
    /// The host refused.
    Host(HostError),
    /// The input is not what the agent takes.
    Input(String),
}

impl Error {
    /// The agent's own reason, with exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self::with_code(1, message)
    }

    /// The agent's own reason with an exit code of its own.
    pub fn with_code(code: i32, message: impl Into<String>) -> Self {
        Self::Agent { code, message: message.into() }
    }

    /// The input is not what the agent takes.
    pub fn input(message: impl Into<String>) -> Self {
        Self::Input(message.into())
    }

    /// What `process()` returns: the agent's own code, 2 for an input that it does not take, 3 when the host refused.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Agent { code: 0, .. } => 1,
            Self::Agent { code, .. } => *code,
            Self::Input(_) => 2,
            Self::Host(_) => 3,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent { message, .. } => f.write_str(message),
            Self::Host(error) => error.fmt(f),
            Self::Input(what) => write!(f, "input: {what}"),
        }
    }
}

impl core::error::Error for Error {}

impl From<HostError> for Error {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

/// The negative results of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostError {
    /// −1: an argument outside its grammar or range.
    InvalidArgument,
    /// −2: a range outside the memory.
    OutOfRange,
    /// −3: the manifest does not ask for it.
    NotInManifest,
    /// −4: policy does not grant it.
    PolicyDenied,
    /// −5: a closed, foreign or made-up handle.
    BadHandle,
    /// −6: a limit is reached.
    Limit,
    /// −7: input or output failed.
    Io,
    /// −8: not offered by this executor or call.
    NotSupported,
    /// −9: it timed out.
    TimedOut,
    /// −10: something that vouched for this agent was revoked.
    Revoked,
    /// A number that version 1 does not have.
    Unknown(i32),
}

impl HostError {
    /// From the interface's number.
    pub fn from_code(code: i32) -> Self {
        match code {
            -1 => Self::InvalidArgument,
            -2 => Self::OutOfRange,
            -3 => Self::NotInManifest,
            -4 => Self::PolicyDenied,
            -5 => Self::BadHandle,
            -6 => Self::Limit,
            -7 => Self::Io,
            -8 => Self::NotSupported,
            -9 => Self::TimedOut,
            -10 => Self::Revoked,
            other => Self::Unknown(other),
        }
    }

    /// The interface's number.
    pub fn code(self) -> i32 {
        match self {
            Self::InvalidArgument => -1,
            Self::OutOfRange => -2,
            Self::NotInManifest => -3,
            Self::PolicyDenied => -4,
            Self::BadHandle => -5,
            Self::Limit => -6,
            Self::Io => -7,
            Self::NotSupported => -8,
            Self::TimedOut => -9,
            Self::Revoked => -10,
            Self::Unknown(code) => code,
        }
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidArgument => "host: invalid argument",
            Self::OutOfRange => "host: range outside the memory",
            Self::NotInManifest => "host: the manifest does not ask for it",
            Self::PolicyDenied => "host: policy does not grant it",
            Self::BadHandle => "host: bad handle",
            Self::Limit => "host: a limit is reached",
            Self::Io => "host: input or output failed",
            Self::NotSupported => "host: not offered here",
            Self::TimedOut => "host: timed out",
            Self::Revoked => "host: revoked",
            Self::Unknown(_) => "host: an unknown error",
        })
    }
}

impl core::error::Error for HostError {}
