//! Where a repository's files come from.

use std::future::Future;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use crate::atomic;
use crate::error::Error;

/// The answer of [`Source::fetch`].
pub type Fetched<'a> = Pin<Box<dyn Future<Output = Result<Option<Vec<u8>>, FetchError>> + Send + 'a>>;

/// A place that holds a repository.
pub trait Source: Send + Sync {
    /// The file at `path`, relative to the repository (`3.root.json`, `targets/ab….trusted_root.json`); `None` if there
    /// is none. MUST NOT read more than `limit` bytes of it, and MUST NOT answer `None` for a place that cannot be asked:
    /// an absent root means that the known one is the newest.
    fn fetch<'a>(&'a self, path: &'a str, limit: u64) -> Fetched<'a>;
}

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The file is longer than was asked for.
    #[error("{path} is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: String,
        /// The limit.
        limit: u64,
    },
    /// The place cannot be asked, or its answer is of no use.
    #[error("{0}")]
    Unavailable(String),
}

/// A repository in a folder: a copy on a disk that is carried, or the publisher's own.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The repository in this folder.
    pub fn new(path: &Path) -> Self {
        Self(path.to_path_buf())
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, FetchError> {
        // Names come out of signed metadata, but a folder is no place to find out whose.
        let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || path.contains('\\') {
            return Err(FetchError::Unavailable(format!("`{path}` is no file of a repository")));
        }
        if !self.0.is_dir() {
            return Err(FetchError::Unavailable(format!("{} is no folder", self.0.display())));
        }
        match atomic::read(&self.0.join(path), limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(Error::TooLarge { limit, .. }) => Err(FetchError::TooLarge { path: path.to_owned(), limit }),
            Err(error) => Err(FetchError::Unavailable(error.to_string())),
        }
    }
}

impl Source for Folder {
    fn fetch<'a>(&'a self, path: &'a str, limit: u64) -> Fetched<'a> {
        let read = self.read(path, limit);
        Box::pin(std::future::ready(read))
    }
}

/// A source as the library wants it.
pub(super) struct Repository(pub(super) Arc<dyn Source>);

impl sigstore_tuf::Repository for Repository {
    fn fetch_metadata<'a>(&'a self, name: &'a str, limit: u64) -> sigstore_tuf::transport::FetchFuture<'a> {
        Box::pin(async move { self.0.fetch(name, limit).await.map_err(|error| transport(name, error)) })
    }

    fn fetch_target<'a>(&'a self, path: &'a str, limit: u64) -> sigstore_tuf::transport::FetchFuture<'a> {
        Box::pin(async move {
            let path = format!("targets/{path}");
            self.0.fetch(&path, limit).await.map_err(|error| transport(&path, error))
        })
    }
}

fn transport(name: &str, error: FetchError) -> sigstore_tuf::Error {
    sigstore_tuf::Error::transport_with_source(format!("fetching {name}"), error)
}
