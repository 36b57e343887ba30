//! The entries of a CRL (RFC 5280 §5.3) and the index that finds them.

use alloc::vec::Vec;

use crate::extension::read_extensions;
use crate::general_name::{GeneralName, GeneralNames};
use crate::name::CanonicalName;
use crate::oid;
use crate::time::UnixTime;
use crate::x690::{Element, Malformed, Reader, tag};

/// The most certificateIssuer extensions in one indirect list.
const MAX_ISSUERS: usize = 10_000;

/// Why a certificate was revoked (RFC 5280 §5.3.1).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum RevocationReason {
    /// No reason given (0).
    #[default]
    Unspecified,
    /// The certificate's key is or may be known to others (1).
    KeyCompromise,
    /// The issuer's key is (2).
    CaCompromise,
    /// The subject's data changed (3).
    AffiliationChanged,
    /// Replaced by another certificate (4).
    Superseded,
    /// No longer needed (5).
    CessationOfOperation,
    /// Suspended; the only reason that can be taken back (6).
    CertificateHold,
    /// In a delta only: no longer on hold, or expired (8).
    RemoveFromCrl,
    /// The subject lost a privilege (9).
    PrivilegeWithdrawn,
    /// The attribute authority's key is compromised (10).
    AaCompromise,
}

impl RevocationReason {
    /// The reason with this CRLReason code.
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::Unspecified,
            1 => Self::KeyCompromise,
            2 => Self::CaCompromise,
            3 => Self::AffiliationChanged,
            4 => Self::Superseded,
            5 => Self::CessationOfOperation,
            6 => Self::CertificateHold,
            8 => Self::RemoveFromCrl,
            9 => Self::PrivilegeWithdrawn,
            10 => Self::AaCompromise,
            _ => return None,
        })
    }

    /// Whether the certificate was given up in order, its key not being suspected.
    pub(crate) const fn is_retirement(self) -> bool {
        self.doubt() == 0
    }

    /// This reason, or `other` if that one casts more doubt on the key. A hold may end, so it says less than any other reason
    /// but a retirement.
    pub(crate) const fn or_graver(self, other: Self) -> Self {
        if other.doubt() > self.doubt() { other } else { self }
    }

    const fn doubt(self) -> u8 {
        match self {
            Self::AffiliationChanged | Self::Superseded | Self::CessationOfOperation => 0,
            Self::CertificateHold => 1,
            _ => 2,
        }
    }

    /// The CRLReason code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::CertificateHold => 6,
            Self::RemoveFromCrl => 8,
            Self::PrivilegeWithdrawn => 9,
            Self::AaCompromise => 10,
        }
    }

    /// The name of the reason in RFC 5280.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "cACompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::CertificateHold => "certificateHold",
            Self::RemoveFromCrl => "removeFromCRL",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
            Self::AaCompromise => "aACompromise",
        }
    }
}

/// What a list says about one certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CrlEntry {
    /// When the certificate was revoked.
    pub revocation_date: UnixTime,
    /// Why.
    pub reason: RevocationReason,
    /// Since when the key is suspected, if the list says so.
    pub invalidity_date: Option<UnixTime>,
}

impl CrlEntry {
    /// The earliest time from which signatures are not trusted: the invalidity date if it is before the
    /// revocation date, else that.
    pub fn effective_date(&self) -> UnixTime {
        self.invalidity_date.map_or(self.revocation_date, |date| date.min(self.revocation_date))
    }
}

/// Places of the entries, ordered by the last octets of their serial numbers.
#[derive(Default)]
pub(crate) struct EntryIndex {
    sorted: Vec<Place>,
    issuers: Vec<CanonicalName>,
}

#[derive(Clone, Copy)]
struct Place {
    /// The last eight octets of the serial number: random for every CA that follows C1, so nearly unique.
    key: u64,
    /// Offset of the entry in the list.
    offset: u32,
    /// One more than the index of the entry's issuer; 0 for the list's issuer.
    issuer: u32,
}

impl EntryIndex {
    pub(crate) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(crate) fn names_issuers(&self) -> bool {
        !self.issuers.is_empty()
    }

    /// The entry, and how many steps the look-up took: a hostile list can give many entries the same last octets.
    pub(crate) fn find(
        &self,
        whole: &[u8],
        serial: &[u8],
        issuer: &CanonicalName,
        list_issuer: &CanonicalName,
    ) -> (Option<CrlEntry>, usize) {
        let key = key_of(serial);
        let start = self.sorted.partition_point(|place| place.key < key);
        let candidates =
            self.sorted.get(start..).unwrap_or_default().iter().take_while(|place| place.key == key);
        let mut found: Option<CrlEntry> = None;
        let mut steps = 1;
        for place in candidates {
            steps += 1;
            let entry_issuer = match place.issuer.checked_sub(1) {
                None => list_issuer,
                Some(i) => match self.issuers.get(i as usize) {
                    Some(issuer) => issuer,
                    None => continue,
                },
            };
            if entry_issuer.length() == issuer.length() {
                steps += issuer.length() / 64;
            }
            if entry_issuer != issuer {
                continue;
            }
            let Some((entry_serial, entry, length)) = entry_at(whole, place.offset) else { continue };
            steps += 1 + length / 64;
            if entry_serial == serial
                && found.is_none_or(|earlier| entry.effective_date() < earlier.effective_date())
            {
                found = Some(entry);
            }
        }
        (found, steps)
    }

