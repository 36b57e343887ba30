//! A private key in memory. aws-lc wipes its memory when it is dropped.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self as native, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, PqdsaKeyPair, RsaEncoding,
    RsaKeyPair,
};
use zeroize::Zeroizing;

use crate::algorithm::{KeyAlgorithm, SignatureAlgorithm};
use crate::error::Error;
use crate::public_key::{PublicKey, imported_digest};
use crate::signer::{Input, Signature};

pub(crate) enum PrivateKey {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    MlDsa44(PqdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl PrivateKey {
    pub(crate) fn generate(algorithm: KeyAlgorithm) -> Result<Self, Error> {
        let failed = |_| Error::Permanent { detail: format!("generating a key of type {algorithm} failed") };
        match algorithm {
            KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384 => {
                EcdsaKeyPair::generate(curve(algorithm)).map(Self::Ecdsa)
            }
            KeyAlgorithm::Ed25519 => Ed25519KeyPair::generate().map(Self::Ed25519),
            KeyAlgorithm::MlDsa44 => PqdsaKeyPair::generate(&native::ML_DSA_44_SIGNING).map(Self::MlDsa44),
            KeyAlgorithm::Rsa3072 => RsaKeyPair::generate(KeySize::Rsa3072).map(Self::Rsa),
            KeyAlgorithm::Rsa4096 => RsaKeyPair::generate(KeySize::Rsa4096).map(Self::Rsa),
        }
        .map_err(failed)
    }

    /// Reads a PKCS#8 key of a known type.
    pub(crate) fn from_pkcs8(algorithm: KeyAlgorithm, pkcs8: &[u8]) -> Result<Self, Error> {
        let key = match algorithm {
            KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384 => {
                EcdsaKeyPair::from_pkcs8(curve(algorithm), pkcs8).map(Self::Ecdsa)
            }
            KeyAlgorithm::Ed25519 => Ed25519KeyPair::from_pkcs8(pkcs8).map(Self::Ed25519),
            KeyAlgorithm::MlDsa44 => {
                PqdsaKeyPair::from_pkcs8(&native::ML_DSA_44_SIGNING, pkcs8).map(Self::MlDsa44)
            }
            KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => RsaKeyPair::from_pkcs8(pkcs8).map(Self::Rsa),
        };
        key.map_err(|_| Error::Invalid {
            what: "private key",
            reason: format!("it is not a PKCS#8 key of type {algorithm}"),
        })
    }

    /// Reads a PKCS#8 key of any known type; RSA below 3072 bits is refused with the reason.
    pub(crate) fn from_any_pkcs8(pkcs8: &[u8]) -> Result<Self, Error> {
        let found =
            KeyAlgorithm::ALL.into_iter().find_map(|algorithm| Self::from_pkcs8(algorithm, pkcs8).ok());
        let key = found.ok_or_else(|| Error::Invalid {
            what: "private key",
            reason: "it is not a PKCS#8 key of type P-256, P-384, Ed25519, ML-DSA-44 or RSA".to_owned(),
        })?;
        // The public half checks the modulus size.
        key.public_key()?;
        Ok(key)
    }

    pub(crate) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let failed = |_| Error::Permanent { detail: "encoding the private key failed".to_owned() };
        let copied = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
        match self {
            Self::Ecdsa(key) => key.to_pkcs8v1().map(|d| copied(d.as_ref())).map_err(failed),
            Self::Ed25519(key) => key.to_pkcs8v1().map(|d| copied(d.as_ref())).map_err(failed),
            Self::MlDsa44(key) => key.to_pkcs8v1().map(|d| copied(d.as_ref())).map_err(failed),
            Self::Rsa(key) => AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(key)
                .map(|d| copied(d.as_ref()))
                .map_err(failed),
        }
    }

    pub(crate) fn public_key(&self) -> Result<PublicKey, Error> {
        let spki: Result<PublicKeyX509Der<'_>, _> = match self {
            Self::Ecdsa(key) => key.public_key().as_der(),
            Self::Ed25519(key) => key.public_key().as_der(),
            Self::MlDsa44(key) => key.public_key().as_der(),
            Self::Rsa(key) => key.public_key().as_der(),
        };
        let spki =
            spki.map_err(|_| Error::Permanent { detail: "encoding the public key failed".to_owned() })?;
        PublicKey::from_spki_der(spki.as_ref())
    }

