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
    Ok(start::refuse_overlapping(&settings(config)?, config)?)
}

/// Serves until a signal, or until standard input ends where that is asked for.
///
/// # Errors
///
/// What keeps it from starting.
pub fn serve(config: &Path, exit_with_stdin: bool, format: Format) -> Result<(), Failure> {
    logging::init(format, "info")?;
    let settings = settings(config)?;
    start::make_folders(&settings, config)?;
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
        let stopped = shutdown::signal(exit_with_stdin);
        ready::announce(&running)?;
        stopped.await;
        executor.shut_down();
        running.stop().await;
        // The process must not end before what was recorded is on disk.
        executor.close().await;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_get_no_directory_that_the_configuration_lies_in() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        for name in ["etc", "data"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        let told = |config: &str, mapped: &str| {
            let root = folder.display();
            let text = format!(
                "state_dir = '{root}/state'\ntrusted_root = '{root}/root.json'\npolicy = '{root}/policy/policy.yaml'\n\
                 compiler = '{root}/compiler'\n[grants.files]\n\"/data\" = '{root}/{mapped}'\n"
            );
            std::fs::write(folder.join(config), text).unwrap();
            check(&folder.join(config)).map_err(|failure| failure.to_string())
        };
        assert_eq!(told("etc/executor.toml", "data"), Ok(()));
        // Also where a link is all that lies there: whoever replaces it chooses the next configuration.
        std::os::unix::fs::symlink("../etc/executor.toml", folder.join("data/executor.toml")).unwrap();
        for (config, mapped) in [("etc/executor.toml", "etc"), ("data/executor.toml", "data")] {
            let refused = told(config, mapped).unwrap_err();
            assert!(refused.contains("overlaps with"), "{refused}");
        }
    }
}
