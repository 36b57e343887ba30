//! One step of a plan: what was decided about it, and everything that follows from that.
//!
//! A plan says some things twice, once for the program and once for people: a name in DER and as text, another root's certificate
//! and its key. [`PlannedStep::decided`] is the only place where the second follows from the first. Whenever a plan is read, every
//! step is made anew from its decisions and must come out the same, so that nobody can be shown one thing and sign another.

use ca_pki::key::{KeyUse, rsa_spki};
use ca_pki::profile::{Kind, Profile};
use ca_pki::{DistinguishedName, SerialNumber, SubjectPublicKey, UnixTime};
use hsm::KeyAlgorithm;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::description::{Make, StepDescription};
use super::foreign::{self, ForeignRoot};
use super::order::Place;
use super::plan::PlanRefusal;
use crate::authority::random_serial;
use crate::config::{Settings, authority_key};
use crate::error::CaError;

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
    /// For a cross-certificate: the other root's self-signed certificate, DER in hexadecimal. Whoever holds the ceremony verifies
    /// again that its key signed it.
    pub certificate: Option<String>,
    /// For a cross-certificate: the other root's SubjectPublicKeyInfo, DER in hexadecimal.
    pub spki: Option<String>,
    /// For a cross-certificate: the identifier that the other root gave its key, in hexadecimal.
    pub key_identifier: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Validity in days; a certificate ends no later than its issuer's, whatever this says.
    pub days: Option<u32>,
    /// Number of CRL shards, 0 for what issues nothing.
    pub shards: u16,
    /// SHA-256 of the to-be-signed bytes with stand-ins for the keys that the ceremony makes.
    pub template_sha256: Option<String>,
}

/// What is decided freely about a step. Everything else of it follows.
#[derive(Default)]
struct Choice {
    /// Only for a cross-certificate.
    name: Option<String>,
    /// None for a cross-certificate: the other root has one.
    subject: Option<DistinguishedName>,
    /// Only for what issues.
    key: Option<KeyAlgorithm>,
    /// Where the key is made.
    key_place: Option<String>,
    /// Only for a cross-certificate: the other root's certificate, DER.
    certificate: Option<Vec<u8>>,
    serial: Option<SerialNumber>,
    days: Option<u32>,
    /// Only for the CA for code signing.
    shards: u16,
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

fn issues(make: Make) -> bool {
    matches!(make, Make::Root | Make::CodeSigningIssuer | Make::TimeStampingIssuer)
}

impl PlannedStep {
    /// Decides a step that was described; `number` is its place, from 1.
    pub(super) fn of(
        settings: &Settings,
        step: &StepDescription,
        place: Place,
        number: usize,
        now: UnixTime,
    ) -> Result<Self, PlanRefusal> {
        let wrong = |reason: String| PlanRefusal::Step { step: number, reason };
        let failed = |source| PlanRefusal::Certificate { step: number, source };
        let key = |name: &String| authority_key("key", name).map_err(|refusal| wrong(refusal.to_string()));
        let subject = step.subject.as_ref().map(DistinguishedName::from_fields).transpose();
        let serial = match kind(step.make) {
            Some(_) => Some(random_serial(settings.prefix, now).map_err(failed)?),
            None => None,
        };
        let choice = Choice {
            name: step.name.clone(),
            subject: subject.map_err(|error| failed(error.into()))?,
            key: step.key.as_ref().map(key).transpose()?,
            key_place: configured_place(settings, step.make),
            certificate: step.certificate.as_deref().map(foreign::read).transpose().map_err(wrong)?,
            serial,
            days: step.days,
            shards: settings.shards.get(),
        };
        Self::decided(step.make, place, choice, number)
    }

    /// A step with everything that follows from what was decided; its template is not made yet.
    fn decided(make: Make, place: Place, choice: Choice, number: usize) -> Result<Self, PlanRefusal> {
        let wrong = |reason: String| PlanRefusal::Step { step: number, reason };
        let needed = |there: bool, field: &str, wanted: bool| match (there, wanted) {
            (false, true) => Err(wrong(format!("{make:?} needs the field {field}"))),
            (true, false) => Err(wrong(format!("{make:?} has no field {field}"))),
            _ => Ok(()),
        };
        let cross = make == Make::CrossCertificate;
        let has_certificate = kind(make).is_some();
        needed(choice.subject.is_some(), "subject", has_certificate && !cross)?;
        needed(choice.key.is_some(), "key", issues(make))?;
        needed(choice.days.is_some(), "days", has_certificate)?;
        needed(choice.name.is_some(), "name", cross)?;
        needed(choice.certificate.is_some(), "certificate", cross)?;
        needed(choice.serial.is_some(), "serial", has_certificate)?;
        let keyed = choice.key_place.is_some() && make.authority().is_some();
        needed(choice.key_place.is_some(), "place", keyed)?;

        let other = choice.certificate.as_deref().map(foreign::from_der).transpose().map_err(wrong)?;
        let subject = choice.subject.as_ref().or(other.as_ref().map(|root| &root.subject));
        let name = match (place.name, &choice.name) {
            (Some(name), _) => name,
            (None, Some(name)) => {
                hsm::KeyLabel::new(name).map_err(|_| {
                    wrong(
                        "its name is not 1 to 64 of a-z 0-9 . _ - beginning with a letter or digit"
                            .to_owned(),
                    )
                })?;
                name.clone()
            }
            (None, None) => String::new(),
        };
        let key = choice.key.or(make.authority().map(|_| KeyAlgorithm::EcdsaP256));
        let of_other =
            |field: &dyn Fn(&ForeignRoot) -> Vec<u8>| other.as_ref().map(|it| hex::encode(field(it)));
        Ok(Self {
            make,
            name,
            issuer: place.issuer,
            subject: subject.map(ca_pki::DistinguishedName::to_text),
            subject_der: subject.map(|subject| hex::encode(subject.as_der())),
            key: key.map(|key| key.as_str().to_owned()),
            place: choice.key_place,
            spki: of_other(&|root| root.public_key.spki().to_vec()),
            key_identifier: of_other(&|root| root.public_key.key_identifier().0.to_vec()),
            certificate: choice.certificate.map(hex::encode),
            serial: choice.serial.map(|serial| serial.to_string()),
            days: choice.days,
            shards: match make {
                Make::Root | Make::TimeStampingIssuer => 1,
                Make::CodeSigningIssuer => choice.shards,
                _ => 0,
            },
            template_sha256: None,
        })
    }

