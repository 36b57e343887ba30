//! ca-api
