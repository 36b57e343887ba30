//! A real stack: `mentatctl up` with the binaries of this build, and an executor of this process that joins it.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use executor::config::ExecutorConfig;
use executor::confinement::Confinement;
use executor::executor::{Executor, Terms};

use crate::guests::Guests;

/// A running stack in a temporary folder.
pub(crate) struct Stack {
    child: Child,
    folder: tempfile::TempDir,
}

/// An executor in this process, serving nobody.
pub(crate) struct InProcess {
    pub(crate) executor: Arc<Executor>,
    _running: service::Running,
}

/// A binary beside the executor's.
pub(crate) fn binary(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_executor")).with_file_name(name);
    assert!(path.is_file(), "{} is missing: use `make bench-exec`, which builds it", path.display());
    path
}

impl Stack {
    pub(crate) fn up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(binary("mentatctl"))
            .args(["up", "--json", "--exit-with-stdin", "--dir"])
            .arg(folder.path().join("stack"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).any(|line| line.contains("\"ready\":true"));
        assert!(ready, "the stack did not start");
        let stack = Self { child, folder };
        std::fs::create_dir_all(stack.home()).unwrap();
        let token = stack.ctl(&["pki", "token", "create", "--email", "bench@example.com"]);
        stack.ctl(&["pki", "request-cert", "--email", "bench@example.com", "--token", token.trim()]);
        stack
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// A member of `stack.json`.
    pub(crate) fn json(&self, pointer: &str) -> String {
        let text = std::fs::read(self.folder.path().join("stack/stack.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        json.pointer(pointer).and_then(|value| value.as_str()).unwrap().to_owned()
    }

    /// The token of the administrator, whom the stack's executor knows.
    pub(crate) fn admin_token(&self) -> String {
        let file = self.folder.path().join("stack/secrets/admin.token");
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    }

    /// Runs `mentatctl` and returns what it printed.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let output = Command::new(binary("mentatctl"))
            .env("MENTAT_HOME", self.home())
            .arg("--stack")
            .arg(self.folder.path().join("stack"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// An executor of this process with the stack's trust and policy and a state folder of its own, with every guest
    /// loaded.
    pub(crate) async fn executor_in_process(&self, guests: &Guests) -> InProcess {
        let file =
            find(&self.folder.path().join("stack"), "executor.toml").expect("the executor's configuration");
        let mut config = ExecutorConfig::read(&file).unwrap();
        config.state_dir = self.folder.path().join("in-process");
        config.compiler = Some(binary("executor-compiler"));
        config.server.listen = "127.0.0.1:0".into();
        config.pool.slots = 10_000;
        (config.limits.cpu_ms, config.limits.wall_ms) = (600_000, 600_000);
        let settings = config.validate(file.parent().unwrap()).unwrap();
        executor::start::make_folders(&settings, &file).unwrap();
        let (running, executor) =
            executor::start::start(settings, Confinement::default(), None).await.unwrap();
        let all = [
            &guests.core,
            &guests.component,
            &guests.echo,
            &guests.host_calls,
            &guests.component_host_calls,
            &guests.compute,
            &guests.spin,
            &guests.wasi,
            &guests.releases[0],
        ];
        for guest in all.into_iter().chain(&guests.hostile).chain(&guests.revoked).chain(&guests.pipelines) {
            executor
                .load(&Terms::default().caller, &guest.manifest, None, guest.module.clone().into())
                .await
                .unwrap();
        }
        InProcess { executor, _running: running }
    }
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let here = entries.iter().find(|path| path.file_name().is_some_and(|file| file == name)).cloned();
    here.or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name)))
}

impl Drop for Stack {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
