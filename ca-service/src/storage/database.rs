//! Where the records are.

use std::fmt;
use std::path::{Path, PathBuf};

use super::StoreError;

/// One database.
#[derive(Debug, Clone)]
pub enum Database {
    /// SQLite in this file.
    File(PathBuf),
    /// A schema on a PostgreSQL server.
    #[cfg(feature = "postgres")]
    Postgres(super::postgres::Location),
}

impl Database {
    /// Whether it was made.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when a server does not answer.
    pub async fn exists(&self) -> Result<bool, StoreError> {
        match self {
            Self::File(path) => Ok(path.exists()),
            #[cfg(feature = "postgres")]
            Self::Postgres(location) => {
                super::postgres::elsewhere(location, super::postgres::Connection::exists).await
            }
        }
    }

    /// Its file; none for a server's.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => None,
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            #[cfg(feature = "postgres")]
            Self::Postgres(location) => location.fmt(f),
        }
    }
}
