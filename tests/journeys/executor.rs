//! An executor's operator: what is admitted runs, what is not is explained.

use std::path::Path;
use std::time::Duration;

use mentat_tests::agent::{enrol, from_text, sentiment, signed};
use mentat_tests::clock::Deadline;
use mentat_tests::command::mentatctl;
use mentat_tests::stack::{Stack, configure};
use serde_json::Value;

#[test]
fn an_admitted_module_runs_and_everything_else_is_denied_with_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let folder = signed(&stack, dir.path(), "agent");
    let agent = folder.to_str().unwrap();

    stack.ctl(&["explain", agent]).success();
    let input = dir.path().join("text");
    std::fs::write(&input, "Not good. I love it! never bad").unwrap();
    let ran = stack.ctl(&["--json", "run", agent, "--input", input.to_str().unwrap()]).success().json();
    let answer: Value = serde_json::from_str(ran["text"].as_str().unwrap()).unwrap();
    assert_eq!(answer["words"], 7);
    assert_eq!((answer["positive"].as_u64(), answer["negative"].as_u64()), (Some(2), Some(1)));
    assert_eq!(ran["exit_code"], 0);
    // A loaded agent is called by its id; the same input gives the same answer.
    let again = stack
        .ctl_with_input(&["run", "mentatlab.sentiment", "--input", "-"], b"Not good. I love it! never bad");
    assert_eq!(again.success().stdout.trim_end(), ran["text"].as_str().unwrap());
    // Out of service and back: nothing is forgotten.
    let drained = stack.ctl(&["--json", "executor", "drain", "--wait", "60"]).success().json();
    assert_eq!(drained["live_instances"], 0);
    stack.ctl(&["run", "mentatlab.sentiment"]).refused(69, "draining");
    stack.ctl(&["executor", "undrain"]).success();
    stack.ctl(&["run", "mentatlab.sentiment"]).success();
    // Nothing without attestation ever runs.
    let unsigned = sentiment(dir.path(), "unsigned", |manifest| manifest);
    stack.ctl(&["audit-capabilities", unsigned.to_str().unwrap()]).success();
    let refused = stack.ctl(&["--json", "run", unsigned.to_str().unwrap()]);
    assert_ne!(refused.code, 0, "{}", refused.stdout);
    stack.ctl(&["run", "mentatlab.unknown"]).refused(1, "mentatlab.unknown");
}

#[test]
fn other_bytes_than_the_attested_ones_are_denied_and_what_ran_before_runs_on() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let folder = signed(&stack, dir.path(), "agent");
    let release = folder.to_str().unwrap();
    let run = |what: &str| stack.ctl_with_input(&["--json", "run", what, "--input", "-"], b"good");
    let before = run(release).success().json();

    // A custom section at the end: it validates, and does the same.
    let module = folder.join("sentiment.wasm");
    let mut altered = std::fs::read(&module).unwrap();
    altered.extend_from_slice(b"\0\x02\x01a");
    std::fs::write(&module, altered).unwrap();
    run(release).refused(3, "digest_mismatch");
    let counted = stack.executor_text("/metrics");
    assert!(counted.contains("mentatlab_admissions_total{reason=\"digest_mismatch\"} 1\n"), "{counted}");
    let after = run("mentatlab.sentiment").success().json();
    assert_eq!((&after["digest"], &after["text"]), (&before["digest"], &before["text"]));
    let listed = stack.executor("/api/v1/agents");
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
}

const SPIN: &str = r#"(module (memory (export "memory") 1)
  (func (export "process") (result i32) (loop $l (br $l)) (i32.const 0)))"#;

/// A stack whose guests may run for minutes, and whose authority publishes changed lists once an hour: what arrives earlier
/// was announced in the event log.
fn announced(dir: &Path) -> Stack {
    let mut stack = Stack::up(&dir.join("stack"));
    assert_eq!(stack.down(), 0);
    configure(stack.dir(), "ca-service", &[("publish_interval_seconds", "3600")]);
    let path = stack.dir().join("config/executor.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{config}\n[limits]\ncpu_ms = 600000\nwall_ms = 600000\n")).unwrap();
    stack.restart();
    stack
}

