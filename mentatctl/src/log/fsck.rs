//! `log fsck`: rebuilds everything from the entries and names the first byte that is wrong.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use log_store::{Disk, EntryFileSizes, LogKind, LogOptions, OsDisk, check_log};
use serde_json::{Value, json};
use tlog::VerifiedCheckpoint;
use trust_store::provider::AwsLc;

use super::copy::{Damage, Source};
use super::record::entry_format;
use super::{KnownLog, LogFlags, log_failure};
use crate::exit::{Exit, Failure, OrFail as _, Outcome, chain};
use crate::home::Home;
use crate::net::block_on;
use crate::output::{Output, Tone};

/// `log fsck`.
#[derive(Debug, Args)]
pub struct Fsck {
    /// Check a folder that `log export` wrote, offline, instead of the server
    #[arg(long, value_name = "DIR", conflicts_with = "data")]
    export: Option<PathBuf>,
    /// Check a log's own data folder; its server must not be running
    #[arg(long, value_name = "DIR", requires = "head_copy")]
    data: Option<PathBuf>,
    /// With --data: the second copy of the head
    #[arg(long, value_name = "FILE", requires = "data")]
    head_copy: Option<PathBuf>,
    /// With --data: the head file [default: head/head in the folder]
    #[arg(long, value_name = "FILE", requires = "data")]
    head: Option<PathBuf>,
    #[command(flatten)]
    log: LogFlags,
}

/// Runs `log fsck`: exit code 0 when every byte is as it must be, 3 with the first that is not.
///
/// # Errors
/// When the log cannot be read.
pub fn fsck(fsck: &Fsck, home: &Home, out: &Output) -> Outcome {
    let known = fsck.log.known(home)?;
    if let (Some(data), Some(copy)) = (&fsck.data, &fsck.head_copy) {
        return data_folder(data.clone(), copy, fsck.head.clone(), &known, out);
    }
    let source = match &fsck.export {
        Some(folder) => Source::Folder(folder.clone()),
        None => Source::Server(fsck.log.client(&known, home)?),
    };
    block_on(async {
        let checkpoint = open(&source.checkpoint().await?, &known)?;
        let format = entry_format(&known.description.kind);
        let rebuilt = source.rebuild(checkpoint.head(), format, None, out).await?;
        if let Some(damage) = rebuilt.damage {
            return Err(damaged(&damage));
        }
        report(out, &known, &checkpoint, rebuilt.tiles);
        Ok(Exit::Ok)
    })
}

/// Opens a checkpoint with the log's keys.
///
/// # Errors
/// Exit code 3 when it is not the log's.
pub fn open(note: &[u8], known: &KnownLog) -> Outcome<VerifiedCheckpoint> {
    VerifiedCheckpoint::open(note, &known.description.origin, &known.keys, &AwsLc)
        .map_err(|error| log_failure(error.into()))
}

/// The failure that names the first damage.
pub fn damaged(damage: &Damage) -> Failure {
    Failure::new(Exit::Denied, format!("{} byte {}: {}", damage.file, damage.offset, damage.what))
        .code("damaged")
        .hint("restore the file from a mirror or an export, or ask the log's operator")
}

/// Says that all is well.
pub fn report(out: &Output, known: &KnownLog, checkpoint: &VerifiedCheckpoint, tiles: u64) {
    let (origin, head) = (&known.description.origin, checkpoint.head());
    out.line(format!(
        "{} {origin}: {} entries, {tiles} tiles, root {}",
        out.paint(Tone::Good, "in order"),
        head.size,
        head.root.to_base64()
    ));
    out.value(|| {
        json!({
            "ok": true, "origin": origin, "size": head.size, "root": head.root.to_base64(), "tiles": tiles,
            "signed_at": checkpoint.signed_at(),
        })
    });
}

fn data_folder(
    folder: PathBuf,
    head_copy: &std::path::Path,
    head: Option<PathBuf>,
    known: &KnownLog,
    out: &Output,
) -> Outcome {
    let kind = LogKind::parse(&known.description.kind)
        .ok_or_else(|| Failure::usage(format!("`{}` is no kind of log", known.description.kind)))?;
    let mut options = LogOptions::new(kind, &known.description.origin, &folder, head_copy);
    options.head = head.unwrap_or(options.head);
    // Opening makes this file where it is missing; a check changes nothing.
    if !options.note_file().is_file() {
        return Err(damaged(&Damage {
            file: options.note_file().display().to_string(),
            offset: 0,
            entry: None,
            what: "the file is missing".to_owned(),
        }));
    }
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    if let Some(sizes) = EntryFileSizes::stored(&disk, &options.entries_directory())
        .or_fail(Exit::Usage, format!("cannot read {}", options.entries_directory().display()))?
    {
        options.sizes = sizes;
    }
    let spinner = out.spinner("entries");
    let checked = check_log(&options, &disk, |index, _| {
        if index % 4096 == 0 {
            spinner.say(format!("entry {index}"));
        }
    });
    drop(spinner);
    let report = checked.map_err(|error| {
        let exit = if matches!(error, log_store::Error::Io { .. }) { Exit::Usage } else { Exit::Denied };
        Failure::new(exit, chain(&error)).code("damaged").hint("see docs/operations/log-refusals.md")
    })?;
    let signed: Value = match &report.note {
        Some(note) => {
            let checkpoint = open(note, known)?;
            if report.signed != Some(*checkpoint.head()) {
                return Err(Failure::new(
                    Exit::Denied,
                    "the stored note is of another tree than it is stored for",
                )
                .code("damaged"));
            }
            json!(checkpoint.head().size)
        }
        None => Value::Null,
    };
    let (origin, tree) = (&known.description.origin, &report.tree);
    out.line(format!(
        "{} {origin}: {} entries, {} tiles, root {}",
        out.paint(Tone::Good, "in order"),
        tree.size,
        report.tiles,
        tree.root.to_base64()
    ));
    out.value(|| json!({
        "ok": true, "origin": origin, "size": tree.size, "root": tree.root.to_base64(), "tiles": report.tiles,
        "signed": signed,
    }));
    Ok(Exit::Ok)
}
