//! What an identity token claims (OpenID Connect Core 1.0 §2), and the certificate that follows from it.

use ca_pki::oid::{ObjectIdentifier, sigstore};
use ca_pki::{Identity, TokenRefusal, UnixTime};
use serde::{Deserialize, Deserializer};

use super::OidcError;
use super::config::{Bearers, IdentityKind, UnverifiedEmail};
use super::demands::NamedClaims;

/// Seconds by which an issuer's clock may differ from ours.
pub const CLOCK_SKEW: i64 = 30;
/// Longest subject. OpenID Connect Core 1.0 §2 says 255 characters; those of workloads are longer.
const MAX_SUBJECT: usize = 1024;
/// Longest value of a claim that goes into a certificate.
const MAX_CLAIM: usize = 1024;
/// Longest e-mail address (RFC 5321 §4.5.3.1.3), and longest name of whoever started a job.
const MAX_ADDRESS: usize = 254;
/// Most audiences one token may have.
const MAX_AUDIENCES: usize = 16;

/// The claims that are looked at. Everything else a token says is ignored.
#[derive(Debug, Clone, Deserialize)]
pub struct Claims {
    /// Issuer.
    pub iss: String,
    /// Subject.
    pub sub: String,
    /// Audiences.
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    #[serde(deserialize_with = "numeric_date")]
    exp: i64,
    #[serde(default, deserialize_with = "optional_date")]
    nbf: Option<i64>,
    #[serde(default, deserialize_with = "optional_date")]
    iat: Option<i64>,
    email: Option<String>,
    #[serde(default, deserialize_with = "truth")]
    email_verified: bool,
    /// The whole payload, for the claims of CI providers.
    #[serde(skip)]
    payload: Vec<u8>,
}

/// Claims of CI providers, read for their issuers alone: elsewhere the same names mean anything or nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Workflow {
    ci_config_ref_uri: Option<String>,
    ci_config_sha: Option<String>,
    event_name: Option<String>,
    job_id: Option<String>,
    job_workflow_ref: Option<String>,
    job_workflow_sha: Option<String>,
    namespace_id: Option<String>,
    namespace_path: Option<String>,
    pipeline_source: Option<String>,
    project_id: Option<String>,
    project_path: Option<String>,
    project_visibility: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    ref_type: Option<String>,
    repository: Option<String>,
    repository_id: Option<String>,
    repository_owner: Option<String>,
    repository_owner_id: Option<String>,
    repository_visibility: Option<String>,
    run_attempt: Option<String>,
    run_id: Option<String>,
    runner_environment: Option<String>,
    sha: Option<String>,
    workflow: Option<String>,
    workflow_ref: Option<String>,
    workflow_sha: Option<String>,
}

/// Who started a job, as far as its token says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Starter {
    actor: Option<String>,
    user_email: Option<String>,
    user_login: Option<String>,
}

/// What an issuer says of an e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailProof {
    /// Nothing.
    Claimed,
    /// That it is its subject's.
    Verified,
}

/// Whose certificate a token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The one name of the certificate.
    pub identity: Identity,
    /// What the requester's key must have signed (sigstore-contract §3).
    pub challenge: String,
    /// Further extensions, in ascending order of their numbers.
    pub extensions: Vec<(ObjectIdentifier, String)>,
}

impl Claims {
    /// Parses the payload of a token.
    ///
    /// # Errors
    /// [`TokenRefusal::Malformed`] for a payload without issuer, subject, audience or expiry, or with one of them twice.
    pub fn parse(payload: &[u8]) -> Result<Self, OidcError> {
        let mut claims: Self = serde_json::from_slice(payload)
            .map_err(|_| TokenRefusal::Malformed("the claims lack iss, sub, aud or exp, or are not JSON"))?;
        let subject_valid = !claims.sub.is_empty()
            && claims.sub.len() <= MAX_SUBJECT
            && claims.sub.bytes().all(|octet| octet.is_ascii_graphic() || octet == b' ');
        if !subject_valid {
            return Err(TokenRefusal::Malformed("the subject is empty, too long or not ASCII").into());
        }
        if claims.aud.len() > MAX_AUDIENCES {
            return Err(TokenRefusal::Malformed("too many audiences").into());
        }
        if claims.email.as_deref().is_some_and(|address| !is_name(address)) {
            return Err(TokenRefusal::Malformed(UNREADABLE).into());
        }
        claims.payload = payload.to_vec();
        Ok(claims)
    }

