//! The Update Framework, version 1 of its specification: how a trusted root reaches relying parties, and how a new one
//! follows it.
//!
//! A relying party pins one root of metadata, by hand, once. From then on it follows: a mirror that serves old files
//! (rollback), keeps serving the same ones (freeze) or puts files of different releases together (mix and match) is
//! refused with a stable code, and what was accepted before is remembered durably before anything new is believed.
//!
//! The client's checks are those of `sigstore-tuf`; this module gives it files, a memory that fails closed and bounded
//! transports. The repository is static files, written here; keys stay with whoever implements [`RoleSigner`].
//!
//! | type | what |
//! |---|---|
//! | [`Follower`] | follows a repository: pinned root, memory, update |
//! | [`Distribution`] | what an update gave: versions, end of validity, targets |
//! | [`Source`], [`Folder`] | where files come from; HTTP is for the caller to bring |
//! | [`Publisher`] | writes a repository: new targets, fresh timestamps, new keys |
//! | [`RoleSigner`], [`Signers`], [`Lifetimes`] | who signs what, and for how long |
//!
//! In scope: the four top-level roles with consistent snapshots. Out of scope: delegations when writing.
//!
//! A threshold counts key identifiers, as in python-tuf: a root that lists one key under two of them, which old public roots
//! do, is met by one key twice. Only the authors of roots can do that; a [`Publisher`] never does.

mod follower;
mod memory;
mod metadata;
mod publisher;
mod source;

pub use follower::{Distribution, Follower};
pub use metadata::{Lifetimes, Role, RoleSigner, Signers, SigningFailed};
pub use publisher::{Publisher, State};
pub use source::{FetchError, Fetched, Folder, Source};

/// Name of the target that holds the trusted root.
pub const TRUSTED_ROOT: &str = "trusted_root.json";
/// Name of the target that holds the signing configuration.
pub const SIGNING_CONFIG: &str = "signing_config.v0.2.json";

/// Largest target that is fetched or published, in bytes.
pub const MAX_TARGET_BYTES: u64 = 4 << 20;
/// Largest file of metadata that is read, in bytes. Ours are a few kilobytes.
pub const MAX_METADATA_BYTES: u64 = 512 << 10;
/// Most new roots that one update takes. A repository that rotates monthly reaches it after two years and a half; whoever was
/// away longer repeats the update, which goes on where it stopped, or pins a newer root.
pub const MAX_ROOT_ROTATIONS: u32 = 32;

/// Why distributed metadata was refused. The texts are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// A file has expired: the mirror was cut off, or somebody keeps old files alive (freeze).
    Expired,
    /// A file has not the shape that the specification prescribes.
    Malformed,
    /// What was accepted before cannot be read, or belongs to another repository.
    Memory,
    /// Files do not belong together: a hash, length or version is not the one that the signed list names (mix and
    /// match).
    Mixed,
    /// A version goes back behind one that was accepted before.
    Rollback,
    /// A new root does not follow the known one by exactly one version.
    RootVersion,
    /// Too few of a role's keys signed.
    Signature,
    /// No list names the target.
    TargetMissing,
    /// A file is larger than is read of its kind.
    TooLarge,
    /// A file cannot be fetched.
    Unavailable,
}

impl Refusal {
    /// Every code.
    pub const ALL: [Self; 10] = [
        Self::Expired,
        Self::Malformed,
        Self::Memory,
        Self::Mixed,
        Self::Rollback,
        Self::RootVersion,
        Self::Signature,
        Self::TargetMissing,
        Self::TooLarge,
        Self::Unavailable,
    ];

    /// The stable text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "tuf_expired",
            Self::Malformed => "tuf_malformed",
            Self::Memory => "tuf_memory",
            Self::Mixed => "tuf_mixed",
            Self::Rollback => "tuf_rollback",
            Self::RootVersion => "tuf_root_version",
            Self::Signature => "tuf_signature",
            Self::TargetMissing => "tuf_target_missing",
            Self::TooLarge => "tuf_too_large",
            Self::Unavailable => "tuf_unavailable",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The refusal of an error of the library, with its whole chain of causes as text.
fn refused(error: sigstore_tuf::Error) -> crate::Error {
    use sigstore_tuf::Error as Tuf;
    let refusal = match &error {
        Tuf::Expired { .. } => Refusal::Expired,
        Tuf::Rollback { .. } => Refusal::Rollback,
        Tuf::IntegrityMismatch(_) => Refusal::Mixed,
        Tuf::BadRootVersion { .. } => Refusal::RootVersion,
        Tuf::ThresholdNotMet { .. }
        | Tuf::DuplicateSignature { .. }
        | Tuf::Crypto(_)
        | Tuf::UnusableKey { .. }
        | Tuf::UnsupportedScheme { .. } => Refusal::Signature,
        Tuf::TargetNotFound(_) | Tuf::NotRefreshed => Refusal::TargetMissing,
        Tuf::Io { .. } => Refusal::Memory,
        Tuf::Transport { source: Some(cause), .. }
            if matches!(cause.downcast_ref(), Some(FetchError::TooLarge { .. })) =>
        {
            Refusal::TooLarge
        }
        Tuf::Transport { .. } => Refusal::Unavailable,
        _ => Refusal::Malformed,
    };
    let mut detail = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        detail = format!("{detail}: {next}");
        cause = next.source();
    }
    crate::Error::Distribution { refusal, detail }
}

fn refuse(refusal: Refusal, detail: impl Into<String>) -> crate::Error {
    crate::Error::Distribution { refusal, detail: detail.into() }
}

/// The library's time.
fn timestamp(now: trust_store::UnixTime) -> Result<jiff::Timestamp, crate::Error> {
    jiff::Timestamp::from_second(now.0)
        .map_err(|_| refuse(Refusal::Malformed, "the time is outside of what a calendar holds"))
}

#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod tests;
