//! Algorithm identifiers of keys and signatures (RFC 5280 §4.1.1.2, 4055, 5480, 5758, 8410, 9881).

use core::fmt;

use tlog::signature::Algorithm;

use crate::oid;
use crate::x690::{Element, Malformed, Reader, tag};

/// The kind of a subject public key.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum KeyAlgorithm {
    /// NIST P-256
    EcdsaP256,
    /// NIST P-384
    EcdsaP384,
    /// NIST P-521
    EcdsaP521,
    /// Ed25519
    Ed25519,
    /// ML-DSA-44
    MlDsa44,
    /// ML-DSA-65
    MlDsa65,
    /// ML-DSA-87
    MlDsa87,
    /// RSA of any size
    Rsa,
    /// Any other; no signature by such a key is accepted.
    Unsupported,
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "P-256",
            Self::EcdsaP384 => "P-384",
            Self::EcdsaP521 => "P-521",
            Self::Ed25519 => "Ed25519",
            Self::MlDsa44 => "ML-DSA-44",
            Self::MlDsa65 => "ML-DSA-65",
            Self::MlDsa87 => "ML-DSA-87",
            Self::Rsa => "RSA",
            Self::Unsupported => "unsupported key",
        })
    }
}

/// The algorithm a structure says it was signed with. Which curve is meant follows from the signer's key.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum SignatureAlgorithm {
    /// ecdsa-with-SHA256
    EcdsaSha256,
    /// ecdsa-with-SHA384
    EcdsaSha384,
    /// ecdsa-with-SHA512
    EcdsaSha512,
    /// Ed25519
    Ed25519,
    /// ML-DSA-44
    MlDsa44,
    /// ML-DSA-65
    MlDsa65,
    /// ML-DSA-87
    MlDsa87,
    /// sha256WithRSAEncryption
    RsaPkcs1Sha256,
    /// sha384WithRSAEncryption
    RsaPkcs1Sha384,
    /// sha512WithRSAEncryption
    RsaPkcs1Sha512,
    /// RSASSA-PSS with SHA-256 throughout
    RsaPssSha256,
    /// RSASSA-PSS with SHA-384 throughout
    RsaPssSha384,
    /// RSASSA-PSS with SHA-512 throughout
    RsaPssSha512,
    /// Any other, SHA-1 and DSA among them; never accepted.
    Unsupported,
}

impl SignatureAlgorithm {
    /// Reads an `AlgorithmIdentifier`. An algorithm that is not known is [`SignatureAlgorithm::Unsupported`];
    /// a known one with wrong parameters is an error.
    pub fn from_element(element: Element<'_>) -> Result<Self, Malformed> {
        let mut fields = element.reader();
        let id = fields.expect(tag::OID)?.oid()?;
        let parameters = if fields.is_empty() { None } else { Some(fields.read()?) };
        fields.finish()?;
        let plain = [
            (oid::ECDSA_WITH_SHA256, Self::EcdsaSha256),
            (oid::ECDSA_WITH_SHA384, Self::EcdsaSha384),
            (oid::ECDSA_WITH_SHA512, Self::EcdsaSha512),
            (oid::ED25519, Self::Ed25519),
            (oid::ML_DSA_44, Self::MlDsa44),
            (oid::ML_DSA_65, Self::MlDsa65),
            (oid::ML_DSA_87, Self::MlDsa87),
        ];
        if let Some((_, algorithm)) = plain.iter().find(|(known, _)| known.as_bytes() == id) {
            return match parameters {
                None => Ok(*algorithm),
                Some(_) => Err(element.error("algorithm takes no parameters")),
            };
        }
        let rsa = [
            (oid::SHA256_WITH_RSA, Self::RsaPkcs1Sha256),
            (oid::SHA384_WITH_RSA, Self::RsaPkcs1Sha384),
            (oid::SHA512_WITH_RSA, Self::RsaPkcs1Sha512),
        ];
        if let Some((_, algorithm)) = rsa.iter().find(|(known, _)| known.as_bytes() == id) {
            // RFC 4055 §5: NULL is to be written, its absence is to be accepted.
            return match parameters {
                None => Ok(*algorithm),
                Some(p) if is_null(&p) => Ok(*algorithm),
                Some(_) => Err(element.error("RSA parameters are not NULL")),
            };
        }
        if id == oid::RSASSA_PSS.as_bytes() {
            return match parameters {
                Some(p) => Ok(pss_algorithm(p)?.unwrap_or(Self::Unsupported)),
                None => Ok(Self::Unsupported), // the defaults mean SHA-1
            };
        }
        Ok(Self::Unsupported)
    }

