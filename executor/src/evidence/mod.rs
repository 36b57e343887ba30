//! Evidence that does not travel with a module: revocation lists, OCSP answers and checkpoints, kept fresh in the background.
//!
//! | type | what it is |
//! |---|---|
//! | [`Collector`] | everything that touches the network: fetches, remembers, publishes snapshots |
//! | [`Snapshot`] | one immutable state of the evidence, with its epoch; what verifications read |
//! | [`EvidenceConfig`] | where evidence may come from |
//!
//! Nothing here decides: the verifier checks every piece again. What cannot be fetched keeps its old state, grows
//! stale by policy, and then denies.

mod announced;
mod checkpoints;
mod crls;
mod feed;
mod forks;
mod imported;
mod responders;
mod root;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use executor_engine::ModuleDigest;
use serde::Deserialize;
use tokio::sync::Notify;
use trust_store::attestation::Attestation;
use trust_store::crl::Crl;
use trust_store::evidence::Evidence;
use trust_store::ocsp::OcspResponse;
use trust_store::verifier::Verifier;
use trust_store_files::RootLifetime;

use announced::Announced;
pub use announced::EventLog;
use checkpoints::Logs;
use crls::Crls;
pub(crate) use crls::distribution_urls;
pub(crate) use feed::{EAGER_LOOKS, Feed, IMPATIENT_LOOKS, LOOK, PATIENT_LOOK};
pub use forks::ForkFileError;
pub use imported::ImportConfig;
use imported::Imported;
pub(crate) use responders::{Asked, Due};
use responders::{Learnt, Responders};
use root::RootEnd;

use crate::clock;

/// Where evidence comes from, validated.
#[derive(Debug, Clone, Default)]
pub struct EvidenceConfig {
    /// CRLs that are always fetched.
    pub crl_urls: Vec<String>,
    /// Beginnings of URLs from which CRLs named in certificates may be fetched, and below which the OCSP responders that they name
    /// may be asked. An upload chooses no other address.
    pub status_bases: Vec<String>,
    /// Whether OCSP responders are asked.
    pub ocsp: OcspMode,
    /// The responder for certificates that name none below `status_bases`.
    pub ocsp_responder: Option<String>,
    /// Base URLs of logs, by origin.
    pub logs: BTreeMap<String, String>,
    /// Evidence that is carried in as a signed file.
    pub import: Option<ImportConfig>,
    /// Until when the trusted root may be used, where it follows a repository.
    pub root: Option<RootLifetime>,
    /// Base URL of the event log whose growth means that lists are worth asking for.
    pub events: Option<String>,
    /// How that log is authenticated, and who is believed in it; `None`: nothing is believed on its account.
    pub event_log: Option<EventLog>,
    /// Where the last verified checkpoint of each log is remembered.
    pub state: PathBuf,
    /// Time one request may take.
    pub timeout: Duration,
}

/// Whether OCSP responders are asked in the background.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OcspMode {
    /// In every interval, about the certificates of all agents.
    #[default]
    Ask,
    /// Never: lists and what attestations bring along are all there is.
    Never,
}

/// One state of the evidence.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What verifications read.
    pub evidence: Evidence,
    /// Rises whenever the evidence changed, or the policy that it is judged by.
    pub epoch: u64,
    /// When every source was last fetched without failure, seconds since 1970.
    pub complete_at: Option<i64>,
    /// Every source.
    pub sources: Vec<Source>,
    /// A log that contradicted itself, if one did: nothing is admitted any more.
    pub fork: Option<String>,
    /// The last second at which the trusted root may be used, seconds since 1970; `None` for one without an end.
    pub root_expires: Option<i64>,
    /// What responders have said.
    answers: Learnt,
}

impl Snapshot {
    /// Whether it may take from anybody what the one before gave. An answer that says nothing against a certificate does not: whoever
    /// has that certificate is judged by it when it is called next, and before calls in flight are ended for the lack of it; what waits
    /// since the start is judged again at once.
    fn concerns_everybody(&self, before: &Self) -> bool {
        self.fork != before.fork
            || self.root_expires != before.root_expires
            || self.answers.grave != before.answers.grave
            || !same_lists(&self.evidence, &before.evidence)
    }
}

/// The state of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// `crl`, `ocsp`, `checkpoint`, `import`, `trusted_root` or `events`.
    pub kind: &'static str,
    /// Where it comes from.
    pub url: String,
    /// What the last attempt said; empty when it succeeded.
    pub problem: String,
    /// Last success, seconds since 1970.
    pub fetched_at: Option<i64>,
}

