//! From upload to first answer, and from a stop to the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use executor::executor::Terms;
use executor::runtime::{KillCause, Selector};

use crate::guests::{Guests, signer};
use crate::stack::{InProcess, Stack};
use crate::{Figures, median};

pub(crate) async fn measure(process: &InProcess, guests: &Guests, figures: &mut Figures) {
    let executor = &process.executor;
    let guest = &guests.echo;

    // The verdict alone: what `mentatctl explain` asks for.
    let mut verdicts = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        let caller = &Terms::default().caller;
        let explained = executor.explain(caller, &guest.manifest, None, guest.module.clone().into()).await;
        verdicts.push(start.elapsed());
        assert!(explained.as_ref().is_ok_and(|explained| explained.admitted), "{explained:?}");
    }
    figures.insert("admission_ms", median(verdicts).as_secs_f64() * 1e3);

    // Judged, recorded durably, machine code from the authenticated cache, first answer.
    let mut starts = Vec::new();
    for _ in 0..21 {
        executor.unload(&guest.id).await.unwrap();
        let start = Instant::now();
        executor
            .load(&Terms::default().caller, &guest.manifest, None, guest.module.clone().into())
            .await
            .unwrap();
        let done = executor.execute(&guest.id, Bytes::from_static(b"first"), Terms::default()).await.unwrap();
        starts.push(start.elapsed());
        assert_eq!(done.outcome.output, b"first");
    }
    figures.insert("cold_start_ms", median(starts).as_secs_f64() * 1e3);

    let mut kills = Vec::new();
    for _ in 0..21 {
        let call = {
            let (executor, id) = (Arc::clone(executor), guests.spin.id.clone());
            tokio::spawn(async move { executor.execute(&id, Bytes::new(), Terms::default()).await })
        };
        while executor.status().live_instances == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(7)).await;
        let start = Instant::now();
        let selector = Selector { agent: Some(guests.spin.id.clone()), ..Selector::default() };
        executor.danger_runtime().stop(&selector, KillCause::Operator);
        assert_eq!(call.await.unwrap().unwrap_err().code, "stopped");
        kills.push(start.elapsed());
    }
    figures.insert("kill_ms", kills.into_iter().max().unwrap_or_default().as_secs_f64() * 1e3);
}

/// From the CA's answer to a revocation until the guest that it concerns is stopped: the longest of several.
pub(crate) async fn revocation(stack: &Stack, process: &InProcess, guests: &Guests, figures: &mut Figures) {
    let executor = &process.executor;
    let mut longest = Duration::ZERO;
    for guest in &guests.revoked {
        let call = {
            let (executor, id) = (Arc::clone(executor), guest.id.clone());
            tokio::spawn(async move { executor.execute(&id, Bytes::new(), Terms::default()).await })
        };
        while executor.status().live_instances == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let listed = stack.ctl(&["--json", "pki", "list", "--identity", &signer(&guest.id)]);
        let record: serde_json::Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
        let serial = record["serial"].as_str().unwrap();
        stack.ctl(&["pki", "revoke", "--serial", serial, "--reason", "key-compromise"]);
        let start = Instant::now();
        assert_eq!(call.await.unwrap().unwrap_err().code, "revoked");
        longest = longest.max(start.elapsed());
    }
    figures.insert("revoke_to_denied_s", longest.as_secs_f64());
}

/// What a receipt costs from the end of a call until it is durable, many at once.
pub(crate) async fn receipts(process: &InProcess, guests: &Guests, figures: &mut Figures) {
    const COUNT: u64 = 20_000;
    const RUNS: usize = 3;
    let executor = &process.executor;
    let done = executor.execute(&guests.echo.id, Bytes::new(), Terms::default()).await.unwrap();
    let instance = done.outcome.instance;
    let proof = loop {
        match executor.receipts().of_instance(&instance.to_string()) {
            Ok(proof) => break proof,
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    };
    let file = tlog::proof_file::ProofFile::parse(&proof).unwrap();
    let mut next = file.proof.leaf_index + 1;
    let receipt = executor_api::receipt::Receipt::from_entry(&file.extra.unwrap()).unwrap();
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        for _ in 0..COUNT {
            executor.receipts().room().await.unwrap().record(instance, receipt.clone());
        }
        next += COUNT;
        while executor.receipts().of_index(next - 1).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        runs.push(start.elapsed());
    }
    figures.insert("receipt_us", median(runs).as_secs_f64() * 1e6 / COUNT as f64);
}
