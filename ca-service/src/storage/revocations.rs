//! SQL of revocations. One row each, found by primary key: the cost does not grow with the number revoked.

use ca_pki::crl::RevocationReason;
use ca_pki::serial::Shard;
use ca_pki::{SerialNumber, UnixTime};

use super::queue::QueueSelection;
use super::queue::sql::steps;
use super::renewals::{self, EndRenewals};
use super::rows::{self, column, get, stored_index};
use super::sql::{Connection, params};
use super::{State, StoreError, audit, compromised_keys, crls, problem_reports};

/// A revocation's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRevocation {
    /// Serial number.
    pub serial: SerialNumber,
    /// Name of the issuing authority.
    pub issuer: String,
    /// CRL shard.
    pub shard: Shard,
    /// From when on it must not be trusted.
    pub revoked_at: UnixTime,
    /// When it was recorded or last changed.
    pub recorded_at: UnixTime,
    /// Why.
    pub reason: RevocationReason,
    /// Index of its statement in the event log.
    pub event_index: Option<u64>,
}

/// A revocation to be recorded.
#[derive(Debug, Clone)]
pub struct NewRevocation {
    /// The certificate.
    pub serial: SerialNumber,
    /// From when on it must not be trusted.
    pub revoked_at: UnixTime,
    /// Why.
    pub reason: RevocationReason,
    /// Who asked.
    pub actor: String,
    /// When.
    pub at: UnixTime,
    /// What came of it by renewal ends with it; none where that stays.
    pub renewals: Option<EndRenewals>,
}

/// Somebody demands it of this very certificate.
pub(super) fn revoke(connection: &Connection, new: &NewRevocation) -> Result<StoredRevocation, StoreError> {
    record(connection, new, true)
}

/// It ends with another one, however long after that was demanded. Nobody looked at it: where its record says as much already, what is
/// reported of it stays open.
pub(super) fn revoke_with_another(
    connection: &Connection,
    new: &NewRevocation,
) -> Result<StoredRevocation, StoreError> {
    record(connection, new, false)
}

/// `agrees` is whether somebody decides what is reported of it also where nothing changes.
fn record(
    connection: &Connection,
    new: &NewRevocation,
    agrees: bool,
) -> Result<StoredRevocation, StoreError> {
    let query =
        "SELECT issuer, shard, state, identity, not_after, spki_sha256 FROM certificate WHERE serial = ?";
    let (issuer, shard, state, whose, key) =
        rows::first(connection, query, params![new.serial.as_bytes()], |row| {
            let (shard, state) = (rows::shard(get(row, 1)?)?, rows::state(get(row, 2)?)?);
            let whose = (get::<Option<String>>(row, 3)?, UnixTime(get(row, 4)?));
            Ok((get::<String>(row, 0)?, shard, state, whose, column::<32>(row, 5)?))
        })?
        .ok_or(StoreError::NotFound)?;
    // Nothing was signed: there is nothing to revoke, and answers are not good anyway.
    if matches!(state, State::Intent | State::Abandoned) {
        return Err(StoreError::StateConflict);
    }
    if let (Some(which), (Some(identity), not_after)) = (new.renewals, &whose) {
        renewals::note(connection, new, identity, which.of_one_until(*not_after))?;
    }
    if is_compromise(new.reason) {
        compromised_keys::note(connection, new, &key)?;
    }
    let (mut revoked_at, mut recorded_at, mut reason) = (new.revoked_at, new.at, new.reason);
    if let Some(recorded) = find(connection, &issuer, i64::from(shard.0), &new.serial)? {
        let (is_compromised, was) = (is_compromise(new.reason), is_compromise(recorded.reason));
        let graver = is_compromised && !was;
        // Of either compromise the same follows, so an earlier date counts by the other word as well; the word stays.
        let same = recorded.reason == new.reason || is_compromised && was;
        if !graver && (!same || recorded.revoked_at <= new.revoked_at) {
            if agrees {
                problem_reports::decide(connection, &new.serial, &new.actor, new.at)?;
            }
            return Ok(recorded);
        }
        if !graver {
            reason = recorded.reason;
        }
        revoked_at = revoked_at.min(recorded.revoked_at);
        // Every version of a record has a time of its own, so that the event log's index stays with the right one.
        recorded_at = recorded_at.max(recorded.recorded_at.plus(1));
    }
    if let Some(base) = crls::base_time(connection, &issuer)? {
        recorded_at = recorded_at.max(base);
    }
    rows::execute(
        connection,
        "INSERT INTO revocation (issuer, shard, serial, revoked_at, recorded_at, reason, actor) \
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (issuer, shard, serial) DO UPDATE SET \
         revoked_at = excluded.revoked_at, recorded_at = excluded.recorded_at, reason = excluded.reason, \
         actor = excluded.actor, event_index = NULL",
        params![
            issuer,
            shard.0,
            new.serial.as_bytes(),
            revoked_at.0,
            recorded_at.0,
            reason.code(),
            new.actor
        ],
    )?;
    rows::execute(
        connection,
        "UPDATE certificate SET state = ?, updated_at = ? WHERE serial = ?",
        params![State::Revoked as i64, new.at.0, new.serial.as_bytes()],
    )?;
    rows::execute(
        connection,
        "UPDATE crl_part SET changed = 1 WHERE issuer = ? AND part IN (?, -1)",
        params![issuer, shard.0],
    )?;
    let detail = serde_json::json!({
        "serial": new.serial.to_string(),
        "issuer": issuer,
        "revoked_at": revoked_at.0,
        "reason": reason.code(),
    });
    audit::append(connection, "certificate.revoked", &new.actor, detail, new.at)?;
    problem_reports::decide(connection, &new.serial, &new.actor, new.at)?;
    end_requests_of_renewal(connection, new)?;
    if is_compromise(new.reason) {
        end_requests_of_key(connection, new, key)?;
    }
    find(connection, &issuer, i64::from(shard.0), &new.serial)?
        .ok_or_else(|| rows::corrupted("a revocation that was just written is missing"))
}

