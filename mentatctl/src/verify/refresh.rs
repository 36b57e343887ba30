//! Fresh evidence for one attestation: the CRLs that its certificates name, and the log's newest checkpoint with a proof
//! that it continues the one in the bundle. Nothing fetched here is believed; the verifier judges it.

use ca_api::client::CaClient;
use reqwest::Client;
use tlog::{Checkpoint, Note};
use tlog_client::LogClient;
use trust_store::attestation::Attestation;
use trust_store::evidence::Evidence;

use crate::exit::{Exit, OrFail as _, Outcome};
use crate::log::log_failure;
use crate::pki::ca_failure;
use crate::sign::crl_url;

/// Adds fresh evidence.
///
/// # Errors
/// Exit code 69 when a source cannot be reached.
pub async fn refresh(
    evidence: &mut Evidence,
    attestation: &Attestation,
    http: Client,
    log_url: &str,
) -> Outcome<()> {
    let client = CaClient::new(http.clone(), "");
    for certificate in attestation.certificate().into_iter().chain(attestation.issuers()) {
        if let Some(url) = crl_url(certificate) {
            let crl = client.fetch(&url).await.map_err(ca_failure)?;
            evidence.add_crl(&crl).or_fail(Exit::Failure, &url)?;
        }
    }
    let log = LogClient::new(http, log_url).or_fail(Exit::Usage, "the log's address")?;
    for entry in &attestation.bundle().log_entries {
        let Some(proof) = &entry.inclusion_proof else { continue };
        let parse = |text: &str| -> Option<Checkpoint> {
            let note = Note::parse(text.as_bytes()).ok()?;
            Checkpoint::parse(note.text()).ok()
        };
        // What cannot be read is denied by the verifier, with its reason.
        let Some(attested) = parse(&proof.checkpoint) else { continue };
        let note = log.checkpoint_note().await.map_err(log_failure)?;
        let Some(text) = std::str::from_utf8(&note).ok() else { continue };
        let Some(fresh) = parse(text) else { continue };
        if fresh.origin() != attested.origin() {
            continue;
        }
        let new = *fresh.head();
        let remembered = evidence.remembered_head(attested.origin(), &entry.log_id);
        let known = evidence.log_mut(attested.origin());
        known.add_checkpoint(text);
        for old in remembered.iter().chain([attested.head()]).filter(|old| old.size < new.size) {
            // A proof that cannot be had proves nothing; the verifier says what is missing.
            if let Ok(consistency) = log.tree(new).consistency_proof(old).await {
                known.add_consistency(old.size, new.size, &consistency);
            }
        }
    }
    Ok(())
}
