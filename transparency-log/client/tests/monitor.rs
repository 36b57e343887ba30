//! The monitor: honest growth, forks, rollbacks, and what it remembers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod naive_log;

use naive_log::{Ed25519, NaiveLog, ORIGIN, Server, entry, key};
use tlog::{TreeHead, VerifiedCheckpoint};
use tlog_client::{EntryFormat, Error, Growth, Monitor, MonitorState, VerifiedEntry};

fn honest(size: u64) -> NaiveLog {
    NaiveLog::with((0..size).map(entry))
}

/// Another history: differs from the honest one from entry `from` on.
fn forked(from: u64, size: u64) -> NaiveLog {
    NaiveLog::with((0..size).map(|index| if index < from { entry(index) } else { b"forged".to_vec() }))
}

fn monitor(server: &Server, state: MonitorState) -> Monitor<'static> {
    Monitor::new(server.client.clone(), vec![key()], &Ed25519, EntryFormat::Bundles, state).unwrap()
}

fn nothing(_: &VerifiedEntry) -> Vec<String> {
    Vec::new()
}

/// Walks everything that is left and returns the indices.
async fn walk(monitor: &mut Monitor<'_>) -> Vec<u64> {
    let mut seen = Vec::new();
    while let Some(entries) = monitor.next_entries(&mut nothing).await.unwrap() {
        for watched in entries {
            assert_eq!(watched.entry.bytes, entry(watched.entry.index));
            seen.push(watched.entry.index);
        }
    }
    seen
}

#[tokio::test]
async fn follows_growth_and_walks_every_entry_once() {
    let server = Server::start(honest(0)).await;
    let mut monitor = monitor(&server, MonitorState::new(ORIGIN));
    assert_eq!(monitor.update().await.unwrap(), Growth { old: TreeHead::EMPTY, new: TreeHead::EMPTY });
    assert_eq!(walk(&mut monitor).await, Vec::<u64>::new());
    let mut expected = 0..;
    for size in [1, 200, 256, 257, 900, 3000] {
        let old = server.head();
        server.change(|log| (old.size..size).for_each(|index| log.push(entry(index))));
        assert_eq!(monitor.update().await.unwrap(), Growth { old, new: server.head() });
        let count = size - old.size;
        assert_eq!(walk(&mut monitor).await, expected.by_ref().take(count as usize).collect::<Vec<_>>());
        assert_eq!(monitor.state().walked(), size);
    }
    assert_eq!(monitor.update().await.unwrap().new, server.head());
    assert_eq!(walk(&mut monitor).await, Vec::<u64>::new());
}

#[tokio::test]
async fn reports_what_watchers_recognise() {
    let server = Server::start(honest(400)).await;
    let mut monitor = monitor(&server, MonitorState::new(ORIGIN));
    monitor.update().await.unwrap();
    let mut watcher = |seen: &VerifiedEntry| {
        if seen.bytes.ends_with(b" 300") { vec!["three hundred".to_owned()] } else { Vec::new() }
    };
    let mut found = Vec::new();
    while let Some(entries) = monitor.next_entries(&mut watcher).await.unwrap() {
        found.extend(entries.into_iter().filter(|watched| !watched.matches.is_empty()));
    }
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].entry.index, found[0].matches.as_slice()),
        (300, ["three hundred".to_owned()].as_slice())
    );
}

#[tokio::test]
async fn a_fork_is_reported_with_both_notes() {
    // The same size; a larger tree with another beginning; a smaller one with another beginning.
    for (from, size) in [(150, 300), (150, 500), (299, 300), (0, 301), (150, 200)] {
        let server = Server::start(honest(300)).await;
        let mut monitor = monitor(&server, MonitorState::new(ORIGIN));
        monitor.update().await.unwrap();
        // Tiles of the honest history are remembered: they must not hide what the log says now.
        walk(&mut monitor).await;
        let before = monitor.state().clone();
        // For the smaller tree the honest tiles are still served: only the checkpoint is of the other history.
        let other = forked(from, size);
        if size < 300 {
            server.change(|log| log.checkpoint = Some(other.note().to_bytes()));
        } else {
            server.change(|log| *log = other);
        }
        match monitor.update().await.unwrap_err() {
            Error::Fork { known, served, evidence } => {
                assert_eq!((known.size, served.size), (300, size));
                for (note, head) in [(&evidence.known, known), (&evidence.served, served)] {
                    let opened = VerifiedCheckpoint::open(note, ORIGIN, &[key()], &Ed25519).unwrap();
                    assert_eq!(*opened.head(), head);
                }
            }
            other => panic!("fork from {from} of size {size}: {other}"),
        }
        assert_eq!(*monitor.state(), before, "the known checkpoint stays");
        assert_eq!(monitor.checkpoint().unwrap().head().size, 300);
    }
}

