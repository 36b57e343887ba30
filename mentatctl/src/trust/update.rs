//! `trust update`: follow a repository of trust metadata and write what it distributes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use reqwest::{Client, StatusCode, Url};
use serde_json::json;
use trust_store_files::RootLifetime;
use trust_store_files::tuf::{FetchError, Fetched, Folder, Follower, SIGNING_CONFIG, Source, TRUSTED_ROOT};

use crate::clock;
use crate::exit::{Exit, Failure, OrFail as _, Outcome, chain};
use crate::home::{Home, Secrecy, make_folder, read_file, write_file};
use crate::net::{TlsFlags, block_on};
use crate::output::{Output, shown};
use crate::release::file_failure;

/// What was accepted before, below the home folder.
const MEMORY_FILE: &str = "tuf.json";

/// `trust update`.
#[derive(Debug, Args)]
pub struct Update {
    /// Where the repository is: a URL, or a folder that was carried here
    #[arg(long, value_name = "URL|DIR")]
    mirror: String,
    /// The repository's root, obtained by a way that you trust; needed at the first use
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Folder for trusted_root.json and signing_config.json [default: ~/.mentat]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// File with what was accepted before [default: ~/.mentat/tuf.json]
    #[arg(long, value_name = "FILE")]
    memory: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsFlags,
}

/// Runs `trust update`.
///
/// # Errors
/// Exit code 3 with the reason when what is served is refused, 69 when it cannot be fetched, 2 when a file named here
/// cannot be used.
pub fn run(update: &Update, home: &Home, out: &Output) -> Outcome {
    let memory = update.memory.clone().unwrap_or_else(|| home.dir().join(MEMORY_FILE));
    if let Some(folder) = memory.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_folder(folder, Secrecy::Secret)?;
    }
    let pinned = update.root.as_deref().map(read_file).transpose()?;
    let follower =
        Follower::open(&memory, pinned.as_deref()).map_err(|error| super::distribution_failure(&error))?;
    let source = source(&update.mirror, || update.tls.client(home))?;
    let names = [TRUSTED_ROOT, SIGNING_CONFIG];
    let distribution = block_on(async {
        follower
            .update(source, &names, clock::now())
            .await
            .map_err(|error| super::distribution_failure(&error))
    })?;
    // Both are read before either is written.
    let root = distribution.trusted_root().map_err(|error| super::distribution_failure(&error))?;
    let config = distribution.signing_config().map_err(|error| super::distribution_failure(&error))?;
    let folder = update.output.clone().unwrap_or_else(|| home.dir().to_path_buf());
    make_folder(&folder, Secrecy::Public)?;
    let root_path = folder.join(TRUSTED_ROOT);
    let mut files = vec![(TRUSTED_ROOT, root.to_json().or_fail(Exit::Failure, "the trusted root")?)];
    if let Some(config) = config {
        let bytes = config.to_json().or_fail(Exit::Failure, "the signing configuration")?;
        files.push(("signing_config.json", bytes));
    }
    // The end first: if the power fails in between, a root and an end that do not belong together are refused, while a root
    // without its end would be believed for ever.
    if let Some((_, bytes)) = files.first() {
        let lifetime = RootLifetime::new(&root_path, bytes, distribution.expires);
        lifetime.store().map_err(|error| file_failure(&error, Exit::Failure))?;
    }
    for (name, bytes) in &files {
        write_file(&folder.join(name), bytes, Secrecy::Public)?;
        out.line(format!("wrote {}", folder.join(name).display()));
    }
    out.line(format!(
        "root {}, timestamp {}; valid until {}",
        distribution.root_version,
        distribution.timestamp_version,
        distribution.expires.to_rfc3339()
    ));
    out.value(|| json!({
        "ok": true, "root_version": distribution.root_version, "timestamp_version": distribution.timestamp_version,
        "targets_version": distribution.targets_version, "expires": distribution.expires.to_rfc3339(),
        "files": files.iter().map(|(name, _)| shown(&folder.join(name))).collect::<Vec<_>>(),
    }));
    Ok(Exit::Ok)
}

fn source(mirror: &str, client: impl FnOnce() -> Outcome<Client>) -> Outcome<Arc<dyn Source>> {
    if !(mirror.starts_with("http://") || mirror.starts_with("https://")) {
        return Ok(Arc::new(Folder::new(Path::new(mirror))));
    }
    let base = Url::parse(&format!("{}/", mirror.trim_end_matches('/')))
        .or_fail(Exit::Usage, format!("the mirror {mirror}"))?;
    if base.query().is_some() || base.fragment().is_some() {
        return Err(Failure::usage(format!("the mirror {mirror} has a query or fragment"))
            .hint("give the address below which `timestamp.json` is"));
    }
    Ok(Arc::new(Mirror { base, http: client()? }))
}

/// A repository behind HTTP.
struct Mirror {
    base: Url,
    http: Client,
}

impl Mirror {
    async fn get(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, FetchError> {
        let unavailable = |why: String| FetchError::Unavailable(why);
        // A name out of metadata must not lead to another place of the server, or to another server.
        let url = self.base.join(path).map_err(|error| unavailable(error.to_string()))?;
        if !url.as_str().starts_with(self.base.as_str()) || url.query().is_some() || url.fragment().is_some()
        {
            return Err(unavailable(format!("`{path}` is no file of a repository")));
        }
        let mut response = self.http.get(url).send().await.map_err(|error| unavailable(chain(&error)))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            other => return Err(unavailable(format!("the mirror answers {other}"))),
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unavailable(chain(&error)))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit {
                return Err(FetchError::TooLarge { path: path.to_owned(), limit });
            }
        }
        Ok(Some(bytes))
    }
}

impl Source for Mirror {
    fn fetch<'a>(&'a self, path: &'a str, limit: u64) -> Fetched<'a> {
        Box::pin(self.get(path, limit))
    }
}
