-- Identities and keys fall anywhere in the order of their index: with millions of certificates each new one would change two pages that
-- no other one of its commit changes. So each run of 65,536 rows is ordered for itself (ADR 0054).
DROP INDEX certificate_identity;
CREATE INDEX certificate_identity ON certificate ((id >> 16), identity) WHERE identity IS NOT NULL;
DROP INDEX certificate_key;
CREATE INDEX certificate_key ON certificate ((id >> 16), spki_sha256);
