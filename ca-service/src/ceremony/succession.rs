//! Steps that make authorities beside those in use: a CA that issues gets a successor, with what belongs to it.
//!
//! The same that `renew` makes where nobody has to approve. What is made here issues from the next start on.

use ca_pki::certificate::Issuer;
use ca_pki::{SerialNumber, SubjectPublicKey, UnixTime};
use hsm::Keyring;
use sha2::{Digest, Sha256};

use super::description::Make;
use super::founding::{purposes, record, role};
use super::plan::Plan;
use super::step::{self, PlannedStep};
use crate::CertificateAuthority;
use crate::authority::{LoadedAuthority, role_name};
use crate::error::CaError;
use crate::renewal::Certified;
use crate::storage::StoredAuthority;
use crate::transcript::Transcript;

/// Does the steps that make an authority, in their order; returns the names of those that are new.
pub(super) async fn hold(
    authority: &CertificateAuthority,
    keys: &Keyring,
    plan: &Plan,
    transcript: &mut Transcript,
    now: UnixTime,
) -> Result<Vec<String>, CaError> {
    let mut made = Vec::new();
    for step in plan.steps.iter().filter(|step| step.make.authority().is_some()) {
        // Read anew each time: the step before may have made it.
        let issuer = authority.added(step.issuer.as_deref().unwrap_or_default(), keys).await?;
        issuer.in_force(now)?;
        make(authority, &issuer, keys, plan, step, transcript, now).await?;
        made.push(step.name.clone());
    }
    Ok(made)
}

async fn make(
    authority: &CertificateAuthority,
    signing: &LoadedAuthority,
    keys: &Keyring,
    plan: &Plan,
    step: &PlannedStep,
    transcript: &mut Transcript,
    now: UnixTime,
) -> Result<(), CaError> {
    let kind = step::kind(step.make).ok_or(CaError::Inconsistent("a bare key is not made beside another"))?;
    let algorithm = step::algorithm(step)?;
    let key = authority.new_key(&step.name, kind, algorithm, keys)?;
    let detail = serde_json::json!({
        "algorithm": algorithm.as_str(),
        "name": step.name,
        "place": key.uri.scheme().as_str(),
        "protection": key.signer.protection().as_str(),
        "purposes": purposes(step.make).iter().copied().collect::<hsm::PurposeSet>().to_string(),
        "spki_sha256": hex::encode(key.signer.public_key().spki_sha256()),
    });
    record(transcript, "key.generated", detail, now)?;
    let certificate = certify(authority, signing, plan, step, &key.public, now).await?;
    let stored = StoredAuthority {
        name: step.name.clone(),
        role: role_name(role(step.make)).to_owned(),
        certificate: Some(certificate.clone()),
        issuer: step.issuer.clone(),
        key_uri: key.uri.to_string(),
        shards: step.shards,
    };
    if step.make == Make::TimestampAuthority {
        authority.store().renew_authority(stored, "ceremony", now).await?;
    } else {
        authority.store().add_authority(stored, None, "ceremony", now).await?;
    }
    let detail = serde_json::json!({
        "issuer": step.issuer,
        "name": step.name,
        "serial": step.serial,
        "sha256": hex::encode(Sha256::digest(&certificate)),
        "subject": step.subject,
    });
    record(transcript, "certificate.issued", detail, now)
}

async fn certify(
    authority: &CertificateAuthority,
    signing: &LoadedAuthority,
    plan: &Plan,
    step: &PlannedStep,
    key: &SubjectPublicKey,
    now: UnixTime,
) -> Result<Vec<u8>, CaError> {
    let issuer: &Issuer =
        signing.issuer.as_ref().ok_or(CaError::Inconsistent("a plan names a non-issuer"))?;
    let tbs = plan.draft(authority.settings(), step, Some(issuer), key)?;
    let profile = step::profile(authority.settings(), step)?;
    let not_before = UnixTime(plan.not_before);
    let certified = Certified {
        issuer: signing,
        profile: profile.name(),
        serial: SerialNumber::from_hex(step.serial.as_deref().unwrap_or_default())?,
        public_key: key,
        requester: "ceremony",
        not_before,
        not_after: not_before.plus(profile.lifetime() - 1).min(issuer.not_after),
        at: now,
    };
    authority.sign_recorded_infrastructure(certified, &tbs).await
}
