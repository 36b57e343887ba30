//! Identity tokens of the configured issuers (OpenID Connect Core 1.0): who may have a certificate without a one-time token.
//!
//! | word | meaning |
//! |---|---|
//! | [`config::IssuerRule`] | whose tokens are accepted, for which audience, and what certificate follows |
//! | [`ca_pki::jws::Jws`] | a token taken apart; [`ca_pki::jws::VerifiedPayload`] exists only after its signature was verified |
//! | [`keys::KeyCache`] | the issuer's keys: fetched by discovery, bounded in size, number, age and frequency |
//! | [`demands::Demands`] | what a section wants a token to say beside |
//! | [`VerifiedToken`] | one whose signature an issuer of the configuration made; nothing that it says was judged yet |
//! | [`claims::Claims`] | what the token says; [`claims::Subject`] is what the certificate will say |
//! | [`explanation`] | what would become of a token, rule by rule |
//! | [`ProvenIdentity`] | the outcome: exists only when every check passed |
//! | [`roles::RoleRule`], [`RecognisedHolder`] | whose tokens give roles, and somebody who has some |
//!
//! Time is an argument everywhere. The order of the checks: size and form → algorithm → issuer known → key → signature →
//! issuer again, from the verified payload → audience → time → claims that the section demands → subject. What is refused from the
//! audience on is known to come from the issuer, and stands in the audit trail ([`crate::token_refusal`]).

pub mod claims;
pub mod config;
pub mod demands;
pub mod explanation;
pub mod keys;
pub(crate) mod reuse;
pub mod roles;
mod token;

#[cfg(test)]
mod section_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ca_pki::jws::Jws;
use ca_pki::{Identity, TokenRefusal, UnixTime};
use serde::Deserialize;
use service::StartRefusal;
use trust_store::provider::AwsLc;

use claims::{Claims, EmailProof, Subject};
use config::{Bearers, IssuerRule, Reuse};
use keys::{HttpKeys, KeyCache, KeySource};
use roles::RoleRule;
use token::MARGIN;

pub use token::VerifiedToken;

use crate::config::Settings;
use crate::role::Role;
use crate::storage::UsedIdentityToken;

/// Why a token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OidcError {
    /// Made for somebody else.
    #[error("the token is for another audience")]
    AudienceNotAllowed,
    /// A claim that the issuer's rule needs is absent.
    #[error("the token lacks the claim {0}")]
    ClaimMissing(&'static str),
    /// A claim that the issuer's section demands is absent, or has none of the values that are allowed.
    #[error("what the token says in the claim {0} gets no certificate here")]
    ClaimNotAllowed(String),
    /// The issuer does not say that it verified the address.
    #[error("the token does not say that the e-mail address was verified")]
    EmailNotVerified,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// The rule does not allow the identity, or no certificate can carry it.
    #[error("the token's identity is not allowed")]
    IdentityNotAllowed,
    /// No configured issuer made it.
    #[error("the token's issuer is not configured")]
    IssuerUnknown,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// What it says gives no role.
    #[error("the token's claims give no role")]
    RoleNotGiven,
    /// It is no token of this issuer's keys, or its keys are none.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// It was made too long ago.
    #[error("the token was made too long ago")]
    TooOld,
    /// It served already.
    #[error("the token was used")]
    Used,
    /// The issuer's keys cannot be had at the moment.
    #[error("the issuer's keys are not available: {0}")]
    Unavailable(String),
}

impl OidcError {
    /// Stable code for metrics, logs and tests.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Token(TokenRefusal::AlgorithmNotAllowed) => "token_algorithm",
            Self::AudienceNotAllowed => "token_audience",
            Self::ClaimMissing(_) => "token_claim_missing",
            Self::ClaimNotAllowed(_) => "token_claim_not_allowed",
            Self::EmailNotVerified => "email_not_verified",
            Self::Expired => "token_expired",
            Self::IdentityNotAllowed => "identity_not_allowed",
            Self::IssuerUnknown => "token_issuer_unknown",
            Self::Token(TokenRefusal::KeySet(_)) | Self::Unavailable(_) => "issuer_unavailable",
            Self::Token(TokenRefusal::KeyUnknown) => "token_key_unknown",
            Self::Token(TokenRefusal::Malformed(_)) => "token_malformed",
            Self::NotYetValid => "token_not_yet_valid",
            Self::RoleNotGiven => "role_not_given",
            Self::Token(TokenRefusal::SignatureInvalid) => "token_signature",
            Self::TooOld => "token_too_old",
            Self::Used => "token_used",
        }
    }
}

