//! A backup that is made while the server runs, in the order that the operator's page demands, is in order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::server;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use server::{Stack, run};

const BINARY: &str = env!("CARGO_BIN_EXE_transparency-log");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations/log-backup.md");
/// What is copied, as the page writes it, and where it is in the test's folder.
const ORDER: [(&str, &str); 6] = [
    ("data/*/cosigned", "cosigned"),
    ("data/*/checkpoint", "checkpoint"),
    ("head_copies/", ""),
    ("data/*/head/", "head"),
    ("data/*/entries/", "entries"),
    ("data/*/issuer/", "issuer"),
];

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else if from.exists() {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    }
}

#[test]
fn the_page_names_each_record_before_those_that_it_must_not_be_ahead_of() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let mut steps = page.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
    for (place, (written, _)) in ORDER.iter().enumerate() {
        let step = format!("{}. `{written}`", place + 1);
        assert!(steps.any(|line| line.starts_with(&step)), "{step:?} does not follow");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_in_the_documented_order_is_in_order_while_writers_write() {
    let stack = Stack::new();
    let server = stack.serve();
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..3 {
        let (url, stop) = (format!("{}/raw/add?ack=published", server.url), stop.clone());
        writers.push(tokio::spawn(async move {
            let client = reqwest::Client::new();
            let mut entries = 0;
            while !stop.load(Ordering::Relaxed) {
                let body = format!("writer {writer}, entry {entries}");
                assert_eq!(client.post(&url).body(body).send().await.unwrap().status(), 200);
                entries += 1;
            }
            entries
        }));
    }
    let mut last = 0;
    for round in 0..5 {
        // Beyond the first full tile.
        let size = async || {
            let answer = reqwest::get(format!("{}/raw/checkpoint", server.url)).await.unwrap();
            answer.text().await.unwrap().lines().nth(1).unwrap().parse::<u64>().unwrap()
        };
        while size().await < last.max(300) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let to = tempfile::tempdir().unwrap();
        for (written, name) in ORDER {
            if written.starts_with("head_copies") {
                copy(&stack.path("copies"), &to.path().join("copies"));
                continue;
            }
            for log in ["signing", "issuance", "event", "raw"] {
                let place = format!("data/{log}/{name}");
                copy(&stack.path(&place), &to.path().join(&place));
            }
            // As on a slow disk.
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
        for name in ["keys", "pass", "root.pem", "ca.pem", "reporter.pem", "log.toml"] {
            copy(&stack.path(name), &to.path().join(name));
        }
        let (code, said, error) = run(BINARY, &["check", "--config"], &to.path().join("log.toml"));
        assert_eq!(code, Some(0), "round {round}: {said}{error}");
        let raw = said.lines().find(|line| line.contains("\"raw\"")).unwrap();
        let checked = raw.split("size ").nth(1).unwrap().split(',').next().unwrap().parse::<u64>().unwrap();
        assert!(checked >= 300, "{raw}");
        last = size().await + 100;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.unwrap() > 0);
    }
    assert_eq!(server.stop(), Some(0));
}
