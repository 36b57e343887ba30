//! The `[[oidc]]` sections: as they are written ([`OidcConfig`]) and validated ([`IssuerRule`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ca_pki::Identity;
use reqwest::Url;
use serde::Deserialize;
use service::StartRefusal;

use super::demands::Demands;

/// Longest issuer and audience in characters.
const MAX_NAME: usize = 512;
/// Most issuers that one CA may trust; each is a page of somebody else's decisions.
const MAX_ISSUERS: usize = 64;
/// Issuers that make tokens for the jobs of whoever opens an account.
const PUBLIC_ISSUERS: [&str; 2] = ["https://token.actions.githubusercontent.com", "https://gitlab.com"];
/// Claims that say whose job it is. Not among them are what jobs of strangers can have, too: who started one (starring somebody's
/// repository may start a job there), the reusable workflow or configuration that it runs, its branch, its environment; and `sub`, which
/// counts where it begins with one of these.
const OWNERS: [&str; 11] = [
    "enterprise",
    "enterprise_id",
    "namespace_id",
    "namespace_path",
    "project_id",
    "project_path",
    "repository",
    "repository_id",
    "repository_owner",
    "repository_owner_id",
    "workflow_ref",
];
/// What a subject begins with that says whose job it is. An organisation at GitHub chooses what else stands in those of its jobs.
const OWNED_SUBJECTS: [&str; 8] = [
    "enterprise:",
    "project_id:",
    "project_path:",
    "repo:",
    "repository:",
    "repository_id:",
    "repository_owner:",
    "repository_owner_id:",
];
/// Claims that say who somebody is, or which group they are of.
const PEOPLE: [&str; 8] =
    ["email", "groups", "groups_direct", "hd", "preferred_username", "sub", "user_email", "user_id"];

/// An issuer of identity tokens as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// The `iss` of its tokens, exactly. `https://…`, or plain `http` on a loopback address.
    pub issuer: String,
    /// The `aud` that its tokens must have: the client id. Default `sigstore`, which stock clients demand.
    #[serde(default = "sigstore")]
    pub audience: String,
    /// What the certificate's name comes from: `email` (default), `uri`, `github-workflow`, `gitlab-pipeline`.
    #[serde(default)]
    pub identity: Source,
    /// The profile of its certificates. Default `keyless`.
    #[serde(default = "keyless")]
    pub profile: String,
    /// How many people must approve each certificate, or as many as the profile needs if those are more. Default 0.
    #[serde(default)]
    pub approvals: u8,
    /// Whether its tokens are of jobs and other programs, so that nobody's e-mail address need be compared with those of the people who
    /// approve. Default false: where people must approve, a token without a verified address is refused.
    #[serde(default)]
    pub workload: bool,
    /// Whether a token of this issuer is good for one certificate only; then it must say when it was made (`iat`). Default false: it is
    /// good until it expires, as stock clients need it that sign several files, or repeat a request.
    #[serde(default)]
    pub single_use: bool,
    /// `email`: the only domains allowed. Absent: every address that the issuer vouches for.
    #[serde(default)]
    pub email_domains: Vec<String>,
    /// `email`: whether `email_verified` must be true: `refuse` (default) or `accept` tokens without it.
    #[serde(default)]
    pub unverified_email: UnverifiedEmail,
    /// `uri`: what every subject must begin with, up to a `/` at the end. Needed there.
    #[serde(default)]
    pub subject_prefix: Option<String>,
    /// `github-workflow`, `gitlab-pipeline`: base URL of the server. Default `https://github.com`, `https://gitlab.com`.
    #[serde(default)]
    pub server_url: Option<String>,
    /// What the token must say beside: by name of a claim the values of which one must be there, as the claim or in its list. All
    /// names must fit; `email` counts with a true `email_verified` only. Default: nothing.
    #[serde(default)]
    pub claims: BTreeMap<String, Vec<String>>,
    /// Whether a section for the jobs of a public issuer that says nothing of whose jobs it means is meant so. Default false: it is
    /// refused.
    #[serde(default)]
    pub open: bool,
    /// PEM file with authorities for the issuer's TLS certificate; absent: those of the system.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
}

fn sigstore() -> String {
    "sigstore".to_owned()
}

