//! Opens the logs and serves them until asked to stop.

use std::sync::Arc;
use std::time::Duration;

use hsm::software::Keystore;
use log_store::{Cosigner, Log, LogKind, LogParts, OsDisk};
use service::admin::{AdminAuth, AdminConfig};
use service::metrics::Metrics;
use service::{Failure, Readiness, Server, StartRefusal, ready, shutdown};

use tokio::runtime::Handle;

use crate::admission::Admission;
use crate::api::{self, BatchRoom, BundleBytes, Sharing, State, Transport, batch_turns};
use crate::clock::LogClock;
use crate::init::read_passphrase;
use crate::issuers::Issuers;
use crate::keys;
use crate::logs::{ServedLog, options};
use crate::lookup::{self, Lookup};
use crate::metrics::LogCollector;
use crate::settings::{LogSettings, Settings};
use crate::witness_client::WitnessClient;

/// Serves until a signal (or the end of stdin, when asked), then publishes what is committed and closes the logs.
///
/// # Errors
/// [`Failure`] with its exit code.
pub async fn serve(settings: Settings, exit_with_stdin: bool) -> Result<(), Failure> {
    let server = Server::new(&settings.server)?;
    let opening = settings.clone();
    let runtime = tokio::runtime::Handle::current();
    // Opening reads files, and publishes through blocking calls.
    let mut logs = tokio::task::spawn_blocking(move || open_logs(&opening, &runtime))
        .await
        .map_err(Failure::failed)??;
    logs.sort_by_key(|log| std::cmp::Reverse(log.base.len()));
    for log in &logs {
        tokio::spawn(Lookup::follow(log.clone()));
    }
    let transport = if settings.server.tls.is_some() { Transport::Tls } else { Transport::Plain };
    let state = Arc::new(State { logs: logs.clone(), public_url: settings.public_url.clone(), transport });

    let metrics = Metrics::new(&[
        "/api/v2/log/entries",
        "/raw/add",
        "/issuance/ct",
        "/event/api",
        "/tile",
        "/checkpoint",
    ]);
    let collected = logs.clone();
    metrics.register(|registry| registry.register_collector(Box::new(LogCollector(collected))));
    let watched = logs.clone();
    let running = server
        .metrics(metrics)
        .readiness(move || readiness(&watched))
        .service(tower::service_fn(move |request| api::answer(state.clone(), request)))
        .start()
        .await?;
    let stopped = shutdown::signal(exit_with_stdin);
    ready::announce(&running)?;
    let reason = running.run_until(stopped).await;
    tracing::info!(?reason, "stopping");
    tokio::task::spawn_blocking(move || logs.iter().for_each(|log| log.log.close()))
        .await
        .map_err(Failure::failed)
}

fn readiness(logs: &[Arc<ServedLog>]) -> Readiness {
    for log in logs {
        if let Some(cause) = log.log.failure() {
            return Readiness::NotReady(format!("log {:?} has stopped: {cause}", log.settings.name));
        }
        if log.log.is_full() {
            return Readiness::NotReady(format!(
                "the disk of log {:?} is full; free space on it",
                log.settings.name
            ));
        }
        if log.log.publication().is_none() {
            return Readiness::NotReady(format!("log {:?} has no published checkpoint", log.settings.name));
        }
    }
    Readiness::Ready
}

fn open_logs(settings: &Settings, runtime: &Handle) -> Result<Vec<Arc<ServedLog>>, StartRefusal> {
    let keystore = open_keystore(settings)?;
    settings.logs.iter().map(|log| open_log(settings, log, &keystore, runtime).map(Arc::new)).collect()
}

/// Opens the keystore that `init` made.
pub(crate) fn open_keystore(settings: &Settings) -> Result<Keystore, StartRefusal> {
    let passphrase = read_passphrase(&settings.passphrase)?;
    Keystore::open(&settings.keystore, &passphrase).map_err(|error| {
        StartRefusal::new(
            format!("cannot open the keystore {}", settings.keystore.display()),
            "run `transparency-log init`, or check keystore.directory and keystore.passphrase",
        )
        .because(error)
    })
}

fn open_log(
    settings: &Settings,
    log: &LogSettings,
    keystore: &Keystore,
    runtime: &Handle,
) -> Result<ServedLog, StartRefusal> {
    let admission = Admission::load(log)?;
    let keys = keys::open(keystore, log)?;
    let mut options = options(settings, log, keys.origin());
    options.seen.extend(lookup::seen(&lookup::path(settings, &log.name), runtime)?);
    let add_token = match &log.raw.add_token_file {
        Some(file) => {
            Some(AdminAuth::new(&AdminConfig { token_file: Some(file.clone()), subjects: Vec::new() })?)
        }
        None => None,
    };
    let issuers = match log.kind {
        LogKind::Issuance => {
            let directory = options.directory.join("issuer");
            Some(Issuers::open(&directory).map_err(|error| {
                StartRefusal::new(format!("cannot use {}", directory.display()), "check its permissions")
                    .because(error)
            })?)
        }
        _ => None,
    };
    let parts = LogParts {
        disk: Arc::new(OsDisk),
        clock: Arc::new(LogClock),
        signer: Arc::new(keys.clone()),
        cosigner: match &log.raw.witness_policy {
            Some(file) => {
                let timeout = Duration::from_secs(log.raw.witness_timeout_seconds);
                WitnessClient::load(file, &keys, timeout, &settings.witness_tls)?
                    .map(|client| client as Arc<dyn Cosigner>)
            }
            None => None,
        },
    };
    let sharing = if log.raw.writers.is_none() { Sharing::PerAddress } else { Sharing::Writers };
    let opened = Log::open(&options, parts).map_err(|error| refusal(log, error))?;
    Ok(ServedLog {
        kind: log.kind,
        base: log.base.clone(),
        log: opened,
        keys,
        admission,
        add_token,
        room: BatchRoom::new(sharing),
        batches: batch_turns(sharing),
        bundle_bytes: BundleBytes::default(),
        issuers,
        lookup: match log.kind {
            // Raw entries say nothing to search for, and must not cost anything.
            LogKind::Raw => None,
            _ => Some(runtime.block_on(Lookup::open(&lookup::path(settings, &log.name)))?),
        },
        settings: log.clone(),
    })
}

/// A refusal of the storage layer already names the file and the repair.
fn refusal(log: &LogSettings, error: log_store::Error) -> StartRefusal {
    StartRefusal::new(
        format!("log {:?} does not start", log.name),
        "see the runbook, docs/operations/log-refusals.md",
    )
    .because(error)
}
