//! An enrolment cut off in the middle: the authority, the log or the command itself is gone. The same command with the
//! same token then gets the one certificate of that token, and key and certificate fit.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use mentat_tests::agent::{sentiment, token};
use mentat_tests::binary::binary;
use mentat_tests::stack::Stack;
use serde_json::Value;

/// `pki request-cert` as a process of its own, with the token on its standard input.
fn start(stack: &Stack, name: &str, token: &str) -> std::process::Child {
    let mut command = Command::new(binary("mentatctl"));
    command.env("MENTAT_HOME", stack.home()).arg("--stack").arg(stack.dir());
    command.args(["pki", "request-cert", "--email", &format!("{name}@example.com")]);
    for (flag, extension) in [("--output", "crt"), ("--key", "key")] {
        command.arg(flag).arg(stack.home().join(format!("{name}.{extension}")));
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
    child
}

/// Serial numbers of the certificates that came to be for a name; an abandoned one was never signed, and used nothing up.
fn serials(stack: &Stack, name: &str) -> BTreeSet<String> {
    let listed =
        stack.ctl(&["--json", "pki", "list", "--identity", &format!("{name}@example.com")]).success().stdout;
    let records = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let signed = records.filter(|record| record["state"] != "abandoned");
    signed.map(|record| record["serial"].as_str().unwrap().to_owned()).collect()
}

/// States of the certificates on record for a name.
fn states(stack: &Stack, name: &str) -> Vec<String> {
    let listed =
        stack.ctl(&["--json", "pki", "list", "--identity", &format!("{name}@example.com")]).success().stdout;
    let records = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.map(|record| record["state"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Repeats the command until it is done, and shows that the pair signs.
fn finish(stack: &Stack, folder: &std::path::Path, name: &str, token: &str) {
    let mut code = -1;
    // Each call is patient by itself; what a crash left open is closed soon after the start, not after a minute.
    for _ in 0..2 {
        code = start(stack, name, token).wait().unwrap().code().unwrap_or(-1);
        // 69: the authority is still reconciling what the crash left open.
        if code != 69 {
            break;
        }
    }
    if code == 1 {
        // The kill fell between the decision to sign and the record of what was signed: a signature may exist, so the serial
        // is spent and the refusal is final (`issuance_failed`). Nothing may be valid under it, and nothing was acknowledged.
        assert_eq!(states(stack, name), ["maybe-issued"], "{name}: refused for another reason");
        return;
    }
    assert_eq!(code, 0, "{name}: the same command gets the certificate");
    let at = |extension: &str| stack.home().join(format!("{name}.{extension}")).display().to_string();
    let release = sentiment(folder, name, |manifest| manifest);
    let release = release.to_str().unwrap();
    stack.ctl(&["sign", release, "--cert", &at("crt"), "--key", &at("key")]).success();
    stack.ctl(&["verify", release]).success();
    assert_eq!(serials(stack, name).len(), 1, "{name}: one token, one certificate");
    let left = std::fs::read_dir(stack.home()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|file| file.to_string_lossy().contains("pending")).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn killed_in_the_middle(victim: &str, delays: &[u64]) {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    for &milliseconds in delays {
        let name = format!("dev{milliseconds}");
        let good = token(&stack, &format!("{name}@example.com"));
        let mut child = start(&stack, &name, &good);
        std::thread::sleep(Duration::from_millis(milliseconds));
        stack.kill_server(victim);
        let acknowledged = child.wait().unwrap().success();
        stack.restart();
        if acknowledged {
            assert_eq!(serials(&stack, &name).len(), 1, "what was delivered is on record");
        } else {
            finish(&stack, dir.path(), &name, &good);
        }
    }
    assert_eq!(stack.down(), 0);
}

#[test]
fn the_authority_killed_during_an_enrolment() {
    killed_in_the_middle("ca-service", &[10, 25, 45, 70]);
}

#[test]
fn the_log_killed_during_an_enrolment() {
    // Fewer: an authority whose log is gone waits for it before it stops.
    killed_in_the_middle("transparency-log", &[45]);
}

/// The authority waits for a log that does not answer; the command is killed meanwhile; then the log answers again.
#[test]
fn the_command_killed_while_the_log_is_silent() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let good = token(&stack, "dev@example.com");
    stack.signal("transparency-log", "STOP");
    let mut child = start(&stack, "dev", &good);
    // Until the authority has recorded what it is about to issue.
    while serials(&stack, "dev").is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let intended = serials(&stack, "dev");
    assert!(stack.home().join("dev.key.pending").exists());
    stack.signal("transparency-log", "CONT");
    finish(&stack, dir.path(), "dev", &good);
    assert_eq!(serials(&stack, "dev"), intended, "the certificate of the first call");
}
