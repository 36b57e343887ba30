//! Pipelines and containers, with agents that came through the tests' own door.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executor_api::receipt::{ExitClass, Receipt};
use executor_engine::ModuleDigest;
use parking_lot::Mutex;
use trust_store::manifest::Runtime;

use super::{Executor, Terms};
use crate::admission::{AdmittedModule, Denied, GrantSet};
use crate::containers::{
    AdmittedImage, ContainerBackend, ContainerCall, ContainerOutcome, EngineUnavailable, NoEngine,
};
use crate::runtime::{CallError, CallLimits, KillCause, Selector, Stop};
use crate::testing::{Server, admitted, patient, wat_echo, wat_spin};

/// Ends with the code 7.
const WAT_FAIL: &str =
    r#"(module (memory (export "memory") 1) (func (export "process") (result i32) (i32.const 7)))"#;

/// Answers with its input behind a mark.
pub(super) fn wat_mark(mark: char) -> String {
    format!(
        r#"(module
        (import "mentat" "read_input" (func $read (param i32 i32 i32) (result i32)))
        (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 0) "{mark}")
        (func (export "process") (result i32)
          (drop (call $write (i32.const 0)
            (i32.add (i32.const 1) (call $read (i32.const 1) (i32.const 65535) (i32.const 0)))))
          (i32.const 0)))"#
    )
}

/// Lets a module in; its digest in hexadecimal.
pub(super) async fn agent(server: &Server, id: &str, text: &str) -> String {
    let admitted = admitted(text, GrantSet::default(), CallLimits::default()).called(id, "s@example.org");
    server.executor.admit_for_test(admitted).await.to_string()
}

/// One that runs until somebody stops it.
pub(super) async fn spinning(server: &Server, id: &str) -> String {
    let admitted = admitted(wat_spin(), GrantSet::default(), patient()).called(id, "s@example.org");
    server.executor.admit_for_test(admitted).await.to_string()
}

pub(super) struct Draft<'a> {
    pub(super) name: &'a str,
    pub(super) agent: &'a str,
    pub(super) module: &'a str,
    pub(super) after: &'a [&'a str],
    pub(super) timeout_ms: u32,
    pub(super) retries: u8,
}

pub(super) const DRAFT: Draft<'_> =
    Draft { name: "", agent: "", module: "", after: &[], timeout_ms: 5_000, retries: 0 };

