//! One scene after another: runs this very program as a person would, times it, and asserts what it answers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use executor_api::client::ExecutorClient;
use serde_json::Value;

use super::scene::play;
use crate::clock::Stopwatch;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Secrecy, make_folder, write_file};
use crate::interruption::Interruption;
use crate::net::TlsFlags;
use crate::output::{Output, Tone};
use crate::stack::Running;

/// The module in text form, its manifest, and the text it reads: parts of this program, so that the demo needs no folder.
const MODULE_TEXT: &str = include_str!("../../../sdk/examples/sentiment/sentiment.wat");
const MANIFEST: &str = include_str!("../../../sdk/examples/sentiment/manifest.yaml");
const README: &str = include_str!("../../../README.md");

/// The demonstration's surroundings.
pub struct Act<'a> {
    out: &'a Output,
    stack: Running,
    interruption: Interruption,
    work: PathBuf,
    steps: Vec<(String, Duration)>,
    answer: Value,
    refusals: Vec<(String, String)>,
}

/// What a demonstration leaves when it is over.
pub struct Played {
    /// The stack, still running.
    pub stack: Running,
    /// Every step and how long it took.
    pub steps: Vec<(String, Duration)>,
    /// What the module answered.
    pub answer: Value,
    /// What was refused, and the code that said why.
    pub refusals: Vec<(String, String)>,
}

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    code: i32,
    /// Its JSON lines.
    pub lines: Vec<Value>,
    stderr: String,
}

impl<'a> Act<'a> {
    /// A demonstration on a running stack, with its own folder for homes and modules.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new(stack: Running, interruption: Interruption, work: &Path, out: &'a Output) -> Outcome<Self> {
        make_folder(&work.join("home"), Secrecy::Secret)?;
        let readme = work.join("README.md");
        write_file(&readme, README.as_bytes(), Secrecy::Public)?;
        Ok(Self {
            out,
            stack,
            interruption,
            work: work.to_path_buf(),
            steps: Vec::new(),
            answer: Value::Null,
            refusals: Vec::new(),
        })
    }

    /// Where lines go.
    pub fn out(&self) -> &Output {
        self.out
    }

    /// The stack's folder.
    pub fn stack_dir(&self) -> &Path {
        self.stack.layout().root()
    }

    /// The stack.
    pub fn stack(&self) -> &Running {
        &self.stack
    }

    /// Whether somebody asked for the end.
    pub fn interruption(&self) -> &Interruption {
        &self.interruption
    }

    /// Fails when a server has ended.
    ///
    /// # Errors
    /// With the server's name and its last error.
    pub fn check(&mut self) -> Outcome<()> {
        self.stack.check()
    }

    /// A path below the demonstration's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// The stack, and what was shown.
    pub fn into_parts(self) -> Played {
        Played { stack: self.stack, steps: self.steps, answer: self.answer, refusals: self.refusals }
    }

    /// Keeps what the module answered.
    pub fn answered(&mut self, answer: Value) {
        self.answer = answer;
    }

    /// Keeps what was refused, and why.
    pub fn refused(&mut self, what: &str, code: &str) {
        self.refusals.push((what.to_owned(), code.to_owned()));
    }

    /// Records how long a step took.
    pub fn timed(&mut self, step: &str, time: Duration) {
        self.steps.push((step.to_owned(), time));
    }

    /// A client of the stack's executor, as its administrator.
    pub fn executor(&self) -> Outcome<ExecutorClient> {
        let home = crate::home::Home::load(Some(self.stack_dir()))?;
        let url = home.executor_url(None)?;
        let client = ExecutorClient::new(TlsFlags::default().client(&home)?, &url);
        Ok(match home.admin_token(None, &url, &home.executor_url(None))? {
            Some(token) => client.with_token(token),
            None => client,
        })
    }

    /// A copy of the example release in a folder of its own, with an optional change of its manifest.
    pub fn release(&self, name: &str, change: impl FnOnce(String) -> String) -> Outcome<PathBuf> {
        let folder = self.path(name);
        make_folder(&folder, Secrecy::Public)?;
        write_file(&folder.join("sentiment.wat"), MODULE_TEXT.as_bytes(), Secrecy::Public)?;
        write_file(&folder.join("manifest.yaml"), change(MANIFEST.to_owned()).as_bytes(), Secrecy::Public)?;
        Ok(folder)
    }

    /// Copies a release that was signed.
    pub fn copy(&self, from: &Path, name: &str) -> Outcome<PathBuf> {
        let folder = self.path(name);
        make_folder(&folder, Secrecy::Public)?;
        for file in ["sentiment.wasm", "manifest.yaml"] {
            std::fs::copy(from.join(file), folder.join(file))
                .or_fail(Exit::Failure, format!("copying {file}"))?;
        }
        Ok(folder)
    }

    /// Runs `mentatctl ARGS` on the stack, shows the command as a person would type it, and times it under `step`.
    pub fn ctl(&mut self, step: &str, args: &[&str]) -> Outcome<Answer> {
        self.ctl_with_input(step, args, None)
    }

    /// The same with a secret on standard input; `None` is no input.
    pub fn ctl_with_input(&mut self, step: &str, args: &[&str], secret: Option<&str>) -> Outcome<Answer> {
        let from = if secret.is_some() { " < token" } else { "" };
        self.out.line(format!("  {} mentatctl {}{from}", self.out.paint(Tone::Faint, "$"), self.shown(args)));
        let watch = Stopwatch::start();
        let answer = self.play(args, secret.unwrap_or_default())?;
        self.timed(step, watch.elapsed());
        Ok(answer)
    }

    /// The same without a line and without a time.
    pub fn quietly(&mut self, args: &[&str]) -> Outcome<Answer> {
        self.play(args, "")
    }

    fn play(&mut self, args: &[&str], input: &str) -> Outcome<Answer> {
        // Here too: a command that ends at once is never waited for.
        self.interruption.check()?;
        let own = std::env::current_exe().or_fail(Exit::Failure, "finding this executable")?;
        let mut command = Command::new(own);
        command.arg("--json").arg("--stack").arg(self.stack_dir()).args(args);
        command.env("MENTAT_HOME", self.work.join("home"));
        let (interruption, stack) = (&self.interruption, &mut self.stack);
        let done = play(command, input.as_bytes(), || {
            interruption.check()?;
            stack.check()
        })?;
        Ok(Answer {
            code: done.code,
            lines: done.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
            stderr: done.stderr,
        })
    }

    /// Prints a line below a command.
    pub fn say(&self, text: impl std::fmt::Display) {
        self.out.line(format!("      {text}"));
    }

    fn shown(&self, args: &[&str]) -> String {
        let prefix = format!("{}/", self.work.display());
        args.iter().map(|arg| arg.replace(&prefix, "")).collect::<Vec<_>>().join(" ")
    }
}

