//! The life of the server process, from its configuration to its last record.
//!
//! All of it is here and not in the program's own file: what is awaited there would be compiled a second time for it.

use std::path::Path;

use service::exit::Failure;
use service::logging::{self, Format};
use service::{ready, shutdown};

use crate::config::{ExecutorConfig, Settings};
use crate::queue::BLOCKING_THREADS;
use crate::worker::Spawner;
use crate::{confinement, start};

/// Reads a configuration and checks it. Nothing is started or written.
///
/// # Errors
///
/// The first value that cannot be used.
pub fn settings(config: &Path) -> Result<Settings, Failure> {
    let base = config.parent().map(Path::to_owned).unwrap_or_default();
    Ok(ExecutorConfig::read(config)?.validate(&base)?)
}

/// Checks a configuration as far as that can be done with nothing started or written.
///
/// # Errors
///
/// What would keep an executor with this configuration from starting.
pub fn check(config: &Path) -> Result<(), Failure> {
    Ok(start::refuse_overlapping(&settings(config)?)?)
}

/// Serves until a signal, or until standard input ends where that is asked for.
///
/// # Errors
///
/// What keeps it from starting.
pub fn serve(config: &Path, exit_with_stdin: bool, format: Format) -> Result<(), Failure> {
    logging::init(format, "info")?;
    let settings = settings(config)?;
    start::make_folders(&settings)?;
    // Workers are made of what is closed next. Their start is no condition of this process's own.
    let spawner = settings.workers.is_some().then(Spawner::start);
    // Before the first further thread: what is closed here is closed for all of them.
    let confinement = confinement::close(&start::places(&settings))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    runtime.block_on(async {
        let (running, executor) = start::start(settings, confinement, spawner).await?;
        ready::announce(&running)?;
        shutdown::signal(exit_with_stdin).await;
        executor.shut_down();
        running.stop().await;
        // The process must not end before what was recorded is on disk.
        executor.close().await;
        Ok(())
    })
}
