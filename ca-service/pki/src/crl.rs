//! Certificate revocation lists (RFC 5280 §5, requirements R2 to R5): complete, sharded, delta.

use alloc::string::String;
use alloc::vec::Vec;

use der::Encode;

use crate::certificate::Issuer;
use crate::error::Error;
use crate::serial::SerialNumber;
use crate::signed::ToBeSigned;
use crate::time::{self, UnixTime};
use crate::{encoding, extension};

/// Why a certificate was revoked (RFC 5280 §5.3.1), without `certificateHold`, which code signing forbids (R4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RevocationReason {
    /// No reason given; never encoded (R5).
    Unspecified,
    /// The subject's key was, or may have been, compromised.
    KeyCompromise,
    /// The CA's key was compromised.
    CaCompromise,
    /// The subject's affiliation changed.
    AffiliationChanged,
    /// A new certificate took its place.
    Superseded,
    /// The certificate is no longer needed.
    CessationOfOperation,
    /// The subject lost the right to it, for instance by signing suspect code.
    PrivilegeWithdrawn,
}

impl RevocationReason {
    const ALL: [Self; 7] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// The CRLReason value.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::PrivilegeWithdrawn => 9,
        }
    }

    /// The reason of a CRLReason value, `None` for those that are not used here.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// One revoked certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedEntry {
    /// Its serial number.
    pub serial: SerialNumber,
    /// From when on it must not be trusted; may lie before the request (R2).
    pub revoked_at: UnixTime,
    /// Why.
    pub reason: RevocationReason,
}

/// What a CRL covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrlScope {
    /// Everything the issuer issued; no issuing distribution point.
    Complete,
    /// The certificates that name this URL as their distribution point.
    Shard {
        /// Byte for byte the URL in the certificates.
        url: String,
    },
}

/// The fields of a CRL but its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlPlan {
    /// cRLNumber, allotted in the transaction that fixed the entries.
    pub number: u64,
    /// thisUpdate.
    pub this_update: UnixTime,
    /// nextUpdate.
    pub next_update: UnixTime,
    /// What it covers.
    pub scope: CrlScope,
    /// For a delta CRL, the number of the complete one it builds on.
    pub base: Option<u64>,
    /// Where a delta list of the same scope and number is, if there is one.
    pub freshest: Option<String>,
    /// expiredCertsOnCRL: entries of certificates that expired since then are kept (R4).
    pub expired_since: UnixTime,
}

/// Builds the to-be-signed bytes of a CRL. The order of the entries is the caller's.
///
/// # Errors
/// [`Error::Unsupported`] when nextUpdate is not after thisUpdate or a delta's base is not below its number,
/// [`Error::UnrepresentableTime`], [`Error::Malformed`].
pub fn build<'a>(
    issuer: &Issuer,
    plan: &CrlPlan,
    entries: impl Iterator<Item = &'a RevokedEntry> + Clone,
) -> Result<ToBeSigned, Error> {
    if plan.next_update <= plan.this_update {
        return Err(Error::Unsupported("a CRL whose next update is not after this update"));
    }
    if plan.base.is_some() && plan.freshest.is_some() {
        return Err(Error::Unsupported("a delta CRL that names a delta CRL"));
    }
    if plan.base.is_some_and(|base| base >= plan.number) {
        return Err(Error::Unsupported("a delta CRL whose base is not older"));
    }
    // DER says how long everything is before it begins. So the entries are measured, and then written once, where they stay: a list
    // has a million of them.
    let revoked: usize = entries.clone().map(|entry| 2 + content_length(entry)).sum();
    let version = [encoding::INTEGER, 1, 1];
    let algorithm = issuer.algorithm.identifier();
    let this_update = time::choice(plan.this_update)?;
    let next_update = time::choice(plan.next_update)?;
    // R5: the list is absent, never empty.
    let mut list_header = Vec::new();
    if revoked > 0 {
        encoding::header(encoding::SEQUENCE, revoked, &mut list_header);
    }
    let extensions = extensions(issuer, plan)?;
    let before: [&[u8]; 6] =
        [&version, &algorithm, issuer.name.as_der(), &this_update, &next_update, &list_header];
    let around = before.iter().map(|part| part.len()).sum::<usize>() + extensions.len();
    let mut der = Vec::with_capacity(around + revoked + 6);
    encoding::header(encoding::SEQUENCE, around + revoked, &mut der);
    for part in before {
        der.extend_from_slice(part);
    }
    let (begin, mut dates) = (der.len(), Dates::default());
    for entry in entries {
        encode_entry(entry, &mut dates, &mut der)?;
    }
    if der.len() - begin != revoked {
        return Err(Error::Malformed {
            what: "CRL",
            detail: "its entries are not as long as measured".into(),
        });
    }
    der.extend_from_slice(&extensions);
    Ok(ToBeSigned::new(der, issuer.algorithm))
}

