//! The text form of distinguished names (RFC 4514), for people and for configuration.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use const_oid::ObjectIdentifier;

use crate::name::Attribute;
use crate::oid;
use crate::reason::{Denial, ReasonCode};
use crate::x690::{Reader, tag};

/// The longest text that is read, in octets.
const MAX_LENGTH: usize = 4_096;

/// Short names of the attribute types of RFC 4514 §3 and a few common ones.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("CN", "2.5.4.3"),
    ("SN", "2.5.4.4"),
    ("SERIALNUMBER", "2.5.4.5"),
    ("C", "2.5.4.6"),
    ("L", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("STREET", "2.5.4.9"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("TITLE", "2.5.4.12"),
    ("GIVENNAME", "2.5.4.42"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("EMAILADDRESS", "1.2.840.113549.1.9.1"),
];

/// The text of a DER name, the most specific attribute first; what is not text is written as `#` and hexadecimal.
pub fn format_name(name_der: &[u8]) -> String {
    let Ok(name) = Reader::only(name_der, tag::SEQUENCE) else { return String::new() };
    let mut rdns = name.reader();
    let mut parts: Vec<String> = Vec::new();
    while let Ok(rdn) = rdns.expect(tag::SET) {
        let mut pairs = rdn.reader();
        let mut texts: Vec<String> = Vec::new();
        while let Ok(attribute) = pairs.expect(tag::SEQUENCE).and_then(Attribute::from_element) {
            texts.push(format_attribute(&attribute));
        }
        parts.push(texts.join("+"));
    }
    parts.reverse();
    parts.join(",")
}

fn format_attribute(attribute: &Attribute<'_>) -> String {
    let dotted = oid::dotted(attribute.kind);
    let short = SHORT_NAMES.iter().find(|(_, id)| *id == dotted);
    let kind = short.map_or(dotted.as_str(), |(name, _)| *name);
    match attribute.text() {
        Ok(Some(text)) => format!("{kind}={}", escape(&text)),
        _ => format!("{kind}=#{}", hex::encode(attribute.value.der())),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (i, c) in text.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=')
            || (c == ' ' && (i == 0 || i == last))
            || (c == '#' && i == 0);
        if c.is_control() {
            let mut octets = [0; 4];
            c.encode_utf8(&mut octets).bytes().for_each(|octet| escaped.push_str(&format!("\\{octet:02x}")));
        } else {
            if special {
                escaped.push('\\');
            }
            escaped.push(c);
        }
    }
    escaped
}

/// Reads an RFC 4514 text into a DER name with UTF8String values. Multi-valued RDNs are joined by `+`.
///
/// # Errors
/// `malformed`, `too_large`
pub fn parse(text: &str) -> Result<Vec<u8>, Denial> {
    if text.len() > MAX_LENGTH {
        return Err(Denial::new(ReasonCode::TooLarge, "the name is longer than 4,096 octets"));
    }
    let mut rdns: Vec<Vec<u8>> = Vec::new();
    if !text.trim().is_empty() {
        for rdn in split(text, ',')? {
            let mut pairs: Vec<Vec<u8>> =
                split(&rdn, '+')?.iter().map(|pair| pair_der(pair)).collect::<Result<_, _>>()?;
            pairs.sort_unstable();
            rdns.push(wrap(tag::SET, &pairs.concat()));
        }
    }
    rdns.reverse();
    Ok(wrap(tag::SEQUENCE, &rdns.concat()))
}

fn malformed() -> Denial {
    Denial::new(ReasonCode::Malformed, "not an RFC 4514 name")
}

/// Splits at a separator that is not escaped; escapes stay.
fn split(text: &str, separator: char) -> Result<Vec<String>, Denial> {
    let mut parts = Vec::from([String::new()]);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        let last = parts.last_mut().ok_or(malformed())?;
        if c == '\\' {
            last.push(c);
            last.push(characters.next().ok_or(malformed())?);
        } else if c == separator {
            parts.push(String::new());
        } else {
            last.push(c);
        }
    }
    Ok(parts)
}

fn pair_der(pair: &str) -> Result<Vec<u8>, Denial> {
    let (kind, value) = pair.split_once('=').ok_or(malformed())?;
    let kind = kind.trim();
    let known = SHORT_NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(kind));
    let id = ObjectIdentifier::new(known.map_or(kind, |(_, id)| *id)).map_err(|_| malformed())?;
    let value = match value.trim_start_matches(' ').strip_prefix('#') {
        Some(encoded) => element(hex::decode(encoded.trim()).map_err(|_| malformed())?)?,
        None => wrap(tag::UTF8_STRING, unescape(value)?.as_bytes()),
    };
    Ok(wrap(tag::SEQUENCE, &[wrap(tag::OID, id.as_bytes()), value].concat()))
}

