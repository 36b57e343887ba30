//! A switch to another release and back, with calls going on all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use executor::executor::{Executor, Terms};
use executor_api::deployment::{Deploy, Strategy};

use crate::Figures;
use crate::guests::{Guest, Guests};
use crate::stack::InProcess;

const AGENT: &str = "bench.deploy";
const CALLERS: usize = 4;

pub(crate) async fn measure(process: &InProcess, guests: &Guests, figures: &mut Figures) {
    let executor = &process.executor;
    let [first, second, third] = &guests.releases;
    deploy(executor, first).await;
    let stop = Arc::new(AtomicBool::new(false));
    let failed = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (executor, stop, failed) = (Arc::clone(executor), Arc::clone(&stop), Arc::clone(&failed));
            tokio::spawn(async move {
                let mut count = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    let done = executor.execute(AGENT, Bytes::new(), Terms::default()).await;
                    failed.fetch_add(u64::from(done.is_err()), Ordering::Relaxed);
                    count += 1;
                }
                count
            })
        })
        .collect();

    let (mut switches, mut returns) = (Vec::new(), Vec::new());
    for (letter, release) in [("b", second), ("c", third)] {
        // From the upload of a signed release to the first answer of it: judged, compiled code from the cache or the worker,
        // deployed.
        executor
            .load(&Terms::default().caller, &release.manifest, None, release.module.clone().into())
            .await
            .unwrap();
        executor.unload(&digest(release)).await.unwrap();
        let start = Instant::now();
        executor
            .load(&Terms::default().caller, &release.manifest, None, release.module.clone().into())
            .await
            .unwrap();
        deploy(executor, release).await;
        until(executor, letter).await;
        switches.push(start.elapsed());
        let start = Instant::now();
        executor.rollback(AGENT).await.unwrap();
        until(executor, "a").await;
        returns.push(start.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    let mut calls = 0;
    for caller in callers {
        calls += caller.await.unwrap();
    }
    assert_eq!(failed.load(Ordering::Relaxed), 0, "calls failed during {calls}");
    let longest = |times: Vec<Duration>| times.into_iter().max().unwrap_or_default().as_secs_f64();
    figures.insert("deploy_s", longest(switches));
    figures.insert("rollback_s", longest(returns));
    figures.insert("deploy_calls_meanwhile", calls as f64);
}

async fn deploy(executor: &Arc<Executor>, release: &Guest) {
    let request = Deploy {
        agent: AGENT.into(),
        digest: digest(release),
        strategy: Strategy::BlueGreen,
        steps: Vec::new(),
        step_ms: None,
        min_calls: None,
        max_error_percent: None,
    };
    executor.deploy(&request).await.unwrap();
}

fn digest(release: &Guest) -> String {
    executor_engine::ModuleDigest::of(&release.module).to_string()
}

/// Waits for the first answer of a release.
async fn until(executor: &Arc<Executor>, letter: &str) {
    loop {
        let done = executor.execute(AGENT, Bytes::new(), Terms::default()).await.unwrap();
        if done.outcome.output == letter.as_bytes() {
            return;
        }
    }
}
