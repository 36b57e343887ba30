//! Distinguished names (RFC 5280 §4.1.2.4) and their comparison (§7.1, RFC 4518).
//!
//! A name is compared in a canonical form that is computed once: attribute texts are decoded from whatever string
//! type they came in, case-folded, normalised (NFKC) and freed of insignificant spaces; the attributes of one RDN
//! are sorted. Every RDN is length-prefixed, so "is inside the subtree of" is "starts with".

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use unicode_normalization::UnicodeNormalization;

use crate::x690::{Element, Malformed, tag};

/// The most relative distinguished names in one name.
const MAX_RDNS: usize = 64;

/// The most attributes in one relative distinguished name.
const MAX_ATTRIBUTES: usize = 16;

/// A distinguished name in the form in which two equal names are equal octets.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CanonicalName(Box<[u8]>);

impl CanonicalName {
    /// Reads a DER `Name` (RDNSequence). The empty sequence is the empty name.
    pub fn from_element(name: Element<'_>) -> Result<Self, Malformed> {
        let mut canonical = Vec::with_capacity(name.content().len() + 32);
        let mut rdns = name.reader();
        let mut count = 0;
        while !rdns.is_empty() {
            count += 1;
            if count > MAX_RDNS {
                return Err(rdns.error("name has too many relative distinguished names"));
            }
            push_rdn(rdns.expect(tag::SET)?, &mut canonical)?;
        }
        Ok(Self(canonical.into_boxed_slice()))
    }

    /// The name that `self` becomes with one more RDN (the content of a `SET`) at its end: how a
    /// `nameRelativeToCRLIssuer` is meant (RFC 5280 §4.2.1.13).
    pub fn with_rdn(&self, rdn: Element<'_>) -> Result<Self, Malformed> {
        let mut canonical = self.0.to_vec();
        push_rdn(rdn, &mut canonical)?;
        Ok(Self(canonical.into_boxed_slice()))
    }

    /// Octets of the canonical form: what a comparison costs.
    pub(crate) fn length(&self) -> usize {
        self.0.len()
    }

    /// True for the name without any RDN.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if this name equals `base` or lies below it (RFC 5280 §4.2.1.10, directoryName).
    pub fn is_within(&self, base: &CanonicalName) -> bool {
        self.0.starts_with(&base.0)
    }
}

/// One attribute of a name.
#[derive(Clone, Copy, Debug)]
pub struct Attribute<'a> {
    /// Content octets of the attribute type's object identifier.
    pub kind: &'a [u8],
    /// The value with its string type.
    pub value: Element<'a>,
}

impl<'a> Attribute<'a> {
    /// Reads an `AttributeTypeAndValue`.
    pub fn from_element(element: Element<'a>) -> Result<Self, Malformed> {
        let mut fields = element.reader();
        let kind = fields.expect(tag::OID)?.oid()?;
        let value = fields.read()?;
        fields.finish()?;
        Ok(Self { kind, value })
    }

    /// The value as text; `None` if it is not a character string.
    pub fn text(&self) -> Result<Option<String>, Malformed> {
        decode_text(self.value)
    }
}

/// The attributes of a DER `Name`, in order; RDNs are flattened. Stops at the first malformed one, which a
/// name that was parsed before does not have.
pub fn attributes<'a>(name: Element<'a>) -> impl Iterator<Item = Attribute<'a>> {
    let mut rdns = name.reader();
    let mut current = None;
    core::iter::from_fn(move || {
        loop {
            let reader = match &mut current {
                Some(reader) => reader,
                None => current.insert(rdns.expect(tag::SET).ok()?.reader()),
            };
            if reader.is_empty() {
                current = None;
                continue;
            }
            return Attribute::from_element(reader.expect(tag::SEQUENCE).ok()?).ok();
        }
    })
}

