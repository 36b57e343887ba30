//! A decrypted key with its policy.

use super::PrivateKey;
use crate::algorithm::{KeyAlgorithm, SignatureAlgorithm};
use crate::error::Error;
use crate::intent::{PurposeSet, SigningIntent};
use crate::policy::KeyPolicy;
use crate::public_key::PublicKey;
use crate::signer::{Input, Pace, ProtectionLevel, Signature, Signer};

pub(crate) struct SoftwareSigner {
    key: PrivateKey,
    public_key: PublicKey,
    policy: KeyPolicy,
}

impl SoftwareSigner {
    /// Opens a key: checks that the private half belongs to the pinned public half and signs a random challenge.
    pub(crate) fn open(key: PrivateKey, pinned: PublicKey, policy: KeyPolicy) -> Result<Self, Error> {
        let found = key.public_key()?;
        if found != pinned {
            return Err(Error::KeyMismatch {
                expected: pinned.spki_sha256_hex(),
                found: found.spki_sha256_hex(),
            });
        }
        let signer = Self { key, public_key: pinned, policy };
        let challenge: [u8; 32] = super::seal::random()?;
        signer
            .sign_verified(Input::Message(&challenge), signer.public_key.algorithm().default_signature())?;
        Ok(signer)
    }

    fn sign_verified(&self, input: Input<'_>, algorithm: SignatureAlgorithm) -> Result<Signature, Error> {
        let signature = self.key.sign(input, algorithm)?;
        self.public_key
            .verify(algorithm, input, signature.as_bytes())
            .map_err(|_| Error::SelfCheck { algorithm })?;
        Ok(signature)
    }
}

impl Signer for SoftwareSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn protection(&self) -> ProtectionLevel {
        ProtectionLevel::Software
    }

    fn purposes(&self) -> PurposeSet {
        self.policy.purposes
    }

    fn pace(&self) -> Pace {
        let quick = matches!(self.public_key.algorithm(), KeyAlgorithm::EcdsaP256 | KeyAlgorithm::Ed25519);
        // A sink of records may wait for a disk.
        if quick && self.policy.audit.is_none() { Pace::Prompt } else { Pace::Blocks }
    }

    fn sign(
        &self,
        input: Input<'_>,
        algorithm: SignatureAlgorithm,
        intent: &SigningIntent,
    ) -> Result<Signature, Error> {
        self.policy.admit(&self.public_key, algorithm, intent)?;
        self.sign_verified(input, algorithm)
    }
}
