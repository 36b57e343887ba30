//! JSON Web Signatures in compact form (RFC 7515 §3.1) under JSON Web Keys (RFC 7517, RFC 7518), read only.
//!
//! In scope: RS256 and ES256 under keys that the issuer publishes. Out of scope, and refused: `none`, shared secrets,
//! encryption, critical header parameters, unencoded payloads. Keys that a token brings along or points to (`jwk`,
//! `jku`, `x5c`, `x5u`) are never looked at.

use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::asn1::UintRef;
use der::{Encode, Sequence};
use serde::Deserialize;
use serde::de::IgnoredAny;
use trust_store::signature::{Algorithm, SignatureVerifier};

use crate::error::TokenRefusal;

/// Longest token read, in bytes. Tokens of CI providers have two to four thousand.
pub const MAX_TOKEN: usize = 16 * 1024;
/// Largest key set read, in bytes.
pub const MAX_KEY_SET: usize = 256 * 1024;
/// Most keys taken from one key set. The large providers publish two to six.
const MAX_KEYS: usize = 64;
/// RFC 7518 §3.3: at least 2048 bits; above 8192 a verification costs more than a stranger may ask for.
const RSA_MODULUS_OCTETS: core::ops::RangeInclusive<usize> = 256..=1024;
/// Octets of a coordinate, and of each half of a signature, on P-256.
const P256_OCTETS: usize = 32;

/// The algorithms that are accepted, and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwsAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

impl JwsAlgorithm {
    fn named(name: &str) -> Option<Self> {
        match name {
            "ES256" => Some(Self::Es256),
            "RS256" => Some(Self::Rs256),
            _ => None,
        }
    }
}

/// A public key of an issuer that may have signed a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwk {
    id: Option<String>,
    algorithm: JwsAlgorithm,
    /// As signature verifiers want it: RSAPublicKey DER, or the uncompressed point.
    bits: Vec<u8>,
}

impl Jwk {
    /// Whether the key has this id.
    #[must_use]
    pub fn is_called(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id)
    }
}

#[derive(Deserialize)]
struct RawKeySet {
    keys: Vec<RawKey>,
}

#[derive(Deserialize)]
struct RawKey {
    kty: String,
    #[serde(rename = "use")]
    key_use: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// The private half. A set that publishes one is no secret of anybody.
    d: Option<IgnoredAny>,
}

#[derive(Sequence)]
struct Pair<'a> {
    first: UintRef<'a>,
    second: UintRef<'a>,
}

/// SEQUENCE of two unsigned integers: the form of RSAPublicKey (RFC 8017 A.1.1) and of Ecdsa-Sig-Value (RFC 3279).
fn pair(first: &[u8], second: &[u8]) -> Option<Vec<u8>> {
    let pair = Pair { first: UintRef::new(first).ok()?, second: UintRef::new(second).ok()? };
    pair.to_der().ok()
}

/// Reads a key set (RFC 7517 §5). Keys of other types and uses are left out, as §5 demands.
///
/// # Errors
/// [`TokenRefusal::KeySet`] when it is no key set or holds more keys than an issuer needs.
pub fn parse_key_set(json: &[u8]) -> Result<Vec<Jwk>, TokenRefusal> {
    if json.len() > MAX_KEY_SET {
        return Err(TokenRefusal::KeySet("longer than 256 KiB"));
    }
    let set: RawKeySet = serde_json::from_slice(json).map_err(|_| TokenRefusal::KeySet("not a key set"))?;
    if set.keys.len() > MAX_KEYS {
        return Err(TokenRefusal::KeySet("too many keys"));
    }
    Ok(set.keys.iter().filter_map(usable).collect())
}

