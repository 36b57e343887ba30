//! Serial numbers (requirement C1): the instance's prefix byte, the period, then 136 random bits; and the CRL shard they fix.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::encoding;
use crate::error::Error;
use crate::time::UnixTime;

/// Random octets of a serial number that this CA chooses.
pub const RANDOM_OCTETS: usize = 17;
/// Octets of such a serial number: the prefix, the period's two and the random ones.
const CHOSEN_OCTETS: u8 = 20;
/// RFC 5280 §4.1.2.2: no more than 20 octets.
pub const MAX_OCTETS: usize = 20;

/// First octet of every serial number of one CA instance: 1 to 127, so that the number is positive and its length fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstancePrefix(u8);

impl InstancePrefix {
    /// # Errors
    /// [`Error::Unsupported`] unless 1 ≤ `value` ≤ 127.
    pub fn new(value: u8) -> Result<Self, Error> {
        if (1..=127).contains(&value) {
            Ok(Self(value))
        } else {
            Err(Error::Unsupported("the instance prefix must be 1 to 127"))
        }
    }

    /// The octet.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

/// About a quarter of an hour, counted from 1970 and anew after 65,536 of them (two years).
///
/// What is made within one lies together where it is ordered by its first octets. Nothing else depends on it: what is the same two
/// years later lies there too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period([u8; 2]);

impl Period {
    /// The period of an instant: 1,024 seconds long.
    #[must_use]
    pub fn of(at: UnixTime) -> Self {
        let [.., high, low] = (at.0 >> 10).to_be_bytes();
        Self([high, low])
    }

    /// Its two octets.
    #[must_use]
    pub fn octets(self) -> [u8; 2] {
        self.0
    }
}

/// A positive certificate serial number of at most 20 octets, as its minimal big-endian magnitude.
///
/// It lies where it stands: lists have a million of them.
#[derive(Clone)]
pub struct SerialNumber {
    octets: [u8; MAX_OCTETS],
    /// How many of them count.
    length: u8,
}

impl PartialEq for SerialNumber {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for SerialNumber {}

impl core::hash::Hash for SerialNumber {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PartialOrd for SerialNumber {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SerialNumber {
    /// As of octet strings, which for numbers of one length is the order of the numbers. What does not count of the octets is zero, so all
    /// of them are compared at once, and the length tells apart what differs by zeros at its end.
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.octets.cmp(&other.octets).then(self.length.cmp(&other.length))
    }
}

impl SerialNumber {
    /// The serial number of a new certificate: `prefix`, `period` and 136 bits from a CSPRNG.
    #[must_use]
    pub fn from_random(prefix: InstancePrefix, period: Period, random: &[u8; RANDOM_OCTETS]) -> Self {
        let mut octets = [0; MAX_OCTETS];
        let chosen = core::iter::once(&prefix.0).chain(&period.0).chain(random);
        octets.iter_mut().zip(chosen).for_each(|(octet, chosen)| *octet = *chosen);
        Self { octets, length: CHOSEN_OCTETS }
    }

    /// A serial number from a magnitude, leading zeros dropped.
    ///
    /// # Errors
    /// [`Error::Malformed`] for zero, or more than 20 octets once encoded as a positive INTEGER.
    pub fn from_magnitude(magnitude: &[u8]) -> Result<Self, Error> {
        let skip = magnitude.iter().take_while(|octet| **octet == 0).count();
        let significant = magnitude.get(skip..).unwrap_or_default();
        let sign_octet = usize::from(significant.first().is_some_and(|first| *first >= 0x80));
        if significant.is_empty() || significant.len() + sign_octet > MAX_OCTETS {
            return Err(Error::Malformed { what: "serial number", detail: "not 1 to 20 octets".into() });
        }
        let mut octets = [0; MAX_OCTETS];
        octets.iter_mut().zip(significant).for_each(|(octet, found)| *octet = *found);
        // At most 20.
        Ok(Self { octets, length: u8::try_from(significant.len()).unwrap_or_default() })
    }

    /// Reads lower- or upper-case hexadecimal without separators, as [`fmt::Display`] writes it.
    ///
    /// # Errors
    /// [`Error::Malformed`] for other characters, zero, or a number that is too long.
    pub fn from_hex(text: &str) -> Result<Self, Error> {
        let malformed = || Error::Malformed { what: "serial number", detail: "not hexadecimal".into() };
        if text.is_empty() || text.len() > 2 * (MAX_OCTETS + 1) {
            return Err(malformed());
        }
        let mut octets = Vec::with_capacity(text.len().div_ceil(2));
        let mut pending = (text.len() % 2 == 1).then_some(0u8);
        for character in text.chars() {
            let nibble =
                character.to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or_else(malformed)?;
            pending = match pending {
                None => Some(nibble),
                Some(high) => {
                    octets.push(high << 4 | nibble);
                    None
                }
            };
        }
        Self::from_magnitude(&octets)
    }

