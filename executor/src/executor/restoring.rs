//! Agents of the last run: read back after a start, judged like uploads, and loaded if they may still run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use executor_api::audit::AuditEvent;
use executor_engine::ModuleDigest;
use parking_lot::Mutex;

use super::Executor;
use crate::admission::{Denied, Submission};
use crate::agents::Agent;
use crate::records::{audit_unavailable, cut};
use crate::submissions::{Stored, Submissions};

/// Records whose agents are not loaded.
#[derive(Default)]
pub(super) struct Waiting {
    records: Mutex<Vec<Record>>,
    /// Held by the one task that restores.
    busy: tokio::sync::Mutex<()>,
}

struct Record {
    order: u64,
    path: PathBuf,
    /// What the record says of itself; unknown until it was read.
    name: Option<(String, ModuleDigest)>,
    denied: Denied,
    /// Epoch of the evidence it was judged by.
    epoch: Option<u64>,
}

impl Waiting {
    pub(super) fn new(paths: Vec<(u64, PathBuf)>) -> Self {
        let record = |(order, path)| Record { order, path, name: None, denied: restoring(), epoch: None };
        Self {
            records: Mutex::new(paths.into_iter().map(record).collect()),
            busy: tokio::sync::Mutex::default(),
        }
    }

    /// Why an agent of the last run does not run, if `name` is one that waits and was loaded after `order`.
    pub(super) fn denial(&self, name: &str, order: Option<u64>) -> Option<Denied> {
        let records = self.records.lock();
        if records.is_empty() {
            return None;
        }
        let digest = ModuleDigest::parse(name);
        let later = |record: &&Record| order.is_none_or(|order| record.order > order);
        records
            .iter()
            .filter(later)
            .rfind(|record| record.is(name, digest))
            .map(|record| record.denied.clone())
    }

    /// Takes away the records of an agent; returns their files.
    pub(super) fn remove(&self, name: &str) -> Vec<PathBuf> {
        let digest = ModuleDigest::parse(name);
        let mut records = self.records.lock();
        records.extract_if(.., |record| record.is(name, digest)).map(|record| record.path).collect()
    }

    /// Every record that waits, and why.
    pub(super) fn all(&self) -> Vec<(PathBuf, Denied)> {
        self.records.lock().iter().map(|record| (record.path.clone(), record.denied.clone())).collect()
    }

    /// Whether another release of this agent waits.
    #[cfg(feature = "deployments")]
    pub(super) fn has_other(&self, id: &str, digest: ModuleDigest) -> bool {
        let is_other = |(agent, module): &(String, ModuleDigest)| agent == id && *module != digest;
        self.records.lock().iter().any(|record| record.name.as_ref().is_some_and(is_other))
    }

    /// Refuses while there are records that were not looked at: of which agents they are is not known.
    #[cfg(feature = "deployments")]
    pub(super) fn refuse_unread(&self) -> Result<(), Denied> {
        let unread = restoring();
        if self.records.lock().iter().any(|record| record.denied.code == unread.code) {
            return Err(unread);
        }
        Ok(())
    }

    /// A record that was not looked at, or was and has this name.
    #[cfg(all(test, feature = "deployments"))]
    pub(super) fn add_for_test(&self, name: Option<(String, ModuleDigest)>) {
        let denied = if name.is_some() { Denied::new("evidence_stale", "") } else { restoring() };
        self.records.lock().push(Record { order: 9, path: PathBuf::new(), name, denied, epoch: None });
    }

    /// Ends the wait of a record. `then` learns whether it still waited, and nothing happens to it in between.
    pub(super) fn settle(&self, path: &Path, then: impl FnOnce(bool)) {
        let mut records = self.records.lock();
        let count = records.len();
        records.retain(|record| record.path != path);
        then(records.len() < count);
    }

