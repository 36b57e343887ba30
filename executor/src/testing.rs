//! Fixtures of unit tests: modules from text, through the real worker, the real cache and the real engine. Only
//! admission is left out, which is why nothing of this exists outside `cfg(test)`.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use executor_engine::Profile;
use executor_engine::pool::PoolLimits;

use crate::admission::{AdmittedModule, GrantSet};
use crate::artifact::{ArtifactCache, Worker};
use crate::runtime::{
    Call, CallError, CallLimits, GuestState, Outcome, Owner, PrepareError, Prepared, Runtime,
};

/// The state of a guest without grants.
pub(crate) fn guest_state() -> GuestState {
    GuestState::new(
        bytes::Bytes::new(),
        CallLimits::default(),
        Arc::new(GrantSet::default()),
        Arc::default(),
        crate::clock::monotonic(),
    )
}

/// The worker beside this test executable.
pub(crate) fn worker_binary() -> PathBuf {
    let test = std::env::current_exe().expect("own path");
    let target = test.parent().and_then(std::path::Path::parent).expect("target directory");
    let binary = target.join("executor-compiler");
    assert!(binary.is_file(), "{} is missing: run `cargo build -p executor-compiler`", binary.display());
    binary
}

/// A cache in a folder of its own.
pub(crate) fn cache(state: &std::path::Path) -> ArtifactCache {
    let worker = Worker::new(worker_binary(), 2).expect("worker");
    ArtifactCache::open(state, worker, 1 << 30).expect("cache")
}

/// One engine for all tests of the process: a pool reserves much address space.
pub(crate) fn runtime() -> &'static Arc<Runtime> {
    static RUNTIME: LazyLock<Arc<Runtime>> = LazyLock::new(|| {
        Runtime::new(Profile::Standard, PoolLimits { slots: 64, ..PoolLimits::default() }).expect("runtime")
    });
    &RUNTIME
}

/// An admitted module from text.
pub(crate) fn admitted(text: &str, grants: GrantSet, limits: CallLimits) -> AdmittedModule {
    AdmittedModule::for_test(wat::parse_str(text).expect("module text"), grants, limits)
}

/// Prepares a core module under grants and limits.
pub(crate) fn prepare(text: &str, grants: GrantSet, limits: CallLimits) -> Result<Prepared, PrepareError> {
    let admitted = admitted(text, grants, limits);
    let state = tempfile::tempdir().expect("folder");
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
    let (loaded, _) = tokio
        .block_on(cache(state.path()).load(runtime().engine(), Profile::Standard, &admitted))
        .expect("loads");
    Prepared::new(runtime(), &loaded, &admitted)
}

/// Prepares without grants, under default limits, and calls once.
pub(crate) fn run(text: &str, input: &[u8]) -> Result<Outcome, CallError> {
    run_limited(text, input, CallLimits::default())
}

/// As [`run`], under other limits.
pub(crate) fn run_limited(text: &str, input: &[u8], limits: CallLimits) -> Result<Outcome, CallError> {
    let prepared = prepare(text, GrantSet::default(), limits).expect("prepares");
    runtime().call(&prepared, Call { input: bytes::Bytes::copy_from_slice(input), ..Call::default() })
}
