//! How often one token serves for certificates. Stock clients send one token for several signatures and for retries, so that is allowed
//! unless its section says otherwise; it is limited by identity and requester, and counted here.

use moka::sync::Cache;

use crate::storage::IntentId;

/// Tokens that are remembered; beyond, those that served longest ago are forgotten, and count as new.
const REMEMBERED: u64 = 16_384;

/// Tokens that served, by the SHA-256 of their content, and for which issuance first.
pub(crate) struct Served(Cache<[u8; 32], IntentId>);

impl Served {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(REMEMBERED).build())
    }

    /// Notes that a token served for an issuance; whether it had for another one before.
    pub(crate) fn again(&self, content_sha256: [u8; 32], intent: IntentId) -> bool {
        let first = self.0.entry(content_sha256).or_insert(intent);
        *first.value() != intent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_certificate_and_every_one_after_it_are_again() {
        let served = Served::new();
        let serves = |(token, intent)| served.again([token; 32], [intent; 16]);
        // The same certificate, fetched once more, is no other one.
        assert_eq!([(1, 1), (2, 2), (1, 1), (1, 3), (1, 4)].map(serves), [false, false, false, true, true]);
    }
}
