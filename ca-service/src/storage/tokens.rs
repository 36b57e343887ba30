//! SQL of one-time tokens.

use ca_pki::{Identity, UnixTime};

use super::rows::{self, column, get};
use super::sql::{Connection, params};
use super::{IntentId, StoreError, audit, queue};

/// A one-time token's row; the secret itself is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredToken {
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// The identity it certifies.
    pub identity: Identity,
    /// Under which profile.
    pub profile: String,
    /// When it expires.
    pub expires_at: UnixTime,
    /// The issuance that used it.
    pub used_by: Option<IntentId>,
    /// Who made it, as the audit record of that names them; not known of those of earlier versions. Set by the store.
    pub created_by: Option<String>,
    /// Whatever its maker is known by; none where that is nobody in particular, or not known.
    pub creator_names: Vec<String>,
}

pub(super) fn create(
    connection: &Connection,
    token: &StoredToken,
    actor: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    rows::execute(
        connection,
        "INSERT INTO token (hash, identity_kind, identity, profile, created_at, expires_at, created_by, creator_names) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            token.hash,
            rows::identity_kind(&token.identity),
            token.identity.as_str(),
            token.profile,
            at.0,
            token.expires_at.0,
            actor,
            queue::sql::to_json(&token.creator_names)?,
        ],
    )?;
    let detail = serde_json::json!({
        "token": hex::encode(token.hash),
        "identity": token.identity.as_str(),
        "profile": token.profile,
        "expires_at": token.expires_at.0,
    });
    audit::append(connection, "token.created", actor, detail, at)
}

pub(super) fn find(connection: &Connection, hash: &[u8; 32]) -> Result<Option<StoredToken>, StoreError> {
    let query = "SELECT identity_kind, identity, profile, expires_at, used_by, created_by, creator_names \
                 FROM token WHERE hash = ?";
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
            created_by: get(row, 5)?,
            creator_names: match get::<Option<String>>(row, 6)? {
                None => Vec::new(),
                Some(_) => queue::sql::json(row, 6)?,
            },
        })
    })
}

/// Uses a token up for an issuance, or writes nothing and says why not. One that a request holds waits for people's approval.
pub(super) fn consume(
    connection: &Connection,
    hash: &[u8; 32],
    intent: &IntentId,
    at: UnixTime,
) -> Result<(), StoreError> {
    if queue::sql::holds(connection, hash)? {
        return Err(StoreError::TokenUsed);
    }
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

/// Uses a token up for the issuance of the approved request that holds it, or writes nothing and says that it is used. Its time
/// ended with the request: people may need longer.
pub(super) fn consume_held(
    connection: &Connection,
    hash: &[u8; 32],
    intent: &IntentId,
    at: UnixTime,
) -> Result<(), StoreError> {
    let query = "UPDATE token SET used_by = ?, used_at = ? WHERE hash = ? AND used_by IS NULL";
    match rows::execute(connection, query, params![intent, at.0, hash])? {
        1 => Ok(()),
        _ => Err(StoreError::TokenUsed),
    }
}

/// Makes the token of an issuance usable again, or the approved request that holds it.
pub(super) fn release(connection: &Connection, intent: &IntentId, at: UnixTime) -> Result<(), StoreError> {
    queue::sql::steps::release(connection, intent, at)?;
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
