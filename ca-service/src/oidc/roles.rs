//! The `[[roles.oidc]]` sections: whose identity tokens give which role, as they are written ([`RoleOidcConfig`]) and validated
//! ([`RoleRule`]).
//!
//! An issuer alone vouches for everybody it knows, so every section must demand claims. Its audience is not one that
//! certificates are requested with: a token that was made to sign with opens nothing here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use service::StartRefusal;

use super::config::{IssuerRule, beyond_loopback, may_be_asked, plain_name};
use super::demands::{Demands, Fault, NamedClaims};
use crate::role::Role;

/// Most sections.
const MAX_RULES: usize = 64;
/// Longest issuer shown in a refusal, in characters.
const MAX_SHOWN: usize = 512;
/// Longest time after its making in which a token may be used, in seconds.
const MAX_AGE: u32 = 86_400;

/// A section as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleOidcConfig {
    /// The `iss` of its tokens, exactly. `https://…`, or plain `http` on a loopback address.
    pub issuer: String,
    /// The `aud` that its tokens must have; no `[[oidc]]` section of the issuer has it.
    pub audience: String,
    /// The role: `auditor`, `approver` or `issuer`. Administrators are not made by other people's tokens.
    pub role: GivenRole,
    /// What the token must say: by name of a claim the values of which one must be there, as the claim or in its list. All
    /// names must fit; `email` counts with a true `email_verified` only.
    pub claims: BTreeMap<String, Vec<String>>,
    /// Seconds after its making (`iat`) in which a token is taken, at most 86400. Default 3600.
    #[serde(default = "an_hour")]
    pub max_age_seconds: u32,
    /// PEM file with authorities for the issuer's TLS certificate; absent: those of the system.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
}

fn an_hour() -> u32 {
    3_600
}

/// A role that identity tokens can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GivenRole {
    /// Reads.
    Auditor,
    /// Sees what orders would do.
    Approver,
    /// Makes one-time tokens.
    Issuer,
}

impl From<GivenRole> for Role {
    fn from(role: GivenRole) -> Self {
        match role {
            GivenRole::Auditor => Self::Auditor,
            GivenRole::Approver => Self::Approver,
            GivenRole::Issuer => Self::Issuer,
        }
    }
}

/// One validated section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRule {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The `aud` of its tokens.
    pub audience: String,
    /// What they give.
    pub role: Role,
    /// What they must say; never nothing.
    pub claims: Demands,
    /// Seconds after their making in which they are taken.
    pub max_age: i64,
    /// Authorities for the issuer's TLS certificate.
    pub tls_ca_file: Option<PathBuf>,
}

impl RoleRule {
    /// Whether a token says everything that the section demands.
    #[must_use]
    pub fn fits(&self, claims: &NamedClaims) -> bool {
        self.claims.met(claims).is_ok()
    }
}

/// Validates all sections, for a CA that listens at `listen` and takes tokens for certificates by `others`.
///
/// # Errors
/// [`StartRefusal`] naming the section by its issuer.
pub fn validate(
    sections: &[RoleOidcConfig],
    others: &[IssuerRule],
    listen: &str,
) -> Result<Vec<RoleRule>, StartRefusal> {
    if sections.len() > MAX_RULES {
        return Err(StartRefusal::new("there are more than 64 [[roles.oidc]] sections", "remove some"));
    }
    let mut rules: Vec<RoleRule> = Vec::with_capacity(sections.len());
    for section in sections {
        let refuse = |(what, remedy): Fault| {
            let issuer: String = section.issuer.chars().take(MAX_SHOWN).collect();
            StartRefusal::new(format!("[[roles.oidc]] {issuer} {what}"), remedy)
        };
        if let Some(fault) = fault(section, others, &rules, listen) {
            return Err(refuse(fault));
        }
        rules.push(RoleRule {
            issuer: section.issuer.clone(),
            audience: section.audience.clone(),
            role: section.role.into(),
            claims: Demands::new(&section.claims).map_err(refuse)?,
            max_age: i64::from(section.max_age_seconds),
            tls_ca_file: section.tls_ca_file.clone(),
        });
    }
    Ok(rules)
}

