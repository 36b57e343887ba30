//! `log proof` and `log verify`: one entry with its proof, online and offline.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tlog::checkpoint::VerifiedCheckpoint;
use tlog::{LeafHash, ProofFile, leaf_hash};
use tlog_client::EntryFormat;
use trust_store::provider::AwsLc;

use super::{LogFlags, log_failure};
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, Secrecy, read_file, write_file};
use crate::net::block_on;
use crate::output::{Output, Tone};
use crate::release::{Release, Use};

/// `log proof`.
#[derive(Debug, Args)]
pub struct Fetch {
    #[command(flatten)]
    which: Which,
    /// Where the tlog-proof file goes; printed when absent
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where the entry's bytes go
    #[arg(long, value_name = "FILE")]
    entry_output: Option<PathBuf>,
    #[command(flatten)]
    log: LogFlags,
}

/// Which entry: exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Index of the entry
    #[arg(long, value_name = "N")]
    index: Option<u64>,
    /// Leaf hash in hexadecimal
    #[arg(long, value_name = "HEX")]
    leaf: Option<String>,
    /// The entry that a signed manifest's bundle names
    #[arg(long, value_name = "DIR|MANIFEST")]
    manifest: Option<PathBuf>,
}

/// `log verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The tlog-proof file
    #[arg(value_name = "PROOF")]
    proof: PathBuf,
    /// File with the entry's bytes
    #[arg(long, value_name = "FILE", required_unless_present = "manifest", conflicts_with = "manifest")]
    entry: Option<PathBuf>,
    /// Signed manifest whose entry it is
    #[arg(long, value_name = "DIR|MANIFEST")]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    log: LogFlags,
}

/// Runs `log proof`.
///
/// # Errors
/// When the log cannot be reached, does not have the entry, or what it says does not verify (exit code 3).
pub fn fetch(fetch: &Fetch, home: &Home, out: &Output) -> Outcome {
    let known = fetch.log.known(home)?;
    let client = fetch.log.client(&known, home)?;
    let origin = &known.description.origin;
    let leaf = match (&fetch.which.leaf, &fetch.which.manifest) {
        (Some(text), _) => Some(parse_leaf(text)?),
        (None, Some(path)) => Some(leaf_of_manifest(path)?),
        (None, None) => None,
    };
    let (proof, checkpoint, entry) = block_on(async {
        let (proof, checkpoint) = match (leaf, fetch.which.index) {
            (Some(leaf), _) => {
                let proven = client
                    .prove_leaf(&leaf, origin, &known.keys, &AwsLc)
                    .await
                    .map_err(log_failure)?
                    .ok_or_else(|| {
                        Failure::failed("the log does not have this entry in its published tree")
                            .code("inclusion_missing")
                    })?;
                (proven.proof, proven.checkpoint)
            }
            (None, Some(index)) => {
                let checkpoint = client.checkpoint(origin, &known.keys, &AwsLc).await.map_err(log_failure)?;
                let size = checkpoint.head().size;
                if index >= size {
                    return Err(Failure::failed(format!("the log has no entry {index}: it has {size}"))
                        .hint("the first entry has index 0"));
                }
                let tree = client.tree(*checkpoint.head());
                let (proof, _) = tree.inclusion_proof(index).await.map_err(log_failure)?;
                (proof, checkpoint)
            }
            (None, None) => return Err(Failure::usage("give --index, --leaf or --manifest")),
        };
        let entry = match &fetch.entry_output {
            None => None,
            Some(_) => {
                let format = if known.description.kind == "issuance" {
                    EntryFormat::DataTiles
                } else {
                    EntryFormat::Bundles
                };
                let tree = client.tree(*checkpoint.head());
                Some(tree.entry(proof.leaf_index, format).await.map_err(log_failure)?)
            }
        };
        Ok((proof, checkpoint, entry))
    })?;
    let index = proof.leaf_index;
    let file = ProofFile { extra: None, proof, checkpoint: checkpoint.note().clone() };
    if let (Some(path), Some(entry)) = (&fetch.entry_output, entry) {
        write_file(path, &entry.bytes, Secrecy::Public)?;
    }
    match &fetch.output {
        Some(path) => write_file(path, file.to_string().as_bytes(), Secrecy::Public)?,
        None if !out.is_json() => out.raw(file.to_string().as_bytes()),
        None => {}
    }
    if fetch.output.is_some() {
        report(out, origin, index, &checkpoint);
    }
    out.value(|| {
        json!({
            "ok": true, "origin": origin, "index": index, "tree_size": checkpoint.head().size,
            "root": checkpoint.head().root.to_base64(), "proof": file.to_string(),
        })
    });
    Ok(Exit::Ok)
}

/// Runs `log verify`.
///
/// # Errors
/// Exit code 3 when the checkpoint is not the log's or the proof does not hold.
pub fn verify(verify: &Verify, home: &Home, out: &Output) -> Outcome {
    let known = verify.log.known(home)?;
    let origin = &known.description.origin;
    let file = ProofFile::parse(&read_file(&verify.proof)?).or_fail(Exit::Usage, verify.proof.display())?;
    let leaf = match (&verify.entry, &verify.manifest) {
        (Some(path), _) => leaf_hash(&read_file(path)?),
        (None, Some(path)) => leaf_of_manifest(path)?,
        (None, None) => return Err(Failure::usage("give --entry or --manifest")),
    };
    let denied = |error: tlog::Error| {
        Failure::new(Exit::Denied, format!("{}: {error}", verify.proof.display())).code(error.code())
    };
    let checkpoint =
        VerifiedCheckpoint::open(&file.checkpoint.to_bytes(), origin, &known.keys, &AwsLc).map_err(denied)?;
    let inclusion = file.proof.verify(&leaf, checkpoint.head()).map_err(denied)?;
    report(out, origin, inclusion.leaf_index(), &checkpoint);
    out.value(|| {
        json!({
            "ok": true, "origin": origin, "index": inclusion.leaf_index(), "tree_size": inclusion.head().size,
            "root": inclusion.head().root.to_base64(),
        })
    });
    Ok(Exit::Ok)
}

fn report(out: &Output, origin: &str, index: u64, checkpoint: &VerifiedCheckpoint) {
    out.line(format!(
        "{} entry {index} is in {origin}, {} entries, root {}",
        out.paint(Tone::Good, "verified"),
        checkpoint.head().size,
        checkpoint.head().root.to_base64(),
    ));
}

fn parse_leaf(text: &str) -> Outcome<LeafHash> {
    let bytes: [u8; 32] = hex::decode(text.trim())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Failure::usage("a leaf hash is 64 hexadecimal digits"))?;
    Ok(LeafHash::from_stored(tlog::Hash(bytes)))
}

/// The leaf of the first log entry in a signed manifest's bundle.
fn leaf_of_manifest(path: &std::path::Path) -> Outcome<LeafHash> {
    let attestation = Release::open(path, Use::Verify)?.attestation()?;
    let entry = attestation
        .bundle()
        .log_entries
        .first()
        .ok_or_else(|| Failure::failed("the bundle carries no log entry").code("inclusion_missing"))?;
    Ok(leaf_hash(&entry.canonicalized_body))
}
