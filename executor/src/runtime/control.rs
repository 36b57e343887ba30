//! What names a call, and what ends it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use executor_engine::ModuleDigest;

use super::calls::{Calls, Seated};

/// Why the host killed an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum KillCause {
    /// An operator stopped it.
    Operator = 1,
    /// Something that vouched for it was revoked, or the evidence says so now.
    Revoked = 2,
    /// The executor is shutting down.
    Shutdown = 3,
    /// The caller went away.
    CallerGone = 4,
    /// What vouched for it has grown older than policy allows.
    Stale = 5,
}

impl KillCause {
    /// The stable text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "stopped",
            Self::Revoked => "revoked",
            Self::Shutdown => "shutdown",
            Self::CallerGone => "caller_gone",
            Self::Stale => "evidence_stale",
        }
    }

    /// Whether a verdict ended it: who waits for the call is told that verdict, if it still stands.
    pub(crate) const fn is_of_verdict(self) -> bool {
        matches!(self, Self::Revoked | Self::Stale)
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Operator, Self::Revoked, Self::Shutdown, Self::CallerGone, Self::Stale]
            .into_iter()
            .find(|cause| *cause as u8 == code)
    }
}

/// The name of one instance: a counter of this process behind a random start, unique in its audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId(pub(super) u64);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i-{:016x}", self.0)
    }
}

impl InstanceId {
    /// Whether the call is one of the sixteenth that is measured more closely.
    pub(crate) fn is_sampled(self) -> bool {
        self.0.is_multiple_of(16)
    }

    /// Reads the text form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("i-").filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok().map(Self).filter(|id| id.to_string() == text)
    }
}

/// The name of one admission: a counter of this process. The same module may be admitted under several manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdmissionId(u64);

impl AdmissionId {
    /// A name that no other admission of this process has.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whose module an instance runs: shared by all instances of one admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The admission.
    pub admission: AdmissionId,
    /// Agent id of the signed manifest.
    pub agent: String,
    /// Digest of the module.
    pub digest: ModuleDigest,
    /// Verified signer name.
    pub signer: String,
}

/// Ends one call from outside, also before it began. Clones mean the same call. The guest's next tick and each of its host calls
/// look at it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Target);

#[derive(Debug, Clone)]
enum Target {
    /// A flag of its own.
    Flag(Arc<KillFlag>),
    /// The place of a call in the list of what runs. Once that call is over it ends nobody.
    Listed { calls: Arc<Calls>, seated: Seated, id: InstanceId },
}

impl Default for Target {
    fn default() -> Self {
        Self::Flag(Arc::default())
    }
}

impl Cancel {
    /// Ends a listed call.
    pub(super) fn listed(calls: Arc<Calls>, seated: Seated, id: InstanceId) -> Self {
        Self(Target::Listed { calls, seated, id })
    }

    /// Ends the call within two ticks.
    pub fn raise(&self, cause: KillCause) {
        match &self.0 {
            Target::Flag(flag) => flag.raise(cause),
            Target::Listed { calls, seated, id } => calls.raise(*seated, *id, cause),
        }
    }

    /// Why it was ended, if it was.
    pub fn raised(&self) -> Option<KillCause> {
        match &self.0 {
            Target::Flag(flag) => flag.raised(),
            Target::Listed { calls, seated, id } => calls.raised(*seated, *id),
        }
    }
}

/// A flag that was raised or was not.
#[derive(Debug, Default)]
struct KillFlag(AtomicU8);

impl KillFlag {
    fn raise(&self, cause: KillCause) {
        // The first cause stays: a shutdown after a revocation must not hide it.
        let _ = self.0.compare_exchange(0, cause as u8, Ordering::Release, Ordering::Relaxed);
    }

    fn raised(&self) -> Option<KillCause> {
        KillCause::from_code(self.0.load(Ordering::Acquire))
    }
}

/// One running instance, as listed.
#[derive(Debug, Clone)]
pub struct LiveInstance {
    /// Its name.
    pub id: InstanceId,
    /// Whose it is.
    pub owner: Arc<Owner>,
}

/// Which instances to stop: those that match every field given.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// One admission.
    pub admission: Option<AdmissionId>,
    /// Agent id.
    pub agent: Option<String>,
    /// Module digest.
    pub digest: Option<ModuleDigest>,
    /// Verified signer name.
    pub signer: Option<String>,
}

impl Selector {
    /// Whether the selector names anything; one that does not would match everything and is refused by callers.
    pub fn is_empty(&self) -> bool {
        self.admission.is_none() && self.agent.is_none() && self.digest.is_none() && self.signer.is_none()
    }

    /// Everything that runs by one admission.
    pub fn admission(admission: AdmissionId) -> Self {
        Self { admission: Some(admission), ..Self::default() }
    }

    pub(super) fn matches(&self, owner: &Owner) -> bool {
        self.admission.is_none_or(|admission| admission == owner.admission)
            && self.agent.as_ref().is_none_or(|agent| *agent == owner.agent)
            && self.digest.is_none_or(|digest| digest == owner.digest)
            && self.signer.as_ref().is_none_or(|signer| *signer == owner.signer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_read_back_from_its_code() {
        use KillCause::{CallerGone, Operator, Revoked, Shutdown, Stale};
        for cause in [CallerGone, Operator, Revoked, Shutdown, Stale] {
            assert_eq!(KillCause::from_code(cause as u8), Some(cause));
        }
        assert_eq!((KillCause::from_code(0), KillCause::from_code(6)), (None, None));
    }

    #[test]
    fn the_first_cause_stays() {
        let flag = KillFlag::default();
        flag.raise(KillCause::Revoked);
        flag.raise(KillCause::Shutdown);
        assert_eq!(flag.raised(), Some(KillCause::Revoked));
    }
}
