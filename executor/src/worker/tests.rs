#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
//! Real workers: the executor beside this test executable, confined as in production.

mod counted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executor_engine::Profile;
use executor_engine::frames::{CallOrder, End, FromWorker, Lines, OVERHEAD, StopOrder, ToWorker, Trial};
use trust_store::policy::TrustLevel;

use super::WorkerLimits;
use crate::admission::{Denied, GrantSet, GrantSources, SignerKey};
use crate::component::tells;
use crate::executor::{Executed, Next, Terms};
use crate::runtime::{CallLimits, HostRates, KillCause, Seed, Selector};
use crate::testing::texts::SLEEPS;
use crate::testing::{Server, admitted, wat_echo, wat_spin};

const SPIN_WITH_OUTPUT: &str = r#"(module
    (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "process") (result i32)
      (drop (call $write (i32.const 0) (i32.const 8)))
      (loop $l (br $l)) (i32.const 0)))"#;

pub(super) async fn server() -> Server {
    Server::with_workers(WorkerLimits { processes: 4, calls: 4, ..WorkerLimits::default() }).await
}

/// Lets a module in at the level `signed`, as one of this signer.
async fn admit(server: &Server, text: &str, agent: &str, signer: &str, grants: GrantSet, limits: CallLimits) {
    let module = admitted(text, grants, limits).called(agent, signer).at(TrustLevel::Signed);
    server.executor.admit_for_test(module).await;
}

pub(super) async fn admit_plain(server: &Server, text: &str, agent: &str, signer: &str) {
    admit(server, text, agent, signer, GrantSet::default(), CallLimits::default()).await;
}

pub(super) async fn call(server: &Server, agent: &str, input: &'static [u8]) -> Result<Executed, Denied> {
    server.executor.execute(agent, Bytes::from_static(input), Terms::default()).await
}

