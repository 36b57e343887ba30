//! What came of certificates by renewal: counted, and ended with them.
//!
//! A revocation that ends what came of its certificate says so in its own transaction ([`note`]). Whoever revokes goes on at once, and the
//! reconciler and the next start finish it: some certificates in each transaction, a generation at a time ([`go_on`]), so that nothing
//! that happens between leaves a renewal good without a record that it must end. Until then nobody of that identity renews
//! ([`are_due_of`]).

use ca_pki::crl::RevocationReason;
use ca_pki::{SerialNumber, UnixTime};

use super::revocations::{self, NewRevocation, is_compromise};
use super::rows::{self, column, get};
use super::search::Particulars;
use super::sql::{Connection, Parameter, Value, params};
use super::sql_store::SqlStore;
use super::{Answer, Selection, State, StoreError, compromised_keys};

/// What the requester of a renewal is called, before the serial number of the old certificate.
pub(crate) const BY_CERTIFICATE: &str = "certificate:";
/// Certificates whose renewals are ended in one transaction; of each there are sixteen at most.
const PIECE: u32 = 16;
/// Most certificates that one count looks at.
const MOST_COUNTED: u64 = 100_000;

/// Which renewals end with a certificate, and from when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndRenewals {
    /// Those that were recorded then or later; none for all of them.
    pub since: Option<UnixTime>,
    /// From when on they must not be trusted, each at the earliest from its own validity on.
    pub dated: UnixTime,
    /// Those of certificates alone that had not ended by then, and for no reason that says something of their keys: the holder demands it.
    /// None for all: an operator does.
    pub valid_at: Option<UnixTime>,
}

/// What was demanded of the renewals of a revoked certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalEnd {
    /// Which of them.
    pub which: EndRenewals,
    /// Why.
    pub reason: RevocationReason,
    /// Whether each of them was looked at.
    pub done: bool,
}

/// A certificate that ended with another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedCertificate {
    /// Serial number.
    pub serial: SerialNumber,
    /// Name of the issuing authority.
    pub issuer: String,
    /// Whether it is one of the CA's own, which carry no identity.
    pub is_own: bool,
}

/// What a piece of the work did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// What is revoked now.
    pub revoked: Vec<EndedCertificate>,
    /// Whether there is more to do, of renewals or of keys: each brings forth the other.
    pub more: bool,
}

/// How many certificates came of others by renewal; what was never signed is not among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RenewalCount {
    /// Revoked.
    pub revoked: u64,
    /// Not revoked.
    pub standing: u64,
}

/// A certificate that ends with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependent {
    /// Serial number.
    pub serial: SerialNumber,
    /// SHA-256 of its key.
    pub spki_sha256: [u8; 32],
    /// Whether it is revoked.
    pub is_revoked: bool,
}

/// Which renewals are counted.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    /// Apart from these, and from what came of them: they are counted as their own.
    pub apart_from: Option<Selection>,
    /// Those that were recorded then or later, and what came of them.
    pub since: Option<UnixTime>,
}

/// The part of the CA's memory that is about renewals, under the same contract as [`super::CertificateStore`].
pub trait RenewalStore: Send + Sync {
    /// Goes on ending what came of revoked certificates: a bounded number in one transaction with their audit records. Writes nothing
    /// where nothing is due.
    fn end_renewals(&self, at: UnixTime) -> Answer<'_, Ended>;
    /// How many certificates came of these, directly or of one another; of more than 100,000 so many.
    fn count_renewals(&self, of: Vec<SerialNumber>, which: Counted) -> Answer<'_, RenewalCount>;
    /// The same certificates; what was never signed is not among them.
    fn renewals(&self, of: Vec<SerialNumber>, which: Counted) -> Answer<'_, Vec<Dependent>>;
    /// What was demanded of the renewals of a certificate when it was revoked; none where it had none, or they stay.
    fn renewal_end<'a>(&'a self, serial: &'a SerialNumber) -> Answer<'a, Option<RenewalEnd>>;
}

