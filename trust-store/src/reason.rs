//! The stable reason codes of a denial and the numbered verification steps they belong to.
//!
//! The codes are part of the product's contract: they are documented, logged, shown to users and asserted by tests.
//! A code never changes its meaning and is never reused.

use alloc::borrow::Cow;
use core::fmt;

macro_rules! reason_codes {
    ($( $(#[$doc:meta])* $variant:ident = $text:literal, step $step:literal; )*) => {
        /// Why something was denied. Variants stand in the order of the verification steps.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum ReasonCode { $( $(#[$doc])* $variant, )* }

        impl ReasonCode {
            /// Every code, in the order of the steps.
            pub const ALL: &'static [ReasonCode] = &[ $( ReasonCode::$variant, )* ];

            /// The stable text of the code, as it appears in answers, logs and documents.
            pub const fn as_str(self) -> &'static str {
                match self { $( ReasonCode::$variant => $text, )* }
            }

            /// The number of the verification step that gives this code (1 to 14).
            pub const fn step(self) -> u8 {
                match self { $( ReasonCode::$variant => $step, )* }
            }
        }
    };
}

reason_codes! {
    /// The input is larger than the limit for its kind.
    TooLarge = "too_large", step 1;
    /// The input does not have the shape its standard prescribes.
    Malformed = "malformed", step 1;
    /// The input is well formed but of a version or kind that is not supported.
    Unsupported = "unsupported", step 1;
    /// The artifact's digest is not the one the statement names.
    DigestMismatch = "digest_mismatch", step 2;
    /// The manifest's digest or a derived field differs from what was signed.
    ManifestMismatch = "manifest_mismatch", step 2;
    /// The signature over the statement does not verify.
    SignatureInvalid = "signature_invalid", step 3;
    /// The algorithm or key type is not accepted.
    AlgorithmNotAllowed = "algorithm_not_allowed", step 3;
    /// No trusted signing time is present.
    TimestampMissing = "timestamp_missing", step 4;
    /// A time-stamp token is present but does not verify.
    TimestampInvalid = "timestamp_invalid", step 4;
    /// No path leads to a trust anchor, or a certificate's signature does not verify with its issuer's key.
    UnknownIssuer = "unknown_issuer", step 5;
    /// A certificate of the chain had expired at the signing time.
    ExpiredAtSigning = "expired_at_signing", step 5;
    /// A certificate of the chain was not valid yet at the signing time.
    NotYetValid = "not_yet_valid", step 5;
    /// Basic constraints, key usage or extended key usage forbid this use.
    UsageNotAllowed = "usage_not_allowed", step 5;
    /// A name is outside the permitted or inside the excluded subtrees.
    NameNotAllowed = "name_not_allowed", step 5;
    /// The path is longer than a path length constraint or the depth limit allows.
    PathLength = "path_length", step 5;
    /// No certificate policy is valid for the path although one is required.
    PolicyNotAllowed = "policy_not_allowed", step 5;
    /// A critical extension is not recognised.
    CriticalExtension = "critical_extension", step 5;
    /// The work budget was used up before an answer was found.
    BudgetExceeded = "budget_exceeded", step 5;
    /// The signer's identity is not one of those accepted.
    IdentityDenied = "identity_denied", step 6;
    /// The signer's identity is accepted, and may not publish this agent.
    AgentNotForSigner = "agent_not_for_signer", step 6;
    /// No signed certificate timestamp is present.
    SctMissing = "sct_missing", step 7;
    /// A signed certificate timestamp does not verify.
    SctInvalid = "sct_invalid", step 7;
    /// The log entry does not describe this signature.
    EntryMismatch = "entry_mismatch", step 8;
    /// No inclusion proof or promise is present.
    InclusionMissing = "inclusion_missing", step 8;
    /// The inclusion proof or promise does not verify.
    InclusionInvalid = "inclusion_invalid", step 8;
    /// The checkpoint does not parse or verify.
    CheckpointInvalid = "checkpoint_invalid", step 9;
    /// The log is not one of those trusted.
    UnknownLog = "unknown_log", step 9;
    /// Too few accepted witnesses cosigned the checkpoint.
    WitnessQuorum = "witness_quorum", step 10;
    /// The checkpoint is older than the policy allows.
    CheckpointStale = "checkpoint_stale", step 11;
    /// The checkpoint contradicts one that was seen before.
    LogInconsistent = "log_inconsistent", step 11;
    /// A certificate of the chain is revoked.
    Revoked = "revoked", step 12;
    /// No usable evidence says whether a certificate of the chain is revoked.
    RevocationUnknown = "revocation_unknown", step 12;
    /// There is evidence about the certificate, but it is too old.
    RevocationStale = "revocation_stale", step 12;
    /// The trust level reached is below the one required.
    TrustLevel = "trust_level", step 13;
    /// A provenance statement is required and missing or insufficient.
    ProvenanceMissing = "provenance_missing", step 13;
    /// Too few accepted signers endorsed the artifact.
    EndorsementMissing = "endorsement_missing", step 13;
    /// A rule of the trust policy denies.
    PolicyDenied = "policy_denied", step 13;
    /// A requested capability is not granted.
    CapabilityDenied = "capability_denied", step 14;
}

impl ReasonCode {
    /// Reads a code from its stable text; `None` for an unknown text.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A denial: the stable code for machines and a sentence for people.
///
/// The detail never holds key material and is bounded by whoever writes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    /// The stable reason.
    pub code: ReasonCode,
    /// What exactly failed, and where it helps, what would satisfy the check.
    pub detail: Cow<'static, str>,
}

impl Denial {
    /// A denial with a reason and a detail.
    pub fn new(code: ReasonCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into() }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl core::error::Error for Denial {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn codes_are_unique_and_ordered_by_step() {
        for pair in ReasonCode::ALL.windows(2) {
            assert!(pair[0].step() <= pair[1].step());
        }
        for (i, a) in ReasonCode::ALL.iter().enumerate() {
            assert_eq!(ReasonCode::from_text(a.as_str()), Some(*a));
            assert!(ReasonCode::ALL[i + 1..].iter().all(|b| b.as_str() != a.as_str()));
        }
        assert_eq!(ReasonCode::ALL.len(), 38);
    }

    #[test]
    fn display_gives_code_then_detail() {
        let denial = Denial::new(ReasonCode::PathLength, "too long");
        assert_eq!(denial.to_string(), "path_length: too long");
    }
}
