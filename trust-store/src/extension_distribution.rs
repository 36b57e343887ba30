//! Where status information is found: CRL distribution points and access descriptions (RFC 5280 §4.2.1.13, §4.2.2.1).

use crate::general_name::{GeneralName, GeneralNames};
use crate::name::Attribute;
use crate::x690::{Element, Malformed, Reader, tag};

/// The most distribution points or access descriptions in one extension.
const MAX_POINTS: usize = 64;

/// A set of revocation reasons, as the bits of `ReasonFlags`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ReasonFlags(u16);

impl ReasonFlags {
    /// No reason.
    pub const NONE: Self = Self(0);
    /// Every reason that RFC 5280 names; bit 0 is unused.
    pub const ALL: Self = Self(0x7f80);

    /// The reasons in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The reasons in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True if every reason of `other` is in this set.
    pub const fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn read(element: Element<'_>) -> Result<Self, Malformed> {
        element.named_bits().map(|bits| Self(bits & Self::ALL.0))
    }
}

/// A distribution point's name.
#[derive(Clone, Copy, Debug)]
pub enum DistributionPointName<'a> {
    /// fullName
    Full(GeneralNames<'a>),
    /// nameRelativeToCRLIssuer: one RDN, to be put after the CRL issuer's name.
    Relative(Element<'a>),
}

impl<'a> DistributionPointName<'a> {
    /// Reads the CHOICE inside the explicit `[0]`.
    pub(crate) fn read(wrapper: Element<'a>) -> Result<Self, Malformed> {
        let mut inner = wrapper.reader();
        let choice = inner.read()?;
        inner.finish()?;
        match choice.tag() {
            0xa0 => GeneralNames::from_reader(choice.reader()).map(Self::Full),
            0xa1 => {
                let mut attributes = choice.reader();
                while !attributes.is_empty() {
                    Attribute::from_element(attributes.expect(tag::SEQUENCE)?)?;
                }
                Ok(Self::Relative(choice))
            }
            _ => Err(choice.error("unknown kind of distribution point name")),
        }
    }
}

/// One distribution point.
#[derive(Clone, Copy, Debug)]
pub struct DistributionPoint<'a> {
    /// Where the CRL is; `None` if it is found by `crl_issuer`.
    pub name: Option<DistributionPointName<'a>>,
    /// The reasons this point covers; `None` means all.
    pub reasons: Option<ReasonFlags>,
    /// Who signs the CRL, if it is not the certificate's issuer.
    pub crl_issuer: Option<GeneralNames<'a>>,
}

/// cRLDistributionPoints or freshestCRL.
#[derive(Clone, Copy, Debug)]
pub struct DistributionPoints<'a> {
    points: Reader<'a>,
}

impl<'a> DistributionPoints<'a> {
    pub(crate) fn read(mut value: Reader<'a>) -> Result<Self, Malformed> {
        let points = value.sequence()?;
        value.finish()?;
        let mut all = points;
        if all.is_empty() {
            return Err(all.error("distribution points are empty"));
        }
        let mut count = 0;
        while !all.is_empty() {
            count += 1;
            if count > MAX_POINTS {
                return Err(all.error("too many distribution points"));
            }
            read_point(&mut all)?;
        }
        Ok(Self { points })
    }

    pub(crate) fn parsed_before(mut value: Reader<'a>) -> Option<Self> {
        Some(Self { points: value.sequence().ok()? })
    }

    /// The points in order.
    pub fn iter(&self) -> impl Iterator<Item = DistributionPoint<'a>> + use<'a> {
        let mut points = self.points;
        core::iter::from_fn(move || read_point(&mut points).ok())
    }
}

fn read_point<'a>(points: &mut Reader<'a>) -> Result<DistributionPoint<'a>, Malformed> {
    let element = points.expect(tag::SEQUENCE)?;
    let mut fields = element.reader();
    let name = fields.optional(tag::constructed(0))?.map(DistributionPointName::read).transpose()?;
    let reasons = fields.optional(tag::primitive(1))?.map(ReasonFlags::read).transpose()?;
    let crl_issuer = fields.optional(tag::constructed(2))?;
    let crl_issuer = crl_issuer.map(|names| GeneralNames::from_reader(names.reader())).transpose()?;
    fields.finish()?;
    if name.is_none() && crl_issuer.is_none() {
        return Err(element.error("distribution point has neither name nor issuer"));
    }
    Ok(DistributionPoint { name, reasons, crl_issuer })
}

/// authorityInfoAccess or subjectInfoAccess.
#[derive(Clone, Copy, Debug)]
pub struct AccessDescriptions<'a> {
    descriptions: Reader<'a>,
}

impl<'a> AccessDescriptions<'a> {
    pub(crate) fn read(mut value: Reader<'a>) -> Result<Self, Malformed> {
        let descriptions = value.sequence()?;
        value.finish()?;
        let mut all = descriptions;
        if all.is_empty() {
            return Err(all.error("access descriptions are empty"));
        }
        let mut count = 0;
        while !all.is_empty() {
            count += 1;
            if count > MAX_POINTS {
                return Err(all.error("too many access descriptions"));
            }
            read_access(&mut all)?;
        }
        Ok(Self { descriptions })
    }

    /// Content octets of the access method, and where to go, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], GeneralName<'a>)> + use<'a> {
        let mut descriptions = self.descriptions;
        core::iter::from_fn(move || read_access(&mut descriptions).ok())
    }
}

fn read_access<'a>(list: &mut Reader<'a>) -> Result<(&'a [u8], GeneralName<'a>), Malformed> {
    let mut fields = list.sequence()?;
    let method = fields.expect(tag::OID)?.oid()?;
    let location = GeneralName::from_element(fields.read()?)?;
    fields.finish()?;
    Ok((method, location))
}
