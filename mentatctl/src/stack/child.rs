//! A server as a child process: started with a pipe that ends it when we end, waited for by its readiness line, stopped
//! by closing the pipe.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::interruption::Interruption;

/// How long a server may take to become ready. Generous: recovery after a crash re-derives the right edge of the logs.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a server may take to stop after its pipe was closed; it drains requests for up to half a minute.
const STOP_WITHIN: Duration = Duration::from_secs(40);
/// How often signals are looked at while a server starts.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A log file larger than this becomes NAME.log.1, in place of an earlier one, and is started anew.
const MAX_LOG: u64 = 16 << 20;
/// So much of a log's end is searched for the line that says why.
const MAX_TAIL: u64 = 16 << 10;

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

/// Runs a server's `init` to its end and returns the JSON object it printed, if it printed one. Ctrl-C does not reach it:
/// whoever calls asks afterwards whether to go on.
///
/// # Errors
/// With the server's own line when it refuses.
pub fn init(name: &str, config: &Path) -> Outcome<Value> {
    once(name, "init", config, &[])
}

/// Has the authority make a new key for one of its own, as [`init`] does its work.
///
/// # Errors
/// With the authority's own line when it refuses.
pub fn renew(config: &Path, authority: &str) -> Outcome<Value> {
    once("ca-service", "renew", config, &["--authority", authority])
}

fn once(name: &str, what: &str, config: &Path, more: &[&str]) -> Outcome<Value> {
    use std::os::unix::process::CommandExt as _;
    let output = Command::new(beside(name)?)
        .arg(what)
        .arg("--config")
        .arg(config)
        .args(more)
        .stdin(Stdio::null())
        .process_group(0)
        .output()
        .or_fail(Exit::Refused, format!("starting {name}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let said = last_line(&stderr).unwrap_or_else(|| ending(output.status));
        return Err(Failure::refused(format!("{name} {what}: {}", cause(&said))));
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
    /// Where this run begins in the log file.
    log_start: u64,
}

impl Server {
    /// Starts `NAME serve --config CONFIG --exit-with-stdin`, with standard error going to a log file, and waits until
    /// it is ready. It gets a process group of its own: Ctrl-C reaches this process first, which stops them in order.
    ///
    /// # Errors
    /// Exit code 78 with the last line of the server's log when it refuses to start; 1 when it was interrupted.
    pub fn start(
        name: &'static str,
        config: &Path,
        log: &Path,
        interruption: &Interruption,
    ) -> Outcome<Self> {
        use std::os::unix::process::CommandExt as _;
        let binary = beside(name)?;
        turn_over(log, MAX_LOG);
        let log_start = std::fs::metadata(log).map_or(0, |meta| meta.len());
        let file = OpenOptions::new()
            .create(true)
            .append(true)
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
        let mut server = Self { name, ready: Value::Null, child, log: log.to_path_buf(), log_start };
        let (send, lines) = channel();
        std::thread::spawn(move || {
            let Some(stdout) = stdout else { return };
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // After the readiness line nobody listens; reading goes on so that the server never blocks.
                let _ = send.send(line);
            }
        });
        let mut waited = Duration::ZERO;
        loop {
            // An error drops the server, which stops it.
            interruption.check()?;
            match lines.recv_timeout(LOOK_EVERY) {
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
                    let what = format!("{name} did not start ({})", ending(status));
                    return Err(server.failure(&what, last_line));
                }
                Err(RecvTimeoutError::Timeout) if waited < READY_WITHIN => waited += LOOK_EVERY,
                Err(RecvTimeoutError::Timeout) => {
                    let what = format!("{name} was not ready within {} s", READY_WITHIN.as_secs());
                    return Err(server.failure(&what, last_line));
                }
            }
        }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Keeps the log file of a running server bounded.
    pub fn bound_log(&mut self) {
        if turn_over(&self.log, MAX_LOG) {
            self.log_start = 0;
        }
    }

    /// Which server ended, how, and the last error it wrote, once it has ended.
    pub fn ended(&mut self) -> Option<Failure> {
        let status = self.child.try_wait().ok().flatten()?;
        let what = format!("{} ended by itself ({})", self.name, ending(status));
        Some(self.failure(&what, last_error).hint(format!(
            "its log is {}; start the stack again: nothing that was acknowledged is lost",
            self.log.display()
        )))
    }

    fn failure(&self, what: &str, line: impl Fn(&str) -> Option<String>) -> Failure {
        let said = tail(&self.log, self.log_start).and_then(|text| line(&text));
        let said = said.map(|line| format!(": {}", cause(&line))).unwrap_or_default();
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

/// Copies a log file that is too large to NAME.log.1 and empties it: the server goes on appending to the same file, and a
/// line that it writes in between is lost. Returns whether it did. Logs are no records: those are in the servers' data.
fn turn_over(log: &Path, limit: u64) -> bool {
    if !std::fs::metadata(log).is_ok_and(|meta| meta.len() > limit) {
        return false;
    }
    let mut before = log.as_os_str().to_owned();
    before.push(".1");
    // What cannot be kept is let go all the same: a full disk is why the limit is there.
    let _ = std::fs::copy(log, before);
    OpenOptions::new().write(true).open(log).and_then(|file| file.set_len(0)).is_ok()
}

/// The end of a log file, as far as it was written after `start`.
fn tail(path: &Path, start: u64) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_TAIL).max(start))).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_TAIL).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last line that is not empty.
fn last_line(text: &str) -> Option<String> {
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(shortened)
}

