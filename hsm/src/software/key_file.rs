//! The `LABEL.key` file, version 1.
//!
//! | Offset | Length | Field |
//! |---|---|---|
//! | 0 | 8 | `MENTATKY` |
//! | 8 | 4 | version, big-endian: 1 |
//! | 12 | 16 | id of the keystore it belongs to |
//! | 28 | 4 | length n of the metadata, big-endian, at most 8,192 |
//! | 32 | n | metadata: JSON, fields in the order of [`Metadata`], no spaces |
//! | 32 + n | 24 | nonce |
//! | 56 + n | rest | PKCS#8 private key, XChaCha20-Poly1305 under the master key; bytes 0..32+n authenticated with it |
//!
//! The metadata is in clear, so that keys can be listed and their public halves exported without a passphrase; it is
//! trusted only after the private half was decrypted with it.

use std::num::NonZeroU32;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::header::{KeystoreId, MasterKey};
use super::seal::{self, NONCE_LEN};
use crate::algorithm::KeyAlgorithm;
use crate::error::Error;
use crate::intent::PurposeSet;
use crate::provider::{KeyLabel, KeySpec};
use crate::public_key::PublicKey;

/// Longest key file in bytes; RSA-4096 needs about 4,300.
pub const MAX_LEN: u64 = 16 * 1024;

const MAGIC: &[u8; 8] = b"MENTATKY";
const VERSION: u32 = 1;
const MAX_METADATA_LEN: usize = 8192;

/// The metadata as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// The key's label; equals the file name without `.key`.
    pub label: String,
    /// The key's type by its stable name.
    pub algorithm: String,
    /// Its purposes by their stable names, sorted.
    pub purposes: Vec<String>,
    /// Limit on signatures per second; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_second: Option<NonZeroU32>,
    /// The SPKI, base64 with padding.
    pub spki: String,
}

/// A parsed key file; its private key is still encrypted.
pub(crate) struct KeyFile {
    pub(crate) label: KeyLabel,
    pub(crate) purposes: PurposeSet,
    pub(crate) max_per_second: Option<NonZeroU32>,
    pub(crate) public_key: PublicKey,
    bound: Vec<u8>,
    nonce: [u8; NONCE_LEN],
    sealed: Vec<u8>,
}

impl KeyFile {
    /// Encodes a key for the keystore `id`.
    pub(crate) fn encode(
        id: KeystoreId,
        master: &MasterKey,
        spec: &KeySpec,
        public_key: &PublicKey,
        pkcs8: &[u8],
    ) -> Result<Vec<u8>, Error> {
        Self::encode_with(id, master, spec, public_key, pkcs8, seal::random()?)
    }

