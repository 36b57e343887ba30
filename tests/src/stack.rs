//! A running `mentatctl up` with everything `stack.json` says about it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::binary::binary;
use crate::clock::Deadline;
use crate::command::{Finished, mentatctl, mentatctl_with_input};
use crate::server::Server;

/// A persistent stack below one folder, running.
pub struct Stack {
    server: Option<Server>,
    dir: PathBuf,
    home: PathBuf,
    /// The contents of `stack.json`.
    pub json: Value,
}

impl Stack {
    /// Starts (and at the first start creates) the stack in `dir`, with ports chosen by the system.
    pub fn up(dir: &Path) -> Self {
        Self::up_with(dir, &[])
    }

    /// The same with further arguments of `mentatctl up`, for this start alone.
    pub fn up_with(dir: &Path, arguments: &[&str]) -> Self {
        let mut command = up_command(dir);
        command.args(arguments);
        let server = Server::start(command);
        let json = read_json(&dir.join("stack.json"));
        let home = dir.join("home");
        std::fs::create_dir_all(&home).expect("a folder for mentatctl's defaults");
        Self { server: Some(server), dir: dir.to_owned(), home, json }
    }

    /// The stack's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder that stands for `~/.mentat`.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A text member of `stack.json` by its path.
    ///
    /// # Panics
    ///
    /// When it is absent.
    #[track_caller]
    pub fn text(&self, pointer: &str) -> String {
        self.json
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("stack.json has no {pointer}: {}", self.json))
            .to_owned()
    }

    /// What the executor answers to its administrator below `path`.
    ///
    /// # Panics
    ///
    /// When it is no JSON.
    pub fn executor(&self, path: &str) -> Value {
        serde_json::from_str(&self.executor_text(path)).expect("JSON")
    }

    /// The same as text.
    ///
    /// # Panics
    ///
    /// When there is no answer, or none that can be read.
    pub fn executor_text(&self, path: &str) -> String {
        let url = format!("{}{path}", self.text("/executor/url"));
        let token = std::fs::read_to_string(self.dir.join("secrets/admin.token")).expect("the token");
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
        tokio.block_on(async {
            let request = reqwest::Client::new().get(url).bearer_auth(token.trim());
            request.send().await.expect("an answer").text().await.expect("the whole answer")
        })
    }

    /// Runs `mentatctl --stack DIR ARGS`.
    pub fn ctl(&self, args: &[&str]) -> Finished {
        self.ctl_with_input(args, b"")
    }

    /// The same, with bytes on standard input.
    pub fn ctl_with_input(&self, args: &[&str], input: &[u8]) -> Finished {
        let dir = self.dir.to_str().expect("a readable path");
        let mut all = vec!["--stack", dir];
        all.extend_from_slice(args);
        if input.is_empty() {
            mentatctl(&self.home, all)
        } else {
            mentatctl_with_input(&self.home, all, input)
        }
    }

    /// The process id of one of the three servers, from the line that said the stack is ready.
    ///
    /// # Panics
    ///
    /// When the stack is stopped or the name is unknown.
    pub fn pid(&self, server: &str) -> u32 {
        let ready = &self.server.as_ref().expect("running").ready;
        let pid = ready["pids"][server].as_u64().unwrap_or_else(|| panic!("no pid of {server} in {ready}"));
        u32::try_from(pid).expect("a process id")
    }

    /// Sends SIGKILL to one of the servers and waits until the whole stack has noticed and ended.
    pub fn kill_server(&mut self, name: &str) -> i32 {
        let pid = self.pid(name).to_string();
        let status = Command::new("kill").args(["-9", &pid]).status().expect("kill");
        assert!(status.success(), "kill -9 {pid}");
        let server = self.server.take().expect("running");
        let deadline = Deadline::after(Duration::from_secs(60));
        while PathBuf::from(format!("/proc/{}/stat", server.id())).exists() && !is_zombie(server.id()) {
            assert!(!deadline.passed(), "the stack did not notice that {name} died:\n{}", server.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
        server.stop()
    }

    /// Sends a signal (`STOP`, `CONT`) to one of the servers.
    ///
    /// # Panics
    ///
    /// When it cannot be sent.
    pub fn signal(&self, name: &str, signal: &str) {
        let pid = self.pid(name).to_string();
        let status = Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill");
        assert!(status.success(), "kill -{signal} {pid}");
    }

    /// Stops the stack cleanly.
    pub fn down(&mut self) -> i32 {
        self.server.take().expect("running").stop()
    }

    /// Starts it again in the same folder.
    pub fn restart(&mut self) {
        self.server = Some(Server::start(up_command(&self.dir)));
        self.json = read_json(&self.dir.join("stack.json"));
    }
}

/// Changes settings in the configuration file of one server: `key = value` lines that take the place of lines with the
/// same key, wherever they stand.
///
/// # Panics
///
/// When the file does not hold the key.
pub fn configure(dir: &Path, server: &str, settings: &[(&str, &str)]) {
    let path = dir.join("config").join(format!("{server}.toml"));
    let mut text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for (key, value) in settings {
        let begins = format!("{key} = ");
        let line = text.lines().find(|line| line.starts_with(&begins));
        let line = line.unwrap_or_else(|| panic!("{} has no {key}:\n{text}", path.display())).to_owned();
        text = text.replace(&line, &format!("{begins}{value}"));
    }
    std::fs::write(&path, text).expect("writing a configuration");
}

fn up_command(dir: &Path) -> Command {
    let mut command = Command::new(binary("mentatctl"));
    command.args(["up", "--json", "--exit-with-stdin", "--dir"]).arg(dir);
    command.env_remove("RUST_BACKTRACE");
    command
}

fn is_zombie(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit(')').next().map(|rest| rest.trim_start().starts_with('Z')))
        .unwrap_or(true)
}

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
