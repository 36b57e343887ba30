//! The schema, step by step: a database of any earlier number is brought to the newest one in one transaction, at the start.
//!
//! A step that has been released is never changed: what comes later is a step of its own.

use rusqlite::Connection;

use super::StoreError;
use super::rows::{self, get, unavailable};

/// SQLite's application id, so that another program's file is not taken for ours ("MnCA").
const APPLICATION_ID: i64 = 0x4d6e_4341;

/// What leads from each number of the schema (SQLite's `user_version`) to the next; the first makes it.
const STEPS: [&str; 2] = [include_str!("migrations/1.sql"), include_str!("migrations/2.sql")];

/// Number of the newest schema.
const NEWEST: i64 = STEPS.len() as i64;

/// Makes the newest schema in an empty database.
pub(super) fn create(connection: &Connection) -> Result<(), StoreError> {
    apply(connection, 0)
}

/// Brings a database to the newest schema.
///
/// # Errors
/// [`StoreError::Corrupted`] when it is another program's, or of a newer program.
pub(super) fn migrate(connection: &Connection) -> Result<(), StoreError> {
    let number = |pragma: &str| {
        rows::first(connection, pragma, [], |row| get::<i64>(row, 0))?.ok_or_else(|| rows::corrupted(pragma))
    };
    let application = number("PRAGMA application_id")?;
    let found = number("PRAGMA user_version")?;
    if application != APPLICATION_ID || !(1..=NEWEST).contains(&found) {
        return Err(StoreError::Corrupted(format!(
            "schema {found} of application {application:#x}: this program knows 1 to {NEWEST} of {APPLICATION_ID:#x}"
        )));
    }
    if found == NEWEST { Ok(()) } else { apply(connection, found) }
}

/// Applies what comes after a number, all or nothing.
fn apply(connection: &Connection, from: i64) -> Result<(), StoreError> {
    let done = usize::try_from(from).map_err(|_| rows::corrupted("schema number"))?;
    let steps: String = STEPS.iter().skip(done).copied().collect();
    let script = format!(
        "BEGIN IMMEDIATE; {steps}\n; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {NEWEST}; COMMIT;"
    );
    connection.execute_batch(&script).map_err(|error| {
        // Without a transaction this says so, and nothing else is lost.
        let _ = connection.execute_batch("ROLLBACK");
        unavailable(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest as _, Sha256};

    fn of_schema(number: usize) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        let steps: String = STEPS.iter().take(number).copied().collect();
        connection.execute_batch(&steps).unwrap();
        connection
            .execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number};"
            ))
            .unwrap();
        connection
    }

    fn objects(connection: &Connection) -> Vec<String> {
        let names = "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_master ORDER BY 1";
        rows::all(connection, names, [], |row| get(row, 0)).unwrap()
    }

    #[test]
    fn every_earlier_schema_becomes_the_one_that_is_made_anew() {
        let new = Connection::open_in_memory().unwrap();
        create(&new).unwrap();
        migrate(&new).unwrap();
        for number in 1..=STEPS.len() {
            let old = of_schema(number);
            migrate(&old).unwrap();
            migrate(&old).unwrap();
            assert_eq!(objects(&old), objects(&new), "from {number}");
        }
    }

    #[test]
    fn a_newer_or_foreign_database_is_refused_and_a_failed_step_changes_nothing() {
        let newer = of_schema(STEPS.len());
        newer.execute_batch(&format!("PRAGMA user_version = {}", NEWEST + 1)).unwrap();
        let foreign = of_schema(1);
        foreign.execute_batch("PRAGMA application_id = 7").unwrap();
        for connection in [newer, foreign, Connection::open_in_memory().unwrap()] {
            assert!(matches!(migrate(&connection), Err(StoreError::Corrupted(_))));
        }
        let broken = of_schema(1);
        broken.execute_batch("DROP INDEX certificate_request").unwrap();
        let before = objects(&broken);
        assert!(migrate(&broken).is_err());
        assert_eq!(objects(&broken), before);
    }

    #[test]
    fn released_steps_are_frozen() {
        let digests = STEPS.map(|step| hex::encode(Sha256::digest(step)));
        assert_eq!(digests, FROZEN);
    }

    const FROZEN: [&str; 2] = [
        "8152b4874209a2938e407f1e92a6fa3729b520d4f11d6df128c773655b7e979f",
        "6d8f4762dddb05107a15ac395f95c97445d8e036221e29787f1df915606c9dc1",
    ];

    #[test]
    fn a_compromised_key_is_found_without_reading_its_other_certificates() {
        let connection = Connection::open_in_memory().unwrap();
        create(&connection).unwrap();
        let query = format!("EXPLAIN QUERY PLAN {}", crate::storage::revocations::IS_COMPROMISED);
        let plan =
            rows::all(&connection, &query, rusqlite::params![[0_u8; 32], 1, 2], |row| get::<String>(row, 3));
        let plan = plan.unwrap().join("; ");
        assert!(plan.contains("certificate_revoked_key"), "{plan}");
        assert!(!plan.contains("SCAN"), "{plan}");
    }
}
