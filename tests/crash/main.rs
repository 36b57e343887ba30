//! SIGKILL to each server while it works, then a restart: no acknowledged certificate or log entry is lost, and no
//! second history is signed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests: a failure must stop with the place it happened"
)]

mod approval;
mod demo;
mod enrolment;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mentat_tests::agent::{sentiment, signed};
use mentat_tests::command::mentatctl;
use mentat_tests::stack::Stack;
use serde_json::Value;

/// What the outside world was told.
#[derive(Default)]
struct Acknowledged {
    serials: BTreeSet<String>,
    releases: Vec<String>,
}

/// Enrols and signs in a loop until told to stop; remembers only what was acknowledged.
fn work(stack: &Path, home: &Path, folder: &Path, stop: &AtomicBool, told: &Mutex<Acknowledged>, id: usize) {
    let stack = stack.to_str().unwrap();
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let address = format!("dev{id}-{round}@example.com");
        let name = format!("w{id}-{round}");
        let token =
            mentatctl(home, ["--json", "--stack", stack, "pki", "token", "create", "--email", &address]);
        let Some(token) = token.code.eq(&0).then(|| token.json()["token"].as_str().unwrap().to_owned())
        else {
            continue;
        };
        let (cert, key) = (home.join(format!("{name}.crt")), home.join(format!("{name}.key")));
        let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
        let issued = mentatctl(
            home,
            [
                "--json",
                "--stack",
                stack,
                "pki",
                "request-cert",
                "--email",
                &address,
                "--token",
                &token,
                "--output",
                cert,
                "--key",
                key,
            ],
        );
        if issued.code != 0 {
            continue;
        }
        told.lock().unwrap().serials.insert(issued.json()["serial"].as_str().unwrap().to_owned());
        let release = sentiment(folder, &name, |manifest| manifest);
        let release = release.to_str().unwrap().to_owned();
        let signed = mentatctl(home, ["--stack", stack, "sign", "--cert", cert, "--key", key, &release]);
        if signed.code == 0 {
            told.lock().unwrap().releases.push(release);
        }
    }
}

/// Kills one server under load and checks everything that was acknowledged after a restart.
fn survives(victim: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    let before = signed(&stack, dir.path(), "before");
    stack.ctl(&["log", "monitor"]).success();

    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::new(Mutex::new(Acknowledged::default()));
    let workers: Vec<_> = (0..3)
        .map(|id| {
            let (stop, told) = (Arc::clone(&stop), Arc::clone(&told));
            let (folder, root) = (dir.path().to_path_buf(), stack.dir().to_path_buf());
            let home = dir.path().join(format!("home{id}"));
            std::fs::create_dir_all(&home).unwrap();
            std::thread::spawn(move || work(&root, &home, &folder, &stop, &told, id))
        })
        .collect();
    // Not before something was acknowledged: a crash of an idle server shows nothing.
    while told.lock().unwrap().releases.len() < 3 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let code = stack.kill_server(victim);
    assert_ne!(code, 0, "the stack says that a server died");
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().unwrap();
    }

    stack.restart();
    let told = told.lock().unwrap();
    let listed = stack.ctl(&["--json", "pki", "list", "--limit", "1000"]).success().stdout;
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut serials = BTreeSet::new();
    for record in &listed {
        assert!(
            serials.insert(record["serial"].as_str().unwrap().to_owned()),
            "a serial stands twice: {record}"
        );
    }
    for serial in &told.serials {
        assert!(serials.contains(serial), "an acknowledged certificate is lost: {serial}");
    }
    // Every acknowledged entry is in the log that runs now, and the log continues the one that was seen before.
    let proof = dir.path().join("proof");
    for release in told.releases.iter().chain([&before.to_str().unwrap().to_owned()]) {
        stack.ctl(&["log", "proof", "--manifest", release, "--output", proof.to_str().unwrap()]).success();
        stack.ctl(&["verify", release, "--refresh"]).success();
    }
    for log in ["signing", "issuance", "event"] {
        stack.ctl(&["log", "monitor", "--log", log]).success();
    }
    // And it works on.
    let after = signed(&stack, dir.path(), "after");
    stack.ctl(&["run", after.to_str().unwrap()]).success();
    assert_eq!(stack.down(), 0);
}

#[test]
fn the_log_killed_under_load_loses_nothing() {
    survives("transparency-log");
}

#[test]
fn the_authority_killed_under_load_loses_nothing() {
    survives("ca-service");
}

#[test]
fn the_executor_killed_under_load_loses_nothing() {
    survives("executor");
}

/// The first start itself, interrupted at any moment, never leaves a folder that looks like a stack but is none.
#[test]
fn an_interrupted_first_start_is_recognised() {
    use mentat_tests::binary::binary;
    use std::process::{Command, Stdio};
    for milliseconds in [5, 20, 60, 150, 300] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("stack");
        let mut child = Command::new(binary("mentatctl"))
            .args(["up", "--json", "--exit-with-stdin", "--dir"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        let complete = folder.join("stack.json").exists();
        let touched = folder.join("unfinished").exists();
        if complete || !touched {
            // Complete, or nothing was made yet: the next start just works.
            let mut stack = Stack::up(&folder);
            assert_eq!(stack.down(), 0);
        } else {
            mentatctl(dir.path(), ["up", "--dir", folder.to_str().unwrap()]).refused(78, "interrupted");
        }
    }
}
