//! Finds entries by digest, identity, publisher, serial and type, in a derived SQLite index.
//!
//! A follower fills it from published entries. Every answer says how much of the log the index covers, and every entry is
//! read from the log and checked to have the term before it is shown: the index only suggests. `transparency-log index`
//! makes it anew; so does deleting the file, and finding that it was made from another tree.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use log_store::Publication;
use serde_json::{Value, json};
use service::{Problem, StartRefusal};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{QueryBuilder, Row as _, Sqlite, SqlitePool};
use tlog::hash::TreeHead;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::api::{Handled, evidence, json as json_answer, of_store, parameter, published};
use crate::logs::ServedLog;
use crate::settings::Settings;
use crate::terms::{self, Term, TermKind};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS term (kind INTEGER NOT NULL, key BLOB NOT NULL, entry INTEGER NOT NULL,
        PRIMARY KEY (kind, key, entry)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS covered (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, root BLOB NOT NULL);
";
/// Entries per transaction.
const STEP: u64 = 1000;
/// Terms added by one statement.
const ROWS: usize = 64;
/// Pause when there is nothing more.
const PAUSE: Duration = Duration::from_millis(100);
/// Entries in one answer.
const PAGE: i64 = 50;
/// Searches at once. Each may read a page of entries and make their proofs; writers must not notice.
const SEARCHES: usize = 4;
/// Longest wait for one's turn.
const TURN: Duration = Duration::from_secs(5);

/// The index of one log.
#[derive(Debug)]
pub(crate) struct Lookup {
    pool: SqlitePool,
    covered: AtomicU64,
    /// Searches that may run at once.
    turns: Semaphore,
}

impl Lookup {
    /// Opens or makes the index file.
    pub(crate) async fn open(path: &Path) -> Result<Self, StartRefusal> {
        let refuse = |error: sqlx::Error| {
            StartRefusal::new(
                format!("cannot use the lookup index {}", path.display()),
                "delete the file: it is rebuilt from the log",
            )
            .because(error)
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Derived data: after a power loss the follower looks where it was and goes on.
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.map_err(refuse)?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await.map_err(refuse)?;
        Ok(Self { pool, covered: AtomicU64::new(0), turns: Semaphore::new(SEARCHES) })
    }

    /// Entries that the file says it covers, of whatever log it was made; `None` for a new one.
    pub(crate) async fn recorded(&self) -> Result<Option<u64>, String> {
        let row = sqlx::query("SELECT size FROM covered").fetch_optional(&self.pool).await.map_err(text)?;
        let size = row.map(|row| row.try_get::<i64, _>(0)).transpose().map_err(text)?;
        Ok(size.map(|size| u64::try_from(size).unwrap_or(u64::MAX)))
    }

    /// Entries of the log that the index holds.
    pub(crate) fn covered(&self) -> u64 {
        self.covered.load(Ordering::Acquire)
    }

    /// Follows a log until the task is dropped.
    pub(crate) async fn follow(log: Arc<ServedLog>) {
        let Some(lookup) = &log.lookup else { return };
        while let Err(error) = lookup.resume(&log).await {
            tracing::error!(
                log = log.settings.name,
                error,
                "the lookup index cannot be read; delete it to rebuild it"
            );
            tokio::time::sleep(PAUSE * 100).await;
        }
        loop {
            match lookup.step(&log).await {
                // What comes meanwhile is indexed together.
                Ok(count) if count < STEP => tokio::time::sleep(PAUSE).await,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(log = log.settings.name, error, "the lookup index does not advance");
                    tokio::time::sleep(PAUSE * 100).await;
                }
            }
        }
    }

    /// Finds where the index ends; one that was made from another tree is emptied.
    async fn resume(&self, log: &Arc<ServedLog>) -> Result<(), String> {
        let row =
            sqlx::query("SELECT size, root FROM covered").fetch_optional(&self.pool).await.map_err(text)?;
        let Some(row) = row else { return Ok(()) };
        let size = u64::try_from(row.try_get::<i64, _>(0).map_err(text)?).unwrap_or(u64::MAX);
        let root: Vec<u8> = row.try_get(1).map_err(text)?;
        // Only another root means another tree. As long as nothing so large is published nobody can say.
        let publication = loop {
            match log.log.publication() {
                Some(publication) if publication.tree().size >= size => break publication,
                _ => tokio::time::sleep(PAUSE).await,
            }
        };
        let reader = log.clone();
        let expected = tokio::task::spawn_blocking(move || reader.log.root_at(size, &publication));
        if expected.await.map_err(text)?.map_err(text)?.0.as_slice() == root {
            self.covered.store(size, Ordering::Release);
            return Ok(());
        }
        tracing::warn!(
            log = log.settings.name,
            size,
            "the lookup index was made from another tree; rebuilding it"
        );
        sqlx::raw_sql("BEGIN; DELETE FROM term; DELETE FROM covered; COMMIT;")
            .execute(&self.pool)
            .await
            .map_err(text)?;
        Ok(())
    }

    /// Indexes the next entries; returns how many.
    async fn step(&self, log: &Arc<ServedLog>) -> Result<u64, String> {
        let Some(publication) = log.log.publication() else { return Ok(0) };
        let from = self.covered();
        let count = publication.tree().size.saturating_sub(from).min(STEP);
        if count == 0 {
            return Ok(0);
        }
        let reader = log.clone();
        let (found, root) = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            reader.log.read(from, count, &publication, |index, stored| {
                found.push((index, terms::terms(reader.kind, stored)));
            })?;
            reader.log.root_at(from + count, &publication).map(|root| (found, root))
        })
        .await
        .map_err(text)?
        .map_err(text)?;
        insert(&self.pool, found, Some(&TreeHead { size: from + count, root })).await?;
        self.covered.store(from + count, Ordering::Release);
        Ok(count)
    }

    /// Entries that may have a term, from an index on.
    pub(crate) async fn candidates(
        &self,
        kind: TermKind,
        key: &[u8],
        from: u64,
    ) -> Result<Vec<u64>, Problem> {
        sqlx::query("SELECT entry FROM term WHERE kind = ? AND key = ? AND entry >= ? ORDER BY entry LIMIT ?")
            .bind(kind.code())
            .bind(key)
            .bind(i64::try_from(from).unwrap_or(i64::MAX))
            .bind(PAGE)
            .fetch_all(&self.pool)
            .await
            .map_err(Problem::internal)?
            .iter()
            .map(|row| row.try_get::<i64, _>(0).map(|entry| u64::try_from(entry).unwrap_or(u64::MAX)))
            .collect::<Result<_, _>>()
            .map_err(Problem::internal)
    }
}

