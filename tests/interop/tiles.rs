//! Clients that others wrote, in Go, read every log while it is written: what they would refuse is not served.
//!
//! `tests/interop/tiles` holds the program; the libraries in it know C2SP tlog-tiles, static-ct-api and RFC 6962, and
//! nothing of this server.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mentat_tests::agent::signed;
use mentat_tests::clock::Deadline;
use mentat_tests::lying_proxy::{self, Lie};
use mentat_tests::skip::skipped;
use mentat_tests::stack::Stack;
use serde_json::Value;

use crate::have;

/// The program, built once; `None` where Go or its modules cannot be had, which is said.
fn program() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(build).as_deref()
}

fn build() -> Option<PathBuf> {
    if !have("go", "golang-go") {
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/tiles");
    let go = |arguments: &[&str]| {
        let output = Command::new("go").args(arguments).current_dir(&source).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (fetched, said) = go(&["mod", "download"]);
    if !fetched {
        skipped(format_args!("the modules of tests/interop/tiles cannot be fetched: {}", said.trim()));
        return None;
    }
    let binary = std::env::temp_dir().join(format!("mentat-tiles-{}", std::process::id()));
    let (built, said) = go(&["build", "-o", binary.to_str().unwrap(), "."]);
    assert!(built, "{said}");
    Some(binary)
}

/// A client that collects checkpoints until it is told that the log stands still.
struct Client {
    child: Child,
    what: String,
}

impl Client {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, what: arguments.join(" ") }
    }

    /// What it checked, or why it refuses.
    fn verdict(mut self) -> Result<Value, String> {
        // Whoever reads to the end of its input goes on then.
        drop(self.child.stdin.take().map(|mut input| input.flush()));
        let output = self.child.wait_with_output().unwrap();
        let refused = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(refused);
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{}: {error}: {refused}", self.what))
    }
}

/// Mode and key of the client that reads a log.
fn arguments(keys: &Value, kind: &str, url: &str) -> Vec<String> {
    let log = keys.as_array().unwrap().iter().find(|log| log["kind"] == kind).unwrap();
    let text = |name: &str| log[name].as_str().unwrap().to_owned();
    match kind {
        "issuance" => vec!["ct".to_owned(), url.to_owned(), text("origin"), text("public_key")],
        _ => vec!["tlog".to_owned(), url.to_owned(), log["vkeys"][0].as_str().unwrap().to_owned()],
    }
}

fn start(program: &Path, keys: &Value, kind: &str, url: &str) -> Client {
    let arguments = arguments(keys, kind, url);
    Client::start(program, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_clients_take_every_log_while_it_is_written() {
    let Some(program) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let keys = std::fs::read(stack.dir().join("trust/log_keys.json")).unwrap();
    let keys: Value = serde_json::from_slice(&keys).unwrap();
    let root = stack.text("/log/url");
    let clients = [("signing", ""), ("issuance", "/issuance"), ("event", "/event"), ("raw", "/raw")]
        .map(|(kind, base)| (kind, start(program, &keys, kind, &format!("{root}{base}"))));

    // Lone writers, each waiting for its answer, past three full tiles; then a burst.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let add = |entry: String| {
        let request = http.post(format!("{root}/raw/add")).body(entry);
        async move { assert_eq!(request.send().await.unwrap().status().as_u16(), 200) }
    };
    let writer = |number: usize| {
        let add = &add;
        async move {
            for entry in 0..200 {
                add(format!("{entry} of writer {number}")).await;
            }
        }
    };
    tokio::join!(writer(0), writer(1), writer(2), writer(3));
    let burst = (0..224).map(|entry| tokio::spawn(add(format!("{entry} of the burst"))));
    for added in burst.collect::<Vec<_>>() {
        added.await.unwrap();
    }
    for name in ["first", "second", "third"] {
        signed(&stack, dir.path(), name);
    }
    let listed = stack.ctl(&["--json", "pki", "list", "--identity", "dev@example.com"]).success().json();
    let serial = listed["serial"].as_str().unwrap();
    stack.ctl(&["pki", "revoke", "--serial", serial, "--reason", "key-compromise"]).success();
    let watch = ["log", "monitor", "--log", "event", "--event-type", "https://mentat.internal/revocation/v1"];
    let deadline = Deadline::after(Duration::from_secs(60));
    while stack.ctl(&watch).code == 0 {
        assert!(!deadline.passed(), "the revocation never reached the event log");
        std::thread::sleep(Duration::from_millis(100));
    }

    for (kind, client) in clients {
        let checked = client.verdict().unwrap_or_else(|refused| panic!("{kind}: {refused}"));
        eprintln!("{kind}: {checked}");
        let at_least = |name: &str, count: u64| {
            assert!(checked[name].as_u64().unwrap() >= count, "{kind}: fewer {name} than {count}: {checked}");
        };
        let (size, checkpoints) = match kind {
            "raw" => (1024, 20),
            "signing" => (3, 3),
            _ => (1, 1),
        };
        at_least("size", size);
        at_least("checkpoints", checkpoints);
        at_least("pairs", checkpoints * (checkpoints - 1) / 2);
    }
}

/// The clients are no rubber stamp: one altered byte anywhere, and they refuse.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_clients_refuse_a_log_that_lies() {
    let Some(program) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    signed(&stack, dir.path(), "first");
    signed(&stack, dir.path(), "second");
    let keys = std::fs::read(stack.dir().join("trust/log_keys.json")).unwrap();
    let keys: Value = serde_json::from_slice(&keys).unwrap();
    let root = stack.text("/log/url");
    let altered = |part: &'static str, place: usize| -> Arc<Lie> {
        Arc::new(move |asked: &str, mut body: Vec<u8>| {
            if asked.contains(part) {
                let at = body.len().saturating_sub(1).min(place);
                body[at] ^= 1;
            }
            body
        })
    };
    for (kind, base, part, place) in [
        ("signing", "", "checkpoint", 4),
        ("signing", "", "tile/0/000.p/2", 40),
        ("signing", "", "tile/entries/", 300),
        ("issuance", "/issuance", "tile/data/", 300),
        ("issuance", "/issuance", "tile/0/", 5),
    ] {
        let proxy = lying_proxy::start(&root, altered(part, place));
        let refused = start(program, &keys, kind, &format!("{proxy}{base}")).verdict();
        assert!(refused.as_ref().is_err_and(|why| why.contains("REFUSED")), "{kind} {part}: {refused:?}");
        let true_log = start(program, &keys, kind, &format!("{root}{base}")).verdict();
        assert!(true_log.is_ok(), "{true_log:?}");
    }
}
