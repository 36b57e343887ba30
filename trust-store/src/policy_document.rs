//! The file form of a trust policy: what an operator writes, and its validation.
//!
//! A key that is absent means the strictest value, never "skip": the defaults are those of
//! [`TrustPolicy::default`], so an empty document accepts nobody and demands everything. Unknown keys are refused.
//!
//! ```yaml
//! version: 1
//! identities:
//!   - { subject: "*@example.com", issuer: any-of-the-authority, level: signed }
//!   - { subject: release@example.com, issuer: { matching: "https://id.example" }, level: verified, agents: ["shop.*"] }
//! required_level: signed
//! sct: require                        # or accept-absent
//! logs:
//!   threshold: 1
//!   policy: |                         # C2SP tlog-policy: further keys of trusted logs, witnesses, quorum
//!     log signing.ab12cd34.mentat.internal+…
//!     quorum none
//!   witnesses: not-required           # or quorum (the default), which `policy` must then name
//! freshness: { within-seconds: 3600 } # or attested-checkpoint-suffices
//! revocation: { mode: require, max_age_seconds: 86400, timestamp_authorities: like-the-signer }
//! agents: { allow: ["**"] }
//! capabilities: { within: ["filesystem:read:/data"] } # or left-to-the-executor
//! ```

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::num::NonZeroU8;

use serde::{Deserialize, Serialize};

use crate::algorithm::SubjectPublicKey;
use crate::capability_rules::{CapabilityRules, MAX_RULES_BYTES};
use crate::error::Error;
use crate::json::{self, Bytes, Value};
use crate::key_details::KeyDetails;
use crate::policy::{
    AgentPolicy, ArtifactPolicy, AuthorityStatus, CapabilityPolicy, EarlierSignatures, EndorsementPolicy,
    FreshnessPolicy, IdentityRule, ProvenancePolicy, RevocationMode, RevocationPolicy, SctPolicy,
    SigningTimePolicy, TrustLevel, TrustPolicy, TrustedKey, WitnessPolicy, WitnessQuorum,
};

/// Largest policy document, in bytes.
pub const MAX_POLICY_BYTES: usize = 1 << 20;
/// Most rules of one kind.
pub const MAX_RULES: usize = 1024;

/// A policy as it is written. [`PolicyDocument::validate`] turns it into a [`TrustPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyDocument {
    version: Version,
    /// What the signature must be about; absent: an agent release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// Key types and hashes that may sign; absent: P-256, P-384, Ed25519, RSA from 3072 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithms: Option<Vec<KeyDetails>>,
    /// What proves the signing time; absent: a token is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_time: Option<SigningTime>,
    /// Accepted signers; absent: nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<IdentityRule>,
    /// Accepted bare keys; absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Key>,
    /// Certificate transparency; absent: required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sct: Option<SctPolicy>,
    /// Logs and witnesses; absent: one log, and a quorum of witnesses that nobody names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<Logs>,
    /// Age of checkpoints; absent: at most an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freshness: Option<FreshnessPolicy>,
    /// Revocation; absent: evidence required for the whole chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
    /// The lowest level admitted; absent: verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_level: Option<TrustLevel>,
    /// Endorsements; absent: none count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endorsements: Option<EndorsementPolicy>,
    /// Build provenance; absent: not demanded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<ProvenancePolicy>,
    /// Agent ids; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<AgentPolicy>,
    /// Capabilities; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapabilityPolicy>,
    /// Rules that permit a covered request, in Cedar; absent: every covered request is permitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability_rules: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Version;

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            1 => Ok(Self),
            other => Err(serde::de::Error::custom(format!("policy version {other}; this version reads 1"))),
        }
    }
}

/// Written form of [`ArtifactPolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Artifact {
    /// See [`ArtifactPolicy::AgentRelease`].
    AgentRelease,
    /// See [`ArtifactPolicy::AnySignedArtifact`].
    AnySignedArtifact,
}

/// Written form of [`SigningTimePolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SigningTime {
    /// See [`SigningTimePolicy::TokenOrLogTime`].
    TokenOrLogTime,
    /// See [`SigningTimePolicy::TokenRequired`].
    TokenRequired,
}

/// An accepted bare key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Its name in answers; a bundle's hint may select it.
    pub name: String,
    /// Base64 of the DER SubjectPublicKeyInfo.
    pub spki: Bytes,
    /// Type and hash.
    pub key_details: KeyDetails,
    /// The level it earns.
    pub level: TrustLevel,
}

/// Logs and witnesses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// How many distinct trusted logs must hold the entry; absent: one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<NonZeroU8>,
    /// A C2SP tlog-policy: further keys of logs that the trusted root lists, witnesses, quorum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Whether the quorum of `policy` is demanded; absent: it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witnesses: Option<Witnesses>,
}

