//! An execution receipt: what ran, by which policy, on which input, with what result.
//!
//! A receipt is one entry of the executor's receipt log: a JSON object without spaces whose members are in alphabetical
//! order, so that equal receipts are equal bytes. It is handed out as a proof file (C2SP tlog-proof): the receipt as the
//! `extra` line, its index, its inclusion proof, and a checkpoint signed by the executor's receipt key.

use serde::{Deserialize, Serialize};

/// The only value of [`Receipt::format`].
pub const FORMAT: &str = "mentat-receipt-v1";

/// One execution. Digests are SHA-256 in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Agent id of the signed manifest.
    pub agent: String,
    /// Version of the signed manifest.
    pub agent_version: String,
    /// Hash of the last audit record that was durable when the call ended ([`crate::attested`]). Absent from receipts of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_hash: Option<String>,
    /// Its sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_sequence: Option<u64>,
    /// End, Unix milliseconds.
    pub ended_ms: u64,
    /// How it ended.
    pub exit: ExitClass,
    /// What `process` returned; absent when it did not return.
    pub exit_code: Option<i32>,
    /// [`FORMAT`].
    pub format: String,
    /// Fuel used, in the deterministic profile.
    pub fuel: Option<u64>,
    /// Digest of the granted capabilities: their canonical texts, each followed by a line feed.
    pub grants: String,
    /// Digest of the input.
    pub input: String,
    /// Name of the instance, as in the audit log.
    pub instance: String,
    /// Index of the release in the signing log, where the evidence names one.
    pub log_index: Option<u64>,
    /// Largest total memory, bytes.
    pub memory_bytes: u64,
    /// Digest of the module.
    pub module: String,
    /// Digest of the output; of nothing when there was none.
    pub output: String,
    /// Digest of the trust policy in force.
    pub policy: String,
    /// Engine profile.
    pub profile: String,
    /// `success`, `guest_error`, or the stable reason code of the end.
    pub reason: String,
    /// What clocks and random numbers of the guest followed from, in the deterministic profile. Absent from every other receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
    /// Verified name of the signer.
    pub signer: String,
    /// Start, Unix milliseconds.
    pub started_ms: u64,
    /// Of a pipeline: the attempts of its steps in the order in which they were made, up to the one that failed it. Absent from
    /// every other receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<StepReceipt>>,
    /// Epoch ticks that passed while the guest ran.
    pub ticks: u64,
    /// Trust level by which it was admitted: the verdict.
    pub trust_level: String,
    /// Wall time, microseconds.
    pub wall_us: u64,
    /// wasmtime version.
    pub wasmtime: String,
}

/// One attempt of a step of a pipeline. It is an execution, and has a receipt of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepReceipt {
    /// Name of its instance, by which its receipt is found; null when it did not begin.
    pub instance: Option<String>,
    /// Name of the step.
    pub name: String,
    /// `success`, `guest_error`, or the stable reason code of its end.
    pub reason: String,
    /// Digest of its receipt's entry; null when it did not begin.
    pub receipt: Option<String>,
}

/// The receipt log of an executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptLog {
    /// First line of its checkpoints.
    pub origin: String,
    /// Its verifier keys, in the form of signed notes.
    pub vkeys: Vec<String>,
    /// Entries that its newest checkpoint covers.
    pub size: u64,
}

/// How an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitClass {
    /// `process` returned another number than 0.
    GuestError,
    /// Somebody stopped it, or its caller went away.
    Killed,
    /// A limit ended it or kept it from starting.
    Limit,
    /// `process` returned 0.
    Ok,
    /// Something that vouched for it was revoked while it ran.
    Revoked,
    /// The guest trapped.
    Trap,
    /// The host could not run it.
    Unrunnable,
}

impl ExitClass {
    /// The class of a reason code.
    #[must_use]
    pub fn of(reason: &str) -> Self {
        match reason {
            "success" => Self::Ok,
            "guest_error" => Self::GuestError,
            "trap" => Self::Trap,
            "revoked" => Self::Revoked,
            "stopped" | "shutdown" | "caller_gone" | "evidence_stale" | "worker_lost" => Self::Killed,
            "cpu_budget"
            | "deadline_exceeded"
            | "input_too_large"
            | "memory_limit"
            | "pipeline_output_limit"
            | "pool_exhausted" => Self::Limit,
            _ => Self::Unrunnable,
        }
    }
}

