//! What else has a key that is in other hands: ended with the certificate whose revocation says so, and counted (ca-requirements §4,
//! self-checks).
//!
//! The revocation says so in its own transaction ([`note`]), at a cost that does not grow with the certificates of the key. Whoever revokes
//! goes on at once, and the reconciler and the next start finish it: what has the key is looked for by a reader, and some certificates end in
//! each transaction ([`go_on`]), with what came of them by renewal. None is added meanwhile: for a key of which that is said nothing is
//! issued.

use ca_pki::crl::RevocationReason;
use ca_pki::{SerialNumber, UnixTime};

use super::renewals::{self, Dependent, EndRenewals, Ended, EndedCertificate};
use super::revocations::{self, NewRevocation, is_compromise};
use super::rows::{self, column, get};
use super::search::Particulars;
use super::sql::{Connection, params};
use super::sql_store::SqlStore;
use super::{Answer, Selection, State, StoreError, certificates};

/// Certificates that end in one transaction.
const PIECE: u32 = 64;
/// Keys that are gone on with in one transaction.
const KEYS: u32 = 16;
/// Certificates of a key that are read at once where they are counted.
const PAGE: u32 = 1_000;
/// Most certificates that one count looks at.
const MOST_COUNTED: u32 = 100_000;

/// The part of the CA's memory that is about keys in other hands, under the same contract as [`super::CertificateStore`].
pub trait CompromisedKeyStore: Send + Sync {
    /// Whether a revocation says of a key that it is in other hands.
    fn is_compromised<'a>(&'a self, spki_sha256: &'a [u8; 32]) -> Answer<'a, bool>;

    /// Goes on ending what has the key of a certificate that was revoked as compromised: a bounded number in one transaction with their
    /// audit records. Writes nothing where nothing is due.
    fn end_keys(&self, at: UnixTime) -> Answer<'_, Ended>;

    /// How many other certificates of a certificate's key are revoked; of more than 100,000 so many.
    fn count_of_key<'a>(&'a self, serial: &'a SerialNumber) -> Answer<'a, u64>;

    /// The certificates of keys that a selection does not count, of some 100,000 of each key; what was never signed is not among them. A key
    /// of which the selection has a certificate up to a row is left out: they were counted with that.
    fn others_of_keys(
        &self,
        keys: Vec<[u8; 32]>,
        apart_from: Selection,
        after: i64,
    ) -> Answer<'_, Vec<Dependent>>;
}

impl CompromisedKeyStore for SqlStore {
    fn is_compromised<'a>(&'a self, spki_sha256: &'a [u8; 32]) -> Answer<'a, bool> {
        let key = *spki_sha256;
        Box::pin(self.readers.read(move |connection| revocations::is_compromised(connection, &key)))
    }

    fn end_keys(&self, at: UnixTime) -> Answer<'_, Ended> {
        Box::pin(async move {
            if !self.readers.read(any_due).await? {
                return Ok(Ended::default());
            }
            let pieces = self.readers.own_scan(pieces).await?;
            self.writer.change_status(move |connection| go_on(connection, &pieces, at)).await
        })
    }

    fn count_of_key<'a>(&'a self, serial: &'a SerialNumber) -> Answer<'a, u64> {
        let serial = serial.clone();
        Box::pin(self.readers.own_scan(move |connection| count(connection, &serial)))
    }

    fn others_of_keys(
        &self,
        keys: Vec<[u8; 32]>,
        apart_from: Selection,
        after: i64,
    ) -> Answer<'_, Vec<Dependent>> {
        Box::pin(self.readers.scan(move |connection| others(connection, keys, &apart_from, after)))
    }
}

/// What a revocation says of everything that has the key of its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KeyEnd {
    reason: RevocationReason,
    /// From when on they must not be trusted, each at the earliest from its own validity on.
    dated: UnixTime,
    /// Which renewals end with them; none where those stay.
    renewals: Option<EndRenewals>,
    /// Rows up to this number were looked at.
    reached: i64,
    done: bool,
}

