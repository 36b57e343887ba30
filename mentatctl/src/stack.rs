//! A whole stack on loopback in one folder: certificate authority, transparency log, executor.
//!
//! The first start creates keys, databases, logs, ports and trust files; later starts only start. `stack.json` is
//! written last, so that an interrupted first start is recognised and refused instead of being half used.

mod child;
mod config;
mod create;
mod file;
mod issuer;
mod layout;
mod listener;
mod ports;
mod published;
mod raw_log;
mod repository;
mod run;
mod trust_files;

pub use config::Tempo;
pub use file::{OidcService, StackFile};
pub use issuer::{DEFAULT_AUDIENCE, DEVELOPER_AUDIENCE};
pub use raw_log::RawLog;
pub use run::{Running, Start, Up, up};
