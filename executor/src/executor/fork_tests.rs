//! A log that signed two histories, and one that went back: what runs by it, what is loaded, what operators see, and a restart.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tlog::{Hash, MemoryTree, leaf_hash};
use tokio::task::JoinHandle;
use trust_store::attestation::{AttestationBlock, Staples};
use trust_store::log_entry::TransparencyLogEntry;
use trust_store::trusted_root::TrustedRoot;

use super::{Executed, Terms};
use crate::admission::{Denied, GrantSet, Publisher};
use crate::evidence::tests::{Log, ORIGIN, Server as LogServer};
use crate::testing::{Server, admitted, attestation, patient, wat_echo, wat_spin};

/// An executor that follows this log and would admit everything.
async fn executor(served: &LogServer, log: &Log, state: tempfile::TempDir) -> Server {
    let mut root = TrustedRoot::new();
    root.tlogs.push(log.instance());
    let logs = [(ORIGIN.to_owned(), format!("{}/log", served.url))].into();
    let server = Server::trusting(root, logs, state).await;
    *server.executor.parts.admission.ruling.lock() = Some(Box::new(|_| Ok(())));
    server.executor.refresh().await;
    server
}

/// What the next start finds of what this executor knows of its logs and its agents.
fn left_behind(server: &Server) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("agents")).unwrap();
    for folder in ["", "agents"] {
        for entry in std::fs::read_dir(server.state().join(folder)).unwrap() {
            let name = Path::new(folder).join(entry.unwrap().file_name());
            let text = name.to_str().unwrap();
            if ["log-", "fork-", "agents/"].iter().any(|kept| text.starts_with(kept)) {
                std::fs::copy(server.state().join(&name), copy.path().join(&name)).unwrap();
            }
        }
    }
    copy
}

async fn load(server: &Server, agent: &str) -> Result<(), Denied> {
    load_logged(server, agent, Vec::new()).await
}

/// With a bundle that leads to these places in logs.
async fn load_logged(
    server: &Server,
    agent: &str,
    log_entries: Vec<TransparencyLogEntry>,
) -> Result<(), Denied> {
    let mut bundle = attestation().bundle().clone();
    bundle.log_entries = log_entries;
    let block = AttestationBlock::new(&bundle, None, &[], Staples::default()).unwrap();
    let block = serde_json::to_string(&block).unwrap();
    let manifest =
        format!("id: {agent}\nversion: 1.0.0\nruntime: wasm\nmodule: m.wasm\nattestation: {block}\n");
    let module = wat::parse_str(wat_echo()).unwrap();
    server.executor.load(&Terms::default().caller, &manifest, None, module.into()).await.map(drop)
}

async fn call(server: &Server, agent: &str) -> Result<Executed, Denied> {
    server.executor.execute(agent, Bytes::new(), Terms::default()).await
}

fn refusal<T>(outcome: Result<T, Denied>) -> Option<(u8, &'static str)> {
    outcome.err().map(|denied| (denied.step, denied.code))
}

/// A call that runs until somebody ends it.
async fn spinning(server: &Server, agent: &'static str) -> JoinHandle<Result<Executed, Denied>> {
    let spin = admitted(wat_spin(), GrantSet::default(), patient()).called(agent, "s@example.org");
    server.executor.admit_for_test(spin).await;
    let admission = server.executor.agents.find(agent).unwrap().admission();
    let running = tokio::spawn({
        let executor = Arc::clone(&server.executor);
        async move { executor.execute(agent, Bytes::new(), Terms::default()).await }
    });
    while !server.executor.parts.runtime.live().has(admission) {
        assert!(!running.is_finished(), "the call ended before it was seen");
        tokio::task::yield_now().await;
    }
    running
}

