//! Profiles: what kinds of certificates this CA makes and what each must contain (ca-requirements §1, C1–C8, T1, O1).
//!
//! [`ProfileConfig`] is what configuration says; [`Profile`] is what survived validation. Extensions come from the
//! kind, never from text: there are no templates that an input could break out of.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use const_oid::ObjectIdentifier;

use crate::error::Error;
use crate::identity::Identity;
use crate::key::KeyUse;
use crate::name::{DistinguishedName, NameFields};
use crate::oid;

const DAY: i64 = 86_400;

/// CSBR §6.3.2: code-signing certificates issued from 2026-03-01 on are valid at most 460 days.
pub const CODE_SIGNING_MAX_DAYS: i64 = 460;
/// CSBR §6.3.2: time-stamp certificates are valid at most 135 months.
pub const TIME_STAMP_MAX_DAYS: i64 = 135 * 30;

/// The policy OID of certificates when configuration names none: an arc that RFC 5612 reserves for examples.
pub const EXAMPLE_CODE_SIGNING_POLICY: &str = "1.3.6.1.4.1.32473.1.1";
/// The policy OID of time-stamp tokens when configuration names none (RFC 5612 example arc).
pub const EXAMPLE_TIME_STAMP_POLICY: &str = "1.3.6.1.4.1.32473.1.2";

/// What a certificate is for; decides its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Subscriber under the code-signing baseline requirements, with evidence of a hardware key.
    CodeSigningBaseline,
    /// CA that issues code-signing certificates only (path length 0).
    CodeSigningIssuer,
    /// Another root, certified for code signing, with one level of CAs below it (path length 1).
    CrossCertificate,
    /// Subscriber of a private PKI: a developer's certificate of up to a year.
    Internal,
    /// Ten-minute certificate with an empty subject.
    Keyless,
    /// Delegated OCSP responder.
    OcspResponder,
    /// Trust anchor.
    Root,
    /// CA that issues time-stamp certificates only (path length 0).
    TimeStampingIssuer,
    /// Time-stamp authority.
    TimestampAuthority,
}

impl Kind {
    /// The kinds of the CA's own certificates.
    #[must_use]
    pub fn of_authorities() -> [Self; 6] {
        [
            Self::CodeSigningIssuer,
            Self::CrossCertificate,
            Self::OcspResponder,
            Self::Root,
            Self::TimeStampingIssuer,
            Self::TimestampAuthority,
        ]
    }

    /// True for kinds whose certificates carry an identity and may be asked for by requesters.
    #[must_use]
    pub fn is_subscriber(self) -> bool {
        matches!(self, Self::CodeSigningBaseline | Self::Internal | Self::Keyless)
    }

    /// True for kinds that sign certificates.
    #[must_use]
    pub fn is_authority(self) -> bool {
        matches!(
            self,
            Self::Root | Self::CodeSigningIssuer | Self::CrossCertificate | Self::TimeStampingIssuer
        )
    }

    /// Stable name for records and listings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CodeSigningBaseline => "csbr",
            Self::CodeSigningIssuer => "code-signing-issuer",
            Self::CrossCertificate => "cross-certificate",
            Self::Internal => "internal",
            Self::Keyless => "keyless",
            Self::OcspResponder => "ocsp-responder",
            Self::Root => "root",
            Self::TimeStampingIssuer => "time-stamping-issuer",
            Self::TimestampAuthority => "timestamp-authority",
        }
    }
}

/// Which subscriber rules a configured profile follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubscriberRules {
    /// Code-signing baseline requirements.
    Csbr,
    /// Private PKI, up to a year.
    Internal,
    /// Ten minutes, empty subject.
    Keyless,
}

/// Whether the certificate must carry a signed certificate timestamp of the issuance log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SctPolicy {
    /// Exactly one embedded SCT; without the log nothing is issued. Stock Sigstore clients need it.
    Embedded,
    /// No SCT; the finished certificate is logged before delivery where a log is configured.
    Absent,
}

