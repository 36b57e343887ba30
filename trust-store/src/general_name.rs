//! General names (RFC 5280 §4.2.1.6) as subject alternative names, constraints and distribution points use them.

use crate::name::CanonicalName;
use crate::x690::{Element, Malformed, Reader, tag};

/// The most names in one `GeneralNames`; a code-signing certificate has one.
const MAX_NAMES: usize = 1_024;

/// One general name, borrowed from the structure that holds it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum GeneralName<'a> {
    /// otherName: type and DER value.
    Other {
        /// Content octets of the type's object identifier.
        kind: &'a [u8],
        /// The value inside the explicit `[0]`, whole encoding.
        value: &'a [u8],
    },
    /// rfc822Name: a mailbox, or a host or domain in a constraint.
    Email(&'a str),
    /// dNSName
    Dns(&'a str),
    /// directoryName: the `Name` element.
    Directory(Element<'a>),
    /// uniformResourceIdentifier
    Uri(&'a str),
    /// iPAddress: 4 or 16 octets; twice that in a constraint.
    Ip(&'a [u8]),
    /// registeredID: content octets of the object identifier.
    RegisteredId(&'a [u8]),
    /// x400Address or ediPartyName, which nothing here interprets: the whole encoding.
    Uninterpreted(&'a [u8]),
}

impl<'a> GeneralName<'a> {
    /// Reads one `GeneralName`.
    pub fn from_element(element: Element<'a>) -> Result<Self, Malformed> {
        Ok(match element.tag() {
            0xa0 => {
                let mut fields = element.reader();
                let kind = fields.expect(tag::OID)?.oid()?;
                let value = fields.expect(tag::constructed(0))?.content();
                fields.finish()?;
                Self::Other { kind, value }
            }
            0x81 => Self::Email(element.ia5()?),
            0x82 => Self::Dns(element.ia5()?),
            0xa3 | 0xa5 => Self::Uninterpreted(element.der()),
            0xa4 => {
                let mut inner = element.reader();
                let name = inner.expect(tag::SEQUENCE)?;
                inner.finish()?;
                Self::Directory(name)
            }
            0x86 => Self::Uri(element.ia5()?),
            0x87 => Self::Ip(element.content()),
            0x88 => Self::RegisteredId(element.oid()?),
            _ => return Err(element.error("unknown kind of general name")),
        })
    }

    /// The canonical form of a directoryName; `None` for the other kinds.
    pub fn directory(&self) -> Option<CanonicalName> {
        match self {
            Self::Directory(name) => CanonicalName::from_element(*name).ok(),
            _ => None,
        }
    }

    /// True if two names of the same kind are the same name: texts octet for octet, directory names canonically.
    pub fn equals(&self, other: &GeneralName<'_>) -> bool {
        match (self, other) {
            (Self::Email(a), GeneralName::Email(b))
            | (Self::Dns(a), GeneralName::Dns(b))
            | (Self::Uri(a), GeneralName::Uri(b)) => a == b,
            (Self::Ip(a), GeneralName::Ip(b))
            | (Self::RegisteredId(a), GeneralName::RegisteredId(b))
            | (Self::Uninterpreted(a), GeneralName::Uninterpreted(b)) => a == b,
            (Self::Other { kind: a, value: x }, GeneralName::Other { kind: b, value: y }) => a == b && x == y,
            (Self::Directory(a), GeneralName::Directory(b)) if a.der() == b.der() => true,
            (Self::Directory(_), GeneralName::Directory(_)) => {
                matches!((self.directory(), other.directory()), (Some(a), Some(b)) if a == b)
            }
            _ => false,
        }
    }
}

/// A `GeneralNames` sequence whose members were all read once.
#[derive(Clone, Copy, Debug)]
pub struct GeneralNames<'a> {
    names: Reader<'a>,
}

impl<'a> GeneralNames<'a> {
    /// Reads the names in `content`; at least one and a bounded number.
    pub fn from_reader(content: Reader<'a>) -> Result<Self, Malformed> {
        let mut names = content;
        if names.is_empty() {
            return Err(names.error("general names are empty"));
        }
        let mut count = 0;
        while !names.is_empty() {
            count += 1;
            if count > MAX_NAMES {
                return Err(names.error("too many general names"));
            }
            if let GeneralName::Directory(name) = GeneralName::from_element(names.read()?)? {
                CanonicalName::from_element(name)?;
            }
        }
        Ok(Self { names: content })
    }

    /// For content that [`GeneralNames::from_reader`] accepted when its structure was parsed.
    pub(crate) fn parsed_before(content: Reader<'a>) -> Self {
        Self { names: content }
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = GeneralName<'a>> + use<'a> {
        let mut names = self.names;
        core::iter::from_fn(move || GeneralName::from_element(names.read().ok()?).ok())
    }
}