/// The last line that reports an error; a server that was killed has usually written none.
fn last_error(text: &str) -> Option<String> {
    let is_error =
        |line: &&str| line.starts_with("error:") || line.contains(" ERROR ") || line.contains("panicked at");
    text.lines().rev().map(str::trim).find(is_error).map(shortened)
}

/// What a server's own line says is wrong: that it is an error, and that it refused to start, was said already.
fn cause(line: &str) -> &str {
    let line = line.strip_prefix("error: ").unwrap_or(line);
    line.strip_prefix("refused to start: ").unwrap_or(line)
}

/// Without the word that begins every error line: it stands at the beginning of the line this becomes a part of.
fn shortened(line: &str) -> String {
    line.strip_prefix("error: ").unwrap_or(line).chars().take(600).collect()
}

/// How a process ended, for people.
fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => "killed by signal 9, SIGKILL".to_owned(),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_refusal_is_quoted_without_saying_error_twice() {
        assert_eq!(cause("error: refused to start: port 1 is taken; choose"), "port 1 is taken; choose");
        assert_eq!(cause("error: the disk is full"), "the disk is full");
        assert_eq!(cause("anything else"), "anything else");
    }

    #[test]
    fn a_log_that_grows_is_turned_over_under_the_server_that_writes_it() {
        use std::io::Write as _;
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("server.log");
        let mut server = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        server.write_all(b"first\n").unwrap();
        assert!(!turn_over(&log, 6));
        server.write_all(b"second\n").unwrap();
        assert!(turn_over(&log, 6));
        server.write_all(b"third\n").unwrap();
        assert_eq!(std::fs::read(&log).unwrap(), b"third\n", "written where the file begins now");
        assert_eq!(std::fs::read(dir.path().join("server.log.1")).unwrap(), b"first\nsecond\n");
        assert!(!turn_over(&dir.path().join("none"), 6));
    }

    #[test]
    fn the_last_error_is_found_among_what_came_after_it() {
        let text = "t  INFO a: serving\nt ERROR a::b: the disk is full\nt  INFO a: stopping\n\n";
        assert_eq!(last_error(text).as_deref(), Some("t ERROR a::b: the disk is full"));
        assert_eq!(last_line(text).as_deref(), Some("t  INFO a: stopping"));
        assert_eq!(last_error("t  INFO a: serving\n"), None);
        let refused = "error: refused to start: port 80 is in use; choose another\n";
        assert_eq!(
            last_error(refused).as_deref(),
            Some("refused to start: port 80 is in use; choose another")
        );
        assert_eq!(last_line("\n \n"), None);
    }
}
