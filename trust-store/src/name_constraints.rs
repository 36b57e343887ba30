//! Name constraint checks (RFC 5280 §4.2.1.10, §6.1.3 (b) and (c), §6.1.4 (g)).
//!
//! Every CA certificate of a path contributes its own list; a name must lie inside the permitted subtrees of each
//! list that has any of its kind, and outside all excluded ones. Where a comparison is ambiguous, the answer that
//! denies is taken: wildcards and case widen what is excluded, never what is permitted.

use alloc::vec::Vec;

use crate::budget::Budget;
use crate::certificate::Certificate;
use crate::extension::GeneralSubtree;
use crate::general_name::GeneralName;
use crate::name::{CanonicalName, attributes};
use crate::oid;
use crate::reason::{Denial, ReasonCode};
use crate::x690::{Element, Reader, tag};

/// The constraints of all certificates seen so far on a path.
#[derive(Default)]
pub(crate) struct AccumulatedConstraints<'a> {
    lists: Vec<List<'a>>,
}

struct List<'a> {
    permitted: Vec<Subtree<'a>>,
    excluded: Vec<Subtree<'a>>,
}

struct Subtree<'a> {
    base: GeneralName<'a>,
    directory: Option<CanonicalName>,
    has_plain_distance: bool,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Side {
    Permitted,
    Excluded,
}

impl<'a> AccumulatedConstraints<'a> {
    /// Adds what a CA certificate constrains.
    pub(crate) fn add(&mut self, certificate: &'a Certificate, budget: &mut Budget) -> Result<(), Denial> {
        let Some(constraints) = certificate.name_constraints() else { return Ok(()) };
        let mut read = |subtrees: &mut dyn Iterator<Item = GeneralSubtree<'a>>| {
            let mut list = Vec::new();
            for subtree in subtrees {
                let directory = subtree.base.directory();
                budget.spend_comparison(length_of(&subtree.base))?;
                list.push(Subtree {
                    base: subtree.base,
                    directory,
                    has_plain_distance: subtree.has_plain_distance,
                });
            }
            Ok::<_, Denial>(list)
        };
        let permitted = read(&mut constraints.permitted())?;
        let excluded = read(&mut constraints.excluded())?;
        self.lists.push(List { permitted, excluded });
        Ok(())
    }

    /// Checks every name of a certificate.
    pub(crate) fn check(&self, certificate: &Certificate, budget: &mut Budget) -> Result<(), Denial> {
        if self.lists.is_empty() {
            return Ok(());
        }
        let subject = Reader::only(certificate.subject_der(), tag::SEQUENCE).ok();
        if let Some(subject) = subject.filter(|_| !certificate.subject_name().is_empty()) {
            self.check_directory(&GeneralName::Directory(subject), certificate.subject_name(), budget)?;
            self.check_subject_emails(subject, budget)?;
        }
        for name in certificate.subject_alternative_names() {
            match name.directory() {
                Some(canonical) => self.check_directory(&name, &canonical, budget)?,
                None => self.check_name(&name, None, budget)?,
            }
        }
        Ok(())
    }

    fn check_directory(
        &self,
        name: &GeneralName<'_>,
        canonical: &CanonicalName,
        budget: &mut Budget,
    ) -> Result<(), Denial> {
        self.check_name(name, Some(canonical), budget)
    }

    /// An e-mail address in the subject is constrained like one among the alternative names.
    fn check_subject_emails(&self, subject: Element<'_>, budget: &mut Budget) -> Result<(), Denial> {
        for attribute in attributes(subject).filter(|a| a.kind == oid::EMAIL_ADDRESS.as_bytes()) {
            if let Ok(Some(text)) = attribute.text() {
                self.check_name(&GeneralName::Email(&text), None, budget)?;
            }
        }
        Ok(())
    }

    fn check_name(
        &self,
        name: &GeneralName<'_>,
        canonical: Option<&CanonicalName>,
        budget: &mut Budget,
    ) -> Result<(), Denial> {
        for list in &self.lists {
            // Subtrees of other kinds are passed over, which is cheap but not free.
            budget.spend_steps(1 + (list.excluded.len() + list.permitted.len()) / 16)?;
            for subtree in list.excluded.iter().filter(|subtree| same_kind(&subtree.base, name)) {
                budget.spend_comparison(length_of(name))?;
                if matches(subtree, name, canonical, Side::Excluded)? {
                    return Err(denied("a name lies inside an excluded subtree"));
                }
            }
            let mut constrained = false;
            let mut permitted = false;
            for subtree in list.permitted.iter().filter(|subtree| same_kind(&subtree.base, name)) {
                budget.spend_comparison(length_of(name))?;
                constrained = true;
                permitted = permitted || matches(subtree, name, canonical, Side::Permitted)?;
            }
            if constrained && !permitted {
                return Err(denied("a name lies outside the permitted subtrees"));
            }
        }
        Ok(())
    }
}