/// Why the collector cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The HTTP client cannot be made.
    #[error("the HTTP client for evidence cannot be made")]
    Client(#[source] reqwest::Error),
    /// The event log's address is none.
    #[error("evidence.events = {url} is no URL")]
    Events {
        /// As configured.
        url: String,
    },
    /// What an earlier run kept about a log that contradicted itself cannot be read: then nobody knows that it is in order.
    #[error(
        "log {origin}: {source}; keep the file as evidence, and move it away when the auditor has settled the matter"
    )]
    Fork {
        /// Origin of the log.
        origin: String,
        /// What is wrong.
        #[source]
        source: ForkFileError,
    },
    /// The rules of the event log cannot be used.
    #[error("the rules of evidence.event_keys cannot be used")]
    Rules(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A log that was configured is not one that the trusted root names.
    #[error(
        "the log {origin} is configured for evidence, but the trusted root does not name it (it names: {known})"
    )]
    UnknownLog {
        /// Origin as configured.
        origin: String,
        /// Origins of the trusted root.
        known: String,
    },
    /// A log's state or address cannot be used.
    #[error("log {origin}: {source}")]
    Log {
        /// Origin of the log.
        origin: String,
        /// What is wrong.
        #[source]
        source: tlog_client::Error,
    },
}

/// Fetches evidence and publishes it.
pub struct Collector {
    verifier: Verifier,
    crls: Crls,
    responders: Responders,
    logs: Logs,
    imported: Imported,
    root: RootEnd,
    feed: Option<Feed>,
    announced: Option<Announced>,
    snapshot: ArcSwap<Snapshot>,
    epoch: AtomicU64,
    publishing: tokio::sync::Mutex<()>,
    /// Something was learnt that no round is about to tell.
    news: Arc<Notify>,
}

impl Collector {
    /// A collector that fetches nothing yet.
    ///
    /// # Errors
    ///
    /// See [`EvidenceError`].
    pub fn new(
        verifier: Verifier,
        http: reqwest::Client,
        config: &EvidenceConfig,
    ) -> Result<Self, EvidenceError> {
        let news = Arc::new(Notify::new());
        let logs = Logs::new(&verifier, &http, config, &news)?;
        let feed = config.events.as_deref().map(|url| Feed::new(http.clone(), url)).transpose()?;
        let announced = match (&config.events, &config.event_log) {
            (Some(url), Some(log)) => Some(Announced::new(http.clone(), url, log, config)?),
            _ => None,
        };
        let responders = Responders::new(verifier.clone(), http.clone(), config);
        let crls = Crls::new(verifier.clone(), http, config);
        // What was proven in an earlier run counts before anything is fetched.
        let first = Snapshot { fork: logs.fork(), ..Snapshot::default() };
        Ok(Self {
            verifier,
            crls,
            responders,
            logs,
            imported: Imported::new(config.import.clone(), &config.state),
            root: RootEnd::new(config.root.clone()),
            feed,
            announced,
            snapshot: ArcSwap::from_pointee(first),
            epoch: AtomicU64::new(0),
            publishing: tokio::sync::Mutex::default(),
            news,
        })
    }

    /// The event log, where one is configured.
    pub(crate) fn feed(&self) -> Option<&Feed> {
        self.feed.as_ref()
    }

    /// The evidence now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Fetches every list once and publishes what came: those configured, those that these agents' certificates name,
    /// and those that ever gave an authentic list. Waits for no log: a revocation counts as soon as it is here.
    pub async fn refresh_lists(&self, agents: &[Arc<Attestation>]) -> Arc<Snapshot> {
        if let Some(evidence) = self.imported.refresh() {
            self.crls.import(&evidence);
        }
        self.root.refresh();
        self.crls.follow(agents);
        self.crls.refresh().await;
        self.publish().await
    }

    /// Asks the OCSP responders about the certificates of these agents and publishes what came. Waits for no list and no log, and
    /// none of them for it.
    pub(crate) async fn refresh_answers(
        &self,
        agents: &[(ModuleDigest, Arc<Attestation>)],
        which: Due,
    ) -> Arc<Snapshot> {
        self.responders.follow(agents).await;
        self.responders.refresh(which).await;
        self.publish().await
    }

    /// What a round learnt while it still goes on: at once when something was found revoked, the rest soon.
    pub(crate) async fn answers_meanwhile(&self) -> Arc<Snapshot> {
        self.responders.told().await;
        self.publish().await
    }

    /// Until responders are to be asked again: in this time, earlier where answers end earlier or something may have been revoked.
    pub(crate) async fn answers_due(&self, interval: Duration) -> Due {
        self.responders.due(interval).await
    }

    /// The event log grew. Who reads it knows whether that is a revocation; where nobody is believed in it, it may be one.
    pub(crate) fn event_log_grew(&self) {
        if !self.announced.as_ref().is_some_and(Announced::believes_somebody) {
            self.responders.ring();
        }
    }

    /// How many certificates responders are asked about.
    pub(crate) fn asked(&self) -> Asked {
        self.responders.asked()
    }

    /// Asks every log once and publishes what came, with the proofs that these agents' attestations need.
    pub async fn refresh_logs(&self, agents: &[Arc<Attestation>]) -> Arc<Snapshot> {
        self.logs.refresh(agents).await;
        self.publish().await
    }

