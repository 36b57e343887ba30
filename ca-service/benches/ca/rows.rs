//! Rows put into the database past the server, in its own schema: tokens to be used, and stored certificates by the million.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Row as _, SqliteConnection};

async fn open(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(std::time::Duration::from_secs(20));
    options.connect().await.unwrap()
}

/// Makes tokens; returns their secrets.
pub(crate) async fn tokens(database: &Path, profile: &str, count: usize) -> Vec<String> {
    let mut connection = open(database).await;
    let mut secrets = Vec::with_capacity(count);
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
    for number in 0..count {
        let secret = format!("mentat_enrol_{}", hex::encode(ca_service::authority::random::<24>().unwrap()));
        sqlx::query(
            "INSERT INTO token (hash, identity_kind, identity, profile, created_at, expires_at) \
             VALUES (?, 0, ?, ?, 0, 9999999999)",
        )
        .bind(Sha256::digest(&secret).to_vec())
        .bind(format!("developer-{number}@example.org"))
        .bind(profile)
        .execute(&mut connection)
        .await
        .unwrap();
        secrets.push(secret);
    }
    sqlx::raw_sql("COMMIT").execute(&mut connection).await.unwrap();
    secrets
}

/// Pages in use, in bytes, and certificates.
pub(crate) async fn sizes(database: &Path) -> (f64, f64) {
    let mut connection = open(database).await;
    let number = async |connection: &mut SqliteConnection, statement: &'static str| {
        sqlx::query(statement).fetch_one(connection).await.unwrap().get::<i64, _>(0) as f64
    };
    sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut connection).await.unwrap();
    let pages = number(&mut connection, "PRAGMA page_count").await;
    let free = number(&mut connection, "PRAGMA freelist_count").await;
    let size = number(&mut connection, "PRAGMA page_size").await;
    let unused = number(&mut connection, "SELECT count(*) FROM token WHERE used_by IS NULL").await;
    let certificates = number(&mut connection, "SELECT count(*) FROM certificate").await;
    // A token's row takes about 130 bytes; those that no run used do not count.
    ((pages - free) * size - unused * 130.0, certificates)
}

/// Bytes that each certificate since `before` takes, its token, audit records and indexes included.
pub(crate) async fn bytes_per_certificate(before: (f64, f64), database: &Path) -> f64 {
    let after = sizes(database).await;
    (after.0 - before.0) / (after.1 - before.1)
}

/// Adds stored certificates that look like the newest one, numbered from `from` to `to`: same sizes, own serial numbers,
/// keys and identities. Indexes are dropped and made anew, which is what makes it fast.
pub(crate) async fn load(database: &Path, from: i64, to: i64) {
    let mut connection = open(database).await;
    let indexes = [
        "CREATE UNIQUE INDEX certificate_request ON certificate (requester, request_id) WHERE request_id IS NOT NULL",
        "CREATE INDEX certificate_identity ON certificate (identity) WHERE identity IS NOT NULL",
        "CREATE INDEX certificate_key ON certificate (spki_sha256)",
        "CREATE INDEX certificate_open ON certificate (created_at) WHERE state IN (0, 1, 3, 4)",
    ];
    sqlx::raw_sql(
        "PRAGMA cache_size = -2000000; PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 100000; \
         DROP INDEX certificate_request; DROP INDEX certificate_identity; DROP INDEX certificate_key; \
         DROP INDEX certificate_open;",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let mut done = from;
    while done < to {
        let part = (to - done).min(500_000);
        // Serial numbers ascend here, so that the two indexes that cannot be dropped are written in order.
        sqlx::query(
            "WITH RECURSIVE number (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM number WHERE n < ?1 + ?2 - 1), \
             model AS (SELECT * FROM certificate WHERE requester LIKE 'token:%' ORDER BY id DESC LIMIT 1) \
             INSERT INTO certificate (serial, intent, issuer, profile, identity_kind, identity, spki_sha256, requester, \
             request_id, evidence, not_before, not_after, shard, state, step, tbs_sha256, tbs, signature, log_index, \
             created_at, updated_at) \
             SELECT unhex(printf('01%012X', n)) || randomblob(11), unhex(printf('%012X', n)) || randomblob(10), issuer, \
             profile, identity_kind, 'stored-' || n || '@example.org', randomblob(32), \
             'bench', lower(hex(randomblob(48))), evidence, not_before, not_after, n % 128, \
             5, 1, tbs_sha256, tbs, signature, n, created_at, updated_at FROM number, model",
        )
        .bind(done)
        .bind(part)
        .execute(&mut connection)
        .await
        .unwrap();
        done += part;
    }
    for index in indexes {
        sqlx::raw_sql(index).execute(&mut connection).await.unwrap();
    }
    sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await.unwrap();
}

/// Adds revoked certificates that look like the newest one: those numbered from `from` to `to`.
pub(crate) async fn load_revoked(database: &Path, from: i64, to: i64) {
    load(database, from, to).await;
    let mut connection = open(database).await;
    sqlx::query(
        "INSERT INTO revocation (issuer, shard, serial, revoked_at, recorded_at, reason, actor, event_index) \
         SELECT issuer, shard, serial, not_before, not_before, 4, 'bench', 0 FROM certificate \
         WHERE state = 5 AND requester = 'bench'",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    sqlx::raw_sql("UPDATE certificate SET state = 7 WHERE state = 5 AND requester = 'bench'; PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut connection)
        .await
        .unwrap();
}

/// Makes only the complete list of the issuing CA due.
pub(crate) async fn only_the_complete_list_is_due(database: &Path) {
    let mut connection = open(database).await;
    sqlx::raw_sql(
        "UPDATE crl_part SET changed = 0; UPDATE crl_part SET changed = 1 WHERE issuer = 'code-signing' AND part = -1",
    )
    .execute(&mut connection)
    .await
    .unwrap();
}
