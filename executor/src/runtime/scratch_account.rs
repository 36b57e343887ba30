//! What a call's scratch files take: memory of the call, beside that of its guest and bounded together with it.
#![cfg_attr(
    not(feature = "scratch-files"),
    allow(dead_code, reason = "a build without it refuses who would use it")
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The account of one call's scratch files, known to the files and to the account of the store. One thread uses both; the
/// atomics are there because either side is reached without the other.
#[derive(Debug, Clone)]
pub(crate) struct ScratchAccount(Arc<Account>);

#[derive(Debug)]
struct Account {
    /// Bytes that files may take, and that files and memories may take together.
    limit: usize,
    memory_limit: usize,
    held: AtomicUsize,
    /// Bytes of all memories of the store.
    memories: AtomicUsize,
    /// The most that both took together.
    most: AtomicUsize,
    refused: AtomicU64,
}

impl ScratchAccount {
    pub(super) fn new(limit: usize, memory_limit: usize, memories: usize) -> Self {
        Self(Arc::new(Account {
            limit,
            memory_limit,
            held: AtomicUsize::new(0),
            memories: AtomicUsize::new(memories),
            most: AtomicUsize::new(memories),
            refused: AtomicU64::new(0),
        }))
    }

    /// One of its own, that nothing else takes of.
    #[cfg(test)]
    pub(crate) fn of_bytes(limit: usize) -> Self {
        Self::new(limit, usize::MAX, 0)
    }

    /// Takes room for so many bytes more, if both limits allow it; counts it otherwise.
    #[must_use]
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let account = &*self.0;
        let held = self.held().saturating_add(bytes);
        let together = held.saturating_add(account.memories.load(Ordering::Relaxed));
        if held > account.limit || together > account.memory_limit {
            account.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        account.held.store(held, Ordering::Relaxed);
        account.most.fetch_max(together, Ordering::Relaxed);
        true
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.0.held.store(self.held().saturating_sub(bytes), Ordering::Relaxed);
    }

    /// Counts a refusal that is not about bytes.
    pub(crate) fn refuse(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes that files take now.
    pub(crate) fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// The memories of the store have grown to so many bytes.
    pub(super) fn memories_grew(&self, memories: usize) {
        self.0.memories.store(memories, Ordering::Relaxed);
        self.0.most.fetch_max(memories.saturating_add(self.held()), Ordering::Relaxed);
    }

    /// The most that files and memories took together.
    pub(super) fn most(&self) -> usize {
        self.0.most.load(Ordering::Relaxed)
    }

    /// Growths of files that were refused.
    pub(super) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_a_limit_of_their_own_and_one_that_they_share_with_the_memories() {
        let account = ScratchAccount::new(100, 160, 40);
        assert!(account.take(100) && !account.take(1));
        account.give_back(60);
        account.memories_grew(100);
        assert!(account.take(20), "160 of 160");
        assert!(!account.take(1));
        assert_eq!((account.held(), account.most(), account.refused()), (60, 160, 2));
        assert!(!account.take(usize::MAX));
    }
}
