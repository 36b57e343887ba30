-- Schema 1. Times are seconds since 1970; states, steps and reasons are the numbers of the Rust enums.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE authority (
    position    INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    role        TEXT    NOT NULL,
    certificate BLOB,
    issuer      TEXT,
    key_uri     TEXT    NOT NULL,
    shards      INTEGER NOT NULL
) STRICT;

CREATE TABLE token (
    hash          BLOB    PRIMARY KEY,
    identity_kind INTEGER NOT NULL,
    identity      TEXT    NOT NULL,
    profile       TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    used_by       BLOB,
    used_at       INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE certificate (
    id                    INTEGER PRIMARY KEY,
    serial                BLOB    NOT NULL UNIQUE,
    intent                BLOB    NOT NULL UNIQUE,
    issuer                TEXT    NOT NULL,
    profile               TEXT    NOT NULL,
    identity_kind         INTEGER,
    identity              TEXT,
    spki_sha256           BLOB    NOT NULL,
    requester             TEXT    NOT NULL,
    request_id            TEXT,
    evidence              TEXT    NOT NULL,
    not_before            INTEGER NOT NULL,
    not_after             INTEGER NOT NULL,
    shard                 INTEGER NOT NULL,
    state                 INTEGER NOT NULL,
    step                  INTEGER NOT NULL,
    tbs_sha256            BLOB    NOT NULL,
    tbs                   BLOB    NOT NULL,
    signature             BLOB,
    precertificate_sha256 BLOB,
    precertificate_signature BLOB,
    sct                   BLOB,
    log_index             INTEGER,
    reason                TEXT,
    created_at            INTEGER NOT NULL,
    updated_at            INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX certificate_request ON certificate (requester, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX certificate_identity ON certificate (identity) WHERE identity IS NOT NULL;
CREATE INDEX certificate_key ON certificate (spki_sha256);
CREATE INDEX certificate_open ON certificate (created_at) WHERE state IN (0, 1, 3, 4);

CREATE TABLE revocation (
    issuer      TEXT    NOT NULL,
    shard       INTEGER NOT NULL,
    serial      BLOB    NOT NULL,
    revoked_at  INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    reason      INTEGER NOT NULL,
    actor       TEXT    NOT NULL,
    event_index INTEGER,
    PRIMARY KEY (issuer, shard, serial)
) STRICT, WITHOUT ROWID;

CREATE INDEX revocation_unlogged ON revocation (recorded_at) WHERE event_index IS NULL;

-- One row per list. part is the shard, -1 for the complete list, or -2 for the delta to it. A number is allotted (next_number) in the
-- transaction that fixes the entries; published is the number of the list below.
CREATE TABLE crl_part (
    issuer      TEXT    NOT NULL,
    part        INTEGER NOT NULL,
    allotted    INTEGER NOT NULL,
    published   INTEGER NOT NULL,
    changed     INTEGER NOT NULL,
    this_update INTEGER NOT NULL,
    next_update INTEGER NOT NULL,
    der         BLOB,
    PRIMARY KEY (issuer, part)
) STRICT, WITHOUT ROWID;

-- Every number ever allotted, so that gaps are explained and none can be used twice.
CREATE TABLE crl_number (
    issuer      TEXT    NOT NULL,
    part        INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    allotted_at INTEGER NOT NULL,
    entries     INTEGER NOT NULL,
    sha256      BLOB,
    PRIMARY KEY (issuer, part, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    event    TEXT    NOT NULL,
    actor    TEXT    NOT NULL,
    detail   TEXT    NOT NULL,
    previous BLOB    NOT NULL,
    hash     BLOB    NOT NULL
) STRICT;
