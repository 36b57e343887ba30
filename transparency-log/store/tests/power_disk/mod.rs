//! A disk in memory that loses power: what was not synced may be gone afterwards, whole or in part.
//!
//! Every call counts as one step. From a chosen step on all calls fail, as for a process whose machine is gone. What a
//! power cut leaves is an [`image`](PowerDisk::image): the synced content of each file, with whichever of the later
//! writes (cut into sectors) and name changes (in their order) a seed lets survive.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log_store::{Access, Disk, DiskFile};
use parking_lot::Mutex;

const SECTOR: usize = 512;

/// What survives of that which was never synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsynced {
    Lost,
    Kept,
    /// Each sector, and a prefix of the name changes, by a seed.
    Some(u64),
}

/// Whether syncs do what they say: without them the disk is the control that the harness must find wanting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syncs {
    Honoured,
    /// As a program whose calls were removed, for files whose path contains the text.
    Ignored(&'static str),
}

#[derive(Debug, Clone)]
pub(crate) struct PowerDisk {
    world: Arc<Mutex<World>>,
    syncs: Syncs,
}

#[derive(Debug, Default)]
struct World {
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    changes: Vec<Change>,
    calls: u64,
    cut_at: Option<u64>,
}

#[derive(Debug, Default, Clone)]
struct Node {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
    locked: bool,
}

#[derive(Debug, Clone)]
enum Pending {
    Sector { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone)]
struct Change {
    path: PathBuf,
    node: Option<usize>,
}

impl PowerDisk {
    pub(crate) fn new(syncs: Syncs) -> Self {
        Self { world: Arc::default(), syncs }
    }

    /// Makes call number `call`, counted from now, and all later ones fail.
    pub(crate) fn cut_at(&self, call: u64) {
        let mut world = self.world.lock();
        world.calls = 0;
        world.cut_at = Some(call);
    }

    /// Whether power was lost.
    pub(crate) fn is_cut(&self) -> bool {
        let world = self.world.lock();
        world.cut_at.is_some_and(|at| world.calls > at)
    }