/// What the index file of a log says of its size, if there is one: it is made of published entries, so that no smaller
/// log may start beside it.
pub(crate) fn seen(path: &Path, runtime: &Handle) -> Result<Option<(PathBuf, u64)>, StartRefusal> {
    if !path.exists() {
        return Ok(None);
    }
    let recorded = runtime.block_on(async {
        let lookup = Lookup::open(path).await?;
        let recorded = lookup.recorded().await;
        lookup.pool.close().await;
        recorded.map_err(|error| {
            StartRefusal::new(
                format!("cannot read the lookup index {}", path.display()),
                "delete the file: it is rebuilt from the log",
            )
            .because(error)
        })
    })?;
    Ok(recorded.map(|size| (path.to_owned(), size)))
}

/// Where the index of a log is.
pub(crate) fn path(settings: &Settings, log: &str) -> PathBuf {
    settings.data.join(log).join("lookup.sqlite")
}

/// Adds the terms of some entries, and notes how far the index then reaches, in one transaction.
async fn insert(
    pool: &SqlitePool,
    found: Vec<(u64, Vec<Term>)>,
    covered: Option<&TreeHead>,
) -> Result<(), String> {
    let mut transaction = pool.begin().await.map_err(text)?;
    let mut rows = Vec::with_capacity(found.len().saturating_mul(4));
    for (index, terms) in found {
        let entry = i64::try_from(index).map_err(text)?;
        rows.extend(terms.into_iter().map(|(kind, key)| (kind.code(), key, entry)));
    }
    // In the index's own order, and many in one statement: a statement costs more than the row it adds.
    rows.sort_unstable();
    for part in rows.chunks(ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new("INSERT OR IGNORE INTO term (kind, key, entry) ");
        query.push_values(part, |mut row, (kind, key, entry)| {
            row.push_bind(*kind).push_bind(key.as_slice()).push_bind(*entry);
        });
        let whole = part.len() == ROWS;
        query.build().persistent(whole).execute(&mut *transaction).await.map_err(text)?;
    }
    if let Some(tree) = covered {
        sqlx::query("INSERT OR REPLACE INTO covered (one, size, root) VALUES (1, ?, ?)")
            .bind(i64::try_from(tree.size).map_err(text)?)
            .bind(tree.root.0.to_vec())
            .execute(&mut *transaction)
            .await
            .map_err(text)?;
    }
    transaction.commit().await.map_err(text)
}

/// A new index file that is filled from the first entry on.
#[derive(Debug)]
pub(crate) struct Rebuild {
    pool: SqlitePool,
    pending: Vec<(u64, Vec<Term>)>,
}

