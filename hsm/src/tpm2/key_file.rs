//! A key's file: what it may be used for, in clear, and its two halves as the TPM gave them; the private one is encrypted by it.

use std::num::NonZeroU32;
use std::path::Path;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::template;
use crate::error::Error;
use crate::intent::{Purpose, PurposeSet};
use crate::provider::KeyLabel;
use crate::public_key::{PublicKey, hex};
use crate::software::{Readers, read_secret, write_new};

/// What names of key files end in.
pub(super) const EXTENSION: &str = "tpm2";
/// The only format that exists.
const FORMAT: &str = "mentat-tpm2-key/1";
/// Largest file in bytes: an RSA-4096 key has some 4,000.
const MAX_FILE: u64 = 16 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: String,
    label: String,
    purposes: String,
    max_per_second: u32,
    public: String,
    private: String,
}

/// A key as its file has it.
#[derive(Clone, Debug)]
pub(super) struct KeyFile {
    pub(super) label: KeyLabel,
    pub(super) purposes: PurposeSet,
    pub(super) max_per_second: Option<NonZeroU32>,
    /// TPMT_PUBLIC.
    pub(super) public: Vec<u8>,
    /// TPM2B_PRIVATE without its size.
    pub(super) private: Vec<u8>,
    pub(super) public_key: PublicKey,
}

/// The authPolicy of a key that may be used so.
pub(super) fn policy(label: &KeyLabel, purposes: PurposeSet, max_per_second: Option<NonZeroU32>) -> [u8; 32] {
    template::policy(&format!(
        "{label}\n{}\n{}\n",
        names(purposes),
        max_per_second.map_or(0, NonZeroU32::get)
    ))
}

impl KeyFile {
    /// What tells the file's content from every other: of one public key there may be an altered file.
    pub(super) fn content_sha256(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        for half in [&self.public, &self.private] {
            context.update(&(half.len() as u64).to_be_bytes());
            context.update(half);
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(context.finish().as_ref());
        sha256
    }

    /// A key that a TPM just made.
    pub(super) fn new(
        label: KeyLabel,
        purposes: PurposeSet,
        max_per_second: Option<NonZeroU32>,
        public: Vec<u8>,
        private: Vec<u8>,
    ) -> Option<Self> {
        let read = template::read(&public)?;
        // Else the file could say anything.
        (read.policy == policy(&label, purposes, max_per_second)).then_some(Self {
            label,
            purposes,
            max_per_second,
            public,
            private,
            public_key: read.public_key,
        })
    }

    /// Writes it durably where there is none of its label.
    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        let content = Content {
            format: FORMAT.to_owned(),
            label: self.label.to_string(),
            purposes: names(self.purposes),
            max_per_second: self.max_per_second.map_or(0, NonZeroU32::get),
            public: hex(&self.public),
            private: hex(&self.private),
        };
        let text = serde_json::to_vec_pretty(&content)
            .map_err(|error| Error::Invalid { what: "key file", reason: error.to_string() })?;
        write_new(&path(folder, &self.label), &text).map_err(|error| match error {
            Error::AlreadyExists { .. } => Error::AlreadyExists { label: self.label.to_string() },
            other => other,
        })
    }

    /// Reads the file of a label. That the private half belongs to it, the TPM says when it loads the key.
    pub(super) fn read(folder: &Path, label: &KeyLabel) -> Result<Self, Error> {
        let path = path(folder, label);
        let bytes = read_secret(&path, MAX_FILE, Readers::Owner).map_err(|error| match error {
            Error::NotFound { .. } => Error::NotFound { what: format!("key {:?}", label.as_str()) },
            other => other,
        })?;
        let corrupted = |reason| Error::Corrupted { path: path.clone(), reason };
        let content: Content = serde_json::from_slice(&bytes).map_err(|_| corrupted("it is no key file"))?;
        if content.format != FORMAT || content.label != label.as_str() {
            return Err(corrupted("it is of another format or another key"));
        }
        let purposes =
            content.purposes.split(',').map(str::parse::<Purpose>).collect::<Result<PurposeSet, _>>();
        let purposes = purposes.map_err(|_| corrupted("its purposes are unknown"))?;
        let (public, private) = unhex(&content.public)
            .zip(unhex(&content.private))
            .ok_or_else(|| corrupted("a half of the key is not hexadecimal"))?;
        let max_per_second = NonZeroU32::new(content.max_per_second);
        Self::new(label.clone(), purposes, max_per_second, public, private)
            .ok_or_else(|| corrupted("the key was not made for what the file says"))
    }
}

/// The purposes as they stand in a file: in one order, with commas alone.
fn names(purposes: PurposeSet) -> String {
    purposes.iter().map(Purpose::as_str).collect::<Vec<_>>().join(",")
}

pub(super) fn path(folder: &Path, label: &KeyLabel) -> std::path::PathBuf {
    folder.join(format!("{label}.{EXTENSION}"))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.len() % 2 != 0 || !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let value = |digit: &u8| if *digit >= b'a' { digit - b'a' + 10 } else { digit - b'0' };
    digits.chunks_exact(2).map(|pair| Some(value(pair.first()?) * 16 + value(pair.get(1)?))).collect()
}
