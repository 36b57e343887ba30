//! An operator of a stack: restart, a second start in the same folder, wrong and damaged folders, ports in use.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mentat_tests::agent::signed;
use mentat_tests::binary::binary;
use mentat_tests::clock::Deadline;
use mentat_tests::command::mentatctl;
use mentat_tests::stack::Stack;

#[test]
fn a_stack_survives_restarts_and_is_used_by_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("stack");
    let mut stack = Stack::up(&folder);
    let before = stack.json.clone();
    let release = signed(&stack, dir.path(), "agent");
    let release = release.to_str().unwrap();

    let second = mentatctl(stack.home(), ["up", "--dir", folder.to_str().unwrap()]);
    second.refused(78, "another `mentatctl up`");

    assert_eq!(stack.down(), 0, "a clean stop");
    stack.ctl(&["verify", release]).success();
    stack.ctl(&["run", release]).refused(69, "executor");
    stack.restart();
    assert_eq!(stack.json, before, "ports, origins and keys are fixed at the first start");
    stack.ctl(&["run", release]).success();
    stack.ctl(&["log", "monitor"]).success();
    stack.ctl(&["sign", release]).success();
    stack.ctl(&["verify", release]).success();
}

#[test]
fn a_stack_has_a_raw_log_and_one_of_before_gets_it_at_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("stack");
    let mut stack = Stack::up_with(&folder, &["--no-raw-log"]);
    let before = stack.json.clone();
    assert!(before.pointer("/logs/raw").is_none(), "{before}");
    let release = signed(&stack, dir.path(), "agent");
    assert_eq!(stack.down(), 0);
    let config = folder.join("config/transparency-log.toml");
    let commented = format!("# ours\n{}", std::fs::read_to_string(&config).unwrap());
    std::fs::write(&config, &commented).unwrap();

    stack.restart();
    let mut after = stack.json.clone();
    let raw = after["logs"].as_object_mut().unwrap().remove("raw").unwrap();
    assert_eq!(after, before, "nothing else changed");
    assert!(raw["origin"].as_str().unwrap().starts_with("raw."), "{raw}");
    assert!(std::fs::read_to_string(&config).unwrap().starts_with(&commented), "only appended");
    let add = format!("{}/add", raw["url"].as_str().unwrap());
    let added = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.post(&add).body(&b"any bytes"[..]).send().await.unwrap().text().await.unwrap()
    });
    assert_eq!(added, "0\n");
    stack.ctl(&["log", "monitor", "--log", "raw"]).success();
    stack.ctl(&["log", "proof", "--log", "raw", "--index", "0"]).success();
    stack.ctl(&["verify", release.to_str().unwrap(), "--refresh"]).success();
    // The trusted root knows nothing of it: nothing in it vouches for anything.
    let root = std::fs::read_to_string(folder.join("trust/trusted_root.json")).unwrap();
    assert!(!root.contains(raw["origin"].as_str().unwrap()), "{root}");

    assert_eq!(stack.down(), 0);
    let with_raw = (stack.json.clone(), std::fs::read_to_string(&config).unwrap());
    stack.restart();
    assert_eq!((stack.json.clone(), std::fs::read_to_string(&config).unwrap()), with_raw);

    // Interrupted after the log was made and before it was written down.
    assert_eq!(stack.down(), 0);
    std::fs::write(folder.join("stack.json"), before.to_string()).unwrap();
    stack.restart();
    assert_eq!(stack.json["logs"]["raw"], raw, "the same log");
    assert_eq!(stack.down(), 0);
}

