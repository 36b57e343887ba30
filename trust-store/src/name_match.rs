//! Whether a certificate bears a name that the caller requires.

use crate::certificate::Certificate;
use crate::general_name::GeneralName;
use crate::path::RequiredName;

/// True if the subject alternative names (for a distinguished name also the subject) hold the name.
pub(crate) fn bears_name(certificate: &Certificate, required: &RequiredName) -> bool {
    if let RequiredName::Directory(name) = required
        && !name.is_empty()
        && certificate.subject_name() == name
    {
        return true;
    }
    certificate.subject_alternative_names().any(|name| match (required, name) {
        (RequiredName::Email(required), GeneralName::Email(email)) => same_mailbox(required, email),
        (RequiredName::Dns(required), GeneralName::Dns(host)) => host_fits(host, required),
        (RequiredName::Uri(required), GeneralName::Uri(uri)) => required == uri,
        (RequiredName::Ip(required), GeneralName::Ip(address)) => required == address,
        (RequiredName::Directory(required), name @ GeneralName::Directory(_)) => {
            name.directory().is_some_and(|name| name == *required)
        }
        _ => false,
    })
}

fn same_mailbox(a: &str, b: &str) -> bool {
    match (a.rsplit_once('@'), b.rsplit_once('@')) {
        (Some((a_local, a_host)), Some((b_local, b_host))) => {
            a_local == b_local && a_host.eq_ignore_ascii_case(b_host)
        }
        _ => false,
    }
}

/// RFC 9525 §6.3: a wildcard is a whole leftmost label and stands for exactly one label.
fn host_fits(presented: &str, required: &str) -> bool {
    let dotless = |host: &'_ str| -> usize { host.strip_suffix('.').unwrap_or(host).len() };
    let presented = presented.get(..dotless(presented)).unwrap_or_default();
    let required = required.get(..dotless(required)).unwrap_or_default();
    if required.is_empty() || required.contains('*') {
        return false;
    }
    match presented.strip_prefix("*.") {
        Some(parent) if parent.contains('.') => required
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
        Some(_) => false,
        None => presented.eq_ignore_ascii_case(required),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_fit_exactly_or_by_one_wildcard_label() {
        for (presented, required, fits) in [
            ("Example.com", "example.COM.", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.com", "example.com", false),
            ("a*.example.com", "ab.example.com", false),
            ("*.example.com", "*.example.com", false),
        ] {
            assert_eq!(host_fits(presented, required), fits, "{presented} {required}");
        }
    }

    #[test]
    fn mailboxes_fold_only_the_host() {
        assert!(same_mailbox("a@Example.com", "a@example.com"));
        assert!(!same_mailbox("A@example.com", "a@example.com"));
        assert!(!same_mailbox("example.com", "example.com"));
    }
}