/// Whether witnesses are demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Witnesses {
    /// No cosignature is needed.
    NotRequired,
    /// The quorum of the tlog-policy.
    Quorum,
}

/// Revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// What missing evidence means; absent: a denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The greatest age of evidence besides its own next update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u32>,
    /// What a revocation means for signatures proven to be older; absent: a denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier_signatures: Option<Earlier>,
    /// What is demanded of timestamp authorities; absent: that no evidence shows one to be revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_authorities: Option<Authorities>,
}

/// Written form of [`RevocationMode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// See [`RevocationMode::DangerIfPresent`].
    DangerIfPresent,
    /// See [`RevocationMode::DangerSkip`].
    DangerSkip,
    /// See [`RevocationMode::Require`].
    Require,
}

/// Written form of [`EarlierSignatures`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Earlier {
    /// See [`EarlierSignatures::AcceptProvenBefore`].
    AcceptProvenBefore,
    /// See [`EarlierSignatures::Reject`].
    Reject,
}

/// Written form of [`AuthorityStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authorities {
    /// See [`AuthorityStatus::LikeTheSigner`].
    LikeTheSigner,
    /// See [`AuthorityStatus::RevokedDenies`].
    RevokedDenies,
}

impl PolicyDocument {
    /// Reads the JSON form.
    ///
    /// # Errors
    /// [`Error::TooLarge`] or [`Error::Malformed`], also for unknown keys.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        json::parse("trust policy", bytes, MAX_POLICY_BYTES)
    }

    /// Reads a document value, as a YAML reader gives it.
    ///
    /// # Errors
    /// As [`PolicyDocument::parse`].
    pub fn from_value(value: &Value) -> Result<Self, Error> {
        Self::parse(&json::write("trust policy", value)?)
    }

    /// Writes the document as JSON, which is YAML too.
    ///
    /// # Errors
    /// None in practice; see [`json::write`].
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        json::write_pretty("trust policy", self)
    }

    /// Checks every value and combination, and gives the policy to decide with.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a level that no signer can earn, a key or log policy that cannot be read, a demanded
    /// quorum that nobody names; [`Error::TooLarge`] over [`MAX_RULES`].
    pub fn validate(self) -> Result<TrustPolicy, Error> {
        let defaults = TrustPolicy::default();
        let (log_keys, log_threshold, witnesses) = logs(self.logs)?;
        let rules = match &self.endorsements {
            Some(EndorsementPolicy::AtLeast { endorsers, .. }) => endorsers.as_slice(),
            _ => &[],
        };
        for (count, what) in [
            (self.identities.len(), "list of identities"),
            (self.keys.len(), "list of keys"),
            (rules.len(), "list of endorsers"),
            (
                self.agents.as_ref().map_or(0, |agents| agents.allow.len().max(agents.deny.len())),
                "list of agents",
            ),
        ] {
            if count > MAX_RULES {
                return Err(Error::TooLarge { what, limit: MAX_RULES });
            }
        }
        let levels = self.identities.iter().chain(rules).map(|rule| rule.level);
        for level in levels.chain(self.keys.iter().map(|key| key.level)) {
            if !matches!(level, TrustLevel::Signed | TrustLevel::Verified) {
                return Err(malformed(format!("a signer earns `signed` or `verified`, not `{level}`")));
            }
        }
        let builders = match &self.provenance {
            Some(ProvenancePolicy::Required { builders, .. }) => builders.as_slice(),
            _ => &[],
        };
        // Ignored, the list would look like a restriction and be none.
        if rules.iter().chain(builders).any(|rule| rule.agents.is_some()) {
            return Err(malformed(
                "`agents` of an identity says what it may publish; an endorser or a builder publishes nothing",
            ));
        }
        for agents in self.identities.iter().filter_map(|rule| rule.agents.as_ref()) {
            if agents.is_empty() {
                return Err(malformed(
                    "an identity with `agents: []` may publish nothing; remove the identity, or the list",
                ));
            }
            if agents.len() > MAX_RULES {
                return Err(Error::TooLarge { what: "list of an identity's agents", limit: MAX_RULES });
            }
        }
        if self.required_level == Some(TrustLevel::Untrusted) {
            return Err(malformed(
                "nothing untrusted is ever admitted; the lowest required_level is `signed`",
            ));
        }
        if self.capability_rules.as_ref().is_some_and(|text| text.len() > MAX_RULES_BYTES) {
            return Err(Error::TooLarge { what: "capability_rules", limit: MAX_RULES_BYTES });
        }
        Ok(TrustPolicy {
            artifact: match self.artifact {
                Some(Artifact::AnySignedArtifact) => ArtifactPolicy::AnySignedArtifact,
                Some(Artifact::AgentRelease) | None => ArtifactPolicy::AgentRelease,
            },
            algorithms: self.algorithms.unwrap_or(defaults.algorithms),
            signing_time: match self.signing_time {
                Some(SigningTime::TokenOrLogTime) => SigningTimePolicy::TokenOrLogTime,
                Some(SigningTime::TokenRequired) | None => SigningTimePolicy::TokenRequired,
            },
            identities: self.identities,
            keys: self.keys.into_iter().map(trusted_key).collect::<Result<_, _>>()?,
            sct: self.sct.unwrap_or(defaults.sct),
            log_threshold,
            log_keys,
            witnesses,
            freshness: self.freshness.unwrap_or(defaults.freshness),
            revocation: self.revocation.map_or(defaults.revocation, Revocation::into_policy),
            required_level: self.required_level.unwrap_or(defaults.required_level),
            endorsements: self.endorsements.unwrap_or(defaults.endorsements),
            provenance: self.provenance.unwrap_or(defaults.provenance),
            agents: self.agents.unwrap_or(defaults.agents),
            capabilities: self.capabilities.unwrap_or(defaults.capabilities),
            capability_rules: self.capability_rules.as_deref().map(CapabilityRules::unread),
        })
    }
}

