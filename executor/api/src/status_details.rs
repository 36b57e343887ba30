//! Details of a gRPC status: what a guest said before its call ended without a result.
//!
//! `grpc-status-details-bin` holds a `google.rpc.Status`, whose details are `google.protobuf.Any`. Both are three fields, and
//! neither changes any more.

use prost::Message as _;

use crate::v1;

/// Name of the type of the one detail that there is.
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

/// The details of a status with this code and message.
#[must_use]
pub fn of_failed_call(code: i32, message: &str, failed: &v1::FailedCall) -> Vec<u8> {
    let detail = Any { type_url: FAILED_CALL.to_owned(), value: failed.encode_to_vec() };
    RpcStatus { code, message: message.to_owned(), details: vec![detail] }.encode_to_vec()
}

/// What the guest of a failed call said, if the details of the status tell.
#[must_use]
pub fn failed_call(details: &[u8]) -> Option<v1::FailedCall> {
    let status = RpcStatus::decode(details).ok()?;
    let detail = status.details.iter().find(|detail| detail.type_url == FAILED_CALL)?;
    v1::FailedCall::decode(detail.value.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_frozen_and_read_back() {
        let log = vec![v1::LogLine { level: "info".into(), text: "t".into() }];
        let failed = v1::FailedCall { instance_id: "7".into(), log, ..Default::default() };
        let bytes = of_failed_call(10, "m", &failed);
        let value = b"\x0a\x017\x12\x09\x0a\x04info\x12\x01t";
        let mut expected = b"\x08\x0a\x12\x01m\x1a\x43\x0a\x31".to_vec();
        expected.extend(FAILED_CALL.as_bytes());
        expected.extend([0x12, value.len() as u8]);
        expected.extend(value);
        assert_eq!(bytes, expected);
        assert_eq!(failed_call(&bytes), Some(failed));
        assert_eq!((failed_call(b""), failed_call(&[0xff; 9])), (None, None));
    }
}
