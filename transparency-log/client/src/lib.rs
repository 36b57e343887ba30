//! HTTP client for transparency logs: reads what logs publish, proves it, submits to them, follows them.
//!
//! Trust stays where the caller put it: methods that verify take the log's keys and a
//! [`SignatureVerifier`](tlog::SignatureVerifier); every tile, entry and proof is checked against a verified
//! checkpoint before it is returned. What is returned unverified says so.
//!
//! | need | start at |
//! |---|---|
//! | read a log | [`LogClient::checkpoint`], then [`LogClient::tree`] |
//! | read a copy of a log | [`LogClient::over_folder`], then the same |
//! | submit | [`LogClient::submit`], [`LogClient::submit_batch`], [`LogClient::submit_event`], [`LogClient::add_chain`], [`LogClient::submit_chains`], [`LogClient::add`] |
//! | follow a log | [`Monitor`] |
//! | find the logs of a server | [`LogSet::fetch`] |
#![forbid(unsafe_code)]

mod client;
mod error;
mod folder;
mod http;
mod issuance;
mod logs;
mod monitor;
mod proof;
mod state;
mod submit;
mod tiles;

pub use client::LogClient;
pub use error::{Error, ForkEvidence};
pub use http::RetryPolicy;
pub use issuance::{ChainResult, Wanted};
pub use logs::{LogDescription, LogSet};
pub use monitor::{Growth, Monitor, WatchedEntry, Watcher};
pub use proof::ProvenEntry;
pub use state::MonitorState;
pub use submit::{BatchResult, Submission};
pub use tiles::{EntryFormat, RemoteTree, VerifiedEntry};
/// What the interface of this crate names, for readers that need no more of the log's formats.
pub use tlog::{
    BundleId, TreeHead, VerifierKey,
    static_ct::{DataTileRecord, SignedEntry},
};
