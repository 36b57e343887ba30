//! Strict DER (ITU-T X.690 §8 and §10) over borrowed bytes.
//!
//! One cursor over one buffer: every element knows its place in the whole input, so a parsed structure can keep one
//! owned copy and [`Span`]s into it. Lengths are definite and minimal, booleans and integers canonical, tag numbers
//! below 31, and a reader that is not used up is an error. Nothing here allocates, recurses or indexes.

use alloc::format;

use crate::reason::{Denial, ReasonCode};
use crate::time::UnixTime;

/// Tag octets of the universal types that X.509 uses, and of context-specific ones.
pub mod tag {
    /// BOOLEAN
    pub const BOOLEAN: u8 = 0x01;
    /// INTEGER
    pub const INTEGER: u8 = 0x02;
    /// BIT STRING
    pub const BIT_STRING: u8 = 0x03;
    /// OCTET STRING
    pub const OCTET_STRING: u8 = 0x04;
    /// NULL
    pub const NULL: u8 = 0x05;
    /// OBJECT IDENTIFIER
    pub const OID: u8 = 0x06;
    /// ENUMERATED
    pub const ENUMERATED: u8 = 0x0a;
    /// UTF8String
    pub const UTF8_STRING: u8 = 0x0c;
    /// NumericString
    pub const NUMERIC_STRING: u8 = 0x12;
    /// PrintableString
    pub const PRINTABLE_STRING: u8 = 0x13;
    /// TeletexString
    pub const TELETEX_STRING: u8 = 0x14;
    /// IA5String
    pub const IA5_STRING: u8 = 0x16;
    /// UTCTime
    pub const UTC_TIME: u8 = 0x17;
    /// GeneralizedTime
    pub const GENERALIZED_TIME: u8 = 0x18;
    /// VisibleString
    pub const VISIBLE_STRING: u8 = 0x1a;
    /// UniversalString
    pub const UNIVERSAL_STRING: u8 = 0x1c;
    /// BMPString
    pub const BMP_STRING: u8 = 0x1e;
    /// SEQUENCE, constructed
    pub const SEQUENCE: u8 = 0x30;
    /// SET, constructed
    pub const SET: u8 = 0x31;

    /// `[number]`, primitive; `number` below 31.
    pub const fn primitive(number: u8) -> u8 {
        0x80 | (number & 0x1f)
    }

    /// `[number]`, constructed; `number` below 31.
    pub const fn constructed(number: u8) -> u8 {
        0xa0 | (number & 0x1f)
    }
}

/// Why and where the input is not strict DER of the expected shape.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Malformed {
    /// Offset in the whole input, in octets.
    pub position: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl Malformed {
    /// A denial with code `malformed` that names the structure and the offset.
    pub fn denial(self, structure: &'static str) -> Denial {
        Denial::new(ReasonCode::Malformed, format!("{structure}: {} at offset {}", self.what, self.position))
    }
}

/// A place in an input that was parsed: `start..end` in octets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The octets of this span in `whole`; empty if `whole` is not the input the span came from.
    pub fn of<'a>(&self, whole: &'a [u8]) -> &'a [u8] {
        whole.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Offset of the first octet.
    pub fn start(&self) -> usize {
        self.start as usize
    }
}

/// One element: tag, header and content, with its place in the input.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    whole: &'a [u8],
    tag: u8,
    start: usize,
    content_start: usize,
    end: usize,
}

impl<'a> Element<'a> {
    /// The tag octet.
    pub fn tag(&self) -> u8 {
        self.tag
    }

