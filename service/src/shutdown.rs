//! When to stop, and how long to wait for what is under way.

use std::io::Read as _;

use tokio::signal::unix::{Signal, SignalKind, signal as listen};
use tokio::sync::oneshot;

/// Why the server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// SIGINT.
    Interrupt,
    /// The parent closed stdin.
    StdinClosed,
    /// SIGTERM.
    Terminate,
}

/// Waits for SIGTERM, SIGINT or, with `exit_on_stdin_eof`, the end of stdin, by which a parent process that dies takes
/// its children with it.
///
/// Signals count from the call on, not from when the answer is waited for: whoever is told that a server is ready may stop it at once.
/// A signal that cannot be listened for never arrives; the others still count. To be called within a runtime.
pub fn signal(exit_on_stdin_eof: bool) -> impl Future<Output = Reason> + Send {
    let (terminate, interrupt) = (heard(SignalKind::terminate()), heard(SignalKind::interrupt()));
    async move {
        let reason = tokio::select! {
            () = arrival(terminate) => Reason::Terminate,
            () = arrival(interrupt) => Reason::Interrupt,
            () = stdin_end(exit_on_stdin_eof) => Reason::StdinClosed,
        };
        tracing::info!(?reason, "stopping");
        reason
    }
}

fn heard(kind: SignalKind) -> Option<Signal> {
    listen(kind).inspect_err(|error| tracing::warn!(%error, ?kind, "cannot listen for a signal")).ok()
}

async fn arrival(signal: Option<Signal>) {
    match signal {
        Some(mut signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

async fn stdin_end(wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    let (sender, receiver) = oneshot::channel();
    // Its own thread, not the runtime's: a blocked read of stdin would hold the runtime's shutdown up.
    let spawned = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut sink = [0; 256];
        let mut stdin = std::io::stdin().lock();
        while matches!(stdin.read(&mut sink), Ok(1..)) {}
        // Nobody waits any more when another reason came first.
        let _ = sender.send(());
    });
    match spawned {
        // An error means the thread is gone, which ends like the end of stdin.
        Ok(_) => drop(receiver.await),
        Err(error) => {
            tracing::warn!(%error, "cannot watch stdin");
            std::future::pending().await
        }
    }
}
