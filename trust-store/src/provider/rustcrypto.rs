//! Signature verification by RustCrypto, for builds without a C compiler or an operating system.
//!
//! ECDSA on P-521 is not supported here and answers [`InvalidSignature`]; everything else equals the native provider.

use ecdsa::signature::hazmat::PrehashVerifier;
use ed25519_dalek::Verifier as _;
use sha2::{Digest, Sha256, Sha384, Sha512};
use tlog::signature::{Algorithm, InvalidSignature, SignatureVerifier};

/// The portable provider. Has no state.
#[derive(Clone, Copy, Debug, Default)]
pub struct RustCrypto;

#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl SignatureVerifier for RustCrypto {
    fn verify(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        super::check_shape(algorithm, public_key, signature)?;
        match algorithm {
            Algorithm::Ed25519 => ed25519(public_key, message, signature),
            Algorithm::MlDsa44 => ml_dsa::<ml_dsa::MlDsa44>(public_key, message, signature),
            Algorithm::MlDsa65 => ml_dsa::<ml_dsa::MlDsa65>(public_key, message, signature),
            Algorithm::MlDsa87 => ml_dsa::<ml_dsa::MlDsa87>(public_key, message, signature),
            _ => match hash_of(algorithm).ok_or(InvalidSignature)? {
                Hash::Sha256 => {
                    self.verify_digest(algorithm, public_key, &Sha256::digest(message), signature)
                }
                Hash::Sha384 => {
                    self.verify_digest(algorithm, public_key, &Sha384::digest(message), signature)
                }
                Hash::Sha512 => {
                    self.verify_digest(algorithm, public_key, &Sha512::digest(message), signature)
                }
            },
        }
    }

    fn verify_digest(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        digest: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        use Algorithm as A;
        super::check_shape(algorithm, public_key, signature)?;
        let length = match hash_of(algorithm).ok_or(InvalidSignature)? {
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
            Hash::Sha512 => 64,
        };
        if digest.len() != length {
            return Err(InvalidSignature);
        }
        match algorithm {
            A::EcdsaP256Sha256 | A::EcdsaP256Sha384 | A::EcdsaP256Sha512 => {
                let key =
                    p256::ecdsa::VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
                let signature = p256::ecdsa::Signature::from_der(signature).map_err(|_| InvalidSignature)?;
                key.verify_prehash(digest, &signature).map_err(|_| InvalidSignature)
            }
            A::EcdsaP384Sha256 | A::EcdsaP384Sha384 | A::EcdsaP384Sha512 => {
                let key =
                    p384::ecdsa::VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
                let signature = p384::ecdsa::Signature::from_der(signature).map_err(|_| InvalidSignature)?;
                // A digest shorter than half the field is refused by the library; ECDSA itself takes it as the
                // integer it is, so leading zeros change nothing.
                let mut padded = [0_u8; 48];
                let prehash = match padded.get_mut(48_usize.saturating_sub(digest.len())..) {
                    Some(tail) if digest.len() < 48 => {
                        tail.copy_from_slice(digest);
                        &padded[..]
                    }
                    _ => digest,
                };
                key.verify_prehash(prehash, &signature).map_err(|_| InvalidSignature)
            }
            A::RsaPkcs1Sha256
            | A::RsaPkcs1Sha384
            | A::RsaPkcs1Sha512
            | A::RsaPssSha256
            | A::RsaPssSha384
            | A::RsaPssSha512 => rsa_digest(algorithm, public_key, digest, signature),
            _ => Err(InvalidSignature),
        }
    }
}

fn hash_of(algorithm: Algorithm) -> Option<Hash> {
    use Algorithm as A;
    Some(match algorithm {
        A::EcdsaP256Sha256 | A::EcdsaP384Sha256 | A::RsaPkcs1Sha256 | A::RsaPssSha256 => Hash::Sha256,
        A::EcdsaP256Sha384 | A::EcdsaP384Sha384 | A::RsaPkcs1Sha384 | A::RsaPssSha384 => Hash::Sha384,
        A::EcdsaP256Sha512 | A::EcdsaP384Sha512 | A::RsaPkcs1Sha512 | A::RsaPssSha512 => Hash::Sha512,
        _ => return None,
    })
}

fn ed25519(public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
    let key: &[u8; 32] = public_key.try_into().map_err(|_| InvalidSignature)?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(key).map_err(|_| InvalidSignature)?;
    let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| InvalidSignature)?;
    key.verify(message, &signature).map_err(|_| InvalidSignature)
}

fn ml_dsa<P: ml_dsa::MlDsaParams>(
    public_key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), InvalidSignature> {
    let encoded = ml_dsa::EncodedVerifyingKey::<P>::try_from(public_key).map_err(|_| InvalidSignature)?;
    let key = ml_dsa::VerifyingKey::<P>::decode(&encoded);
    let signature = ml_dsa::Signature::<P>::try_from(signature).map_err(|_| InvalidSignature)?;
    if key.verify_with_context(message, &[], &signature) { Ok(()) } else { Err(InvalidSignature) }
}

fn rsa_digest(
    algorithm: Algorithm,
    public_key: &[u8],
    digest: &[u8],
    signature: &[u8],
) -> Result<(), InvalidSignature> {
    use Algorithm as A;
    let (modulus, exponent) = super::rsa_modulus_and_exponent(public_key).ok_or(InvalidSignature)?;
    let key = rsa::RsaPublicKey::new_with_size_limits(
        rsa::BoxedUint::from_be_slice_vartime(modulus),
        rsa::BoxedUint::from_be_slice_vartime(exponent),
        2_048..=8_192,
    )
    .map_err(|_| InvalidSignature)?;
    match algorithm {
        A::RsaPkcs1Sha256 => key.verify(rsa::Pkcs1v15Sign::new::<Sha256>(), digest, signature),
        A::RsaPkcs1Sha384 => key.verify(rsa::Pkcs1v15Sign::new::<Sha384>(), digest, signature),
        A::RsaPkcs1Sha512 => key.verify(rsa::Pkcs1v15Sign::new::<Sha512>(), digest, signature),
        A::RsaPssSha256 => key.verify(rsa::Pss::<Sha256>::new(), digest, signature),
        A::RsaPssSha384 => key.verify(rsa::Pss::<Sha384>::new(), digest, signature),
        A::RsaPssSha512 => key.verify(rsa::Pss::<Sha512>::new(), digest, signature),
        _ => return Err(InvalidSignature),
    }
    .map_err(|_| InvalidSignature)
}