impl KeyEnd {
    /// Whether the holder says it and no operator. Of a key both may be due, and each is carried out for itself: together they would say of the
    /// keys of renewals what neither says.
    fn is_of_holder(&self) -> bool {
        self.renewals.is_some_and(|which| which.valid_at.is_some())
    }

    /// Whether nothing is left to do for another one once this one was met.
    fn covers(&self, other: &Self) -> bool {
        let renewals = match (self.renewals, other.renewals) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(these), Some(others)) => these.covers(others),
        };
        renewals && self.dated <= other.dated
    }

    /// Both in one, from the first row on; of the same kind of speaker.
    fn with(self, other: Self) -> Self {
        let renewals = match (self.renewals, other.renewals) {
            (Some(these), Some(others)) => Some(these.with(others)),
            (these, others) => these.or(others),
        };
        Self { dated: self.dated.min(other.dated), renewals, reached: 0, done: false, ..self }
    }
}

/// A certificate of a key.
struct Certified {
    row: i64,
    serial: SerialNumber,
    issuer: String,
    identity: Option<String>,
    profile: String,
    not_before: UnixTime,
    created_at: UnixTime,
    state: State,
    revoked: Option<(UnixTime, RevocationReason)>,
}

impl Certified {
    fn particulars<'a>(&'a self, spki_sha256: &'a [u8; 32]) -> Particulars<'a> {
        Particulars {
            row: self.row,
            identity: self.identity.as_deref(),
            spki_sha256,
            issuer: &self.issuer,
            profile: &self.profile,
            created_at: self.created_at,
        }
    }

    /// Whether a revocation as of a date for a compromise changes nothing about it.
    fn had_ended(&self, dated: UnixTime) -> bool {
        self.revoked.is_some_and(|(at, reason)| is_compromise(reason) && at <= dated)
    }
}

/// The certificates of a key (2) in a segment (1) above a row (3) and up to the last of the segment (4), at most so many (5). The bounds say no
/// more than the segment does, but to a planner that would read the table in its order.
const OF_KEY: &str = "SELECT c.id, c.serial, c.issuer, c.identity, c.profile, c.not_before, c.created_at, c.state, r.revoked_at, r.reason \
     FROM certificate c LEFT JOIN revocation r ON r.issuer = c.issuer AND r.shard = c.shard AND r.serial = c.serial \
     WHERE (c.id >> 16) = ? AND c.spki_sha256 = ? AND c.id > ? AND c.id <= ? ORDER BY c.id LIMIT ?";

fn of_key(
    connection: &Connection,
    key: &[u8; 32],
    after: i64,
    limit: u32,
) -> Result<Vec<Certified>, StoreError> {
    let by_key = Selection { spki_sha256: Some(*key), ..Selection::default() };
    let mut found = Vec::new();
    for segment in certificates::segments(connection, &by_key, after.saturating_add(1), None)? {
        let left = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        if left == 0 {
            break;
        }
        let (first, last) = segment.map_or((0, i64::MAX), certificates::rows_of);
        let above = after.max(first.saturating_sub(1));
        found.extend(rows::all(connection, OF_KEY, params![segment, key, above, last, left], |row| {
            let revoked = match get::<Option<i64>>(row, 8)? {
                None => None,
                Some(at) => Some((UnixTime(at), rows::reason(get(row, 9)?)?)),
            };
            Ok(Certified {
                row: get(row, 0)?,
                serial: rows::serial(rows::blob(row, 1)?)?,
                issuer: get(row, 2)?,
                identity: get(row, 3)?,
                profile: get(row, 4)?,
                not_before: UnixTime(get(row, 5)?),
                created_at: UnixTime(get(row, 6)?),
                state: rows::state(get(row, 7)?)?,
                revoked,
            })
        })?);
    }
    Ok(found)
}

