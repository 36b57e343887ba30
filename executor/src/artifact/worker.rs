//! The parent's side of the compile worker.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use executor_engine::job::{JobHeader, ModuleKind, RefusalCode, Reply};
use executor_engine::limits::MAX_ARTIFACT_BYTES;
use executor_engine::{ModuleDigest, Profile};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::compile_queue::{CompileQueue, Full, MAX_WAITING};
use crate::admission::SignerKey;
use crate::worker::inherit_nothing;

/// Starts one worker process for each module.
#[derive(Debug)]
pub struct Worker {
    binary: PathBuf,
    queue: CompileQueue<Option<SignerKey>>,
}

/// What a worker made.
#[derive(Debug)]
pub(crate) struct Artifact {
    pub(crate) target: String,
    pub(crate) compatibility: [u8; 32],
    pub(crate) code: Vec<u8>,
}

/// Why there is no artifact.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The worker ended without an answer: it used up its time or memory, or did what its sandbox forbids.
    #[error("compiling used more than it may: {detail}")]
    Budget {
        /// How it ended.
        detail: String,
    },
    /// As many modules of its signer wait for a compiler as may.
    #[error("{MAX_WAITING} modules of this signer wait to be compiled; retry later")]
    QueueFull,
    /// The worker refused the module.
    #[error("the module was refused: {detail}")]
    Refused {
        /// The worker's code.
        code: RefusalCode,
        /// For the operator: section and offset where they are known.
        detail: String,
    },
    /// The worker cannot be started or its answer cannot be read.
    #[error("the compile worker is not available: {detail}")]
    Unavailable {
        /// What to do.
        detail: String,
    },
}

impl WorkerError {
    /// The stable reason code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Budget { .. } => "compile_budget",
            Self::QueueFull => "compile_queue_full",
            Self::Refused { code, .. } => code.as_str(),
            Self::Unavailable { .. } => "compiler_unavailable",
        }
    }

    /// How long the same bytes need not be tried again.
    pub(crate) const fn memory(&self) -> Memory {
        match self {
            // A busy machine or a lack of memory ends a worker in the same way as a module that is too much for it.
            Self::Budget { .. } => Memory::For(BUDGET_MEMORY),
            Self::QueueFull
            | Self::Refused { code: RefusalCode::Internal, .. }
            | Self::Unavailable { .. } => Memory::None,
            Self::Refused { .. } => Memory::Always,
        }
    }
}

/// How long a refusal is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    Always,
    For(Duration),
    None,
}

/// How long a module that used up its budget is refused without another try: what a hostile one costs is one worker's
/// time in ten minutes.
const BUDGET_MEMORY: Duration = Duration::from_secs(600);

/// Wall time after which a worker is killed: its processor-time limit and room for a busy machine.
const fn wall(profile: Profile) -> Duration {
    Duration::from_secs(2 * profile.compile_cpu_seconds())
}

impl Worker {
    /// Uses the worker at `binary`; at most `parallel` run at once.
    ///
    /// # Errors
    ///
    /// When there is no executable file.
    pub fn new(binary: PathBuf, parallel: usize) -> Result<Self, WorkerError> {
        let meta = std::fs::metadata(&binary);
        if !meta.is_ok_and(|meta| meta.is_file()) {
            return Err(WorkerError::Unavailable {
                detail: format!(
                    "{} does not exist: run `cargo build -p executor-compiler`",
                    binary.display()
                ),
            });
        }
        // What this process was started with beside its standard streams is for no compiler; one that finds it does not begin.
        inherit_nothing();
        Ok(Self { binary, queue: CompileQueue::new(parallel) })
    }

    /// Where the worker is.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Asks the worker to do what its sandbox forbids. It must not live to say that it could.
    pub(crate) async fn self_test(&self) -> Result<(), WorkerError> {
        for act in ["abort", "connect", "exec", "open", "signal", "stat", "thread"] {
            let ended = Command::new(&self.binary)
                .args(["probe", act])
                .env_clear()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .status()
                .await
                .map_err(|error| WorkerError::Unavailable {
                    detail: format!("{}: {error}", self.binary.display()),
                })?;
            use std::os::unix::process::ExitStatusExt as _;
            if ended.signal() != Some(libc::SIGSYS) {
                let detail = format!("its sandbox did not stop it from `{act}` ({ended})");
                return Err(WorkerError::Unavailable { detail });
            }
        }
        Ok(())
    }

