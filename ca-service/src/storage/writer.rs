//! One thread writes. What arrives while it commits goes into the next commit together (group commit, rule f).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot};
use trust_store::sorted_json::SortedJson;

use super::audit::{self, Entry};
use super::checkpoints::Checkpoints;
use super::issuance::{self, Advance, CertificateStep, Intended, Outcomes, Transition};
use super::sql::Connection;
use super::{NewIntent, StoreError};

/// Most changes in one commit: bounds how long the first of them waits.
const MAX_BATCH: usize = 256;
/// Changes that may wait; beyond, callers wait for room.
const QUEUE: usize = 4096;

type Reply = oneshot::Sender<Result<(), StoreError>>;

/// Told whether the commit succeeded, and passes the change's own outcome on.
type Completion = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
type Alone = Box<dyn FnOnce(&Connection) -> (Verdict, Completion) + Send>;

enum Change {
    Advance(Transition, Advance, Reply),
    Alone(Alone),
    BeginCertificate(CertificateStep, Reply),
    First(Alone),
    RecordIntent(Box<Intended>, Reply),
}

/// What a change did to the transaction it ran in.
enum Verdict {
    /// It wrote, or refused before writing.
    Keep,
    /// It failed half-way: nothing of the batch may be committed.
    Spoiled(StoreError),
}

/// Hands changes to the writing thread, which ends with the last of these.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Change>,
    generation: Arc<AtomicU64>,
    failure: Failure,
}

/// What the last commit failed with, if it did.
type Failure = Arc<RwLock<Option<StoreError>>>;

/// A writer as whoever watches it without keeping it alive.
#[cfg(feature = "postgres")]
pub(super) struct Watched(std::sync::Weak<RwLock<Option<StoreError>>>);

#[cfg(feature = "postgres")]
impl Watched {
    /// Whether it is still there.
    pub(super) fn is_there(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Has it fail with this before anybody writes.
    pub(super) fn fail(&self, error: StoreError) {
        if let Some(failure) = self.0.upgrade() {
            note(&failure, Some(error));
        }
    }
}

/// Notes what a commit ended in. Records that another server took over are never this one's again.
fn note(failure: &RwLock<Option<StoreError>>, ended: Option<StoreError>) {
    let mut last = failure.write().unwrap_or_else(PoisonError::into_inner);
    if *last != Some(StoreError::AnotherServes) {
        *last = ended;
    }
}

impl Writer {
    /// Starts the writing thread; `checkpoints` belong to the connection.
    pub(super) fn start(
        connection: Connection,
        checkpoints: Option<Checkpoints>,
    ) -> Result<Self, StoreError> {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let failure = Failure::default();
        std::thread::Builder::new()
            .name("ca-writer".to_owned())
            .spawn({
                let failure = Arc::clone(&failure);
                move || run(connection, checkpoints, receiver, &failure)
            })
            .map_err(|error| StoreError::Unavailable(format!("the writer cannot be started: {error}")))?;
        Ok(Self { queue, generation: Arc::default(), failure })
    }

    /// What the last commit failed with, if it did.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failure.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// To be watched.
    #[cfg(feature = "postgres")]
    pub(super) fn watched(&self) -> Watched {
        Watched(Arc::downgrade(&self.failure))
    }

    /// Changes after every change that was made with [`Self::change_status`].
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Runs a change in a transaction and returns when it is durable.
    ///
    /// The change MUST return [`StoreError::Unavailable`], [`StoreError::Full`] or [`StoreError::Corrupted`] for every
    /// failure after its first write, which undoes the whole batch; any other error says that it wrote nothing.
    pub(super) async fn change<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.change_and(change, || (), Change::Alone).await
    }

    /// As [`Self::change`], before every other change of its transaction: a view of the database that begins inside it shows what
    /// this change found.
    pub(super) async fn change_first<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.change_and(change, || (), Change::First).await
    }

    /// As [`Self::change`], for what status answers depend on: the generation moves on in the writing thread itself, after
    /// the commit and before anybody is told, whether the caller is still there or not, and also when the commit's outcome
    /// is unknown.
    pub(super) async fn change_status<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let generation = Arc::clone(&self.generation);
        let next = move || {
            generation.fetch_add(1, Ordering::SeqCst);
        };
        self.change_and(change, next, Change::Alone).await
    }

    async fn change_and<T, F, A>(
        &self,
        change: F,
        afterwards: A,
        kind: fn(Alone) -> Change,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        A: FnOnce() + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let boxed: Alone = Box::new(move |connection| {
            let outcome = change(connection);
            let verdict = match &outcome {
                Err(error) if error.spoils() => Verdict::Spoiled(error.clone()),
                _ => Verdict::Keep,
            };
            let completion: Completion = Box::new(move |committed| {
                afterwards();
                // A caller that went away has no use for the answer.
                let _ = sender.send(committed.and(outcome));
            });
            (verdict, completion)
        });
        self.queue.send(kind(boxed)).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| self.failure().unwrap_or_else(gone))?
    }

    /// Records an intent and uses its token up; with the particulars of the audit record, its signature begins with that.
    pub(super) async fn record_intent(
        &self,
        new: NewIntent,
        signing: Option<SortedJson>,
    ) -> Result<(), StoreError> {
        self.grouped(|reply| Change::RecordIntent(Box::new(Intended { new, signing }), reply)).await
    }

    /// Advances an issuance by one transition.
    pub(super) async fn advance(&self, transition: Transition, change: Advance) -> Result<(), StoreError> {
        self.grouped(|reply| Change::Advance(transition, change, reply)).await
    }

    /// Begins an issuance's second step.
    pub(super) async fn begin_certificate(&self, step: CertificateStep) -> Result<(), StoreError> {
        self.grouped(|reply| Change::BeginCertificate(step, reply)).await
    }

    async fn grouped(&self, change: impl FnOnce(Reply) -> Change) -> Result<(), StoreError> {
        let (sender, receiver) = oneshot::channel();
        self.queue.send(change(sender)).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| self.failure().unwrap_or_else(gone))?
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the writer has stopped, or could not begin a transaction".to_owned())
}

