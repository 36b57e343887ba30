//! The log's page in a real browser: searches, decodes, verifies, and does not believe a server that lies.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mentat_tests::agent::{sentiment, signed};
use mentat_tests::clock::Deadline;
use mentat_tests::lying_proxy::{self, Lie};
use mentat_tests::stack::Stack;
use serde_json::{Value, json};

use crate::browser::{Browser, Scripts};

/// All articles are there and the page is done.
const DONE: &str =
    "const s = document.querySelector('#status').textContent; return s !== '' && s !== 'Searching …' && s";
const VERDICTS: &str = "return [...document.querySelectorAll('article')].map(a => a.dataset.verdict)";

struct Shown {
    stack: Stack,
    serial: String,
    _dir: tempfile::TempDir,
}

/// A stack with two signed releases and a revoked certificate.
async fn stack() -> Shown {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    signed(&stack, dir.path(), "first");
    signed(&stack, dir.path(), "second");
    let listed = stack.ctl(&["--json", "pki", "list", "--identity", "dev@example.com"]).success().json();
    let serial = listed["serial"].as_str().unwrap_or_else(|| panic!("no certificate: {listed}")).to_owned();
    stack.ctl(&["pki", "revoke", "--serial", &serial, "--reason", "key-compromise"]).success();
    // The authority tells the event log in the background, and the log's index follows.
    let lookup = format!("{}/event/api/v1/lookup?serial={serial}", stack.text("/log/url"));
    let deadline = Deadline::after(Duration::from_secs(60));
    while entry_of(&lookup).await["entries"] == json!([]) {
        assert!(!deadline.passed(), "the revocation never reached the event log");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Shown { stack, serial, _dir: dir }
}

fn all_good(verdicts: &Value) -> bool {
    verdicts.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(|one| one == "good"))
}