    pub(crate) fn iter<'a>(&'a self, whole: &'a [u8]) -> impl Iterator<Item = (&'a [u8], CrlEntry)> {
        let mut offsets: Vec<u32> = self.sorted.iter().map(|place| place.offset).collect();
        offsets.sort_unstable();
        offsets
            .into_iter()
            .filter_map(move |offset| entry_at(whole, offset).map(|(serial, entry, _)| (serial, entry)))
    }
}

fn key_of(serial: &[u8]) -> u64 {
    serial.iter().rev().take(8).enumerate().fold(0, |key, (i, octet)| key | u64::from(*octet) << (8 * i))
}

/// Serial number, entry, and the octets it takes.
fn entry_at(whole: &[u8], offset: u32) -> Option<(&[u8], CrlEntry, usize)> {
    let mut reader = Reader::from_offset(whole, offset as usize);
    let element = reader.expect(tag::SEQUENCE).ok()?;
    let (entry, _) = read_entry(element, whole).ok()?;
    Some((entry.serial, entry.value, element.der().len()))
}

struct RawEntry<'a> {
    serial: &'a [u8],
    value: CrlEntry,
    issuer: Option<CanonicalName>,
}

/// Reads `revokedCertificates`; the second value says why the list is unusable, if it is.
pub(crate) fn read_entries(
    revoked: Element<'_>,
    whole: &[u8],
) -> Result<(EntryIndex, Option<&'static str>), Malformed> {
    let mut list = revoked.reader();
    let mut index =
        EntryIndex { sorted: Vec::with_capacity(revoked.content().len() / 32), issuers: Vec::new() };
    let mut unusable = None;
    let mut current_issuer = 0;
    while !list.is_empty() {
        let element = list.expect(tag::SEQUENCE)?;
        let (entry, problem) = read_entry(element, whole)?;
        unusable = unusable.or(problem);
        if let Some(issuer) = entry.issuer {
            if index.issuers.len() >= MAX_ISSUERS {
                return Err(element.error("too many certificate issuers"));
            }
            index.issuers.push(issuer);
            current_issuer = u32::try_from(index.issuers.len()).unwrap_or(u32::MAX);
        }
        let offset = u32::try_from(element.span().start()).unwrap_or(u32::MAX);
        index.sorted.push(Place { key: key_of(entry.serial), offset, issuer: current_issuer });
    }
    if !index.sorted.is_sorted_by_key(|place| place.key) {
        index.sorted.sort_unstable_by_key(|place| place.key);
    }
    Ok((index, unusable))
}

fn read_entry<'a>(
    element: Element<'a>,
    whole: &'a [u8],
) -> Result<(RawEntry<'a>, Option<&'static str>), Malformed> {
    let mut fields = element.reader();
    let serial = fields.expect(tag::INTEGER)?.integer()?;
    let revocation_date = fields.read()?.time()?;
    let value = CrlEntry { revocation_date, reason: RevocationReason::Unspecified, invalidity_date: None };
    let mut entry = RawEntry { serial, value, issuer: None };
    let extensions = fields.optional(tag::SEQUENCE)?;
    fields.finish()?;
    let Some(extensions) = extensions else { return Ok((entry, None)) };
    let mut unusable = None;
    for extension in read_extensions(extensions, whole)? {
        let mut value = extension.reader(whole);
        let id = extension.id(whole);
        if id == oid::REASON_CODE.as_bytes() {
            let code = value.expect(tag::ENUMERATED)?;
            value.finish()?;
            entry.value.reason = RevocationReason::from_code(code.small_integer()?)
                .ok_or(code.error("unknown reason for a revocation"))?;
        } else if id == oid::INVALIDITY_DATE.as_bytes() {
            entry.value.invalidity_date = Some(value.expect(tag::GENERALIZED_TIME)?.time()?);
            value.finish()?;
        } else if id == oid::CERTIFICATE_ISSUER.as_bytes() {
            let names = GeneralNames::from_reader(value.sequence()?)?;
            value.finish()?;
            let directory = names.iter().find(|name| matches!(name, GeneralName::Directory(_)));
            let directory = directory.and_then(|name| name.directory());
            entry.issuer =
                Some(directory.ok_or(element.error("certificate issuer is not a distinguished name"))?);
        } else if extension.is_critical() {
            unusable = Some("a critical extension of a CRL entry is not recognised");
        }
    }
    Ok((entry, unusable))
}
