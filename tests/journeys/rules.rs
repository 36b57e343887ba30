//! An operator's rules over capabilities: reported before they are in force, decided alike by executor and `mentatctl`.

use std::path::Path;
use std::time::Duration;

use mentat_tests::agent::{enrol, from_text};
use mentat_tests::clock::Deadline;
use mentat_tests::command::mentatctl;
use mentat_tests::stack::Stack;
use serde_json::Value;

const SPIN: &str = r#"(module (memory (export "memory") 1)
  (func (export "process") (result i32) (loop $l (br $l)) (i32.const 0)))"#;

const QUICK: &str =
    r#"(module (memory (export "memory") 1) (func (export "process") (result i32) (i32.const 0)))"#;

/// A stack whose guests may run for minutes when their manifest asks for that.
fn patient(dir: &Path) -> Stack {
    let mut stack = Stack::up(&dir.join("stack"));
    assert_eq!(stack.down(), 0);
    let path = stack.dir().join("config/executor.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{config}\n[limits]\ncpu_ms = 600000\nwall_ms = 600000\n")).unwrap();
    let path = stack.dir().join("trust/policy.yaml");
    let mut policy: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    policy["capabilities"]["within"] = serde_json::json!(["compute:cpu_ms=600000,wall_ms=600000"]);
    std::fs::write(&path, policy.to_string()).unwrap();
    stack.restart();
    stack
}

/// A signed release that asks for computing time.
fn release(stack: &Stack, dir: &Path, id: &str, module: &str) -> String {
    let folder = from_text(dir, id, module);
    let path = folder.join("manifest.yaml");
    let manifest = std::fs::read_to_string(&path).unwrap();
    let asks =
        "wasm:\n  memory:\n    maximum: 8\n  capabilities:\n    - compute:cpu_ms=600000,wall_ms=600000\n";
    std::fs::write(&path, manifest + asks).unwrap();
    stack.ctl(&["sign", folder.to_str().unwrap()]).success();
    folder.to_str().unwrap().to_owned()
}