fn denied(detail: &'static str) -> Denial {
    Denial::new(ReasonCode::NameNotAllowed, detail)
}

fn length_of(name: &GeneralName<'_>) -> usize {
    match name {
        GeneralName::Email(text) | GeneralName::Dns(text) | GeneralName::Uri(text) => text.len(),
        GeneralName::Directory(name) => name.der().len(),
        GeneralName::Ip(octets) | GeneralName::RegisteredId(octets) | GeneralName::Uninterpreted(octets) => {
            octets.len()
        }
        GeneralName::Other { kind, value } => kind.len() + value.len(),
    }
}

fn same_kind(a: &GeneralName<'_>, b: &GeneralName<'_>) -> bool {
    match (a, b) {
        (GeneralName::Other { kind: a, .. }, GeneralName::Other { kind: b, .. }) => a == b,
        (GeneralName::Uninterpreted(a), GeneralName::Uninterpreted(b)) => a.first() == b.first(),
        _ => core::mem::discriminant(a) == core::mem::discriminant(b),
    }
}

/// Whether a name lies inside a subtree of its own kind.
fn matches(
    subtree: &Subtree<'_>,
    name: &GeneralName<'_>,
    canonical: Option<&CanonicalName>,
    side: Side,
) -> Result<bool, Denial> {
    if !subtree.has_plain_distance {
        return Err(denied("a name constraint uses minimum or maximum, which RFC 5280 does not define"));
    }
    match (&subtree.base, name) {
        (GeneralName::Directory(_), GeneralName::Directory(_)) => {
            let base = subtree.directory.as_ref().ok_or(denied("a name constraint does not parse"))?;
            Ok(canonical.is_some_and(|name| name.is_within(base)))
        }
        (GeneralName::Email(base), GeneralName::Email(email)) => email_matches(base, email, side),
        (GeneralName::Dns(base), GeneralName::Dns(host)) => Ok(dns_matches(base, host, side)),
        (GeneralName::Uri(base), GeneralName::Uri(uri)) => {
            let host = uri_host(uri).ok_or(denied("a constrained URI has no host name"))?;
            Ok(host_matches(base, host))
        }
        (GeneralName::Ip(range), GeneralName::Ip(address)) => Ok(address_matches(range, address)),
        // RFC 5280 §4.2.1.10: process the constraint or reject the certificate.
        _ => Err(denied("a name is of a kind whose constraints are not supported")),
    }
}

fn without_final_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// True if `host` equals `base` or ends in `.base`.
fn is_at_or_below(host: &str, base: &str) -> bool {
    let (host, base) = (host.as_bytes(), base.as_bytes());
    let Some(split) = host.len().checked_sub(base.len()) else { return false };
    let (front, tail) = host.split_at(split);
    tail.eq_ignore_ascii_case(base) && (front.is_empty() || front.last() == Some(&b'.'))
}

fn dns_matches(base: &str, host: &str, side: Side) -> bool {
    let (base, host) = (without_final_dot(base), without_final_dot(host));
    let base = base.strip_prefix('.').unwrap_or(base);
    if base.is_empty() || is_at_or_below(host, base) {
        return true;
    }
    // `*.example.com` may stand for any host below example.com, so it touches an exclusion anywhere below it.
    match host.strip_prefix("*.") {
        Some(parent) if side == Side::Excluded => is_at_or_below(base, parent),
        _ => false,
    }
}

