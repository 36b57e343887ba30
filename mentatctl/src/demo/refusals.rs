//! The refusals: each release has exactly one thing wrong, and both the offline verifier and the executor must say which.

use std::path::Path;
use std::time::Duration;

use super::act::{Act, text};
use super::{forge, path};
use crate::clock;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::output::Tone;
use crate::pki::{serial_of, time_text};

/// How long a revocation may take to reach the executor here: lists are published and fetched every second.
const REACHES_WITHIN: Duration = Duration::from_secs(20);

/// Shows every refusal.
///
/// # Errors
/// When something is not refused, or for another reason than it must be.
pub fn show(act: &mut Act<'_>) -> Outcome<()> {
    let good = act.path(path::RELEASE);
    altered_byte(act, &good)?;
    unknown_issuer(act, &good)?;
    not_in_the_log(act, &good)?;
    stale_evidence(act, &good)?;
    capability_not_granted(act)?;
    revoked_certificate(act)?;
    // Last: it takes everything that this authority certified with it.
    revoked_intermediate(act, &good)
}

fn altered_byte(act: &mut Act<'_>, good: &Path) -> Outcome<()> {
    let folder = act.copy(good, "altered")?;
    let module = folder.join("sentiment.wasm");
    let mut bytes = std::fs::read(&module).or_fail(Exit::Failure, "reading the module")?;
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 1;
    }
    std::fs::write(&module, bytes).or_fail(Exit::Failure, "writing the module")?;
    refused(act, "one altered byte", &folder, "digest_mismatch")
}

fn unknown_issuer(act: &mut Act<'_>, good: &Path) -> Outcome<()> {
    let folder = act.copy(good, "stranger")?;
    forge::sign_as_stranger(&folder, act.stack_dir())?;
    refused(act, "unknown issuer", &folder, "unknown_issuer")
}

fn not_in_the_log(act: &mut Act<'_>, good: &Path) -> Outcome<()> {
    let folder = act.copy(good, "unlogged")?;
    forge::without_log_entry(&folder)?;
    refused(act, "not in the log", &folder, "inclusion_missing")
}

fn stale_evidence(act: &mut Act<'_>, good: &Path) -> Outcome<()> {
    // Evidence ages; an executor that cannot reach the log any more must stop admitting. Here time is moved instead.
    let later = time_text(clock::now().0 + 2 * 3600);
    let good = text(good);
    let denial =
        act.ctl("refuse: stale evidence", &["verify", &good, "--at", &later])?.denied("checkpoint_stale")?;
    report(act, "stale evidence", "checkpoint_stale", &denial);
    Ok(())
}

fn capability_not_granted(act: &mut Act<'_>) -> Outcome<()> {
    let folder = act.release("greedy", |manifest| {
        manifest.replace("  capabilities:\n", "  capabilities:\n    - network:https:api.openai.com\n")
    })?;
    act.quietly(&["sign", &text(&folder)])?.success()?;
    refused(act, "capability not granted", &folder, "capability_denied")
}

fn revoked_certificate(act: &mut Act<'_>) -> Outcome<()> {
    path::enrol(act, "mallory@example.com", "mallory")?;
    let folder =
        act.release("mallory", |manifest| manifest.replace("mentatlab.sentiment", "mentatlab.mallory"))?;
    let (cert, key) = (text(&act.path("home/mallory.crt")), text(&act.path("home/mallory.key")));
    act.quietly(&["sign", &text(&folder), "--cert", &cert, "--key", &key])?.success()?;
    act.quietly(&["verify", &text(&folder)])?.success()?;
    act.quietly(&["run", &text(&folder)])?.success()?;
    act.say("signed, verified and run; now the certificate is revoked");
    let revoke = ["pki", "revoke", "--cert", &cert, "--reason", "key-compromise"];
    act.ctl("revoke a certificate", &revoke)?.success()?;
    refused_soon(act, "revoked certificate", &folder)
}

fn revoked_intermediate(act: &mut Act<'_>, good: &Path) -> Outcome<()> {
    let chain = act.stack_dir().join("ca-service").join("chains").join("code-signing.pem");
    let serial = serial_of(&chain)?;
    act.ctl(
        "revoke the intermediate",
        &["pki", "revoke", "--serial", &serial, "--reason", "cessation-of-operation"],
    )?
    .success()?;
    refused_soon(act, "revoked intermediate", good)
}

/// Both the offline verifier and the executor refuse with the code.
fn refused(act: &mut Act<'_>, what: &str, folder: &Path, code: &str) -> Outcome<()> {
    let folder = text(folder);
    let denial = act.ctl(&format!("refuse: {what}"), &["verify", &folder])?.denied(code)?;
    act.quietly(&["run", &folder])?.denied(code)?;
    report(act, what, code, &denial);
    Ok(())
}

/// The same for a revocation, which must first be published and fetched.
fn refused_soon(act: &mut Act<'_>, what: &str, folder: &Path) -> Outcome<()> {
    let folder = text(folder);
    let (verify, run) = (["verify", &folder, "--refresh"], ["run", &folder]);
    let watch = clock::Stopwatch::start();
    loop {
        let both = act.quietly(&verify)?.is_denied("revoked") && act.quietly(&run)?.is_denied("revoked");
        if both {
            break;
        }
        if watch.elapsed() > REACHES_WITHIN {
            // Once more, so that the message says what was answered instead.
            act.quietly(&verify)?.denied("revoked")?;
            act.quietly(&run)?.denied("revoked")?;
            return Err(Failure::failed(format!("{what}: the revocation took too long")));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    act.timed(&format!("revocation reaches verifier and executor: {what}"), watch.elapsed());
    let denial = act.ctl(&format!("refuse: {what}"), &verify)?.denied("revoked")?;
    report(act, what, "revoked", &denial);
    Ok(())
}

fn report(act: &mut Act<'_>, what: &str, code: &str, denial: &str) {
    let out = act.out();
    act.say(format!("{} {what}: {}", out.paint(Tone::Bad, "refused"), out.paint(Tone::Strong, code)));
    act.say(out.paint(Tone::Faint, denial));
    act.refused(what, code);
}