    /// Signs. The caller has checked that the algorithm fits the key.
    pub(crate) fn sign(&self, input: Input<'_>, algorithm: SignatureAlgorithm) -> Result<Signature, Error> {
        let failed = |_| Error::Permanent { detail: format!("making a {algorithm} signature failed") };
        match (self, input) {
            (Self::Ecdsa(key), Input::Message(message)) => {
                key.sign(&SystemRandom::new(), message).map(|s| Signature::new(s.as_ref())).map_err(failed)
            }
            (Self::Ecdsa(key), Input::Digest(bytes)) => {
                let digest = imported_digest(algorithm, bytes).ok_or_else(|| wrong_digest(algorithm))?;
                key.sign_digest(&digest).map(|s| Signature::new(s.as_ref())).map_err(failed)
            }
            (Self::Ed25519(key), Input::Message(message)) => {
                key.try_sign(message).map(|s| Signature::new(s.as_ref())).map_err(failed)
            }
            (Self::MlDsa44(key), Input::Message(message)) => {
                let mut signature = vec![0; native::ML_DSA_44_SIGNING.signature_len()];
                let written = key.sign(message, &mut signature).map_err(failed)?;
                signature.truncate(written);
                Ok(Signature::new(signature))
            }
            (Self::Ed25519(_) | Self::MlDsa44(_), Input::Digest(_)) => Err(Error::Unsupported {
                what: format!("a digest as input of {algorithm}"),
                reason: "the algorithm signs whole messages; pass the message",
            }),
            (Self::Rsa(key), input) => {
                let padding = rsa_padding(algorithm).ok_or_else(|| wrong_digest(algorithm))?;
                let mut signature = vec![0; key.public_modulus_len()];
                match input {
                    Input::Message(message) => {
                        key.sign(padding, &SystemRandom::new(), message, &mut signature).map_err(failed)?;
                    }
                    Input::Digest(bytes) => {
                        let digest =
                            imported_digest(algorithm, bytes).ok_or_else(|| wrong_digest(algorithm))?;
                        key.sign_digest(padding, &digest, &mut signature).map_err(failed)?;
                    }
                }
                Ok(Signature::new(signature))
            }
        }
    }
}

fn wrong_digest(algorithm: SignatureAlgorithm) -> Error {
    Error::Invalid { what: "digest", reason: format!("its length is not that of the digest of {algorithm}") }
}

fn curve(algorithm: KeyAlgorithm) -> &'static EcdsaSigningAlgorithm {
    match algorithm {
        KeyAlgorithm::EcdsaP384 => &native::ECDSA_P384_SHA384_ASN1_SIGNING,
        _ => &native::ECDSA_P256_SHA256_ASN1_SIGNING,
    }
}

fn rsa_padding(algorithm: SignatureAlgorithm) -> Option<&'static dyn RsaEncoding> {
    match algorithm {
        SignatureAlgorithm::RsaPkcs1Sha256 => Some(&native::RSA_PKCS1_SHA256),
        SignatureAlgorithm::RsaPkcs1Sha384 => Some(&native::RSA_PKCS1_SHA384),
        SignatureAlgorithm::RsaPkcs1Sha512 => Some(&native::RSA_PKCS1_SHA512),
        SignatureAlgorithm::RsaPssSha256 => Some(&native::RSA_PSS_SHA256),
        SignatureAlgorithm::RsaPssSha384 => Some(&native::RSA_PSS_SHA384),
        SignatureAlgorithm::RsaPssSha512 => Some(&native::RSA_PSS_SHA512),
        SignatureAlgorithm::EcdsaP256Sha256
        | SignatureAlgorithm::EcdsaP384Sha384
        | SignatureAlgorithm::Ed25519
        | SignatureAlgorithm::MlDsa44 => None,
    }
}
