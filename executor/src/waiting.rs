//! A guest's thread waits for something that happens elsewhere, and not a tick longer than the call may take.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use executor_engine::limits::EPOCH_TICK_MILLIS;
use tokio::runtime::Handle;

use crate::clock;
use crate::runtime::Cancel;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupted {
    /// Whoever was to answer is gone.
    Broken,
    /// The call is being stopped.
    Stopped,
    /// The time of the call is up.
    TimedOut,
}

/// Runs `work` on `runtime` and blocks until it is done, the call is stopped or its time is up; then the work is dropped.
pub(crate) fn wait_for<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = T> + Send + 'static,
    kill: &Cancel,
    deadline: Instant,
) -> Result<T, Interrupted> {
    let (done, answer) = sync_channel(1);
    let task = runtime.spawn(async move {
        let _ = done.send(work.await); // whoever waited may have gone
    });
    loop {
        match answer.recv_timeout(Duration::from_millis(EPOCH_TICK_MILLIS)) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => return Err(Interrupted::Broken),
            Err(RecvTimeoutError::Timeout) => {
                let interrupted = if kill.raised().is_some() {
                    Interrupted::Stopped
                } else if clock::monotonic() >= deadline {
                    Interrupted::TimedOut
                } else {
                    continue;
                };
                task.abort();
                return Err(interrupted);
            }
        }
    }
}