impl RenewalStore for SqlStore {
    fn end_renewals(&self, at: UnixTime) -> Answer<'_, Ended> {
        Box::pin(async move {
            if !self.readers.read(any_due).await? {
                return Ok(Ended::default());
            }
            self.writer.change_status(move |connection| go_on(connection, at)).await
        })
    }

    fn count_renewals(&self, of: Vec<SerialNumber>, which: Counted) -> Answer<'_, RenewalCount> {
        Box::pin(self.readers.own_scan(move |connection| count(connection, of, &which)))
    }

    fn renewals(&self, of: Vec<SerialNumber>, which: Counted) -> Answer<'_, Vec<Dependent>> {
        Box::pin(self.readers.own_scan(move |connection| all(connection, of, &which)))
    }

    fn renewal_end<'a>(&'a self, serial: &'a SerialNumber) -> Answer<'a, Option<RenewalEnd>> {
        let serial = serial.clone();
        Box::pin(self.readers.read(move |connection| Ok(find(connection, &serial)?.map(|(end, _)| end))))
    }
}

/// The name of whoever asks with the key of a certificate.
pub(crate) fn requester(serial: &SerialNumber) -> String {
    format!("{BY_CERTIFICATE}{serial}")
}

/// A certificate that came of another.
struct Child {
    serial: SerialNumber,
    row: i64,
    issuer: String,
    spki_sha256: [u8; 32],
    not_before: UnixTime,
    created_at: UnixTime,
    state: State,
    identity: Option<String>,
    profile: String,
}

impl Child {
    fn particulars(&self) -> Particulars<'_> {
        Particulars {
            row: self.row,
            identity: self.identity.as_deref(),
            spki_sha256: &self.spki_sha256,
            issuer: &self.issuer,
            profile: &self.profile,
            created_at: self.created_at,
        }
    }
}

/// What came of some certificates directly, by the words of the index of requesters; what was given up is not among it.
macro_rules! children_of {
    ($requesters:literal) => {
        concat!(
            "SELECT serial, id, issuer, spki_sha256, not_before, created_at, state, identity, profile ",
            "FROM certificate ",
            "WHERE requester ",
            $requesters,
            " AND request_id IS NOT NULL AND substr(requester, 1, 6) <> 'token:'"
        )
    };
}

/// Of one.
const CHILDREN: &str = children_of!("= ?");
/// Of [`TOGETHER`]: to count what came of many is not as many statements, each an answer of a server to wait for.
const CHILDREN_OF_SOME: &str = children_of!(
    "IN (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
);
/// Certificates of which one statement finds what came of them.
const TOGETHER: usize = 32;

fn children(connection: &Connection, of: &SerialNumber) -> Result<Vec<Child>, StoreError> {
    found(connection, CHILDREN, params![requester(of)])
}

/// Of at most [`TOGETHER`].
fn children_of_some(connection: &Connection, of: &[SerialNumber]) -> Result<Vec<Child>, StoreError> {
    let requesters: Vec<String> = of.iter().map(requester).collect();
    // A name that stands twice is found once.
    let filled = requesters.iter().chain(requesters.iter().cycle()).take(TOGETHER);
    let parameters: Vec<Value<'_>> = filled.map(Parameter::value).collect();
    if parameters.is_empty() { Ok(Vec::new()) } else { found(connection, CHILDREN_OF_SOME, &parameters) }
}

