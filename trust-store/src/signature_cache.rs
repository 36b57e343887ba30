//! Remembering which signatures were verified, so that certificates, SCTs, CRLs, OCSP responses and newer checkpoints
//! are verified once and not once per artifact.
//!
//! Only successes are remembered, under a hash of algorithm, key, message and signature: a hit means that exactly this
//! check succeeded before, whoever asks and whatever has changed since. Validity, revocation and policy are evaluated
//! anew every time.

use core::fmt::Write;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use sha2::{Digest as _, Sha256};
use tlog::signature::{Algorithm, InvalidSignature, SignatureVerifier};

/// A set of verified signatures, kept by the caller, who bounds it.
///
/// `insert` is called only after a successful verification. An implementation MAY forget anything at any time, MUST NOT
/// answer `true` for a key that was never inserted, and is used from several threads at once.
pub trait SignatureCache: Send + Sync {
    /// Whether this check succeeded before.
    fn contains(&self, key: &[u8; 32]) -> bool;
    /// Remembers a success.
    fn insert(&self, key: [u8; 32]);
}

/// Slots of [`OneVerification`]: an attestation that brings everything along has some ten checks that can recur.
const SLOTS: usize = 16;

/// Remembers the checks of one verification, for a verifier without a cache: a list that speaks about several certificates,
/// or an authority that stamped twice, is verified once.
#[derive(Default)]
pub(crate) struct OneVerification {
    slots: [[AtomicU64; 4]; SLOTS],
    used: AtomicUsize,
}

impl SignatureCache for OneVerification {
    fn contains(&self, key: &[u8; 32]) -> bool {
        let words = words(key);
        self.slots.iter().any(|slot| slot.iter().zip(words).all(|(half, word)| half.load(Relaxed) == word))
    }

    fn insert(&self, key: [u8; 32]) {
        // One verification runs in one thread. Two would at worst mix their halves into a hash that nothing has.
        let next = self.used.fetch_add(1, Relaxed) % SLOTS;
        for (half, word) in self.slots.get(next).into_iter().flatten().zip(words(&key)) {
            half.store(word, Relaxed);
        }
    }
}

fn words(key: &[u8; 32]) -> [u64; 4] {
    let (words, _) = key.as_chunks::<8>();
    let mut all = [0; 4];
    all.iter_mut().zip(words).for_each(|(word, octets)| *word = u64::from_be_bytes(*octets));
    all
}

/// A [`SignatureVerifier`] that asks a cache first.
pub struct CachedVerifier<'a> {
    inner: &'a dyn SignatureVerifier,
    cache: &'a dyn SignatureCache,
}

impl<'a> CachedVerifier<'a> {
    /// Puts `cache` in front of `inner`.
    pub fn new(inner: &'a dyn SignatureVerifier, cache: &'a dyn SignatureCache) -> Self {
        Self { inner, cache }
    }

    fn remembered(
        &self,
        kind: &str,
        (algorithm, public_key, message, signature): (Algorithm, &[u8], &[u8], &[u8]),
        verify: impl FnOnce() -> Result<(), InvalidSignature>,
    ) -> Result<(), InvalidSignature> {
        let mut hasher = Hasher(Sha256::new());
        let (key_length, message_length, signature_length) =
            (public_key.len(), message.len(), signature.len());
        // Lengths first, so that no two different checks have the same input.
        let written =
            writeln!(hasher, "{kind} {algorithm:?} {key_length} {message_length} {signature_length}");
        if written.is_err() {
            return verify(); // a hasher takes everything; without its key nothing is remembered
        }
        let mut hasher = hasher.0;
        hasher.update(public_key);
        hasher.update(message);
        hasher.update(signature);
        let key: [u8; 32] = hasher.finalize().into();
        if self.cache.contains(&key) {
            return Ok(());
        }
        verify()?;
        self.cache.insert(key);
        Ok(())
    }
}

/// Hashes text without collecting it first.
struct Hasher(Sha256);

impl Write for Hasher {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0.update(text);
        Ok(())
    }
}

impl SignatureVerifier for CachedVerifier<'_> {
    fn verify(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        self.remembered("message", (algorithm, public_key, message, signature), || {
            self.inner.verify(algorithm, public_key, message, signature)
        })
    }

    fn verify_digest(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        digest: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        self.remembered("digest", (algorithm, public_key, digest, signature), || {
            self.inner.verify_digest(algorithm, public_key, digest, signature)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Set(Mutex<HashSet<[u8; 32]>>);

    impl SignatureCache for Set {
        fn contains(&self, key: &[u8; 32]) -> bool {
            self.0.lock().unwrap().contains(key)
        }
        fn insert(&self, key: [u8; 32]) {
            self.0.lock().unwrap().insert(key);
        }
    }

    /// Accepts the signature `ok` and counts the calls.
    #[derive(Default)]
    struct Counting(Mutex<usize>);

    impl SignatureVerifier for Counting {
        fn verify(&self, _: Algorithm, _: &[u8], _: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
            *self.0.lock().unwrap() += 1;
            if signature == b"ok" { Ok(()) } else { Err(InvalidSignature) }
        }
        fn verify_digest(&self, a: Algorithm, k: &[u8], d: &[u8], s: &[u8]) -> Result<(), InvalidSignature> {
            self.verify(a, k, d, s)
        }
    }

    #[test]
    fn one_verification_remembers_its_last_checks() {
        let memory = OneVerification::default();
        let key = |n: usize| -> [u8; 32] { Sha256::digest(n.to_be_bytes()).into() };
        assert!(!memory.contains(&key(0)));
        for n in 0..SLOTS {
            memory.insert(key(n));
        }
        assert!((0..SLOTS).all(|n| memory.contains(&key(n))));
        memory.insert(key(SLOTS));
        assert!(memory.contains(&key(SLOTS)) && !memory.contains(&key(0)), "the oldest is forgotten");
        let mut other = key(1);
        other[31] ^= 1;
        assert!(!memory.contains(&other));
    }

    #[test]
    fn remembers_successes_only_and_only_the_exact_check() {
        let (inner, cache) = (Counting::default(), Set::default());
        let verifier = CachedVerifier::new(&inner, &cache);
        let a = Algorithm::Ed25519;
        assert!(verifier.verify(a, b"k", b"m", b"ok").is_ok());
        assert!(verifier.verify(a, b"k", b"m", b"ok").is_ok());
        assert_eq!(*inner.0.lock().unwrap(), 1);
        assert!(verifier.verify(a, b"k", b"m", b"no").is_err());
        assert!(verifier.verify(a, b"k", b"m", b"no").is_err());
        assert_eq!(*inner.0.lock().unwrap(), 3, "a failure is not remembered");
        // Each differs from the remembered check in one respect, also in where key and message meet.
        assert!(verifier.verify(Algorithm::MlDsa44, b"k", b"m", b"ok").is_ok());
        assert!(verifier.verify(a, b"km", b"", b"ok").is_ok());
        assert!(verifier.verify_digest(a, b"k", b"m", b"ok").is_ok());
        assert_eq!(*inner.0.lock().unwrap(), 6);
    }
}
