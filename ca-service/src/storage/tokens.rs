//! SQL of one-time tokens.

use std::collections::HashMap;

use ca_pki::UnixTime;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqlitePool};

use super::rows::{self, column, get, unavailable};
use super::{IntentId, NewIntent, StoreError, StoredToken, audit};

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

/// The tokens that a group of intents names, while they last.
pub(super) struct Usable(HashMap<[u8; 32], (i64, bool)>);

impl Usable {
    /// Takes one for an intent; each serves once.
    pub(super) fn take(&mut self, hash: &[u8; 32], at: UnixTime) -> Result<(), StoreError> {
        let (expires_at, used) = self.0.get_mut(hash).ok_or(StoreError::NotFound)?;
        if *used {
            return Err(StoreError::TokenUsed);
        }
        if *expires_at <= at.0 {
            return Err(StoreError::TokenExpired);
        }
        *used = true;
        Ok(())
    }
}

/// Looks the tokens of a group up.
pub(super) async fn usable(
    connection: &mut SqliteConnection,
    new: &[NewIntent],
) -> Result<Usable, StoreError> {
    let hashes: Vec<&[u8; 32]> = new.iter().filter_map(|intent| intent.token.as_ref()).collect();
    let mut found = HashMap::with_capacity(hashes.len());
    for part in rows::portions(&hashes) {
        let mut query: QueryBuilder<Sqlite> =
            QueryBuilder::new("SELECT hash, expires_at, used_by IS NOT NULL FROM token WHERE hash IN ");
        rows::push_list(&mut query, part.iter().map(|hash| hash.as_slice()));
        for row in query.build().fetch_all(&mut *connection).await.map_err(unavailable)? {
            found.insert(column::<32>(&row, 0)?, (get(&row, 1)?, get(&row, 2)?));
        }
    }
    Ok(Usable(found))
}

/// Uses the tokens of accepted intents up.
pub(super) async fn consume(
    connection: &mut SqliteConnection,
    accepted: &[&NewIntent],
) -> Result<(), StoreError> {
    let with: Vec<_> =
        accepted.iter().filter_map(|intent| intent.token.map(|token| (intent, token))).collect();
    for part in rows::portions(&with) {
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new("WITH change (hash, intent, at) AS (");
        query.push_values(part, |mut row, (intent, token)| {
            row.push_bind(token.to_vec()).push_bind(intent.intent.to_vec()).push_bind(intent.at.0);
        });
        query.push(
            ") UPDATE token SET used_by = change.intent, used_at = change.at FROM change WHERE token.hash = change.hash",
        );
        query.build().execute(&mut *connection).await.map_err(unavailable)?;
    }
    Ok(())
}

/// Makes the token of an issuance usable again.
pub(super) async fn release(connection: &mut SqliteConnection, intent: &IntentId) -> Result<(), StoreError> {
    let requester = sqlx::query("SELECT requester FROM certificate WHERE intent = ?")
        .bind(intent.as_slice())
        .fetch_one(&mut *connection)
        .await
        .map_err(unavailable)?;
    let requester: String = get(&requester, 0)?;
    let Some(hash) = requester.strip_prefix("token:").and_then(|digits| hex::decode(digits).ok()) else {
        return Ok(());
    };
    sqlx::query("UPDATE token SET used_by = NULL, used_at = NULL WHERE hash = ? AND used_by = ?")
        .bind(hash)
        .bind(intent.as_slice())
        .execute(connection)
        .await
        .map_err(unavailable)?;
    Ok(())
}