    /// The content octets.
    pub fn content(&self) -> &'a [u8] {
        self.whole.get(self.content_start..self.end).unwrap_or_default()
    }

    /// The whole encoding: tag, length and content.
    pub fn der(&self) -> &'a [u8] {
        self.whole.get(self.start..self.end).unwrap_or_default()
    }

    /// The place of [`Element::der`] in the input.
    pub fn span(&self) -> Span {
        span(self.start, self.end)
    }

    /// The place of [`Element::content`] in the input.
    pub fn content_span(&self) -> Span {
        span(self.content_start, self.end)
    }

    /// A reader over the content.
    pub fn reader(&self) -> Reader<'a> {
        Reader { whole: self.whole, position: self.content_start, end: self.end }
    }

    /// An error at this element.
    pub fn error(&self, what: &'static str) -> Malformed {
        Malformed { position: self.start, what }
    }

    /// The value of a BOOLEAN: 0x00 or 0xff.
    pub fn boolean(&self) -> Result<bool, Malformed> {
        match self.content() {
            [0x00] => Ok(false),
            [0xff] => Ok(true),
            _ => Err(self.error("BOOLEAN is not canonical")),
        }
    }

    /// The content of an INTEGER or ENUMERATED in minimal two's complement; never empty.
    pub fn integer(&self) -> Result<&'a [u8], Malformed> {
        let content = self.content();
        match content {
            [] => Err(self.error("INTEGER is empty")),
            [0x00, second, ..] if *second < 0x80 => Err(self.error("INTEGER is not minimal")),
            [0xff, second, ..] if *second >= 0x80 => Err(self.error("INTEGER is not minimal")),
            _ => Ok(content),
        }
    }

    /// The value of a non-negative INTEGER below 2^32.
    pub fn small_integer(&self) -> Result<u32, Malformed> {
        let content = self.integer()?;
        if content.first().is_some_and(|b| *b >= 0x80) {
            return Err(self.error("INTEGER is negative"));
        }
        if content.len() > 5 {
            return Err(self.error("INTEGER is too large"));
        }
        let value = content.iter().fold(0_u64, |sum, b| sum << 8 | u64::from(*b));
        u32::try_from(value).map_err(|_| self.error("INTEGER is too large"))
    }

    /// The content of an OBJECT IDENTIFIER after a check that its sub-identifiers are minimal and complete.
    pub fn oid(&self) -> Result<&'a [u8], Malformed> {
        let content = self.content();
        let mut at_start = true;
        for octet in content {
            if at_start && *octet == 0x80 {
                return Err(self.error("OBJECT IDENTIFIER is not minimal"));
            }
            at_start = octet & 0x80 == 0;
        }
        if content.is_empty() || !at_start {
            return Err(self.error("OBJECT IDENTIFIER is incomplete"));
        }
        Ok(content)
    }

    /// The octets of a BIT STRING and the number of unused bits, which are zero.
    pub fn bit_string(&self) -> Result<(&'a [u8], u8), Malformed> {
        let (unused, bits) =
            self.content().split_first().ok_or(self.error("BIT STRING has no count of unused bits"))?;
        let last = bits.last().copied().unwrap_or(0);
        let padding = (1_u16 << (*unused).min(8)) - 1;
        if *unused > 7 || (bits.is_empty() && *unused != 0) || u16::from(last) & padding != 0 {
            return Err(self.error("BIT STRING has bad padding"));
        }
        Ok((bits, *unused))
    }

    /// The octets of a BIT STRING whose length is a multiple of eight, with their place.
    pub fn octet_bit_string(&self) -> Result<Span, Malformed> {
        match self.bit_string()? {
            (_, 0) => Ok(span(self.content_start + 1, self.end)),
            _ => Err(self.error("BIT STRING is not a whole number of octets")),
        }
    }

    /// A named bit list of at most 16 bits, bit 0 in the most significant place; trailing zero bits are refused
    /// (X.690 §11.2.2).
    pub fn named_bits(&self) -> Result<u16, Malformed> {
        let (bits, unused) = self.bit_string()?;
        if let Some(last) = bits.last()
            && last >> unused & 1 == 0
        {
            return Err(self.error("named bit list has trailing zero bits"));
        }
        match bits {
            [] => Ok(0),
            [high] => Ok(u16::from(*high) << 8),
            [high, low] => Ok(u16::from(*high) << 8 | u16::from(*low)),
            _ => Err(self.error("named bit list is too long")),
        }
    }

    /// The time of a `UTCTime` or `GeneralizedTime` in the forms of RFC 5280 §4.1.2.5.
    pub fn time(&self) -> Result<UnixTime, Malformed> {
        match self.tag {
            tag::UTC_TIME => UnixTime::from_utc_time(self.content()),
            tag::GENERALIZED_TIME => UnixTime::from_generalized_time(self.content()),
            _ => None,
        }
        .ok_or(self.error("time is not canonical"))
    }

    /// The text of an IA5String or a context-specific type that stands for one: ASCII without control characters.
    pub fn ia5(&self) -> Result<&'a str, Malformed> {
        let content = self.content();
        if !content.iter().all(|b| (0x20..0x7f).contains(b)) {
            return Err(self.error("text is not printable ASCII"));
        }
        core::str::from_utf8(content).map_err(|_| self.error("text is not ASCII"))
    }
}

