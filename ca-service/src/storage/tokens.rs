//! SQL of one-time tokens.

use ca_pki::UnixTime;

use super::rows::{self, column, get};
use super::sql::{Connection, params};
use super::{IntentId, StoreError, StoredToken, audit};

pub(super) fn create(
    connection: &Connection,
    token: &StoredToken,
    actor: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    rows::execute(
        connection,
        "INSERT INTO token (hash, identity_kind, identity, profile, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
        params![
            token.hash,
            rows::identity_kind(&token.identity),
            token.identity.as_str(),
            token.profile,
            at.0,
            token.expires_at.0
        ],
    )?;
    let detail = serde_json::json!({
        "token": hex::encode(token.hash),
        "identity": token.identity.as_str(),
        "profile": token.profile,
        "expires_at": token.expires_at.0,
    });
    audit::append(connection, "token.created", actor, &detail.to_string(), at)
}

pub(super) fn find(connection: &Connection, hash: &[u8; 32]) -> Result<Option<StoredToken>, StoreError> {
    let query = "SELECT identity_kind, identity, profile, expires_at, used_by FROM token WHERE hash = ?";
    rows::first(connection, query, params![hash], |row| {
        let used_by = match get::<Option<Vec<u8>>>(row, 4)? {
            None => None,
            Some(_) => Some(column::<16>(row, 4)?),
        };
        Ok(StoredToken {
            hash: *hash,
            identity: rows::identity(get(row, 0)?, get(row, 1)?)?,
            profile: get(row, 2)?,
            expires_at: UnixTime(get(row, 3)?),
            used_by,
        })
    })
}

/// Uses a token up for an issuance, or writes nothing and says why not.
pub(super) fn consume(
    connection: &Connection,
    hash: &[u8; 32],
    intent: &IntentId,
    at: UnixTime,
) -> Result<(), StoreError> {
    let used = rows::execute(
        connection,
        "UPDATE token SET used_by = ?, used_at = ? WHERE hash = ? AND used_by IS NULL AND expires_at > ?",
        params![intent, at.0, hash, at.0],
    )?;
    if used == 1 {
        return Ok(());
    }
    let query = "SELECT used_by IS NOT NULL FROM token WHERE hash = ?";
    Err(match rows::first(connection, query, params![hash], |row| get::<bool>(row, 0))? {
        None => StoreError::NotFound,
        Some(true) => StoreError::TokenUsed,
        Some(false) => StoreError::TokenExpired,
    })
}

/// Makes the token of an issuance usable again.
pub(super) fn release(connection: &Connection, intent: &IntentId) -> Result<(), StoreError> {
    let query = "SELECT requester FROM certificate WHERE intent = ?";
    let requester = rows::first(connection, query, params![intent], |row| get::<String>(row, 0))?
        .ok_or(StoreError::NotFound)?;
    let Some(hash) = requester.strip_prefix("token:").and_then(|digits| hex::decode(digits).ok()) else {
        return Ok(());
    };
    rows::execute(
        connection,
        "UPDATE token SET used_by = NULL, used_at = NULL WHERE hash = ? AND used_by = ?",
        params![hash, intent],
    )?;
    Ok(())
}
