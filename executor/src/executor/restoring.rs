//! Agents of the last run: read back after a start, judged like uploads, and loaded if they may still run.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use executor_api::audit::AuditEvent;
use executor_engine::ModuleDigest;
use parking_lot::Mutex;

use super::Executor;
use crate::admission::{Denied, Publisher, Submission};
use crate::agents::Agent;
use crate::clock;
use crate::records::{audit_unavailable, cut};
use crate::submissions::{RecordName, Stored, Submissions};

/// Before a record is judged again that was denied for a reason of a moment. It doubles with each time, up to ten minutes: what is
/// tried again may be a compilation.
const PAUSE: Duration = Duration::from_secs(5);
const MAX_DOUBLINGS: u32 = 7;

/// Records whose agents are not loaded.
#[derive(Default)]
pub(super) struct Waiting {
    records: Mutex<Vec<Record>>,
    /// That there is none any more, as it is with most executors nearly always: no call has to wait for the lock to learn that.
    none: AtomicBool,
    /// Held by the one task that restores.
    busy: tokio::sync::Mutex<()>,
    /// Whether another one waits for that and has not begun: it will see whatever is there by then.
    queued_all: AtomicBool,
    /// The same of one that sees to what lacks evidence.
    queued_lacking: AtomicBool,
}

/// Which records are judged again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    /// Those that newer evidence may let in.
    LackingEvidence,
}

struct Record {
    order: u64,
    path: PathBuf,
    /// Whose it is: by the name of its file, until it was read.
    name: Option<RecordName>,
    /// The agent's id, once it was read.
    id: Option<String>,
    /// Whom it says that it is from, once it was read.
    publisher: Option<Publisher>,
    denied: Denied,
    /// Epoch of the evidence it was judged by.
    epoch: Option<u64>,
    /// When it is judged again by the same evidence.
    again_at: Option<Instant>,
    /// How often it was denied for such a reason.
    passing: u32,
}

/// A record that waits no more.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) path: PathBuf,
    pub(super) name: RecordName,
    /// The agent's id, if the record was read.
    pub(super) id: Option<String>,
    /// Why it waited.
    pub(super) code: &'static str,
}

/// What a name may mean: an agent by its id, or a module. Found out once, not for every record.
struct Wanted {
    agent: ModuleDigest,
    module: Option<ModuleDigest>,
}

impl Wanted {
    fn of(name: &str) -> Self {
        Self { agent: ModuleDigest::of(name.as_bytes()), module: ModuleDigest::parse(name) }
    }
}

/// What a record says of itself, read and not verified.
pub(super) struct Name {
    pub(super) agent: String,
    pub(super) module: ModuleDigest,
    pub(super) publisher: Option<Publisher>,
}

impl Waiting {
    pub(super) fn new(paths: Vec<(u64, PathBuf)>) -> Self {
        let record = |(order, path): (u64, PathBuf)| Record {
            order,
            name: RecordName::of_file(&path),
            path,
            id: None,
            publisher: None,
            denied: restoring(),
            epoch: None,
            again_at: None,
            passing: 0,
        };
        Self {
            none: AtomicBool::new(paths.is_empty()),
            records: Mutex::new(paths.into_iter().map(record).collect()),
            busy: tokio::sync::Mutex::default(),
            queued_all: AtomicBool::default(),
            queued_lacking: AtomicBool::default(),
        }
    }

    /// Why an agent of the last run does not run, if `name` is one that waits and was loaded after `order`.
    pub(super) fn denial(&self, name: &str, order: Option<u64>) -> Option<Denied> {
        if self.none.load(Ordering::Acquire) {
            return None;
        }
        let records = self.records.lock();
        let wanted = Wanted::of(name);
        let later = |record: &Record| order.is_none_or(|order| record.order > order);
        let fits = |record: &&Record| later(record) && (record.is_unknown() || record.is(&wanted));
        records.iter().rfind(fits).map(|record| record.denied.clone())
    }

    /// Why a release of an agent does not run, if it waits.
    pub(super) fn denial_of_release(&self, id: &str, digest: ModuleDigest) -> Option<Denied> {
        let name = RecordName::of(id, digest);
        let records = self.records.lock();
        let fits = |record: &&Record| record.name.map_or(record.is_unknown(), |known| known == name);
        records.iter().rfind(fits).map(|record| record.denied.clone())
    }

    /// Takes away the records of an agent, or of a module: with an id, that agent's alone.
    pub(super) fn remove(&self, name: &str, of: Option<&str>) -> Vec<Removed> {
        let wanted = Wanted::of(name);
        let of = of.map(|id| ModuleDigest::of(id.as_bytes()));
        let is_of = |name: RecordName| of.is_none_or(|agent| name.agent == agent);
        let mut records = self.records.lock();
        let removed = records.extract_if(.., |record| record.is(&wanted) && record.name.is_some_and(is_of));
        let removed = removed
            .filter_map(|Record { path, name, id, denied, .. }| {
                Some(Removed { path, name: name?, id, code: denied.code })
            })
            .collect();
        self.none.store(records.is_empty(), Ordering::Release);
        removed
    }

