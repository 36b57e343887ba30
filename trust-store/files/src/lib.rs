//! Files around the offline verifier: manifests in YAML, attestation and bundle files, trust and policy files.
//!
//! `trust-store` takes values and bytes; this crate reads and writes them. Every size is checked before a file is
//! parsed, only regular files are read, and every write is atomic and durable: temporary file, sync, rename, sync of
//! the directory.
//!
//! | module | what |
//! |---|---|
//! | [`manifest_file`] | `manifest.yaml`: load, verify against its module, insert the attestation block |
//! | [`yaml`] | YAML 1.2 core types as a strict model; no anchors, aliases, tags, merge keys, duplicate keys |
//! | `tuf` (feature `tuf`) | the trusted root as TUF metadata: follow a repository, write one |
//! | [`evidence_file`] | evidence as one signed file, never taken back to an older one |
//! | [`root_lifetime`] | until when a trusted root that follows a repository may be used |
//! | [`trust_files`] | `trusted_root.json`, `signing_config.json`, policies, evidence |
//! | [`atomic`] | bounded reads and durable writes |
//! | [`error`] | the one error |
#![forbid(unsafe_code)]

pub mod atomic;
pub mod error;
pub mod evidence_file;
mod locked;
pub mod manifest_file;
pub mod pipeline_file;
pub mod root_lifetime;
mod splice;
pub mod trust_files;
#[cfg(feature = "tuf")]
pub mod tuf;
pub mod yaml;

pub use error::Error;
pub use manifest_file::ManifestFile;
pub use root_lifetime::{RootLifetime, load_trusted_root_at, load_trusted_root_with_lifetime};
pub use trust_files::{
    load_evidence, load_policy, load_policy_document, load_signing_config, store_client_trust_config,
    store_evidence, store_policy_document, store_signing_config, store_trusted_root,
};
