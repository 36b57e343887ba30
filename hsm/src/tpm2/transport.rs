//! The way to a TPM: a device of the kernel, or a socket of a software TPM. One command at a time, one answer to each.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::error::Error;

/// Used when a reference does not say which: the kernel's resource manager, which gives every process handles of its own.
const DEFAULT_DEVICE: &str = "/dev/tpmrm0";
/// Longest answer that is read, in bytes: TPMs have buffers of 4,096.
const MAX_ANSWER: usize = 8_192;
/// Bytes of an answer's header: tag, size, response code.
const HEADER: usize = 10;
/// Longest wait for an answer on a socket: an RSA key takes a software TPM seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Where a TPM answers (`tcti`): `device:PATH`, `swtpm:path=PATH` or `swtpm:host=ADDRESS,port=PORT` on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A character device.
    Device(PathBuf),
    /// A software TPM on a loopback port. Start it with `--server …,disconnect`, so that it outlives its clients.
    Tcp(SocketAddr),
    /// A software TPM on a Unix socket, started likewise.
    Unix(PathBuf),
}

impl Default for Place {
    fn default() -> Self {
        Self::Device(PathBuf::from(DEFAULT_DEVICE))
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::Invalid { what: "tcti", reason: reason.to_owned() };
        let absolute = |path: &str| Path::new(path).is_absolute().then(|| PathBuf::from(path));
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "device" if rest.is_empty() => Ok(Self::default()),
            "device" => absolute(rest).map(Self::Device).ok_or_else(|| invalid("the path is not absolute")),
            "swtpm" => {
                if let Some(path) = rest.strip_prefix("path=") {
                    return absolute(path).map(Self::Unix).ok_or_else(|| invalid("the path is not absolute"));
                }
                let address = rest.strip_prefix("host=").and_then(|rest| rest.split_once(",port="));
                let address = address.and_then(|(host, port)| format!("{host}:{port}").parse().ok());
                // Commands carry the PIN in clear.
                address
                    .filter(|address: &SocketAddr| address.ip().is_loopback())
                    .map(Self::Tcp)
                    .ok_or_else(|| invalid("write swtpm:host=127.0.0.1,port=PORT or swtpm:path=/PATH"))
            }
            _ => Err(invalid("known are device:/dev/tpmrm0 and swtpm:host=127.0.0.1,port=PORT")),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device(path) => write!(f, "device:{}", path.display()),
            Self::Tcp(address) => write!(f, "swtpm:host={},port={}", address.ip(), address.port()),
            Self::Unix(path) => write!(f, "swtpm:path={}", path.display()),
        }
    }
}

/// Whether a failed command may have reached the TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Maybe,
    No,
}

/// No answer.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) sent: Sent,
    pub(super) detail: String,
}

/// An open way. A device stays open, because the handles of its resource manager end with it; sockets are opened for each command,
/// as a software TPM that outlives its clients wants it.
#[derive(Debug)]
pub(super) struct Transport {
    place: Place,
    device: Option<File>,
}

impl Transport {
    pub(super) fn new(place: Place) -> Self {
        Self { place, device: None }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Gives a command over and waits for its answer. Whatever goes wrong, the next call begins anew.
    pub(super) fn exchange(&mut self, command: &[u8]) -> Result<Vec<u8>, Lost> {
        match &self.place {
            Place::Device(path) => {
                let mut device = match self.device.take() {
                    Some(device) => device,
                    None => OpenOptions::new()
                        .read(true)
                        .write(true)
                        .open(path)
                        .map_err(|e| lost(Sent::No, &e))?,
                };
                // One write is one command, one read its whole answer.
                device.write_all(command).map_err(|error| lost(Sent::Maybe, &error))?;
                let mut answer = vec![0; MAX_ANSWER];
                let length = device.read(&mut answer).map_err(|error| lost(Sent::Maybe, &error))?;
                answer.truncate(length);
                self.device = Some(device);
                Ok(answer)
            }
            Place::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, CONNECT).map_err(|e| lost(Sent::No, &e))?;
                let patient = stream.set_read_timeout(Some(PATIENCE)).and(stream.set_nodelay(true));
                patient.map_err(|error| lost(Sent::No, &error))?;
                over(stream, command)
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).map_err(|error| lost(Sent::No, &error))?;
                stream.set_read_timeout(Some(PATIENCE)).map_err(|error| lost(Sent::No, &error))?;
                over(stream, command)
            }
        }
    }
}

fn over(mut stream: impl Read + Write, command: &[u8]) -> Result<Vec<u8>, Lost> {
    let failed = |error: io::Error| lost(Sent::Maybe, &error);
    stream.write_all(command).map_err(failed)?;
    let mut answer = vec![0; HEADER];
    stream.read_exact(&mut answer).map_err(failed)?;
    let size = answer.get(2..6).and_then(|size| <[u8; 4]>::try_from(size).ok()).map_or(0, u32::from_be_bytes);
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if !(HEADER..=MAX_ANSWER).contains(&size) {
        return Err(Lost { sent: Sent::Maybe, detail: format!("an answer of {size} bytes") });
    }
    answer.resize(size, 0);
    stream.read_exact(answer.get_mut(HEADER..).unwrap_or_default()).map_err(failed)?;
    Ok(answer)
}

fn lost(sent: Sent, error: &io::Error) -> Lost {
    Lost { sent, detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_as_they_are_read_and_none_is_on_another_machine() {
        for text in ["device:/dev/tpmrm0", "swtpm:host=127.0.0.1,port=2321", "swtpm:path=/run/tpm.sock"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        assert_eq!("device".parse::<Place>().unwrap(), Place::default());
        for text in
            ["swtpm:host=10.0.0.1,port=2321", "swtpm:host=localhost,port=1", "device:tpm", "mssim:", "swtpm:"]
        {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_that_names_an_impossible_size_is_not_waited_for() {
        let answer = |size: u32| {
            let mut bytes = vec![0x80, 1];
            bytes.extend(size.to_be_bytes());
            bytes.extend([0; 4]);
            over(Once(io::Cursor::new(bytes)), b"command")
        };
        assert_eq!(answer(10).unwrap().len(), 10);
        for size in [0, 9, 8_193, u32::MAX] {
            assert_eq!(answer(size).unwrap_err().sent, Sent::Maybe, "{size}");
        }
        assert_eq!(answer(12).unwrap_err().sent, Sent::Maybe);
    }

    /// Takes everything, and gives what it has.
    struct Once(io::Cursor<Vec<u8>>);

    impl Read for Once {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Once {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
