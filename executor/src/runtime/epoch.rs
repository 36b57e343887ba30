//! The tick that makes every guest interruptible.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use executor_engine::limits::EPOCH_TICK_MILLIS;
use wasmtime::Engine;

use super::rates::Ticks;
use crate::clock;

/// An operating-system thread (not a task that a busy executor could starve) that advances the engine's epoch.
#[derive(Debug)]
pub(crate) struct Ticker {
    stop: Arc<AtomicBool>,
    lateness: Arc<AtomicU64>,
    ticks: Ticks,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let lateness = Arc::new(AtomicU64::new(0));
        let ticks = Ticks::default();
        let (weak, flag, late) = (engine.weak(), Arc::clone(&stop), Arc::clone(&lateness));
        let counted = ticks.clone();
        let thread =
            std::thread::Builder::new().name("epoch".into()).stack_size(64 << 10).spawn(move || {
                let tick = Duration::from_millis(EPOCH_TICK_MILLIS);
                let mut next = clock::monotonic() + tick;
                while !flag.load(Ordering::Relaxed) {
                    std::thread::sleep(next.saturating_duration_since(clock::monotonic()));
                    let Some(engine) = weak.upgrade() else { return };
                    engine.increment_epoch();
                    counted.advance();
                    let now = clock::monotonic();
                    let behind = now.saturating_duration_since(next);
                    late.fetch_max(behind.as_micros().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
                    // After a suspended machine, go on from now instead of making up for every missed tick.
                    next = if behind > 10 * tick { now + tick } else { next + tick };
                }
            })?;
        Ok(Self { stop, lateness, ticks, thread: Some(thread) })
    }

    /// The count of its ticks.
    pub(crate) fn ticks(&self) -> Ticks {
        self.ticks.clone()
    }

    /// The largest lateness since the last call, microseconds.
    pub(crate) fn take_lateness_micros(&self) -> u64 {
        self.lateness.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread ends within one tick; it cannot panic.
            let _ = thread.join();
        }
    }
}
