//! Splitting a passphrase among custodians (Shamir's scheme over GF(2⁸)): any `threshold` of them restore it, fewer know nothing
//! about it but its length.
//!
//! A share is one line of text: `mentat-share-1:SPLIT:THRESHOLD:INDEX:DATA:CHECK`. SPLIT (16 hex digits) is the same for all shares
//! of one splitting and for no other; DATA is base64url; CHECK (8 hex digits) is the beginning of the SHA-256 of what stands before
//! it, against slips of the pen. The split secret carries a checksum of its own, so that a wrong restoration is an error and never
//! another passphrase.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::passphrase::{self, Passphrase};
use crate::public_key::hex;

/// Most shares of one splitting.
pub const MAX_SHARES: u8 = 32;
/// Octets of checksum inside the split secret.
const CHECK: usize = 8;
/// Longest text of a share that is parsed.
const MAX_TEXT: usize = 2048;

/// One custodian's part. Wiped when dropped; shown by [`Share::to_text`] only.
pub struct Share {
    split: [u8; 8],
    threshold: u8,
    /// Where the polynomials were evaluated: 1 to 255.
    index: u8,
    data: Zeroizing<Vec<u8>>,
}

fn invalid(reason: &str) -> Error {
    Error::Invalid { what: "share", reason: reason.to_owned() }
}

fn sha256(parts: &[&[u8]]) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish()
}

/// Splits a passphrase into `count` shares of which `threshold` restore it.
///
/// # Errors
/// [`Error::Invalid`] unless 2 ≤ `threshold` ≤ `count` ≤ [`MAX_SHARES`], [`Error::Transient`] when the system's random source
/// fails.
pub fn split(secret: &Passphrase, threshold: u8, count: u8) -> Result<Vec<Share>, Error> {
    if threshold < 2 || count < threshold || count > MAX_SHARES {
        return Err(invalid("choose a threshold of at least 2, and at least as many shares, 32 at most"));
    }
    let split: [u8; 8] = crate::software::random()?;
    let mut payload = Zeroizing::new(secret.expose().to_vec());
    let checksum = sha256(&[b"mentat split 1\n", secret.expose()]);
    payload.extend_from_slice(checksum.as_ref().get(..CHECK).unwrap_or_default());
    // For each octet a polynomial whose value at 0 is the octet and whose other coefficients are random.
    let mut coefficients = Zeroizing::new(vec![0; payload.len() * usize::from(threshold - 1)]);
    aws_lc_rs::rand::fill(&mut coefficients)
        .map_err(|_| Error::Transient { detail: "the random source failed".to_owned() })?;
    let shares = (1..=count).map(|index| {
        let others = coefficients.chunks_exact(usize::from(threshold - 1));
        let data = payload.iter().zip(others).map(|(octet, others)| {
            // Horner's rule, from the highest coefficient down.
            others.iter().fold(0, |value, coefficient| multiply(value ^ coefficient, index)) ^ octet
        });
        Share { split, threshold, index, data: Zeroizing::new(data.collect()) }
    });
    Ok(shares.collect())
}

/// Restores the passphrase from at least as many different shares as its threshold says.
///
/// # Errors
/// [`Error::Invalid`] when there are too few, when they are of different splittings, or when what they give is not what was split.
pub fn combine(shares: &[Share]) -> Result<Passphrase, Error> {
    let first = shares.first().ok_or_else(|| invalid("there is none"))?;
    let same = |share: &Share| {
        share.split == first.split
            && share.threshold == first.threshold
            && share.data.len() == first.data.len()
    };
    if !shares.iter().all(same) {
        return Err(invalid("they are of different splittings"));
    }
    let mut points: Vec<&Share> = Vec::new();
    for share in shares {
        match points.iter().find(|known| known.index == share.index) {
            None => points.push(share),
            Some(known) if known.data == share.data => {}
            Some(_) => return Err(invalid("two of one number differ")),
        }
    }
    points.truncate(usize::from(first.threshold));
    if points.len() < usize::from(first.threshold) {
        let (have, need) = (points.len(), first.threshold);
        return Err(invalid(&format!("{need} different ones are needed, {have} are here")));
    }
    let mut payload = Zeroizing::new(vec![0; first.data.len()]);
    for share in &points {
        // Lagrange's basis polynomial of this share at 0; subtraction is addition here.
        let weight = points.iter().filter(|other| other.index != share.index).fold(1, |weight, other| {
            multiply(weight, multiply(other.index, inverse(other.index ^ share.index)))
        });
        for (octet, part) in payload.iter_mut().zip(share.data.iter()) {
            *octet ^= multiply(*part, weight);
        }
    }
    let wrong = || invalid("together they do not give what was split");
    let (secret, checksum) =
        payload.len().checked_sub(CHECK).and_then(|at| payload.split_at_checked(at)).ok_or_else(wrong)?;
    if sha256(&[b"mentat split 1\n", secret]).as_ref().get(..CHECK) != Some(checksum) {
        return Err(wrong());
    }
    Passphrase::new(secret.to_vec())
}

/// Multiplication in GF(2⁸) modulo x⁸ + x⁴ + x³ + x + 1, in a time that does not depend on the factors.
fn multiply(mut one: u8, other: u8) -> u8 {
    let mut product = 0;
    for bit in 0..8 {
        product ^= one & 0_u8.wrapping_sub((other >> bit) & 1);
        one = (one << 1) ^ (0x1b & 0_u8.wrapping_sub(one >> 7));
    }
    product
}