    /// The e-mail address, and whether the issuer says that it verified it.
    #[must_use]
    pub fn email(&self) -> Option<(&str, EmailProof)> {
        let proof = if self.email_verified { EmailProof::Verified } else { EmailProof::Claimed };
        self.email.as_deref().map(|address| (address, proof))
    }

    /// The e-mail address that is its bearer's, if it is one and the issuer says so.
    #[must_use]
    pub fn verified_address(&self) -> Option<&str> {
        let verified = self.email().filter(|(_, proof)| *proof == EmailProof::Verified);
        verified.map(|(address, _)| address).filter(|address| Identity::email(address).is_ok())
    }

    /// What else than by its subject the token names its bearer: by the address, verified or not, and a job by whoever started it.
    ///
    /// # Errors
    /// [`TokenRefusal::Malformed`] for a name that is too long, not printable or no text.
    pub fn bearer(&self, bearers: Bearers) -> Result<Vec<String>, OidcError> {
        let mut names: Vec<String> = self.email.iter().cloned().collect();
        if bearers == Bearers::Jobs {
            let by: Starter = serde_json::from_slice(&self.payload)
                .map_err(|_| TokenRefusal::Malformed("the name of who started the job is not a text"))?;
            names.extend([by.actor, by.user_email, by.user_login].into_iter().flatten());
        }
        names.retain(|name| !name.is_empty());
        if names.iter().all(|name| is_name(name)) {
            Ok(names)
        } else {
            Err(TokenRefusal::Malformed(UNREADABLE).into())
        }
    }

    /// Refuses a token outside its time.
    ///
    /// # Errors
    /// [`OidcError::Expired`], [`OidcError::NotYetValid`].
    pub fn valid_at(&self, now: UnixTime) -> Result<(), OidcError> {
        if now.0 >= self.exp.saturating_add(CLOCK_SKEW) {
            return Err(OidcError::Expired);
        }
        let begins = self.nbf.unwrap_or(i64::MIN).max(self.iat.unwrap_or(i64::MIN));
        if now.0 < begins.saturating_sub(CLOCK_SKEW) {
            return Err(OidcError::NotYetValid);
        }
        Ok(())
    }

    /// When its time is over.
    #[must_use]
    pub fn ends(&self) -> UnixTime {
        UnixTime(self.exp)
    }

    /// The time in which it may be used, for people.
    #[must_use]
    pub fn times(&self) -> String {
        let until = UnixTime(self.exp).to_rfc3339();
        match self.nbf.max(self.iat) {
            Some(begin) => format!("{} to {until}", UnixTime(begin).to_rfc3339()),
            None => format!("until {until}"),
        }
    }

    /// Everything the token says, by name.
    ///
    /// # Errors
    /// [`TokenRefusal::Malformed`] when a name stands twice.
    pub fn named(&self) -> Result<NamedClaims, OidcError> {
        NamedClaims::parse(&self.payload)
    }

    /// Seconds since the token was made.
    ///
    /// # Errors
    /// [`OidcError::ClaimMissing`] when it does not say.
    pub fn age(&self, now: UnixTime) -> Result<i64, OidcError> {
        let made = self.iat.ok_or(OidcError::ClaimMissing("iat"))?;
        Ok(now.0.saturating_sub(made))
    }