impl Rebuild {
    /// Makes the file, which must not exist.
    pub(crate) async fn begin(path: &Path) -> Result<Self, StartRefusal> {
        let refuse = |error: sqlx::Error| {
            StartRefusal::new(format!("cannot make {}", path.display()), "check the folder's permissions")
                .because(error)
        };
        // One file without a log beside it, so that it can take the other's name.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Delete)
            .synchronous(SqliteSynchronous::Normal);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(refuse)?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await.map_err(refuse)?;
        Ok(Self { pool, pending: Vec::new() })
    }

    /// Takes the terms of the next entry.
    pub(crate) fn add(&mut self, index: u64, terms: Vec<Term>) {
        self.pending.push((index, terms));
    }

    /// Writes what was added.
    pub(crate) async fn flush(&mut self) -> Result<(), String> {
        insert(&self.pool, std::mem::take(&mut self.pending), None).await
    }

    /// Writes the rest and what the index covers.
    pub(crate) async fn finish(self, tree: &TreeHead) -> Result<(), String> {
        insert(&self.pool, self.pending, Some(tree)).await?;
        self.pool.close().await;
        Ok(())
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// `GET <base>/api/v1/lookup?digest=HEX|identity=TEXT|publisher=TEXT|serial=HEX|type=TEXT[&from=N]`: entries with fresh
/// proofs, oldest first; `next` says where to go on.
pub(crate) async fn answer(log: &Arc<ServedLog>, query: &str) -> Handled {
    let lookup = log.lookup.as_ref().ok_or_else(|| Problem::not_found("this log has no lookup index"))?;
    let (kind, key) = term(query)?;
    let from = match parameter(query, "from")? {
        Some(text) => {
            text.parse().map_err(|_| Problem::bad_request("malformed", "from is not a decimal number"))?
        }
        None => 0,
    };
    let _turn = tokio::time::timeout(TURN, lookup.turns.acquire())
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| Problem::unavailable("busy", 1).with_detail("too many searches at once"))?;
    // Before the search, so that the answer never claims more than was looked at.
    let covered = lookup.covered();
    let publication = published(log)?;
    let candidates = lookup.candidates(kind, &key, from).await?;
    let next = match candidates.last() {
        Some(last) if i64::try_from(candidates.len()) == Ok(PAGE) => Value::from(last + 1),
        _ => Value::Null,
    };
    let size = publication.tree().size;
    let reader = log.clone();
    // Up to a page of entries and proofs is read from disk: not on the threads that answer writers.
    let read = move || {
        let checked = candidates.into_iter().map(|index| checked(&reader, index, kind, &key, &publication));
        checked.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()
    };
    let entries = tokio::task::spawn_blocking(read).await.map_err(Problem::internal)??;
    Ok(json_answer(
        StatusCode::OK,
        &json!({ "covered_size": covered, "tree_size": size, "entries": entries, "next": next }),
    ))
}

/// The entry, if it is published and really has the term.
fn checked(
    log: &ServedLog,
    index: u64,
    kind: TermKind,
    key: &[u8],
    publication: &Publication,
) -> Result<Option<Value>, Problem> {
    if index >= publication.tree().size {
        return Ok(None);
    }
    let stored = log.log.entry(index, publication).map_err(of_store)?;
    if !terms::terms(log.kind, &stored).iter().any(|(found, term)| *found == kind && term == key) {
        tracing::warn!(
            log = log.settings.name,
            index,
            "the lookup index names an entry that does not have the term"
        );
        return Ok(None);
    }
    let json = evidence(log, index, stored, publication)?.to_json().map_err(Problem::internal)?;
    serde_json::from_slice(&json).map(Some).map_err(Problem::internal)
}

fn term(query: &str) -> Result<(TermKind, Vec<u8>), Problem> {
    let malformed = |detail: &str| Problem::bad_request("malformed", detail.to_owned());
    let mut found = None;
    for (name, kind) in [
        ("digest", TermKind::Digest),
        ("identity", TermKind::Identity),
        ("publisher", TermKind::Publisher),
        ("serial", TermKind::Serial),
        ("type", TermKind::Type),
    ] {
        if let Some(text) = parameter(query, name)? {
            if found.is_some() || text.is_empty() {
                return Err(malformed("give exactly one of digest, identity, publisher, serial and type"));
            }
            let hex = || {
                let digits = text.strip_prefix("sha256:").unwrap_or(&text).replace(':', "");
                let even = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
                hex::decode(even).map_err(|_| malformed("digests and serials are hexadecimal"))
            };
            found = Some(match kind {
                TermKind::Digest => (kind, hex()?),
                TermKind::Serial => (kind, terms::serial(&hex()?)),
                _ => (kind, text.into_bytes()),
            });
        }
    }
    found.ok_or_else(|| malformed("give one of digest, identity, publisher, serial and type"))
}
