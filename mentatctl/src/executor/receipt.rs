//! `executor receipt` and `executor verify-receipt`: what an executor signed about one execution.

use std::path::PathBuf;

use clap::Args;
use executor_api::receipt::{ExitClass, Receipt};
use serde_json::json;
use tlog::checkpoint::VerifiedCheckpoint;
use tlog::hash::leaf_hash;
use tlog::note::VerifierKey;
use tlog::proof_file::ProofFile;
use trust_store::provider::AwsLc;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, Secrecy, read_file, write_file};
use crate::net::block_on;
use crate::output::{Output, Tone, shown};
use crate::run::{ExecutorFlags, executor_failure};

/// `executor receipt`.
#[derive(Debug, Args)]
pub struct Get {
    /// Name of the instance, as `run --json` prints it, or an index of the receipt log
    #[arg(value_name = "INSTANCE|INDEX")]
    which: String,
    /// Where to write the proof file
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    executor: ExecutorFlags,
}

/// `executor verify-receipt`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The proof file
    file: PathBuf,
    /// Verifier key of the executor's receipt log; its name is the log's origin
    #[arg(long, value_name = "VKEY", required = true)]
    vkey: Vec<String>,
}

/// Runs `executor receipt`: writes it, and says by which key it verifies.
///
/// # Errors
/// Exit code 69 until a checkpoint covers it, 1 when the executor does not know it.
pub fn get(get: &Get, home: &Home, out: &Output) -> Outcome {
    let client = get.executor.client(home)?;
    let (proof, log) = block_on(async {
        let proof = match get.which.parse() {
            Ok(index) => client.receipt_at(index).await,
            Err(_) => client.receipt(&get.which).await,
        };
        let proof = proof.map_err(executor_failure)?;
        Ok((proof, client.receipt_log().await.map_err(executor_failure)?))
    })?;
    write_file(&get.output, &proof, Secrecy::Public)?;
    out.line(format!("wrote {}", get.output.display()));
    for vkey in &log.vkeys {
        out.line(format!("it verifies by --vkey {vkey}; compare the key with what the operator publishes"));
    }
    out.value(|| json!({ "ok": true, "file": shown(&get.output), "log": log }));
    Ok(Exit::Ok)
}

/// Runs `executor verify-receipt`, offline.
///
/// # Errors
/// Exit code 3 when the receipt is not what the log's key signed.
pub fn verify(verify: &Verify, out: &Output) -> Outcome {
    let bytes = read_file(&verify.file)?;
    let keys = verify
        .vkey
        .iter()
        .map(|vkey| VerifierKey::parse(vkey).or_fail(Exit::Usage, "the verifier key"))
        .collect::<Outcome<Vec<_>>>()?;
    let origin = keys.first().map(VerifierKey::name).unwrap_or_default();
    let (receipt, index) = check(&bytes, origin, &keys)?;
    let text = serde_json::to_value(&receipt).or_fail(Exit::Failure, "writing the receipt")?;
    out.line(format!(
        "{} {} {} ran as {} and ended with {}",
        out.paint(Tone::Good, "verified:"),
        receipt.agent,
        receipt.agent_version,
        receipt.instance,
        receipt.reason
    ));
    out.line(format!("module {}, input {}, output {}", receipt.module, receipt.input, receipt.output));
    if receipt.exit == ExitClass::Revoked {
        out.line("it was stopped because something that vouched for it was revoked");
    }
    out.value(|| json!({ "ok": true, "origin": origin, "index": index, "receipt": text }));
    Ok(Exit::Ok)
}

fn check(bytes: &[u8], origin: &str, keys: &[VerifierKey]) -> Outcome<(Receipt, u64)> {
    let refused = |what: String| Failure::new(Exit::Denied, what).code("receipt_invalid");
    let file = ProofFile::parse(bytes).map_err(|error| refused(error.to_string()))?;
    let entry = file.extra.as_deref().ok_or_else(|| refused("the proof file carries no receipt".into()))?;
    let checkpoint = VerifiedCheckpoint::open(&file.checkpoint.to_bytes(), origin, keys, &AwsLc)
        .map_err(|error| refused(format!("the checkpoint: {error}")))?;
    let included = file
        .proof
        .verify(&leaf_hash(entry), checkpoint.head())
        .map_err(|error| refused(format!("the inclusion proof: {error}")))?;
    let receipt = Receipt::from_entry(entry).map_err(|error| refused(format!("the receipt: {error}")))?;
    Ok((receipt, included.leaf_index()))
}