fn usable(raw: &RawKey) -> Option<Jwk> {
    if raw.key_use.as_deref().is_some_and(|key_use| key_use != "sig") || raw.d.is_some() {
        return None;
    }
    let octets = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
    let (algorithm, bits) = match (raw.kty.as_str(), raw.crv.as_deref()) {
        ("RSA", _) => {
            let (modulus, exponent) = (octets(&raw.n)?, octets(&raw.e)?);
            let length = modulus.iter().skip_while(|octet| **octet == 0).count();
            if !RSA_MODULUS_OCTETS.contains(&length) {
                return None;
            }
            (JwsAlgorithm::Rs256, pair(&modulus, &exponent)?)
        }
        ("EC", Some("P-256")) => {
            let (x, y) = (octets(&raw.x)?, octets(&raw.y)?);
            if x.len() != P256_OCTETS || y.len() != P256_OCTETS {
                return None;
            }
            (JwsAlgorithm::Es256, [&[4], x.as_slice(), y.as_slice()].concat())
        }
        _ => return None,
    };
    if raw.alg.as_deref().is_some_and(|name| JwsAlgorithm::named(name) != Some(algorithm)) {
        return None;
    }
    Some(Jwk { id: raw.kid.clone(), algorithm, bits })
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
    b64: Option<IgnoredAny>,
    enc: Option<IgnoredAny>,
}

/// A token taken apart, its signature not yet verified.
pub struct Jws<'a> {
    algorithm: JwsAlgorithm,
    key_id: Option<String>,
    signed: &'a [u8],
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// The payload of a token whose signature was verified.
pub struct VerifiedPayload(Vec<u8>);

impl VerifiedPayload {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<'a> Jws<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`TokenRefusal::Malformed`], [`TokenRefusal::AlgorithmNotAllowed`].
    pub fn parse(token: &'a str) -> Result<Self, TokenRefusal> {
        if token.len() > MAX_TOKEN {
            return Err(TokenRefusal::Malformed("longer than 16 KiB"));
        }
        let (signed, signature) = token
            .rsplit_once('.')
            .ok_or(TokenRefusal::Malformed("not three parts with dots between them"))?;
        let (header, payload) = signed
            .split_once('.')
            .ok_or(TokenRefusal::Malformed("not three parts with dots between them"))?;
        // A dot in the payload is no character of base64url: five parts (encryption) fail here.
        let decode = |part: &str| {
            URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenRefusal::Malformed("a part is not base64url"))
        };
        let header: Header = serde_json::from_slice(&decode(header)?)
            .map_err(|_| TokenRefusal::Malformed("the header is not a JSON object with alg"))?;
        if header.crit.is_some() || header.b64.is_some() || header.enc.is_some() {
            return Err(TokenRefusal::Malformed("the header demands an extension"));
        }
        let algorithm = JwsAlgorithm::named(&header.alg).ok_or(TokenRefusal::AlgorithmNotAllowed)?;
        Ok(Self {
            algorithm,
            key_id: header.kid,
            signed: signed.as_bytes(),
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }

    /// The key that the token says it was signed with.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The payload before anything was verified: good for choosing whose keys to fetch, and for nothing else.
    #[must_use]
    pub fn unverified_payload(&self) -> &[u8] {
        &self.payload
    }

    /// Verifies the signature with the one key that the header names; without a name, with the only key that fits.
    ///
    /// # Errors
    /// [`TokenRefusal::KeyUnknown`], [`TokenRefusal::SignatureInvalid`].
    pub fn verify(
        self,
        keys: &[Jwk],
        verifier: &dyn SignatureVerifier,
    ) -> Result<VerifiedPayload, TokenRefusal> {
        let mut fitting = keys.iter().filter(|key| {
            key.algorithm == self.algorithm && self.key_id.as_deref().is_none_or(|id| key.is_called(id))
        });
        // Two keys of one name, or none named and two that fit: the issuer must say which.
        let (Some(key), None) = (fitting.next(), fitting.next()) else {
            return Err(TokenRefusal::KeyUnknown);
        };
        let verified = match self.algorithm {
            JwsAlgorithm::Rs256 => {
                verifier.verify(Algorithm::RsaPkcs1Sha256, &key.bits, self.signed, &self.signature)
            }
            JwsAlgorithm::Es256 => {
                // RFC 7518 §3.4: both halves, of fixed length.
                let halves = self.signature.split_at_checked(P256_OCTETS);
                let (r, s) = halves
                    .filter(|(_, s)| s.len() == P256_OCTETS)
                    .ok_or(TokenRefusal::Malformed("an ES256 signature has 64 octets"))?;
                let signature = pair(r, s).ok_or(TokenRefusal::SignatureInvalid)?;
                verifier.verify(Algorithm::EcdsaP256Sha256, &key.bits, self.signed, &signature)
            }
        };
        verified.map_err(|_| TokenRefusal::SignatureInvalid)?;
        Ok(VerifiedPayload(self.payload))
    }
}
