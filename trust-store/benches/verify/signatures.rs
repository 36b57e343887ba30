//! A cache as a verifier's owner keeps one, and a record of the signature checks that a verification makes.

use std::collections::HashSet;
use std::sync::{Mutex, RwLock};

use trust_store::provider::AwsLc;
use trust_store::signature::{Algorithm, InvalidSignature, SignatureVerifier};
use trust_store::signature_cache::SignatureCache;

/// Remembers every success.
#[derive(Default)]
pub(crate) struct Remembered(RwLock<HashSet<[u8; 32]>>);

impl Remembered {
    /// A cache of its own with the same content.
    pub(crate) fn copy(&self) -> Self {
        Self(RwLock::new(self.0.read().unwrap().clone()))
    }
}

impl SignatureCache for Remembered {
    fn contains(&self, key: &[u8; 32]) -> bool {
        self.0.read().unwrap().contains(key)
    }

    fn insert(&self, key: [u8; 32]) {
        self.0.write().unwrap().insert(key);
    }
}

/// One signature check, to be made again.
#[derive(Clone)]
pub(crate) struct Call {
    algorithm: Algorithm,
    is_digest: bool,
    key: Vec<u8>,
    input: Vec<u8>,
    signature: Vec<u8>,
}

impl Call {
    pub(crate) fn repeat(&self, crypto: &dyn SignatureVerifier) {
        let (key, input, signature) = (&self.key, &self.input, &self.signature);
        let result = if self.is_digest {
            crypto.verify_digest(self.algorithm, key, input, signature)
        } else {
            crypto.verify(self.algorithm, key, input, signature)
        };
        result.expect("it verified before");
    }
}

/// Verifies natively and writes down what it verified.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<Call>>);

impl Recorder {
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap().clear();
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap().clone()
    }

    fn record(&self, algorithm: Algorithm, is_digest: bool, [key, input, signature]: [&[u8]; 3]) {
        let (key, input, signature) = (key.to_vec(), input.to_vec(), signature.to_vec());
        self.0.lock().unwrap().push(Call { algorithm, is_digest, key, input, signature });
    }
}

impl SignatureVerifier for Recorder {
    fn verify(
        &self,
        algorithm: Algorithm,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        self.record(algorithm, false, [key, message, signature]);
        AwsLc.verify(algorithm, key, message, signature)
    }

    fn verify_digest(
        &self,
        algorithm: Algorithm,
        key: &[u8],
        digest: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        self.record(algorithm, true, [key, digest, signature]);
        AwsLc.verify_digest(algorithm, key, digest, signature)
    }
}