async fn ready(server: &Server) -> (u16, String) {
    let answer = reqwest::get(format!("http://{}/readyz", server.address)).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn counted(server: &Server, line: &str) {
    let text = server.exposition();
    assert!(text.lines().any(|counted| counted == line), "{line} is not in {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forked_log_ends_what_runs_and_admits_nothing_also_after_a_restart() {
    const INCONSISTENT: Option<(u8, &str)> = Some((11, "log_inconsistent"));
    let (served, log) = (LogServer::start().await, Log::new());
    let mut tree = MemoryTree::new();
    tree.push(leaf_hash(b"one"));
    let known = log.checkpoint(1, tree.head().root);
    served.serve("/log/checkpoint", known.clone());
    let server = executor(&served, &log, tempfile::tempdir().unwrap()).await;
    assert_eq!(ready(&server).await.0, 200);
    load(&server, "fork.echo").await.unwrap();
    call(&server, "fork.echo").await.unwrap();
    counted(&server, "mentatlab_log_forked 0");
    let running = spinning(&server, "fork.spin").await;

    served.serve("/log/checkpoint", log.checkpoint(1, Hash([9; 32])));
    server.executor.refresh().await;
    assert_eq!(refusal(running.await.unwrap()), INCONSISTENT, "what ran is told why it ended");
    assert_eq!(refusal(load(&server, "fork.later").await), INCONSISTENT);
    assert_eq!(refusal(call(&server, "fork.echo").await), INCONSISTENT);
    let (status, told) = ready(&server).await;
    assert!(status == 503 && told.contains("log fork") && told.contains(ORIGIN), "{status} {told}");
    for line in [
        "mentatlab_admissions_total{reason=\"log_inconsistent\"} 1",
        "mentatlab_agents_withdrawn_total{reason=\"log_inconsistent\"} 2",
        "mentatlab_evidence_sources_failing 1",
        "mentatlab_log_forked 1",
        "wasm_instances_total{status=\"revoked\"} 1",
    ] {
        counted(&server, line);
    }
    // Looked at more than once before it had ended, it is counted more than once.
    let stopped = server.exposition();
    let stopped = stopped.lines().find_map(|line| line.strip_prefix("mentatlab_instances_stopped_total "));
    assert!(stopped.unwrap().parse::<u64>().unwrap() >= 1);

    server.executor.close().await;
    let audit = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
    let of = |texts: &[&str]| audit.lines().filter(|line| texts.iter().all(|it| line.contains(it))).count();
    assert!(of(&["\"withdrawal\"", "fork.spin", "1 instances stopped: log_inconsistent"]) >= 1, "{audit}");
    // Of both agents, and of the load.
    assert!(of(&["\"denial\"", "log_inconsistent"]) >= 3, "{audit}");

    // The log shows what it showed first, and nobody remembers but the disk.
    served.serve("/log/checkpoint", known);
    let server = executor(&served, &log, left_behind(&server)).await;
    counted(&server, "mentatlab_evidence_sources_failing 0");
    counted(&server, "mentatlab_log_forked 1");
    assert_eq!(refusal(load(&server, "fork.later").await), INCONSISTENT);
    server.executor.restore().await;
    assert_eq!(refusal(call(&server, "fork.echo").await), INCONSISTENT);
    let (status, told) = ready(&server).await;
    assert!(status == 503 && told.contains("log fork"), "{status} {told}");
}

/// Uploads bring logs to look at, and anybody who may read asks about one.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_that_an_upload_brings_to_light_ends_what_runs_before_the_next_round() {
    let (served, log) = (LogServer::start().await, Log::new());
    let mut tree = MemoryTree::new();
    tree.push(leaf_hash(b"one"));
    served.serve("/log/checkpoint", log.checkpoint(1, tree.head().root));
    let server = executor(&served, &log, tempfile::tempdir().unwrap()).await;
    let running = spinning(&server, "fork.quiet").await;
    tokio::spawn(Arc::clone(&server.executor).keep_judging());

    // Nobody asks the log but for the sake of a bundle from beyond the tree that is known.
    served.serve("/log/checkpoint", log.checkpoint(1, Hash([9; 32])));
    let refused = load_logged(&server, "fork.later", vec![log.entry(2)]).await;
    assert_eq!(refusal(refused), Some((11, "log_inconsistent")));
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), running).await;
    assert_eq!(refusal(ended.expect("it runs on").unwrap()), Some((11, "log_inconsistent")));
}

/// Until then its calls are refused, and the next round may be long in coming.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_evidence_since_the_start_is_judged_by_what_an_upload_brings() {
    let (served, log) = (LogServer::start().await, Log::new());
    let server = executor(&served, &log, tempfile::tempdir().unwrap()).await;
    let waiting = &server.executor.waiting;
    waiting.add_publisher_for_test("fork.waits", &Publisher::new("s@example.org", ""));
    let mut tree = MemoryTree::new();
    tree.push(leaf_hash(b"one"));
    served.serve("/log/checkpoint", log.checkpoint(1, tree.head().root));
    load_logged(&server, "fork.brings", vec![log.entry(1)]).await.unwrap();
    let judged = async {
        while waiting.all()[0].1.code == "checkpoint_stale" {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), judged).await.expect("it waits for a round");
    // There is no file.
    assert_eq!(waiting.all()[0].1.code, "record_unreadable");
}

/// Anybody on the way can serve an old checkpoint: it ends nothing, is not believed, and does not stay unnoticed.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_went_back_is_not_believed_and_an_executor_that_starts_on_it_is_not_ready() {
    let (served, log) = (LogServer::start().await, Log::new());
    let mut tree = MemoryTree::new();
    let [old, new] = [b"one", b"two"].map(|entry| {
        tree.push(leaf_hash(entry));
        log.checkpoint(tree.head().size, tree.head().root)
    });
    served.serve("/log/checkpoint", new);
    let server = executor(&served, &log, tempfile::tempdir().unwrap()).await;
    load(&server, "back.echo").await.unwrap();
    served.serve("/log/checkpoint", old);
    server.executor.refresh().await;
    call(&server, "back.echo").await.unwrap();
    let told = |server: &Server| {
        counted(server, "mentatlab_evidence_sources_failing 1");
        counted(server, "mentatlab_log_forked 0");
        let source = server.executor.status().sources.into_iter().find(|it| it.name == "checkpoint");
        let source = source.unwrap();
        assert!(!source.ok && source.detail.contains("went back from 2 to 1"), "{source:?}");
    };
    told(&server);
    let server = executor(&served, &log, left_behind(&server)).await;
    told(&server);
    let (status, problems) = ready(&server).await;
    assert!(status == 503 && problems.contains("never fetched completely"), "{status} {problems}");
}
