-- Every issuance asks whether its key is known as compromised: looked for among the revoked certificates only, so that the cost
-- does not grow with the certificates that a key has.
CREATE INDEX certificate_revoked_key ON certificate (spki_sha256) WHERE state = 7;

-- The id of a request with a one-time token is guarded by the token, which serves once.
DROP INDEX certificate_request;
CREATE UNIQUE INDEX certificate_request ON certificate (requester, request_id)
    WHERE request_id IS NOT NULL AND substr(requester, 1, 6) <> 'token:';
