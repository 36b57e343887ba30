//! `bundle`: may this artifact be admitted by this bundle?
//!
//! A case has the members `id`, `bundle` (its JSON), `trusted_root` (its JSON), `artifact_digest` (`sha256:` and
//! hexadecimal digits, or the digits alone), and
//!
//! * `identity` and `issuer`: the alternative name and the issuer that are accepted, as patterns,
//! * or `key`: base64 or PEM of the SubjectPublicKeyInfo that is accepted,
//! * or `policy`: a policy document ([`crate::policy_document`]), to which `identity` or `key` are added;
//! * `time`: RFC 3339, null for the caller's time;
//! * `revocation`: `{"mode": "none" | "if-present" | "require", "crls": [base64], "ocsp": [base64]}`.
//!
//! Without a policy the demands are those of [`TrustPolicy::danger_stock_client`]. Unlike the other kinds this one
//! reads the line itself, so that a duplicate key inside the bundle is refused as it is everywhere else.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::Deserialize;
use tlog::signature::SignatureVerifier;

use super::{Answer, MAX_LINE_LENGTH, written};
use crate::algorithm::SubjectPublicKey;
use crate::attestation::{Attestation, Staples};
use crate::bundle::Bundle;
use crate::error::Error;
use crate::evidence::Evidence;
use crate::json::{self, Bytes, Value};
use crate::key_details::KeyDetails;
use crate::pattern::Pattern;
use crate::pem;
use crate::policy::{IdentityRule, IssuerRule, RevocationMode, TrustLevel, TrustPolicy, TrustedKey};
use crate::policy_document::PolicyDocument;
use crate::reason::{Denial, ReasonCode};
use crate::time::UnixTime;
use crate::trusted_root::TrustedRoot;
use crate::verified::ArtifactDigest;
use crate::verifier::Verifier;

#[derive(Deserialize)]
struct Case {
    id: Value,
    bundle: Value,
    trusted_root: Value,
    artifact_digest: String,
    #[serde(default)]
    identity: Option<String>,
    #[serde(default)]
    issuer: Option<String>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    policy: Option<Value>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    revocation: Option<Revocation>,
}

#[derive(Deserialize)]
struct Revocation {
    mode: Mode,
    #[serde(default)]
    crls: Vec<Bytes>,
    #[serde(default)]
    ocsp: Vec<Bytes>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    None,
    IfPresent,
    Require,
}

/// Decides one line; see [`crate::conformance`]. `now` stands for a `time` of null.
pub fn decide_bundle(line: &str, now: UnixTime, crypto: Arc<dyn SignatureVerifier>) -> String {
    let (id, outcome) = match json::parse::<Case>("conformance case", line.as_bytes(), MAX_LINE_LENGTH) {
        Ok(case) => (serde_json::to_value(&case.id).unwrap_or_default(), run(case, now, crypto)),
        Err(error) => (readable_id(line), Err(error.into())),
    };
    let (decision, reason, detail) = match outcome {
        Ok(()) => ("admit", None, Cow::Borrowed("")),
        Err(denial) => ("deny", Some(denial.code.as_str()), denial.detail),
    };
    written(&Answer { id, decision, reason, detail }, decision)
}

/// The `id` of a line that is no case, if the line is JSON at all; here a duplicate key inside does no harm.
fn readable_id(line: &str) -> serde_json::Value {
    if line.len() > MAX_LINE_LENGTH {
        return serde_json::Value::Null;
    }
    let parsed = serde_json::from_str::<serde_json::Value>(line).ok();
    parsed.and_then(|value| value.get("id").cloned()).unwrap_or_default()
}

fn run(case: Case, now: UnixTime, crypto: Arc<dyn SignatureVerifier>) -> Result<(), Denial> {
    let now = match &case.time {
        Some(text) => UnixTime::from_rfc3339(text)
            .ok_or(Denial::new(ReasonCode::Malformed, "`time` is not an RFC 3339 time"))?,
        None => now,
    };
    let policy = policy(&case)?;
    let root = TrustedRoot::parse(&json::write("trusted root", &case.trusted_root)?)?;
    let bundle = Bundle::parse(&json::write("bundle", &case.bundle)?)?;
    let digest = digest(&case.artifact_digest)?;
    let mut attestation = Attestation::for_bundle(bundle)?;
    if let Some(revocation) = &case.revocation {
        let staples = Staples { ocsp: revocation.ocsp.clone(), crl: revocation.crls.clone() };
        attestation = attestation.with_material(Vec::new(), &staples)?;
    }
    let verifier = Verifier::new(crypto, &root)?;
    verifier.verify(&attestation, digest, &policy, &Evidence::none(), now).map(drop)
}

fn policy(case: &Case) -> Result<TrustPolicy, Denial> {
    let mut policy = match &case.policy {
        Some(document) => PolicyDocument::from_value(document)?.validate()?,
        None => TrustPolicy::danger_stock_client(),
    };
    if let Some(revocation) = &case.revocation {
        policy.revocation.mode = match revocation.mode {
            Mode::None => RevocationMode::DangerSkip,
            Mode::IfPresent => RevocationMode::DangerIfPresent,
            Mode::Require => RevocationMode::Require,
        };
    }
    if let Some(identity) = &case.identity {
        let issuer = match &case.issuer {
            Some(issuer) => IssuerRule::Matching(Pattern::new(issuer)?),
            None => IssuerRule::AnyOfTheAuthority,
        };
        let rule = IdentityRule { subject: Pattern::new(identity)?, issuer, level: TrustLevel::Verified };
        policy.identities = Vec::from([rule]);
    }
    if let Some(key) = &case.key {
        let spki = public_key(key)?;
        let parsed = SubjectPublicKey::from_der(&spki).map_err(|error| error.denial("key"))?;
        let details = KeyDetails::of_key(parsed.algorithm, parsed.key)?;
        policy.keys =
            Vec::from([TrustedKey { name: "key".into(), spki, details, level: TrustLevel::Verified }]);
    }
    Ok(policy)
}

fn public_key(text: &str) -> Result<Vec<u8>, Denial> {
    if !text.contains("-----BEGIN") {
        return Ok(json::base64_decode("key", text)?);
    }
    let blocks = pem::decode(text, "PUBLIC KEY", 1)?;
    blocks.into_iter().next().ok_or(Denial::new(ReasonCode::Malformed, "the key's PEM holds no PUBLIC KEY"))
}

fn digest(text: &str) -> Result<ArtifactDigest, Error> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let bytes = hex::decode(digits).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes
        .map(ArtifactDigest::sha256)
        .ok_or_else(|| Error::malformed("artifact digest", "it is `sha256:` and 64 hexadecimal digits"))
}
