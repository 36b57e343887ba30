//! One task writes. What arrives while it commits goes into the next commit together (group commit, rule f), and what is of
//! one kind into one statement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::audit::{self, Entry};
use super::issuance::{self, Advance, CertificateStep, Outcomes, Transition};
use super::rows::unavailable;
use super::{NewIntent, StoreError};

/// Most changes in one commit: bounds how long the first of them waits.
const MAX_BATCH: usize = 256;
/// Changes that may wait; beyond, callers wait for room.
const QUEUE: usize = 4096;

type Reply = oneshot::Sender<Result<(), StoreError>>;

/// Told whether the commit succeeded, and passes the change's own outcome on.
type Completion = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
type Alone = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, (Verdict, Completion)> + Send>;

enum Change {
    Advance(Transition, Advance, Reply),
    Alone(Alone),
    BeginCertificate(CertificateStep, Reply),
    RecordIntent(Box<NewIntent>, Reply),
}

/// What a change did to the transaction it ran in.
enum Verdict {
    /// It wrote, or refused before writing.
    Keep,
    /// It failed half-way: nothing of the batch may be committed.
    Spoiled(StoreError),
}

/// Hands changes to the writing task.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Change>,
    generation: Arc<AtomicU64>,
}

impl Writer {
    pub(super) fn start(connection: SqliteConnection) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(run(connection, receiver));
        Self { queue, generation: Arc::default() }
    }

    /// Changes after every change that was made with [`Self::change_status`].
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Runs a change in a transaction and returns when it is durable.
    ///
    /// The change MUST return [`StoreError::Unavailable`] or [`StoreError::Corrupted`] for every failure after its first
    /// write, which undoes the whole batch; any other error says that it wrote nothing.
    pub(super) async fn change<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        self.change_and(change, || ()).await
    }

    /// As [`Self::change`], for what status answers depend on: the generation moves on in the writing task itself, after
    /// the commit and before anybody is told, whether the caller is still there or not, and also when the commit's outcome
    /// is unknown.
    pub(super) async fn change_status<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        let generation = Arc::clone(&self.generation);
        self.change_and(change, move || {
            generation.fetch_add(1, Ordering::SeqCst);
        })
        .await
    }

    async fn change_and<T, F, A>(&self, change: F, afterwards: A) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
        A: FnOnce() + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let boxed: Alone = Box::new(move |connection| {
            Box::pin(async move {
                let outcome = change(connection).await;
                let verdict = match &outcome {
                    Err(error @ (StoreError::Unavailable(_) | StoreError::Corrupted(_))) => {
                        Verdict::Spoiled(error.clone())
                    }
                    _ => Verdict::Keep,
                };
                let completion: Completion = Box::new(move |committed| {
                    afterwards();
                    // A caller that went away has no use for the answer.
                    let _ = sender.send(committed.and(outcome));
                });
                (verdict, completion)
            })
        });
        self.queue.send(Change::Alone(boxed)).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }

    /// Records an intent and uses its token up.
    pub(super) async fn record_intent(&self, new: NewIntent) -> Result<(), StoreError> {
        self.grouped(|reply| Change::RecordIntent(Box::new(new), reply)).await
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
        receiver.await.map_err(|_| gone())?
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the writer has stopped, or could not begin a transaction".to_owned())
}

async fn run(mut connection: SqliteConnection, mut receiver: mpsc::Receiver<Change>) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while receiver.recv_many(&mut batch, MAX_BATCH).await > 0 {
        commit(&mut connection, Groups::of(batch.drain(..))).await;
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the database did not close cleanly");
    }
}

/// A batch, sorted by kind. The changes of one batch are about different rows, or conditional on a state, so their order does
/// not matter.
#[derive(Default)]
struct Groups {
    intents: (Vec<NewIntent>, Vec<Reply>),
    advances: std::collections::BTreeMap<Transition, (Vec<Advance>, Vec<Reply>)>,
    steps: (Vec<CertificateStep>, Vec<Reply>),
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

async fn commit(connection: &mut SqliteConnection, groups: Groups) {
    if let Err(error) = sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await {
        // The changes do not run; dropping them tells their callers.
        tracing::error!(%error, "no write transaction can be started");
        return;
    }
    let mut completions = Vec::new();
    let mut outcome = apply(connection, groups, &mut completions).await;
    if outcome.is_ok() {
        outcome = sqlx::query("COMMIT").execute(&mut *connection).await.map(|_| ()).map_err(unavailable);
    }
    if let Err(error) = &outcome {
        tracing::error!(%error, "a write transaction failed and is rolled back");
        // After a failed commit SQLite may have rolled back by itself; the error then says that there is nothing to do.
        let _ = sqlx::query("ROLLBACK").execute(&mut *connection).await;
    }
    for completion in completions {
        completion(outcome.clone());
    }
}

/// Makes the changes of a batch; an error says that none of them may be committed.
async fn apply(
    connection: &mut SqliteConnection,
    groups: Groups,
    completions: &mut Vec<Completion>,
) -> Result<(), StoreError> {
    let mut entries: Vec<Entry> = Vec::new();
    if !groups.intents.0.is_empty() {
        let outcomes = issuance::record_intents(&mut *connection, &groups.intents.0).await;
        settle(groups.intents.1, outcomes, completions)?;
    }
    if !groups.steps.0.is_empty() {
        let outcomes = issuance::begin_certificates(&mut *connection, &groups.steps.0, &mut entries).await;
        settle(groups.steps.1, outcomes, completions)?;
    }
    for (transition, (changes, replies)) in groups.advances {
        let outcomes = issuance::advance(&mut *connection, transition, &changes, &mut entries).await;
        settle(replies, outcomes, completions)?;
    }
    audit::append_all(&mut *connection, entries).await?;
    for change in groups.alone {
        let (verdict, completion) = change(&mut *connection).await;
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