fn keyless() -> String {
    "keyless".to_owned()
}

/// Which claim names the certificate's subject.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// `email`.
    #[default]
    Email,
    /// `job_workflow_ref` of GitHub Actions.
    GithubWorkflow,
    /// `ci_config_ref_uri` of GitLab CI.
    GitlabPipeline,
    /// `sub`, a URI.
    Uri,
}

/// What to do with an address that the issuer does not say it verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnverifiedEmail {
    /// For issuers that only hand out addresses of their own.
    Accept,
    /// Refuse the token.
    #[default]
    Refuse,
}

/// Whom an issuer's tokens are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearers {
    /// Jobs and other programs.
    Jobs,
    /// People, each of whom may be the one who approves.
    People,
}

/// Whether a token is good for more than one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// For one.
    Refuse,
    /// For as many as its time and the limits allow.
    UntilExpiry,
}

/// How a certificate's subject follows from a token, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityKind {
    /// The address in `email`.
    Email {
        /// The only domains allowed; empty: all.
        domains: Vec<String>,
        /// What to do without `email_verified`.
        unverified: UnverifiedEmail,
    },
    /// A job of GitHub Actions.
    GithubWorkflow {
        /// Base URL of the server, without a slash at the end.
        url: String,
    },
    /// A job of GitLab CI.
    GitlabPipeline {
        /// Base URL of the server, without a slash at the end.
        url: String,
    },
    /// The URI in `sub`.
    Uri {
        /// What it must begin with.
        prefix: String,
    },
}

impl IdentityKind {
    /// The name of the kind and the claim that the requester's key signs, as stock clients know them.
    #[must_use]
    pub fn described(&self) -> (&'static str, &'static str) {
        match self {
            Self::Email { .. } => ("email", "email"),
            Self::GithubWorkflow { .. } => ("github-workflow", "sub"),
            Self::GitlabPipeline { .. } => ("gitlab-pipeline", "sub"),
            Self::Uri { .. } => ("uri", "sub"),
        }
    }

    /// Whether nothing but jobs of a CI provider has such tokens.
    #[must_use]
    pub fn is_of_jobs(&self) -> bool {
        matches!(self, Self::GithubWorkflow { .. } | Self::GitlabPipeline { .. })
    }
}

/// One validated section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerRule {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The `aud` of its tokens.
    pub audience: String,
    /// How subjects follow from them.
    pub identity: IdentityKind,
    /// What they must say beside.
    pub claims: Demands,
    /// The profile of its certificates.
    pub profile: String,
    /// How many people must approve each.
    pub approvals: u8,
    /// Whom its tokens are of.
    pub bearers: Bearers,
    /// How often one serves. A token that fits several sections serves once if one of them says so.
    pub reuse: Reuse,
    /// Authorities for its TLS certificate.
    pub tls_ca_file: Option<PathBuf>,
}

/// Validates all sections, for a CA that listens at `listen`.
///
/// # Errors
/// [`StartRefusal`] naming the section by its issuer.
pub fn validate(
    sections: &[OidcConfig],
    listen: &str,
    is_profile: impl Fn(&str) -> bool,
) -> Result<Vec<IssuerRule>, StartRefusal> {
    if sections.len() > MAX_ISSUERS {
        return Err(StartRefusal::new("there are more than 64 [[oidc]] sections", "remove some"));
    }
    let mut rules: Vec<IssuerRule> = Vec::with_capacity(sections.len());
    for section in sections {
        let rule = one(section, &is_profile)?;
        if beyond_loopback(&rule.issuer, listen) {
            return Err(refuse(
                section,
                "speaks plain http, but the CA listens beyond loopback",
                "a development issuer serves one machine only: give a real issuer, or listen on 127.0.0.1",
            ));
        }
        if rules.iter().any(|other| other.issuer == rule.issuer && other.audience == rule.audience) {
            return Err(refuse(section, "has two sections for one audience", "remove one"));
        }
        if rules.iter().any(|other| other.issuer == rule.issuer && other.tls_ca_file != rule.tls_ca_file) {
            return Err(refuse(
                section,
                "has different tls_ca_file in two sections",
                "write the same in both",
            ));
        }
        rules.push(rule);
    }
    Ok(rules)
}

