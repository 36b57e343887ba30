//! Policy and name constraint extensions (RFC 5280 §4.2.1.4, .5, .10, .11).

use crate::general_name::GeneralName;
use crate::name::CanonicalName;
use crate::x690::{Malformed, Reader, tag};

/// The most policies in one certificate, and the most mappings.
const MAX_POLICIES: usize = 64;

/// The most subtrees in one name constraints extension.
const MAX_SUBTREES: usize = 2_048;

/// certificatePolicies
#[derive(Clone, Copy, Debug)]
pub struct CertificatePolicies<'a> {
    policies: Reader<'a>,
}

/// One PolicyInformation.
#[derive(Clone, Copy, Debug)]
pub struct PolicyInformation<'a> {
    /// Content octets of the policy's object identifier.
    pub policy: &'a [u8],
    /// The DER of `policyQualifiers`, if there are any.
    pub qualifiers: Option<&'a [u8]>,
}

impl<'a> CertificatePolicies<'a> {
    pub(crate) fn read(mut value: Reader<'a>) -> Result<Self, Malformed> {
        let policies = value.sequence()?;
        value.finish()?;
        let (mut all, parsed) = (policies, Self { policies });
        if all.is_empty() {
            return Err(all.error("certificate policies are empty"));
        }
        let mut count = 0;
        while !all.is_empty() {
            let position = all;
            let information = read_policy(&mut all)?;
            if parsed.iter().take(count).any(|earlier| earlier.policy == information.policy) {
                return Err(position.error("certificate policy appears twice"));
            }
            count += 1;
            if count > MAX_POLICIES {
                return Err(position.error("too many certificate policies"));
            }
        }
        Ok(parsed)
    }

    pub(crate) fn parsed_before(mut value: Reader<'a>) -> Option<Self> {
        Some(Self { policies: value.sequence().ok()? })
    }

    /// The policies in order.
    pub fn iter(&self) -> impl Iterator<Item = PolicyInformation<'a>> + use<'a> {
        let mut policies = self.policies;
        core::iter::from_fn(move || read_policy(&mut policies).ok())
    }
}

fn read_policy<'a>(policies: &mut Reader<'a>) -> Result<PolicyInformation<'a>, Malformed> {
    let mut fields = policies.sequence()?;
    let policy = fields.expect(tag::OID)?.oid()?;
    let qualifiers = fields.optional(tag::SEQUENCE)?;
    fields.finish()?;
    if let Some(list) = qualifiers {
        let mut list = list.reader();
        if list.is_empty() {
            return Err(list.error("policy qualifiers are empty"));
        }
        while !list.is_empty() {
            let mut qualifier = list.sequence()?;
            qualifier.expect(tag::OID)?.oid()?;
            qualifier.read()?;
            qualifier.finish()?;
        }
    }
    Ok(PolicyInformation { policy, qualifiers: qualifiers.map(|list| list.der()) })
}

/// policyMappings: pairs of issuer domain and subject domain policies.
#[derive(Clone, Copy, Debug)]
pub struct PolicyMappings<'a> {
    mappings: Reader<'a>,
}

impl<'a> PolicyMappings<'a> {
    pub(crate) fn read(mut value: Reader<'a>) -> Result<Self, Malformed> {
        let mappings = value.sequence()?;
        value.finish()?;
        let mut all = mappings;
        if all.is_empty() {
            return Err(all.error("policy mappings are empty"));
        }
        let mut count = 0;
        while !all.is_empty() {
            count += 1;
            if count > MAX_POLICIES {
                return Err(all.error("too many policy mappings"));
            }
            read_mapping(&mut all)?;
        }
        Ok(Self { mappings })
    }

    pub(crate) fn parsed_before(mut value: Reader<'a>) -> Option<Self> {
        Some(Self { mappings: value.sequence().ok()? })
    }

    /// Content octets of (issuerDomainPolicy, subjectDomainPolicy), in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut mappings = self.mappings;
        core::iter::from_fn(move || read_mapping(&mut mappings).ok())
    }
}

fn read_mapping<'a>(mappings: &mut Reader<'a>) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    let mut fields = mappings.sequence()?;
    let issuer = fields.expect(tag::OID)?.oid()?;
    let subject = fields.expect(tag::OID)?.oid()?;
    fields.finish()?;
    Ok((issuer, subject))
}

