//! Directories and files in memory, each of which takes room of one account.
//!
//! There are no links of either kind: a name is the only way to a file, and a path never leaves the directory that it starts
//! in. Room is taken before it is used, and for the whole length of a file, whether anything was written there or not.

use std::collections::BTreeMap;
use std::ops::Bound;

use wasmtime_wasi::p2::bindings::filesystem::types::{DescriptorType, ErrorCode};

use crate::runtime::ScratchAccount;

/// Room is taken in pieces of so many bytes, and a file or directory takes one for itself and its name.
pub(super) const BLOCK: usize = 4096;

/// Most files and directories, open ones that were removed included.
pub(super) const MAX_NODES: usize = 1024;

/// Longest path and longest name, bytes.
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// Number of a directory or file; never given twice.
pub(super) type Id = u64;

/// The directory that everything lies in.
pub(super) const ROOT: Id = 0;

pub(super) struct Tree {
    nodes: BTreeMap<Id, Node>,
    next: Id,
    account: ScratchAccount,
}

struct Node {
    content: Content,
    parent: Id,
    /// Whether it has a name.
    named: bool,
    /// How often it is open.
    opened: usize,
}

enum Content {
    Directory(BTreeMap<String, Id>),
    File { blocks: Vec<Box<[u8; BLOCK]>>, size: usize },
}

/// How something is opened.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct How {
    pub(super) create: bool,
    pub(super) exclusive: bool,
    pub(super) directory: bool,
    pub(super) truncate: bool,
    /// Its content may be changed.
    pub(super) write: bool,
}

/// What is known about a directory or file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) kind: DescriptorType,
    pub(super) size: u64,
    pub(super) links: u64,
}

/// Where a path leads: a name in a directory, or the directory itself.
struct Place<'p> {
    directory: Id,
    name: Option<&'p str>,
    /// The path says that it is a directory.
    is_directory: bool,
}

type Result<T> = std::result::Result<T, ErrorCode>;

impl Tree {
    pub(super) fn new(account: ScratchAccount) -> Self {
        let root =
            Node { content: Content::Directory(BTreeMap::new()), parent: ROOT, named: true, opened: 0 };
        Self { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, account }
    }

    /// Opens what `path` names, seen from a directory; it is open until [`Self::release`].
    pub(super) fn open(&mut self, from: Id, path: &str, how: How) -> Result<Id> {
        let place = self.place(from, path)?;
        let id = match self.at(&place)? {
            Some(_) if how.create && how.exclusive => return Err(ErrorCode::Exist),
            Some(id) if self.is_directory(id) => {
                if how.create || how.truncate || how.write {
                    return Err(ErrorCode::IsDirectory);
                }
                id
            }
            Some(_) if how.directory || place.is_directory => return Err(ErrorCode::NotDirectory),
            Some(id) => {
                if how.truncate {
                    self.resize(id, 0)?;
                }
                id
            }
            None if !how.create => return Err(ErrorCode::NoEntry),
            None if place.is_directory => return Err(ErrorCode::IsDirectory),
            None => self.create(&place, Content::File { blocks: Vec::new(), size: 0 })?,
        };
        self.hold(id);
        Ok(id)
    }

