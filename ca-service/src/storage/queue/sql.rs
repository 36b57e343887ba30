//! SQL of requests that wait for approval. What is open is found by an index of the open ones alone, however many were closed.

use ca_pki::UnixTime;

use super::super::certificates::Conditions;
use super::super::rows::{self, column, get};
use super::super::sql::{Connection, Row, params};
use super::super::{IntentId, StoreError, audit, revocations};
use super::{
    Decision, NewDecision, QueueLimit, QueueLimits, QueueSearch, QueueSelection, QueueState, QueuedId,
    QueuedRequest, RequestContent, RequestOf, StoredApproval, Way, numbered,
};

/// The columns of [`row`].
macro_rules! request_select {
    ($rest:literal) => {
        concat!(
            "SELECT number, id, requester, request_id, token, way, vouched_by, identity_kind, identity, identity_issuer, ",
            "profile, spki, spki_sha256, claims, evidence, needed, created_at, expires_at, state, closed_by, reason, intent ",
            "FROM enrolment_request WHERE ",
            $rest
        )
    };
}

fn row(row: &Row<'_>) -> Result<QueuedRequest, StoreError> {
    let token = get::<Option<Vec<u8>>>(row, 4)?.map(|_| column::<32>(row, 4)).transpose()?;
    let intent = get::<Option<Vec<u8>>>(row, 21)?.map(|_| column::<16>(row, 21)).transpose()?;
    let claims = serde_json::from_str(&get::<String>(row, 13)?);
    Ok(QueuedRequest {
        number: get(row, 0)?,
        content: RequestContent {
            id: column::<16>(row, 1)?,
            requester: get(row, 2)?,
            request_id: get(row, 3)?,
            token,
            way: numbered(&Way::ALL, get(row, 5)?, "way of a request")?,
            vouched_by: get(row, 6)?,
            identity: rows::identity(get(row, 7)?, get(row, 8)?)?,
            identity_issuer: get(row, 9)?,
            profile: get(row, 10)?,
            spki: get(row, 11)?,
            spki_sha256: column::<32>(row, 12)?,
            claims: claims.map_err(|_| rows::corrupted("claims of a request"))?,
            evidence: get(row, 14)?,
            needed: u8::try_from(get::<i64>(row, 15)?).map_err(|_| rows::corrupted("number of approvals"))?,
            created_at: UnixTime(get(row, 16)?),
            expires_at: UnixTime(get(row, 17)?),
        },
        state: numbered(&QueueState::ALL, get(row, 18)?, "state of a request")?,
        approvals: Vec::new(),
        closed_by: get(row, 19)?,
        reason: get(row, 20)?,
        intent,
    })
}

