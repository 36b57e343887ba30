//! What an agent may do besides answering.

use alloc::string::String;

use crate::capability::Capability;
use crate::error::Result;
use crate::host;
use crate::media::Media;
use crate::stream::Stream;

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The call cannot do what it was asked.
    Error = 0,
    /// Something is wrong, and the call goes on.
    Warn = 1,
    /// What operators want to read.
    Info = 2,
    /// What developers want to read.
    Debug = 3,
    /// Everything.
    Trace = 4,
}

/// The call that is going on. Only the crate makes one.
#[derive(Debug)]
pub struct Context(());

impl Context {
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// Writes a log line. It never fails: over the executor's limits a line is dropped and counted.
    pub fn log(&self, level: Level, text: &str) {
        host::log(level, text);
    }

    /// A log line at [`Level::Error`].
    pub fn error(&self, text: &str) {
        self.log(Level::Error, text);
    }

    /// A log line at [`Level::Warn`].
    pub fn warn(&self, text: &str) {
        self.log(Level::Warn, text);
    }

    /// A log line at [`Level::Info`].
    pub fn info(&self, text: &str) {
        self.log(Level::Info, text);
    }

    /// A log line at [`Level::Debug`].
    pub fn debug(&self, text: &str) {
        self.log(Level::Debug, text);
    }

    /// Records a finite value under a name of the form `[a-z_][a-z0-9_]*`, at most 64 bytes.
    ///
    /// # Errors
    /// −1 for another name or value, −6 past the executor's limit.
    pub fn metric(&self, name: &str, value: f64) -> Result<()> {
        host::record_metric(name, value)
    }

    /// Asks for a capability in the grammar of manifests, such as `env:API_KEY`.
    ///
    /// # Errors
    /// −3 when the manifest does not ask for it, −4 when policy does not grant it.
    pub fn capability(&self, text: &str) -> Result<Capability> {
        Capability::request(text)
    }

    /// The value of a variable that `env:NAME` grants.
    ///
    /// # Errors
    /// As [`Context::capability`]; an error as well when the value is no UTF-8.
    pub fn environment(&self, name: &str) -> Result<String> {
        let value = self.capability(&alloc::format!("env:{name}"))?.invoke("get", &[])?;
        String::from_utf8(value).map_err(|_| crate::Error::new("the variable is no UTF-8"))
    }

    /// The store of objects that `extension:media` grants.
    pub fn media(&self) -> Media {
        Media::new()
    }

    /// Starts a stream of this call, which `extension:stream` grants. A name is used once in a call.
    ///
    /// # Errors
    /// −8 in a call whose streams nobody reads.
    pub fn stream(&self, id: &str) -> Result<Stream> {
        Stream::start(id)
    }
}
