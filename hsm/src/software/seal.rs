//! XChaCha20-Poly1305 with random 24-byte nonces.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::error::Error;

pub(crate) const NONCE_LEN: usize = 24;
pub(crate) const TAG_LEN: usize = 16;

/// The ciphertext does not belong to this key, nonce and associated data.
#[derive(Debug)]
pub(crate) struct NotAuthentic;

/// Encrypts `plaintext` and authenticates `associated` with it.
pub(crate) fn seal(
    key: &[u8; 32],
    nonce: &[u8; NONCE_LEN],
    plaintext: &[u8],
    associated: &[u8],
) -> Result<Vec<u8>, Error> {
    XChaCha20Poly1305::new(key.into())
        .encrypt(&XNonce::from(*nonce), Payload { msg: plaintext, aad: associated })
        .map_err(|_| Error::Permanent { detail: "encryption failed".to_owned() })
}

/// Decrypts what [`seal`] made.
pub(crate) fn open(
    key: &[u8; 32],
    nonce: &[u8; NONCE_LEN],
    ciphertext: &[u8],
    associated: &[u8],
) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
    XChaCha20Poly1305::new(key.into())
        .decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: associated })
        .map(Zeroizing::new)
        .map_err(|_| NotAuthentic)
}

/// Fills an array from the system's random source.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Error::Transient { detail: "the random source failed".to_owned() })?;
    Ok(bytes)
}