/// An identity that a token proved.
#[derive(Debug, Clone)]
pub struct ProvenIdentity {
    subject: Subject,
    rule: IssuerRule,
    decided: BTreeMap<String, String>,
    audiences: Vec<String>,
    token_subject: String,
    names: Vec<String>,
    told_apart: bool,
    token_sha256: [u8; 32],
    content_sha256: [u8; 32],
    once: Option<UsedIdentityToken>,
}

impl ProvenIdentity {
    /// What the certificate will say.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Who vouches for it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.rule.issuer
    }

    /// The profile of its certificates.
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.rule.profile
    }

    /// Those of the token's audiences that a section of its issuer takes; the profile is that of the first one.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// What else the token calls its bearer: the e-mail address, verified or not, and whoever started a job.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether its bearer can be told from the people who approve: by an e-mail address that is theirs, or as a job where every section
    /// that the token fits says that its issuer's tokens are of jobs.
    #[must_use]
    pub fn is_told_apart(&self) -> bool {
        self.told_apart
    }

    /// The `sub` of the token.
    #[must_use]
    pub fn token_subject(&self) -> &str {
        &self.token_subject
    }

    /// What tells the token from all others.
    #[must_use]
    pub fn content_sha256(&self) -> [u8; 32] {
        self.content_sha256
    }

    /// What the transaction that records the issuance remembers of the token, where it serves once.
    #[must_use]
    pub fn once(&self) -> Option<UsedIdentityToken> {
        self.once
    }

    /// What the decision was based on, for the record; the token itself is a secret and stays out.
    #[must_use]
    pub fn evidence(&self) -> serde_json::Value {
        let mut evidence = serde_json::json!({
            "method": "oidc",
            "issuer": self.rule.issuer,
            "audience": self.rule.audience,
            "subject": self.token_subject,
            "token_sha256": hex::encode(self.token_sha256),
        });
        if let (false, Some(members)) = (self.decided.is_empty(), evidence.as_object_mut()) {
            members.insert("claims".to_owned(), serde_json::json!(self.decided));
        }
        evidence
    }
}

/// What the sections make of a token's claims, whoever wrote them.
struct Judged<'a> {
    rule: &'a IssuerRule,
    decided: BTreeMap<String, String>,
    subject: Subject,
    audiences: Vec<String>,
    names: Vec<String>,
    told_apart: bool,
    reuse: Reuse,
}

/// Judges claims; that the issuer made them is for the caller to know.
fn judged<'a>(rules: &'a [IssuerRule], claims: &Claims, now: UnixTime) -> Result<Judged<'a>, OidcError> {
    let of_issuer: Vec<_> = rules.iter().filter(|rule| rule.issuer == claims.iss).collect();
    if of_issuer.is_empty() {
        return Err(OidcError::IssuerUnknown);
    }
    let fitting: Vec<_> = of_issuer.into_iter().filter(|rule| claims.aud.contains(&rule.audience)).collect();
    let rule = *fitting.first().ok_or(OidcError::AudienceNotAllowed)?;
    claims.valid_at(now)?;
    let decided = if rule.claims.is_empty() { BTreeMap::new() } else { rule.claims.met(&claims.named()?)? };
    let subject = claims.subject(&rule.identity)?;
    // By whichever section it is a job's.
    let of_a_job = |rule: &&IssuerRule| rule.bearers == Bearers::Jobs || rule.identity.is_of_jobs();
    let bearers = if fitting.iter().any(of_a_job) { Bearers::Jobs } else { Bearers::People };
    let once = fitting.iter().any(|rule| rule.reuse == Reuse::Refuse);
    if once {
        // Else nobody could tell, after a restore, whether it served before.
        claims.age(now)?;
    }
    let addressed = matches!(subject.identity, Identity::Email(_)) || claims.verified_address().is_some();
    Ok(Judged {
        rule,
        decided,
        subject,
        // The order of the sections decides about no approval.
        audiences: fitting.iter().map(|rule| rule.audience.clone()).collect(),
        names: claims.bearer(bearers)?,
        reuse: if once { Reuse::Refuse } else { Reuse::UntilExpiry },
        told_apart: addressed || fitting.iter().all(|rule| rule.bearers == Bearers::Jobs),
    })
}

