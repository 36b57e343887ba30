//! A call whose streams are read over HTTP: JSON lines (`application/x-ndjson`), one event a line.

use serde::{Deserialize, Serialize};

use crate::{Base64Bytes, Executed, FailedCall, LogLine};

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
    Error(FailedCall),
    /// A line of the guest's log, when it logs it. The result has all of them once more.
    Log(LogLine),
    /// Lines of its log for which a slow reader left no room: they are in the result only.
    Missed {
        /// How many.
        log_lines: u64,
    },
    /// The call has one.
    Result(Box<Executed>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Metric, Said};

    fn failed(said: Said) -> StreamLine {
        StreamLine::Error(FailedCall { step: 12, reason: "revoked".into(), message: "m".into(), said })
    }

    #[test]
    fn the_form_is_frozen() {
        let said = Said {
            instance_id: "7".into(),
            log: vec![LogLine { level: "error".into(), text: "t".into() }],
            metrics: vec![Metric { name: "n".into(), value: 1.0 }],
        };
        let lines = [
            StreamLine::Data { stream: "s".into(), sequence: 0, chunk: Base64Bytes(b"hi".to_vec()) },
            StreamLine::End { stream: "s".into(), total_chunks: 1 },
            failed(Said::default()),
            failed(said),
            StreamLine::Log(LogLine { level: "info".into(), text: "t".into() }),
            StreamLine::Missed { log_lines: 3 },
        ];
        for line in &lines {
            let text = serde_json::to_string(line).unwrap();
            assert_eq!(&serde_json::from_str::<StreamLine>(&text).unwrap(), line);
        }
        let texts = lines.map(|line| serde_json::to_string(&line).unwrap());
        assert_eq!(
            texts,
            [
                r#"{"event":"data","stream":"s","sequence":0,"chunk":"aGk="}"#,
                r#"{"event":"end","stream":"s","total_chunks":1}"#,
                r#"{"event":"error","step":12,"reason":"revoked","message":"m"}"#,
                concat!(
                    r#"{"event":"error","step":12,"reason":"revoked","message":"m","instance_id":"7","#,
                    r#""log":[{"level":"error","text":"t"}],"metrics":[{"name":"n","value":1.0}]}"#
                ),
                r#"{"event":"log","level":"info","text":"t"}"#,
                r#"{"event":"missed","log_lines":3}"#,
            ]
        );
    }
}
