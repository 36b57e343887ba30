//! Certificate revocation lists (RFC 5280 §5), version 2: full, partitioned, delta and indirect.
//!
//! Parsing reads every entry once and builds an index, so a look-up costs O(log n). A [`Crl`] that was
//! [authenticated](Crl::authenticate) remembers the key that verified, so a big list is verified once, on load.
//! Which certificates a list may speak about is decided in [`crate::revocation`].

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use tlog::signature::SignatureVerifier;

use crate::algorithm::SignatureAlgorithm;
use crate::budget::Budget;
use crate::certificate::Certificate;
use crate::crl_entry::{EntryIndex, read_entries};
use crate::extension::{
    AuthorityKeyIdentifier, DistributionPointName, DistributionPoints, Extension, ReasonFlags,
    read_extensions,
};
use crate::name::CanonicalName;
use crate::oid;
use crate::pem;
use crate::reason::{Denial, ReasonCode};
use crate::time::UnixTime;
use crate::x690::{Malformed, Reader, Span, tag};

pub use crate::crl_entry::{CrlEntry, RevocationReason};

/// The largest list that is read, in octets: about 270,000 entries with 20-octet serial numbers.
pub const MAX_LENGTH: usize = 10 * 1024 * 1024;

/// The most content octets of a CRL number (RFC 5280 §5.2.3).
const MAX_NUMBER_LENGTH: usize = 20;

/// A parsed list. Cloning is a reference count.
#[derive(Clone)]
pub struct Crl {
    parts: Arc<Parts>,
    /// The SubjectPublicKeyInfo of the key that verified the signature.
    verified_with: Option<Arc<[u8]>>,
}

struct Parts {
    der: Box<[u8]>,
    tbs: Span,
    signature_algorithm: SignatureAlgorithm,
    signature: Span,
    issuer: Span,
    issuer_name: CanonicalName,
    this_update: UnixTime,
    next_update: Option<UnixTime>,
    entries: EntryIndex,
    extensions: Vec<Extension>,
    number: Option<CrlNumber>,
    base_number: Option<CrlNumber>,
    distribution_point: Option<IssuingDistributionPoint>,
    expired_certificates_from: Option<UnixTime>,
    unusable: Option<&'static str>,
}

/// A CRL number: a non-negative integer of at most 20 octets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CrlNumber(Box<[u8]>);

impl CrlNumber {
    fn read(mut value: Reader<'_>) -> Result<Self, Malformed> {
        let element = value.expect(tag::INTEGER)?;
        value.finish()?;
        let octets = element.integer()?;
        if octets.len() > MAX_NUMBER_LENGTH || octets.first().is_some_and(|b| *b >= 0x80) {
            return Err(element.error("CRL number is negative or too long"));
        }
        Ok(Self(octets.strip_prefix(&[0]).unwrap_or(octets).into()))
    }

    /// Big-endian octets without leading zeros; empty for zero.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl Ord for CrlNumber {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for CrlNumber {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The kind of certificates a list is limited to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CertificateScope {
    /// All certificates.
    #[default]
    All,
    /// onlyContainsUserCerts
    EndEntity,
    /// onlyContainsCACerts
    Ca,
    /// onlyContainsAttributeCerts: none that this crate reads.
    Attribute,
}

/// Whether a list may hold certificates of other issuers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Indirection {
    /// Only those of the list's issuer.
    #[default]
    Direct,
    /// indirectCRL: entries name their issuer.
    Indirect,
}

/// issuingDistributionPoint (RFC 5280 §5.2.5).
#[derive(Clone, Debug)]
struct IssuingDistributionPoint {
    value: Span,
    name: Option<Span>,
    scope: CertificateScope,
    reasons: Option<ReasonFlags>,
    indirection: Indirection,
}

impl Crl {
    /// Reads one DER list with nothing after it.
    ///
    /// # Errors
    /// `too_large` above [`MAX_LENGTH`], `unsupported` for a version other than 2, `malformed` otherwise.
    pub fn from_der(der: &[u8]) -> Result<Self, Denial> {
        if der.len() > MAX_LENGTH {
            return Err(Denial::new(ReasonCode::TooLarge, "CRL is larger than 10 MiB"));
        }
        parse(der).map(|parts| Self { parts: Arc::new(parts), verified_with: None }).map_err(|error| {
            match error.what {
                NOT_VERSION_2 => Denial::new(ReasonCode::Unsupported, NOT_VERSION_2),
                _ => error.denial("CRL"),
            }
        })
    }

