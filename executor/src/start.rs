//! From validated configuration to a running server. Everything that can be refused is refused here, before the
//! listener answers.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use executor_engine::limits::MAX_MODULE_BYTES;
use service::clock::SystemClock;
use service::{Readiness, Running, Server, StartRefusal};
use tlog_client::{LogClient, LogSet};
use trust_store::evidence::signed::{EvidenceSigner, MAX_SIGNERS};
use trust_store::provider::AwsLc;
use trust_store::trusted_root::TrustedRoot;
use trust_store::verifier::Verifier;
use trust_store::{Certificate, UnixTime};

use crate::admission::{Admission, GrantSources, Rules};
use crate::api::{Access, grpc, http};
use crate::artifact::{ArtifactCache, Worker};
use crate::artifact_map::Sealed;
use crate::audit::{Audit, OpenError};
use crate::clock;
use crate::config::{MediaSection, Settings};
use crate::confinement::{Confinement, Places, system_places};
use crate::egress::Egress;
use crate::evidence::{Collector, EventLog, ImportConfig, distribution_urls};
use crate::executor::{Executor, Parts, Schedule};
use crate::exposed::{Exposed, secrets_beside_policies};
use crate::extensions::key_value::KeyValue;
use crate::extensions::{Extensions, HostExtension};
use crate::gauges::Gauges;
use crate::mappings::refuse_overlaps;
use crate::media::MediaStore;
use crate::metrics::Metrics;
use crate::receipts::{Anchor, Receipts};
use crate::runtime::Runtime;
use crate::signatures::SignatureMemory;
use crate::telemetry::Tracer;
use crate::worker::{ENFORCED, Spawner, WorkerTier};

/// Largest request body: a module of the largest size in base64, its manifest, and room.
const MAX_BODY: u64 = (MAX_MODULE_BYTES as u64) / 3 * 4 + (36 << 20);

/// Largest `log_keys.json`, bytes.
const MAX_LOG_KEYS: u64 = 4 << 20;

/// Largest value of an environment variable, bytes.
const MAX_ENV: usize = 64 << 10;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes the folders the executor writes to, so that they exist when the sandbox closes, and holds guests' directories apart from
/// them.
///
/// # Errors
///
/// When a folder cannot be made, or when a directory that guests can be granted overlaps with it or with another one.
pub fn make_folders(settings: &Settings, config: &Path) -> Result<(), StartRefusal> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&settings.state).map_err(|error| {
        StartRefusal::new(format!("{} cannot be made", settings.state.display()), "choose another state_dir")
            .because(error)
    })?;
    refuse_overlapping(settings, config)
}

/// Refuses directories of guests that overlap with each other, with the state folder, which need not be there, or with what the
/// executor reads or runs: above all the configuration, which names the rest.
///
/// # Errors
///
/// Names the two.
pub fn refuse_overlapping(settings: &Settings, config: &Path) -> Result<(), StartRefusal> {
    let mut own = own_files(settings);
    // With its folder, where a link to it can be replaced.
    own.extend([config.to_owned(), folder_of(config)]);
    // Whoever may write what runs here is the executor.
    own.push(settings.compiler.clone());
    own.extend(std::env::current_exe());
    refuse_overlaps(&settings.files, &settings.state, &own)
}

/// What the executor touches, for the sandbox.
pub fn places(settings: &Settings) -> Places {
    let mut places = system_places(&settings.compiler);
    places.state.push(settings.state.clone());
    places.state.extend(settings.files.values().cloned());
    places.read.extend(own_files(settings));
    places
}

