//! `log export`: a copy of a log in a folder, in the form in which logs publish themselves. It verifies offline, and any
//! web server can serve it.

use std::path::{Path, PathBuf};

use clap::Args;
use tlog::tile::TILE_WIDTH;
use tlog::{BundleId, TileId, TreeHead};
use tlog_client::{EntryFormat, LogDescription};

use super::copy::{Source, bundle_path};
use super::fsck::{damaged, open, report};
use super::record::entry_format;
use super::{LogFlags, log_failure};
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, Secrecy, make_folder, read_file, write_file};
use crate::net::block_on;
use crate::output::Output;

/// Highest tile level: a tree has fewer than 2^64 leaves.
const LEVELS: u8 = 8;

/// `log export`.
#[derive(Debug, Args)]
pub struct Export {
    /// Folder for the copy; one that is there already is continued
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    log: LogFlags,
}

/// Runs `log export`: copies what is new, then rebuilds the whole copy from its entries before its checkpoint is written.
///
/// # Errors
/// Exit code 3 when what the log serves does not verify, or contradicts what the folder holds: its checkpoint stays.
pub fn export(export: &Export, home: &Home, out: &Output) -> Outcome {
    let known = export.log.known(home)?;
    let client = export.log.client(&known, home)?;
    let format = entry_format(&known.description.kind);
    let folder = &export.output;
    make_folder(folder, Secrecy::Public)?;
    let earlier = earlier_head(folder, &known)?;
    block_on(async {
        let source = Source::Server(client.clone());
        let note = source.checkpoint().await?;
        let checkpoint = open(&note, &known)?;
        let head = *checkpoint.head();
        if let Some(old) = earlier.filter(|old| old.size > head.size) {
            return Err(Failure::new(
                Exit::Denied,
                format!("the log went back from {} to {} entries", old.size, head.size),
            )
            .code("rollback"));
        }
        copy_files(&source, folder, &head, format, out).await?;
        let copied = Source::Folder(folder.clone());
        let rebuilt = copied.rebuild(&head, format, earlier.map(|old| old.size), out).await?;
        if let Some(damage) = &rebuilt.damage {
            return Err(damaged(damage).hint("delete the file and export again"));
        }
        if earlier.is_some() && rebuilt.earlier != earlier {
            return Err(Failure::new(Exit::Denied, "the log signed another history than the folder holds")
                .code("fork")
                .hint("keep the folder: with the log's present checkpoint it is evidence"));
        }
        for issuer in &rebuilt.issuers {
            let path = folder.join("issuer").join(issuer.to_string());
            if !path.is_file() {
                let der = client.issuer(issuer).await.map_err(log_failure)?;
                make_folder(&folder.join("issuer"), Secrecy::Public)?;
                write_file(&path, &der, Secrecy::Public)?;
            }
        }
        write_description(folder, &known.description)?;
        // Last: a folder with a checkpoint is whole.
        write_file(&folder.join("checkpoint"), &note, Secrecy::Public)?;
        report(out, &known, &checkpoint, rebuilt.tiles);
        Ok(Exit::Ok)
    })
}

/// The head of an export that is continued.
fn earlier_head(folder: &Path, known: &super::KnownLog) -> Outcome<Option<TreeHead>> {
    let path = folder.join("checkpoint");
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(*open(&read_file(&path)?, known)?.head()))
}

/// Copies every tile and bundle of the tree that the folder does not have in full.
async fn copy_files(
    source: &Source,
    folder: &Path,
    head: &TreeHead,
    format: EntryFormat,
    out: &Output,
) -> Outcome<()> {
    let bar = out.bar(head.size, "copied");
    for level in 0..LEVELS {
        for index in 0.. {
            let Some(id) = TileId::in_tree(level, index, head.size) else { break };
            let path = folder.join(id.path());
            if !path.is_file() {
                let bytes = source.tile(id).await?.ok_or_else(|| missing(&id.path()))?;
                place(&path, &bytes)?;
            }
        }
    }
    for index in 0.. {
        let Some(id) = BundleId::in_tree(index, head.size) else { break };
        let path = folder.join(bundle_path(id, format));
        if !path.is_file() {
            let (served, bytes) =
                source.bundle(id, format).await?.ok_or_else(|| missing(&bundle_path(id, format)))?;
            place(&folder.join(bundle_path(served, format)), &bytes)?;
        }
        bar.reach((index + 1) * u64::from(TILE_WIDTH));
    }
    Ok(())
}

fn missing(path: &str) -> Failure {
    Failure::new(Exit::Denied, format!("the log signs a tree and does not serve {path}")).code("damaged")
}

/// Writes a file whole or not at all. It is not synced: the copy is rebuilt and compared before its checkpoint is written.
fn place(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let write = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, bytes)?;
        std::fs::rename(&temporary, path)
    };
    write().or_fail(Exit::Failure, format!("cannot write {}", path.display()))
}

/// `log.json`: kind, origin and keys, for readers. Whoever verifies takes keys that he trusts, not these.
fn write_description(folder: &Path, description: &LogDescription) -> Outcome<()> {
    let text = serde_json::to_string_pretty(&[description]).or_fail(Exit::Failure, "writing log.json")?;
    write_file(&folder.join("log.json"), (text + "\n").as_bytes(), Secrecy::Public)
}
