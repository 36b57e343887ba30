//! Memory and tables, accounted as totals of a store.
//!
//! wasmtime's own limits bound each memory and each table; a guest with many of them would multiply its share. What a call
//! keeps in scratch files counts as memory as well.

use wasmtime::ResourceLimiter;

use super::limits::CallLimits;
use super::scratch_account::ScratchAccount;
use super::state::GuestState;

/// The account of one store.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_limit: usize,
    table_limit: usize,
    instance_limit: usize,
    memory: usize,
    table: usize,
    refused: u64,
    /// That of its scratch files, in calls that have any.
    scratch: Option<ScratchAccount>,
}

impl Limiter {
    /// The account of a call that may use `memory` bytes, and of anything else what the limits say.
    pub(crate) fn new(limits: &CallLimits, memory: usize) -> Self {
        Self {
            memory_limit: memory,
            table_limit: limits.table_elements,
            instance_limit: limits.instances,
            memory: 0,
            table: 0,
            refused: 0,
            scratch: None,
        }
    }

    /// Begins an account of scratch files of so many bytes.
    pub(crate) fn with_scratch(&mut self, bytes: usize) -> ScratchAccount {
        self.scratch.insert(ScratchAccount::new(bytes, self.memory_limit, self.memory)).clone()
    }

    /// The largest total of the call, bytes. Memories cannot shrink; files can.
    pub(crate) fn memory(&self) -> usize {
        self.scratch.as_ref().map_or(self.memory, |scratch| scratch.most().max(self.memory))
    }

    /// The total of the call as it is now, bytes.
    pub(crate) fn memory_now(&self) -> usize {
        self.memory.saturating_add(self.scratch.as_ref().map_or(0, ScratchAccount::held))
    }

    /// Whether the total changes without a growth of a memory.
    pub(crate) fn has_scratch(&self) -> bool {
        self.scratch.is_some()
    }

    /// Bytes of memory that the call may use.
    pub(crate) fn memory_limit(&self) -> usize {
        self.memory_limit
    }

    /// Growths that were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.saturating_add(self.scratch.as_ref().map_or(0, ScratchAccount::refused))
    }

    /// Takes over what a worker says that a guest of its own used; no more than it could.
    pub(crate) fn claim(&mut self, memory: u64, refused: u64) {
        self.memory = usize::try_from(memory).unwrap_or(usize::MAX).min(self.memory_limit);
        self.refused = refused;
    }

    fn account(total: &mut usize, limit: usize, refused: &mut u64, current: usize, desired: usize) -> bool {
        let next = total.saturating_add(desired.saturating_sub(current));
        if next > limit {
            *refused += 1;
            return false;
        }
        *total = next;
        true
    }
}

/// The account of the store, and what is told of it while the call is listed.
impl ResourceLimiter for GuestState {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let grows = self.limiter.memory_growing(current, desired, maximum)?;
        // What was refused changed nothing.
        if grows {
            self.registration.holds(self.limiter.memory_now());
        }
        Ok(grows)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.limiter.table_growing(current, desired, maximum)
    }

    fn instances(&self) -> usize {
        self.limiter.instances()
    }

    fn tables(&self) -> usize {
        self.limiter.tables()
    }

    fn memories(&self) -> usize {
        self.limiter.memories()
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // wasmtime refuses this one whatever we answer; it must not count against the total.
            self.refused += 1;
            return Ok(false);
        }
        let held = self.scratch.as_ref().map_or(0, ScratchAccount::held);
        let limit = self.memory_limit.saturating_sub(held);
        let grows = Self::account(&mut self.memory, limit, &mut self.refused, current, desired);
        if let Some(scratch) = self.scratch.as_ref().filter(|_| grows) {
            scratch.memories_grew(self.memory);
        }
        Ok(grows)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            self.refused += 1;
            return Ok(false);
        }
        Ok(Self::account(&mut self.table, self.table_limit, &mut self.refused, current, desired))
    }

    fn instances(&self) -> usize {
        self.instance_limit
    }

    fn tables(&self) -> usize {
        self.instance_limit
    }

    fn memories(&self) -> usize {
        self.instance_limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_of_the_store_not_of_each_memory() {
        let mut limiter = Limiter::new(&CallLimits::default(), 100);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap(), "a second memory shares the limit");
        assert!(limiter.memory_growing(60, 100, None).unwrap());
        assert_eq!((limiter.memory(), limiter.refused()), (100, 1));
    }

    #[test]
    fn scratch_files_and_memories_share_the_limit() {
        let mut limiter = Limiter::new(&CallLimits::default(), 100);
        assert!(limiter.memory_growing(0, 30, None).unwrap());
        let scratch = limiter.with_scratch(50);
        assert!(scratch.take(50) && !scratch.take(1));
        assert!(!limiter.memory_growing(30, 51, None).unwrap(), "50 of 100 are files");
        assert!(limiter.memory_growing(30, 50, None).unwrap());
        scratch.give_back(50);
        assert!(limiter.memory_growing(50, 90, None).unwrap());
        assert!(scratch.take(10) && !scratch.take(1));
        assert_eq!((limiter.memory(), limiter.refused()), (100, 3));
        scratch.give_back(10);
        assert_eq!((limiter.memory(), limiter.memory_now()), (100, 90));
    }

    #[test]
    fn a_growth_that_the_module_itself_forbids_is_not_accounted() {
        let mut limiter = Limiter::new(&CallLimits::default(), 64 << 20);
        assert!(!limiter.memory_growing(0, 60, Some(10)).unwrap());
        assert_eq!(limiter.memory(), 0);
    }
}
