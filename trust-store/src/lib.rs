//! The offline verifier: certificate paths, revocation, attestations, log evidence and trust policy.
//!
//! Pure: no sockets, no files, no clock. Time is an argument, signatures go through [`provider`], and everything
//! that is not proven is denied with a stable [`reason::ReasonCode`].
//!
//! In scope of the X.509 half: RFC 5280 (certificates, CRLs, §6 path validation), RFC 6960 (OCSP responses, reading)
//! and the signature providers. Out of scope: fetching anything, writing any structure (that is `ca-pki`)
//! but the questions that a verifier asks: an OCSP request, a timestamp request.
//!
//! | module | what |
//! |---|---|
//! | [`x690`] | strict DER reader the parsers stand on |
//! | [`certificate`], [`extension`], [`name`], [`general_name`] | RFC 5280 §4 structures |
//! | [`path`] | RFC 5280 §6: path building and validation |
//! | [`crl`], [`ocsp`], [`revocation`] | revocation evidence and the decision over it |
//! | [`ocsp_request`] | whom to ask about a certificate, and how |
//! | [`provider`] | signature verification by aws-lc-rs or RustCrypto |
//! | [`reason`] | the denial codes and the numbered steps they belong to |
//!
//! The evidence half: what was signed, where it is logged, and the decision.
//!
//! | module | what |
//! |---|---|
//! | [`verifier`] | the one decision: the numbered steps 1 to 14, giving a [`VerifiedArtifact`] or a [`Denial`] |
//! | [`attestation`], [`bundle`], [`dsse`], [`statement`] | an artifact's attestation: Sigstore bundle, envelope, in-toto |
//! | [`event`], [`announcement`] | events of an event log, each type from its own keys; revocations among them |
//! | [`rekor`], [`log_entry`], [`rekor_v1`] | log entries: requests and canonical bodies, answers, version 1 for reading |
//! | [`tsp`], [`sct`] | RFC 3161 tokens, embedded certificate timestamps (RFC 6962) |
//! | [`manifest`], [`capability`], [`jcs`] | the manifest, its capability grammar, its canonical form |
//! | [`pipeline`] | agents composed: a document that is released as a module is |
//! | [`trusted_root`], [`signing_config`], [`trust_material`] | Sigstore trust files, and what they become |
//! | [`policy`], [`policy_document`], [`evidence`], [`identity`] | what is demanded, and what is known |
//! | [`tier`] | what modules of a trust level run in, and may have at most |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate self as trust_store; // the test fixture is shared with the integration tests
#[cfg(test)]
extern crate std;

pub mod algorithm;
pub mod announcement;
pub mod budget;
pub mod certificate;
mod certificate_parsing;
pub mod conformance;
pub mod crl;
mod crl_entry;
mod crl_status;
pub mod extension;
mod extension_distribution;
mod extension_policy;
pub mod general_name;
pub mod name;
mod name_constraints;
mod name_match;
pub mod name_text;
pub mod ocsp;
mod ocsp_parsing;
pub mod ocsp_request;
pub mod oid;
pub mod path;
mod path_building;
mod path_validation;
pub mod pem;
mod policy_tree;
pub mod provider;
pub mod reason;
pub mod revocation;
mod revocation_assessment;
pub mod time;
pub mod x690;

// The evidence half.
pub mod attestation;
pub mod bundle;
mod bundle_json;
pub mod capability;
pub mod capability_rules;
pub mod dsse;
mod encode;
mod entry_body;
pub mod error;
pub mod event;
pub mod evidence;
pub mod identity;
pub mod jcs;
pub mod json;
pub mod key_details;
pub mod log_entry;
pub mod manifest;
mod meter;
pub mod pattern;
pub mod pipeline;
pub mod policy;
pub mod policy_document;
pub mod rekor;
pub mod rekor_v1;
pub mod sct;
pub mod signature_cache;
pub mod signing_config;
pub mod sorted_json;
pub mod statement;
pub mod tier;
pub mod trust_material;
pub mod trusted_root;
pub mod tsp;
pub mod validity;
pub mod verified;
pub mod verifier;

pub use certificate::Certificate;
pub use reason::{Denial, ReasonCode};
pub use time::UnixTime;
pub use tlog::signature;
pub use verified::{ArtifactDigest, VerifiedArtifact};
pub use verifier::Verifier;
