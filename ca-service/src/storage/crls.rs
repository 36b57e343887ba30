//! SQL of CRLs: a number is allotted in the transaction that fixes the entries (rule e).

use ca_pki::UnixTime;
use ca_pki::crl::RevokedEntry;
use sha2::{Digest, Sha256};

use super::rows::{self, corrupted, get, part_number};
use super::sql::{Connection, params};
use super::sql_store::SqlStore;
use super::{Answer, CrlPart, StartedCrl, StartedDelta, StoreError, StoredCrl, audit};

/// Seconds that a complete list is the base of delta lists: who fetched one in that time needs deltas only.
const BASE_LASTS: i64 = 86_400;
/// Seconds that a clock which is kept in time may step back (`service::clock`): the delta's margin covers them.
const STEP_BACK: i64 = 2;
/// Seconds before the base whose revocations a delta repeats, because records may carry the time of a clock that was behind.
const DELTA_MARGIN: i64 = 3_600;

pub(super) fn due(
    connection: &Connection,
    older_than: UnixTime,
) -> Result<Vec<(String, CrlPart)>, StoreError> {
    let query = "SELECT issuer, part FROM crl_part WHERE part > -2 AND (changed = 1 OR allotted <> published OR this_update < ?) \
         ORDER BY changed DESC, this_update";
    rows::all(connection, query, params![older_than.0], |row| Ok((get(row, 0)?, rows::part(get(row, 1)?)?)))
}

/// A number that was allotted, and the base of the delta list that goes with it.
#[derive(Debug)]
pub(super) struct Allotted {
    number: u64,
    base: Option<Base>,
}

/// Allots the next number of a list, as the first change of its transaction. Its entries are what this change found; whatever is
/// revoked later in the same transaction makes the list due again.
pub(super) fn allot(
    connection: &Connection,
    issuer: &str,
    part: CrlPart,
    at: UnixTime,
) -> Result<Allotted, StoreError> {
    if part == CrlPart::Delta {
        // It comes with its complete list.
        return Err(StoreError::NotFound);
    }
    let allot = "UPDATE crl_part SET allotted = allotted + 1, changed = 0 WHERE issuer = ? AND part = ? \
                 RETURNING allotted";
    let number =
        rows::first(connection, allot, params![issuer, part_number(part)], |row| get::<i64>(row, 0))?
            .ok_or(StoreError::NotFound)?;
    let base = if part == CrlPart::Complete { base(connection, issuer)? } else { None };
    // One of a time when the clock was wrong is none: nothing that is recorded now would count as later.
    let base = base.filter(|base| base.at <= at.plus(STEP_BACK));
    rows::execute(
        connection,
        "INSERT INTO crl_number (issuer, part, number, allotted_at, entries) VALUES (?, ?, ?, ?, 0)",
        params![issuer, part_number(part), number, at.0],
    )?;
    Ok(Allotted { number: u64::try_from(number).map_err(|_| corrupted("CRL number"))?, base })
}

/// The entries of a list whose number was allotted, from a view that began with the allotment. They come in the order of the primary
/// key, which is that of the shards: in as many runs as there are shards, which a sort that keeps runs only has to merge. A million take a
/// fraction of what the database takes.
pub(super) fn entries(
    connection: &Connection,
    issuer: &str,
    part: CrlPart,
    allotted: Allotted,
) -> Result<StartedCrl, StoreError> {
    let query = match part {
        CrlPart::Shard(_) => {
            "SELECT serial, revoked_at, reason, recorded_at FROM revocation WHERE issuer = ? AND shard = ?"
        }
        CrlPart::Complete | CrlPart::Delta => {
            "SELECT serial, revoked_at, reason, recorded_at FROM revocation WHERE issuer = ? AND ? = -1"
        }
    };
    let Allotted { number, base } = allotted;
    let since = base.as_ref().map_or(i64::MAX, |base| base.at.plus(-DELTA_MARGIN).0);
    let mut recent = Vec::new();
    let mut entries = rows::all(connection, query, params![issuer, part_number(part)], |row| {
        let entry = RevokedEntry {
            serial: rows::serial(rows::blob(row, 0)?)?,
            revoked_at: UnixTime(get(row, 1)?),
            reason: rows::reason(get(row, 2)?)?,
        };
        if get::<i64>(row, 3)? >= since {
            recent.push(entry.clone());
        }
        Ok(entry)
    })?;
    for list in [&mut entries, &mut recent] {
        list.sort_by(|one: &RevokedEntry, other| one.serial.cmp(&other.serial));
    }
    let delta = base.map(|base| StartedDelta { base: base.number, entries: recent });
    Ok(StartedCrl { number, entries, delta })
}