fn found(connection: &Connection, query: &str, parameters: &[Value<'_>]) -> Result<Vec<Child>, StoreError> {
    rows::all(connection, query, parameters, |row| {
        Ok(Child {
            serial: rows::serial(rows::blob(row, 0)?)?,
            row: get(row, 1)?,
            issuer: get(row, 2)?,
            spki_sha256: column::<32>(row, 3)?,
            not_before: UnixTime(get(row, 4)?),
            created_at: UnixTime(get(row, 5)?),
            state: rows::state(get(row, 6)?)?,
            identity: get(row, 7)?,
            profile: get(row, 8)?,
        })
    })
}

/// What is recorded, and who asked for it.
fn find(connection: &Connection, serial: &SerialNumber) -> Result<Option<(RenewalEnd, String)>, StoreError> {
    let query = "SELECT reason, since, dated, done, actor FROM renewal_end WHERE serial = ?";
    rows::first(connection, query, params![serial.as_bytes()], |row| {
        let since = get::<Option<i64>>(row, 1)?.map(UnixTime);
        let which = EndRenewals { since, dated: UnixTime(get(row, 2)?), valid_at: None };
        let end = RenewalEnd { which, reason: rows::reason(get(row, 0)?)?, done: get::<i64>(row, 3)? != 0 };
        Ok((end, get(row, 4)?))
    })
}

impl EndRenewals {
    /// What it comes to for one certificate, by the last second of its validity. Where none ends, that is said too.
    pub(super) fn of_one_until(self, not_after: UnixTime) -> Self {
        let had_ended = self.valid_at.is_some_and(|at| not_after < at);
        let since = if had_ended { Some(UnixTime(i64::MAX)) } else { self.since };
        Self { since, valid_at: None, ..self }
    }

    /// Whether another demand means no more than this one.
    pub(super) fn covers(self, other: Self) -> bool {
        let reaches = |from: Option<UnixTime>, other: Option<UnixTime>| match (from, other) {
            (None, _) => true,
            (Some(from), Some(other)) => from <= other,
            (Some(_), None) => false,
        };
        reaches(self.since, other.since)
            && reaches(self.valid_at, other.valid_at)
            && self.dated <= other.dated
    }

    /// Both demands in one.
    pub(super) fn with(self, other: Self) -> Self {
        let first = |one: Option<UnixTime>, other: Option<UnixTime>| {
            one.zip(other).map(|(one, other)| one.min(other))
        };
        Self {
            since: first(self.since, other.since),
            dated: self.dated.min(other.dated),
            valid_at: first(self.valid_at, other.valid_at),
        }
    }
}

impl RenewalEnd {
    /// Whether nothing is left to do for another demand once this one was met.
    fn covers(&self, other: &Self) -> bool {
        self.which.covers(other.which) && (self.reason == other.reason || is_compromise(self.reason))
    }

    /// Whether both in one would end renewals as compromised that neither demand calls so: one is of a compromise, the other is not, and
    /// each reaches further than the other.
    fn widens(&self, other: &Self) -> bool {
        is_compromise(self.reason) != is_compromise(other.reason)
            && !self.covers(other)
            && !other.covers(self)
    }

    /// Both demands in one.
    fn with(self, other: Self) -> Self {
        let which = self.which.with(other.which);
        let reason = if is_compromise(self.reason) { self.reason } else { other.reason };
        Self { which, reason, done: false }
    }
}

/// Why renewals end with a revocation. What a holder says of a key is said of that key: renewals have others, which their own holders
/// have, so they end for a reason that says nothing of theirs, and nothing else of those keys ends with them.
fn reason_of_renewals(new: &NewRevocation) -> RevocationReason {
    let by_holder = new.renewals.is_some_and(|which| which.valid_at.is_some());
    if by_holder && is_compromise(new.reason) { RevocationReason::PrivilegeWithdrawn } else { new.reason }
}

/// Notes with a revocation which renewals end with it, where the certificate has any: of a revoked one no more come.
pub(super) fn note(
    connection: &Connection,
    new: &NewRevocation,
    identity: &str,
    which: EndRenewals,
) -> Result<(), StoreError> {
    if children(connection, &new.serial)?.is_empty() {
        return Ok(());
    }
    let asked = RenewalEnd { which, reason: reason_of_renewals(new), done: false };
    let demand = match find(connection, &new.serial)? {
        Some((before, _)) if before.done && before.covers(&asked) => return Ok(()),
        // Together they would say of keys what neither says: each is carried out as it was demanded.
        Some((before, actor)) if !before.done && before.widens(&asked) => {
            end_children(connection, &new.serial, (&before, &actor), new.at, &mut Vec::new())?;
            asked
        }
        Some((before, _)) if !before.done => before.with(asked),
        _ => asked,
    };
    rows::execute(
        connection,
        "INSERT INTO renewal_end (serial, identity, reason, since, dated, actor, done) VALUES (?, ?, ?, ?, ?, ?, 0) \
         ON CONFLICT (serial) DO UPDATE SET reason = excluded.reason, since = excluded.since, dated = excluded.dated, \
         actor = excluded.actor, done = 0",
        params![
            new.serial.as_bytes(),
            identity,
            demand.reason.code(),
            demand.which.since.map(|since| since.0),
            demand.which.dated.0,
            new.actor,
        ],
    )?;
    Ok(())
}

/// Those that are due, at most so many (1).
const DUE: &str = "SELECT serial FROM renewal_end WHERE done = 0 LIMIT ?";

fn due(connection: &Connection, limit: u32) -> Result<Vec<SerialNumber>, StoreError> {
    rows::all(connection, DUE, params![limit], |row| rows::serial(rows::blob(row, 0)?))
}

pub(super) fn any_due(connection: &Connection) -> Result<bool, StoreError> {
    Ok(!due(connection, 1)?.is_empty())
}

/// Whether renewals of an identity are still to be ended: until then it is not known whose key renews.
pub(super) fn are_due_of(connection: &Connection, identity: &str) -> Result<bool, StoreError> {
    let query = "SELECT 1 FROM renewal_end WHERE done = 0 AND identity = ? LIMIT 1";
    Ok(rows::first(connection, query, params![identity], |_| Ok(()))?.is_some())
}

/// Ends what came of a certificate directly as it was demanded and by whom, and notes the same of what came of that.
fn end_children(
    connection: &Connection,
    of: &SerialNumber,
    (end, actor): (&RenewalEnd, &str),
    at: UnixTime,
    ended: &mut Vec<EndedCertificate>,
) -> Result<(), StoreError> {
    for child in children(connection, of)? {
        // From before the compromise: the holder's own, and so is what came of it.
        if end.which.since.is_some_and(|since| child.created_at < since) {
            continue;
        }
        let new = NewRevocation {
            serial: child.serial.clone(),
            // Nobody could trust it before its validity.
            revoked_at: end.which.dated.max(child.not_before),
            reason: end.reason,
            actor: actor.to_owned(),
            at,
            renewals: Some(end.which),
        };
        match revocations::revoke_with_another(connection, &new) {
            Ok(_) => ended.push(EndedCertificate {
                serial: child.serial,
                issuer: child.issuer,
                is_own: child.identity.is_none(),
            }),
            // Of what was given up nothing exists.
            Err(StoreError::StateConflict) => {}
            Err(StoreError::NotFound) => return Err(rows::corrupted("a renewal is missing")),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends what came of some certificates directly.
fn go_on(connection: &Connection, at: UnixTime) -> Result<Ended, StoreError> {
    let mut ended = Ended::default();
    for serial in due(connection, PIECE)? {
        let (end, actor) =
            find(connection, &serial)?.ok_or_else(|| rows::corrupted("a demand on renewals is missing"))?;
        end_children(connection, &serial, (&end, &actor), at, &mut ended.revoked)?;
        let done = "UPDATE renewal_end SET done = 1 WHERE serial = ?";
        rows::execute(connection, done, params![serial.as_bytes()])?;
    }
    ended.more = any_due(connection)? || compromised_keys::any_due(connection)?;
    Ok(ended)
}

fn count(
    connection: &Connection,
    of: Vec<SerialNumber>,
    which: &Counted,
) -> Result<RenewalCount, StoreError> {
    let all = all(connection, of, which)?;
    let revoked = all.iter().filter(|one| one.is_revoked).count();
    Ok(RenewalCount { revoked: revoked as u64, standing: all.len().saturating_sub(revoked) as u64 })
}

fn all(
    connection: &Connection,
    of: Vec<SerialNumber>,
    which: &Counted,
) -> Result<Vec<Dependent>, StoreError> {
    let (mut open, mut all, mut looked_at) = (of, Vec::new(), 0);
    while !open.is_empty() {
        let parents = open.split_off(open.len().saturating_sub(TOGETHER));
        for child in children_of_some(connection, &parents)? {
            let apart = which.apart_from.as_ref().is_some_and(|it| it.selects(&child.particulars()));
            if apart || which.since.is_some_and(|since| child.created_at < since) {
                continue;
            }
            if !matches!(child.state, State::Intent | State::Abandoned) {
                all.push(Dependent {
                    serial: child.serial.clone(),
                    spki_sha256: child.spki_sha256,
                    is_revoked: child.state == State::Revoked,
                });
            }
            looked_at += 1;
            if looked_at == MOST_COUNTED {
                return Ok(all);
            }
            open.push(child.serial);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(since: Option<i64>, dated: i64, reason: RevocationReason, done: bool) -> RenewalEnd {
        let which = EndRenewals { since: since.map(UnixTime), dated: UnixTime(dated), valid_at: None };
        RenewalEnd { which, reason, done }
    }

    #[test]
    fn a_demand_that_was_met_covers_what_asks_for_no_more() {
        let (compromise, withdrawn) = (RevocationReason::KeyCompromise, RevocationReason::PrivilegeWithdrawn);
        let all = end(None, 10, compromise, true);
        assert!(all.covers(&end(None, 11, compromise, false)));
        assert!(all.covers(&end(Some(5), 10, withdrawn, false)));
        assert!(!all.covers(&end(None, 9, compromise, false)), "an earlier date");
        assert!(!end(Some(5), 1, compromise, true).covers(&end(None, 10, compromise, false)), "all of them");
        assert!(!end(None, 1, withdrawn, true).covers(&end(None, 10, compromise, false)), "a graver reason");
    }

    #[test]
    fn two_demands_that_are_due_become_the_wider_and_the_graver_one() {
        let (compromise, withdrawn) = (RevocationReason::KeyCompromise, RevocationReason::PrivilegeWithdrawn);
        let both = end(Some(5), 10, compromise, false).with(end(Some(3), 20, withdrawn, false));
        assert_eq!(both, end(Some(3), 10, compromise, false));
        assert_eq!(both.with(end(None, 30, withdrawn, false)), end(None, 10, compromise, false));
    }

    #[test]
    fn demands_that_would_call_compromised_what_neither_does_are_not_joined() {
        let (compromise, withdrawn) = (RevocationReason::KeyCompromise, RevocationReason::PrivilegeWithdrawn);
        let since = end(Some(5), 5, compromise, false);
        let all = end(None, 10, withdrawn, false);
        assert!(since.widens(&all) && all.widens(&since));
        assert!(!since.widens(&end(Some(6), 10, withdrawn, false)), "it ends them as compromised itself");
        assert!(!all.widens(&end(None, 10, compromise, false)), "the other ends all of them as compromised");
        assert!(!since.widens(&end(None, 10, compromise, false)), "both say the same of keys");
    }

    #[test]
    fn renewals_are_found_by_the_index_of_requesters_and_what_is_due_by_its_own() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        super::super::migrations::create(&connection).unwrap();
        let plan = |query: &str, parameters: &[Value<'_>]| {
            let query = format!("EXPLAIN QUERY PLAN {query}");
            let plan =
                super::super::sqlite::all(&connection, &query, parameters, |row| get::<String>(row, 3));
            plan.unwrap().join("; ")
        };
        let many = vec![Value::Text(Some("certificate:01")); TOGETHER];
        for children in [plan(CHILDREN, params!["certificate:01"]), plan(CHILDREN_OF_SOME, &many)] {
            assert!(children.contains("certificate_request") && !children.contains("SCAN"), "{children}");
        }
        assert_eq!(CHILDREN_OF_SOME.matches('?').count(), TOGETHER);
        assert!(plan(DUE, params![1_u32]).contains("renewal_end_due"));
    }
}
