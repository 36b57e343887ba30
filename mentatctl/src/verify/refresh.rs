//! Fresh evidence for one attestation: the CRLs that its certificates name, and the log's newest checkpoint with a proof
//! that it continues the one in the bundle. Nothing fetched here is believed; the verifier judges it.

use std::collections::BTreeSet;

use ca_api::client::CaClient;
use reqwest::Client;
use tlog::{Checkpoint, Note};
use tlog_client::LogClient;
use trust_store::attestation::Attestation;
use trust_store::evidence::Evidence;
use trust_store::path::VerifiedChain;
use trust_store::policy::TrustPolicy;
use trust_store::trusted_root::TrustedRoot;
use trust_store::verifier::{ArtifactDigest, Deciding, VerifiedArtifact, Verifier};
use trust_store::{Certificate, Denial, ReasonCode, UnixTime};

use crate::exit::{Exit, OrFail as _, Outcome};
use crate::log::log_failure;
use crate::pki::ca_failure;
use crate::sign::crl_url;
use crate::verify::denied;

/// What is to be decided, by the executor's own code.
pub struct Question<'a> {
    /// With the trusted root in force.
    pub verifier: &'a Verifier,
    /// What came along.
    pub attestation: &'a Attestation,
    /// Of the module.
    pub digest: ArtifactDigest,
    /// The rules.
    pub policy: &'a TrustPolicy,
    /// When.
    pub now: UnixTime,
}

impl Question<'_> {
    /// Decides by this evidence. The signatures of its lists are verified once before, as an executor does: a long list
    /// does not cost its length again for every bundle.
    ///
    /// # Errors
    /// The denial.
    pub fn decide_by(&self, evidence: &mut Evidence) -> Result<VerifiedArtifact, Denial> {
        self.verifier.prepare(evidence);
        self.verifier.verify(self.attestation, self.digest, self.policy, evidence, self.now)
    }

    /// Decides after fresh evidence was asked for, and gives also what did not answer. What no fresh evidence changes is
    /// denied before anything leaves this machine: whoever wrote the attestation must not choose whom it calls. Asked are
    /// the addresses in chains that lead to a trusted anchor, and the log. An authority that does not answer gives no
    /// evidence, and the decision says what that means.
    ///
    /// # Errors
    /// Exit code 3 with the reason code of the denial; 69 when the log cannot be asked, unless a revocation was found.
    pub async fn decide_afresh(
        &self,
        evidence: &mut Evidence,
        root: &TrustedRoot,
        http: Client,
        log_url: &str,
    ) -> Outcome<(VerifiedArtifact, Vec<String>)> {
        if let Err(denial) = self.decide_by(evidence)
            && (denial.code.step() <= 9 || denial.code == ReasonCode::Revoked)
        {
            return Err(denied(denial));
        }
        let deciding = Deciding::By(self.policy);
        let chains =
            self.verifier.chains(self.attestation, self.digest, deciding, self.now).map_err(denied)?;
        let certificates = chains.iter().flat_map(|chain| chain.certificates().iter().cloned());
        // Timestamp authorities can be revoked too; their certificates stand in the trusted root.
        let certificates = certificates.chain(timestamp_authorities(root));
        let mut unanswered = Vec::new();
        for (url, list) in fetch_lists(certificates, http.clone()).await {
            let added = list.and_then(|list| evidence.add_crl(&list).or_fail(Exit::Failure, &url));
            unanswered.extend(added.err().map(|failure| failure.line()));
        }
        unanswered.extend(super::ocsp::ask(evidence, &chains, &http).await);
        let log = checkpoint(evidence, self.attestation, http, log_url).await;
        match (self.decide_by(evidence), log) {
            (Err(denial), Err(_)) if denial.code == ReasonCode::Revoked => Err(denied(denial)),
            (_, Err(failure)) => Err(failure),
            (Err(denial), Ok(())) => {
                let failure = denied(denial);
                Err(match unanswered.first() {
                    Some(silent) => failure.hint(format!("no fresh evidence: {silent}")),
                    None => failure,
                })
            }
            (Ok(artifact), Ok(())) => Ok((artifact, unanswered)),
        }
    }
}

/// Adds the lists that an attestation's chains and the timestamp authorities name, and the log's newest checkpoint: for
/// whoever hands evidence on, of which nothing may be missing.
///
/// # Errors
/// Exit code 69 when a source cannot be reached.
pub async fn refresh(
    evidence: &mut Evidence,
    attestation: &Attestation,
    chains: &[VerifiedChain],
    root: &TrustedRoot,
    http: Client,
    log_url: &str,
) -> Outcome<()> {
    let certificates = chains.iter().flat_map(|chain| chain.certificates().iter().cloned());
    lists(evidence, certificates.chain(timestamp_authorities(root)), http.clone()).await?;
    checkpoint(evidence, attestation, http, log_url).await
}

/// Adds the log's newest checkpoint with the proofs that it continues the attested and the remembered ones.
async fn checkpoint(
    evidence: &mut Evidence,
    attestation: &Attestation,
    http: Client,
    log_url: &str,
) -> Outcome<()> {
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
fn timestamp_authorities(root: &TrustedRoot) -> impl Iterator<Item = Certificate> {
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
    for (url, list) in fetch_lists(certificates, http).await {
        evidence.add_crl(&list?).or_fail(Exit::Failure, &url)?;
    }
    Ok(())
}

/// Asks for the lists that these certificates name, each once.
async fn fetch_lists(
    certificates: impl Iterator<Item = Certificate>,
    http: Client,
) -> Vec<(String, Outcome<Vec<u8>>)> {
    let client = CaClient::new(http, "");
    let urls: BTreeSet<String> = certificates.filter_map(|certificate| crl_url(&certificate)).collect();
    let mut lists = Vec::with_capacity(urls.len());
    for url in urls {
        let list = client.fetch(&url).await.map_err(ca_failure);
        lists.push((url, list));
    }
    lists
}

fn parse(text: &str) -> Option<Checkpoint> {
    let note = Note::parse(text.as_bytes()).ok()?;
    Checkpoint::parse(note.text()).ok()
}