    /// A disk with what is on it after the cut.
    pub(crate) fn image(&self, unsynced: Unsynced) -> Self {
        let world = self.world.lock();
        let mut random = Random(match unsynced {
            Unsynced::Some(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            _ => 1,
        });
        let survives = |random: &mut Random| match unsynced {
            Unsynced::Lost => false,
            Unsynced::Kept => true,
            Unsynced::Some(_) => random.next().is_multiple_of(2),
        };
        let mut names = world.durable_names.clone();
        let kept = match unsynced {
            Unsynced::Lost => 0,
            Unsynced::Kept => world.changes.len(),
            Unsynced::Some(_) => usize::try_from(random.next()).unwrap_or(0) % (world.changes.len() + 1),
        };
        for change in world.changes.iter().take(kept) {
            match change.node {
                Some(node) => drop(names.insert(change.path.clone(), node)),
                None => drop(names.remove(&change.path)),
            }
        }
        let nodes = world.nodes.iter().map(|node| {
            let mut content = node.durable.clone();
            for pending in &node.pending {
                if !survives(&mut random) {
                    continue;
                }
                match pending {
                    Pending::Length(length) => content.resize(*length, 0),
                    Pending::Sector { offset, bytes } => {
                        let end = offset + bytes.len();
                        content.resize(content.len().max(end), 0);
                        content[*offset..end].copy_from_slice(bytes);
                    }
                }
            }
            Node { now: content.clone(), durable: content, pending: Vec::new(), locked: false }
        });
        let world =
            World { nodes: nodes.collect(), names: names.clone(), durable_names: names, ..World::default() };
        Self { world: Arc::new(Mutex::new(world)), syncs: Syncs::Honoured }
    }

    /// The same disk with another attitude to syncs.
    pub(crate) fn with(mut self, syncs: Syncs) -> Self {
        self.syncs = syncs;
        self
    }

    fn step<T>(&self, work: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.world.lock();
        let call = world.calls;
        world.calls += 1;
        if world.cut_at.is_some_and(|at| call >= at) {
            return Err(io::Error::from_raw_os_error(5));
        }
        work(&mut world)
    }

    fn honours(&self, path: &Path) -> bool {
        match self.syncs {
            Syncs::Honoured => true,
            Syncs::Ignored(text) => !path.to_string_lossy().contains(text),
        }
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }
}

impl Disk for PowerDisk {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        self.step(|_| Ok(()))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let node = self.step(|world| match (world.names.get(path), access) {
            (Some(_), Access::CreateNew) => Err(ErrorKind::AlreadyExists.into()),
            (None, Access::CreateNew) => {
                world.nodes.push(Node::default());
                let node = world.nodes.len() - 1;
                world.names.insert(path.to_owned(), node);
                world.changes.push(Change { path: path.to_owned(), node: Some(node) });
                Ok(node)
            }
            (Some(node), _) => Ok(*node),
            (None, _) => Err(ErrorKind::NotFound.into()),
        })?;
        Ok(Arc::new(PowerFile { disk: self.clone(), node, path: path.to_owned(), locked: Mutex::new(false) }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.step(|world| {
            let inside = world.names.keys().filter(|name| name.parent() == Some(path));
            Ok(inside.filter_map(|name| Some(name.file_name()?.to_str()?.to_owned())).collect())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|world| {
            let node = world.names.remove(from).ok_or(ErrorKind::NotFound)?;
            world.names.insert(to.to_owned(), node);
            // One change: after a crash the file has the old name or the new one.
            world.changes.push(Change { path: to.to_owned(), node: Some(node) });
            world.changes.push(Change { path: from.to_owned(), node: None });
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(|world| {
            world.names.remove(path).ok_or(ErrorKind::NotFound)?;
            world.changes.push(Change { path: path.to_owned(), node: None });
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let honoured = self.honours(path);
        self.step(|world| {
            if !honoured {
                return Ok(());
            }
            let (synced, later): (Vec<_>, Vec<_>) =
                world.changes.drain(..).partition(|change| change.path.parent() == Some(path));
            world.changes = later;
            for change in synced {
                match change.node {
                    Some(node) => drop(world.durable_names.insert(change.path, node)),
                    None => drop(world.durable_names.remove(&change.path)),
                }
            }
            Ok(())
        })
    }
}

#[derive(Debug)]
struct PowerFile {
    disk: PowerDisk,
    node: usize,
    path: PathBuf,
    locked: Mutex<bool>,
}

impl PowerFile {
    fn step<T>(&self, work: impl FnOnce(&mut Node) -> io::Result<T>) -> io::Result<T> {
        self.disk.step(|world| work(&mut world.nodes[self.node]))
    }

    fn set_length(node: &mut Node, length: usize) {
        node.now.resize(length, 0);
        node.pending.push(Pending::Length(length));
    }
}

impl DiskFile for PowerFile {
    fn length(&self) -> io::Result<u64> {
        self.step(|node| Ok(node.now.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.step(|node| {
            let from = node.now.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            let count = from.len().min(buffer.len());
            buffer[..count].copy_from_slice(&from[..count]);
            Ok(count)
        })
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.step(|node| {
            let offset = usize::try_from(offset).unwrap();
            let end = offset + buffer.len();
            node.now.resize(node.now.len().max(end), 0);
            node.now[offset..end].copy_from_slice(buffer);
            let mut at = offset;
            while at < end {
                let stop = ((at / SECTOR + 1) * SECTOR).min(end);
                let bytes = buffer[at - offset..stop - offset].to_vec();
                node.pending.push(Pending::Sector { offset: at, bytes });
                at = stop;
            }
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let honoured = self.disk.honours(&self.path);
        self.step(|node| {
            if honoured {
                node.durable = node.now.clone();
                node.pending.clear();
            }
            Ok(())
        })
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.step(|node| {
            let end = usize::try_from(offset + length).unwrap();
            if end > node.now.len() {
                Self::set_length(node, end);
            }
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.step(|node| {
            Self::set_length(node, usize::try_from(length).unwrap());
            Ok(())
        })
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.step(|node| {
            let taken = !std::mem::replace(&mut node.locked, true);
            *self.locked.lock() |= taken;
            Ok(taken)
        })
    }
}

impl Drop for PowerFile {
    fn drop(&mut self) {
        if *self.locked.lock() {
            self.disk.world.lock().nodes[self.node].locked = false;
        }
    }
}
