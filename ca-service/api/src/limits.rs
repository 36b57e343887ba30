//! Upper bounds that both sides agree on; the server checks them before it parses.

/// Longest JSON request body in bytes.
pub const MAX_JSON_BODY: usize = 64 * 1024;
/// Longest order to revoke many, with the approvals of a whole quorum, in bytes.
pub const MAX_ORDER_BODY: usize = 512 * 1024;
/// Longest PEM certificate request in characters.
pub const MAX_CSR_PEM: usize = 32 * 1024;
/// Longest client request id in characters.
pub const MAX_REQUEST_ID: usize = 64;
/// Longest profile name in characters.
pub const MAX_PROFILE: usize = 64;
/// Longest enrolment token in characters.
pub const MAX_TOKEN: usize = 128;
/// Most certificates in one page of a list.
pub const MAX_PAGE: u32 = 1000;
/// Certificates in a page when the query does not say.
pub const DEFAULT_PAGE: u32 = 100;
/// Most requests waiting for approval in one page of their list.
pub const MAX_QUEUE_PAGE: u32 = 100;
/// Most requests that one call decides about.
pub const MAX_DECIDED: usize = 32;
/// Longest reason of a denial in bytes.
pub const MAX_REASON: usize = 256;
/// Longest JSON time-stamp request in bytes (sigstore-contract §7).
pub const MAX_TIMESTAMP_JSON: usize = 1024;
/// Largest answer a client reads: a CRL of a million entries has some 50 MB.
pub const MAX_ANSWER: usize = 128 * 1024 * 1024;