pub(super) fn document(steps: &[Draft<'_>]) -> Vec<u8> {
    let text = |step: &Draft<'_>| {
        let after: Vec<String> = step.after.iter().map(|name| format!("\"{name}\"")).collect();
        format!(
            r#"{{"after":[{}],"agent":"{}","idempotent":{},"module":"{}","name":"{}","retries":{},"timeout_ms":{}}}"#,
            after.join(","),
            step.agent,
            step.retries > 0,
            step.module,
            step.name,
            step.retries,
            step.timeout_ms
        )
    };
    let steps: Vec<String> = steps.iter().map(text).collect();
    format!(r#"{{"format":"mentat-pipeline-v1","steps":[{}]}}"#, steps.join(",")).into_bytes()
}

pub(super) async fn compose(server: &Server, id: &str, steps: &[Draft<'_>]) {
    let document = document(steps);
    assert!(trust_store::pipeline::Pipeline::from_json(&document).is_ok());
    let admitted = AdmittedModule::for_test(document, GrantSet::default(), patient());
    server.executor.admit_for_test(admitted.called(id, "p@example.org")).await;
}

pub(super) async fn call(server: &Server, id: &str, input: &'static [u8]) -> Result<super::Executed, Denied> {
    server.executor.execute(id, Bytes::from_static(input), Terms::default()).await
}

/// Every receipt, once there are so many and a checkpoint covers them.
pub(super) async fn receipts(executor: &Executor, count: u64) -> Vec<(String, Receipt)> {
    let mut found = Vec::new();
    for index in 0..count {
        let mut proof = executor.receipts().of_index(index);
        for _ in 0..5_000 {
            if proof.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            proof = executor.receipts().of_index(index);
        }
        let file = tlog::proof_file::ProofFile::parse(&proof.unwrap()).unwrap();
        let entry = file.extra.unwrap();
        found.push((ModuleDigest::of(&entry).to_string(), Receipt::from_entry(&entry).unwrap()));
    }
    assert!(executor.receipts().of_index(count).is_err(), "there are more than {count}");
    found
}

#[tokio::test]
async fn steps_run_in_order_and_the_pipelines_receipt_names_theirs() {
    let server = Server::start().await;
    let a = agent(&server, "cp.a", &wat_mark('a')).await;
    let b = agent(&server, "cp.b", &wat_mark('b')).await;
    let c = agent(&server, "cp.c", &wat_mark('c')).await;
    let join = agent(&server, "cp.join", wat_echo()).await;
    compose(
        &server,
        "cp.diamond",
        &[
            Draft { name: "first", agent: "cp.a", module: &a, ..DRAFT },
            Draft { name: "left", agent: "cp.b", module: &b, after: &["first"], ..DRAFT },
            Draft { name: "right", agent: "cp.c", module: &c, after: &["first"], ..DRAFT },
            Draft { name: "last", agent: "cp.join", module: &join, after: &["right", "left"], ..DRAFT },
        ],
    )
    .await;
    assert_eq!(server.executor.find("cp.diamond").unwrap().kind, "pipeline");
    let done = call(&server, "cp.diamond", b"x").await.unwrap();
    let mut joined = 3u64.to_le_bytes().to_vec();
    joined.extend_from_slice(b"cax");
    joined.extend_from_slice(&3u64.to_le_bytes());
    joined.extend_from_slice(b"bax");
    assert_eq!(done.outcome.output, joined);

    let receipts = receipts(&server.executor, 5).await;
    let (_, whole) = receipts.last().unwrap();
    assert_eq!((whole.agent.as_str(), whole.exit, whole.exit_code), ("cp.diamond", ExitClass::Ok, Some(0)));
    assert_eq!(whole.instance, done.outcome.instance.to_string());
    assert_eq!(whole.output, ModuleDigest::of(&joined).to_string());
    let steps = whole.steps.as_ref().unwrap();
    assert_eq!(
        steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(),
        ["first", "left", "right", "last"]
    );
    for (step, (entry, receipt)) in steps.iter().zip(&receipts) {
        assert_eq!(step.receipt.as_ref(), Some(entry), "{}", step.name);
        assert_eq!(step.instance.as_ref(), Some(&receipt.instance));
        assert_eq!((step.reason.as_str(), receipt.steps.as_ref()), ("success", None));
    }
    // Each one's input is what the one before put out.
    assert_eq!(receipts[1].1.input, receipts[0].1.output);
    assert_eq!(receipts[3].1.input, whole.output);
}

#[tokio::test]
async fn a_step_that_may_not_run_denies_the_pipeline_before_anything_runs() {
    let server = Server::start().await;
    let a = agent(&server, "cd.a", &wat_mark('a')).await;
    let b = agent(&server, "cd.b", &wat_mark('b')).await;
    let steps = |module: &str| -> Vec<u8> {
        document(&[
            Draft { name: "first", agent: "cd.a", module: &a, ..DRAFT },
            Draft { name: "second", agent: "cd.b", module, after: &["first"], ..DRAFT },
        ])
    };
    let load = async |id: &str, document: Vec<u8>| {
        let admitted = AdmittedModule::for_test(document, GrantSet::default(), CallLimits::default());
        server.executor.admit_for_test(admitted.called(id, "p@example.org")).await;
    };
    load("cd.good", steps(&b)).await;
    load("cd.digest", steps(&a)).await;
    load("cd.nested", {
        let good = server.executor.find("cd.good").unwrap().digest;
        document(&[Draft { name: "all", agent: "cd.good", module: &good, ..DRAFT }])
    })
    .await;
    let nested = call(&server, "cd.nested", b"").await.unwrap_err();
    assert_eq!((nested.step, nested.code), (1, "unsupported"), "{nested}");
    // The module is loaded, as another agent.
    let other = call(&server, "cd.digest", b"").await.unwrap_err();
    assert_eq!(other.code, "step_not_loaded", "{other}");
    assert!(other.message.contains("`second`"), "{other}");

    call(&server, "cd.good", b"").await.unwrap();
    receipts(&server.executor, 3).await;
    server.executor.revoke_for_test("cd.b", &b);
    let revoked = call(&server, "cd.good", b"").await.unwrap_err();
    assert_eq!((revoked.step, revoked.code), (12, "revoked"), "{revoked}");
    assert!(revoked.message.contains("`second`"), "{revoked}");
    server.executor.unload("cd.b").await.unwrap();
    let gone = call(&server, "cd.good", b"").await.unwrap_err();
    assert_eq!(gone.code, "step_not_loaded", "{gone}");
    // A denial is no execution: the first step did not run either.
    receipts(&server.executor, 3).await;
}

#[tokio::test]
async fn a_failed_step_fails_the_pipeline_and_leaves_a_partial_receipt() {
    let server = Server::start().await;
    let a = agent(&server, "cf.a", &wat_mark('a')).await;
    let fail = agent(&server, "cf.fail", WAT_FAIL).await;
    compose(
        &server,
        "cf.whole",
        &[
            Draft { name: "first", agent: "cf.a", module: &a, ..DRAFT },
            Draft { name: "bad", agent: "cf.fail", module: &fail, after: &["first"], retries: 2, ..DRAFT },
            Draft { name: "never", agent: "cf.a", module: &a, after: &["bad"], ..DRAFT },
        ],
    )
    .await;
    let failed = call(&server, "cf.whole", b"x").await.unwrap_err();
    assert_eq!(failed.code, "guest_error", "{failed}");
    assert!(failed.message.contains("`bad`") && failed.message.contains("code 7"), "{failed}");
    let receipts = receipts(&server.executor, 5).await;
    let (_, whole) = receipts.last().unwrap();
    assert_eq!(
        (whole.exit, whole.exit_code, whole.reason.as_str()),
        (ExitClass::GuestError, None, "guest_error")
    );
    let names: Vec<(&str, &str)> =
        whole.steps.iter().flatten().map(|step| (step.name.as_str(), step.reason.as_str())).collect();
    let bad = ("bad", "guest_error");
    assert_eq!(names, [("first", "success"), bad, bad, bad], "two more attempts, and nothing after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_has_a_time_and_the_whole_has_one() {
    let server = Server::start().await;
    let spin = agent(&server, "ct.spin", wat_spin()).await;
    let step = |timeout_ms, retries| Draft {
        name: "spin",
        agent: "ct.spin",
        module: &spin,
        timeout_ms,
        retries,
        ..DRAFT
    };
    compose(&server, "ct.once", &[step(30, 0)]).await;
    compose(&server, "ct.again", &[step(30, 1)]).await;
    compose(&server, "ct.whole", &[step(600_000, 3)]).await;
    for (id, terms) in [
        ("ct.once", Terms::default()),
        ("ct.again", Terms::default()),
        ("ct.whole", Terms { deadline: Some(Duration::from_millis(30)), ..Terms::default() }),
    ] {
        let ended = server.executor.execute(id, Bytes::new(), terms).await.unwrap_err();
        assert_eq!(ended.code, "deadline_exceeded", "{id}: {ended}");
        assert!(ended.message.contains("`spin`"), "{ended}");
    }
    let receipts = receipts(&server.executor, 7).await;
    let attempts: Vec<(&str, usize)> = receipts
        .iter()
        .filter_map(|(_, receipt)| Some((receipt.agent.as_str(), receipt.steps.as_ref()?.len())))
        .collect();
    assert_eq!(
        attempts,
        [("ct.once", 1), ("ct.again", 2), ("ct.whole", 1)],
        "past the deadline nothing is tried again"
    );
}

/// Stops while a step runs, by what names the pipeline or the step.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_stops_the_pipeline_or_its_step_stops_both() {
    let server = Server::start().await;
    let spin = spinning(&server, "ck.spin").await;
    compose(
        &server,
        "ck.whole",
        &[Draft { name: "spin", agent: "ck.spin", module: &spin, timeout_ms: 600_000, retries: 3, ..DRAFT }],
    )
    .await;
    for (stopped, cause, code) in [
        ("ck.whole", KillCause::Operator, "stopped"),
        ("ck.spin", KillCause::Operator, "stopped"),
        ("ck.spin", KillCause::Revoked, "revoked"),
    ] {
        let executor = Arc::clone(&server.executor);
        let call =
            tokio::spawn(async move { executor.execute("ck.whole", Bytes::new(), Terms::default()).await });
        let step = server.executor.agents.find("ck.spin").unwrap().admission();
        let live = server.executor.parts.runtime.live();
        while !live.has(step) {
            assert!(!call.is_finished(), "it ended by itself");
            tokio::task::yield_now().await;
        }
        let selector = Selector { agent: Some(stopped.into()), ..Selector::default() };
        assert_eq!(server.executor.parts.runtime.stop(&selector, cause), 1);
        let ended = call.await.unwrap().unwrap_err();
        assert_eq!(ended.code, code, "{stopped}: {ended}");
        assert!(!live.has(step) && !live.has(server.executor.agents.find("ck.whole").unwrap().admission()));
    }
    let receipts = receipts(&server.executor, 6).await;
    assert!(receipts.iter().filter_map(|(_, receipt)| receipt.steps.as_ref()).all(|steps| steps.len() == 1));
}

/// An engine that runs nothing and says what it was asked to run.
#[derive(Default)]
struct Engine(Mutex<Vec<String>>);

impl ContainerBackend for Engine {
    fn available(&self, runtime: &Runtime) -> Result<(), EngineUnavailable> {
        match runtime {
            Runtime::Node(_) => Ok(()),
            other => NoEngine.available(other),
        }
    }

    fn run(&self, image: &AdmittedImage, call: ContainerCall<'_>) -> Result<ContainerOutcome, CallError> {
        self.0.lock().push(image.reference().to_string());
        while call.input.is_empty() {
            if let Some(cause) = call.cancel.raised() {
                return Err(CallError::Stopped(Stop::Killed(cause)));
            }
            std::thread::yield_now();
        }
        Ok(ContainerOutcome { output: call.input.to_vec(), exit_code: 0, memory_bytes: 1 })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_for_containers_gets_admitted_digests_and_nothing_else() {
    let engine = Arc::new(Engine::default());
    let server = Server::with_containers(Arc::clone(&engine) as Arc<dyn ContainerBackend>).await;
    let image = br#"{"schemaVersion":2}"#.to_vec();
    let reference = format!("test@sha256:{}", ModuleDigest::of(&image));
    // A module is none, so the engine never sees it.
    let module = admitted(wat_echo(), GrantSet::default(), CallLimits::default());
    assert_eq!(AdmittedImage::of(&module), None);
    let container = AdmittedModule::for_test(image, GrantSet::default(), CallLimits::default());
    server.executor.admit_for_test(container.called("cc.node", "s@example.org")).await;
    assert_eq!(server.executor.find("cc.node").unwrap().kind, "container");
    let done = call(&server, "cc.node", b"hello").await.unwrap();
    assert_eq!((done.outcome.output.as_slice(), done.outcome.usage.memory_bytes), (&b"hello"[..], 1));
    assert_eq!(*engine.0.lock(), std::slice::from_ref(&reference));

    let digest = server.executor.find("cc.node").unwrap().digest;
    server.executor.revoke_for_test("cc.node", &digest);
    assert_eq!(call(&server, "cc.node", b"hello").await.unwrap_err().code, "revoked");
    assert_eq!(engine.0.lock().len(), 1, "what may not run does not reach the engine");
    assert_eq!(receipts(&server.executor, 1).await[0].1.agent, "cc.node");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_stopped_like_every_guest() {
    let server = Server::with_containers(Arc::new(Engine::default())).await;
    let image = AdmittedModule::for_test(b"{}".to_vec(), GrantSet::default(), CallLimits::default());
    server.executor.admit_for_test(image.called("cs.node", "s@example.org")).await;
    let executor = Arc::clone(&server.executor);
    let waits =
        tokio::spawn(async move { executor.execute("cs.node", Bytes::new(), Terms::default()).await });
    let admission = server.executor.agents.find("cs.node").unwrap().admission();
    while !server.executor.parts.runtime.live().has(admission) {
        tokio::task::yield_now().await;
    }
    server.executor.stop(&Selector { agent: Some("cs.node".into()), ..Selector::default() }).unwrap();
    assert_eq!(waits.await.unwrap().unwrap_err().code, "stopped");
}

#[test]
fn the_engine_of_this_build_names_what_is_missing() {
    let manifest = |runtime: &str| {
        let image = format!(r#""image":"a@sha256:{}""#, "0".repeat(64));
        let text = format!(r#"{{"id":"a",{image},"runtime":"{runtime}","version":"1.0.0"}}"#);
        trust_store::manifest::Manifest::from_json(text.as_bytes()).unwrap()
    };
    for runtime in ["python3.12", "node22", "java21"] {
        let denied = Denied::from(NoEngine.available(manifest(runtime).runtime()).unwrap_err());
        assert_eq!(denied.code, "container_engine_unavailable");
        assert!(
            denied.message.contains(runtime) && denied.message.contains("no container engine"),
            "{denied}"
        );
    }
}

#[tokio::test]
async fn what_the_steps_said_comes_with_the_failure_of_one() {
    let words = |text: &str, end: &str| {
        format!(
            r#"(module (import "mentat" "log" (func $log (param i32 i32 i32)))
            (memory (export "memory") 1) (data (i32.const 0) "{text}")
            (func (export "process") (result i32)
              (call $log (i32.const 2) (i32.const 0) (i32.const {})) {end}))"#,
            text.len()
        )
    };
    let server = Server::start().await;
    let first = agent(&server, "cp.said-first", &words("begun", "(i32.const 0)")).await;
    let second = agent(&server, "cp.said-second", &words("no such row", "unreachable")).await;
    let steps = [
        Draft { name: "one", agent: "cp.said-first", module: &first, ..DRAFT },
        Draft { name: "two", agent: "cp.said-second", module: &second, after: &["one"], ..DRAFT },
    ];
    compose(&server, "cp.said", &steps).await;
    let denied = call(&server, "cp.said", b"x").await.unwrap_err();
    assert_eq!(denied.code, "trap");
    let said = denied.said.unwrap();
    let lines: Vec<_> = said.log.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(lines, ["one: begun", "two: no such row"]);
}
