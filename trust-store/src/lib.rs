//! The offline verifier: certificate paths, revocation, attestations, log evidence and trust policy.
//!
//! Pure: no sockets, no files, no clock. Time is an argument, signatures go through [`provider`], and everything
//! that is not proven is denied with a stable [`reason::ReasonCode`].
//!
//! In scope of the X.509 half: RFC 5280 (certificates, CRLs, §6 path validation), RFC 6960 (OCSP responses, reading)
//! and the signature providers. Out of scope: fetching anything, writing any structure (that is `ca-pki`).
//!
//! | module | what |
//! |---|---|
//! | [`x690`] | strict DER reader the parsers stand on |
//! | [`certificate`], [`extension`], [`name`], [`general_name`] | RFC 5280 §4 structures |
//! | [`path`] | RFC 5280 §6: path building and validation |
//! | [`crl`], [`ocsp`], [`revocation`] | revocation evidence and the decision over it |
//! | [`provider`] | signature verification by aws-lc-rs or RustCrypto |
//! | [`reason`] | the denial codes and the numbered steps they belong to |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod algorithm;
pub mod budget;
pub mod certificate;
pub mod crl;
mod crl_entry;
pub mod extension;
mod extension_distribution;
mod extension_policy;
pub mod general_name;
pub mod name;
mod name_constraints;
mod name_match;
pub mod oid;
pub mod path;
mod path_building;
mod path_validation;
pub mod pem;
mod policy_tree;
pub mod provider;
pub mod reason;
pub mod time;
pub mod x690;

// The evidence half.
pub mod bundle;
mod bundle_json;
pub mod capability;
pub mod dsse;
pub mod error;
pub mod jcs;
pub mod json;
pub mod key_details;
pub mod log_entry;
pub mod manifest;
pub mod rekor;
pub mod signing_config;
pub mod statement;
pub mod trusted_root;
pub mod validity;

pub use certificate::Certificate;
pub use reason::{Denial, ReasonCode};
pub use time::UnixTime;
pub use tlog::signature;
