//! From upload to first answer, and from a stop to the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use executor::runtime::{KillCause, Selector};

use crate::Figures;
use crate::guests::Guests;
use crate::stack::InProcess;

pub(crate) async fn measure(process: &InProcess, guests: &Guests, figures: &mut Figures) {
    let executor = &process.executor;
    let guest = &guests.echo;

    // The verdict alone: what `mentatctl explain` asks for.
    let mut verdicts = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        let explained = executor.explain(&guest.manifest, None, guest.module.clone().into()).await;
        verdicts.push(start.elapsed());
        assert!(explained.admitted, "{explained:?}");
    }
    figures.insert("admission_ms", median(verdicts).as_secs_f64() * 1e3);

    // Judged, recorded durably, machine code from the authenticated cache, first answer.
    let mut starts = Vec::new();
    for _ in 0..21 {
        executor.unload(&guest.id).unwrap();
        let start = Instant::now();
        executor.load(&guest.manifest, None, guest.module.clone().into()).await.unwrap();
        let done = executor.execute(&guest.id, Bytes::from_static(b"first"), None).await.unwrap();
        starts.push(start.elapsed());
        assert_eq!(done.outcome.output, b"first");
    }
    figures.insert("cold_start_ms", median(starts).as_secs_f64() * 1e3);

    let mut kills = Vec::new();
    for _ in 0..21 {
        let call = {
            let (executor, id) = (Arc::clone(executor), guests.spin.id.clone());
            tokio::spawn(async move { executor.execute(&id, Bytes::new(), None).await })
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

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
