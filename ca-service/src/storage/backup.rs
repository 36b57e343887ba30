//! The database as a file: copied while it is written to, proven, and made safe to go on with after a restore.

use std::path::Path;

use ca_pki::UnixTime;
use rusqlite::OpenFlags;
use serde::{Deserialize, Serialize};

use super::rows::{self, get};
use super::sql::{Connection, params};
use super::sqlite::{connect, durable, unavailable};
use super::{State, Step, StoreError, audit, identity_tokens};
use crate::oidc::claims::CLOCK_SKEW;

/// How far CRL numbers jump at a restore: lists that are signed every second for a century use fewer.
pub const SKIPPED_CRL_NUMBERS: i64 = 1 << 32;

/// Position and hash of an audit record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditHead {
    /// Its position, from 1.
    pub sequence: u64,
    /// Its hash, hexadecimal.
    pub hash: String,
}

/// What a restore took for granted about the time after the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// When the backup was made, seconds since 1970.
    pub made_at: i64,
    /// Issuances that were open and may have been signed since.
    pub maybe_issued: u64,
    /// Unused tokens, which are void.
    pub void_tokens: u64,
    /// Requests that waited for approval or for their certificate, which are ended.
    pub ended_requests: u64,
    /// By how much the numbers of revocation lists jumped.
    pub skipped_crl_numbers: i64,
}

/// Copies the database as of one moment. Others may read and write it meanwhile.
pub(crate) fn copy_database(from: &Path, to: &Path) -> Result<(), StoreError> {
    let to = to.to_str().ok_or_else(|| StoreError::Unavailable("a path is not UTF-8".to_owned()))?;
    let connection = Connection::Sqlite(connect(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?);
    rows::execute(&connection, "VACUUM INTO ?", params![to]).map(|_| ())
}

/// Checks a copy's structure and its audit trail; returns the newest audit record.
pub(crate) fn prove_database(path: &Path) -> Result<AuditHead, StoreError> {
    let connection = Connection::Sqlite(connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?);
    let sound = rows::first(&connection, "PRAGMA integrity_check(1)", &[], |row| get::<String>(row, 0))?;
    if sound.as_deref() != Some("ok") {
        return Err(StoreError::Corrupted("the copy is damaged".to_owned()));
    }
    let mut previous: Option<audit::Record> = None;
    loop {
        let after = previous.as_ref().map_or(0, |record| record.sequence);
        let page = audit::read(&connection, after, 1_000)?;
        if page.is_empty() {
            break;
        }
        for record in page {
            if !audit::follows(previous.as_ref(), &record) {
                return Err(StoreError::Corrupted(format!(
                    "audit record {} does not follow the one before",
                    record.sequence
                )));
            }
            previous = Some(record);
        }
    }
    let newest = previous.ok_or_else(|| StoreError::Corrupted("there is no audit trail".to_owned()))?;
    Ok(AuditHead { sequence: newest.sequence, hash: hex::encode(newest.hash) })
}

/// Takes for granted that whatever was possible after the backup was done, in one transaction with its audit record.
pub(crate) fn enter_restored(path: &Path, made_at: i64, at: UnixTime) -> Result<Restored, StoreError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    durable(&connection)?;
    let connection = Connection::Sqlite(connection);
    connection.begin()?;
    let restored = enter(&connection, made_at, at)?;
    connection.commit()?;
    connection.close();
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE")
        .map_err(unavailable)?;
    connection.close().map_err(|(_, error)| unavailable(error))?;
    Ok(restored)
}

pub(super) fn enter(connection: &Connection, made_at: i64, at: UnixTime) -> Result<Restored, StoreError> {
    // A precertificate whose log was not yet recorded may have its certificate by now; a second one must never be signed.
    let intents = rows::all(
        connection,
        "UPDATE certificate SET state = ?1, reason = 'open when the backup was made', updated_at = ?2 \
         WHERE state IN (?3, ?4) OR (state = ?5 AND step = ?6) RETURNING intent",
        params![
            State::MaybeIssued as i64,
            at.0,
            State::Intent as i64,
            State::Signing as i64,
            State::Signed as i64,
            Step::Precertificate as i64,
        ],
        |row| Ok(hex::encode(rows::blob(row, 0)?)),
    )?;
    let void = rows::execute(
        connection,
        "UPDATE token SET expires_at = ?1 WHERE used_by IS NULL AND expires_at > ?1",
        params![at.0],
    )?;
    // Any of them may have been denied since, or its certificate issued.
    let requests = rows::all(
        connection,
        "UPDATE enrolment_request SET state = 5, closed_at = ?, closed_by = 'operator', \
         reason = 'open when the backup was made' WHERE state IN (0, 1) RETURNING id",
        params![at.0],
        |row| Ok(hex::encode(rows::blob(row, 0)?)),
    )?;
    // Their issuers' clocks may be ahead of this one by as much as is allowed.
    identity_tokens::void_before(connection, at.plus(CLOCK_SKEW))?;
    rows::execute(
        connection,
        "UPDATE crl_part SET allotted = allotted + ?, changed = 1",
        params![SKIPPED_CRL_NUMBERS],
    )?;
    let detail = serde_json::json!({
        "made_at": made_at,
        "maybe_issued": intents,
        "void_tokens": void,
        "ended_requests": requests,
        "skipped_crl_numbers": SKIPPED_CRL_NUMBERS,
    });
    audit::append(connection, "backup.restored", "operator", detail, at)?;
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    Ok(Restored {
        made_at,
        maybe_issued: count(intents.len()),
        void_tokens: count(void),
        ended_requests: count(requests.len()),
        skipped_crl_numbers: SKIPPED_CRL_NUMBERS,
    })
}
