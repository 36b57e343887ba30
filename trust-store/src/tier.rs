//! Where modules of a trust level run, and what they may have at most: one list for the executor, which holds to it, and for whoever
//! says before anything is signed what it will do.
//!
//! | level | runs in | at most |
//! |---|---|---|
//! | `signed` | the worker process of its signer | compute, scratch files, streams to its caller, variables of its own manifest, requests to named hosts |
//! | `community` | the same | and to hosts by pattern, media |
//! | `verified` | the pool of this process | what policy grants and the operator provides |
//!
//! Policy grants within these ceilings and never beyond them. A worker opens no file, so no directory can be given to it.

use crate::capability::{Capability, GuestPath, Protocol};
use crate::policy::TrustLevel;

/// What lies between a guest and the executor besides its own sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// Nothing: it shares the executor's process with others of its level.
    SharedProcess,
    /// A process of its signer's own.
    WorkerOfSigner,
}

impl Isolation {
    /// What a level demands.
    pub fn of(level: TrustLevel) -> Self {
        if level >= TrustLevel::Verified { Self::SharedProcess } else { Self::WorkerOfSigner }
    }

    /// The stable text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SharedProcess => "shared process",
            Self::WorkerOfSigner => "worker process of the signer",
        }
    }
}

/// Why a module of this level may not have what it asks for, whatever policy says. `own` says whether the module's manifest
/// gives a variable its value and the operator does not, `scratch` whether a path leads to scratch files.
pub fn beyond_ceiling(
    level: TrustLevel,
    request: &Capability,
    own: impl Fn(&str) -> bool,
    scratch: impl Fn(&GuestPath) -> bool,
) -> Option<&'static str> {
    if level >= TrustLevel::Verified {
        return None;
    }
    let community = level >= TrustLevel::Community;
    match request {
        Capability::Compute(_) => None,
        // An operator's variables are for whom the operator trusts: keys of other services, as a rule.
        Capability::Env(name) => (!own(name.as_str())).then_some(
            "below the level `verified` a module has only variables that its own manifest gives a value",
        ),
        Capability::Extension { name, .. } if name == "stream" => None,
        Capability::Extension { name, .. } if name == "media" && community => None,
        Capability::Extension { .. } => Some("its trust level is too low for this extension"),
        // They lie in the memory of the worker: no file of the host is opened.
        Capability::Filesystem { path, .. } if scratch(path) => None,
        Capability::Filesystem { .. } => Some("below the level `verified` a module has no directories"),
        Capability::Network { protocol: Protocol::Tcp, .. } => Some(
            "below the level `verified` a module makes requests over HTTP and HTTPS, and no bare connections",
        ),
        Capability::Network { host, .. } if host.is_wildcard() && !community => {
            Some("a module of the level `signed` reaches named hosts only")
        }
        Capability::Network { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_has_its_ceiling_whatever_policy_grants() {
        use TrustLevel::{Community, Signed, Verified};
        for (text, lowest) in [
            ("compute:cpu_ms=5", Some(Signed)),
            ("env:OWN", Some(Signed)),
            ("env:OPERATORS", Some(Verified)),
            ("extension:media", Some(Community)),
            ("extension:other", Some(Verified)),
            ("extension:stream", Some(Signed)),
            ("filesystem:read:/data", Some(Verified)),
            ("filesystem:write:/data", Some(Verified)),
            ("filesystem:read:/tmp", Some(Signed)),
            ("filesystem:write:/tmp", Some(Signed)),
            ("network:https:api.example.com", Some(Signed)),
            ("network:https:*.example.com", Some(Community)),
            ("network:tcp:db.example.com:5432", Some(Verified)),
        ] {
            let request: Capability = text.parse().unwrap();
            let may = |level| {
                beyond_ceiling(level, &request, |name| name == "OWN", |path| path.as_str() == "/tmp")
                    .is_none()
            };
            assert_eq!([Signed, Community, Verified].into_iter().find(|level| may(*level)), lowest, "{text}");
        }
    }

    #[test]
    fn only_verified_modules_share_a_process() {
        for level in [TrustLevel::Untrusted, TrustLevel::Signed, TrustLevel::Community] {
            assert_eq!(Isolation::of(level), Isolation::WorkerOfSigner);
        }
        assert_eq!(Isolation::of(TrustLevel::Verified), Isolation::SharedProcess);
    }
}
