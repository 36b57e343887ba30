//! SQL of what an operator sees at a glance: bounded reads, whatever the database holds.

use ca_pki::{Identity, UnixTime};

use super::rows::{self, get};
use super::sql::{Connection, params};
use super::{Expiring, ExpiryMark, State, StoreError, StoredCertificate, StoredRevocation, expiry, queue};

/// Issuances that are counted by day, the newest.
pub const COUNTED_ISSUANCES: u32 = 5_000;
/// Certificates that are counted in a window of ends, and revocations of the last thirty days.
pub const COUNTED_ENDS: u32 = 10_000;
/// Days of the windows.
pub const WINDOWS: [u16; 2] = [7, 30];
/// Longest list.
const LISTED: u32 = 20;
const DAY: i64 = 86_400;

/// What is seen at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredOverview {
    /// Issuances ever recorded.
    pub recorded: u64,
    /// First second of a day, a state, and how many of the newest issuances to subscribers are of both; newest day first.
    pub days: Vec<(UnixTime, State, u64)>,
    /// Of each of [`WINDOWS`] how many certificates end in it.
    pub ending: [u64; 2],
    /// Those that end next.
    pub ending_next: Vec<StoredCertificate>,
    /// Revocations recorded within thirty days.
    pub revoked: u64,
    /// Requests that wait for approval.
    pub waiting: u64,
    /// The newest, with the identity and the profile of the certificate.
    pub revocations: Vec<(StoredRevocation, Option<Identity>, String)>,
}

/// The newest issuances to subscribers (1: how many) by day and state.
const BY_DAY: &str = "SELECT n.created_at / 86400, n.state, count(*) FROM \
     (SELECT created_at, state FROM certificate WHERE identity IS NOT NULL ORDER BY id DESC LIMIT ?) AS n \
     GROUP BY n.created_at / 86400, n.state ORDER BY 1 DESC, 2";

/// How many certificates end after a time (1) and up to another (2), counted up to a number (3). The first two conditions are the
/// index's own.
const ENDING: &str = "SELECT count(*) FROM (SELECT 1 FROM certificate WHERE state = 5 \
     AND not_after - not_before > 604800 AND not_after > ? AND not_after <= ? LIMIT ?) AS ending";

/// The newest revocations (1: how many).
const REVOKED: &str = "SELECT r.issuer, r.shard, r.serial, r.revoked_at, r.recorded_at, r.reason, r.event_index, \
     c.identity_kind, c.identity, c.profile FROM revocation r JOIN certificate c ON c.serial = r.serial \
     ORDER BY r.recorded_at DESC LIMIT ?";

/// How many revocations were recorded after a time (1), counted up to a number (2).
const RECENT: &str =
    "SELECT count(*) FROM (SELECT 1 FROM revocation WHERE recorded_at > ? LIMIT ?) AS recent";

pub(super) fn read(connection: &Connection, now: UnixTime) -> Result<StoredOverview, StoreError> {
    let count = |query: &str, parameters: &[super::sql::Value<'_>]| {
        let number = rows::first(connection, query, parameters, |row| get::<Option<i64>>(row, 0))?;
        u64::try_from(number.flatten().unwrap_or(0)).map_err(|_| rows::corrupted("a count is negative"))
    };
    let days = rows::all(connection, BY_DAY, params![COUNTED_ISSUANCES], |row| {
        let number =
            u64::try_from(get::<i64>(row, 2)?).map_err(|_| rows::corrupted("a count is negative"))?;
        Ok((UnixTime(get::<i64>(row, 0)?.saturating_mul(DAY)), rows::state(get(row, 1)?)?, number))
    })?;
    let mut ending = [0; 2];
    for (days, number) in WINDOWS.into_iter().zip(&mut ending) {
        let through = now.plus(i64::from(days) * DAY);
        *number = count(ENDING, params![now.0, through.0, COUNTED_ENDS])?;
    }
    let [_, longest] = WINDOWS;
    let window = Expiring {
        after: ExpiryMark { not_after: now, row: i64::MAX },
        through: now.plus(i64::from(longest) * DAY),
        limit: LISTED,
    };
    let revocations = rows::all(connection, REVOKED, params![LISTED], |row| {
        let identity = match (get::<Option<i64>>(row, 7)?, get::<Option<String>>(row, 8)?) {
            (Some(kind), Some(text)) => Some(rows::identity(kind, text)?),
            _ => None,
        };
        Ok((rows::revocation(row)?, identity, get(row, 9)?))
    })?;
    Ok(StoredOverview {
        recorded: count("SELECT max(id) FROM certificate", &[])?,
        days,
        ending,
        ending_next: expiry::expiring(connection, &window)?,
        waiting: queue::sql::waiting(connection, now)?,
        revoked: count(RECENT, params![now.plus(-30 * DAY).0, COUNTED_ENDS])?,
        revocations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{migrations, sqlite};

    #[test]
    fn nothing_is_read_that_grows_with_the_database() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        migrations::create(&connection).unwrap();
        for (query, parameters, wanted) in [
            (BY_DAY, params![1_i64].to_vec(), "SCAN certificate"),
            (
                ENDING,
                params![1_i64, 2_i64, 3_i64].to_vec(),
                "certificate_expiry (not_after>? AND not_after<?)",
            ),
            (REVOKED, params![1_i64].to_vec(), "revocation_recorded"),
            (RECENT, params![1_i64, 2_i64].to_vec(), "revocation_recorded (recorded_at>?)"),
        ] {
            let plan = format!("EXPLAIN QUERY PLAN {query}");
            let plan = sqlite::all(&connection, &plan, &parameters, |row| get::<String>(row, 3)).unwrap();
            assert!(plan.join("; ").contains(wanted), "{plan:?}");
            // The newest rows come first by themselves: sorted are the groups of days alone.
            let sorted = plan.iter().filter(|step| step.contains("TEMP B-TREE"));
            assert!(query == BY_DAY || sorted.count() == 0, "{plan:?}");
        }
    }
}