/// What is wrong with a section beside its demands, and the remedy.
fn fault(section: &RoleOidcConfig, others: &[IssuerRule], rules: &[RoleRule], listen: &str) -> Option<Fault> {
    if !may_be_asked(&section.issuer) || ca_pki::Identity::uri(&section.issuer).is_err() {
        return Some(("is not https://HOST, nor http:// on a loopback address", "use https"));
    }
    if beyond_loopback(&section.issuer, listen) {
        return Some((
            "speaks plain http, but the CA listens beyond loopback",
            "give a real issuer, or listen on 127.0.0.1",
        ));
    }
    if !plain_name(&section.audience) {
        return Some(("has an empty or unprintable audience", "name the client id of the CA's roles"));
    }
    if others.iter().any(|other| other.issuer == section.issuer && other.audience == section.audience) {
        return Some((
            "has the audience of an [[oidc]] section: whoever may sign could take the role",
            "register another client id for roles",
        ));
    }
    if section.claims.is_empty() {
        return Some((
            "demands no claims: everybody the issuer knows would have the role",
            "add [roles.oidc.claims] with for example groups = [\"ca-auditors\"]",
        ));
    }
    if !(60..=MAX_AGE).contains(&section.max_age_seconds) {
        return Some(("has a max_age_seconds that is not 60 to 86400", "correct it"));
    }
    let tls = others.iter().filter(|other| other.issuer == section.issuer).map(|other| &other.tls_ca_file);
    let own = rules.iter().filter(|other| other.issuer == section.issuer).map(|other| &other.tls_ca_file);
    if tls.chain(own).any(|file| *file != section.tls_ca_file) {
        return Some(("has another tls_ca_file than its other sections", "write the same in all"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(lines: &str) -> String {
        let oidc = "issuer = \"https://id.example.org\"\naudience = \"sigstore\"";
        let other: super::super::config::OidcConfig = toml::from_str(oidc).unwrap();
        let others = super::super::config::validate(&[other], "127.0.0.1:1", |_| true).unwrap();
        let section: RoleOidcConfig = toml::from_str(lines).unwrap();
        validate(&[section], &others, "10.0.0.1:443").unwrap_err().to_string()
    }

    #[test]
    fn sections_that_would_let_everybody_in_are_refused() {
        let role = "role = \"auditor\"\nissuer = \"https://id.example.org\"\n";
        for (lines, wanted) in [
            ("audience = \"ca\"\nclaims = {}", "demands no claims"),
            ("audience = \"ca\"\nclaims = { groups = [] }", "a claim without values"),
            ("audience = \"ca\"\nclaims = { iss = [\"a\"] }", "checked by itself"),
            ("audience = \"\"\nclaims = { groups = [\"a\"] }", "audience"),
            ("audience = \"sigstore\"\nclaims = { groups = [\"a\"] }", "could take the role"),
            ("audience = \"ca\"\nclaims = { groups = [\"a\"] }\nmax_age_seconds = 90000", "max_age_seconds"),
            ("audience = \"ca\"\nclaims = { groups = [\"a\"] }\ntls_ca_file = \"a.pem\"", "tls_ca_file"),
        ] {
            let refusal = refused(&format!("{role}{lines}"));
            assert!(refusal.contains(wanted), "{lines}: {refusal}");
        }
        let of_this_machine = "role = \"auditor\"\nissuer = \"http://127.0.0.1:7\"\naudience = \"ca\"\nclaims = { groups = [\"a\"] }";
        assert!(refused(of_this_machine).contains("beyond loopback"));
        let administrator = "role = \"administrator\"\nissuer = \"https://id.example.org\"\naudience = \"ca\"\nclaims = { a = [\"b\"] }";
        assert!(toml::from_str::<RoleOidcConfig>(administrator).is_err());
    }

    #[test]
    fn every_claim_must_fit_and_an_address_must_be_verified() {
        let lines = "role = \"issuer\"\nissuer = \"https://id.example.org\"\naudience = \"ca\"\n\
                     claims = { email = [\"a@example.org\"], groups = [\"release\", \"ops\"] }";
        let section: RoleOidcConfig = toml::from_str(lines).unwrap();
        let rule = &validate(&[section], &[], "127.0.0.1:1").unwrap()[0];
        let fits = |payload: &str| rule.fits(&NamedClaims::parse(payload.as_bytes()).unwrap());
        let verified = r#""email":"a@example.org","email_verified":true"#;
        assert!(fits(&format!(r#"{{{verified},"groups":["staff","ops"]}}"#)));
        assert!(fits(&format!(r#"{{{verified},"groups":"release"}}"#)));
        for payload in [
            format!(r#"{{{verified}}}"#),
            format!(r#"{{{verified},"groups":["staff"]}}"#),
            format!(r#"{{{verified},"groups":[["ops"]]}}"#),
            format!(r#"{{{verified},"groups":{{"ops":true}}}}"#),
            r#"{"email":"a@example.org","groups":["ops"]}"#.to_owned(),
            r#"{"email":"a@example.org","email_verified":false,"groups":["ops"]}"#.to_owned(),
            r#"{"email":"A@example.org","email_verified":true,"groups":["ops"]}"#.to_owned(),
        ] {
            assert!(!fits(&payload), "{payload}");
        }
        assert!(NamedClaims::parse(br#"{"groups":["ops"],"groups":["staff"]}"#).is_err());
    }
}