    /// Reads what the event log announces, unless it was read up to the size that the log claims; whether there is more than
    /// before.
    pub(crate) async fn read_events(&self, claimed: Option<u64>) -> bool {
        let Some(announced) = &self.announced else { return false };
        let before = announced.known();
        let news = announced.read(claimed).await;
        if news {
            if announced.known() != before {
                // A responder knows of a revocation when it is made, also of those that came with it.
                self.responders.ring();
            }
            self.publish().await;
        }
        news
    }

    /// As if the next bundle of events were lost.
    #[cfg(test)]
    pub(crate) fn lose_a_bundle(&self) {
        let announced = self.announced.as_ref().expect("an event log");
        announced.lose_one.store(true, Ordering::Relaxed);
    }

    /// Fetches what this attestation needs and is not there yet: lists its certificates name (at allowed addresses
    /// only), what OCSP responders there say, and the proofs from its checkpoints to the newest one.
    pub async fn prepare_for(&self, digest: ModuleDigest, attestation: &Attestation) -> Arc<Snapshot> {
        let before = self.snapshot();
        let answers = self.responders.want(digest, attestation);
        let (lists, answers, proofs) =
            tokio::join!(self.crls.want(attestation), answers, self.logs.want(attestation));
        if !lists && !answers && !proofs {
            return self.snapshot();
        }
        let snapshot = self.publish().await;
        // It may be about everybody, and whoever asked judges one upload. Further proofs are about that one alone. And were everybody
        // judged for every answer, many uploads would take the work of many times as many verifications.
        if snapshot.fork != before.fork || ((lists || answers) && snapshot.concerns_everybody(&before)) {
            self.news.notify_one();
        }
        snapshot
    }

    /// Waits for what an upload brought to light, or for a log that forked, and publishes it. Whoever waits judges everybody by it:
    /// no round does, or not before each of its sources has answered.
    pub(crate) async fn news(&self) -> Arc<Snapshot> {
        self.news.notified().await;
        self.publish().await
    }

    /// Begins a new epoch with the same evidence: what verdicts were made of besides evidence has changed.
    pub async fn begin_epoch(&self) {
        let _one_at_a_time = self.publishing.lock().await;
        let old = self.snapshot.load_full();
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        self.snapshot.store(Arc::new(Snapshot { epoch, ..Snapshot::clone(&old) }));
    }

    async fn publish(&self) -> Arc<Snapshot> {
        // Nothing is waited for under this lock but another publication.
        let _one_at_a_time = self.publishing.lock().await;
        let mut evidence = Evidence::none();
        let mut sources = Vec::new();
        self.crls.collect(&mut evidence, &mut sources);
        let answers = self.responders.collect(&mut evidence, &mut sources);
        // Before the logs' own: what was carried in is older than what was fetched, and the newest is looked at first.
        self.imported.collect(&mut evidence, &mut sources);
        let fork = self.logs.collect(&mut evidence, &mut sources);
        let root_expires = self.root.collect(&mut sources);
        if let Some(announced) = &self.announced {
            evidence.revocation_mut().announced = announced.known();
        }
        self.verifier.prepare(&mut evidence);
        let old = self.snapshot.load();
        let complete = are_complete(&sources);
        let changed = fork != old.fork
            || root_expires != old.root_expires
            || answers != old.answers
            || !same(&evidence, &old.evidence);
        // Lists say what it announces: it completes nothing.
        sources.extend(self.announced.as_ref().map(Announced::source));
        let epoch = if changed { self.epoch.fetch_add(1, Ordering::Relaxed) + 1 } else { old.epoch };
        let snapshot = Arc::new(Snapshot {
            evidence,
            epoch,
            complete_at: if complete { Some(clock::unix_seconds()) } else { old.complete_at },
            sources,
            fork,
            root_expires,
            answers,
        });
        self.snapshot.store(Arc::clone(&snapshot));
        snapshot
    }
}

/// Whether everything was fetched once without failure. Responders that certificates name are the agents' affair: each was asked, and
/// one that is dead keeps nobody else's executor from being ready.
fn are_complete(sources: &[Source]) -> bool {
    sources.iter().all(|source| match source.kind {
        "ocsp" => source.fetched_at.is_some() || !source.problem.is_empty(),
        _ => source.fetched_at.is_some() && source.problem.is_empty(),
    })
}

fn same(one: &Evidence, other: &Evidence) -> bool {
    let (ours, theirs) = (one.revocation(), other.revocation());
    one.logs() == other.logs()
        && one.remembered() == other.remembered()
        && ours.announced == theirs.announced
        && same_lists(one, other)
        && ours.ocsp.iter().map(OcspResponse::der).eq(theirs.ocsp.iter().map(OcspResponse::der))
}

fn same_lists(one: &Evidence, other: &Evidence) -> bool {
    let (ours, theirs) = (&one.revocation().crls, &other.revocation().crls);
    ours.iter().map(Crl::der).eq(theirs.iter().map(Crl::der))
}

#[cfg(test)]
mod imported_tests;
#[cfg(test)]
pub(crate) mod tests;
