//! A server as a child process: started with a pipe that ends it when we end, waited for by its readiness line, stopped
//! by closing the pipe.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};

/// How long a server may take to become ready. Generous: recovery after a crash re-derives the right edge of the logs.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a server may take to stop after its pipe was closed; it drains requests for up to half a minute.
const STOP_WITHIN: Duration = Duration::from_secs(40);
/// A log file larger than this is started anew.
const MAX_LOG: u64 = 16 << 20;

/// The path of a server binary: beside this executable.
///
/// # Errors
/// Exit code 78 when it is not there.
pub fn beside(name: &str) -> Outcome<PathBuf> {
    let own = std::env::current_exe().or_fail(Exit::Refused, "finding this executable")?;
    let path = own.with_file_name(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::refused(format!("{} is missing", path.display()))
        .hint("build everything with `make build`, or install the servers beside mentatctl"))
}

/// Runs a server's `init` to its end and returns the JSON object it printed, if it printed one.
///
/// # Errors
/// With the server's own line when it refuses.
pub fn init(name: &str, config: &Path) -> Outcome<Value> {
    let output = Command::new(beside(name)?)
        .arg("init")
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .output()
        .or_fail(Exit::Refused, format!("starting {name}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::refused(format!("{name} init: {}", last_line(&stderr))));
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    Ok(stdout.lines().rev().find_map(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null))
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Its name.
    pub name: &'static str,
    /// What its readiness line said.
    pub ready: Value,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `NAME serve --config CONFIG --exit-with-stdin`, with standard error going to a log file, and waits until
    /// it is ready. It gets a process group of its own: Ctrl-C reaches this process first, which stops them in order.
    ///
    /// # Errors
    /// Exit code 78 with the last line of the server's log when it refuses to start.
    pub fn start(name: &'static str, config: &Path, log: &Path) -> Outcome<Self> {
        use std::os::unix::process::CommandExt as _;
        let binary = beside(name)?;
        let large = std::fs::metadata(log).is_ok_and(|meta| meta.len() > MAX_LOG);
        let file = OpenOptions::new()
            .create(true)
            .append(!large)
            .write(true)
            .truncate(large)
            .open(log)
            .or_fail(Exit::Refused, format!("cannot write {}", log.display()))?;
        let mut child = Command::new(&binary)
            .arg("serve")
            .arg("--config")
            .arg(config)
            .arg("--exit-with-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .process_group(0)
            .spawn()
            .or_fail(Exit::Refused, format!("starting {}", binary.display()))?;
        let stdout = child.stdout.take();
        let mut server = Self { name, ready: Value::Null, child, log: log.to_path_buf() };
        let (send, lines) = channel();
        std::thread::spawn(move || {
            let Some(stdout) = stdout else { return };
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // After the readiness line nobody listens; reading goes on so that the server never blocks.
                let _ = send.send(line);
            }
        });
        loop {
            match lines.recv_timeout(READY_WITHIN) {
                Ok(line) => {
                    if let Ok(value) = serde_json::from_str::<Value>(&line)
                        && value.get("ready") == Some(&Value::Bool(true))
                    {
                        server.ready = value;
                        return Ok(server);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = server.child.wait().or_fail(Exit::Refused, format!("waiting for {name}"))?;
                    return Err(server.failure(&format!("{name} did not start ({status})")));
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(
                        server.failure(&format!("{name} was not ready within {} s", READY_WITHIN.as_secs()))
                    );
                }
            }
        }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, once it has ended.
    pub fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// What to say when it ended by itself.
    pub fn failure(&self, what: &str) -> Failure {
        let said = tail(&self.log).map(|line| format!(": {line}")).unwrap_or_default();
        Failure::refused(format!("{what}{said}")).hint(format!("its log is {}", self.log.display()))
    }

    /// Closes the pipe and waits; kills what does not stop.
    pub fn stop(&mut self) {
        drop(self.child.stdin.take());
        let step = Duration::from_millis(10);
        let mut waited = Duration::ZERO;
        while waited < STOP_WITHIN {
            if self.child.try_wait().ok().flatten().is_some() {
                return;
            }
            std::thread::sleep(step);
            waited += step;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The last line of a log file that is not empty.
fn tail(path: &Path) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(8192))).ok()?;
    let mut bytes = Vec::new();
    file.take(8192).read_to_end(&mut bytes).ok()?;
    let line = last_line(&String::from_utf8_lossy(&bytes));
    (!line.is_empty()).then_some(line)
}

fn last_line(text: &str) -> String {
    text.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default()
        .trim()
        .chars()
        .take(600)
        .collect()
}
