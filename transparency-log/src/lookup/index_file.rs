//! The file of a lookup index: an SQLite table of terms, with a digest over all of them.
//!
//! A wrong hit is found when its entry is read; a term that is missing would be found by nothing. So the file keeps a sum
//! over the terms that were written, and [`Verification`] reads the whole table in order and compares: a table whose rows
//! are in order and add up to that sum answers every search completely.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{QueryBuilder, Row as _, Sqlite, SqlitePool, TypeInfo as _, ValueRef as _};
use tlog::hash::{Hash, TreeHead};

use crate::terms::{self, Term, TermKind};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS term (kind INTEGER NOT NULL, key BLOB NOT NULL, entry INTEGER NOT NULL,
        PRIMARY KEY (kind, key, entry)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS covered (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, root BLOB NOT NULL,
        terms BLOB);
";
/// Terms added by one statement.
const ROWS: usize = 64;

/// Sum of the hashes of a set of terms, which does not depend on their order. It finds damage, not forgery: who can write
/// the file can write its sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TermSum(u128);

impl TermSum {
    /// Adds one row: SHA-256 of kind (8 bytes), entry (8 bytes), both big-endian, and key, cut to 16 bytes.
    fn add(&mut self, kind: i64, key: &[u8], entry: i64) {
        let mut row = Vec::with_capacity(16 + key.len());
        row.extend_from_slice(&kind.to_be_bytes());
        row.extend_from_slice(&entry.to_be_bytes());
        row.extend_from_slice(key);
        let mut cut = [0; 16];
        cut.iter_mut().zip(Hash::digest(&row).0).for_each(|(to, from)| *to = from);
        self.0 = self.0.wrapping_add(u128::from_be_bytes(cut));
    }

    /// As stored: the version of the terms (4 bytes), then the sum (16 bytes), both big-endian.
    fn to_bytes(self) -> Vec<u8> {
        [&terms::VERSION.to_be_bytes()[..], &self.0.to_be_bytes()].concat()
    }

    /// `None` for what another version wrote.
    fn from_bytes(stored: &[u8]) -> Option<Self> {
        let (version, sum) = stored.split_first_chunk()?;
        (u32::from_be_bytes(*version) == terms::VERSION)
            .then(|| sum.try_into().ok().map(|sum| Self(u128::from_be_bytes(sum))))?
    }

    /// Adds the terms of one entry, each once.
    pub(crate) fn add_entry(&mut self, index: u64, terms: Vec<Term>) -> Result<(), IndexError> {
        rows(vec![(index, terms)])?.iter().for_each(|(kind, key, entry)| self.add(*kind, key, *entry));
        Ok(())
    }
}

/// What an index file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Covered {
    /// Entries whose terms it has; as far as they are in it.
    pub(crate) size: u64,
    /// Root of the tree of so many entries.
    pub(crate) root: Vec<u8>,
    /// What its terms add up to; `None` when it was made by a version that indexed other things, or kept no sum.
    pub(crate) terms: Option<TermSum>,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// By the server: made if it is not there.
    Serve,
    /// To be looked at only.
    Read,
    /// A new one, without a log beside it, so that it can take another's name.
    New,
}

/// An open index file.
#[derive(Debug)]
pub(crate) struct IndexFile {
    path: PathBuf,
    /// Replaced when the file is begun anew.
    pool: Mutex<SqlitePool>,
}

/// A row of the table: kind, key, entry.
type Row = (i64, Vec<u8>, i64);

/// Why an index file does not serve.
#[derive(Debug)]
pub(crate) enum IndexError {
    /// It is closed or in use at this moment.
    Busy(String),
    /// It does not hold what was written to it: it is to be made anew.
    Damaged(String),
    /// It could not be read or written now.
    Failed(String),
    /// It was made from another tree, or by a version that indexed other things: it is to be made anew.
    Outdated(String),
}

impl IndexError {
    /// Whether only a new file helps.
    pub(crate) const fn demands_a_new_file(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Outdated(_))
    }
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(why) | Self::Damaged(why) | Self::Failed(why) | Self::Outdated(why) => {
                f.write_str(why)
            }
        }
    }
}

impl std::error::Error for IndexError {}

