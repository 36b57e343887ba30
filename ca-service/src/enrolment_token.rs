//! One-time tokens: secrets that begin with the period they were made in, and what is kept of them.

use ca_pki::UnixTime;
use ca_pki::serial::Period;
use sha2::{Digest, Sha256};

use crate::authority::random;
use crate::error::CaError;

/// What tokens begin with, so that scanners for leaked secrets can recognise them.
const PREFIX: &str = "mentat_enrol_";
/// Hexadecimal digits of the period, and of the secret's 192 bits. Earlier versions made tokens without a period.
const PERIOD_DIGITS: usize = 4;
const SECRET_DIGITS: usize = 48;

/// A fresh token's text.
///
/// # Errors
/// [`CaError::Signing`] when the system's random source fails.
pub fn fresh(now: UnixTime) -> Result<String, CaError> {
    Ok(format!("{PREFIX}{}{}", hex::encode(Period::of(now).octets()), hex::encode(random::<24>()?)))
}

/// What a token is stored and looked for by: its SHA-256, where the period that its text begins with takes the place of the first two
/// octets, so that tokens of one time lie together in the store, as serial numbers do (ADR 0054).
#[must_use]
pub fn hash(token: &str) -> [u8; 32] {
    let mut hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    if let Some(period) = period(token) {
        hash.iter_mut().zip(period).for_each(|(octet, period)| *octet = period);
    }
    hash
}

fn period(token: &str) -> Option<[u8; 2]> {
    let digits = token.strip_prefix(PREFIX)?;
    let mut period = [0; 2];
    (digits.len() == PERIOD_DIGITS + SECRET_DIGITS).then_some(())?;
    hex::decode_to_slice(digits.get(..PERIOD_DIGITS)?, &mut period).ok()?;
    Some(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_one_period_lie_together_and_are_told_apart() {
        let now = UnixTime(1_800_000_000);
        let (one, other) = (fresh(now).unwrap(), fresh(now).unwrap());
        let later = fresh(now.plus(1_024)).unwrap();
        assert_eq!(hash(&one)[..2], Period::of(now).octets());
        assert_eq!(hash(&one)[..2], hash(&other)[..2]);
        assert_ne!(hash(&one)[2..], hash(&other)[2..]);
        assert_eq!(hash(&later)[..2], Period::of(now.plus(1_024)).octets());
        // The period is part of what is hashed: with another one it is another token.
        let moved = one.replacen(&one[13..17], "0000", 1);
        assert_ne!(hash(&moved)[2..], hash(&one)[2..]);
    }

    #[test]
    fn tokens_without_a_period_keep_the_hash_they_were_stored_by() {
        let earlier = format!("{PREFIX}{}", "0a".repeat(24));
        for token in [earlier.as_str(), "", PREFIX, "mentat_enrol_00", "mentat_enrol_abc\u{e9}"] {
            assert_eq!(hash(token), <[u8; 32]>::from(Sha256::digest(token)), "{token}");
        }
        let no_hexadecimal = format!("{PREFIX}xyzw{}", "0a".repeat(24));
        assert_eq!(hash(&no_hexadecimal), <[u8; 32]>::from(Sha256::digest(&no_hexadecimal)));
    }
}
