-- Revoked certificates whose renewals end with them: those that were recorded since a time (all of them where there is none), from a date
-- on. Written with the revocation, and done once each of them was looked at; what was demanded stays, to be checked by.
CREATE TABLE renewal_end (
    serial   BLOB    PRIMARY KEY,
    identity TEXT    NOT NULL,
    reason   INTEGER NOT NULL,
    since    INTEGER,
    dated    INTEGER NOT NULL,
    actor    TEXT    NOT NULL,
    done     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- While some are due, nobody of the identity renews.
CREATE INDEX renewal_end_due ON renewal_end (identity) WHERE done = 0;
