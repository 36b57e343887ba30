//! An operator of a stack: restart, a second start in the same folder, wrong and damaged folders, ports in use.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use mentat_tests::agent::signed;
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
