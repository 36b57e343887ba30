//! The plan of a ceremony: everything decided beforehand. Making one is the dry run; its bytes are what approvers sign.
//!
//! Each certificate is built and linted with stand-ins in the place of keys that do not exist yet. `template_sha256` fixes
//! those bytes, so that nothing but the keys can differ when the ceremony is held: not a name, a date, an extension or a URL.
//! What a plan says a second time for people is derived again when it is read (`step.rs`).

use std::collections::BTreeMap;

use ca_pki::certificate::{Decided, Form, Issuer, build, build_root};
use ca_pki::lint::{self, CertificateRules};
use ca_pki::profile::Kind;
use ca_pki::{DistinguishedName, SerialNumber, SubjectPublicKey, ToBeSigned, UnixTime};
use serde::{Deserialize, Serialize};

use super::description::{Description, MAX_STEPS, Make};
use super::existing;
use super::order::Order;
pub use super::step::PlannedStep;
use super::step::{algorithm, foreign_key, kind, profile, stand_in, unhex};
use crate::authority::{certificate_algorithm, status_urls};
use crate::config::Settings;
use crate::error::CaError;
use crate::storage::StoredAuthority;

/// First field of a plan.
pub const FORMAT: &str = "mentat ceremony plan 2";
/// Largest plan that is read, in bytes.
pub const MAX_PLAN: usize = 1024 * 1024;
/// Seconds within which a planned ceremony is held: a week for bringing approvers together.
pub const PATIENCE: i64 = 7 * 86_400;

/// Why a plan cannot be made or held.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanRefusal {
    /// A certificate cannot be built or does not pass the linter.
    #[error("step {step}: {source}")]
    Certificate {
        /// Which step, from 1.
        step: usize,
        /// Why.
        source: CaError,
    },
    /// Configuration, program or authority changed since the plan was made.
    #[error("{0} changed since the plan was made")]
    Changed(String),
    /// The plan is too old, or from the future.
    #[error("the plan is held between {from} and {before}")]
    Expired {
        /// Not before this time.
        from: String,
        /// Before this time.
        before: String,
    },
    /// The bytes are no plan.
    #[error("it is no plan of this format: {0}")]
    Malformed(&'static str),
    /// The description cannot be meant.
    #[error("step {step}: {reason}")]
    Step {
        /// Which step, from 1.
        step: usize,
        /// What is wrong.
        reason: String,
    },
}

/// Everything that a ceremony will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: String,
    /// What the ceremony is called.
    pub name: String,
    /// Start of validity of every certificate, seconds since 1970; the ceremony is not held earlier.
    pub not_before: i64,
    /// The ceremony is held before this time.
    pub hold_before: i64,
    /// The authority it is for: name of each of its certificates → SHA-256. Empty when the ceremony founds it.
    pub state: BTreeMap<String, String>,
    /// What is done, in this order.
    pub steps: Vec<PlannedStep>,
}

impl Plan {
    /// Decides everything about a ceremony and makes the dry run: every certificate is built and linted.
    ///
    /// # Errors
    /// [`PlanRefusal`].
    pub fn prepare(
        settings: &Settings,
        description: &Description,
        existing: &[StoredAuthority],
        now: UnixTime,
    ) -> Result<Self, PlanRefusal> {
        if description.steps.is_empty() || description.steps.len() > MAX_STEPS {
            return Err(PlanRefusal::Malformed("a ceremony has 1 to 64 steps"));
        }
        let mut plan = Self {
            format: FORMAT.to_owned(),
            name: description.name.clone(),
            not_before: now.0,
            hold_before: now.0 + PATIENCE,
            state: existing::state(existing),
            steps: Vec::new(),
        };
        let mut order = Order::over(plan.state.keys());
        for (index, step) in description.steps.iter().enumerate() {
            let wrong = |reason: &str| PlanRefusal::Step { step: index + 1, reason: reason.to_owned() };
            let place = order.next(step.make).map_err(wrong)?;
            plan.steps.push(PlannedStep::of(settings, step, place, index + 1, now)?);
        }
        plan.check_order()?;
        plan.check_names(existing)?;
        for (index, template) in plan.templates(settings, existing)?.into_iter().enumerate() {
            if let Some(step) = plan.steps.get_mut(index) {
                step.template_sha256 = template.map(|tbs| hex::encode(tbs.sha256()));
            }
        }
        Ok(plan)
    }

