//! SQL of issuances: the transitions of ca-requirements §4.

use ca_pki::{SerialNumber, UnixTime};
use sha2::{Digest, Sha256};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqlitePool};

use super::rows::{self, certificate_select, get, stored_index, unavailable};
use super::{
    IntentId, NewIntent, Search, State, Step, StoreError, StoredCertificate, StoredStatus, audit,
    revocations, tokens,
};

pub(super) async fn record_intent(
    connection: &mut SqliteConnection,
    new: &NewIntent,
) -> Result<(), StoreError> {
    if revocations::key_is_compromised(&mut *connection, &new.spki_sha256).await? {
        return Err(StoreError::KeyCompromised);
    }
    if let Some(token) = &new.token {
        tokens::consume(&mut *connection, token, &new.intent, new.at).await?;
    }
    sqlx::query(
        "INSERT INTO certificate (serial, intent, issuer, profile, identity_kind, identity, spki_sha256, requester, \
         request_id, evidence, not_before, not_after, shard, state, step, tbs_sha256, tbs, created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(new.serial.as_bytes())
    .bind(new.intent.as_slice())
    .bind(&new.issuer)
    .bind(&new.profile)
    .bind(new.identity.as_ref().map(rows::identity_kind))
    .bind(new.identity.as_ref().map(|identity| identity.as_str()))
    .bind(new.spki_sha256.as_slice())
    .bind(&new.requester)
    .bind(&new.request_id)
    .bind(&new.evidence)
    .bind(new.not_before.0)
    .bind(new.not_after.0)
    .bind(i64::from(new.shard.0))
    .bind(State::Intent as i64)
    .bind(new.step as i64)
    .bind(Sha256::digest(&new.tbs).as_slice())
    .bind(&new.tbs)
    .bind(new.at.0)
    .bind(new.at.0)
    .execute(connection)
    .await
    .map_err(unavailable)?;
    Ok(())
}

/// One conditional transition; refuses without writing when the row is not in `from` and `step`.
async fn transition(
    connection: &mut SqliteConnection,
    intent: &IntentId,
    (from, step): (State, Step),
    to: State,
    at: UnixTime,
) -> Result<(), StoreError> {
    let changed = sqlx::query(
        "UPDATE certificate SET state = ?, updated_at = ? WHERE intent = ? AND state = ? AND step = ?",
    )
    .bind(to as i64)
    .bind(at.0)
    .bind(intent.as_slice())
    .bind(from as i64)
    .bind(step as i64)
    .execute(connection)
    .await
    .map_err(unavailable)?;
    if changed.rows_affected() == 1 { Ok(()) } else { Err(StoreError::StateConflict) }
}

pub(super) async fn begin_signing(
    connection: &mut SqliteConnection,
    intent: &IntentId,
    detail: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    let changed = sqlx::query(
        "UPDATE certificate SET state = ?, updated_at = ? WHERE intent = ? AND state = ? RETURNING requester",
    )
    .bind(State::Signing as i64)
    .bind(at.0)
    .bind(intent.as_slice())
    .bind(State::Intent as i64)
    .fetch_optional(&mut *connection)
    .await
    .map_err(unavailable)?
    .ok_or(StoreError::StateConflict)?;
    let requester: String = get(&changed, 0)?;
    audit::append(connection, "certificate.signing", &requester, detail, at).await
}

pub(super) async fn record_precertificate(
    connection: &mut SqliteConnection,
    intent: &IntentId,
    signature: &[u8],
    at: UnixTime,
) -> Result<(), StoreError> {
    let changed = sqlx::query(
        "UPDATE certificate SET state = ?, signature = ?, updated_at = ? WHERE intent = ? AND state = ? AND step = ?",
    )
    .bind(State::Signed as i64)
    .bind(signature)
    .bind(at.0)
    .bind(intent.as_slice())
    .bind(State::Signing as i64)
    .bind(Step::Precertificate as i64)
    .execute(connection)
    .await
    .map_err(unavailable)?;
    if changed.rows_affected() == 1 { Ok(()) } else { Err(StoreError::StateConflict) }
}

pub(super) struct CertificateStep<'a> {
    pub(super) sct: &'a [u8],
    pub(super) log_index: Option<u64>,
    pub(super) tbs: &'a [u8],
}

