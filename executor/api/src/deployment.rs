//! Deployments: which release of an agent serves which share of its calls.

use serde::{Deserialize, Serialize};

/// How a release takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// All calls at once; the old release stays warm and is returned to when the new one fails.
    BlueGreen,
    /// A growing share of the calls, each step judged by a minimum of calls.
    Canary,
    /// A growing share of the callers, by time.
    Rolling,
}

/// Asks for a deployment. The release must be loaded: it was verified, admitted and compiled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// Agent id.
    pub agent: String,
    /// SHA-256 of the release's module, lower-case hexadecimal.
    pub digest: String,
    /// How.
    pub strategy: Strategy,
    /// Shares in percent, rising, the last one 100; the strategy's own when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<u8>,
    /// Shortest time of one step, milliseconds; the strategy's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_ms: Option<u64>,
    /// Calls of the new release before a step is judged; the strategy's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_calls: Option<u64>,
    /// Share of failed calls, in percent above that of the old release, from which the new one is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_error_percent: Option<u8>,
}

/// Where a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A release serves a share and is watched.
    Progressing,
    /// One release serves everything.
    Stable,
}

/// The deployment of one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Agent id.
    pub agent: String,
    /// Where it stands.
    pub phase: Phase,
    /// Module digest of the release that serves what the candidate does not.
    pub stable: String,
    /// The release that takes over, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Candidate>,
    /// Module digests of releases that served everything before, the latest last: what can be returned to.
    pub history: Vec<String>,
    /// What happened last, in words.
    pub last: String,
}

/// A release that takes over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Module digest.
    pub digest: String,
    /// How it takes over.
    pub strategy: Strategy,
    /// Its share now, percent.
    pub percent: u8,
    /// Its calls since this step began.
    pub calls: u64,
    /// Those of them that failed.
    pub failed: u64,
}

/// One change of a route, as an entry of the executor's receipt log.
///
/// Members are in alphabetical order and there are no spaces, so that equal records are equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentRecord {
    /// Agent id.
    pub agent: String,
    /// What was done: `deploy`, `advance`, `promote`, `rollback`.
    pub change: String,
    /// [`RECORD_FORMAT`].
    pub format: String,
    /// Module digest of the release that serves the rest.
    pub from: String,
    /// Index of the release in the signing log.
    pub log_index: Option<u64>,
    /// Module digest of the release that the change is about.
    pub module: String,
    /// Its share after the change, percent.
    pub percent: u8,
    /// Digest of the trust policy by which it was admitted.
    pub policy: String,
    /// Verified name of the signer.
    pub signer: String,
    /// Unix milliseconds.
    pub time_ms: u64,
    /// Version of the signed manifest.
    pub version: String,
    /// Why: a stable reason code, or `requested`.
    pub why: String,
}

/// The only value of [`DeploymentRecord::format`].
pub const RECORD_FORMAT: &str = "mentat-deployment-v1";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_record_s_form_is_frozen() {
        let text = "{\"agent\":\"a.b\",\"change\":\"advance\",\"format\":\"mentat-deployment-v1\",\"from\":\"aa\",\"log_index\":3,\
            \"module\":\"bb\",\"percent\":25,\"policy\":\"cc\",\"signer\":\"s@example.com\",\"time_ms\":5,\"version\":\"1.1.0\",\
            \"why\":\"requested\"}";
        let record: DeploymentRecord = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        assert_eq!(record.format, RECORD_FORMAT);
    }

    #[test]
    fn a_request_with_unknown_members_is_refused() {
        let text = r#"{"agent":"a","digest":"b","strategy":"canary","skip_checks":true}"#;
        assert!(serde_json::from_str::<Deploy>(text).is_err());
    }
}
