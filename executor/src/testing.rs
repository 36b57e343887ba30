//! Fixtures of unit tests: modules from text, through the real worker, the real cache and the real engine. Only
//! admission is left out, which is why nothing of this exists outside `cfg(test)`.

mod compile_bomb;
mod compiler;
pub(crate) mod texts;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use executor_engine::pool::PoolLimits;
use executor_engine::{ModuleDigest, Profile};

use crate::admission::{Admission, AdmittedModule, GrantSet};
use crate::api::Access;
use crate::artifact::{ArtifactCache, Worker};
use crate::artifact_map::Sealed;
use crate::audit::Audit;
use crate::config::{CallerRole, CallerSettings, NextPolicy};
use crate::confinement::Confinement;
use crate::evidence::{Collector, EvidenceConfig};
use crate::executor::{Executor, Parts, Withdrawal};
use crate::extensions::Extensions;
use crate::extensions::key_value::{KeyValue, KeyValueLimits};
use crate::runtime::{
    AdmissionId, Call, CallError, CallLimits, GuestState, Lowered, Outcome, Owner, PrepareError, Prepared,
    Runtime,
};
use crate::worker::{Spawner, WorkerLimits, WorkerTier};

pub(crate) use compile_bomb::compile_bomb;
use compiler::COMPILER;
pub(crate) use compiler::{compiler_starts, put_compiler};

/// The state of a guest without grants.
pub(crate) fn guest_state() -> GuestState {
    guest_state_under(CallLimits::default())
}

/// The same under other limits.
pub(crate) fn guest_state_under(limits: CallLimits) -> GuestState {
    let owner = Arc::new(Owner {
        admission: AdmissionId::next(),
        agent: "test.agent".into(),
        digest: ModuleDigest::of(b""),
        signer: "dev@example.com".into(),
    });
    let calls = runtime().live().admission(owner, Arc::default(), limits);
    GuestState::new(bytes::Bytes::new(), Lowered::default(), calls.register(None), crate::clock::monotonic())
}

/// The worker beside this test executable.
pub(crate) fn worker_binary() -> PathBuf {
    let test = std::env::current_exe().expect("own path");
    let target = test.parent().and_then(std::path::Path::parent).expect("target directory");
    let binary = target.join("executor-compiler");
    assert!(binary.is_file(), "{} is missing: run `cargo build -p executor-compiler`", binary.display());
    binary
}

/// The process that starts workers, of the executor beside this test executable.
pub(crate) fn spawner() -> std::io::Result<Spawner> {
    let test = std::env::current_exe()?;
    let target = test.parent().and_then(std::path::Path::parent).expect("target directory");
    let binary = target.join("executor");
    assert!(binary.is_file(), "{} is missing: run `cargo build --workspace`", binary.display());
    Spawner::of_program(&binary)
}

/// A cache in a folder of its own, with the worker that a test put there by [`put_compiler`], or the real one.
pub(crate) fn cache(state: &std::path::Path) -> ArtifactCache {
    cache_of_size(state, 1 << 30)
}

/// The same of at most so many bytes.
pub(crate) fn cache_of_size(state: &std::path::Path, bytes: u64) -> ArtifactCache {
    let own = state.join(COMPILER);
    let binary = if own.is_file() { own } else { worker_binary() };
    let worker = Worker::new(binary, 2).expect("worker");
    ArtifactCache::open(state, worker, bytes).expect("cache")
}

/// Machine code that workers map on trial, made once.
pub(crate) fn trial_code(profile: Profile) -> Arc<Sealed> {
    static STANDARD: LazyLock<Arc<Sealed>> = LazyLock::new(|| tried(runtime().engine(), Profile::Standard));
    static DETERMINISTIC: LazyLock<Arc<Sealed>> = LazyLock::new(|| {
        let pool = PoolLimits { slots: 1, ..PoolLimits::default() };
        let runtime = Runtime::new(Profile::Deterministic, pool).expect("runtime");
        tried(runtime.engine(), Profile::Deterministic)
    });
    static LARGE: LazyLock<Arc<Sealed>> = LazyLock::new(|| {
        let pool = PoolLimits { slots: 1, ..PoolLimits::of(Profile::Large) };
        let runtime = Runtime::new(Profile::Large, pool).expect("runtime");
        tried(runtime.engine(), Profile::Large)
    });
    Arc::clone(match profile {
        Profile::Standard => &STANDARD,
        Profile::Deterministic => &DETERMINISTIC,
        Profile::Large => &LARGE,
    })
}

