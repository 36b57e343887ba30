//! The transparency log server and its witness.
//!
//! In scope: who may write what to which log, the write endpoints of each kind of log, reads (C2SP tlog-tiles,
//! static-ct-api), proofs and lookups, witnessing. Out of scope: durability and order of writes (crate `log-store`),
//! hashing and formats (crate `tlog`), listener and limits (crate `service`).
//!
//! | Module | What |
//! |---|---|
//! | [`config`], [`settings`] | the configuration file, raw and validated |
//! | [`init`] | makes keys and empty logs, once |
//! | [`index`] | the offline command that makes the lookup index anew |
//! | [`repair`] | the offline commands `repair` and `check` |
//! | [`serve`] | opens the logs and serves them |
//! | `admission` | which signatures, chains and statements are accepted |
//! | [`witness`] | the witness server; the client for a witness policy is `witness_client` |
//! | `page` | the page for people, static files in `web/` |
//! | `api` | HTTP in and out; the only place that knows status codes |
#![forbid(unsafe_code)]

mod admission;
mod api;
pub mod clock;
pub mod config;
pub mod index;
pub mod init;
mod issuers;
mod keys;
mod logs;
mod lookup;
mod metrics;
mod page;
mod remembered;
pub mod repair;
pub mod serve;
pub mod settings;
mod terms;
pub mod witness;
mod witness_client;
