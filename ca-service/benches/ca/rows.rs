//! Rows put into the database past the server, in its own schema: tokens to be used, and what is due.

use std::path::Path;

use ca_pki::UnixTime;
use rusqlite::{Connection, params};

fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    connection.pragma_update(None, "synchronous", "NORMAL").unwrap();
    connection
}

/// Makes tokens; returns their secrets.
pub(crate) fn tokens(database: &Path, profile: &str, count: usize) -> Vec<String> {
    let connection = open(database);
    let mut secrets = Vec::with_capacity(count);
    let now = UnixTime(service::Clock::unix_seconds(&service::SystemClock));
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut insert = connection
        .prepare(
            "INSERT INTO token (hash, identity_kind, identity, profile, created_at, expires_at) \
             VALUES (?, 0, ?, ?, 0, 9999999999)",
        )
        .unwrap();
    for number in 0..count {
        let secret = ca_service::enrolment_token::fresh(now).unwrap();
        let hash = ca_service::enrolment_token::hash(&secret);
        insert.execute(params![hash, format!("developer-{number}@example.org"), profile]).unwrap();
        secrets.push(secret);
    }
    connection.execute_batch("COMMIT").unwrap();
    secrets
}

/// Pages in use, in bytes, and certificates.
pub(crate) fn sizes(database: &Path) -> (f64, f64) {
    let connection = open(database);
    let number =
        |statement: &str| connection.query_row(statement, [], |row| row.get::<_, i64>(0)).unwrap() as f64;
    connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    let pages = number("PRAGMA page_count");
    let free = number("PRAGMA freelist_count");
    let size = number("PRAGMA page_size");
    let unused = number("SELECT count(*) FROM token WHERE used_by IS NULL");
    let certificates = number("SELECT count(*) FROM certificate");
    // A token's row takes about 130 bytes; those that no run used do not count.
    ((pages - free) * size - unused * 130.0, certificates)
}

/// Bytes that each certificate since `before` takes, its token, audit records and indexes included.
pub(crate) fn bytes_per_certificate(before: (f64, f64), database: &Path) -> f64 {
    let after = sizes(database);
    (after.0 - before.0) / (after.1 - before.1)
}

/// Makes only the complete list of the issuing CA due.
pub(crate) fn only_the_complete_list_is_due(database: &Path) {
    let connection = open(database);
    connection.execute_batch(
        "UPDATE crl_part SET changed = 0; UPDATE crl_part SET changed = 1 WHERE issuer = 'code-signing' AND part = -1",
    ).unwrap();
}
