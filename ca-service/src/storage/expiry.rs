//! SQL of warnings about certificates that end soon.

use ca_pki::UnixTime;

use super::rows::{self, certificate_select, corrupted, get};
use super::sql::{Connection, params};
use super::{Expiring, ExpiryMark, StoreError, StoredCertificate};

/// Certificates after a place (1, 2) and up to a time (3). The first two conditions are the index's own.
pub(super) const EXPIRING: &str = certificate_select!(
    "WHERE c.state = 5 AND c.not_after - c.not_before > 604800 AND c.identity IS NOT NULL \
     AND (c.not_after, c.id) > (?, ?) AND c.not_after <= ? ORDER BY c.not_after, c.id LIMIT ?"
);

pub(super) fn expiring(
    connection: &Connection,
    window: &Expiring,
) -> Result<Vec<StoredCertificate>, StoreError> {
    let Expiring { after, through, limit } = window;
    rows::all(
        connection,
        EXPIRING,
        params![after.not_after.0, after.row, through.0, limit],
        rows::certificate,
    )
}

/// Name of the row of `meta` that has a mark: `TIME ROW`.
fn name(days: u16) -> String {
    format!("expiry-mark {days}")
}

pub(super) fn mark(connection: &Connection, days: u16) -> Result<Option<ExpiryMark>, StoreError> {
    let query = "SELECT value FROM meta WHERE name = ?";
    let text = rows::first(connection, query, params![name(days)], |row| get::<String>(row, 0))?;
    let parsed = |text: String| {
        let (not_after, row) = text.split_once(' ')?;
        Some(ExpiryMark { not_after: UnixTime(not_after.parse().ok()?), row: row.parse().ok()? })
    };
    text.map(|text| parsed(text).ok_or_else(|| corrupted("mark of the warnings"))).transpose()
}

pub(super) fn note_mark(connection: &Connection, days: u16, mark: &ExpiryMark) -> Result<(), StoreError> {
    rows::execute(
        connection,
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![name(days), format!("{} {}", mark.not_after.0, mark.row)],
    )?;
    Ok(())
}
