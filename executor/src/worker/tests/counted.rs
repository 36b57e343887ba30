//! What becomes of workers and of their calls, in the series where operators see it.

use super::*;

async fn until(what: impl Fn() -> bool) {
    for look in 0.. {
        if what() {
            return;
        }
        assert!(look < 30_000, "it does not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_lost_is_counted_and_so_is_its_call() {
    let server = server().await;
    let long =
        CallLimits { wall: Duration::from_secs(60), cpu: Duration::from_secs(60), ..CallLimits::default() };
    admit(&server, SLEEPS, "w.lost", "lost@example.org", GrantSet::default(), long).await;
    let call = running(&server, "w.lost", "lost@example.org").await;
    assert_eq!(server.counted("mentatlab_workers_total{reason=\"lost\"}"), 0);
    let workers = Arc::clone(server.executor.runtime().workers().unwrap());
    let process = workers.process_of(&key("lost@example.org")).unwrap();
    tokio::task::spawn_blocking(move || process.end()).await.unwrap();
    assert_eq!(call.await.unwrap().unwrap_err().code, "worker_lost");
    until(|| server.counted("mentatlab_workers_total{reason=\"lost\"}") == 1).await;
    assert!(server.counted("mentatlab_workers_total{reason=\"started\"}") >= 1);
    assert_eq!(server.counted("wasm_instances_total{status=\"worker_lost\"}"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_calls_in_workers_is_counted() {
    let server = server().await;
    let limits = |cpu, wall| CallLimits {
        cpu: Duration::from_millis(cpu),
        wall: Duration::from_millis(wall),
        ..CallLimits::default()
    };
    for (agent, limits, status) in [
        ("w.budget", limits(30, 60_000), "cpu_budget"),
        ("w.deadline", limits(60_000, 50), "deadline_exceeded"),
    ] {
        admit(&server, wat_spin(), agent, "s@example.org", GrantSet::default(), limits).await;
        assert_eq!(call(&server, agent, b"").await.unwrap_err().code, status);
        assert_eq!(server.counted(&format!("wasm_instances_total{{status=\"{status}\"}}")), 1);
    }
    admit(&server, SPIN_WITH_OUTPUT, "w.left", "s@example.org", GrantSet::default(), limits(60_000, 60_000))
        .await;
    running(&server, "w.left", "s@example.org").await.abort();
    until(|| server.counted("wasm_instances_total{status=\"caller_gone\"}") == 1).await;
    // What was obeyed ended no worker.
    assert_eq!(server.counted("mentatlab_workers_total{reason=\"lost\"}"), 0);
}
