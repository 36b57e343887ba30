//! Challenges for renewals: a proof that gets a new certificate names one that this authority made within the last minute.
//!
//! The proof is an ordinary signature over a text. Whoever has a key's holder sign texts that others hand in could hand in this one; with
//! the challenge it cannot be made beforehand, nor be kept and used later. None is remembered: each is a time with its code by a key of
//! this process, for one certificate.

use std::time::Duration;

use aws_lc_rs::hmac;
use ca_api::possession::{AskChallenge, CHALLENGE_SECONDS, RenewalChallenge};
use ca_pki::SerialNumber;

use crate::authority::{CertificateAuthority, random};
use crate::error::CaError;
use crate::possession::PossessionRefusal;

/// What the codes are of, so that the key means nothing else.
const OF: &[u8] = b"mentat renewal challenge v1";
/// Octets of the time before the code.
const TIME: usize = 8;
/// Hexadecimal digits of a challenge: the time, and a code of 32 octets.
const DIGITS: usize = 2 * (TIME + 32);

/// Makes challenges, and knows its own again.
pub(crate) struct Challenges(hmac::Key);

impl Challenges {
    /// With a key of its own.
    ///
    /// # Errors
    /// [`CaError::Signing`] when the system's random source fails.
    pub(crate) fn new() -> Result<Self, CaError> {
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()?)))
    }

    fn make(&self, serial: &SerialNumber, now: Duration) -> String {
        let time = now.as_secs().to_be_bytes();
        let code = hmac::sign(&self.0, &text(serial, time));
        hex::encode([time.as_slice(), code.as_ref()].concat())
    }

    /// Whether it was made for this certificate, within the last minute.
    fn knows(&self, challenge: &str, serial: &SerialNumber, now: Duration) -> bool {
        if challenge.len() != DIGITS {
            return false;
        }
        let Ok(octets) = hex::decode(challenge) else { return false };
        let Some((time, code)) = octets.split_first_chunk::<TIME>() else { return false };
        let age = now.as_secs().checked_sub(u64::from_be_bytes(*time));
        age.is_some_and(|age| age <= CHALLENGE_SECONDS)
            && hmac::verify(&self.0, &text(serial, *time), code).is_ok()
    }
}

/// What the code of a challenge is of.
fn text(serial: &SerialNumber, time: [u8; TIME]) -> Vec<u8> {
    [OF, &time, serial.as_bytes()].concat()
}

impl CertificateAuthority {
    /// A challenge for the renewal of a certificate; whether there is such a one it does not say.
    ///
    /// # Errors
    /// [`CaError::CertificateUnknown`] for what is no serial number.
    pub fn renewal_challenge(&self, asked: &AskChallenge) -> Result<RenewalChallenge, CaError> {
        let serial = SerialNumber::from_hex(&asked.serial).map_err(|_| CaError::CertificateUnknown)?;
        let challenge = self.challenges.make(&serial, self.clock.monotonic());
        Ok(RenewalChallenge { challenge, seconds: CHALLENGE_SECONDS })
    }

    /// Refuses a proof without a challenge of this authority of the last minute.
    pub(crate) fn refuse_unchallenged(
        &self,
        challenge: Option<&str>,
        serial: &SerialNumber,
    ) -> Result<(), PossessionRefusal> {
        let now = self.clock.monotonic();
        let known = challenge.is_some_and(|challenge| self.challenges.knows(challenge, serial, now));
        if known { Ok(()) } else { Err(PossessionRefusal::ChallengeExpired) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_for_one_certificate_one_minute_and_one_process() {
        let serial = |digits: &str| SerialNumber::from_hex(digits).unwrap();
        let (mine, theirs) = (serial("4d01"), serial("4d02"));
        let (challenges, made_at) = (Challenges::new().unwrap(), Duration::from_secs(1_000));
        let challenge = challenges.make(&mine, made_at);
        assert_eq!(challenge.len(), DIGITS);
        let after = |seconds| made_at + Duration::from_secs(seconds);
        assert!(challenges.knows(&challenge, &mine, made_at));
        assert!(challenges.knows(&challenge, &mine, after(CHALLENGE_SECONDS)));
        assert!(!challenges.knows(&challenge, &mine, after(CHALLENGE_SECONDS + 1)));
        assert!(!challenges.knows(&challenge, &mine, Duration::from_secs(999)), "of later than now");
        assert!(!challenges.knows(&challenge, &theirs, made_at));
        assert!(!Challenges::new().unwrap().knows(&challenge, &mine, made_at));
        let later = challenges.make(&mine, after(120));
        let (_, code) = challenge.split_at(2 * TIME);
        let forged = format!("{}{code}", &later[..2 * TIME]);
        for wrong in [forged.as_str(), "", "zz", &"0".repeat(DIGITS), &challenge[..DIGITS - 2]] {
            assert!(!challenges.knows(wrong, &mine, after(120)), "{wrong}");
        }
    }
}
