//! The calls a log makes to storage, behind two small traits so that a test can make each of them fail.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The file must not exist yet; it is created with mode 0600 and opened for reading and writing.
    CreateNew,
    /// The file must exist; opened for reading and writing.
    ReadWrite,
    /// The file must exist; opened for reading.
    ReadOnly,
}

/// A directory tree.
///
/// Implementations MUST be safe to call from several threads and MUST NOT retry a failed call: the log decides.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// Creates `path` and its missing parents.
    ///
    /// # Errors
    /// As the operating system reports.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Opens a file.
    ///
    /// # Errors
    /// As the operating system reports; `AlreadyExists` and `NotFound` keep their kinds.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    /// The file names (not paths) directly inside a directory, in any order.
    ///
    /// # Errors
    /// As the operating system reports.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Renames within one file system, replacing the target.
    ///
    /// # Errors
    /// As the operating system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// As the operating system reports.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the directory's entries durable.
    ///
    /// # Errors
    /// As the operating system reports; a failure is never retried.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// An open file. All calls take positions, so that readers and the one writer share it.
pub trait DiskFile: Send + Sync + std::fmt::Debug {
    /// Length in bytes.
    ///
    /// # Errors
    /// As the operating system reports.
    fn length(&self) -> io::Result<u64>;
    /// Reads until the buffer is full or the file ends; returns the bytes read.
    ///
    /// # Errors
    /// As the operating system reports.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes the whole buffer.
    ///
    /// # Errors
    /// As the operating system reports; part of the buffer may then be written.
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()>;
    /// `fdatasync`: on return all earlier writes survive a power loss.
    ///
    /// # Errors
    /// After an error the state of earlier writes is unknown; the caller MUST NOT retry and go on.
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves blocks for the range and grows the file over it; new bytes read as zero.
    ///
    /// # Errors
    /// `StorageFull` when the blocks cannot be had.
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    ///
    /// # Errors
    /// As the operating system reports.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Takes the exclusive lock for the life of this handle; `false` when another process has it.
    ///
    /// # Errors
    /// As the operating system reports.
    fn try_lock(&self) -> io::Result<bool>;
}

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = OpenOptions::new();
        options.read(true);
        match access {
            Access::CreateNew => options.write(true).create_new(true).mode(0o600),
            Access::ReadWrite => options.write(true),
            Access::ReadOnly => &mut options,
        };
        Ok(Arc::new(OsFile { file: options.open(path)?, path: path.to_owned() }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

#[derive(Debug)]
struct OsFile {
    file: File,
    #[allow(dead_code, reason = "shown by Debug in error reports")]
    path: PathBuf,
}

impl Drop for OsFile {
    fn drop(&mut self) {
        // Closing is not enough: a process that is being started holds a copy of the handle for a moment, and with it the lock.
        let _ = self.file.unlock();
    }
}

impl DiskFile for OsFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        match fallocate(&self.file, FallocateFlags::empty(), offset, length) {
            Ok(()) => Ok(()),
            // A file system without reservation: grow the file, and let the write itself find out about space.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let end = offset.saturating_add(length);
                if self.length()? < end { self.file.set_len(end) } else { Ok(()) }
            }
            Err(error) => Err(error.into()),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_handle_in_a_process_that_is_being_started_keeps_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        // As a child has it between its beginning and its program.
        let copy = file.try_clone().unwrap();
        let held = OsFile { file, path: path.clone() };
        assert!(held.try_lock().unwrap());
        assert!(!OsDisk.open(&path, Access::ReadWrite).unwrap().try_lock().unwrap());
        drop(held);
        assert!(OsDisk.open(&path, Access::ReadWrite).unwrap().try_lock().unwrap());
        drop(copy);
    }
}
