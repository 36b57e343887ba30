-- What the holder of a key demands of renewals and what an operator does say of the renewals' keys what neither says, were they one row: of a
-- key there is one of each (by_holder), and each is carried out for itself.
CREATE TABLE key_end_of (
    spki_sha256    BLOB    NOT NULL,
    by_holder      INTEGER NOT NULL,
    reason         INTEGER NOT NULL,
    dated          INTEGER NOT NULL,
    since          INTEGER,
    renewals_dated INTEGER,
    valid_at       INTEGER,
    actor          TEXT    NOT NULL,
    reached        INTEGER NOT NULL,
    done           INTEGER NOT NULL,
    PRIMARY KEY (spki_sha256, by_holder)
) STRICT, WITHOUT ROWID;

INSERT INTO key_end_of (spki_sha256, by_holder, reason, dated, since, renewals_dated, valid_at, actor, reached, done)
    SELECT spki_sha256, CASE WHEN valid_at IS NULL THEN 0 ELSE 1 END, reason, dated, since, renewals_dated, valid_at, actor, reached, done
    FROM key_end;
DROP TABLE key_end;
ALTER TABLE key_end_of RENAME TO key_end;
CREATE INDEX key_end_due ON key_end (done) WHERE done = 0;

-- Each revocation looks for the open reports of its certificate, in the order of their numbers.
CREATE INDEX problem_report_open_of ON problem_report (serial, id) WHERE closed_at IS NULL;
