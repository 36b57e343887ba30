//! SQL of the CA's own certificates and keys.

use ca_pki::UnixTime;

use super::issuance::{self, Advance, Transition};
use super::rows::{self, corrupted, get};
use super::sql::{Connection, params};
use super::{IntentId, StoreError, audit};

/// One of the CA's own certificates or keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAuthority {
    /// Name in paths and records.
    pub name: String,
    /// What it is for, as `ca_api::AuthorityRole` writes it.
    pub role: String,
    /// Its certificate, DER; none for a bare key.
    pub certificate: Option<Vec<u8>>,
    /// Name of the authority that issued it; none for a root or a bare key.
    pub issuer: Option<String>,
    /// Reference of its key, with the public key pinned.
    pub key_uri: String,
    /// Number of CRL shards; 0 for those that issue nothing.
    pub shards: u16,
}

pub(super) fn add(
    connection: &Connection,
    new: &StoredAuthority,
    own: Option<(IntentId, Vec<u8>)>,
    actor: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    if let Some((intent, signature)) = own {
        // Refused before anything is written where the row does not wait for a signature.
        let signed = Advance { signature: Some(signature), ..Advance::of(intent, at) };
        issuance::advance_alone(connection, Transition::Sign, &signed)?;
        issuance::advance_alone(connection, Transition::Deliver, &Advance::of(intent, at))
            .map_err(|_| corrupted("a certificate that was just signed cannot be delivered"))?;
    }
    rows::execute(
        connection,
        "INSERT INTO authority (name, role, certificate, issuer, key_uri, shards) VALUES (?, ?, ?, ?, ?, ?)",
        params![new.name, new.role, new.certificate, new.issuer, new.key_uri, new.shards],
    )?;
    if new.shards > 0 {
        add_part(connection, &new.name, -1)?;
    }
    // An issuer with a single shard has the complete list only.
    if new.shards > 1 {
        for shard in 0..i64::from(new.shards) {
            add_part(connection, &new.name, shard)?;
        }
    }
    let detail = serde_json::json!({ "name": new.name, "role": new.role, "key": new.key_uri });
    audit::append(connection, "authority.created", actor, detail, at)
}

/// Gives an authority without lists a new certificate and key.
pub(super) fn renew(
    connection: &Connection,
    new: &StoredAuthority,
    actor: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    let changed = rows::execute(
        connection,
        "UPDATE authority SET certificate = ?, key_uri = ?, issuer = ? \
         WHERE name = ? AND role = ? AND shards = 0 AND certificate IS NOT NULL",
        params![new.certificate, new.key_uri, new.issuer, new.name, new.role],
    )?;
    if changed != 1 {
        return Err(StoreError::StateConflict);
    }
    let detail = serde_json::json!({ "name": new.name, "role": new.role, "key": new.key_uri });
    audit::append(connection, "authority.renewed", actor, detail, at)
}

fn add_part(connection: &Connection, issuer: &str, part: i64) -> Result<(), StoreError> {
    rows::execute(
        connection,
        "INSERT INTO crl_part (issuer, part, allotted, published, changed, this_update, next_update) \
         VALUES (?, ?, 0, 0, 1, 0, 0)",
        params![issuer, part],
    )?;
    Ok(())
}

pub(super) fn all(connection: &Connection) -> Result<Vec<StoredAuthority>, StoreError> {
    let stored = "SELECT name, role, certificate, issuer, key_uri, shards FROM authority ORDER BY position";
    rows::all(connection, stored, &[], |row| {
        Ok(StoredAuthority {
            name: get(row, 0)?,
            role: get(row, 1)?,
            certificate: get(row, 2)?,
            issuer: get(row, 3)?,
            key_uri: get(row, 4)?,
            shards: u16::try_from(get::<i64>(row, 5)?).map_err(|_| corrupted("number of CRL shards"))?,
        })
    })
}
