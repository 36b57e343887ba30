//! Failures of a log as problem documents: the statuses of the write endpoints.

use http::StatusCode;
use log_store::Error;
use service::Problem;

use crate::admission::Refused;

/// Status of an entry that is too large: 413 on a raw log, 400 elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Oversize {
    /// 413.
    PayloadTooLarge,
    /// 400.
    BadRequest,
}

impl Oversize {
    /// For something longer than `limit` bytes.
    pub(crate) fn problem(self, limit: usize) -> Problem {
        match self {
            Self::PayloadTooLarge => Problem::too_large(limit as u64),
            Self::BadRequest => Problem::bad_request(
                "too_large",
                format!("longer than the {limit} bytes that are taken here"),
            ),
        }
    }
}

pub(crate) fn of_store(error: Error, oversize: Oversize) -> Problem {
    let text = error.to_string();
    match error {
        Error::Overloaded { retry_after } => {
            let seconds = u32::try_from(retry_after.as_secs()).unwrap_or(1).max(1);
            Problem::unavailable("overloaded", seconds).with_detail("the log is at capacity; retry later")
        }
        Error::Frozen => {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "frozen").with_detail(text).with_allow("GET, HEAD")
        }
        Error::TooLarge { limit, .. } => oversize.problem(limit),
        Error::NoWitnesses => Problem::bad_request("no_witnesses", text),
        Error::NotFound => Problem::not_found("the published log has no such entry, tile or tree size"),
        Error::Pending { .. } | Error::WitnessAhead { .. } | Error::WitnessQuorum(_) => {
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "not_acknowledged")
                .with_detail(text)
                .with_retry_after(1)
        }
        Error::ClockBehind { behind_millis } => {
            let seconds = u32::try_from(behind_millis.div_ceil(1000)).unwrap_or(1).max(1);
            Problem::unavailable("clock_behind", seconds)
                .with_detail("the log waits for its clock, which was set back; retry later")
                .with_internal(text)
        }
        Error::DiskFull { .. } => Problem::storage_full(text),
        Error::Stopped(_) | Error::Signer(_) | Error::ClockBackwards { .. } => {
            Problem::unavailable("log_stopped", 10)
                .with_detail("the log takes no entries now")
                .with_internal(text)
        }
        _ => Problem::internal(text),
    }
}

pub(crate) fn of_refused(refused: Refused) -> Problem {
    Problem::bad_request(refused.code, refused.detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_overload() {
        let full = of_store(Error::DiskFull { file: "/var/lib/log/entries".into() }, Oversize::BadRequest);
        assert_eq!((full.status(), full.code()), (StatusCode::INSUFFICIENT_STORAGE, "storage_full"));
        assert!(!full.detail().unwrap_or_default().contains("/var/lib"), "{full}");
        let stopped = of_store(Error::Stopped("disk".to_owned()), Oversize::BadRequest);
        assert_eq!((stopped.status().as_u16(), stopped.code()), (503, "log_stopped"));
    }

    #[test]
    fn a_log_at_capacity_asks_writers_to_come_back() {
        let retry_after = std::time::Duration::from_secs(7);
        let problem = of_store(Error::Overloaded { retry_after }, Oversize::BadRequest);
        let response = problem.to_response();
        assert_eq!((response.status().as_u16(), problem.code()), (503, "overloaded"));
        assert_eq!(response.headers()["retry-after"], "7");
    }
}
