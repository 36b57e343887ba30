//! What bounds media, in store and in time.

use std::time::Instant;

use crate::runtime::{AdmissionId, Cancel};

/// What guests may store, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaLimits {
    /// One object.
    pub object: u64,
    /// Everything that one call uploads, whether it was known already or not.
    pub call: u64,
    /// All files of this machine. The audit log shares their disk, and an audit log without room ends all work. A bucket has
    /// limits of its own.
    pub store: u64,
}

impl Default for MediaLimits {
    fn default() -> Self {
        Self { object: 64 << 20, call: 64 << 20, store: 1 << 30 }
    }
}

/// How long a call waits for its media.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "media-s3"), allow(dead_code, reason = "files keep nobody waiting"))]
pub(crate) struct Until {
    pub(crate) kill: Cancel,
    pub(crate) deadline: Instant,
    /// By which admission the guest runs.
    pub(crate) admission: AdmissionId,
}
