//! Stored certificates by the million, written past the server as it writes them itself: certificate, used token and audit records, in
//! its schema with every index there is.
//!
//! They look like the newest one that was issued: the same profile and sizes, issued at an even rate ([`A_SECOND`]) until now. Serial
//! numbers and tokens begin with the period they are of, as the server makes them, and ascend within it; keys and identities ascend
//! within the segments of their indexes, over the whole range of each. So every index is written in its order, which is what makes it
//! fast, and what is issued afterwards falls among what is there, as it does where they were issued one by one.

use std::path::Path;
use std::time::Instant;

use ca_pki::UnixTime;
use ca_pki::serial::Period;
use ca_service::authority::random;
use ca_service::storage::audit::Record;
use rusqlite::{CachedStatement, Connection, params};
use sha2::{Digest as _, Sha256};

/// Rows of one transaction.
const PART: i64 = 100_000;
/// Rows that are ordered by identity and key together.
const SEGMENT: i64 = 1 << 16;
/// Certificates of one second.
const A_SECOND: i64 = 100;
/// `State::Delivered` and `State::Revoked`.
const DELIVERED: i64 = 5;
const REVOKED: i64 = 7;
/// How long ago what is revoked was revoked, in seconds: so long that no delta list has it.
const LONG_AGO: i64 = 30 * 86_400;

/// Which of the stored certificates are revoked.
#[derive(Clone, Copy)]
pub(crate) enum Revoked {
    All,
    /// One in so many.
    OneIn(i64),
}

impl Revoked {
    fn has(self, number: i64) -> bool {
        match self {
            Self::All => true,
            Self::OneIn(many) => number % many == 0,
        }
    }
}

/// The newest certificate that was issued with a token.
struct Model {
    issuer: String,
    profile: String,
    evidence: String,
    lifetime: i64,
    tbs: Vec<u8>,
    signature: Vec<u8>,
    created_at: i64,
    prefix: u8,
}

impl Model {
    fn read(connection: &Connection) -> Self {
        let newest = "SELECT issuer, profile, evidence, not_after - not_before, tbs, signature, created_at, serial \
                      FROM certificate WHERE requester LIKE 'token:%' AND signature IS NOT NULL ORDER BY id DESC LIMIT 1";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Self {
                issuer: row.get(0)?,
                profile: row.get(1)?,
                evidence: row.get(2)?,
                lifetime: row.get(3)?,
                tbs: row.get(4)?,
                signature: row.get(5)?,
                created_at: row.get(6)?,
                prefix: row.get::<_, Vec<u8>>(7)?[0],
            })
        };
        connection.query_row(newest, [], read).unwrap()
    }
}

/// The audit trail's end, which goes on with every record.
struct Trail {
    sequence: i64,
    hash: [u8; 32],
}

impl Trail {
    fn read(connection: &Connection) -> Self {
        let newest = "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1";
        let read = |row: &rusqlite::Row<'_>| Ok(Self { sequence: row.get(0)?, hash: row.get(1)? });
        connection.query_row(newest, [], read).unwrap()
    }

    fn append(
        &mut self,
        insert: &mut CachedStatement<'_>,
        event: &str,
        actor: &str,
        detail: String,
        at: i64,
    ) {
        let sequence = self.sequence + 1;
        let mut record = Record {
            sequence: u64::try_from(sequence).unwrap(),
            at: UnixTime(at),
            event: event.to_owned(),
            actor: actor.to_owned(),
            detail,
            previous: self.hash,
            hash: [0; 32],
        };
        record.hash = record.expected_hash();
        insert
            .execute(params![sequence, at, event, actor, record.detail, record.previous, record.hash])
            .unwrap();
        (self.sequence, self.hash) = (sequence, record.hash);
    }
}

/// Six octets that ascend with a number and are spread evenly over their range, then random ones.
fn spread<const N: usize>(number: i64, of: i64) -> [u8; N] {
    let mut octets = random::<N>().unwrap();
    let place = (i128::from(number) << 48) / i128::from(of);
    octets[..6].copy_from_slice(&i64::try_from(place).unwrap().to_be_bytes()[2..]);
    octets
}

/// The period of a time, octets that ascend within it, then random ones.
fn of_period<const N: usize>(at: i64) -> [u8; N] {
    let mut octets = random::<N>().unwrap();
    let within = at.rem_euclid(1 << 10) << 6;
    octets[..2].copy_from_slice(&Period::of(UnixTime(at)).octets());
    octets[2..4].copy_from_slice(&u16::try_from(within).unwrap().to_be_bytes());
    octets
}

