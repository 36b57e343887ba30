//! Signature verification by aws-lc-rs, for every native build.

use aws_lc_rs::digest;
use aws_lc_rs::signature as alg;
use aws_lc_rs::signature::{UnparsedPublicKey, VerificationAlgorithm};
use tlog::signature::{Algorithm, InvalidSignature, SignatureVerifier};

/// The native provider. Has no state; every algorithm of [`Algorithm`] is supported.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsLc;

impl SignatureVerifier for AwsLc {
    fn verify(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        super::check_shape(algorithm, public_key, signature)?;
        let (verifier, _) = primitives(algorithm).ok_or(InvalidSignature)?;
        verifier.verify_sig(public_key, message, signature).map_err(|_| InvalidSignature)
    }

    fn verify_digest(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        digest: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        super::check_shape(algorithm, public_key, signature)?;
        let (verifier, hash) = primitives(algorithm).ok_or(InvalidSignature)?;
        let hash = hash.ok_or(InvalidSignature)?;
        let digest = digest::Digest::import_less_safe(digest, hash).map_err(|_| InvalidSignature)?;
        UnparsedPublicKey::new(verifier, public_key)
            .verify_digest(&digest, signature)
            .map_err(|_| InvalidSignature)
    }
}

/// The library's algorithm, and the hash whose output it signs if it signs digests.
fn primitives(
    algorithm: Algorithm,
) -> Option<(&'static dyn VerificationAlgorithm, Option<&'static digest::Algorithm>)> {
    let sha256 = Some(&digest::SHA256);
    let sha384 = Some(&digest::SHA384);
    let sha512 = Some(&digest::SHA512);
    Some(match algorithm {
        Algorithm::EcdsaP256Sha256 => (&alg::ECDSA_P256_SHA256_ASN1, sha256),
        Algorithm::EcdsaP256Sha384 => (&alg::ECDSA_P256_SHA384_ASN1, sha384),
        Algorithm::EcdsaP256Sha512 => (&alg::ECDSA_P256_SHA512_ASN1, sha512),
        Algorithm::EcdsaP384Sha256 => (&alg::ECDSA_P384_SHA256_ASN1, sha256),
        Algorithm::EcdsaP384Sha384 => (&alg::ECDSA_P384_SHA384_ASN1, sha384),
        Algorithm::EcdsaP384Sha512 => (&alg::ECDSA_P384_SHA512_ASN1, sha512),
        Algorithm::EcdsaP521Sha256 => (&alg::ECDSA_P521_SHA256_ASN1, sha256),
        Algorithm::EcdsaP521Sha512 => (&alg::ECDSA_P521_SHA512_ASN1, sha512),
        Algorithm::Ed25519 => (&alg::ED25519, None),
        Algorithm::MlDsa44 => (&alg::ML_DSA_44, None),
        Algorithm::MlDsa65 => (&alg::ML_DSA_65, None),
        Algorithm::MlDsa87 => (&alg::ML_DSA_87, None),
        Algorithm::RsaPkcs1Sha256 => (&alg::RSA_PKCS1_2048_8192_SHA256, sha256),
        Algorithm::RsaPkcs1Sha384 => (&alg::RSA_PKCS1_2048_8192_SHA384, sha384),
        Algorithm::RsaPkcs1Sha512 => (&alg::RSA_PKCS1_2048_8192_SHA512, sha512),
        Algorithm::RsaPssSha256 => (&alg::RSA_PSS_2048_8192_SHA256, sha256),
        Algorithm::RsaPssSha384 => (&alg::RSA_PSS_2048_8192_SHA384, sha384),
        Algorithm::RsaPssSha512 => (&alg::RSA_PSS_2048_8192_SHA512, sha512),
        _ => return None,
    })
}
