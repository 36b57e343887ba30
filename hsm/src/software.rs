//! Keys in files, encrypted; decrypted in this process's memory while open.
//!
//! A keystore is a directory (mode 0700):
//!
//! | File | Content |
//! |---|---|
//! | `keystore` | the passphrase parameters and the wrapped master key ([`header`]) |
//! | `LABEL.key` | one key: metadata in clear but authenticated, then the encrypted PKCS#8 ([`key_file`]) |
//!
//! Passphrase → one Argon2id derivation → key-encryption key → unwraps the random master key → decrypts every key file.
//! Changing the passphrase therefore rewrites one small file, and opening many keys costs one derivation.

pub mod header;
pub mod kdf;
pub mod key_file;
mod keystore;
mod private_key;
mod rate;
mod seal;
mod secret_file;
mod signer;

pub use kdf::KdfProfile;
pub use keystore::{Keystore, KeystoreOptions};

pub(crate) use private_key::PrivateKey;
pub(crate) use rate::RateLimit;
pub(crate) use seal::{NONCE_LEN, open as open_sealed, random, seal};
pub(crate) use secret_file::{Readers, read_secret, write_new};
pub(crate) use signer::SoftwareSigner;