/// The same with its approvals.
fn whole(connection: &Connection, mut request: QueuedRequest) -> Result<QueuedRequest, StoreError> {
    let query = "SELECT approver, statement, at FROM enrolment_approval WHERE request = ? ORDER BY approver";
    request.approvals = rows::all(connection, query, params![request.content.id], |row| {
        Ok(StoredApproval {
            approver: get(row, 0)?,
            statement: column::<32>(row, 1)?,
            at: UnixTime(get(row, 2)?),
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
            let query = request_select!("requester = ? AND request_id = ?");
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
const OPEN_OF_IDENTITY: &str =
    "SELECT count(*) FROM enrolment_request WHERE state IN (0, 1) AND expires_at > ? AND identity = ?";

pub(in crate::storage) fn record(
    connection: &Connection,
    content: &RequestContent,
    statement: &[u8; 32],
    limits: QueueLimits,
) -> Result<(), StoreError> {
    if revocations::is_compromised(connection, &content.spki_sha256)? {
        return Err(StoreError::KeyCompromised);
    }
    let of = RequestOf::Requester(content.requester.clone(), content.request_id.clone());
    if find_of(connection, &of)?.is_some() {
        return Err(StoreError::StateConflict);
    }
    let at = content.created_at;
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
    let of_identity = count(connection, OPEN_OF_IDENTITY, params![at.0, content.identity.as_str()])?;
    if of_identity >= u64::from(limits.identity) {
        return Err(StoreError::QueueFull(QueueLimit::Identity));
    }
    let claims =
        serde_json::to_string(&content.claims).map_err(|_| rows::corrupted("claims of a request"))?;
    rows::execute(
        connection,
        "INSERT INTO enrolment_request (id, requester, request_id, token, way, vouched_by, identity_kind, identity, \
         identity_issuer, profile, spki, spki_sha256, claims, evidence, needed, created_at, expires_at, state, announced) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)",
        params![
            content.id,
            content.requester,
            content.request_id,
            content.token.as_ref().map(<[u8; 32]>::as_slice),
            content.way as i64,
            content.vouched_by,
            rows::identity_kind(&content.identity),
            content.identity.as_str(),
            content.identity_issuer,
            content.profile,
            content.spki,
            content.spki_sha256,
            claims,
            content.evidence,
            content.needed,
            at.0,
            content.expires_at.0,
        ],
    )?;
    let detail = serde_json::json!({
        "request": hex::encode(content.id),
        "statement_sha256": hex::encode(statement),
        "identity": content.identity.as_str(),
        "profile": content.profile,
        "spki_sha256": hex::encode(content.spki_sha256),
        "approvals_needed": content.needed,
        "expires_at": content.expires_at.0,
    });
    audit::append(connection, "request.recorded", &content.requester, &detail.to_string(), at)
}

pub(in crate::storage) fn decide(
    connection: &Connection,
    new: &NewDecision,
) -> Result<Vec<QueuedRequest>, StoreError> {
    // All are looked at before any is written: a refusal changes nothing.
    for (id, _) in &new.requests {
        let request = find(connection, id)?.ok_or(StoreError::NotFound)?;
        let approved = request.approvals.iter().any(|approval| approval.approver == new.name);
        match (&new.decision, request.state_at(new.at)) {
            (Decision::Approve, QueueState::Waiting) => {
                if revocations::is_compromised(connection, &request.content.spki_sha256)? {
                    return Err(StoreError::KeyCompromised);
                }
            }
            // Whoever repeats their approval learns how it stands.
            (Decision::Approve, QueueState::Approved) if approved => {}
            (Decision::Deny(_), QueueState::Waiting | QueueState::Approved) => {}
            _ => return Err(StoreError::StateConflict),
        }
    }
    for (id, statement) in &new.requests {
        match &new.decision {
            Decision::Approve => approve(connection, id, statement, new)?,
            Decision::Deny(reason) => {
                let change = (QueueState::Denied, "request.denied");
                close(connection, id, change, &new.actor, reason, new.at)?;
            }
        }
    }
    let decided = new.requests.iter().map(|(id, _)| {
        find(connection, id)?.ok_or_else(|| rows::corrupted("a request that was just decided is missing"))
    });
    decided.collect()
}

fn approve(
    connection: &Connection,
    id: &QueuedId,
    statement: &[u8; 32],
    new: &NewDecision,
) -> Result<(), StoreError> {
    let added = rows::execute(
        connection,
        "INSERT INTO enrolment_approval (request, approver, statement, at) VALUES (?, ?, ?, ?) \
         ON CONFLICT (request, approver) DO NOTHING",
        params![id, new.name, statement, new.at.0],
    )?;
    if added == 0 {
        return Ok(());
    }
    let enough = "UPDATE enrolment_request SET state = 1 WHERE id = ?1 AND state = 0 AND needed <= \
                  (SELECT count(*) FROM enrolment_approval WHERE request = ?1 AND statement = ?2)";
    let enough = rows::execute(connection, enough, params![id, statement])?;
    let detail = serde_json::json!({
        "request": hex::encode(id),
        "statement_sha256": hex::encode(statement),
        "enough": enough == 1,
    });
    audit::append(connection, "request.approved", &new.actor, &detail.to_string(), new.at)
}

/// Closes an open request.
fn close(
    connection: &Connection,
    id: &QueuedId,
    (state, event): (QueueState, &str),
    actor: &str,
    reason: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    let closed = rows::execute(
        connection,
        "UPDATE enrolment_request SET state = ?, closed_at = ?, closed_by = ?, reason = ? \
         WHERE id = ? AND state IN (0, 1)",
        params![state as i64, at.0, actor, reason, id],
    )?;
    if closed != 1 {
        return Err(rows::corrupted("a request that was open is not"));
    }
    told(connection, id, event, actor, reason, at)
}

/// The audit record of a request that was closed.
fn told(
    connection: &Connection,
    id: &[u8],
    event: &str,
    actor: &str,
    reason: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    let detail = serde_json::json!({ "request": hex::encode(id), "reason": reason });
    audit::append(connection, event, actor, &detail.to_string(), at)
}

/// Whether an approved request waits for its issuance.
pub(in crate::storage) fn is_approved(
    connection: &Connection,
    id: &QueuedId,
    now: UnixTime,
) -> Result<bool, StoreError> {
    let query = "SELECT 1 FROM enrolment_request WHERE id = ? AND state = 1 AND expires_at > ?";
    Ok(rows::first(connection, query, params![id, now.0], |_| Ok(()))?.is_some())
}

/// Gives a request to an issuance, whose intent is recorded in the same transaction.
pub(in crate::storage) fn claim(
    connection: &Connection,
    id: &QueuedId,
    intent: &IntentId,
    at: UnixTime,
) -> Result<(), StoreError> {
    let query =
        "UPDATE enrolment_request SET state = 2, intent = ?, closed_at = ? WHERE id = ? AND state = 1";
    match rows::execute(connection, query, params![intent, at.0, id])? {
        1 => Ok(()),
        // It was looked at in this transaction.
        _ => Err(rows::corrupted("a request that was approved is not")),
    }
}

/// Gives a request back of whose issuance nothing exists.
pub(in crate::storage) fn release(connection: &Connection, intent: &IntentId) -> Result<(), StoreError> {
    let query = "UPDATE enrolment_request SET state = 1, intent = NULL, closed_at = NULL \
                 WHERE intent = ? AND state = 2";
    rows::execute(connection, query, params![intent]).map(|_| ())
}

/// Most requests that expire in one transaction.
const TENDED: u32 = 256;
/// Open requests whose time is over (1), and closed ones of before a time (1); at most so many (2).
const OVERDUE: &str = "SELECT id FROM enrolment_request WHERE state IN (0, 1) AND expires_at <= ? LIMIT ?";
const OLD: &str = "SELECT id FROM enrolment_request WHERE closed_at IS NOT NULL AND closed_at < ? ORDER BY closed_at LIMIT ?";

pub(in crate::storage) fn tend(
    connection: &Connection,
    now: UnixTime,
    forget_before: UnixTime,
) -> Result<u64, StoreError> {
    let overdue = rows::all(connection, OVERDUE, params![now.0, TENDED], |row| column::<16>(row, 0))?;
    for id in &overdue {
        let change = (QueueState::Expired, "request.expired");
        close(connection, id, change, "reconciler", "its time was over", now)?;
    }
    let old = rows::all(connection, OLD, params![forget_before.0, TENDED], |row| column::<16>(row, 0))?;
    for id in &old {
        rows::execute(connection, "DELETE FROM enrolment_approval WHERE request = ?", params![id])?;
        rows::execute(connection, "DELETE FROM enrolment_request WHERE id = ?", params![id])?;
    }
    Ok(overdue.len() as u64)
}

/// Whether [`tend`] has anything to do.
pub(in crate::storage) fn needs_tending(
    connection: &Connection,
    now: UnixTime,
    forget_before: UnixTime,
) -> Result<bool, StoreError> {
    let any = |query: &str, at: UnixTime| rows::first(connection, query, params![at.0, 1_u8], |_| Ok(()));
    Ok(any(OVERDUE, now)?.is_some() || any(OLD, forget_before)?.is_some())
}

fn selected(mut conditions: Conditions, selection: &QueueSelection) -> Conditions {
    conditions.demand(" AND identity = ?", selection.identity.clone());
    conditions.demand(" AND spki_sha256 = ?", selection.spki_sha256);
    conditions.demand(" AND profile = ?", selection.profile.clone());
    conditions.demand(" AND created_at >= ?", selection.created_from.map(|at| at.0));
    conditions.demand(" AND created_at < ?", selection.created_before.map(|at| at.0));
    conditions
}

pub(in crate::storage) fn count_selected(
    connection: &Connection,
    selection: &QueueSelection,
) -> Result<u64, StoreError> {
    let open = Conditions::after("SELECT count(*) FROM enrolment_request WHERE state IN (0, 1)");
    let conditions = selected(open, selection);
    count(connection, conditions.text(), &conditions.parameters())
}

pub(in crate::storage) fn end(
    connection: &Connection,
    selection: &QueueSelection,
    actor: &str,
    reason: &str,
    at: UnixTime,
) -> Result<u64, StoreError> {
    let open = Conditions::after("SELECT id FROM enrolment_request WHERE state IN (0, 1)");
    let conditions = selected(open, selection);
    let found =
        rows::all(connection, conditions.text(), &conditions.parameters(), |row| column::<16>(row, 0))?;
    for id in &found {
        close(connection, id, (QueueState::Ended, "request.ended"), actor, reason, at)?;
    }
    Ok(found.len() as u64)
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

#[cfg(test)]
mod tests;
