//! ECDSA signatures in the fixed-length form of IEEE P1363, r and s side by side.

use alloc::vec::Vec;

use crate::x690::tag;

/// The DER form of a signature of two numbers of `field_length` octets; `None` if it has another length.
pub fn ecdsa_signature_from_p1363(signature: &[u8], field_length: usize) -> Option<Vec<u8>> {
    if field_length == 0 || field_length > 66 || signature.len() != 2 * field_length {
        return None;
    }
    let (r, s) = signature.split_at(field_length);
    let mut content = Vec::with_capacity(2 * field_length + 6);
    push_integer(&mut content, r);
    push_integer(&mut content, s);
    let mut der = Vec::from([tag::SEQUENCE]);
    let length = u8::try_from(content.len()).ok()?;
    if length >= 0x80 {
        der.push(0x81);
    }
    der.push(length);
    der.extend_from_slice(&content);
    Some(der)
}

/// Appends a non-negative INTEGER of fewer than 127 octets.
fn push_integer(der: &mut Vec<u8>, octets: &[u8]) {
    let zeros = octets.iter().take_while(|octet| **octet == 0).count().min(octets.len().saturating_sub(1));
    let digits = octets.get(zeros..).unwrap_or_default();
    let pad = digits.first().is_some_and(|first| *first >= 0x80);
    der.push(tag::INTEGER);
    der.push(u8::try_from(digits.len() + usize::from(pad)).unwrap_or(u8::MAX));
    if pad {
        der.push(0);
    }
    der.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_minimal_integers() {
        assert_eq!(
            ecdsa_signature_from_p1363(&[0, 1, 0x80, 0], 2).unwrap(),
            [0x30, 8, 2, 1, 1, 2, 3, 0, 0x80, 0]
        );
        assert_eq!(ecdsa_signature_from_p1363(&[0, 0], 1).unwrap(), [0x30, 6, 2, 1, 0, 2, 1, 0]);
        assert_eq!(ecdsa_signature_from_p1363(&[0xff; 132], 66).unwrap()[..3], [0x30, 0x81, 138]);
        assert_eq!(ecdsa_signature_from_p1363(&[1, 2, 3], 2), None);
    }
}
