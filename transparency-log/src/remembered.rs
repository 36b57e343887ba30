//! Verifying what comes again and again once.
//!
//! The few certificates below a root come with every submission, and verifying a P-384 signature costs more than everything
//! else about one. A signature over given bytes by a given key stays what it is; dates, usages and names are judged each time.

use std::collections::HashSet;

use parking_lot::Mutex;
use tlog::signature::{Algorithm, InvalidSignature, SignatureVerifier};
use trust_store::provider::AwsLc;

/// Signatures remembered; 32 bytes each.
const REMEMBERED: usize = 1024;

/// A verifier that remembers which signatures by certain keys were good.
#[derive(Debug)]
pub(crate) struct RememberedSignatures {
    keys: Vec<Vec<u8>>,
    good: Mutex<HashSet<[u8; 32]>>,
}

impl RememberedSignatures {
    /// Remembers signatures by these keys; others are verified each time.
    pub(crate) fn by<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Self {
        Self { keys: keys.map(<[u8]>::to_vec).collect(), good: Mutex::default() }
    }

    /// What identifies one verification.
    fn name(algorithm: Algorithm, parts: [&[u8]; 3]) -> [u8; 32] {
        let mut bytes = format!("{algorithm:?}").into_bytes();
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        tlog::Hash::digest(&bytes).0
    }
}

impl SignatureVerifier for RememberedSignatures {
    fn verify(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        if !self.keys.iter().any(|key| key == public_key) {
            return AwsLc.verify(algorithm, public_key, message, signature);
        }
        let name = Self::name(algorithm, [public_key, message, signature]);
        if self.good.lock().contains(&name) {
            return Ok(());
        }
        AwsLc.verify(algorithm, public_key, message, signature)?;
        let mut good = self.good.lock();
        if good.len() >= REMEMBERED {
            good.clear();
        }
        good.insert(name);
        Ok(())
    }

    fn verify_digest(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        digest: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        AwsLc.verify_digest(algorithm, public_key, digest, signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};

    #[test]
    fn only_the_very_signature_that_was_verified_is_remembered() {
        let (root, other) = (key(), key());
        let verifier = RememberedSignatures::by([root.der_bytes()].into_iter());
        let algorithm = Algorithm::EcdsaP384Sha384;
        let check = |key: &KeyPair, message: &[u8], signature: &[u8]| {
            verifier.verify(algorithm, key.der_bytes(), message, signature)
        };
        let signature = root.sign(b"certificate").unwrap();
        for _ in 0..2 {
            assert_eq!(check(&root, b"certificate", &signature), Ok(()));
        }
        assert_eq!(verifier.good.lock().len(), 1);
        assert!(check(&root, b"another one", &signature).is_err());
        assert!(check(&root, b"certificate", &other.sign(b"certificate").unwrap()).is_err());
        assert!(check(&other, b"certificate", &signature).is_err());
        assert_eq!(check(&other, b"leaf", &other.sign(b"leaf").unwrap()), Ok(()));
        assert_eq!(verifier.good.lock().len(), 1, "nothing else is remembered");
    }

    fn key() -> KeyPair {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap()
    }
}