fn revoke(stack: &Stack, identity: &str) {
    let listed = stack.ctl(&["--json", "pki", "list", "--identity", identity]).success().stdout;
    let record: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    let serial = record["serial"].as_str().unwrap();
    stack.ctl(&["pki", "revoke", "--serial", serial, "--reason", "key-compromise"]).success();
}

#[test]
fn loaded_agents_are_there_after_a_restart_and_judged_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = announced(dir.path());
    let folder = signed(&stack, dir.path(), "agent");
    stack.ctl(&["run", folder.to_str().unwrap()]).success();
    assert_eq!(stack.down(), 0);
    stack.restart();
    stack.ctl_with_input(&["run", "mentatlab.sentiment", "--input", "-"], b"good").success();

    // Its signer is revoked while the executor is not there to see it.
    let deadline = Deadline::after(Duration::from_secs(120));
    revoke(&stack, "dev@example.com");
    while stack.ctl(&["run", "mentatlab.sentiment"]).code == 0 {
        assert!(!deadline.passed(), "the revocation was not published");
    }
    assert_eq!(stack.down(), 0);
    stack.restart();
    let refused = stack.ctl(&["--json", "run", "mentatlab.sentiment"]);
    assert_ne!(refused.code, 0);
    assert!(format!("{}{}", refused.stdout, refused.stderr).contains("revoked"), "{refused:?}");
}

#[test]
fn a_guest_that_runs_is_stopped_when_its_signer_is_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let stack = announced(dir.path());
    let (cert, key) = enrol(&stack, "gone@example.com", "gone");
    let spin = from_text(dir.path(), "test.spin", SPIN);
    stack.ctl(&["sign", "--cert", &cert, "--key", &key, spin.to_str().unwrap()]).success();
    let others = signed(&stack, dir.path(), "agent");
    stack.ctl(&["run", others.to_str().unwrap()]).success();

    let (home, folder) = (stack.home().to_owned(), stack.dir().display().to_string());
    let release = spin.display().to_string();
    std::thread::scope(|scope| {
        let run = scope.spawn(move || mentatctl(&home, ["--json", "--stack", &folder, "run", &release]));
        let deadline = Deadline::after(Duration::from_secs(60));
        while live_instances(&stack) == 0 {
            assert!(!deadline.passed(), "the guest did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(machine_code(&stack), 2);
        revoke(&stack, "gone@example.com");
        // It may run for ten minutes; only the revocation ends it earlier.
        let deadline = Deadline::after(Duration::from_secs(120));
        while !run.is_finished() {
            assert!(!deadline.passed(), "the guest of a revoked signer runs on");
            std::thread::sleep(Duration::from_millis(50));
        }
        let ended = run.join().unwrap();
        assert_ne!(ended.code, 0);
        assert!(format!("{}{}", ended.stdout, ended.stderr).contains("revoked"), "{ended:?}");
    });
    stack.ctl(&["run", "test.spin"]).refused(3, "revoked");
    stack.ctl_with_input(&["run", "mentatlab.sentiment", "--input", "-"], b"good").success();
    assert_eq!(machine_code(&stack), 1, "of what was revoked none is kept, of what was not it is");
}

/// How many modules the executor keeps machine code of.
fn machine_code(stack: &Stack) -> usize {
    std::fs::read_dir(stack.dir().join("executor/artifacts")).unwrap().count()
}

fn live_instances(stack: &Stack) -> u64 {
    stack.executor("/api/v1/status")["live_instances"].as_u64().unwrap()
}

#[test]
fn the_wat_module_meets_its_description_on_odd_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let folder = signed(&stack, dir.path(), "agent");
    stack.ctl(&["run", folder.to_str().unwrap()]).success();
    let run = |input: &[u8]| {
        let done = stack.ctl_with_input(&["run", "mentatlab.sentiment", "--input", "-"], input).success();
        serde_json::from_str::<Value>(done.stdout.trim_end()).unwrap()
    };
    let empty = run(b"\n");
    assert_eq!((empty["words"].as_u64(), empty["label"].as_str()), (Some(0), Some("neutral")));
    let binary = run(&(0..=255_u8).cycle().take(4096).collect::<Vec<_>>());
    assert_eq!(binary["words"], 32, "two runs of letters in each of sixteen rounds");
    let long = run("word ".repeat(10_000).as_bytes());
    assert_eq!(long["top"][0]["count"], 10_000);
    let many: String = (0..20_000_u32).map(|n| format!("{} ", letters(n))).collect();
    assert_eq!(run(many.as_bytes())["distinct"], 12_288, "the table holds so many and no more");
    let too_large = vec![b'a'; (1 << 20) + 1];
    stack
        .ctl_with_input(&["run", "mentatlab.sentiment", "--input", "-"], &too_large)
        .refused(1, "ended with code 1");
}

