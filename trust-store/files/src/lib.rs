//! trust-store-files
