//! Modules that a slot of the standard pool does not hold, and one of the profile `large` does.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use executor_engine::Profile;
use executor_engine::pool::PoolLimits;
use trust_store::policy::TrustLevel;

use crate::admission::{AdmittedModule, GrantSet};
use crate::executor::Terms;
use crate::runtime::{Call, CallLimits, Prepared, Runtime};
use crate::testing::{Server, admitted, cache, runtime};
use crate::worker::WorkerLimits;

/// The runtime of the profile `large`.
fn large() -> &'static Arc<Runtime> {
    static LARGE: LazyLock<Arc<Runtime>> = LazyLock::new(|| {
        Runtime::new(Profile::Large, PoolLimits { slots: 8, ..PoolLimits::of(Profile::Large) }).unwrap()
    });
    &LARGE
}

/// What every call may use at most in a profile.
fn limits(profile: Profile) -> CallLimits {
    CallLimits { memory: profile.max_guest_memory(), ..CallLimits::of(profile) }
}

fn module(text: &str, profile: Profile) -> AdmittedModule {
    admitted(text, GrantSet::default(), limits(profile))
}

/// Loads a module and calls it once: its exit code, or why it is not loaded.
fn ran(runtime: &Arc<Runtime>, text: &str) -> Result<i32, &'static str> {
    let state = tempfile::tempdir().unwrap();
    let admitted = module(text, runtime.profile());
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cache = cache(state.path());
    let loading = cache.load(runtime.engine(), runtime.profile(), &admitted);
    let (loaded, _) = tokio.block_on(loading).map_err(|error| error.code())?;
    let prepared = Prepared::new(runtime, &loaded, &admitted).map_err(|error| error.code())?;
    runtime.call(&prepared, Call::default()).map(|outcome| outcome.exit_code).map_err(|error| error.code())
}

/// A table of so many elements, as large interpreters have for their functions.
fn table(elements: u32) -> String {
    format!(
        "(module (table {elements} funcref) (memory (export \"memory\") 1)
           (func (export \"process\") (result i32) (table.size)))"
    )
}

/// So many pages of memory, of which the last is written to.
fn memory(pages: u32) -> String {
    format!(
        "(module (memory (export \"memory\") {pages})
           (func (export \"process\") (result i32)
             (i32.store8 (i32.const {last}) (i32.const 7)) (i32.load8_u (i32.const {last}))))",
        last = pages * 65_536 - 1
    )
}

/// So many core instances: each shared library of a component made from Python is one.
fn libraries(count: u32) -> String {
    let instances: String =
        (1..count).map(|n| format!("(core instance $l{n} (instantiate $library))")).collect();
    format!(
        r#"(component
          (core module $library (func (export "f")))
          {instances}
          (core module $main (memory (export "memory") 1) (func (export "process") (result i32) (i32.const 0)))
          (core instance $main (instantiate $main))
          (func (export "process") (result (result (error string)))
            (canon lift (core func $main "process") (memory $main "memory"))))"#
    )
}

#[test]
fn what_is_too_large_for_the_standard_profile_runs_in_the_large_one() {
    for (text, answer) in [(table(30_000), 30_000), (memory(9_600), 7), (libraries(20), 0)] {
        assert_eq!(ran(runtime(), &text), Err("pool_limit"));
        assert_eq!(ran(large(), &text), Ok(answer));
    }
    // What fits is the same in both.
    for (text, answer) in [(table(20_000), 20_000), (libraries(16), 0)] {
        assert_eq!((ran(runtime(), &text), ran(large(), &text)), (Ok(answer), Ok(answer)));
    }
}

#[test]
fn the_large_profile_has_bounds_of_its_own() {
    for text in [table(200_001), memory(32_769), libraries(65)] {
        assert_eq!(ran(large(), &text), Err("pool_limit"));
    }
    // The limit of the calls holds below that of the pool.
    let text = memory(9_600);
    let admitted = admitted(&text, GrantSet::default(), CallLimits::of(Profile::Large));
    let state = tempfile::tempdir().unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cache = cache(state.path());
    let (loaded, _) = tokio.block_on(cache.load(large().engine(), Profile::Large, &admitted)).unwrap();
    assert_eq!(Prepared::new(large(), &loaded, &admitted).err().unwrap().code(), "pool_limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_have_the_room_of_their_executors_profile() {
    let workers = WorkerLimits { processes: 1, calls: 1, ..WorkerLimits::default() };
    let signed = |profile| {
        let module = module(&table(30_000), profile);
        module.called("w.large", "large@example.org").at(TrustLevel::Signed)
    };
    let server = Server::with_workers_under(Profile::Large, workers).await;
    server.executor.admit_for_test(signed(Profile::Large)).await;
    let ended = server.executor.execute("w.large", Bytes::new(), Terms::default()).await.unwrap();
    assert_eq!(ended.outcome.exit_code, 30_000);

    let server = Server::with_workers(workers).await;
    let runtime = Arc::clone(server.executor.runtime());
    let (state, admitted) = (tempfile::tempdir().unwrap(), signed(Profile::Standard));
    let (loaded, _) = cache(state.path()).load(runtime.engine(), Profile::Standard, &admitted).await.unwrap();
    let refused = tokio::task::spawn_blocking(move || Prepared::new(&runtime, &loaded, &admitted).err());
    assert_eq!(refused.await.unwrap().unwrap().code(), "pool_limit");
}