/// What the holder, or operators, are recorded to have said of a key, and who asked for it.
fn find(
    connection: &Connection,
    key: &[u8; 32],
    by_holder: bool,
) -> Result<Option<(KeyEnd, String)>, StoreError> {
    let query = "SELECT reason, dated, since, renewals_dated, valid_at, reached, done, actor FROM key_end \
                 WHERE spki_sha256 = ? AND by_holder = ?";
    rows::first(connection, query, params![key, u8::from(by_holder)], |row| {
        let time = |index| Ok::<_, StoreError>(get::<Option<i64>>(row, index)?.map(UnixTime));
        let (since, valid_at) = (time(2)?, time(4)?);
        let end = KeyEnd {
            reason: rows::reason(get(row, 0)?)?,
            dated: UnixTime(get(row, 1)?),
            renewals: time(3)?.map(|dated| EndRenewals { since, dated, valid_at }),
            reached: get(row, 5)?,
            done: get::<i64>(row, 6)? != 0,
        };
        Ok((end, get(row, 7)?))
    })
}

/// Notes with a revocation for a compromise that everything ends that has the key.
pub(super) fn note(connection: &Connection, new: &NewRevocation, key: &[u8; 32]) -> Result<(), StoreError> {
    let asked =
        KeyEnd { reason: new.reason, dated: new.revoked_at, renewals: new.renewals, reached: 0, done: false };
    let by_holder = asked.is_of_holder();
    let (same, other) = (find(connection, key, by_holder)?, find(connection, key, !by_holder)?);
    if [&same, &other].into_iter().flatten().any(|(before, _)| before.covers(&asked)) {
        return Ok(());
    }
    let demand = match same {
        Some((before, _)) if !before.done => before.with(asked),
        _ => asked,
    };
    let renewals = demand.renewals;
    rows::execute(
        connection,
        "INSERT INTO key_end (spki_sha256, by_holder, reason, dated, since, renewals_dated, valid_at, actor, reached, done) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0) ON CONFLICT (spki_sha256, by_holder) DO UPDATE SET reason = excluded.reason, \
         dated = excluded.dated, since = excluded.since, renewals_dated = excluded.renewals_dated, \
         valid_at = excluded.valid_at, actor = excluded.actor, reached = 0, done = 0",
        params![
            key,
            u8::from(by_holder),
            demand.reason.code(),
            demand.dated.0,
            renewals.and_then(|which| which.since).map(|since| since.0),
            renewals.map(|which| which.dated.0),
            renewals.and_then(|which| which.valid_at).map(|at| at.0),
            new.actor,
        ],
    )?;
    Ok(())
}

/// What is due of keys, at most so many (1).
const DUE: &str = "SELECT spki_sha256, by_holder, reached FROM key_end WHERE done = 0 LIMIT ?";

/// Keys, whether their holders say it, and the rows up to which they were looked at.
fn due(connection: &Connection, limit: u32) -> Result<Vec<([u8; 32], bool, i64)>, StoreError> {
    rows::all(connection, DUE, params![limit], |row| {
        Ok((column::<32>(row, 0)?, get::<i64>(row, 1)? != 0, get(row, 2)?))
    })
}

pub(super) fn any_due(connection: &Connection) -> Result<bool, StoreError> {
    Ok(!due(connection, 1)?.is_empty())
}

/// The next certificates of a key that is due.
struct Piece {
    key: [u8; 32],
    by_holder: bool,
    /// The row above which they were looked for.
    after: i64,
    found: Vec<Certified>,
    /// Whether there are no others.
    is_last: bool,
}

fn pieces(connection: &Connection) -> Result<Vec<Piece>, StoreError> {
    let (mut left, mut pieces) = (PIECE, Vec::new());
    for (key, by_holder, after) in due(connection, KEYS)? {
        if left == 0 {
            break;
        }
        let found = of_key(connection, &key, after, left)?;
        let count = u32::try_from(found.len()).unwrap_or(u32::MAX);
        pieces.push(Piece { key, by_holder, after, found, is_last: count < left });
        left = left.saturating_sub(count);
    }
    Ok(pieces)
}