/// Adds the certificates numbered from `from` to `to`, of `of` in all. The server is stopped.
pub(crate) fn write(database: &Path, (from, to): (i64, i64), of: i64, revoked: Revoked) {
    let connection = Connection::open(database).unwrap();
    // Nobody reads a database whose loading was cut off, so nothing is written twice for its sake.
    connection
        .execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = DELETE; PRAGMA journal_mode = OFF; \
             PRAGMA synchronous = OFF; PRAGMA cache_size = -262144;",
        )
        .unwrap();
    connection.set_prepared_statement_cache_capacity(16);
    let (model, mut trail) = (Model::read(&connection), Trail::read(&connection));
    let (began, mut done) = (Instant::now(), from);
    while done < to {
        let end = (done + PART).min(to);
        connection.execute_batch("BEGIN").unwrap();
        (done..end).for_each(|number| one(&connection, &model, &mut trail, (number, of), revoked));
        connection.execute_batch("COMMIT").unwrap();
        done = end;
        if done % (10 * PART) == 0 || done == to {
            let size = std::fs::metadata(database).unwrap().len() as f64 / 1e9;
            println!("stored {done:>10} of {to}: {:>4.0} s, {size:.1} GB", began.elapsed().as_secs_f64());
        }
    }
    // Back to what the server expects; its own writes do not wait for these.
    connection.execute_batch("PRAGMA locking_mode = NORMAL; PRAGMA journal_mode = WAL").unwrap();
    drop(connection);
    std::fs::File::open(database).unwrap().sync_all().unwrap();
}

fn one(
    connection: &Connection,
    model: &Model,
    trail: &mut Trail,
    (number, of): (i64, i64),
    revoked: Revoked,
) {
    let statement = |text: &str| connection.prepare_cached(text).unwrap();
    let at = model.created_at - (of - number) / A_SECOND - 1;
    let mut intent = random::<16>().unwrap();
    intent[..5].copy_from_slice(&at.to_be_bytes()[3..]);
    // In order within the second, too.
    intent[5..9].copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
    let mut serial = [0; 20];
    serial[0] = model.prefix;
    serial[1..].copy_from_slice(&of_period::<19>(at));
    let (token, key) = (of_period::<32>(at), spread::<32>(number % SEGMENT, SEGMENT));
    let identity = format!("developer-{}@example.org", hex::encode(&key[..6]));
    let requester = format!("token:{}", hex::encode(token));
    let state = if revoked.has(number) { REVOKED } else { DELIVERED };
    let shard = number % 128;
    let tbs_sha256 = Sha256::digest(&model.tbs);

    statement(
        "INSERT INTO token (hash, identity_kind, identity, profile, created_at, expires_at, used_by, used_at) \
         VALUES (?, 0, ?, ?, ?, ?, ?, ?)",
    )
    .execute(params![token, identity, model.profile, at, at + 3_600, intent, at])
    .unwrap();
    statement(
        "INSERT INTO certificate (serial, intent, issuer, profile, identity_kind, identity, spki_sha256, requester, \
         request_id, evidence, not_before, not_after, shard, state, step, tbs_sha256, tbs, signature, log_index, \
         created_at, updated_at) VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?)",
    )
    .execute(params![
        serial,
        intent,
        model.issuer,
        model.profile,
        identity,
        key,
        requester,
        hex::encode(intent),
        model.evidence,
        at,
        at + model.lifetime,
        shard,
        state,
        tbs_sha256.as_slice(),
        model.tbs,
        model.signature,
        number,
        at,
        at
    ])
    .unwrap();
    if state == REVOKED {
        statement(
            "INSERT INTO revocation (issuer, shard, serial, revoked_at, recorded_at, reason, actor, event_index) \
             VALUES (?, ?, ?, ?, ?, 4, 'bench', 0)",
        )
        .execute(params![model.issuer, shard, serial, at, at - LONG_AGO])
        .unwrap();
    }
    let mut insert = statement(
        "INSERT INTO audit (sequence, at, event, actor, detail, previous, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
    );
    let created = serde_json::json!({
        "token": hex::encode(token),
        "identity": identity,
        "profile": model.profile,
        "expires_at": at + 3_600,
    });
    trail.append(&mut insert, "token.created", "admin", created.to_string(), at);
    let signing = serde_json::json!({
        "intent": hex::encode(intent),
        "serial": hex::encode(serial),
        "issuer": model.issuer,
        "profile": model.profile,
        "tbs_sha256": hex::encode(tbs_sha256),
    });
    trail.append(&mut insert, "certificate.signing", &requester, signing.to_string(), at);
}