/// What the executor reads, and no guest may change.
fn own_files(settings: &Settings) -> Vec<PathBuf> {
    let mut read = vec![settings.trusted_root.clone()];
    // The folder, since a file that is replaced is another file.
    read.push(folder_of(&settings.policy));
    read.extend(settings.next_policy.as_ref().map(|next| folder_of(&next.file)));
    read.extend(settings.evidence_tls.files().map(Path::to_path_buf));
    read.extend(settings.import_signers.clone());
    read.extend(settings.event_keys.clone());
    read.extend(settings.anchor.iter().map(|(key, _)| key.clone()));
    read.extend(settings.import_file.as_deref().map(folder_of));
    if let Ok((_, Some(lifetime))) =
        trust_store_files::load_trusted_root_with_lifetime(&settings.trusted_root)
    {
        read.push(folder_of(lifetime.path()));
    }
    read.extend(settings.admin.token_file.clone());
    read.extend(settings.callers.iter().filter_map(|caller| caller.who.token_file.clone()));
    read.extend(settings.env.values().cloned());
    read.extend(settings.network.iter().flat_map(|network| network.tls.files()).map(Path::to_path_buf));
    read.extend(settings.telemetry.iter().flat_map(|telemetry| telemetry.tls.files()).map(Path::to_path_buf));
    if let Some(bucket) = &settings.media_bucket {
        read.push(bucket.credentials_file.clone());
        read.extend(bucket.tls.files().map(Path::to_path_buf));
    }
    if let Some(tls) = &settings.server.tls {
        read.extend([tls.certificate_file.clone(), tls.key_file.clone()]);
        read.extend(tls.client_ca_file.clone());
    }
    read
}

/// The folder that a file lies in; a bare name lies in the working directory.
pub(crate) fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The keys that carried evidence must be signed with.
fn import(settings: &Settings) -> Result<Option<ImportConfig>, StartRefusal> {
    let Some(file) = settings.import_file.clone() else { return Ok(None) };
    let mut signers = Vec::new();
    for path in settings.import_signers.iter().take(MAX_SIGNERS) {
        let error = |error: BoxError| {
            refuse("a key of evidence.import_signers cannot be used", "write a public key in PEM", error)
        };
        let bytes = trust_store_files::atomic::read(path, 64 << 10).map_err(|e| error(e.into()))?;
        let signer = EvidenceSigner::from_pem(&String::from_utf8_lossy(&bytes));
        signers.push(signer.map_err(|denial| error(format!("{}: {denial}", path.display()).into()))?);
    }
    Ok(Some(ImportConfig { file, signers }))
}

/// How the event log is authenticated, and who is believed in it.
fn event_log(settings: &Settings) -> Result<Option<EventLog>, StartRefusal> {
    let (Some(file), Some(url)) = (&settings.event_keys, &settings.evidence.events) else { return Ok(None) };
    let remedy = "get it with `mentatctl trust export`";
    let refuse = |error: BoxError| refuse("the keys of evidence.event_keys cannot be used", remedy, error);
    let bytes = trust_store_files::atomic::read(file, MAX_LOG_KEYS).map_err(|e| refuse(e.into()))?;
    let logs: LogSet = serde_json::from_slice(&bytes).map_err(|e| refuse(e.into()))?;
    let bare = |url: &str| url.trim_end_matches('/').to_owned();
    let log = logs.0.iter().find(|log| log.kind == "event" && bare(&log.url) == bare(url));
    let Some(log) = log.or_else(|| logs.of_kind("event")) else {
        return Err(refuse(format!("{} describes no event log", file.display()).into()));
    };
    let keys = log.verifier_keys().map_err(|e| refuse(e.into()))?;
    Ok(Some(EventLog { origin: log.origin.clone(), keys, rules: log.events.clone() }))
}

/// As [`start_with`], with the extensions of the configuration alone.
///
/// # Errors
///
/// The first thing that is missing or cannot be used.
pub async fn start(
    settings: Settings,
    confinement: Confinement,
    spawner: Option<std::io::Result<Spawner>>,
) -> Result<(Running, Arc<Executor>), StartRefusal> {
    start_with(settings, confinement, spawner, Vec::new()).await
}

