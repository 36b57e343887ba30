//! The plan of a ceremony: everything decided beforehand. Making one is the dry run; its bytes are what approvers sign.
//!
//! Each certificate is built and linted with stand-ins in the place of keys that do not exist yet. `template_sha256` fixes
//! those bytes, so that nothing but the keys can differ when the ceremony is held: not a name, a date, an extension or a URL.

use std::collections::BTreeMap;

use ca_pki::certificate::{Decided, Form, Issuer, build, build_root};
use ca_pki::key::{KeyIdentifier, KeyUse, rsa_spki};
use ca_pki::lint::{self, CertificateRules};
use ca_pki::profile::{Kind, Profile};
use ca_pki::{DistinguishedName, SerialNumber, SubjectPublicKey, ToBeSigned, UnixTime};
use hsm::KeyAlgorithm;
use serde::{Deserialize, Serialize};

use super::description::{Description, MAX_STEPS, Make, StepDescription};
use super::order::{Order, Place};
use super::{existing, foreign};
use crate::authority::{certificate_algorithm, random_serial, status_urls};
use crate::config::{Settings, authority_key};
use crate::error::CaError;
use crate::storage::StoredAuthority;

/// First field of a plan.
pub const FORMAT: &str = "mentat ceremony plan 1";
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

/// One step, decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedStep {
    /// What it makes.
    pub make: Make,
    /// Name of the authority, or of the cross-certificate's file; empty for lists.
    pub name: String,
    /// Name of the authority that signs; none for a root, a bare key and lists.
    pub issuer: Option<String>,
    /// Subject, for people.
    pub subject: Option<String>,
    /// Subject, DER in hexadecimal.
    pub subject_der: Option<String>,
    /// Type of the key that is made.
    pub key: Option<String>,
    /// Where the key is made; none for the keystore.
    pub place: Option<String>,
    /// For a cross-certificate: the other root's SubjectPublicKeyInfo, DER in hexadecimal.
    pub spki: Option<String>,
    /// For a cross-certificate: the identifier that the other root gave its key, in hexadecimal.
    pub key_identifier: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Validity in days.
    pub days: Option<u32>,
    /// Number of CRL shards, 0 for what issues nothing.
    pub shards: u16,
    /// SHA-256 of the to-be-signed bytes with stand-ins for the keys that the ceremony makes.
    pub template_sha256: Option<String>,
}

