//! The newest signed note, stored before it is published: two preallocated slots like the head file's.
//!
//! A slot (version 1) stands at offset 0 or 65536: magic `mntlnote`, u32 version, u32 note length, u64 sequence,
//! u64 size, 32-byte root, u64 time in Unix milliseconds, u64 derived (all tiles and positions of the first so many
//! entries are durable), 32-byte identity, the note, SHA-256 of all that. Integers are big-endian.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tlog::hash::{Hash, TreeHead};

use crate::disk::{Access, Disk, DiskFile};
use crate::error::{Error, Refusal, Result};

const MAGIC: &[u8; 8] = b"mntlnote";
const VERSION: u32 = 1;
const SLOT: u64 = 65_536;
const FIXED: usize = 112;
/// The largest note that can be stored, cosignatures included.
pub const MAX_NOTE: usize = SLOT as usize - FIXED - 32;

/// A stored note and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredNote {
    pub(crate) tree: TreeHead,
    pub(crate) time_millis: u64,
    /// Tiles and positions of the first so many entries are durable.
    pub(crate) derived: u64,
    pub(crate) note: Bytes,
}

#[derive(Debug)]
pub(crate) struct NoteFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    identity: [u8; 32],
    sequence: u64,
    current: Option<StoredNote>,
}

impl NoteFile {
    /// Creates the file without a note.
    pub(crate) fn create(disk: &dyn Disk, path: &Path, identity: [u8; 32]) -> Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("."));
        disk.create_dir_all(directory).map_err(|error| Error::io("create", directory, error))?;
        let file = disk.open(path, Access::CreateNew).map_err(|error| Error::io("create", path, error))?;
        file.allocate(0, 2 * SLOT).map_err(|error| Error::io("reserve space in", path, error))?;
        file.sync_data().map_err(|error| Error::io("sync", path, error))?;
        disk.sync_dir(directory).map_err(|error| Error::io("sync", directory, error))?;
        Ok(Self { path: path.to_owned(), file, identity, sequence: 0, current: None })
    }

    /// Opens the file, or makes it. A log that never published has no intact slot; that is no error.
    pub(crate) fn open(disk: &dyn Disk, path: &Path, identity: [u8; 32]) -> Result<Self> {
        match Self::find(disk, path, identity)? {
            Some(file) => Ok(file),
            None => Self::create(disk, path, identity),
        }
    }

    /// Opens the file if there is one, and makes none.
    pub(crate) fn find(disk: &dyn Disk, path: &Path, identity: [u8; 32]) -> Result<Option<Self>> {
        let file = match disk.open(path, Access::ReadWrite) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", path, error)),
        };
        let (mut sequence, mut current) = (0, None);
        for slot in 0..2 {
            let mut bytes = vec![0; SLOT as usize];
            let count =
                file.read_at(&mut bytes, slot * SLOT).map_err(|error| Error::io("read", path, error))?;
            bytes.truncate(count);
            let Some((found, owner, note)) = decode(&bytes) else { continue };
            if owner != identity {
                return Err(
                    Refusal::Foreign { file: path.to_owned(), detail: "log identity".to_owned() }.into()
                );
            }
            if found > sequence {
                (sequence, current) = (found, Some(note));
            }
        }
        Ok(Some(Self { path: path.to_owned(), file, identity, sequence, current }))
    }

    pub(crate) fn current(&self) -> Option<&StoredNote> {
        self.current.as_ref()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Stores a note durably. The older slot is overwritten.
    pub(crate) fn store(&mut self, note: StoredNote) -> Result<()> {
        if note.note.len() > MAX_NOTE {
            return Err(Error::TooLarge { size: note.note.len(), limit: MAX_NOTE });
        }
        let sequence = self.sequence + 1;
        let bytes = encode(sequence, &self.identity, &note);
        self.file
            .write_at(&bytes, sequence % 2 * SLOT)
            .map_err(|error| Error::io("write", &self.path, error))?;
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))?;
        self.sequence = sequence;
        self.current = Some(note);
        Ok(())
    }
}

fn encode(sequence: u64, identity: &[u8; 32], note: &StoredNote) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FIXED + note.note.len() + 32);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(note.note.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&note.tree.size.to_be_bytes());
    bytes.extend_from_slice(note.tree.root.as_bytes());
    bytes.extend_from_slice(&note.time_millis.to_be_bytes());
    bytes.extend_from_slice(&note.derived.to_be_bytes());
    bytes.extend_from_slice(identity);
    bytes.extend_from_slice(&note.note);
    let checksum = Hash::digest(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, [u8; 32], StoredNote)> {
    let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(&VERSION.to_be_bytes())?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (size, rest) = rest.split_first_chunk::<8>()?;
    let (root, rest) = rest.split_first_chunk::<32>()?;
    let (time, rest) = rest.split_first_chunk::<8>()?;
    let (derived, rest) = rest.split_first_chunk::<8>()?;
    let (identity, rest) = rest.split_first_chunk::<32>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (note, rest) = rest.split_at_checked(length)?;
    let payload = bytes.get(..FIXED.checked_add(length)?)?;
    if Hash::digest(payload).as_bytes() != rest.first_chunk::<32>()? {
        return None;
    }
    let note = StoredNote {
        tree: TreeHead { size: u64::from_be_bytes(*size), root: Hash(*root) },
        time_millis: u64::from_be_bytes(*time),
        derived: u64::from_be_bytes(*derived),
        note: Bytes::copy_from_slice(note),
    };
    Some((u64::from_be_bytes(*sequence), *identity, note))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;

    fn stored(size: u64) -> StoredNote {
        let note = Bytes::from(format!("origin\n{size}\n"));
        StoredNote { tree: TreeHead { size, root: Hash([7; 32]) }, time_millis: 5, derived: 256, note }
    }

    #[test]
    fn slot_format_is_frozen() {
        let bytes = encode(1, &[9; 32], &stored(2));
        let mut expected = b"mntlnote\0\0\0\x01\0\0\0\x09\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02".to_vec();
        expected.extend([7; 32]);
        expected.extend(*b"\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\x01\0");
        expected.extend([9; 32]);
        assert_eq!(expected.len(), FIXED);
        expected.extend(*b"origin\n2\n");
        expected.extend(Hash::digest(&expected).0);
        assert_eq!(bytes, expected);
        assert_eq!(decode(&bytes), Some((1, [9; 32], stored(2))));
    }

    #[test]
    fn damage_to_the_newest_slot_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("note");
        let mut file = NoteFile::create(&OsDisk, &path, [1; 32]).unwrap();
        assert_eq!(NoteFile::open(&OsDisk, &path, [1; 32]).unwrap().current(), None);
        file.store(stored(1)).unwrap();
        file.store(stored(2)).unwrap();
        assert_eq!(NoteFile::open(&OsDisk, &path, [1; 32]).unwrap().current(), Some(&stored(2)));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[FIXED + 3] ^= 4; // sequence 2 stands in the first slot
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(NoteFile::open(&OsDisk, &path, [1; 32]).unwrap().current(), Some(&stored(1)));
        let refusal = NoteFile::open(&OsDisk, &path, [2; 32]).unwrap_err();
        assert!(matches!(refusal, Error::Refused(Refusal::Foreign { .. })), "{refusal}");
    }
}