    /// The certificate's subject by the rule of the issuer.
    ///
    /// # Errors
    /// [`OidcError::ClaimMissing`], [`OidcError::EmailNotVerified`], [`OidcError::IdentityNotAllowed`].
    pub fn subject(&self, kind: &IdentityKind) -> Result<Subject, OidcError> {
        let bare = |identity, challenge: &str| Subject {
            identity,
            challenge: challenge.to_owned(),
            extensions: Vec::new(),
        };
        match kind {
            IdentityKind::Email { domains, unverified } => {
                let email = self.email.as_deref().ok_or(OidcError::ClaimMissing("email"))?;
                if !self.email_verified && *unverified == UnverifiedEmail::Refuse {
                    return Err(OidcError::EmailNotVerified);
                }
                let identity = Identity::email(email).map_err(|_| OidcError::IdentityNotAllowed)?;
                let domain = email.rsplit_once('@').map_or("", |(_, domain)| domain);
                if !domains.is_empty() && !domains.iter().any(|allowed| allowed.eq_ignore_ascii_case(domain))
                {
                    return Err(OidcError::IdentityNotAllowed);
                }
                Ok(bare(identity, email))
            }
            IdentityKind::Uri { prefix } => {
                if !self.sub.starts_with(prefix.as_str()) {
                    return Err(OidcError::IdentityNotAllowed);
                }
                let identity = Identity::uri(&self.sub).map_err(|_| OidcError::IdentityNotAllowed)?;
                Ok(bare(identity, &self.sub))
            }
            IdentityKind::GithubWorkflow { url } => self.github(url),
            IdentityKind::GitlabPipeline { url } => self.gitlab(url),
        }
    }

    fn workflow(&self) -> Result<Workflow, OidcError> {
        serde_json::from_slice(&self.payload)
            .map_err(|_| TokenRefusal::Malformed("a claim of the CI provider is not a text").into())
    }

    /// A job of GitHub Actions: the name is the reusable workflow that ran, at its revision.
    fn github(&self, url: &str) -> Result<Subject, OidcError> {
        let job = &self.workflow()?;
        let below = |path: &str| format!("{url}/{path}");
        let workflow = needed("job_workflow_ref", &job.job_workflow_ref)?;
        let repository = needed("repository", &job.repository)?;
        let run = format!(
            "{}/actions/runs/{}/attempts/{}",
            below(repository),
            needed("run_id", &job.run_id)?,
            needed("run_attempt", &job.run_attempt)?
        );
        self.workload(
            below(workflow),
            vec![
                (sigstore::WORKFLOW_TRIGGER, job.event_name.clone()),
                (sigstore::WORKFLOW_SHA, job.sha.clone()),
                (sigstore::WORKFLOW_NAME, job.workflow.clone()),
                (sigstore::WORKFLOW_REPOSITORY, Some(repository.to_owned())),
                (sigstore::WORKFLOW_REF, job.reference.clone()),
                (sigstore::BUILD_SIGNER_URI, Some(below(workflow))),
                (sigstore::BUILD_SIGNER_DIGEST, job.job_workflow_sha.clone()),
                (sigstore::RUNNER_ENVIRONMENT, job.runner_environment.clone()),
                (sigstore::SOURCE_REPOSITORY_URI, Some(below(repository))),
                (sigstore::SOURCE_REPOSITORY_DIGEST, job.sha.clone()),
                (sigstore::SOURCE_REPOSITORY_REF, job.reference.clone()),
                (sigstore::SOURCE_REPOSITORY_IDENTIFIER, job.repository_id.clone()),
                (sigstore::SOURCE_OWNER_URI, job.repository_owner.as_deref().map(below)),
                (sigstore::SOURCE_OWNER_IDENTIFIER, job.repository_owner_id.clone()),
                (sigstore::BUILD_CONFIG_URI, job.workflow_ref.as_deref().map(below)),
                (sigstore::BUILD_CONFIG_DIGEST, job.workflow_sha.clone()),
                (sigstore::BUILD_TRIGGER, job.event_name.clone()),
                (sigstore::RUN_INVOCATION_URI, Some(run)),
                (sigstore::REPOSITORY_VISIBILITY, job.repository_visibility.clone()),
            ],
        )
    }

