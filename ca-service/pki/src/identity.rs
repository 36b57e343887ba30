//! The one identity a code-signing certificate carries as its subject alternative name (sigstore-contract §4).

use alloc::string::{String, ToString};
use core::fmt;

use crate::error::Error;

/// RFC 5321 §4.5.3.1.3: a path, and so an address, has at most 254 octets between the angle brackets.
pub const MAX_EMAIL: usize = 254;
/// Longest URI identity in octets; workflow identities of CI providers stay below a few hundred.
pub const MAX_URI: usize = 1024;

/// Exactly one e-mail address or URI, validated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// `rfc822Name`.
    Email(String),
    /// `uniformResourceIdentifier`.
    Uri(String),
}

impl Identity {
    /// Validates an e-mail address: ASCII, one `@`, a dot-atom local part, a domain of letter-digit-hyphen labels.
    ///
    /// # Errors
    /// [`Error::IdentityNotAllowed`] with the rule that is broken.
    pub fn email(address: &str) -> Result<Self, Error> {
        if address.len() > MAX_EMAIL {
            return Err(Error::IdentityNotAllowed("an e-mail address has at most 254 octets"));
        }
        no_pattern(address)?;
        let (local, domain) =
            address.split_once('@').ok_or(Error::IdentityNotAllowed("an e-mail address needs one @"))?;
        let atom = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|octet| octet.is_ascii_alphanumeric() || b"!#$%&'+-/=?^_`{|}~".contains(&octet))
        };
        if local.len() > 64 || !local.split('.').all(atom) {
            return Err(Error::IdentityNotAllowed("the local part is not a dot-atom of at most 64 octets"));
        }
        if !domain.split('.').all(is_host_label) {
            return Err(Error::IdentityNotAllowed("the domain is not made of letter-digit-hyphen labels"));
        }
        Ok(Self::Email(address.to_string()))
    }

    /// Validates a URI: absolute, ASCII, no spaces, quotes, brackets or control characters.
    ///
    /// # Errors
    /// [`Error::IdentityNotAllowed`] with the rule that is broken.
    pub fn uri(uri: &str) -> Result<Self, Error> {
        if uri.len() > MAX_URI {
            return Err(Error::IdentityNotAllowed("a URI has at most 1024 octets"));
        }
        no_pattern(uri)?;
        let (scheme, rest) = uri.split_once(':').ok_or(Error::IdentityNotAllowed("a URI needs a scheme"))?;
        let scheme_valid = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"+-.".contains(&octet));
        if !scheme_valid || rest.is_empty() || !rest.starts_with(|first: char| first != ':') {
            return Err(Error::IdentityNotAllowed("a URI is a scheme, a colon and a name"));
        }
        if !uri.bytes().all(|octet| octet.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(&octet)) {
            return Err(Error::IdentityNotAllowed("a URI holds only the characters of RFC 3986"));
        }
        Ok(Self::Uri(uri.to_string()))
    }

    /// The text of the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Email(text) | Self::Uri(text) => text,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Policies and watch lists read `*` as "any": whoever is called `*@example.com` would be taken for everybody there.
fn no_pattern(identity: &str) -> Result<(), Error> {
    if identity.contains('*') {
        return Err(Error::IdentityNotAllowed("an identity holds no *: policies read it as a pattern"));
    }
    Ok(())
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_ordinary_identities() {
        for address in ["dev@example.com", "first.last+tag@sub.example.org", "a@localhost"] {
            assert_eq!(Identity::email(address).unwrap().as_str(), address);
        }
        for uri in
            ["https://github.com/o/r/.github/workflows/ci.yml@refs/heads/main", "spiffe://td/ns/a", "urn:a:b"]
        {
            assert_eq!(Identity::uri(uri).unwrap().as_str(), uri);
        }
    }

    #[test]
    fn refuses_addresses_that_clients_read_differently() {
        for address in [
            "",
            "a",
            "@b",
            "a@",
            "a@b@c",
            "a b@c.org",
            "\"a\"@c.org",
            "a@-c.org",
            "a@c..org",
            "ä@c.org",
            ".a@c.org",
            "a\0@c.org",
            "a@c.org\n",
            "a@[127.0.0.1]",
            "*@example.com",
            "dev*@example.com",
        ] {
            assert!(matches!(Identity::email(address), Err(Error::IdentityNotAllowed(_))), "{address:?}");
        }
        let long = alloc::format!("{}@example.com", "a".repeat(65));
        assert!(Identity::email(&long).is_err());
    }

    #[test]
    fn refuses_uris_that_clients_read_differently() {
        for uri in [
            "",
            "x",
            ":",
            "http:",
            "1a:b",
            "https://a b",
            "https://a\"b",
            "https://ä",
            "https://a\n",
            "https://ci/*",
        ] {
            assert!(matches!(Identity::uri(uri), Err(Error::IdentityNotAllowed(_))), "{uri:?}");
        }
        assert!(Identity::uri(&alloc::format!("https://{}", "a".repeat(MAX_URI))).is_err());
    }
}