fn push_rdn(rdn: Element<'_>, canonical: &mut Vec<u8>) -> Result<(), Malformed> {
    let start = canonical.len();
    canonical.extend_from_slice(&[0; 4]);
    let mut attributes = rdn.reader();
    let first = attributes.expect(tag::SEQUENCE)?;
    push_attribute(Attribute::from_element(first)?, canonical)?;
    if !attributes.is_empty() {
        let first = canonical.split_off(start + 4);
        let mut all = Vec::from([first]);
        while !attributes.is_empty() {
            if all.len() >= MAX_ATTRIBUTES {
                return Err(attributes.error("relative distinguished name has too many attributes"));
            }
            let mut next = Vec::new();
            push_attribute(Attribute::from_element(attributes.expect(tag::SEQUENCE)?)?, &mut next)?;
            all.push(next);
        }
        all.sort_unstable();
        all.iter().for_each(|attribute| canonical.extend_from_slice(attribute));
    }
    let length = u32::try_from(canonical.len() - start - 4).unwrap_or(u32::MAX);
    if let Some(prefix) = canonical.get_mut(start..start + 4) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// Appends `length of type, type, kind of value, length of value, value`.
fn push_attribute(attribute: Attribute<'_>, canonical: &mut Vec<u8>) -> Result<(), Malformed> {
    let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
    canonical.extend_from_slice(&length(attribute.kind.len()));
    canonical.extend_from_slice(attribute.kind);
    // Texts share one kind whatever their string type; other values keep their tag.
    let start = canonical.len() + 1;
    let value = attribute.value;
    if is_ascii_text(&value) {
        canonical.push(0);
        canonical.extend_from_slice(&[0; 4]);
        fold_ascii(value.content(), canonical);
    } else if let Some(text) = decode_text(value)? {
        canonical.push(0);
        canonical.extend_from_slice(&[0; 4]);
        let folded: String =
            text.chars().filter_map(map_character).flat_map(char::to_lowercase).nfkc().collect();
        collapse_spaces(&folded, canonical);
    } else {
        canonical.push(value.tag());
        canonical.extend_from_slice(&[0; 4]);
        canonical.extend_from_slice(value.content());
    }
    let written = length(canonical.len() - start - 4);
    if let Some(prefix) = canonical.get_mut(start..start + 4) {
        prefix.copy_from_slice(&written);
    }
    Ok(())
}

fn is_ascii_text(value: &Element<'_>) -> bool {
    matches!(
        value.tag(),
        tag::PRINTABLE_STRING
            | tag::UTF8_STRING
            | tag::IA5_STRING
            | tag::NUMERIC_STRING
            | tag::VISIBLE_STRING
    ) && value.content().iter().all(|b| (0x20..0x7f).contains(b))
}

fn fold_ascii(text: &[u8], out: &mut Vec<u8>) {
    let mut pending_space = false;
    let start = out.len();
    for octet in text {
        if *octet == b' ' {
            pending_space = out.len() > start;
        } else {
            if pending_space {
                out.push(b' ');
                pending_space = false;
            }
            out.push(octet.to_ascii_lowercase());
        }
    }
}

fn collapse_spaces(text: &str, out: &mut Vec<u8>) {
    for (i, word) in text.split(' ').filter(|word| !word.is_empty()).enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word.as_bytes());
    }
}

/// RFC 4518 §2.2: controls and other invisible characters vanish, white space becomes a space.
fn map_character(c: char) -> Option<char> {
    match c {
        '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | '\u{85}' => Some(' '),
        c if c.is_whitespace() => Some(' '),
        '\u{ad}' | '\u{34f}' | '\u{1806}' | '\u{180b}'..='\u{180e}' | '\u{200b}'..='\u{200f}' => None,
        '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}' | '\u{feff}' => None,
        '\u{fe00}'..='\u{fe0f}' | '\u{fff9}'..='\u{fffc}' => None,
        c if c.is_control() => None,
        c => Some(c),
    }
}

