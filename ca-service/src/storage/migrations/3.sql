-- What ends soon is looked for every hour. Certificates that live for a week or less are not warned of.
CREATE INDEX certificate_expiry ON certificate (not_after, id)
    WHERE state = 5 AND not_after - not_before > 604800;

-- The signed lists, apart from the rows that every revocation changes: a change of a row writes all of it, and a list of a
-- million entries has some forty megabytes.
CREATE TABLE crl_list (
    issuer TEXT    NOT NULL,
    part   INTEGER NOT NULL,
    der    BLOB    NOT NULL,
    PRIMARY KEY (issuer, part)
) STRICT;

INSERT INTO crl_list (issuer, part, der) SELECT issuer, part, der FROM crl_part WHERE der IS NOT NULL;
ALTER TABLE crl_part DROP COLUMN der;
