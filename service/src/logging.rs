//! Logs, to stderr, as text or JSON lines.

use std::str::FromStr;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::exit::StartRefusal;

/// Environment variable that overrides the configured filter.
pub const FILTER_VARIABLE: &str = "MENTAT_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Text for people.
    #[default]
    Text,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("write json or text".to_owned()),
        }
    }
}

/// Starts logging. `filter` lists targets with their levels (`info,access=debug`); `MENTAT_LOG` overrides it. Filters by span or
/// field are not known: they would bring a regular-expression engine into every server.
///
/// # Errors
/// [`StartRefusal`] for a filter that does not parse, and when logging was started before.
pub fn init(format: Format, filter: &str) -> Result<(), StartRefusal> {
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| filter.to_owned());
    let parsed: Targets = filter.parse().map_err(|error| {
        StartRefusal::new(
            format!("the log filter {filter:?} does not parse"),
            "write for example info,access=debug",
        )
        .because(error)
    })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(parsed);
    let started = match format {
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        Format::Text => {
            registry.with(lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))).try_init()
        }
    };
    started.map_err(|error| StartRefusal::new("logging cannot be started", "start it once").because(error))
}
