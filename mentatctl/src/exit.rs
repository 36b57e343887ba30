//! Exit codes, and the one line that every failure prints: what is wrong and what to do.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; for verdicts: accepted |
//! | 1 | failed, or a finding |
//! | 2 | the command line is wrong, or something it names cannot be used |
//! | 3 | denied by verification; the reason code is in the message |
//! | 69 | a service cannot be reached or cannot answer now; trying again later may work |
//! | 78 | refusal to start: configuration, ports or data do not allow it |
//!
//! `docs/operations/exit-codes.md` is the page for people.

use std::error::Error;
use std::fmt::{Display, Write as _};
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed, or something was found.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A verifier denied.
    Denied = 3,
    /// A service is unavailable.
    Unavailable = 69,
    /// Refused to start.
    Refused = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure on its way to the terminal.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// A stable code, where there is one: a denial's reason, a problem document's code.
    pub code: Option<String>,
    /// What is wrong, one sentence without a full stop.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The result of a command.
pub type Outcome<T = Exit> = Result<T, Failure>;

impl Failure {
    /// A failure with exit code and text.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, code: None, what: one_line(&what.into()), hint: None }
    }

    /// Exit code 1.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::Failure, what)
    }

    /// Exit code 2.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// Exit code 78.
    pub fn refused(what: impl Into<String>) -> Self {
        Self::new(Exit::Refused, what)
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(one_line(&hint.into()));
        self
    }

    /// Adds a stable code.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(one_line(&code.into()));
        self
    }

    /// What to do: what was said, else what is true of every failure of its kind.
    pub fn advice(&self) -> Option<&str> {
        let general = match self.exit {
            Exit::Usage => Some("--help says what is expected"),
            Exit::Denied => Some("do not use it; docs/operations/denials.md says what to do about each code"),
            Exit::Unavailable => Some("repeat the command later"),
            Exit::Ok | Exit::Failure | Exit::Refused => None,
        };
        self.hint.as_deref().or(general)
    }

    /// Puts the path of what a command was told to work on before the text, unless the text names it already.
    #[must_use]
    pub fn about(mut self, path: &Path) -> Self {
        let path = one_line(&path.display().to_string());
        let within = format!("{path}/");
        let mut words = self.what.split([' ', ':']);
        if !words.any(|word| word == path || word.starts_with(&within)) {
            self.what = format!("{path}: {}", self.what);
        }
        self
    }

    /// The one line: `what [code]; advice`.
    pub fn line(&self) -> String {
        let mut line = self.what.clone();
        if let Some(code) = &self.code {
            let _ = write!(line, " [{code}]");
        }
        if let Some(advice) = self.advice() {
            let _ = write!(line, "; {advice}");
        }
        line
    }
}

/// Text of an error with all its sources, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors repeat their source in their own text.
        if !text.contains(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    one_line(&text)
}

/// Turns the error of a result into a [`Failure`] that says what was tried.
pub trait OrFail<T> {
    /// `what` names what was tried, such as `reading key.pem`.
    ///
    /// # Errors
    /// The failure, when the result is one.
    fn or_fail(self, exit: Exit, what: impl Display) -> Outcome<T>;
}

impl<T, E: Error + 'static> OrFail<T> for Result<T, E> {
    fn or_fail(self, exit: Exit, what: impl Display) -> Outcome<T> {
        self.map_err(|error| {
            let failure = Failure::new(exit, format!("{what}: {}", chain(&error)));
            // The command line was right; what it names is not.
            if exit == Exit::Usage {
                failure.hint("is it the one that was meant, and whole?")
            } else {
                failure
            }
        })
    }
}

/// What to do when the system refuses to read or write a file; `None` where its own text says it.
pub fn file_advice(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind as Kind;
    Some(match error.kind() {
        Kind::AlreadyExists | Kind::NotADirectory => {
            "something that is no folder is in the way; choose another path"
        }
        Kind::FileTooLarge => "raise the limit on the size of files (ulimit -f)",
        Kind::IsADirectory => "name a file, not a folder",
        Kind::NotFound => "check the path",
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => "check who owns it and its mode",
        Kind::StorageFull | Kind::QuotaExceeded => "make room and try again",
        _ => return None,
    })
}

/// The failure of reading or writing a file, with what to do about it.
pub fn file_failure(exit: Exit, what: impl Display, error: &io::Error) -> Failure {
    let failure = Failure::new(exit, format!("{what}: {error}"));
    match file_advice(error) {
        Some(advice) => failure.hint(advice),
        None => failure,
    }
}

/// Control characters and line breaks would let foreign text forge lines of ours.
pub fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .replace(|c: char| c.is_control(), "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_code_and_hint() {
        let failure = Failure::failed("it\nbroke\u{7}").code("revoked").hint("ask the signer");
        assert_eq!(failure.line(), "it broke? [revoked]; ask the signer");
        assert_eq!(Failure::usage("no such thing").line(), "no such thing; --help says what is expected");
    }

    #[test]
    fn a_file_that_is_wrong_is_no_wrong_command_line_and_every_denial_says_where_to_look() {
        let wrong: Result<(), std::fmt::Error> = Err(std::fmt::Error);
        let line = wrong.or_fail(Exit::Usage, "policy.yaml").map_err(|failure| failure.line()).unwrap_err();
        assert!(line.starts_with("policy.yaml: ") && !line.contains("--help"), "{line}");
        for exit in [Exit::Denied, Exit::Unavailable, Exit::Usage] {
            assert!(Failure::new(exit, "no").advice().is_some(), "{exit:?}");
        }
    }

    #[test]
    fn a_path_is_named_once() {
        let path = Path::new("a/manifest.yaml");
        assert_eq!(Failure::failed("it broke").about(path).what, "a/manifest.yaml: it broke");
        assert_eq!(Failure::failed("a/manifest.yaml: gone").about(path).what, "a/manifest.yaml: gone");
        assert_eq!(Failure::failed("cannot read a/b").about(Path::new("a")).what, "cannot read a/b");
        assert_eq!(Failure::failed("denied at step 5").about(Path::new("a")).what, "a: denied at step 5");
    }

    #[test]
    fn exit_codes_are_stable() {
        let codes = [Exit::Ok, Exit::Failure, Exit::Usage, Exit::Denied, Exit::Unavailable, Exit::Refused];
        assert_eq!(codes.map(|c| c as u8), [0, 1, 2, 3, 69, 78]);
    }
}
