use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn fill(directory: &Path, count: usize) -> u64 {
    let audit = Audit::open(directory, None).unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for index in 0..count {
        let event = AuditEvent { event_type: format!("e{index}"), ..AuditEvent::default() };
        tokio.block_on(audit.record_durably(event)).unwrap();
    }
    audit.sequence()
}

#[test]
fn a_log_that_was_cut_together_with_its_head_is_not_the_one_that_receipts_name() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 2);
    let before: Vec<_> =
        ["audit.jsonl", "audit.head"].map(|name| std::fs::read(dir.path().join(name)).unwrap()).into();
    fill(dir.path(), 2);
    let audit = Audit::open(dir.path(), None).unwrap();
    let attested = audit.head();
    assert_eq!(attested.sequence, 4);
    drop(audit);
    Audit::open(dir.path(), Some(&attested)).unwrap();
    for (name, bytes) in ["audit.jsonl", "audit.head"].iter().zip(&before) {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let refused = Audit::open(dir.path(), Some(&attested)).err().unwrap();
    assert!(matches!(refused, OpenError::Truncated { found: 2, committed: 4, .. }), "{refused}");
    // As long as before, by other records.
    let audit = Audit::open(dir.path(), None).unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for _ in 0..2 {
        let event = AuditEvent { event_type: "other".into(), ..AuditEvent::default() };
        tokio.block_on(audit.record_durably(event)).unwrap();
    }
    drop(audit);
    let refused = Audit::open(dir.path(), Some(&attested)).err().unwrap();
    assert!(matches!(refused, OpenError::Truncated { found: 4, committed: 4, .. }), "{refused}");
}

#[test]
fn continues_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(fill(dir.path(), 3), 3);
    assert_eq!(fill(dir.path(), 2), 5);
}

#[test]
fn refuses_to_start_on_removed_records() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 4);
    let path = dir.path().join("audit.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    std::fs::write(&path, format!("{}\n{}\n", lines[0], lines[1])).unwrap();
    assert!(matches!(
        Audit::open(dir.path(), None),
        Err(OpenError::Truncated { found: 2, committed: 4, .. })
    ));
    std::fs::write(&path, format!("{}\n{}\n{}\n", lines[0], lines[2], lines[3])).unwrap();
    assert!(matches!(
        Audit::open(dir.path(), None),
        Err(OpenError::Chain { source: AuditError::Broken { line: 2 }, .. })
    ));
    std::fs::write(&path, text.replace("\"e1\"", "\"x1\"")).unwrap();
    assert!(matches!(
        Audit::open(dir.path(), None),
        Err(OpenError::Chain { source: AuditError::Altered { line: 2 }, .. })
    ));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        Audit::open(dir.path(), None),
        Err(OpenError::Truncated { found: 0, committed: 4, .. })
    ));
}

#[test]
fn a_full_disk_holds_work_back_and_loses_no_record_of_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.path().join(name))
            .unwrap()
    };
    let mut files = Files { log: open("audit.jsonl"), head_file: open("audit.head"), end: 0, torn: false };
    let full = Arc::new(AtomicBool::new(false));
    let disk = Arc::clone(&full);
    let commit: Commit = Box::new(move |text, head| {
        if !disk.load(Ordering::Acquire) {
            return files.commit(text, head);
        }
        // A part of it arrives, as on a disk that fills up.
        files.torn = true;
        files.log.write_all_at(&text[..text.len() / 2], files.end)?;
        Err(std::io::ErrorKind::StorageFull.into())
    });
    let audit = Audit::start(commit, AuditHead::EMPTY).unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let event = |name: &str| AuditEvent { event_type: name.into(), ..AuditEvent::default() };
    tokio.block_on(audit.record_durably(event("before"))).unwrap();
    let running = audit.reserve().unwrap();

    full.store(true, Ordering::Release);
    assert_eq!(tokio.block_on(audit.record_durably(event("refused"))), Err(Unavailable::Full));
    assert!(audit.available().is_err() && audit.reserve().is_err() && audit.record(event("no")).is_err());
    running.record(event("done while the disk was full"));

    full.store(false, Ordering::Release);
    while audit.available().is_err() || audit.sequence() < 2 {
        std::thread::yield_now();
    }
    tokio.block_on(audit.record_durably(event("after"))).unwrap();
    assert_eq!(Audit::open(dir.path(), None).unwrap().sequence(), 3);
    let text = std::fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
    assert!(text.contains("done while the disk was full") && !text.contains("refused"), "{text}");
}

#[test]
fn more_than_the_disk_takes_at_once_is_held_back_and_not_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.path().join(name))
            .unwrap()
    };
    let mut files = Files { log: open("audit.jsonl"), head_file: open("audit.head"), end: 0, torn: false };
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let commit: Commit = Box::new(move |text, head| {
        let _ = gate.recv(); // a disk that takes its time, until the test is over
        files.commit(text, head)
    });
    let audit = Audit::start(commit, AuditHead::EMPTY).unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut count = 0;
    while audit.record(AuditEvent { event_type: "call".into(), ..AuditEvent::default() }).is_ok() {
        count += 1;
    }
    assert!(count >= QUEUE, "{count}");
    let waiting = audit.clone();
    drop(go);
    tokio.block_on(async move { waiting.room().await.map(drop) }).unwrap();
}

#[test]
fn where_there_is_room_nothing_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path(), None).unwrap();
    // Without a timer: whatever waits for a time cannot even begin to.
    let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tokio.block_on(audit.record_durably(AuditEvent::default())).unwrap();
    assert_eq!(audit.sequence(), 1);
}

#[test]
fn a_record_too_long_for_a_line_is_cut_and_does_not_end_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path(), None).unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut event = AuditEvent { event_type: "agent_execution".into(), ..AuditEvent::default() };
    event.agent = Some(Arc::new(executor_api::audit::AuditAgent { id: "a.b".into(), ..Default::default() }));
    event.security = Some(executor_api::audit::AuditSecurity {
        capability_grants: vec!["x".repeat(1024); 256].into(),
        ..Default::default()
    });
    tokio.block_on(audit.record_durably(event)).unwrap();
    assert_eq!(fill(dir.path(), 1), 2);
    let text = std::fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
    assert!(text.contains("a.b") && text.contains("256 list entries left out"), "{text}");
}

#[test]
fn a_torn_last_line_is_cut_because_nobody_was_told_of_it() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 2);
    let path = dir.path().join("audit.jsonl");
    let mut file = File::options().append(true).open(&path).unwrap();
    file.write_all(b"{\"sequence\":3,\"prev").unwrap();
    assert_eq!(fill(dir.path(), 1), 3);
}