    /// The bytes: what is approved.
    ///
    /// # Errors
    /// [`PlanRefusal::Malformed`] when it cannot be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PlanRefusal> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|_| PlanRefusal::Malformed("it cannot be written as JSON"))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a plan, strictly: these bytes are the only ones that say what it says.
    ///
    /// # Errors
    /// [`PlanRefusal::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PlanRefusal> {
        if bytes.len() > MAX_PLAN {
            return Err(PlanRefusal::Malformed("it is too large"));
        }
        let plan: Self =
            serde_json::from_slice(bytes).map_err(|_| PlanRefusal::Malformed("it does not parse"))?;
        if plan.format != FORMAT || plan.steps.is_empty() || plan.steps.len() > MAX_STEPS {
            return Err(PlanRefusal::Malformed("its format or its number of steps is another"));
        }
        if plan.to_bytes()? != bytes {
            return Err(PlanRefusal::Malformed("it was rewritten"));
        }
        if plan.hold_before != plan.not_before.saturating_add(PATIENCE) {
            return Err(PlanRefusal::Malformed("it is not held within a week of its making"));
        }
        plan.check_order()?;
        Ok(plan)
    }

    /// Refuses a plan that would not do today what was approved.
    ///
    /// # Errors
    /// [`PlanRefusal`].
    pub fn check_current(
        &self,
        settings: &Settings,
        existing: &[StoredAuthority],
        now: UnixTime,
    ) -> Result<(), PlanRefusal> {
        if now.0 < self.not_before || now.0 >= self.hold_before {
            let text = |seconds| UnixTime(seconds).to_rfc3339();
            return Err(PlanRefusal::Expired { from: text(self.not_before), before: text(self.hold_before) });
        }
        if self.state != existing::state(existing) {
            return Err(PlanRefusal::Changed("the authority".to_owned()));
        }
        self.check_names(existing)?;
        for (step, template) in self.steps.iter().zip(self.templates(settings, existing)?) {
            if step.template_sha256 != template.map(|tbs| hex::encode(tbs.sha256())) {
                return Err(PlanRefusal::Changed(format!("the certificate of {}", step.name)));
            }
            step.check_configured(settings)?;
        }
        Ok(())
    }

    /// Whether it founds an authority.
    #[must_use]
    pub fn founds(&self) -> bool {
        self.state.is_empty()
    }

    /// Whether the root's key is used.
    #[must_use]
    pub fn uses_the_root(&self) -> bool {
        self.steps.iter().any(|step| step.make.uses_the_root())
    }

    /// Refuses steps that cannot stand where they do, or say two different things.
    fn check_order(&self) -> Result<(), PlanRefusal> {
        let refused = |step: usize, reason: String| PlanRefusal::Step { step, reason };
        let mut order = Order::over(self.state.keys());
        for (index, step) in self.steps.iter().enumerate() {
            let place = order.next(step.make).map_err(|reason| refused(index + 1, reason.to_owned()))?;
            if place.issuer != step.issuer || place.name.as_ref().is_some_and(|name| *name != step.name) {
                return Err(refused(
                    index + 1,
                    "its name or its issuer is not the one of its place".to_owned(),
                ));
            }
            step.check(place, index + 1)?;
        }
        order.finish().map_err(|missing| refused(self.steps.len(), missing))
    }

    /// A successor is no namesake: names stand for keys.
    fn check_names(&self, existing: &[StoredAuthority]) -> Result<(), PlanRefusal> {
        let namesake = |step: &PlannedStep| {
            let subject = step.subject_der.as_deref().unwrap_or_default();
            step.shards > 0 && existing::is_named(existing, subject)
        };
        match self.steps.iter().position(namesake) {
            Some(index) => {
                let reason = "an authority of this name is there; give its successor another".to_owned();
                Err(PlanRefusal::Step { step: index + 1, reason })
            }
            None => Ok(()),
        }
    }

    /// The to-be-signed bytes of every step with stand-ins for the keys that the ceremony makes; linted.
    fn templates(
        &self,
        settings: &Settings,
        existing: &[StoredAuthority],
    ) -> Result<Vec<Option<ToBeSigned>>, PlanRefusal> {
        let mut issuers = existing::issuers(settings, existing)?;
        let mut templates = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let at = |source| PlanRefusal::Certificate { step: index + 1, source };
            let template = self.template(settings, step, &mut issuers).map_err(at)?;
            templates.push(template);
        }
        Ok(templates)
    }

    fn template(
        &self,
        settings: &Settings,
        step: &PlannedStep,
        issuers: &mut BTreeMap<String, Issuer>,
    ) -> Result<Option<ToBeSigned>, CaError> {
        if kind(step.make).is_none() {
            return Ok(None);
        }
        let key = match step.make {
            Make::CrossCertificate => foreign_key(step)?,
            _ => stand_in(algorithm(step)?)?,
        };
        let issuer = step.issuer.as_ref().and_then(|name| issuers.get(name));
        let tbs = self.draft(settings, step, issuer, &key)?;
        if step.shards > 0 {
            let urls = status_urls(&settings.config.status_url, &step.name, step.shards)?;
            let signs_with = certificate_algorithm(algorithm(step)?)?;
            issuers.insert(step.name.clone(), Issuer::from_certificate(&tbs.unsigned(), signs_with, urls)?);
        }
        Ok(Some(tbs))
    }

    /// Builds and lints a step's to-be-signed bytes for a key.
    pub(super) fn draft(
        &self,
        settings: &Settings,
        step: &PlannedStep,
        issuer: Option<&Issuer>,
        key: &SubjectPublicKey,
    ) -> Result<ToBeSigned, CaError> {
        let (Some(kind), Some(serial), Some(subject)) = (kind(step.make), &step.serial, &step.subject_der)
        else {
            return Err(CaError::Inconsistent("a step of the ceremony lacks what its certificate needs"));
        };
        let profile = profile(settings, step)?;
        let decided = Decided {
            serial: &SerialNumber::from_hex(serial)?,
            subject: &DistinguishedName::from_der(&unhex(subject)?)?,
            identity: None,
            public_key: key,
            not_before: UnixTime(self.not_before),
            identity_issuer: None,
            claims: &[],
        };
        let tbs = if kind == Kind::Root {
            let urls = status_urls(&settings.config.status_url, &step.name, step.shards)?;
            build_root(&profile, certificate_algorithm(algorithm(step)?)?, &decided, &urls)?
        } else {
            let issuer = issuer.ok_or(CaError::Inconsistent("the ceremony's steps are out of order"))?;
            build(&profile, issuer, &decided, Form::Certificate)?
        };
        lint::certificate(&tbs.unsigned(), &CertificateRules { kind, issuer }).into_result()?;
        Ok(tbs)
    }
}
