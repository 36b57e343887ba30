//! The offline commands: `repair` for a log that refuses to start, `check` to verify every stored byte.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use hsm::software::Keystore;
use log_store::{CertificateRecord, Disk, LogKind, LogOptions, OsDisk, RepairReport, check_log, plan_repair};
use serde_json::{Value, json};
use service::{Failure, StartRefusal};
use tokio::runtime::Runtime;

use crate::issuers::Issuers;
use crate::logs::options;
use crate::lookup::{Compared, IndexCheck};
use crate::settings::{LogSettings, Settings};
use crate::{keys, lookup, serve};

/// Whether a repair is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repairing {
    /// Say what was found and what would be done.
    DryRun,
    /// Do it.
    Apply,
}

/// Form of the answer of [`check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One line for each log.
    Text,
    /// One JSON object.
    Json,
}

/// Looks at the log called `only`, or at all, and rewrites heads and second copies from what the entries prove.
///
/// All logs are looked at; the first refusal is returned at the end.
///
/// # Errors
/// [`Failure::Usage`] when there is no log of that name; [`Failure::Refused`] naming what is to be restored.
pub fn repair(
    settings: &Settings,
    only: Option<&str>,
    repairing: Repairing,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let chosen = chosen(settings, only)?;
    let keystore = serve::open_keystore(settings)?;
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let runtime = Runtime::new().map_err(Failure::failed)?;
    let (mut refused, mut waiting) = (None, false);
    for log in chosen {
        let mut options = stored_at(settings, log, &keystore)?;
        options.seen.extend(lookup::seen(&lookup::path(settings, &log.name), runtime.handle())?);
        let done = plan_repair(&options, &disk).and_then(|planned| match repairing {
            Repairing::DryRun => Ok(planned.report().clone()),
            Repairing::Apply => planned.apply(),
        });
        match done {
            Ok(report) => {
                waiting |= repairing == Repairing::DryRun && !report.rewritten.is_empty();
                write!(out, "{}", describe(log, &report, repairing)).map_err(Failure::failed)?;
            }
            Err(error) => {
                writeln!(out, "log {:?}: not repaired: {error}", log.name).map_err(Failure::failed)?;
                let refusal = StartRefusal::new(
                    format!("log {:?} cannot be repaired", log.name),
                    "nothing of it was changed; see docs/operations/log-refusals.md",
                );
                refused.get_or_insert(refusal.because(error));
            }
        }
    }
    if waiting {
        writeln!(
            out,
            "nothing was changed; compare the trees with a witness's record, then repeat with --apply"
        )
        .map_err(Failure::failed)?;
    }
    refused.map_or(Ok(()), |refusal| Err(refusal.into()))
}

fn describe(log: &LogSettings, report: &RepairReport, repairing: Repairing) -> String {
    let mut text = format!("log {:?}: {} whole entries\n", log.name, report.entries);
    for (path, tree) in &report.verified {
        text += &format!("  {}: size {}, verified\n", path.display(), tree.size);
    }
    let done = if repairing == Repairing::Apply { "rewrote" } else { "would rewrite" };
    for path in &report.rewritten {
        let from = report.source.as_ref().map_or_else(
            || "as of an empty log: it never started".to_owned(),
            |source| format!("from {}", source.display()),
        );
        let (size, root) = (report.tree.size, report.tree.root.to_base64());
        text += &format!("  {done} {}: size {size}, root {root}, {from}\n", path.display());
    }
    for path in &report.set_aside {
        text += &format!("  what cannot be read in {} is kept as .damaged\n", path.display());
    }
    if report.rewritten.is_empty() {
        text += "  head and second copy need no repair\n";
    }
    text
}

