//! Verifier keys: `name+hex(keyID)+base64(type ‖ public key)` and what each type signs.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{KeyId, SignedTime, is_key_name};
use crate::checkpoint::Checkpoint;
use crate::cosignature::{self, SubtreeStatement, TimestampedSignature};
use crate::error::Error;
use crate::hash::Hash;
use crate::signature::{Algorithm, SignatureVerifier};
use crate::static_ct::TreeHeadSignature;

/// Longest verifier key that is parsed; an ML-DSA-44 key takes about 1.8 KB.
const MAX_KEY_SIZE: usize = 4096;

const ED25519_KEY_SIZE: usize = 32;
const ML_DSA_44_KEY_SIZE: usize = 1312;

/// What RSA keys of Rekor v2 put in the place of a type byte's algorithm name.
const RSA_TYPE: &[u8] = b"\xffPKIX-RSA-PKCS#1v1.5";

/// A curve of ECDSA keys.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
}

impl Curve {
    /// Everything in front of the uncompressed point in a DER SubjectPublicKeyInfo of this curve.
    fn spki_prefix(self) -> &'static [u8] {
        match self {
            Self::P256 => b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
            Self::P384 => b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00",
            Self::P521 => b"\x30\x81\x9b\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23\x03\x81\x86\x00",
        }
    }

    fn point_size(self) -> usize {
        match self {
            Self::P256 => 65,
            Self::P384 => 97,
            Self::P521 => 133,
        }
    }

    /// Splits a DER SubjectPublicKeyInfo with an uncompressed point.
    fn split_spki(spki: &[u8]) -> Option<(Self, &[u8])> {
        [Self::P256, Self::P384, Self::P521].into_iter().find_map(|curve| {
            let point = spki.strip_prefix(curve.spki_prefix())?;
            (point.len() == curve.point_size() && point.first() == Some(&0x04)).then_some((curve, point))
        })
    }

    fn with_sha256(self) -> Algorithm {
        match self {
            Self::P256 => Algorithm::EcdsaP256Sha256,
            Self::P384 => Algorithm::EcdsaP384Sha256,
            Self::P521 => Algorithm::EcdsaP521Sha256,
        }
    }
}

/// Type of a verifier key: which algorithm signs which bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum KeyKind {
    /// 0x04: Ed25519 cosignature (`cosignature/v1`), of a witness only.
    CosignatureV1,
    /// 0x02: ECDSA with SHA-256 over the note text.
    Ecdsa(Curve),
    /// 0x01: Ed25519 over the note text.
    Ed25519,
    /// 0x06: ML-DSA-44 over a (sub)tree statement (`subtree/v1`), of a log or a witness.
    MlDsa44,
    /// 0xff with the name Rekor v2 gives it: RSA PKCS #1 v1.5 with SHA-256 over the note text. Read only.
    RsaPkcs1,
    /// 0x05: RFC 6962 tree head signature of a certificate log (ECDSA P-256).
    TreeHead,
}

impl KeyKind {
    /// The type byte.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Ecdsa(_) => 0x02,
            Self::CosignatureV1 => 0x04,
            Self::TreeHead => 0x05,
            Self::MlDsa44 => 0x06,
            Self::RsaPkcs1 => 0xff,
        }
    }

    /// True for types with which a log signs its checkpoints.
    #[must_use]
    pub fn signs_checkpoints(self) -> bool {
        self != Self::CosignatureV1
    }

    /// True for types with which a witness cosigns.
    #[must_use]
    pub fn cosigns(self) -> bool {
        matches!(self, Self::CosignatureV1 | Self::MlDsa44)
    }
}

/// A key that verifies signature lines.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct VerifierKey {
    name: String,
    hash: Hash,
    kind: KeyKind,
    /// Content of the subjectPublicKey bit string, as signature verifiers take it.
    public_key: Vec<u8>,
    /// What follows the type byte in the text form.
    encoded: Vec<u8>,
}

impl VerifierKey {
    /// An Ed25519 key over note texts (0x01).
    ///
    /// # Errors
    /// [`Error::Malformed`] when the name is not a key name.
    pub fn ed25519(name: &str, public_key: &[u8; ED25519_KEY_SIZE]) -> Result<Self, Error> {
        Self::new(name, KeyKind::Ed25519, public_key, public_key.to_vec())
    }

