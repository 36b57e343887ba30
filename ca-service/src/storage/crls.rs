//! SQL of CRLs: a number is allotted in the transaction that fixes the entries (rule e).

use ca_pki::UnixTime;
use ca_pki::crl::RevokedEntry;
use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};

use super::rows::{self, corrupted, get, part_number};
use super::{CrlPart, StartedCrl, StoreError, StoredCrl, audit};

pub(super) fn due(
    connection: &Connection,
    older_than: UnixTime,
) -> Result<Vec<(String, CrlPart)>, StoreError> {
    let query = "SELECT issuer, part FROM crl_part WHERE changed = 1 OR allotted <> published OR this_update < ? \
         ORDER BY changed DESC, this_update";
    rows::all(connection, query, [older_than.0], |row| Ok((get(row, 0)?, rows::part(get(row, 1)?)?)))
}

pub(super) fn start(
    connection: &Connection,
    issuer: &str,
    part: CrlPart,
    at: UnixTime,
) -> Result<StartedCrl, StoreError> {
    let allot = "UPDATE crl_part SET allotted = allotted + 1, changed = 0 WHERE issuer = ? AND part = ? \
                 RETURNING allotted";
    let number =
        rows::first(connection, allot, params![issuer, part_number(part)], |row| get::<i64>(row, 0))?
            .ok_or(StoreError::NotFound)?;
    let query = match part {
        CrlPart::Shard(_) => {
            "SELECT serial, revoked_at, reason FROM revocation WHERE issuer = ? AND shard = ? ORDER BY serial"
        }
        CrlPart::Complete => {
            "SELECT serial, revoked_at, reason FROM revocation WHERE issuer = ? AND ? = -1 ORDER BY serial"
        }
    };
    let entries = rows::all(connection, query, params![issuer, part_number(part)], |row| {
        Ok(RevokedEntry {
            serial: rows::serial(rows::blob(row, 0)?)?,
            revoked_at: UnixTime(get(row, 1)?),
            reason: rows::reason(get(row, 2)?)?,
        })
    })?;
    rows::execute(
        connection,
        "INSERT INTO crl_number (issuer, part, number, allotted_at, entries) VALUES (?, ?, ?, ?, ?)",
        params![issuer, part_number(part), number, at.0, i64::try_from(entries.len()).unwrap_or(i64::MAX)],
    )?;
    Ok(StartedCrl { number: u64::try_from(number).map_err(|_| corrupted("CRL number"))?, entries })
}

/// Makes every list that is dated after `at` due, and says so in the audit trail.
pub(super) fn accept_time(connection: &Connection, actor: &str, at: UnixTime) -> Result<(), StoreError> {
    let changed = rows::execute(connection, "UPDATE crl_part SET changed = 1 WHERE this_update > ?", [at.0])?;
    let detail = serde_json::json!({ "accepted": at.0, "lists_dated_later": changed });
    audit::append(connection, "clock.accepted", actor, &detail.to_string(), at)
}

pub(super) fn publish(connection: &Connection, crl: &StoredCrl) -> Result<(), StoreError> {
    let number = i64::try_from(crl.number).map_err(|_| corrupted("CRL number"))?;
    let changed = rows::execute(
        connection,
        "UPDATE crl_part SET published = ?1, this_update = ?2, next_update = ?3, der = ?4 \
         WHERE issuer = ?5 AND part = ?6 AND published < ?1 AND allotted >= ?1",
        params![number, crl.this_update.0, crl.next_update.0, crl.der, crl.issuer, part_number(crl.part)],
    )?;
    if changed != 1 {
        return Err(StoreError::StateConflict);
    }
    let digest = Sha256::digest(&crl.der);
    rows::execute(
        connection,
        "UPDATE crl_number SET sha256 = ? WHERE issuer = ? AND part = ? AND number = ?",
        params![digest.as_slice(), crl.issuer, part_number(crl.part), number],
    )?;
    let detail = serde_json::json!({
        "issuer": crl.issuer,
        "part": part_number(crl.part),
        "number": crl.number,
        "sha256": hex::encode(digest),
    });
    audit::append(connection, "crl.published", "publisher", &detail.to_string(), crl.this_update)
}

pub(super) fn published(connection: &Connection) -> Result<Vec<StoredCrl>, StoreError> {
    let query =
        "SELECT issuer, part, published, this_update, next_update, der FROM crl_part WHERE der IS NOT NULL";
    rows::all(connection, query, [], |row| {
        Ok(StoredCrl {
            issuer: get(row, 0)?,
            part: rows::part(get(row, 1)?)?,
            number: u64::try_from(get::<i64>(row, 2)?).map_err(|_| corrupted("CRL number"))?,
            this_update: UnixTime(get(row, 3)?),
            next_update: UnixTime(get(row, 4)?),
            der: get(row, 5)?,
        })
    })
}
