//! Signers who are not trusted: their modules run apart.

use std::fs;
use std::time::Duration;

use mentat_tests::agent::{enrol, from_text, signed};
use mentat_tests::clock::Deadline;
use mentat_tests::command::mentatctl;
use mentat_tests::stack::Stack;
use serde_json::Value;

const SPIN: &str = r#"(module (memory (export "memory") 1)
  (func (export "process") (result i32) (loop $l (br $l)) (i32.const 0)))"#;

/// Processes below `ancestor` that run as `executor worker`.
fn workers(ancestor: u32) -> Vec<u32> {
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let is_worker = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"worker")
    };
    let below = |pid: u32| {
        std::iter::successors(Some(pid), |pid| parent(*pid).filter(|up| *up > 1)).any(|up| up == ancestor)
    };
    let all = fs::read_dir("/proc").unwrap();
    all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid| is_worker(*pid) && below(*pid))
        .collect()
}

/// Puts a policy into force under which everybody is accepted and nobody is trusted.
fn trust_nobody(stack: &Stack) {
    let path = stack.dir().join("trust/policy.yaml");
    let mut policy: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    policy["required_level"] = "signed".into();
    policy["identities"] =
        serde_json::json!([{ "subject": "**", "issuer": "any-of-the-authority", "level": "signed" }]);
    let beside = path.with_extension("new");
    fs::write(&beside, policy.to_string()).unwrap();
    fs::rename(beside, &path).unwrap();
    stack.signal("executor", "HUP");
}

#[test]
fn modules_of_signers_who_are_not_trusted_run_in_workers() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let executor = stack.pid("executor");
    let tiers = stack.executor("/api/v1/status")["tiers"].clone();
    for tier in tiers.as_array().unwrap() {
        assert!(tier.get("missing").is_none(), "this host confines no workers: {tier}");
    }
    let folder = signed(&stack, dir.path(), "agent");
    let release = folder.to_str().unwrap();
    stack.ctl(&["run", release]).success();
    assert!(workers(executor).is_empty(), "a trusted signer's modules share the executor's process");

    // What was loaded as trusted does not go on in that process when its signer is trusted no more.
    trust_nobody(&stack);
    let deadline = Deadline::after(Duration::from_secs(120));
    while stack.ctl(&["run", "mentatlab.sentiment"]).code == 0 {
        assert!(!deadline.passed(), "the changed policy is not in force");
    }
    stack.ctl(&["run", "mentatlab.sentiment"]).refused(3, "trust_level");
    let input = dir.path().join("text");
    fs::write(&input, "I love it").unwrap();
    let ran = stack.ctl(&["--json", "run", release, "--input", input.to_str().unwrap()]).success().json();
    let answer: Value = serde_json::from_str(ran["text"].as_str().unwrap()).unwrap();
    assert_eq!(answer["positive"], 1);
    let loaded = stack.executor("/api/v1/agents");
    assert_eq!(loaded[0]["trust_level"], "signed", "{loaded}");
    assert_eq!(workers(executor).len(), 1);

    // Another signer, another process.
    let (cert, key) = enrol(&stack, "gone@example.com", "gone");
    let spin = from_text(dir.path(), "test.spin", SPIN);
    stack.ctl(&["sign", "--cert", &cert, "--key", &key, spin.to_str().unwrap()]).success();
    let (home, stack_dir) = (stack.home().to_owned(), stack.dir().display().to_string());
    let spin = spin.display().to_string();
    std::thread::scope(|scope| {
        let run = scope.spawn(move || mentatctl(&home, ["--json", "--stack", &stack_dir, "run", &spin]));
        let deadline = Deadline::after(Duration::from_secs(60));
        while workers(executor).len() < 2 {
            assert!(!deadline.passed() && !run.is_finished(), "no second worker");
            std::thread::sleep(Duration::from_millis(20));
        }
        // It ends by its limits: of processor time, or on a machine that gives it none, of wall time.
        let ended = run.join().unwrap();
        let said = format!("{}{}", ended.stdout, ended.stderr);
        let limit = said.contains("cpu_budget") || said.contains("deadline_exceeded");
        assert!(ended.code != 0 && limit, "{ended:?}");
    });
    stack.ctl_with_input(&["run", "mentatlab.sentiment", "--input", "-"], b"good").success();
    // The end of the executor is the end of all of them.
    let processes = workers(executor);
    assert_eq!(processes.len(), 2);
    let mut stack = stack;
    assert_eq!(stack.down(), 0);
    let deadline = Deadline::after(Duration::from_secs(60));
    while processes
        .iter()
        .any(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()))
    {
        assert!(!deadline.passed(), "workers outlive the executor");
        std::thread::sleep(Duration::from_millis(20));
    }

    // An operator who wants no workers: nothing of that signer runs anywhere else instead.
    let config = stack.dir().join("config/executor.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[workers]\nprocesses = 0\n")).unwrap();
    stack.restart();
    let refused = stack.ctl(&["run", release]);
    assert!(refused.code != 0 && format!("{refused:?}").contains("tier_unavailable"), "{refused:?}");
    let tiers = stack.executor("/api/v1/status")["tiers"].clone();
    let missing = |level: usize| tiers[level].get("missing").and_then(Value::as_str).unwrap_or_default();
    assert!(missing(0).contains("workers.processes"), "{tiers}");
    assert_eq!((tiers[2]["level"].as_str(), missing(2)), (Some("verified"), ""));
}
