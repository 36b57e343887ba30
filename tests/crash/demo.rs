//! SIGKILL to each server during `mentatctl demo`: it says which one died, ends by itself, and the stack that it leaves
//! with `--keep` starts again with everything that was acknowledged.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

use mentat_tests::binary::binary;
use mentat_tests::command::{Finished, finish, mentatctl};
use mentat_tests::stack::Stack;
use serde_json::Value;

/// Runs the demo and sends a signal to a process when a line with `at` appears: to a server by name, or to the demo.
fn interrupted(keep: &Path, temporary: &Path, victim: Option<&str>, at: &str) -> Finished {
    let mut child = Command::new(binary("mentatctl"))
        .args(["demo", "--keep"])
        .arg(keep)
        .env("TMPDIR", temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdout, mut pid) = (String::new(), None);
    let mut sent = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(victim) = victim
            && line.trim_start().starts_with(victim)
            && line.contains("process")
        {
            pid = line.split_whitespace().last().map(str::to_owned);
        }
        if line.contains(at) && !sent {
            let (signal, pid) = match victim {
                Some(_) => ("-9", pid.clone().expect("the demo names its processes first")),
                None => ("-INT", child.id().to_string()),
            };
            assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
            sent = true;
        }
        stdout.push_str(&line);
        stdout.push('\n');
    }
    assert!(sent, "no line with `{at}`:\n{stdout}");
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Finished { code: child.wait().unwrap().code().unwrap_or(-1), stdout, stderr }
}

/// The words after a word, in every line that has it.
fn after<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = &'t str> {
    text.lines().filter_map(move |line| Some(line.split_once(word)?.1.split([',', ' ']).next()?.trim()))
}

fn survives(victim: &str, at: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (keep, temporary) = (dir.path().join("stack"), dir.path().join("tmp"));
    std::fs::create_dir(&temporary).unwrap();
    let done = interrupted(&keep, &temporary, Some(victim), at);
    let done = done.refused(1, &format!("{victim} ended by itself (killed by signal 9"));
    done.one_clear_line();
    assert!(done.stderr.contains(&format!("{victim}.log")), "{}", done.stderr);
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "the temporary folder is gone");

    let mut stack = Stack::up(&keep);
    let listed = stack.ctl(&["--json", "pki", "list"]).success().stdout;
    let listed: BTreeSet<String> = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["serial"].as_str().unwrap().to_owned())
        .collect();
    let serials: Vec<&str> = after(&done.stdout, "serial ").filter(|s| !s.starts_with("--")).collect();
    assert!(!serials.is_empty(), "something was acknowledged before {at}:\n{}", done.stdout);
    for serial in serials {
        assert!(listed.contains(serial), "an acknowledged certificate is lost: {serial}");
    }
    for (log, word) in [("issuance", "issuance log index "), ("signing", ", log index ")] {
        for index in after(&done.stdout, word) {
            stack.ctl(&["log", "proof", "--log", log, "--index", index]).success();
        }
        stack.ctl(&["log", "monitor", "--log", log]).success();
    }
    assert_eq!(stack.down(), 0);
}

#[test]
fn the_log_killed_during_the_demo() {
    survives("transparency-log", "mentatctl verify sentiment");
}

#[test]
fn the_authority_killed_during_the_demo() {
    survives("ca-service", "request-cert --email mallory");
}

#[test]
fn the_executor_killed_during_the_demo() {
    survives("executor", "run sentiment");
}

#[test]
fn ctrl_c_ends_the_demo_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (keep, temporary) = (dir.path().join("stack"), dir.path().join("tmp"));
    std::fs::create_dir(&temporary).unwrap();
    let done = interrupted(&keep, &temporary, None, "sign sentiment").refused(1, "interrupted");
    done.one_clear_line();
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "the temporary folder is gone");
    // Nothing runs any more: the folder can be used at once.
    let mut stack = Stack::up(&keep);
    assert_eq!(stack.down(), 0);
    // A demonstration never runs on a stack that exists: it ends by revoking the intermediate.
    mentatctl(dir.path(), ["demo", "--keep", keep.to_str().unwrap()]).refused(78, "holds a stack already");
}

/// A script reads the whole demonstration: the module's answer and every refusal with its code.
#[test]
fn a_script_gets_the_answer_and_the_reason_codes() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary("mentatctl"));
    command.args(["--json", "demo"]).env("TMPDIR", dir.path());
    let shown = finish(command, b"").success().json();
    assert!(shown["answer"]["words"].as_u64().unwrap() > 0, "{shown}");
    let codes: Vec<&str> = shown["refusals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refusal| refusal["code"].as_str().unwrap())
        .collect();
    let expected =
        ["digest_mismatch", "unknown_issuer", "inclusion_missing", "checkpoint_stale", "capability_denied"];
    assert_eq!(codes, [&expected[..], &["revoked", "revoked"]].concat());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
    // No room is said before anything is made.
    let mut command = Command::new(binary("mentatctl"));
    command.arg("demo").env("TMPDIR", "/proc");
    finish(command, b"").refused(78, "/proc has 0 MiB left").one_clear_line();
}
