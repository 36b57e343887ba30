//! SQL of one-time tokens.

use ca_pki::UnixTime;
use sqlx::{SqliteConnection, SqlitePool};

use super::rows::{self, column, get, unavailable};
use super::{IntentId, StoreError, StoredToken, audit};

pub(super) async fn create(
    connection: &mut SqliteConnection,
    token: &StoredToken,
    actor: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO token (hash, identity_kind, identity, profile, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(token.hash.as_slice())
    .bind(rows::identity_kind(&token.identity))
    .bind(token.identity.as_str())
    .bind(&token.profile)
    .bind(at.0)
    .bind(token.expires_at.0)
    .execute(&mut *connection)
    .await
    .map_err(unavailable)?;
    let detail = serde_json::json!({
        "token": hex::encode(token.hash),
        "identity": token.identity.as_str(),
        "profile": token.profile,
        "expires_at": token.expires_at.0,
    });
    audit::append(connection, "token.created", actor, &detail.to_string(), at).await
}

pub(super) async fn find(pool: &SqlitePool, hash: &[u8; 32]) -> Result<Option<StoredToken>, StoreError> {
    let row =
        sqlx::query("SELECT identity_kind, identity, profile, expires_at, used_by FROM token WHERE hash = ?")
            .bind(hash.as_slice())
            .fetch_optional(pool)
            .await
            .map_err(unavailable)?;
    let Some(row) = row else { return Ok(None) };
    let used_by = match get::<Option<Vec<u8>>>(&row, 4)? {
        None => None,
        Some(_) => Some(column::<16>(&row, 4)?),
    };
    Ok(Some(StoredToken {
        hash: *hash,
        identity: rows::identity(get(&row, 0)?, get(&row, 1)?)?,
        profile: get(&row, 2)?,
        expires_at: UnixTime(get(&row, 3)?),
        used_by,
    }))
}

/// Uses a token up for an issuance; refuses without writing when it is unknown, used or expired.
pub(super) async fn consume(
    connection: &mut SqliteConnection,
    hash: &[u8; 32],
    intent: &IntentId,
    at: UnixTime,
) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT expires_at, used_by IS NOT NULL FROM token WHERE hash = ?")
        .bind(hash.as_slice())
        .fetch_optional(&mut *connection)
        .await
        .map_err(unavailable)?
        .ok_or(StoreError::NotFound)?;
    if get::<bool>(&row, 1)? {
        return Err(StoreError::TokenUsed);
    }
    if get::<i64>(&row, 0)? <= at.0 {
        return Err(StoreError::TokenExpired);
    }
    sqlx::query("UPDATE token SET used_by = ?, used_at = ? WHERE hash = ?")
        .bind(intent.as_slice())
        .bind(at.0)
        .bind(hash.as_slice())
        .execute(connection)
        .await
        .map_err(unavailable)?;
    Ok(())
}
