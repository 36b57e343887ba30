//! A token whose signature was verified: what is known of it before anybody judges what it says, and what tells it from every other.

use ca_pki::UnixTime;
use sha2::{Digest as _, Sha256};

use super::OidcError;
use super::claims::{CLOCK_SKEW, Claims};
use crate::storage::UsedIdentityToken;

/// Seconds for which a used token is remembered beyond its time, should the clock be set back a little.
pub(super) const MARGIN: i64 = 3_600;

/// A token that an issuer of the configuration signed. Only the check of its signature makes it.
#[derive(Debug, Clone)]
pub struct VerifiedToken {
    pub(super) claims: Claims,
    sha256: [u8; 32],
    content_sha256: [u8; 32],
}

impl VerifiedToken {
    pub(super) fn new(token: &str, claims: Claims) -> Self {
        let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
        Self {
            claims,
            sha256: Sha256::digest(token.as_bytes()).into(),
            content_sha256: Sha256::digest(signed.as_bytes()).into(),
        }
    }

    /// Its issuer.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.claims.iss
    }

    /// Its subject.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.claims.sub
    }

    /// The name of its bearer in records: `oidc:ISSUER#SUBJECT`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("oidc:{}#{}", self.claims.iss, self.claims.sub)
    }

    /// SHA-256 of the whole token.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// SHA-256 of what its signature is over. Of one content there are several valid signatures, so the token's own bytes would not
    /// tell it from others.
    #[must_use]
    pub fn content_sha256(&self) -> [u8; 32] {
        self.content_sha256
    }

    /// What is remembered of it once it served, where it serves once.
    ///
    /// # Errors
    /// [`OidcError::ClaimMissing`] when it does not say when it was made: after a restore nobody knows what served before.
    pub(super) fn once(&self, now: UnixTime) -> Result<UsedIdentityToken, OidcError> {
        let age = self.claims.age(now)?;
        Ok(UsedIdentityToken {
            hash: self.content_sha256,
            made_at: now.plus(age.saturating_neg()),
            forgotten_at: self.claims.ends().plus(CLOCK_SKEW).plus(MARGIN),
        })
    }
}
