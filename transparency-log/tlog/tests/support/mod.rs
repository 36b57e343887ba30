//! Real keys and a real verifier for the tests of this crate.
#![allow(dead_code, reason = "every test file uses a part of it")]

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, ML_DSA_44_SIGNING,
    PqdsaKeyPair, UnparsedPublicKey,
};
use tlog::cosignature::{SubtreeStatement, TimestampedSignature, v1_message};
use tlog::static_ct::TreeHeadSignature;
use tlog::{
    Algorithm, Checkpoint, Hash, InvalidSignature, Note, NoteSignature, SignatureVerifier, TreeHead,
    VerifierKey,
};

/// Verifies with aws-lc.
pub(crate) struct AwsLc;

impl SignatureVerifier for AwsLc {
    fn verify(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let verdict = match algorithm {
            Algorithm::Ed25519 => {
                UnparsedPublicKey::new(&signature::ED25519, public_key).verify(message, signature)
            }
            Algorithm::EcdsaP256Sha256 => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, public_key)
                    .verify(message, signature)
            }
            Algorithm::MlDsa44 => {
                UnparsedPublicKey::new(&signature::ML_DSA_44, public_key).verify(message, signature)
            }
            _ => return Err(InvalidSignature),
        };
        verdict.map_err(|_| InvalidSignature)
    }

    fn verify_digest(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
        Err(InvalidSignature)
    }
}

/// A key that signs notes, with a fixed seed where the algorithm allows one.
pub(crate) enum Signer {
    Ed25519(Ed25519KeyPair),
    Cosigner(Ed25519KeyPair),
    MlDsa(PqdsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    CertificateLog(EcdsaKeyPair),
}

/// A signer with its name and verifier key.
pub(crate) struct Key {
    pub(crate) key: VerifierKey,
    signer: Signer,
}

fn ed25519(seed: u8) -> (Ed25519KeyPair, [u8; 32]) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = pair.public_key().as_ref().try_into().unwrap();
    (pair, public)
}

fn ecdsa() -> (EcdsaKeyPair, Vec<u8>) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let spki = pair.public_key().as_der().unwrap().as_ref().to_vec();
    (pair, spki)
}

impl Key {
    pub(crate) fn ed25519(name: &str, seed: u8) -> Self {
        let (pair, public) = ed25519(seed);
        Self { key: VerifierKey::ed25519(name, &public).unwrap(), signer: Signer::Ed25519(pair) }
    }

    pub(crate) fn cosigner(name: &str, seed: u8) -> Self {
        let (pair, public) = ed25519(seed);
        Self { key: VerifierKey::cosignature_v1(name, &public).unwrap(), signer: Signer::Cosigner(pair) }
    }

    pub(crate) fn ml_dsa(name: &str, seed: u8) -> Self {
        let pair = PqdsaKeyPair::from_seed(&ML_DSA_44_SIGNING, &[seed; 32]).unwrap();
        let key = VerifierKey::ml_dsa_44(name, pair.public_key().as_ref()).unwrap();
        Self { key, signer: Signer::MlDsa(pair) }
    }

    pub(crate) fn ecdsa(name: &str) -> Self {
        let (pair, spki) = ecdsa();
        Self { key: VerifierKey::ecdsa(name, &spki).unwrap(), signer: Signer::Ecdsa(pair) }
    }

    pub(crate) fn certificate_log(name: &str) -> Self {
        let (pair, spki) = ecdsa();
        Self { key: VerifierKey::tree_head(name, &spki).unwrap(), signer: Signer::CertificateLog(pair) }
    }

    /// The body of a signature line; `time` in the unit of the type, ignored by types without one.
    pub(crate) fn body(&self, text: &str, time: u64) -> Vec<u8> {
        let checkpoint = || Checkpoint::parse(text).unwrap();
        let random = SystemRandom::new();
        match &self.signer {
            Signer::Ed25519(pair) => pair.sign(text.as_bytes()).as_ref().to_vec(),
            Signer::Ecdsa(pair) => pair.sign(&random, text.as_bytes()).unwrap().as_ref().to_vec(),
            Signer::Cosigner(pair) => {
                let signature = pair.sign(&v1_message(time, text)).as_ref().to_vec();
                TimestampedSignature { time, signature }.to_bytes()
            }
            Signer::MlDsa(pair) => {
                let checkpoint = checkpoint();
                let statement = SubtreeStatement::of_checkpoint(self.key.name(), time, &checkpoint);
                let mut signature = vec![0; 2420];
                pair.sign(&statement.message().unwrap(), &mut signature).unwrap();
                TimestampedSignature { time, signature }.to_bytes()
            }
            Signer::CertificateLog(pair) => {
                let message = TreeHeadSignature::message(time, checkpoint().head());
                let signature = pair.sign(&random, &message).unwrap().as_ref().to_vec();
                TreeHeadSignature { timestamp: time, signature }.to_bytes().unwrap()
            }
        }
    }

    pub(crate) fn sign(&self, note: &mut Note, time: u64) {
        let body = self.body(note.text(), time);
        note.push(NoteSignature::new(self.key.name(), self.key.id(), body).unwrap());
    }
}

/// A note over a checkpoint, signed by all keys at `time`.
pub(crate) fn signed(origin: &str, head: TreeHead, keys: &[&Key], time: u64) -> Note {
    let mut note = Note::new(&Checkpoint::new(origin, head).unwrap().to_string()).unwrap();
    keys.iter().for_each(|key| key.sign(&mut note, time));
    note
}

/// A head that is the root of nothing in particular.
pub(crate) fn head(size: u64) -> TreeHead {
    TreeHead { size, root: Hash::digest(&size.to_be_bytes()) }
}
