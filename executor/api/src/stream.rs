//! A call whose streams are read over HTTP: JSON lines (`application/x-ndjson`), one event a line.

use serde::{Deserialize, Serialize};

use crate::{Base64Bytes, Denied, Executed};

/// One line. `result` or `error` is the last one; an answer that ends with neither broke off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum StreamLine {
    /// A piece of a stream.
    Data {
        /// Name of the stream.
        stream: String,
        /// From 0 up, without gaps.
        sequence: u64,
        /// The piece.
        chunk: Base64Bytes,
    },
    /// No further pieces of a stream.
    End {
        /// Name of the stream.
        stream: String,
        /// How many there were.
        total_chunks: u64,
    },
    /// The call has no result.
    Error(Denied),
    /// The call has one.
    Result(Box<Executed>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_frozen() {
        let lines = [
            StreamLine::Data { stream: "s".into(), sequence: 0, chunk: Base64Bytes(b"hi".to_vec()) },
            StreamLine::End { stream: "s".into(), total_chunks: 1 },
            StreamLine::Error(Denied { step: 12, reason: "revoked".into(), message: "m".into() }),
        ];
        let texts = lines.map(|line| serde_json::to_string(&line).unwrap());
        assert_eq!(
            texts,
            [
                r#"{"event":"data","stream":"s","sequence":0,"chunk":"aGk="}"#,
                r#"{"event":"end","stream":"s","total_chunks":1}"#,
                r#"{"event":"error","step":12,"reason":"revoked","message":"m"}"#,
            ]
        );
    }
}