    fn encode_with(
        id: KeystoreId,
        master: &MasterKey,
        spec: &KeySpec,
        public_key: &PublicKey,
        pkcs8: &[u8],
        nonce: [u8; NONCE_LEN],
    ) -> Result<Vec<u8>, Error> {
        let metadata = Metadata {
            label: spec.label.to_string(),
            algorithm: public_key.algorithm().as_str().to_owned(),
            purposes: spec.purposes.iter().map(|p| p.as_str().to_owned()).collect(),
            max_per_second: spec.max_per_second,
            spki: BASE64.encode(public_key.spki_der()),
        };
        let too_long = || Error::Permanent { detail: "the key's metadata is too long".to_owned() };
        let metadata = serde_json::to_vec(&metadata).map_err(|_| too_long())?;
        let length = u32::try_from(metadata.len()).map_err(|_| too_long())?;
        let mut file = Vec::with_capacity(32 + metadata.len() + NONCE_LEN + pkcs8.len() + seal::TAG_LEN);
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&VERSION.to_be_bytes());
        file.extend_from_slice(&id);
        file.extend_from_slice(&length.to_be_bytes());
        file.extend_from_slice(&metadata);
        let sealed = seal::seal(master, &nonce, pkcs8, &file)?;
        file.extend_from_slice(&nonce);
        file.extend_from_slice(&sealed);
        Ok(file)
    }

    /// Parses a file of the keystore `id`. `label` is what the file name says.
    pub(crate) fn parse(path: &Path, label: &KeyLabel, id: KeystoreId, file: &[u8]) -> Result<Self, Error> {
        let corrupted = |reason| Error::Corrupted { path: path.to_owned(), reason };
        let short = || corrupted("it is cut short");
        let (magic, rest) = file.split_first_chunk::<8>().ok_or_else(short)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (found_id, rest) = rest.split_first_chunk::<16>().ok_or_else(short)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        if magic != MAGIC {
            return Err(corrupted("it is not a key file"));
        }
        if u32::from_be_bytes(*version) != VERSION {
            return Err(Error::Unsupported {
                what: format!("the version of {}", path.display()),
                reason: "this program knows version 1; use a newer program",
            });
        }
        if *found_id != id {
            return Err(corrupted("it belongs to another keystore"));
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_METADATA_LEN {
            return Err(corrupted("its metadata is too long"));
        }
        let (metadata, rest) = rest.split_at_checked(length).ok_or_else(short)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(short)?;
        let unreadable = || corrupted("its metadata does not parse");
        let parsed: Metadata = serde_json::from_slice(metadata).map_err(|_| unreadable())?;
        if parsed.label != label.as_str() {
            return Err(corrupted("it was renamed: its metadata names another label"));
        }
        let spki = BASE64.decode(&parsed.spki).map_err(|_| unreadable())?;
        let public_key = PublicKey::from_spki_der(&spki).map_err(|_| unreadable())?;
        let algorithm: KeyAlgorithm = parsed.algorithm.parse().map_err(|_| unreadable())?;
        if algorithm != public_key.algorithm() {
            return Err(corrupted("its metadata names another key type"));
        }
        let purposes = parsed.purposes.iter().map(|p| p.parse()).collect::<Result<_, _>>();
        Ok(Self {
            label: label.clone(),
            purposes: purposes.map_err(|_: Error| unreadable())?,
            max_per_second: parsed.max_per_second,
            public_key,
            bound: file.get(..32 + length).ok_or_else(short)?.to_vec(),
            nonce: *nonce,
            sealed: sealed.to_vec(),
        })
    }

    /// Decrypts the PKCS#8 private key.
    pub(crate) fn unseal(&self, path: &Path, master: &MasterKey) -> Result<Zeroizing<Vec<u8>>, Error> {
        seal::open(master, &self.nonce, &self.sealed, &self.bound).map_err(|_| Error::Corrupted {
            path: path.to_owned(),
            reason: "its contents are not what this keystore wrote",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::Purpose;
    use crate::software::PrivateKey;

    /// Ed25519 key of the seed 0x09…09, as PKCS#8 v1.
    const PKCS8: [u8; 48] = {
        let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let mut der = [9; 48];
        let mut at = 0;
        while at < 16 {
            der[at] = prefix[at];
            at += 1;
        }
        der
    };

    fn frozen() -> Vec<u8> {
        let key = PrivateKey::from_pkcs8(KeyAlgorithm::Ed25519, &PKCS8).unwrap();
        let spec = KeySpec::new("log", KeyAlgorithm::Ed25519, [Purpose::Checkpoint, Purpose::Audit]).unwrap();
        let master = Zeroizing::new([2; 32]);
        KeyFile::encode_with([1; 16], &master, &spec, &key.public_key().unwrap(), &PKCS8, [4; 24]).unwrap()
    }

    fn label() -> KeyLabel {
        KeyLabel::new("log").unwrap()
    }

    #[test]
    fn bytes_are_frozen() {
        let file = frozen();
        assert_eq!(
            file.escape_ascii().to_string(),
            FROZEN.concat().escape_ascii().to_string(),
            "the key file format is durable: old files must stay readable"
        );
        let old = KeyFile::parse(Path::new("log.key"), &label(), [1; 16], &FROZEN.concat()).unwrap();
        assert_eq!(old.unseal(Path::new("log.key"), &Zeroizing::new([2; 32])).unwrap().as_slice(), PKCS8);
    }

    const FROZEN: [&[u8]; 4] = [
        b"MENTATKY\x00\x00\x00\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x00\x00\x00\x8d",
        br#"{"label":"log","algorithm":"ed25519","purposes":["audit","checkpoint"],"spki":"MCowBQYDK2VwAyEA/RckOFqgx1tk+3jNYC+h2ZH96/drE8WO1wLqyDXp9hg="}"#,
        &[4; 24],
        b"\xac\xed\xcf\x1e\\\xe1\x82\x82\x9f\xde\xe8\x0b\x01\xf8\x0a\xb6A\xac\xe90XC\x05\xb7%Q\xd0\xde\x11\xf5\xf2\xd9\x09\xda\x9d\xb8n\x89\x186Q \x02\x03\x0c;/N\xe4bsA\xd3\x1d\x18\x08\xfa\x04\x18\xd1\xdb\xea\x15m",
    ];

    #[test]
    fn every_flipped_byte_is_reported_as_damage() {
        let file = frozen();
        let master = Zeroizing::new([2; 32]);
        let path = Path::new("log.key");
        for position in 0..file.len() {
            let mut damaged = file.clone();
            damaged[position] ^= 0x01;
            let outcome =
                KeyFile::parse(path, &label(), [1; 16], &damaged).and_then(|f| f.unseal(path, &master));
            assert!(
                matches!(outcome, Err(Error::Corrupted { .. } | Error::Unsupported { .. })),
                "byte {position}"
            );
        }
        for length in 0..file.len() {
            let outcome = KeyFile::parse(path, &label(), [1; 16], &file[..length])
                .and_then(|f| f.unseal(path, &master));
            assert!(matches!(outcome, Err(Error::Corrupted { .. })), "length {length}");
        }
    }

    #[test]
    fn a_file_of_another_keystore_or_label_is_refused() {
        let file = frozen();
        let refuse = |label: &KeyLabel, id| match KeyFile::parse(Path::new("x"), label, id, &file) {
            Err(Error::Corrupted { reason, .. }) => reason,
            _ => panic!("accepted"),
        };
        assert_eq!(refuse(&label(), [7; 16]), "it belongs to another keystore");
        assert!(refuse(&KeyLabel::new("other").unwrap(), [1; 16]).contains("renamed"));
    }
}
