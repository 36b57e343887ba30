//! SQL that reads certificates and open issuances.

use ca_pki::{SerialNumber, UnixTime};
use rusqlite::{Connection, ToSql, params};

use super::rows::{self, certificate_select, get};
use super::{IntentId, Open, Search, State, StoreError, StoredCertificate, StoredStatus};

pub(super) fn open(
    connection: &Connection,
    which: Open,
    before: UnixTime,
    limit: u32,
) -> Result<Vec<StoredCertificate>, StoreError> {
    let (first, second) = match which {
        Open::Here => (State::Intent, State::Signing),
        Open::AtLog => (State::Signed, State::Logged),
    };
    // The first condition is the index's own.
    let open = certificate_select!(
        "WHERE c.state IN (0, 1, 3, 4) AND c.state IN (?, ?) AND c.created_at < ? ORDER BY c.created_at LIMIT ?"
    );
    rows::all(connection, open, params![first as i64, second as i64, before.0, limit], rows::certificate)
}

pub(super) fn by_serial(
    connection: &Connection,
    serial: &SerialNumber,
) -> Result<Option<StoredCertificate>, StoreError> {
    let query = certificate_select!("WHERE c.serial = ?");
    rows::first(connection, query, [serial.as_bytes()], rows::certificate)
}

pub(super) fn by_intent(
    connection: &Connection,
    intent: &IntentId,
) -> Result<Option<StoredCertificate>, StoreError> {
    rows::first(connection, certificate_select!("WHERE c.intent = ?"), [intent], rows::certificate)
}

pub(super) fn search(connection: &Connection, search: &Search) -> Result<Vec<StoredCertificate>, StoreError> {
    let mut query = certificate_select!("WHERE 1 = 1").to_owned();
    let mut parameters: Vec<Box<dyn ToSql>> = Vec::new();
    let mut demand = |condition: &str, parameter: Box<dyn ToSql>| {
        query.push_str(condition);
        parameters.push(parameter);
    };
    if let Some(identity) = &search.identity {
        demand(" AND c.identity = ?", Box::new(identity.clone()));
    }
    if let Some(key) = search.spki_sha256 {
        demand(" AND c.spki_sha256 = ?", Box::new(key));
    }
    if let Some(state) = search.state {
        demand(" AND c.state = ?", Box::new(state as i64));
    }
    if let Some(below) = search.below {
        demand(" AND c.id < ?", Box::new(below));
    }
    demand(" ORDER BY c.id DESC LIMIT ?", Box::new(search.limit));
    rows::all(connection, &query, rusqlite::params_from_iter(&parameters), rows::certificate)
}

pub(super) fn status(
    connection: &Connection,
    issuer: &str,
    serial: &SerialNumber,
) -> Result<Option<StoredStatus>, StoreError> {
    let query = "SELECT c.state, c.step, c.not_before, c.not_after, r.revoked_at, r.reason FROM certificate c \
                 LEFT JOIN revocation r ON r.issuer = c.issuer AND r.shard = c.shard AND r.serial = c.serial \
                 WHERE c.serial = ? AND c.issuer = ?";
    rows::first(connection, query, params![serial.as_bytes(), issuer], |row| {
        let revocation = match get::<Option<i64>>(row, 4)? {
            None => None,
            Some(at) => Some((UnixTime(at), rows::reason(get(row, 5)?)?)),
        };
        Ok(StoredStatus {
            state: rows::state(get(row, 0)?)?,
            step: rows::step(get(row, 1)?)?,
            not_before: UnixTime(get(row, 2)?),
            not_after: UnixTime(get(row, 3)?),
            revocation,
        })
    })
}
