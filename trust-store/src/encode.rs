//! Writing of the few DER structures that a verifier needs: a timestamp request, re-tagged attributes, a TBS without
//! one extension. Everything else is read only.

use alloc::vec::Vec;

/// One element: tag, minimal definite length, and the concatenated `parts` as content.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length.saturating_add(6));
    out.push(tag);
    if let Ok(short) = u8::try_from(length)
        && short < 0x80
    {
        out.push(short);
    } else {
        let octets = length.to_be_bytes();
        let significant: Vec<u8> = octets.into_iter().skip_while(|octet| *octet == 0).collect();
        // At most eight octets follow, so the count fits the low seven bits.
        out.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
        out.extend(significant);
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// A non-negative INTEGER of these big-endian octets.
pub(crate) fn unsigned_integer(octets: &[u8]) -> Vec<u8> {
    let significant = octets.iter().position(|octet| *octet != 0).and_then(|start| octets.get(start..));
    match significant {
        None => element(0x02, &[&[0]]),
        Some(value) if value.first().is_some_and(|first| *first >= 0x80) => element(0x02, &[&[0], value]),
        Some(value) => element(0x02, &[value]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_minimal() {
        assert_eq!(element(0x30, &[]), [0x30, 0]);
        assert_eq!(element(0x04, &[&[1; 0x7f]])[..2], [0x04, 0x7f]);
        assert_eq!(element(0x04, &[&[1; 0x80]])[..3], [0x04, 0x81, 0x80]);
        assert_eq!(element(0x04, &[&[1; 0x100]])[..4], [0x04, 0x82, 1, 0]);
        assert_eq!(element(0x04, &[&[1; 0x1_0000]])[..5], [0x04, 0x83, 1, 0, 0]);
    }

    #[test]
    fn integers_are_minimal_and_positive() {
        assert_eq!(unsigned_integer(&[0, 0]), [2, 1, 0]);
        assert_eq!(unsigned_integer(&[0, 0x7f]), [2, 1, 0x7f]);
        assert_eq!(unsigned_integer(&[0x80]), [2, 2, 0, 0x80]);
    }
}
