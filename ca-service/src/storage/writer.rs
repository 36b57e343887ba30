//! One task writes. What arrives while it commits goes into the next commit together (group commit, rule f).

use futures_util::future::BoxFuture;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::rows::unavailable;

/// Most changes in one commit: bounds how long the first of them waits.
const MAX_BATCH: usize = 256;
/// Changes that may wait; beyond, callers wait for room.
const QUEUE: usize = 4096;

/// Told whether the commit succeeded, and passes the change's own outcome on.
type Completion = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
type Change =
    Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, (Verdict, Completion)> + Send>;

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
}

impl Writer {
    pub(super) fn start(connection: SqliteConnection) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(run(connection, receiver));
        Self { queue }
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
        let (sender, receiver) = oneshot::channel();
        let boxed: Change = Box::new(move |connection| {
            Box::pin(async move {
                let outcome = change(connection).await;
                let verdict = match &outcome {
                    Err(error @ (StoreError::Unavailable(_) | StoreError::Corrupted(_))) => {
                        Verdict::Spoiled(error.clone())
                    }
                    _ => Verdict::Keep,
                };
                let completion: Completion = Box::new(move |committed| {
                    // A caller that went away has no use for the answer.
                    let _ = sender.send(committed.and(outcome));
                });
                (verdict, completion)
            })
        });
        let gone = || StoreError::Unavailable("the writer has stopped".to_owned());
        self.queue.send(boxed).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }
}

async fn run(mut connection: SqliteConnection, mut receiver: mpsc::Receiver<Change>) {
    while let Some(first) = receiver.recv().await {
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(next) = receiver.try_recv()
        {
            batch.push(next);
        }
        commit(&mut connection, batch).await;
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the database did not close cleanly");
    }
}

async fn commit(connection: &mut SqliteConnection, batch: Vec<Change>) {
    let mut completions = Vec::with_capacity(batch.len());
    let mut outcome =
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await.map(|_| ()).map_err(unavailable);
    if outcome.is_err() {
        // The changes do not run; dropping them tells their callers.
        tracing::error!(?outcome, "no write transaction can be started");
        return;
    }
    for change in batch {
        let (verdict, completion) = change(&mut *connection).await;
        completions.push(completion);
        if let Verdict::Spoiled(error) = verdict {
            outcome = Err(error);
            break;
        }
    }
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
