//! One command of the demonstration, run to its end, unless something meanwhile makes its answer meaningless: a server
//! died, or somebody pressed Ctrl-C.

use std::io::{Read, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};

/// How often servers and signals are looked at while a command runs.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs a command with `input` on its standard input. `go_on` is asked again and again; when it fails, the command is
/// ended and its failure is the answer.
///
/// # Errors
/// Exit code 1 when the command cannot be run; what `go_on` says.
pub fn play(mut command: Command, input: &[u8], mut go_on: impl FnMut() -> Outcome<()>) -> Outcome<Finished> {
    let wrong = "running this executable";
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .or_fail(Exit::Failure, wrong)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A few bytes, which the pipe holds; a command that needs none closes its end, and that is its right.
        let _ = stdin.write_all(input);
    }
    let (stdout, stderr) = (read_aside(child.stdout.take()), read_aside(child.stderr.take()));
    let texts = collect(&stdout, &mut go_on).and_then(|out| Ok((out, collect(&stderr, &mut go_on)?)));
    let (stdout, stderr) = match texts {
        Ok(texts) => texts,
        Err(failure) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failure);
        }
    };
    let status = child.wait().or_fail(Exit::Failure, wrong)?;
    Ok(Finished { code: status.code().unwrap_or(-1), stdout, stderr })
}

/// Reads a pipe to its end in a thread of its own, so that neither pipe can fill while the other is read.
fn read_aside(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (send, text) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    text
}

fn collect(text: &Receiver<String>, go_on: &mut impl FnMut() -> Outcome<()>) -> Outcome<String> {
    loop {
        match text.recv_timeout(LOOK_EVERY) {
            Ok(text) => return Ok(text),
            Err(RecvTimeoutError::Timeout) => go_on()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::failed("a reading thread ended early"));
            }
        }
    }
}
