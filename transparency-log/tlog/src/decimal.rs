//! Decimal numbers as text formats allow them: ASCII digits, no sign, no leading zero, at most 2^63-1.

use crate::hash::MAX_SIZE;

/// Reads a number; `None` for anything that printing would not give back.
pub(crate) fn parse(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    let value = text.bytes().try_fold(0u64, |value, byte| {
        let digit = u64::from(byte.checked_sub(b'0').filter(|digit| *digit <= 9)?);
        value.checked_mul(10)?.checked_add(digit)
    })?;
    (value <= MAX_SIZE).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_canonical_numbers() {
        assert_eq!(parse("0"), Some(0));
        assert_eq!(parse("9223372036854775807"), Some(MAX_SIZE));
        for text in [
            "",
            "00",
            "01",
            "+1",
            "-1",
            "1 ",
            " 1",
            "1_0",
            "9223372036854775808",
            "99999999999999999999",
            "١",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
