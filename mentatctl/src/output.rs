//! What a person or a script sees: text with colours on a terminal, JSON with `--json`, progress on standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::exit::{Exit, Failure, Outcome, file_failure};

/// Text or JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON value (or one a line, where a command reports several things) on standard output.
    Json,
}

/// Where a command writes.
#[derive(Clone, Debug)]
pub struct Output {
    format: Format,
    colour: bool,
    progress: bool,
    /// The first error of writing standard output, other than a reader that has gone away.
    lost: Arc<OnceLock<io::Error>>,
}

/// A colour that carries meaning.
#[derive(Clone, Copy, Debug)]
pub enum Tone {
    /// Accepted.
    Good,
    /// Denied or failed.
    Bad,
    /// Headings.
    Strong,
    /// Secondary text.
    Faint,
}

impl Output {
    /// Colours and progress only on a terminal that has them, and no colours when `NO_COLOR` asks for none.
    pub fn new(format: Format) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let plain = dumb || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let colour = format == Format::Text && !plain && std::io::stdout().is_terminal();
        let progress = format == Format::Text && !dumb && std::io::stderr().is_terminal();
        Self { format, colour, progress, lost: Arc::default() }
    }

    /// Whether a script reads.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// A line for people; nothing in JSON.
    pub fn line(&self, text: impl Display) {
        if self.format == Format::Text {
            self.write(format!("{}\n", plain(&text.to_string())).as_bytes());
        }
    }

    /// A value for scripts; in text it is not even made.
    pub fn value(&self, make: impl FnOnce() -> Value) {
        if self.format == Format::Json {
            self.write(format!("{}\n", make()).as_bytes());
        }
    }

    /// The raw text in both forms: what a command exists to print.
    pub fn raw(&self, bytes: &[u8]) {
        self.write(bytes);
    }

    /// Whether everything that was said so far reached standard output.
    ///
    /// # Errors
    /// Exit code 1 when it did not: a script must not take an answer that nobody got for success.
    pub fn delivered(&self) -> Outcome<()> {
        self.lost.get().map_or(Ok(()), |error| Err(lost(error)))
    }

    fn write(&self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            // A reader that has gone away is no failure of ours.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => drop(self.lost.set(error)),
            _ => {}
        }
    }

    /// A note on standard error, in both forms.
    pub fn note(&self, text: impl Display) {
        let _ = writeln!(std::io::stderr().lock(), "{}", plain(&text.to_string()));
    }

    /// Text in a colour, when colours are on.
    pub fn paint(&self, tone: Tone, text: impl Display) -> String {
        if !self.colour {
            return text.to_string();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Strong => "1",
            Tone::Faint => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// A spinner on a terminal, silent elsewhere. It disappears when dropped.
    pub fn spinner(&self, text: impl Display) -> Spinner {
        let bar = if self.progress {
            let bar = ProgressBar::new_spinner().with_message(text.to_string());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        } else {
            ProgressBar::hidden()
        };
        Spinner(bar)
    }

    /// A counting bar on a terminal, silent elsewhere.
    pub fn bar(&self, total: u64, text: impl Display) -> Spinner {
        if !self.progress {
            return Spinner(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Spinner(ProgressBar::new(total).with_style(style).with_message(text.to_string()))
    }

    /// The failure line: text on standard error, an object on standard output with `--json`.
    pub fn failure(&self, failure: &Failure) {
        match self.format {
            Format::Text => self.note(format!("{} {}", self.paint(Tone::Bad, "error:"), failure.line())),
            Format::Json => self.value(|| Self::failure_value(failure)),
        }
    }

    /// A failure as scripts read it.
    pub fn failure_value(failure: &Failure) -> Value {
        json!({
            "ok": false,
            "exit": failure.exit as u8,
            "code": failure.code,
            "error": failure.what,
            "hint": failure.advice(),
        })
    }
}

/// Progress that vanishes when it is dropped.
#[derive(Debug)]
pub struct Spinner(ProgressBar);

impl Spinner {
    /// Changes the text.
    pub fn say(&self, text: impl Display) {
        self.0.set_message(text.to_string());
    }

    /// Counts up to this position.
    pub fn reach(&self, position: u64) {
        self.0.set_position(position);
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The failure of writing standard output.
pub fn lost(error: &io::Error) -> Failure {
    file_failure(Exit::Failure, "cannot write standard output", error)
        .hint("the answer is lost, what the command did stands; check where the output goes")
}

/// A path as JSON shows it. A name that is not UTF-8 has no form there (`serde_json` refuses it, and its macro panics):
/// what cannot be shown of it becomes the replacement character.
pub fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Text without control characters but line breaks, tabs and our own colours: names out of certificates and answers of
/// servers must not move a cursor or change a terminal.
fn plain(text: &str) -> String {
    const COLOURS: [&str; 5] = ["[0m", "[1m", "[2m", "[31m", "[32m"];
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = rest.get(character.len_utf8()..).unwrap_or_default();
        let colour = character == '\u{1b}' && COLOURS.iter().any(|colour| rest.starts_with(colour));
        let allowed = !character.is_control() || matches!(character, '\n' | '\t') || colour;
        plain.push(if allowed { character } else { '?' });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_colours_reach_a_terminal() {
        assert_eq!(plain("a\tb\n\u{1b}[32mok\u{1b}[0m"), "a\tb\n\u{1b}[32mok\u{1b}[0m");
        assert_eq!(plain("x\u{1b}[2J\u{7}\r\u{9b}31my"), "x?[2J???31my");
        assert_eq!(plain("\u{1b}]0;title\u{7}"), "?]0;title?");
    }
}
