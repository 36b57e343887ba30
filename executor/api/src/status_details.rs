//! Details of a gRPC status: what a guest said before its call ended without a result, and when to ask again.
//!
//! `grpc-status-details-bin` holds a `google.rpc.Status`, whose details are `google.protobuf.Any`. They are a few fields, and
//! none of them changes any more.

use prost::Message as _;

use crate::v1;

/// Names of the types of the details that there are.
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
const FAILED_CALL: &str = "type.googleapis.com/mentat.executor.v1.FailedCall";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`, of whole seconds.
#[derive(Clone, PartialEq, prost::Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

/// What a status says besides its code and message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// What the guest of a failed call said.
    pub failed: Option<v1::FailedCall>,
    /// Seconds after which the same request may be answered otherwise.
    pub retry_after: Option<u32>,
}

impl Details {
    /// The details of a status with this code and message; nothing where there is nothing to say.
    #[must_use]
    pub fn encode(&self, code: i32, message: &str) -> Option<Vec<u8>> {
        let failed = self.failed.as_ref().map(|failed| any(FAILED_CALL, failed));
        let retry = self.retry_after.map(|seconds| {
            any(RETRY_INFO, &RetryInfo { retry_delay: Some(Delay { seconds: seconds.into() }) })
        });
        let details: Vec<Any> = failed.into_iter().chain(retry).collect();
        let status = RpcStatus { code, message: message.to_owned(), details };
        (!status.details.is_empty()).then(|| status.encode_to_vec())
    }

    /// Reads them; what is not understood is not there.
    #[must_use]
    pub fn decode(details: &[u8]) -> Self {
        let Ok(status) = RpcStatus::decode(details) else { return Self::default() };
        let value = |kind| status.details.iter().find(|detail| detail.type_url == kind);
        let delay =
            value(RETRY_INFO).and_then(|retry| RetryInfo::decode(retry.value.as_slice()).ok()?.retry_delay);
        Self {
            failed: value(FAILED_CALL)
                .and_then(|failed| v1::FailedCall::decode(failed.value.as_slice()).ok()),
            retry_after: delay.and_then(|delay| u32::try_from(delay.seconds).ok()),
        }
    }
}

fn any(kind: &str, message: &impl prost::Message) -> Any {
    Any { type_url: kind.to_owned(), value: message.encode_to_vec() }
}

/// What the guest of a failed call said, if the details of the status tell.
#[must_use]
pub fn failed_call(details: &[u8]) -> Option<v1::FailedCall> {
    Details::decode(details).failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_frozen_and_read_back() {
        let log = vec![v1::LogLine { level: "info".into(), text: "t".into() }];
        let failed = v1::FailedCall { instance_id: "7".into(), log, ..Default::default() };
        let details = Details { failed: Some(failed.clone()), retry_after: None };
        let bytes = details.encode(10, "m").unwrap();
        let value = b"\x0a\x017\x12\x09\x0a\x04info\x12\x01t";
        let mut expected = b"\x08\x0a\x12\x01m\x1a\x43\x0a\x31".to_vec();
        expected.extend(FAILED_CALL.as_bytes());
        expected.extend([0x12, value.len() as u8]);
        expected.extend(value);
        assert_eq!(bytes, expected);
        assert_eq!(failed_call(&bytes), Some(failed.clone()));
        assert_eq!((failed_call(b""), failed_call(&[0xff; 9])), (None, None));
        let both = Details { failed: Some(failed), retry_after: Some(300) };
        assert_eq!(Details::decode(&both.encode(8, "m").unwrap()), both);
        let later = Details { failed: None, retry_after: Some(300) }.encode(8, "m").unwrap();
        let mut expected = b"\x08\x08\x12\x01m\x1a\x31\x0a\x28".to_vec();
        expected.extend(RETRY_INFO.as_bytes());
        expected.extend(b"\x12\x05\x0a\x03\x08\xac\x02");
        assert_eq!(later, expected);
        assert_eq!((Details::default().encode(5, "m"), Details::decode(b"")), (None, Details::default()));
    }
}
