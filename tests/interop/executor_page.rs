//! The executor's page in a real browser: what may run, what does not and why, and the evidence behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mentat_tests::agent::{from_text, signed};
use mentat_tests::command::mentatctl;
use mentat_tests::stack::Stack;
use serde_json::Value;

use crate::browser::{Browser, Scripts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sees_what_may_run_and_why_something_may_not() {
    let Some(browser) = Browser::start(Scripts::Run).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let folder = signed(&stack, dir.path(), "agent");
    stack.ctl(&["run", folder.to_str().unwrap()]).success();

    // Whoever is not known is asked for a token, and sees nothing before.
    browser.open(&stack.text("/executor/url")).await;
    browser.until("return !document.querySelector('#sign-in').hidden").await;
    assert!(!browser.text("main").await.contains("Agents"));
    browser.type_into("#token", "somebody-0123456789abcdef0123456").await;
    browser.click("#sign-in button").await;
    browser.until("return document.querySelector('#state').textContent.includes('does not know')").await;
    let token = std::fs::read_to_string(stack.dir().join("secrets/admin.token")).unwrap();
    browser.type_into("#token", token.trim()).await;
    browser.click("#sign-in button").await;
    browser.until("return document.querySelector('#agent-list [data-verdict=good]') !== null").await;
    assert_eq!(browser.script("return document.querySelector('#token').value").await, "");
    let agents = browser.text("#agent-list").await;
    for part in ["mentatlab.sentiment", "may run", "dev@example.com", "verified"] {
        assert!(agents.contains(part), "{part} is not in {agents}");
    }
    assert!(browser.text("#instance-list").await.contains("Nothing runs"));
    browser.until("return document.querySelector('#evidence-list [data-verdict=good]') !== null").await;
    assert!(browser.text("#receipt-log").await.contains("receipts."), "the log's origin");
    assert!(browser.text("#about").await.contains("seccomp"));

    // A policy that admits the agent no longer: the page says so by itself.
    let in_force = stack.dir().join("trust/policy.yaml");
    let mut policy: Value = serde_json::from_slice(&std::fs::read(&in_force).unwrap()).unwrap();
    policy["agents"]["deny"] = serde_json::json!(["mentatlab.sentiment"]);
    std::fs::write(&in_force, policy.to_string()).unwrap();
    stack.signal("executor", "HUP");
    browser.until("return document.querySelector('#agent-list [data-verdict=bad]') !== null").await;
    let agents = browser.text("#agent-list").await;
    assert!(agents.contains("policy_denied"), "{agents}");
    assert!(browser.text("#state").await.contains("1 refused"));
}

const SPIN: &str = r#"(module (memory (export "memory") 1)
  (func (export "process") (result i32) (loop $l (br $l)) (i32.const 0)))"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sees_what_runs_and_that_each_call_has_a_receipt() {
    let Some(browser) = Browser::start(Scripts::Run).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    signed(&stack, dir.path(), "agent");
    let spin = from_text(dir.path(), "page.spin", SPIN).to_str().unwrap().to_owned();
    stack.ctl(&["sign", &spin]).success();
    browser.open(&stack.text("/executor/url")).await;
    browser.until("return !document.querySelector('#sign-in').hidden").await;
    let token = std::fs::read_to_string(stack.dir().join("secrets/admin.token")).unwrap();
    browser.type_into("#token", token.trim()).await;
    browser.click("#sign-in button").await;
    browser.until("return document.querySelector('#receipt-log dd') !== null").await;
    let receipts = "Number(document.querySelector('#receipt-log dd').textContent)";
    let before = browser.script(&format!("return {receipts}")).await.as_u64().unwrap();

    // It takes all of its processor time, again and again until somebody has seen it.
    let seen = Arc::new(AtomicBool::new(false));
    let running = tokio::task::spawn_blocking({
        let (home, folder) = (stack.home().to_owned(), stack.dir().display().to_string());
        let seen = Arc::clone(&seen);
        move || {
            let mut runs = 0;
            while !seen.load(Ordering::Relaxed) {
                let ended = mentatctl(&home, ["--stack", &folder, "run", &spin]).refused(1, "the guest");
                // Of its processor time or, on a busy machine, of the call's.
                assert!(
                    ["[cpu_budget]", "[deadline_exceeded]"].iter().any(|code| ended.stderr.contains(code)),
                    "{ended:?}"
                );
                runs += 1;
            }
            runs
        }
    });
    browser.until("return document.querySelector('#instance-list article') !== null").await;
    let running_now = browser.script("return document.querySelector('#instance-list').innerText").await;
    seen.store(true, Ordering::Relaxed);
    let shown = running_now.as_str().unwrap();
    for part in ["page.spin", "running", "dev@example.com"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let runs: u64 = running.await.unwrap();
    browser.until(&format!("return {receipts} >= {}", before + runs)).await;
    browser.until("return document.querySelector('#instance-list .empty') !== null").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_scripts_the_page_says_where_the_state_is() {
    let Some(browser) = Browser::start(Scripts::Blocked).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    browser.open(&stack.text("/executor/url")).await;
    assert!(browser.text("main").await.contains("switched off"));
}