/// The complete list that an issuer's delta lists build on.
#[derive(Debug)]
struct Base {
    number: u64,
    at: UnixTime,
}

/// Name of the row of `meta` that has an issuer's base: `NUMBER TIME`.
fn base_name(issuer: &str) -> String {
    format!("delta-base {issuer}")
}

fn base(connection: &Connection, issuer: &str) -> Result<Option<Base>, StoreError> {
    let query = "SELECT value FROM meta WHERE name = ?";
    let text = rows::first(connection, query, params![base_name(issuer)], |row| get::<String>(row, 0))?;
    let Some(text) = text else { return Ok(None) };
    let parsed = text.split_once(' ').and_then(|(number, at)| Some((number.parse().ok()?, at.parse().ok()?)));
    let (number, at) = parsed.ok_or_else(|| corrupted("base of the delta lists"))?;
    Ok(Some(Base { number, at: UnixTime(at) }))
}

/// When the base of an issuer's delta lists is dated. What is recorded with an earlier time, by a clock that is behind, is dated
/// then: it is not in the base, so it must be in the deltas to it.
pub(super) fn base_time(connection: &Connection, issuer: &str) -> Result<Option<UnixTime>, StoreError> {
    Ok(base(connection, issuer)?.map(|base| base.at))
}

/// Makes a complete list that was published the base, when there is none, or it is old or of another clock's future.
fn renew_base(connection: &Connection, crl: &StoredCrl) -> Result<(), StoreError> {
    let base = base(connection, &crl.issuer)?;
    if base.is_some_and(|base| (-STEP_BACK..BASE_LASTS).contains(&crl.this_update.since(base.at))) {
        return Ok(());
    }
    rows::execute(
        connection,
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![base_name(&crl.issuer), format!("{} {}", crl.number, crl.this_update.0)],
    )?;
    Ok(())
}

/// A number of a list, as it was allotted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListNumber {
    /// cRLNumber.
    pub number: u64,
    /// SHA-256 of the list of that number; none where it was never published.
    pub sha256: Option<[u8; 32]>,
}

/// The part of the CA's memory that is about the numbers of lists. They are kept for ever.
pub trait ListNumberStore: Send + Sync {
    /// Every list, with the highest number that was allotted to it.
    fn allotted_numbers(&self) -> Answer<'_, Vec<(String, CrlPart, u64)>>;

    /// The numbers of a list above one, in order. Those of deltas are their complete lists'.
    fn list_numbers<'a>(
        &'a self,
        issuer: &'a str,
        part: CrlPart,
        above: u64,
        limit: u32,
    ) -> Answer<'a, Vec<ListNumber>>;
}

impl ListNumberStore for SqlStore {
    fn allotted_numbers(&self) -> Answer<'_, Vec<(String, CrlPart, u64)>> {
        Box::pin(self.readers.own_scan(allotted))
    }

    fn list_numbers<'a>(
        &'a self,
        issuer: &'a str,
        part: CrlPart,
        above: u64,
        limit: u32,
    ) -> Answer<'a, Vec<ListNumber>> {
        let issuer = issuer.to_owned();
        let read = move |connection: &Connection| numbers(connection, &issuer, part, above, limit);
        Box::pin(self.readers.own_scan(read))
    }
}

fn allotted(connection: &Connection) -> Result<Vec<(String, CrlPart, u64)>, StoreError> {
    let query = "SELECT issuer, part, allotted FROM crl_part ORDER BY issuer, part";
    rows::all(connection, query, &[], |row| {
        Ok((get(row, 0)?, rows::part(get(row, 1)?)?, number(get(row, 2)?)?))
    })
}

fn numbers(
    connection: &Connection,
    issuer: &str,
    part: CrlPart,
    above: u64,
    limit: u32,
) -> Result<Vec<ListNumber>, StoreError> {
    let query = "SELECT number, sha256 FROM crl_number WHERE issuer = ? AND part = ? AND number > ? ORDER BY number LIMIT ?";
    let above = i64::try_from(above).map_err(|_| corrupted("CRL number"))?;
    rows::all(connection, query, params![issuer, part_number(part), above, limit], |row| {
        let published = get::<Option<Vec<u8>>>(row, 1)?.is_some();
        let sha256 = if published { Some(rows::column::<32>(row, 1)?) } else { None };
        Ok(ListNumber { number: number(get(row, 0)?)?, sha256 })
    })
}

fn number(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| corrupted("CRL number"))
}

