-- What somebody says is wrong with a certificate, and until when it must be decided. Closed by the decision that it stands, or by its
-- revocation.
CREATE TABLE problem_report (
    id          INTEGER PRIMARY KEY,
    serial      BLOB    NOT NULL,
    ground      INTEGER NOT NULL,
    detail      TEXT    NOT NULL,
    reported_by TEXT    NOT NULL,
    received_at INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,
    closed_at   INTEGER,
    closed_by   TEXT,
    decision    TEXT
) STRICT;

CREATE INDEX problem_report_open ON problem_report (due_at) WHERE closed_at IS NULL;