/// Decodes a character string; `None` for values of other types.
fn decode_text(value: Element<'_>) -> Result<Option<String>, Malformed> {
    let content = value.content();
    let text = match value.tag() {
        tag::UTF8_STRING => {
            Some(core::str::from_utf8(content).map_err(|_| value.error("text is not UTF-8"))?.into())
        }
        tag::PRINTABLE_STRING | tag::IA5_STRING | tag::NUMERIC_STRING | tag::VISIBLE_STRING => {
            let ascii = core::str::from_utf8(content).ok().filter(|text| text.is_ascii());
            Some(ascii.ok_or(value.error("text is not ASCII"))?.into())
        }
        // T.61 never had one meaning; every issuer that used it wrote Latin-1.
        tag::TELETEX_STRING => Some(content.iter().map(|b| char::from(*b)).collect()),
        tag::BMP_STRING => {
            let (pairs, rest) = content.as_chunks::<2>();
            let units = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
            let text: Result<String, _> = char::decode_utf16(units).collect();
            Some(text.ok().filter(|_| rest.is_empty()).ok_or(value.error("text is not UTF-16"))?)
        }
        tag::UNIVERSAL_STRING => {
            let (quads, rest) = content.as_chunks::<4>();
            let text: Option<String> =
                quads.iter().map(|quad| char::from_u32(u32::from_be_bytes(*quad))).collect();
            Some(text.filter(|_| rest.is_empty()).ok_or(value.error("text is not UTF-32"))?)
        }
        _ => None,
    };
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x690::Reader;
    use alloc::vec;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![tag, u8::try_from(content.len()).unwrap()];
        out.extend_from_slice(content);
        out
    }

    fn attribute(kind: u8, tag_of_value: u8, value: &[u8]) -> Vec<u8> {
        tlv(tag::SEQUENCE, &[tlv(tag::OID, &[0x55, 4, kind]), tlv(tag_of_value, value)].concat())
    }

    fn name(rdns: &[&[Vec<u8>]]) -> CanonicalName {
        let sets: Vec<u8> = rdns.iter().flat_map(|rdn| tlv(tag::SET, &rdn.concat())).collect();
        CanonicalName::from_element(Reader::only(&tlv(tag::SEQUENCE, &sets), tag::SEQUENCE).unwrap()).unwrap()
    }

    #[test]
    fn equal_across_string_types_case_and_spaces() {
        let plain = name(&[&[attribute(10, tag::PRINTABLE_STRING, b"good co")]]);
        for (kind, value) in [
            (tag::UTF8_STRING, &b"  Good   CO "[..]),
            (tag::TELETEX_STRING, b"GOOD co"),
            (tag::BMP_STRING, b"\0g\0o\0o\0d\0 \0C\0O"),
            (tag::UNIVERSAL_STRING, b"\0\0\0g\0\0\0o\0\0\0o\0\0\0d\0\0\0 \0\0\0c\0\0\0o"),
            (tag::UTF8_STRING, "go\u{ad}od\u{a0}co".as_bytes()),
            (tag::UTF8_STRING, "ｇｏｏｄ co".as_bytes()),
        ] {
            assert_eq!(name(&[&[attribute(10, kind, value)]]), plain, "{value:?}");
        }
    }

    #[test]
    fn different_types_values_and_order_differ() {
        let cn = |value: &[u8]| attribute(3, tag::UTF8_STRING, value);
        let o = |value: &[u8]| attribute(10, tag::UTF8_STRING, value);
        assert_ne!(name(&[&[cn(b"a")]]), name(&[&[o(b"a")]]));
        assert_ne!(name(&[&[cn(b"a")]]), name(&[&[cn(b"b")]]));
        assert_ne!(name(&[&[cn(b"a")], &[o(b"b")]]), name(&[&[o(b"b")], &[cn(b"a")]]));
        assert_ne!(name(&[&[cn(b"a b")]]), name(&[&[cn(b"ab")]]));
        assert_eq!(name(&[&[cn(b"a"), o(b"b")]]), name(&[&[o(b"B"), cn(b"A")]]));
    }

    #[test]
    fn subtree_holds_only_on_whole_rdns() {
        let o = |value: &[u8]| attribute(10, tag::UTF8_STRING, value);
        let base = name(&[&[o(b"mentat")]]);
        assert!(base.is_within(&base));
        assert!(name(&[&[o(b"Mentat")], &[o(b"x")]]).is_within(&base));
        assert!(!name(&[&[o(b"mentats")]]).is_within(&base));
        assert!(!name(&[]).is_within(&base));
        assert!(base.is_within(&name(&[])));
    }

    #[test]
    fn refuses_text_that_does_not_decode() {
        for (kind, value) in [
            (tag::UTF8_STRING, &[0xff][..]),
            (tag::PRINTABLE_STRING, &[0xe9]),
            (tag::BMP_STRING, &[0]),
            (tag::BMP_STRING, &[0xd8, 0]),
            (tag::UNIVERSAL_STRING, &[0, 0x11, 0, 0]),
        ] {
            let der = tlv(tag::SEQUENCE, &tlv(tag::SET, &attribute(3, kind, value)));
            assert!(CanonicalName::from_element(Reader::only(&der, tag::SEQUENCE).unwrap()).is_err());
        }
    }
}
