//! Frames over a socket pair, in either direction and without trust in the other side.
//!
//! A frame's length is checked before anything is allocated for it, and what is allocated grows with what has arrived. The
//! socket never blocks: whoever waits says for how long, so that a side that reads or writes nothing holds nobody.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use executor_engine::FormatError;
use executor_engine::frames::{StopOrder, body_length};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::clock;

/// Most descriptors of one frame: the socket of stops and one for each lane.
pub(super) const MAX_DESCRIPTORS: usize = 66;

/// Most bytes read at once, and by which a buffer grows before they have arrived.
const STEP: usize = 256 << 10;

/// Between two looks of a side that waits for as long as it takes.
const FOREVER: Duration = Duration::from_secs(3600);

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    #[error("the other side is gone")]
    Closed,
    #[error("the conversation was given up")]
    GivenUp,
    #[error(transparent)]
    Nonsense(#[from] FormatError),
    #[error("{0}")]
    System(#[from] Errno),
}

/// What is taken from a socket besides bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// Descriptors: only from a side that is trusted.
    Descriptors,
    /// Nothing; the kernel closes descriptors that come.
    Nothing,
    /// Who the kernel says is the sender.
    Sender,
}

/// One end of a socket pair.
pub(super) struct Channel {
    socket: UnixStream,
    beside: Beside,
    /// A frame that has not arrived whole, with its head.
    inbox: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    sender: Option<u32>,
}