    /// The minimal big-endian magnitude.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// INTEGER with tag and length.
    #[must_use]
    pub fn to_der(&self) -> Vec<u8> {
        encoding::unsigned(self.as_bytes())
    }

    /// The CRL shard: the number modulo `shards`, fixed at issuance and named in the certificate (ca-requirements §8).
    #[must_use]
    pub fn shard(&self, shards: ShardCount) -> Shard {
        let modulus = u64::from(shards.0);
        let remainder =
            self.as_bytes().iter().fold(0u64, |value, octet| (value << 8 | u64::from(*octet)) % modulus);
        // The remainder is below a u16.
        Shard(u16::try_from(remainder).unwrap_or(0))
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for octet in self.as_bytes() {
            write!(formatter, "{octet:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SerialNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SerialNumber({self})")
    }
}

impl From<&SerialNumber> for String {
    fn from(serial: &SerialNumber) -> Self {
        alloc::format!("{serial}")
    }
}

/// How many CRL shards an issuer has: 1 to 4096, never changed during an issuer's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardCount(u16);

impl ShardCount {
    /// One complete CRL without an issuing distribution point.
    pub const ONE: Self = Self(1);

    /// # Errors
    /// [`Error::Unsupported`] unless 1 ≤ `value` ≤ 4096.
    pub fn new(value: u16) -> Result<Self, Error> {
        if (1..=4096).contains(&value) {
            Ok(Self(value))
        } else {
            Err(Error::Unsupported("an issuer has 1 to 4096 CRL shards"))
        }
    }

    /// The number of shards.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}

/// Index of a CRL shard of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_ordered_as_their_octets_are() {
        let texts =
            ["01", "0100", "010000", "0101", "7f", "80", "ff", "7f000000000000000000000000000000000000ff"];
        let serials: Vec<_> = texts.iter().map(|text| SerialNumber::from_hex(text).unwrap()).collect();
        for one in &serials {
            for other in &serials {
                assert_eq!(one.cmp(other), one.as_bytes().cmp(other.as_bytes()), "{one} {other}");
                assert_eq!(one == other, one.cmp(other).is_eq(), "{one} {other}");
            }
        }
    }

    #[test]
    fn serials_are_positive_with_fixed_length_and_prefix() {
        let prefix = InstancePrefix::new(0x7f).unwrap();
        let period = Period::of(UnixTime(0));
        let serial = SerialNumber::from_random(prefix, period, &[0xff; RANDOM_OCTETS]);
        assert_eq!(serial.as_bytes().len(), MAX_OCTETS);
        assert_eq!(serial.to_der().get(..5), Some(&[2, 20, 0x7f, 0, 0][..]));
        assert!(InstancePrefix::new(0).is_err());
        assert!(InstancePrefix::new(128).is_err());
    }

    #[test]
    fn serials_of_one_period_lie_together_and_later_ones_after_them() {
        let prefix = InstancePrefix::new(1).unwrap();
        let at = |seconds: i64, random: u8| {
            SerialNumber::from_random(prefix, Period::of(UnixTime(seconds)), &[random; RANDOM_OCTETS])
        };
        assert!(at(1_800_000_000, 0xff) < at(1_800_001_024, 0));
        assert_eq!(at(1_024, 7), at(2_047, 7));
        assert_ne!(at(2_047, 7), at(2_048, 7));
        // The count begins anew, and a clock before 1970 is no other case.
        assert_eq!(at(5, 7), at(5 + (1 << 26), 7));
        assert_eq!(Period::of(UnixTime(-1)).octets(), [0xff, 0xff]);
    }

    #[test]
    fn hexadecimal_round_trips_and_odd_lengths_are_read() {
        let serial = SerialNumber::from_hex("0a0b0c").unwrap();
        assert_eq!(serial.as_bytes(), [0x0a, 0x0b, 0x0c]);
        assert_eq!(SerialNumber::from_hex("A0B0C").unwrap(), serial);
        assert_eq!(alloc::format!("{serial}"), "0a0b0c");
        for bad in ["", "0", "000", "xy", "0x12", "-1", "ffffffffffffffffffffffffffffffffffffffff"] {
            assert!(SerialNumber::from_hex(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shard_is_the_number_modulo_the_count() {
        let serial = SerialNumber::from_hex("0102030405060708090a0b0c0d0e0f1011").unwrap();
        let number = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10u128;
        for count in [1u16, 2, 7, 128, 4096] {
            let modulus = u128::from(count);
            let expected = ((number % modulus) * (256 % modulus) + 0x11) % modulus;
            let shard = serial.shard(ShardCount::new(count).unwrap());
            assert_eq!(u128::from(shard.0), expected);
        }
        assert!(ShardCount::new(0).is_err());
        assert!(ShardCount::new(4097).is_err());
    }
}
