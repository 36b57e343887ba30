//! The executor's end of the spawner.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use parking_lot::Mutex;

use super::channel::{Beside, Channel};
use super::holder::{END, MAX_ORDER, SPAWN, order};

/// How long an order may take: the start of one process, or the end of one.
const PATIENCE: Duration = Duration::from_secs(10);

/// The process that starts workers. Dropping it ends all of them.
pub struct Spawner {
    /// Nothing when the spawner is to end.
    channel: Mutex<Option<Channel>>,
    process: Child,
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
        Ok(Self { channel: Mutex::new(Some(Channel::new(near, Beside::Nothing)?)), process })
    }

    /// Starts a worker that finds `control` as its end of the control socket.
    pub(super) fn spawn(&self, number: u64, control: UnixStream) -> std::io::Result<()> {
        match self.ask(&order(SPAWN, number), Some(control))? {
            0 => Ok(()),
            errno => Err(std::io::Error::from_raw_os_error(errno)),
        }
    }

    /// Ends a worker, if it has not ended by itself: how.
    pub(super) fn end(&self, number: u64) -> std::io::Result<ExitStatus> {
        self.ask(&order(END, number), None).map(ExitStatus::from_raw)
    }

    fn ask(&self, order: &[u8], beside: Option<UnixStream>) -> std::io::Result<i32> {
        let mut channel = self.channel.lock();
        let gone = |why: &dyn std::fmt::Display| std::io::Error::other(format!("the spawner: {why}"));
        let channel = channel.as_mut().ok_or_else(|| gone(&"it has ended"))?;
        let descriptors: Vec<_> = beside.iter().map(|socket| socket.as_fd()).collect();
        channel.send(order, &descriptors, PATIENCE, &mut || false).map_err(|error| gone(&error))?;
        let answer = channel.receive(MAX_ORDER, PATIENCE).map_err(|error| gone(&error))?;
        let answer = answer.ok_or_else(|| gone(&"no answer"))?;
        answer.try_into().map(i32::from_le_bytes).map_err(|_| gone(&"an unreadable answer"))
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        *self.channel.lock() = None;
        let _ = self.process.wait();
    }
}