    /// An ECDSA key over note texts (0x02), from its DER SubjectPublicKeyInfo with an uncompressed point.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the name is not a key name or the key not on P-256, P-384 or P-521.
    pub fn ecdsa(name: &str, spki: &[u8]) -> Result<Self, Error> {
        let (curve, point) = Curve::split_spki(spki).ok_or_else(bad_key)?;
        Self::new(name, KeyKind::Ecdsa(curve), point, spki.to_vec())
    }

    /// An Ed25519 cosigning key (0x04).
    ///
    /// # Errors
    /// [`Error::Malformed`] when the name is not a key name.
    pub fn cosignature_v1(name: &str, public_key: &[u8; ED25519_KEY_SIZE]) -> Result<Self, Error> {
        Self::new(name, KeyKind::CosignatureV1, public_key, public_key.to_vec())
    }

    /// The tree head key of a certificate log (0x05), from its DER SubjectPublicKeyInfo (P-256).
    ///
    /// # Errors
    /// [`Error::Malformed`] when the name is not a key name or the key not on P-256.
    pub fn tree_head(name: &str, spki: &[u8]) -> Result<Self, Error> {
        match Curve::split_spki(spki) {
            Some((Curve::P256, point)) => {
                Self::new(name, KeyKind::TreeHead, point, Hash::digest(spki).as_bytes().to_vec())
            }
            _ => Err(bad_key()),
        }
    }

    /// An ML-DSA-44 key (0x06) of a log or a witness.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the name is not a key name of at most 255 bytes or the key not 1312 bytes long.
    pub fn ml_dsa_44(name: &str, public_key: &[u8]) -> Result<Self, Error> {
        if public_key.len() != ML_DSA_44_KEY_SIZE || name.len() > cosignature::MAX_NAME_SIZE {
            return Err(bad_key());
        }
        Self::new(name, KeyKind::MlDsa44, public_key, public_key.to_vec())
    }

    /// An RSA key as Rekor v2 uses it (0xff): the DER SubjectPublicKeyInfo and the PKCS #1 key inside it.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the name is not a key name or `spki` does not end with `rsa_public_key`.
    pub fn rsa_pkcs1(name: &str, spki: &[u8], rsa_public_key: &[u8]) -> Result<Self, Error> {
        if rsa_public_key.is_empty() || !spki.ends_with(rsa_public_key) {
            return Err(bad_key());
        }
        Self::new(name, KeyKind::RsaPkcs1, rsa_public_key, spki.to_vec())
    }

