//! Where an operator sees attacks: each in the series that `docs/operations/attacks.md` names.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Executed, Executor, Terms};
use crate::admission::{AdmittedModule, Denied, GrantSet, GrantSources};
use crate::evidence::EvidenceConfig;
use crate::runtime::{CallLimits, KillCause, Selector};
use crate::testing::texts::{RUN, SLEEPS, STREAMS};
use crate::testing::{Server, admitted, compile_bomb, compiler_starts, put_compiler, wat_echo, wat_spin};

/// A module of this signer, which differs from every other one by a number.
fn numbered(number: usize, signer: &str) -> AdmittedModule {
    let text = format!(
        "(module (memory (export \"memory\") 1) (func (export \"process\") (result i32) (i32.const {number})))"
    );
    admitted(&text, GrantSet::default(), CallLimits::default()).called(&format!("counted.{number}"), signer)
}

async fn with_compiler(does: &str) -> Server {
    let state = tempfile::tempdir().unwrap();
    put_compiler(state.path(), does);
    Server::over(state).await
}

async fn call(executor: &Arc<Executor>, agent: &str) -> Result<Executed, Denied> {
    executor.execute(agent, Bytes::new(), Terms::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compile_bomb_is_counted_each_time_and_compiled_once() {
    let server = with_compiler("ulimit -t 2\nexec \"$WORKER\"").await;
    server.executor.load_for_test(numbered(7, "n@example.org")).await.unwrap();
    let compiled = compiler_starts(server.state());
    let bomb = || {
        let module = AdmittedModule::for_test(compile_bomb(), GrantSet::default(), CallLimits::default());
        module.called("counted.bomb", "a@example.org")
    };
    let loading = {
        let (executor, bomb) = (Arc::clone(&server.executor), bomb());
        tokio::spawn(async move { executor.load_for_test(bomb).await })
    };
    let mut served = 0;
    while !loading.is_finished() {
        assert_eq!(call(&server.executor, "counted.7").await.unwrap().outcome.exit_code, 7);
        served += 1;
    }
    assert!(served > 3, "only {served} calls were served meanwhile");
    assert_eq!(loading.await.unwrap().unwrap_err().code, "compile_budget");
    assert_eq!(server.executor.load_for_test(bomb()).await.unwrap_err().code, "compile_budget");
    assert_eq!(compiler_starts(server.state()), compiled + 1, "what it cost once it does not cost again");
    assert_eq!(server.counted("mentatlab_admissions_total{reason=\"compile_budget\"}"), 2);
    assert_eq!(server.counted("mentatlab_admissions_total{reason=\"admitted\"}"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_that_was_taken_over_is_killed_and_counted() {
    for act in ["connect", "exec", "open"] {
        let server = with_compiler(&format!("exec \"$WORKER\" probe {act}")).await;
        let refused = server.executor.load_for_test(numbered(1, "a@example.org")).await.unwrap_err();
        assert_eq!(refused.code, "compile_budget");
        assert!(refused.message.contains("ended by signal 31"), "{refused}");
        assert_eq!(server.counted("mentatlab_admissions_total{reason=\"compile_budget\"}"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_of_a_signer_that_is_full_is_counted() {
    let server = with_compiler("exec sleep 600").await;
    let mut loads = JoinSet::new();
    // As many as are compiled and wait, and one more.
    for number in 0..2 + 16 + 1 {
        let executor = Arc::clone(&server.executor);
        loads.spawn(async move { executor.load_for_test(numbered(number, "a@example.org")).await });
    }
    let refused = loads.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(refused.code, "compile_queue_full");
    assert_eq!(server.counted("mentatlab_admissions_total{reason=\"compile_queue_full\"}"), 1);
    assert_eq!(loads.len(), 18);
    loads.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_linked_is_refused_and_counted() {
    let server = Server::start().await;
    let process = "(func (export \"process\") (result i32) i32.const 0)";
    let memory = "(memory (export \"memory\") 1)";
    for (reason, text) in [
        ("import_not_granted", "(component (import \"wasi:sockets/tcp@0.2.6\" (instance)))".to_owned()),
        (
            "abi_signature_mismatch",
            format!("(module (import \"mentat\" \"read_input\" (func (result i32))) {memory} {process})"),
        ),
        ("export_missing", format!("(module (memory 1) {process})")),
    ] {
        let module = admitted(&text, GrantSet::default(), CallLimits::default());
        let refused = server.executor.load_for_test(module.called("counted.unlinked", "a@example.org")).await;
        assert_eq!(refused.unwrap_err().code, reason);
        assert_eq!(server.counted(&format!("mentatlab_admissions_total{{reason=\"{reason}\"}}")), 1);
    }
    assert_eq!(server.executor.list(), []);
}

#[tokio::test]
async fn an_agent_that_is_somebody_elses_is_refused_and_counted() {
    const POLICY: &str = r#"{"version":1,"logs":{"witnesses":"not-required"},"capabilities":{"within":[]},"identities":[
        {"subject":"a@example.org","issuer":"any-of-the-authority","level":"verified"},
        {"subject":"b@example.org","issuer":"any-of-the-authority","level":"verified"}]}"#;
    let server = Server::start().await;
    server.executor.parts.admission.replace(crate::admission::Rules::parse(POLICY.as_bytes()).unwrap());
    server.executor.load_for_test(numbered(3, "a@example.org")).await.unwrap();
    let taken = numbered(4, "b@example.org").called("counted.3", "b@example.org");
    assert_eq!(server.executor.load_for_test(taken).await.unwrap_err().code, "agent_taken");
    assert_eq!(server.counted("mentatlab_admissions_total{reason=\"agent_taken\"}"), 1);
    assert_eq!(call(&server.executor, "counted.3").await.unwrap().outcome.exit_code, 3);
}

#[tokio::test]
async fn machine_code_that_somebody_touched_is_counted_and_never_runs() {
    let server = Server::start().await;
    let agent = || numbered(5, "a@example.org");
    let record = server.state().join("artifacts").join(format!("{}.standard-1", agent().digest()));
    server.executor.admit_for_test(agent()).await;
    let genuine = std::fs::read(&record).unwrap();
    let answers = async || call(&server.executor, "counted.5").await.unwrap().outcome.exit_code;
    let edited = {
        let mut edited = genuine.clone();
        edited[genuine.len() / 2] ^= 1;
        edited
    };
    let cut = genuine[..genuine.len() - 1].to_vec();
    for (refused, bytes) in [(1, edited), (2, cut), (3, b"something else".to_vec())] {
        // Replaced after it was checked: what was checked is what runs.
        std::fs::write(&record, &bytes).unwrap();
        assert_eq!(answers().await, 5);
        server.executor.unload("counted.5").await.unwrap();
        server.executor.admit_for_test(agent()).await;
        assert_eq!(server.counted("mentatlab_artifact_cache_total{reason=\"refused\"}"), refused);
        assert_eq!(answers().await, 5);
    }
    assert_eq!(server.counted("mentatlab_artifact_cache_total{reason=\"compiled\"}"), 1);
    server.executor.close().await;
    let audit = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
    assert_eq!(audit.matches("\"event_type\":\"cache_refusal\"").count(), 3);
}

/// A component whose `process` is `body`, over a host function that is lowered to `host`.
fn component(types: &str, host: &str, parameters: &str, body: &str) -> String {
    format!(
        r#"(component {types}
  (core module $libc (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 32768)))
  (core instance $libc (instantiate $libc))
  (core func $host {host})
  (core module $m (import "host" "host" (func $host {parameters})) (import "libc" "memory" (memory 1))
    (func (export "process") (result i32) (local $n i32) {body} (i32.store (i32.const 0) (i32.const 0)) (i32.const 0)))
  (core instance $m (instantiate $m (with "host" (instance (export "host" (func $host)))) (with "libc" (instance $libc))))
  (func (export "process") (result (result (error string)))
    (canon lift (core func $m "process") (memory $libc "memory"))))"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_that_claim_and_take_without_end_are_counted_by_what_ended_them() {
    let server = Server::start().await;
    let log = r#"(import "mentat:agent/types@1.0.0" (instance $types
        (type $l (enum "error" "warn" "info" "debug" "trace")) (export "level" (type (eq $l)))))
      (alias export $types "level" (type $level))
      (import "mentat:agent/log@1.0.0" (instance $log
        (alias outer 1 $level (type $l)) (export "level" (type $level (eq $l)))
        (export "log" (func (param "level" $level) (param "message" string)))))"#;
    let lowered =
        "(canon lower (func $log \"log\") (memory $libc \"memory\") (realloc (func $libc \"realloc\")))";
    let claims = component(
        log,
        lowered,
        "(param i32 i32 i32)",
        "(call $host (i32.const 0) (i32.const 0) (i32.const -1))",
    );
    let handles = component(
        "(type $r (resource (rep i32)))",
        "(canon resource.new $r)",
        "(param i32) (result i32)",
        "(loop $l (drop (call $host (i32.const 7))) (br $l))",
    );
    let random = format!(
        r#"(component {STREAMS}
  (import "wasi:random/random@0.2.0" (instance $random (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
  (core func $bytes (canon lower (func $random "get-random-bytes") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core module $main (import "host" "bytes" (func $bytes (param i64 i32)))
    (func (export "run") (result i32) (call $bytes (i64.const 0x7fffffffffff) (i32.const 16)) (i32.const 0)))
  (core instance $main (instantiate $main (with "host" (instance (export "bytes" (func $bytes))))))
  {RUN})"#
    );
    let before = |entry: &str| {
        format!(
            r#"(module (memory (export "memory") 1) (func $spin (loop $l (br $l))) {entry}
                (func (export "process") (result i32) i32.const 0))"#
        )
    };
    let patient =
        CallLimits { cpu: Duration::from_secs(60), wall: Duration::from_secs(120), ..CallLimits::default() };
    let short = CallLimits { wall: Duration::from_millis(50), ..CallLimits::default() };
    for (agent, text, limits, ends) in [
        ("counted.claims", claims, patient, "trap"),
        ("counted.handles", handles, patient, "trap"),
        ("counted.random", random, patient, "trap"),
        ("counted.start", before("(start $spin)"), short, "deadline_exceeded"),
        ("counted.init", before("(export \"_initialize\" (func $spin))"), short, "deadline_exceeded"),
    ] {
        let module = admitted(&text, GrantSet::default(), limits).called(agent, "a@example.org");
        server.executor.admit_for_test(module).await;
        assert_eq!(call(&server.executor, agent).await.unwrap_err().code, ends, "{agent}");
    }
    assert_eq!(server.counted("wasm_instances_total{status=\"trap\"}"), 3);
    assert_eq!(server.counted("wasm_instances_total{status=\"deadline_exceeded\"}"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_revoked_while_it_waits_in_the_host_is_counted() {
    let server = Server::start().await;
    let long = CallLimits { wall: Duration::from_secs(600), ..CallLimits::default() };
    server
        .executor
        .admit_for_test(admitted(SLEEPS, GrantSet::default(), long).called("counted.sleeps", "s@example.org"))
        .await;
    let executor = Arc::clone(&server.executor);
    let waiting = tokio::spawn(async move { call(&executor, "counted.sleeps").await });
    let agent = server.executor.agents.find("counted.sleeps").unwrap();
    while !server.executor.parts.runtime.live().has(agent.admission()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Nobody vouches for it, which the next look finds out.
    *server.executor.parts.admission.ruling.lock() =
        Some(Box::new(|_| Err(Denied::in_step(12, "revoked", "revoked"))));
    let record = server.state().join("artifacts").join(format!("{}.standard-1", agent.digest));
    assert!(record.exists());
    server.executor.refresh().await;
    assert_eq!(waiting.await.unwrap().unwrap_err().code, "revoked");
    assert_eq!(server.counted("mentatlab_instances_stopped_total"), 1);
    assert_eq!(server.counted("mentatlab_agents_withdrawn_total{reason=\"revoked\"}"), 1);
    assert_eq!(server.counted("wasm_instances_total{status=\"revoked\"}"), 1);
    assert!(!record.exists(), "the machine code of what was revoked is not kept");
}

#[tokio::test]
async fn what_an_instance_left_is_not_there_for_the_next_one() {
    let server = Server::start().await;
    // Ends with what it finds where it writes.
    let text = r#"(module (memory (export "memory") 1)
        (func (export "process") (result i32) (local $seen i32)
          (local.set $seen (i32.load (i32.const 4096)))
          (i32.store (i32.const 4096) (i32.const 77)) (local.get $seen)))"#;
    let module = admitted(text, GrantSet::default(), CallLimits::default());
    server.executor.admit_for_test(module.called("counted.leaves", "a@example.org")).await;
    for _ in 0..50 {
        assert_eq!(call(&server.executor, "counted.leaves").await.unwrap().outcome.exit_code, 0);
    }
    assert_eq!(server.counted("wasm_instances_total{status=\"success\"}"), 50);
    assert_eq!(server.counted("wasm_instances_total{status=\"guest_error\"}"), 0);
}

#[tokio::test]
async fn what_guests_ask_for_is_counted_by_what_they_are_told() {
    let server = Server::start().await;
    let granted = vec!["env:TOKEN".parse().unwrap()];
    let env = [("TOKEN".to_owned(), "s3cret".to_owned())].into();
    let grants =
        GrantSources { env, ..GrantSources::default() }.grant(&granted, granted.clone(), &[]).unwrap();
    // What is granted once; what is not, and what is no capability, twice; then guessed and closed handles.
    let text = r#"(module
        (import "mentat" "request_capability" (func $request (param i32 i32) (result i32)))
        (import "mentat" "invoke_capability" (func $invoke (param i32 i32 i32 i32 i32) (result i32)))
        (import "mentat" "close" (func $close (param i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 0) "env:TOKENenv:OTHERget")
        (func $bad (param $handle i32) (result i32)
          (i32.eq (i32.const -5)
            (call $invoke (local.get $handle) (i32.const 18) (i32.const 3) (i32.const 0) (i32.const 0))))
        (func (export "process") (result i32) (local $h i32)
          (local.set $h (call $request (i32.const 0) (i32.const 9)))
          (drop (call $request (i32.const 9) (i32.const 9))) (drop (call $request (i32.const 9) (i32.const 9)))
          (drop (call $request (i32.const 18) (i32.const 3))) (drop (call $request (i32.const 18) (i32.const 3)))
          (drop (call $close (local.get $h)))
          (i32.add (call $bad (local.get $h)) (i32.add (call $bad (i32.const 0)) (call $bad (i32.const 12345))))))"#;
    let module = admitted(text, grants, CallLimits::default()).called("counted.asks", "a@example.org");
    server.executor.admit_for_test(module).await;
    assert_eq!(
        call(&server.executor, "counted.asks").await.unwrap().outcome.exit_code,
        3,
        "three handles are bad"
    );
    let asked = |kind: &str, result: &str| {
        server.counted(&format!(
            "mentatlab_capability_requests_total{{agent_id=\"counted.asks\",capability_type=\"{kind}\",result=\"{result}\"}}"
        ))
    };
    let all = [asked("env", "granted"), asked("env", "denied"), asked("none", "malformed")];
    assert_eq!(all, [1, 2, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_wait_for_a_place_are_counted_while_they_wait() {
    let server = Server::start().await;
    let long =
        CallLimits { wall: Duration::from_secs(60), cpu: Duration::from_secs(60), ..CallLimits::default() };
    let sleeps = admitted(SLEEPS, GrantSet::default(), long).called("counted.greedy", "a@example.org");
    server.executor.admit_for_test(sleeps).await;
    server
        .executor
        .admit_for_test(
            admitted(wat_echo(), GrantSet::default(), long).called("counted.other", "b@example.org"),
        )
        .await;
    let mut calls = JoinSet::new();
    // The tests' pool has 64 places, of which one agent has a quarter.
    for _ in 0..16 + 3 {
        let executor = Arc::clone(&server.executor);
        calls.spawn(async move { call(&executor, "counted.greedy").await });
    }
    while server.counted("mentatlab_callers_waiting") < 3 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(server.counted("mentatlab_callers_waiting"), 3);
    call(&server.executor, "counted.other").await.unwrap();
    // Whoever gets a place when others are stopped is stopped in turn.
    let selector = Selector { agent: Some("counted.greedy".into()), ..Selector::default() };
    let mut stopped = 0;
    while stopped < 19 {
        server.executor.parts.runtime.stop(&selector, KillCause::Operator);
        while let Ok(Some(ended)) = tokio::time::timeout(Duration::from_millis(20), calls.join_next()).await {
            assert_eq!(ended.unwrap().unwrap_err().code, "stopped");
            stopped += 1;
        }
    }
    assert_eq!(server.counted("mentatlab_callers_waiting"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_cannot_be_believed_is_a_failed_source() {
    // It answers every request, and with nothing that anybody signed.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut asked in listener.incoming().flatten() {
            let _ = asked.read(&mut [0; 4096]);
            let _ = asked.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nlist");
        }
    });
    let evidence = EvidenceConfig {
        crl_urls: vec![format!("http://{address}/list.crl")],
        timeout: Duration::from_secs(20),
        ..EvidenceConfig::default()
    };
    let server = Server::asking(evidence).await;
    server.executor.refresh().await;
    let failing = server.executor.status().sources.iter().filter(|source| !source.ok).count() as u64;
    assert!(failing > 0, "{:?}", server.executor.status().sources);
    assert_eq!(server.counted("mentatlab_evidence_sources_failing"), failing);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_guests_is_told_while_they_have_it() {
    let server = Server::start().await;
    let long =
        CallLimits { wall: Duration::from_secs(60), cpu: Duration::from_secs(60), ..CallLimits::default() };
    let grown =
        wat_spin().replace("(loop $l (br $l))", "(drop (memory.grow (i32.const 99))) (loop $l (br $l))");
    server
        .executor
        .admit_for_test(admitted(&grown, GrantSet::default(), long).called("counted.grown", "a@example.org"))
        .await;
    let admission = server.executor.agents.find("counted.grown").unwrap().admission();
    let has = || {
        let held = server.executor.parts.runtime.live().held();
        held.iter().filter(|held| held.owner.admission == admission).map(|held| held.memory).sum::<u64>()
    };
    let executor = Arc::clone(&server.executor);
    let running = tokio::spawn(async move { call(&executor, "counted.grown").await });
    while has() < 100 << 16 {
        assert!(!running.is_finished());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Others of this process run guests in the same runtime.
    assert!(server.counted("wasm_memory_usage_bytes") >= 100 << 16);
    server.executor.unload("counted.grown").await.unwrap();
    assert_eq!(running.await.unwrap().unwrap_err().code, "stopped");
    assert_eq!(has(), 0);
    assert_eq!(server.counted("mentatlab_wasm_memory_bytes{agent_id=\"counted.grown\"}"), 100 << 16);
}
