//! Which signatures of certificates, lists and checkpoints were verified, so that each is verified once.

use trust_store::signature_cache::SignatureCache;

use crate::recent::Recent;

/// Most signatures remembered; each takes about a hundred bytes.
const CAPACITY: usize = 65_536;

/// A bounded memory of successes.
pub(crate) struct SignatureMemory(Recent<[u8; 32], ()>);

impl Default for SignatureMemory {
    fn default() -> Self {
        Self(Recent::new(CAPACITY))
    }
}

impl SignatureCache for SignatureMemory {
    fn contains(&self, key: &[u8; 32]) -> bool {
        self.0.get(key).is_some()
    }

    fn insert(&self, key: [u8; 32]) {
        self.0.insert(key, ());
    }
}
