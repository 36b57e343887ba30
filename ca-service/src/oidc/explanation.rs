//! What would become of an identity token, rule by rule: for whoever writes sections, and for whoever was refused.
//!
//! The decision is that of issuance; only the words are made here. Claims of a token whose signature nobody
//! checked are explained, too, and the explanation says so: nothing is issued on its strength.

use ca_api::{ExplainedRule, RefusedToken, RuleVerdict, SignatureStanding, TokenExplanation, TokenOutcome};
use ca_pki::jws::{Jwk, Jws};
use ca_pki::profile::Kind;
use ca_pki::{Identity, UnixTime};
use serde_json::Value;
use trust_store::provider::AwsLc;

use super::claims::{CLOCK_SKEW, Claims};
use super::config::{IdentityKind, IssuerRule, Reuse, UnverifiedEmail};
use super::{Judged, OidcError, judged};
use crate::authority::CertificateAuthority;
use crate::config::Settings;
use crate::error::CaError;
use crate::queue::{Proof, QueueRefusal};

/// What is known of a token's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureCheck {
    /// Nothing.
    NotChecked,
    /// It is none of the issuer's, or that cannot be found out.
    Refused(OidcError),
    /// The issuer made it.
    Verified,
}

impl SignatureCheck {
    /// Checks a token's signature with keys that somebody vouches for.
    #[must_use]
    pub fn by_keys(token: &str, keys: &[Jwk]) -> Self {
        let checked = Jws::parse(token).and_then(|jws| jws.verify(keys, &AwsLc));
        match checked {
            Ok(_) => Self::Verified,
            Err(refusal) => Self::Refused(refusal.into()),
        }
    }

    fn standing(&self) -> SignatureStanding {
        match self {
            Self::NotChecked => SignatureStanding::NotChecked,
            Self::Refused(_) => SignatureStanding::Refused,
            Self::Verified => SignatureStanding::Verified,
        }
    }
}

/// Explains what would become of a token at `now` by the sections of a configuration.
#[must_use]
pub fn explain(
    settings: &Settings,
    token: &str,
    signature: &SignatureCheck,
    now: UnixTime,
) -> TokenExplanation {
    let mut told = TokenExplanation {
        outcome: TokenOutcome::Refused,
        refusal: None,
        signature: signature.standing(),
        section: None,
        rules: Vec::new(),
        identity: None,
        profile: None,
        approvals: 0,
    };
    let parsed = Jws::parse(token).map_err(OidcError::from);
    let outcome = parsed.and_then(|jws| Claims::parse(jws.unverified_payload())).map_err(CaError::from);
    let outcome = outcome.and_then(|claims| decide(settings, &claims, signature, now, &mut told));
    match outcome {
        Ok(outcome) => told.outcome = outcome,
        Err(refusal) => {
            told.refusal =
                Some(RefusedToken { code: code(&refusal).to_owned(), detail: refusal.to_string() });
        }
    }
    told
}

fn decide(
    settings: &Settings,
    claims: &Claims,
    signature: &SignatureCheck,
    now: UnixTime,
    told: &mut TokenExplanation,
) -> Result<TokenOutcome, CaError> {
    let sections = settings.oidc.iter().zip(1..);
    let mut of_issuer = sections.filter(|(rule, _)| rule.issuer == claims.iss);
    let deciding = of_issuer.find(|(rule, _)| claims.aud.contains(&rule.audience));
    told.section = deciding.map(|(_, number)| number);
    told.rules = rules(settings, claims, deciding.map(|(rule, _)| rule), signature, now)?;
    if let SignatureCheck::Refused(refusal) = signature {
        return Err(refusal.clone().into());
    }
    let Judged { rule, subject, audiences, told_apart, .. } = judged(&settings.oidc, claims, now)?;
    told.identity = Some(match &subject.identity {
        Identity::Email(address) => ca_api::Identity::Email(address.clone()),
        other => ca_api::Identity::Uri(other.as_str().to_owned()),
    });
    told.profile = Some(rule.profile.clone());
    let profile = settings.profiles.get(&rule.profile).ok_or(CaError::ProfileUnknown)?;
    if profile.kind() == Kind::CodeSigningBaseline {
        return Err(CaError::KeyEvidenceMissing);
    }
    profile.subject_for(&subject.identity)?;
    let proof = Proof::IdentityToken { audiences };
    told.approvals = settings.approvals_demanded(&rule.profile, &proof, &rule.issuer);
    match told.approvals {
        0 => Ok(TokenOutcome::Accepted),
        _ if told_apart => Ok(TokenOutcome::NeedsApproval),
        _ => Err(QueueRefusal::RequesterUnnamed.into()),
    }
}