fn tried(engine: &wasmtime::Engine, profile: Profile) -> Arc<Sealed> {
    // A thread of its own: whoever asks may be inside a runtime already.
    let make = || {
        let state = tempfile::tempdir().expect("folder");
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
        let cache = cache(state.path());
        tokio.block_on(cache.self_test(engine, profile)).expect("self test")
    };
    std::thread::scope(|scope| scope.spawn(make).join().expect("code"))
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

/// Prepares a module under grants and limits.
pub(crate) fn prepare(text: &str, grants: GrantSet, limits: CallLimits) -> Result<Prepared, PrepareError> {
    prepare_admitted(&admitted(text, grants, limits))
}

fn prepare_admitted(admitted: &AdmittedModule) -> Result<Prepared, PrepareError> {
    let state = tempfile::tempdir().expect("folder");
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
    let (loaded, _) = tokio
        .block_on(cache(state.path()).load(runtime().engine(), Profile::Standard, admitted))
        .expect("loads");
    Prepared::new(runtime(), &loaded, admitted)
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

/// A guest that answers with its input.
pub(crate) fn wat_echo() -> &'static str {
    r#"(module
        (import "mentat" "read_input" (func $read (param i32 i32 i32) (result i32)))
        (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "process") (result i32)
          (drop (call $write (i32.const 0) (call $read (i32.const 0) (i32.const 65536) (i32.const 0))))
          (i32.const 0)))"#
}

/// For guests that run until somebody stops them: on a busy machine they must not reach a limit before that.
pub(crate) fn patient() -> CallLimits {
    let long = std::time::Duration::from_secs(3600);
    CallLimits { cpu: long, wall: long, ..CallLimits::default() }
}

/// A guest that never ends by itself.
pub(crate) fn wat_spin() -> &'static str {
    r#"(module (memory (export "memory") 1)
        (func (export "process") (result i32) (loop $l (br $l)) (i32.const 0)))"#
}

/// What becomes of calls in flight by a changed policy and by old evidence where the configuration says nothing.
const UNSAID: (Withdrawal, Withdrawal) =
    (Withdrawal::Stop, Withdrawal::Drain(std::time::Duration::from_secs(30)));
/// Who administers a server, and who else is let in.
type Who = (service::admin::AdminConfig, Vec<CallerSettings>);

