//! The `mentat` ABI of core modules (version 1).
//!
//! The guest owns every buffer; the host never picks an address. Pointers and lengths are `i32` read as unsigned;
//! results from 0 up are counts or handles, negative ones are the codes of [`ErrorCode`]. Every range is checked
//! against the memory's size before anything is allocated, a failed call writes nothing, and no host function
//! re-enters the guest. A result of variable length is a buffer handle that the guest reads piece by piece, so
//! that a buffer too small never repeats a side effect.

mod capabilities;
#[cfg(feature = "media")]
#[cfg(test)]
mod cases_tests;
pub(crate) mod census;
#[cfg(test)]
mod example_tests;
mod functions;
pub(crate) mod handles;
mod linker;
mod media;
mod range;
pub mod sinks;
mod streams;
#[cfg(test)]
mod tests;

#[cfg(feature = "media")]
#[cfg(test)]
pub(crate) use cases_tests::{cases, granted, steps_of, text};
pub(crate) use linker::{CoreLinkers, Interfaces};

/// Name of the import module.
pub const MODULE: &str = "mentat";

/// Largest text a guest passes as a name (stream id, metric, capability, operation), bytes.
pub(crate) const MAX_NAME_BYTES: usize = 4096;

/// Largest media type, bytes.
pub(crate) const MAX_MEDIA_TYPE_BYTES: usize = 128;

/// A text that is too long is a limit in every form of the interface, whatever it would be otherwise.
pub(crate) fn short_enough(text: &str, limit: usize) -> Result<(), ErrorCode> {
    if text.len() > limit { Err(ErrorCode::Limit) } else { Ok(()) }
}

/// The negative results of host functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum ErrorCode {
    /// An argument outside its grammar or range.
    InvalidArgument = -1,
    /// A range that is not inside the guest's memory.
    OutOfRange = -2,
    /// The manifest does not ask for this.
    NotInManifest = -3,
    /// Policy does not grant this.
    PolicyDenied = -4,
    /// A handle that is closed, foreign or made up.
    BadHandle = -5,
    /// A limit is reached.
    Limit = -6,
    /// Input or output failed.
    Io = -7,
    /// This executor or this call does not offer the function.
    NotSupported = -8,
    /// It took too long.
    TimedOut = -9,
    /// Something that vouched for this guest was revoked.
    Revoked = -10,
}

impl ErrorCode {
    const ALL: [Self; 10] = [
        Self::InvalidArgument,
        Self::OutOfRange,
        Self::NotInManifest,
        Self::PolicyDenied,
        Self::BadHandle,
        Self::Limit,
        Self::Io,
        Self::NotSupported,
        Self::TimedOut,
        Self::Revoked,
    ];

    /// From the number.
    pub(crate) fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as i32 == code)
    }
}
