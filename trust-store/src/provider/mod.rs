//! Who checks signatures: [`AwsLc`] for native builds, `RustCrypto` for `no_std` and WebAssembly.
//!
//! Both implement [`tlog::signature::SignatureVerifier`], pass the same suite and must agree on every input: the
//! shape of keys is checked here, once, before either library sees them.

#[cfg(feature = "aws-lc")]
mod aws_lc;
mod p1363;
#[cfg(feature = "rustcrypto")]
mod rustcrypto;

#[cfg(feature = "aws-lc")]
pub use aws_lc::AwsLc;
pub use p1363::ecdsa_signature_from_p1363;
#[cfg(feature = "rustcrypto")]
pub use rustcrypto::RustCrypto;
pub use tlog::signature::{Algorithm, InvalidSignature, SignatureVerifier};

use crate::x690::{Reader, tag};

/// The largest public key that is handed to a provider, in octets; ML-DSA-87 has 2,592, RSA-8192 about 1,040.
const MAX_KEY_LENGTH: usize = 4_096;

/// The largest signature that is handed to a provider, in octets; ML-DSA-87 has 4,627.
const MAX_SIGNATURE_LENGTH: usize = 8_192;

/// Checks the encoding of a public key, so that no provider accepts a form that the other refuses.
#[cfg_attr(
    not(any(feature = "aws-lc", feature = "rustcrypto")),
    allow(dead_code, reason = "no provider is built")
)]
fn check_shape(algorithm: Algorithm, public_key: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
    use Algorithm as A;
    if public_key.len() > MAX_KEY_LENGTH || signature.is_empty() || signature.len() > MAX_SIGNATURE_LENGTH {
        return Err(InvalidSignature);
    }
    let fits = match algorithm {
        A::EcdsaP256Sha256 | A::EcdsaP256Sha384 | A::EcdsaP256Sha512 => is_point(public_key, 65),
        A::EcdsaP384Sha256 | A::EcdsaP384Sha384 | A::EcdsaP384Sha512 => is_point(public_key, 97),
        A::EcdsaP521Sha256 | A::EcdsaP521Sha512 => is_point(public_key, 133),
        A::Ed25519 => public_key.len() == 32 && signature.len() == 64,
        A::MlDsa44 => public_key.len() == 1_312 && signature.len() == 2_420,
        A::MlDsa65 => public_key.len() == 1_952 && signature.len() == 3_309,
        A::MlDsa87 => public_key.len() == 2_592 && signature.len() == 4_627,
        A::RsaPkcs1Sha256
        | A::RsaPkcs1Sha384
        | A::RsaPkcs1Sha512
        | A::RsaPssSha256
        | A::RsaPssSha384
        | A::RsaPssSha512 => rsa_modulus_and_exponent(public_key).is_some_and(|(modulus, _)| {
            (256..=1_024).contains(&modulus.len()) && signature.len() == modulus.len()
        }),
        _ => false,
    };
    if fits { Ok(()) } else { Err(InvalidSignature) }
}

fn is_point(public_key: &[u8], length: usize) -> bool {
    public_key.len() == length && public_key.first() == Some(&0x04)
}

/// The modulus and exponent of a PKCS #1 `RSAPublicKey`, big-endian without leading zeros; `None` unless both are
/// positive and the encoding is strict DER.
pub fn rsa_modulus_and_exponent(public_key: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = Reader::only(public_key, tag::SEQUENCE).ok()?.reader();
    let modulus = fields.expect(tag::INTEGER).ok()?.integer().ok()?;
    let exponent = fields.expect(tag::INTEGER).ok()?.integer().ok()?;
    fields.finish().ok()?;
    Some((positive(modulus)?, positive(exponent)?))
}

fn positive(integer: &[u8]) -> Option<&[u8]> {
    match integer {
        [0, rest @ ..] if !rest.is_empty() => Some(rest),
        [0, ..] => None,
        [first, ..] if *first >= 0x80 => None,
        _ => Some(integer),
    }
}
