//! Checkpoints of the logs that vouch for modules: fetched, proven to extend the last one, remembered on disk.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use service::exit::one_line;
use tlog_client::{EntryFormat, Error, LogClient, Monitor, MonitorState, RetryPolicy};
use tokio::sync::{Mutex, Notify};
use trust_store::attestation::Attestation;
use trust_store::evidence::{Evidence, LogEvidence, RememberedHead};
use trust_store::provider::AwsLc;
use trust_store::verifier::Verifier;

use super::forks::Fork;
use super::{EvidenceConfig, EvidenceError, Source};
use crate::clock;

static CRYPTO: AwsLc = AwsLc;

/// Most attested sizes of one log for which proofs are kept.
const MAX_SIZES: usize = 4096;

/// Most attested sizes of uploads that are not (yet) agents for which proofs are kept; the oldest make place.
const MAX_CANDIDATES: usize = 256;

/// Proofs fetched at once.
const PROOFS_AT_ONCE: usize = 8;

/// How many requests' time one refresh of a log may take. Waiting for a log delays nothing but that log.
const PATIENCE: u32 = 4;

/// Every log that is followed.
pub(super) struct Logs {
    followed: Vec<Log>,
    /// What another log of the trusted root proved against itself while it was followed.
    forked: Option<String>,
}

struct Log {
    origin: String,
    log_id: Vec<u8>,
    url: String,
    client: LogClient,
    file: PathBuf,
    patience: Duration,
    /// Rung when it is found to have forked.
    news: Arc<Notify>,
    /// Held while the log is waited for.
    inner: Mutex<Inner>,
    /// What was known last; read without waiting for anything.
    known: ArcSwap<Known>,
}

/// What is known of a log.
#[derive(Clone)]
struct Known {
    evidence: LogEvidence,
    head: Option<RememberedHead>,
    /// Size of the newest checkpoint's tree.
    size: u64,
    problem: String,
    fetched_at: Option<i64>,
    fork: Option<String>,
}

struct Inner {
    monitor: Monitor<'static>,
    /// What it proved against itself, on disk.
    fork: Fork,
    /// Sizes of trees for which agents' attestations carry checkpoints.
    sizes: BTreeSet<u64>,
    /// The same of the last uploads.
    candidates: VecDeque<u64>,
    /// Those of them from which `known.evidence` leads to the newest checkpoint.
    proven: BTreeSet<u64>,
    known: Known,
}

impl Logs {
    pub(super) fn new(
        verifier: &Verifier,
        http: &reqwest::Client,
        config: &EvidenceConfig,
        news: &Arc<Notify>,
    ) -> Result<Self, EvidenceError> {
        let material = verifier.material();
        let open_fork = |origin: &str| {
            Fork::open(&config.state, origin)
                .map_err(|source| EvidenceError::Fork { origin: origin.to_owned(), source })
        };
        let mut logs = Vec::new();
        for (origin, url) in &config.logs {
            let Some((_, log_id, key)) = material.checkpoint_keys().find(|(known, ..)| known == origin)
            else {
                let known: Vec<&str> = material.log_origins().collect();
                return Err(EvidenceError::UnknownLog { origin: origin.clone(), known: known.join(", ") });
            };
            let log_error = |source| EvidenceError::Log { origin: origin.clone(), source };
            // The next refresh is the retry.
            let retry = RetryPolicy { attempts: 1, timeout: config.timeout, ..RetryPolicy::default() };
            let client = LogClient::new(http.clone(), url).map_err(log_error)?.with_retry(retry);
            let fork = open_fork(origin)?;
            let file = config.state.join(format!("log-{origin}.json"));
            let state = MonitorState::load(&file, origin)
                .map_err(log_error)?
                .unwrap_or_else(|| MonitorState::new(origin));
            let monitor =
                Monitor::new(client.clone(), vec![key.clone()], &CRYPTO, EntryFormat::Bundles, state)
                    .map_err(log_error)?;
            let mut known = Known {
                evidence: no_evidence(origin),
                head: None,
                size: 0,
                problem: String::new(),
                fetched_at: None,
                fork: fork.detail().map(str::to_owned),
            };
            known.begin(&monitor, log_id);
            logs.push(Log {
                origin: origin.clone(),
                log_id: log_id.to_vec(),
                url: url.clone(),
                client,
                file,
                patience: config.timeout.saturating_mul(PATIENCE),
                news: Arc::clone(news),
                known: ArcSwap::from_pointee(known.clone()),
                inner: Mutex::new(Inner {
                    monitor,
                    fork,
                    sizes: BTreeSet::new(),
                    candidates: VecDeque::new(),
                    proven: BTreeSet::new(),
                    known,
                }),
            });
        }
        // Whoever takes a log out of the configuration settles nothing: the trusted root still believes it.
        let mut forked = None;
        for origin in material.log_origins().filter(|origin| !config.logs.contains_key(*origin)) {
            let fork = open_fork(origin)?;
            forked = forked.or_else(|| fork.detail().map(str::to_owned));
        }
        Ok(Self { followed: logs, forked })
    }