pub(super) async fn begin_certificate(
    connection: &mut SqliteConnection,
    intent: &IntentId,
    new: &CertificateStep<'_>,
    at: UnixTime,
) -> Result<(), StoreError> {
    let hash = Sha256::digest(new.tbs);
    let changed = sqlx::query(
        "UPDATE certificate SET state = ?, step = ?, precertificate_sha256 = tbs_sha256, \
         precertificate_signature = signature, signature = NULL, sct = ?, log_index = ?, tbs = ?, tbs_sha256 = ?, \
         updated_at = ? WHERE intent = ? AND state = ? AND step = ? RETURNING requester",
    )
    .bind(State::Signing as i64)
    .bind(Step::Certificate as i64)
    .bind(new.sct)
    .bind(new.log_index.map(stored_index).transpose()?)
    .bind(new.tbs)
    .bind(hash.as_slice())
    .bind(at.0)
    .bind(intent.as_slice())
    .bind(State::Signed as i64)
    .bind(Step::Precertificate as i64)
    .fetch_optional(&mut *connection)
    .await
    .map_err(unavailable)?
    .ok_or(StoreError::StateConflict)?;
    let requester: String = get(&changed, 0)?;
    let detail = serde_json::json!({
        "intent": hex::encode(intent),
        "tbs_sha256": hex::encode(hash),
        "log_index": new.log_index,
    });
    audit::append(connection, "certificate.signing", &requester, &detail.to_string(), at).await
}

pub(super) async fn record_signed(
    connection: &mut SqliteConnection,
    intent: &IntentId,
    signature: &[u8],
    at: UnixTime,
) -> Result<(), StoreError> {
    let changed = sqlx::query(
        "UPDATE certificate SET state = CASE WHEN log_index IS NULL THEN ? ELSE ? END, signature = ?, updated_at = ? \
         WHERE intent = ? AND state IN (?, ?) AND step = ?",
    )
    .bind(State::Signed as i64)
    .bind(State::Logged as i64)
    .bind(signature)
    .bind(at.0)
    .bind(intent.as_slice())
    .bind(State::Signing as i64)
    .bind(State::MaybeIssued as i64)
    .bind(Step::Certificate as i64)
    .execute(connection)
    .await
    .map_err(unavailable)?;
    if changed.rows_affected() == 1 { Ok(()) } else { Err(StoreError::StateConflict) }
}

pub(super) async fn record_logged(
    connection: &mut SqliteConnection,
    intent: &IntentId,
    log_index: u64,
    at: UnixTime,
) -> Result<(), StoreError> {
    let changed = sqlx::query(
        "UPDATE certificate SET state = ?, log_index = ?, updated_at = ? WHERE intent = ? AND state = ? AND step = ?",
    )
    .bind(State::Logged as i64)
    .bind(stored_index(log_index)?)
    .bind(at.0)
    .bind(intent.as_slice())
    .bind(State::Signed as i64)
    .bind(Step::Certificate as i64)
    .execute(connection)
    .await
    .map_err(unavailable)?;
    if changed.rows_affected() == 1 { Ok(()) } else { Err(StoreError::StateConflict) }
}

pub(super) async fn mark_delivered(
    connection: &mut SqliteConnection,
    intent: &IntentId,
    at: UnixTime,
) -> Result<(), StoreError> {
    let changed = sqlx::query(
        "UPDATE certificate SET state = ?, updated_at = ? WHERE intent = ? AND state IN (?, ?) AND step = ?",
    )
    .bind(State::Delivered as i64)
    .bind(at.0)
    .bind(intent.as_slice())
    .bind(State::Signed as i64)
    .bind(State::Logged as i64)
    .bind(Step::Certificate as i64)
    .execute(connection)
    .await
    .map_err(unavailable)?;
    if changed.rows_affected() == 1 { Ok(()) } else { Err(StoreError::StateConflict) }
}

