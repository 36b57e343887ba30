//! SQLite: WAL, `synchronous = FULL`, one writer, a few readers.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, ffi, params_from_iter};

use super::StoreError;
use super::sql::{Row, Value};

/// Statements that stay prepared on a connection: every one there is.
const STATEMENTS: usize = 64;
/// KiB of pages that the writer keeps in memory: the inner pages of the indexes of some ten million certificates.
const WRITER_CACHE: i64 = 32 << 10;
/// Pages of the write-ahead log at which a commit copies them into the database itself, where nobody did it before (`checkpoints.rs`).
const CHECKPOINT_PAGES: i64 = 48_000;

/// A connection that waits for others, without a lock of its own: each is used by one thread at a time.
pub(super) fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(unavailable)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(unavailable)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(unavailable)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Has the connection's commits be durable when they return.
pub(super) fn durable(connection: &Connection) -> Result<(), StoreError> {
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(unavailable)?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(StoreError::Unavailable(format!("the journal's mode is {mode}, not WAL")));
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(unavailable)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE).map_err(unavailable)?;
    connection
        .pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))
        .map_err(unavailable)
}

/// What SQLite's error says about the store.
pub(super) fn unavailable(error: rusqlite::Error) -> StoreError {
    // The second: the index of the write-ahead log could not grow.
    match error.sqlite_error() {
        Some(code) if matches!(code.extended_code, ffi::SQLITE_FULL | ffi::SQLITE_IOERR_SHMSIZE) => {
            StoreError::Full(error.to_string())
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}

/// Executes a statement that is prepared once; returns how many rows it changed.
pub(super) fn execute(
    connection: &Connection,
    statement: &str,
    parameters: &[Value<'_>],
) -> Result<usize, StoreError> {
    connection
        .prepare_cached(statement)
        .and_then(|mut ready| ready.execute(params_from_iter(parameters)))
        .map_err(unavailable)
}

/// The first row of a query that is prepared once.
pub(super) fn first<T>(
    connection: &Connection,
    query: &str,
    parameters: &[Value<'_>],
    read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut ready = connection.prepare_cached(query).map_err(unavailable)?;
    let mut rows = ready.query(params_from_iter(parameters)).map_err(unavailable)?;
    rows.next().map_err(unavailable)?.map(|row| read(&Row::Sqlite(row))).transpose()
}

/// Every row of a query that is prepared once.
pub(super) fn all<T>(
    connection: &Connection,
    query: &str,
    parameters: &[Value<'_>],
    mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut ready = connection.prepare_cached(query).map_err(unavailable)?;
    let mut rows = ready.query(params_from_iter(parameters)).map_err(unavailable)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(unavailable)? {
        found.push(read(&Row::Sqlite(row))?);
    }
    Ok(found)
}