/// Somebody to whom identity tokens give roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecognisedHolder {
    /// The roles; not empty.
    pub roles: Vec<Role>,
    /// `oidc:ISSUER#SUBJECT`.
    pub name: String,
    /// The e-mail address that the token says.
    pub email: Option<(String, EmailProof)>,
    /// What tells the token from all others: SHA-256 of what its signature is over. Of one content there are several valid
    /// signatures, so the token's own bytes would not do.
    pub replay_key: [u8; 32],
    /// When it was made.
    pub made_at: UnixTime,
    /// From then on it is refused for its age anyway.
    pub serves_until: UnixTime,
}

/// The issuers whose tokens are accepted.
#[derive(Default)]
pub struct Issuers {
    rules: Vec<IssuerRule>,
    roles: Vec<RoleRule>,
    keys: BTreeMap<String, Arc<KeyCache>>,
}

/// The one claim that is read before the signature is verified.
#[derive(Deserialize)]
struct Claimed {
    iss: String,
}

impl Issuers {
    /// The configured issuers, asked over HTTP.
    ///
    /// # Errors
    /// [`StartRefusal`] for an unusable TLS file.
    pub fn over_http(settings: &Settings) -> Result<Self, StartRefusal> {
        let keys = |issuer: &str, tls_ca: Option<&Path>| {
            let tls_ca = tls_ca.map(|path| settings.path(path));
            Ok(Arc::new(HttpKeys::new(issuer, tls_ca.as_deref())?) as Arc<dyn KeySource>)
        };
        Self::new(settings.oidc.clone(), |rule| keys(&rule.issuer, rule.tls_ca_file.as_deref()))?
            .with_roles(settings.role_rules.clone(), |rule| keys(&rule.issuer, rule.tls_ca_file.as_deref()))
    }

    /// Issuers with their sources of keys; tests put their own in. Sections of one issuer share its keys.
    ///
    /// # Errors
    /// What `source` reports.
    pub fn new<E>(
        rules: Vec<IssuerRule>,
        mut source: impl FnMut(&IssuerRule) -> Result<Arc<dyn KeySource>, E>,
    ) -> Result<Self, E> {
        let mut keys = BTreeMap::new();
        for rule in &rules {
            if !keys.contains_key(&rule.issuer) {
                keys.insert(rule.issuer.clone(), Arc::new(KeyCache::new(source(rule)?)));
            }
        }
        Ok(Self { rules, roles: Vec::new(), keys })
    }

    /// The same, with tokens that give roles.
    ///
    /// # Errors
    /// What `source` reports.
    pub fn with_roles<E>(
        mut self,
        roles: Vec<RoleRule>,
        mut source: impl FnMut(&RoleRule) -> Result<Arc<dyn KeySource>, E>,
    ) -> Result<Self, E> {
        for rule in &roles {
            if !self.keys.contains_key(&rule.issuer) {
                self.keys.insert(rule.issuer.clone(), Arc::new(KeyCache::new(source(rule)?)));
            }
        }
        self.roles = roles;
        Ok(self)
    }

    /// Whether any token gives a role.
    #[must_use]
    pub fn give_roles(&self) -> bool {
        !self.roles.is_empty()
    }

    /// The rules, in the order of the configuration.
    #[must_use]
    pub fn rules(&self) -> &[IssuerRule] {
        &self.rules
    }

