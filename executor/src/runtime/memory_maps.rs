//! What the pool takes of the process: parts of its address space, which the kernel counts, and places that are taken or kept warm.

use std::path::Path;

use executor_engine::pool::PoolLimits;
use wasmtime::Engine;

/// How many parts with rights of their own the kernel lets the address space of a process have.
const ALLOWED: &str = "/proc/sys/vm/max_map_count";

/// Of a place whose stack has a page that nobody may touch: the stack and that page, from the start on.
const OF_STACK: u64 = 2;

/// Of a memory that has or had a tenant: what it starts with, what it grew by, and what it may not touch.
const OF_MEMORY: u64 = 3;

/// Of everything else: the program and its libraries, some hundred threads with their stacks and heaps, the code of loaded agents.
const BESIDES: u64 = 4_096;

/// How many such parts this process may have, and how many it has when every place of its pool had a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryMaps {
    pub(crate) needed: u64,
    /// Unknown where the kernel does not say.
    pub(crate) allowed: Option<u64>,
}

impl MemoryMaps {
    /// Of this pool on this host.
    pub(crate) fn of(pool: PoolLimits) -> Self {
        Self::under(pool, Path::new(ALLOWED))
    }

    fn under(pool: PoolLimits, limit: &Path) -> Self {
        let needed = u64::from(pool.slots)
            .saturating_mul(OF_STACK)
            .saturating_add(u64::from(pool.memories()).saturating_mul(OF_MEMORY))
            .saturating_add(BESIDES);
        let allowed = std::fs::read_to_string(limit).ok().and_then(|text| text.trim().parse().ok());
        Self { needed, allowed }
    }

    /// What is wrong, and what to do, if guests may find no room although they have a place.
    pub(crate) fn shortage(self) -> Option<String> {
        let Self { needed, allowed: Some(allowed) } = self else { return None };
        (needed > allowed).then(|| {
            format!(
                "vm.max_map_count is {allowed}, and a full pool needs about {needed}: raise it, or lower pool.slots"
            )
        })
    }
}

/// What is taken of the pool now, and what it keeps for the next ones: names, what they mean, values.
pub(crate) fn pool_in_use(engine: &Engine) -> Vec<(&'static str, &'static str, u64)> {
    let Some(pool) = engine.pooling_allocator_metrics() else { return Vec::new() };
    let kept = [
        pool.unused_memory_bytes_resident(),
        pool.unused_table_bytes_resident(),
        pool.unused_stack_bytes_resident().unwrap_or_default(),
    ];
    vec![
        (
            "mentatlab_pool_component_instances",
            "Instances of components in the pool",
            pool.component_instances(),
        ),
        ("mentatlab_pool_core_instances", "Instances of core modules in the pool", pool.core_instances()),
        ("mentatlab_pool_memories", "Memories of the pool that are in use", pool.memories() as u64),
        (
            "mentatlab_pool_memories_warm",
            "Memories that keep pages for the next tenant",
            pool.unused_warm_memories().into(),
        ),
        ("mentatlab_pool_stacks", "Stacks of the pool that are in use", pool.stacks() as u64),
        ("mentatlab_pool_tables", "Tables of the pool that are in use", pool.tables() as u64),
        (
            "mentatlab_pool_kept_bytes",
            "Bytes that the pool keeps for next tenants",
            kept.iter().sum::<usize>() as u64,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use executor_engine::Profile;

    use super::*;
    use crate::admission::GrantSet;
    use crate::runtime::{Call, CallLimits, Prepared, Runtime};
    use crate::testing::{admitted, cache, wat_echo};

    #[test]
    fn a_pool_that_the_kernel_has_too_few_maps_for_is_told_of_with_both_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let limit = folder.path().join("max_map_count");
        let pool = PoolLimits { slots: 1_000, ..PoolLimits::default() };
        let needed = 2 * 1_000 + 3 * 2_048 + BESIDES;
        for (text, allowed, told) in [
            (format!("{needed}\n"), Some(needed), false),
            (format!("{}\n", needed - 1), Some(needed - 1), true),
            ("many".to_owned(), None, false),
        ] {
            std::fs::write(&limit, text).unwrap();
            let maps = MemoryMaps::under(pool, &limit);
            assert_eq!(maps, MemoryMaps { needed, allowed });
            let shortage = maps.shortage();
            assert_eq!(shortage.is_some(), told, "{shortage:?}");
            let names = |text: String| text.contains(&needed.to_string()) && text.contains("pool.slots");
            assert!(shortage.is_none_or(names));
        }
        assert_eq!(MemoryMaps::under(pool, &folder.path().join("none")).allowed, None);
        // The largest pool there may be fits what a kernel has where nobody changed it.
        let largest = PoolLimits { slots: 10_000, ..PoolLimits::default() };
        assert!(MemoryMaps::of(largest).needed <= 65_530);
    }

    #[test]
    fn what_lives_and_what_is_kept_warm_is_counted() {
        let runtime = Runtime::new(Profile::Standard, PoolLimits::small()).unwrap();
        let state = tempfile::tempdir().unwrap();
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let module = admitted(wat_echo(), GrantSet::default(), CallLimits::default());
        let cache = cache(state.path());
        let (loaded, _) = tokio.block_on(cache.load(runtime.engine(), Profile::Standard, &module)).unwrap();
        let echo = Prepared::new(&runtime, &loaded, &module).unwrap();
        let value = |name: &str| runtime.pool_in_use().iter().find(|known| known.0 == name).unwrap().2;
        let begin = || {
            let registration = runtime.register(&echo, None);
            let now = crate::clock::monotonic();
            // What it writes is what is kept.
            let call = Call { input: "x".into(), ..Call::default() };
            let mut store = runtime.store(call, registration, now, None).unwrap();
            runtime.run(&echo, &mut store).unwrap();
            store
        };
        let held = [begin(), begin(), begin()];
        assert_eq!((value("mentatlab_pool_memories"), value("mentatlab_pool_core_instances")), (3, 3));
        assert_eq!(value("mentatlab_pool_memories_warm"), 0);
        drop(held);
        assert_eq!((value("mentatlab_pool_memories"), value("mentatlab_pool_core_instances")), (0, 0));
        assert_eq!(value("mentatlab_pool_memories_warm"), 3);
        assert!(value("mentatlab_pool_kept_bytes") > 0);
    }
}
