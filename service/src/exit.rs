//! How a server process ends: exit codes and the one line that says why.
//!
//! | Code | Meaning |
//! |---|---|
//! | 0 | stopped as asked |
//! | 1 | failed while running |
//! | 2 | wrong usage of the command line |
//! | 69 | what was asked cannot be said now, because another service does not answer (`EX_UNAVAILABLE`) |
//! | 78 | refused to start: the configuration, a key or the stored state is not acceptable (`EX_CONFIG`) |

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

type BoxError = Box<dyn Error + Send + Sync>;

/// Exit code of a refusal to start.
pub const REFUSED: u8 = 78;
/// Exit code of a command that needs another service, which does not answer.
pub const UNAVAILABLE: u8 = 69;
/// Exit code of wrong usage.
pub const USAGE: u8 = 2;
/// Exit code of a failure while running.
pub const FAILED: u8 = 1;

/// A server will not start like this. One line: what is wrong, and what to do.
#[derive(Debug)]
pub struct StartRefusal {
    what: String,
    remedy: String,
    source: Option<BoxError>,
}

impl StartRefusal {
    /// A refusal: what is wrong, and what to do about it.
    #[must_use]
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into(), source: None }
    }

    /// The same with the error behind it, which is shown between the two.
    #[must_use]
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same, of a part of the configuration that is named first.
    #[must_use]
    pub fn within(mut self, section: &str) -> Self {
        self.what = format!("{section}: {}", self.what);
        self
    }

    /// What is wrong.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do.
    #[must_use]
    pub fn remedy(&self) -> &str {
        &self.remedy
    }
}

impl fmt::Display for StartRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(source) = &self.source {
            write!(f, ": {}", OneLine(source.as_ref()))?;
        }
        write!(f, "; {}", self.remedy)
    }
}

impl Error for StartRefusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}

/// Why a server process ends with a code other than 0.
#[derive(Debug)]
pub enum Failure {
    /// It failed while running.
    Failed(BoxError),
    /// It refused to start.
    Refused(StartRefusal),
    /// Another service does not answer: what was asked cannot be said now.
    Unavailable(String),
    /// The command line was wrong.
    Usage(String),
}

impl Failure {
    /// A failure while running.
    #[must_use]
    pub fn failed(error: impl Into<BoxError>) -> Self {
        Self::Failed(error.into())
    }

    /// The exit code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => FAILED,
            Self::Refused(_) => REFUSED,
            Self::Unavailable(_) => UNAVAILABLE,
            Self::Usage(_) => USAGE,
        }
    }
}

impl From<StartRefusal> for Failure {
    fn from(refusal: StartRefusal) -> Self {
        Self::Refused(refusal)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "failed: {}", OneLine(error.as_ref())),
            Self::Refused(refusal) => write!(f, "refused to start: {refusal}"),
            Self::Unavailable(text) | Self::Usage(text) => f.write_str(text),
        }
    }
}

/// Ends `main`: prints the one line to stderr and gives the exit code.
#[must_use]
pub fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            use std::io::Write as _;
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr().lock(), "error: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

/// Reads the command line of a server. Help and the version are printed to stdout and end it with 0; a wrong command line is
/// one line on stderr, as every failure is, and ends it with 2.
///
/// # Errors
/// The exit code with which `main` is to end.
pub fn arguments<T: clap::Parser>() -> Result<T, ExitCode> {
    T::try_parse().map_err(|error| {
        if error.use_stderr() {
            return finish(Err(Failure::Usage(usage(T::command().get_name(), &error.render().to_string()))));
        }
        // Nobody is left to tell when stdout is closed.
        let _ = error.print();
        ExitCode::SUCCESS
    })
}

/// What the first paragraph of a parser's message says, and where the right form stands.
fn usage(program: &str, message: &str) -> String {
    let mut what = String::new();
    for line in message.lines().map(str::trim).take_while(|line| !line.is_empty()) {
        if !what.is_empty() {
            what.push(' ');
        }
        what.push_str(line);
    }
    // Without a subcommand the parser answers with its whole help.
    let what = what.strip_prefix("error: ").unwrap_or("no command is given");
    format!("{what}; {program} --help says what is expected")
}

/// An error with its sources, on one line: an error of a connection says only in its sources that TLS refused it.
#[must_use]
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    OneLine(error).to_string()
}

/// An error with its sources, on one line.
struct OneLine<'a>(&'a (dyn Error + 'static));

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut source = self.0.source();
        while let Some(error) = source {
            let next = error.to_string();
            if !text.contains(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            source = error.source();
        }
        f.write_str(&text.replace(['\n', '\r'], " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_command_line_is_one_line() {
        let message = "error: the following required arguments were not provided:\n  --config <CONFIG>\n\nUsage: x serve\n";
        let line = usage("x", message);
        assert_eq!(
            line,
            "the following required arguments were not provided: --config <CONFIG>; x --help says what is expected"
        );
        assert!(usage("x", "A server.\n\nUsage: x <COMMAND>\n").starts_with("no command is given; x --help"));
    }

    #[test]
    fn a_refusal_is_one_line_with_the_remedy_last() {
        let cause = std::io::Error::other("first\nsecond");
        let refusal = StartRefusal::new("port 80 is in use", "choose another").because(cause);
        assert_eq!(refusal.to_string(), "port 80 is in use: first second; choose another");
        assert_eq!(Failure::from(refusal).code(), 78);
        assert_eq!(Failure::failed("x").code(), 1);
        assert_eq!(Failure::Usage("x".into()).code(), 2);
    }
}
