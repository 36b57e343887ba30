//! The instance pool: every slot that a guest can occupy is reserved before the first guest arrives.

use wasmtime::{Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::{Profile, limits};

/// Sizes of the pool. One memory reserves 4 GiB of address space (not of memory).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Guests that can live at once: memories, component instances and stacks.
    pub slots: u32,
    /// Bytes of a memory that stay resident between two tenants of a slot (they are zeroed, not unmapped).
    pub keep_resident: usize,
    /// Largest memory of one guest, bytes.
    pub max_memory: usize,
    /// Elements of one table.
    pub table_elements: usize,
    /// Core instances of one component: each shared library of a Python component is one.
    pub core_instances: u32,
    /// Tables of one component.
    pub tables: u32,
}

/// Memories that one component may have.
const MEMORIES: u32 = 4;

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            slots: 1_000,
            keep_resident: 64 << 10,
            max_memory: Profile::Standard.max_guest_memory(),
            table_elements: 20_000,
            core_instances: 16,
            tables: 16,
        }
    }
}

impl PoolLimits {
    /// Fewest slots worth starting with; a host that cannot reserve these cannot run guests.
    pub const MIN_SLOTS: u32 = 8;

    /// The pool of a profile.
    pub fn of(profile: Profile) -> Self {
        let standard = Self { max_memory: profile.max_guest_memory(), ..Self::default() };
        match profile {
            Profile::Standard | Profile::Deterministic => standard,
            Profile::Large => Self { table_elements: 200_000, core_instances: 64, tables: 32, ..standard },
        }
    }

    /// A pool for tests and for the idle footprint of small hosts.
    pub fn small() -> Self {
        Self { slots: 16, ..Self::default() }
    }

    /// The same pool with half the slots, or `None` below [`Self::MIN_SLOTS`]: what the start-up probe tries
    /// next when the address space cannot be reserved.
    pub fn halved(self) -> Option<Self> {
        let slots = self.slots / 2;
        (slots >= Self::MIN_SLOTS).then_some(Self { slots, ..self })
    }

    /// As much as every call that can run at once may have of something that one has `each` of, so that no guest takes of others
    /// what comes with their place. It is address space until it is used.
    fn of_all(self, each: u32) -> u32 {
        self.slots.min(limits::MAX_RUNNING).saturating_mul(each).max(self.slots)
    }

    /// Memories of the pool. One that had a tenant stays as large as that one made it, though empty, until it has another.
    pub fn memories(self) -> u32 {
        self.of_all(MEMORIES)
    }

    /// wasmtime's settings for this pool. Every limit that would default to "unlimited" is set.
    pub fn strategy(self) -> InstanceAllocationStrategy {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_memories(self.memories())
            .total_component_instances(self.slots)
            .total_stacks(self.slots)
            // A number that is counted against, and no room: as many as every place may have, also of places that wait.
            .total_core_instances(self.slots.saturating_mul(self.core_instances))
            .total_tables(self.of_all(self.tables))
            .max_memory_size(self.max_memory.min(limits::MAX_LARGE_GUEST_MEMORY))
            .max_memories_per_module(1)
            .max_tables_per_module(2)
            .table_elements(self.table_elements)
            .max_core_instances_per_component(self.core_instances)
            .max_memories_per_component(MEMORIES)
            .max_tables_per_component(self.tables)
            .linear_memory_keep_resident(self.keep_resident)
            .pagemap_scan(Enabled::Auto)
            // More than one would use process_madvise, which the sandbox does not allow.
            .decommit_batch_size(1);
        InstanceAllocationStrategy::Pooling(pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_all_that_one_component_may_use() {
        let all = |slots, each| PoolLimits { slots, ..PoolLimits::default() }.of_all(each);
        assert_eq!((all(8, 4), all(512, 16), all(1_000, 4)), (32, 8_192, 2_048));
        assert_eq!(all(10_000, 4), 10_000, "places of more guests than run have one each");
    }

    #[test]
    fn the_pool_of_large_guests_is_wider_and_no_other_is() {
        for profile in [Profile::Standard, Profile::Deterministic] {
            assert_eq!(PoolLimits::of(profile), PoolLimits::default(), "{profile:?}");
        }
        let (standard, large) = (PoolLimits::default(), PoolLimits::of(Profile::Large));
        assert!(large.max_memory > standard.max_memory && large.table_elements > standard.table_elements);
        assert!(large.core_instances > standard.core_instances && large.tables > standard.tables);
        assert_eq!((large.slots, large.keep_resident), (standard.slots, standard.keep_resident));
    }

    #[test]
    fn halving_ends() {
        let mut pool = PoolLimits::default();
        let mut steps = 0;
        while let Some(next) = pool.halved() {
            assert!(next.slots < pool.slots);
            pool = next;
            steps += 1;
        }
        assert!(pool.slots < 2 * PoolLimits::MIN_SLOTS);
        assert!(steps < 12);
    }
}
