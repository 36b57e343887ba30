//! A server process: started, waited for by its readiness line, killed when dropped.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::clock::Deadline;

/// How long a server may take from start to its readiness line. Generous: the machine may be compiling beside it.
pub const READY_WITHIN: Duration = Duration::from_secs(120);

/// A running server. Dropping it kills the process and waits for it.
pub struct Server {
    child: Child,
    /// What the readiness line said.
    pub ready: Value,
    lines: Receiver<String>,
    stderr: Arc<Mutex<String>>,
}

impl Server {
    /// Starts a command and waits for the one JSON line with `"ready": true` on its standard output. Standard input stays
    /// open as long as this value lives, so that `--exit-with-stdin` ends it even if this process is killed.
    ///
    /// # Panics
    ///
    /// When it ends or stays silent, with what it wrote to standard error.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let stdout = child.stdout.take().expect("piped");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let mut pipe = child.stderr.take().expect("piped");
        let copy = Arc::clone(&stderr);
        std::thread::spawn(move || {
            let mut buffer = [0_u8; 4096];
            while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                copy.lock().expect("not poisoned").push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        let mut server = Self { child, ready: Value::Null, lines, stderr };
        let deadline = Deadline::after(READY_WITHIN);
        let mut said = String::new();
        loop {
            match server.lines.recv_timeout(deadline.left()) {
                Ok(line) => {
                    if let Ok(value) = serde_json::from_str::<Value>(&line)
                        && value["ready"] == Value::Bool(true)
                    {
                        server.ready = value;
                        return server;
                    }
                    said.push_str(&line);
                    said.push('\n');
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = server.child.wait().expect("waiting for a child");
                    std::thread::sleep(Duration::from_millis(50));
                    panic!("{command:?} ended with {status} before it was ready:\n{said}{}", server.stderr());
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{command:?} was not ready in time:\n{}", server.stderr())
                }
            }
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("not poisoned").clone()
    }

    /// Kills the process with SIGKILL and waits for it.
    ///
    /// # Panics
    ///
    /// When the process cannot be killed or waited for.
    pub fn kill(mut self) {
        self.child.kill().expect("killing a child");
        self.child.wait().expect("waiting for a child");
    }

    /// Closes standard input and waits for a clean end.
    ///
    /// # Panics
    ///
    /// When it does not end within half a minute.
    pub fn stop(mut self) -> i32 {
        drop(self.child.stdin.take());
        let deadline = Deadline::after(Duration::from_secs(30));
        loop {
            if let Some(status) = self.child.try_wait().expect("waiting for a child") {
                return status.code().unwrap_or(-1);
            }
            assert!(!deadline.passed(), "did not stop when its input was closed:\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