    /// The agents whose releases of a module wait, by the SHA-256 of their ids.
    pub(super) fn agents_of(&self, module: ModuleDigest) -> HashSet<ModuleDigest> {
        let records = self.records.lock();
        let names = records.iter().filter_map(|record| record.name);
        names.filter(|name| name.module == module).map(|name| name.agent).collect()
    }

    /// The ids of the agents whose releases of a module wait; an empty one where the record cannot be read.
    ///
    /// # Errors
    ///
    /// `restoring` while there is a record that was not looked at, whichever it is: so it tells nothing of a single one.
    pub(super) fn ids_of(&self, module: ModuleDigest) -> Result<Vec<String>, Denied> {
        let records = self.records.lock();
        if records.iter().any(|record| record.id.is_none() && record.denied.code == restoring().code) {
            return Err(restoring());
        }
        let of_module = records.iter().filter(|record| record.name.is_some_and(|name| name.module == module));
        Ok(of_module.map(|record| record.id.clone().unwrap_or_default()).collect())
    }

    /// Whether newer evidence may let any of them in.
    fn lack_evidence(&self) -> bool {
        !self.none.load(Ordering::Acquire)
            && self.records.lock().iter().any(|record| record.denied.is_about_evidence())
    }

    /// Every record that waits, and why.
    pub(super) fn all(&self) -> Vec<(PathBuf, Denied)> {
        self.records.lock().iter().map(|record| (record.path.clone(), record.denied.clone())).collect()
    }

    /// Whether this release of an agent waits.
    #[cfg(feature = "deployments")]
    pub(super) fn has(&self, id: &str, digest: ModuleDigest) -> bool {
        let name = RecordName::of(id, digest);
        self.records.lock().iter().any(|record| record.name.is_some_and(|known| known == name))
    }

    /// Whether another release of this agent waits.
    #[cfg(feature = "deployments")]
    pub(super) fn has_other(&self, id: &str, digest: ModuleDigest) -> bool {
        let this = RecordName::of(id, digest);
        let is_other = |name: RecordName| name.agent == this.agent && name.module != digest;
        self.records.lock().iter().any(|record| record.name.is_some_and(is_other))
    }

    /// Whom the records of an agent say that they are from.
    ///
    /// # Errors
    ///
    /// `restoring` while there is one that was not looked at, and `agent_taken` where one that is the agent's by the name of its file
    /// cannot be read: whoever damages a record must not free the id.
    pub(super) fn publishers(&self, agent: &str) -> Result<Vec<Publisher>, Denied> {
        let wanted = ModuleDigest::of(agent.as_bytes());
        let records = self.records.lock();
        let of_agent = records.iter().filter(|record| record.name.is_none_or(|name| name.agent == wanted));
        let mut publishers = Vec::new();
        for record in of_agent {
            match &record.publisher {
                Some(publisher) => publishers.push(publisher.clone()),
                None if record.denied.code == restoring().code => return Err(restoring()),
                None if record.name.is_some() && record.id.is_none() => {
                    let text = "the record of a release of this agent cannot be read, so that nobody knows who signed it; unload the agent first";
                    return Err(Denied::in_step(6, "agent_taken", text));
                }
                None => {}
            }
        }
        Ok(publishers)
    }

    /// Refuses while there are records that were not looked at and whose files do not say of which agents they are.
    #[cfg(feature = "deployments")]
    pub(super) fn refuse_unread(&self) -> Result<(), Denied> {
        if self.records.lock().iter().any(Record::is_unknown) { Err(restoring()) } else { Ok(()) }
    }

    /// A record of a file of this name, which was not looked at.
    #[cfg(test)]
    pub(super) fn add_for_test(&self, order: u64, path: PathBuf) {
        let added = Self::new(vec![(order, path)]).records.into_inner();
        self.records.lock().extend(added);
        self.none.store(false, Ordering::Release);
    }

    /// A record that was looked at and waits.
    #[cfg(test)]
    pub(super) fn add_publisher_for_test(&self, agent: &str, publisher: &Publisher) {
        let name = RecordName::of(agent, ModuleDigest::of(agent.as_bytes()));
        let mut added = Self::new(vec![(9, PathBuf::new())]).records.into_inner();
        for record in &mut added {
            (record.name, record.id) = (Some(name), Some(agent.to_owned()));
            record.publisher = Some(publisher.clone());
            record.denied = Denied::in_step(11, "checkpoint_stale", "");
        }
        self.records.lock().extend(added);
        self.none.store(false, Ordering::Release);
    }