fn one(section: &OidcConfig, is_profile: &impl Fn(&str) -> bool) -> Result<IssuerRule, StartRefusal> {
    if !may_be_asked(&section.issuer) || Identity::uri(&section.issuer).is_err() {
        return Err(refuse(
            section,
            "is not https://HOST, nor http:// on a loopback address",
            "tokens are worth what the way to their keys is worth: use https",
        ));
    }
    if !plain_name(&section.audience) {
        return Err(refuse(section, "has an empty or unprintable audience", "name the client id"));
    }
    if !is_profile(&section.profile) {
        return Err(refuse(section, "names a profile that there is not", "add the [profiles.…] section"));
    }
    let foreign = match section.identity {
        Source::Email => section.subject_prefix.is_some() || section.server_url.is_some(),
        Source::Uri => section.server_url.is_some() || has_email_rules(section),
        Source::GithubWorkflow | Source::GitlabPipeline => {
            section.subject_prefix.is_some() || has_email_rules(section)
        }
    };
    if foreign {
        return Err(refuse(section, "has a setting of another kind of identity", "remove the setting"));
    }
    let server = |default: &str| {
        let url = section.server_url.as_deref().unwrap_or(default);
        let valid = url.starts_with("https://") && !url.ends_with('/') && Identity::uri(url).is_ok();
        valid
            .then(|| url.to_owned())
            .ok_or_else(|| refuse(section, "has a server_url that is not https://HOST", "correct it"))
    };
    let identity = match section.identity {
        Source::Email => IdentityKind::Email {
            domains: section.email_domains.clone(),
            unverified: section.unverified_email,
        },
        Source::GithubWorkflow => IdentityKind::GithubWorkflow { url: server("https://github.com")? },
        Source::GitlabPipeline => IdentityKind::GitlabPipeline { url: server("https://gitlab.com")? },
        Source::Uri => {
            let prefix = section.subject_prefix.clone().unwrap_or_default();
            // Without the slash, https://example.org would also admit https://example.organised.crime.
            if Identity::uri(&prefix).is_err() || !prefix.ends_with('/') {
                return Err(refuse(section, "needs subject_prefix: a URI up to a slash", "add it"));
            }
            IdentityKind::Uri { prefix }
        }
    };
    let claims = Demands::new(&section.claims).map_err(|(what, remedy)| refuse(section, what, remedy))?;
    if !section.open && is_open(section, &claims) {
        return Err(refuse(
            section,
            "would give certificates to everybody: it makes tokens for whoever opens an account, and no claim says whose are meant",
            "add claims = { repository = [\"OWNER/NAME\"], ref = [\"refs/heads/main\"] } (at GitLab project_path, ref, \
             ref_type = [\"branch\"] and ref_protected = [\"true\"]; for people email_domains, or a claim that names them), \
             or open = true if everybody is meant",
        ));
    }
    Ok(IssuerRule {
        issuer: section.issuer.clone(),
        audience: section.audience.clone(),
        identity,
        claims,
        profile: section.profile.clone(),
        approvals: section.approvals,
        bearers: if section.workload { Bearers::Jobs } else { Bearers::People },
        reuse: if section.single_use { Reuse::Refuse } else { Reuse::UntilExpiry },
        tls_ca_file: section.tls_ca_file.clone(),
    })
}

/// Whether everybody in the world can have a token that the section takes.
fn is_open(section: &OidcConfig, claims: &Demands) -> bool {
    PUBLIC_ISSUERS.contains(&section.issuer.trim_end_matches('/'))
        && match section.identity {
            Source::GithubWorkflow | Source::GitlabPipeline => {
                !claims.name_one_of(&OWNERS) && !claims.subjects_begin_with_one_of(&OWNED_SUBJECTS)
            }
            Source::Email => section.email_domains.is_empty() && !claims.name_one_of(&PEOPLE),
            // It has a prefix.
            Source::Uri => false,
        }
}

fn has_email_rules(section: &OidcConfig) -> bool {
    !section.email_domains.is_empty() || section.unverified_email == UnverifiedEmail::Accept
}