/// A host constraint of an e-mail address or URI: `.domain` means hosts below it, anything else exactly that host.
fn host_matches(base: &str, host: &str) -> bool {
    let (base, host) = (without_final_dot(base), without_final_dot(host));
    if base.is_empty() {
        return true;
    }
    match base.strip_prefix('.') {
        Some(domain) => is_at_or_below(host, domain) && host.len() > domain.len(),
        None => host.eq_ignore_ascii_case(base),
    }
}

fn email_matches(base: &str, email: &str, side: Side) -> Result<bool, Denial> {
    let (local, host) = email.rsplit_once('@').ok_or(denied("a constrained e-mail address has no host"))?;
    match base.rsplit_once('@') {
        Some((base_local, base_host)) => {
            // Whether case matters in a mailbox is the host's affair (RFC 5321 §2.4).
            let same_local = match side {
                Side::Permitted => local == base_local,
                Side::Excluded => local.eq_ignore_ascii_case(base_local),
            };
            Ok(same_local && without_final_dot(host).eq_ignore_ascii_case(without_final_dot(base_host)))
        }
        None => Ok(host_matches(base, host)),
    }
}

/// The host name of a URI; `None` if it has no authority or its host is an address.
pub(crate) fn uri_host(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once("://")?;
    let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !scheme_fits {
        return None;
    }
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host_and_port.starts_with('[') {
        return None;
    }
    let host = without_final_dot(host_and_port.split(':').next()?);
    let is_name = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
    let is_address = host.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
    (is_name && !is_address && !host.is_empty()).then_some(host)
}

fn address_matches(range: &[u8], address: &[u8]) -> bool {
    let (network, mask) = range.split_at(range.len() / 2);
    network.len() == address.len()
        && network
            .iter()
            .zip(mask)
            .zip(address)
            .all(|((network, mask), octet)| network & mask == octet & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_subtrees_end_at_labels() {
        for (base, host, inside) in [
            ("example.com", "example.com", true),
            ("example.com", "EXAMPLE.com.", true),
            ("example.com", "a.b.example.com", true),
            ("example.com", "badexample.com", false),
            ("example.com", "com", false),
            ("", "anything", true),
        ] {
            assert_eq!(dns_matches(base, host, Side::Permitted), inside, "{base} {host}");
        }
        assert!(dns_matches("a.example.com", "*.example.com", Side::Excluded));
        assert!(!dns_matches("a.example.com", "*.example.com", Side::Permitted));
        assert!(dns_matches("example.com", "*.example.com", Side::Permitted));
    }

    #[test]
    fn email_constraints_name_a_mailbox_a_host_or_a_domain() {
        for (base, email, inside) in [
            ("a@example.com", "a@EXAMPLE.com", true),
            ("a@example.com", "A@example.com", false),
            ("example.com", "b@example.com", true),
            ("example.com", "b@mail.example.com", false),
            (".example.com", "b@mail.example.com", true),
            (".example.com", "b@example.com", false),
        ] {
            assert_eq!(email_matches(base, email, Side::Permitted).unwrap(), inside, "{base} {email}");
        }
        assert!(email_matches("a@example.com", "A@example.com", Side::Excluded).unwrap());
        assert_eq!(
            email_matches("x", "nobody", Side::Excluded).unwrap_err().code,
            ReasonCode::NameNotAllowed
        );
    }

    #[test]
    fn uri_hosts_are_found_and_addresses_are_not_names() {
        for (uri, host) in [
            ("https://user:pw@Host.example:8080/x", Some("Host.example")),
            ("https://host.example.?q", Some("host.example")),
            ("https://a@evil.example\\@good.example/", Some("evil.example")),
            ("https://192.0.2.1/", None),
            ("https://[2001:db8::1]/", None),
            ("urn:uuid:x", None),
            ("https:///path", None),
        ] {
            assert_eq!(uri_host(uri), host, "{uri}");
        }
    }

    #[test]
    fn address_ranges_compare_under_the_mask_and_within_one_family() {
        let range = [192, 0, 2, 0, 255, 255, 255, 0];
        assert!(address_matches(&range, &[192, 0, 2, 77]));
        assert!(!address_matches(&range, &[192, 0, 3, 77]));
        assert!(!address_matches(&range, &[0; 16]));
    }
}
