//! SQL of requests that wait for approval. What is open is found by an index of the open ones alone, however many were closed.

pub(in crate::storage) mod steps;

use ca_pki::UnixTime;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::super::certificates::Conditions;
use super::super::rows::{self, column, get};
use super::super::sql::{Connection, Row, params};
use super::super::{IntentId, StoreError, audit, revocations};
use super::{
    NewRequest, OpenRequests, QueueLimit, QueueSearch, QueueSelection, QueueState, QueuedId, QueuedRequest,
    RequestContent, RequestOf, StoredApproval, Way, numbered,
};

/// The columns of [`row`].
macro_rules! request_select {
    ($rest:literal) => {
        concat!(
            "SELECT number, id, requester, request_id, token, way, vouched_by, identity_kind, identity, identity_issuer, ",
            "profile, spki, spki_sha256, claims, evidence, needed, created_at, expires_at, state, closed_by, reason, intent, ",
            "closed_at, requester_names, voucher_names, issuer, terms ",
            "FROM enrolment_request WHERE ",
            $rest
        )
    };
}

fn row(row: &Row<'_>) -> Result<QueuedRequest, StoreError> {
    let token = get::<Option<Vec<u8>>>(row, 4)?.map(|_| column::<32>(row, 4)).transpose()?;
    let intent = get::<Option<Vec<u8>>>(row, 21)?.map(|_| column::<16>(row, 21)).transpose()?;
    Ok(QueuedRequest {
        number: get(row, 0)?,
        content: RequestContent {
            id: column::<16>(row, 1)?,
            requester: get(row, 2)?,
            request_id: get(row, 3)?,
            token,
            way: numbered(&Way::ALL, get(row, 5)?, "way of a request")?,
            requester_names: json(row, 23)?,
            vouched_by: get(row, 6)?,
            voucher_names: json(row, 24)?,
            identity: rows::identity(get(row, 7)?, get(row, 8)?)?,
            identity_issuer: get(row, 9)?,
            profile: get(row, 10)?,
            issuer: get(row, 25)?,
            terms: json(row, 26)?,
            spki: get(row, 11)?,
            spki_sha256: column::<32>(row, 12)?,
            claims: json(row, 13)?,
            evidence: get(row, 14)?,
            needed: u8::try_from(get::<i64>(row, 15)?).map_err(|_| rows::corrupted("number of approvals"))?,
            created_at: UnixTime(get(row, 16)?),
            expires_at: UnixTime(get(row, 17)?),
        },
        state: numbered(&QueueState::ALL, get(row, 18)?, "state of a request")?,
        approvals: Vec::new(),
        closed_at: get::<Option<i64>>(row, 22)?.map(UnixTime),
        closed_by: get(row, 19)?,
        reason: get(row, 20)?,
        intent,
    })
}

/// A column that is JSON.
pub(in crate::storage) fn json<T: DeserializeOwned>(row: &Row<'_>, index: usize) -> Result<T, StoreError> {
    serde_json::from_str(&get::<String>(row, index)?).map_err(|_| rows::corrupted("JSON of a request"))
}

pub(in crate::storage) fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| rows::corrupted("JSON of a request"))
}

/// The same with its approvals.
fn whole(connection: &Connection, mut request: QueuedRequest) -> Result<QueuedRequest, StoreError> {
    let query = "SELECT approver, statement, at, names, record FROM enrolment_approval WHERE request = ? \
                 ORDER BY approver, statement";
    request.approvals = rows::all(connection, query, params![request.content.id], |row| {
        Ok(StoredApproval {
            approver: get(row, 0)?,
            statement: column::<32>(row, 1)?,
            at: UnixTime(get(row, 2)?),
            names: json(row, 3)?,
            record: u64::try_from(get::<i64>(row, 4)?).map_err(|_| rows::corrupted("an audit record"))?,
        })
    })?;
    Ok(request)
}

fn wholes(connection: &Connection, found: Vec<QueuedRequest>) -> Result<Vec<QueuedRequest>, StoreError> {
    found.into_iter().map(|request| whole(connection, request)).collect()
}

pub(in crate::storage) fn find(
    connection: &Connection,
    id: &QueuedId,
) -> Result<Option<QueuedRequest>, StoreError> {
    let found = rows::first(connection, request_select!("id = ?"), params![id], row)?;
    found.map(|request| whole(connection, request)).transpose()
}

