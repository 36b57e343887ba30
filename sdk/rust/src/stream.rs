//! Output in pieces, while the call runs.

use crate::error::{Error, HostError, Result};
use crate::host;

/// A stream of this call. Dropped without [`Stream::end`] it ends all the same.
#[derive(Debug)]
pub struct Stream {
    handle: i32,
    open: bool,
}

impl Stream {
    pub(crate) fn start(id: &str) -> Result<Self> {
        Ok(Self { handle: host::start_stream(id)?, open: true })
    }

    /// Sends a piece; waits while the reader is behind.
    ///
    /// # Errors
    /// −9 when the reader takes nothing: the piece was not sent, and may be sent again; −6 past a limit.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let taken = host::write_stream(self.handle, bytes)?;
        if taken == bytes.len() { Ok(()) } else { Err(Error::Host(HostError::Io)) }
    }

    /// Ends the stream; the answer is the number of pieces.
    ///
    /// # Errors
    /// −5 when the host knows no such stream.
    pub fn end(mut self) -> Result<u32> {
        self.open = false;
        host::end_stream(self.handle)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.open {
            let _ = host::end_stream(self.handle);
        }
    }
}
