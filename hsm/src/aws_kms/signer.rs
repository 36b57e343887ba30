//! One key of KMS.

use std::sync::Arc;

use aws_lc_rs::digest;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeySpec as KmsKeySpec, MessageType, SigningAlgorithmSpec};

use super::service::Service;
use crate::algorithm::{KeyAlgorithm, SignatureAlgorithm};
use crate::error::Error;
use crate::intent::{PurposeSet, SigningIntent};
use crate::policy::KeyPolicy;
use crate::public_key::{PublicKey, imported_digest};
use crate::signer::{Input, ProtectionLevel, Signature, Signer};

/// Longest message that KMS hashes itself.
const MAX_RAW: usize = 4096;

/// What KMS calls a type of key.
pub(super) fn key_spec(algorithm: KeyAlgorithm) -> Result<KmsKeySpec, Error> {
    match algorithm {
        KeyAlgorithm::EcdsaP256 => Ok(KmsKeySpec::EccNistP256),
        KeyAlgorithm::EcdsaP384 => Ok(KmsKeySpec::EccNistP384),
        KeyAlgorithm::Rsa3072 => Ok(KmsKeySpec::Rsa3072),
        KeyAlgorithm::Rsa4096 => Ok(KmsKeySpec::Rsa4096),
        other => Err(Error::Unsupported {
            what: format!("{other} in AWS KMS"),
            reason: "use ecdsa-p256, ecdsa-p384, rsa-3072 or rsa-4096",
        }),
    }
}

fn signing_algorithm(algorithm: SignatureAlgorithm) -> Option<SigningAlgorithmSpec> {
    Some(match algorithm {
        SignatureAlgorithm::EcdsaP256Sha256 => SigningAlgorithmSpec::EcdsaSha256,
        SignatureAlgorithm::EcdsaP384Sha384 => SigningAlgorithmSpec::EcdsaSha384,
        SignatureAlgorithm::RsaPkcs1Sha256 => SigningAlgorithmSpec::RsassaPkcs1V15Sha256,
        SignatureAlgorithm::RsaPkcs1Sha384 => SigningAlgorithmSpec::RsassaPkcs1V15Sha384,
        SignatureAlgorithm::RsaPkcs1Sha512 => SigningAlgorithmSpec::RsassaPkcs1V15Sha512,
        SignatureAlgorithm::RsaPssSha256 => SigningAlgorithmSpec::RsassaPssSha256,
        SignatureAlgorithm::RsaPssSha384 => SigningAlgorithmSpec::RsassaPssSha384,
        SignatureAlgorithm::RsaPssSha512 => SigningAlgorithmSpec::RsassaPssSha512,
        SignatureAlgorithm::Ed25519 | SignatureAlgorithm::MlDsa44 => return None,
    })
}

pub(super) struct KmsSigner {
    service: Arc<Service>,
    id: String,
    public_key: PublicKey,
    policy: KeyPolicy,
}

impl KmsSigner {
    /// Opens a key: signs a random challenge and verifies it with the public half that was found.
    pub(super) fn open(
        service: Arc<Service>,
        id: String,
        public_key: PublicKey,
        policy: KeyPolicy,
    ) -> Result<Self, Error> {
        let signer = Self { service, id, public_key, policy };
        let challenge: [u8; 32] = crate::software::random()?;
        let algorithm = signer.public_key.algorithm().default_signature();
        signer.sign_verified(Input::Message(&challenge), algorithm)?;
        Ok(signer)
    }

    fn sign_verified(&self, input: Input<'_>, algorithm: SignatureAlgorithm) -> Result<Signature, Error> {
        let name = signing_algorithm(algorithm).ok_or_else(|| Error::Unsupported {
            what: algorithm.to_string(),
            reason: "AWS KMS signs with ECDSA and RSA here",
        })?;
        let (kind, bytes) = self.form(input, algorithm)?;
        let answer = self.service.once(
            self.service
                .client()
                .sign()
                .key_id(&self.id)
                .message(Blob::new(bytes))
                .message_type(kind)
                .signing_algorithm(name)
                .send(),
        )?;
        let raw = answer.signature().map(|blob| blob.as_ref().to_vec());
        let signature = Signature::new(raw.ok_or(Error::SelfCheck { algorithm })?);
        self.public_key
            .verify(algorithm, input, signature.as_bytes())
            .map_err(|_| Error::SelfCheck { algorithm })?;
        Ok(signature)
    }

    /// The digest; or, for emulators, the message as it is.
    fn form(&self, input: Input<'_>, algorithm: SignatureAlgorithm) -> Result<(MessageType, Vec<u8>), Error> {
        let wrong = || Error::Invalid {
            what: "digest",
            reason: format!("its length is not that of the digest of {algorithm}"),
        };
        match input {
            Input::Message(message) if self.service.sends_raw_messages() => {
                if message.len() > MAX_RAW {
                    return Err(Error::Unsupported {
                        what: format!("a message of {} bytes", message.len()),
                        reason: "this service is configured to be sent whole messages, of 4096 bytes at most",
                    });
                }
                Ok((MessageType::Raw, message.to_vec()))
            }
            Input::Message(message) => {
                let hash = algorithm.digest().ok_or_else(wrong)?;
                Ok((MessageType::Digest, digest::digest(hash.native(), message).as_ref().to_vec()))
            }
            Input::Digest(bytes) => {
                let digest = imported_digest(algorithm, bytes).ok_or_else(wrong)?;
                Ok((MessageType::Digest, digest.as_ref().to_vec()))
            }
        }
    }
}

impl Signer for KmsSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn protection(&self) -> ProtectionLevel {
        ProtectionLevel::Hardware
    }

    fn purposes(&self) -> PurposeSet {
        self.policy.purposes
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