/// Builds the executor and starts its listener. Beside the extensions of the configuration it offers `more`, which whoever builds
/// an executor of their own brings along.
///
/// # Errors
///
/// The first thing that is missing or cannot be used.
pub async fn start_with(
    mut settings: Settings,
    confinement: Confinement,
    spawner: Option<std::io::Result<Spawner>>,
    more: Vec<Arc<dyn HostExtension>>,
) -> Result<(Running, Arc<Executor>), StartRefusal> {
    for Exposed { secret, folder } in secrets_beside_policies(&settings) {
        tracing::warn!(
            secret = %secret.display(),
            folder = %folder.display(),
            "the folder of the policy holds a secret: the sandbox leaves all of it readable; give policies a folder of their own"
        );
    }
    let loopback = settings.server.validate()?.primary().address().ip().is_loopback();
    let access = Access::new(&settings.admin, &settings.callers, loopback)?;
    let (root, lifetime) = trust_store_files::load_trusted_root_with_lifetime(&settings.trusted_root)
        .map_err(|error| {
            let remedy = "get it with `mentatctl trust export`, or follow it with `mentatctl trust update`";
            refuse("the trusted root cannot be used", remedy, error)
        })?;
    settings.evidence.root = lifetime;
    // Lists about the authorities themselves are named by what is trusted, so they are followed from the start.
    settings.evidence.crl_urls.extend(lists_about_authorities(&root));
    settings.evidence.import = import(&settings)?;
    settings.evidence.event_log = event_log(&settings)?;
    let schedule = Schedule::open(settings.policy.clone(), settings.next_policy.clone(), &settings.state)?;
    let (in_force, remembered) = schedule.in_force(UnixTime(clock::unix_seconds()));
    remembered.map_err(|error| refuse("the state folder cannot be written", "check the disk", error))?;
    let rules = Rules::read(in_force)?;
    let extensions = extensions(&settings, more)?;
    let (verifier, admission) = admission(&settings, rules, &root, extensions)?;
    let collector = collector(&settings, verifier)?;
    let worker = Worker::new(settings.compiler.clone(), settings.compilers)
        .map_err(|error| refuse("the compile worker cannot be used", "install executor-compiler", error))?;
    let cache = ArtifactCache::open(&settings.state, worker, settings.cache_bytes).map_err(|error| {
        refuse(
            "the artifact cache cannot be opened",
            "check the disk and who owns state_dir; the cache may be removed",
            error,
        )
    })?;
    let receipts = Receipts::open(&settings.state)?;
    tracing::info!(origin = receipts.origin(), vkeys = ?receipts.verifier_keys(), "receipt log");
    let attested = receipts.attested().map_err(|denied| {
        refuse(
            "the receipt log cannot be read",
            "check the disk; see docs/operations/log-refusals.md",
            denied.operator,
        )
    })?;
    let audit = Audit::open(&settings.state, attested.as_ref()).map_err(|error| {
        let cut = matches!(&error, OpenError::File { source, .. } if source.kind() == ErrorKind::UnexpectedEof);
        let remedy = if cut {
            "it was cut, and removed records would not be noticed: keep it and audit.jsonl as evidence and start with a new folder"
        } else {
            "check the disk and who owns state_dir; nothing runs without the log"
        };
        refuse("the audit log cannot be opened", remedy, error)
    })?;
    let anchor = anchor(&settings)?;
    let runtime = Runtime::new(settings.profile, settings.pool)
        .map_err(|error| refuse("wasmtime cannot start", "see the reason", error))?;
    if runtime.pool_reduced() {
        tracing::warn!(
            slots = runtime.pool().slots,
            configured = settings.pool.slots,
            "the instance pool is smaller"
        );
    }
    if let Some(shortage) = runtime.memory_maps().shortage() {
        tracing::warn!(shortage, "guests may find no room in the address space of this process");
    }
    let trial = cache.self_test(runtime.engine(), runtime.profile()).await.map_err(|error| {
        refuse("the compile worker cannot be used", "install the worker of this build", error)
    })?;
    tracing::info!(enforced = ?confinement.enforced, missing = ?confinement.missing, "sandbox");
    for missing in confinement.lacking() {
        tracing::warn!(missing, "this host lacks a mechanism of the sandbox; the executor runs without it");
    }
    let tier = tier(spawner, &settings, trial).await;
    let admission = admission.with_workers(tier.missing());
    runtime.attach(tier);

    let metrics = Metrics::new(settings.metrics.clone());
    let parts = Parts {
        admission,
        collector,
        cache,
        runtime,
        audit,
        receipts,
        confinement,
        metrics: metrics.clone(),
        verdict_age: 2 * settings.refresh,
        schedule,
        withdrawal: settings.withdrawal,
        on_stale: settings.on_stale,
        calls_per_agent: settings.calls_per_agent,
        answers: settings.answers,
        tracer: tracer(&settings, &metrics)?,
    };
    let executor = Executor::new(parts, &settings.state)?;
    executor.started()?;
    tokio::spawn(Arc::clone(&executor).keep_judging());
    // A log or authority that is down must not keep the executor from starting: it starts and denies.
    if tokio::time::timeout(settings.evidence.timeout, executor.refresh()).await.is_err() {
        tracing::warn!("evidence could not be fetched in time; new modules are denied until it is");
    }
    // Whoever calls an agent of the last run right after the start finds it; compiling many again may take longer.
    let restoring = tokio::spawn({
        let executor = Arc::clone(&executor);
        async move { executor.restore().await }
    });
    if tokio::time::timeout(settings.evidence.timeout, restoring).await.is_err() {
        tracing::warn!("agents of the last run are still being judged");
    }
    tokio::spawn(Arc::clone(&executor).keep_fresh(settings.refresh));
    tokio::spawn(Arc::clone(&executor).keep_deploying());
    tokio::spawn(Arc::clone(&executor).keep_attesting());
    tokio::spawn(Arc::clone(&executor).keep_workers());
    tokio::spawn(Arc::clone(&executor).keep_clock(SystemClock));
    if let Some((anchor, interval)) = anchor {
        tokio::spawn(anchor.keep(executor.receipts().clone(), interval));
    }

    let mut server = settings.server;
    server.limits.body_bytes = server.limits.body_bytes.max(MAX_BODY);
    let registry = service::metrics::Metrics::new(http::ROUTES);
    registry.register(|registry| {
        metrics.register(registry);
        let gauges = Gauges { executor: Arc::clone(&executor), instances: settings.metrics.instances };
        registry.register_collector(Box::new(gauges));
    });
    let ready = Arc::clone(&executor);
    let running = Server::new(&server)?
        .route(http::routes(Arc::clone(&executor), access.clone()))
        .grpc(grpc::routes(Arc::clone(&executor), access))
        .metrics(registry)
        .methods(http::methods)
        .readiness(move || readiness(&ready))
        .start()
        .await?;
    Ok((running, executor))
}

