//! Certificate extensions that path validation works on (RFC 5280 §4.2).

use alloc::vec::Vec;

use crate::general_name::GeneralNames;
use crate::oid;
use crate::x690::{Element, Malformed, Reader, Span, tag};

pub use crate::extension_distribution::{
    AccessDescriptions, DistributionPoint, DistributionPointName, DistributionPoints, ReasonFlags,
};
pub use crate::extension_policy::{
    CertificatePolicies, GeneralSubtree, NameConstraints, PolicyConstraints, PolicyInformation,
    PolicyMappings,
};

/// The most extensions in one certificate, CRL, CRL entry or OCSP structure.
pub(crate) const MAX_EXTENSIONS: usize = 64;

/// One extension as it was found: identifier, criticality and the octets inside its OCTET STRING.
#[derive(Clone, Copy, Debug)]
pub struct Extension {
    id: Span,
    value: Span,
    critical: bool,
}

impl Extension {
    /// Content octets of the identifier.
    pub fn id<'a>(&self, whole: &'a [u8]) -> &'a [u8] {
        self.id.of(whole)
    }

    /// The DER value.
    pub fn value<'a>(&self, whole: &'a [u8]) -> &'a [u8] {
        self.value.of(whole)
    }

    /// Whether the extension is marked critical.
    pub fn is_critical(&self) -> bool {
        self.critical
    }

    pub(crate) fn value_span(&self) -> Span {
        self.value
    }

    pub(crate) fn id_span(&self) -> Span {
        self.id
    }

    /// A reader over the value whose positions are those of the whole structure.
    pub(crate) fn reader<'a>(&self, whole: &'a [u8]) -> Reader<'a> {
        Reader::within(whole, self.value)
    }
}

/// Reads an `Extensions` SEQUENCE: at least one, a bounded number, no identifier twice.
pub(crate) fn read_extensions(extensions: Element<'_>, whole: &[u8]) -> Result<Vec<Extension>, Malformed> {
    let mut list = extensions.reader();
    if list.is_empty() {
        return Err(list.error("extensions are empty"));
    }
    let mut found: Vec<Extension> = Vec::with_capacity(12);
    while !list.is_empty() {
        let element = list.expect(tag::SEQUENCE)?;
        let mut fields = element.reader();
        let id = fields.expect(tag::OID)?;
        let octets = id.oid()?;
        // An explicit FALSE breaks the rule for defaults (X.690 §11.5), but it is common and cannot change a meaning.
        let critical = fields.optional(tag::BOOLEAN)?.map_or(Ok(false), |flag| flag.boolean())?;
        let value = fields.expect(tag::OCTET_STRING)?.content_span();
        fields.finish()?;
        if found.len() >= MAX_EXTENSIONS {
            return Err(element.error("too many extensions"));
        }
        if found.iter().any(|earlier| earlier.id(whole) == octets) {
            return Err(element.error("extension appears twice"));
        }
        found.push(Extension { id: id.content_span(), value, critical });
    }
    Ok(found)
}

/// A set of key usage bits (RFC 5280 §4.2.1.3).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct KeyUsage(u16);

impl KeyUsage {
    /// No usage; as a requirement: none.
    pub const NONE: Self = Self(0);
    /// digitalSignature
    pub const DIGITAL_SIGNATURE: Self = Self(0x8000);
    /// nonRepudiation (contentCommitment)
    pub const NON_REPUDIATION: Self = Self(0x4000);
    /// keyEncipherment
    pub const KEY_ENCIPHERMENT: Self = Self(0x2000);
    /// dataEncipherment
    pub const DATA_ENCIPHERMENT: Self = Self(0x1000);
    /// keyAgreement
    pub const KEY_AGREEMENT: Self = Self(0x0800);
    /// keyCertSign
    pub const KEY_CERT_SIGN: Self = Self(0x0400);
    /// cRLSign
    pub const CRL_SIGN: Self = Self(0x0200);
    /// encipherOnly
    pub const ENCIPHER_ONLY: Self = Self(0x0100);
    /// decipherOnly
    pub const DECIPHER_ONLY: Self = Self(0x0080);

    /// True if every bit of `required` is set.
    pub const fn contains(self, required: Self) -> bool {
        self.0 & required.0 == required.0
    }

