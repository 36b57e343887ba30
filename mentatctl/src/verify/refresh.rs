//! Fresh evidence for one attestation: the CRLs that its certificates name, and the log's newest checkpoint with a proof
//! that it continues the one in the bundle. Nothing fetched here is believed; the verifier judges it.

use std::collections::BTreeSet;

use ca_api::client::CaClient;
use reqwest::Client;
use tlog::{Checkpoint, Note};
use tlog_client::LogClient;
use trust_store::Certificate;
use trust_store::attestation::Attestation;
use trust_store::evidence::Evidence;
use trust_store::trusted_root::TrustedRoot;

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
    root: &TrustedRoot,
    http: Client,
    log_url: &str,
) -> Outcome<()> {
    // Timestamp authorities can be revoked too; their certificates stand in the trusted root.
    lists(evidence, attestation.certificates().chain(timestamp_authorities(root)), http.clone()).await?;
    let log = LogClient::new(http, log_url).or_fail(Exit::Usage, "the log's address")?;
    let note = log.checkpoint_note().await.map_err(log_failure)?;
    // What cannot be read is denied by the verifier, with its reason.
    let Some((text, fresh)) = std::str::from_utf8(&note).ok().and_then(|text| Some((text, parse(text)?)))
    else {
        return Ok(());
    };
    let new = *fresh.head();
    evidence.log_mut(fresh.origin()).add_checkpoint(text);
    let mut proven = BTreeSet::new();
    for entry in attestation.bundles().flat_map(|bundle| &bundle.log_entries) {
        let attested = entry.inclusion_proof.as_ref().and_then(|proof| parse(&proof.checkpoint));
        let Some(attested) = attested.filter(|attested| attested.origin() == fresh.origin()) else {
            continue;
        };
        let remembered = evidence.remembered_head(attested.origin(), &entry.log_id);
        for old in remembered.iter().chain([attested.head()]).filter(|old| old.size < new.size) {
            // A proof that cannot be had proves nothing; the verifier says what is missing.
            if proven.insert(old.size)
                && let Ok(consistency) = log.tree(new).consistency_proof(old).await
            {
                evidence.log_mut(fresh.origin()).add_consistency(old.size, new.size, &consistency);
            }
        }
    }
    Ok(())
}

/// The certificates of the trusted timestamp authorities.
pub fn timestamp_authorities(root: &TrustedRoot) -> impl Iterator<Item = Certificate> {
    let chains = root.timestamp_authorities.iter().flat_map(|authority| authority.cert_chain.iter());
    chains.filter_map(|der| Certificate::from_der(der).ok())
}

/// Adds the revocation lists that these certificates name.
///
/// # Errors
/// Exit code 69 when one cannot be fetched.
pub async fn lists(
    evidence: &mut Evidence,
    certificates: impl Iterator<Item = Certificate>,
    http: Client,
) -> Outcome<()> {
    let client = CaClient::new(http, "");
    let urls: BTreeSet<String> = certificates.filter_map(|certificate| crl_url(&certificate)).collect();
    for url in urls {
        let crl = client.fetch(&url).await.map_err(ca_failure)?;
        evidence.add_crl(&crl).or_fail(Exit::Failure, &url)?;
    }
    Ok(())
}

fn parse(text: &str) -> Option<Checkpoint> {
    let note = Note::parse(text.as_bytes()).ok()?;
    Checkpoint::parse(note.text()).ok()
}