impl Revocation {
    fn into_policy(self) -> RevocationPolicy {
        RevocationPolicy {
            mode: match self.mode {
                Some(Mode::DangerIfPresent) => RevocationMode::DangerIfPresent,
                Some(Mode::DangerSkip) => RevocationMode::DangerSkip,
                Some(Mode::Require) | None => RevocationMode::Require,
            },
            max_age_seconds: self.max_age_seconds.map(i64::from),
            earlier_signatures: match self.earlier_signatures {
                Some(Earlier::AcceptProvenBefore) => EarlierSignatures::AcceptProvenBefore,
                Some(Earlier::Reject) | None => EarlierSignatures::Reject,
            },
            timestamp_authorities: match self.timestamp_authorities {
                Some(Authorities::LikeTheSigner) => AuthorityStatus::LikeTheSigner,
                Some(Authorities::RevokedDenies) | None => AuthorityStatus::RevokedDenies,
            },
            ..RevocationPolicy::default()
        }
    }
}

fn logs(logs: Option<Logs>) -> Result<(Vec<tlog::VerifierKey>, NonZeroU8, WitnessPolicy), Error> {
    let Some(logs) = logs else {
        return Ok((Vec::new(), NonZeroU8::MIN, WitnessPolicy::Quorum(WitnessQuorum::unreachable())));
    };
    let policy = logs.policy.as_deref().map(|text| tlog::Policy::parse(text.as_bytes())).transpose();
    let policy = policy.map_err(|error| malformed(format!("logs.policy: {error}")))?;
    let keys = policy.iter().flat_map(|policy| policy.logs().iter().map(|log| log.key.clone())).collect();
    let witnesses = match (logs.witnesses, policy) {
        (Some(Witnesses::NotRequired), _) => WitnessPolicy::NotRequired,
        (_, Some(policy)) if !policy.is_witnessless() => WitnessPolicy::Quorum(WitnessQuorum::of(policy)),
        _ => {
            let detail = "logs.witnesses demands a quorum, but logs.policy names none; name one or write `witnesses: not-required`";
            return Err(malformed(detail));
        }
    };
    Ok((keys, logs.threshold.unwrap_or(NonZeroU8::MIN), witnesses))
}

fn trusted_key(key: Key) -> Result<TrustedKey, Error> {
    SubjectPublicKey::from_der(&key.spki.0)
        .map_err(|error| malformed(format!("key `{}`: {}", key.name, error.denial("SPKI").detail)))?;
    key.key_details.algorithm()?;
    Ok(TrustedKey { name: key.name, spki: key.spki.0, details: key.key_details, level: key.level })
}

