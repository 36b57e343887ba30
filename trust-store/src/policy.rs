//! Trust policy: which evidence is demanded before something may run.
//!
//! Every field is a value that says in words what is demanded; no field can be left unset to skip a check.
//! [`TrustPolicy::default`] demands everything and accepts nobody. Variants whose name starts with `Danger` weaken a
//! check; they exist for the conformance door and for reading foreign bundles, and the executor never uses them.
//!
//! The file form is [`crate::policy_document::PolicyDocument`].

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU8;

use serde::{Deserialize, Serialize};
use tlog::note::VerifierKey;

use crate::capability::Capability;
use crate::capability_rules::CapabilityRules;
use crate::identity::Identity;
use crate::key_details::KeyDetails;
use crate::pattern::Pattern;

pub use crate::revocation::{AuthorityStatus, EarlierSignatures, RevocationMode, RevocationPolicy};

/// How far a clock may be ahead of ours before its time is worth nothing, in seconds.
pub const MAX_CLOCK_SKEW: i64 = 300;

/// How much is known about who stands behind an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrustLevel {
    /// No attestation at all. Never the level of something verified: failed evidence is a denial, not a level.
    Untrusted,
    /// Valid chain, not revoked, in the log, fresh.
    Signed,
    /// Signed, and endorsed by as many other accepted signers as the policy demands.
    Community,
    /// Signed by an identity that the policy lists at this level.
    Verified,
}

impl TrustLevel {
    /// The word used in answers, audit records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Signed => "signed",
            Self::Community => "community",
            Self::Verified => "verified",
        }
    }
}

impl fmt::Display for TrustLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The whole policy of one decision.
#[derive(Clone, Debug)]
pub struct TrustPolicy {
    /// What the signature must be about (step 2).
    pub artifact: ArtifactPolicy,
    /// Keys and hashes that may sign statements (step 3).
    pub algorithms: Vec<KeyDetails>,
    /// What proves the signing time (step 4).
    pub signing_time: SigningTimePolicy,
    /// Signers with certificates that are accepted (step 6). Nobody is, if the list is empty.
    pub identities: Vec<IdentityRule>,
    /// Signers with bare keys that are accepted (steps 3 and 6); for those there is no chain to check or revoke.
    pub keys: Vec<TrustedKey>,
    /// Certificate transparency (step 7).
    pub sct: SctPolicy,
    /// How many distinct trusted logs must hold the entry (steps 8 and 9).
    pub log_threshold: NonZeroU8,
    /// Further checkpoint keys of logs that the trusted root lists, by origin: an ML-DSA-44 key, whose lines carry the
    /// signing time.
    pub log_keys: Vec<VerifierKey>,
    /// Witnesses (step 10).
    pub witnesses: WitnessPolicy,
    /// Age of the newest checkpoint (step 11).
    pub freshness: FreshnessPolicy,
    /// Revocation of every certificate of the chain (step 12).
    pub revocation: RevocationPolicy,
    /// The lowest level that is admitted (step 13).
    pub required_level: TrustLevel,
    /// Who may endorse, and how many lift an artifact to the level community (step 13).
    pub endorsements: EndorsementPolicy,
    /// Build provenance (step 13).
    pub provenance: ProvenancePolicy,
    /// Agent ids that are admitted (step 13).
    pub agents: AgentPolicy,
    /// Capabilities that may be requested (step 14).
    pub capabilities: CapabilityPolicy,
    /// Who may request which of them, in a language of rules (step 14).
    pub capability_rules: Option<CapabilityRules>,
}

impl Default for TrustPolicy {
    /// Demands everything, accepts nobody, grants nothing. Checkpoints may be an hour old.
    fn default() -> Self {
        Self {
            artifact: ArtifactPolicy::AgentRelease,
            algorithms: vec![
                KeyDetails::EcdsaP256Sha256,
                KeyDetails::EcdsaP384Sha384,
                KeyDetails::Ed25519,
                KeyDetails::RsaPkcs1v15_3072Sha256,
                KeyDetails::RsaPkcs1v15_4096Sha256,
            ],
            signing_time: SigningTimePolicy::TokenRequired,
            identities: Vec::new(),
            keys: Vec::new(),
            sct: SctPolicy::Require,
            log_threshold: NonZeroU8::MIN,
            log_keys: Vec::new(),
            witnesses: WitnessPolicy::Quorum(WitnessQuorum::unreachable()),
            freshness: FreshnessPolicy::WithinSeconds(3600),
            revocation: RevocationPolicy::default(),
            required_level: TrustLevel::Verified,
            endorsements: EndorsementPolicy::NobodyEndorses,
            provenance: ProvenancePolicy::NotRequired,
            agents: AgentPolicy { allow: Vec::new(), deny: Vec::new() },
            capabilities: CapabilityPolicy::Within(Vec::new()),
            capability_rules: None,
        }
    }
}

