//! Telling the world that the server is ready: the line on stdout, and what `/readyz` answers.

use std::io::Write as _;
use std::sync::Arc;

use crate::exit::StartRefusal;
use crate::server::Running;

/// Whether a server can do its work now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot do all of its work, for this reason: `/readyz` answers 503 with it on the main listener, and 200 on the
    /// read-only one, which goes on serving.
    Limited(String),
    /// It cannot, for this reason; `/readyz` answers 503 with it.
    NotReady(String),
}

/// Asked for at every `/readyz`. Must be quick and must not block.
pub type ReadinessCheck = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// The readiness line: one JSON object.
#[must_use]
pub fn line(running: &Running) -> String {
    let read_only = running.read_only_addr().map(|address| address.to_string());
    let mut line = serde_json::json!({ "ready": true, "listen": running.addr().to_string() });
    if let (Some(object), Some(read_only)) = (line.as_object_mut(), read_only) {
        object.insert("read_only_listen".to_owned(), read_only.into());
    }
    line.to_string()
}

/// Prints the readiness line to stdout. Call it when requests are answered, not before.
///
/// # Errors
/// [`StartRefusal`] when stdout cannot be written: whoever waits for the line would wait for ever.
pub fn announce(running: &Running) -> Result<(), StartRefusal> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", line(running)).and_then(|()| stdout.flush()).map_err(|error| {
        StartRefusal::new("cannot write the readiness line to stdout", "open stdout or redirect it to a file")
            .because(error)
    })
}
