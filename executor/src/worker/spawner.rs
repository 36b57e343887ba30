//! The executor's end of the spawner.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;

use super::channel::{Beside, Channel};
use super::holder::{END, ENDED, MAX_ORDER, SPAWN, answered, inherit_nothing, order};

/// How long an order may take: the start of one process, or the end of one.
const PATIENCE: Duration = Duration::from_secs(10);

/// The process that starts workers. Dropping it ends all of them.
pub struct Spawner {
    /// Nothing when the spawner is to end.
    channel: Mutex<Option<Channel>>,
    process: Mutex<Child>,
    /// Why it was given up, if it was. It cannot be started again: the sandbox of this process is closed.
    given_up: OnceLock<String>,
}

/// In which state a worker is to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It has let go of its sockets: what ended it is about to be known, and is waited for.
    Over,
    /// It may be running.
    Running,
}

impl Spawner {
    /// Starts the spawner: before the sandbox of this process closes, because workers need what it takes away. It ends with the
    /// thread that starts it, so that is the main thread.
    ///
    /// # Errors
    ///
    /// When the process cannot be started.
    pub fn start() -> std::io::Result<Self> {
        Self::of_program(Path::new("/proc/self/exe"))
    }

    /// As [`Self::start`], with another file of this program.
    ///
    /// # Errors
    ///
    /// When the process cannot be started.
    pub fn of_program(program: &Path) -> std::io::Result<Self> {
        // What this process was started with beside them is not for guests, and whoever started it may have left it open.
        inherit_nothing();
        let (near, far) = UnixStream::pair()?;
        let process = Command::new(program)
            .arg(super::SPAWNER)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(far))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A signal from a terminal is for the executor, which ends its calls first.
            .process_group(0)
            .spawn()?;
        Ok(Self::over(Channel::new(near, Beside::Nothing)?, process))
    }

    /// The spawner at the other end of this.
    pub(super) fn over(channel: Channel, process: Child) -> Self {
        Self { channel: Mutex::new(Some(channel)), process: Mutex::new(process), given_up: OnceLock::new() }
    }

    /// Why no worker can be started any more, if so.
    pub(super) fn given_up(&self) -> Option<&str> {
        self.given_up.get().map(String::as_str)
    }

    /// Starts a worker that finds `control` as its end of the control socket.
    pub(super) fn spawn(&self, number: u64, control: UnixStream) -> std::io::Result<()> {
        match self.ask(&order(SPAWN, number), Some(control))? {
            0 => Ok(()),
            errno => Err(std::io::Error::from_raw_os_error(errno)),
        }
    }

    /// Ends a worker, if it has not ended by itself: how.
    pub(super) fn end(&self, number: u64, life: Life) -> std::io::Result<ExitStatus> {
        let what = match life {
            Life::Over => ENDED,
            Life::Running => END,
        };
        self.ask(&order(what, number), None).map(ExitStatus::from_raw)
    }

    fn ask(&self, order: &[u8], beside: Option<UnixStream>) -> std::io::Result<i32> {
        let mut held = self.channel.lock();
        let lost = |why: &str| std::io::Error::other(format!("the spawner: {why}"));
        let channel = held.as_mut().ok_or_else(|| lost(self.given_up().unwrap_or("it has ended")))?;
        match converse(channel, order, beside) {
            Ok(status) => Ok(status),
            Err(why) => {
                // An answer that came late would be taken for the next order's, and a worker that it could not end may live. Its
                // own end is the end of all: it ends when its socket does, if nothing else reaches it.
                *held = None;
                let _ = self.process.lock().kill();
                let _ = self.given_up.set(why.clone());
                tracing::error!(why, "the process that starts workers was given up; restart the executor");
                Err(lost(&why))
            }
        }
    }
}

/// One order and its own answer.
fn converse(channel: &mut Channel, order: &[u8], beside: Option<UnixStream>) -> Result<i32, String> {
    let descriptors: Vec<_> = beside.iter().map(|socket| socket.as_fd()).collect();
    channel.send(order, &descriptors, PATIENCE, &mut || false).map_err(|error| error.to_string())?;
    let answer = channel.receive(MAX_ORDER, PATIENCE).map_err(|error| error.to_string())?;
    let answer = answer.ok_or("it did not answer in time")?;
    answered(order, &answer).ok_or_else(|| "it answered something else than what it was asked".to_owned())
}

impl Drop for Spawner {
    fn drop(&mut self) {
        *self.channel.lock() = None;
        let _ = self.process.lock().wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A spawner that answers so.
    fn answering(answer: impl FnOnce(Vec<u8>) -> Vec<u8> + Send + 'static) -> Spawner {
        let (near, far) = UnixStream::pair().unwrap();
        let process = Command::new("sleep").arg("600").spawn().unwrap();
        std::thread::spawn(move || {
            let mut far = Channel::new(far, Beside::Nothing).unwrap();
            let asked = far.receive_patiently(MAX_ORDER).unwrap();
            let answer = answer(asked);
            far.send(&answer, &[], PATIENCE, &mut || true).unwrap();
            // Everything further is answered as it should be.
            while let Ok(mut asked) = far.receive_patiently(MAX_ORDER) {
                asked.extend_from_slice(&0i32.to_le_bytes());
                if far.send(&asked, &[], PATIENCE, &mut || true).is_err() {
                    break;
                }
            }
        });
        Spawner::over(Channel::new(near, Beside::Nothing).unwrap(), process)
    }

    #[test]
    fn an_answer_to_another_order_ends_the_spawner_and_with_it_every_worker() {
        let honest = answering(|mut asked| {
            asked.extend_from_slice(&(9i32 << 8).to_le_bytes());
            asked
        });
        assert_eq!(honest.end(7, Life::Running).unwrap().code(), Some(9));
        assert_eq!(honest.end(8, Life::Running).unwrap().code(), Some(0));
        assert_eq!(honest.given_up(), None);
        honest.process.lock().kill().unwrap();
        for late in [order(END, 6), order(SPAWN, 7), Vec::new()] {
            let confused = answering(move |_| [&late[..], &[0; 4]].concat());
            assert!(confused.end(7, Life::Running).is_err());
            assert!(confused.given_up().unwrap().contains("something else"));
            // It was killed, and is not asked again.
            assert_eq!(confused.process.lock().wait().unwrap().signal(), Some(libc::SIGKILL));
            let (near, _far) = UnixStream::pair().unwrap();
            assert!(confused.spawn(8, near).unwrap_err().to_string().contains("something else"));
        }
    }
}
