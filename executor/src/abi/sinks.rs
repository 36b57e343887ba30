//! Where a guest's log lines and metric values go: bounded lists that outlive the instance.

use super::ErrorCode;
use crate::runtime::CallLimits;

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// 0
    Error,
    /// 1
    Warn,
    /// 2
    Info,
    /// 3
    Debug,
    /// 4
    Trace,
}

impl Level {
    const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// From the ABI's number.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }

    /// From the stable text.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }

    /// The stable text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// One log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Severity.
    pub level: Level,
    /// Text with control characters escaped.
    pub text: String,
}

/// One metric value.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricRecord {
    /// `[a-z_][a-z0-9_]*`, at most 64 bytes.
    pub name: String,
    /// A finite number.
    pub value: f64,
}

/// Values are finite, and so equal to themselves.
impl Eq for MetricRecord {}

/// Log lines of one call.
#[derive(Debug, Default)]
pub(crate) struct LogSink {
    records: Vec<LogRecord>,
    bytes: usize,
    dropped: u64,
}

impl LogSink {
    /// Keeps a line, or drops and counts it; the line, if it is kept. Logging never fails a guest.
    pub(crate) fn push(
        &mut self,
        limits: &CallLimits,
        level: Option<Level>,
        text: Result<&str, ErrorCode>,
    ) -> Option<&LogRecord> {
        let room = limits.log_bytes.saturating_sub(self.bytes);
        let has_room = |text: &str| self.records.len() < limits.log_lines && text.len() <= room;
        // Twice: escaping makes it longer, and is not begun for what has no room anyway.
        let kept = level.zip(text.ok().filter(|text| has_room(text)).map(escape));
        let Some((level, text)) = kept.filter(|(_, text)| has_room(text)) else {
            self.dropped = self.dropped.saturating_add(1);
            return None;
        };
        self.bytes += text.len();
        self.records.push(LogRecord { level, text });
        self.records.last()
    }

    /// Counts lines that a worker dropped.
    pub(crate) fn drop_more(&mut self, lines: u64) {
        self.dropped = self.dropped.saturating_add(lines);
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) fn into_records(self) -> Vec<LogRecord> {
        self.records
    }
}

/// Control characters could move a terminal's cursor or forge a second log line.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Metric values of one call.
#[derive(Debug, Default)]
pub(crate) struct MetricSink(Vec<MetricRecord>);

impl MetricSink {
    pub(crate) fn record(&mut self, limits: &CallLimits, name: &str, value: f64) -> Result<(), ErrorCode> {
        super::short_enough(name, super::MAX_NAME_BYTES)?;
        let mut bytes = name.bytes();
        let starts = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
        let grammar = starts
            && name.len() <= 64
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !grammar || !value.is_finite() {
            return Err(ErrorCode::InvalidArgument);
        }
        if self.0.len() >= limits.metrics {
            return Err(ErrorCode::Limit);
        }
        self.0.push(MetricRecord { name: name.to_owned(), value });
        Ok(())
    }

    pub(crate) fn into_records(self) -> Vec<MetricRecord> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_cannot_forge_others() {
        let mut sink = LogSink::default();
        let limits = CallLimits::default();
        sink.push(&limits, Some(Level::Info), Ok("a\nERROR b\u{1b}[2J"));
        assert_eq!(sink.into_records()[0].text, "a\\nERROR b\\u{1b}[2J");
    }

    #[test]
    fn a_log_flood_is_dropped_and_counted() {
        let mut sink = LogSink::default();
        let limits = CallLimits { log_lines: 2, log_bytes: 10, ..CallLimits::default() };
        sink.push(&limits, Some(Level::Info), Ok("12345"));
        sink.push(&limits, Some(Level::Info), Ok("123456"));
        sink.push(&limits, Some(Level::Info), Ok("12345"));
        sink.push(&limits, Some(Level::Info), Ok(""));
        sink.push(&limits, Level::from_code(5), Ok(""));
        assert_eq!((sink.dropped(), sink.into_records().len()), (3, 2));
    }

    #[test]
    fn metrics_take_finite_values_under_plain_names() {
        let limits = CallLimits { metrics: 1, ..CallLimits::default() };
        let mut sink = MetricSink::default();
        for (name, value) in
            [("a", f64::NAN), ("a", f64::INFINITY), ("", 1.0), ("A", 1.0), ("a{b}", 1.0), ("0a", 1.0)]
        {
            assert_eq!(sink.record(&limits, name, value), Err(ErrorCode::InvalidArgument), "{name}");
        }
        assert_eq!(sink.record(&limits, "words_total", 3.0), Ok(()));
        assert_eq!(sink.record(&limits, "b", 3.0), Err(ErrorCode::Limit));
    }
}
