//! How many certificates one identity, and one requester, may have in an hour.
//!
//! Identity tokens are good for any number of certificates until they expire, and so is whoever can make new ones: a job that runs
//! wild, or somebody who stole the right to ask, is slowed down before anything is recorded or signed. The counts live in memory, and
//! begin anew with the process.

use std::time::Duration;

use ca_pki::Identity;
use service::rate_limit::{ClientKey, Exceeded, RateLimiter};
use sha2::{Digest as _, Sha256};

use crate::config::{EnrolmentConfig, HourlyRate};
use crate::issuance::AuthorisedRequest;

/// What is left to each.
pub(crate) struct Allowances {
    identities: RateLimiter,
    requesters: RateLimiter,
}

impl Allowances {
    pub(crate) fn new(config: &EnrolmentConfig) -> Self {
        let limiter = |rate: HourlyRate| RateLimiter::new(rate.into());
        Self { identities: limiter(config.per_identity), requesters: limiter(config.per_requester) }
    }

    /// Takes one certificate from what the requester and the identity have left.
    ///
    /// # Errors
    /// [`Exceeded`] when one of them has none left; then the other keeps what it has.
    pub(crate) fn take(&self, of: &Counted, now: Duration) -> Result<(), Exceeded> {
        if let Some(requester) = &of.requester {
            self.requesters.take(requester.clone(), now)?;
        }
        self.identities.take(of.identity.clone(), now).inspect_err(|_| {
            of.requester.iter().for_each(|requester| self.requesters.give_back(requester, now));
        })
    }

    /// Gives back what no certificate came of.
    pub(crate) fn give_back(&self, of: &Counted, now: Duration) {
        of.requester.iter().for_each(|requester| self.requesters.give_back(requester, now));
        self.identities.give_back(&of.identity, now);
    }
}

/// Whose certificates are counted.
pub(crate) struct Counted {
    identity: ClientKey,
    /// None for whoever has a one-time token: they ask once with it.
    requester: Option<ClientKey>,
}

impl Counted {
    pub(crate) fn of(request: &AuthorisedRequest) -> Self {
        let kind = match &request.identity {
            Identity::Email(_) => "email",
            _ => "uri",
        };
        Self {
            identity: key(&[kind, request.identity.as_str(), &request.identity_issuer]),
            requester: request.token.is_none().then(|| key(&[&request.requester])),
        }
    }
}

/// Names are long; what is kept of them is not.
fn key(parts: &[&str]) -> ClientKey {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    ClientKey::Named(hex::encode(digest.finalize()).into())
}
