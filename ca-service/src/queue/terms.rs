//! What the configuration of the moment makes of a request: its terms, and how many people must approve it.

use ca_pki::profile::SctPolicy;
use ca_pki::{Identity, UnixTime};

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::role::Role;
use crate::storage::queue::{RequestContent, Terms, Way};

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
        let (issuing, _) = self.issuing(now)?;
        let profile = self.profile(profile)?;
        let terms = Terms {
            issuer_key: hex::encode(issuing.public_key.spki_sha256()),
            kind: profile.kind().as_str().to_owned(),
            subject: profile.subject_for(identity)?.to_text(),
            lifetime_seconds: profile.lifetime(),
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
        let (issuer, terms) = self.terms(&content.profile, &content.identity, now)?;
        Ok((issuer, terms) == (content.issuer.clone(), content.terms.clone()))
    }

    /// How many people must approve a request: as many as when it was recorded, or more, where more are demanded by now.
    #[must_use]
    pub fn approvals_in_force(&self, content: &RequestContent) -> u8 {
        let config = &self.settings.config;
        let of_way = match (content.way, &content.vouched_by) {
            (Way::IdentityToken, _) => self.approvals_of_issuer(content),
            (way, made_by) => self.approvals_of_token(way, made_by.as_deref()),
        };
        config.enrolment.approvals(&content.profile, of_way).max(content.needed)
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

    /// How many approvals a one-time token or a code needs, whatever the profile.
    pub(crate) fn approvals_of_token(&self, way: Way, made_by: Option<&str>) -> u8 {
        let config = &self.settings.config;
        let (codes, tokens) =
            (config.mail.as_ref().map_or(0, |mail| mail.approvals), config.enrolment.token_approvals);
        match (way, made_by) {
            (Way::Code, _) => codes,
            (_, Some(_)) => tokens,
            // It may have been sent as a code: that was not recorded once.
            (_, None) => tokens.max(codes),
        }
    }

    /// How many approvals the section demands whose audience the first identity token had.
    fn approvals_of_issuer(&self, content: &RequestContent) -> u8 {
        let evidence: serde_json::Value = serde_json::from_str(&content.evidence).unwrap_or_default();
        let audience = evidence.get("audience").and_then(serde_json::Value::as_str);
        let rules = self.settings.oidc.iter().filter(|rule| rule.issuer == content.identity_issuer);
        let rules = rules.filter(|rule| audience.is_none_or(|audience| rule.audience == audience));
        rules.map(|rule| rule.approvals).max().unwrap_or(0)
    }
}