/// Starts a call and waits until its guest runs in the worker.
async fn running(
    server: &Server,
    agent: &'static str,
    signer: &str,
) -> tokio::task::JoinHandle<Result<Executed, Denied>> {
    let executor = Arc::clone(&server.executor);
    let running = tokio::spawn(async move { executor.execute(agent, Bytes::new(), Terms::default()).await });
    let workers = server.executor.runtime().workers().unwrap();
    while !workers.carries(&key(signer)) {
        assert!(!running.is_finished(), "the call ended before it was seen: {:?}", running.await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    running
}

/// The receipt of a call, once a checkpoint covers it.
async fn receipt_of(server: &Server, done: &Executed) -> executor_api::receipt::Receipt {
    let instance = done.outcome.instance.to_string();
    let proof = loop {
        match server.executor.receipts().of_instance(&instance) {
            Ok(proof) => break proof,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let entry = tlog::proof_file::ProofFile::parse(&proof).unwrap().extra.unwrap();
    executor_api::receipt::Receipt::from_entry(&entry).unwrap()
}

pub(super) fn key(signer: &str) -> SignerKey {
    SignerKey::for_test(signer, TrustLevel::Signed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_of_a_signer_who_is_not_trusted_runs_in_a_process_of_his_own_and_has_a_receipt() {
    let server = server().await;
    admit_plain(&server, wat_echo(), "w.one", "one@example.org").await;
    admit_plain(&server, wat_echo(), "w.two", "two@example.org").await;
    let first = call(&server, "w.one", b"hello").await.unwrap();
    assert_eq!((first.outcome.output.as_slice(), first.outcome.exit_code), (&b"hello"[..], 0));
    assert_eq!(first.outcome.usage.memory_bytes, 65_536);
    assert_eq!(call(&server, "w.two", b"other").await.unwrap().outcome.output, b"other");
    assert_eq!(server.executor.running_workers(), 2, "one process for each signer");
    // Many at once, and again: no answer goes astray, further calls wait for a lane, and an allocator that gives memory back
    // between them does not end the worker.
    for round in 0..8u32 {
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..16u32 {
            let executor = Arc::clone(&server.executor);
            calls.spawn(async move {
                let input = Bytes::from(vec![n as u8; 1 + (n + round) as usize * 3000]);
                let ran = executor.execute("w.one", input.clone(), Terms::default()).await.unwrap();
                assert_eq!(ran.outcome.output, input[..input.len().min(65_536)]);
            });
        }
        while let Some(done) = calls.join_next().await {
            done.unwrap();
        }
    }
    let status = server.executor.status();
    let tier = status.tiers.iter().find(|tier| tier.level == "signed").unwrap();
    assert!(tier.missing.is_none() && tier.enforced.iter().any(|name| name.starts_with("seccomp")));
    // The receipt is the executor's own word, with digests that it took itself.
    let receipt = receipt_of(&server, &first).await;
    assert_eq!(receipt.seed, None);
    let digest = |bytes: &[u8]| hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes));
    assert_eq!((receipt.trust_level.as_str(), receipt.reason.as_str()), ("signed", "success"));
    assert_eq!((receipt.input, receipt.output), (digest(b"hello"), digest(b"hello")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_from_module_and_input_follows_in_a_worker_as_well() {
    let limits = WorkerLimits { processes: 2, calls: 2, ..WorkerLimits::default() };
    let server = Server::with_workers_under(Profile::Deterministic, limits).await;
    admit_plain(&server, &tells(), "w.told", "told@example.org").await;
    let here = admitted(&tells(), GrantSet::default(), CallLimits::default());
    let digest = server.executor.admit_for_test(here.called("w.here", "here@example.org")).await;
    let first = call(&server, "w.told", b"one").await.unwrap();
    assert_eq!(first.outcome.output.len(), 80);
    assert_eq!(call(&server, "w.told", b"one").await.unwrap().outcome.output, first.outcome.output);
    assert_ne!(call(&server, "w.told", b"two").await.unwrap().outcome.output, first.outcome.output);
    let inside = call(&server, "w.here", b"one").await.unwrap().outcome;
    assert_eq!((&inside.output, inside.usage.fuel), (&first.outcome.output, first.outcome.usage.fuel));
    let receipt = receipt_of(&server, &first).await;
    assert_eq!(receipt.seed, Some(hex::encode(Seed::of(digest, b"one").0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_trusted_gets_clocks_in_steps_of_a_millisecond() {
    let server = server().await;
    let text = tells().replace("(i64.const 600000000000)", "(i64.const 1500000)");
    admit_plain(&server, &text, "w.clocks", "clocks@example.org").await;
    let here = admitted(&text, GrantSet::default(), CallLimits::default());
    server.executor.admit_for_test(here.called("w.trusted", "trusted@example.org")).await;
    let (mut told, mut trusted) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        for (agent, kept) in [("w.clocks", &mut told), ("w.trusted", &mut trusted)] {
            let output = call(&server, agent, b"").await.unwrap().outcome.output;
            let number = |at: usize| u64::from_le_bytes(output[at..at + 8].try_into().unwrap());
            kept.extend([number(8) & 0xffff_ffff, number(16), number(48)]);
            assert!(number(48) >= number(16) + 1_000_000, "it slept for a millisecond and a half");
            assert!(number(0) > 1_700_000_000, "the time is the host's");
        }
    }
    assert!(told.iter().all(|nanos| nanos % 1_000_000 == 0), "{told:?}");
    assert!(trusted.iter().any(|nanos| nanos % 1_000_000 != 0), "{trusted:?}");
}

/// Floods a rate that is counted in the worker, and one that is counted here; gives how many of each were refused.
const FLOODS: &str = r#"(module
    (import "mentat" "record_metric" (func $metric (param i32 i32 f64) (result i32)))
    (import "mentat" "request_capability" (func $request (param i32 i32) (result i32)))
    (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
    (memory (export "memory") 1) (data (i32.const 0) "a") (data (i32.const 16) "env:NONE")
    (func (export "process") (result i32) (local $n i32)
      (loop $l
        (if (i32.eq (call $metric (i32.const 0) (i32.const 1) (f64.const 1)) (i32.const -6))
          (then (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1)))))
        (if (i32.eq (call $request (i32.const 16) (i32.const 8)) (i32.const -6))
          (then (i32.store (i32.const 68) (i32.add (i32.load (i32.const 68)) (i32.const 1)))))
        (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 500))))
      (drop (call $write (i32.const 64) (i32.const 8))) (i32.const 0)))"#;

#[tokio::test(flavor = "multi_thread")]
async fn host_calls_that_come_too_fast_are_refused_in_a_worker_and_by_the_executor() {
    let server = server().await;
    let rates = HostRates { metrics: 20, capabilities: 30, ..HostRates::default() };
    let limits = CallLimits { metrics: 1_000, rates, ..CallLimits::default() };
    let granted = vec!["env:TOKEN".parse().unwrap()];
    let env = [("TOKEN".to_owned(), "s3cret".to_owned())].into();
    let sources = GrantSources { env, ..GrantSources::default() };
    let grants = sources.grant(&granted, granted.clone(), &[]).unwrap();
    admit(&server, FLOODS, "w.floods", "floods@example.org", grants, limits).await;
    let done = call(&server, "w.floods", b"").await.unwrap().outcome;
    let [metrics, requests] =
        [&done.output[..4], &done.output[4..]].map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap()));
    // A machine that is very slow lets time pass; what one second has is all that a guest has at once.
    assert!((1..=480).contains(&metrics) && (1..=470).contains(&requests), "{metrics} {requests}");
    assert_eq!(done.metrics.len(), 500 - metrics as usize);
    let counted = server.exposition();
    for (interface, refused) in [("metric", metrics), ("capability", requests)] {
        let line = format!("mentatlab_host_call_refusals_total{{interface=\"{interface}\"}} {refused}");
        assert!(counted.lines().any(|known| known == line), "{line}\n{counted}");
        let said = format!("host_call_rate: calls of `{interface}`");
        assert_eq!(done.log.iter().filter(|line| line.text.starts_with(&said)).count(), 1, "{interface}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_words_of_a_guest_come_out_of_its_worker() {
    let server = server().await;
    let text = r#"(module (import "mentat" "log" (func $log (param i32 i32 i32)))
        (memory (export "memory") 1) (data (i32.const 0) "no such row")
        (func (export "process") (result i32)
          (call $log (i32.const 0) (i32.const 0) (i32.const 11)) unreachable))"#;
    admit_plain(&server, text, "w.words", "words@example.org").await;
    let denied = call(&server, "w.words", b"").await.unwrap_err();
    assert_eq!(denied.code, "trap");
    assert_eq!(denied.said.unwrap().log[0].text, "no such row");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_spins_in_a_worker_is_stopped_by_every_limit_and_by_name() {
    let server = server().await;
    let limits = |cpu, wall| CallLimits {
        cpu: Duration::from_millis(cpu),
        wall: Duration::from_millis(wall),
        ..CallLimits::default()
    };
    for (agent, limits, code) in
        [("w.cpu", limits(30, 60_000), "cpu_budget"), ("w.wall", limits(60_000, 50), "deadline_exceeded")]
    {
        admit(&server, wat_spin(), agent, "s@example.org", GrantSet::default(), limits).await;
        assert_eq!(call(&server, agent, b"").await.unwrap_err().code, code);
    }
    let long = limits(60_000, 60_000);
    admit(&server, SPIN_WITH_OUTPUT, "w.spin", "s@example.org", GrantSet::default(), long).await;
    let spinning = running(&server, "w.spin", "s@example.org").await;
    let before = server.executor.runtime().workers().unwrap().process_of(&key("s@example.org")).unwrap();
    let selector = Selector { agent: Some("w.spin".into()), ..Selector::default() };
    assert_eq!(server.executor.stop(&selector).unwrap(), 1);
    assert_eq!(spinning.await.unwrap().unwrap_err().code, "stopped");
    // The guest ended, not its worker.
    admit_plain(&server, wat_echo(), "w.after", "s@example.org").await;
    call(&server, "w.after", b"x").await.unwrap();
    let after = server.executor.runtime().workers().unwrap().process_of(&key("s@example.org")).unwrap();
    assert!(Arc::ptr_eq(&before, &after), "an obedient worker was ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_overtakes_its_call_ends_the_call_and_not_the_worker() {
    let server = server().await;
    let minute = Duration::from_secs(60);
    let long = CallLimits { cpu: minute, wall: minute, ..CallLimits::default() };
    admit(&server, wat_spin(), "w.early", "early@example.org", GrantSet::default(), long).await;
    let workers = Arc::clone(server.executor.runtime().workers().unwrap());
    let process = workers.process_of(&key("early@example.org")).unwrap();
    let (mut lane, call) = process.take_lane().unwrap();
    let account = process.open_account(minute);
    let cause = KillCause::CallerGone as u8;
    process.stop(StopOrder { lane: lane.number, call, cause }).unwrap();
    // For certain before its call.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let order = CallOrder {
        call,
        module: process.mapped_one().unwrap(),
        trial: Trial::Call,
        wall_us: 60_000_000,
        cpu_us: 60_000_000,
        memory: 1 << 20,
        seed: [0; 32],
        lines: Lines::AtTheEnd,
        input: b"",
    };
    lane.channel.send(&ToWorker::Call(order).encode(), &[], minute, &mut || false).unwrap();
    // Long before its own time is up, on a busy machine as well.
    let answer = lane.channel.receive(OVERHEAD, minute / 2).unwrap();
    let answer = answer.expect("the guest runs on, although it was stopped");
    let FromWorker::Ended(ended) = FromWorker::decode(&answer).unwrap() else { panic!("{answer:?}") };
    assert!(matches!(ended.end, End::Failed { reason: "killed", .. }), "{ended:?}");
    process.close_account(&account);
    process.give_back(lane);
    // Callers who leave while their input is carried, sooner and later.
    for after in [1, 3, 6, 10, 15, 25] {
        let input = Bytes::from(vec![7; 16 << 20]);
        let call = server.executor.execute("w.early", input, Terms::default());
        assert!(tokio::time::timeout(Duration::from_millis(after), call).await.is_err());
    }
    while server.executor.runtime().live().count() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let after = workers.process_of(&key("early@example.org")).expect("the worker was ended");
    assert!(Arc::ptr_eq(&process, &after) && after.lives(), "an obedient worker was ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_loses_its_calls_and_nobody_elses() {
    let server = server().await;
    let long =
        CallLimits { wall: Duration::from_secs(60), cpu: Duration::from_secs(60), ..CallLimits::default() };
    admit(&server, SLEEPS, "w.victim", "victim@example.org", GrantSet::default(), long).await;
    admit(&server, SLEEPS, "w.other", "other@example.org", GrantSet::default(), long).await;
    admit_plain(&server, wat_echo(), "w.again", "victim@example.org").await;
    let victim = running(&server, "w.victim", "victim@example.org").await;
    let other = running(&server, "w.other", "other@example.org").await;
    let workers = Arc::clone(server.executor.runtime().workers().unwrap());
    assert_eq!(workers.process_of(&key("victim@example.org")).unwrap().end(), "ended by signal 9");
    let lost = victim.await.unwrap().unwrap_err();
    assert_eq!(lost.code, "worker_lost");
    assert!(!other.is_finished(), "the worker of another signer is another one");
    // It is started again, at the latest after a while.
    let mut tries = 0;
    while let Err(denied) = call(&server, "w.again", b"x").await {
        assert_eq!(denied.code, "worker_lost");
        tries += 1;
        assert!(tries < 200, "{denied:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let selector = Selector { agent: Some("w.other".into()), ..Selector::default() };
    server.executor.stop(&selector).unwrap();
    assert_eq!(other.await.unwrap().unwrap_err().code, "stopped");
    server.executor.close().await;
    let audit = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
    let record = audit.lines().find(|line| line.contains("\"event_type\":\"worker_lost\"")).unwrap();
    assert!(record.contains("victim@example.org"), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_bounded_and_the_one_that_was_used_longest_ago_makes_room() {
    let limits =
        WorkerLimits { processes: 1, calls: 2, idle: Duration::from_millis(1), ..WorkerLimits::default() };
    let server = Server::with_workers(limits).await;
    let workers = Arc::clone(server.executor.runtime().workers().unwrap());
    for agent in ["w.a", "w.b"] {
        admit_plain(&server, wat_echo(), agent, &format!("{agent}@example.org")).await;
    }
    for agent in ["w.a", "w.b", "w.a"] {
        call(&server, agent, b"x").await.unwrap();
        assert_eq!(server.executor.running_workers(), 1);
    }
    let long =
        CallLimits { wall: Duration::from_secs(60), cpu: Duration::from_secs(60), ..CallLimits::default() };
    admit(&server, SLEEPS, "w.c", "w.a@example.org", GrantSet::default(), long).await;
    let busy = running(&server, "w.c", "w.a@example.org").await;
    assert_eq!(call(&server, "w.b", b"x").await.unwrap_err().code, "pool_exhausted");
    server.executor.stop(&Selector { agent: Some("w.c".into()), ..Selector::default() }).unwrap();
    busy.await.unwrap().unwrap_err();
    tokio::time::sleep(Duration::from_millis(5)).await;
    workers.look_after(crate::clock::monotonic());
    assert_eq!(server.executor.running_workers(), 0, "nobody calls it");
    call(&server, "w.b", b"x").await.unwrap();
}

fn granting(texts: &[&str]) -> GrantSet {
    let granted: Vec<trust_store::capability::Capability> =
        texts.iter().map(|text| text.parse().unwrap()).collect();
    let env = BTreeMap::from([("TOKEN".to_owned(), "s3cret".to_owned())]);
    GrantSources { env, ..GrantSources::default() }.grant(&granted, granted.clone(), &[]).unwrap()
}

/// Asks for `env:TOKEN`, reads it, streams it, logs it, and asks for what it was not given.
const ASKS: &str = r#"(module
    (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
    (import "mentat" "log" (func $log (param i32 i32 i32)))
    (import "mentat" "record_metric" (func $metric (param i32 i32 f64) (result i32)))
    (import "mentat" "buffer_read" (func $read (param i32 i32 i32 i64) (result i32)))
    (import "mentat" "request_capability" (func $request (param i32 i32) (result i32)))
    (import "mentat" "invoke_capability" (func $invoke (param i32 i32 i32 i32 i32) (result i32)))
    (import "mentat" "start_stream" (func $start (param i32 i32) (result i32)))
    (import "mentat" "write_stream" (func $piece (param i32 i32 i32) (result i32)))
    (import "mentat" "end_stream" (func $end (param i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "env:TOKEN get env:OTHER words")
    (func (export "process") (result i32)
      (local $n i32) (local $s i32)
      (local.set $n (call $read
        (call $invoke (call $request (i32.const 0) (i32.const 9)) (i32.const 10) (i32.const 3) (i32.const 0) (i32.const 0))
        (i32.const 200) (i32.const 64) (i64.const 0)))
      (drop (call $write (i32.const 200) (local.get $n)))
      (call $log (i32.const 2) (i32.const 200) (local.get $n))
      (drop (call $metric (i32.const 24) (i32.const 5) (f64.const 2.5)))
      (local.set $s (call $start (i32.const 24) (i32.const 5)))
      (drop (call $piece (local.get $s) (i32.const 200) (local.get $n)))
      (drop (call $piece (local.get $s) (i32.const 24) (i32.const 5)))
      (drop (call $end (local.get $s)))
      (call $request (i32.const 14) (i32.const 9))))"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_the_sandbox_is_asked_of_the_executor_and_judged_there() {
    let server = server().await;
    let grants = granting(&["env:TOKEN", "extension:stream"]);
    admit(&server, ASKS, "w.asks", "asks@example.org", grants, CallLimits::default()).await;
    let mut streaming =
        server.executor.execute_streaming("w.asks", Bytes::new(), Terms::default()).await.unwrap();
    let mut pieces = Vec::new();
    let ended = loop {
        match streaming.next().await.unwrap() {
            Next::Event(crate::StreamEvent::Log(line)) => pieces.push(format!("logged {}", line.text).into()),
            Next::Event(crate::StreamEvent::Data { bytes, .. }) => pieces.push(bytes),
            Next::Event(crate::StreamEvent::End { total_chunks, .. }) => assert_eq!(total_chunks, 2),
            Next::Event(missed) => panic!("{missed:?}"),
            Next::Ended(ended) => break ended.unwrap(),
        }
    };
    // What was logged before something was streamed is read before it, and stands in the log once.
    assert_eq!(pieces, [&b"logged s3cret"[..], b"s3cret", b"words"]);
    assert_eq!(ended.outcome.log.len(), 1);
    let outcome = ended.outcome;
    assert_eq!((outcome.output.as_slice(), outcome.exit_code), (&b"s3cret"[..], -3));
    assert_eq!(outcome.log[0].text, "s3cret");
    assert_eq!((outcome.metrics[0].name.as_str(), outcome.metrics[0].value), ("words", 2.5));
    server.executor.close().await;
    let audit = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
    let record = audit.lines().find(|line| line.contains("\"agent_execution\"")).unwrap();
    assert!(record.contains("capability_denied: env:OTHER"), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wasi_component_runs_in_a_worker_and_is_stopped_while_it_sleeps() {
    let server = server().await;
    let long = CallLimits { wall: Duration::from_secs(600), ..CallLimits::default() };
    admit(&server, SLEEPS, "w.sleeps", "z@example.org", GrantSet::default(), long).await;
    let selector = Selector { agent: Some("w.sleeps".into()), ..Selector::default() };
    for (cause, code) in [(KillCause::Operator, "stopped"), (KillCause::Stale, "evidence_stale")] {
        let sleeping = running(&server, "w.sleeps", "z@example.org").await;
        server.executor.runtime().stop(&selector, cause);
        assert_eq!(sleeping.await.unwrap().unwrap_err().code, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_may_not_be_linked_is_refused_with_its_reason_by_its_worker() {
    let server = server().await;
    let runtime = Arc::clone(server.executor.runtime());
    for (text, code) in [
        (ASKS, "import_not_granted"),
        ("(module (memory (export \"memory\") 1))", "export_missing"),
        (
            "(module (import \"mentat\" \"log\" (func (param i32))) (memory (export \"memory\") 1) \
             (func (export \"process\") (result i32) (i32.const 0)))",
            "abi_signature_mismatch",
        ),
    ] {
        let module = admitted(text, GrantSet::default(), CallLimits::default()).at(TrustLevel::Community);
        let state = tempfile::tempdir().unwrap();
        let cache = crate::testing::cache(state.path());
        let (loaded, _) = cache.load(runtime.engine(), Profile::Standard, &module).await.unwrap();
        let (runtime, expected) = (Arc::clone(&runtime), code);
        let refused = tokio::task::spawn_blocking(move || {
            crate::runtime::Prepared::new(&runtime, &loaded, &module).err().unwrap()
        });
        assert_eq!(refused.await.unwrap().code(), expected);
    }
    // A signer without modules keeps no worker; its end takes a moment.
    while server.executor.running_workers() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memories_that_others_left_large_take_nothing_of_the_next_guest() {
    let memory = executor_engine::limits::MAX_GUEST_MEMORY;
    let limits = WorkerLimits { processes: 1, calls: 1, guest_memory: memory, ..WorkerLimits::default() };
    let server = Server::with_workers(limits).await;
    let large = CallLimits { memory, ..CallLimits::default() };
    // Each has a memory of the pool to itself while others were never used.
    for number in 0..16 {
        let text = format!(
            r#"(module (memory (export "memory") 1) (func (export "process") (result i32)
                (drop (i32.const {number})) (i32.ne (memory.grow (i32.const 8000)) (i32.const 1))))"#
        );
        let agent = format!("w.large{number}");
        admit(&server, &text, &agent, "large@example.org", GrantSet::default(), large).await;
        let ran = call(&server, &agent, b"").await.unwrap();
        assert_eq!(ran.outcome.exit_code, 0, "guest {number} cannot grow");
    }
    assert_eq!(server.executor.running_workers(), 1);
}
