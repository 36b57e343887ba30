//! Opens the logs and serves them until asked to stop.

use std::sync::Arc;

use hsm::software::Keystore;
use log_store::{Log, LogKind, LogParts, OsDisk};
use service::admin::{AdminAuth, AdminConfig};
use service::metrics::Metrics;
use service::{Failure, Readiness, Server, StartRefusal, ready, shutdown};

use crate::admission::Admission;
use crate::api::{self, State};
use crate::clock::LogClock;
use crate::config::{LogSettings, Settings};
use crate::init::read_passphrase;
use crate::issuers::Issuers;
use crate::keys;
use crate::logs::{ServedLog, options};
use crate::metrics::LogCollector;

/// Serves until a signal (or the end of stdin, when asked), then publishes what is committed and closes the logs.
///
/// # Errors
/// [`Failure`] with its exit code.
pub async fn serve(settings: Settings, exit_with_stdin: bool) -> Result<(), Failure> {
    let server = Server::new(&settings.server)?;
    let mut logs = open_logs(&settings)?;
    logs.sort_by_key(|log| std::cmp::Reverse(log.base.len()));
    let state = Arc::new(State { logs: logs.clone(), public_url: settings.public_url.clone() });

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
    ready::announce(&running)?;
    let reason = running.run_until(shutdown::signal(exit_with_stdin)).await;
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
        if log.log.publication().is_none() {
            return Readiness::NotReady(format!("log {:?} has no published checkpoint", log.settings.name));
        }
    }
    Readiness::Ready
}

fn open_logs(settings: &Settings) -> Result<Vec<Arc<ServedLog>>, StartRefusal> {
    let passphrase = read_passphrase(settings)?;
    let keystore = Keystore::open(&settings.keystore, &passphrase).map_err(|error| {
        StartRefusal::new(
            format!("cannot open the keystore {}", settings.keystore.display()),
            "run `transparency-log init`, or check keystore.directory and keystore.passphrase",
        )
        .because(error)
    })?;
    settings.logs.iter().map(|log| open_log(settings, log, &keystore).map(Arc::new)).collect()
}

fn open_log(settings: &Settings, log: &LogSettings, keystore: &Keystore) -> Result<ServedLog, StartRefusal> {
    let admission = Admission::load(log)?;
    let keys = keys::open(keystore, log)?;
    let options = options(settings, log, keys.origin());
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
        cosigner: None,
    };
    let opened = Log::open(&options, parts).map_err(|error| refusal(log, error))?;
    Ok(ServedLog {
        kind: log.kind,
        base: log.base.clone(),
        log: opened,
        keys,
        admission,
        add_token,
        issuers,
        lookup: None,
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
