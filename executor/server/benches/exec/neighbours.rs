//! What a call costs beside a guest that takes what it can get.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use executor::executor::Terms;
use executor::runtime::{KillCause, Selector};

use crate::Figures;
use crate::guests::Guests;
use crate::stack::InProcess;

#[path = "../../../src/testing/compile_bomb.rs"]
mod module;
pub(crate) use module::compile_bomb;

/// Guests that go on for ever, by what they take.
pub(crate) const HOSTILE: [(&str, &str); 4] = [
    ("fills", "(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $l))"),
    (
        "grows",
        "(loop $l (drop (memory.grow (i32.const 1))) (drop (table.grow $t (ref.null func) (i32.const 100))) (br $l))",
    ),
    ("logs", "(loop $l (call $log (i32.const 2) (i32.const 0) (i32.const 4096)) (br $l))"),
    ("writes", "(loop $l (drop (call $write (i32.const 0) (i32.const 65536))) (br $l))"),
];

/// The module around one of [`HOSTILE`].
pub(crate) fn text(body: &str) -> String {
    format!(
        r#"(module
  (import "mentat" "log" (func $log (param i32 i32 i32)))
  (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1) (table $t 1 funcref)
  (func (export "process") (result i32) {body} (i32.const 0)))"#
    )
}

/// The 99th percentile of a neighbour's calls beside each of them, two at a time on two processors: the worst. The same
/// alone is in the table without a bound.
pub(crate) async fn measure(process: &InProcess, guests: &Guests, figures: &mut Figures) {
    let executor = &process.executor;
    figures.insert("neighbour_alone_p99_ms", p99(process, guests).await);
    let mut worst = 0.0_f64;
    for id in guests.hostile.iter().map(|guest| &guest.id).chain([&guests.spin.id]) {
        let attack = || {
            let (executor, id) = (Arc::clone(executor), id.clone());
            tokio::spawn(async move { executor.execute(&id, Bytes::new(), Terms::default()).await })
        };
        let attacks = [attack(), attack()];
        while executor.status().live_instances < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let beside = p99(process, guests).await;
        println!("beside two of {id}: p99 {beside:.3} ms");
        worst = worst.max(beside);
        let selector = Selector { agent: Some(id.clone()), ..Selector::default() };
        executor.danger_runtime().stop(&selector, KillCause::Operator);
        for attack in attacks {
            assert_eq!(attack.await.unwrap().unwrap_err().code, "stopped", "{id} ended by itself");
        }
    }
    // A compiler that works as long as it may.
    let load = {
        let (executor, bomb) = (Arc::clone(executor), &guests.bomb);
        let (manifest, module) = (bomb.manifest.clone(), bomb.module.clone());
        tokio::spawn(
            async move { executor.load(&Terms::default().caller, &manifest, None, module.into()).await },
        )
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    let beside = p99(process, guests).await;
    assert!(!load.is_finished(), "the compiler was done before its neighbours were measured");
    println!("beside a compile bomb: p99 {beside:.3} ms");
    figures.insert("neighbour_p99_ms", worst.max(beside));
    println!("the compile bomb: {:?}", load.await.unwrap().map_err(|denied| denied.code));
}

async fn p99(process: &InProcess, guests: &Guests) -> f64 {
    const CALLS: usize = 2_000;
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let start = Instant::now();
        let call = process.executor.execute(&guests.echo.id, Bytes::from_static(b"here"), Terms::default());
        assert_eq!(call.await.unwrap().outcome.output, b"here");
        times.push(start.elapsed());
    }
    times.sort();
    times[CALLS * 99 / 100].as_secs_f64() * 1e3
}
