//! One key of a token.

use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::error::Error as Failure;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::ObjectHandle;

use super::object::{self, Stored};
use super::token::{Connection, Fault, Leased, fault, signing_error};
use crate::algorithm::{DigestAlgorithm, SignatureAlgorithm};
use crate::error::{Error, ErrorClass};
use crate::intent::{PurposeSet, SigningIntent};
use crate::policy::KeyPolicy;
use crate::public_key::{PublicKey, digest_of};
use crate::signer::{Input, ProtectionLevel, Signature, Signer};

pub(super) struct TokenSigner {
    connection: Arc<Connection>,
    id: Vec<u8>,
    public_key: PublicKey,
    policy: KeyPolicy,
    /// The private object, and the epoch in which its handle is good.
    handle: Mutex<Option<(u64, ObjectHandle)>>,
}

impl TokenSigner {
    /// Opens a key: signs a random challenge and verifies it with the public half that was found.
    pub(super) fn open(
        connection: Arc<Connection>,
        stored: Stored,
        policy: KeyPolicy,
    ) -> Result<Self, Error> {
        let signer = Self {
            connection,
            id: stored.id,
            public_key: stored.public_key,
            policy,
            handle: Mutex::new(None),
        };
        let challenge: [u8; 32] = crate::software::random()?;
        signer
            .sign_verified(Input::Message(&challenge), signer.public_key.algorithm().default_signature())?;
        Ok(signer)
    }

    fn sign_verified(&self, input: Input<'_>, algorithm: SignatureAlgorithm) -> Result<Signature, Error> {
        let digest = digest_of(input, algorithm)?;
        let raw = self.sign_digest(&digest, algorithm)?;
        let signature = if algorithm.is_rsa() { Some(raw) } else { ecdsa_der(&raw) };
        let signature = Signature::new(signature.ok_or(Error::SelfCheck { algorithm })?);
        self.public_key
            .verify(algorithm, input, signature.as_bytes())
            .map_err(|_| Error::SelfCheck { algorithm })?;
        Ok(signature)
    }

    /// Signs. A session that was lost before the device began is replaced once; nothing else is repeated.
    fn sign_digest(&self, digest: &[u8], algorithm: SignatureAlgorithm) -> Result<Vec<u8>, Error> {
        let (mechanism, data) = mechanism(algorithm, digest).ok_or_else(|| Error::Unsupported {
            what: algorithm.to_string(),
            reason: "tokens sign with ECDSA and RSA",
        })?;
        let mut second = false;
        loop {
            let leased = self.connection.lease()?;
            let outcome = self
                .handle(&leased)
                .and_then(|handle| Ok(leased.session()?.sign(&mechanism, handle, &data)))?;
            let failure = match outcome {
                Ok(signature) => return Ok(signature),
                Err(failure) => failure,
            };
            let epoch = leased.epoch;
            drop(leased);
            self.connection.note(&failure, epoch);
            let error = signing_error(&failure);
            // What may have been signed is not signed again.
            if fault(&failure) != Fault::Session || second || error.class() == ErrorClass::Ambiguous {
                return Err(error);
            }
            second = true;
        }
    }

    fn handle(&self, leased: &Leased<'_>) -> Result<ObjectHandle, Error> {
        let mut known = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((epoch, handle)) = *known
            && epoch == leased.epoch
        {
            return Ok(handle);
        }
        let found = object::private(leased.session()?, &self.id).map_err(|failure: Failure| {
            self.connection.note(&failure, leased.epoch);
            super::token::error(&failure)
        })?;
        let handle =
            found.ok_or_else(|| Error::NotFound { what: "the private key in the token".to_owned() })?;
        *known = Some((leased.epoch, handle));
        Ok(handle)
    }
}

impl Signer for TokenSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn protection(&self) -> ProtectionLevel {
        self.connection.options().protection
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

/// The mechanism of an algorithm and what it is given: tokens get digests, so that the size of the message does not matter.
fn mechanism(algorithm: SignatureAlgorithm, digest: &[u8]) -> Option<(Mechanism<'static>, Vec<u8>)> {
    let hash = algorithm.digest()?;
    match algorithm {
        SignatureAlgorithm::EcdsaP256Sha256 | SignatureAlgorithm::EcdsaP384Sha384 => {
            Some((Mechanism::Ecdsa, digest.to_vec()))
        }
        SignatureAlgorithm::RsaPkcs1Sha256
        | SignatureAlgorithm::RsaPkcs1Sha384
        | SignatureAlgorithm::RsaPkcs1Sha512 => {
            // DigestInfo of RFC 8017 §9.2, note 1.
            let (identifier, length) = match hash {
                DigestAlgorithm::Sha256 => (1, 32),
                DigestAlgorithm::Sha384 => (2, 48),
                DigestAlgorithm::Sha512 => (3, 64),
            };
            let mut data = vec![
                0x30,
                17 + length,
                0x30,
                13,
                6,
                9,
                0x60,
                0x86,
                0x48,
                1,
                0x65,
                3,
                4,
                2,
                identifier,
                5,
                0,
                4,
                length,
            ];
            data.extend_from_slice(digest);
            Some((Mechanism::RsaPkcs, data))
        }
        SignatureAlgorithm::RsaPssSha256
        | SignatureAlgorithm::RsaPssSha384
        | SignatureAlgorithm::RsaPssSha512 => {
            let (hash_alg, mgf, length) = match hash {
                DigestAlgorithm::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32_u64),
                DigestAlgorithm::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48),
                DigestAlgorithm::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64),
            };
            let parameters = PkcsPssParams { hash_alg, mgf, s_len: length.into() };
            Some((Mechanism::RsaPkcsPss(parameters), digest.to_vec()))
        }
        SignatureAlgorithm::Ed25519 | SignatureAlgorithm::MlDsa44 => None,
    }
}

/// Tokens answer r ‖ s; everybody else reads DER (RFC 3279 §2.2.3).
fn ecdsa_der(raw: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = raw.split_at_checked(raw.len() / 2)?;
    if r.len() != s.len() {
        return None;
    }
    crate::asn1::ecdsa_signature(r, s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_become_der_with_minimal_integers() {
        assert_eq!(ecdsa_der(&[0, 1, 0x80, 2]).unwrap(), [0x30, 8, 2, 1, 1, 2, 3, 0, 0x80, 2]);
        assert!(ecdsa_der(&[1, 2, 3]).is_none() && ecdsa_der(&[]).is_none());
    }

    #[test]
    fn pkcs1_gets_a_digest_info() {
        let (_, data) = mechanism(SignatureAlgorithm::RsaPkcs1Sha256, &[7; 32]).unwrap();
        assert_eq!((data.len(), data[1], data[14], data[18]), (51, 49, 1, 32));
    }
}
