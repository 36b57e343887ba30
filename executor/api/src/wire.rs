//! The JSON forms.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Bytes that travel as padded standard base64 text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base64Bytes(pub Vec<u8>);

impl Serialize for Base64Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(|_| serde::de::Error::custom("not base64"))
    }
}

/// A module with everything that vouches for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upload {
    /// `manifest.yaml` as signed, with or without its attestation block.
    pub manifest: String,
    /// The attestation's JSON text; absent when the manifest carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<String>,
    /// The module's bytes.
    pub module: Base64Bytes,
}

/// An admitted agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSummary {
    /// Dotted agent id of the signed manifest.
    pub agent_id: String,
    /// Its semantic version.
    pub version: String,
    /// SHA-256 of the module, lower-case hexadecimal.
    pub digest: String,
    /// The signer's verified name (subject alternative name).
    pub signer: String,
    /// The issuer that vouched for the name.
    pub issuer: String,
    /// `signed`, `community` or `verified`.
    pub trust_level: String,
    /// Capabilities the manifest asks for, canonical text.
    pub requested: Vec<String>,
    /// Capabilities granted.
    pub granted: Vec<String>,
    /// Index of the signing record in the log, where the evidence names one.
    pub log_index: Option<u64>,
    /// SHA-256 of the trust policy in force, lower-case hexadecimal.
    pub policy: String,
    /// Why calls are refused now; absent when they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<Denied>,
    /// `core` or `component`.
    pub kind: String,
    /// Which rules of the policy permit which capability; empty where it has no `capability_rules`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permitted: Vec<PermittedCapability>,
}

/// A capability that rules of the policy permit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermittedCapability {
    /// The capability, canonical text.
    pub capability: String,
    /// The rules that permit it: their `@id`, or their place in the text, sorted.
    pub rules: Vec<String>,
}

/// The verdict on an upload, with nothing loaded or run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whether the module would be admitted now.
    pub admitted: bool,
    /// What it would be admitted as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentSummary>,
    /// Why it would not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denial: Option<Denied>,
}

/// An instance that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSummary {
    /// Its name, as in the audit log.
    pub instance_id: String,
    /// Agent id of the signed manifest.
    pub agent_id: String,
    /// SHA-256 of the module, lower-case hexadecimal.
    pub digest: String,
    /// The signer's verified name.
    pub signer: String,
}

/// One denial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// Number of the verification step; 0 for refusals outside the numbered steps.
    pub step: u8,
    /// Stable reason code.
    pub reason: String,
    /// One sentence for the caller.
    pub message: String,
}

/// One call.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Execute {
    /// Input bytes handed to the guest.
    #[serde(default)]
    pub input: Base64Bytes,
    /// Wall time for this call, milliseconds. It lowers the executor's limit and never raises it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Name of the caller's session, at most 256 bytes: while a release takes over, calls of one session stay with one
    /// release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// 1 to 128 printable characters of ASCII: the same key with the same agent, input and session gets the answer of the first
    /// call, which is not made again. A call with a key runs to its end also where its caller goes away. Not for streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Keeps the result back, for seconds at most, until it can have its receipt.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub receipt: bool,
    /// For streams: the call goes on where its reader goes away, for half a minute, and `GET /api/v1/streams/{id}?from=NUMBER` reads on.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub resumable: bool,
}

/// The result of one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Executed {
    /// Digest of the module that ran.
    pub digest: String,
    /// Random name of the instance, as in the audit log.
    pub instance_id: String,
    /// What the guest wrote.
    pub output: Base64Bytes,
    /// The output as text, when it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What `process` returned: 0 is success.
    pub exit_code: i32,
    /// What the call used.
    pub usage: Usage,
    /// Log lines of the guest, control characters escaped.
    pub log: Vec<LogLine>,
    /// Values the guest recorded.
    pub metrics: Vec<Metric>,
    /// Whether it ran for an earlier request under the same idempotency key.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub repeated: bool,
    /// Where the request asked for it: the receipt as text of a proof file (C2SP tlog-proof). Absent where no checkpoint covered it in
    /// time: it is found by `instance_id` later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
}

/// A call that began and has no result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailedCall {
    /// Number of the verification step; 0 for what is no denial.
    pub step: u8,
    /// Stable reason code.
    pub reason: String,
    /// One sentence for the caller.
    pub message: String,
    /// What the guest said before.
    #[serde(flatten)]
    pub said: Said,
}

/// What a guest said before its call ended without a result.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// Random name of the instance, as in the audit log; empty when there was none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance_id: String,
    /// Log lines of the guest, control characters escaped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
    /// Values the guest recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
}

/// What one call used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Wall time, microseconds.
    pub wall_us: u64,
    /// Largest total memory, bytes.
    pub memory_bytes: u64,
    /// Epoch ticks (10 ms each) that passed while the guest ran.
    pub epoch_ticks: u64,
    /// Fuel used; counted in the deterministic profile only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// Log lines dropped over rate or size.
    pub dropped_log_lines: u64,
    /// Times the guest asked for more memory or table elements than it may have.
    pub refused_growths: u64,
}