/// Whether calls should be sent here.
pub(crate) fn readiness(executor: &Executor) -> Readiness {
    match executor.problems() {
        problems if problems.is_empty() => Readiness::Ready,
        problems => Readiness::NotReady(problems.join("; ")),
    }
}

/// The tier of signers that are not trusted. Where the host lacks what it needs, this executor runs without it and says so.
async fn tier(
    spawner: Option<std::io::Result<Spawner>>,
    settings: &Settings,
    trial: Arc<Sealed>,
) -> WorkerTier {
    let (Some(spawner), Some(limits)) = (spawner, settings.workers) else {
        return WorkerTier::switched_off();
    };
    let profile = settings.profile;
    let start = move || WorkerTier::start(spawner, profile, limits, trial);
    let tier = tokio::task::spawn_blocking(start).await;
    let tier = tier.unwrap_or_else(|error| WorkerTier::Absent(error.to_string()));
    match tier.missing() {
        None => {
            tracing::info!(enforced = ?ENFORCED, levels = "signed, community", "sandbox of worker processes");
            tracing::warn!(
                "worker processes have no cgroup of their own: limit memory and processes in the service manager"
            );
        }
        Some(why) => {
            tracing::warn!(why, "modules of the levels `signed` and `community` do not run on this host")
        }
    }
    tier
}

fn lists_about_authorities(root: &TrustedRoot) -> Vec<String> {
    let chains = root.certificate_authorities.iter().flat_map(|authority| authority.cert_chain.iter());
    let certificates = chains.filter_map(|der| Certificate::from_der(der).ok());
    certificates.flat_map(|certificate| distribution_urls(&certificate)).collect()
}

fn admission(
    settings: &Settings,
    rules: Rules,
    root: &TrustedRoot,
    extensions: Extensions,
) -> Result<(Verifier, Admission), StartRefusal> {
    let verifier = Verifier::new(Arc::new(AwsLc), root)
        .map_err(|error| {
            refuse("the trusted root cannot be used", "get it with `mentatctl trust export`", error)
        })?
        .with_cache(Arc::new(SignatureMemory::default()));
    let media = match settings.media {
        MediaSection::None => None,
        MediaSection::S3 => Some(Arc::new(bucket(settings)?)),
        MediaSection::LocalFiles => {
            let store = MediaStore::open(settings.state.join("media"), settings.media_limits)
                .map_err(|error| refuse("the media store cannot be opened", "check state_dir", error))?;
            Some(Arc::new(store))
        }
    };
    let network = match &settings.network {
        None => None,
        Some(network) => {
            let mut rules = network.rules.clone();
            rules.own = own_listeners(settings);
            let egress = Egress::new([network.tls.builder()?, network.tls.builder()?], rules)
                .map_err(|error| refuse("there is no way out for guests", "check [grants.network]", error))?;
            Some(Arc::new(egress))
        }
    };
    let files = settings.files.clone();
    let scratch = settings.limits.scratch > 0;
    let env = environment(&settings.env)?;
    let sources = GrantSources { env, media, network, files, extensions, scratch };
    let admission = Admission::new(verifier.clone(), rules, sources, settings.limits, settings.profile)
        .with_rollout(settings.rollout.clone());
    Ok((verifier, admission))
}

