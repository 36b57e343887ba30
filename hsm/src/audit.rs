//! Recording every use of a key before it happens.

use crate::algorithm::SignatureAlgorithm;
use crate::intent::SigningIntent;
use crate::public_key::PublicKey;

/// One use of a key, about to happen.
#[derive(Clone, Copy, Debug)]
pub struct KeyUse<'a> {
    /// Which key.
    pub public_key: &'a PublicKey,
    /// With which algorithm.
    pub algorithm: SignatureAlgorithm,
    /// Why.
    pub intent: &'a SigningIntent,
    /// Whether the key's policy allows it; denied uses are recorded too.
    pub allowed: Allowed,
}

/// The key policy's decision on a use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// The signature follows.
    Yes,
    /// The use was denied; no signature follows.
    No,
}

/// Receives every use of a key.
///
/// [`KeyAudit::record`] is called before the signature is made. When it fails there is no signature. It is on the
/// signing path: keep it short, and durable only if the caller's own record is not.
pub trait KeyAudit: Send + Sync {
    /// Records one use.
    ///
    /// # Errors
    /// The reason why it could not be recorded, without secrets.
    fn record(&self, event: &KeyUse<'_>) -> Result<(), String>;
}