/// Verifies every entry, tile, head, note and lookup index of every log, none of which may be open.
///
/// # Errors
/// [`Failure::Failed`] when anything does not verify; [`Failure::Refused`] when the keys cannot be opened.
pub fn check(settings: &Settings, form: Form, out: &mut impl Write) -> Result<(), Failure> {
    let keystore = serve::open_keystore(settings)?;
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let runtime = Runtime::new().map_err(Failure::failed)?;
    let (mut found, mut bad) = (Vec::new(), 0);
    for log in &settings.logs {
        let options = stored_at(settings, log, &keystore)?;
        let path = lookup::path(settings, &log.name);
        let index = runtime.block_on(IndexCheck::begin(&path, log.kind));
        let (mut index, unreadable) = index.map_or_else(|error| (None, Some(error)), |index| (index, None));
        let mut issuers = BTreeSet::new();
        let checked = check_log(&options, &disk, |at, stored| {
            if let Some(index) = &mut index {
                index.add(at, stored);
            }
            if log.kind == LogKind::Issuance
                && let Some(record) = CertificateRecord::parse(stored)
            {
                issuers.extend(record.entry.fingerprints());
            }
        });
        let checked = checked.map_err(|error| error.to_string()).and_then(|report| {
            Issuers::at(&options.directory.join("issuer")).check(&issuers).map(|()| report)
        });
        let indexed = match (unreadable, index) {
            (Some(error), _) => Err(error),
            (None, Some(index)) => runtime.block_on(index.finish()).map(Some),
            (None, None) => Ok(None),
        };
        let (ok, text, mut value) = match (checked, indexed) {
            (Ok(report), Ok(indexed)) => {
                let (size, root) = (report.tree.size, report.tree.root.to_base64());
                let signed = report.signed.map(|tree| tree.size);
                let mut text = format!("log {:?}: in order, size {size}, root {root}", log.name);
                let tiles = report.tiles;
                let indexed = match indexed {
                    Some(Compared::Equal(entries)) => Some(entries),
                    Some(Compared::OtherVersion) => {
                        text += "; its lookup index is of another version and was not compared: the next start makes it anew";
                        None
                    }
                    None => None,
                };
                let value = json!({ "size": size, "root": root, "tiles": tiles, "signed": signed, "indexed": indexed });
                (true, text, value)
            }
            (Ok(_), Err(error)) => {
                bad += 1;
                let (name, file) = (&log.name, path.display());
                let error = format!(
                    "the lookup index {file} is not in order ({error}); run `transparency-log index --log {name}`, or delete it"
                );
                (false, format!("log {name:?}: {error}"), json!({ "error": error }))
            }
            (Err(error), _) => {
                bad += 1;
                (false, format!("log {:?}: {error}", log.name), json!({ "error": error }))
            }
        };
        if form == Form::Text {
            writeln!(out, "{text}").map_err(Failure::failed)?;
        }
        if let Value::Object(fields) = &mut value {
            fields.insert("name".to_owned(), json!(log.name));
            fields.insert("ok".to_owned(), json!(ok));
        }
        found.push(value);
    }
    if form == Form::Json {
        writeln!(out, "{}", json!({ "ok": bad == 0, "logs": found })).map_err(Failure::failed)?;
    }
    if bad > 0 {
        return Err(Failure::failed(format!(
            "{bad} of {} logs not in order; see docs/operations/log-refusals.md",
            settings.logs.len()
        )));
    }
    Ok(())
}

/// The log of this name, or all.
pub(crate) fn chosen<'a>(
    settings: &'a Settings,
    only: Option<&str>,
) -> Result<Vec<&'a LogSettings>, Failure> {
    let chosen: Vec<_> =
        settings.logs.iter().filter(|log| only.is_none_or(|name| log.name == name)).collect();
    if chosen.is_empty() {
        let name = only.unwrap_or_default();
        return Err(Failure::Usage(format!("no log is called {name:?}; --log takes the name of a [[log]]")));
    }
    Ok(chosen)
}

/// Where the files of a log are.
pub(crate) fn stored_at(
    settings: &Settings,
    log: &LogSettings,
    keystore: &Keystore,
) -> Result<LogOptions, StartRefusal> {
    Ok(options(settings, log, keys::open(keystore, log)?.origin()))
}
