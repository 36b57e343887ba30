//! The head file: what the log has committed. Two preallocated slots, written in turn, each with a sequence number and
//! a checksum; a torn write leaves the other slot. The same format serves the second copy, kept in another directory.
//!
//! A slot (version 1) is 152 bytes at offset 0 or 4096: magic `mntlhead`, u32 version, u32 zero, u64 sequence, u64 size,
//! 32-byte root, u64 time in Unix milliseconds, u64 tail (position one past the last entry), 32-byte identity, u64 zero,
//! SHA-256 of all that. Integers are big-endian.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tlog::hash::{EMPTY_ROOT, Hash, TreeHead};

use crate::disk::{Access, Disk, DiskFile};
use crate::error::{Error, Refusal, Result};

const MAGIC: &[u8; 8] = b"mntlhead";
const VERSION: u32 = 1;
const SLOT: u64 = 4096;
const PAYLOAD: usize = 120;
const SLOT_BYTES: usize = PAYLOAD + 32;

/// A committed state of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Size and root.
    pub tree: TreeHead,
    /// The latest time the log has used, Unix milliseconds.
    pub time_millis: u64,
    /// Position one past the last committed entry in the entry file.
    pub tail: u64,
}

impl Head {
    /// The head of an empty log whose entry file ends at `tail`.
    #[must_use]
    pub fn empty(time_millis: u64, tail: u64) -> Self {
        Self { tree: TreeHead { size: 0, root: EMPTY_ROOT }, time_millis, tail }
    }
}

/// The only guard against a fork: `load` and `compare_and_swap`, under an exclusive lock.
#[derive(Debug)]
pub struct HeadFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    identity: [u8; 32],
    sequence: u64,
    current: Head,
}

impl HeadFile {
    /// Creates the file with `head` in it, durably.
    ///
    /// # Errors
    /// [`Refusal::Exists`] when there is one, and I/O errors.
    pub fn create(disk: &dyn Disk, path: &Path, identity: [u8; 32], head: Head) -> Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("."));
        disk.create_dir_all(directory).map_err(|error| Error::io("create", directory, error))?;
        let file = match disk.open(path, Access::CreateNew) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Refusal::Exists { file: path.to_owned() }.into());
            }
            Err(error) => return Err(Error::io("create", path, error)),
        };
        lock(&*file, path)?;
        file.allocate(0, 2 * SLOT).map_err(|error| Error::io("reserve space in", path, error))?;
        let created = Self { path: path.to_owned(), file, identity, sequence: 1, current: head };
        created.write(1, &head)?;
        disk.sync_dir(directory).map_err(|error| Error::io("sync", directory, error))?;
        Ok(created)
    }

    /// Locks the file and reads the newest intact slot.
    ///
    /// # Errors
    /// [`Refusal::HeadMissing`], [`Refusal::Locked`], [`Refusal::HeadDamaged`], [`Refusal::Foreign`].
    pub fn open(disk: &dyn Disk, path: &Path, identity: [u8; 32]) -> Result<Self> {
        let file = match disk.open(path, Access::ReadWrite) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Refusal::HeadMissing { head: path.to_owned() }.into());
            }
            Err(error) => return Err(Error::io("open", path, error)),
        };
        lock(&*file, path)?;
        let Some((sequence, found, current)) = newest(&*file, path)? else {
            return Err(Refusal::HeadDamaged { head: path.to_owned() }.into());
        };
        if found != identity {
            return Err(Refusal::Foreign { file: path.to_owned(), detail: "log identity".to_owned() }.into());
        }
        Ok(Self { path: path.to_owned(), file, identity, sequence, current })
    }

    /// The committed head.
    #[must_use]
    pub fn load(&self) -> Head {
        self.current
    }

    /// Where the head is kept.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes sure that the file still says what this process committed last. The lock keeps other processes out; where a
    /// file system does not honour it, this does.
    ///
    /// # Errors
    /// [`Error::HeadConflict`] when it says something else; I/O errors. All are fatal.
    pub fn confirm(&self) -> Result<()> {
        match newest(&*self.file, &self.path)? {
            Some((sequence, identity, head))
                if sequence == self.sequence && identity == self.identity && head == self.current =>
            {
                Ok(())
            }
            _ => Err(Error::HeadConflict { file: self.path.clone() }),
        }
    }

    /// Commits `new` in place of exactly `old`, durably.
    ///
    /// # Errors
    /// [`Error::HeadConflict`] when `old` is not what was committed last; [`Error::Inconsistent`] when size or time
    /// would go back; I/O errors. All are fatal: after one the state is what the next start reads.
    pub fn compare_and_swap(&mut self, old: &Head, new: Head) -> Result<()> {
        if *old != self.current {
            return Err(Error::HeadConflict { file: self.path.clone() });
        }
        self.confirm()?;
        let refuse = |detail| Error::Inconsistent { old: old.tree.size, new: new.tree.size, detail };
        if new.tree.size < old.tree.size || new.tail < old.tail {
            return Err(refuse("the size went back"));
        }
        if new.tree.size == old.tree.size && new.tree.root != old.tree.root {
            return Err(refuse("one size with two roots"));
        }
        if new.time_millis < old.time_millis {
            return Err(refuse("the time went back"));
        }
        self.write(self.sequence + 1, &new)?;
        self.sequence += 1;
        self.current = new;
        Ok(())
    }

    fn write(&self, sequence: u64, head: &Head) -> Result<()> {
        let bytes = encode(sequence, &self.identity, head);
        self.file
            .write_at(&bytes, sequence % 2 * SLOT)
            .map_err(|error| Error::io("write", &self.path, error))?;
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))
    }
}

