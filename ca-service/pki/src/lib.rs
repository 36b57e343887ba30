//! The certificate authority's formats: profiles, to-be-signed objects, the linter. No I/O, no keys, no clock.
//!
//! Everything a CA signs is made in two steps. A builder returns the exact bytes to be signed ([`signed::ToBeSigned`]);
//! the linter judges them; the caller records them and has them signed; [`signed::ToBeSigned::assemble`] puts bytes and
//! signature together without encoding anything a second time, so that linted, recorded and signed bytes are one.
//!
//! In scope: RFC 5280 certificates and CRLs, RFC 2986 requests, RFC 6960/9654/9919 OCSP, RFC 3161/5816 time-stamp
//! tokens, RFC 6962 precertificates, RFC 7515 tokens, the CA/Browser Forum's code-signing rules as a profile. Out of scope: reading
//! evidence for a decision (that is `trust-store`), keys, storage, transport.
//!
//! | module | what |
//! |---|---|
//! | [`profile`] | what kinds of certificates exist and what each must contain |
//! | [`certificate`] | TBSCertificate from a profile and a decided request |
//! | [`sct`] | precertificate poison, SCT list, correspondence |
//! | [`crl`], [`ocsp`], [`timestamp`] | status objects and time-stamp tokens |
//! | [`csr`], [`key`], [`identity`], [`name`] | what requesters send, bounded and validated |
//! | [`jws`] | signed tokens of identity providers and the keys they publish |
//! | [`lint`] | named rules with severities over finished objects |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod algorithm;
pub mod certificate;
pub mod crl;
pub mod csr;
mod encoding;
pub mod error;
pub mod extension;
pub mod identity;
pub mod jws;
pub mod key;
pub mod lint;
pub mod name;
pub mod ocsp;
pub mod oid;
pub mod pem;
pub mod profile;
pub mod sct;
pub mod serial;
pub mod signed;
pub mod time;
pub mod timestamp;

pub use algorithm::SignatureAlgorithm;
pub use error::{Error, KeyRefusal, TokenRefusal};
pub use identity::Identity;
pub use key::SubjectPublicKey;
pub use name::{DistinguishedName, NameFields};
pub use serial::SerialNumber;
pub use signed::ToBeSigned;
pub use time::UnixTime;
