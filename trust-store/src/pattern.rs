//! Patterns over identities and agent ids: exact text, or `*` and `**`.
//!
//! `*` stands for any run of characters, also none, without `/` and `@`; `**` for any run of characters at all. So
//! `*@example.com` is every mailbox of one host, `https://ci.example/org/*/release.yml@refs/tags/**` one workflow of
//! every repository. Everything else stands for itself; there is no escape, because neither mailboxes nor URIs of
//! certificates hold a bare `*`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

/// Longest pattern, in bytes; matching costs at most this times the text's length.
pub const MAX_PATTERN_BYTES: usize = 1024;

/// A pattern over text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// Takes a pattern.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is empty, holds a control character, or three stars in a row; [`Error::TooLarge`]
    /// over [`MAX_PATTERN_BYTES`].
    pub fn new(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(Error::TooLarge { what: "pattern", limit: MAX_PATTERN_BYTES });
        }
        if text.is_empty() || text.contains("***") || text.chars().any(char::is_control) {
            let shown: String = text.chars().take(64).flat_map(char::escape_default).collect();
            return Err(Error::malformed(
                "pattern",
                format!("`{shown}` is empty, or holds `***` or a control character"),
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether the pattern has no star: it means one text only.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `text` matches, byte by byte and with case.
    pub fn matches(&self, text: &str) -> bool {
        if self.is_exact() {
            return self.0 == text;
        }
        if text.len() > 8 * MAX_PATTERN_BYTES {
            return false;
        }
        // `reached[i]`: the pattern so far matches the first i bytes. One pass per pattern element, so the cost is
        // bounded by the product of both lengths, whatever the stars.
        let bytes = text.as_bytes();
        let mut reached = vec![false; bytes.len().saturating_add(1)];
        if let Some(first) = reached.first_mut() {
            *first = true;
        }
        let mut rest = self.0.as_bytes();
        while let Some((element, after)) = rest.split_first() {
            let mut next = vec![false; reached.len()];
            match (element, after) {
                (b'*', [b'*', after @ ..]) => {
                    spread(&reached, &mut next, bytes, |_| true);
                    rest = after;
                }
                (b'*', after) => {
                    spread(&reached, &mut next, bytes, |byte| !matches!(byte, b'/' | b'@'));
                    rest = after;
                }
                (literal, after) => {
                    for ((reached, byte), next) in reached.iter().zip(bytes).zip(next.iter_mut().skip(1)) {
                        *next = *reached && byte == literal;
                    }
                    rest = after;
                }
            }
            reached = next;
        }
        reached.last().copied().unwrap_or(false)
    }
}

fn spread(reached: &[bool], next: &mut [bool], bytes: &[u8], passes: impl Fn(u8) -> bool) {
    let mut open = false;
    for (index, (reached, next)) in reached.iter().zip(next.iter_mut()).enumerate() {
        let carried = open && index > 0 && bytes.get(index - 1).is_some_and(|byte| passes(*byte));
        open = *reached || carried;
        *next = open;
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stop_at_separators_and_double_stars_do_not() {
        for (pattern, text, expected) in [
            ("dev@example.com", "dev@example.com", true),
            ("dev@example.com", "Dev@example.com", false),
            ("*@example.com", "dev@example.com", true),
            ("*@example.com", "@example.com", true),
            ("*@example.com", "dev@evil.org@example.com", false),
            ("*@example.com", "dev@example.com.evil.org", false),
            ("*@example.com", "dev@evilexample.com", false),
            ("https://ci/*/r", "https://ci/org/r", true),
            ("https://ci/*/r", "https://ci/org/x/r", false),
            ("https://ci/**/r", "https://ci/org/x/r", true),
            ("**", "anything@all/of it", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXbY", false),
            ("a**", "", false),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn refuses_empty_and_ambiguous_patterns() {
        for text in ["", "a***", "a\nb"] {
            assert!(Pattern::new(text).is_err());
        }
        assert!(matches!(Pattern::new(&"a".repeat(MAX_PATTERN_BYTES + 1)), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn hostile_patterns_end_soon() {
        let pattern = Pattern::new(&"a*".repeat(500)).unwrap();
        assert!(!pattern.matches(&("a".repeat(8000) + "b/")));
    }
}
