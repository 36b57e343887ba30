//! Media in a build without the feature `media`: there is no store, so `extension:media` is granted to nobody.

mod limits;

use std::path::PathBuf;

use crate::abi::ErrorCode;
pub use limits::MediaLimits;
pub(crate) use limits::Until;

/// A store of media objects, of which there is none.
#[derive(Debug)]
pub enum MediaStore {}

impl MediaStore {
    /// Opens nothing.
    ///
    /// # Errors
    ///
    /// Always; a configuration that asks for it was refused before.
    pub fn open(_: PathBuf, _: MediaLimits) -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn download(&self, _: &str, _: usize, _: &Until) -> Result<Vec<u8>, ErrorCode> {
        match *self {}
    }

    pub(crate) fn upload(&self, _: &str, _: &[u8], _: &mut u64, _: &Until) -> Result<String, ErrorCode> {
        match *self {}
    }
}
