//! Distinguished names: typed fields in, one DER encoding out (RFC 5280 §4.1.2.4 and appendix A upper bounds).

use alloc::string::String;
use alloc::vec::Vec;

use const_oid::ObjectIdentifier;
use der::Decode;
use x509_cert::name::Name;

use crate::error::Error;
use crate::{encoding, oid};

/// Largest encoded name this CA reads or writes, in octets.
pub const MAX_NAME: usize = 4096;

/// The attributes of a name as configuration gives them; all optional, at least one present.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NameFields {
    /// countryName: two upper-case letters (ISO 3166-1).
    pub country: Option<String>,
    /// stateOrProvinceName, at most 128 characters.
    pub state: Option<String>,
    /// localityName, at most 128 characters.
    pub locality: Option<String>,
    /// organizationName, at most 64 characters.
    pub organization: Option<String>,
    /// organizationalUnitName, at most 64 characters; vetted by whoever writes the configuration.
    pub organizational_unit: Option<String>,
    /// commonName, at most 64 characters.
    pub common_name: Option<String>,
}

/// A distinguished name as its DER encoding; two names are equal when their bytes are (requirement C10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistinguishedName {
    der: Vec<u8>,
}

impl DistinguishedName {
    /// The empty name of keyless certificates.
    #[must_use]
    pub fn empty() -> Self {
        Self { der: encoding::tlv(encoding::SEQUENCE, &[]) }
    }

    /// Encodes the fields in the order country, state, locality, organization, unit, common name.
    ///
    /// # Errors
    /// [`Error::NameNotAllowed`] when a value is empty, too long, only punctuation, or the country is not two letters.
    pub fn from_fields(fields: &NameFields) -> Result<Self, Error> {
        let attributes: [(&ObjectIdentifier, &Option<String>, usize); 6] = [
            (&oid::COUNTRY, &fields.country, 2),
            (&oid::STATE, &fields.state, 128),
            (&oid::LOCALITY, &fields.locality, 128),
            (&oid::ORGANIZATION, &fields.organization, 64),
            (&oid::ORGANIZATIONAL_UNIT, &fields.organizational_unit, 64),
            (&oid::COMMON_NAME, &fields.common_name, 64),
        ];
        let mut rdns = Vec::new();
        for (attribute, value, limit) in attributes {
            let Some(value) = value else { continue };
            rdns.push(relative_name(attribute, value, limit)?);
        }
        if rdns.is_empty() {
            return Err(Error::NameNotAllowed("a name needs at least one attribute"));
        }
        let parts: Vec<&[u8]> = rdns.iter().map(Vec::as_slice).collect();
        Self::from_der(&encoding::tlv(encoding::SEQUENCE, &parts))
    }

    /// Takes a name as it stands in a certificate.
    ///
    /// # Errors
    /// [`Error::TooLarge`] or [`Error::Malformed`].
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        if der.len() > MAX_NAME {
            return Err(Error::TooLarge { what: "name", limit: MAX_NAME });
        }
        Name::from_der(der).map_err(Error::malformed("name"))?;
        Ok(Self { der: der.to_vec() })
    }

    /// The DER encoding.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// RFC 4514 text for people. Made when it is asked for: it looks each attribute up among all that have a short name.
    #[must_use]
    pub fn to_text(&self) -> String {
        Name::from_der(&self.der).map_or_else(|_| String::new(), |name| alloc::format!("{name}"))
    }

    /// True for the empty sequence.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.der == [0x30, 0]
    }
}

fn relative_name(attribute: &ObjectIdentifier, value: &str, limit: usize) -> Result<Vec<u8>, Error> {
    if value.chars().count() > limit {
        return Err(Error::NameNotAllowed("a value is longer than RFC 5280 allows"));
    }
    // CSBR §7.1.4.2: a value made of punctuation and spaces says that there is none.
    if !value.chars().any(char::is_alphanumeric) {
        return Err(Error::NameNotAllowed("a value needs a letter or a digit"));
    }
    if value.chars().any(char::is_control) || value.trim() != value {
        return Err(Error::NameNotAllowed("a value holds control characters or outer spaces"));
    }
    let string = if *attribute == oid::COUNTRY {
        if value.len() != 2 || !value.bytes().all(|octet| octet.is_ascii_uppercase()) {
            return Err(Error::NameNotAllowed("a country is two upper-case letters"));
        }
        encoding::tlv(encoding::PRINTABLE_STRING, &[value.as_bytes()])
    } else {
        encoding::tlv(encoding::UTF8_STRING, &[value.as_bytes()])
    };
    let pair = encoding::tlv(encoding::SEQUENCE, &[&encoding::oid(attribute), &string]);
    Ok(encoding::tlv(encoding::SET, &[&pair]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(common_name: &str) -> NameFields {
        NameFields {
            country: Some("US".into()),
            organization: Some("MentatLab".into()),
            common_name: Some(common_name.into()),
            ..NameFields::default()
        }
    }

    #[test]
    fn writes_the_names_of_the_hierarchy() {
        let name = DistinguishedName::from_fields(&fields("MentatLab Root CA")).unwrap();
        assert_eq!(name.to_text(), "CN=MentatLab Root CA,O=MentatLab,C=US");
        assert_eq!(DistinguishedName::from_der(name.as_der()).unwrap(), name);
        assert!(DistinguishedName::empty().is_empty());
    }

    #[test]
    fn refuses_values_that_say_nothing_or_too_much() {
        for bad in ["", "-", " ", ".", "a\0b", " a", &"a".repeat(65)] {
            assert!(
                matches!(DistinguishedName::from_fields(&fields(bad)), Err(Error::NameNotAllowed(_))),
                "{bad:?}"
            );
        }
        let country = NameFields { country: Some("usa".into()), ..NameFields::default() };
        assert!(DistinguishedName::from_fields(&country).is_err());
        assert!(DistinguishedName::from_fields(&NameFields::default()).is_err());
    }
}
