//! SQL of identity tokens that serve once: those that gave a role for a change, and those of issuers whose tokens are good for one
//! certificate.

use ca_pki::UnixTime;

use super::StoreError;
use super::rows::{self, get};
use super::sql::{Connection, params};

/// An identity token that serves now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedIdentityToken {
    /// What tells it from all others.
    pub hash: [u8; 32],
    /// When its issuer made it.
    pub made_at: UnixTime,
    /// From then on it is refused for its age.
    pub forgotten_at: UnixTime,
}

/// Name of the row of `meta` with the time before which no token may have been made: what served between a backup and its
/// restoring is not known.
const MADE_FROM: &str = "identity-tokens-from";

/// Notes that a token served, or writes nothing and says that it had, or may have, served before. Those that are too old to serve
/// are forgotten.
pub(super) fn use_up(
    connection: &Connection,
    token: &UsedIdentityToken,
    now: UnixTime,
) -> Result<(), StoreError> {
    let query = "SELECT value FROM meta WHERE name = ?";
    let from = rows::first(connection, query, params![MADE_FROM], |row| get::<String>(row, 0))?;
    let from = from.map(|text| text.parse::<i64>().map_err(|_| rows::corrupted(MADE_FROM))).transpose()?;
    if from.is_some_and(|from| token.made_at.0 < from) {
        return Err(StoreError::TokenUsed);
    }
    let noted = rows::execute(
        connection,
        "INSERT INTO used_identity_token (hash, expires_at) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING",
        params![token.hash, token.forgotten_at.0],
    )?;
    if noted == 0 {
        return Err(StoreError::TokenUsed);
    }
    rows::execute(connection, "DELETE FROM used_identity_token WHERE expires_at < ?", params![now.0])?;
    Ok(())
}

/// Takes every token that was made before a time for used.
pub(super) fn void_before(connection: &Connection, made_at: UnixTime) -> Result<(), StoreError> {
    rows::execute(
        connection,
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![MADE_FROM, made_at.0.to_string()],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::migrations;

    #[test]
    fn a_token_serves_once_and_one_of_before_a_restore_never() {
        let database = rusqlite::Connection::open_in_memory().unwrap();
        migrations::create(&database).unwrap();
        let connection = Connection::Sqlite(database);
        let token = |number: u8, made_at: i64| UsedIdentityToken {
            hash: [number; 32],
            made_at: UnixTime(made_at),
            forgotten_at: UnixTime(made_at + 100),
        };
        let uses = |token, now| use_up(&connection, &token, UnixTime(now));
        assert_eq!(uses(token(1, 1000), 1000), Ok(()));
        assert_eq!(uses(token(1, 1000), 1001), Err(StoreError::TokenUsed));
        assert_eq!(uses(token(2, 1001), 1001), Ok(()));
        // The one that is too old by now is forgotten, the other is not.
        assert_eq!(uses(token(3, 1101), 1101), Ok(()));
        let kept = rows::all(&connection, "SELECT hash FROM used_identity_token ORDER BY hash", &[], |row| {
            rows::column::<32>(row, 0)
        });
        assert_eq!(kept.unwrap(), [[2; 32], [3; 32]]);
        void_before(&connection, UnixTime(1200)).unwrap();
        assert_eq!(uses(token(4, 1199), 1200), Err(StoreError::TokenUsed));
        assert_eq!(uses(token(5, 1200), 1200), Ok(()));
    }
}
