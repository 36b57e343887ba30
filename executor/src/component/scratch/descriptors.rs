//! What a guest has open of its scratch files.

use std::sync::Arc;

use parking_lot::Mutex;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorStat, DescriptorType, ErrorCode, MetadataHashValue, OpenFlags,
};

use super::tree::{How, Id, Tree};

/// Most bytes of one read.
const MAX_READ: usize = 64 << 10;

type Result<T> = std::result::Result<T, ErrorCode>;

/// A directory or file that is open until this is dropped.
pub(super) struct Opened {
    tree: Arc<Mutex<Tree>>,
    id: Id,
    read: bool,
    /// Of a directory: whether anything in it may be changed.
    write: bool,
}

impl Opened {
    pub(super) fn new(tree: &Arc<Mutex<Tree>>, id: Id, read: bool, write: bool) -> Self {
        tree.lock().hold(id);
        Self { tree: Arc::clone(tree), id, read, write }
    }

    /// The same, open once more.
    pub(super) fn again(&self) -> Self {
        Self::new(&self.tree, self.id, self.read, self.write)
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tree, &other.tree) && self.id == other.id
    }

    pub(super) fn open_at(&self, path: &str, open: OpenFlags, flags: DescriptorFlags) -> Result<Self> {
        let write = flags.contains(DescriptorFlags::WRITE);
        let how = How {
            create: open.contains(OpenFlags::CREATE),
            exclusive: open.contains(OpenFlags::EXCLUSIVE),
            directory: open.contains(OpenFlags::DIRECTORY),
            truncate: open.contains(OpenFlags::TRUNCATE),
            write,
        };
        if how.directory && (how.create || how.exclusive || how.truncate) {
            return Err(ErrorCode::Invalid);
        }
        if !self.write && (how.create || how.truncate || write) {
            return Err(ErrorCode::NotPermitted);
        }
        let mut tree = self.tree.lock();
        let id = tree.open(self.id, path, how)?;
        let (read, write) = if tree.is_directory(id) {
            (true, self.write)
        } else {
            (flags.contains(DescriptorFlags::READ) || !write, write)
        };
        Ok(Self { tree: Arc::clone(&self.tree), id, read, write })
    }

    pub(super) fn create_directory_at(&self, path: &str) -> Result<()> {
        self.changing(|tree| tree.create_directory(self.id, path))
    }

    pub(super) fn remove_directory_at(&self, path: &str) -> Result<()> {
        self.changing(|tree| tree.remove_directory(self.id, path))
    }

    pub(super) fn unlink_file_at(&self, path: &str) -> Result<()> {
        self.changing(|tree| tree.remove_file(self.id, path))
    }

    /// Moves `old` to `new`, seen from another directory.
    pub(super) fn rename_at(&self, old: &str, into: &Self, new: &str) -> Result<()> {
        if !Arc::ptr_eq(&self.tree, &into.tree) {
            return Err(ErrorCode::CrossDevice);
        }
        if !into.write {
            return Err(ErrorCode::NotPermitted);
        }
        self.changing(|tree| tree.rename(self.id, old, into.id, new))
    }

    /// There is no link, so whatever is there is none.
    pub(super) fn readlink_at(&self, path: &str) -> Result<String> {
        self.tree.lock().find(self.id, path).and(Err(ErrorCode::Invalid))
    }

    /// Begins to list it.
    pub(super) fn list(&self) -> Result<Listing> {
        if self.is_file() {
            return Err(ErrorCode::NotDirectory);
        }
        Ok(Listing { directory: self.again(), last: None })
    }

    pub(super) fn stat(&self) -> Result<DescriptorStat> {
        stat_of(&self.tree.lock(), self.id)
    }

    pub(super) fn stat_at(&self, path: &str) -> Result<DescriptorStat> {
        let tree = self.tree.lock();
        stat_of(&tree, tree.find(self.id, path)?)
    }

    pub(super) fn hash(&self) -> MetadataHashValue {
        hash_of(self.id)
    }

    pub(super) fn hash_at(&self, path: &str) -> Result<MetadataHashValue> {
        self.tree.lock().find(self.id, path).map(hash_of)
    }

    pub(super) fn flags(&self) -> DescriptorFlags {
        let mut flags = DescriptorFlags::empty();
        if self.read {
            flags |= DescriptorFlags::READ;
        }
        if self.write {
            flags |= if self.is_file() { DescriptorFlags::WRITE } else { DescriptorFlags::MUTATE_DIRECTORY };
        }
        flags
    }

    fn is_file(&self) -> bool {
        !self.tree.lock().is_directory(self.id)
    }

    pub(super) fn read(&self, at: u64, most: u64) -> Result<(Vec<u8>, bool)> {
        self.may_read()?;
        self.tree.lock().read(self.id, at, usize::try_from(most).unwrap_or(usize::MAX).min(MAX_READ))
    }

    pub(super) fn may_read(&self) -> Result<()> {
        if !self.is_file() {
            Err(ErrorCode::IsDirectory)
        } else if self.read {
            Ok(())
        } else {
            Err(ErrorCode::NotPermitted)
        }
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.may_write()?;
        self.tree.lock().write(self.id, at, bytes)
    }

    pub(super) fn append(&self, bytes: &[u8]) -> Result<()> {
        self.may_write()?;
        self.tree.lock().append(self.id, bytes)
    }

    pub(super) fn resize(&self, size: u64) -> Result<()> {
        self.may_write()?;
        self.tree.lock().resize(self.id, size)
    }

    pub(super) fn may_write(&self) -> Result<()> {
        if !self.is_file() {
            Err(ErrorCode::IsDirectory)
        } else if self.write {
            Ok(())
        } else {
            Err(ErrorCode::NotPermitted)
        }
    }

    fn changing<T>(&self, change: impl FnOnce(&mut Tree) -> Result<T>) -> Result<T> {
        if self.write { change(&mut self.tree.lock()) } else { Err(ErrorCode::NotPermitted) }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.tree.lock().release(self.id);
    }
}

/// A directory that is being listed. What is made or removed meanwhile is told or left out by where its name stands: a copy of all names
/// would be memory that no account knows of.
pub(super) struct Listing {
    directory: Opened,
    /// The name that was told last.
    last: Option<String>,
}

impl Listing {
    /// The next name.
    pub(super) fn tell(&mut self) -> Result<Option<(String, DescriptorType)>> {
        let directory = &self.directory;
        let next = directory.tree.lock().entry_after(directory.id, self.last.as_deref())?;
        if let Some((name, _)) = &next {
            self.last = Some(name.clone());
        }
        Ok(next)
    }
}

/// There are no times: those of the host would say when something else ran.
fn stat_of(tree: &Tree, id: Id) -> Result<DescriptorStat> {
    let stat = tree.stat(id)?;
    Ok(DescriptorStat {
        type_: stat.kind,
        link_count: stat.links,
        size: stat.size,
        data_access_timestamp: None,
        data_modification_timestamp: None,
        status_change_timestamp: None,
    })
}

fn hash_of(id: Id) -> MetadataHashValue {
    MetadataHashValue { lower: id, upper: u64::from_be_bytes(*b"scratch\0") }
}