    /// What is wrong with a log that contradicted itself in an earlier run, if one did.
    pub(super) fn fork(&self) -> Option<String> {
        let known = || self.followed.iter().find_map(|log| log.known.load().fork.clone());
        self.forked.clone().or_else(known)
    }

    /// Asks every log, and keeps the proofs that these attestations need and those of the last uploads.
    pub(super) async fn refresh(&self, attestations: &[Arc<Attestation>]) {
        join_all(self.followed.iter().map(|log| log.refresh(attestations))).await;
    }

    /// Makes sure there are proofs from the attestation's trees to the newest one.
    pub(super) async fn want(&self, attestation: &Attestation) -> bool {
        let mut changed = false;
        for log in &self.followed {
            for size in log.sizes_of(attestation) {
                changed |= log.want(size).await;
            }
        }
        changed
    }

    /// Adds every log's evidence to what is there; returns the name of one that contradicted itself.
    pub(super) fn collect(&self, evidence: &mut Evidence, sources: &mut Vec<Source>) -> Option<String> {
        let mut fork = self.forked.clone();
        for log in &self.followed {
            let known = log.known.load();
            // What was carried in stays: it is all there is while the log is silent, and it may contradict the log.
            evidence.log_mut(&log.origin).extend(&known.evidence);
            if let Some(head) = known.head.as_ref().and_then(RememberedHead::head) {
                evidence.remember(&log.origin, &log.log_id, &head);
            }
            sources.push(Source {
                kind: "checkpoint",
                url: log.url.clone(),
                problem: known.problem.clone(),
                fetched_at: known.fetched_at,
            });
            fork = fork.or_else(|| known.fork.clone());
        }
        fork
    }
}

impl Known {
    /// Starts over with the monitor's newest checkpoint, without proofs; whether there was a newer one.
    fn begin(&mut self, monitor: &Monitor<'_>, log_id: &[u8]) -> bool {
        let Some(checkpoint) = monitor.checkpoint() else { return false };
        let note = checkpoint.note().to_string();
        if self.evidence.checkpoints.first() == Some(&note) {
            return false;
        }
        let origin = std::mem::take(&mut self.evidence.origin);
        self.size = checkpoint.head().size;
        self.head = Some(RememberedHead::new(&origin, log_id, checkpoint.head()));
        self.evidence = no_evidence(&origin);
        self.evidence.add_checkpoint(&note);
        true
    }
}

impl Log {
    /// Sizes of this log's trees that the attestation leads to.
    fn sizes_of(&self, attestation: &Attestation) -> impl Iterator<Item = u64> {
        let entries = attestation.bundles().flat_map(|bundle| &bundle.log_entries);
        let entries = entries.filter(|entry| entry.log_id == self.log_id);
        entries.filter_map(|entry| entry.inclusion_proof.as_ref().map(|proof| proof.tree_size))
    }