#[tokio::test]
async fn a_rollback_is_reported_and_not_followed() {
    let server = Server::start(honest(300)).await;
    let mut monitor = monitor(&server, MonitorState::new(ORIGIN));
    monitor.update().await.unwrap();
    for size in [299, 256, 10, 0] {
        server.change(|log| log.published = size);
        let refused = monitor.update().await.unwrap_err();
        assert!(refused.is_misbehaviour());
        match refused {
            Error::Rollback { known, served } => assert_eq!((known.size, served.size), (300, size)),
            other => panic!("{size}: {other}"),
        }
    }
    server.change(|log| log.published = 300);
    assert_eq!(monitor.update().await.unwrap().new.size, 300);
}

#[tokio::test]
async fn tiles_that_are_not_of_the_signed_tree_are_no_fork() {
    let server = Server::start(honest(300)).await;
    let mut monitor = monitor(&server, MonitorState::new(ORIGIN));
    monitor.update().await.unwrap();
    server.change(|log| {
        (300..400).for_each(|index| log.push(entry(index)));
        log.damage("tile/0/001.p/144", 9);
    });
    let refused = monitor.update().await.unwrap_err();
    assert_eq!((refused.code(), refused.is_misbehaviour()), ("root_mismatch", false));
    server.change(|log| log.damaged.clear());
    assert_eq!(monitor.update().await.unwrap().new.size, 400);
    // A forged entry stops the walk where it stands.
    server.change(|log| log.damage("tile/entries/001.p/144", 9));
    assert!(monitor.next_entries(&mut nothing).await.is_ok());
    assert_eq!(monitor.next_entries(&mut nothing).await.unwrap_err().code(), "tile_mismatch");
    assert_eq!(monitor.state().walked(), 256);
}

#[tokio::test]
async fn continues_from_a_stored_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    assert_eq!(MonitorState::load(&path, ORIGIN).unwrap(), None);
    let server = Server::start(honest(300)).await;
    let mut first = monitor(&server, MonitorState::new(ORIGIN));
    first.update().await.unwrap();
    first.next_entries(&mut nothing).await.unwrap();
    first.state().store(&path).unwrap();

    let state = MonitorState::load(&path, ORIGIN).unwrap().unwrap();
    assert_eq!((&state, state.walked(), state.origin()), (first.state(), 256, ORIGIN));
    let mut second = monitor(&server, state);
    assert_eq!(walk(&mut second).await, (256..300).collect::<Vec<_>>());
    second.state().store(&path).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");

    // The fork happens while nobody looks.
    server.change(|log| *log = forked(100, 500));
    let mut third = monitor(&server, MonitorState::load(&path, ORIGIN).unwrap().unwrap());
    assert_eq!(third.update().await.unwrap_err().code(), "fork");
}

#[test]
fn the_state_file_is_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    MonitorState::new("log.example").store(&path).unwrap();
    let text =
        "{\n  \"version\": 1,\n  \"origin\": \"log.example\",\n  \"walked\": 0,\n  \"checkpoint\": null\n}\n";
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(MonitorState::load(&path, "log.example").unwrap(), Some(MonitorState::new("log.example")));
    for bad in [
        "",
        "{}",
        &text.replace("log.example", "other.example"),
        &text.replace("\"version\": 1", "\"version\": 2"),
        &text.replace("\"walked\": 0", "\"walked\": -1"),
        &text.replace("\"walked\"", "\"more\": 1, \"walked\""),
        &text.repeat(2),
        &" ".repeat(2_000_000),
    ] {
        std::fs::write(&path, bad).unwrap();
        assert_eq!(MonitorState::load(&path, "log.example").unwrap_err().code(), "state_file", "{bad:.60}");
    }
    let nowhere = folder.path().join("missing/state.json");
    assert_eq!(MonitorState::new("log.example").store(&nowhere).unwrap_err().code(), "state_file");
}

#[tokio::test]
async fn a_remembered_checkpoint_is_verified_again() {
    let server = Server::start(honest(30)).await;
    let mut first = monitor(&server, MonitorState::new(ORIGIN));
    first.update().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let open = |from: &str, to: &str| {
        first.state().store(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap().replace(from, to);
        std::fs::write(&path, text).unwrap();
        let state = MonitorState::load(&path, ORIGIN).unwrap().unwrap();
        let result = Monitor::new(server.client.clone(), vec![key()], &Ed25519, EntryFormat::Bundles, state);
        result.err().map(|error| error.code())
    };
    assert_eq!(open("\\n30\\n", "\\n31\\n"), Some("signature_invalid"));
    assert_eq!(open("\"walked\": 0", "\"walked\": 31"), Some("index_out_of_range"));
    assert_eq!(open("\"walked\": 0", "\"walked\": 30"), None);
}