/// policyConstraints; counts are in certificates that are not self-issued.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PolicyConstraints {
    /// requireExplicitPolicy
    pub require_explicit_policy: Option<u32>,
    /// inhibitPolicyMapping
    pub inhibit_policy_mapping: Option<u32>,
}

impl PolicyConstraints {
    pub(crate) fn read(mut value: Reader<'_>) -> Result<Self, Malformed> {
        let element = value.expect(tag::SEQUENCE)?;
        value.finish()?;
        let mut fields = element.reader();
        let require_explicit_policy =
            fields.optional(tag::primitive(0))?.map(|n| n.small_integer()).transpose()?;
        let inhibit_policy_mapping =
            fields.optional(tag::primitive(1))?.map(|n| n.small_integer()).transpose()?;
        fields.finish()?;
        if require_explicit_policy.is_none() && inhibit_policy_mapping.is_none() {
            return Err(element.error("policy constraints are empty"));
        }
        Ok(Self { require_explicit_policy, inhibit_policy_mapping })
    }
}

/// nameConstraints
#[derive(Clone, Copy, Debug)]
pub struct NameConstraints<'a> {
    permitted: Option<Reader<'a>>,
    excluded: Option<Reader<'a>>,
}

/// One subtree of a name constraints extension.
#[derive(Clone, Copy, Debug)]
pub struct GeneralSubtree<'a> {
    /// The base of the subtree.
    pub base: GeneralName<'a>,
    /// True if `minimum` is 0 and `maximum` absent, the only form RFC 5280 defines.
    pub has_plain_distance: bool,
}

impl<'a> NameConstraints<'a> {
    pub(crate) fn read(mut value: Reader<'a>) -> Result<Self, Malformed> {
        let element = value.expect(tag::SEQUENCE)?;
        value.finish()?;
        let mut fields = element.reader();
        let permitted = fields.optional(tag::constructed(0))?.map(|list| list.reader());
        let excluded = fields.optional(tag::constructed(1))?.map(|list| list.reader());
        fields.finish()?;
        if permitted.is_none() && excluded.is_none() {
            return Err(element.error("name constraints are empty"));
        }
        let mut count = 0;
        for mut list in [permitted, excluded].into_iter().flatten() {
            if list.is_empty() {
                return Err(list.error("list of subtrees is empty"));
            }
            while !list.is_empty() {
                count += 1;
                if count > MAX_SUBTREES {
                    return Err(list.error("too many subtrees"));
                }
                let position = list;
                let subtree = read_subtree(&mut list)?;
                match subtree.base {
                    GeneralName::Directory(name) => drop(CanonicalName::from_element(name)?),
                    GeneralName::Ip(range) if range.len() != 8 && range.len() != 32 => {
                        return Err(position.error("address range has a wrong length"));
                    }
                    _ => {}
                }
            }
        }
        Ok(Self { permitted, excluded })
    }

    pub(crate) fn parsed_before(value: Reader<'a>) -> Option<Self> {
        let mut value = value;
        let mut fields = value.sequence().ok()?;
        let permitted = fields.optional(tag::constructed(0)).ok()?.map(|list| list.reader());
        let excluded = fields.optional(tag::constructed(1)).ok()?.map(|list| list.reader());
        Some(Self { permitted, excluded })
    }

    /// permittedSubtrees
    pub fn permitted(&self) -> impl Iterator<Item = GeneralSubtree<'a>> + use<'a> {
        subtrees(self.permitted)
    }

    /// excludedSubtrees
    pub fn excluded(&self) -> impl Iterator<Item = GeneralSubtree<'a>> + use<'a> {
        subtrees(self.excluded)
    }
}

fn subtrees<'a>(list: Option<Reader<'a>>) -> impl Iterator<Item = GeneralSubtree<'a>> + use<'a> {
    let mut list = list;
    core::iter::from_fn(move || read_subtree(list.as_mut()?).ok())
}

fn read_subtree<'a>(list: &mut Reader<'a>) -> Result<GeneralSubtree<'a>, Malformed> {
    let mut fields = list.sequence()?;
    let base = GeneralName::from_element(fields.read()?)?;
    let minimum = fields.optional(tag::primitive(0))?.map(|n| n.small_integer()).transpose()?;
    let maximum = fields.optional(tag::primitive(1))?;
    fields.finish()?;
    Ok(GeneralSubtree { base, has_plain_distance: minimum.unwrap_or(0) == 0 && maximum.is_none() })
}