    async fn refresh(&self, attestations: &[Arc<Attestation>]) {
        let mut inner = self.inner.lock().await;
        inner.sizes =
            attestations.iter().flat_map(|attestation| self.sizes_of(attestation)).take(MAX_SIZES).collect();
        self.update(&mut inner).await;
    }

    async fn update(&self, inner: &mut Inner) {
        match tokio::time::timeout(self.patience, inner.monitor.update()).await {
            Ok(Ok(_)) => {
                inner.known.problem.clear();
                inner.known.fetched_at = Some(clock::unix_seconds());
                if let Err(error) = inner.monitor.state().store(&self.file) {
                    // Without memory a later rollback would pass unseen; it counts as a failed source.
                    inner.known.problem = one_line(&error);
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(origin = %self.origin, %error, code = error.code(), "no checkpoint");
                // Only two signed heads that contradict each other prove a fork. A log that went back may be a stale
                // copy, which anybody on the way can serve: nothing new was learned, and freshness does the rest.
                inner.known.problem = one_line(&error);
                if let Error::Fork { evidence, .. } = &error {
                    inner.fork.prove(&format!("{}: {error}", self.origin), evidence);
                    let before = inner.known.fork.take();
                    inner.known.fork = inner.fork.detail().map(str::to_owned);
                    if inner.known.fork != before {
                        // Neither its own proofs, which it may withhold, nor another log is waited for.
                        self.known.store(Arc::new(inner.known.clone()));
                        self.news.notify_one();
                    }
                }
            }
            Err(_) => inner.known.problem = "the log did not answer in time".to_owned(),
        }
        inner.fork.keep_at_last();
        if let Some(problem) = inner.fork.problem() {
            inner.known.problem = problem;
        }
        self.prove(inner).await;
    }

    async fn want(&self, size: u64) -> bool {
        let mut inner = self.inner.lock().await;
        // An attestation newer than what is known: look again before judging.
        let known = inner.known.size;
        if size == 0 || size == known || inner.proven.contains(&size) {
            return false;
        }
        if !inner.candidates.contains(&size) {
            inner.candidates.push_back(size);
            if inner.candidates.len() > MAX_CANDIDATES {
                inner.candidates.pop_front();
            }
        }
        if size > known {
            self.update(&mut inner).await;
        } else {
            self.prove(&mut inner).await;
        }
        true
    }

    /// Adds the proofs that are missing for the newest verified checkpoint and makes the outcome known. What cannot
    /// be had now is tried again at the next occasion.
    async fn prove(&self, inner: &mut Inner) {
        let Inner { monitor, sizes, candidates, proven, known, .. } = inner;
        if known.begin(monitor, &self.log_id) {
            proven.clear();
        }
        let size = known.size;
        let wanted: BTreeSet<u64> = sizes.iter().chain(candidates.iter()).copied().collect();
        let missing: Vec<u64> =
            wanted.into_iter().filter(|old| (1..size).contains(old) && !proven.contains(old)).collect();
        if let Some(checkpoint) = monitor.checkpoint() {
            let tree = self.client.tree(*checkpoint.head());
            // Proofs that came before the time was over stay.
            let all = async {
                for group in missing.chunks(PROOFS_AT_ONCE) {
                    let proofs = group.iter().map(async |&old| {
                        let old = tree.head_at(old).await?;
                        tree.consistency_proof(&old).await
                    });
                    for (&old, proof) in group.iter().zip(join_all(proofs).await) {
                        match proof {
                            Ok(proof) => {
                                known.evidence.add_consistency(old, size, &proof);
                                proven.insert(old);
                            }
                            Err(error) => {
                                tracing::warn!(origin = %self.origin, old, %error, "no consistency proof");
                                known.problem = format!("no consistency proof from size {old}: {error}");
                            }
                        }
                    }
                }
            };
            if tokio::time::timeout(self.patience, all).await.is_err() {
                known.problem = "the log did not give its proofs in time".to_owned();
            }
        }
        self.known.store(Arc::new(known.clone()));
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
