//! Why a signature may exist: a purpose and the id of the durable record behind it.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// What a key may sign. Fixed when the key is made and stored in authenticated metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Purpose {
    /// Records of an audit trail and their anchors.
    Audit,
    /// Certificates and precertificates.
    Certificate,
    /// Checkpoints and cosignatures of transparency logs.
    Checkpoint,
    /// Certificate revocation lists.
    Crl,
    /// OCSP responses.
    Ocsp,
    /// Receipts of an executor.
    Receipt,
    /// Certificate signing requests: proof of possession of the key itself.
    Request,
    /// Signed certificate timestamps.
    Sct,
    /// Statements about artifacts (DSSE envelopes) and log entries.
    Statement,
    /// RFC 3161 timestamp tokens.
    Timestamp,
    /// Access and enrolment tokens.
    Token,
    /// Metadata by which relying parties learn whom to trust.
    TrustMetadata,
}

impl Purpose {
    /// Every purpose, in declaration order.
    pub const ALL: [Self; 12] = [
        Self::Audit,
        Self::Certificate,
        Self::Checkpoint,
        Self::Crl,
        Self::Ocsp,
        Self::Receipt,
        Self::Request,
        Self::Sct,
        Self::Statement,
        Self::Timestamp,
        Self::Token,
        Self::TrustMetadata,
    ];

    /// The stable name used in key files and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Certificate => "certificate",
            Self::Checkpoint => "checkpoint",
            Self::Crl => "crl",
            Self::Ocsp => "ocsp",
            Self::Receipt => "receipt",
            Self::Request => "request",
            Self::Sct => "sct",
            Self::Statement => "statement",
            Self::Timestamp => "timestamp",
            Self::Token => "token",
            Self::TrustMetadata => "trust-metadata",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Purpose {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|p| p.as_str() == name).ok_or_else(|| Error::Invalid {
            what: "key purpose",
            reason: format!("{:?} is not a known purpose", name.chars().take(40).collect::<String>()),
        })
    }
}

/// The purposes one key has. Empty means: signs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PurposeSet(u16);

impl PurposeSet {
    /// The set that allows nothing.
    pub const NONE: Self = Self(0);

    /// The set of exactly these purposes.
    #[must_use]
    pub const fn of(purposes: &[Purpose]) -> Self {
        let mut bits = 0;
        let mut rest = purposes;
        while let [first, tail @ ..] = rest {
            bits |= first.bit();
            rest = tail;
        }
        Self(bits)
    }

    /// Whether `purpose` is in the set.
    #[must_use]
    pub const fn contains(self, purpose: Purpose) -> bool {
        self.0 & purpose.bit() != 0
    }

    /// Whether the set allows nothing.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The purposes, in the order of their names.
    pub fn iter(self) -> impl Iterator<Item = Purpose> {
        Purpose::ALL.into_iter().filter(move |p| self.contains(*p))
    }
}

impl FromIterator<Purpose> for PurposeSet {
    fn from_iter<I: IntoIterator<Item = Purpose>>(purposes: I) -> Self {
        Self(purposes.into_iter().fold(0, |bits, p| bits | p.bit()))
    }
}

impl<const N: usize> From<[Purpose; N]> for PurposeSet {
    fn from(purposes: [Purpose; N]) -> Self {
        Self::of(&purposes)
    }
}

impl From<Purpose> for PurposeSet {
    fn from(purpose: Purpose) -> Self {
        Self(purpose.bit())
    }
}

impl fmt::Display for PurposeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing");
        }
        for (position, purpose) in self.iter().enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            f.write_str(purpose.as_str())?;
        }
        Ok(())
    }
}

/// The id of the record that justifies a signature: 16 to 32 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IntentId {
    bytes: [u8; Self::MAX_LEN],
    len: u8,
}

impl IntentId {
    /// Shortest id, in bytes.
    pub const MIN_LEN: usize = 16;
    /// Longest id, in bytes.
    pub const MAX_LEN: usize = 32;

    /// Takes an id that a store allotted.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is shorter than 16 or longer than 32 bytes, or all zero (a field somebody forgot to
    /// fill).
    pub fn new(id: &[u8]) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::Invalid { what: "intent id", reason: reason.to_owned() };
        if id.len() < Self::MIN_LEN {
            return Err(invalid("shorter than 16 bytes"));
        }
        if id.iter().all(|b| *b == 0) {
            return Err(invalid("all zero"));
        }
        let mut bytes = [0; Self::MAX_LEN];
        bytes.get_mut(..id.len()).ok_or_else(|| invalid("longer than 32 bytes"))?.copy_from_slice(id);
        let len = u8::try_from(id.len()).map_err(|_| invalid("longer than 32 bytes"))?;
        Ok(Self { bytes, len })
    }

    /// A fresh random id of 16 bytes, for signatures whose record is the signed object itself.
    ///
    /// # Errors
    /// [`Error::Transient`] when the system's random source fails.
    pub fn random() -> Result<Self, Error> {
        let mut id = [0; Self::MIN_LEN];
        aws_lc_rs::rand::fill(&mut id)
            .map_err(|_| Error::Transient { detail: "the random source failed".to_owned() })?;
        Self::new(&id)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }
}

impl fmt::Display for IntentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for IntentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IntentId({self})")
    }
}

/// Why a signature may exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigningIntent {
    purpose: Purpose,
    id: IntentId,
}

impl SigningIntent {
    /// An intent for `purpose`, justified by the record `id`.
    #[must_use]
    pub const fn new(purpose: Purpose, id: IntentId) -> Self {
        Self { purpose, id }
    }

    /// An intent with a fresh random id.
    ///
    /// # Errors
    /// [`Error::Transient`] when the system's random source fails.
    pub fn fresh(purpose: Purpose) -> Result<Self, Error> {
        Ok(Self::new(purpose, IntentId::random()?))
    }

    /// What is to be signed.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The record behind it.
    #[must_use]
    pub const fn id(&self) -> &IntentId {
        &self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intent_ids_are_neither_short_nor_long_nor_zero() {
        assert!(IntentId::new(&[]).is_err());
        assert!(IntentId::new(&[1; 15]).is_err());
        assert!(IntentId::new(&[1; 33]).is_err());
        assert!(IntentId::new(&[0; 16]).is_err());
        assert_eq!(IntentId::new(&[7; 16]).unwrap().as_bytes(), [7; 16]);
        assert_eq!(IntentId::new(&[7; 32]).unwrap().as_bytes(), [7; 32]);
    }

    #[test]
    fn a_set_contains_what_it_was_made_of() {
        let set = PurposeSet::from([Purpose::Crl, Purpose::Certificate]);
        assert_eq!(set.to_string(), "certificate, crl");
        assert!(!set.contains(Purpose::Ocsp));
        assert!(PurposeSet::NONE.is_empty());
        for purpose in Purpose::ALL {
            assert_eq!(purpose.as_str().parse::<Purpose>().unwrap(), purpose);
            assert_eq!(PurposeSet::from(purpose).iter().collect::<Vec<_>>(), [purpose]);
        }
    }
}