/// Which key types a profile takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubscriberKeys {
    /// P-256, P-384, P-521, and RSA of 3072 bits and more.
    #[default]
    Classical,
    /// ML-DSA-44 (FIPS 204, RFC 9881) beside those. Certificates with such keys are about 2 KB longer, and few verifiers
    /// know them.
    ClassicalAndMlDsa,
}

/// A subscriber profile as configuration gives it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileConfig {
    /// Which rules apply.
    pub rules: SubscriberRules,
    /// Validity in seconds, the last second included. Defaults: csbr 460 days, internal 365 days, keyless 600 s.
    #[serde(default)]
    pub lifetime_seconds: Option<u64>,
    /// Fixed attributes of the subject; the common name is always the verified identity. Default for `internal`:
    /// `O=MentatLab,C=US`, as the default hierarchy is named.
    #[serde(default)]
    pub subject: NameFields,
    /// Policy OIDs; default is the example arc of RFC 5612, to be replaced by one's own.
    #[serde(default)]
    pub policies: Vec<String>,
    /// Whether an SCT is embedded. Default: embedded.
    #[serde(default = "embedded")]
    pub sct: SctPolicy,
    /// Which keys it certifies. Default: classical.
    #[serde(default)]
    pub keys: SubscriberKeys,
}

/// A subject is never empty, also where an identity is too long for a common name.
fn default_subject() -> NameFields {
    NameFields { country: Some("US".into()), organization: Some("MentatLab".into()), ..NameFields::default() }
}

fn embedded() -> SctPolicy {
    SctPolicy::Embedded
}

/// A validated profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    name: String,
    kind: Kind,
    lifetime: i64,
    subject: NameFields,
    policies: Vec<ObjectIdentifier>,
    sct: SctPolicy,
    keys: SubscriberKeys,
}

impl Profile {
    /// Validates a subscriber profile.
    ///
    /// # Errors
    /// [`Error::Profile`] naming the contradiction.
    pub fn subscriber(name: &str, config: &ProfileConfig) -> Result<Self, Error> {
        let refuse = |reason| Err(Error::Profile { profile: name.to_string(), reason });
        let (kind, default_seconds, most_seconds) = match config.rules {
            SubscriberRules::Csbr => {
                (Kind::CodeSigningBaseline, CODE_SIGNING_MAX_DAYS * DAY, CODE_SIGNING_MAX_DAYS * DAY)
            }
            SubscriberRules::Internal => (Kind::Internal, 365 * DAY, 366 * DAY),
            SubscriberRules::Keyless => (Kind::Keyless, 600, 3_600),
        };
        let lifetime = match config.lifetime_seconds {
            None => default_seconds,
            Some(seconds) => i64::try_from(seconds).unwrap_or(i64::MAX),
        };
        if lifetime < 60 || lifetime > most_seconds {
            return refuse("the lifetime is not between a minute and what the rules allow");
        }
        let named = kind == Kind::Internal && config.subject == NameFields::default();
        let subject = &if named { default_subject() } else { config.subject.clone() };
        if subject.common_name.is_some() {
            return refuse("the common name is the requester's identity and cannot be configured");
        }
        let without_attributes = *subject == NameFields::default();
        match kind {
            Kind::Keyless if !without_attributes => {
                return refuse("keyless certificates have an empty subject");
            }
            Kind::CodeSigningBaseline
                if subject.organization.is_none()
                    || subject.country.is_none()
                    || (subject.locality.is_none() && subject.state.is_none()) =>
            {
                return refuse("the rules need organization, country, and locality or state (C6)");
            }
            Kind::CodeSigningBaseline if config.keys == SubscriberKeys::ClassicalAndMlDsa => {
                return refuse("the rules know RSA and the NIST curves only (C9)");
            }
            Kind::Internal if without_attributes => {
                return refuse(
                    "the subject needs a fixed attribute, for identities longer than a common name",
                );
            }
            _ => {}
        }
        if !without_attributes {
            DistinguishedName::from_fields(subject)?;
        }
        let policies = parse_policies(name, &config.policies, kind)?;
        Ok(Self {
            name: name.to_string(),
            kind,
            lifetime,
            subject: subject.clone(),
            policies,
            sct: config.sct,
            keys: config.keys,
        })
    }

