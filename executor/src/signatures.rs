//! Which signatures of certificates, lists and checkpoints were verified, so that each is verified once.

use trust_store::signature_cache::SignatureCache;

/// Most signatures remembered; each takes about a hundred bytes.
const CAPACITY: u64 = 65_536;

/// A bounded memory of successes.
pub(crate) struct SignatureMemory(moka::sync::Cache<[u8; 32], ()>);

impl Default for SignatureMemory {
    fn default() -> Self {
        Self(moka::sync::Cache::new(CAPACITY))
    }
}

impl SignatureCache for SignatureMemory {
    fn contains(&self, key: &[u8; 32]) -> bool {
        self.0.contains_key(key)
    }

    fn insert(&self, key: [u8; 32]) {
        self.0.insert(key, ());
    }
}