fn extensions(issuer: &Issuer, plan: &CrlPlan) -> Result<Vec<u8>, Error> {
    let mut list = Vec::with_capacity(6);
    list.push(extension::authority_key_identifier(&issuer.key_identifier)?);
    list.push(extension::crl_number(plan.number)?);
    if let Some(base) = plan.base {
        list.push(extension::delta_crl_indicator(base)?);
    }
    if let CrlScope::Shard { url } = &plan.scope {
        list.push(extension::issuing_distribution_point(url)?);
    }
    if let Some(url) = &plan.freshest {
        list.push(extension::freshest_crl(url)?);
    }
    list.push(extension::expired_certs_on_crl(plan.expired_since)?);
    let list = list.to_der().map_err(Error::malformed("CRL extensions"))?;
    Ok(encoding::tlv(encoding::context_constructed(0), &[&list]))
}

/// Extensions of an entry: reasonCode alone, not critical; the last octet is the reason.
pub(crate) const REASON_EXTENSION: [u8; 13] =
    [0x30, 0x0c, 0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x15, 0x04, 0x03, 0x0a, 0x01];

/// The last date and its encoding: what was revoked together follows each other.
#[derive(Default)]
struct Dates(Option<(UnixTime, Vec<u8>)>);

impl Dates {
    fn encoded(&mut self, at: UnixTime) -> Result<&[u8], Error> {
        let encoded = match self.0.take() {
            Some((last, encoded)) if last == at => encoded,
            _ => time::choice(at)?,
        };
        Ok(&self.0.insert((at, encoded)).1)
    }
}

/// What stands before a magnitude that begins with a set bit, so that it is positive.
fn sign(serial: &[u8]) -> &'static [u8] {
    if serial.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] }
}

/// How many octets an entry has after its own tag and length, which are two: there are some fifty.
fn content_length(entry: &RevokedEntry) -> usize {
    let serial = entry.serial.as_bytes();
    let reason = if entry.reason == RevocationReason::Unspecified { 0 } else { REASON_EXTENSION.len() + 1 };
    2 + sign(serial).len() + serial.len() + time::choice_length(entry.revoked_at) + reason
}

fn encode_entry(entry: &RevokedEntry, dates: &mut Dates, out: &mut Vec<u8>) -> Result<(), Error> {
    let serial = entry.serial.as_bytes();
    let sign = sign(serial);
    encoding::header(encoding::SEQUENCE, content_length(entry), out);
    // At most 20 octets, so one octet of length.
    encoding::header(encoding::INTEGER, sign.len() + serial.len(), out);
    out.extend_from_slice(sign);
    out.extend_from_slice(serial);
    out.extend_from_slice(dates.encoded(entry.revoked_at)?);
    if entry.reason != RevocationReason::Unspecified {
        out.extend_from_slice(&REASON_EXTENSION);
        out.push(entry.reason.code());
    }
    Ok(())
}
