//! Argon2id (RFC 9106) parameters.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::passphrase::Passphrase;

/// Named strengths of the passphrase derivation. The parameters are stored with the keystore, so a later change of a
/// profile does not lock anybody out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KdfProfile {
    /// 46 MiB, one pass: the first of the equivalent settings OWASP recommends; some 50 ms on one core. For servers,
    /// which start often and whose passphrase is usually random.
    #[default]
    Standard,
    /// 64 MiB, three passes, four lanes: the second recommended option of RFC 9106 section 4. For offline roots and
    /// passphrases that people type.
    Strong,
    /// 64 KiB, one pass. WEAK on purpose: for test suites only, where hundreds of keystores are made.
    DangerForTests,
}

/// Parameters as they are stored: memory in KiB, passes, lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfParameters {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl KdfProfile {
    /// The profile's parameters.
    #[must_use]
    pub const fn parameters(self) -> KdfParameters {
        match self {
            Self::Standard => KdfParameters { memory_kib: 46 * 1024, passes: 1, lanes: 1 },
            Self::Strong => KdfParameters { memory_kib: 64 * 1024, passes: 3, lanes: 4 },
            Self::DangerForTests => KdfParameters { memory_kib: 64, passes: 1, lanes: 1 },
        }
    }
}

impl KdfParameters {
    /// Bounds on stored parameters, so that an altered file cannot make the opener spend gigabytes or minutes.
    #[must_use]
    pub const fn within_bounds(&self) -> bool {
        self.memory_kib >= 64
            && self.memory_kib <= 1024 * 1024
            && self.passes >= 1
            && self.passes <= 16
            && self.lanes >= 1
            && self.lanes <= 16
            && self.memory_kib >= 8 * self.lanes
    }

    /// Derives 32 bytes.
    pub(crate) fn derive(&self, passphrase: &Passphrase, salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, Error> {
        let failed = |_| Error::Permanent { detail: "the passphrase derivation failed".to_owned() };
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(failed)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.expose(), salt, key.as_mut())
            .map_err(failed)?;
        Ok(key)
    }
}
