//! The steps of requests that wait for approval: each conditional on the state it starts from, with its audit record.

use ca_pki::UnixTime;

use super::super::{
    Decided, Decision, NewDecision, QueueSelection, QueueState, QueuedId, QueuedRequest, StoredApproval,
};
use super::{find, selected, to_json};
use crate::storage::certificates::Conditions;
use crate::storage::rows::{self, column};
use crate::storage::sql::{Connection, params};
use crate::storage::{IntentId, State, StoreError, audit, revocations};

pub(in crate::storage) fn decide(
    connection: &Connection,
    new: &NewDecision,
) -> Result<Vec<QueuedRequest>, StoreError> {
    // All are looked at before any is written: a refusal changes nothing.
    for decided in &new.requests {
        let request = find(connection, &decided.id)?.ok_or(StoreError::NotFound)?;
        match (&new.decision, request.state_at(new.at)) {
            (Decision::Approve, state) => may_approve(connection, &request, state, decided, new)?,
            (Decision::Deny(_), QueueState::Waiting | QueueState::Approved) => {}
            _ => return Err(StoreError::StateConflict),
        }
    }
    for decided in &new.requests {
        match &new.decision {
            Decision::Approve => approve(connection, decided, new)?,
            Decision::Deny(reason) => {
                let change = (QueueState::Denied, "request.denied");
                close(connection, &decided.id, change, &new.actor, reason, new.at)?;
            }
        }
    }
    let found = new.requests.iter().map(|decided| {
        find(connection, &decided.id)?
            .ok_or_else(|| rows::corrupted("a request that was just decided is missing"))
    });
    found.collect()
}

/// Whether somebody may approve a request in this state, whoever approved it meanwhile.
fn may_approve(
    connection: &Connection,
    request: &QueuedRequest,
    state: QueueState,
    decided: &Decided,
    new: &NewDecision,
) -> Result<(), StoreError> {
    let of_this = || request.approvals.iter().filter(|approval| approval.statement == decided.statement);
    let repeats = of_this().any(|approval| approval.approver == new.name);
    let needed = usize::from(request.content.needed.max(decided.needed));
    match state {
        QueueState::Waiting => {}
        // Enough at the time, and too few by now.
        QueueState::Approved if of_this().count() < needed => {}
        // Whoever repeats their approval learns how it stands.
        QueueState::Approved if repeats => return Ok(()),
        _ => return Err(StoreError::StateConflict),
    }
    if revocations::is_compromised(connection, &request.content.spki_sha256)? {
        return Err(StoreError::KeyCompromised);
    }
    if !repeats && of_this().any(|approval| shares_a_name(approval, &new.names)) {
        return Err(StoreError::ApproverRepeated);
    }
    Ok(())
}

fn shares_a_name(approval: &StoredApproval, names: &[String]) -> bool {
    approval.names.iter().any(|name| names.iter().any(|other| other.eq_ignore_ascii_case(name)))
}

fn approve(connection: &Connection, decided: &Decided, new: &NewDecision) -> Result<(), StoreError> {
    let Decided { id, statement, .. } = decided;
    let given = "SELECT 1 FROM enrolment_approval WHERE request = ? AND approver = ? AND statement = ?";
    let given = rows::first(connection, given, params![id, new.name, statement], |_| Ok(()))?.is_some();
    if !given {
        // The record is the next one: what is in this transaction, nobody else writes between.
        let record = audit::latest(connection)?.map_or(0, |record| record.sequence).saturating_add(1);
        rows::execute(
            connection,
            "INSERT INTO enrolment_approval (request, approver, statement, names, record, at) VALUES (?, ?, ?, ?, ?, ?)",
            params![
                id,
                new.name,
                statement,
                to_json(&new.names)?,
                i64::try_from(record).map_err(|_| rows::corrupted("an audit record"))?,
                new.at.0
            ],
        )?;
    }
    let enough = rows::execute(
        connection,
        "UPDATE enrolment_request SET state = 1 WHERE id = ?1 AND state = 0 AND needed <= ?2 AND ?3 <= ?2",
        params![id, given_to(connection, decided)?, decided.needed],
    )?;
    if !given || enough == 1 {
        let detail = serde_json::json!({
            "request": hex::encode(id),
            "statement_sha256": hex::encode(statement),
            "enough": enough == 1,
        });
        audit::append(connection, "request.approved", &new.actor, detail, new.at)?;
    }
    reopen(connection, decided, new.at)
}

/// How many approved a text.
fn given_to(connection: &Connection, decided: &Decided) -> Result<i64, StoreError> {
    let query = "SELECT count(*) FROM enrolment_approval WHERE request = ? AND statement = ?";
    let found = rows::first(connection, query, params![decided.id, decided.statement], |row| {
        rows::get::<i64>(row, 0)
    })?;
    Ok(found.unwrap_or(0))
}

