//! SQL of revocations. One row each, found by primary key: the cost does not grow with the number revoked.

use std::collections::HashSet;

use ca_pki::crl::RevocationReason;
use ca_pki::{SerialNumber, UnixTime};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqlitePool};

use super::rows::{self, column, get, stored_index, unavailable};
use super::{NewRevocation, State, StoreError, StoredRevocation, audit};

pub(super) async fn revoke(
    connection: &mut SqliteConnection,
    new: &NewRevocation,
) -> Result<StoredRevocation, StoreError> {
    let row = sqlx::query("SELECT issuer, shard, state FROM certificate WHERE serial = ?")
        .bind(new.serial.as_bytes())
        .fetch_optional(&mut *connection)
        .await
        .map_err(unavailable)?
        .ok_or(StoreError::NotFound)?;
    let issuer: String = get(&row, 0)?;
    let shard = rows::shard(get(&row, 1)?)?;
    // Nothing was signed: there is nothing to revoke, and answers are not good anyway.
    if matches!(rows::state(get(&row, 2)?)?, State::Intent | State::Abandoned) {
        return Err(StoreError::StateConflict);
    }
    let (mut revoked_at, mut recorded_at) = (new.revoked_at, new.at);
    if let Some(recorded) = find(&mut *connection, &issuer, i64::from(shard.0), &new.serial).await? {
        let graver = is_compromise(new.reason) && !is_compromise(recorded.reason);
        if !graver && recorded.reason != new.reason {
            return Err(StoreError::RevokedForAnotherReason);
        }
        if !graver && recorded.revoked_at <= new.revoked_at {
            return Ok(recorded);
        }
        revoked_at = revoked_at.min(recorded.revoked_at);
        // Every version of a record has a time of its own, so that the event log's index stays with the right one.
        recorded_at = recorded_at.max(recorded.recorded_at.plus(1));
    }
    sqlx::query(
        "INSERT INTO revocation (issuer, shard, serial, revoked_at, recorded_at, reason, actor) \
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (issuer, shard, serial) DO UPDATE SET \
         revoked_at = excluded.revoked_at, recorded_at = excluded.recorded_at, reason = excluded.reason, \
         actor = excluded.actor, event_index = NULL",
    )
    .bind(&issuer)
    .bind(i64::from(shard.0))
    .bind(new.serial.as_bytes())
    .bind(revoked_at.0)
    .bind(recorded_at.0)
    .bind(i64::from(new.reason.code()))
    .bind(&new.actor)
    .execute(&mut *connection)
    .await
    .map_err(unavailable)?;
    sqlx::query("UPDATE certificate SET state = ?, updated_at = ? WHERE serial = ?")
        .bind(State::Revoked as i64)
        .bind(new.at.0)
        .bind(new.serial.as_bytes())
        .execute(&mut *connection)
        .await
        .map_err(unavailable)?;
    sqlx::query("UPDATE crl_part SET changed = 1 WHERE issuer = ? AND part IN (?, -1)")
        .bind(&issuer)
        .bind(i64::from(shard.0))
        .execute(&mut *connection)
        .await
        .map_err(unavailable)?;
    let detail = serde_json::json!({
        "serial": new.serial.to_string(),
        "issuer": issuer,
        "revoked_at": revoked_at.0,
        "reason": new.reason.code(),
    });
    audit::append(&mut *connection, "certificate.revoked", &new.actor, &detail.to_string(), new.at).await?;
    find(connection, &issuer, i64::from(shard.0), &new.serial)
        .await?
        .ok_or_else(|| rows::corrupted("a revocation that was just written is missing"))
}

/// Reasons that say that the key is in other hands.
fn is_compromise(reason: RevocationReason) -> bool {
    matches!(reason, RevocationReason::KeyCompromise | RevocationReason::CaCompromise)
}

/// Which of these keys have a certificate that was revoked because the key was compromised (C9).
pub(super) async fn compromised(
    connection: &mut SqliteConnection,
    keys: &[[u8; 32]],
) -> Result<HashSet<[u8; 32]>, StoreError> {
    let mut found = HashSet::new();
    for part in rows::portions(keys) {
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new(
            "SELECT c.spki_sha256 FROM certificate c JOIN revocation r \
             ON r.issuer = c.issuer AND r.shard = c.shard AND r.serial = c.serial WHERE r.reason IN (",
        );
        query
            .push_bind(i64::from(RevocationReason::KeyCompromise.code()))
            .push(", ")
            .push_bind(i64::from(RevocationReason::CaCompromise.code()))
            .push(") AND c.spki_sha256 IN ");
        rows::push_list(&mut query, part.iter().map(|key| key.as_slice()));
        for row in query.build().fetch_all(&mut *connection).await.map_err(unavailable)? {
            found.insert(column::<32>(&row, 0)?);
        }
    }
    Ok(found)
}

async fn find(
    connection: &mut SqliteConnection,
    issuer: &str,
    shard: i64,
    serial: &SerialNumber,
) -> Result<Option<StoredRevocation>, StoreError> {
    let row = sqlx::query(
        "SELECT issuer, shard, serial, revoked_at, recorded_at, reason, event_index FROM revocation \
         WHERE issuer = ? AND shard = ? AND serial = ?",
    )
    .bind(issuer)
    .bind(shard)
    .bind(serial.as_bytes())
    .fetch_optional(connection)
    .await
    .map_err(unavailable)?;
    row.as_ref().map(rows::revocation).transpose()
}

pub(super) async fn unlogged(pool: &SqlitePool, limit: u32) -> Result<Vec<StoredRevocation>, StoreError> {
    let found = sqlx::query(
        "SELECT issuer, shard, serial, revoked_at, recorded_at, reason, event_index FROM revocation \
         WHERE event_index IS NULL ORDER BY recorded_at LIMIT ?",
    )
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
    .map_err(unavailable)?;
    found.iter().map(rows::revocation).collect()
}

pub(super) async fn record_logged(
    connection: &mut SqliteConnection,
    serial: &SerialNumber,
    recorded_at: UnixTime,
    index: u64,
) -> Result<(), StoreError> {
    let key = sqlx::query("SELECT issuer, shard FROM certificate WHERE serial = ?")
        .bind(serial.as_bytes())
        .fetch_optional(&mut *connection)
        .await
        .map_err(unavailable)?
        .ok_or(StoreError::NotFound)?;
    // A date that was moved meanwhile needs a statement of its own.
    sqlx::query(
        "UPDATE revocation SET event_index = ? WHERE issuer = ? AND shard = ? AND serial = ? AND recorded_at = ?",
    )
    .bind(stored_index(index)?)
    .bind(get::<String>(&key, 0)?)
    .bind(get::<i64>(&key, 1)?)
    .bind(serial.as_bytes())
    .bind(recorded_at.0)
    .execute(connection)
    .await
    .map_err(unavailable)?;
    Ok(())
}