/// A whole executor behind a listener, which trusts nobody.
pub(crate) struct Server {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) executor: Arc<Executor>,
    /// What its extension `key-value` keeps.
    pub(crate) kept: Arc<KeyValue>,
    _running: service::Running,
    state: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::over(tempfile::tempdir().expect("folder")).await
    }

    /// With a trusted root that follows a repository.
    pub(crate) async fn following(root: trust_store_files::RootLifetime) -> Self {
        let evidence = EvidenceConfig { root: Some(root), ..EvidenceConfig::default() };
        let state = tempfile::tempdir().expect("folder");
        Self::with(Default::default(), state, Withdrawal::Stop, None, evidence).await
    }

    /// With a trusted root that names logs, and their addresses.
    pub(crate) async fn trusting(
        root: trust_store::trusted_root::TrustedRoot,
        logs: std::collections::BTreeMap<String, String>,
        state: tempfile::TempDir,
    ) -> Self {
        let timeout = std::time::Duration::from_secs(60);
        let evidence =
            EvidenceConfig { logs, state: state.path().to_owned(), timeout, ..EvidenceConfig::default() };
        let (runtime, who) = (Arc::clone(runtime()), Default::default());
        Self::run_under(root, runtime, who, state, UNSAID, None, evidence, None, None).await
    }

    /// With a state folder that was there before.
    pub(crate) async fn over(state: tempfile::TempDir) -> Self {
        Self::with(Default::default(), state, Withdrawal::Stop, None, Default::default()).await
    }

    /// Which gives calls in flight time when a changed policy admits their agent no longer.
    pub(crate) async fn draining(time: std::time::Duration) -> Self {
        let state = tempfile::tempdir().expect("folder");
        Self::with(Default::default(), state, Withdrawal::Drain(time), None, Default::default()).await
    }

    /// Which does this to calls in flight when evidence has grown old.
    pub(crate) async fn on_stale(on_stale: Withdrawal) -> Self {
        let state = tempfile::tempdir().expect("folder");
        let (admin, evidence, ends) = (Default::default(), Default::default(), (UNSAID.0, on_stale));
        Self::run(Arc::clone(runtime()), admin, state, ends, None, evidence, None, None).await
    }

    /// For which `next.yaml` of the state folder is in force from a time on.
    pub(crate) async fn with_next_policy(from: trust_store::UnixTime, text: &str) -> Self {
        let state = tempfile::tempdir().expect("folder");
        std::fs::write(state.path().join("next.yaml"), text).expect("next policy");
        let next = NextPolicy { file: state.path().join("next.yaml"), from };
        Self::with(Default::default(), state, Withdrawal::Stop, Some(next), Default::default()).await
    }

    /// Which gets evidence from there.
    pub(crate) async fn asking(evidence: EvidenceConfig) -> Self {
        let state = tempfile::tempdir().expect("folder");
        Self::with(Default::default(), state, Withdrawal::Stop, None, evidence).await
    }

    /// The value of one series of a scrape, 0 where nothing has been counted in it.
    pub(crate) fn counted(&self, series: &str) -> u64 {
        let text = self.exposition();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap_or_else(|_| panic!("{series} is {value}")))
    }

    /// What a scrape of the executor gives.
    pub(crate) fn exposition(&self) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
        self.executor.metrics().register(&mut registry);
        let gauges = crate::gauges::Gauges { executor: Arc::clone(&self.executor), instances: false };
        registry.register_collector(Box::new(gauges));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        text
    }

    /// With an engine for containers.
    pub(crate) async fn with_containers(containers: Arc<dyn crate::containers::ContainerBackend>) -> Self {
        let state = tempfile::tempdir().expect("folder");
        let (admin, evidence) = Default::default();
        Self::run(Arc::clone(runtime()), admin, state, UNSAID, None, evidence, Some(containers), None).await
    }

    /// With somebody who follows its calls.
    pub(crate) async fn traced(tracer: crate::telemetry::Tracer) -> Self {
        let state = tempfile::tempdir().expect("folder");
        let (admin, evidence) = Default::default();
        Self::run(Arc::clone(runtime()), admin, state, UNSAID, None, evidence, None, Some(tracer)).await
    }

    /// The state folder.
    pub(crate) fn state(&self) -> &std::path::Path {
        self.state.path()
    }

    /// With an administrator's token.
    pub(crate) async fn with_token(token: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let state = tempfile::tempdir().expect("folder");
        let file = state.path().join("token");
        std::fs::write(&file, token).expect("token");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
        let admin = service::admin::AdminConfig { token_file: Some(file), ..Default::default() };
        Self::with((admin, Vec::new()), state, Withdrawal::Stop, None, EvidenceConfig::default()).await
    }

    /// With an administrator and these callers besides: name, role and agents. The token of each is its name, as long as one must be.
    pub(crate) async fn with_callers(callers: &[(&str, CallerRole, &[&str])]) -> Self {
        let state = tempfile::tempdir().expect("folder");
        let who = |name: &str| {
            let file = state.path().join(name);
            service::secret::write_new(&file, Self::token_of(name).as_bytes()).expect("token");
            service::admin::AdminConfig { token_file: Some(file), ..Default::default() }
        };
        let named = callers.iter().map(|(name, role, agents)| CallerSettings {
            name: (*name).to_owned(),
            role: *role,
            who: who(name),
            agents: (!agents.is_empty()).then(|| agents.iter().map(|agent| (*agent).to_owned()).collect()),
        });
        let who = (who("administrator"), named.collect());
        Self::with(who, state, Withdrawal::Stop, None, EvidenceConfig::default()).await
    }

    /// The token of a caller of [`Self::with_callers`].
    pub(crate) fn token_of(name: &str) -> String {
        format!("{name:=<32}")
    }

    /// With an engine of its own: what runs there can be stopped whole.
    pub(crate) async fn alone() -> Self {
        let pool = PoolLimits { slots: 8, ..PoolLimits::default() };
        let runtime = Runtime::new(Profile::Standard, pool).expect("runtime");
        let state = tempfile::tempdir().expect("folder");
        Self::run(runtime, Default::default(), state, UNSAID, None, Default::default(), None, None).await
    }

    /// With an engine of its own, and worker processes.
    pub(crate) async fn with_workers(limits: WorkerLimits) -> Self {
        Self::with_workers_under(Profile::Standard, limits).await
    }

    /// The same in a profile.
    pub(crate) async fn with_workers_under(profile: Profile, limits: WorkerLimits) -> Self {
        let pool = PoolLimits { slots: 32, ..PoolLimits::of(profile) };
        let runtime = Runtime::new(profile, pool).expect("runtime");
        let tier = WorkerTier::start(spawner(), profile, limits, trial_code(profile));
        assert_eq!(tier.missing(), None, "this host confines no workers");
        runtime.attach(tier);
        let state = tempfile::tempdir().expect("folder");
        Self::run(runtime, Default::default(), state, UNSAID, None, Default::default(), None, None).await
    }

    async fn with(
        who: Who,
        state: tempfile::TempDir,
        withdrawal: Withdrawal,
        next: Option<NextPolicy>,
        evidence: EvidenceConfig,
    ) -> Self {
        let ends = (withdrawal, UNSAID.1);
        Self::run(Arc::clone(runtime()), who, state, ends, next, evidence, None, None).await
    }

    #[allow(clippy::too_many_arguments, reason = "a fixture: each caller varies another one")]
    async fn run(
        runtime: Arc<Runtime>,
        who: Who,
        state: tempfile::TempDir,
        ends: (Withdrawal, Withdrawal),
        next: Option<NextPolicy>,
        evidence: EvidenceConfig,
        containers: Option<Arc<dyn crate::containers::ContainerBackend>>,
        tracer: Option<crate::telemetry::Tracer>,
    ) -> Self {
        let nobody = trust_store::trusted_root::TrustedRoot::new();
        Self::run_under(nobody, runtime, who, state, ends, next, evidence, containers, tracer).await
    }

    #[allow(clippy::too_many_arguments, reason = "a fixture: each caller varies another one")]
    async fn run_under(
        root: trust_store::trusted_root::TrustedRoot,
        runtime: Arc<Runtime>,
        (admin, callers): Who,
        state: tempfile::TempDir,
        (withdrawal, on_stale): (Withdrawal, Withdrawal),
        next: Option<NextPolicy>,
        evidence: EvidenceConfig,
        containers: Option<Arc<dyn crate::containers::ContainerBackend>>,
        tracer: Option<crate::telemetry::Tracer>,
    ) -> Self {
        let verifier = trust_store::verifier::Verifier::new(Arc::new(trust_store::provider::AwsLc), &root)
            .expect("root");
        let policy = trust_store::policy::TrustPolicy::default();
        let kept = Arc::new(KeyValue::new(KeyValueLimits::default()));
        let mut extensions = Extensions::default();
        extensions.register(Arc::clone(&kept) as _).expect("extension");
        let sources = crate::admission::GrantSources { extensions, ..Default::default() };
        let admission = Admission::new(
            verifier.clone(),
            crate::admission::Rules::new(policy, [0; 32]),
            sources,
            CallLimits::default(),
            Profile::Standard,
        );
        let admission = match containers {
            Some(containers) => admission.with_containers(containers),
            None => admission,
        };
        let collector = Collector::new(verifier, reqwest::Client::new(), &evidence).expect("collector");
        let parts = Parts {
            admission,
            collector,
            cache: cache(state.path()),
            runtime,
            audit: Audit::open(state.path(), None).expect("audit"),
            receipts: crate::receipts::Receipts::open(state.path()).expect("receipts"),
            confinement: Confinement::default(),
            metrics: crate::Metrics::default(),
            verdict_age: std::time::Duration::from_secs(3600),
            schedule: crate::executor::Schedule::open(state.path().join("policy.yaml"), next, state.path())
                .expect("schedule"),
            withdrawal,
            on_stale,
            calls_per_agent: None,
            answers: crate::AnswerLimits {
                window: std::time::Duration::from_secs(600),
                keys: 64,
                bytes: 1 << 20,
            },
            tracer,
        };
        let executor = Executor::new(parts, state.path()).expect("executor");
        let access = Access::new(&admin, &callers, true).expect("access");
        let config = service::ServerConfig::default();
        let ready = Arc::clone(&executor);
        let running = service::Server::new(&config)
            .expect("server")
            .readiness(move || crate::start::readiness(&ready))
            .route(crate::api::http::routes(Arc::clone(&executor), access.clone()))
            .grpc(crate::api::grpc::routes(Arc::clone(&executor), access))
            .start()
            .await
            .expect("starts");
        Self { address: running.addr(), executor, kept, _running: running, state }
    }

    /// Lets a module in without a verdict.
    pub(crate) async fn admit(
        &self,
        text: &str,
        grants: GrantSet,
        limits: CallLimits,
    ) -> executor_engine::ModuleDigest {
        self.executor.admit_for_test(admitted(text, grants, limits)).await
    }
}

/// An attestation that proves nothing.
pub(crate) fn attestation() -> Arc<trust_store::attestation::Attestation> {
    use trust_store::bundle::{Bundle, KeyMaterial};
    let envelope = trust_store::dsse::Envelope::new("test", b"{}".to_vec(), b"none".to_vec());
    let mut bundle = Bundle::for_envelope(Vec::new(), envelope);
    bundle.key = KeyMaterial::PublicKey { hint: "none".into() };
    Arc::new(trust_store::attestation::Attestation::for_bundle(bundle).expect("attestation"))
}

/// Held by tests that stop instances by agent and by tests that expect another end: all share one runtime and agent id.
pub(crate) static ENDS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