    /// One more has it open.
    pub(super) fn hold(&mut self, id: Id) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.opened += 1;
        }
    }

    /// One less has it open; without a name it is gone then.
    pub(super) fn release(&mut self, id: Id) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.opened = node.opened.saturating_sub(1);
            self.sweep(id);
        }
    }

    pub(super) fn create_directory(&mut self, from: Id, path: &str) -> Result<()> {
        let place = self.place(from, path)?;
        match self.at(&place)? {
            Some(_) => Err(ErrorCode::Exist),
            None => self.create(&place, Content::Directory(BTreeMap::new())).map(drop),
        }
    }

    pub(super) fn remove_directory(&mut self, from: Id, path: &str) -> Result<()> {
        let place = self.place(from, path)?;
        let id = self.at(&place)?.ok_or(ErrorCode::NoEntry)?;
        if place.name.is_none() {
            return Err(ErrorCode::Invalid);
        }
        match &self.node(id)?.content {
            Content::File { .. } => Err(ErrorCode::NotDirectory),
            Content::Directory(entries) if !entries.is_empty() => Err(ErrorCode::NotEmpty),
            Content::Directory(_) => self.unlink(&place),
        }
    }

    pub(super) fn remove_file(&mut self, from: Id, path: &str) -> Result<()> {
        let place = self.place(from, path)?;
        let id = self.at(&place)?.ok_or(ErrorCode::NoEntry)?;
        if self.is_directory(id) {
            return Err(ErrorCode::IsDirectory);
        }
        if place.is_directory {
            return Err(ErrorCode::NotDirectory);
        }
        self.unlink(&place)
    }

    /// Gives what `old` names the name `new`; what had that name before is gone.
    pub(super) fn rename(&mut self, old_from: Id, old: &str, new_from: Id, new: &str) -> Result<()> {
        let source = self.place(old_from, old)?;
        let target = self.place(new_from, new)?;
        let (Some(_), Some(name)) = (source.name, target.name) else { return Err(ErrorCode::Busy) };
        if !self.node(target.directory)?.named {
            return Err(ErrorCode::NoEntry);
        }
        let id = self.at(&source)?.ok_or(ErrorCode::NoEntry)?;
        let moves_directory = self.is_directory(id);
        if (source.is_directory || target.is_directory) && !moves_directory {
            return Err(ErrorCode::NotDirectory);
        }
        if moves_directory && self.lies_in(target.directory, id) {
            return Err(ErrorCode::Invalid);
        }
        match self.at(&target)? {
            Some(same) if same == id => return Ok(()),
            Some(replaced) => {
                match (&self.node(replaced)?.content, moves_directory) {
                    (Content::Directory(entries), true) if !entries.is_empty() => {
                        return Err(ErrorCode::NotEmpty);
                    }
                    (Content::Directory(_), true) | (Content::File { .. }, false) => {}
                    (Content::Directory(_), false) => return Err(ErrorCode::IsDirectory),
                    (Content::File { .. }, true) => return Err(ErrorCode::NotDirectory),
                }
                self.unlink(&target)?;
            }
            None => {}
        }
        if let Some(name) = source.name {
            self.entries_mut(source.directory)?.remove(name);
        }
        self.entries_mut(target.directory)?.insert(name.to_owned(), id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.parent = target.directory;
        }
        Ok(())
    }

    /// What `path` names.
    pub(super) fn find(&self, from: Id, path: &str) -> Result<Id> {
        let place = self.place(from, path)?;
        let id = self.at(&place)?.ok_or(ErrorCode::NoEntry)?;
        if place.is_directory && !self.is_directory(id) {
            return Err(ErrorCode::NotDirectory);
        }
        Ok(id)
    }

    /// The next name in a directory, in their order: whoever lists it keeps the last one and not all of them.
    pub(super) fn entry_after(
        &self,
        id: Id,
        after: Option<&str>,
    ) -> Result<Option<(String, DescriptorType)>> {
        let Content::Directory(entries) = &self.node(id)?.content else {
            return Err(ErrorCode::NotDirectory);
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let next = entries.range::<str, _>((from, Bound::Unbounded)).next();
        next.map(|(name, id)| Ok((name.clone(), self.stat(*id)?.kind))).transpose()
    }

    pub(super) fn stat(&self, id: Id) -> Result<Stat> {
        let node = self.node(id)?;
        let links = u64::from(node.named);
        Ok(match &node.content {
            Content::Directory(_) => Stat { kind: DescriptorType::Directory, size: 0, links },
            Content::File { size, .. } => {
                Stat { kind: DescriptorType::RegularFile, size: *size as u64, links }
            }
        })
    }

    /// At most `most` bytes of a file, and whether it ends there.
    pub(super) fn read(&self, id: Id, at: u64, most: usize) -> Result<(Vec<u8>, bool)> {
        let Content::File { blocks, size } = &self.node(id)?.content else {
            return Err(ErrorCode::IsDirectory);
        };
        let at = usize::try_from(at).unwrap_or(usize::MAX).min(*size);
        let end = at.saturating_add(most).min(*size);
        let mut bytes = Vec::with_capacity(end - at);
        let mut next = at;
        while next < end {
            let (block, within) = (next / BLOCK, next % BLOCK);
            let piece = (end - next).min(BLOCK - within);
            let piece = blocks.get(block).and_then(|block| block.get(within..within + piece));
            bytes.extend_from_slice(piece.ok_or(ErrorCode::Io)?);
            next = at + bytes.len();
        }
        Ok((bytes, end == *size))
    }

    /// Writes all of it or nothing. What lies between the end of the file and `at` is zero, and takes room like the rest.
    pub(super) fn write(&mut self, id: Id, at: u64, bytes: &[u8]) -> Result<()> {
        let at = usize::try_from(at).map_err(|_| ErrorCode::FileTooLarge)?;
        let end = at.checked_add(bytes.len()).ok_or(ErrorCode::FileTooLarge)?;
        if bytes.is_empty() {
            return Ok(());
        }
        if self.stat(id)?.size < end as u64 {
            self.resize(id, end as u64)?;
        }
        let Content::File { blocks, .. } = &mut self.node_mut(id)?.content else {
            return Err(ErrorCode::IsDirectory);
        };
        let mut rest = bytes;
        let mut next = at;
        while !rest.is_empty() {
            let (block, within) = (next / BLOCK, next % BLOCK);
            let (piece, later) = rest.split_at(rest.len().min(BLOCK - within));
            let room = blocks.get_mut(block).and_then(|block| block.get_mut(within..within + piece.len()));
            room.ok_or(ErrorCode::Io)?.copy_from_slice(piece);
            next += piece.len();
            rest = later;
        }
        Ok(())
    }

    /// Writes at the end, wherever that is by now.
    pub(super) fn append(&mut self, id: Id, bytes: &[u8]) -> Result<()> {
        let end = self.stat(id)?.size;
        self.write(id, end, bytes)
    }

    /// Makes a file longer, with zeros, or shorter.
    pub(super) fn resize(&mut self, id: Id, to: u64) -> Result<()> {
        let account = self.account.clone();
        let Content::File { blocks, size } = &mut self.node_mut(id)?.content else {
            return Err(ErrorCode::IsDirectory);
        };
        let full = || {
            account.refuse();
            ErrorCode::InsufficientSpace
        };
        let to = usize::try_from(to).map_err(|_| full())?;
        let needed = to.div_ceil(BLOCK);
        if needed > blocks.len() {
            let more = needed - blocks.len();
            let bytes = more.checked_mul(BLOCK).ok_or_else(full)?;
            if !account.take(bytes) {
                return Err(ErrorCode::InsufficientSpace);
            }
            blocks.resize_with(needed, || Box::new([0; BLOCK]));
        } else {
            account.give_back((blocks.len() - needed).saturating_mul(BLOCK));
            blocks.truncate(needed);
            // Nor does its list keep more than twice the room that it needs. A cut by a block alone copies nothing.
            if blocks.capacity() / 2 > needed {
                blocks.shrink_to(needed);
            }
        }
        // What was cut off does not come back when the file grows again.
        if to < *size
            && let Some(rest) = blocks.last_mut().and_then(|last| last.get_mut(to % BLOCK..))
            && !to.is_multiple_of(BLOCK)
        {
            rest.fill(0);
        }
        *size = to;
        Ok(())
    }

    /// Pieces that the list of a file's has room for.
    #[cfg(test)]
    pub(super) fn room_in_list(&self, id: Id) -> usize {
        match &self.nodes[&id].content {
            Content::Directory(_) => 0,
            Content::File { blocks, .. } => blocks.capacity(),
        }
    }

    fn node(&self, id: Id) -> Result<&Node> {
        self.nodes.get(&id).ok_or(ErrorCode::NoEntry)
    }

    fn node_mut(&mut self, id: Id) -> Result<&mut Node> {
        self.nodes.get_mut(&id).ok_or(ErrorCode::NoEntry)
    }

    pub(super) fn is_directory(&self, id: Id) -> bool {
        self.nodes.get(&id).is_some_and(|node| matches!(node.content, Content::Directory(_)))
    }

    fn entry(&self, directory: Id, name: &str) -> Result<Option<Id>> {
        match &self.node(directory)?.content {
            Content::Directory(entries) => Ok(entries.get(name).copied()),
            Content::File { .. } => Err(ErrorCode::NotDirectory),
        }
    }

    fn entries_mut(&mut self, directory: Id) -> Result<&mut BTreeMap<String, Id>> {
        match &mut self.node_mut(directory)?.content {
            Content::Directory(entries) => Ok(entries),
            Content::File { .. } => Err(ErrorCode::NotDirectory),
        }
    }

    /// What is at a place, if anything is.
    fn at(&self, place: &Place<'_>) -> Result<Option<Id>> {
        place.name.map_or(Ok(Some(place.directory)), |name| self.entry(place.directory, name))
    }

    /// Follows a path down to its last name. It never leads above where it starts, not even on its way.
    fn place<'p>(&self, from: Id, path: &'p str) -> Result<Place<'p>> {
        match path {
            "" => return Err(ErrorCode::NoEntry),
            long if long.len() > MAX_PATH => return Err(ErrorCode::NameTooLong),
            absolute if absolute.starts_with('/') => return Err(ErrorCode::NotPermitted),
            zero if zero.contains('\0') => return Err(ErrorCode::Invalid),
            _ => {}
        }
        let (mut way, mut directory, mut name) = (Vec::new(), from, None);
        for component in path.split('/').filter(|component| !matches!(*component, "" | ".")) {
            if let Some(name) = name.take() {
                let below = self.entry(directory, name)?.ok_or(ErrorCode::NoEntry)?;
                if !self.is_directory(below) {
                    return Err(ErrorCode::NotDirectory);
                }
                way.push(directory);
                directory = below;
            }
            match component {
                ".." => directory = way.pop().ok_or(ErrorCode::NotPermitted)?,
                long if long.len() > MAX_NAME => return Err(ErrorCode::NameTooLong),
                component => name = Some(component),
            }
        }
        let is_directory = matches!(path.rsplit('/').next(), Some("" | "." | ".."));
        Ok(Place { directory, name, is_directory })
    }

    /// Makes something where nothing is.
    fn create(&mut self, place: &Place<'_>, content: Content) -> Result<Id> {
        let name = place.name.ok_or(ErrorCode::Exist)?;
        if !self.node(place.directory)?.named {
            return Err(ErrorCode::NoEntry);
        }
        if self.nodes.len() > MAX_NODES {
            self.account.refuse();
            return Err(ErrorCode::InsufficientSpace);
        }
        if !self.account.take(BLOCK) {
            return Err(ErrorCode::InsufficientSpace);
        }
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, Node { content, parent: place.directory, named: true, opened: 0 });
        self.entries_mut(place.directory)?.insert(name.to_owned(), id);
        Ok(id)
    }

    /// Takes a name away. What nobody has open is gone with it.
    fn unlink(&mut self, place: &Place<'_>) -> Result<()> {
        let Some(name) = place.name else { return Err(ErrorCode::Busy) };
        if let Some(id) = self.entries_mut(place.directory)?.remove(name)
            && let Some(node) = self.nodes.get_mut(&id)
        {
            node.named = false;
            self.sweep(id);
        }
        Ok(())
    }

    /// Forgets what has no name and is not open, and gives back its room.
    fn sweep(&mut self, id: Id) {
        let over = |node: &Node| !node.named && node.opened == 0;
        if self.nodes.get(&id).is_some_and(over)
            && let Some(node) = self.nodes.remove(&id)
        {
            let blocks = match node.content {
                Content::Directory(_) => 0,
                Content::File { blocks, .. } => blocks.len(),
            };
            self.account.give_back(blocks.saturating_add(1).saturating_mul(BLOCK));
        }
    }

    /// Whether a directory is `other` or lies below it.
    fn lies_in(&self, directory: Id, other: Id) -> bool {
        let mut at = directory;
        loop {
            if at == other {
                return true;
            }
            match self.nodes.get(&at) {
                Some(node) if at != ROOT => at = node.parent,
                _ => return false,
            }
        }
    }
}
