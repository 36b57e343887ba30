//! Submitting entries to signing, event and raw logs.

use bytes::Bytes;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::LogClient;
use crate::error::Error;
use crate::http::Answer;

const JSON: &str = "application/json";

/// Largest answer to a batch that is read: each entry comes with its proof and the checkpoint.
const BATCH_LIMIT: usize = 64 * 1024 * 1024;

/// What a log said to an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Submission {
    /// The log took it: its answer, for signing and event logs a `TransparencyLogEntry` in JSON. Not verified.
    Accepted(Value),
    /// The log has it already, at this index.
    Duplicate {
        /// Index of the entry.
        index: u64,
    },
}

/// What a log said to one entry of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchResult {
    /// The log took it: a `TransparencyLogEntry` in JSON. Not verified.
    Accepted(Value),
    /// The log had it already: the entry as above.
    Duplicate(Value),
    /// The log refused it; the others of the batch are not affected.
    Refused {
        /// The HTTP status the entry alone would have got.
        status: u16,
        /// The log's problem document.
        problem: Value,
    },
}

#[derive(Deserialize)]
struct BatchAnswer {
    results: Vec<BatchItem>,
}

#[derive(Deserialize)]
struct BatchItem {
    entry: Option<Value>,
    #[serde(default)]
    duplicate: bool,
    problem: Option<Value>,
}

impl LogClient {
    /// Submits many entries in one call (`POST {base}/api/v1/batch`), each as [`submit`](Self::submit) or
    /// [`submit_event`](Self::submit_event) takes it. One checkpoint covers all of them; the results are in the
    /// order of the requests.
    ///
    /// # Errors
    /// As [`submit`](Self::submit) when the log refuses the whole batch; [`Error::Answer`] also when the number of
    /// results is not that of the requests.
    pub async fn submit_batch(&self, requests: &[Value]) -> Result<Vec<BatchResult>, Error> {
        let body = json_bytes(&json!({ "entries": requests }));
        let answer = self.post_with_limit("api/v1/batch", JSON, body, BATCH_LIMIT).await?;
        let answer = answer.expect(&[StatusCode::OK])?;
        let bad = || Error::Answer { what: "the results of a batch" };
        let answer: BatchAnswer = serde_json::from_slice(&answer.body).map_err(|_| bad())?;
        if answer.results.len() != requests.len() {
            return Err(bad());
        }
        let results = answer.results.into_iter().map(|item| match item {
            BatchItem { entry: Some(entry), duplicate: false, problem: None } => {
                Some(BatchResult::Accepted(entry))
            }
            BatchItem { entry: Some(entry), duplicate: true, problem: None } => {
                Some(BatchResult::Duplicate(entry))
            }
            BatchItem { entry: None, problem: Some(problem), .. } => {
                let status =
                    problem.get("status").and_then(Value::as_u64).and_then(|code| code.try_into().ok());
                Some(BatchResult::Refused { status: status?, problem })
            }
            _ => None,
        });
        results.collect::<Option<_>>().ok_or_else(bad)
    }

    /// Submits a hashedrekord request to a signing log (`POST /api/v2/log/entries`) and waits until the entry is
    /// published.
    ///
    /// # Errors
    /// [`Error::Status`] when the log refuses the entry, [`Error::Overloaded`] after the last attempt,
    /// [`Error::Answer`], and transport errors.
    pub async fn submit(&self, request: &Value) -> Result<Submission, Error> {
        submission(self.post("api/v2/log/entries", JSON, json_bytes(request)).await?)
    }

    /// Submits a DSSE envelope to an event log (`POST {base}/api/v1/entries`).
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub async fn submit_event(&self, envelope: &Value) -> Result<Submission, Error> {
        submission(self.post("api/v1/entries", JSON, json_bytes(envelope)).await?)
    }

    /// Adds raw bytes to a raw log (`POST {base}/add`) and returns the index. A duplicate may get the index of
    /// the entry that was there.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub async fn add(&self, entry: impl Into<Bytes>) -> Result<u64, Error> {
        let answer = self.post("add", "application/octet-stream", entry.into()).await?;
        let answer = answer.expect(&[StatusCode::OK])?;
        let text = std::str::from_utf8(&answer.body).ok();
        text.and_then(|text| text.lines().next())
            .filter(|line| line.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|line| line.parse().ok())
            .ok_or(Error::Answer { what: "an index" })
    }
}

fn submission(answer: Answer) -> Result<Submission, Error> {
    if answer.status == StatusCode::CONFLICT {
        let index = answer.headers.get("x-log-index").and_then(|value| value.to_str().ok()?.parse().ok());
        return match index {
            Some(index) => Ok(Submission::Duplicate { index }),
            None => Err(answer.into_error()),
        };
    }
    let answer = answer.expect(&[StatusCode::CREATED, StatusCode::OK])?;
    serde_json::from_slice(&answer.body)
        .map(Submission::Accepted)
        .map_err(|_| Error::Answer { what: "a log entry in JSON" })
}

pub(crate) fn json_bytes(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}