fn run(
    connection: Connection,
    mut checkpoints: Option<Checkpoints>,
    mut receiver: mpsc::Receiver<Change>,
    failure: &RwLock<Option<StoreError>>,
) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while receiver.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
        commit(&connection, Groups::of(batch.drain(..)), failure);
        if let (Some(checkpoints), Connection::Sqlite(connection)) = (&mut checkpoints, &connection) {
            checkpoints.after_commit(connection);
        }
    }
    // The last connection to close copies what is left.
    drop(checkpoints);
    connection.close();
}

/// A batch, sorted by kind. The changes of one batch are about different rows, or conditional on a state, so their order does
/// not matter, but for those that come first.
#[derive(Default)]
struct Groups {
    intents: (Vec<Intended>, Vec<Reply>),
    advances: std::collections::BTreeMap<Transition, (Vec<Advance>, Vec<Reply>)>,
    steps: (Vec<CertificateStep>, Vec<Reply>),
    first: Vec<Alone>,
    alone: Vec<Alone>,
}

impl Groups {
    fn of(batch: impl Iterator<Item = Change>) -> Self {
        let mut groups = Self::default();
        for change in batch {
            match change {
                Change::Advance(transition, change, reply) => {
                    let group = groups.advances.entry(transition).or_default();
                    group.0.push(change);
                    group.1.push(reply);
                }
                Change::Alone(change) => groups.alone.push(change),
                Change::First(change) => groups.first.push(change),
                Change::BeginCertificate(step, reply) => {
                    groups.steps.0.push(step);
                    groups.steps.1.push(reply);
                }
                Change::RecordIntent(new, reply) => {
                    groups.intents.0.push(*new);
                    groups.intents.1.push(reply);
                }
            }
        }
        groups
    }
}

/// Makes a batch durable, or nothing of it. What failed is known before anybody is told.
fn commit(connection: &Connection, groups: Groups, failure: &RwLock<Option<StoreError>>) {
    let ended = |error: Option<StoreError>| note(failure, error);
    if let Err(error) = connection.begin() {
        // The changes do not run; dropping them tells their callers.
        tracing::error!(%error, "no write transaction can be started");
        ended(Some(error));
        return;
    }
    let mut completions = Vec::new();
    let mut outcome = apply(connection, groups, &mut completions);
    if outcome.is_ok() {
        outcome = connection.commit();
    }
    if let Err(error) = &outcome {
        tracing::error!(%error, "a write transaction failed and is rolled back");
        connection.rollback();
    }
    ended(outcome.clone().err());
    for completion in completions {
        completion(outcome.clone());
    }
}

/// Makes the changes of a batch; an error says that none of them may be committed.
fn apply(
    connection: &Connection,
    groups: Groups,
    completions: &mut Vec<Completion>,
) -> Result<(), StoreError> {
    run_each(connection, groups.first, completions)?;
    let mut entries: Vec<Entry> = Vec::new();
    let outcomes = issuance::record_intents(connection, &groups.intents.0, &mut entries);
    settle(groups.intents.1, outcomes, completions)?;
    let outcomes = issuance::begin_certificates(connection, &groups.steps.0, &mut entries);
    settle(groups.steps.1, outcomes, completions)?;
    for (transition, (changes, replies)) in groups.advances {
        let outcomes = issuance::advance(connection, transition, &changes, &mut entries);
        settle(replies, outcomes, completions)?;
    }
    audit::append_all(connection, entries)?;
    run_each(connection, groups.alone, completions)
}

/// Runs changes in the order in which they came.
fn run_each(
    connection: &Connection,
    changes: Vec<Alone>,
    completions: &mut Vec<Completion>,
) -> Result<(), StoreError> {
    for change in changes {
        let (verdict, completion) = change(connection);
        completions.push(completion);
        if let Verdict::Spoiled(error) = verdict {
            return Err(error);
        }
    }
    Ok(())
}

/// Turns a group's outcomes into what its callers are told after the commit.
fn settle(
    replies: Vec<Reply>,
    outcomes: Outcomes,
    completions: &mut Vec<Completion>,
) -> Result<(), StoreError> {
    // Replies that are dropped tell their callers that the store failed.
    for (reply, outcome) in replies.into_iter().zip(outcomes?) {
        completions.push(Box::new(move |committed| {
            let _ = reply.send(committed.and(outcome));
        }));
    }
    Ok(())
}