impl TrustPolicy {
    /// What a stock Sigstore client demands of a bundle, for verifying foreign ones: any signed artifact, time from a
    /// token or a Rekor v1 entry, a certificate timestamp, one log. It asks nobody about revocation, witnesses or
    /// freshness; the executor never uses it. Who is accepted is for the caller to fill in.
    pub fn danger_stock_client() -> Self {
        Self {
            artifact: ArtifactPolicy::AnySignedArtifact,
            algorithms: KeyDetails::ALL.iter().map(|(details, _)| *details).collect(),
            signing_time: SigningTimePolicy::TokenOrLogTime,
            witnesses: WitnessPolicy::NotRequired,
            freshness: FreshnessPolicy::AttestedCheckpointSuffices,
            revocation: RevocationPolicy { mode: RevocationMode::DangerSkip, ..RevocationPolicy::default() },
            required_level: TrustLevel::Signed,
            capabilities: CapabilityPolicy::LeftToTheExecutor,
            ..Self::default()
        }
    }
}

/// What the signature must be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArtifactPolicy {
    /// A release statement over module and manifest, as `mentatctl sign` makes it.
    AgentRelease,
    /// Any signature over the artifact's digest; there is no manifest and so no capability.
    AnySignedArtifact,
}

/// What proves the signing time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningTimePolicy {
    /// At least one RFC 3161 token of a trusted authority.
    TokenRequired,
    /// A token, or the integration time of a Rekor v1 entry under a verified entry timestamp.
    TokenOrLogTime,
}

/// An accepted signer with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityRule {
    /// The alternative name.
    pub subject: Pattern,
    /// The issuer that vouched for it.
    pub issuer: IssuerRule,
    /// The level that the identity earns: `signed` or `verified`.
    pub level: TrustLevel,
    /// Ids of the agents that the identity may publish; absent: any, unless a release of another rule's signer is served under
    /// it already. Only for who signs artifacts: an endorser or a builder publishes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<Vec<Pattern>>,
}

impl IdentityRule {
    /// Whether the rule means this identity.
    pub fn accepts(&self, identity: &Identity) -> bool {
        self.accepts_name(identity.subject(), identity.issuer())
    }

    /// Whether the rule means a signer of this name, for whom this issuer vouched, if its certificate says so.
    pub fn accepts_name(&self, subject: &str, issuer: Option<&str>) -> bool {
        self.subject.matches(subject)
            && match &self.issuer {
                IssuerRule::AnyOfTheAuthority => true,
                IssuerRule::Matching(pattern) => issuer.is_some_and(|issuer| pattern.matches(issuer)),
            }
    }

    /// Whether whom the rule means may publish this agent. A rule with a list accepts nothing that is no agent.
    pub fn may_publish(&self, agent: Option<&str>) -> bool {
        self.agents.is_none() || agent.is_some_and(|agent| self.names_agent(agent))
    }

    /// Whether the rule has a list of agents, and this one is in it.
    pub fn names_agent(&self, agent: &str) -> bool {
        self.agents.as_ref().is_some_and(|agents| agents.iter().any(|pattern| pattern.matches(agent)))
    }
}

/// Which issuer must have vouched for a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IssuerRule {
    /// Whatever the trusted certificate authority accepted, also if the certificate does not say.
    AnyOfTheAuthority,
    /// An issuer extension that matches.
    Matching(Pattern),
}

/// An accepted signer with a bare key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// Its name in answers.
    pub name: String,
    /// DER SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// Type and hash.
    pub details: KeyDetails,
    /// The level that it earns.
    pub level: TrustLevel,
}

/// Certificate transparency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SctPolicy {
    /// A certificate without a timestamp of a trusted log is accepted; one with a timestamp that does not verify is not.
    AcceptAbsent,
    /// Exactly one timestamp, of a trusted log.
    Require,
}

/// Witnesses of the checkpoint.
#[derive(Clone, Debug)]
pub enum WitnessPolicy {
    /// No cosignature is needed.
    NotRequired,
    /// A quorum must have cosigned the entry's checkpoint, or a newer one that is shown to be consistent with it.
    Quorum(WitnessQuorum),
}

/// Witness keys and their quorum, from a C2SP tlog-policy file.
#[derive(Clone, Debug)]
pub struct WitnessQuorum {
    policy: Option<tlog::policy::Policy>,
}

