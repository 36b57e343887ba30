//! `/tmp` of a guest: files that live in memory as long as its call, and nowhere else.
//!
//! | part | what it is |
//! |---|---|
//! | [`Tree`] | the directories and files of one call, and what they take of its account |
//! | [`Opened`] | a directory or file that the guest has open |
//! | `Files` | `wasi:filesystem` over both kinds of directories: these, and those of the host that were granted |
//!
//! Nothing of it is a file of the host. So there is nothing to sweep after an executor that was killed, no link leads out of
//! it, a worker process that may open nothing can have it, and in the deterministic profile it follows from the guest alone:
//! names are listed in their order, numbers are given in the order of creation, and there are no times
//! (docs/adr/0060-scratch-files-in-memory.md).

mod descriptors;
mod files;
mod streams;
#[cfg(test)]
pub(crate) mod tests;
mod tree;
#[cfg(test)]
mod tree_tests;

use std::sync::Arc;

use parking_lot::Mutex;
use trust_store::capability::FileAccess;

use self::descriptors::Opened;
pub(super) use self::files::link;
use self::tree::{ROOT, Tree};
use crate::runtime::ScratchAccount;

/// The scratch files of one call.
pub(super) struct Scratch {
    tree: Arc<Mutex<Tree>>,
    access: FileAccess,
}

impl Scratch {
    /// An empty directory.
    pub(super) fn new(account: ScratchAccount, access: FileAccess) -> Self {
        Self { tree: Arc::new(Mutex::new(Tree::new(account))), access }
    }

    /// The directory itself, open.
    fn open(&self) -> Opened {
        Opened::new(&self.tree, ROOT, true, self.access == FileAccess::Write)
    }
}
