//! Objects by the digest of their content.

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::{Error, HostError, Result};
use crate::host;

/// The store of objects that `extension:media` grants.
#[derive(Debug)]
pub struct Media(());

impl Media {
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// The object of a reference of the form `sha256:…`; the executor has checked the digest.
    ///
    /// # Errors
    /// −1 for another form, −7 for an object that is not there.
    pub fn download(&self, reference: &str) -> Result<Vec<u8>> {
        host::download_media(reference)
    }

    /// Stores an object; the answer is its reference.
    ///
    /// # Errors
    /// −1 for a media type that is none, −6 past a limit.
    pub fn upload(&self, media_type: &str, bytes: &[u8]) -> Result<String> {
        String::from_utf8(host::upload_media(media_type, bytes)?).map_err(|_| Error::Host(HostError::Io))
    }
}
