//! What an executor is told after a module was admitted, and what it says itself: answers of OCSP responders, anchors of receipts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use executor_api::audit::{AuditEvent, AuditHead};
use mentat_tests::agent::{enrol, from_text, signed};
use mentat_tests::clock::Deadline;
use mentat_tests::command::{Finished, mentatctl};
use mentat_tests::lying_proxy;
use mentat_tests::stack::{Stack, configure};
use serde_json::Value;
use trust_store::attestation::{AttestationBlock, Derived, Staples};
use trust_store_files::ManifestFile;
use trust_store_files::manifest_file::NewBundle;

const SPIN: &str = r#"(module (memory (export "memory") 1)
  (func (export "process") (result i32) (loop $l (br $l)) (i32.const 0)))"#;

fn edit(stack: &Stack, change: impl FnOnce(String) -> String) {
    let path = stack.dir().join("config/executor.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, change(text)).unwrap();
}

fn status(stack: &Stack) -> Value {
    stack.executor("/api/v1/status")
}

/// Whether each responder answered.
fn ocsp_sources(stack: &Stack) -> Vec<bool> {
    let status = status(stack);
    let sources = status["sources"].as_array().unwrap().iter().filter(|source| source["name"] == "ocsp");
    sources.map(|source| source["ok"] == true).collect()
}

/// Takes the lists out of a release: it proves nothing about revocation by itself.
fn without_staples(release: &Path) {
    let mut file = ManifestFile::load(release).unwrap();
    let attestation = file.read_attestation().unwrap().unwrap();
    assert_ne!(attestation.staples(), &Staples::default(), "there was something to take out");
    let chain: Vec<_> = attestation.certificate().into_iter().chain(attestation.issuers()).cloned().collect();
    let mut block = AttestationBlock::new(attestation.bundle(), None, &chain, Staples::default()).unwrap();
    block.derived = Derived::default();
    file.store_attestation(&block, NewBundle::Inline).unwrap();
}

#[test]
fn where_no_list_is_read_an_ocsp_answer_admits_and_another_one_stops() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    assert_eq!(stack.down(), 0);
    configure(stack.dir(), "ca-service", &[("publish_interval_seconds", "3600")]);
    // Lists and the event log are out of reach; only the responder is below what may be asked.
    edit(&stack, |text| {
        let kept = text.lines().filter(|line| {
            let line = line.trim_start();
            !["events", "event_keys", "anchor_key_file"]
                .iter()
                .any(|key| line.starts_with(&format!("{key} = ")))
        });
        let text: String = kept.map(|line| format!("{line}\n")).collect();
        let bases = text.lines().find(|line| line.starts_with("status_bases = ")).unwrap().to_owned();
        let base = bases.split('"').nth(1).unwrap();
        text.replace(&bases, &format!("status_bases = [\"{base}/ocsp\"]\nocsp = \"never\""))
            + "\n[limits]\ncpu_ms = 600000\nwall_ms = 600000\n"
    });
    configure(stack.dir(), "executor", &[("refresh_seconds", "1")]);
    stack.restart();
    let (cert, key) = enrol(&stack, "gone@example.com", "gone");
    let spin = from_text(dir.path(), "test.spin", SPIN);
    stack.ctl(&["sign", "--cert", &cert, "--key", &key, spin.to_str().unwrap()]).success();
    without_staples(&spin);
    let release = spin.display().to_string();
    // Nobody is asked: nothing shows that the signer is not revoked.
    stack.ctl(&["run", &release]).refused(3, "revocation_unknown");

    assert_eq!(stack.down(), 0);
    configure(stack.dir(), "executor", &[("ocsp", "\"ask\"")]);
    stack.restart();
    let (home, folder) = (stack.home().to_owned(), stack.dir().display().to_string());
    std::thread::scope(|scope| {
        let run = {
            let release = release.clone();
            scope.spawn(move || mentatctl(&home, ["--json", "--stack", &folder, "run", &release]))
        };
        let deadline = Deadline::after(Duration::from_secs(60));
        while status(&stack)["live_instances"] != 1 {
            assert!(!run.is_finished() && !deadline.passed(), "the guest did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        // The responder is a source from the next round on.
        while ocsp_sources(&stack) != [true] {
            assert!(!deadline.passed(), "{}", status(&stack));
            std::thread::sleep(Duration::from_millis(50));
        }
        revoke(&stack, "gone@example.com");
        let deadline = Deadline::after(Duration::from_secs(60));
        while !run.is_finished() {
            assert!(!deadline.passed(), "the guest of a revoked signer runs on");
            std::thread::sleep(Duration::from_millis(50));
        }
        let ended: Finished = run.join().unwrap();
        ended.refused(3, "revoked");
    });
    stack.ctl(&["run", "test.spin"]).refused(3, "revoked");
}

fn revoke(stack: &Stack, identity: &str) {
    let listed = stack.ctl(&["--json", "pki", "list", "--identity", identity]).success().stdout;
    let record: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    let serial = record["serial"].as_str().unwrap();
    stack.ctl(&["pki", "revoke", "--serial", serial, "--reason", "key-compromise"]).success();
}

fn call(stack: &Stack) {
    stack.ctl_with_input(&["run", "mentatlab.sentiment", "--input", "-"], b"good").success();
}

/// Until as many receipts are anchored; what the command said then.
fn anchored(stack: &Stack, least: u64) -> Value {
    let deadline = Deadline::after(Duration::from_secs(60));
    loop {
        let said = stack.ctl(&["--json", "executor", "verify-anchors"]);
        if said.code == 0 {
            let said = said.json();
            if said["anchored"].as_u64().unwrap() >= least {
                return said;
            }
        } else {
            // Before the first anchor there is nothing to compare.
            said.refused(1, "receipts_unanchored");
        }
        assert!(!deadline.passed(), "nothing is anchored");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn receipts_that_were_replaced_after_their_anchor_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    assert_eq!(stack.down(), 0);
    edit(&stack, |text| text.replace("[receipts]\n", "[receipts]\nanchor_seconds = 1\n"));
    stack.restart();
    let folder = signed(&stack, dir.path(), "agent");
    stack.ctl(&["run", folder.to_str().unwrap()]).success();
    for _ in 0..4 {
        call(&stack);
    }
    // Five calls, and the head of the audit log: at the first end, and again where this takes longer than a minute.
    let said = anchored(&stack, 6);
    assert_eq!(said["ok"].as_bool(), Some(true), "{said}");
    assert!(said["size"].as_u64().unwrap() >= 6, "{said}");
    assert_eq!(said["other_origins"], serde_json::json!([]));
    // By the published key, and by the anchors' key alone: the same.
    let executor = stack.text("/executor/url");
    let log = stack.executor("/api/v1/receipts");
    let vkey = log["vkeys"][0].as_str().unwrap().to_owned();
    let anchor_key = stack.dir().join("trust/executor-anchor.pub.pem").display().to_string();
    let strict = ["--json", "executor", "verify-anchors", "--vkey", &vkey, "--anchor-key", &anchor_key];
    assert_eq!(stack.ctl(&strict).success().json()["anchored_root"], said["anchored_root"]);
    // A key that signed none finds none.
    let statement = stack.dir().join("ca-service/chains/statement.pub.pem").display().to_string();
    stack.ctl(&["executor", "verify-anchors", "--anchor-key", &statement]).refused(1, "receipts_unanchored");

    // Somebody on the way changes one receipt: its tree is as it was anchored, the receipt is not in it.
    let lie: Arc<lying_proxy::Lie> = Arc::new(|path, mut body| {
        if path.contains("/tile/entries/")
            && let Some(at) = body.windows(9).position(|nine| nine == b"sentiment")
        {
            body[at] = b'S';
        }
        body
    });
    let proxy = lying_proxy::start(&executor, lie);
    // A token goes to the stack's own address by itself, and to another one when it is told to.
    let token = stack.dir().join("secrets/admin.token").display().to_string();
    stack.ctl(&["executor", "verify-anchors", "--executor-url", &proxy]).refused(1, "unauthorized");
    let asked = ["executor", "verify-anchors", "--executor-url", &proxy, "--token-file", &token];
    stack.ctl(&asked).refused(3, "receipts_altered");
    stack.ctl(&[&asked[..], &["--heads-only"]].concat()).success();

    // Whoever has the executor's own key signs another history: shorter first, then as long.
    assert_eq!(stack.down(), 0);
    let state = stack.dir().join("executor");
    for old in ["receipts", "receipts.head"] {
        std::fs::rename(state.join(old), dir.path().join(old)).unwrap();
    }
    stack.restart();
    call(&stack);
    let deadline = Deadline::after(Duration::from_secs(60));
    let shorter = loop {
        let said = stack.ctl(&["--json", "executor", "verify-anchors"]);
        if said.code == 3 {
            break said;
        }
        // Not even the new history has a head yet.
        assert!(!deadline.passed(), "{said:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let found = shorter.json()["code"].as_str().unwrap().to_owned();
    assert!(["receipts_removed", "receipts_forked"].contains(&found.as_str()), "{found}");
    for _ in 0..5 {
        call(&stack);
    }
    // Once its head is as long, it is another history and no shorter one.
    loop {
        let said = stack.ctl(&strict);
        if said.stdout.contains("receipts_forked") {
            said.refused(3, "receipts_forked");
            break;
        }
        said.refused(3, "receipts_removed");
        assert!(!deadline.passed(), "the new history never got as long");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whoever takes the key away as well gets a log that begins with nothing and has a name of its own.
#[test]
fn a_receipt_log_that_was_moved_away_with_its_key_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    assert_eq!(stack.down(), 0);
    edit(&stack, |text| text.replace("[receipts]\n", "[receipts]\nanchor_seconds = 1\n"));
    stack.restart();
    let folder = signed(&stack, dir.path(), "agent");
    stack.ctl(&["run", folder.to_str().unwrap()]).success();
    let before = anchored(&stack, 1)["origin"].as_str().unwrap().to_owned();

    assert_eq!(stack.down(), 0);
    let state = stack.dir().join("executor");
    for old in ["receipts", "receipts.head", "receipt-key", "receipt-key.passphrase"] {
        std::fs::rename(state.join(old), dir.path().join(old)).unwrap();
    }
    stack.restart();
    call(&stack);
    let asked = ["--json", "executor", "verify-anchors"];
    stack.ctl(&asked).refused(3, "receipts_replaced");
    // An auditor who never looked before is told by the anchors, which the same key signs.
    let home = dir.path().join("another");
    let stack_dir = stack.dir().display().to_string();
    let elsewhere = |more: &[&str]| {
        let args = [&["--stack", &stack_dir][..], &asked[..], more].concat();
        mentatctl(&home, args)
    };
    let deadline = Deadline::after(Duration::from_secs(60));
    let said = loop {
        let said = elsewhere(&[]);
        if said.code == 3 {
            break said;
        }
        // Nothing shows whose the old anchors are before there is one of the new log.
        said.refused(1, "receipts_unanchored");
        assert!(!deadline.passed(), "the new log is not anchored");
        std::thread::sleep(Duration::from_millis(100));
    };
    said.refused(3, "receipts_replaced");
    let anchor_key = stack.dir().join("trust/executor-anchor.pub.pem").display().to_string();
    elsewhere(&["--anchor-key", &anchor_key]).refused(3, "receipts_replaced");
    // Whoever knows that it was ended on purpose says so.
    let said = elsewhere(&["--retired", &before]).success().json();
    assert_eq!((said["ok"].as_bool(), &said["other_origins"]), (Some(true), &serde_json::json!([before])));
    stack.ctl(&[&asked[..], &["--retired", &before]].concat()).success();
}

#[test]
fn an_audit_log_whose_end_was_cut_off_is_found_by_the_receipts() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    let folder = signed(&stack, dir.path(), "agent");
    stack.ctl(&["run", folder.to_str().unwrap()]).success();
    call(&stack);
    call(&stack);
    let log = stack.dir().join("executor/audit.jsonl");
    let (copy, url) = (dir.path().join("copy.jsonl"), stack.text("/executor/url"));
    let verify = |stack: &Stack| {
        let path = copy.display().to_string();
        let asked = ["--json", "executor", "verify-audit", "--executor-url", &url, "--audit-log", &path];
        stack.ctl(&asked)
    };
    // The receipt of a call is there a moment after its answer.
    let deadline = Deadline::after(Duration::from_secs(60));
    let said = loop {
        std::fs::copy(&log, &copy).unwrap();
        let said = verify(&stack);
        if said.code == 0 {
            break said.json();
        }
        said.refused(1, "audit_unattested");
        assert!(!deadline.passed(), "no receipt names a record");
        std::thread::sleep(Duration::from_millis(50));
    };
    let attested = said["attested"].as_u64().unwrap();
    assert!(attested >= 2 && said["records"].as_u64().unwrap() >= attested, "{said}");
    let whole = std::fs::read_to_string(&copy).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    std::fs::write(&copy, lines[..attested as usize - 1].concat()).unwrap();
    verify(&stack).refused(3, "audit_truncated");
    std::fs::write(&copy, whole.replacen("\"result\":\"success\"", "\"result\":\"failure\"", 1)).unwrap();
    verify(&stack).refused(3, "audit_altered");
    // At least as many records, whatever receipts came meanwhile, by another executor: intact, and not this one's.
    let (mut head, mut others) = (AuditHead::EMPTY, String::new());
    for _ in 0..attested + 100 {
        let (line, next) = head.append("2030-01-01T00:00:00Z", &AuditEvent::default()).unwrap();
        others.extend([&line, "\n"]);
        head = next;
    }
    std::fs::write(&copy, others).unwrap();
    verify(&stack).refused(3, "audit_replaced");
    let path = copy.display().to_string();
    let asked = ["--json", "audit", "verify", "--executor-url", &url, "--audit-log", &path];
    stack.ctl(&asked).refused(3, "audit_replaced");
    // Cut together with its head, it is not continued.
    assert_eq!(stack.down(), 0);
    std::fs::write(&log, lines[0]).unwrap();
    let hash = AuditHead::EMPTY.check(lines[0].trim_end()).unwrap().hash;
    std::fs::write(log.with_file_name("audit.head"), [&1u64.to_le_bytes()[..], &hash].concat()).unwrap();
    let refused = stack.ctl(&["up", "--dir", &stack.dir().display().to_string()]);
    assert!(refused.code != 0 && refused.stderr.contains("records were removed or replaced"), "{refused:?}");
}
