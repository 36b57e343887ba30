//! What becomes of an identity token, rule by rule.

use serde::{Deserialize, Serialize};

use crate::Identity;

/// Asks what would become of an identity token. Nothing is issued, and the token is not used up.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainToken {
    /// The token: a JWS in its compact form.
    pub token: String,
}

impl std::fmt::Debug for ExplainToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ExplainToken").field("token", &"(redacted)").finish()
    }
}

/// What would become of a token now, if it came with a request for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenExplanation {
    /// The end of it.
    pub outcome: TokenOutcome,
    /// Why it is refused: the first check that fails, in the order of the checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<RefusedToken>,
    /// What is known of its signature.
    pub signature: SignatureStanding,
    /// Which of the configuration's `[[oidc]]` sections decides, from 1; none when none takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<u32>,
    /// The checks in their order, as far as the token can be read.
    pub rules: Vec<ExplainedRule>,
    /// The name of the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Its profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// How many people must approve it.
    pub approvals: u8,
}

/// What becomes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenOutcome {
    /// A certificate.
    Accepted,
    /// A request that people must approve.
    NeedsApproval,
    /// Nothing.
    Refused,
}

/// What is known of a token's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureStanding {
    /// Nothing: anybody may have written what the token says.
    NotChecked,
    /// It is not a signature of the issuer's keys, or they cannot be had.
    Refused,
    /// The issuer made it.
    Verified,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedToken {
    /// Stable code, such as `token_claim_not_allowed`.
    pub code: String,
    /// For people.
    pub detail: String,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainedRule {
    /// What is looked at: `signature`, `issuer`, `audience`, `time`, `claim NAME`, `identity`.
    pub rule: String,
    /// What it must be.
    pub asks: String,
    /// What the token says; none when it says nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// Whether that is so.
    pub verdict: RuleVerdict,
}

/// Whether a token is as a rule asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleVerdict {
    /// It is.
    Met,
    /// Nobody looked.
    NotChecked,
    /// It is not.
    Unmet,
}
