//! Media objects and variables: the same for core modules and components.

use executor_engine::frames::{Ask, take_pairs};

use super::{ErrorCode, MAX_MEDIA_TYPE_BYTES, MAX_NAME_BYTES, short_enough};
use crate::runtime::{GuestState, Rated};

impl GuestState {
    /// Reads a media object, if the call may hold as many bytes more: what it does not fit into is not read.
    pub(crate) fn download(&mut self, reference: &str) -> Result<Vec<u8>, ErrorCode> {
        short_enough(reference, MAX_NAME_BYTES)?;
        let door = self.door();
        if door.is_none() {
            // Who answers for a worker counts.
            self.spend(Rated::Media, 0)?;
        }
        let held = self.extras_if_any().map_or(0, |extras| extras.held_bytes());
        let room = self.limits().hostcall_bytes.saturating_sub(held);
        match door {
            None => self.grants().media()?.download(reference, room, &self.until()),
            // Who answers knows nothing of what is held here.
            Some(door) => Some(door.ask(Ask::Download { reference })?)
                .filter(|bytes| bytes.len() <= room)
                .ok_or(ErrorCode::Limit),
        }
    }

    /// Keeps a media object; gives its reference.
    pub(crate) fn upload(&mut self, media_type: &str, bytes: &[u8]) -> Result<String, ErrorCode> {
        short_enough(media_type, MAX_MEDIA_TYPE_BYTES)?;
        if let Some(door) = self.door() {
            let reference = door.ask(Ask::Upload { media_type, bytes })?;
            return String::from_utf8(reference).map_err(|_| ErrorCode::Io);
        }
        self.spend(Rated::Media, 0)?;
        let until = self.until();
        let (extras, calls) = self.extras_and_calls();
        calls.grants.media()?.upload(media_type, bytes, &mut extras.uploaded, &until)
    }

    /// Granted variables with their values, for guests that read all of them.
    pub(crate) fn variables(&self) -> Result<Vec<(String, String)>, ErrorCode> {
        match self.door() {
            None => {
                Ok(self.grants().env().iter().map(|(name, value)| (name.clone(), value.clone())).collect())
            }
            Some(door) => take_pairs(&door.ask(Ask::Environment)?).map_err(|_| ErrorCode::Io),
        }
    }
}
