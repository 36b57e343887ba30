//! SQL that reads certificates and open issuances.

use ca_pki::{SerialNumber, UnixTime};
use sqlx::{QueryBuilder, Sqlite, SqlitePool};

use super::rows::{self, certificate_select, get, unavailable};
use super::{IntentId, Open, Search, State, StoreError, StoredCertificate, StoredStatus};

pub(super) async fn open(
    pool: &SqlitePool,
    which: Open,
    before: UnixTime,
    limit: u32,
) -> Result<Vec<StoredCertificate>, StoreError> {
    let (first, second) = match which {
        Open::Here => (State::Intent, State::Signing),
        Open::AtLog => (State::Signed, State::Logged),
    };
    // The first condition is the index's own.
    let found = sqlx::query(certificate_select!(
        "WHERE c.state IN (0, 1, 3, 4) AND c.state IN (?, ?) AND c.created_at < ? ORDER BY c.created_at LIMIT ?"
    ))
    .bind(first as i64)
    .bind(second as i64)
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