impl Answer {
    /// The first JSON line of a success.
    ///
    /// # Errors
    /// When the command failed.
    pub fn success(self) -> Outcome<Value> {
        if self.code != 0 {
            return Err(Failure::failed(format!(
                "this should have succeeded: exit code {}, {}",
                self.code,
                self.said()
            ))
            .hint("`mentatctl demo --keep DIR` keeps the stack's folder with the servers' logs"));
        }
        Ok(self.lines.into_iter().next().unwrap_or(Value::Null))
    }

    /// The reason code of a denial, asserted.
    ///
    /// # Errors
    /// When the command succeeded, or failed with another code.
    pub fn denied(&self, code: &str) -> Outcome<String> {
        let line = self.lines.iter().find(|line| line["ok"] == Value::Bool(false));
        let found = line.and_then(|line| line["code"].as_str()).unwrap_or("none");
        if self.code != Exit::Denied as i32 || found != code {
            return Err(Failure::failed(format!(
                "expected a denial with code {code}: exit code {}, code {found}, {}",
                self.code,
                self.said()
            )));
        }
        Ok(line.and_then(|line| line["error"].as_str()).unwrap_or_default().to_owned())
    }

    /// Whether this is a denial with the code.
    pub fn is_denied(&self, code: &str) -> bool {
        self.denied(code).is_ok()
    }

    fn said(&self) -> String {
        // What a failed command says is one object; its advice is for somebody who can repeat it.
        let failed = self.lines.iter().find(|line| line["ok"] == Value::Bool(false));
        match failed.and_then(|line| line["error"].as_str()) {
            Some(error) => error.to_owned(),
            None => {
                let lines: Vec<String> = self.lines.iter().map(Value::to_string).collect();
                format!("{} {}", lines.join(" "), self.stderr)
            }
        }
    }
}

/// A member of an answer; null when it is not there.
pub fn at<'v>(value: &'v Value, pointer: &str) -> &'v Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

/// A member of an answer as a person reads it: text without quotation marks.
pub fn shown_at(value: &Value, pointer: &str) -> String {
    let member = at(value, pointer);
    member.as_str().map_or_else(|| member.to_string(), str::to_owned)
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.display().to_string()
}
