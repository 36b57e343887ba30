//! Submitting entries to signing, event and raw logs.

use bytes::Bytes;
use reqwest::StatusCode;
use serde_json::Value;

use crate::client::LogClient;
use crate::error::Error;
use crate::http::Answer;

const JSON: &str = "application/json";

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

impl LogClient {
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