/// A cursor over a sequence of elements.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    whole: &'a [u8],
    position: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// A reader over a whole input, which must be shorter than 4 GiB.
    pub fn new(input: &'a [u8]) -> Result<Self, Malformed> {
        if u32::try_from(input.len()).is_err() {
            return Err(Malformed { position: 0, what: "input is longer than 4 GiB" });
        }
        Ok(Self { whole: input, position: 0, end: input.len() })
    }

    /// The single element that makes up the whole input: expected tag, nothing after it.
    pub fn only(input: &'a [u8], tag: u8) -> Result<Element<'a>, Malformed> {
        let mut reader = Self::new(input)?;
        let element = reader.expect(tag)?;
        reader.finish()?;
        Ok(element)
    }

    /// A reader over a part of an input that was parsed before; positions stay those of the whole.
    pub fn within(whole: &'a [u8], span: Span) -> Self {
        let end = (span.end as usize).min(whole.len());
        Self { whole, position: (span.start as usize).min(end), end }
    }

    /// A reader from an offset to the end of an input that was parsed before.
    pub(crate) fn from_offset(whole: &'a [u8], offset: usize) -> Self {
        Self { whole, position: offset.min(whole.len()), end: whole.len() }
    }

    /// True when everything was read.
    pub fn is_empty(&self) -> bool {
        self.position >= self.end
    }

    /// An error at the current position.
    pub fn error(&self, what: &'static str) -> Malformed {
        Malformed { position: self.position, what }
    }

    /// The tag of the next element, if there is one.
    pub fn peek(&self) -> Option<u8> {
        if self.is_empty() { None } else { self.whole.get(self.position).copied() }
    }

    /// The next element, whatever its tag.
    pub fn read(&mut self) -> Result<Element<'a>, Malformed> {
        let start = self.position;
        let rest = self.whole.get(start..self.end).unwrap_or_default();
        let (tag, after_tag) = rest.split_first().ok_or(self.error("element expected"))?;
        if tag & 0x1f == 0x1f {
            return Err(self.error("tag number is above 30"));
        }
        let (first, after_first) = after_tag.split_first().ok_or(self.error("length expected"))?;
        let (header, length) = match *first {
            short @ 0..=0x7f => (2, usize::from(short)),
            long @ 0x81..=0x84 => {
                let count = usize::from(long & 0x7f);
                let octets = after_first.get(..count).ok_or(self.error("length is cut off"))?;
                let length = octets.iter().fold(0_u32, |sum, b| sum << 8 | u32::from(*b));
                let minimal = octets.first() != Some(&0) && length >= 0x80;
                if !minimal {
                    return Err(self.error("length is not minimal"));
                }
                (2 + count, length as usize)
            }
            _ => return Err(self.error("length is indefinite or too long")),
        };
        let content_start = start + header;
        let end = content_start.checked_add(length).filter(|end| *end <= self.end);
        let end = end.ok_or(self.error("content is cut off"))?;
        self.position = end;
        Ok(Element { whole: self.whole, tag: *tag, start, content_start, end })
    }

    /// The next element, which must have this tag.
    pub fn expect(&mut self, tag: u8) -> Result<Element<'a>, Malformed> {
        match self.peek() {
            Some(found) if found == tag => self.read(),
            Some(_) => Err(self.error("unexpected tag")),
            None => Err(self.error("element is missing")),
        }
    }

    /// The next element if it has this tag.
    pub fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, Malformed> {
        if self.peek() == Some(tag) { self.read().map(Some) } else { Ok(None) }
    }

    /// A reader over the content of the next element, which must be a SEQUENCE.
    pub fn sequence(&mut self) -> Result<Reader<'a>, Malformed> {
        self.expect(tag::SEQUENCE).map(|element| element.reader())
    }

    /// An error unless everything was read.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(self.error("trailing data")) }
    }
}