    /// Ends the wait of a record. `then` learns whether it still waited, and nothing happens to it in between.
    pub(super) fn settle(&self, path: &Path, then: impl FnOnce(bool)) {
        let mut records = self.records.lock();
        let count = records.len();
        records.retain(|record| record.path != path);
        then(records.len() < count);
        // After that: who learns that nobody waits finds what waited.
        self.none.store(records.is_empty(), Ordering::Release);
    }

    fn queued(&self, which: Which) -> &AtomicBool {
        match which {
            Which::All => &self.queued_all,
            Which::LackingEvidence => &self.queued_lacking,
        }
    }

    /// The next of these records that evidence of this epoch was not asked about, or whose time has come.
    fn next(&self, which: Which, epoch: u64, now: Instant) -> Option<PathBuf> {
        let mut records = self.records.lock();
        let is_due = |record: &Record| match (which, record.again_at) {
            (Which::LackingEvidence, _) if !record.denied.is_about_evidence() => false,
            // Nothing but time changes what it was denied for.
            (_, Some(at)) => at <= now,
            (_, None) => record.epoch.is_none_or(|tried| tried < epoch),
        };
        // Whoever was judged by the oldest evidence first: it may become newer faster than all of them are judged.
        let record = records.iter_mut().filter(|record| is_due(record)).min_by_key(|record| record.epoch)?;
        (record.epoch, record.again_at) = (Some(epoch), None);
        Some(record.path.clone())
    }

    /// Keeps what was found out about a record; whether the denial is another one than before.
    pub(super) fn judged(&self, path: &Path, read: Option<Name>, denied: &Denied, now: Instant) -> bool {
        let mut records = self.records.lock();
        let Some(record) = records.iter_mut().find(|record| record.path == path) else { return false };
        if let Some(Name { agent, module, publisher }) = read {
            record.name = Some(RecordName::of(&agent, module));
            (record.id, record.publisher) = (Some(agent), publisher);
        }
        // Newer evidence changes what is about evidence, and nothing but time the rest of what may pass.
        let passes_by_itself = denied.may_pass() && !denied.is_about_evidence();
        record.again_at = passes_by_itself.then(|| now + PAUSE * (1 << record.passing.min(MAX_DOUBLINGS)));
        record.passing = record.passing.saturating_add(u32::from(passes_by_itself));
        let before = std::mem::replace(&mut record.denied, denied.clone());
        before.code != denied.code
    }
}

impl Record {
    fn is(&self, wanted: &Wanted) -> bool {
        self.name.is_some_and(|known| known.agent == wanted.agent || Some(known.module) == wanted.module)
    }

    /// Whether it may be anybody's: it was not looked at, and its file has no name of a record.
    fn is_unknown(&self) -> bool {
        self.name.is_none() && self.denied.code == restoring().code
    }
}

fn restoring() -> Denied {
    Denied::new("restoring", "the agents of the last run are being judged again; retry soon")
}

impl Executor {
    /// Judges the agents of the last run and loads those that may run. Returns when each was judged once.
    pub async fn restore(&self) {
        self.restore_those(Which::All).await;
    }

