//! What devices answer in parts, in the forms that everybody else reads: SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) and ECDSA
//! signatures (RFC 3279 §2.2.3).

use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use der::{Encode as _, Sequence};
use spki::{AlgorithmIdentifier, SubjectPublicKeyInfo};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

#[derive(Sequence)]
struct EcdsaSignature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// An ECDSA signature of two unsigned big-endian numbers.
pub(crate) fn ecdsa_signature(r: &[u8], s: &[u8]) -> Option<Vec<u8>> {
    if r.is_empty() || s.is_empty() {
        return None;
    }
    EcdsaSignature { r: UintRef::new(r).ok()?, s: UintRef::new(s).ok()? }.to_der().ok()
}

/// SubjectPublicKeyInfo of an uncompressed point; `parameters` name the curve.
pub(crate) fn ec_spki(parameters: AnyRef<'_>, point: &[u8]) -> Option<Vec<u8>> {
    spki(EC_PUBLIC_KEY, parameters, point)
}

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

/// SubjectPublicKeyInfo of an RSA key of two unsigned big-endian numbers.
pub(crate) fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let key = RsaPublicKey { modulus: UintRef::new(modulus).ok()?, exponent: UintRef::new(exponent).ok()? };
    spki(RSA, AnyRef::NULL, &key.to_der().ok()?)
}

fn spki(oid: ObjectIdentifier, parameters: AnyRef<'_>, bits: &[u8]) -> Option<Vec<u8>> {
    let algorithm = AlgorithmIdentifier { oid, parameters: Some(parameters) };
    let subject_public_key = BitStringRef::from_bytes(bits).ok()?;
    SubjectPublicKeyInfo { algorithm, subject_public_key }.to_der().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_have_minimal_integers() {
        assert_eq!(ecdsa_signature(&[0, 1], &[0x80, 2]).unwrap(), [0x30, 8, 2, 1, 1, 2, 3, 0, 0x80, 2]);
        assert!(ecdsa_signature(&[], &[1]).is_none() && ecdsa_signature(&[1], &[]).is_none());
    }
}