    /// Compiles one module of a signer, or the executor's own, in a process of its own.
    pub(crate) async fn compile(
        &self,
        signer: Option<&SignerKey>,
        profile: Profile,
        kind: ModuleKind,
        digest: ModuleDigest,
        module: &[u8],
    ) -> Result<Artifact, WorkerError> {
        let unavailable = |detail: String| WorkerError::Unavailable { detail };
        let _turn = self.queue.enter(&signer.cloned()).await.map_err(|Full| WorkerError::QueueFull)?;
        let mut child = Command::new(&self.binary)
            .args((profile == Profile::Large).then_some("large"))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| unavailable(format!("{}: {error}", self.binary.display())))?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(unavailable("no pipes".into()));
        };
        let header = JobHeader { profile, kind, digest, length: module.len() as u64 }.encode();
        let send = async move {
            // A worker that refuses early closes its end; its reply says why.
            let _ = stdin.write_all(&header).await;
            let _ = stdin.write_all(module).await;
            let _ = stdin.shutdown().await;
        };
        let mut answer = Vec::new();
        let mut complaint = Vec::new();
        let mut limited = stdout.take(MAX_ARTIFACT_BYTES as u64 + 16 * 1024);
        let mut limited_complaint = stderr.take(4096);
        let talk = async {
            tokio::join!(
                send,
                limited.read_to_end(&mut answer),
                limited_complaint.read_to_end(&mut complaint)
            )
        };
        let wall = wall(profile);
        let Ok((_, received, _)) = tokio::time::timeout(wall, talk).await else {
            let _ = child.kill().await;
            return Err(WorkerError::Budget { detail: format!("no answer within {} s", wall.as_secs()) });
        };
        received.map_err(|error| unavailable(error.to_string()))?;
        let status = match tokio::time::timeout(Duration::from_secs(5), child.wait()).await {
            Ok(status) => status.map_err(|error| unavailable(error.to_string()))?,
            Err(_) => {
                let _ = child.kill().await;
                return Err(WorkerError::Budget { detail: "the worker did not exit".into() });
            }
        };
        if !status.success() {
            return Err(ended_badly(status, &complaint));
        }
        match Reply::decode(&answer) {
            Ok(Reply::Compiled { target, compatibility, artifact }) => {
                Ok(Artifact { target: target.to_owned(), compatibility, code: artifact.to_vec() })
            }
            Ok(Reply::Refused { code, detail }) => {
                Err(WorkerError::Refused { code, detail: detail.to_owned() })
            }
            Err(error) => Err(unavailable(format!("unreadable answer: {error}"))),
        }
    }
}

fn ended_badly(status: ExitStatus, complaint: &[u8]) -> WorkerError {
    use std::os::unix::process::ExitStatusExt as _;
    let said = String::from_utf8_lossy(complaint);
    let said = said.lines().next().unwrap_or_default().escape_default();
    match (status.signal(), status.code()) {
        (Some(signal), _) => WorkerError::Budget { detail: format!("ended by signal {signal}: {said}") },
        // 70: the sandbox could not be closed. Nothing was compiled and the host is at fault.
        (_, Some(70)) => WorkerError::Unavailable { detail: said.to_string() },
        _ => WorkerError::Budget { detail: format!("{status}: {said}") },
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;
    use trust_store::policy::TrustLevel;

    use super::*;

    #[tokio::test]
    async fn a_signer_who_loads_without_end_is_refused_and_another_one_is_compiled_next() {
        let worker = Worker::new(crate::testing::worker_binary(), 1).unwrap();
        let [many, one] = ["many@example.org", "one@example.org"]
            .map(|subject| Some(SignerKey::for_test(subject, TrustLevel::Signed)));
        let module = b"\0asm\x01\0\0\0";
        let compiled = |signer| {
            let digest = ModuleDigest::of(module);
            worker.compile(Option::as_ref(signer), Profile::Standard, ModuleKind::Core, digest, module)
        };
        let held = worker.queue.enter(&many).await.unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(worker.queue.enter(&many))).collect();
        for one in &mut waiting {
            assert!(poll!(one.as_mut()).is_pending());
        }
        let full = compiled(&many).await.unwrap_err();
        assert_eq!((full.code(), full.memory()), ("compile_queue_full", Memory::None));
        let mut other = pin!(compiled(&one));
        assert!(poll!(other.as_mut()).is_pending());
        // The first of the long line has its turn, and then the other signer.
        drop(held);
        let first = waiting.remove(0).await.unwrap();
        assert!(poll!(other.as_mut()).is_pending());
        drop(first);
        assert!(!other.await.unwrap().code.is_empty());
    }
}
