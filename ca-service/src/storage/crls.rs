//! SQL of CRLs: a number is allotted in the transaction that fixes the entries (rule e).

use ca_pki::UnixTime;
use ca_pki::crl::RevokedEntry;
use sha2::{Digest, Sha256};
use sqlx::{SqliteConnection, SqlitePool};

use super::rows::{self, corrupted, get, part_number, unavailable};
use super::{CrlPart, StartedCrl, StoreError, StoredCrl, audit};

pub(super) async fn due(
    pool: &SqlitePool,
    older_than: UnixTime,
) -> Result<Vec<(String, CrlPart)>, StoreError> {
    let found = sqlx::query(
        "SELECT issuer, part FROM crl_part WHERE changed = 1 OR allotted <> published OR this_update < ? \
         ORDER BY changed DESC, this_update",
    )
    .bind(older_than.0)
    .fetch_all(pool)
    .await
    .map_err(unavailable)?;
    found.iter().map(|row| Ok((get(row, 0)?, rows::part(get(row, 1)?)?))).collect()
}

pub(super) async fn start(
    connection: &mut SqliteConnection,
    issuer: &str,
    part: CrlPart,
    at: UnixTime,
) -> Result<StartedCrl, StoreError> {
    let row =
        sqlx::query("UPDATE crl_part SET allotted = allotted + 1, changed = 0 WHERE issuer = ? AND part = ? RETURNING allotted")
            .bind(issuer)
            .bind(part_number(part))
            .fetch_optional(&mut *connection)
            .await
            .map_err(unavailable)?
            .ok_or(StoreError::NotFound)?;
    let number: i64 = get(&row, 0)?;
    let query = match part {
        CrlPart::Shard(_) => {
            "SELECT serial, revoked_at, reason FROM revocation WHERE issuer = ? AND shard = ? ORDER BY serial"
        }
        CrlPart::Complete => {
            "SELECT serial, revoked_at, reason FROM revocation WHERE issuer = ? AND ? = -1 ORDER BY serial"
        }
    };
    let found = sqlx::query(query)
        .bind(issuer)
        .bind(part_number(part))
        .fetch_all(&mut *connection)
        .await
        .map_err(unavailable)?;
    let entries = found
        .iter()
        .map(|row| {
            Ok(RevokedEntry {
                serial: rows::serial(get(row, 0)?)?,
                revoked_at: UnixTime(get(row, 1)?),
                reason: rows::reason(get(row, 2)?)?,
            })
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    sqlx::query("INSERT INTO crl_number (issuer, part, number, allotted_at, entries) VALUES (?, ?, ?, ?, ?)")
        .bind(issuer)
        .bind(part_number(part))
        .bind(number)
        .bind(at.0)
        .bind(i64::try_from(entries.len()).unwrap_or(i64::MAX))
        .execute(connection)
        .await
        .map_err(unavailable)?;
    Ok(StartedCrl { number: u64::try_from(number).map_err(|_| corrupted("CRL number"))?, entries })
}

/// Makes every list that is dated after `at` due, and says so in the audit trail.
pub(super) async fn accept_time(
    connection: &mut SqliteConnection,
    actor: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    let changed = sqlx::query("UPDATE crl_part SET changed = 1 WHERE this_update > ?")
        .bind(at.0)
        .execute(&mut *connection)
        .await
        .map_err(unavailable)?;
    let detail = serde_json::json!({ "accepted": at.0, "lists_dated_later": changed.rows_affected() });
    audit::append(connection, "clock.accepted", actor, &detail.to_string(), at).await
}

pub(super) async fn publish(connection: &mut SqliteConnection, crl: &StoredCrl) -> Result<(), StoreError> {
    let number = i64::try_from(crl.number).map_err(|_| corrupted("CRL number"))?;
    let changed = sqlx::query(
        "UPDATE crl_part SET published = ?, this_update = ?, next_update = ?, der = ? \
         WHERE issuer = ? AND part = ? AND published < ? AND allotted >= ?",
    )
    .bind(number)
    .bind(crl.this_update.0)
    .bind(crl.next_update.0)
    .bind(&crl.der)
    .bind(&crl.issuer)
    .bind(part_number(crl.part))
    .bind(number)
    .bind(number)
    .execute(&mut *connection)
    .await
    .map_err(unavailable)?;
    if changed.rows_affected() != 1 {
        return Err(StoreError::StateConflict);
    }
    let digest = Sha256::digest(&crl.der);
    sqlx::query("UPDATE crl_number SET sha256 = ? WHERE issuer = ? AND part = ? AND number = ?")
        .bind(digest.as_slice())
        .bind(&crl.issuer)
        .bind(part_number(crl.part))
        .bind(number)
        .execute(&mut *connection)
        .await
        .map_err(unavailable)?;
    let detail = serde_json::json!({
        "issuer": crl.issuer,
        "part": part_number(crl.part),
        "number": crl.number,
        "sha256": hex::encode(digest),
    });
    audit::append(connection, "crl.published", "publisher", &detail.to_string(), crl.this_update).await
}

pub(super) async fn published(pool: &SqlitePool) -> Result<Vec<StoredCrl>, StoreError> {
    let found = sqlx::query(
        "SELECT issuer, part, published, this_update, next_update, der FROM crl_part WHERE der IS NOT NULL",
    )
    .fetch_all(pool)
    .await
    .map_err(unavailable)?;
    found
        .iter()
        .map(|row| {
            Ok(StoredCrl {
                issuer: get(row, 0)?,
                part: rows::part(get(row, 1)?)?,
                number: u64::try_from(get::<i64>(row, 2)?).map_err(|_| corrupted("CRL number"))?,
                this_update: UnixTime(get(row, 3)?),
                next_update: UnixTime(get(row, 4)?),
                der: get(row, 5)?,
            })
        })
        .collect()
}