#[test]
fn what_does_not_allow_a_start_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    std::fs::create_dir_all(&home).unwrap();
    let up = |folder: &std::path::Path, more: &[&str]| {
        mentatctl(&home, [&["up", "--dir", folder.to_str().unwrap()], more].concat())
    };
    // A folder with something else in it.
    let other = dir.path().join("other");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("thesis.txt"), "important").unwrap();
    up(&other, &[]).refused(78, "thesis.txt");
    assert_eq!(std::fs::read_to_string(other.join("thesis.txt")).unwrap(), "important");
    // A port in use.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    up(&dir.path().join("fresh"), &["--port-base", &port.to_string()]).refused(78, &format!("port {port}"));
    // An interrupted first start.
    let unfinished = dir.path().join("unfinished");
    std::fs::create_dir_all(&unfinished).unwrap();
    std::fs::write(unfinished.join("unfinished"), "").unwrap();
    up(&unfinished, &[]).refused(78, "interrupted");

    // A stack that lost something.
    let folder = dir.path().join("stack");
    let mut stack = Stack::up(&folder);
    assert_eq!(stack.down(), 0);
    up(&folder, &["--port-base", "20000"]).refused(2, "fixed");
    let passphrase = folder.join("secrets/ca-service.passphrase");
    let secret = std::fs::read(&passphrase).unwrap();
    std::fs::remove_file(&passphrase).unwrap();
    up(&folder, &[]).refused(78, "ca-service.passphrase");
    // A wrong passphrase.
    let write = |content: &[u8], mode: u32| {
        std::fs::write(&passphrase, content).unwrap();
        std::fs::set_permissions(&passphrase, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write(b"not the passphrase at all", 0o600);
    up(&folder, &[]).refused(78, "passphrase");
    // The right one, where everybody can read it.
    write(&secret, 0o644);
    up(&folder, &[]).refused(78, "chmod 600");
    write(&secret, 0o600);
    // A status port that somebody else holds now.
    let ports: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("ports.json")).unwrap()).unwrap();
    let status = u16::try_from(ports["status"].as_u64().unwrap()).unwrap();
    let taken = TcpListener::bind(("127.0.0.1", status)).unwrap();
    up(&folder, &[]).refused(78, &format!("port {status}"));
    drop(taken);
    stack.restart();
    assert_eq!(stack.down(), 0);
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_stack_that_was_copied_or_moved_is_refused_and_the_original_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (made, elsewhere) = (dir.path().join("stack"), dir.path().join("elsewhere"));
    let mut stack = Stack::up(&made);
    assert_eq!(stack.down(), 0);
    let before = contents(&made);
    assert!(Command::new("cp").arg("-r").args([&made, &elsewhere]).status().unwrap().success());
    let copy = contents(&elsewhere);
    let up = || mentatctl(dir.path(), ["up", "--dir", elsewhere.to_str().unwrap()]);
    up().refused(78, "was made in").refused(78, made.to_str().unwrap()).one_clear_line();
    assert_eq!(contents(&made), before, "the original");
    assert_eq!(contents(&elsewhere), copy, "the copy");
    // Whoever asks through the copy would act on the original.
    let ask = || {
        mentatctl(dir.path(), ["pki", "list", "--stack", elsewhere.to_str().unwrap()])
            .refused(2, "was made in")
            .one_clear_line();
    };
    ask();
    // One server's folder elsewhere is enough, whatever stack.json says.
    let file = elsewhere.join("stack.json");
    let edited = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, edited.replace(made.to_str().unwrap(), elsewhere.to_str().unwrap())).unwrap();
    up().refused(78, "was made in").refused(78, made.to_str().unwrap()).one_clear_line();
    ask();
    let mut json: serde_json::Value = serde_json::from_str(&edited).unwrap();
    json.as_object_mut().unwrap().remove("trusted_root");
    std::fs::write(&file, json.to_string()).unwrap();
    up().refused(78, "was made in").one_clear_line();
    assert_eq!(contents(&made), before, "the original");
    // Moved: the same line, and moving it back is all that it takes.
    std::fs::remove_dir_all(&elsewhere).unwrap();
    std::fs::rename(&made, &elsewhere).unwrap();
    up().refused(78, "was made in").one_clear_line();
    ask();
    std::fs::rename(&elsewhere, &made).unwrap();
    stack.restart();
    assert_eq!(stack.down(), 0);
}