async fn entry_of(url: &str) -> Value {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(url).send().await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_searches_and_the_page_verifies() {
    let Some(browser) = Browser::start(Scripts::Run).await else { return };
    let Shown { stack, serial, .. } = &stack().await;
    let url = stack.text("/log/url");
    browser.open(&url).await;
    browser.until("return !document.querySelector('#search').hidden").await;
    browser.until("return document.querySelector('#state [data-verdict=good]') !== null").await;
    assert!(browser.text("#state").await.contains(&stack.text("/log/origin")));

    // By identity, as a person would: choose, type, click.
    browser.click("#by option[value=identity]").await;
    browser.type_into("#value", "dev@example.com").await;
    browser.click("#search button").await;
    let said = browser.until(DONE).await;
    assert!(said.as_str().unwrap().starts_with("2 entries, in the first "), "{said}");
    assert_eq!(browser.script(VERDICTS).await, json!(["good", "good"]));
    let article = browser.text("article").await;
    for part in [
        "Signed by dev@example.com",
        "Proof verified",
        "Valid to",
        "EC P-256",
        "code signing",
        serial,
        "Ed25519 signature of",
        ": verified",
        "ML-DSA-44",
    ] {
        assert!(article.contains(part), "{part} is missing:\n{article}");
    }
    browser.picture("identity").await;

    // By digest, through the address.
    let entry = entry_of(&format!("{url}/api/v1/entry?index=1")).await;
    let body = STANDARD.decode(entry["canonicalizedBody"].as_str().unwrap()).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let digest = body["spec"]["hashedRekordV002"]["data"]["digest"].as_str().unwrap();
    let digest: String = STANDARD.decode(digest).unwrap().iter().map(|b| format!("{b:02X}")).collect();
    browser.open(&format!("{url}/#signing/digest/sha256:{digest}")).await;
    browser.until(DONE).await;
    // Both releases are of one module and manifest: the same was signed twice.
    assert_eq!(browser.script(VERDICTS).await, json!(["good", "good"]));

    // By the files themselves: the bundle of a release, and a file that nobody signed.
    let sidecar = sentiment(stack.dir(), "sidecar", |manifest| manifest);
    stack.ctl(&["sign", "--sidecar", sidecar.to_str().unwrap()]).success();
    let bundle = sidecar.join("sentiment.wasm.sigstore.json");
    assert!(bundle.is_file(), "{:?}", std::fs::read_dir(&sidecar).unwrap().collect::<Vec<_>>());
    for (file, says) in [(bundle, "3 entries"), (sidecar.join("manifest.yaml"), "Nothing found")] {
        browser.open(&url).await;
        browser.until("return !document.querySelector('#search').hidden").await;
        browser.choose_file("#file", file.to_str().unwrap()).await;
        let said = browser.until(DONE).await;
        assert!(said.as_str().unwrap().starts_with(says), "{}: {said}", file.display());
    }

    // The issuance log: another leaf, another signature; the event log: a revocation by its serial.
    browser.open(&format!("{url}/#issuance/identity/dev%40example.com")).await;
    browser.until(DONE).await;
    let verdicts = browser.script(VERDICTS).await;
    assert!(all_good(&verdicts), "{verdicts}");
    let article = browser.text("article").await;
    assert!(
        article.contains("ecertificate for dev@example.com") && article.contains("ECDSA P-256 signature of"),
        "{article}"
    );
    browser.open(&format!("{url}/#event/serial/{serial}")).await;
    browser.until(DONE).await;
    assert_eq!(browser.script(VERDICTS).await, json!(["good"]));
    let article = browser.text("article").await;
    assert!(article.contains("revokedAt") && article.contains("that is believed for this type"), "{article}");

    // Nothing found is said, and wrong input too.
    for (what, says) in [
        ("signing/identity/nobody%40example.com", "Nothing found"),
        ("signing/index/999999", "Not found"),
        ("signing/digest/zz", "hexadecimal"),
    ] {
        browser.complaints().await;
        browser.open(&format!("{url}/#{what}")).await;
        let said = browser.until(DONE).await;
        assert!(said.as_str().unwrap().contains(says), "{what}: {said}");
    }
    // Answers of 4xx are the only thing that a browser may complain of.
    let complaints = browser.complaints().await;
    assert!(complaints.iter().all(|line| line.contains("status of 4")), "{complaints:?}");

    // Keys of one's own decide: those of another log, or with one letter changed, verify nothing.
    let keys = stack.text("/log/vkey");
    let other = keys.replace("signing.", "singing.");
    for (keys, verdict) in [(&keys, "good"), (&other, "bad")] {
        browser.open(&format!("{url}/#signing/index/0")).await;
        browser.until(DONE).await;
        browser.click("#search summary").await;
        browser.type_into("#keys", keys).await;
        browser
            .script(
                "document.querySelector('article').dataset.old = '1'; document.querySelector('#keys').blur()",
            )
            .await;
        browser.until("const a = document.querySelector('article'); return a && !a.dataset.old").await;
        browser.until(DONE).await;
        assert_eq!(browser.script(VERDICTS).await, json!([verdict]), "{keys}");
    }

    // Every field has a label, and the language and the live region are there.
    assert_eq!(
        browser.script("return [...document.querySelectorAll('input,select,textarea')].filter(f => f.labels.length === 0).length").await,
        0
    );
    assert_eq!(
        browser.script("return document.documentElement.lang + document.querySelector('#status').role").await,
        "enstatus"
    );
    browser.close().await;
}

/// Changes the one entry in an answer and its decoded body.
fn change_entry(path: &str, body: Vec<u8>, change: impl Fn(&mut Value)) -> Vec<u8> {
    if !path.contains("/api/v1/entry") {
        return body;
    }
    let mut entry: Value = serde_json::from_slice(&body).unwrap();
    change(&mut entry);
    entry.to_string().into_bytes()
}

/// Changes the checkpoint in an answer.
fn change_note(path: &str, body: Vec<u8>, change: impl Fn(&str) -> String) -> Vec<u8> {
    change_entry(path, body, |entry| {
        let envelope = &mut entry["inclusionProof"]["checkpoint"]["envelope"];
        *envelope = json!(change(envelope.as_str().unwrap()));
    })
}

/// A signature line with one bit changed; other lines as they are.
fn altered(line: &str) -> String {
    match line.rsplit_once(' ') {
        Some((name, text)) if line.starts_with('—') => {
            let mut bytes = STANDARD.decode(text).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            format!("{name} {}", STANDARD.encode(bytes))
        }
        _ => line.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_does_not_believe_a_server_that_lies() {
    let Some(browser) = Browser::start(Scripts::Run).await else { return };
    let Shown { stack, .. } = &stack().await;
    let url = stack.text("/log/url");
    let other = entry_of(&format!("{url}/api/v1/entry?index=1")).await;
    let markup = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";
    let hostile = json!({
        "payload": STANDARD.encode(json!({
            "_type": markup, "predicateType": markup, "subject": [{ "name": markup, "digest": { "sha256": markup } }],
            "predicate": { markup: markup },
        }).to_string()),
        "payloadType": markup, "signatures": [{ "sig": "", "keyid": markup }],
    });
    let lies: Vec<(&str, &str, Arc<Lie>)> = vec![
        ("another entry's body", "leads to another root", {
            let body = other["canonicalizedBody"].clone();
            Arc::new(move |path, bytes| {
                change_entry(path, bytes, |entry| entry["canonicalizedBody"] = body.clone())
            })
        }),
        (
            "a hash left out",
            "too short",
            Arc::new(|path, bytes| {
                change_entry(path, bytes, |entry| {
                    entry["inclusionProof"]["hashes"].as_array_mut().unwrap().pop();
                })
            }),
        ),
        (
            "a hash too many",
            "too long",
            Arc::new(|path, bytes| {
                change_entry(path, bytes, |entry| {
                    let hashes = entry["inclusionProof"]["hashes"].as_array_mut().unwrap();
                    hashes.push(json!(STANDARD.encode([7; 32])));
                })
            }),
        ),
        (
            "another root",
            "leads to another root",
            Arc::new(|path, bytes| {
                change_note(path, bytes, |note| {
                    note.replacen(note.lines().nth(2).unwrap(), &STANDARD.encode([9; 32]), 1)
                })
            }),
        ),
        (
            "an extension line that nobody signed",
            "does not verify",
            Arc::new(|path, bytes| change_note(path, bytes, |note| note.replacen("\n\n", "\nmore\n\n", 1))),
        ),
        (
            "another origin",
            "of another log",
            Arc::new(|path, bytes| change_note(path, bytes, |note| note.replacen("signing.", "singing.", 1))),
        ),
        (
            "no signature of the log",
            "No signature is by a key of this log",
            Arc::new(|path, bytes| {
                change_note(path, bytes, |note| {
                    format!("{}\n\n— other.example AAAAAAAA\n", note.split("\n\n").next().unwrap())
                })
            }),
        ),
        (
            "an altered signature",
            "does not verify",
            Arc::new(|path, bytes| {
                change_note(path, bytes, |note| note.lines().map(|line| altered(line) + "\n").collect())
            }),
        ),
    ];
    for (what, says, lie) in lies {
        let address = lying_proxy::start(&url, lie);
        browser.open(&format!("{address}/#signing/index/0")).await;
        browser.until(DONE).await;
        assert_eq!(browser.script(VERDICTS).await, json!(["bad"]), "{what}");
        let article = browser.text("article").await;
        assert!(article.contains(says) && article.contains("NOT verified"), "{what}:\n{article}");
        assert!(browser.text("#status").await.contains("did not verify"), "{what}");
    }
    browser.picture("lie").await;

    // An entry that is in the log, proven, and not what was searched for.
    let lie: Arc<Lie> = Arc::new(move |path, bytes| {
        if !path.contains("identity=") {
            return bytes;
        }
        let mut answer: Value = serde_json::from_slice(&bytes).unwrap();
        answer["entries"] = json!([other]);
        answer.to_string().into_bytes()
    });
    let address = lying_proxy::start(&url, lie);
    browser.open(&format!("{address}/#signing/identity/somebody%40example.com")).await;
    browser.until(DONE).await;
    assert_eq!(browser.script(VERDICTS).await, json!(["bad"]));
    assert!(browser.text("article").await.contains("does not hold the identity"));

    // An event that is in the log, proven, and signed by nobody who may say such a thing.
    let lie: Arc<Lie> = Arc::new(move |path, bytes| {
        if !path.ends_with("/api/v1/logs") {
            return bytes;
        }
        let mut logs: Value = serde_json::from_slice(&bytes).unwrap();
        let other = logs[1]["public_key"].clone();
        for log in logs.as_array_mut().unwrap().iter_mut().filter(|log| log["kind"] == "event") {
            for rule in log["events"].as_array_mut().unwrap() {
                rule["keys"] = json!([other]);
            }
        }
        logs.to_string().into_bytes()
    });
    let address = lying_proxy::start(&url, lie);
    browser.open(&format!("{address}/#event/index/0")).await;
    browser.until(DONE).await;
    assert_eq!(browser.script(VERDICTS).await, json!(["bad"]));
    assert!(browser.text("article").await.contains("a forgery"));

    // Text of others stays text.
    let lie: Arc<Lie> = Arc::new(move |path, bytes| {
        let encoded = STANDARD.encode(hostile.to_string());
        change_entry(path, bytes, |entry| entry["canonicalizedBody"] = json!(encoded))
    });
    let address = lying_proxy::start(&url, lie);
    browser.open(&format!("{address}/#event/index/0")).await;
    browser.until(DONE).await;
    assert!(browser.text("article").await.contains("<img src=x"));
    assert_eq!(browser.script("return document.querySelectorAll('main img, main script').length").await, 0);
    assert_eq!(browser.script("return document.title").await, "Transparency log");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_scripts_the_page_says_what_to_do() {
    let Some(browser) = Browser::start(Scripts::Blocked).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    browser.open(&stack.text("/log/url")).await;
    let text = browser.text("main").await;
    assert!(text.contains("mentatctl log proof") && !text.contains("Search by"), "{text}");
    browser.close().await;
}
