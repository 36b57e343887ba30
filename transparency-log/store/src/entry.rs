//! What is submitted, and what comes back.

use std::sync::Arc;

use bytes::Bytes;
use tlog::hash::{LeafHash, leaf_hash};
use tokio::sync::oneshot;

use crate::certificate::CertificateEntry;
use crate::error::{Error, Result};
use crate::kind::EntryKey;
use crate::publication::Publication;
use crate::record::MAX_ENTRY;

/// When a submission is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Ack {
    /// The index is durable.
    #[default]
    Sequenced,
    /// A published checkpoint covers the entry.
    Published,
    /// A checkpoint that the quorum of the witness policy cosigned covers the entry.
    Witnessed,
}

/// An entry on its way into a log.
#[derive(Debug)]
pub struct Entry {
    pub(crate) form: Form,
    pub(crate) key: EntryKey,
}

#[derive(Debug)]
pub(crate) enum Form {
    /// Stored and hashed as it is.
    Plain { bytes: Bytes, leaf: LeafHash },
    /// A certificate whose index and time the sequencer binds.
    Certificate(Arc<CertificateEntry>),
}

impl Entry {
    /// An entry of any kind but issuance: the bytes are what is stored, hashed and compared.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above 65,535 bytes.
    pub fn plain(bytes: Bytes) -> Result<Self> {
        if bytes.len() > MAX_ENTRY {
            return Err(Error::TooLarge { size: bytes.len(), limit: MAX_ENTRY });
        }
        let leaf = leaf_hash(&bytes);
        Ok(Self { key: leaf.into(), form: Form::Plain { bytes, leaf } })
    }

    /// An entry of an issuance log.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when certificate and chain need more than 65,535 bytes.
    pub fn certificate(certificate: CertificateEntry) -> Result<Self> {
        let size = certificate.record_length();
        if size > MAX_ENTRY {
            return Err(Error::TooLarge { size, limit: MAX_ENTRY });
        }
        Ok(Self { key: certificate.key(), form: Form::Certificate(Arc::new(certificate)) })
    }

    /// The key by which duplicates are found.
    #[must_use]
    pub fn key(&self) -> EntryKey {
        self.key
    }

    pub(crate) fn is_certificate(&self) -> bool {
        matches!(self.form, Form::Certificate(_))
    }

    /// Bytes that the stored form takes.
    pub(crate) fn stored_length(&self) -> usize {
        match &self.form {
            Form::Plain { bytes, .. } => bytes.len(),
            Form::Certificate(certificate) => certificate.record_length(),
        }
    }

    /// Whether `stored` is this entry: all bytes of it, but index and time where those are bound late.
    pub(crate) fn equals_stored(&self, stored: &[u8]) -> bool {
        match &self.form {
            Form::Plain { bytes, .. } => stored == bytes.as_ref(),
            Form::Certificate(certificate) => certificate.equals_record(stored),
        }
    }

    /// Whether both are the same entry.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        match (&self.form, &other.form) {
            (Form::Plain { bytes: a, .. }, Form::Plain { bytes: b, .. }) => a == b,
            (Form::Certificate(a), Form::Certificate(b)) => a == b,
            _ => false,
        }
    }
}

/// Whether an answer names a new entry or one that was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Novelty {
    /// The entry was appended.
    New,
    /// The entry was in the log already; index and time are the existing one's.
    Duplicate,
}

/// A sequenced entry.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// Its index.
    pub index: u64,
    /// The time the sequencer gave the entry, Unix milliseconds. For duplicates only meaningful in an issuance log.
    pub time_millis: u64,
    /// New or known.
    pub novelty: Novelty,
    /// A published checkpoint that covers the entry; always present but for [`Ack::Sequenced`].
    pub publication: Option<Arc<Publication>>,
}

/// One queued submission.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) entry: Entry,
    pub(crate) ack: Ack,
    pub(crate) reply: oneshot::Sender<Result<Receipt>>,
}