impl WitnessQuorum {
    /// The quorum of a policy file.
    pub fn of(policy: tlog::policy::Policy) -> Self {
        Self { policy: Some(policy) }
    }

    /// A quorum that nothing reaches: what an unwritten policy demands.
    pub fn unreachable() -> Self {
        Self { policy: None }
    }

    /// The witnesses' keys, in the order that [`WitnessQuorum::is_reached`] counts them.
    pub fn keys(&self) -> impl Iterator<Item = &VerifierKey> {
        self.policy.iter().flat_map(|policy| policy.witnesses().iter().map(|witness| &witness.key))
    }

    /// Whether these witnesses are a quorum.
    pub fn is_reached(&self, cosigned: impl Fn(usize) -> bool) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.evaluate(cosigned))
    }
}

/// How old the newest known checkpoint of the log may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FreshnessPolicy {
    /// The checkpoint of the attestation suffices, whatever its age: for a verification without evidence from the log.
    AttestedCheckpointSuffices,
    /// A verified time of the newest known checkpoint lies at most this many seconds back.
    WithinSeconds(u32),
}

/// Who may endorse, and how many must.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndorsementPolicy {
    /// This many accepted signers, other than the artifact's own and each other, lift it to the level community.
    AtLeast {
        /// The number.
        count: NonZeroU8,
        /// Who may endorse.
        endorsers: Vec<IdentityRule>,
    },
    /// No endorsement counts: the level community is not reachable.
    NobodyEndorses,
}

/// Build provenance of the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProvenancePolicy {
    /// None is needed.
    NotRequired,
    /// A further verified statement about the same module, of this type, whose predicate has these fields.
    Required {
        /// The predicate type, for example `https://slsa.dev/provenance/v1`.
        predicate_type: String,
        /// Who may state it.
        builders: Vec<IdentityRule>,
        /// Dotted path into the predicate, and what the text there must match.
        #[serde(default)]
        fields: Vec<FieldRule>,
    },
}

/// A demand on one text of a predicate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldRule {
    /// Member names joined by dots, for example `runDetails.builder.id`.
    pub path: String,
    /// What the text must match.
    pub matches: Pattern,
}

/// Agent ids that are admitted; a denial wins, and an id that no pattern allows is denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentPolicy {
    /// Ids that are admitted.
    pub allow: Vec<Pattern>,
    /// Ids that are not, whatever `allow` says.
    #[serde(default)]
    pub deny: Vec<Pattern>,
}

/// Capabilities that a manifest may request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapabilityPolicy {
    /// Requests are listed in the answer and judged by whoever runs the module.
    LeftToTheExecutor,
    /// Every request must be covered by one of these.
    Within(Vec<Capability>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_accepts_nobody_and_grants_nothing() {
        let policy = TrustPolicy::default();
        assert!(policy.identities.is_empty() && policy.keys.is_empty());
        assert_eq!(policy.capabilities, CapabilityPolicy::Within(Vec::new()));
        assert_eq!((policy.sct, policy.revocation.mode), (SctPolicy::Require, RevocationMode::Require));
        assert_eq!(policy.required_level, TrustLevel::Verified);
        let WitnessPolicy::Quorum(quorum) = policy.witnesses else { panic!("witnesses are required") };
        assert!(!quorum.is_reached(|_| true));
    }

    #[test]
    fn a_rule_with_a_list_of_agents_publishes_those_and_nothing_else() {
        let pattern = |text: &str| Pattern::new(text).unwrap();
        let rule = |agents: Option<&[&str]>| IdentityRule {
            subject: pattern("*@example.com"),
            issuer: IssuerRule::AnyOfTheAuthority,
            level: TrustLevel::Verified,
            agents: agents.map(|agents| agents.iter().map(|text| pattern(text)).collect()),
        };
        let listed = rule(Some(&["shop.*", "billing.main"]));
        for (agent, expected) in
            [("shop.cart", true), ("shop", false), ("billing.main", true), ("billing.main2", false)]
        {
            assert_eq!(listed.may_publish(Some(agent)), expected, "{agent}");
            assert_eq!(listed.names_agent(agent), expected, "{agent}");
        }
        assert!(!listed.may_publish(None), "what is no agent is in no list");
        let unlisted = rule(None);
        assert!(unlisted.may_publish(Some("shop.cart")) && unlisted.may_publish(None));
        assert!(!unlisted.names_agent("shop.cart"));
    }

    #[test]
    fn levels_are_ordered() {
        assert!(TrustLevel::Untrusted < TrustLevel::Signed);
        assert!(TrustLevel::Signed < TrustLevel::Community && TrustLevel::Community < TrustLevel::Verified);
    }
}