/// Octets that are one DER element: anything else would make a name that nobody can read.
fn element(der: Vec<u8>) -> Result<Vec<u8>, Denial> {
    let mut reader = Reader::new(&der).map_err(|_| malformed())?;
    reader.read().and_then(|_| reader.finish()).map_err(|_| malformed())?;
    Ok(der)
}

fn unescape(value: &str) -> Result<String, Denial> {
    let mut octets = Vec::new();
    // Only spaces are insignificant (RFC 4514 section 2.4); other white space is part of the value.
    let mut characters = value.trim_start_matches(' ').chars().peekable();
    let mut significant = 0;
    while let Some(c) = characters.next() {
        if c == '\\' {
            let next = characters.next().ok_or(malformed())?;
            match (next.to_digit(16), characters.peek().and_then(|c| c.to_digit(16))) {
                (Some(high), Some(low)) => {
                    characters.next();
                    octets.push(u8::try_from(high << 4 | low).map_err(|_| malformed())?);
                }
                _ => octets.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            significant = octets.len();
        } else {
            octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            if c != ' ' {
                significant = octets.len();
            }
        }
    }
    octets.truncate(significant);
    core::str::from_utf8(&octets).map(ToOwned::to_owned).map_err(|_| malformed())
}

/// One element around a content below 64 KiB.
pub(crate) fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = Vec::from([tag]);
    match u8::try_from(content.len()) {
        Ok(short @ 0..=0x7f) => der.push(short),
        Ok(long) => der.extend_from_slice(&[0x81, long]),
        Err(_) => {
            let length = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
            der.push(0x82);
            der.extend_from_slice(&length);
        }
    }
    der.extend_from_slice(content);
    der
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::CanonicalName;

    fn canonical(der: &[u8]) -> CanonicalName {
        CanonicalName::from_element(Reader::only(der, tag::SEQUENCE).unwrap()).unwrap()
    }

    #[test]
    fn text_round_trips() {
        for text in [
            "CN=a,O=b",
            "CN=a+CN=b",
            "CN=a+OU=b,L=d+O=c",
            "CN=\u{a0}",
            "CN=a\\, b\\=c,O=\\ x\\ ",
            "2.5.4.97=id,C=DE",
            "CN=\\00x",
            "",
            "DC=example,DC=com",
        ] {
            let der = parse(text).unwrap();
            assert_eq!(format_name(&der), text);
        }
    }

    #[test]
    fn spaces_case_and_hexadecimal_are_read() {
        let plain = canonical(&parse("CN=Lu\\C4\\8Di\\C4\\87,O=Example").unwrap());
        assert_eq!(canonical(&parse(" cn = Lučić , o = example").unwrap()), plain);
        assert_eq!(canonical(&parse("CN=#0c034c7561").unwrap()), canonical(&parse("cn=lua").unwrap()));
        for bad in ["CN", "=a", "X=a", "CN=a\\", "CN=#0", "CN=#0c05", "CN=#050000", "CN=\\ff"] {
            assert_eq!(parse(bad).unwrap_err().code, ReasonCode::Malformed, "{bad}");
        }
    }
}