fn malformed(detail: impl ToString) -> Error {
    Error::malformed("trust policy", detail.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::IssuerRule;

    fn parse(text: &str) -> Result<TrustPolicy, Error> {
        PolicyDocument::parse(text.as_bytes()).and_then(PolicyDocument::validate)
    }

    #[test]
    fn an_empty_document_is_the_strictest_policy() {
        let policy = parse(r#"{"version":1}"#).unwrap();
        let strict = TrustPolicy::default();
        assert_eq!(alloc::format!("{policy:?}"), alloc::format!("{strict:?}"));
        assert!(parse("{}").is_err(), "the version is demanded");
    }

    #[test]
    fn reads_every_key() {
        let policy = parse(
            r#"{"version":1,"artifact":"any-signed-artifact","algorithms":["PKIX_ED25519"],
            "signing_time":"token-or-log-time",
            "identities":[{"subject":"*@example.com","issuer":"any-of-the-authority","level":"signed"},
                          {"subject":"https://ci/**","issuer":{"matching":"https://id"},"level":"verified","agents":["a.*"]}],
            "sct":"accept-absent","logs":{"threshold":2,"witnesses":"not-required"},
            "freshness":{"within-seconds":60},
            "revocation":{"mode":"require","max_age_seconds":5,"earlier_signatures":"accept-proven-before",
                          "timestamp_authorities":"like-the-signer"},
            "required_level":"community",
            "endorsements":{"at-least":{"count":2,"endorsers":[]}},
            "provenance":{"required":{"predicate_type":"p","builders":[],"fields":[{"path":"a.b","matches":"x*"}]}},
            "agents":{"allow":["**"],"deny":["evil.*"]},
            "capabilities":{"within":["env:A"]}}"#,
        )
        .unwrap();
        assert_eq!(policy.artifact, ArtifactPolicy::AnySignedArtifact);
        assert_eq!(policy.log_threshold.get(), 2);
        assert!(matches!(policy.witnesses, WitnessPolicy::NotRequired));
        assert_eq!(policy.freshness, FreshnessPolicy::WithinSeconds(60));
        assert_eq!(policy.revocation.max_age_seconds, Some(5));
        assert_eq!(policy.revocation.timestamp_authorities, AuthorityStatus::LikeTheSigner);
        assert_eq!(policy.required_level, TrustLevel::Community);
        assert!(
            matches!(&policy.identities[1].issuer, IssuerRule::Matching(pattern) if pattern.as_str() == "https://id")
        );
        assert!(policy.identities[0].agents.is_none() && policy.identities[1].names_agent("a.b"));
        assert!(matches!(&policy.capabilities, CapabilityPolicy::Within(list) if list.len() == 1));
        let lenient = parse(
            r#"{"version":1,"freshness":"attested-checkpoint-suffices","capabilities":"left-to-the-executor"}"#,
        );
        assert_eq!(lenient.unwrap().freshness, FreshnessPolicy::AttestedCheckpointSuffices);
    }

    #[test]
    fn refuses_what_cannot_be_meant() {
        for text in [
            r#"{"version":2}"#,
            r#"{"version":1,"extra":0}"#,
            r#"{"version":1,"sct":"skip"}"#,
            r#"{"version":1,"required_level":"untrusted"}"#,
            r#"{"version":1,"identities":[{"subject":"a","issuer":"any-of-the-authority","level":"community"}]}"#,
            r#"{"version":1,"identities":[{"subject":"","issuer":"any-of-the-authority","level":"signed"}]}"#,
            r#"{"version":1,"identities":[{"subject":"a","level":"signed"}]}"#,
            r#"{"version":1,"identities":[{"subject":"a","issuer":"any-of-the-authority","level":"signed","agents":[]}]}"#,
            r#"{"version":1,"identities":[{"subject":"a","issuer":"any-of-the-authority","level":"signed","agents":[""]}]}"#,
            r#"{"version":1,"endorsements":{"at-least":{"count":1,"endorsers":[{"subject":"a","issuer":"any-of-the-authority","level":"signed","agents":["b"]}]}}}"#,
            r#"{"version":1,"provenance":{"required":{"predicate_type":"p","builders":[{"subject":"a","issuer":"any-of-the-authority","level":"signed","agents":["b"]}]}}}"#,
            r#"{"version":1,"logs":{"threshold":0,"witnesses":"not-required"}}"#,
            r#"{"version":1,"logs":{}}"#,
            r#"{"version":1,"logs":{"policy":"quorum none\n"}}"#,
            r#"{"version":1,"logs":{"policy":"nonsense\n","witnesses":"not-required"}}"#,
            r#"{"version":1,"freshness":{"within-seconds":-1}}"#,
            r#"{"version":1,"capabilities":{"within":["shell:rm"]}}"#,
            r#"{"version":1,"keys":[{"name":"k","spki":"AA==","key_details":"PKIX_ED25519","level":"signed"}]}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn is_written_and_read_back() {
        let text = r#"{"version":1,"sct":"accept-absent","agents":{"allow":["**"]}}"#;
        let document = PolicyDocument::parse(text.as_bytes()).unwrap();
        assert_eq!(PolicyDocument::parse(&document.to_json().unwrap()).unwrap(), document);
    }
}
