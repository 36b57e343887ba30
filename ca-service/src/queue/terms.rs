//! What the configuration of the moment makes of a request: its terms, and how many people must approve it.

use ca_pki::profile::SctPolicy;
use ca_pki::{Identity, UnixTime};

use crate::authority::CertificateAuthority;
use crate::config::Settings;
use crate::error::CaError;
use crate::queue::Proof;
use crate::role::Role;
use crate::storage::queue::{RequestContent, Terms};

impl Settings {
    /// How many people must approve a certificate of a profile, for whoever proved so who they are.
    pub(crate) fn approvals_demanded(&self, profile: &str, proof: &Proof, identity_issuer: &str) -> u8 {
        let config = &self.config;
        let (codes, tokens) =
            (config.mail.as_ref().map_or(0, |mail| mail.approvals), config.enrolment.token_approvals);
        let of_way = match proof {
            Proof::Code => codes,
            // How the first of a row of renewals was asked for is not looked up: the stricter way counts.
            Proof::Certificate { .. } => tokens.max(codes),
            Proof::Token { made_by: Some(_) } => tokens,
            // It may have been sent as a code: that was not recorded once.
            Proof::Token { made_by: None } => tokens.max(codes),
            // Of several sections the strictest counts.
            Proof::IdentityToken { audiences } => {
                let rules = self.oidc.iter().filter(|rule| rule.issuer == identity_issuer);
                let rules = rules.filter(|rule| audiences.is_empty() || audiences.contains(&rule.audience));
                rules.map(|rule| rule.approvals).max().unwrap_or(0)
            }
        };
        config.enrolment.approvals(profile, of_way)
    }
}

impl CertificateAuthority {
    /// The authority that would issue now, by its name, and what it and the profile make of an identity.
    ///
    /// # Errors
    /// [`CaError::NotIssuing`], [`CaError::ProfileUnknown`], [`CaError::Pki`].
    pub(crate) fn terms(
        &self,
        profile: &str,
        identity: &Identity,
        now: UnixTime,
    ) -> Result<(String, Terms), CaError> {
        let (issuing, issuer) = self.issuing(now)?;
        let profile = self.profile(profile)?;
        let terms = Terms {
            issuer_key: hex::encode(issuing.public_key.spki_sha256()),
            kind: profile.kind().as_str().to_owned(),
            subject: profile.subject_for(identity)?.to_text(),
            lifetime_seconds: profile.lifetime(),
            ends_by: Some(issuer.not_after.0),
            policies: profile.policies().iter().map(ToString::to_string).collect(),
            sct: match profile.sct() {
                SctPolicy::Embedded => "embedded",
                SctPolicy::Absent => "absent",
            }
            .to_owned(),
        };
        Ok((issuing.name.clone(), terms))
    }

    /// Whether a request would become what its statement says, were it issued now.
    pub(crate) fn keeps_its_terms(&self, content: &RequestContent, now: UnixTime) -> Result<bool, CaError> {
        let (issuer, mut terms) = self.terms(&content.profile, &content.identity, now)?;
        // The key of the issuing authority, which is compared, says as much.
        terms.ends_by = terms.ends_by.filter(|_| content.terms.ends_by.is_some());
        Ok((issuer, terms) == (content.issuer.clone(), content.terms.clone()))
    }

    /// How many people must approve a request: as many as when it was recorded, or more, where more are demanded by now.
    #[must_use]
    pub fn approvals_in_force(&self, content: &RequestContent) -> u8 {
        let demanded =
            self.approvals_demanded(&content.profile, &Proof::of(content), &content.identity_issuer);
        demanded.max(content.needed)
    }

    /// How many people must approve a certificate of a profile, for whoever proved so who they are.
    pub(crate) fn approvals_demanded(&self, profile: &str, proof: &Proof, identity_issuer: &str) -> u8 {
        self.settings.approvals_demanded(profile, proof, identity_issuer)
    }

    /// Whether somebody who approved could do so now: by the subject of a client certificate exactly, by identity token as far as the
    /// issuer goes, because what their next token would say is not known.
    pub(crate) fn may_still_approve(&self, approver: &str) -> bool {
        let config = &self.settings.config;
        match approver.strip_prefix("oidc:") {
            Some(rest) => self.settings.role_rules.iter().any(|rule| {
                let subject = rest.strip_prefix(rule.issuer.as_str());
                rule.role == Role::Approver && subject.is_some_and(|subject| subject.starts_with('#'))
            }),
            None => {
                let mut subjects = config.roles.approver.subjects.iter().chain(&config.admin.subjects);
                subjects.any(|subject| subject == approver)
            }
        }
    }
}