/// Agent id and message of what a report says would be refused.
fn refused(report: &Value) -> Vec<(String, String)> {
    let agents = report["agents"].as_array().unwrap();
    let refused = agents.iter().filter(|agent| agent["then"].is_object()).map(|agent| {
        assert_eq!(agent["then"]["reason"], "capability_denied", "{agent}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&agent["agent_id"]), text(&agent["then"]["message"]))
    });
    refused.collect()
}

#[test]
fn rules_are_reported_first_then_stop_what_they_forbid_and_everybody_decides_alike() {
    let dir = tempfile::tempdir().unwrap();
    let stack = patient(dir.path());
    enrol(&stack, "dev@example.com", "signing");
    let quick = release(&stack, dir.path(), "rules.quick", QUICK);
    let spin = release(&stack, dir.path(), "rules.spin", SPIN);
    stack.ctl(&["run", &quick]).success();

    let in_force = stack.dir().join("trust/policy.yaml");
    let genuine: Value = serde_json::from_slice(&std::fs::read(&in_force).unwrap()).unwrap();
    let mut changed = genuine.clone();
    changed["capability_rules"] = r#"
        @id("ours") permit (principal, action == Mentat::Action::"compute", resource)
        when { principal.signer == "dev@example.com" && principal.level == "verified" };
        @id("nothing-that-spins") forbid (principal, action, resource) when { principal.id == "rules.spin" };
    "#
    .into();
    let new = dir.path().join("new.yaml");
    std::fs::write(&new, changed.to_string()).unwrap();
    let new = new.to_str().unwrap();

    // The folders by themselves. The one rule permits, the other forbids, and that wins.
    let offline = stack.ctl(&["--json", "admission", "report", "--new-policy", new, &quick, &spin]);
    assert_eq!(offline.code, 1, "{offline:?}");
    let [(agent, why)] = &refused(&offline.json())[..] else { panic!("{offline:?}") };
    assert_eq!(agent, "rules.spin");
    assert!(why.contains("`compute:") && why.ends_with("forbid it by `nothing-that-spins`"), "{why}");
    let audit = ["--json", "audit-capabilities", "--policy", new, "--signer"];
    let audited = stack.ctl(&[&audit[..], &["dev@example.com", &quick]].concat()).success().json();
    assert_eq!(audited["permitted"][0]["rules"], serde_json::json!(["ours"]), "{audited}");
    stack.ctl(&[&audit[..], &["other@example.com", &quick]].concat()).refused(1, "not_permitted");
    let levels: Vec<_> = audited["levels"].as_array().unwrap().iter().map(|one| &one["level"]).collect();
    assert_eq!(levels, ["verified"], "{audited}");

    // What it asks for beyond the release before, and nothing beyond itself.
    let earlier = from_text(&dir.path().join("earlier"), "rules.quick", QUICK).to_str().unwrap().to_owned();
    let since = |folder: &str| stack.ctl(&["--json", "audit-capabilities", "--previous", folder, &quick]);
    let more = since(&earlier).refused(1, "more_than_before").json();
    let asked = serde_json::json!(["compute:cpu_ms=600000,wall_ms=600000"]);
    assert_eq!((&more["previous"]["added"], &more["previous"]["removed"]), (&asked, &serde_json::json!([])));
    assert_eq!(since(&quick).success().json()["previous"]["added"], serde_json::json!([]));

    let (home, folder) = (stack.home().to_owned(), stack.dir().display().to_string());
    std::thread::scope(|scope| {
        let release = spin.clone();
        let run = scope.spawn(move || mentatctl(&home, ["--json", "--stack", &folder, "run", &release]));
        let deadline = Deadline::after(Duration::from_secs(60));
        while live_instances(&stack) == 0 {
            assert!(!deadline.passed() && !run.is_finished(), "the guest did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        // What the executor has loaded, by its own rules.
        let online = stack.ctl(&["--json", "admission", "report", "--new-policy", new]);
        assert_eq!(online.code, 1, "{online:?}");
        assert_eq!(refused(&online.json()), refused(&offline.json()), "both say the same");

        replace(&stack, &changed);
        let deadline = Deadline::after(Duration::from_secs(120));
        while !run.is_finished() {
            assert!(!deadline.passed(), "what a rule forbids runs on");
            std::thread::sleep(Duration::from_millis(50));
        }
        let ended = run.join().unwrap();
        assert_ne!(ended.code, 0, "{ended:?}");
        assert!(format!("{ended:?}").contains("capability_denied"), "{ended:?}");
        stack.ctl(&["run", "rules.spin"]).refused(3, "nothing-that-spins");
        stack.ctl(&["explain", &spin]).refused(3, why);
        let policy = in_force.to_str().unwrap();
        stack.ctl(&["verify", "--policy", policy, &spin]).refused(3, why);

        // And who permits what they let through.
        let explained = stack.ctl(&["--json", "explain", &quick]).success().json();
        let verified = stack.ctl(&["--json", "verify", "--policy", policy, &quick]).success().json();
        let permitted = &explained["verdict"]["agent"]["permitted"];
        assert_eq!(permitted[0]["rules"], serde_json::json!(["ours"]), "{explained}");
        assert_eq!(*permitted, verified["permitted"], "{verified}");
        stack.ctl(&["run", "rules.quick"]).success();

        // Rules that cannot be used change nothing.
        let mut broken = changed.clone();
        broken["capability_rules"] = "permit (principal, action, resource) when { principal.name };".into();
        replace(&stack, &broken);
        let deadline = Deadline::after(Duration::from_secs(60));
        while status(&stack)["policy_problem"].is_null() {
            assert!(!deadline.passed(), "the broken policy was not looked at");
            std::thread::sleep(Duration::from_millis(50));
        }
        stack.ctl(&["run", "rules.quick"]).success();
        stack.ctl(&["run", "rules.spin"]).refused(3, "nothing-that-spins");
    });
}

/// Puts a policy into the place of the one in force.
fn replace(stack: &Stack, policy: &Value) {
    let path = stack.dir().join("trust/policy.yaml");
    let beside = path.with_extension("new");
    std::fs::write(&beside, policy.to_string()).unwrap();
    std::fs::rename(beside, &path).unwrap();
    stack.signal("executor", "HUP");
}

fn live_instances(stack: &Stack) -> u64 {
    status(stack)["live_instances"].as_u64().unwrap()
}

fn status(stack: &Stack) -> Value {
    stack.executor("/api/v1/status")
}
