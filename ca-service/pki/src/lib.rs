//! ca-pki