    /// A profile of the CA's own certificates.
    ///
    /// # Errors
    /// [`Error::Profile`] when the kind is a subscriber's, or the lifetime is longer than its rules allow.
    pub fn infrastructure(kind: Kind, lifetime_days: u32, policies: &[String]) -> Result<Self, Error> {
        let refuse = |reason| Err(Error::Profile { profile: kind.as_str().to_string(), reason });
        let most_days = match kind {
            Kind::Root => 25 * 366,
            Kind::CodeSigningIssuer | Kind::CrossCertificate | Kind::TimeStampingIssuer => 15 * 366,
            Kind::OcspResponder => 366,
            Kind::TimestampAuthority => TIME_STAMP_MAX_DAYS,
            Kind::CodeSigningBaseline | Kind::Internal | Kind::Keyless => {
                return refuse("this kind is a subscriber's");
            }
        };
        let lifetime_days = i64::from(lifetime_days);
        if lifetime_days < 1 || lifetime_days > most_days {
            return refuse("the lifetime is not between a day and what the rules allow");
        }
        let policies = match kind {
            Kind::Root | Kind::OcspResponder => Vec::new(),
            _ => parse_policies(kind.as_str(), policies, kind)?,
        };
        Ok(Self {
            name: kind.as_str().to_string(),
            kind,
            lifetime: lifetime_days * DAY,
            subject: NameFields::default(),
            policies,
            sct: SctPolicy::Absent,
            keys: SubscriberKeys::Classical,
        })
    }

    /// The profile's name in configuration and records.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its certificates are for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Validity in seconds, the last second included.
    #[must_use]
    pub fn lifetime(&self) -> i64 {
        self.lifetime
    }

    /// Policy OIDs of its certificates.
    #[must_use]
    pub fn policies(&self) -> &[ObjectIdentifier] {
        &self.policies
    }

    /// Whether an SCT is embedded.
    #[must_use]
    pub fn sct(&self) -> SctPolicy {
        self.sct
    }

    /// By which rules its subscribers' keys are judged.
    #[must_use]
    pub fn key_use(&self) -> KeyUse {
        match (self.kind.is_authority(), self.keys) {
            (true, _) => KeyUse::Authority,
            (false, SubscriberKeys::Classical) => KeyUse::Subscriber,
            (false, SubscriberKeys::ClassicalAndMlDsa) => KeyUse::PostQuantumSubscriber,
        }
    }

    /// True when certificates of this profile live long enough to have pre-signed OCSP answers (ca-requirements §8).
    #[must_use]
    pub fn has_ocsp(&self) -> bool {
        self.lifetime > DAY && self.kind.is_subscriber()
    }

    /// The subject of a certificate for a verified identity.
    ///
    /// An identity longer than the 64 characters of a common name stays in the subject alternative name alone.
    ///
    /// # Errors
    /// [`Error::NameNotAllowed`] when the rules demand a common name and the identity does not fit.
    pub fn subject_for(&self, identity: &Identity) -> Result<DistinguishedName, Error> {
        if self.kind == Kind::Keyless {
            return Ok(DistinguishedName::empty());
        }
        let mut fields = self.subject.clone();
        if identity.as_str().chars().count() <= 64 {
            fields.common_name = Some(identity.as_str().to_string());
        } else if self.kind == Kind::CodeSigningBaseline {
            return Err(Error::NameNotAllowed("the identity is longer than a common name may be"));
        }
        DistinguishedName::from_fields(&fields)
    }
}