impl From<sqlx::Error> for IndexError {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        let damaged = match &error {
            sqlx::Error::PoolClosed | sqlx::Error::PoolTimedOut => return Self::Busy(text),
            // SQLITE_CORRUPT and SQLITE_NOTADB; the higher bits say more of the same.
            sqlx::Error::Database(error) => error
                .code()
                .and_then(|code| code.parse().ok())
                .is_some_and(|code: u32| matches!(code & 0xff, 11 | 26)),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => true,
            _ => false,
        };
        if damaged { Self::Damaged(text) } else { Self::Failed(text) }
    }
}

impl IndexFile {
    /// Opens or makes the file.
    pub(crate) async fn open(path: &Path, opening: Opening) -> Result<Self, sqlx::Error> {
        Ok(Self { path: path.to_owned(), pool: Mutex::new(connect(path, opening).await?) })
    }

    fn pool(&self) -> SqlitePool {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes it; what was written is in the one file then.
    pub(crate) async fn close(&self) {
        self.pool().close().await;
    }

    /// What the file says that it covers, of whatever log it was made; `None` for a new one.
    pub(crate) async fn covered(&self) -> Result<Option<Covered>, IndexError> {
        // A file from before there was a sum has no such column as long as it is only read.
        let query = match has_sum(&self.pool()).await? {
            true => "SELECT size, root, terms FROM covered",
            false => "SELECT size, root, NULL FROM covered",
        };
        let Some(row) = sqlx::query(query).fetch_optional(&self.pool()).await? else { return Ok(None) };
        let terms: Option<Vec<u8>> = row.try_get(2)?;
        Ok(Some(Covered {
            size: u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(u64::MAX),
            root: row.try_get(1)?,
            terms: terms.as_deref().and_then(TermSum::from_bytes),
        }))
    }

    /// Throws the file away and begins a new one.
    pub(crate) async fn start_over(&self) -> Result<(), IndexError> {
        self.close().await;
        for end in ["", "-wal", "-shm", "-journal"] {
            let mut path = self.path.clone().into_os_string();
            path.push(end);
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(IndexError::Failed(error.to_string()));
                }
                _ => {}
            }
        }
        let new = connect(&self.path, Opening::Serve).await?;
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Adds the terms of some entries to those that add up to `sum`, and notes how far the index then reaches, in one
    /// transaction; returns what all of them add up to.
    pub(crate) async fn insert(
        &self,
        found: Vec<(u64, Vec<Term>)>,
        mut sum: TermSum,
        covered: Option<&TreeHead>,
    ) -> Result<TermSum, IndexError> {
        let rows = rows(found)?;
        let mut transaction = self.pool().begin().await?;
        for part in rows.chunks(ROWS) {
            let mut query = QueryBuilder::<Sqlite>::new("INSERT OR IGNORE INTO term (kind, key, entry) ");
            query.push_values(part, |mut row, (kind, key, entry)| {
                row.push_bind(*kind).push_bind(key.as_slice()).push_bind(*entry);
            });
            let whole = part.len() == ROWS;
            query.build().persistent(whole).execute(&mut *transaction).await?;
        }
        rows.iter().for_each(|(kind, key, entry)| sum.add(*kind, key, *entry));
        if let Some(tree) = covered {
            sqlx::query("INSERT OR REPLACE INTO covered (one, size, root, terms) VALUES (1, ?, ?, ?)")
                .bind(number(tree.size)?)
                .bind(tree.root.0.to_vec())
                .bind(sum.to_bytes())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(sum)
    }

    /// Entries that may have a term, from an index on, at most `count`, in order.
    pub(crate) async fn candidates(
        &self,
        kind: TermKind,
        key: &[u8],
        from: u64,
        count: u32,
    ) -> Result<Vec<u64>, IndexError> {
        sqlx::query("SELECT entry FROM term WHERE kind = ? AND key = ? AND entry >= ? ORDER BY entry LIMIT ?")
            .bind(kind.code())
            .bind(key)
            .bind(i64::try_from(from).unwrap_or(i64::MAX))
            .bind(i64::from(count))
            .fetch_all(&self.pool())
            .await?
            .iter()
            .map(|row| Ok(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(u64::MAX)))
            .collect()
    }

    /// The rows behind `last`, at most `count`, in the order of the table.
    async fn rows_behind(&self, last: Option<&Row>, count: u32) -> Result<Vec<Row>, IndexError> {
        let query = match last {
            None => sqlx::query("SELECT kind, key, entry FROM term ORDER BY kind, key, entry LIMIT ?"),
            Some((kind, key, entry)) => sqlx::query(
                "SELECT kind, key, entry FROM term WHERE (kind, key, entry) > (?, ?, ?) ORDER BY kind, key, entry LIMIT ?",
            )
            .bind(*kind)
            .bind(key.as_slice())
            .bind(*entry),
        };
        let mut connection = self.pool().acquire().await?;
        // From the file: pages that this connection still has say nothing of what another one, or the next start, reads.
        sqlx::raw_sql("PRAGMA shrink_memory").execute(&mut *connection).await?;
        let rows = query.bind(i64::from(count)).fetch_all(&mut *connection).await?;
        rows.iter().map(read_row).collect()
    }
}

/// A reading of the whole table, some rows at a time, beside searches and additions.
#[derive(Debug)]
pub(crate) struct Verification {
    size: u64,
    expected: TermSum,
    found: TermSum,
    last: Option<Row>,
}

impl Verification {
    /// Of the terms of the first `size` entries, which add up to `expected`.
    pub(crate) fn new(size: u64, expected: TermSum) -> Self {
        Self { size, expected, found: TermSum::default(), last: None }
    }

