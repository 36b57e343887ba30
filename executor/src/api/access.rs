//! Who may do what.
//!
//! | role | on loopback without `[admin]` | otherwise |
//! |---|---|---|
//! | read status, explain | everybody | everybody who reaches the listener |
//! | execute | everybody | administrators and holders of an accepted client certificate |
//! | load, unload, stop, refresh, import | everybody | administrators |

use http::HeaderMap;
use service::admin::{AdminAuth, AdminConfig};
use service::{Peer, Problem, StartRefusal};

/// Decides by headers and connection.
#[derive(Debug, Clone)]
pub struct Access {
    admin: Option<AdminAuth>,
    open_execution: bool,
}

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Load, unload, stop, refresh, import.
    Administer,
    /// Execute.
    Execute,
}

impl Access {
    /// `loopback` says whether only this machine reaches the listener; the configuration refuses a reachable one
    /// without administrators.
    ///
    /// # Errors
    ///
    /// When the token file cannot be used.
    pub fn new(config: &AdminConfig, loopback: bool) -> Result<Self, StartRefusal> {
        let admin = if *config == AdminConfig::default() { None } else { Some(AdminAuth::new(config)?) };
        Ok(Self { admin, open_execution: loopback })
    }

    /// Lets a caller through.
    ///
    /// # Errors
    ///
    /// A 401 problem.
    pub fn check(&self, role: Role, headers: &HeaderMap, peer: &Peer) -> Result<(), Problem> {
        let Some(admin) = &self.admin else { return Ok(()) };
        if role == Role::Execute && (self.open_execution || peer.certificate().is_some()) {
            return Ok(());
        }
        admin.authenticate(headers, peer).map(drop)
    }
}