pub(in crate::storage) fn find_of(
    connection: &Connection,
    of: &RequestOf,
) -> Result<Option<QueuedRequest>, StoreError> {
    let found = match of {
        RequestOf::Token(hash) => rows::first(connection, request_select!("token = ?"), params![hash], row),
        RequestOf::Requester(requester, request_id) => {
            let query = request_select!("requester = ? AND request_id = ? ORDER BY number DESC LIMIT 1");
            rows::first(connection, query, params![requester, request_id], row)
        }
    }?;
    found.map(|request| whole(connection, request)).transpose()
}

pub(in crate::storage) fn search(
    connection: &Connection,
    search: &QueueSearch,
) -> Result<Vec<QueuedRequest>, StoreError> {
    let found = match search.state {
        None => {
            // The signs keep the database from going through all requests in their order.
            let query = request_select!("state IN (0, 1) AND +number > ? ORDER BY +number LIMIT ?");
            rows::all(connection, query, params![search.after, search.limit], row)
        }
        Some(state) => {
            let query = request_select!("state = ? AND number > ? ORDER BY number LIMIT ?");
            rows::all(connection, query, params![state as i64, search.after, search.limit], row)
        }
    }?;
    wholes(connection, found)
}

fn count(
    connection: &Connection,
    query: &str,
    parameters: &[super::super::sql::Value<'_>],
) -> Result<u64, StoreError> {
    let number = rows::first(connection, query, parameters, |row| get::<i64>(row, 0))?.unwrap_or(0);
    u64::try_from(number).map_err(|_| rows::corrupted("a count is negative"))
}

/// How many requests wait, of those whose time is not over (1).
const WAITING: &str =
    "SELECT count(*) FROM enrolment_request WHERE state IN (0, 1) AND state = 0 AND expires_at > ?";

pub(in crate::storage) fn waiting(connection: &Connection, now: UnixTime) -> Result<u64, StoreError> {
    count(connection, WAITING, params![now.0])
}

const HOLDS: &str = "SELECT 1 FROM enrolment_request WHERE token = ?";

/// Whether a request holds a one-time token.
pub(in crate::storage) fn holds(connection: &Connection, token: &[u8; 32]) -> Result<bool, StoreError> {
    Ok(rows::first(connection, HOLDS, params![token], |_| Ok(()))?.is_some())
}

/// How many requests are open at a time (1), and of an identity (2).
const OPEN: &str = "SELECT count(*) FROM enrolment_request WHERE state IN (0, 1) AND expires_at > ?";
const OPEN_OF_IDENTITY: &str = "SELECT count(*) FROM enrolment_request WHERE state IN (0, 1) AND expires_at > ? \
    AND identity = ? AND identity_issuer = ?";
/// How many of those by one way (2) are, and by every way but the one-time tokens of operators (0): neither whoever an issuer lets in,
/// nor whoever gets letters, nor whoever has certificates must keep everybody else out.
const OPEN_BY_WAY: &str =
    "SELECT count(*) FROM enrolment_request WHERE state IN (0, 1) AND expires_at > ? AND way = ?";
const OPEN_WITHOUT_OPERATOR: &str =
    "SELECT count(*) FROM enrolment_request WHERE state IN (0, 1) AND expires_at > ? AND way <> 0";

pub(in crate::storage) fn record(connection: &Connection, new: &NewRequest) -> Result<(), StoreError> {
    let NewRequest { content, statement, limits, instead_of } = new;
    if revocations::is_compromised(connection, &content.spki_sha256)? {
        return Err(StoreError::KeyCompromised);
    }
    let of = RequestOf::Requester(content.requester.clone(), content.request_id.clone());
    let at = content.created_at;
    let before = find_of(connection, &of)?;
    if let Some(other) = &before
        && (other.state_at(at).is_open() || *instead_of != Some(other.content.id))
    {
        return Err(StoreError::StateConflict);
    }
    if let Some(token) = &content.token {
        if holds(connection, token)? {
            return Err(StoreError::StateConflict);
        }
        let query = "SELECT used_by IS NOT NULL, expires_at FROM token WHERE hash = ?";
        let token = rows::first(connection, query, params![token], |row| {
            Ok((get::<bool>(row, 0)?, get::<i64>(row, 1)?))
        })?;
        match token {
            None => return Err(StoreError::NotFound),
            Some((true, _)) => return Err(StoreError::TokenUsed),
            Some((false, end)) if end <= at.0 => return Err(StoreError::TokenExpired),
            Some(_) => {}
        }
    }
    if count(connection, OPEN, params![at.0])? >= u64::from(limits.all) {
        return Err(StoreError::QueueFull(QueueLimit::All));
    }
    if content.way != Way::Token {
        let (half, quarter) = (limits.all.div_ceil(2), limits.all / 4);
        if count(connection, OPEN_BY_WAY, params![at.0, content.way as i64])? >= u64::from(half)
            || count(connection, OPEN_WITHOUT_OPERATOR, params![at.0])? >= u64::from(limits.all - quarter)
        {
            return Err(StoreError::QueueFull(QueueLimit::All));
        }
    }
    let (identity, issuer) = (content.identity.as_str(), &content.identity_issuer);
    let of_identity = count(connection, OPEN_OF_IDENTITY, params![at.0, identity, issuer])?;
    if of_identity >= u64::from(limits.identity) {
        return Err(StoreError::QueueFull(QueueLimit::Identity));
    }
    // Its time was over, and nobody had noted it.
    if let Some(overdue) = before.filter(|other| other.state.is_open()) {
        steps::expire(connection, &overdue.content.id, at)?;
    }
    rows::execute(
        connection,
        "INSERT INTO enrolment_request (id, requester, request_id, token, way, requester_names, vouched_by, voucher_names, \
         identity_kind, identity, identity_issuer, profile, issuer, terms, spki, spki_sha256, claims, evidence, needed, \
         created_at, expires_at, state, announced) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)",
        params![
            content.id,
            content.requester,
            content.request_id,
            content.token.as_ref().map(<[u8; 32]>::as_slice),
            content.way as i64,
            to_json(&content.requester_names)?,
            content.vouched_by,
            to_json(&content.voucher_names)?,
            rows::identity_kind(&content.identity),
            content.identity.as_str(),
            content.identity_issuer,
            content.profile,
            content.issuer,
            to_json(&content.terms)?,
            content.spki,
            content.spki_sha256,
            to_json(&content.claims)?,
            content.evidence,
            content.needed,
            at.0,
            content.expires_at.0,
        ],
    )?;
    let detail = serde_json::json!({
        "request": hex::encode(content.id),
        "statement_sha256": hex::encode(Sha256::digest(statement)),
        "statement": statement,
    });
    audit::append(connection, "request.recorded", &content.requester, detail, at)
}

fn selected(mut conditions: Conditions, selection: &QueueSelection) -> Conditions {
    conditions.demand(" AND requester = ?", selection.requester.clone());
    conditions.demand(" AND identity = ?", selection.identity.clone());
    conditions.demand(" AND spki_sha256 = ?", selection.spki_sha256);
    conditions.demand(" AND profile = ?", selection.profile.clone());
    conditions.demand(" AND issuer = ?", selection.issuer.clone());
    conditions.demand(" AND created_at < ?", selection.created_before.map(|at| at.0));
    conditions
}

pub(in crate::storage) fn count_selected(
    connection: &Connection,
    selection: &QueueSelection,
) -> Result<OpenRequests, StoreError> {
    let open = "SELECT count(*), coalesce(max(number), 0) FROM enrolment_request WHERE state IN (0, 1)";
    let conditions = selected(Conditions::after(open), selection);
    let found = rows::first(connection, conditions.text(), &conditions.parameters(), |row| {
        let count = u64::try_from(get::<i64>(row, 0)?).map_err(|_| rows::corrupted("a count is negative"))?;
        Ok(OpenRequests { count, newest: get(row, 1)? })
    })?;
    Ok(found.unwrap_or_default())
}

pub(in crate::storage) fn unannounced(
    connection: &Connection,
    limit: u32,
) -> Result<Vec<QueuedRequest>, StoreError> {
    let query = request_select!("state IN (0, 1) AND state = 0 AND announced = 0 ORDER BY +number LIMIT ?");
    rows::all(connection, query, params![limit], row)
}

pub(in crate::storage) fn note_announced(
    connection: &Connection,
    ids: &[QueuedId],
) -> Result<(), StoreError> {
    for id in ids {
        rows::execute(connection, "UPDATE enrolment_request SET announced = 1 WHERE id = ?", params![id])?;
    }
    Ok(())
}

pub(in crate::storage) fn evidence(
    connection: &Connection,
    intent: &IntentId,
) -> Result<Option<String>, StoreError> {
    rows::first(connection, "SELECT evidence FROM certificate WHERE intent = ?", params![intent], |row| {
        get(row, 0)
    })
}

#[cfg(test)]
mod tests;
