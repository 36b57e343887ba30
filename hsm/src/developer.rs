//! Keys of developers and of short-lived identities: they may leave the process, as PKCS#8 in PEM.
//!
//! Authority keys never do: they live in a [`crate::KeyProvider`]. A developer's key is written either in clear
//! (`PRIVATE KEY`, RFC 5958) or encrypted under a passphrase (`MENTAT ENCRYPTED KEY`): Argon2id and
//! XChaCha20-Poly1305 as in the keystore, because PKCS#5 has no memory-hard derivation that other tools agree on.
//!
//! The encrypted form, version 1:
//!
//! | Offset | Length | Field |
//! |---|---|---|
//! | 0 | 4 | version, big-endian: 1 |
//! | 4 | 12 | Argon2id memory in KiB, passes, lanes, big-endian |
//! | 16 | 16 | salt |
//! | 32 | 24 | nonce |
//! | 56 | rest | PKCS#8, XChaCha20-Poly1305; bytes 0..32 authenticated with it |

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use crate::algorithm::{KeyAlgorithm, SignatureAlgorithm};
use crate::error::Error;
use crate::intent::{Purpose, PurposeSet, SigningIntent};
use crate::passphrase::Passphrase;
use crate::policy::KeyPolicy;
use crate::public_key::PublicKey;
use crate::signer::{Input, ProtectionLevel, Signature, Signer};
use crate::software::kdf::{KdfParameters, KdfProfile};
use crate::software::{NONCE_LEN, PrivateKey, SoftwareSigner, open_sealed, random, seal};

/// Longest PEM text that is read.
pub const MAX_PEM_LEN: usize = 16 * 1024;

/// What a developer's key signs: certificate requests, statements, and tokens that prove possession.
pub const PURPOSES: PurposeSet = PurposeSet::of(&[Purpose::Request, Purpose::Statement, Purpose::Token]);

const CLEAR: &str = "PRIVATE KEY";
const ENCRYPTED: &str = "MENTAT ENCRYPTED KEY";
const VERSION: u32 = 1;
const BOUND_LEN: usize = 32;

/// A developer's key, in memory. Signs through [`Signer`]; can be exported.
#[derive(Clone)]
pub struct DeveloperKey {
    signer: Arc<SoftwareSigner>,
    pkcs8: Arc<Zeroizing<Vec<u8>>>,
}

impl DeveloperKey {
    /// Makes a key.
    ///
    /// # Errors
    /// [`Error::Permanent`] when the library fails.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, Error> {
        Self::new(PrivateKey::generate(algorithm)?)
    }

    /// Reads a key in PEM, clear or encrypted.
    ///
    /// # Errors
    /// [`Error::AuthFailed`] for a wrong passphrase, [`Error::Invalid`] for another format, for an encrypted key without
    /// a passphrase, and for text that is damaged; [`Error::Unsupported`] for RSA below 3072 bits.
    pub fn from_pem(pem: &str, passphrase: Option<&Passphrase>) -> Result<Self, Error> {
        let (label, der) = pem_decode(pem)?;
        match (label, passphrase) {
            (CLEAR, _) => Self::from_pkcs8(&der),
            (ENCRYPTED, Some(passphrase)) => Self::from_pkcs8(&decrypt(&der, passphrase)?),
            (ENCRYPTED, None) => Err(invalid("it is encrypted; a passphrase is needed")),
            ("EC PRIVATE KEY" | "RSA PRIVATE KEY" | "ENCRYPTED PRIVATE KEY", _) => {
                Err(invalid("convert it to unencrypted PKCS#8 first: openssl pkcs8 -topk8 -nocrypt"))
            }
            _ => Err(invalid("the PEM block is not a private key")),
        }
    }

    /// Reads a key in DER PKCS#8.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is no key of a known type.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, Error> {
        Self::new(PrivateKey::from_any_pkcs8(pkcs8)?)
    }

    /// The key in PEM, in clear. Write it to a file of mode 0600.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem_encode(CLEAR, &self.pkcs8))
    }

    /// The key in PEM, encrypted.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the passphrase is shorter than eight bytes.
    pub fn to_encrypted_pem(&self, passphrase: &Passphrase, profile: KdfProfile) -> Result<String, Error> {
        passphrase.check_strength()?;
        let kdf = profile.parameters();
        let salt: [u8; 16] = random()?;
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut der = Vec::with_capacity(BOUND_LEN + NONCE_LEN + self.pkcs8.len() + 16);
        for number in [VERSION, kdf.memory_kib, kdf.passes, kdf.lanes] {
            der.extend_from_slice(&number.to_be_bytes());
        }
        der.extend_from_slice(&salt);
        let key = kdf.derive(passphrase, &salt)?;
        let sealed = seal(&key, &nonce, &self.pkcs8, &der)?;
        der.extend_from_slice(&nonce);
        der.extend_from_slice(&sealed);
        Ok(pem_encode(ENCRYPTED, &der))
    }

    /// The DER PKCS#8 bytes, for libraries that need the key itself (TLS client authentication, CSR builders).
    #[must_use]
    pub fn expose_pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The key as a shared signer.
    #[must_use]
    pub fn signer(&self) -> Arc<dyn Signer> {
        Arc::clone(&self.signer) as Arc<dyn Signer>
    }

    fn new(key: PrivateKey) -> Result<Self, Error> {
        let pkcs8 = Arc::new(key.to_pkcs8()?);
        let public_key = key.public_key()?;
        let signer =
            SoftwareSigner::open(key, public_key, KeyPolicy { purposes: PURPOSES, rate: None, audit: None })?;
        Ok(Self { signer: Arc::new(signer), pkcs8 })
    }
}