    /// The algorithm to verify with under a key of this kind; `None` if they do not go together.
    pub fn with_key(self, key: KeyAlgorithm) -> Option<Algorithm> {
        use KeyAlgorithm as K;
        Some(match (self, key) {
            (Self::EcdsaSha256, K::EcdsaP256) => Algorithm::EcdsaP256Sha256,
            (Self::EcdsaSha384, K::EcdsaP256) => Algorithm::EcdsaP256Sha384,
            (Self::EcdsaSha512, K::EcdsaP256) => Algorithm::EcdsaP256Sha512,
            (Self::EcdsaSha256, K::EcdsaP384) => Algorithm::EcdsaP384Sha256,
            (Self::EcdsaSha384, K::EcdsaP384) => Algorithm::EcdsaP384Sha384,
            (Self::EcdsaSha512, K::EcdsaP384) => Algorithm::EcdsaP384Sha512,
            (Self::EcdsaSha256, K::EcdsaP521) => Algorithm::EcdsaP521Sha256,
            (Self::EcdsaSha512, K::EcdsaP521) => Algorithm::EcdsaP521Sha512,
            (Self::Ed25519, K::Ed25519) => Algorithm::Ed25519,
            (Self::MlDsa44, K::MlDsa44) => Algorithm::MlDsa44,
            (Self::MlDsa65, K::MlDsa65) => Algorithm::MlDsa65,
            (Self::MlDsa87, K::MlDsa87) => Algorithm::MlDsa87,
            (Self::RsaPkcs1Sha256, K::Rsa) => Algorithm::RsaPkcs1Sha256,
            (Self::RsaPkcs1Sha384, K::Rsa) => Algorithm::RsaPkcs1Sha384,
            (Self::RsaPkcs1Sha512, K::Rsa) => Algorithm::RsaPkcs1Sha512,
            (Self::RsaPssSha256, K::Rsa) => Algorithm::RsaPssSha256,
            (Self::RsaPssSha384, K::Rsa) => Algorithm::RsaPssSha384,
            (Self::RsaPssSha512, K::Rsa) => Algorithm::RsaPssSha512,
            _ => return None,
        })
    }
}

impl KeyAlgorithm {
    /// Reads the `AlgorithmIdentifier` of a subject public key.
    pub fn from_element(element: Element<'_>) -> Result<Self, Malformed> {
        let mut fields = element.reader();
        let id = fields.expect(tag::OID)?.oid()?;
        let parameters = if fields.is_empty() { None } else { Some(fields.read()?) };
        fields.finish()?;
        if id == oid::EC_PUBLIC_KEY.as_bytes() {
            let curve = match parameters {
                Some(p) if p.tag() == tag::OID => p.oid()?,
                _ => return Ok(Self::Unsupported), // explicit or implicit curve parameters (RFC 5480 §2.1.1)
            };
            let curves = [
                (oid::SECP256R1, Self::EcdsaP256),
                (oid::SECP384R1, Self::EcdsaP384),
                (oid::SECP521R1, Self::EcdsaP521),
            ];
            let known = curves.iter().find(|(known, _)| known.as_bytes() == curve);
            return Ok(known.map_or(Self::Unsupported, |(_, algorithm)| *algorithm));
        }
        if id == oid::RSA_ENCRYPTION.as_bytes() {
            return match parameters {
                None => Ok(Self::Rsa),
                Some(p) if is_null(&p) => Ok(Self::Rsa),
                Some(_) => Err(element.error("RSA parameters are not NULL")),
            };
        }
        let plain = [
            (oid::ED25519, Self::Ed25519),
            (oid::ML_DSA_44, Self::MlDsa44),
            (oid::ML_DSA_65, Self::MlDsa65),
            (oid::ML_DSA_87, Self::MlDsa87),
        ];
        match (plain.iter().find(|(known, _)| known.as_bytes() == id), parameters) {
            (Some((_, algorithm)), None) => Ok(*algorithm),
            (Some(_), Some(_)) => Err(element.error("algorithm takes no parameters")),
            (None, _) => Ok(Self::Unsupported),
        }
    }
}

