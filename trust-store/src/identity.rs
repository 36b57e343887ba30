//! Who signed: the alternative name and the issuer that vouched for it, or a key that the policy names.
//!
//! An identity is never a display name: the subject's common name decides nothing.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use core::fmt;

use const_oid::ObjectIdentifier;

use crate::certificate::Certificate;
use crate::general_name::GeneralName;
use crate::name;
use crate::oid;
use crate::reason::{Denial, ReasonCode};
use crate::x690::{Reader, tag};

/// Sigstore's OIDC issuer extension, version 1: raw bytes.
pub const ISSUER_V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.1");
/// Sigstore's OIDC issuer extension, version 2: DER UTF8String.
pub const ISSUER_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.8");

/// What kind of name a subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubjectKind {
    /// A mailbox, from a certificate's alternative name.
    Email,
    /// The name of a key in the policy; no certificate is involved.
    Key,
    /// A URI, from a certificate's alternative name.
    Uri,
}

/// Longest subject and longest issuer, bytes. Records of what was verified repeat them.
pub const MAX_NAME: usize = 1024;

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    kind: SubjectKind,
    subject: String,
    issuer: Option<String>,
}

impl Identity {
    /// The identity that a certificate states: its only alternative name, which is a mailbox or a URI, and the issuer
    /// extension. Both issuer extensions, where both are there, must agree.
    ///
    /// # Errors
    /// `identity_denied` for none or several alternative names, another kind of name, one of more than [`MAX_NAME`] bytes, or issuers
    /// that disagree.
    pub fn of_certificate(certificate: &Certificate) -> Result<Self, Denial> {
        let denied = |detail: &'static str| Denial::new(ReasonCode::IdentityDenied, detail);
        let mut names = certificate.subject_alternative_names();
        let (kind, subject) = match (names.next(), names.next()) {
            (Some(GeneralName::Email(email)), None) => (SubjectKind::Email, email.to_owned()),
            (Some(GeneralName::Uri(uri)), None) => (SubjectKind::Uri, uri.to_owned()),
            (None, _) => return Err(denied("the certificate has no alternative name")),
            (Some(_), None) => return Err(denied("the alternative name is neither a mailbox nor a URI")),
            (Some(_), Some(_)) => return Err(denied("the certificate has several alternative names")),
        };
        let v1 = certificate.extension(&ISSUER_V1).map(|(value, _)| core::str::from_utf8(value).ok());
        let v2 = certificate.extension(&ISSUER_V2).map(|(value, _)| {
            let text = Reader::only(value, tag::UTF8_STRING).ok()?;
            core::str::from_utf8(text.content()).ok()
        });
        let issuer = match (v1, v2) {
            (None, None) => None,
            (Some(Some(issuer)), None) | (None, Some(Some(issuer))) => Some(issuer.to_owned()),
            (Some(Some(first)), Some(Some(second))) if first == second => Some(first.to_owned()),
            _ => return Err(denied("the issuer extensions are malformed or disagree")),
        };
        if subject.len() > MAX_NAME || issuer.as_ref().is_some_and(|issuer| issuer.len() > MAX_NAME) {
            return Err(denied("the alternative name or the issuer is longer than 1,024 bytes"));
        }
        Ok(Self { kind, subject, issuer })
    }

    /// The identity of a key that the policy names.
    pub(crate) fn of_key(name: &str) -> Self {
        Self { kind: SubjectKind::Key, subject: name.to_owned(), issuer: None }
    }

    /// What kind of name [`Identity::subject`] is.
    pub fn kind(&self) -> SubjectKind {
        self.kind
    }

    /// The mailbox, URI or key name.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Who vouched for the subject (an OIDC issuer URL); `None` if the certificate does not say.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.issuer {
            Some(issuer) => write!(f, "{} (issuer {issuer})", self.subject),
            None => f.write_str(&self.subject),
        }
    }
}

/// The subject of a certificate as RFC 4514 text, for readers: `CN=dev@example.com,O=MentatLab,C=US`.
pub fn subject_text(certificate: &Certificate) -> String {
    distinguished_name(certificate.subject_der())
}

/// The issuer of a certificate as RFC 4514 text, for readers.
pub fn issuer_text(certificate: &Certificate) -> String {
    distinguished_name(certificate.issuer_der())
}

/// The organisation that a certificate's subject names, if it names exactly one.
pub fn organization(certificate: &Certificate) -> Option<String> {
    only_organization(certificate.subject_der())
}

fn only_organization(name_der: &[u8]) -> Option<String> {
    let subject = Reader::only(name_der, tag::SEQUENCE).ok()?;
    let mut named = name::attributes(subject).filter(|attribute| attribute.kind == ORGANIZATION);
    let (only, further) = (named.next()?, named.next());
    if further.is_some() {
        return None;
    }
    only.text().ok().flatten()
}

/// `organizationName` of X.520.
const ORGANIZATION: [u8; 3] = [0x55, 0x04, 0x0a];

fn distinguished_name(der: &[u8]) -> String {
    let Ok(element) = Reader::only(der, tag::SEQUENCE) else { return String::new() };
    let mut attributes: alloc::vec::Vec<String> = name::attributes(element)
        .map(|attribute| {
            let kind = short_name(attribute.kind);
            let value = match attribute.text() {
                Ok(Some(text)) => escape(&text),
                _ => alloc::format!("#{}", hex::encode(attribute.value.der())),
            };
            alloc::format!("{kind}={value}")
        })
        .collect();
    // RFC 4514 section 2.1 starts with the last element.
    attributes.reverse();
    attributes.join(",")
}

fn short_name(kind: &[u8]) -> String {
    let name = match kind {
        [0x55, 0x04, 0x03] => "CN",
        [0x55, 0x04, 0x06] => "C",
        [0x55, 0x04, 0x07] => "L",
        [0x55, 0x04, 0x08] => "ST",
        _ if kind == ORGANIZATION => "O",
        [0x55, 0x04, 0x0b] => "OU",
        _ if kind == oid::EMAIL_ADDRESS.as_bytes() => "emailAddress",
        _ => return oid::dotted(kind),
    };
    name.to_string()
}

/// RFC 4514 section 2.4; control characters are escaped too, because the text is printed.
fn escape(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (index, character) in text.chars().enumerate() {
        let edge_space = character == ' ' && (index == 0 || index == last);
        if character.is_control() {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                out.push_str(&alloc::format!("\\{byte:02x}"));
            }
            continue;
        }
        if edge_space
            || (character == '#' && index == 0)
            || matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
        {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_for_printing() {
        assert_eq!(escape(" a,b+\\\u{1b}# "), "\\ a\\,b\\+\\\\\\1b#\\ ");
        assert_eq!(escape("#a"), "\\#a");
    }

    #[test]
    fn a_name_with_two_organisations_has_none() {
        let organization = |text: &str| only_organization(&crate::name_text::parse(text).unwrap());
        assert_eq!(organization("CN=a,OU=b,O=Example\\, Inc.,C=US").as_deref(), Some("Example, Inc."));
        assert_eq!(organization("CN=a+O=b,C=US").as_deref(), Some("b"));
        for none in ["", "CN=a", "CN=O\\=b", "O=a,O=b", "O=a+O=b"] {
            assert_eq!(organization(none), None, "{none}");
        }
    }
}
