//! The offline command `index`: makes the lookup index of a log anew from its entries.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log_store::{Disk, LogKind, OsDisk, check_and_hold};
use service::{Failure, StartRefusal};
use tokio::runtime::Runtime;

use crate::lookup::{self, Rebuild};
use crate::settings::Settings;
use crate::terms::terms;
use crate::{repair, serve};

/// Entries between two transactions.
const STEP: u64 = 10_000;

/// Verifies every entry of the log called `only`, or of all that have an index, and writes their index anew. The old file
/// is replaced when the new one is whole.
///
/// # Errors
/// [`Failure::Usage`] when there is no log of that name; [`Failure::Refused`] when a log is not in order or being served.
pub fn index(settings: &Settings, only: Option<&str>, out: &mut impl Write) -> Result<(), Failure> {
    let chosen = repair::chosen(settings, only)?;
    let keystore = serve::open_keystore(settings)?;
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let runtime = Runtime::new().map_err(Failure::failed)?;
    for log in chosen {
        if log.kind == LogKind::Raw {
            writeln!(out, "log {:?}: raw entries have no index", log.name).map_err(Failure::failed)?;
            continue;
        }
        let path = lookup::path(settings, &log.name);
        let temporary = path.with_extension("new");
        remove(&temporary)?;
        let mut rebuild = runtime.block_on(Rebuild::begin(&temporary))?;
        let mut failed = None;
        let options = repair::stored_at(settings, log, &keystore)?;
        // Held until the new file has its name: a server started before would go on with the old one, unlinked.
        let (report, held) = check_and_hold(&options, &disk, |index, stored| {
            if failed.is_some() {
                return;
            }
            rebuild.add(index, terms(log.kind, stored));
            if index % STEP == STEP - 1 {
                failed = runtime.block_on(rebuild.flush()).err();
            }
        })
        .map_err(|error| {
            StartRefusal::new(
                format!("log {:?} cannot be indexed", log.name),
                "stop the server, or see docs/operations/log-refusals.md",
            )
            .because(error)
        })?;
        if let Some(error) = failed {
            return Err(Failure::failed(error));
        }
        runtime.block_on(rebuild.finish(&report.tree)).map_err(Failure::failed)?;
        for stale in ["sqlite-wal", "sqlite-shm"] {
            remove(&path.with_extension(stale))?;
        }
        std::fs::rename(&temporary, &path).map_err(Failure::failed)?;
        drop(held);
        writeln!(out, "log {:?}: {} entries indexed", log.name, report.tree.size).map_err(Failure::failed)?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), Failure> {
    let journal = PathBuf::from(format!("{}-journal", path.display()));
    for path in [path, &journal] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Failure::failed(error)),
            _ => {}
        }
    }
    Ok(())
}