/// What guests may be granted by name.
fn extensions(settings: &Settings, more: Vec<Arc<dyn HostExtension>>) -> Result<Extensions, StartRefusal> {
    let mut extensions = Extensions::default();
    let key_value =
        settings.key_value.map(|limits| Arc::new(KeyValue::new(limits)) as Arc<dyn HostExtension>);
    for extension in key_value.into_iter().chain(more) {
        extensions
            .register(extension)
            .map_err(|error| refuse("an extension cannot be offered", "rename it, or leave it out", error))?;
    }
    for name in extensions.names() {
        tracing::info!(name, "extension");
    }
    Ok(extensions)
}

#[cfg(feature = "media-s3")]
fn bucket(settings: &Settings) -> Result<MediaStore, StartRefusal> {
    let Some(bucket) = &settings.media_bucket else { return Err(no_bucket()) };
    let bucket = crate::media::s3::S3::new(bucket)?;
    Ok(MediaStore::over(Box::new(bucket), settings.media_limits))
}

#[cfg(not(feature = "media-s3"))]
fn bucket(_: &Settings) -> Result<MediaStore, StartRefusal> {
    // The configuration was refused before: this build has no client for a bucket.
    Err(no_bucket())
}

fn no_bucket() -> StartRefusal {
    StartRefusal::new(
        "there is no bucket for media",
        "add the section [media.s3], in a build with `media-s3`",
    )
}

#[cfg(feature = "telemetry")]
fn tracer(settings: &Settings, metrics: &Metrics) -> Result<Option<Tracer>, StartRefusal> {
    let start = |telemetry| crate::telemetry::exporter::start(telemetry, metrics);
    settings.telemetry.as_ref().map(start).transpose()
}

#[cfg(not(feature = "telemetry"))]
fn tracer(_: &Settings, _: &Metrics) -> Result<Option<Tracer>, StartRefusal> {
    // A configured collector was refused before: this build exports nothing.
    Ok(None)
}

fn own_listeners(settings: &Settings) -> Vec<SocketAddr> {
    let listeners = [Some(&settings.server.listen), settings.server.read_only_listen.as_ref()];
    listeners.into_iter().flatten().filter_map(|listen| listen.parse().ok()).collect()
}

fn environment(files: &BTreeMap<String, PathBuf>) -> Result<BTreeMap<String, String>, StartRefusal> {
    let read = |path: &Path| {
        let bytes = service::secret::read_line(path, MAX_ENV)?;
        String::from_utf8(bytes.to_vec())
            .map_err(|_| StartRefusal::new(format!("{} is not UTF-8", path.display()), "write text into it"))
    };
    files.iter().map(|(name, path)| read(path).map(|value| (name.clone(), value))).collect()
}

fn collector(settings: &Settings, verifier: Verifier) -> Result<Collector, StartRefusal> {
    let client = settings.evidence_tls.client(settings.evidence.timeout)?;
    Collector::new(verifier, client, &settings.evidence)
        .map_err(|error| refuse("evidence cannot be collected", "check [evidence]", error))
}

/// What takes heads of the receipt log to the event log, and how often.
fn anchor(settings: &Settings) -> Result<Option<(Anchor, Duration)>, StartRefusal> {
    let (Some((key, interval)), Some(url)) = (&settings.anchor, &settings.evidence.events) else {
        return Ok(None);
    };
    let client = settings.evidence_tls.client(settings.evidence.timeout)?;
    let log = LogClient::new(client, url).map_err(|error| {
        refuse("the event log cannot be told of receipts", "check evidence.events", error)
    })?;
    Ok(Some((Anchor::new(log, key, &settings.state)?, *interval)))
}

fn refuse(what: &str, remedy: &str, error: impl Into<BoxError>) -> StartRefusal {
    StartRefusal::new(what, remedy).because(error)
}
