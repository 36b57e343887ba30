//! The commands that refusals name lead back to a serving log, or refuse when acknowledged entries are lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::server;

use std::path::{Path, PathBuf};

use reqwest::Client;
use server::{Process, Stack, run};

const BINARY: &str = env!("CARGO_BIN_EXE_transparency-log");

/// Submits entries; an entry that is there already gets the index it has.
async fn add(server: &Process, entries: std::ops::Range<u32>) {
    let client = Client::new();
    for i in entries {
        let url = format!("{}/raw/add", server.url);
        let answer = client.post(url).body(format!("entry {i}")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(answer.text().await.unwrap(), format!("{i}\n"));
    }
}

/// Runs the command between the last backticks of a refusal.
fn run_named(said: &str, config: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let command = said.rsplit('`').nth(1).unwrap();
    let mut words = command.split(' ');
    assert_eq!(words.next(), Some("transparency-log"), "{said}");
    let named: Vec<_> = words.filter(|word| !["--config", "FILE"].contains(word)).collect();
    run(BINARY, &[&named[..], more, &["--config"][..]].concat(), config)
}

fn refusal(stack: &Stack) -> String {
    let said = Process::start(BINARY, &stack.config()).err().unwrap();
    assert!(said.starts_with("exit Some(78)"), "{said}");
    said
}

struct Grown {
    stack: Stack,
    head: PathBuf,
    copy: PathBuf,
    old_head: Vec<u8>,
    old_copy: Vec<u8>,
    old_entries: Vec<u8>,
}

/// A log of 40 entries, with its files as they were at 20.
async fn grown() -> Grown {
    let stack = Stack::new();
    let (head, copy) = (stack.path("data/raw/head/head"), stack.path("copies/raw.head"));
    let server = stack.serve();
    add(&server, 0..20).await;
    assert_eq!(server.stop(), Some(0));
    let old = |path: &Path| std::fs::read(path).unwrap();
    let (old_head, old_copy) = (old(&head), old(&copy));
    let old_entries = old(&stack.path("data/raw/entries/00000000.entries"));
    let server = stack.serve();
    add(&server, 20..40).await;
    assert_eq!(server.stop(), Some(0));
    Grown { stack, head, copy, old_head, old_copy, old_entries }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_named_command_leads_back_to_a_serving_log_with_everything_acknowledged() {
    let Grown { stack, head, copy, old_head, old_copy, .. } = grown().await;
    let config = stack.config();
    let unaided = run(BINARY, &["repair", "--config"], &config);
    assert_eq!(unaided.0, Some(0), "{}", unaided.2);
    assert!(!unaided.1.contains("would rewrite"), "{}", unaided.1);
    for (what, path, old) in [
        ("old head", &head, Some(&old_head)),
        ("old copy", &copy, Some(&old_copy)),
        ("head missing", &head, None),
        ("copy missing", &copy, None),
        ("head damaged", &head, Some(&vec![7; 8192])),
        ("copy damaged", &copy, Some(&vec![7; 8192])),
    ] {
        match old {
            Some(old) => std::fs::write(path, old).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        let said = refusal(&stack);
        let broken = run(BINARY, &["check", "--config"], &config);
        assert_eq!(broken.0, Some(1), "{what}: {}", broken.1);
        let tried = run_named(&said, &config, &[]);
        assert_eq!(tried.0, Some(0), "{what}: {}", tried.2);
        assert!(tried.1.contains("would rewrite") && tried.1.contains("--apply"), "{what}: {}", tried.1);
        assert_eq!(std::fs::read(path).ok().as_ref(), old, "{what}: a dry run changes nothing");
        assert_eq!(refusal(&stack), said, "{what}");

        let done = run_named(&said, &config, &["--apply"]);
        assert_eq!(done.0, Some(0), "{what}: {}", done.2);
        assert!(done.1.contains("rewrote") && done.1.contains("size 40"), "{what}: {}", done.1);
        let checked = run(BINARY, &["check", "--json", "--config"], &config);
        assert_eq!(checked.0, Some(0), "{what}: {}", checked.2);
        assert!(checked.1.contains("\"ok\":true"), "{what}: {}", checked.1);
        let server = stack.serve();
        add(&server, 0..40).await;
        let refused = run(BINARY, &["repair", "--log", "raw", "--apply", "--config"], &config);
        assert_eq!(refused.0, Some(78), "{what}: a running log is not repaired");
        assert!(refused.2.contains("another process"), "{what}: {}", refused.2);
        assert_eq!(server.stop(), Some(0));
    }
    assert_eq!(run(BINARY, &["repair", "--log", "none", "--config"], &config).0, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_tail_is_refused_and_nothing_is_changed() {
    let Grown { stack, head, copy, old_head, old_entries, .. } = grown().await;
    let config = stack.config();
    let entries = stack.path("data/raw/entries/00000000.entries");
    let (whole, whole_head) = (std::fs::read(&entries).unwrap(), std::fs::read(&head).unwrap());
    let refused = |what: &str, says: &str| {
        let heads = (std::fs::read(&head).ok(), std::fs::read(&copy).ok());
        let refused = run(BINARY, &["repair", "--apply", "--config"], &config);
        assert_eq!(refused.0, Some(78), "{what}: {}", refused.1);
        assert!(refused.2.contains(says) && refused.2.contains("log-refusals.md"), "{what}: {}", refused.2);
        assert_eq!((std::fs::read(&head).ok(), std::fs::read(&copy).ok()), heads, "{what}");
    };

    std::fs::write(&entries, &old_entries).unwrap();
    refused("old entries", "ends at entry 20, but the head covers 40");
    std::fs::write(&head, &old_head).unwrap();
    refused("old entries and head", "ends at entry 20, but the head covers 40");
    std::fs::remove_file(&head).unwrap();
    refused("old entries, no head", "ends at entry 20, but the head covers 40");

    std::fs::write(&entries, &whole).unwrap();
    let kept = std::fs::read(&copy).unwrap();
    std::fs::remove_file(&copy).unwrap();
    refused("neither head nor copy", "restore the newest backup of either");
    std::fs::write(&copy, &kept).unwrap();

    // Bytes that follow the last whole entry: with the head gone, nobody knows whether they were acknowledged.
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let mut torn = whole.clone();
    torn[end + 40..end + 60].fill(9);
    std::fs::write(&entries, &torn).unwrap();
    refused("something behind the tail", "others follow");
    std::fs::write(&head, &whole_head).unwrap();
    let fine = run(BINARY, &["repair", "--apply", "--config"], &config);
    assert_eq!(fine.0, Some(0), "{}", fine.2);
    let server = stack.serve();
    add(&server, 0..40).await;
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn an_interrupted_init_is_finished_by_the_command_it_names() {
    let stack = Stack::new();
    std::fs::remove_file(stack.path("data/raw/head/head")).unwrap();
    std::fs::remove_file(stack.path("copies/raw.head")).unwrap();
    let said = run(BINARY, &["init", "--config"], &stack.config());
    assert_eq!(said.0, Some(78), "{}", said.1);
    let named = said.2.split_once("; run ").unwrap().1.split(',').next().unwrap();
    let done = run_named(named, &stack.config(), &["--apply"]);
    assert_eq!(done.0, Some(0), "{}", done.2);
    assert!(done.1.contains("never started"), "{}", done.1);
    assert_eq!(stack.serve().stop(), Some(0));
}