/// x²⁵⁴, the inverse of x.
fn inverse(x: u8) -> u8 {
    // 254 has every bit but the lowest.
    let (_, result) = (0..7).fold((x, 1), |(power, result), _| {
        let square = multiply(power, power);
        (square, multiply(result, square))
    });
    result
}

impl Share {
    /// Its number among the shares of the splitting, from 1.
    #[must_use]
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// How many shares restore the passphrase.
    #[must_use]
    pub const fn threshold(&self) -> u8 {
        self.threshold
    }

    /// The line that a custodian keeps. As secret as what was split, once enough of them meet.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text =
            Zeroizing::new(format!("mentat-share-1:{}:{}:{}:", hex(&self.split), self.threshold, self.index));
        URL_SAFE_NO_PAD.encode_string(self.data.as_slice(), &mut text);
        let check = sha256(&[text.as_bytes()]);
        text.push(':');
        text.push_str(&hex(check.as_ref().get(..4).unwrap_or_default()));
        text
    }
}

impl FromStr for Share {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(invalid("it is longer than 2048 bytes"));
        }
        let (body, check) =
            text.rsplit_once(':').ok_or_else(|| invalid("it is not a line mentat-share-1:…"))?;
        if hex(sha256(&[body.as_bytes()]).as_ref().get(..4).unwrap_or_default()) != check {
            return Err(invalid("its check digits do not fit; compare it with the original"));
        }
        let fields: Vec<&str> = body.split(':').collect();
        let ["mentat-share-1", split, threshold, index, data] = fields[..] else {
            return Err(invalid("it is not a line mentat-share-1:…"));
        };
        let mut id = [0; 8];
        let digits =
            u64::from_str_radix(split, 16).map_err(|_| invalid("its splitting is not hexadecimal"))?;
        id.copy_from_slice(&digits.to_be_bytes());
        let number = |text: &str| text.parse::<u8>().ok().filter(|number| (1..=MAX_SHARES).contains(number));
        let data = URL_SAFE_NO_PAD
            .decode(data)
            .map(Zeroizing::new)
            .map_err(|_| invalid("its data is not base64url"))?;
        if data.len() <= CHECK || data.len() > passphrase::MAX_LEN + CHECK {
            return Err(invalid("its data has an impossible length"));
        }
        Ok(Self {
            split: id,
            threshold: number(threshold)
                .filter(|it| *it >= 2)
                .ok_or_else(|| invalid("its threshold is not 2 to 32"))?,
            index: number(index).ok_or_else(|| invalid("its number is not 1 to 32"))?,
            data,
        })
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share {} of splitting {} (redacted)", self.index, hex(&self.split))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROZEN: [&str; 2] = [
        "mentat-share-1:00112233445566ff:2:1:bUI6APqqyX1WOw_Hs4ljsAI0IZPQ:90756801",
        "mentat-share-1:00112233445566ff:2:2:cBLFjkD96W8D04g64aZQ6u-v1db6:fddd4bb0",
    ];

    fn secret() -> Passphrase {
        Passphrase::new(b"correct horse battery staple".to_vec()).unwrap()
    }

    fn reread(share: &Share) -> Share {
        share.to_text().parse().unwrap()
    }

    #[test]
    fn arithmetic_is_that_of_the_field() {
        // The example of FIPS 197 §4.2.
        assert_eq!(multiply(0x57, 0x83), 0xc1);
        for x in 1..=255 {
            assert_eq!(multiply(x, inverse(x)), 1, "{x}");
        }
    }

    #[test]
    fn every_choice_of_enough_shares_restores_and_fewer_do_not() {
        let shares = split(&secret(), 3, 5).unwrap();
        for skip in 0..5 {
            for also in (0..5).filter(|also| *also != skip) {
                let chosen: Vec<Share> =
                    (0..5).filter(|n| ![skip, also].contains(n)).map(|n| reread(&shares[n])).collect();
                assert_eq!(combine(&chosen).unwrap().expose(), secret().expose());
            }
        }
        let two = [reread(&shares[0]), reread(&shares[4])];
        assert!(combine(&two).unwrap_err().to_string().contains("3 different ones are needed"));
        let twice = [reread(&shares[0]), reread(&shares[0]), reread(&shares[1])];
        assert!(combine(&twice).is_err(), "one share counts once");
        assert!(combine(&[]).is_err());
    }

    #[test]
    fn shares_of_other_splittings_and_altered_ones_are_refused() {
        let (one, other) = (split(&secret(), 2, 2).unwrap(), split(&secret(), 2, 2).unwrap());
        let mixed = [reread(&one[0]), reread(&other[1])];
        assert!(combine(&mixed).unwrap_err().to_string().contains("different splittings"));
        let mut altered = [reread(&one[0]), reread(&one[1])];
        altered[1].data[3] ^= 1;
        assert!(combine(&altered).unwrap_err().to_string().contains("do not give what was split"));
        let text = one[0].to_text();
        assert!(text.replacen(":2:1:", ":2:2:", 1).parse::<Share>().is_err());
        for wrong in ["", "mentat-share-1", "a:b:c:d:e:f", &"x".repeat(3000)] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_threshold_of_one_or_above_the_count_is_refused() {
        for (threshold, count) in [(0, 3), (1, 3), (4, 3), (2, 33)] {
            assert!(split(&secret(), threshold, count).is_err(), "{threshold} of {count}");
        }
    }

    #[test]
    fn written_shares_are_read_for_ever() {
        let [one, two] = FROZEN.map(|text| text.parse::<Share>().unwrap());
        assert_eq!(combine(&[one, two]).unwrap().expose(), b"frozen secret");
    }
}