fn span(start: usize, end: usize) -> Span {
    // `Reader::new` refuses inputs whose offsets do not fit.
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Span { start: narrow(start), end: narrow(end) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(input: &[u8]) -> Result<Element<'_>, Malformed> {
        let mut reader = Reader::new(input)?;
        let element = reader.read()?;
        reader.finish()?;
        Ok(element)
    }

    #[test]
    fn refuses_lengths_that_are_not_minimal_definite_and_inside() {
        for (input, what) in [
            (&[0x04, 0x80, 0, 0][..], "length is indefinite or too long"),
            (&[0x04, 0x81, 0x01, 0], "length is not minimal"),
            (&[0x04, 0x82, 0x00, 0x80], "length is not minimal"),
            (&[0x04, 0x85, 0, 0, 0, 0, 1], "length is indefinite or too long"),
            (&[0x04, 0x02, 0x00], "content is cut off"),
            (&[0x04, 0x84, 0xff, 0xff, 0xff, 0xff], "content is cut off"),
            (&[0x04, 0x82, 0x01], "length is cut off"),
            (&[0x1f, 0x01, 0x00], "tag number is above 30"),
            (&[0x04], "length expected"),
            (&[], "element expected"),
            (&[0x05, 0x00, 0x00], "trailing data"),
        ] {
            assert_eq!(first(input).map(|_| ()).unwrap_err().what, what);
        }
    }

    #[test]
    fn refuses_values_that_are_not_canonical() {
        assert!(first(&[1, 1, 1]).unwrap().boolean().is_err());
        assert!(first(&[1, 1, 0xff]).unwrap().boolean().unwrap());
        for bad in [&[2, 0][..], &[2, 2, 0, 0x7f], &[2, 2, 0xff, 0x80]] {
            assert!(first(bad).unwrap().integer().is_err());
        }
        assert_eq!(first(&[2, 2, 0, 0x80]).unwrap().small_integer(), Ok(128));
        assert_eq!(first(&[2, 5, 0, 0xff, 0xff, 0xff, 0xff]).unwrap().small_integer(), Ok(u32::MAX));
        assert!(first(&[2, 5, 1, 0, 0, 0, 0]).unwrap().small_integer().is_err());
        assert!(first(&[2, 1, 0x80]).unwrap().small_integer().is_err());
        for bad in [&[6, 0][..], &[6, 2, 0x2a, 0x80], &[6, 3, 0x2a, 0x80, 0x01]] {
            assert!(first(bad).unwrap().oid().is_err());
        }
        for bad in [&[3, 0][..], &[3, 1, 1], &[3, 2, 8, 0], &[3, 2, 1, 1]] {
            assert!(first(bad).unwrap().bit_string().is_err());
        }
        assert!(first(&[3, 2, 0, 0x80]).unwrap().named_bits().is_err());
        assert_eq!(first(&[3, 2, 7, 0x80]).unwrap().named_bits(), Ok(0x8000));
        assert_eq!(first(&[3, 3, 7, 0x00, 0x80]).unwrap().named_bits(), Ok(0x0080));
    }

    proptest::proptest! {
        #[test]
        fn never_reads_outside_its_input(input in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&input).unwrap();
            let mut total = 0;
            while let Ok(element) = reader.read() {
                total += element.der().len();
                let _ = (element.integer(), element.oid(), element.bit_string(), element.time(), element.ia5());
            }
            proptest::prop_assert!(total <= input.len());
        }
    }
}
