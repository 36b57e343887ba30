-- Requests for certificates that wait for people's approval. What would be issued is fixed here and never changed; state (0 waits,
-- 1 approved) and way are the numbers of the Rust enums. One that got its certificate names the issuance.
CREATE TABLE enrolment_request (
    number          INTEGER PRIMARY KEY,
    id              BLOB    NOT NULL UNIQUE,
    requester       TEXT    NOT NULL,
    request_id      TEXT    NOT NULL,
    token           BLOB    UNIQUE,
    way             INTEGER NOT NULL,
    requester_names TEXT    NOT NULL,
    vouched_by      TEXT,
    voucher_names   TEXT    NOT NULL,
    identity_kind   INTEGER NOT NULL,
    identity        TEXT    NOT NULL,
    identity_issuer TEXT    NOT NULL,
    profile         TEXT    NOT NULL,
    issuer          TEXT    NOT NULL,
    terms           TEXT    NOT NULL,
    spki            BLOB    NOT NULL,
    spki_sha256     BLOB    NOT NULL,
    claims          TEXT    NOT NULL,
    evidence        TEXT    NOT NULL,
    needed          INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    state           INTEGER NOT NULL,
    announced       INTEGER NOT NULL,
    closed_at       INTEGER,
    closed_by       TEXT,
    reason          TEXT,
    intent          BLOB    UNIQUE
) STRICT;

-- Of those of one requester and id one may be open; what was closed gives way to it.
CREATE INDEX enrolment_request_of ON enrolment_request (requester, request_id);
CREATE UNIQUE INDEX enrolment_request_one ON enrolment_request (requester, request_id) WHERE state IN (0, 1);
CREATE INDEX enrolment_request_open ON enrolment_request (identity) WHERE state IN (0, 1);
CREATE INDEX enrolment_request_closed ON enrolment_request (closed_at) WHERE closed_at IS NOT NULL;

-- statement is SHA-256 of what the approver was shown, names is a JSON list of all that they were known by, record the audit record of
-- the approval. A person counts once for each text.
CREATE TABLE enrolment_approval (
    request   BLOB    NOT NULL,
    approver  TEXT    NOT NULL,
    statement BLOB    NOT NULL,
    names     TEXT    NOT NULL,
    record    INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (request, approver, statement)
) STRICT, WITHOUT ROWID;

-- Who made a token vouches for its holder, and is no second person then. Not known of earlier ones. creator_names is a JSON list of
-- all that they were known by, absent where that names nobody in particular.
ALTER TABLE token ADD COLUMN created_by TEXT;
ALTER TABLE token ADD COLUMN creator_names TEXT;
