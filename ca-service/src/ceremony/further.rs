//! Steps that make no authority: cross-certificates by the newest root, and lists signed anew.

use std::path::PathBuf;

use ca_pki::{SerialNumber, UnixTime, pem};
use sha2::{Digest, Sha256};

use super::description::Make;
use super::founding::record;
use super::plan::Plan;
use super::step::{self, PlannedStep};
use crate::CertificateAuthority;
use crate::authority::names;
use crate::error::CaError;
use crate::renewal::Certified;
use crate::transcript::Transcript;

/// What the steps made.
#[derive(Default)]
pub(super) struct Further {
    pub(super) cross_certificates: Vec<PathBuf>,
    pub(super) lists: usize,
}

/// Does the steps that make no authority, in their order.
pub(super) async fn hold(
    authority: &CertificateAuthority,
    plan: &Plan,
    transcript: &mut Transcript,
    now: UnixTime,
) -> Result<Further, CaError> {
    let mut further = Further::default();
    for step in &plan.steps {
        match step.make {
            Make::CrossCertificate => {
                let path = cross_certify(authority, plan, step, transcript, now).await?;
                further.cross_certificates.push(path);
            }
            Make::RevocationLists => {
                let lists = authority.publish_all().await?;
                record(transcript, "crl.published", serde_json::json!({ "lists": lists }), now)?;
                further.lists += lists;
            }
            _ => {}
        }
    }
    Ok(further)
}

async fn cross_certify(
    authority: &CertificateAuthority,
    plan: &Plan,
    step: &PlannedStep,
    transcript: &mut Transcript,
    now: UnixTime,
) -> Result<PathBuf, CaError> {
    let key = step::foreign_key(step)?;
    let (root, issuer) = authority.issuer(step.issuer.as_deref().unwrap_or(names::ROOT))?;
    let tbs = plan.draft(authority.settings(), step, Some(issuer), &key)?;
    // What was approved was built for this very key and issuer: every byte is the plan's.
    if step.template_sha256 != Some(hex::encode(tbs.sha256())) && !plan.founds() {
        return Err(CaError::Inconsistent("the cross-certificate is not the one that was approved"));
    }
    let profile = step::profile(authority.settings(), step)?;
    let not_before = UnixTime(plan.not_before);
    let certified = Certified {
        issuer: root,
        profile: profile.name(),
        serial: SerialNumber::from_hex(step.serial.as_deref().unwrap_or_default())?,
        public_key: &key,
        requester: "ceremony",
        not_before,
        not_after: not_before.plus(profile.lifetime() - 1).min(issuer.not_after),
        at: now,
    };
    let certificate = authority.sign_recorded_infrastructure(certified, &tbs).await?;
    let path = authority.settings().data_dir.join("chains").join(format!("cross-{}.pem", step.name));
    let text = pem::encode("CERTIFICATE", &certificate)?;
    let mut file = std::fs::OpenOptions::new();
    let written = file
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|error| {
        tracing::error!(%error, path = %path.display(), "the certificate is recorded, but its file is not");
        CaError::Inconsistent("the certificate is recorded, but its file in chains cannot be written")
    })?;
    let detail = serde_json::json!({
        "issuer": root.name,
        "name": step.name,
        "serial": step.serial,
        "sha256": hex::encode(Sha256::digest(&certificate)),
        "spki_sha256": hex::encode(key.spki_sha256()),
        "subject": step.subject,
    });
    record(transcript, "certificate.issued", detail, now)?;
    Ok(path)
}
