//! A call whose streams are read over HTTP: JSON lines (`application/x-ndjson`), one event a line.

use serde::{Deserialize, Serialize};

use crate::{Base64Bytes, Executed, FailedCall, LogLine};

/// One line, with the number that it has in a call that can be read on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// What it says.
    #[serde(flatten)]
    pub line: StreamLine,
    /// From 0 up, without gaps; `begun` and `gap` have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
}

impl From<StreamLine> for Line {
    fn from(line: StreamLine) -> Self {
        Self { line, number: None }
    }
}

/// What a line says. `result` or `error` is the last one; an answer that ends with neither broke off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum StreamLine {
    /// First line of a resumable call: by which name it is read on.
    Begun {
        /// 32 hexadecimal digits.
        stream_id: String,
    },
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
    /// Events that would stand here and are kept no longer.
    Gap {
        /// How many.
        events: u64,
    },
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
    fn a_number_stands_behind_what_the_line_says() {
        let said = Said { instance_id: "7".into(), ..Said::default() };
        let numbered = |line, number| Line { line, number: Some(number) };
        let lines = [
            Line::from(StreamLine::Begun { stream_id: "00ff".into() }),
            Line::from(StreamLine::Gap { events: 2 }),
            numbered(StreamLine::End { stream: "s".into(), total_chunks: 1 }, 2),
            numbered(StreamLine::Log(LogLine { level: "info".into(), text: "t".into() }), 3),
            numbered(failed(said), 4),
        ];
        for line in &lines {
            let text = serde_json::to_string(line).unwrap();
            assert_eq!(&serde_json::from_str::<Line>(&text).unwrap(), line);
        }
        assert_eq!(
            lines.map(|line| serde_json::to_string(&line).unwrap()),
            [
                r#"{"event":"begun","stream_id":"00ff"}"#,
                r#"{"event":"gap","events":2}"#,
                r#"{"event":"end","stream":"s","total_chunks":1,"number":2}"#,
                r#"{"event":"log","level":"info","text":"t","number":3}"#,
                r#"{"event":"error","step":12,"reason":"revoked","message":"m","instance_id":"7","number":4}"#,
            ]
        );
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
