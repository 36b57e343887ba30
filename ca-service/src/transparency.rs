//! The transparency logs as the CA sees them: traits, and their implementation over HTTP.

use std::time::Duration;

use futures_util::future::BoxFuture;
use service::exit::one_line;
use service::{ClientTls, StartRefusal};
use tlog_client::{BatchResult, LogClient, Submission};

use crate::config::{EventLogConfig, IssuanceLogConfig, Settings};
use crate::submissions::Submissions;

/// How long one submission may take before the client is told to come back.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a log has no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// It cannot be reached or is overloaded; the reconciler tries again.
    #[error("not available: {0}")]
    Unavailable(String),
    /// It refused, or answered something that cannot be used.
    #[error("refused: {0}")]
    Refused(String),
}

/// A certificate transparency log. Submitting the same chain twice returns the same promise.
pub trait IssuanceLog: Send + Sync {
    /// Submits a precertificate with its issuers, in DER; returns the serialized SCT, not yet verified.
    fn add_precertificate(&self, chain: Vec<Vec<u8>>) -> BoxFuture<'_, Result<Vec<u8>, LogError>>;

    /// Submits a certificate with its issuers, in DER; returns the index of its entry, which is durable.
    fn add_certificate(&self, chain: Vec<Vec<u8>>) -> BoxFuture<'_, Result<u64, LogError>>;
}

/// A log of signed statements.
pub trait EventLog: Send + Sync {
    /// Submits a DSSE envelope; returns the index of its entry.
    fn submit(&self, envelope: serde_json::Value) -> BoxFuture<'_, Result<u64, LogError>>;

    /// Submits many, at most [`MAX_EVENTS`], in one call; returns the outcome of each, in order.
    fn submit_all(
        &self,
        envelopes: Vec<serde_json::Value>,
    ) -> BoxFuture<'_, Result<Vec<Result<u64, LogError>>, LogError>>;
}

/// Most envelopes of one call: a statement has some two KiB, and an answer with its proof some four.
pub const MAX_EVENTS: usize = 100;

/// A log over HTTP.
pub struct HttpLog(LogClient);

impl HttpLog {
    /// The configured issuance log. Needs a runtime.
    ///
    /// # Errors
    /// [`StartRefusal`] for an unusable URL or TLS file.
    pub fn issuance(settings: &Settings, config: &IssuanceLogConfig) -> Result<Submissions, StartRefusal> {
        let Self(client) = Self::connect("issuance_log", &config.url, &config.tls(settings)?)?;
        Ok(Submissions::start(client))
    }

    /// The configured event log.
    ///
    /// # Errors
    /// [`StartRefusal`] for an unusable URL or TLS file.
    pub fn event(settings: &Settings, config: &EventLogConfig) -> Result<Self, StartRefusal> {
        Self::connect("event_log", &config.url, &config.tls(settings)?)
    }

    fn connect(section: &str, url: &str, tls: &ClientTls) -> Result<Self, StartRefusal> {
        client(&format!("{section}.url"), url, tls).map(Self)
    }
}

/// A client of the log at a URL; `field` is where that stands.
pub(crate) fn client(field: &str, url: &str, tls: &ClientTls) -> Result<LogClient, StartRefusal> {
    let client = tls.client_for(url, PATIENCE)?;
    LogClient::new(client, url).map_err(|error| {
        StartRefusal::new(format!("{field} cannot be used"), "write http://HOST:PORT or https://HOST")
            .because(error)
    })
}

/// With its causes: that the log refused the TLS connection for want of a certificate stands only there.
pub(crate) fn log_error(error: tlog_client::Error) -> LogError {
    let text = one_line(&error);
    match error {
        tlog_client::Error::Overloaded { .. }
        | tlog_client::Error::Transport(_)
        // A full disk is nothing that the entry could mend.
        | tlog_client::Error::Status { status: 507, .. } => LogError::Unavailable(text),
        _ => LogError::Refused(text),
    }
}

impl EventLog for HttpLog {
    fn submit(&self, envelope: serde_json::Value) -> BoxFuture<'_, Result<u64, LogError>> {
        Box::pin(async move {
            match self.0.submit_event(&envelope).await.map_err(log_error)? {
                Submission::Duplicate { index } => Ok(index),
                Submission::Accepted(entry) => index(&entry),
            }
        })
    }

    fn submit_all(
        &self,
        envelopes: Vec<serde_json::Value>,
    ) -> BoxFuture<'_, Result<Vec<Result<u64, LogError>>, LogError>> {
        Box::pin(async move {
            let results = self.0.submit_batch(&envelopes).await.map_err(log_error)?;
            let outcomes = results.into_iter().map(|result| match result {
                BatchResult::Accepted(entry) | BatchResult::Duplicate(entry) => index(&entry),
                BatchResult::Refused { status: status @ (429 | 503 | 504 | 507), problem } => {
                    Err(LogError::Unavailable(format!("{status}: {problem}")))
                }
                BatchResult::Refused { status, problem } => {
                    Err(LogError::Refused(format!("{status}: {problem}")))
                }
            });
            Ok(outcomes.collect())
        })
    }
}

/// The index that a log's entry in JSON names.
fn index(entry: &serde_json::Value) -> Result<u64, LogError> {
    let index = entry
        .get("logIndex")
        .and_then(|value| value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok())));
    index.ok_or_else(|| LogError::Refused("the answer has no logIndex".to_owned()))
}
