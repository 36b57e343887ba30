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