/// Ends what was found. What somebody else went on with meanwhile, or has to be begun anew, is left to the next piece.
fn go_on(connection: &Connection, pieces: &[Piece], at: UnixTime) -> Result<Ended, StoreError> {
    let mut ended = Ended::default();
    for piece in pieces {
        let (end, actor) = find(connection, &piece.key, piece.by_holder)?
            .ok_or_else(|| rows::corrupted("what was said of a key is missing"))?;
        if end.done || end.reached != piece.after {
            continue;
        }
        for one in &piece.found {
            // Nobody could trust it before its validity.
            let revoked_at = end.dated.max(one.not_before);
            let new = NewRevocation {
                serial: one.serial.clone(),
                revoked_at,
                reason: end.reason,
                actor: actor.clone(),
                at,
                renewals: end.renewals,
            };
            match revocations::revoke_with_another(connection, &new) {
                Ok(_) if !one.had_ended(revoked_at) => ended.revoked.push(EndedCertificate {
                    serial: one.serial.clone(),
                    issuer: one.issuer.clone(),
                    is_own: one.identity.is_none(),
                }),
                // Of what is not signed yet, or was given up, nothing comes any more.
                Ok(_) | Err(StoreError::StateConflict) => {}
                Err(StoreError::NotFound) => {
                    return Err(rows::corrupted("a certificate of a key is missing"));
                }
                Err(error) => return Err(error),
            }
        }
        rows::execute(
            connection,
            "UPDATE key_end SET reached = ?, done = ? WHERE spki_sha256 = ? AND by_holder = ?",
            params![
                piece.found.last().map_or(piece.after, |last| last.row),
                i64::from(piece.is_last),
                piece.key,
                u8::from(piece.by_holder),
            ],
        )?;
    }
    ended.more = any_due(connection)? || renewals::any_due(connection)?;
    Ok(ended)
}

/// Counts the other revoked certificates of a certificate's key (1), at most so many (2).
const REVOKED_OF_KEY: &str = "SELECT count(*) FROM (SELECT 1 FROM certificate INDEXED BY certificate_revoked_key \
     WHERE spki_sha256 = (SELECT spki_sha256 FROM certificate WHERE serial = ?1) AND state = 7 AND serial <> ?1 LIMIT ?2) AS found";

fn count(connection: &Connection, serial: &SerialNumber) -> Result<u64, StoreError> {
    let found = rows::first(connection, REVOKED_OF_KEY, params![serial.as_bytes(), MOST_COUNTED], |row| {
        get::<i64>(row, 0)
    })?;
    found.and_then(|count| u64::try_from(count).ok()).ok_or_else(|| rows::corrupted("a count"))
}