/// Stores a delta list beside its complete list.
fn publish_delta(connection: &Connection, crl: &StoredCrl, number: i64) -> Result<(), StoreError> {
    let changed = rows::execute(
        connection,
        "INSERT INTO crl_part (issuer, part, allotted, published, changed, this_update, next_update) \
         VALUES (?1, ?2, ?3, ?3, 0, ?4, ?5) ON CONFLICT (issuer, part) DO UPDATE SET allotted = ?3, \
         published = ?3, this_update = ?4, next_update = ?5 WHERE crl_part.published < ?3",
        params![crl.issuer, part_number(crl.part), number, crl.this_update.0, crl.next_update.0],
    )?;
    if changed != 1 {
        return Err(StoreError::StateConflict);
    }
    keep(connection, crl)
}

/// Keeps a list for the next start, and says so in the audit trail.
fn keep(connection: &Connection, crl: &StoredCrl) -> Result<(), StoreError> {
    rows::execute(
        connection,
        "INSERT INTO crl_list (issuer, part, der) VALUES (?, ?, ?) \
         ON CONFLICT (issuer, part) DO UPDATE SET der = excluded.der",
        params![crl.issuer, part_number(crl.part), *crl.der],
    )?;
    announce(connection, crl)
}

/// Makes every list that is dated after `at` due, and says so in the audit trail. Delta lists of that time are withdrawn, and
/// nothing builds on such a base any more.
pub(super) fn accept_time(connection: &Connection, actor: &str, at: UnixTime) -> Result<(), StoreError> {
    let changed =
        rows::execute(connection, "UPDATE crl_part SET changed = 1 WHERE this_update > ?", params![at.0])?;
    rows::execute(connection, "DELETE FROM crl_part WHERE part = -2 AND this_update > ?", params![at.0])?;
    let issuers = rows::all(connection, "SELECT issuer FROM crl_part WHERE part = -1", params![], |row| {
        get::<String>(row, 0)
    })?;
    for issuer in &issuers {
        if base_time(connection, issuer)?.is_some_and(|base| base > at) {
            let name = base_name(issuer);
            rows::execute(connection, "DELETE FROM meta WHERE name = ?", params![name])?;
        }
    }
    let detail = serde_json::json!({ "accepted": at.0, "lists_dated_later": changed });
    audit::append(connection, "clock.accepted", actor, detail, at)
}

pub(super) fn publish(connection: &Connection, crl: &StoredCrl) -> Result<(), StoreError> {
    let number = i64::try_from(crl.number).map_err(|_| corrupted("CRL number"))?;
    if crl.part == CrlPart::Delta {
        return publish_delta(connection, crl, number);
    }
    let changed = rows::execute(
        connection,
        "UPDATE crl_part SET published = ?1, this_update = ?2, next_update = ?3 \
         WHERE issuer = ?4 AND part = ?5 AND published < ?1 AND allotted >= ?1",
        params![number, crl.this_update.0, crl.next_update.0, crl.issuer, part_number(crl.part)],
    )?;
    if changed != 1 {
        return Err(StoreError::StateConflict);
    }
    rows::execute(
        connection,
        "UPDATE crl_number SET sha256 = ?, entries = ? WHERE issuer = ? AND part = ? AND number = ?",
        params![crl.sha256, crl.entries, crl.issuer, part_number(crl.part), number],
    )?;
    if crl.part == CrlPart::Complete {
        renew_base(connection, crl)?;
    }
    keep(connection, crl)
}

/// The audit record of a published list.
fn announce(connection: &Connection, crl: &StoredCrl) -> Result<(), StoreError> {
    let detail = serde_json::json!({
        "issuer": crl.issuer,
        "part": part_number(crl.part),
        "number": crl.number,
        "sha256": hex::encode(crl.sha256),
    });
    audit::append(connection, "crl.published", "publisher", detail, crl.this_update)
}

pub(super) fn published(connection: &Connection) -> Result<Vec<StoredCrl>, StoreError> {
    let query = "SELECT p.issuer, p.part, p.published, p.this_update, p.next_update, l.der FROM crl_part p \
         JOIN crl_list l ON l.issuer = p.issuer AND l.part = p.part WHERE p.published > 0";
    rows::all(connection, query, &[], |row| {
        let der = get::<Vec<u8>>(row, 5)?;
        Ok(StoredCrl {
            issuer: get(row, 0)?,
            part: rows::part(get(row, 1)?)?,
            number: u64::try_from(get::<i64>(row, 2)?).map_err(|_| corrupted("CRL number"))?,
            this_update: UnixTime(get(row, 3)?),
            next_update: UnixTime(get(row, 4)?),
            sha256: Sha256::digest(&der).into(),
            der: der.into(),
            entries: 0,
        })
    })
}
