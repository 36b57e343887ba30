//! The authority's page in a real browser: who may read sees issuance, expiry and revocation; nobody else sees anything.

use std::time::Duration;

use mentat_tests::agent::{enrol, signed};
use mentat_tests::clock::Deadline;
use mentat_tests::stack::Stack;
use serde_json::Value;

use crate::browser::{Browser, Scripts};

const AUDITOR: &str = "auditor-0123456789abcdef01234567";
const SHOWN: &str = "return !document.querySelector('#overview').hidden";
const SIGN_IN: &str = "return !document.querySelector('#sign-in').hidden";

/// A stack whose authority has an auditor, with a revoked certificate and a good one. Returns the serial number of the first.
fn stack(dir: &std::path::Path) -> (Stack, String) {
    let mut stack = Stack::up(&dir.join("stack"));
    signed(&stack, dir, "first");
    let listed = stack.ctl(&["--json", "pki", "list", "--identity", "dev@example.com"]).success().json();
    let serial = listed["serial"].as_str().unwrap_or_else(|| panic!("no certificate: {listed}")).to_owned();
    stack.ctl(&["pki", "revoke", "--serial", &serial, "--reason", "key-compromise"]).success();
    enrol(&stack, "other@example.com", "other");
    assert_eq!(stack.down(), 0);
    let token = stack.dir().join("secrets/auditor.token");
    std::fs::copy(stack.dir().join("secrets/admin.token"), &token).unwrap();
    std::fs::write(&token, AUDITOR).unwrap();
    let path = stack.dir().join("config/ca-service.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}\n[roles.auditor]\ntoken_file = \"{}\"\n", token.display()))
        .unwrap();
    stack.restart();
    (stack, serial)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_sees_what_was_issued_what_ends_and_what_was_revoked() {
    let Some(browser) = Browser::start(Scripts::Run).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let (stack, serial) = stack(dir.path());
    let url = stack.text("/ca/url");
    // The statement of the revocation goes to the event log in the background.
    let deadline = Deadline::after(Duration::from_secs(60));
    let record = format!("{url}/api/v1/certificates/{serial}");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    loop {
        let answer = client.get(&record).bearer_auth(AUDITOR).send().await.unwrap();
        let record: Value = answer.json().await.unwrap();
        if record["revocation"]["event_log_index"].is_u64() {
            break;
        }
        assert!(!deadline.passed(), "the revocation never reached the event log");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // A stranger sees a form and no certificate.
    browser.open(&url).await;
    browser.until(SIGN_IN).await;
    assert!(!browser.text("main").await.contains("Standing"));
    browser.type_into("#token", "somebody-0123456789abcdef0123456").await;
    browser.click("#sign-in button").await;
    let said = browser.until("return document.querySelector('#status').textContent || null").await;
    assert!(said.as_str().unwrap().contains("(unauthorized)"), "{said}");
    assert_eq!(browser.script(SHOWN).await, Value::Bool(false));

    browser.type_into("#token", AUDITOR).await;
    browser.click("#sign-in button").await;
    browser.until(SHOWN).await;
    assert_eq!(browser.script("return document.querySelector('#token').value").await, "");
    let standing = browser.text("#standing").await;
    assert!(standing.contains("Certificates are issued by code-signing"), "{standing}");
    assert!(standing.contains("Nothing needs attention"), "{standing}");
    let row = "return [...document.querySelector('#days tbody tr').children].map(cell => cell.textContent)";
    let row = browser.script(row).await;
    let cells: Vec<&str> = row.as_array().unwrap().iter().map(|cell| cell.as_str().unwrap()).collect();
    assert_eq!(
        cells[1..],
        ["2", "2", "1", "0", "0", "0"],
        "issued, its bar, revoked since, and nothing left open"
    );
    let ending = browser.text("#ending").await;
    assert!(ending.contains("0 within 7 days, 0 within 30 days"), "{ending}");
    let revoked = browser.text("#revoked").await;
    for part in ["1 revocation within 30 days", "key-compromise", "dev@example.com", &serial] {
        assert!(revoked.contains(part), "{part} is missing:\n{revoked}");
    }
    assert!(!revoked.contains("not there"), "{revoked}");
    let own = browser.text("#authorities").await;
    for name in
        ["root", "code-signing", "time-stamping", "ocsp-responder", "timestamp-authority", "a bare key"]
    {
        assert!(own.contains(name), "{name} is missing:\n{own}");
    }

    browser.type_into("#identity", "other@example.com").await;
    browser.click("#search button").await;
    browser.until("return document.querySelector('#found table') !== null").await;
    let found = browser.text("#found").await;
    assert!(found.contains("delivered"), "{found}");
    assert!(browser.text("#search-status").await.starts_with("1 certificate of other@example.com"));
    browser.picture("authority").await;

    // What was refused above is all that the browser complained about: nothing was blocked, nothing failed.
    let complaints = browser.complaints().await;
    assert!(complaints.iter().all(|one| one.contains("401")), "{complaints:?}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_scripts_the_authority_s_page_says_what_to_do() {
    let Some(browser) = Browser::start(Scripts::Blocked).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    browser.open(&stack.text("/ca/url")).await;
    let text = browser.text("main").await;
    assert!(text.contains("mentatctl pki list") && !text.contains("Standing"), "{text}");
    browser.close().await;
}