    async fn restore_those(&self, which: Which) {
        let _alone = self.waiting.busy.lock().await;
        // A swap, so that it sees what came before whoever found it set.
        self.waiting.queued(which).swap(false, Ordering::AcqRel);
        // None twice in one round, however long it takes.
        let begun = clock::monotonic();
        while let Some(path) = self.waiting.next(which, self.parts.collector.snapshot().epoch, begun) {
            let (name, outcome) = self.restore_one(path.clone()).await;
            match outcome {
                Ok(agent) => self.waiting.settle(&path, |waited| {
                    // Unless an upload took its place meanwhile, or it was unloaded.
                    if waited {
                        self.agents.insert(agent);
                    }
                }),
                Err(denied) => {
                    if self.waiting.judged(&path, name, &denied, clock::monotonic()) {
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

    /// Tries again in the background if there is anything that newer evidence may let in, unless somebody is about to.
    pub(super) fn restore_waiting(self: &Arc<Self>) {
        if !self.waiting.records.lock().is_empty() {
            self.restore_soon(Which::All);
        }
    }

    fn restore_soon(self: &Arc<Self>, which: Which) {
        if !self.waiting.queued(which).swap(true, Ordering::AcqRel) {
            let executor = Arc::clone(self);
            tokio::spawn(async move { executor.restore_those(which).await });
        }
    }

    /// As [`Self::restore_waiting`], of what waits for newer evidence, where an upload brought some. Calls of what waits are
    /// answered with why it does, and judge nothing.
    pub(super) fn restore_by_news(&self) {
        if self.waiting.lack_evidence()
            && let Some(executor) = self.this.upgrade()
        {
            executor.restore_soon(Which::LackingEvidence);
        }
    }

    async fn restore_one(&self, path: PathBuf) -> (Option<Name>, Result<Arc<Agent>, Denied>) {
        let unreadable = |why: String| {
            Denied::new("record_unreadable", "the agent must be unloaded and loaded again").for_operator(why)
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
        let name = Name {
            agent: submission.agent().to_owned(),
            module: submission.digest(),
            publisher: submission.publisher(),
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Server;

    #[tokio::test]
    async fn one_restore_waits_for_the_one_before_however_often_it_is_asked_for() {
        let server = Server::start().await;
        let executor = &server.executor;
        executor.waiting.add_for_test(1, PathBuf::from("gone.agent"));
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let busy = executor.waiting.busy.lock().await;
        let before = tasks();
        for _ in 0..100 {
            executor.restore_waiting();
        }
        assert_eq!(tasks(), before + 1);
        drop(busy);
        while executor.waiting.queued_all.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        // What is asked for from then on is done after it.
        executor.restore_waiting();
        assert!(executor.waiting.queued_all.load(Ordering::Acquire));
        executor.restore().await;
        assert_eq!(executor.waiting.all()[0].1.code, "record_unreadable");
    }

    #[test]
    fn a_name_is_asked_about_for_as_long_as_any_record_waits() {
        let (one, other) = (PathBuf::from("one.agent"), PathBuf::from("other.agent"));
        let waiting = Waiting::new(vec![(1, one.clone()), (2, other.clone())]);
        let code = || waiting.denial("a.b", None).map(|denied| denied.code);
        assert_eq!(code(), Some("restoring"));
        waiting.settle(&one, |waited| assert!(waited));
        assert_eq!(code(), Some("restoring"), "there is another one");
        waiting.settle(&other, |waited| assert!(waited));
        assert_eq!(code(), None);
        // The same where the last one is taken away.
        waiting.add_publisher_for_test("a.b", &Publisher::new("a@example.org", ""));
        assert_eq!(code(), Some("checkpoint_stale"));
        assert_eq!(waiting.remove("a.b", None).len(), 1);
        assert!(code().is_none() && waiting.none.load(Ordering::Acquire));
        assert!(Waiting::new(Vec::new()).none.load(Ordering::Acquire));
    }

    #[test]
    fn what_was_denied_for_a_reason_of_a_moment_is_judged_again_without_newer_evidence() {
        let path = PathBuf::from("a.agent");
        let waiting = Waiting::new(vec![(1, path.clone())]);
        let now = clock::monotonic();
        let denied = |code| {
            assert_eq!(waiting.next(Which::All, 7, now).as_ref(), Some(&path));
            waiting.judged(&path, None, &Denied::new(code, ""), now);
        };
        denied("pool_exhausted");
        assert_eq!(waiting.next(Which::All, 7, now), None, "not at once");
        assert_eq!(waiting.next(Which::All, 7, now + PAUSE).as_ref(), Some(&path));
        assert_eq!(waiting.next(Which::All, 7, now + PAUSE), None, "it is being judged");
        waiting.judged(&path, None, &Denied::new("worker_lost", ""), now);
        assert_eq!(waiting.next(Which::All, 7, now + PAUSE), None, "longer each time");
        assert_eq!(waiting.next(Which::All, 7, now + 2 * PAUSE).as_ref(), Some(&path));
        waiting.judged(&path, None, &Denied::new("revocation_stale", ""), now);
        assert_eq!(waiting.next(Which::All, 7, now + 100 * PAUSE), None, "time is no evidence");
        assert_eq!(waiting.next(Which::LackingEvidence, 8, now).as_ref(), Some(&path));
    }

    #[test]
    fn newer_evidence_asks_about_what_lacks_it_and_about_all_before_any_of_them_again() {
        let paths = ["one", "other", "third"].map(PathBuf::from);
        let waiting =
            Waiting::new(paths.iter().cloned().zip(1..).map(|(path, order)| (order, path)).collect());
        let (now, [one, other, third]) = (clock::monotonic(), &paths);
        let next = |which, epoch| waiting.next(which, epoch, now);
        for (path, code) in
            [(one, "revocation_stale"), (other, "compile_queue_full"), (third, "checkpoint_stale")]
        {
            assert_eq!(next(Which::All, 7).as_ref(), Some(path));
            waiting.judged(path, None, &Denied::new(code, ""), now);
        }
        assert_eq!(next(Which::LackingEvidence, 8).as_ref(), Some(one));
        // It became newer before the others were asked about.
        assert_eq!(next(Which::LackingEvidence, 9).as_ref(), Some(third));
        assert_eq!(next(Which::LackingEvidence, 9).as_ref(), Some(one));
        assert_eq!(next(Which::All, 9), None, "a full queue is emptied by time alone");
    }
}