/// One log line of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// The text.
    pub text: String,
}

/// One value a guest recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Name, `[a-z_][a-z0-9_]*`.
    pub name: String,
    /// Finite value.
    pub value: f64,
}

/// Which running instances to stop: those that match every field given. At least one field is needed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Agent id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Module digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Verified signer name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

/// How many instances were told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The number.
    pub stopped: u64,
}

/// The executor's own state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Release of the executor.
    pub version: String,
    /// Release of wasmtime.
    pub wasmtime: String,
    /// What it was built with beside admitting and running, by name.
    #[serde(default)]
    pub features: Vec<String>,
    /// Engine profile.
    pub profile: String,
    /// Mechanisms that confine this process.
    pub confinement: Vec<String>,
    /// Mechanisms this host could not provide.
    pub unconfined: Vec<String>,
    /// What each level of trust runs in.
    #[serde(default)]
    pub tiers: Vec<TierStatus>,
    /// Admitted agents.
    pub agents: u64,
    /// Instances running now.
    pub live_instances: u64,
    /// Slots of the instance pool.
    pub pool_slots: u64,
    /// Rises whenever evidence changed.
    pub evidence_epoch: u64,
    /// Seconds since every source was last refreshed; absent when one never was.
    pub evidence_age_s: Option<u64>,
    /// SHA-256 of the trust policy in force.
    pub policy: String,
    /// Why the policy file is not the policy in force, if it cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_problem: Option<String>,
    /// Since when it takes no calls, seconds since 1970; absent while it is in service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining_since: Option<i64>,
    /// Sequence number of the last audit record.
    pub audit_sequence: u64,
    /// Every source of evidence.
    pub sources: Vec<EvidenceSource>,
}

/// What modules of one level of trust run in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierStatus {
    /// `signed`, `community` or `verified`.
    pub level: String,
    /// Which process.
    pub isolation: String,
    /// Mechanisms in force.
    pub enforced: Vec<String>,
    /// Why modules of this level do not run here, and what to do; absent when they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// One source of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceSource {
    /// `crl` or `checkpoint`.
    pub name: String,
    /// Where it comes from.
    pub url: String,
    /// Whether the last attempt succeeded.
    pub ok: bool,
    /// What the last attempt said.
    pub detail: String,
    /// Seconds since the last success.
    pub age_s: Option<u64>,
}

/// A problem document (RFC 9457) as this service writes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable reason code.
    #[serde(default)]
    pub code: String,
    /// Short title.
    #[serde(default)]
    pub title: String,
    /// HTTP status.
    #[serde(default)]
    pub status: u16,
    /// One sentence for the caller.
    #[serde(default)]
    pub detail: String,
    /// Number of the verification step, for denials.
    #[serde(default)]
    pub step: u8,
    /// What the guest said, for calls that began.
    #[serde(flatten)]
    pub said: Said,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_members_of_requests_are_refused() {
        assert!(serde_json::from_str::<Execute>(r#"{"input":"aGk="}"#).is_ok());
        assert!(serde_json::from_str::<Execute>(r#"{"input":"aGk=","sandbox":"off"}"#).is_err());
        assert!(serde_json::from_str::<Upload>(r#"{"manifest":"","module":"","skip":true}"#).is_err());
    }

    #[test]
    fn what_a_guest_said_is_part_of_the_problem() {
        let text =
            r#"{"code":"trap","detail":"d","instance_id":"7","log":[{"level":"error","text":"t"}],"step":0}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        let line = LogLine { level: "error".into(), text: "t".into() };
        let said = Said { instance_id: "7".into(), log: vec![line], metrics: Vec::new() };
        assert_eq!((problem.code.as_str(), problem.said), ("trap", said));
        let silent: Problem = serde_json::from_str(r#"{"code":"trap"}"#).unwrap();
        assert_eq!(silent.said, Said::default());
    }

    #[test]
    fn base64_is_strict() {
        assert!(serde_json::from_str::<Base64Bytes>(r#""aGk""#).is_err());
        assert_eq!(serde_json::from_str::<Base64Bytes>(r#""aGk=""#).unwrap(), Base64Bytes(b"hi".to_vec()));
    }

    #[test]
    fn status_form_is_frozen() {
        let usage = Usage {
            wall_us: 1,
            memory_bytes: 2,
            epoch_ticks: 3,
            fuel: None,
            dropped_log_lines: 4,
            refused_growths: 5,
        };
        assert_eq!(
            serde_json::to_string(&usage).unwrap(),
            r#"{"wall_us":1,"memory_bytes":2,"epoch_ticks":3,"dropped_log_lines":4,"refused_growths":5}"#
        );
    }
}
