//! Where the records are: a file of `data_dir`, or a schema on a PostgreSQL server.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use service::StartRefusal;

use crate::storage::Database;

/// Name of the file in `data_dir`.
const FILE: &str = "ca.sqlite";

/// A PostgreSQL database as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `postgres://USER@HOST:PORT/NAME` with a host of this machine, or `postgres:///NAME?host=/FOLDER&user=USER` for a socket.
    pub url: String,
    /// Schema of the tables, made by `init`. Default `mentat_ca`.
    #[serde(default = "default_schema")]
    pub schema: String,
    /// File with the password, mode 0600, relative to `data_dir`; absent when the server asks for none.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

fn default_schema() -> String {
    "mentat_ca".to_owned()
}

/// The database of a configuration.
///
/// # Errors
/// [`StartRefusal`] when it cannot be one, or when this program was built without PostgreSQL.
pub(super) fn validated(config: Option<&DatabaseConfig>, data_dir: &Path) -> Result<Database, StartRefusal> {
    match config {
        None => Ok(Database::File(data_dir.join(FILE))),
        Some(config) => on_a_server(config, data_dir),
    }
}

#[cfg(feature = "postgres")]
fn on_a_server(config: &DatabaseConfig, data_dir: &Path) -> Result<Database, StartRefusal> {
    /// Longest password, in bytes.
    const MAX_PASSWORD: usize = 1024;
    let read = |file: &PathBuf| service::secret::read_line(&data_dir.join(file), MAX_PASSWORD);
    let password = config.password_file.as_ref().map(read).transpose()?;
    let password = password.as_ref().map(|password| password.as_slice());
    let location = crate::storage::postgres::Location::new(&config.url, &config.schema, password);
    let refused = |what| StartRefusal::new(format!("[database]: {what}"), "correct the section");
    location.map(Database::Postgres).map_err(refused)
}

#[cfg(not(feature = "postgres"))]
fn on_a_server(_: &DatabaseConfig, _: &Path) -> Result<Database, StartRefusal> {
    Err(StartRefusal::new(
        "[database] names a PostgreSQL server, which this program was built without",
        "build it with `--features ca-service/postgres`, or remove the section to keep the records in data_dir",
    ))
}
