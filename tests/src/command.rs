//! One finished run of `mentatctl`: exit code and both outputs.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::binary::binary;

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Asserts exit code 0 and returns itself.
    ///
    /// # Panics
    ///
    /// On any other exit code, with both outputs.
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Asserts an exit code and that the message names something, and that nothing panicked.
    ///
    /// # Panics
    ///
    /// When either differs.
    #[track_caller]
    pub fn refused(self, code: i32, names: &str) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        let all = format!("{}{}", self.stdout, self.stderr);
        assert!(all.contains(names), "the message does not name `{names}`:\n{all}");
        assert!(!all.contains("panicked at"), "{all}");
        self
    }

    /// Asserts that there is exactly one clear line: what is wrong, and after a semicolon what to do; no panic.
    ///
    /// # Panics
    ///
    /// When there are more lines or fewer, or the line says too little.
    #[track_caller]
    pub fn one_clear_line(&self) -> &Self {
        let lines: Vec<&str> = self.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        assert_eq!(lines.len(), 1, "one clear line is wanted:\n{}", self.stderr);
        let text = lines[0].strip_prefix("error: ").unwrap_or_else(|| panic!("no error line: {}", lines[0]));
        assert!(text.len() > 20 && text.len() < 1500, "{text}");
        assert!(text.contains("; "), "the line does not say what to do: {text}");
        assert!(!text.contains("panicked at") && !text.contains("RUST_BACKTRACE"), "{text}");
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    ///
    /// When it is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("not JSON ({e}): {}\nstderr: {}", self.stdout, self.stderr))
    }
}

/// Runs `mentatctl` with `home` as the folder of its defaults.
pub fn mentatctl<I, S>(home: &Path, args: I) -> Finished
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    mentatctl_with_input(home, args, b"")
}

/// The same, with bytes on standard input.
pub fn mentatctl_with_input<I, S>(home: &Path, args: I, input: &[u8]) -> Finished
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(binary("mentatctl"));
    command.env("MENTAT_HOME", home).env_remove("RUST_BACKTRACE").args(args);
    finish(command, input)
}

/// Runs any command to its end.
///
/// # Panics
///
/// When it cannot be started.
pub fn finish(mut command: Command, input: &[u8]) -> Finished {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A command that refuses early closes its input: that is its right.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("waiting for a child");
    let _ = writer.join();
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