    /// Reads the next rows, at most `count`. True when the table was read to its end and holds what it should.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] when it does not.
    pub(crate) async fn step(&mut self, file: &IndexFile, count: u32) -> Result<bool, IndexError> {
        let rows = file.rows_behind(self.last.as_ref(), count).await?;
        let ended = u32::try_from(rows.len()).is_ok_and(|read| read < count);
        for row in rows {
            if self.last.as_ref().is_some_and(|last| *last >= row) {
                return Err(IndexError::Damaged("its rows are out of order".to_owned()));
            }
            // Later entries may be added while it is read.
            if u64::try_from(row.2).is_ok_and(|entry| entry < self.size) {
                self.found.add(row.0, &row.1, row.2);
            }
            self.last = Some(row);
        }
        if ended && self.found != self.expected {
            return Err(IndexError::Damaged("its terms are not those that were written".to_owned()));
        }
        Ok(ended)
    }

    /// Reads all that is left.
    pub(crate) async fn finish(mut self, file: &IndexFile) -> Result<(), IndexError> {
        while !self.step(file, 4096).await? {}
        Ok(())
    }
}

async fn connect(path: &Path, opening: Opening) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        // Derived data: after a power loss the follower looks where it was and goes on.
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(Duration::from_secs(5));
    let (options, connections) = match opening {
        Opening::Serve => (options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal), 4),
        Opening::Read => (options.read_only(true), 1),
        Opening::New => (options.create_if_missing(true).journal_mode(SqliteJournalMode::Delete), 1),
    };
    let pool = SqlitePoolOptions::new().max_connections(connections).connect_with(options).await?;
    if opening != Opening::Read {
        sqlx::raw_sql(SCHEMA).execute(&pool).await?;
        if !has_sum(&pool).await? {
            sqlx::raw_sql("ALTER TABLE covered ADD COLUMN terms BLOB").execute(&pool).await?;
        }
    }
    Ok(pool)
}

fn read_row(row: &SqliteRow) -> Result<Row, IndexError> {
    // One bit makes a text of the bytes, which no search for bytes finds.
    if row.try_get_raw(1)?.type_info().name() != "BLOB" {
        return Err(IndexError::Damaged("a key is no bytes".to_owned()));
    }
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
}

async fn has_sum(pool: &SqlitePool) -> Result<bool, sqlx::Error> {
    let column = "SELECT 1 FROM pragma_table_info('covered') WHERE name = 'terms'";
    Ok(sqlx::query(column).fetch_optional(pool).await?.is_some())
}

/// The rows of some entries, each once, in the table's own order: many are added by one statement, and a statement costs
/// more than the row that it adds.
fn rows(found: Vec<(u64, Vec<Term>)>) -> Result<Vec<Row>, IndexError> {
    let mut rows = Vec::with_capacity(found.len().saturating_mul(4));
    for (index, terms) in found {
        let entry = number(index)?;
        rows.extend(terms.into_iter().map(|(kind, key)| (kind.code(), key, entry)));
    }
    rows.sort_unstable();
    rows.dedup();
    Ok(rows)
}

fn number(index: u64) -> Result<i64, IndexError> {
    i64::try_from(index).map_err(|error| IndexError::Failed(error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
mod tests;