impl Signer for DeveloperKey {
    fn public_key(&self) -> &PublicKey {
        self.signer.public_key()
    }

    fn protection(&self) -> ProtectionLevel {
        ProtectionLevel::Software
    }

    fn purposes(&self) -> PurposeSet {
        PURPOSES
    }

    fn sign(
        &self,
        input: Input<'_>,
        algorithm: SignatureAlgorithm,
        intent: &SigningIntent,
    ) -> Result<Signature, Error> {
        self.signer.sign(input, algorithm, intent)
    }
}

impl std::fmt::Debug for DeveloperKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DeveloperKey").field(self.public_key()).finish()
    }
}

fn decrypt(der: &[u8], passphrase: &Passphrase) -> Result<Zeroizing<Vec<u8>>, Error> {
    let short = || invalid("the encrypted key is cut short");
    let (bound, rest) = der.split_first_chunk::<BOUND_LEN>().ok_or_else(short)?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(short)?;
    let (numbers, salt) = bound.split_at(16);
    let mut numbers = numbers.as_chunks::<4>().0.iter().map(|chunk| u32::from_be_bytes(*chunk));
    let mut number = || numbers.next().ok_or_else(short);
    if number()? != VERSION {
        return Err(invalid("unknown version of the encrypted form"));
    }
    let kdf = KdfParameters { memory_kib: number()?, passes: number()?, lanes: number()? };
    if !kdf.within_bounds() {
        return Err(invalid("the passphrase parameters are out of bounds"));
    }
    let key = kdf.derive(passphrase, salt)?;
    open_sealed(&key, nonce, sealed, bound).map_err(|_| Error::AuthFailed {
        what: "the encrypted private key (or the file is damaged)".to_owned(),
    })
}

fn invalid(reason: &str) -> Error {
    Error::Invalid { what: "private key", reason: reason.to_owned() }
}

/// RFC 7468 with 64-character lines.
pub(crate) fn pem_encode(label: &str, der: &[u8]) -> String {
    let body = Zeroizing::new(BASE64.encode(der));
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = body.as_str();
    while let Some((line, tail)) = rest.split_at_checked(64) {
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    if !rest.is_empty() {
        text.push_str(rest);
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// Exactly one PEM block; text around it is refused.
fn pem_decode(pem: &str) -> Result<(&str, Zeroizing<Vec<u8>>), Error> {
    if pem.len() > MAX_PEM_LEN {
        return Err(invalid("the PEM text is longer than 16 KiB"));
    }
    let malformed = || invalid("it is not one PEM block");
    let (label, rest) = pem
        .trim()
        .strip_prefix("-----BEGIN ")
        .and_then(|rest| rest.split_once("-----"))
        .ok_or_else(malformed)?;
    let body = rest
        .strip_suffix("-----")
        .and_then(|rest| rest.strip_suffix(label))
        .and_then(|rest| rest.strip_suffix("-----END "))
        .ok_or_else(malformed)?;
    let mut joined = Zeroizing::new(String::with_capacity(body.len()));
    joined.extend(body.chars().filter(|c| !c.is_ascii_whitespace()));
    let der = BASE64.decode(joined.as_bytes()).map(Zeroizing::new).map_err(|_| malformed())?;
    Ok((label, der))
}

#[cfg(test)]
mod tests;
