-- Keys of which a revocation says that they are in other hands: every other certificate of such a key ends with it, from a date on (dated), and
-- what came of that by renewal as the revocation said: since a time, from a date on (absent where it stays), and not of what had ended by
-- valid_at. Written with the revocation; rows up to the number reached were looked at, and all of them where it is done.
CREATE TABLE key_end (
    spki_sha256    BLOB    PRIMARY KEY,
    reason         INTEGER NOT NULL,
    dated          INTEGER NOT NULL,
    since          INTEGER,
    renewals_dated INTEGER,
    valid_at       INTEGER,
    actor          TEXT    NOT NULL,
    reached        INTEGER NOT NULL,
    done           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX key_end_due ON key_end (done) WHERE done = 0;