/// A SubjectPublicKeyInfo: the kind of key and the octets of its bit string.
#[derive(Clone, Copy, Debug)]
pub struct SubjectPublicKey<'a> {
    /// The kind of key.
    pub algorithm: KeyAlgorithm,
    /// The key as [`tlog::signature::SignatureVerifier`] takes it.
    pub key: &'a [u8],
}

impl<'a> SubjectPublicKey<'a> {
    /// Reads a DER SubjectPublicKeyInfo with nothing after it.
    pub fn from_der(spki: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Reader::only(spki, tag::SEQUENCE)?.reader();
        let algorithm = KeyAlgorithm::from_element(fields.expect(tag::SEQUENCE)?)?;
        let key = fields.expect(tag::BIT_STRING)?.octet_bit_string()?.of(spki);
        fields.finish()?;
        Ok(Self { algorithm, key })
    }
}

fn is_null(element: &Element<'_>) -> bool {
    element.tag() == tag::NULL && element.content().is_empty()
}

/// RFC 4055 §3.1. Only the combinations in which hash, mask hash and salt length agree have a name here.
fn pss_algorithm(parameters: Element<'_>) -> Result<Option<SignatureAlgorithm>, Malformed> {
    if parameters.tag() != tag::SEQUENCE {
        return Err(parameters.error("PSS parameters are not a SEQUENCE"));
    }
    let mut fields = parameters.reader();
    let hash = match fields.optional(tag::constructed(0))? {
        Some(wrapper) => hash_identifier(wrapper.reader())?,
        None => None,
    };
    let mask_hash = match fields.optional(tag::constructed(1))? {
        Some(wrapper) => {
            let mut inner = wrapper.reader();
            let mut mask = inner.sequence()?;
            inner.finish()?;
            if mask.expect(tag::OID)?.oid()? != oid::MGF1.as_bytes() {
                return Ok(None);
            }
            hash_identifier(mask)?
        }
        None => None,
    };
    let salt = match fields.optional(tag::constructed(2))? {
        Some(wrapper) => {
            let mut inner = wrapper.reader();
            let salt = inner.expect(tag::INTEGER)?.small_integer()?;
            inner.finish()?;
            salt
        }
        None => 20,
    };
    if let Some(trailer) = fields.optional(tag::constructed(3))? {
        let mut inner = trailer.reader();
        if inner.expect(tag::INTEGER)?.small_integer()? != 1 {
            return Ok(None);
        }
        inner.finish()?;
    }
    fields.finish()?;
    let known = [
        (oid::SHA256, 32, SignatureAlgorithm::RsaPssSha256),
        (oid::SHA384, 48, SignatureAlgorithm::RsaPssSha384),
        (oid::SHA512, 64, SignatureAlgorithm::RsaPssSha512),
    ];
    let found = known.iter().find(|(id, length, _)| {
        hash == Some(id.as_bytes()) && mask_hash == Some(id.as_bytes()) && salt == *length
    });
    Ok(found.map(|(_, _, algorithm)| *algorithm))
}

/// The object identifier of a hash `AlgorithmIdentifier` with NULL or no parameters.
pub(crate) fn hash_identifier(mut wrapper: Reader<'_>) -> Result<Option<&[u8]>, Malformed> {
    let mut fields = wrapper.sequence()?;
    wrapper.finish()?;
    let id = fields.expect(tag::OID)?.oid()?;
    if let Some(parameters) = fields.optional(tag::NULL)?
        && !parameters.content().is_empty()
    {
        return Err(parameters.error("NULL has content"));
    }
    fields.finish()?;
    Ok(Some(id))
}
