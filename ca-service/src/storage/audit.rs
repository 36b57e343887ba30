//! The audit trail (A1, A2): every record carries the hash of the one before.
//!
//! `hash = SHA-256("mentat audit 1\n" ‖ sequence ‖ previous ‖ at ‖ len ‖ event ‖ len ‖ actor ‖ len ‖ detail)`; numbers are
//! big-endian, `sequence` and `at` of eight octets, lengths of four. The first record's `previous` is 32 zero octets.

use ca_pki::UnixTime;
use sha2::{Digest, Sha256};
use trust_store::sorted_json::SortedJson;

use super::StoreError;
use super::rows::{self, column, corrupted, get};
use super::sql::{Connection, Row, params};

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position, from 1, without gaps.
    pub sequence: u64,
    /// When.
    pub at: UnixTime,
    /// What happened, such as `certificate.signing`.
    pub event: String,
    /// Who caused it.
    pub actor: String,
    /// The particulars, JSON.
    pub detail: String,
    /// Hash of the record before.
    pub previous: [u8; 32],
    /// Hash of this record.
    pub hash: [u8; 32],
}

impl Record {
    /// The hash these fields must have.
    #[must_use]
    pub fn expected_hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(b"mentat audit 1\n");
        hasher.update(self.sequence.to_be_bytes());
        hasher.update(self.previous);
        hasher.update(self.at.0.to_be_bytes());
        for text in [&self.event, &self.actor, &self.detail] {
            hasher.update(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.finalize().into()
    }
}

/// An audit record that the event log knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Its position in the trail.
    pub sequence: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// Index of the statement about it in the event log.
    pub event_index: u64,
}

/// What a new record says.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) event: String,
    pub(super) actor: String,
    pub(super) detail: SortedJson,
    pub(super) at: UnixTime,
}

/// Appends a record inside the caller's transaction.
pub(super) fn append(
    connection: &Connection,
    event: &str,
    actor: &str,
    detail: impl Into<SortedJson>,
    at: UnixTime,
) -> Result<(), StoreError> {
    let entry = Entry { event: event.to_owned(), actor: actor.to_owned(), detail: detail.into(), at };
    append_all(connection, vec![entry])
}

/// Appends records inside the caller's transaction, in order.
pub(super) fn append_all(connection: &Connection, entries: Vec<Entry>) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    let last = "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1";
    let last = rows::first(connection, last, &[], |row| Ok((get::<i64>(row, 0)?, column::<32>(row, 1)?)))?;
    let (mut sequence, mut previous) = last.unwrap_or((0, [0; 32]));
    for Entry { event, actor, detail, at } in entries {
        sequence = sequence.saturating_add(1);
        let mut record = Record {
            sequence: u64::try_from(sequence).map_err(|_| corrupted("audit sequence"))?,
            at,
            event,
            actor,
            detail: detail.into_string(),
            previous,
            hash: [0; 32],
        };
        record.hash = record.expected_hash();
        previous = record.hash;
        rows::execute(
            connection,
            "INSERT INTO audit (sequence, at, event, actor, detail, previous, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
            params![
                sequence,
                record.at.0,
                record.event,
                record.actor,
                record.detail,
                record.previous,
                record.hash
            ],
        )?;
    }
    Ok(())
}

/// Name of the row of `meta` that has the newest anchor: `SEQUENCE HASH INDEX`.
const ANCHOR: &str = "audit-anchor";

/// Notes that a record stands in the event log.
pub(super) fn record_anchor(
    connection: &Connection,
    anchor: &Anchor,
    at: UnixTime,
) -> Result<(), StoreError> {
    let text = format!("{} {} {}", anchor.sequence, hex::encode(anchor.hash), anchor.event_index);
    rows::execute(
        connection,
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![ANCHOR, text],
    )?;
    let detail = serde_json::json!({
        "sequence": anchor.sequence,
        "hash": hex::encode(anchor.hash),
        "event_index": anchor.event_index,
    });
    append(connection, "audit.anchored", "auditor", detail, at)
}

/// The newest note of [`record_anchor`].
pub(super) fn latest_anchor(connection: &Connection) -> Result<Option<Anchor>, StoreError> {
    let text = rows::first(connection, "SELECT value FROM meta WHERE name = ?", params![ANCHOR], |row| {
        get::<String>(row, 0)
    })?;
    let Some(text) = text else { return Ok(None) };
    let mut words = text.split(' ');
    let mut word = || words.next().ok_or_else(|| corrupted("audit anchor"));
    let (sequence, hash, index) = (word()?, word()?, word()?);
    let number = |text: &str| text.parse().map_err(|_| corrupted("audit anchor"));
    let mut octets = [0; 32];
    hex::decode_to_slice(hash, &mut octets).map_err(|_| corrupted("audit anchor"))?;
    Ok(Some(Anchor { sequence: number(sequence)?, hash: octets, event_index: number(index)? }))
}

/// The newest record.
pub(super) fn latest(connection: &Connection) -> Result<Option<Record>, StoreError> {
    let newest = "SELECT sequence, at, event, actor, detail, previous, hash FROM audit \
                  ORDER BY sequence DESC LIMIT 1";
    rows::first(connection, newest, &[], record)
}

/// Records above `after`, in order.
pub(super) fn read(connection: &Connection, after: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
    let after = i64::try_from(after).map_err(|_| corrupted("audit sequence"))?;
    let above = "SELECT sequence, at, event, actor, detail, previous, hash FROM audit WHERE sequence > ? \
                 ORDER BY sequence LIMIT ?";
    rows::all(connection, above, params![after, limit], record)
}

fn record(row: &Row<'_>) -> Result<Record, StoreError> {
    Ok(Record {
        sequence: u64::try_from(get::<i64>(row, 0)?).map_err(|_| corrupted("audit sequence"))?,
        at: UnixTime(get(row, 1)?),
        event: get(row, 2)?,
        actor: get(row, 3)?,
        detail: get(row, 4)?,
        previous: column(row, 5)?,
        hash: column(row, 6)?,
    })
}

/// Checks one record against the one before it: position, link and hash.
#[must_use]
pub fn follows(previous: Option<&Record>, record: &Record) -> bool {
    let (sequence, hash) = previous.map_or((0, [0; 32]), |previous| (previous.sequence, previous.hash));
    record.sequence == sequence + 1 && record.previous == hash && record.hash == record.expected_hash()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            sequence: 1,
            at: UnixTime(1_700_000_000),
            event: "certificate.signing".into(),
            actor: "token:00".into(),
            detail: "{}".into(),
            previous: [0; 32],
            hash: [0; 32],
        }
    }

    #[test]
    fn the_chained_bytes_are_frozen() {
        assert_eq!(
            hex::encode(record().expected_hash()),
            "46efda24bf3c71420dc66a4a34102053448bcad75a4f6bc4ccf706ef25767e1a"
        );
    }

    #[test]
    fn a_gap_an_edit_and_a_wrong_link_are_detected() {
        let mut first = record();
        first.hash = first.expected_hash();
        assert!(follows(None, &first));
        let mut second = Record { sequence: 2, previous: first.hash, ..record() };
        second.hash = second.expected_hash();
        assert!(follows(Some(&first), &second));
        assert!(!follows(None, &second));
        let mut edited = second.clone();
        edited.actor = "admin".into();
        assert!(!follows(Some(&first), &edited));
        let mut relinked = Record { previous: [9; 32], ..second };
        relinked.hash = relinked.expected_hash();
        assert!(!follows(Some(&first), &relinked));
    }
}
