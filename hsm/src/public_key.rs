//! The public half of a key, and verification with it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::signature::{self as native, ParsedPublicKey, RsaParameters, UnparsedPublicKey};
use der::Decode;
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use spki::SubjectPublicKeyInfo;

use crate::algorithm::{KeyAlgorithm, SignatureAlgorithm, rsa_too_short};
use crate::error::Error;
use crate::signer::Input;

/// Longest SPKI that is parsed: ML-DSA-44 needs 1,334 bytes, RSA-4096 550.
pub const MAX_SPKI_LEN: usize = 2048;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ML_DSA_44: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.17");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// The signature is not one of this key over this input. Carries nothing else on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not valid")]
pub struct InvalidSignature;

/// A public key that was checked when it was parsed: known type, point on the curve, RSA modulus of exactly 3072 or
/// 4096 bits with a sound exponent.
#[derive(Clone)]
pub struct PublicKey {
    inner: Arc<Inner>,
}

struct Inner {
    algorithm: KeyAlgorithm,
    spki_der: Box<[u8]>,
    raw: Box<[u8]>,
    spki_sha256: [u8; 32],
    /// Parsed once for the key types with a single signature algorithm; RSA has six.
    verifier: Option<ParsedPublicKey>,
}

impl PublicKey {
    /// Reads a DER SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7).
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not one of the known types in canonical form, [`Error::Unsupported`] for RSA below
    /// 3072 bits.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, Error> {
        if spki.len() > MAX_SPKI_LEN {
            return Err(invalid("longer than 2048 bytes"));
        }
        let parsed = SubjectPublicKeyInfo::<AnyRef<'_>, BitStringRef<'_>>::from_der(spki)
            .map_err(|_| invalid("not a DER SubjectPublicKeyInfo"))?;
        let raw = parsed.subject_public_key.as_bytes().ok_or_else(|| invalid("the key has unused bits"))?;
        let algorithm = key_type(parsed.algorithm.oid, parsed.algorithm.parameters, raw)?;
        let verifier = match single_verifier(algorithm) {
            Some(native) => Some(
                ParsedPublicKey::new(native, raw)
                    .map_err(|_| invalid("the key is not valid for its type"))?,
            ),
            None => {
                native::RsaSubjectPublicKey::from_der(raw)
                    .map_err(|_| invalid("the RSA key is not valid"))?;
                None
            }
        };
        let mut spki_sha256 = [0; 32];
        spki_sha256.copy_from_slice(digest::digest(&digest::SHA256, spki).as_ref());
        Ok(Self {
            inner: Arc::new(Inner {
                algorithm,
                spki_der: spki.into(),
                raw: raw.into(),
                spki_sha256,
                verifier,
            }),
        })
    }

    /// The key's type.
    #[must_use]
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.inner.algorithm
    }

    /// The DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.inner.spki_der
    }

    /// The subjectPublicKey bits: uncompressed point, 32 bytes of Ed25519, raw ML-DSA, or a DER RSAPublicKey.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.inner.raw
    }

    /// SHA-256 of the SPKI: the key's pinned identity.
    #[must_use]
    pub fn spki_sha256(&self) -> &[u8; 32] {
        &self.inner.spki_sha256
    }

    /// The same in lower-case hex, as configuration writes it.
    #[must_use]
    pub fn spki_sha256_hex(&self) -> String {
        hex(&self.inner.spki_sha256)
    }

    /// The SPKI in PEM (`PUBLIC KEY`, RFC 7468 section 13).
    #[must_use]
    pub fn to_pem(&self) -> String {
        crate::developer::pem_encode("PUBLIC KEY", self.spki_der())
    }

    /// Verifies `signature` over `input`.
    ///
    /// # Errors
    /// [`InvalidSignature`] also when the algorithm does not fit the key, or a digest has the wrong length or is given
    /// to an algorithm that takes whole messages.
    pub fn verify(
        &self,
        algorithm: SignatureAlgorithm,
        input: Input<'_>,
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        if !self.inner.algorithm.supports(algorithm) {
            return Err(InvalidSignature);
        }
        let result = match (input, &self.inner.verifier) {
            (Input::Message(message), Some(key)) => key.verify_sig(message, signature),
            (Input::Message(message), None) => {
                let parameters = rsa_verifier(algorithm).ok_or(InvalidSignature)?;
                UnparsedPublicKey::new(parameters, self.raw()).verify(message, signature)
            }
            (Input::Digest(bytes), key) => {
                let digest = imported_digest(algorithm, bytes).ok_or(InvalidSignature)?;
                match key {
                    Some(key) => key.verify_digest_sig(&digest, signature),
                    None => {
                        let parameters = rsa_verifier(algorithm).ok_or(InvalidSignature)?;
                        UnparsedPublicKey::new(parameters, self.raw()).verify_digest(&digest, signature)
                    }
                }
            }
        };
        result.map_err(|_| InvalidSignature)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.inner.spki_der == other.inner.spki_der
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, spki-sha256 {})", self.inner.algorithm, self.spki_sha256_hex())
    }
}

