//! A log that signed two histories, over restarts; and one that only went back.

use trust_store::attestation::Attestation;

use super::*;
use crate::evidence::EvidenceError;

/// Two signed histories of one log.
struct Histories {
    old: Vec<u8>,
    new: Vec<u8>,
    /// As large as `new` and something else.
    other: Vec<u8>,
}

fn histories(log: &Log) -> Histories {
    let mut tree = MemoryTree::new();
    let [old, new] = [b"one", b"two"].map(|entry| {
        tree.push(leaf_hash(entry));
        log.checkpoint(tree.head().size, tree.head().root)
    });
    Histories { old, new, other: log.checkpoint(2, Hash([9; 32])) }
}

/// A collector of this log's checkpoints and of nothing else.
fn opened(server: &Server, log: &Log, state: &Path) -> Result<Collector, EvidenceError> {
    opened_with(&[log], [(ORIGIN.to_owned(), format!("{}/log", server.url))].into(), state)
}

/// One that trusts these logs, and follows those.
fn opened_with(
    trusted: &[&Log],
    logs: BTreeMap<String, String>,
    state: &Path,
) -> Result<Collector, EvidenceError> {
    let mut root = TrustedRoot::new();
    root.tlogs.extend(trusted.iter().map(|log| log.instance()));
    let config = EvidenceConfig {
        logs,
        state: state.to_owned(),
        timeout: Duration::from_secs(60),
        ..EvidenceConfig::default()
    };
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    Collector::new(Verifier::new(Arc::new(AwsLc), &root).unwrap(), http, &config)
}

fn file(state: &Path) -> std::path::PathBuf {
    state.join(format!("fork-{ORIGIN}.json"))
}

#[tokio::test]
async fn a_fork_is_kept_with_both_checkpoints_and_not_forgotten_by_a_restart() {
    let (server, log) = (Server::start().await, Log::new());
    let state = tempfile::tempdir().unwrap();
    let Histories { new, other, .. } = histories(&log);
    {
        // Nothing of the kind was written before, and nothing is while the log is in order.
        let collector = opened(&server, &log, state.path()).unwrap();
        server.serve("/log/checkpoint", new.clone());
        assert_eq!(collector.refresh_logs(&[]).await.fork, None);
        assert!(!file(state.path()).exists());
        server.serve("/log/checkpoint", other.clone());
        let fork = collector.refresh_logs(&[]).await.fork.clone().unwrap();
        assert!(fork.starts_with(ORIGIN) && fork.contains("two histories"), "{fork}");
    }
    let kept: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file(state.path())).unwrap()).unwrap();
    let note = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_owned();
    assert_eq!((&kept["known"], &kept["served"]), (&note(&new).into(), &note(&other).into()));

    // The log shows what it showed first, as if nothing had been.
    server.serve("/log/checkpoint", new);
    let collector = opened(&server, &log, state.path()).unwrap();
    assert!(collector.snapshot().fork.is_some(), "before anything was fetched");
    let snapshot = collector.refresh_logs(&[]).await;
    assert!(snapshot.fork.is_some());
    assert_eq!(problem(&snapshot, "checkpoint"), "", "its source is in order and the log is not");
}

/// Neither is in a hurry: the one that forked serves the proofs that its round waits for.
#[tokio::test]
async fn a_fork_is_told_before_its_round_ends() {
    const OTHER: &str = "other.ab12cd34.mentat.internal";
    let attested = {
        let mut bundle = crate::testing::attestation().bundle().clone();
        bundle.log_entries.push(Log::new().entry(1));
        Arc::new(Attestation::for_bundle(bundle).unwrap())
    };
    for silent in ["/other/checkpoint", "/log/tile/0/000.p/2"] {
        let (server, log, other) = (Server::start().await, Log::new(), Log::of(OTHER));
        let state = tempfile::tempdir().unwrap();
        let Histories { new, other: contradicting, .. } = histories(&log);
        server.serve("/log/checkpoint", new);
        server.serve("/other/checkpoint", other.checkpoint(1, Hash([1; 32])));
        let at = |path: &str| format!("{}/{path}", server.url);
        let logs = [(ORIGIN.to_owned(), at("log")), (OTHER.to_owned(), at("other"))].into();
        let collector = Arc::new(opened_with(&[&log, &other], logs, state.path()).unwrap());
        assert_eq!(collector.refresh_logs(&[]).await.fork, None, "{silent}");

        server.serve("/log/checkpoint", contradicting);
        server.set(silent, Answer::Silence);
        let round = tokio::spawn({
            let (collector, attested) = (Arc::clone(&collector), Arc::clone(&attested));
            async move { collector.refresh_logs(&[attested]).await }
        });
        let told = tokio::time::timeout(Duration::from_secs(10), collector.news()).await;
        assert!(told.expect("it is not told").fork.is_some(), "{silent}");
        assert!(!round.is_finished(), "{silent} is waited for");
        round.abort();
    }
}