    /// Judges a token for a certificate. Where one issuer has several sections, the first whose audience the token has decides.
    ///
    /// # Errors
    /// [`OidcError`], the first check that fails.
    pub fn prove(&self, token: &VerifiedToken, now: UnixTime) -> Result<ProvenIdentity, OidcError> {
        let Judged { rule, decided, subject, audiences, names, told_apart, reuse } =
            judged(&self.rules, &token.claims, now)?;
        Ok(ProvenIdentity {
            subject,
            rule: rule.clone(),
            decided,
            audiences,
            names,
            told_apart,
            token_subject: token.subject().to_owned(),
            token_sha256: token.sha256(),
            content_sha256: token.content_sha256(),
            once: if reuse == Reuse::Refuse { Some(token.once(now)?) } else { None },
        })
    }

    /// Whether an issuer of certificates' identities signed a token; nothing else of it is looked at.
    ///
    /// # Errors
    /// [`OidcError`], the first check that fails.
    pub async fn authenticate(&self, token: &str, monotonic: Duration) -> Result<(), OidcError> {
        let token = self.verify(token, monotonic).await?;
        let known = self.rules.iter().any(|rule| rule.issuer == token.issuer());
        known.then_some(()).ok_or(OidcError::IssuerUnknown)
    }

    /// The roles that a token gives, by every section that it fits.
    ///
    /// # Errors
    /// [`OidcError`], the first check that fails; [`OidcError::RoleNotGiven`] when no section fits.
    pub fn recognise(&self, token: &VerifiedToken, now: UnixTime) -> Result<RecognisedHolder, OidcError> {
        let claims = &token.claims;
        let rules: Vec<_> = self.roles.iter().filter(|rule| rule.issuer == claims.iss).collect();
        if rules.is_empty() {
            return Err(OidcError::IssuerUnknown);
        }
        let said = claims.named()?;
        let rules: Vec<_> = rules.into_iter().filter(|rule| claims.aud.contains(&rule.audience)).collect();
        if rules.is_empty() {
            return Err(OidcError::AudienceNotAllowed);
        }
        claims.valid_at(now)?;
        let fitting: Vec<_> = rules.into_iter().filter(|rule| rule.fits(&said)).collect();
        if fitting.is_empty() {
            return Err(OidcError::RoleNotGiven);
        }
        let age = claims.age(now)?;
        let young: Vec<_> = fitting.into_iter().filter(|rule| age <= rule.max_age).collect();
        let longest = young.iter().map(|rule| rule.max_age).max().ok_or(OidcError::TooOld)?;
        Ok(RecognisedHolder {
            roles: young.iter().map(|rule| rule.role).collect(),
            name: token.name(),
            email: claims.email().map(|(address, proof)| (address.to_owned(), proof)),
            replay_key: token.content_sha256(),
            made_at: now.plus(age.saturating_neg()),
            // Remembered for longer than it serves, should the clock be set back a little.
            serves_until: now.plus(longest.saturating_sub(age).saturating_add(MARGIN)),
        })
    }

    /// Verifies that an issuer of the configuration signed a token, whatever it is for.
    ///
    /// # Errors
    /// [`OidcError`], the first check that fails.
    pub async fn verify(&self, token: &str, monotonic: Duration) -> Result<VerifiedToken, OidcError> {
        let jws = Jws::parse(token)?;
        let claimed: Claimed = serde_json::from_slice(jws.unverified_payload())
            .map_err(|_| TokenRefusal::Malformed("the claims have no iss"))?;
        let keys = self.keys.get(&claimed.iss).ok_or(OidcError::IssuerUnknown)?;
        let keys = keys.keys(jws.key_id(), monotonic).await?;
        let payload = jws.verify(keys.as_slice(), &AwsLc)?;
        let claims = Claims::parse(payload.as_bytes())?;
        if claims.iss != claimed.iss {
            return Err(OidcError::IssuerUnknown);
        }
        Ok(VerifiedToken::new(token, claims))
    }
}