    /// Reads the text form. The type 0x05 cannot be read: its text holds the log's ID instead of a key, see
    /// [`tree_head`](Self::tree_head).
    ///
    /// # Errors
    /// [`Error::Malformed`] also when the key ID is not that of name and key; [`Error::UnsupportedKey`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_KEY_SIZE {
            return Err(Error::TooLarge { what: "verifier key", limit: MAX_KEY_SIZE });
        }
        let malformed = |what, at| Error::malformed(what, at);
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(body)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("verifier key is not name+id+key", 0));
        };
        let key_at = name.len() + id.len() + 2;
        let bytes =
            STANDARD.decode(body).map_err(|_| malformed("verifier key is not canonical base64", key_at))?;
        let (kind, key) =
            bytes.split_first().ok_or_else(|| malformed("verifier key has no type byte", key_at))?;
        let parsed = match kind {
            0x01 => Self::ed25519(name, key.try_into().map_err(|_| bad_key())?)?,
            0x02 => Self::ecdsa(name, key)?,
            0x04 => Self::cosignature_v1(name, key.try_into().map_err(|_| bad_key())?)?,
            0x06 => Self::ml_dsa_44(name, key)?,
            other => return Err(Error::UnsupportedKey { kind: *other }),
        };
        // Compared as text: an ID in upper case or of another length is not the canonical form.
        if parsed.id().to_string() != id {
            return Err(malformed("verifier key has the wrong key ID", name.len() + 1));
        }
        Ok(parsed)
    }

    /// Name of the key; of a log's key also its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// ID of the key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let [a, b, c, d, ..] = self.hash.0;
        KeyId([a, b, c, d])
    }

    /// All 32 bytes of the hash whose first four are the ID: the `logId.keyId` of Sigstore's files.
    #[must_use]
    pub fn key_hash(&self) -> Hash {
        self.hash
    }

    /// Type of the key.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The raw public key: content of the subjectPublicKey bit string.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Verifies the body of a signature line over a note text and returns the time it carries.
    ///
    /// # Errors
    /// [`Error::SignatureInvalid`] for every failure, also when the text is not a checkpoint but the type of the
    /// key signs nothing else.
    pub fn verify(
        &self,
        text: &str,
        signature: &[u8],
        verifier: &dyn SignatureVerifier,
    ) -> Result<Option<SignedTime>, Error> {
        self.verify_line(text, signature, verifier)
            .ok_or_else(|| Error::SignatureInvalid { name: self.name.clone() })
    }

    #[allow(clippy::option_option, reason = "outer: valid or not; inner: carries a time or not")]
    fn verify_line(
        &self,
        text: &str,
        body: &[u8],
        verifier: &dyn SignatureVerifier,
    ) -> Option<Option<SignedTime>> {
        let key = self.public_key.as_slice();
        match self.kind {
            KeyKind::Ed25519 => {
                verifier.verify(Algorithm::Ed25519, key, text.as_bytes(), body).ok()?;
                Some(None)
            }
            KeyKind::Ecdsa(curve) => {
                verifier.verify(curve.with_sha256(), key, text.as_bytes(), body).ok()?;
                Some(None)
            }
            KeyKind::RsaPkcs1 => {
                verifier.verify(Algorithm::RsaPkcs1Sha256, key, text.as_bytes(), body).ok()?;
                Some(None)
            }
            KeyKind::CosignatureV1 => {
                let TimestampedSignature { time, signature } = TimestampedSignature::parse(body).ok()?;
                let message = cosignature::v1_message(time, text);
                verifier.verify(Algorithm::Ed25519, key, &message, &signature).ok()?;
                Some(Some(SignedTime::Seconds(time)))
            }
            KeyKind::MlDsa44 => {
                let TimestampedSignature { time, signature } = TimestampedSignature::parse(body).ok()?;
                let checkpoint = Checkpoint::parse(text).ok()?;
                let message =
                    SubtreeStatement::of_checkpoint(&self.name, time, &checkpoint).message().ok()?;
                verifier.verify(Algorithm::MlDsa44, key, &message, &signature).ok()?;
                Some((time != 0).then_some(SignedTime::Seconds(time)))
            }
            KeyKind::TreeHead => {
                let checkpoint = Checkpoint::parse(text).ok().filter(|c| c.extensions().is_empty())?;
                let TreeHeadSignature { timestamp, signature } = TreeHeadSignature::parse(body).ok()?;
                let message = TreeHeadSignature::message(timestamp, checkpoint.head());
                verifier.verify(Algorithm::EcdsaP256Sha256, key, &message, &signature).ok()?;
                Some(Some(SignedTime::Milliseconds(timestamp)))
            }
        }
    }

    fn new(name: &str, kind: KeyKind, public_key: &[u8], encoded: Vec<u8>) -> Result<Self, Error> {
        if !is_key_name(name) {
            return Err(Error::malformed(
                "key name is empty or holds a space, a control character or '+'",
                0,
            ));
        }
        let hash = match kind {
            KeyKind::Ecdsa(_) => Hash::digest(&encoded),
            KeyKind::RsaPkcs1 => Hash::digest(&[name.as_bytes(), b"\n", RSA_TYPE, &encoded].concat()),
            kind => Hash::digest(&[name.as_bytes(), b"\n", &[kind.byte()], &encoded].concat()),
        };
        Ok(Self { name: name.to_string(), hash, kind, public_key: public_key.to_vec(), encoded })
    }
}

impl fmt::Display for VerifierKey {
    /// The text form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut body = Vec::with_capacity(1 + self.encoded.len());
        body.push(self.kind.byte());
        body.extend_from_slice(&self.encoded);
        write!(f, "{}+{}+{}", self.name, self.id(), STANDARD.encode(body))
    }
}

/// Reads several verifier keys, one text form each.
///
/// # Errors
/// The first that cannot be read.
pub fn verifier_keys<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<VerifierKey>, Error> {
    texts.into_iter().map(VerifierKey::parse).collect()
}

fn bad_key() -> Error {
    Error::malformed("public key does not have the form of its type", 0)
}