#[tokio::test]
async fn a_proof_that_cannot_be_written_counts_and_is_written_when_it_can() {
    let (server, log) = (Server::start().await, Log::new());
    let state = tempfile::tempdir().unwrap();
    let Histories { new, other, .. } = histories(&log);
    let collector = opened(&server, &log, state.path()).unwrap();
    server.serve("/log/checkpoint", new.clone());
    collector.refresh_logs(&[]).await;
    std::fs::create_dir(file(state.path())).unwrap();
    server.serve("/log/checkpoint", other);
    let snapshot = collector.refresh_logs(&[]).await;
    assert!(snapshot.fork.is_some());
    assert!(problem(&snapshot, "checkpoint").contains("not on disk"), "{}", problem(&snapshot, "checkpoint"));
    // There is room again, and the log looks as if nothing had been.
    std::fs::remove_dir(file(state.path())).unwrap();
    server.serve("/log/checkpoint", new);
    let snapshot = collector.refresh_logs(&[]).await;
    assert_eq!((snapshot.fork.is_some(), problem(&snapshot, "checkpoint").as_str()), (true, ""));
    assert!(std::fs::read_to_string(file(state.path())).unwrap().contains("\"served\""));
}

fn proof(version: u32, origin: &str) -> String {
    format!(r#"{{"version":{version},"origin":"{origin}","detail":"d","known":"k","served":"s"}}"#)
}

#[tokio::test]
async fn a_proof_counts_as_long_as_the_trusted_root_names_the_log() {
    let (server, log) = (Server::start().await, Log::new());
    let state = tempfile::tempdir().unwrap();
    std::fs::write(file(state.path()), proof(1, ORIGIN)).unwrap();
    // Its line in the configuration is gone, as on a host that gets its evidence carried in.
    let collector = opened_with(&[&log], BTreeMap::new(), state.path()).unwrap();
    assert_eq!(collector.snapshot().fork.as_deref(), Some("d"));
    assert_eq!(collector.refresh_logs(&[]).await.fork.as_deref(), Some("d"));
    std::fs::write(file(state.path()), "").unwrap();
    assert!(opened_with(&[&log], BTreeMap::new(), state.path()).is_err(), "nobody knows");
    // Another one took its place.
    let successor = Log::of("next.ab12cd34.mentat.internal");
    server.serve("/next/checkpoint", successor.checkpoint(1, Hash([1; 32])));
    let logs = [(successor.origin.to_owned(), format!("{}/next", server.url))].into();
    let collector = opened_with(&[&successor], logs, state.path()).unwrap();
    assert_eq!(collector.refresh_logs(&[]).await.fork, None);
}

#[tokio::test]
async fn what_may_be_a_proof_is_not_passed_over() {
    let (server, log) = (Server::start().await, Log::new());
    for (text, why) in [
        ("", "EOF"),
        ("{}", "missing field"),
        (&proof(2, ORIGIN), "that this version reads"),
        (&proof(1, "other.example"), "not a proof about this log"),
        (&proof(1, ORIGIN).replace('}', r#","more":1}"#), "unknown field"),
    ] {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(file(state.path()), text).unwrap();
        let refused = opened(&server, &log, state.path()).err().unwrap();
        let told = refused.to_string();
        assert!(told.contains(why) && told.contains("keep the file"), "{text}: {told}");
        std::fs::write(file(state.path()), proof(1, ORIGIN)).unwrap();
        let collector = opened(&server, &log, state.path()).unwrap();
        assert_eq!(collector.snapshot().fork.as_deref(), Some("d"));
    }
}

#[tokio::test]
async fn a_log_that_went_back_is_refused_and_told_of_also_after_a_restart() {
    let (server, log) = (Server::start().await, Log::new());
    let state = tempfile::tempdir().unwrap();
    let Histories { old, new, .. } = histories(&log);
    server.serve("/log/checkpoint", new.clone());
    let first = opened(&server, &log, state.path()).unwrap();
    let fetched = first.refresh_logs(&[]).await.sources.clone();
    server.serve("/log/checkpoint", old);
    for (collector, fetched_at) in [
        (first, fetched.iter().find(|source| source.kind == "checkpoint").unwrap().fetched_at),
        (opened(&server, &log, state.path()).unwrap(), None),
    ] {
        let snapshot = collector.refresh_logs(&[]).await;
        let source = snapshot.sources.iter().find(|source| source.kind == "checkpoint").unwrap();
        assert!(source.problem.contains("went back from 2 to 1"), "{}", source.problem);
        assert_eq!(source.fetched_at, fetched_at, "nothing was learnt from it");
        let known = snapshot.evidence.log(ORIGIN).unwrap();
        assert_eq!(known.checkpoints, [String::from_utf8(new.clone()).unwrap()]);
        assert_eq!(snapshot.fork, None, "anybody on the way can serve an old copy: it proves nothing");
    }
    assert!(!file(state.path()).exists());
}
