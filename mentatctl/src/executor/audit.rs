//! `executor verify-audit`: an executor's audit log, against what its receipt log says of it.
//!
//! The chain finds what was altered or removed inside of the file. That its end was cut off, or all of it written anew, only somebody
//! else can tell: receipts name the last audit record of their time, and the newest one fixes every record before it.

use std::path::PathBuf;

use clap::Args;
use executor_api::attested::head_of;
use executor_api::audit::AuditHead;
use serde_json::json;
use tlog::tile::TILE_WIDTH;
use tlog::{BundleId, TreeHead};
use tlog_client::{EntryFormat, LogClient};
use trust_store::provider::AwsLc;

use super::anchors::history::receipt_failure;
use super::anchors::{receipt_log, receipts_of};
use crate::audit::collect::walk_chain;
use crate::exit::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::net::{TlsFlags, block_on};
use crate::output::{Output, Tone};

/// Bundles of the receipt log in which the newest word about the audit log is looked for. Nearly every entry is one.
const LOOKED_BACK: u64 = 64;

/// `executor verify-audit`.
#[derive(Debug, Args)]
pub struct VerifyAudit {
    /// The audit log: `audit.jsonl` of the executor's folder of state, or a copy that was made just now
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_log: PathBuf,
    /// Base URL of the executor
    #[arg(long, value_name = "URL")]
    pub(crate) executor_url: Option<String>,
    /// Verifier key of the executor's receipt log, as its operator published it [default: what the executor says]
    #[arg(long, value_name = "VKEY")]
    pub(crate) vkey: Vec<String>,
    /// File with a bearer token for the executor
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tls: TlsFlags,
}

/// Runs `executor verify-audit`. Exit code 0: every record up to the newest one that receipts name is there, unaltered; 1: no receipt names
/// one; 3: records were removed, altered or replaced; 69: the executor cannot be reached.
///
/// # Errors
/// See above.
pub fn run(options: &VerifyAudit, home: &Home, out: &Output) -> Outcome {
    let http = options.tls.client(home)?;
    let url = home.executor_url(options.executor_url.as_deref())?;
    let token = home.admin_token(options.token_file.as_deref(), &url, &home.executor_url(None))?;
    let base = url.trim_end_matches('/').to_owned();
    let (origin, attested) = block_on(async {
        let (log, keys) = receipt_log(&options.vkey, &base, http.clone(), token.as_deref()).await?;
        let client = receipts_of(http, &base, token.as_deref())?;
        let checkpoint = client.checkpoint(&log.origin, &keys, &AwsLc).await.map_err(receipt_failure)?;
        let attested = newest(&client, *checkpoint.head()).await?;
        Ok((log.origin, attested))
    })?;
    let Some(attested) = attested else {
        return Err(Failure::failed(format!("no receipt of {origin} names a record of the audit log"))
            .code("audit_unattested")
            .hint("the executor is of an earlier version, or has recorded nothing yet"));
    };
    let mut found = attested == AuditHead::EMPTY;
    let (head, broken) = walk_chain(&options.audit_log, |head, _| {
        found |= *head == attested;
        Ok(())
    })?;
    if let Some(what) = broken {
        return Err(refused("audit_altered", format!("the audit log is not intact: {what}")));
    }
    if !found && head.sequence < attested.sequence {
        let what = format!(
            "the audit log ends at record {}, but receipts name record {}: the records behind it were removed",
            head.sequence, attested.sequence
        );
        return Err(refused("audit_truncated", what));
    }
    if !found {
        let what = format!("record {} of the audit log is not the one that receipts name", attested.sequence);
        return Err(refused("audit_replaced", what));
    }
    let behind = head.sequence - attested.sequence;
    out.line(format!(
        "{} {} records; receipts of {origin} name record {}, {behind} came after it",
        out.paint(Tone::Good, "complete:"),
        head.sequence,
        attested.sequence
    ));
    out.value(|| {
        json!({
            "ok": true, "origin": origin, "records": head.sequence, "attested": attested.sequence,
            "attested_hash": hex::encode(attested.hash),
        })
    });
    Ok(Exit::Ok)
}

fn refused(code: &str, what: String) -> Failure {
    Failure::new(Exit::Denied, what).code(code).hint(
        "a copy that was made earlier lacks what came since: copy the file again; otherwise keep both as evidence, and see that the receipts \
         are those that the event log anchors (`mentatctl executor verify-anchors`)",
    )
}

/// The newest head that an entry names.
async fn newest(client: &LogClient, head: TreeHead) -> Outcome<Option<AuditHead>> {
    let last = head.size.div_ceil(u64::from(TILE_WIDTH));
    for bundle in (last.saturating_sub(LOOKED_BACK)..last).rev() {
        let Some(id) = BundleId::in_tree(bundle, head.size) else { continue };
        let entries = client.tree(head).entries(id, EntryFormat::Bundles).await.map_err(receipt_failure)?;
        if let Some(found) = entries.iter().rev().find_map(|entry| head_of(&entry.bytes)) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
