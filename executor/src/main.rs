//! `executor serve --config FILE`: the server process.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use executor::config::ExecutorConfig;
use executor::worker::{self, Spawner};
use executor::{confinement, start};
use service::exit::{Failure, arguments, finish};
use service::logging::{self, Format};
use service::{ready, shutdown};

/// Runs WebAssembly modules that were signed, logged and not revoked; nothing else.
#[derive(Parser)]
#[command(name = "executor", version = executor::features::version())]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until a signal.
    Serve {
        /// The configuration, see docs/operations/executor.toml.
        #[arg(long)]
        config: PathBuf,
        /// Stop when standard input ends: for a parent process.
        #[arg(long)]
        exit_with_stdin: bool,
        /// `text` or `json`.
        #[arg(long, default_value = "text")]
        log_format: Format,
    },
    /// Starts holders for `serve`.
    #[command(name = worker::SPAWNER, hide = true)]
    WorkerSpawner,
    /// Starts one worker in namespaces of its own.
    #[command(name = worker::HOLDER, hide = true)]
    WorkerHolder,
    /// Runs guests of one signer.
    #[command(name = worker::WORKER, hide = true)]
    Worker,
    /// Check the configuration and say what would be used; nothing is started or written.
    Check {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = match arguments::<Arguments>() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match arguments.command {
        Command::Serve { config, exit_with_stdin, log_format } => {
            finish(serve(&config, exit_with_stdin, log_format))
        }
        Command::Check { config } => finish(read(&config).map(drop)),
        Command::WorkerSpawner => life_of(worker::SPAWNER),
        Command::WorkerHolder => life_of(worker::HOLDER),
        Command::Worker => life_of(worker::WORKER),
    }
}

/// These processes say what they have to say on the socket they were given.
fn life_of(process: &str) -> ExitCode {
    worker::process(process).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn read(path: &std::path::Path) -> Result<executor::config::Settings, Failure> {
    let base = path.parent().map(std::path::Path::to_owned).unwrap_or_default();
    Ok(ExecutorConfig::read(path)?.validate(&base)?)
}

fn serve(config: &std::path::Path, exit_with_stdin: bool, format: Format) -> Result<(), Failure> {
    logging::init(format, "info")?;
    let settings = read(config)?;
    start::make_folders(&settings)?;
    // Workers are made of what is closed next. Their start is no condition of this process's own.
    let spawner = settings.workers.is_some().then(Spawner::start);
    // Before the first further thread: what is closed here is closed for all of them.
    let confinement = confinement::close(&start::places(&settings))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(executor::BLOCKING_THREADS)
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