    /// The bits of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits, digitalSignature in the most significant place.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The usage with this name in RFC 5280, `contentCommitment` included.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "digitalSignature" => Self::DIGITAL_SIGNATURE,
            "nonRepudiation" | "contentCommitment" => Self::NON_REPUDIATION,
            "keyEncipherment" => Self::KEY_ENCIPHERMENT,
            "dataEncipherment" => Self::DATA_ENCIPHERMENT,
            "keyAgreement" => Self::KEY_AGREEMENT,
            "keyCertSign" => Self::KEY_CERT_SIGN,
            "cRLSign" => Self::CRL_SIGN,
            "encipherOnly" => Self::ENCIPHER_ONLY,
            "decipherOnly" => Self::DECIPHER_ONLY,
            _ => return None,
        })
    }

    pub(crate) fn read(mut value: Reader<'_>) -> Result<Self, Malformed> {
        let element = value.expect(tag::BIT_STRING)?;
        value.finish()?;
        match element.named_bits()? {
            0 => Err(element.error("key usage has no bit")),
            bits => Ok(Self(bits)),
        }
    }
}

/// Basic constraints (RFC 5280 §4.2.1.9).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BasicConstraints {
    /// cA: the key may sign certificates.
    pub ca: bool,
    /// pathLenConstraint: how many non-self-issued intermediates may follow.
    pub path_length: Option<u32>,
}

impl BasicConstraints {
    pub(crate) fn read(mut value: Reader<'_>) -> Result<Self, Malformed> {
        let element = value.expect(tag::SEQUENCE)?;
        value.finish()?;
        let mut fields = element.reader();
        // An explicit FALSE is accepted for the reason given in `read_extensions`.
        let ca = fields.optional(tag::BOOLEAN)?.map_or(Ok(false), |flag| flag.boolean())?;
        let path_length = fields.optional(tag::INTEGER)?.map(|n| n.small_integer()).transpose()?;
        fields.finish()?;
        if path_length.is_some() && !ca {
            return Err(element.error("path length without cA"));
        }
        Ok(Self { ca, path_length })
    }
}

/// The purposes of an extended key usage extension (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug)]
pub struct ExtendedKeyUsage<'a> {
    purposes: Reader<'a>,
}

impl<'a> ExtendedKeyUsage<'a> {
    pub(crate) fn read(mut value: Reader<'a>) -> Result<Self, Malformed> {
        let purposes = value.sequence()?;
        value.finish()?;
        let mut all = purposes;
        if all.is_empty() {
            return Err(all.error("extended key usage is empty"));
        }
        while !all.is_empty() {
            all.expect(tag::OID)?.oid()?;
        }
        Ok(Self { purposes })
    }

    pub(crate) fn parsed_before(mut value: Reader<'a>) -> Option<Self> {
        Some(Self { purposes: value.sequence().ok()? })
    }

    /// The content octets of each purpose's object identifier.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut purposes = self.purposes;
        core::iter::from_fn(move || purposes.read().ok().map(|purpose| purpose.content()))
    }

    /// True if the purpose itself is listed; anyExtendedKeyUsage does not stand for it.
    pub fn lists(&self, purpose: &[u8]) -> bool {
        self.iter().any(|listed| listed == purpose)
    }

    /// True if the purpose or anyExtendedKeyUsage is listed.
    pub fn lists_or_any(&self, purpose: &[u8]) -> bool {
        self.iter().any(|listed| listed == purpose || listed == oid::ANY_EXTENDED_KEY_USAGE.as_bytes())
    }
}

/// Authority key identifier (RFC 5280 §4.2.1.1).
#[derive(Clone, Copy, Debug)]
pub struct AuthorityKeyIdentifier<'a> {
    /// keyIdentifier
    pub key_identifier: Option<&'a [u8]>,
    /// authorityCertIssuer
    pub issuer: Option<GeneralNames<'a>>,
    /// authorityCertSerialNumber, minimal INTEGER content
    pub serial: Option<&'a [u8]>,
}

impl<'a> AuthorityKeyIdentifier<'a> {
    pub(crate) fn read(mut value: Reader<'a>) -> Result<Self, Malformed> {
        let element = value.expect(tag::SEQUENCE)?;
        value.finish()?;
        let mut fields = element.reader();
        let key_identifier = fields.optional(tag::primitive(0))?.map(|id| id.content());
        let issuer = fields.optional(tag::constructed(1))?;
        let issuer = issuer.map(|names| GeneralNames::from_reader(names.reader())).transpose()?;
        let serial = fields.optional(tag::primitive(2))?.map(|serial| serial.integer()).transpose()?;
        fields.finish()?;
        if issuer.is_some() != serial.is_some() {
            return Err(element.error("authority issuer and serial come together"));
        }
        Ok(Self { key_identifier, issuer, serial })
    }
}
