//! The path: a developer, CI, an executor, an auditor.

use serde_json::Value;

use super::act::{Act, at, shown_at, text};
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::output::Tone;

/// Who signs in the demonstration.
pub const DEVELOPER: &str = "dev@example.com";

/// Name of the signed release's folder.
pub const RELEASE: &str = "sentiment";

/// Walks the path.
///
/// # Errors
/// When a step does not succeed.
pub fn walk(act: &mut Act<'_>) -> Outcome<()> {
    enrol(act, DEVELOPER, "signing")?;
    let release = act.release(RELEASE, |manifest| manifest)?;
    let release = text(&release);

    let signed = act.ctl("sign, timestamp, record in the log, staple", &["sign", &release])?.success()?;
    act.say(format!(
        "{} signed by {}, log index {}",
        shown_at(&signed, "/agent"),
        shown_at(&signed, "/signer"),
        shown_at(&signed, "/log_index")
    ));

    let manifest = format!("{release}/manifest.yaml");
    let verified = act.ctl("verify offline", &["verify", &manifest])?.success()?;
    act.say(format!(
        "{} level {}",
        act.out().paint(Tone::Good, "verified,"),
        shown_at(&verified, "/trust_level")
    ));

    let readme = text(&act.path("README.md"));
    let ran = act.ctl("admit, compile, run", &["run", &release, "--input", &readme])?.success()?;
    let answer: Value = serde_json::from_str(at(&ran, "/text").as_str().unwrap_or_default())
        .or_fail(Exit::Failure, "the module's answer is not JSON")?;
    if at(&answer, "/words").as_u64().unwrap_or(0) == 0 {
        return Err(Failure::failed(format!("the module found no words in the README: {answer}")));
    }
    act.say(&answer);
    act.answered(answer);
    act.say(format!(
        "{} µs in the guest, {} KiB of memory",
        at(&ran, "/usage/wall_us"),
        at(&ran, "/usage/memory_bytes").as_u64().unwrap_or(0) / 1024
    ));
    act.ctl("run again, from the cache", &["run", &release, "--input", &readme])?.success()?;

    let proof = text(&act.path("sentiment.tlog-proof"));
    act.ctl("fetch a proof from the log", &["log", "proof", "--manifest", &release, "--output", &proof])?
        .success()?;
    let proven =
        act.ctl("verify the proof offline", &["log", "verify", &proof, "--manifest", &release])?.success()?;
    act.say(format!("entry {} of {}", at(&proven, "/index"), at(&proven, "/tree_size")));
    let monitored = act.ctl("monitor the log", &["log", "monitor"])?.success()?;
    act.say(format!("consistent, {} entries walked", at(&monitored, "/walked")));
    Ok(())
}

/// Gets a certificate for an address with a one-time token; key and certificate are named after `name`.
///
/// # Errors
/// When the authority refuses.
pub fn enrol(act: &mut Act<'_>, address: &str, name: &str) -> Outcome<()> {
    let token = act
        .ctl(
            &format!("make a one-time token for {address}"),
            &["pki", "token", "create", "--email", address],
        )?
        .success()?;
    let token = at(&token, "/token").as_str().unwrap_or_default().to_owned();
    let cert = text(&act.path(&format!("home/{name}.crt")));
    let key = text(&act.path(&format!("home/{name}.key")));
    let issued = act
        .ctl_with_input(
            &format!("issue, log and deliver a certificate for {address}"),
            &["pki", "request-cert", "--email", address, "--output", &cert, "--key", &key],
            Some(&token),
        )?
        .success()?;
    act.say(format!(
        "serial {}, issuance log index {}",
        shown_at(&issued, "/serial"),
        shown_at(&issued, "/log_index")
    ));
    Ok(())
}