    /// Reads the first list of a PEM text.
    ///
    /// # Errors
    /// Those of [`pem::decode`] and [`Crl::from_der`]; `malformed` if there is none.
    pub fn from_pem(text: &str) -> Result<Self, Denial> {
        let blocks = pem::decode(text, pem::CRL, 64)?;
        let first = blocks.first().ok_or(Denial::new(ReasonCode::Malformed, "no CRL in the PEM text"))?;
        Self::from_der(first)
    }

    /// The whole list in DER.
    pub fn der(&self) -> &[u8] {
        &self.parts.der
    }

    /// The DER of the signed part, `tbsCertList`.
    pub fn tbs(&self) -> &[u8] {
        self.parts.tbs.of(self.der())
    }

    /// The algorithm the list was signed with.
    pub fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.parts.signature_algorithm
    }

    /// The signature.
    pub fn signature(&self) -> &[u8] {
        self.parts.signature.of(self.der())
    }

    /// The DER of the issuer's `Name`.
    pub fn issuer_der(&self) -> &[u8] {
        self.parts.issuer.of(self.der())
    }

    /// The issuer's name in the form to compare.
    pub fn issuer_name(&self) -> &CanonicalName {
        &self.parts.issuer_name
    }

    /// When the list was issued.
    pub fn this_update(&self) -> UnixTime {
        self.parts.this_update
    }

    /// When the next one is issued at the latest; a list without it is never fresh.
    pub fn next_update(&self) -> Option<UnixTime> {
        self.parts.next_update
    }

    /// How many entries the list has.
    pub fn len(&self) -> usize {
        self.parts.entries.len()
    }

    /// True if the list has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// cRLNumber
    pub fn number(&self) -> Option<&CrlNumber> {
        self.parts.number.as_ref()
    }

    /// The base that a delta list applies to; `None` for a complete list.
    pub fn base_number(&self) -> Option<&CrlNumber> {
        self.parts.base_number.as_ref()
    }

    /// The distribution point this list is a part for, if it names one.
    pub fn distribution_point_name(&self) -> Option<DistributionPointName<'_>> {
        let mut wrapper = Reader::within(self.der(), self.parts.distribution_point.as_ref()?.name?);
        DistributionPointName::read(wrapper.read().ok()?).ok()
    }

    /// The DER value of the issuing distribution point extension.
    pub fn distribution_point_der(&self) -> Option<&[u8]> {
        self.parts.distribution_point.as_ref().map(|point| point.value.of(self.der()))
    }

    /// The kind of certificates the list is limited to.
    pub fn scope(&self) -> CertificateScope {
        self.parts.distribution_point.as_ref().map(|point| point.scope).unwrap_or_default()
    }

    /// The reasons the list is limited to; `None` if it covers all.
    pub fn reasons(&self) -> Option<ReasonFlags> {
        self.parts.distribution_point.as_ref()?.reasons
    }

    /// Whether entries may belong to other issuers.
    pub fn indirection(&self) -> Indirection {
        self.parts.distribution_point.as_ref().map(|point| point.indirection).unwrap_or_default()
    }

    /// expiredCertsOnCRL: entries of certificates that expired at or after this time are kept.
    pub fn expired_certificates_from(&self) -> Option<UnixTime> {
        self.parts.expired_certificates_from
    }

    /// The authority key identifier.
    pub fn authority_key_identifier(&self) -> Option<AuthorityKeyIdentifier<'_>> {
        AuthorityKeyIdentifier::read(self.value(&oid::AUTHORITY_KEY_IDENTIFIER)?).ok()
    }

    /// The DER value of the authority key identifier, for the comparison of a delta with its base.
    pub(crate) fn authority_key_identifier_der(&self) -> Option<&[u8]> {
        let found = self.find(&oid::AUTHORITY_KEY_IDENTIFIER)?;
        Some(found.value(self.der()))
    }

    /// Where deltas of this list are found (freshestCRL).
    pub fn freshest_crl(&self) -> Option<DistributionPoints<'_>> {
        DistributionPoints::parsed_before(self.value(&oid::FRESHEST_CRL)?)
    }

    /// Every extension in order.
    pub fn extensions(&self) -> impl Iterator<Item = Extension> + '_ {
        self.parts.extensions.iter().copied()
    }

    /// Why the list must not be used although it is well formed: a critical extension of it or of an entry is not
    /// recognised (RFC 5280 §5.2, §5.3).
    pub fn unusable(&self) -> Option<&'static str> {
        self.parts.unusable
    }

    /// The entry of the certificate with this serial number (INTEGER content octets) and issuer. If the list has
    /// several, the one that was revoked first.
    pub fn entry(&self, serial: &[u8], issuer: &CanonicalName) -> Option<CrlEntry> {
        self.parts.entries.find(self.der(), serial, issuer, self.issuer_name()).0
    }

    /// As [`Crl::entry`], with the look-up charged.
    pub(crate) fn entry_within(
        &self,
        serial: &[u8],
        issuer: &CanonicalName,
        budget: &mut Budget,
    ) -> Result<Option<CrlEntry>, Denial> {
        let (entry, steps) = self.parts.entries.find(self.der(), serial, issuer, self.issuer_name());
        budget.spend_steps(steps)?;
        Ok(entry)
    }

    /// The serial number (INTEGER content octets) and entry of every certificate in the list, in order.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], CrlEntry)> {
        self.parts.entries.iter(self.der())
    }

    /// True if the list was issued at or before `now` and the next one is not due yet.
    pub fn is_current(&self, now: UnixTime) -> bool {
        self.this_update() <= now && self.next_update().is_some_and(|next| now <= next)
    }

    /// Verifies the signature with the key of `signer`. Whether `signer` may sign the list is another question.
    ///
    /// # Errors
    /// `algorithm_not_allowed` if the algorithm is not supported or not one of the key, `signature_invalid`
    /// otherwise.
    pub fn verify_signature(
        &self,
        signer: &Certificate,
        verifier: &dyn SignatureVerifier,
    ) -> Result<(), Denial> {
        if self.was_verified_with(signer) {
            return Ok(());
        }
        let algorithm = self.signature_algorithm().with_key(signer.key_algorithm()).ok_or(Denial::new(
            ReasonCode::AlgorithmNotAllowed,
            "the CRL's signature algorithm is not supported or not one of its signer's key",
        ))?;
        verifier.verify(algorithm, signer.public_key(), self.tbs(), self.signature()).map_err(|_| {
            Denial::new(
                ReasonCode::SignatureInvalid,
                "the CRL's signature does not verify with its issuer's key",
            )
        })
    }

    /// The same list, remembering that the key of `signer` verified it: later checks with that key cost nothing.
    ///
    /// # Errors
    /// As [`Crl::verify_signature`].
    pub fn authenticate(
        mut self,
        signer: &Certificate,
        verifier: &dyn SignatureVerifier,
    ) -> Result<Self, Denial> {
        self.verify_signature(signer, verifier)?;
        self.verified_with = Some(signer.spki_der().into());
        Ok(self)
    }

    /// True if [`Crl::authenticate`] verified this list with the key of `signer`.
    pub fn was_verified_with(&self, signer: &Certificate) -> bool {
        self.verified_with.as_deref() == Some(signer.spki_der())
    }

    fn find(&self, id: &const_oid::ObjectIdentifier) -> Option<&Extension> {
        self.parts.extensions.iter().find(|extension| extension.id(self.der()) == id.as_bytes())
    }

    fn value(&self, id: &const_oid::ObjectIdentifier) -> Option<Reader<'_>> {
        self.find(id).map(|extension| extension.reader(self.der()))
    }
}

