//! A whole stack on loopback in one folder: certificate authority, transparency log, executor.
//!
//! The first start creates keys, databases, logs, ports and trust files; later starts only start. `stack.json` is
//! written last, so that an interrupted first start is recognised and refused instead of being half used.

mod acceptor;
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
mod rotation;
mod run;
mod shards;
mod trust_files;

pub use config::Tempo;
pub use file::{OidcService, StackFile};
pub use issuer::{DEFAULT_AUDIENCE, DEVELOPER_AUDIENCE};
pub use ports::Transport;
pub use raw_log::RawLog;
pub use repository::keys as repository_keys;
pub use rotation::{LogRole, rotate};
pub use run::{Running, Start, Up, up};

use layout::Layout;

/// A client for the stack's own servers.
fn stack_client(layout: &Layout) -> crate::exit::Outcome<reqwest::Client> {
    let authority = layout.tls_authority();
    crate::net::loopback_client(authority.is_file().then_some(&authority))
}