    /// A job of GitLab CI: the name is the pipeline's configuration, at its revision.
    fn gitlab(&self, url: &str) -> Result<Subject, OidcError> {
        let job = &self.workflow()?;
        let below = |path: &str| format!("{url}/{path}");
        let config = format!("https://{}", needed("ci_config_ref_uri", &job.ci_config_ref_uri)?);
        // The claim has no scheme; what it names must still be below the configured server.
        if !config.starts_with(&format!("{url}/")) {
            return Err(OidcError::IdentityNotAllowed);
        }
        let project = needed("project_path", &job.project_path)?;
        let reference = match (job.ref_type.as_deref(), job.reference.as_deref()) {
            (Some("branch"), Some(name)) => Some(format!("refs/heads/{name}")),
            (Some("tag"), Some(name)) => Some(format!("refs/tags/{name}")),
            _ => None,
        };
        let run = format!("{}/-/jobs/{}", below(project), needed("job_id", &job.job_id)?);
        self.workload(
            config.clone(),
            vec![
                (sigstore::BUILD_SIGNER_URI, Some(config.clone())),
                (sigstore::BUILD_SIGNER_DIGEST, job.ci_config_sha.clone()),
                (sigstore::RUNNER_ENVIRONMENT, job.runner_environment.clone()),
                (sigstore::SOURCE_REPOSITORY_URI, Some(below(project))),
                (sigstore::SOURCE_REPOSITORY_DIGEST, job.sha.clone()),
                (sigstore::SOURCE_REPOSITORY_REF, reference),
                (sigstore::SOURCE_REPOSITORY_IDENTIFIER, job.project_id.clone()),
                (sigstore::SOURCE_OWNER_URI, job.namespace_path.as_deref().map(below)),
                (sigstore::SOURCE_OWNER_IDENTIFIER, job.namespace_id.clone()),
                (sigstore::BUILD_CONFIG_URI, Some(config)),
                (sigstore::BUILD_CONFIG_DIGEST, job.ci_config_sha.clone()),
                (sigstore::BUILD_TRIGGER, job.pipeline_source.clone()),
                (sigstore::RUN_INVOCATION_URI, Some(run)),
                (sigstore::REPOSITORY_VISIBILITY, job.project_visibility.clone()),
            ],
        )
    }

    fn workload(
        &self,
        name: String,
        claims: Vec<(ObjectIdentifier, Option<String>)>,
    ) -> Result<Subject, OidcError> {
        let identity = Identity::uri(&name).map_err(|_| OidcError::IdentityNotAllowed)?;
        let extensions: Vec<_> = claims.into_iter().filter_map(|(oid, value)| Some((oid, value?))).collect();
        let printable = |text: &str| !text.is_empty() && text.chars().all(|each| !each.is_control());
        if extensions.iter().any(|(_, value)| value.len() > MAX_CLAIM || !printable(value)) {
            return Err(
                TokenRefusal::Malformed("a claim is empty, too long or holds control characters").into()
            );
        }
        Ok(Subject { identity, challenge: self.sub.clone(), extensions })
    }
}

const UNREADABLE: &str = "the e-mail address, or a name, is too long or holds control characters";

/// Whether records can take it for a name of somebody.
fn is_name(text: &str) -> bool {
    text.len() <= MAX_ADDRESS && !text.chars().any(char::is_control)
}

fn needed<'a>(name: &'static str, value: &'a Option<String>) -> Result<&'a str, OidcError> {
    value.as_deref().filter(|text| !text.is_empty()).ok_or(OidcError::ClaimMissing(name))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(i64),
    Fraction(f64),
}

/// A NumericDate (RFC 7519 §2) may have a fraction; whole seconds are enough here.
fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    optional_date(deserializer)?.ok_or_else(|| serde::de::Error::custom("not a date"))
}

fn optional_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    match Option::<Number>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Number::Whole(seconds)) => Ok(Some(seconds)),
        // From here to the year 9999; `as` saturates, and nothing near its ends is accepted.
        Some(Number::Fraction(seconds)) if (0.0..253_402_300_800.0).contains(&seconds) => {
            Ok(Some(seconds as i64))
        }
        Some(Number::Fraction(_)) => Err(serde::de::Error::custom("not a date")),
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Truth {
    Plain(bool),
    // Some issuers write the claim as a string.
    Text(String),
}

fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(match Option::<Truth>::deserialize(deserializer)? {
        None => false,
        Some(Truth::Plain(value)) => value,
        Some(Truth::Text(text)) => text == "true",
    })
}
