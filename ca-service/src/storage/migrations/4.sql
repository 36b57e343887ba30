-- Identity tokens that gave a role and served for a change: none serves twice. hash is SHA-256 of what the token's signature is
-- over; after expires_at the token is refused for its age.
CREATE TABLE used_identity_token (
    hash       BLOB    PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX used_identity_token_expiry ON used_identity_token (expires_at);

-- What was revoked lately is shown at a glance, however much was revoked in all.
CREATE INDEX revocation_recorded ON revocation (recorded_at);