/// What a step's certificate is judged by.
pub(super) fn kind(make: Make) -> Option<Kind> {
    match make {
        Make::Root => Some(Kind::Root),
        Make::CodeSigningIssuer => Some(Kind::CodeSigningIssuer),
        Make::TimeStampingIssuer => Some(Kind::TimeStampingIssuer),
        Make::OcspResponder => Some(Kind::OcspResponder),
        Make::TimestampAuthority => Some(Kind::TimestampAuthority),
        Make::CrossCertificate => Some(Kind::CrossCertificate),
        Make::StatementKey | Make::RevocationLists => None,
    }
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
            plan.steps.push(planned(settings, step, place, index + 1)?);
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
            let place = step.make.authority().and_then(|name| settings.key_uris.get(name));
            if step.place != place.map(ToString::to_string) {
                return Err(PlanRefusal::Changed(format!("the place of the key of {}", step.name)));
            }
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

    fn check_order(&self) -> Result<(), PlanRefusal> {
        let refused = |step: usize, reason: String| PlanRefusal::Step { step, reason };
        let mut order = Order::over(self.state.keys());
        for (index, step) in self.steps.iter().enumerate() {
            let place = order.next(step.make).map_err(|reason| refused(index + 1, reason.to_owned()))?;
            if place.issuer != step.issuer || place.name.is_some_and(|name| name != step.name) {
                return Err(refused(
                    index + 1,
                    "its name or its issuer is not the one of its place".to_owned(),
                ));
            }
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
        let key = match &step.spki {
            Some(_) => foreign_key(step)?,
            None => stand_in(algorithm(step)?)?,
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

/// The infrastructure profile of a step: policies are the configuration's.
pub(super) fn profile(settings: &Settings, step: &PlannedStep) -> Result<Profile, CaError> {
    let kind = kind(step.make).ok_or(CaError::Inconsistent("a step without a certificate has no profile"))?;
    let policies = settings.infrastructure_policies(kind);
    Ok(Profile::infrastructure(kind, step.days.unwrap_or_default(), &policies)?)
}

/// The type of the key that a step makes.
pub(super) fn algorithm(step: &PlannedStep) -> Result<KeyAlgorithm, CaError> {
    let name = step.key.as_deref().ok_or(CaError::Inconsistent("a step of the ceremony makes no key"))?;
    Ok(name.parse()?)
}

/// The key that a cross-certificate is for, with the identifier that its owner gave it.
pub(super) fn foreign_key(step: &PlannedStep) -> Result<SubjectPublicKey, CaError> {
    let (Some(spki), Some(identifier)) = (&step.spki, &step.key_identifier) else {
        return Err(CaError::Inconsistent("a step of the ceremony lacks the other root's key"));
    };
    let identifier = unhex(identifier)?
        .try_into()
        .map_err(|_| CaError::Inconsistent("a key identifier of the plan is not of 20 octets"))?;
    Ok(SubjectPublicKey::from_spki(&unhex(spki)?, KeyUse::Authority)?
        .identified_by(KeyIdentifier(identifier)))
}

fn unhex(text: &str) -> Result<Vec<u8>, CaError> {
    hex::decode(text).map_err(|_| CaError::Inconsistent("a plan's field is not hexadecimal"))
}

fn planned(
    settings: &Settings,
    step: &StepDescription,
    place: Place,
    number: usize,
) -> Result<PlannedStep, PlanRefusal> {
    let wrong = |reason: String| PlanRefusal::Step { step: number, reason };
    let failed = |source| PlanRefusal::Certificate { step: number, source };
    let make = step.make;
    let needed = |there: bool, field: &str, wanted: bool| match (there, wanted) {
        (false, true) => Err(wrong(format!("{make:?} needs the field {field}"))),
        (true, false) => Err(wrong(format!("{make:?} has no field {field}"))),
        _ => Ok(()),
    };
    let cross = make == Make::CrossCertificate;
    let issues = matches!(make, Make::Root | Make::CodeSigningIssuer | Make::TimeStampingIssuer);
    let certificate = kind(make).is_some();
    needed(step.subject.is_some(), "subject", certificate && !cross)?;
    needed(step.key.is_some(), "key", issues)?;
    needed(step.days.is_some(), "days", certificate)?;
    needed(step.name.is_some(), "name", cross)?;
    needed(step.certificate.is_some(), "certificate", cross)?;

    let key = match &step.key {
        Some(name) => Some(authority_key("key", name).map_err(|refusal| wrong(refusal.to_string()))?),
        None if make.authority().is_some() => Some(KeyAlgorithm::EcdsaP256),
        None => None,
    };
    let (mut subject, mut spki, mut key_identifier) = (None, None, None);
    if let Some(fields) = &step.subject {
        subject = Some(DistinguishedName::from_fields(fields).map_err(|error| failed(error.into()))?);
    }
    if let Some(path) = &step.certificate {
        let root = foreign::read(path).map_err(wrong)?;
        subject = Some(root.subject);
        spki = Some(hex::encode(root.public_key.spki()));
        key_identifier = Some(hex::encode(root.public_key.key_identifier().0));
    }
    let name = match (place.name, &step.name) {
        (Some(name), _) => name,
        (None, Some(name)) => {
            hsm::KeyLabel::new(name).map_err(|_| {
                wrong("its name is not 1 to 64 of a-z 0-9 . _ - beginning with a letter or digit".to_owned())
            })?;
            name.clone()
        }
        (None, None) => String::new(),
    };
    let serial = if certificate { Some(random_serial(settings.prefix).map_err(failed)?) } else { None };
    let key_place = make.authority().and_then(|name| settings.key_uris.get(name));
    Ok(PlannedStep {
        make,
        name,
        issuer: place.issuer,
        subject_der: subject.as_ref().map(|subject| hex::encode(subject.as_der())),
        subject: subject.map(|subject| subject.as_text().to_owned()),
        key: key.map(|key| key.as_str().to_owned()),
        place: key_place.map(ToString::to_string),
        spki,
        key_identifier,
        serial: serial.map(|serial| serial.to_string()),
        days: step.days,
        shards: match make {
            Make::Root | Make::TimeStampingIssuer => 1,
            Make::CodeSigningIssuer => settings.shards.get(),
            _ => 0,
        },
        template_sha256: None,
    })
}

/// A key that is nobody's, of the right type and size: a point of zeros, a modulus of ones.
fn stand_in(algorithm: KeyAlgorithm) -> Result<SubjectPublicKey, CaError> {
    // SubjectPublicKeyInfo up to the point (RFC 5480).
    const P256: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
    const P384: &[u8] =
        b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00";
    let point = |head: &[u8], octets: usize| {
        let mut spki = head.to_vec();
        spki.push(4);
        spki.resize(head.len() + 1 + octets, 0);
        Ok(SubjectPublicKey::from_spki(&spki, KeyUse::Authority)?)
    };
    match algorithm {
        KeyAlgorithm::EcdsaP256 => point(P256, 64),
        KeyAlgorithm::EcdsaP384 => point(P384, 96),
        KeyAlgorithm::Rsa4096 => (1..=255_u8)
            .step_by(2)
            .find_map(|last| {
                let mut modulus = vec![0xff; 512];
                *modulus.last_mut()? = last;
                SubjectPublicKey::from_spki(&rsa_spki(&modulus, &[1, 0, 1]), KeyUse::Authority).ok()
            })
            .ok_or(CaError::Inconsistent("there is no stand-in for an RSA key")),
        _ => Err(CaError::Inconsistent("a key of a type that the CA does not sign with")),
    }
}