impl Channel {
    pub(super) fn new(socket: UnixStream, beside: Beside) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        if beside == Beside::Sender {
            rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        }
        Ok(Self { socket, beside, inbox: Vec::new(), descriptors: Vec::new(), sender: None })
    }

    /// Process id of whoever sent the last bytes, as this process sees it.
    pub(super) fn sender(&self) -> Option<u32> {
        self.sender
    }

    /// Sends a whole frame. `go_on` is asked in every `pause`, however little the other side takes at a time.
    pub(super) fn send(
        &self,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
        pause: Duration,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), ChannelError> {
        let head = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        let (mut sent, whole) = (0, head.len() + body.len());
        let mut until = clock::monotonic().checked_add(pause);
        while sent < whole {
            let parts = [head.get(sent..), body.get(sent.saturating_sub(head.len())..)];
            let parts = parts.map(|part| IoSlice::new(part.unwrap_or_default()));
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if sent == 0
                && !descriptors.is_empty()
                && !control.push(SendAncillaryMessage::ScmRights(descriptors))
            {
                return Err(Errno::TOOBIG.into());
            }
            match sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.wait(PollFlags::OUT, left(until))?;
                    if left(until).is_zero() {
                        if !go_on() {
                            return Err(ChannelError::GivenUp);
                        }
                        until = clock::monotonic().checked_add(pause);
                    }
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ChannelError::Closed),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// The next frame's body, or nothing if it has not arrived whole within `pause`, in however many pieces. What came of it
    /// stays. A frame that says it is longer than `max` is nonsense.
    pub(super) fn receive(&mut self, max: usize, pause: Duration) -> Result<Option<Vec<u8>>, ChannelError> {
        let until = clock::monotonic().checked_add(pause);
        loop {
            let missing = match self.inbox.first_chunk::<4>() {
                None => 4 - self.inbox.len(),
                Some(head) => 4 + body_length(*head, max)? - self.inbox.len(),
            };
            if missing == 0 {
                let mut frame = std::mem::take(&mut self.inbox);
                frame.drain(..4);
                return Ok(Some(frame));
            }
            // Also when something came: whoever sends a little now and then is looked at like one who sends nothing.
            if left(until).is_zero() {
                return Ok(None);
            }
            match self.read(missing.min(STEP)) {
                Ok(()) | Err(ChannelError::System(Errno::INTR)) => {}
                Err(ChannelError::System(Errno::AGAIN)) => self.wait(PollFlags::IN, left(until))?,
                Err(error) => return Err(error),
            }
        }
    }

    /// The next frame's body, however long it takes.
    pub(super) fn receive_patiently(&mut self, max: usize) -> Result<Vec<u8>, ChannelError> {
        loop {
            if let Some(body) = self.receive(max, FOREVER)? {
                return Ok(body);
            }
        }
    }

    /// Descriptors that came with the frames so far.
    pub(super) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }

    /// Adds at most `count` bytes to the inbox.
    fn read(&mut self, count: usize) -> Result<(), ChannelError> {
        let before = self.inbox.len();
        self.inbox.resize(before + count, 0);
        let room = match self.beside {
            Beside::Descriptors => rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS)),
            Beside::Nothing => 0,
            Beside::Sender => rustix::cmsg_space!(ScmCredentials(1)),
        };
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS), ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(space.get_mut(..room).unwrap_or_default());
        let buffer = self.inbox.get_mut(before..).unwrap_or_default();
        let received =
            recvmsg(&self.socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let count = match &received {
            Ok(received) => received.bytes,
            Err(_) => 0,
        };
        for message in control.drain() {
            match message {
                RecvAncillaryMessage::ScmRights(descriptors) if self.beside == Beside::Descriptors => {
                    self.descriptors.extend(descriptors);
                }
                RecvAncillaryMessage::ScmCredentials(sender) => {
                    self.sender = u32::try_from(sender.pid.as_raw_nonzero().get()).ok();
                }
                _ => {}
            }
        }
        self.inbox.truncate(before + count);
        match received {
            Ok(_) if count == 0 => Err(ChannelError::Closed),
            Ok(_) => Ok(()),
            Err(Errno::CONNRESET) => Err(ChannelError::Closed),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until the socket can be used, or the time is over.
    fn wait(&self, what: PollFlags, pause: Duration) -> Result<(), ChannelError> {
        let mut fds = [PollFd::new(&self.socket, what)];
        let pause = Timespec {
            tv_sec: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: pause.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&pause)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The time until then; without an end, as long as anybody waits.
fn left(until: Option<Instant>) -> Duration {
    until.map_or(FOREVER, |until| until.saturating_duration_since(clock::monotonic()))
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The executor's end of the socket of stops.
pub(super) struct Stops(UnixStream);

impl Stops {
    pub(super) fn new(socket: UnixStream) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Whether the other side has closed its end.
    pub(super) fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        let ended = PollFlags::HUP | PollFlags::ERR;
        poll(&mut fds, Some(&Timespec::default())).is_ok()
            && fds.iter().any(|fd| fd.revents().intersects(ended))
    }

    /// Sends a stop; a worker whose socket is full reads none, which is an error.
    pub(super) fn send(&self, stop: StopOrder) -> std::io::Result<()> {
        use std::io::Write as _;
        let count = (&self.0).write(&stop.encode())?;
        if count == StopOrder::SIZE { Ok(()) } else { Err(std::io::ErrorKind::WriteZero.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const SOON: Duration = Duration::from_millis(20);

    fn pair(beside: Beside) -> (Channel, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (Channel::new(near, beside).unwrap(), far)
    }

    #[test]
    fn a_frame_is_whole_or_is_not_there() {
        let (mut near, mut far) = pair(Beside::Nothing);
        assert!(near.receive(10, SOON).unwrap().is_none());
        for byte in [3, 0, 0, 0, b'a', b'b'] {
            far.write_all(&[byte]).unwrap();
            assert!(near.receive(10, SOON).unwrap().is_none());
        }
        far.write_all(b"c\x01\0\0\0d").unwrap();
        assert_eq!(near.receive(10, SOON).unwrap().unwrap(), b"abc");
        assert_eq!(near.receive(10, SOON).unwrap().unwrap(), b"d");
        drop(far);
        assert!(matches!(near.receive(10, SOON), Err(ChannelError::Closed)));
        let (near, far) = UnixStream::pair().unwrap();
        let stops = Stops::new(near).unwrap();
        assert!(!stops.is_closed());
        drop(far);
        assert!(stops.is_closed());
    }

    #[test]
    fn a_frame_that_claims_too_much_is_nonsense_before_it_arrives() {
        for claimed in [11u32, 0, u32::MAX] {
            let (mut near, mut far) = pair(Beside::Nothing);
            far.write_all(&claimed.to_le_bytes()).unwrap();
            assert!(matches!(near.receive(10, SOON), Err(ChannelError::Nonsense(_))), "{claimed}");
            assert!(near.inbox.capacity() < 64);
        }
    }

    #[test]
    fn a_side_that_sends_or_takes_a_little_at_a_time_is_looked_at_as_often() {
        let (mut near, far) = pair(Beside::Nothing);
        let (mut slow, mut taken) = (far.try_clone().unwrap(), far);
        let sender = std::thread::spawn(move || {
            slow.write_all(&(1u32 << 20).to_le_bytes()).unwrap();
            // Until the other side is gone.
            while slow.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for _ in 0..3 {
            assert!(near.receive(1 << 20, SOON).unwrap().is_none());
        }
        let taker = std::thread::spawn(move || {
            use std::io::Read as _;
            let mut some = [0; 4096];
            while taken.read(&mut some).is_ok_and(|count| count > 0) {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let mut asked = 0;
        let mut go_on = || {
            asked += 1;
            asked < 3
        };
        let sent = near.send(&vec![0; 64 << 20], &[], SOON, &mut go_on);
        assert!(matches!(sent, Err(ChannelError::GivenUp)) && asked == 3);
        drop(near);
        sender.join().unwrap();
        taker.join().unwrap();
    }

    #[test]
    fn a_side_that_takes_nothing_is_given_up() {
        let (near, _far) = pair(Beside::Nothing);
        let mut asked = 0;
        let mut go_on = || {
            asked += 1;
            asked < 3
        };
        let sent = near.send(&vec![0; 8 << 20], &[], Duration::from_millis(1), &mut go_on);
        assert!(matches!(sent, Err(ChannelError::GivenUp)));
        assert_eq!(asked, 3);
    }

    #[test]
    fn descriptors_come_only_where_they_are_expected() {
        for (beside, expected) in [(Beside::Descriptors, 1), (Beside::Nothing, 0), (Beside::Sender, 0)] {
            let (mut near, far) = pair(beside);
            let far = Channel::new(far, Beside::Nothing).unwrap();
            let null = std::fs::File::open("/dev/null").unwrap();
            far.send(b"x", &[null.as_fd()], SOON, &mut || false).unwrap();
            assert_eq!(near.receive(1, SOON).unwrap().unwrap(), b"x");
            assert_eq!(near.take_descriptors().len(), expected, "{beside:?}");
            let own = (beside == Beside::Sender).then(std::process::id);
            assert_eq!(near.sender(), own);
        }
    }
}
