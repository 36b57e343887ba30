//! Ctrl-C, SIGTERM and the end of a terminal, listened to before anything is started or said: without it each of them
//! would end this process at once and leave servers, half-made folders and temporary files behind.

use std::io::Write as _;
use std::sync::mpsc::channel;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::net::block_on;

/// Bit of SIGHUP in a signal mask.
const SIGHUP_BIT: u64 = 1;

/// Whether somebody has asked this program to end.
#[derive(Clone, Debug)]
pub struct Interruption(watch::Receiver<bool>);

impl Interruption {
    /// Listens from now on, until the process ends.
    ///
    /// # Errors
    /// Exit code 1 when signals cannot be listened to.
    pub fn listen() -> Outcome<Self> {
        let (told, asked) = watch::channel(false);
        let (send, ready) = channel();
        std::thread::spawn(move || {
            let ended: Outcome<()> = block_on(async {
                let listen =
                    |kind, name| signal(kind).or_fail(Exit::Failure, format!("listening for {name}"));
                let mut interrupt = listen(SignalKind::interrupt(), "Ctrl-C")?;
                let mut terminate = listen(SignalKind::terminate(), "SIGTERM")?;
                // `nohup` ignores the end of the terminal on purpose.
                let mut hangup = match hangup_is_ignored() {
                    true => None,
                    false => Some(listen(SignalKind::hangup(), "SIGHUP")?),
                };
                let _ = send.send(Ok(()));
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    () = received(&mut hangup) => {}
                }
                told.send_replace(true);
                // Whoever holds the other end may look at any later time; who asks again does not want to wait.
                tokio::select! {
                    () = told.closed() => {}
                    _ = interrupt.recv() => at_once(),
                    _ = terminate.recv() => at_once(),
                }
                Ok(())
            });
            if let Err(failure) = ended {
                let _ = send.send(Err(failure));
            }
        });
        ready.recv().or_fail(Exit::Failure, "listening for signals")??;
        Ok(Self(asked))
    }

    /// Fails once it was asked to end.
    ///
    /// # Errors
    /// Exit code 1 with the code `interrupted`.
    pub fn check(&self) -> Outcome<()> {
        match *self.0.borrow() {
            true => Err(Failure::failed("interrupted before it was done")
                .code(INTERRUPTED)
                .hint("nothing is left running; start it again")),
            false => Ok(()),
        }
    }

    /// Waits until it is asked to end.
    pub async fn asked(&mut self) {
        // The sender lives as long as this value does.
        let _ = self.0.wait_for(|asked| *asked).await;
    }
}

/// Code of the failure that an interruption is.
pub const INTERRUPTED: &str = "interrupted";

/// Ends without waiting for the servers: each stops by itself when this process, which holds its standard input, is gone.
#[allow(clippy::disallowed_methods, reason = "asked for twice: nothing is to be waited for")]
fn at_once() {
    let _ =
        std::io::stderr().write_all(b"asked again: not waiting; the servers end what they are at and stop\n");
    std::process::exit(1);
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("SigIgn:")).is_some_and(ignores_hangup)
}

/// A mask as the system writes it, in hexadecimal.
fn ignores_hangup(mask: &str) -> bool {
    u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & SIGHUP_BIT != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_hangup_is_recognised() {
        assert!(ignores_hangup("\t0000000000001001"));
        assert!(!ignores_hangup("\t0000000000001002"));
        assert!(!ignores_hangup("nonsense"));
    }
}