/// Ends what waits for people and would renew it: nothing comes of that any more, and nobody is asked to approve it.
fn end_requests_of_renewal(connection: &Connection, new: &NewRevocation) -> Result<(), StoreError> {
    let requester = renewals::requester(&new.serial);
    let asked = "SELECT 1 FROM enrolment_request WHERE requester = ? LIMIT 1";
    if rows::first(connection, asked, params![requester], |_| Ok(()))?.is_none() {
        return Ok(());
    }
    let of_it = QueueSelection { requester: Some(requester), ..QueueSelection::default() };
    steps::end(connection, &of_it, &new.actor, "the certificate that it renews was revoked", new.at)
        .map(|_| ())
}

/// Ends what waits for people with a key that is in other hands: nothing may come of it.
fn end_requests_of_key(
    connection: &Connection,
    new: &NewRevocation,
    key: [u8; 32],
) -> Result<(), StoreError> {
    let of_key = QueueSelection { spki_sha256: Some(key), ..QueueSelection::default() };
    steps::end(connection, &of_key, &new.actor, "its key is recorded as compromised", new.at).map(|_| ())
}

/// Reasons that say that the key is in other hands.
pub(crate) fn is_compromise(reason: RevocationReason) -> bool {
    matches!(reason, RevocationReason::KeyCompromise | RevocationReason::CaCompromise)
}

/// Finds a certificate of a key (1) that was revoked for one of two reasons (2, 3). Among the revoked certificates only: a key
/// may have any number of others.
pub(super) const IS_COMPROMISED: &str = "SELECT 1 FROM certificate c INDEXED BY certificate_revoked_key JOIN revocation r \
     ON r.issuer = c.issuer AND r.shard = c.shard AND r.serial = c.serial \
     WHERE c.spki_sha256 = ?1 AND c.state = 7 AND r.reason IN (?2, ?3) LIMIT 1";

/// Whether a certificate for this key was revoked because the key was compromised (C9).
pub(super) fn is_compromised(connection: &Connection, spki_sha256: &[u8; 32]) -> Result<bool, StoreError> {
    let reasons =
        [RevocationReason::KeyCompromise, RevocationReason::CaCompromise].map(RevocationReason::code);
    let [key, ca] = reasons;
    Ok(rows::first(connection, IS_COMPROMISED, params![spki_sha256, key, ca], |_| Ok(()))?.is_some())
}

fn find(
    connection: &Connection,
    issuer: &str,
    shard: i64,
    serial: &SerialNumber,
) -> Result<Option<StoredRevocation>, StoreError> {
    let query = "SELECT issuer, shard, serial, revoked_at, recorded_at, reason, event_index FROM revocation \
                 WHERE issuer = ? AND shard = ? AND serial = ?";
    rows::first(connection, query, params![issuer, shard, serial.as_bytes()], rows::revocation)
}

/// The oldest revocations that the event log does not have, at most so many (1).
pub(super) const UNLOGGED: &str = "SELECT issuer, shard, serial, revoked_at, recorded_at, reason, event_index FROM revocation \
     WHERE event_index IS NULL ORDER BY recorded_at LIMIT ?";

pub(super) fn unlogged(connection: &Connection, limit: u32) -> Result<Vec<StoredRevocation>, StoreError> {
    rows::all(connection, UNLOGGED, params![limit], rows::revocation)
}

pub(super) fn record_logged(
    connection: &Connection,
    serial: &SerialNumber,
    recorded_at: UnixTime,
    index: u64,
) -> Result<(), StoreError> {
    let query = "SELECT issuer, shard FROM certificate WHERE serial = ?";
    let (issuer, shard) = rows::first(connection, query, params![serial.as_bytes()], |row| {
        Ok((get::<String>(row, 0)?, get::<i64>(row, 1)?))
    })?
    .ok_or(StoreError::NotFound)?;
    // A date that was moved meanwhile needs a statement of its own.
    rows::execute(
        connection,
        "UPDATE revocation SET event_index = ? WHERE issuer = ? AND shard = ? AND serial = ? AND recorded_at = ?",
        params![stored_index(index)?, issuer, shard, serial.as_bytes(), recorded_at.0],
    )?;
    Ok(())
}