/// Sequence, identity and head of the newest intact slot.
fn newest(file: &dyn DiskFile, path: &Path) -> Result<Option<(u64, [u8; 32], Head)>> {
    let mut newest: Option<(u64, [u8; 32], Head)> = None;
    for slot in 0..2 {
        let mut bytes = [0; SLOT_BYTES];
        file.read_at(&mut bytes, slot * SLOT).map_err(|error| Error::io("read", path, error))?;
        if let Some(found) = decode(&bytes)
            && newest.is_none_or(|(sequence, ..)| sequence < found.0)
        {
            newest = Some(found);
        }
    }
    Ok(newest)
}

fn lock(file: &dyn DiskFile, path: &Path) -> Result<()> {
    match file.try_lock() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::Locked { head: path.to_owned() }.into()),
        Err(error) => Err(Error::io("lock", path, error)),
    }
}

fn encode(sequence: u64, identity: &[u8; 32], head: &Head) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SLOT_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&head.tree.size.to_be_bytes());
    bytes.extend_from_slice(head.tree.root.as_bytes());
    bytes.extend_from_slice(&head.time_millis.to_be_bytes());
    bytes.extend_from_slice(&head.tail.to_be_bytes());
    bytes.extend_from_slice(identity);
    bytes.extend_from_slice(&[0; 8]);
    let checksum = Hash::digest(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<(u64, [u8; 32], Head)> {
    let (payload, checksum) = bytes.split_at_checked(PAYLOAD)?;
    if Hash::digest(payload).as_bytes().as_slice() != checksum {
        return None;
    }
    let rest = payload.strip_prefix(MAGIC)?;
    let rest = rest.strip_prefix(&VERSION.to_be_bytes())?.get(4..)?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (size, rest) = rest.split_first_chunk::<8>()?;
    let (root, rest) = rest.split_first_chunk::<32>()?;
    let (time, rest) = rest.split_first_chunk::<8>()?;
    let (tail, rest) = rest.split_first_chunk::<8>()?;
    let (identity, _) = rest.split_first_chunk::<32>()?;
    let head = Head {
        tree: TreeHead { size: u64::from_be_bytes(*size), root: Hash(*root) },
        time_millis: u64::from_be_bytes(*time),
        tail: u64::from_be_bytes(*tail),
    };
    Some((u64::from_be_bytes(*sequence), *identity, head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;

    fn head(size: u64) -> Head {
        Head {
            tree: TreeHead { size, root: Hash([size as u8; 32]) },
            time_millis: 1000 + size,
            tail: 64 + size,
        }
    }

    #[test]
    fn slot_format_is_frozen() {
        let bytes = encode(3, &[9; 32], &head(2));
        let mut expected = b"mntlhead\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02".to_vec();
        expected.extend([2; 32]);
        expected.extend([0, 0, 0, 0, 0, 0, 3, 0xea]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 66]);
        expected.extend([9; 32]);
        expected.extend([0; 8]);
        expected.extend(Hash::digest(&expected).0);
        assert_eq!(bytes, expected);
        assert_eq!(decode(&bytes.try_into().unwrap()), Some((3, [9; 32], head(2))));
    }

    #[test]
    fn the_older_slot_survives_damage_to_the_newer_and_no_slot_is_a_refusal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("head");
        let mut file = HeadFile::create(&OsDisk, &path, [1; 32], head(0)).unwrap();
        file.compare_and_swap(&head(0), head(1)).unwrap();
        file.compare_and_swap(&head(1), head(2)).unwrap();
        drop(file);
        let mut bytes = std::fs::read(&path).unwrap();
        assert_eq!(HeadFile::open(&OsDisk, &path, [1; 32]).unwrap().load(), head(2));
        bytes[4096 + 30] ^= 1; // sequence 3 stands in the second slot
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(HeadFile::open(&OsDisk, &path, [1; 32]).unwrap().load(), head(1));
        bytes[30] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let refusal = HeadFile::open(&OsDisk, &path, [1; 32]).unwrap_err();
        assert!(matches!(refusal, Error::Refused(Refusal::HeadDamaged { .. })), "{refusal}");
    }

    #[test]
    fn a_second_opener_and_a_foreign_log_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("head");
        let file = HeadFile::create(&OsDisk, &path, [1; 32], head(0)).unwrap();
        let refusal = HeadFile::open(&OsDisk, &path, [1; 32]).unwrap_err();
        assert!(matches!(refusal, Error::Refused(Refusal::Locked { .. })), "{refusal}");
        drop(file);
        let refusal = HeadFile::open(&OsDisk, &path, [2; 32]).unwrap_err();
        assert!(matches!(refusal, Error::Refused(Refusal::Foreign { .. })), "{refusal}");
        let refusal = HeadFile::create(&OsDisk, &path, [1; 32], head(0)).unwrap_err();
        assert!(matches!(refusal, Error::Refused(Refusal::Exists { .. })), "{refusal}");
        let refusal = HeadFile::open(&OsDisk, &dir.path().join("none"), [1; 32]).unwrap_err();
        assert!(matches!(refusal, Error::Refused(Refusal::HeadMissing { .. })), "{refusal}");
    }

    #[test]
    fn swap_refuses_a_stale_head_and_every_step_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("head");
        let mut file = HeadFile::create(&OsDisk, &path, [1; 32], head(5)).unwrap();
        assert!(matches!(file.compare_and_swap(&head(4), head(6)), Err(Error::HeadConflict { .. })));
        assert!(matches!(file.compare_and_swap(&head(5), head(4)), Err(Error::Inconsistent { .. })));
        let mut other_root = head(5);
        other_root.tree.root = Hash([0; 32]);
        assert!(matches!(file.compare_and_swap(&head(5), other_root), Err(Error::Inconsistent { .. })));
        let mut earlier = head(6);
        earlier.time_millis = 0;
        assert!(matches!(file.compare_and_swap(&head(5), earlier), Err(Error::Inconsistent { .. })));
        assert_eq!(file.load(), head(5));
    }
}