    /// Refuses a step that says two different things: it is made anew from what was decided and from its place, and must come out
    /// the same.
    pub(super) fn check(&self, place: Place, number: usize) -> Result<(), PlanRefusal> {
        let wrong = |field: &str| PlanRefusal::Step {
            step: number,
            reason: format!("its field {field} is not what follows from the others"),
        };
        let cross = self.make == Make::CrossCertificate;
        let octets = |field: &str, text: &Option<String>| {
            text.as_ref().map(|text| hex::decode(text).map_err(|_| wrong(field))).transpose()
        };
        let subject = octets("subject_der", &self.subject_der)?.filter(|_| !cross);
        let subject = subject.map(|der| DistinguishedName::from_der(&der)).transpose();
        let serial = self.serial.as_deref().map(SerialNumber::from_hex).transpose();
        let key = self.key.as_deref().filter(|_| issues(self.make));
        let choice = Choice {
            name: Some(self.name.clone()).filter(|_| cross),
            subject: subject.map_err(|_| wrong("subject_der"))?,
            key: key.map(|key| authority_key("key", key)).transpose().map_err(|_| wrong("key"))?,
            key_place: self.place.clone(),
            certificate: octets("certificate", &self.certificate)?,
            serial: serial.map_err(|_| wrong("serial"))?,
            days: self.days,
            shards: self.shards,
        };
        let mut again = Self::decided(self.make, place, choice, number)?;
        again.template_sha256.clone_from(&self.template_sha256);
        if again == *self {
            return Ok(());
        }
        let fields = |step: &Self| serde_json::to_value(step).unwrap_or_default();
        let (said, follows) = (fields(self), fields(&again));
        let differs = said.as_object().and_then(|said| {
            // The first by its name: members have no order of their own.
            let differing = said.iter().filter(|(name, value)| follows.get(name.as_str()) != Some(*value));
            differing.map(|(name, _)| name.as_str()).min()
        });
        Err(wrong(differs.unwrap_or("template_sha256")))
    }

    /// Refuses a step that the configuration decides otherwise than when it was planned.
    pub(super) fn check_configured(&self, settings: &Settings) -> Result<(), PlanRefusal> {
        let changed = |what: &str| Err(PlanRefusal::Changed(format!("the {what} of {}", self.name)));
        if self.place != configured_place(settings, self.make) {
            return changed("place of the key");
        }
        if self.make == Make::CodeSigningIssuer && self.shards != settings.shards.get() {
            return changed("number of shards");
        }
        let serial = self.serial.as_deref().map(SerialNumber::from_hex).transpose();
        match serial {
            Ok(Some(serial)) if serial.as_bytes().first() != Some(&settings.prefix.get()) => {
                changed("first octet of the serial number")
            }
            Ok(_) => Ok(()),
            Err(_) => changed("serial number"),
        }
    }

    /// What an approver has to know before signing, most of all whose key it is.
    #[must_use]
    pub fn summary(&self) -> serde_json::Value {
        let digest = |field: &Option<String>| {
            field
                .as_ref()
                .and_then(|text| hex::decode(text).ok())
                .map(|octets| hex::encode(Sha256::digest(octets)))
        };
        serde_json::json!({
            "make": self.make,
            "name": self.name,
            "issuer": self.issuer,
            "subject": self.subject,
            "serial": self.serial,
            "days": self.days,
            "key": self.key,
            "place": self.place,
            "certificate_sha256": digest(&self.certificate),
            "spki_sha256": digest(&self.spki),
            "key_identifier": self.key_identifier,
        })
    }
}

/// Where the configuration says that an authority's key is made; none for the keystore.
fn configured_place(settings: &Settings, make: Make) -> Option<String> {
    make.authority().and_then(|name| settings.key_uris.get(name)).map(ToString::to_string)
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

/// The key that a cross-certificate is for, with the identifier that its owner gave it; its owner's signature is verified again.
pub(super) fn foreign_key(step: &PlannedStep) -> Result<SubjectPublicKey, CaError> {
    let certificate = step.certificate.as_deref();
    let certificate = unhex(certificate.ok_or(CaError::Inconsistent("a step lacks the other root"))?)?;
    match foreign::from_der(&certificate) {
        Ok(root) => Ok(root.public_key),
        Err(reason) => {
            tracing::error!(reason, "the other root of a plan cannot be used");
            Err(CaError::Inconsistent("the other root of the plan cannot be used"))
        }
    }
}

pub(super) fn unhex(text: &str) -> Result<Vec<u8>, CaError> {
    hex::decode(text).map_err(|_| CaError::Inconsistent("a plan's field is not hexadecimal"))
}

/// A key that is nobody's, of the right type and size: a point of zeros, a modulus of ones.
pub(super) fn stand_in(algorithm: KeyAlgorithm) -> Result<SubjectPublicKey, CaError> {
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