impl Receipt {
    /// The entry's bytes.
    ///
    /// # Errors
    ///
    /// Never for a receipt made of text and numbers.
    pub fn to_entry(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads an entry. The bytes must be those that [`Self::to_entry`] writes, so that one receipt has one form.
    ///
    /// # Errors
    ///
    /// For anything else.
    pub fn from_entry(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        use serde::de::Error as _;
        let receipt: Self = serde_json::from_slice(bytes)?;
        if receipt.format != FORMAT {
            return Err(serde_json::Error::custom("not a receipt of this format"));
        }
        if receipt.to_entry()? != bytes {
            return Err(serde_json::Error::custom("not the canonical form of a receipt"));
        }
        Ok(receipt)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    const FROZEN: &str = "{\"agent\":\"a.b\",\"agent_version\":\"1.0.0\",\"ended_ms\":2,\"exit\":\"ok\",\"exit_code\":0,\
        \"format\":\"mentat-receipt-v1\",\"fuel\":null,\"grants\":\"aa\",\"input\":\"bb\",\"instance\":\"i-1\",\"log_index\":7,\
        \"memory_bytes\":65536,\"module\":\"cc\",\"output\":\"dd\",\"policy\":\"ee\",\"profile\":\"standard-1\",\
        \"reason\":\"success\",\"signer\":\"s@example.com\",\"started_ms\":1,\"ticks\":0,\"trust_level\":\"verified\",\
        \"wall_us\":3,\"wasmtime\":\"48.0.8\"}";

    #[test]
    fn the_form_is_frozen_and_read_in_no_other_form() {
        let receipt = Receipt::from_entry(FROZEN.as_bytes()).unwrap();
        assert_eq!(receipt.to_entry().unwrap(), FROZEN.as_bytes());
        for other in [
            FROZEN.replace("\"ticks\":0", "\"ticks\": 0"),
            FROZEN.replace("mentat-receipt-v1", "mentat-receipt-v2"),
            FROZEN.replace("{\"agent\":\"a.b\",", "{\"more\":1,\"agent\":\"a.b\","),
            FROZEN.replace("\"fuel\":null,", ""),
            format!("{FROZEN} "),
        ] {
            assert!(Receipt::from_entry(other.as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn the_form_of_a_receipt_with_an_audit_head_is_frozen() {
        let text = FROZEN.replace("\"ended_ms\"", "\"audit_hash\":\"ff\",\"audit_sequence\":4,\"ended_ms\"");
        let receipt = Receipt::from_entry(text.as_bytes()).unwrap();
        assert_eq!((receipt.audit_hash.as_deref(), receipt.audit_sequence), (Some("ff"), Some(4)));
        assert_eq!(receipt.to_entry().unwrap(), text.as_bytes());
        let elsewhere = FROZEN.replace("\"exit\"", "\"audit_hash\":\"ff\",\"audit_sequence\":4,\"exit\"");
        assert!(Receipt::from_entry(elsewhere.as_bytes()).is_err());
    }

    #[test]
    fn the_form_of_a_receipt_of_the_deterministic_profile_is_frozen() {
        let text = FROZEN.replace("\"signer\"", "\"seed\":\"ab\",\"signer\"");
        let receipt = Receipt::from_entry(text.as_bytes()).unwrap();
        assert_eq!(receipt.seed.as_deref(), Some("ab"));
        assert_eq!(receipt.to_entry().unwrap(), text.as_bytes());
        for other in ["\"seed\":null,\"signer\"", "\"seed\":5,\"signer\""] {
            let text = FROZEN.replace("\"signer\"", other);
            assert!(Receipt::from_entry(text.as_bytes()).is_err(), "{other}");
        }
    }

    /// A pipeline's receipt is any other one with the member `steps`.
    const STEPS: &str = "\"steps\":[{\"instance\":\"i-2\",\"name\":\"a\",\"reason\":\"success\",\"receipt\":\"ff\"},\
        {\"instance\":null,\"name\":\"b\",\"reason\":\"step_not_loaded\",\"receipt\":null}],\"ticks\"";

    #[test]
    fn the_form_of_a_pipelines_receipt_is_frozen() {
        let text = FROZEN.replace("\"ticks\"", STEPS);
        let receipt = Receipt::from_entry(text.as_bytes()).unwrap();
        assert_eq!(receipt.to_entry().unwrap(), text.as_bytes());
        let steps = receipt.steps.unwrap();
        assert_eq!((steps[0].receipt.as_deref(), steps[1].instance.as_deref()), (Some("ff"), None));
        for other in [
            FROZEN.replace("\"ticks\"", "\"steps\":null,\"ticks\""),
            text.replace(",\"receipt\":null", ""),
            text.replace("\"name\":\"a\",", ""),
        ] {
            assert!(Receipt::from_entry(other.as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn members_are_in_alphabetical_order() {
        let value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(FROZEN).unwrap();
        let mut names: Vec<_> =
            value.keys().map(|name| FROZEN.find(&format!("\"{name}\":")).unwrap()).collect();
        let mut sorted: Vec<_> = value.keys().cloned().collect();
        sorted.sort();
        let by_name: Vec<_> =
            sorted.iter().map(|name| FROZEN.find(&format!("\"{name}\":")).unwrap()).collect();
        names.sort_unstable();
        assert_eq!(by_name, names);
    }
}