fn parse_policies(profile: &str, configured: &[String], kind: Kind) -> Result<Vec<ObjectIdentifier>, Error> {
    let default = match kind {
        Kind::TimeStampingIssuer | Kind::TimestampAuthority => EXAMPLE_TIME_STAMP_POLICY,
        _ => EXAMPLE_CODE_SIGNING_POLICY,
    };
    let mut policies =
        if configured.is_empty() {
            vec![ObjectIdentifier::new_unwrap(default)]
        } else {
            configured.iter().map(|text| ObjectIdentifier::new(text)).collect::<Result<Vec<_>, _>>().map_err(
                |_| Error::Profile { profile: profile.to_string(), reason: "a policy is not an OID" },
            )?
        };
    if policies.contains(&oid::ANY_POLICY) {
        return Err(Error::Profile {
            profile: profile.to_string(),
            reason: "anyPolicy says nothing: name a policy",
        });
    }
    if kind == Kind::CodeSigningBaseline && !policies.contains(&oid::CABF_CODE_SIGNING) {
        policies.push(oid::CABF_CODE_SIGNING);
    }
    Ok(policies)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rules: SubscriberRules) -> ProfileConfig {
        ProfileConfig {
            rules,
            lifetime_seconds: None,
            subject: NameFields {
                country: Some("US".into()),
                organization: Some("MentatLab".into()),
                ..NameFields::default()
            },
            policies: Vec::new(),
            sct: SctPolicy::Embedded,
            keys: SubscriberKeys::Classical,
        }
    }

    #[test]
    fn developer_subject_is_the_identity_with_fixed_attributes() {
        let profile = Profile::subscriber("developer", &config(SubscriberRules::Internal)).unwrap();
        let subject = profile.subject_for(&Identity::email("dev@example.com").unwrap()).unwrap();
        assert_eq!(subject.to_text(), "CN=dev@example.com,O=MentatLab,C=US");
        let long = Identity::uri(&alloc::format!("https://example.com/{}", "a".repeat(80))).unwrap();
        assert_eq!(profile.subject_for(&long).unwrap().to_text(), "O=MentatLab,C=US");
        assert_eq!(profile.lifetime(), 365 * DAY);
        assert!(profile.has_ocsp());
    }

    #[test]
    fn contradictions_are_refused_at_start() {
        let mut too_long = config(SubscriberRules::Internal);
        too_long.lifetime_seconds = Some(400 * 86_400);
        let mut with_name = config(SubscriberRules::Internal);
        with_name.subject.common_name = Some("x".into());
        let keyless_with_subject = config(SubscriberRules::Keyless);
        let csbr_without_locality = config(SubscriberRules::Csbr);
        let mut any_policy = config(SubscriberRules::Internal);
        any_policy.policies = vec!["2.5.29.32.0".into()];
        let mut bad_policy = config(SubscriberRules::Internal);
        bad_policy.policies = vec!["1".into()];
        let mut csbr_post_quantum = config(SubscriberRules::Csbr);
        csbr_post_quantum.subject.locality = Some("Springfield".into());
        csbr_post_quantum.keys = SubscriberKeys::ClassicalAndMlDsa;
        for bad in [
            too_long,
            with_name,
            keyless_with_subject,
            csbr_without_locality,
            any_policy,
            bad_policy,
            csbr_post_quantum,
        ] {
            assert!(matches!(Profile::subscriber("p", &bad), Err(Error::Profile { .. })), "{bad:?}");
        }
        assert!(Profile::infrastructure(Kind::Internal, 1, &[]).is_err());
        assert!(Profile::infrastructure(Kind::OcspResponder, 400, &[]).is_err());
    }

    #[test]
    fn baseline_profile_needs_a_fitting_common_name_and_the_forum_policy() {
        let mut csbr = config(SubscriberRules::Csbr);
        csbr.subject.locality = Some("Springfield".into());
        let profile = Profile::subscriber("csbr", &csbr).unwrap();
        assert!(profile.policies().contains(&oid::CABF_CODE_SIGNING));
        let long = Identity::uri(&alloc::format!("https://example.com/{}", "a".repeat(80))).unwrap();
        assert!(matches!(profile.subject_for(&long), Err(Error::NameNotAllowed(_))));
    }
}