impl PartialEq for Crl {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts) || self.der() == other.der()
    }
}

impl Eq for Crl {}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crl({} entries, this update {})", self.len(), self.this_update())
    }
}

const NOT_VERSION_2: &str = "CRL is not version 2";

fn parse(input: &[u8]) -> Result<Parts, Malformed> {
    let mut outer = Reader::only(input, tag::SEQUENCE)?.reader();
    let tbs = outer.expect(tag::SEQUENCE)?;
    let outer_algorithm = outer.expect(tag::SEQUENCE)?;
    let signature = outer.expect(tag::BIT_STRING)?.octet_bit_string()?;
    outer.finish()?;

    let mut fields = tbs.reader();
    let version = fields.optional(tag::INTEGER)?.ok_or(fields.error(NOT_VERSION_2))?;
    if version.small_integer() != Ok(1) {
        return Err(version.error(NOT_VERSION_2));
    }
    let algorithm = fields.expect(tag::SEQUENCE)?;
    if algorithm.der() != outer_algorithm.der() {
        return Err(algorithm.error("inner and outer signature algorithm differ"));
    }
    let issuer = fields.expect(tag::SEQUENCE)?;
    let this_update = fields.read()?.time()?;
    let next_update = match fields.peek() {
        Some(tag::UTC_TIME | tag::GENERALIZED_TIME) => Some(fields.read()?.time()?),
        _ => None,
    };
    let revoked = fields.optional(tag::SEQUENCE)?;
    let mut extensions = Vec::new();
    if let Some(wrapper) = fields.optional(tag::constructed(0))? {
        let mut inner = wrapper.reader();
        extensions = read_extensions(inner.expect(tag::SEQUENCE)?, input)?;
        inner.finish()?;
    }
    fields.finish()?;

    let mut parts = Parts {
        der: Box::default(),
        tbs: tbs.span(),
        signature_algorithm: SignatureAlgorithm::from_element(algorithm)?,
        signature,
        issuer: issuer.span(),
        issuer_name: CanonicalName::from_element(issuer)?,
        this_update,
        next_update,
        entries: EntryIndex::default(),
        extensions,
        number: None,
        base_number: None,
        distribution_point: None,
        expired_certificates_from: None,
        unusable: None,
    };
    read_list_extensions(&mut parts, input)?;
    if let Some(revoked) = revoked {
        let indirect =
            parts.distribution_point.as_ref().is_some_and(|p| p.indirection == Indirection::Indirect);
        let (entries, unusable) = read_entries(revoked, input)?;
        parts.unusable = parts.unusable.or(unusable);
        if !indirect && entries.names_issuers() {
            parts.unusable = Some("a direct CRL has entries of other issuers");
        }
        parts.entries = entries;
    }
    parts.der = input.into();
    Ok(parts)
}