fn refuse(section: &OidcConfig, what: &str, remedy: &str) -> StartRefusal {
    let issuer: String = section.issuer.chars().take(MAX_NAME).collect();
    StartRefusal::new(format!("[[oidc]] {issuer} {what}"), remedy.to_owned())
}

/// Whether an issuer in clear is named by a CA that listens beyond loopback: such issuers serve one machine only.
pub(super) fn beyond_loopback(issuer: &str, listen: &str) -> bool {
    let of_this_machine = listen.parse().is_ok_and(|address: SocketAddr| address.ip().is_loopback());
    issuer.starts_with("http://") && !of_this_machine
}

/// Whether a text can be an audience.
pub(super) fn plain_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(|octet| octet.is_ascii_graphic())
}

/// Whether keys may be fetched from a URL: over TLS from anywhere, in clear from this machine alone.
#[must_use]
pub fn may_be_asked(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return false;
    }
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    match url.scheme() {
        "https" => !host.is_empty(),
        "http" => host == "localhost" || address.is_ok_and(|address| address.is_loopback()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validated(lines: &str) -> Result<Vec<IssuerRule>, String> {
        let section: OidcConfig = toml::from_str(lines).unwrap();
        validate(&[section], "10.0.0.1:443", |_| true).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_public_issuer_of_jobs_needs_a_claim_that_says_whose() {
        let github =
            "issuer = \"https://token.actions.githubusercontent.com\"\nidentity = \"github-workflow\"\n";
        let gitlab = "issuer = \"https://gitlab.com\"\nidentity = \"gitlab-pipeline\"\n";
        let people = "issuer = \"https://gitlab.com\"\n";
        for section in [
            github.to_owned(),
            gitlab.to_owned(),
            people.to_owned(),
            format!("{github}claims = {{ ref = [\"refs/heads/main\"], environment = [\"release\"] }}"),
            format!("{github}claims = {{ actor = [\"somebody\"] }}"),
            format!(
                "{github}claims = {{ job_workflow_ref = [\"a/b/.github/workflows/c.yml@refs/heads/main\"] }}"
            ),
            // An organisation of strangers has its jobs' subjects say which reusable workflow they run.
            format!(
                "{github}claims = {{ sub = [\"job_workflow_ref:acme/ci/.github/workflows/sign.yml@refs/heads/main\"] }}"
            ),
            format!(
                "{github}claims = {{ sub = [\"repo:acme/a:ref:refs/heads/main\", \"environment:release\"] }}"
            ),
            format!("{people}claims = {{ email_verified = [\"true\"] }}"),
            format!("{github}open = false"),
            gitlab.replace("gitlab.com", "gitlab.com/"),
        ] {
            let refusal = validated(&section).unwrap_err();
            assert!(refusal.contains("certificates to everybody"), "{section}: {refusal}");
        }
        for section in [
            format!("{github}claims = {{ repository = [\"acme/agents\"], ref = [\"refs/heads/main\"] }}"),
            format!("{github}claims = {{ repository_owner_id = [\"1\"] }}"),
            format!("{gitlab}claims = {{ project_path = [\"acme/agents\"] }}"),
            format!("{github}claims = {{ sub = [\"repo:acme/agents:ref:refs/heads/main\"] }}"),
            format!("{people}claims = {{ groups_direct = [\"acme/release\"] }}"),
            format!("{github}open = true"),
            format!("{people}email_domains = [\"example.org\"]"),
            // Of one's own server everybody is somebody one knows.
            "issuer = \"https://git.example.org\"\nidentity = \"gitlab-pipeline\"".to_owned(),
        ] {
            validated(&section).unwrap_or_else(|refusal| panic!("{section}: {refusal}"));
        }
    }

    #[test]
    fn demands_without_sense_are_refused_at_the_start() {
        let section = "issuer = \"https://id.example.org\"\n";
        assert!(
            validated(&format!("{section}claims = {{ iss = [\"a\"] }}")).unwrap_err().contains("by itself")
        );
        assert!(
            validated(&format!("{section}claims = {{ a = [] }}")).unwrap_err().contains("without values")
        );
        let unverified = "claims = { email = [\"a@example.org\"], email_verified = [\"false\"] }";
        assert!(validated(&format!("{section}{unverified}")).unwrap_err().contains("not verified"));
    }
}
