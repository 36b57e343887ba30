//! Guests that take what they can get: each ends with its documented reason, and their neighbours are served meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Terms;
use crate::admission::GrantSet;
use crate::clock;
use crate::runtime::{CallLimits, HostRates};
use crate::testing::texts::SLEEPS;
use crate::testing::{Server, admitted, wat_echo, wat_spin};

/// What an attack ends with.
enum End {
    /// The reason code of a call without result.
    Denied(&'static str),
    /// It ends by itself, and what it wanted more of was refused.
    Refused,
    /// It ends by itself, and lines of its log were dropped.
    Dropped,
}

fn core(body: &str) -> String {
    format!(
        r#"(module
             (import "mentat" "log" (func $log (param i32 i32 i32)))
             (import "mentat" "record_metric" (func $metric (param i32 i32 f64) (result i32)))
             (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
             (memory (export "memory") 1) (table $t 1 funcref)
             (func $deep (result i32) (i32.add (call $deep) (i32.const 1)))
             (func (export "process") (result i32) (local $n i32) {body} (i32.const 0)))"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_attack_ends_with_its_reason_while_its_neighbours_are_served() {
    let server = Server::start().await;
    let neighbour = admitted(wat_echo(), GrantSet::default(), CallLimits::default());
    server.executor.admit_for_test(neighbour.called("good.neighbour", "n@example.org")).await;
    let short = CallLimits {
        cpu: Duration::from_millis(60),
        wall: Duration::from_millis(1_000),
        memory: 4 << 20,
        table_elements: 1_000,
        ..CallLimits::default()
    };
    let until_refused = |grow: &str| core(&format!("(loop $l (br_if $l (i32.ne ({grow}) (i32.const -1))))"));
    let attacks: Vec<(&str, String, End)> = vec![
        ("spin", wat_spin().into(), End::Denied("cpu_budget")),
        ("fill", core("(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $l))"), End::Denied("cpu_budget")),
        ("sleep", SLEEPS.into(), End::Denied("deadline_exceeded")),
        ("deep", core("(drop (call $deep))"), End::Denied("trap")),
        ("memory", until_refused("memory.grow (i32.const 1)"), End::Refused),
        ("table", until_refused("table.grow $t (ref.null func) (i32.const 100)"), End::Refused),
        ("output", core("(loop $l (br_if $l (i32.ge_s (call $write (i32.const 0) (i32.const 65536)) (i32.const 0))))"), End::Denied("")),
        ("metrics", core("(loop $l (br_if $l (i32.ge_s (call $metric (i32.const 0) (i32.const 1) (f64.const 1)) (i32.const 0))))"), End::Denied("")),
        (
            "log",
            core("(local.set $n (i32.const 2000)) (loop $l (call $log (i32.const 2) (i32.const 0) (i32.const 64))
                  (local.set $n (i32.sub (local.get $n) (i32.const 1))) (br_if $l (local.get $n)))"),
            End::Dropped,
        ),
    ];
    for (name, text, end) in attacks {
        let id = format!("attack.{name}");
        // Who ends by itself has the time for it, however busy the machine is.
        let ends = matches!(end, End::Refused | End::Dropped | End::Denied("" | "trap"));
        let patient = CallLimits { cpu: Duration::from_secs(60), wall: Duration::from_secs(120), ..short };
        let limits = if ends { patient } else { short };
        server
            .executor
            .admit_for_test(admitted(&text, GrantSet::default(), limits).called(&id, "a@example.org"))
            .await;
        let attack = {
            let executor = Arc::clone(&server.executor);
            tokio::spawn(async move { executor.execute(&id, Bytes::new(), Terms::default()).await })
        };
        let mut served = 0;
        while !attack.is_finished() {
            let done = server
                .executor
                .execute("good.neighbour", Bytes::from_static(b"here"), Terms::default())
                .await;
            assert_eq!(done.unwrap().outcome.output, b"here", "beside {name}");
            served += 1;
        }
        let ended = attack.await.unwrap();
        match end {
            // Ends by itself once a write or record is refused.
            End::Denied("") => assert_eq!(ended.unwrap().outcome.exit_code, 0, "{name}"),
            End::Denied(code) => assert_eq!(ended.unwrap_err().code, code, "{name}"),
            End::Refused => assert!(ended.unwrap().outcome.usage.refused_growths > 0, "{name}"),
            End::Dropped => assert!(ended.unwrap().outcome.usage.dropped_log_lines > 0, "{name}"),
        }
        if matches!(name, "spin" | "fill" | "sleep") {
            assert!(served > 3, "beside {name} only {served} calls were served");
        }
    }
    // Each is counted under its reason, where alerts look.
    for (status, count) in [("cpu_budget", 2), ("deadline_exceeded", 1), ("trap", 1)] {
        assert_eq!(
            server.counted(&format!("wasm_instances_total{{status=\"{status}\"}}")),
            count,
            "{status}"
        );
    }
    // Whoever wanted more than it may have has all that it may.
    assert_eq!(server.counted("mentatlab_wasm_memory_bytes{agent_id=\"attack.memory\"}"), 4 << 20);
}

/// Records so many metrics, and gives how many were refused because of their number or rate.
fn records(count: u32) -> String {
    core(&format!(
        "(i32.store8 (i32.const 0) (i32.const 97)) (local.set $n (i32.const {count}))
         (loop $l (if (i32.eq (call $metric (i32.const 0) (i32.const 1) (f64.const 1)) (i32.const -6))
             (then (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1)))))
           (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
         (drop (call $write (i32.const 64) (i32.const 4)))"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_host_calls_is_refused_and_leaves_others_their_own_rate() {
    let server = Server::start().await;
    let rates = HostRates { metrics: 50, ..HostRates::default() };
    let limits = CallLimits { metrics: 1_000_000, rates, ..CallLimits::default() };
    let refused = |done: &[u8]| u32::from_le_bytes(done.try_into().unwrap());
    for (id, count) in [("attack.rate", 200_000), ("good.rate", 50)] {
        let module = admitted(&records(count), GrantSet::default(), limits).called(id, "a@example.org");
        server.executor.admit_for_test(module).await;
    }
    let began = clock::monotonic();
    let flood = {
        let executor = Arc::clone(&server.executor);
        tokio::spawn(async move { executor.execute("attack.rate", Bytes::new(), Terms::default()).await })
    };
    // Beside it, and as often as it likes: each instance has a rate of its own.
    let mut served = 0;
    while served < 3 || !flood.is_finished() {
        let done = server.executor.execute("good.rate", Bytes::new(), Terms::default()).await.unwrap();
        assert_eq!((refused(&done.outcome.output), done.outcome.metrics.len()), (0, 50));
        served += 1;
    }
    let done = flood.await.unwrap().unwrap().outcome;
    let most = 50 + 50 * (1 + began.elapsed().as_secs() as usize);
    assert!((50..=most).contains(&done.metrics.len()), "{} of at most {most}", done.metrics.len());
    assert_eq!(refused(&done.output) as usize, 200_000 - done.metrics.len());
    let line =
        format!("mentatlab_host_call_refusals_total{{interface=\"metric\"}} {}", refused(&done.output));
    let metrics = server.exposition();
    assert!(metrics.lines().any(|counted| counted == line), "{line}\n{metrics}");
    let expected = format!("host_call_rate: metric ({} calls refused)", refused(&done.output));
    let recorded =
        || std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap().contains(&expected);
    while !recorded() {
        assert!(began.elapsed() < Duration::from_secs(120), "no audit record says {expected}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_takes_long_to_compile_keeps_no_agent_from_running() {
    let server = Server::start().await;
    let neighbour = admitted(wat_echo(), GrantSet::default(), CallLimits::default());
    server.executor.admit_for_test(neighbour.called("good.neighbour", "n@example.org")).await;
    // Work for the compiler for a while: many functions with deep nesting.
    let nested = format!("{}(nop){}", "(block ".repeat(200), ")".repeat(200));
    let functions = format!("(func (param i32) {nested})").repeat(2_000);
    let bomb = format!(
        "(module (memory (export \"memory\") 1) {functions} (func (export \"process\") (result i32) (i32.const 0)))"
    );
    let module =
        admitted(&bomb, GrantSet::default(), CallLimits::default()).called("attack.compile", "a@example.org");
    let executor = Arc::clone(&server.executor);
    let compiling = tokio::spawn(async move { executor.admit_for_test(module).await });
    let mut served = 0;
    while !compiling.is_finished() {
        let done =
            server.executor.execute("good.neighbour", Bytes::from_static(b"here"), Terms::default()).await;
        assert_eq!(done.unwrap().outcome.output, b"here");
        served += 1;
    }
    compiling.await.unwrap();
    assert!(served > 3, "only {served} calls were served while a module was compiled");
}