fn read_list_extensions(parts: &mut Parts, input: &[u8]) -> Result<(), Malformed> {
    for extension in &parts.extensions {
        let mut value = extension.reader(input);
        let id = extension.id(input);
        let is = |known: &const_oid::ObjectIdentifier| known.as_bytes() == id;
        if is(&oid::CRL_NUMBER) {
            parts.number = Some(CrlNumber::read(value)?);
        } else if is(&oid::DELTA_CRL_INDICATOR) {
            parts.base_number = Some(CrlNumber::read(value)?);
        } else if is(&oid::ISSUING_DISTRIBUTION_POINT) {
            let point = read_distribution_point(value, extension.value_span())?;
            parts.distribution_point = Some(point);
        } else if is(&oid::AUTHORITY_KEY_IDENTIFIER) {
            AuthorityKeyIdentifier::read(value)?;
        } else if is(&oid::EXPIRED_CERTS_ON_CRL) {
            parts.expired_certificates_from = Some(value.expect(tag::GENERALIZED_TIME)?.time()?);
            value.finish()?;
        } else if is(&oid::FRESHEST_CRL) {
            DistributionPoints::read(value)?;
        } else if extension.is_critical() {
            parts.unusable = Some("a critical extension of the CRL is not recognised");
        }
    }
    Ok(())
}

fn read_distribution_point(
    mut value: Reader<'_>,
    whole: Span,
) -> Result<IssuingDistributionPoint, Malformed> {
    let element = value.expect(tag::SEQUENCE)?;
    value.finish()?;
    let mut fields = element.reader();
    let name = fields.optional(tag::constructed(0))?;
    if let Some(name) = name {
        DistributionPointName::read(name)?;
    }
    let mut flag = |number: u8| -> Result<bool, Malformed> {
        fields.optional(tag::primitive(number))?.map_or(Ok(false), |flag| flag.boolean())
    };
    let (user, ca) = (flag(1)?, flag(2)?);
    let reasons = fields.optional(tag::primitive(3))?.map(ReasonFlags::read).transpose()?;
    let mut flag = |number: u8| -> Result<bool, Malformed> {
        fields.optional(tag::primitive(number))?.map_or(Ok(false), |flag| flag.boolean())
    };
    let (indirect, attribute) = (flag(4)?, flag(5)?);
    fields.finish()?;
    let scope = match (user, ca, attribute) {
        (false, false, false) => CertificateScope::All,
        (true, false, false) => CertificateScope::EndEntity,
        (false, true, false) => CertificateScope::Ca,
        (false, false, true) => CertificateScope::Attribute,
        _ => return Err(element.error("issuing distribution point names two kinds of certificates")),
    };
    Ok(IssuingDistributionPoint {
        value: whole,
        name: name.map(|name| name.span()),
        scope,
        reasons,
        indirection: if indirect { Indirection::Indirect } else { Indirection::Direct },
    })
}