/// The checks, each by itself: what comes after one that fails is told, too.
fn rules(
    settings: &Settings,
    claims: &Claims,
    deciding: Option<&IssuerRule>,
    signature: &SignatureCheck,
    now: UnixTime,
) -> Result<Vec<ExplainedRule>, OidcError> {
    let verdict = |met: bool| if met { RuleVerdict::Met } else { RuleVerdict::Unmet };
    let rule = |rule: &str, asks: String, says: Option<String>, verdict| ExplainedRule {
        rule: rule.to_owned(),
        asks,
        says,
        verdict,
    };
    let known: Vec<&IssuerRule> = settings.oidc.iter().filter(|each| each.issuer == claims.iss).collect();
    let (said, of_signature) = match signature {
        SignatureCheck::NotChecked => (None, RuleVerdict::NotChecked),
        SignatureCheck::Refused(refusal) => (Some(refusal.to_string()), RuleVerdict::Unmet),
        SignatureCheck::Verified => (None, RuleVerdict::Met),
    };
    let mut issuers: Vec<&str> = settings.oidc.iter().map(|each| each.issuer.as_str()).collect();
    issuers.sort_unstable();
    issuers.dedup();
    let audiences: Vec<&str> = known.iter().map(|each| each.audience.as_str()).collect();
    let mut told = vec![
        rule("signature", "by a key of its issuer".to_owned(), said, of_signature),
        rule("issuer", one_of(&issuers), Some(claims.iss.clone()), verdict(!known.is_empty())),
        rule("audience", one_of(&audiences), Some(claims.aud.join(", ")), verdict(deciding.is_some())),
        rule(
            "time",
            format!("now, {}, give or take {CLOCK_SKEW} s", now.to_rfc3339()),
            Some(claims.times()),
            verdict(claims.valid_at(now).is_ok()),
        ),
    ];
    let Some(section) = deciding else { return Ok(told) };
    if !section.claims.is_empty() {
        for finding in section.claims.findings(&claims.named()?) {
            let says = finding.said.map(|said| match said {
                Value::String(text) => text,
                other => other.to_string(),
            });
            let allowed: Vec<&str> = finding.allowed.iter().map(String::as_str).collect();
            let met = verdict(finding.fits.is_some());
            told.push(rule(&format!("claim {}", finding.claim), one_of(&allowed), says, met));
        }
    }
    let subject = claims.subject(&section.identity);
    let says = match &subject {
        Ok(subject) => subject.identity.as_str().to_owned(),
        Err(refusal) => refusal.to_string(),
    };
    told.push(rule("identity", asked_of(&section.identity), Some(says), verdict(subject.is_ok())));
    let once = |each: &&IssuerRule| each.reuse == Reuse::Refuse && claims.aud.contains(&each.audience);
    if known.iter().any(once) {
        // What served before is known where certificates are issued, and changes with the next one.
        let made =
            claims.age(now).ok().map(|age| format!("iat {}", now.plus(age.saturating_neg()).to_rfc3339()));
        let dated = if made.is_some() { RuleVerdict::NotChecked } else { RuleVerdict::Unmet };
        told.push(rule("use", "once, by a token that says when it was made".to_owned(), made, dated));
    }
    Ok(told)
}

fn one_of(values: &[&str]) -> String {
    match values {
        [] => "nothing is configured".to_owned(),
        [one] => (*one).to_owned(),
        many => format!("one of {}", many.join(", ")),
    }
}

fn asked_of(kind: &IdentityKind) -> String {
    match kind {
        IdentityKind::Email { domains, unverified } => {
            let verified = match unverified {
                UnverifiedEmail::Accept => "an e-mail address",
                UnverifiedEmail::Refuse => "an e-mail address that the issuer verified",
            };
            if domains.is_empty() {
                verified.to_owned()
            } else {
                format!("{verified}, at {}", domains.join(", "))
            }
        }
        IdentityKind::GithubWorkflow { url } | IdentityKind::GitlabPipeline { url } => {
            format!("a job below {url}")
        }
        IdentityKind::Uri { prefix } => format!("a subject below {prefix}"),
    }
}

/// The code that a request with the token would be refused with.
fn code(refusal: &CaError) -> &'static str {
    match refusal {
        CaError::KeyEvidenceMissing => "key_evidence_missing",
        CaError::Oidc(refusal) => refusal.code(),
        CaError::Pki(refusal) => refusal.code(),
        CaError::Queue(refusal) => refusal.code(),
        _ => "profile_unknown",
    }
}

impl CertificateAuthority {
    /// Explains what would become of a token now, its signature checked with its issuer's keys.
    ///
    /// # Errors
    /// [`CaError::Clock`].
    pub async fn explain_token(&self, token: &str) -> Result<TokenExplanation, CaError> {
        let now = self.clock.now()?;
        let signature = match self.issuers.authenticate(token, self.clock.monotonic()).await {
            Ok(()) => SignatureCheck::Verified,
            // Nobody's keys: there is nothing that the signature could be checked with.
            Err(OidcError::IssuerUnknown) => SignatureCheck::NotChecked,
            Err(refusal) => SignatureCheck::Refused(refusal),
        };
        Ok(explain(&self.settings, token, &signature, now))
    }
}
