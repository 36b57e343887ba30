//! Who may do what: administrators, issuers, auditors, each by token or client certificate.
//!
//! | role | may |
//! |---|---|
//! | auditor | list and show certificates |
//! | issuer | that, and make one-time tokens |
//! | administrator (`[admin]`) | everything |
//!
//! What only a quorum may do (the root's key) is not here: no role of the API reaches it.

use http::{HeaderMap, StatusCode};
use service::admin::{AdminAuth, AdminConfig, AdminIdentity};
use service::peer::{self, Peer};
use service::{Problem, StartRefusal};
use warp::Filter;

use crate::config::RolesConfig;

/// A role, with all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Auditor,
    /// Lets others enrol.
    Issuer,
    /// Everything.
    Administrator,
}

impl Role {
    /// As audit records begin an actor's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::Issuer => "issuer",
            // What records of before roles existed have.
            Self::Administrator => "admin",
        }
    }
}

/// Somebody who was recognised, in the highest role they have.
#[derive(Debug, Clone)]
pub struct Caller {
    role: Role,
    identity: AdminIdentity,
}

impl Caller {
    /// The name that audit records carry, such as `issuer:CN=ci,O=Example`.
    #[must_use]
    pub fn actor(&self) -> String {
        format!("{}:{}", self.role.as_str(), self.identity.name())
    }
}

/// Recognises callers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access {
    /// From the highest role down.
    roles: [(Role, AdminAuth); 3],
}

impl Access {
    /// Loads tokens and subjects.
    ///
    /// # Errors
    /// [`StartRefusal`] when a token file cannot be read, is open to others, or is too short.
    pub fn new(admin: &AdminConfig, roles: &RolesConfig) -> Result<Self, StartRefusal> {
        Ok(Self {
            roles: [
                (Role::Administrator, AdminAuth::new(admin)?),
                (Role::Issuer, AdminAuth::new(&roles.issuer)?),
                (Role::Auditor, AdminAuth::new(&roles.auditor)?),
            ],
        })
    }

    /// Recognises the sender of a request and what they may.
    ///
    /// # Errors
    /// 401 for strangers, 403 for those whose role does not reach.
    pub fn authorise(&self, headers: &HeaderMap, peer: &Peer, needed: Role) -> Result<Caller, Problem> {
        let mut stranger = None;
        for (role, auth) in &self.roles {
            match auth.authenticate(headers, peer) {
                Ok(identity) if *role >= needed => return Ok(Caller { role: *role, identity }),
                Ok(identity) => {
                    return Err(Problem::new(StatusCode::FORBIDDEN, "role_insufficient")
                        .with_detail(format!("this needs the role {}", needed.as_str()))
                        .with_internal(format!("{}:{} asked", role.as_str(), identity.name())));
                }
                // The first one speaks: every one says the same.
                Err(problem) => stranger = stranger.or(Some(problem)),
            }
        }
        Err(stranger.unwrap_or_else(|| Problem::unauthorized("a token or client certificate is needed")))
    }

    /// Lets only those through who have the role, and says who it was.
    pub fn filter(
        &self,
        needed: Role,
    ) -> impl Filter<Extract = (Caller,), Error = warp::Rejection> + Clone + Send + Sync + 'static + use<>
    {
        let access = self.clone();
        warp::header::headers_cloned().and(peer::peer()).and_then(move |headers: HeaderMap, peer: Peer| {
            let caller = access.authorise(&headers, &peer, needed).map_err(warp::Rejection::from);
            std::future::ready(caller)
        })
    }
}
