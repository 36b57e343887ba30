//! SQL of the CA's own certificates and keys.

use ca_pki::UnixTime;
use sqlx::{SqliteConnection, SqlitePool};

use super::rows::{corrupted, get, unavailable};
use super::{StoreError, StoredAuthority, audit};

pub(super) async fn add(
    connection: &mut SqliteConnection,
    new: &StoredAuthority,
    actor: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO authority (name, role, certificate, issuer, key_uri, shards) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(&new.name)
    .bind(&new.role)
    .bind(&new.certificate)
    .bind(&new.issuer)
    .bind(&new.key_uri)
    .bind(i64::from(new.shards))
    .execute(&mut *connection)
    .await
    .map_err(unavailable)?;
    if new.shards > 0 {
        add_part(&mut *connection, &new.name, -1).await?;
    }
    // An issuer with a single shard has the complete list only.
    if new.shards > 1 {
        for shard in 0..i64::from(new.shards) {
            add_part(&mut *connection, &new.name, shard).await?;
        }
    }
    let detail = serde_json::json!({ "name": new.name, "role": new.role, "key": new.key_uri });
    audit::append(connection, "authority.created", actor, &detail.to_string(), at).await
}

/// Gives an authority without lists a new certificate and key.
pub(super) async fn renew(
    connection: &mut SqliteConnection,
    new: &StoredAuthority,
    actor: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    let changed = sqlx::query(
        "UPDATE authority SET certificate = ?, key_uri = ? \
         WHERE name = ? AND role = ? AND issuer = ? AND shards = 0 AND certificate IS NOT NULL",
    )
    .bind(&new.certificate)
    .bind(&new.key_uri)
    .bind(&new.name)
    .bind(&new.role)
    .bind(&new.issuer)
    .execute(&mut *connection)
    .await
    .map_err(unavailable)?;
    if changed.rows_affected() != 1 {
        return Err(StoreError::StateConflict);
    }
    let detail = serde_json::json!({ "name": new.name, "role": new.role, "key": new.key_uri });
    audit::append(connection, "authority.renewed", actor, &detail.to_string(), at).await
}

async fn add_part(connection: &mut SqliteConnection, issuer: &str, part: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO crl_part (issuer, part, allotted, published, changed, this_update, next_update) \
         VALUES (?, ?, 0, 0, 1, 0, 0)",
    )
    .bind(issuer)
    .bind(part)
    .execute(connection)
    .await
    .map_err(unavailable)?;
    Ok(())
}

pub(super) async fn all(pool: &SqlitePool) -> Result<Vec<StoredAuthority>, StoreError> {
    let found = sqlx::query(
        "SELECT name, role, certificate, issuer, key_uri, shards FROM authority ORDER BY position",
    )
    .fetch_all(pool)
    .await
    .map_err(unavailable)?;
    found
        .iter()
        .map(|row| {
            Ok(StoredAuthority {
                name: get(row, 0)?,
                role: get(row, 1)?,
                certificate: get(row, 2)?,
                issuer: get(row, 3)?,
                key_uri: get(row, 4)?,
                shards: u16::try_from(get::<i64>(row, 5)?).map_err(|_| corrupted("number of CRL shards"))?,
            })
        })
        .collect()
}