/// `mentatctl up` with both outputs and the input kept.
fn starting(folder: &Path) -> std::process::Child {
    let mut command = Command::new(binary("mentatctl"));
    command.args(["up", "--json", "--exit-with-stdin", "--dir"]).arg(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// The ports of a new stack are its own from their choice on, long before its servers bind them: addresses are written into
/// certificates in between.
#[test]
fn nobody_gets_the_ports_of_a_stack_that_is_being_made() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("stack");
    let mut child = starting(&folder);
    let deadline = Deadline::after(Duration::from_secs(60));
    let ports: BTreeMap<String, u16> = loop {
        let text = std::fs::read(folder.join("ports.json")).unwrap_or_default();
        if let Ok(ports) = serde_json::from_slice(&text) {
            break ports;
        }
        assert!(!deadline.passed(), "no ports were chosen");
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(ports.len(), 5);
    // Whoever takes what is free.
    let taken: Vec<_> = (0..500).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let taken = taken.iter().map(|listener| listener.local_addr().unwrap().port());
    assert!(taken.into_iter().all(|port| !ports.values().any(|own| *own == port)));
    // Another stack.
    for port in ports.values() {
        let other = dir.path().join("other");
        let asked = ["up", "--dir", other.to_str().unwrap(), "--port-base", &port.to_string()];
        mentatctl(dir.path(), asked).refused(78, &format!("port {port} ")).one_clear_line();
        assert!(!other.exists(), "nothing was made");
    }
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("\"ready\":true"), "{line}");
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Whoever reads that the stack is ready may ask it to end at once: no signal comes too early, and a terminal that is
/// closed is a clean stop too.
#[test]
fn a_signal_right_after_the_ready_line_is_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("stack");
    // Whoever ignores the end of the terminal (nohup) is left alone.
    let ignored = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = ignored.lines().find_map(|line| line.strip_prefix("SigIgn:\t"));
    let ignores_hangup = ignored.is_some_and(|mask| u64::from_str_radix(mask, 16).unwrap() & 1 != 0);
    for name in ["INT", "TERM", "HUP", "INT", "TERM", "INT"] {
        if name == "HUP" && ignores_hangup {
            continue;
        }
        let mut child = starting(&folder);
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("\"ready\":true"), "{line}");
        signal(child.id(), name);
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "SIG{name}: {status}");
    }
}

/// A request that does not end holds a stop up; whoever asks again does not wait for it.
#[test]
fn a_second_signal_does_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("stack");
    let mut command = Command::new(binary("mentatctl"));
    command.args(["up", "--exit-with-stdin", "--dir"]).arg(&folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains("Ctrl-C stops it")).expect("the stack is ready");
    let stack: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("stack.json")).unwrap()).unwrap();
    let authority = stack["ca"]["url"].as_str().unwrap().strip_prefix("http://").unwrap();
    let mut unfinished = std::net::TcpStream::connect(authority).unwrap();
    unfinished
        .write_all(b"POST /api/v1/timestamp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{}")
        .unwrap();
    signal(child.id(), "INT");
    lines.find(|line| line == "stopping").expect("it says that it stops");
    signal(child.id(), "INT");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.contains("asked again"), "{stderr}");
    drop(unfinished);
    // The servers go by themselves; the next start waits for their ports.
    let mut stack = Stack::up(&folder);
    assert_eq!(stack.down(), 0);
}

#[test]
fn a_signal_during_the_first_start_takes_away_what_it_made() {
    let dir = tempfile::tempdir().unwrap();
    for existed in [false, true] {
        let folder = dir.path().join(format!("stack{existed}"));
        if existed {
            std::fs::create_dir(&folder).unwrap();
        }
        let mut child = starting(&folder);
        let deadline = Deadline::after(Duration::from_secs(60));
        while !folder.join("unfinished").exists() {
            assert!(!deadline.passed(), "the first start did not begin");
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(child.id(), "INT");
        let mut stdout = String::new();
        child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{stdout}");
        assert!(stdout.contains("\"interrupted\"") && stdout.lines().count() == 1, "{stdout}");
        assert_eq!(folder.exists(), existed);
        // Nothing is left in the way.
        let mut stack = Stack::up(&folder);
        assert_eq!(stack.down(), 0);
    }
}
