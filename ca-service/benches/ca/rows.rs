//! Rows put into the database past the server, in its own schema: tokens to be used, and stored certificates by the million.

use std::path::Path;

use rusqlite::{Connection, params};
use sha2::{Digest as _, Sha256};

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
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut insert = connection
        .prepare(
            "INSERT INTO token (hash, identity_kind, identity, profile, created_at, expires_at) \
             VALUES (?, 0, ?, ?, 0, 9999999999)",
        )
        .unwrap();
    for number in 0..count {
        let secret = format!("mentat_enrol_{}", hex::encode(ca_service::authority::random::<24>().unwrap()));
        let hash = Sha256::digest(&secret).to_vec();
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

/// Adds stored certificates that look like the newest one, numbered from `from` to `to`: same sizes, own serial numbers,
/// keys and identities. Indexes are dropped and made anew, which is what makes it fast.
pub(crate) fn load(database: &Path, from: i64, to: i64) {
    let connection = open(database);
    let indexes = [
        "CREATE UNIQUE INDEX certificate_request ON certificate (requester, request_id) WHERE request_id IS NOT NULL AND substr(requester, 1, 6) <> 'token:'",
        "CREATE INDEX certificate_identity ON certificate (identity) WHERE identity IS NOT NULL",
        "CREATE INDEX certificate_key ON certificate (spki_sha256)",
        "CREATE INDEX certificate_open ON certificate (created_at) WHERE state IN (0, 1, 3, 4)",
    ];
    connection
        .execute_batch(
            "PRAGMA cache_size = -2000000; PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 100000; \
         DROP INDEX certificate_request; DROP INDEX certificate_identity; DROP INDEX certificate_key; \
         DROP INDEX certificate_open;",
        )
        .unwrap();
    let mut done = from;
    while done < to {
        let part = (to - done).min(500_000);
        // Serial numbers ascend here, so that the two indexes that cannot be dropped are written in order.
        connection.execute(
            "WITH RECURSIVE number (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM number WHERE n < ?1 + ?2 - 1), \
             model AS (SELECT * FROM certificate WHERE requester LIKE 'token:%' ORDER BY id DESC LIMIT 1) \
             INSERT INTO certificate (serial, intent, issuer, profile, identity_kind, identity, spki_sha256, requester, \
             request_id, evidence, not_before, not_after, shard, state, step, tbs_sha256, tbs, signature, log_index, \
             created_at, updated_at) \
             SELECT CAST(unhex(printf('01%012X', n)) || randomblob(11) AS BLOB), CAST(unhex(printf('%012X', n)) || randomblob(10) AS BLOB), issuer, \
             profile, identity_kind, 'stored-' || n || '@example.org', randomblob(32), \
             'bench', lower(hex(randomblob(48))), evidence, not_before, not_after, n % 128, \
             5, 1, tbs_sha256, tbs, signature, n, created_at, updated_at FROM number, model",
            params![done, part],
        )
        .unwrap();
        done += part;
    }
    for index in indexes {
        connection.execute_batch(index).unwrap();
    }
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
}

/// Adds certificates that look like the newest one and were revoked a month ago, so that no delta list has them: those
/// numbered from `from` to `to`.
pub(crate) fn load_revoked(database: &Path, from: i64, to: i64) {
    load(database, from, to);
    let connection = open(database);
    connection.execute(
        "INSERT INTO revocation (issuer, shard, serial, revoked_at, recorded_at, reason, actor, event_index) \
         SELECT issuer, shard, serial, not_before, not_before - 2592000, 4, 'bench', 0 FROM certificate \
         WHERE state = 5 AND requester = 'bench'",
        [],
    )
    .unwrap();
    connection.execute_batch("UPDATE certificate SET state = 7 WHERE state = 5 AND requester = 'bench'; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
}

/// Makes only the complete list of the issuing CA due.
pub(crate) fn only_the_complete_list_is_due(database: &Path) {
    let connection = open(database);
    connection.execute_batch(
        "UPDATE crl_part SET changed = 0; UPDATE crl_part SET changed = 1 WHERE issuer = 'code-signing' AND part = -1",
    ).unwrap();
}