/// Verifies `signature` over `input` with a DER SubjectPublicKeyInfo. Keep a [`PublicKey`] when verifying repeatedly.
///
/// # Errors
/// [`InvalidSignature`] for a bad key as for a bad signature.
pub fn verify(
    spki_der: &[u8],
    algorithm: SignatureAlgorithm,
    input: Input<'_>,
    signature: &[u8],
) -> Result<(), InvalidSignature> {
    PublicKey::from_spki_der(spki_der).map_err(|_| InvalidSignature)?.verify(algorithm, input, signature)
}

/// The digest object for `algorithm`, or nothing when the algorithm takes no digest or the length is wrong.
pub(crate) fn imported_digest(algorithm: SignatureAlgorithm, bytes: &[u8]) -> Option<Digest> {
    Digest::import_less_safe(bytes, algorithm.digest()?.native()).ok()
}

/// The digest that a device is given: of a message, or one that was made already.
#[cfg(any(feature = "pkcs11", feature = "tpm"))]
pub(crate) fn digest_of(input: Input<'_>, algorithm: SignatureAlgorithm) -> Result<Vec<u8>, Error> {
    let wrong = || Error::Invalid {
        what: "digest",
        reason: format!("its length is not that of the digest of {algorithm}"),
    };
    let hash = algorithm.digest().ok_or_else(wrong)?;
    match input {
        Input::Message(message) => Ok(digest::digest(hash.native(), message).as_ref().to_vec()),
        Input::Digest(bytes) => {
            imported_digest(algorithm, bytes).map(|digest| digest.as_ref().to_vec()).ok_or_else(wrong)
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn key_type(
    oid: ObjectIdentifier,
    parameters: Option<AnyRef<'_>>,
    raw: &[u8],
) -> Result<KeyAlgorithm, Error> {
    match oid {
        EC_PUBLIC_KEY => {
            let curve = parameters
                .and_then(|p| p.decode_as::<ObjectIdentifier>().ok())
                .ok_or_else(|| invalid("the curve is not named"))?;
            // Only the uncompressed form: 0x04, x, y.
            match (curve, raw.len(), raw.first()) {
                (P256, 65, Some(4)) => Ok(KeyAlgorithm::EcdsaP256),
                (P384, 97, Some(4)) => Ok(KeyAlgorithm::EcdsaP384),
                (P256 | P384, _, _) => Err(invalid("the point is not in uncompressed form")),
                _ => Err(invalid("the curve is neither P-256 nor P-384")),
            }
        }
        ED25519 if parameters.is_none() => Ok(KeyAlgorithm::Ed25519),
        ML_DSA_44 if parameters.is_none() => Ok(KeyAlgorithm::MlDsa44),
        RSA if parameters.is_some_and(|p| p.is_null()) => rsa_type(raw),
        ED25519 | ML_DSA_44 | RSA => Err(invalid("wrong algorithm parameters")),
        _ => Err(invalid("unknown key type")),
    }
}

/// PKCS#1 RSAPublicKey (RFC 8017 appendix A.1.1).
#[derive(der::Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

fn rsa_type(raw: &[u8]) -> Result<KeyAlgorithm, Error> {
    let key = RsaPublicKey::from_der(raw).map_err(|_| invalid("not a DER RSAPublicKey"))?;
    let modulus = key.modulus.as_bytes();
    let leading = modulus.first().map_or(0, |b| b.leading_zeros() as usize);
    let bits = (modulus.len() * 8).saturating_sub(leading);
    // FIPS 186-5 section A.1.1: odd and above 2^16; larger than 2^32 only slows verifiers down.
    let exponent = key.public_exponent.as_bytes();
    let value = exponent.iter().fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
    if exponent.len() > 4 || value % 2 == 0 || value < 65537 {
        return Err(invalid("the RSA exponent is not an odd number from 65537 to 2^32"));
    }
    match bits {
        3072 => Ok(KeyAlgorithm::Rsa3072),
        4096 => Ok(KeyAlgorithm::Rsa4096),
        0..3072 => Err(rsa_too_short()),
        _ => Err(invalid("the RSA modulus has neither 3072 nor 4096 bits")),
    }
}

fn single_verifier(algorithm: KeyAlgorithm) -> Option<&'static dyn native::VerificationAlgorithm> {
    match algorithm {
        KeyAlgorithm::EcdsaP256 => Some(&native::ECDSA_P256_SHA256_ASN1),
        KeyAlgorithm::EcdsaP384 => Some(&native::ECDSA_P384_SHA384_ASN1),
        KeyAlgorithm::Ed25519 => Some(&native::ED25519),
        KeyAlgorithm::MlDsa44 => Some(&native::ML_DSA_44),
        KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => None,
    }
}

fn rsa_verifier(algorithm: SignatureAlgorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        SignatureAlgorithm::RsaPkcs1Sha256 => Some(&native::RSA_PKCS1_2048_8192_SHA256),
        SignatureAlgorithm::RsaPkcs1Sha384 => Some(&native::RSA_PKCS1_2048_8192_SHA384),
        SignatureAlgorithm::RsaPkcs1Sha512 => Some(&native::RSA_PKCS1_2048_8192_SHA512),
        SignatureAlgorithm::RsaPssSha256 => Some(&native::RSA_PSS_2048_8192_SHA256),
        SignatureAlgorithm::RsaPssSha384 => Some(&native::RSA_PSS_2048_8192_SHA384),
        SignatureAlgorithm::RsaPssSha512 => Some(&native::RSA_PSS_2048_8192_SHA512),
        SignatureAlgorithm::EcdsaP256Sha256
        | SignatureAlgorithm::EcdsaP384Sha384
        | SignatureAlgorithm::Ed25519
        | SignatureAlgorithm::MlDsa44 => None,
    }
}

fn invalid(reason: &str) -> Error {
    Error::Invalid { what: "public key", reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::developer::DeveloperKey;
    use crate::signer::Signer as _;

    #[test]
    fn every_key_type_round_trips_through_its_spki() {
        for algorithm in KeyAlgorithm::ALL {
            let key = DeveloperKey::generate(algorithm).unwrap();
            let again = PublicKey::from_spki_der(key.public_key().spki_der()).unwrap();
            assert_eq!((again.algorithm(), &again), (algorithm, key.public_key()));
            assert_eq!(again.spki_sha256_hex().len(), 64);
        }
    }

    #[test]
    fn damaged_keys_never_parse_as_the_same_key() {
        let key = DeveloperKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let spki = key.public_key().spki_der();
        for position in 0..spki.len() {
            let mut damaged = spki.to_vec();
            damaged[position] ^= 1;
            if let Ok(parsed) = PublicKey::from_spki_der(&damaged) {
                assert_ne!(&parsed, key.public_key());
            }
            assert!(PublicKey::from_spki_der(&spki[..position]).is_err());
        }
        let mut trailing = spki.to_vec();
        trailing.push(0);
        assert!(PublicKey::from_spki_der(&trailing).is_err());
    }

    #[test]
    fn a_point_off_the_curve_is_refused() {
        let key = DeveloperKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let mut spki = key.public_key().spki_der().to_vec();
        let y = spki.len() - 32;
        spki[y..].fill(0x11);
        assert!(PublicKey::from_spki_der(&spki).is_err());
    }

    #[test]
    fn keys_of_another_key_do_not_verify() {
        let (one, two) = (
            DeveloperKey::generate(KeyAlgorithm::Ed25519).unwrap(),
            DeveloperKey::generate(KeyAlgorithm::Ed25519).unwrap(),
        );
        let intent = crate::SigningIntent::fresh(crate::Purpose::Statement).unwrap();
        let signature = one.sign_message(b"m", &intent).unwrap();
        let algorithm = SignatureAlgorithm::Ed25519;
        assert_eq!(
            two.public_key().verify(algorithm, Input::Message(b"m"), signature.as_bytes()),
            Err(InvalidSignature)
        );
        assert_eq!(
            one.public_key().verify(algorithm, Input::Message(b"m"), &signature.as_bytes()[..63]),
            Err(InvalidSignature)
        );
    }
}
