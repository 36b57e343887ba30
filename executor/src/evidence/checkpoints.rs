//! Checkpoints of the logs that vouch for modules: fetched, proven to extend the last one, remembered on disk.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tlog_client::{EntryFormat, LogClient, Monitor, MonitorState};
use tokio::sync::Mutex;
use trust_store::attestation::Attestation;
use trust_store::evidence::{Evidence, LogEvidence};
use trust_store::provider::AwsLc;
use trust_store::verifier::Verifier;

use super::{EvidenceConfig, EvidenceError, Source};
use crate::clock;

static CRYPTO: AwsLc = AwsLc;

/// Most attested sizes of one log for which proofs are kept.
const MAX_SIZES: usize = 4096;

/// Every log that is followed.
pub(super) struct Logs(Vec<Log>);

struct Log {
    origin: String,
    log_id: Vec<u8>,
    url: String,
    client: LogClient,
    file: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    monitor: Monitor<'static>,
    /// Sizes of trees for which attestations carry checkpoints.
    sizes: BTreeSet<u64>,
    evidence: LogEvidence,
    /// Size of the tree that `evidence` leads to.
    proven_to: u64,
    problem: String,
    fetched_at: Option<i64>,
    fork: Option<String>,
}

impl Logs {
    pub(super) fn new(
        verifier: &Verifier,
        http: &reqwest::Client,
        config: &EvidenceConfig,
    ) -> Result<Self, EvidenceError> {
        let material = verifier.material();
        let mut logs = Vec::new();
        for (origin, url) in &config.logs {
            let Some((_, log_id, key)) = material.checkpoint_keys().find(|(known, ..)| known == origin)
            else {
                let known: Vec<&str> = material.log_origins().collect();
                return Err(EvidenceError::UnknownLog { origin: origin.clone(), known: known.join(", ") });
            };
            let log_error = |source| EvidenceError::Log { origin: origin.clone(), source };
            let client = LogClient::new(http.clone(), url).map_err(log_error)?;
            let file = config.state.join(format!("log-{origin}.json"));
            let state = MonitorState::load(&file, origin)
                .map_err(log_error)?
                .unwrap_or_else(|| MonitorState::new(origin));
            let monitor =
                Monitor::new(client.clone(), vec![key.clone()], &CRYPTO, EntryFormat::Bundles, state)
                    .map_err(log_error)?;
            logs.push(Log {
                origin: origin.clone(),
                log_id: log_id.to_vec(),
                url: url.clone(),
                client,
                file,
                inner: Mutex::new(Inner {
                    monitor,
                    sizes: BTreeSet::new(),
                    evidence: no_evidence(origin),
                    proven_to: 0,
                    problem: String::new(),
                    fetched_at: None,
                    fork: None,
                }),
            });
        }
        Ok(Self(logs))
    }

    pub(super) async fn refresh(&self) {
        for log in &self.0 {
            log.refresh().await;
        }
    }

    /// Makes sure there are proofs from the attestation's trees to the newest one.
    pub(super) async fn want(&self, attestation: &Attestation) -> bool {
        let mut changed = false;
        for entry in &attestation.bundle().log_entries {
            let Some(proof) = &entry.inclusion_proof else { continue };
            let Some(log) = self.0.iter().find(|log| log.log_id == entry.log_id) else { continue };
            changed |= log.want(proof.tree_size).await;
        }
        changed
    }

    /// Adds every log's evidence; returns the name of one that contradicted itself.
    pub(super) async fn collect(&self, evidence: &mut Evidence, sources: &mut Vec<Source>) -> Option<String> {
        let mut fork = None;
        for log in &self.0 {
            let inner = log.inner.lock().await;
            *evidence.log_mut(&log.origin) = inner.evidence.clone();
            if let Some(checkpoint) = inner.monitor.checkpoint() {
                evidence.remember(&log.origin, &log.log_id, checkpoint.head());
            }
            sources.push(Source {
                kind: "checkpoint",
                url: log.url.clone(),
                problem: inner.problem.clone(),
                fetched_at: inner.fetched_at,
            });
            fork = fork.or_else(|| inner.fork.clone());
        }
        fork
    }
}

impl Log {
    async fn refresh(&self) {
        let mut inner = self.inner.lock().await;
        match inner.monitor.update().await {
            Ok(_) => {
                inner.problem.clear();
                inner.fetched_at = Some(clock::unix_seconds());
                if let Err(error) = inner.monitor.state().store(&self.file) {
                    // Without memory a later rollback would pass unseen; it counts as a failed source.
                    inner.problem = error.to_string();
                }
            }
            Err(error) => {
                tracing::warn!(origin = %self.origin, %error, code = error.code(), "no checkpoint");
                if error.is_misbehaviour() {
                    inner.fork = Some(format!("{}: {error}", self.origin));
                }
                inner.problem = error.to_string();
            }
        }
        self.prove(&mut inner).await;
    }

    async fn want(&self, size: u64) -> bool {
        let mut inner = self.inner.lock().await;
        if inner.sizes.contains(&size) {
            return false;
        }
        // An attestation newer than what is known: look again before judging.
        let known = inner.monitor.checkpoint().map_or(0, |checkpoint| checkpoint.head().size);
        if inner.sizes.len() < MAX_SIZES {
            inner.sizes.insert(size);
        }
        if size > known {
            drop(inner);
            self.refresh().await;
        } else {
            inner.proven_to = 0;
            self.prove(&mut inner).await;
        }
        true
    }

    /// Rebuilds the evidence for the newest verified checkpoint.
    async fn prove(&self, inner: &mut Inner) {
        let Some(checkpoint) = inner.monitor.checkpoint() else { return };
        let head = *checkpoint.head();
        let note = checkpoint.note().to_string();
        if inner.proven_to == head.size && inner.evidence.checkpoints.first() == Some(&note) {
            return;
        }
        let mut evidence = no_evidence(&self.origin);
        evidence.add_checkpoint(&note);
        let tree = self.client.tree(head);
        for &size in inner.sizes.iter().filter(|size| **size > 0 && **size < head.size) {
            let proof = match tree.head_at(size).await {
                Ok(old) => tree.consistency_proof(&old).await,
                Err(error) => Err(error),
            };
            match proof {
                Ok(proof) => evidence.add_consistency(size, head.size, &proof),
                Err(error) => {
                    tracing::warn!(origin = %self.origin, size, %error, "no consistency proof");
                    inner.problem = format!("no consistency proof from size {size}: {error}");
                }
            }
        }
        inner.evidence = evidence;
        inner.proven_to = head.size;
    }
}

fn no_evidence(origin: &str) -> LogEvidence {
    LogEvidence {
        origin: origin.to_owned(),
        checkpoints: Vec::new(),
        consistency: Vec::new(),
        inclusion: Vec::new(),
    }
}
