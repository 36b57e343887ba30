//! `bundle`: may this artifact be admitted by this bundle?
//!
//! A case has the members `id`, `bundle` (its JSON), `trusted_root` (its JSON), `artifact_digest` (`sha256:` and
//! hexadecimal digits, or the digits alone), and
//!
//! * `policy`: a policy document ([`crate::policy_document`]); null for the demands of
//!   [`TrustPolicy::danger_stock_client`], which accepts whoever `identity` or `key` names;
//! * `identity`, `issuer`: patterns that the signer's alternative name and issuer must match;
//! * `key`: base64 or PEM of the SubjectPublicKeyInfo that the signer must have;
//! * `time`: RFC 3339, null for the caller's time;
//! * `revocation`: `{"mode": "none" | "if-present" | "require", "crls": [base64], "ocsp": [base64]}`.
//!
//! What the policy does not say, the case does: the signer (`identity` or `key`), where it has neither `identities` nor
//! `keys`, at the level `signed` if it writes `endorsements`, so that they count, else `verified`; and the revocation mode,
//! where it has none. What it says no member loosens: `identity`, `issuer` and `key` are further conditions then, and of its
//! mode and the case's the stricter one holds.
//!
//! Unlike the other kinds this one reads the line itself, so that a duplicate key inside the bundle is refused as it is
//! everywhere else.

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
use crate::certificate::Certificate;
use crate::error::Error;
use crate::evidence::Evidence;
use crate::identity::Identity;
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
    let root = TrustedRoot::parse(&json::write("trusted root", &case.trusted_root)?)?;
    let bundle = Bundle::parse(&json::write("bundle", &case.bundle)?)?;
    let digest = digest(&case.artifact_digest)?;
    let mut attestation = Attestation::for_bundle(bundle)?;
    let policy = policy(&case, attestation.certificate())?;
    if let Some(revocation) = &case.revocation {
        let staples = Staples { ocsp: revocation.ocsp.clone(), crl: revocation.crls.clone() };
        attestation = attestation.with_material(Vec::new(), &staples)?;
    }
    let verifier = Verifier::new(crypto, &root)?;
    verifier.verify(&attestation, digest, &policy, &Evidence::none(), now).map(drop)
}

fn policy(case: &Case, signer: Option<&Certificate>) -> Result<TrustPolicy, Denial> {
    let demanded = Demanded::of(case)?;
    let says = |members: &[&str]| {
        let value = members.iter().try_fold(case.policy.as_ref()?, |value, member| value.member(member))?;
        (*value != Value::Null).then_some(())
    };
    let mut policy = match &case.policy {
        Some(document) => PolicyDocument::from_value(document)?.validate()?,
        None => TrustPolicy::danger_stock_client(),
    };
    if says(&["identities"]).or(says(&["keys"])).is_none() {
        let level = match says(&["endorsements"]) {
            Some(()) => TrustLevel::Signed,
            None => TrustLevel::Verified,
        };
        // An issuer alone names nobody.
        let named = demanded.identity.iter().filter(|_| case.identity.is_some());
        policy.identities = named.cloned().map(|rule| IdentityRule { level, ..rule }).collect();
        policy.keys = demanded.key.iter().cloned().map(|key| TrustedKey { level, ..key }).collect();
    }
    demanded.narrow(&mut policy, signer);
    if let Some(revocation) = &case.revocation {
        let asked = revocation.mode.into();
        let unsaid = case.policy.is_some() && says(&["revocation", "mode"]).is_none();
        policy.revocation.mode = if unsaid { asked } else { stricter(policy.revocation.mode, asked) };
    }
    Ok(policy)
}

impl From<Mode> for RevocationMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::None => Self::DangerSkip,
            Mode::IfPresent => Self::DangerIfPresent,
            Mode::Require => Self::Require,
        }
    }
}

fn stricter(one: RevocationMode, other: RevocationMode) -> RevocationMode {
    use RevocationMode as M;
    match (one, other) {
        (M::Require, _) | (_, M::Require) => M::Require,
        (M::DangerIfPresent, _) | (_, M::DangerIfPresent) => M::DangerIfPresent,
        (M::DangerSkip, M::DangerSkip) => M::DangerSkip,
    }
}

/// What a case says of the signer besides its policy.
struct Demanded {
    /// `identity` and `issuer`; what is not given matches every name.
    identity: Option<IdentityRule>,
    key: Option<TrustedKey>,
}

impl Demanded {
    fn of(case: &Case) -> Result<Self, Denial> {
        let identity = (case.identity.is_some() || case.issuer.is_some()).then(|| {
            let issuer = match &case.issuer {
                Some(issuer) => IssuerRule::Matching(Pattern::new(issuer)?),
                None => IssuerRule::AnyOfTheAuthority,
            };
            let subject = Pattern::new(case.identity.as_deref().unwrap_or("**"))?;
            Ok::<_, Error>(IdentityRule { subject, issuer, level: TrustLevel::Verified, agents: None })
        });
        let key = case.key.as_deref().map(|text| {
            let spki = public_key(text)?;
            let parsed = SubjectPublicKey::from_der(&spki).map_err(|error| error.denial("key"))?;
            let details = KeyDetails::of_key(parsed.algorithm, parsed.key)?;
            Ok::<_, Denial>(TrustedKey { name: "key".into(), spki, details, level: TrustLevel::Verified })
        });
        Ok(Self { identity: identity.transpose()?, key: key.transpose()? })
    }

    /// Takes away from `policy` whoever does not satisfy the case's own conditions; step 3 or 6 then denies the others. A
    /// bare key (`None`) bears no name.
    fn narrow(self, policy: &mut TrustPolicy, signer: Option<&Certificate>) {
        if let Some(key) = self.key {
            policy.keys.retain(|accepted| accepted.spki == key.spki);
            if signer.is_some_and(|signer| signer.spki_der() != key.spki) {
                policy.identities.clear();
            }
        }
        if let Some(rule) = self.identity {
            policy.keys.clear();
            // A certificate that names nobody is denied whatever the rules are.
            let identity = signer.and_then(|signer| Identity::of_certificate(signer).ok());
            if identity.is_some_and(|identity| !rule.accepts(&identity)) {
                policy.identities = Vec::from([rule]);
            }
        }
    }
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
