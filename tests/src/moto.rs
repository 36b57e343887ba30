//! moto, an emulator of cloud services by other people, as a process of its own. Crates below `mentat-tests` include this file by
//! its path.

#![allow(unreachable_pub, reason = "a module of several crates, of which one exports it")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long it may take to answer for the first time: it loads a service when that is asked for, which takes many seconds on a
/// machine that is busy, and longer than a client waits.
const FIRST_ANSWER: Duration = Duration::from_secs(300);

/// An emulator; it ends with this.
pub struct Moto {
    child: Child,
    /// Its URL.
    pub endpoint: String,
}

impl Moto {
    /// Starts it on a port that it chooses, and has it answer as a key service once.
    ///
    /// # Panics
    /// When it does not start, with what it said.
    #[must_use]
    pub fn start() -> Self {
        let mut command = Command::new("moto_server");
        // The suites name a region that there is not, so that nothing of theirs can reach one that there is.
        command.env("MOTO_ALLOW_NONEXISTENT_REGION", "true");
        command.args(["-H", "127.0.0.1", "-p", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else { panic!("moto did not start: {said}") };
            if let Some((_, address)) = line.split_once("Running on http://") {
                break address.trim().to_owned();
            }
            said.push_str(&line);
        };
        // It goes on saying something about every request.
        std::thread::spawn(move || lines.for_each(drop));
        let moto = Self { child, endpoint: format!("http://{address}") };
        let answer = ask(&address);
        assert!(answer.starts_with("HTTP/1.1 200"), "moto answers {answer}");
        moto
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has the key service list its keys. Nothing is signed: it does not look.
fn ask(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(FIRST_ANSWER)).unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nX-Amz-Target: TrentService.ListKeys\r\n\
         Content-Type: application/x-amz-json-1.1\r\nContent-Length: 2\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/eu-test-1/kms/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
