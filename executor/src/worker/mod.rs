//! The tier of signers that are not trusted: their modules run in worker processes, one for each signer.
//!
//! ```text
//! executor ──spawner──▶ holder ──namespaces──▶ worker     (the same program, hidden subcommands)
//!     │                                          │
//!     ├── control: begin, load ◀──▶ ready, loaded│
//!     ├── stops:   end this call ───────────────▶│
//!     └── lanes:   call, answers ◀──▶ questions, │ one conversation each
//!                                     the end    │
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `account` | what a worker uses, and what it may have used |
//! | `channel` | frames over a socket pair |
//! | `confine` | what a worker gives up |
//! | `holder` | the processes between the executor and a worker |
//! | `serve`, `stops` | a worker's life, and what ends its calls |
//! | `door` | a guest's questions, in the worker |
//! | `spawner`, `birth`, `process`, `workers` | workers, as the executor sees them |
//! | `remote`, `talk` | a call, as the executor sees it |
//!
//! The executor believes a worker in nothing (docs/adr/0036-workers-by-signer.md): what leaves the guest's sandbox is asked
//! for, digests and times are taken on this side, and a worker that says what no worker says is ended.

mod account;
mod birth;
mod channel;
mod confine;
mod door;
#[cfg(test)]
mod ended_tests;
mod holder;
mod limits;
#[cfg(test)]
mod lines_tests;
mod process;
mod remote;
#[cfg(all(test, feature = "scratch-files"))]
mod scratch_tests;
mod serve;
mod spawner;
mod stops;
mod talk;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tier_tests;
mod verdict;
mod workers;

use executor_engine::Profile;

pub(crate) use confine::ENFORCED;
pub(crate) use door::Door;
pub(crate) use holder::inherit_nothing;
pub(crate) use remote::RemoteModule;
pub use spawner::Spawner;
pub(crate) use talk::OBEY_AT_LATEST;
pub(crate) use workers::WorkerEvent;
pub use workers::{WorkerLimits, Workers};

use crate::artifact_map::Sealed;

/// Hidden subcommand of the process that starts holders.
pub const SPAWNER: &str = "worker-spawner";
/// Hidden subcommand of the process around one worker.
pub const HOLDER: &str = "worker-holder";
/// Hidden subcommand of a worker.
pub const WORKER: &str = "worker";

/// The life of such a process, if `subcommand` is one: its exit code.
pub fn process(subcommand: &str) -> Option<u8> {
    match subcommand {
        SPAWNER => Some(holder::spawn_for_the_executor()),
        HOLDER => Some(holder::hold()),
        WORKER => Some(serve::serve()),
        _ => None,
    }
}

#[cfg(test)]
impl Workers {
    /// Whether a call of this signer is on its lane.
    pub(crate) fn carries(&self, signer: &crate::admission::SignerKey) -> bool {
        self.process_of(signer).is_some_and(|process| process.is_busy())
    }
}

/// Whether modules of the levels `signed` and `community` can run here.
#[derive(Clone)]
pub enum WorkerTier {
    /// They run in these.
    Running(std::sync::Arc<Workers>),
    /// They do not run. Why, and what to do.
    Absent(String),
}

impl WorkerTier {
    /// Starts the tier, if the host has what it needs. `code` is mapped on trial. Blocks.
    pub(crate) fn start(
        spawner: std::io::Result<Spawner>,
        profile: Profile,
        limits: WorkerLimits,
        code: std::sync::Arc<Sealed>,
    ) -> Self {
        let workers = spawner
            .map_err(|error| format!("the process that starts workers cannot be started: {error}"))
            .and_then(|spawner| Workers::open(spawner, profile, limits, code));
        match workers {
            Ok(workers) => Self::Running(workers),
            Err(why) => Self::Absent(why),
        }
    }

    /// The tier of an executor whose operator wants none.
    pub fn switched_off() -> Self {
        Self::Absent("switched off by `workers.processes = 0`".into())
    }

    /// Why it is absent, if it is, or was given up while it ran.
    pub fn missing(&self) -> Option<&str> {
        self.workers().err()
    }

    /// The workers, or why there are none.
    pub(crate) fn workers(&self) -> Result<&std::sync::Arc<Workers>, &str> {
        match self {
            Self::Running(workers) => workers.given_up().map_or(Ok(workers), Err),
            Self::Absent(why) => Err(why),
        }
    }

    /// Why it no longer runs, if it did.
    pub(crate) fn given_up(&self) -> Option<&str> {
        match self {
            Self::Running(workers) => workers.given_up(),
            Self::Absent(_) => None,
        }
    }
}