/// A word for a number.
fn letters(mut number: u32) -> String {
    let mut word = String::from("w");
    for _ in 0..4 {
        word.push(char::from(b'a' + u8::try_from(number % 26).unwrap()));
        number /= 26;
    }
    word
}

#[test]
fn a_changed_policy_is_reported_first_and_in_force_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let folder = signed(&stack, dir.path(), "agent");
    let release = folder.to_str().unwrap();
    stack.ctl(&["run", release]).success();

    let in_force = stack.dir().join("trust/policy.yaml");
    let genuine = std::fs::read(&in_force).unwrap();
    let mut changed: Value = serde_json::from_slice(&genuine).unwrap();
    changed["agents"]["deny"] = serde_json::json!(["mentatlab.sentiment"]);
    let new = dir.path().join("new.yaml");
    std::fs::write(&new, changed.to_string()).unwrap();
    let new = new.to_str().unwrap();
    // What the executor has loaded, and the folder by itself.
    for releases in [&[][..], &["--refresh", release][..]] {
        let command = [&["--json", "admission", "report", "--new-policy", new], releases].concat();
        let reported = stack.ctl(&command);
        assert_eq!(reported.code, 1, "{reported:?}");
        let report = reported.json();
        assert_eq!((report["judged"].as_u64(), report["refused"].as_u64()), (Some(1), Some(1)), "{report}");
        assert_eq!(report["agents"][0]["then"]["reason"], "policy_denied", "{report}");
        assert_eq!(report["agents"][0]["agent_id"], "mentatlab.sentiment");
    }
    stack.ctl(&["admission", "report", "--new-policy", in_force.to_str().unwrap()]).success();
    stack.ctl(&["admission", "report", "--new-policy", release]).refused(2, "not a folder");
    stack.ctl(&["run", release]).success();

    let replace = |bytes: &[u8]| {
        let beside = in_force.with_extension("new");
        std::fs::write(&beside, bytes).unwrap();
        std::fs::rename(beside, &in_force).unwrap();
        stack.signal("executor", "HUP");
    };
    let deadline = Deadline::after(Duration::from_secs(120));
    replace(changed.to_string().as_bytes());
    while stack.ctl(&["run", "mentatlab.sentiment"]).code == 0 {
        assert!(!deadline.passed(), "the changed policy is not in force");
    }
    stack.ctl(&["run", "mentatlab.sentiment"]).refused(3, "policy_denied");
    replace(&genuine);
    while stack.ctl(&["run", "mentatlab.sentiment"]).code != 0 {
        assert!(!deadline.passed(), "the policy of before is not in force again");
    }
}

#[test]
fn a_call_that_is_repeated_by_its_key_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let folder = signed(&stack, dir.path(), "agent");
    stack.ctl(&["run", folder.to_str().unwrap()]).success();
    let call = |key: &str| {
        let asked = ["--json", "run", "mentatlab.sentiment", "--input", "-", "--idempotency-key", key];
        stack.ctl_with_input(&asked, b"good").success().json()
    };
    let (first, again, other) = (call("order-1"), call("order-1"), call("order-2"));
    assert_eq!((&first["instance_id"], &first["output"]), (&again["instance_id"], &again["output"]));
    assert_eq!((first.get("repeated"), again["repeated"].as_bool()), (None, Some(true)));
    assert_ne!(first["instance_id"], other["instance_id"]);
    let asked = ["run", "mentatlab.sentiment", "--input", "-", "--idempotency-key", "order-1"];
    stack.ctl_with_input(&asked, b"bad").refused(1, "idempotency_key_reused");
}
