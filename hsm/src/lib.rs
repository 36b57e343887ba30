//! Keys that sign, and nothing else.
//!
//! A [`Signer`] is one private key behind one backend. It never hands out key bytes. What it signs must say *why*:
//! every call takes a [`SigningIntent`] (a [`Purpose`] and the id of the durable record that justifies the
//! signature), and the purpose is checked here against the purposes fixed when the key was made, so that a path which
//! issues end-entity certificates cannot sign a CRL with the root key by mistake. Every signature is verified against
//! the pinned public key before it is released.
//!
//! The core is blocking. Asynchronous callers use a [`SigningPool`], which bounds both threads and queue.
//!
//! In scope: key references ([`KeyUri`]), the encrypted software [`software::Keystore`], developer keys
//! ([`developer::DeveloperKey`]), verification with the same library that signs. Out of scope: what the signed bytes
//! mean, storage of records, HTTP. Backends that need a device or a cloud are cargo features behind [`KeyProvider`].
//!
//! | Word | Meaning |
//! |---|---|
//! | [`KeyProvider`] | a place where keys live; opens, generates and lists them |
//! | [`Keyring`] | several places behind one provider |
//! | [`Signer`] | one key version, opened and self-tested |
//! | [`PublicKey`] | its public half: SPKI, raw bits, pinned digest; verifies |
//! | [`SigningIntent`] | why this signature may exist |
//! | [`ProtectionLevel`] | how well the private half is kept |
#![forbid(unsafe_code)]

pub mod algorithm;
#[cfg(any(feature = "pkcs11", feature = "tpm"))]
mod asn1;
pub mod audit;
#[cfg(feature = "aws-kms")]
pub mod aws_kms;
mod clock;
pub mod danger;
pub mod developer;
pub mod error;
pub mod intent;
pub mod keyring;
pub mod passphrase;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
mod policy;
pub mod pool;
pub mod provider;
pub mod public_key;
pub mod shares;
pub mod signer;
pub mod software;
#[cfg(feature = "tpm")]
pub mod tpm2;
pub mod uri;

#[cfg(test)]
mod conformance;

pub use algorithm::{DigestAlgorithm, KeyAlgorithm, SignatureAlgorithm};
pub use error::{DeniedReason, Error, ErrorClass};
pub use intent::{IntentId, Purpose, PurposeSet, SigningIntent};
pub use keyring::Keyring;
pub use passphrase::{Passphrase, PassphraseSource};
pub use pool::{OwnedInput, PendingSignature, SigningPool};
pub use provider::{Capabilities, Health, KeyInfo, KeyLabel, KeyProvider, KeySpec};
pub use public_key::{InvalidSignature, PublicKey, verify};
pub use signer::{Input, Pace, ProtectionLevel, Signature, Signer};
pub use uri::{KeyUri, Scheme};