fn others(
    connection: &Connection,
    keys: Vec<[u8; 32]>,
    apart_from: &Selection,
    after: i64,
) -> Result<Vec<Dependent>, StoreError> {
    let mut all = Vec::new();
    for key in keys {
        let (mut others, mut reached, mut looked_at, mut before) = (Vec::new(), 0, 0, false);
        while looked_at < MOST_COUNTED && !before {
            let page = of_key(connection, &key, reached, PAGE)?;
            let Some(last) = page.last() else { break };
            reached = last.row;
            looked_at += PAGE;
            for one in page {
                if apart_from.selects(&one.particulars(&key)) {
                    before |= one.row <= after;
                } else if !matches!(one.state, State::Intent | State::Abandoned) {
                    others.push(one);
                }
            }
        }
        if !before {
            all.extend(others.into_iter().map(|one| Dependent {
                serial: one.serial,
                spki_sha256: key,
                is_revoked: one.state == State::Revoked,
            }));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::super::sql::Value;
    use super::*;

    fn end(dated: i64, renewals: Option<(Option<i64>, i64, Option<i64>)>, done: bool) -> KeyEnd {
        let renewals = renewals.map(|(since, dated, valid_at)| EndRenewals {
            since: since.map(UnixTime),
            dated: UnixTime(dated),
            valid_at: valid_at.map(UnixTime),
        });
        KeyEnd { reason: RevocationReason::KeyCompromise, dated: UnixTime(dated), renewals, reached: 7, done }
    }

    #[test]
    fn what_was_said_of_a_key_covers_what_says_no_more() {
        let all = end(10, Some((None, 10, None)), true);
        assert!(
            all.covers(&end(10, None, false)) && all.covers(&end(11, Some((Some(5), 11, Some(3))), false))
        );
        assert!(!all.covers(&end(9, None, false)), "an earlier date");
        let by_holder = end(10, Some((None, 10, Some(10))), true);
        assert!(by_holder.covers(&end(11, Some((None, 11, Some(11))), false)), "the holder repeats it");
        assert!(!by_holder.covers(&all), "an operator says it of what had ended, too");
        assert!(!end(10, None, true).covers(&by_holder));
        let both = end(10, Some((Some(5), 10, None)), false).with(end(8, Some((None, 12, None)), false));
        assert_eq!(both, KeyEnd { reached: 0, ..end(8, Some((None, 10, None)), false) });
    }

    #[test]
    fn what_the_holder_and_an_operator_say_of_a_key_is_never_one_demand() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        super::super::migrations::create(&connection).unwrap();
        let connection = Connection::Sqlite(connection);
        let which = |since: Option<i64>, dated: i64, valid_at: Option<i64>| EndRenewals {
            since: since.map(UnixTime),
            dated: UnixTime(dated),
            valid_at: valid_at.map(UnixTime),
        };
        let said = |key: &[u8; 32], renewals: EndRenewals| {
            let new = NewRevocation {
                serial: SerialNumber::from_hex("4d01").unwrap(),
                revoked_at: renewals.dated,
                reason: RevocationReason::KeyCompromise,
                actor: "test".to_owned(),
                at: UnixTime(20),
                renewals: Some(renewals),
            };
            note(&connection, &new, key).unwrap();
        };
        let recorded = |key: &[u8; 32], by_holder: bool| {
            find(&connection, key, by_holder).unwrap().and_then(|(end, _)| end.renewals)
        };
        let (operators, holders) = (which(Some(5), 5, None), which(None, 20, Some(20)));
        for (key, demands) in [([1; 32], [operators, holders]), ([2; 32], [holders, operators])] {
            demands.into_iter().for_each(|demand| said(&key, demand));
            assert_eq!(recorded(&key, false), Some(operators));
            assert_eq!(recorded(&key, true), Some(holders));
            assert_eq!(due(&connection, 10).unwrap().iter().filter(|(of, ..)| *of == key).count(), 2);
        }
        // An operator who says all of it leaves nothing for the holder to add.
        let (key, all) = ([3; 32], which(None, 3, None));
        [all, holders].into_iter().for_each(|demand| said(&key, demand));
        assert_eq!((recorded(&key, false), recorded(&key, true)), (Some(all), None));
    }

    #[test]
    fn what_a_key_has_and_what_is_due_are_found_by_their_indexes() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        super::super::migrations::create(&connection).unwrap();
        let plan = |query: &str, parameters: &[Value<'_>]| {
            let query = format!("EXPLAIN QUERY PLAN {query}");
            let plan =
                super::super::sqlite::all(&connection, &query, parameters, |row| get::<String>(row, 3));
            plan.unwrap().join("; ")
        };
        let of_key = plan(OF_KEY, params![1_i64, [0_u8; 32], 1_i64, 1_i64, 1_i64]);
        assert!(of_key.contains("certificate_key (<expr>=? AND spki_sha256=?"), "{of_key}");
        assert!(!of_key.contains("SCAN") && !of_key.contains("TEMP B-TREE"), "{of_key}");
        assert!(plan(DUE, params![1_u32]).contains("key_end_due"));
        let revoked = plan(REVOKED_OF_KEY, params![[0_u8; 20], 1_i64]);
        assert!(revoked.contains("certificate_revoked_key"), "{revoked}");
    }
}
