//! The conformance door: one JSON line in, one JSON line out, through the very functions that admission calls.
//!
//! Every answer is `{"id", "decision", "reason", "detail"}` in this order. `id` is echoed as it came, `reason` is a
//! code of [`crate::reason`] or null, and a line that does not parse gets the negative decision of its kind with the
//! reason `malformed`; it never affects other lines. Binary values are base64 of DER, times RFC 3339. Absent members
//! stand for null, and members that are not known are ignored.
//!
//! | kind | decisions | one line in |
//! |---|---|---|
//! | path | `accept`, `reject` | `{"id":1,"leaf":"MII…","intermediates":["MII…"],"anchors":["MII…"],"crls":[],"ocsp":[],"time":"2026-01-01T00:00:00Z","required_eku":"1.3.6.1.5.5.7.3.3","required_key_usage":["digitalSignature"],"initial_policies":null,"require_explicit_policy":false,"inhibit_policy_mapping":false,"inhibit_any_policy":false,"max_depth":null,"revocation":"none","name":{"type":"email","value":"a@example.com"}}` |
//! | crl | `good`, `revoked`, `unknown`, `error` | `{"id":2,"crls":["MII…"],"issuer":"MII…","certificate":"MII…","time":"2026-01-01T00:00:00Z","distribution_point":null,"max_age_seconds":null}` |
//! | ocsp | `good`, `revoked`, `unknown`, `error` | `{"id":3,"response":"MII…","issuer":"MII…","certificate":"MII…","time":"2026-01-01T00:00:00Z","max_age_seconds":86400}` |
//! | signature | `valid`, `invalid` | `{"id":4,"algorithm":"ecdsa-p256-sha256","key":"MFk…","message":"aGk=","signature":"MEU…","encoding":"der"}` |
//! | merkle | `valid`, `invalid` | `{"id":5,"kind":"inclusion","leaf_index":0,"tree_size":1,"leaf_hash":"…","root":"…","proof":[]}` |
//! | bundle | `admit`, `deny` | `{"id":6,"bundle":{…},"trusted_root":{…},"artifact_digest":"sha256:…","identity":"dev@example.com","issuer":"https://id.example","key":null,"policy":null,"time":null,"revocation":{"mode":"none","crls":[],"ocsp":[]}}` |

mod bundle;
mod merkle;
mod path;
mod revocation;
mod signature;

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tlog::signature::SignatureVerifier;

use crate::reason::{Denial, ReasonCode};
use crate::time::UnixTime;

pub use bundle::decide_bundle;
pub use merkle::decide_merkle;
pub use path::decide_path;
pub use revocation::{decide_crl, decide_ocsp};
pub use signature::decide_signature;

/// The largest line that is read, in octets.
pub const MAX_LINE_LENGTH: usize = 64 * 1024 * 1024;

/// One answer.
#[derive(Clone, Debug, Serialize)]
struct Answer {
    id: Value,
    decision: &'static str,
    reason: Option<&'static str>,
    detail: Cow<'static, str>,
}

/// A decision and, unless it is the positive one, why.
type Decision = (&'static str, Option<Denial>);

/// Reads a line as `Case`, decides it, and writes the answer.
fn answer<Case: DeserializeOwned>(
    line: &str,
    negative: &'static str,
    decide: impl FnOnce(Case) -> Result<Decision, Denial>,
) -> String {
    let (id, outcome) = if line.len() > MAX_LINE_LENGTH {
        (Value::Null, Err(Denial::new(ReasonCode::TooLarge, "the line is longer than 64 MiB")))
    } else {
        match serde_json::from_str::<Value>(line) {
            Ok(value) => {
                let id = value.get("id").cloned().unwrap_or_default();
                let case = serde_json::from_value::<Case>(value);
                (id, case.map_err(|error| malformed(error.to_string())).and_then(decide))
            }
            Err(error) => (Value::Null, Err(malformed(error.to_string()))),
        }
    };
    let (decision, denial) = outcome.unwrap_or_else(|denial| (negative, Some(denial)));
    let reason = denial.as_ref().map(|denial| denial.code.as_str());
    let detail = denial.map(|denial| denial.detail).unwrap_or_default();
    written(&Answer { id, decision, reason, detail }, negative)
}

/// An answer holds nothing that does not serialise; the fallback keeps the promise of one line per line.
fn written(answer: &Answer, negative: &'static str) -> String {
    serde_json::to_string(answer).unwrap_or_else(|_| {
        format!("{{\"id\":null,\"decision\":\"{negative}\",\"reason\":\"malformed\",\"detail\":\"\"}}")
    })
}

fn malformed(detail: impl Into<Cow<'static, str>>) -> Denial {
    Denial::new(ReasonCode::Malformed, detail)
}

fn binary(text: &str, what: &'static str) -> Result<Vec<u8>, Denial> {
    STANDARD.decode(text).map_err(|_| malformed(format!("{what} is not base64")))
}

fn time(text: &str) -> Result<UnixTime, Denial> {
    UnixTime::from_rfc3339(text).ok_or(malformed("time is not RFC 3339"))
}

/// Everything of a list that parses, and how much did not.
fn parse_all<T>(
    list: &[String],
    what: &'static str,
    parse: impl Fn(&[u8]) -> Result<T, Denial>,
) -> (Vec<T>, usize) {
    let parsed = list.iter().map(|text| binary(text, what).and_then(|der| parse(&der)));
    let good: Vec<T> = parsed.filter_map(Result::ok).collect();
    let bad = list.len().saturating_sub(good.len());
    (good, bad)
}

/// What a decision function looks like, for tables of them.
pub type Decide = fn(line: &str, verifier: &dyn SignatureVerifier) -> String;
