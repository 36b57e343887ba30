//! `log monitor`: keeps the last verified checkpoint, proves that the log only grew, walks every new entry.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tlog_client::{EntryFormat, Monitor, MonitorState, VerifiedEntry};
use trust_store::Certificate;
use trust_store::identity::Identity;
use trust_store::provider::AwsLc;
use trust_store::rekor::{HashedRekord, VerifierKey};

use super::{LogFlags, log_failure};
use crate::exit::{Exit, OrFail as _, Outcome};
use crate::home::{Home, Secrecy, make_folder};
use crate::net::block_on;
use crate::output::{Output, Tone};

/// `log monitor`.
#[derive(Debug, Args)]
pub struct Watch {
    /// File that remembers the last verified checkpoint [default: ~/.mentat/monitor/ORIGIN.json]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Report entries signed by this identity; may be repeated
    #[arg(long = "identity", value_name = "IDENTITY")]
    identities: Vec<String>,
    /// Report entries with this digest (of the signed data), hexadecimal; may be repeated
    #[arg(long = "digest", value_name = "HEX")]
    digests: Vec<String>,
    /// Go on, looking again every SECONDS; without it one look is taken
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    follow: Option<u32>,
    #[command(flatten)]
    log: LogFlags,
}

/// Runs `log monitor`. Exit code 0: consistent, nothing watched was found; 1: a watched entry was found; 3: the log
/// contradicts itself.
///
/// # Errors
/// When the log cannot be reached or what it says does not verify.
pub fn watch(watch: &Watch, home: &Home, out: &Output) -> Outcome {
    let known = watch.log.known(home)?;
    let client = watch.log.client(&known, home)?;
    let origin = known.description.origin.clone();
    let path = match &watch.state {
        Some(path) => path.clone(),
        None => {
            let folder = home.dir().join("monitor");
            make_folder(&folder, Secrecy::Secret)?;
            folder.join(format!("{origin}.json"))
        }
    };
    let state = MonitorState::load(&path, &origin)
        .or_fail(Exit::Usage, "reading the monitor's memory")?
        .unwrap_or_else(|| MonitorState::new(&origin));
    let format =
        if known.description.kind == "issuance" { EntryFormat::DataTiles } else { EntryFormat::Bundles };
    let mut monitor = Monitor::new(client, known.keys, &AwsLc, format, state).map_err(log_failure)?;
    let mut found = 0_u64;
    block_on(async {
        loop {
            found += look(&mut monitor, watch, &origin, &path, out).await?;
            let Some(seconds) = watch.follow else { return Ok(()) };
            tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await;
        }
    })?;
    Ok(if found == 0 { Exit::Ok } else { Exit::Failure })
}

async fn look(
    monitor: &mut Monitor<'_>,
    watch: &Watch,
    origin: &str,
    path: &std::path::Path,
    out: &Output,
) -> Outcome<u64> {
    let growth = monitor.update().await.map_err(log_failure)?;
    let bar = out.bar(growth.new.size, "entries");
    let mut found = 0;
    let mut walked = 0_u64;
    let mut inspect = |entry: &VerifiedEntry| matches_of(entry, &watch.identities, &watch.digests);
    while let Some(entries) = monitor.next_entries(&mut inspect).await.map_err(log_failure)? {
        for watched in &entries {
            bar.reach(watched.entry.index + 1);
            walked += 1;
            if watched.matches.is_empty() {
                continue;
            }
            found += 1;
            let names = watched.matches.join(", ");
            out.line(format!("{} entry {}: {names}", out.paint(Tone::Bad, "found"), watched.entry.index));
            out.value(&json!({
                "event": "found", "origin": origin, "index": watched.entry.index, "matches": watched.matches,
            }));
        }
        // Only what was reported is remembered as walked.
        monitor.state().store(path).or_fail(Exit::Failure, "writing the monitor's memory")?;
    }
    monitor.state().store(path).or_fail(Exit::Failure, "writing the monitor's memory")?;
    drop(bar);
    out.line(format!(
        "{} {origin}: {} → {} entries, {walked} walked, root {}",
        out.paint(Tone::Good, "consistent"),
        growth.old.size,
        growth.new.size,
        growth.new.root.to_base64(),
    ));
    out.value(&json!({
        "event": "consistent", "ok": true, "origin": origin, "old_size": growth.old.size, "size": growth.new.size,
        "root": growth.new.root.to_base64(), "walked": walked, "found": found,
    }));
    Ok(found)
}

/// What an entry of the signing log matches. Entries of other forms match nothing.
fn matches_of(entry: &VerifiedEntry, identities: &[String], digests: &[String]) -> Vec<String> {
    let Ok(record) = HashedRekord::from_canonical_body(&entry.bytes) else { return Vec::new() };
    let mut found = Vec::new();
    let digest = hex::encode(&record.digest);
    if digests.iter().any(|wanted| wanted.eq_ignore_ascii_case(&digest)) {
        found.push(format!("digest {digest}"));
    }
    if let VerifierKey::Certificate(der) = &record.verifier
        && let Ok(certificate) = Certificate::from_der(der)
        && let Ok(identity) = Identity::of_certificate(&certificate)
        && identities.iter().any(|wanted| wanted == identity.subject())
    {
        found.push(format!("signed by {}", identity.subject()));
    }
    found
}