pub(in crate::storage) fn withdraw(
    connection: &Connection,
    decided: &Decided,
    approvers: &[String],
    at: UnixTime,
) -> Result<(), StoreError> {
    let Decided { id, statement, .. } = decided;
    for approver in approvers {
        let query = "DELETE FROM enrolment_approval WHERE request = ? AND approver = ? AND statement = ? \
                     AND (SELECT state FROM enrolment_request WHERE id = ?) IN (0, 1)";
        if rows::execute(connection, query, params![id, approver, statement, id])? == 1 {
            let detail = serde_json::json!({
                "request": hex::encode(id),
                "statement_sha256": hex::encode(statement),
                "approver": approver,
            });
            audit::append(connection, "request.withdrawn", "configuration", detail, at)?;
        }
    }
    reopen(connection, decided, at)
}

pub(in crate::storage) fn reopen(
    connection: &Connection,
    decided: &Decided,
    at: UnixTime,
) -> Result<(), StoreError> {
    let given = given_to(connection, decided)?;
    let reopened = rows::execute(
        connection,
        "UPDATE enrolment_request SET state = 0 WHERE id = ?1 AND state = 1 AND ?2 < ?3",
        params![decided.id, given, decided.needed],
    )?;
    if reopened == 0 {
        return Ok(());
    }
    let detail = serde_json::json!({
        "request": hex::encode(decided.id),
        "approvals_given": given,
        "approvals_needed": decided.needed,
    });
    audit::append(connection, "request.reopened", "configuration", detail, at)
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
    audit::append(connection, event, actor, detail, at)
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

/// Why a request is not given back when its requester has made another one of it.
const REPLACED: &str = "its requester asked anew before its issuance came to nothing";

/// Gives a request back of whose issuance nothing exists; one that an order meant meanwhile is ended, and so is one in whose place its
/// requester has another: of one kind no two are open.
pub(in crate::storage) fn release(
    connection: &Connection,
    intent: &IntentId,
    at: UnixTime,
) -> Result<(), StoreError> {
    let meant = "UPDATE enrolment_request SET state = 5, intent = NULL, closed_at = ? \
                 WHERE intent = ? AND state = 2 AND closed_by IS NOT NULL RETURNING id, closed_by, reason";
    let meant = rows::first(connection, meant, params![at.0, intent], |row| {
        Ok((column::<16>(row, 0)?, rows::get::<String>(row, 1)?, rows::get::<String>(row, 2)?))
    })?;
    if let Some((id, actor, reason)) = meant {
        return told(connection, &id, "request.ended", &actor, &reason, at);
    }
    let replaced = "UPDATE enrolment_request SET state = 5, intent = NULL, closed_at = ?, closed_by = 'reconciler', reason = ? \
                    WHERE intent = ? AND state = 2 AND EXISTS (SELECT 1 FROM enrolment_request later \
                    WHERE later.requester = enrolment_request.requester AND later.request_id = enrolment_request.request_id \
                    AND later.number > enrolment_request.number) RETURNING id";
    let replaced =
        rows::first(connection, replaced, params![at.0, REPLACED, intent], |row| column::<16>(row, 0))?;
    if let Some(id) = replaced {
        return told(connection, &id, "request.ended", "reconciler", REPLACED, at);
    }
    let query = "UPDATE enrolment_request SET state = 1, intent = NULL, closed_at = NULL \
                 WHERE intent = ? AND state = 2";
    rows::execute(connection, query, params![intent]).map(|_| ())
}

/// Notes that the time of an open request is over.
pub(super) fn expire(connection: &Connection, id: &QueuedId, at: UnixTime) -> Result<(), StoreError> {
    let change = (QueueState::Expired, "request.expired");
    close(connection, id, change, "reconciler", "its time was over", at)
}

/// Most requests that expire in one transaction.
const TENDED: u32 = 256;
/// Open requests whose time is over (1), and closed ones of before a time (1); at most so many (2).
pub(super) const OVERDUE: &str =
    "SELECT id FROM enrolment_request WHERE state IN (0, 1) AND expires_at <= ? LIMIT ?";
pub(super) const OLD: &str = "SELECT id FROM enrolment_request WHERE closed_at IS NOT NULL AND closed_at < ? ORDER BY closed_at LIMIT ?";

pub(in crate::storage) fn tend(
    connection: &Connection,
    now: UnixTime,
    forget_before: UnixTime,
) -> Result<u64, StoreError> {
    let overdue = rows::all(connection, OVERDUE, params![now.0, TENDED], |row| column::<16>(row, 0))?;
    for id in &overdue {
        expire(connection, id, now)?;
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
    // Those that are being signed become certificates, which the order finds, or come back: then they are ended.
    let mut begun = Conditions::after("UPDATE enrolment_request SET ");
    begun.demand("closed_by = ?", Some(actor.to_owned()));
    begun.demand(", reason = ?", Some(reason.to_owned()));
    begun.demand(
        " WHERE state = 2 AND closed_by IS NULL AND intent IN \
         (SELECT intent FROM certificate WHERE state IN (0, 1, 3, 4) AND state IN (0, ?))",
        Some(State::Signing as i64),
    );
    let begun = selected(begun, selection);
    rows::execute(connection, begun.text(), &begun.parameters())?;
    Ok(found.len() as u64)
}
