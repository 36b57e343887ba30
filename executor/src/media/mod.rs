//! Media: content-addressed objects, granted as `extension:media`.
//!
//! A reference is `sha256:` and the digest of the bytes, so what is read back is what was stored or an error, wherever it was
//! kept: a [`MediaStore`] checks sizes, names and digests, a [`MediaBackend`] only carries bytes. There are two: files of this
//! machine, and an S3 bucket in builds with the feature `media-s3`. Builds without the feature `media` have `absent` in the
//! place of all this.

mod files;
mod limits;
#[cfg(feature = "media-s3")]
pub(crate) mod s3;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use executor_engine::ModuleDigest;

use crate::abi::ErrorCode;
use files::Files;
pub use limits::MediaLimits;
pub(crate) use limits::Until;

/// Where objects are kept. It is called on the thread of a guest, from many at once.
pub(crate) trait MediaBackend: std::fmt::Debug + Send + Sync {
    /// The bytes that are kept under a digest, at most `limit` of them. Whether they have that digest is not looked at here.
    fn read(&self, digest: ModuleDigest, limit: u64, until: &Until) -> Result<Vec<u8>, MediaError>;

    /// Keeps bytes under their digest, durably when this returns. What is there already MUST stay as it is: an object is created
    /// once and never replaced.
    fn write(
        &self,
        digest: ModuleDigest,
        media_type: &str,
        bytes: &[u8],
        until: &Until,
    ) -> Result<(), MediaError>;
}

/// Why an object was not read or stored. Nothing in it is a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MediaError {
    /// What is kept under a digest has another one.
    #[error("what is kept under the digest has another one")]
    Altered,
    /// Too many requests of guests are under way.
    #[cfg_attr(not(feature = "media-s3"), allow(dead_code, reason = "a bucket's"))]
    #[error("too many requests for media are under way")]
    Busy,
    /// The call is being stopped.
    #[cfg_attr(not(feature = "media-s3"), allow(dead_code, reason = "a bucket's"))]
    #[error("the call is being stopped")]
    Stopped,
    /// The machine's disk, or its source of random numbers.
    #[error("media files cannot be read or written")]
    File(#[from] std::io::Error),
    /// The reference or the media type is none.
    #[error("no reference or no media type")]
    Malformed,
    /// There is no such object.
    #[error("there is no such object")]
    NotFound,
    /// The store or the call has no room.
    #[error("there is no room for more media")]
    Quota,
    /// The bucket's service refused.
    #[cfg_attr(not(feature = "media-s3"), allow(dead_code, reason = "a bucket's"))]
    #[error("the service of the bucket answered with status {status}")]
    Refused {
        /// HTTP status.
        status: u16,
    },
    /// No answer in time.
    #[cfg_attr(not(feature = "media-s3"), allow(dead_code, reason = "a bucket's"))]
    #[error("there was no answer in time")]
    TimedOut,
    /// The object is larger than one may be.
    #[error("the object is larger than one may be")]
    TooLarge,
    /// No connection, or no complete answer.
    #[cfg_attr(not(feature = "media-s3"), allow(dead_code, reason = "a bucket's"))]
    #[error("the service of the bucket cannot be reached")]
    Unreachable,
}

impl MediaError {
    /// What the guest is told.
    pub(crate) const fn code(&self) -> ErrorCode {
        match self {
            Self::Malformed => ErrorCode::InvalidArgument,
            Self::Busy | Self::Quota | Self::Stopped | Self::TooLarge => ErrorCode::Limit,
            Self::Altered | Self::File(_) | Self::NotFound | Self::Refused { .. } | Self::Unreachable => {
                ErrorCode::Io
            }
            Self::TimedOut => ErrorCode::TimedOut,
        }
    }

    /// Whether the operator should look: no guest causes it.
    const fn is_of_the_store(&self) -> bool {
        matches!(self, Self::Altered | Self::File(_) | Self::Refused { .. } | Self::Unreachable)
    }
}

/// A store of media objects.
#[derive(Debug)]
pub struct MediaStore {
    backend: Box<dyn MediaBackend>,
    limits: MediaLimits,
    /// Whether the operator was told of a failure that nothing came after yet: a guest that asks again and again fills no log.
    told: AtomicBool,
}

impl MediaStore {
    /// Opens or makes a directory of objects, and removes what an interrupted upload left there.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made or read.
    pub fn open(directory: PathBuf, limits: MediaLimits) -> std::io::Result<Self> {
        Ok(Self::over(Box::new(Files::open(directory, limits.store)?), limits))
    }

    /// A store over a backend.
    pub(crate) fn over(backend: Box<dyn MediaBackend>, limits: MediaLimits) -> Self {
        Self { backend, limits, told: AtomicBool::new(false) }
    }

    /// Reads an object of at most `room` bytes and checks it against its reference.
    pub(crate) fn download(&self, reference: &str, room: usize, until: &Until) -> Result<Vec<u8>, ErrorCode> {
        self.answer(self.read(reference, room as u64, until))
    }

    /// Stores an object; returns its reference. `uploaded` is what this call stored before, and is raised.
    pub(crate) fn upload(
        &self,
        media_type: &str,
        bytes: &[u8],
        uploaded: &mut u64,
        until: &Until,
    ) -> Result<String, ErrorCode> {
        self.answer(self.write(media_type, bytes, uploaded, until))
    }

    /// The guest's part of an outcome; the operator's goes to the log.
    fn answer<T>(&self, outcome: Result<T, MediaError>) -> Result<T, ErrorCode> {
        match &outcome {
            Ok(_) => self.told.store(false, Ordering::Relaxed),
            Err(error) if error.is_of_the_store() && !self.told.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "media objects are not read or stored");
            }
            Err(_) => {}
        }
        outcome.map_err(|error| error.code())
    }

    fn read(&self, reference: &str, room: u64, until: &Until) -> Result<Vec<u8>, MediaError> {
        let digest =
            reference.strip_prefix("sha256:").and_then(ModuleDigest::parse).ok_or(MediaError::Malformed)?;
        let bytes = self.backend.read(digest, self.limits.object.min(room), until)?;
        if ModuleDigest::of(&bytes) == digest { Ok(bytes) } else { Err(MediaError::Altered) }
    }

    fn write(
        &self,
        media_type: &str,
        bytes: &[u8],
        uploaded: &mut u64,
        until: &Until,
    ) -> Result<String, MediaError> {
        let token = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
        };
        let (kind, subtype) = media_type.split_once('/').ok_or(MediaError::Malformed)?;
        if !token(kind) || !token(subtype) {
            return Err(MediaError::Malformed);
        }
        let length = bytes.len() as u64;
        let of_call = uploaded.saturating_add(length);
        if length > self.limits.object {
            return Err(MediaError::TooLarge);
        }
        if of_call > self.limits.call {
            return Err(MediaError::Quota);
        }
        *uploaded = of_call;
        let digest = ModuleDigest::of(bytes);
        self.backend.write(digest, media_type, bytes, until)?;
        Ok(format!("sha256:{digest}"))
    }
}

#[cfg(test)]
mod holding_tests;
#[cfg(test)]
mod tests;