/// `intent` → `abandoned` or `signing` → `maybe-issued`, with the reason in row and audit trail.
pub(super) async fn give_up(
    connection: &mut SqliteConnection,
    intent: &IntentId,
    (from, to): (State, State),
    reason: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT step FROM certificate WHERE intent = ? AND state = ?")
        .bind(intent.as_slice())
        .bind(from as i64)
        .fetch_optional(&mut *connection)
        .await
        .map_err(unavailable)?
        .ok_or(StoreError::StateConflict)?;
    let step = rows::step(get(&row, 0)?)?;
    transition(&mut *connection, intent, (from, step), to, at).await?;
    sqlx::query("UPDATE certificate SET reason = ? WHERE intent = ?")
        .bind(reason)
        .bind(intent.as_slice())
        .execute(&mut *connection)
        .await
        .map_err(unavailable)?;
    let event = if to == State::Abandoned { "certificate.abandoned" } else { "certificate.maybe-issued" };
    let detail = serde_json::json!({ "intent": hex::encode(intent), "reason": reason });
    audit::append(connection, event, "reconciler", &detail.to_string(), at).await
}

pub(super) async fn open(
    pool: &SqlitePool,
    before: UnixTime,
    limit: u32,
) -> Result<Vec<StoredCertificate>, StoreError> {
    let found = sqlx::query(certificate_select!(
        "WHERE c.state IN (0, 1, 3, 4) AND c.created_at < ? ORDER BY c.created_at LIMIT ?"
    ))
    .bind(before.0)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
    .map_err(unavailable)?;
    found.iter().map(rows::certificate).collect()
}

pub(super) async fn by_serial(
    pool: &SqlitePool,
    serial: &SerialNumber,
) -> Result<Option<StoredCertificate>, StoreError> {
    let found = sqlx::query(certificate_select!("WHERE c.serial = ?"))
        .bind(serial.as_bytes())
        .fetch_optional(pool)
        .await
        .map_err(unavailable)?;
    found.as_ref().map(rows::certificate).transpose()
}

pub(super) async fn by_intent(
    pool: &SqlitePool,
    intent: &IntentId,
) -> Result<Option<StoredCertificate>, StoreError> {
    let found = sqlx::query(certificate_select!("WHERE c.intent = ?"))
        .bind(intent.as_slice())
        .fetch_optional(pool)
        .await
        .map_err(unavailable)?;
    found.as_ref().map(rows::certificate).transpose()
}

pub(super) async fn search(pool: &SqlitePool, search: &Search) -> Result<Vec<StoredCertificate>, StoreError> {
    let mut query: QueryBuilder<Sqlite> = QueryBuilder::new(certificate_select!("WHERE 1 = 1"));
    if let Some(identity) = &search.identity {
        query.push(" AND c.identity = ").push_bind(identity);
    }
    if let Some(key) = &search.spki_sha256 {
        query.push(" AND c.spki_sha256 = ").push_bind(key.as_slice());
    }
    if let Some(state) = search.state {
        query.push(" AND c.state = ").push_bind(state as i64);
    }
    if let Some(below) = search.below {
        query.push(" AND c.id < ").push_bind(below);
    }
    query.push(" ORDER BY c.id DESC LIMIT ").push_bind(i64::from(search.limit));
    let found = query.build().fetch_all(pool).await.map_err(unavailable)?;
    found.iter().map(rows::certificate).collect()
}

pub(super) async fn status(
    pool: &SqlitePool,
    issuer: &str,
    serial: &SerialNumber,
) -> Result<Option<StoredStatus>, StoreError> {
    let row = sqlx::query(
        "SELECT c.state, c.step, c.not_before, c.not_after, r.revoked_at, r.reason FROM certificate c \
         LEFT JOIN revocation r ON r.issuer = c.issuer AND r.shard = c.shard AND r.serial = c.serial \
         WHERE c.serial = ? AND c.issuer = ?",
    )
    .bind(serial.as_bytes())
    .bind(issuer)
    .fetch_optional(pool)
    .await
    .map_err(unavailable)?;
    let Some(row) = row else { return Ok(None) };
    let revocation = match get::<Option<i64>>(&row, 4)? {
        None => None,
        Some(at) => Some((UnixTime(at), rows::reason(get(&row, 5)?)?)),
    };
    Ok(Some(StoredStatus {
        state: rows::state(get(&row, 0)?)?,
        step: rows::step(get(&row, 1)?)?,
        not_before: UnixTime(get(&row, 2)?),
        not_after: UnixTime(get(&row, 3)?),
        revocation,
    }))
}