    /// The next record that evidence of this epoch was not asked about.
    fn next(&self, epoch: u64) -> Option<PathBuf> {
        let mut records = self.records.lock();
        let record = records.iter_mut().find(|record| record.epoch.is_none_or(|tried| tried < epoch))?;
        record.epoch = Some(epoch);
        Some(record.path.clone())
    }

    /// Keeps what was found out about a record; whether the denial is another one than before.
    fn judged(&self, path: &Path, name: Option<(String, ModuleDigest)>, denied: &Denied) -> bool {
        let mut records = self.records.lock();
        let Some(record) = records.iter_mut().find(|record| record.path == path) else { return false };
        record.name = name;
        let before = std::mem::replace(&mut record.denied, denied.clone());
        before.code != denied.code
    }
}

impl Record {
    fn is(&self, name: &str, digest: Option<ModuleDigest>) -> bool {
        self.name.as_ref().is_some_and(|(id, module)| id == name || Some(*module) == digest)
    }
}

fn restoring() -> Denied {
    Denied::new("restoring", "the agents of the last run are being judged again; retry soon")
}

impl Executor {
    /// Judges the agents of the last run and loads those that may run. Returns when each was judged once.
    pub async fn restore(&self) {
        let _alone = self.waiting.busy.lock().await;
        while let Some(path) = self.waiting.next(self.parts.collector.snapshot().epoch) {
            let (name, outcome) = self.restore_one(path.clone()).await;
            match outcome {
                Ok(agent) => self.waiting.settle(&path, |waited| {
                    // Unless an upload took its place meanwhile, or it was unloaded.
                    if waited {
                        self.agents.insert(agent);
                    }
                }),
                Err(denied) => {
                    if self.waiting.judged(&path, name, &denied) {
                        tracing::warn!(path = %path.display(), code = denied.code, reason = %denied.message,
                            operator = %denied.operator, "an agent of the last run may not run now");
                        let mut event = self.denial_event(&denied, None);
                        event.detail =
                            Some(cut(&format!("at start: {}", event.detail.as_deref().unwrap_or_default())));
                        // Without a record nothing was allowed either.
                        let _ = self.parts.audit.record(event);
                    }
                }
            }
        }
    }

    /// Tries again in the background if there is anything that newer evidence may let in.
    pub(super) fn restore_waiting(self: &Arc<Self>) {
        if !self.waiting.records.lock().is_empty() {
            let executor = Arc::clone(self);
            tokio::spawn(async move { executor.restore().await });
        }
    }

    async fn restore_one(
        &self,
        path: PathBuf,
    ) -> (Option<(String, ModuleDigest)>, Result<Arc<Agent>, Denied>) {
        let unreadable = |why: String| {
            Denied::new("record_unreadable", "the agent must be loaded again").for_operator(why)
        };
        let read = tokio::task::spawn_blocking(move || Submissions::read(&path)).await;
        let stored =
            match read.map_err(|error| error.to_string()).and_then(|read| read.map_err(|e| e.to_string())) {
                Ok(stored) => stored,
                Err(why) => return (None, Err(unreadable(why))),
            };
        let Stored { order, manifest, attestation, module } = stored;
        let submission = match Submission::read(&manifest, attestation.as_deref(), module) {
            Ok(submission) => submission,
            Err(denied) => return (None, Err(denied)),
        };
        let name = (submission.agent().to_owned(), submission.digest());
        let restored = async {
            let agent = self.admit(&submission, order).await?;
            let event = AuditEvent {
                event_type: "admission".into(),
                detail: Some("judged again at start".into()),
                ..self.agent_event(&agent, None)
            };
            // An admission that cannot be recorded did not happen.
            self.parts.audit.record_durably(event).await.map_err(audit_unavailable)?;
            Ok(agent)
        };
        let outcome: Result<Arc<Agent>, Denied> = restored.await;
        self.parts.metrics.admission(outcome.as_ref().err().map(|denied| denied.code));
        (Some(name), outcome)
    }
}
