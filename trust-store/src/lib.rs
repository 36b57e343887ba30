//! trust-store
