//! Hosts and host patterns of a `network` capability.

use alloc::string::String;
use core::fmt;

use super::malformed;
use crate::error::Error;

/// A host name, an IPv4 address, or a pattern `*.` with at least two labels after it; lower case, ASCII (A-labels).
///
/// `*.example.com` needs at least one more label: it matches neither `example.com` nor `evilexample.com`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern {
    wildcard: bool,
    name: String,
}

impl HostPattern {
    /// Takes a host or a pattern; letters are folded to lower case.
    ///
    /// # Errors
    /// [`Error::Malformed`] for anything outside the grammar: a bare `*`, a wildcard elsewhere than in front, over a
    /// single label or over an IP address, a label that is not letters, digits and inner hyphens.
    pub fn new(text: &str) -> Result<Self, Error> {
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if name.is_empty() || name.len() > 253 || !name.split('.').all(is_label) {
            return Err(malformed(text, "a host is labels of letters, digits and inner hyphens, in ASCII"));
        }
        let labels = name.split('.').count();
        if wildcard && labels < 2 {
            return Err(malformed(text, "a wildcard needs at least two labels after it"));
        }
        // A name whose last label is a number is an address to every resolver: it must be one, in its plain form.
        let numeric = name.rsplit('.').next().is_some_and(|last| {
            last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X")
        });
        if numeric && (wildcard || labels != 4 || !name.split('.').all(is_octet)) {
            return Err(malformed(text, "an IPv4 address is four plain decimals, without wildcard"));
        }
        Ok(Self { wildcard, name: name.to_ascii_lowercase() })
    }

    /// Whether this is a pattern.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The name, without the `*.` of a pattern.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether every host that `other` means is meant by this one.
    pub fn contains(&self, other: &Self) -> bool {
        if !self.wildcard {
            return self == other;
        }
        let below = other.name.strip_suffix(&self.name).is_some_and(|front| front.ends_with('.'));
        below || (other.wildcard && other.name == self.name)
    }

    /// Whether the concrete host `host` (any letter case) is meant.
    pub fn matches(&self, host: &str) -> bool {
        Self::new(host).is_ok_and(|host| !host.wildcard && self.contains(&host))
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_octet(label: &str) -> bool {
    (label == "0" || !label.starts_with('0')) && label.parse::<u8>().is_ok()
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.wildcard { "*." } else { "" }, self.name)
    }
}
