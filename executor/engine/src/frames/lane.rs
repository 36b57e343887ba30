//! The conversation about one call.

use super::{blob, count, put_blob, put_count, text, whole};
use crate::FormatError;

/// Most log lines and metric records of one call.
const MAX_RECORDS: usize = 4096;

/// Whether a call calls the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// An instance is made and dropped.
    OnlyInstantiate,
    /// The guest is called.
    Call,
}

/// When lines of a guest's log are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// Each when it is logged, as [`FromWorker::Line`].
    AtOnce,
    /// All in [`Ended`].
    AtTheEnd,
}

/// One call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallOrder<'a> {
    /// Its number, by which it is stopped.
    pub call: u64,
    /// The module.
    pub module: u64,
    /// Whether the guest is called.
    pub trial: Trial,
    /// When its log lines are told.
    pub lines: Lines,
    /// Wall time that is left, microseconds.
    pub wall_us: u64,
    /// Its processor time, microseconds.
    pub cpu_us: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// What random numbers follow from in the deterministic profile.
    pub seed: [u8; 32],
    /// What the guest reads.
    pub input: &'a [u8],
}

/// What the executor says on a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToWorker<'a> {
    /// What a question was answered with: bytes, or an error number of the ABI.
    Answer(Result<&'a [u8], i32>),
    /// Run a guest.
    Call(CallOrder<'a>),
}

impl<'a> ToWorker<'a> {
    /// The body of its frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Answer(Ok(bytes)) => {
                out.push(1);
                put_blob(&mut out, bytes);
            }
            Self::Answer(Err(code)) => {
                out.push(2);
                out.extend_from_slice(&code.to_le_bytes());
            }
            Self::Call(CallOrder { call, module, trial, lines, wall_us, cpu_us, memory, seed, input }) => {
                out.push(3);
                out.extend_from_slice(&call.to_le_bytes());
                out.extend_from_slice(&module.to_le_bytes());
                out.push(match trial {
                    Trial::Call => 1,
                    Trial::OnlyInstantiate => 2,
                });
                out.push(match lines {
                    Lines::AtOnce => 1,
                    Lines::AtTheEnd => 2,
                });
                for number in [wall_us, cpu_us, memory] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                out.extend_from_slice(seed);
                put_blob(&mut out, input);
            }
        }
        out
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn decode(body: &'a [u8]) -> Result<Self, FormatError> {
        whole(body, |fields| match fields.u8()? {
            1 => Ok(Self::Answer(Ok(blob(fields)?))),
            2 => Ok(Self::Answer(Err(fields.array().map(i32::from_le_bytes)?))),
            3 => Ok(Self::Call(CallOrder {
                call: fields.u64()?,
                module: fields.u64()?,
                trial: match fields.u8()? {
                    1 => Trial::Call,
                    2 => Trial::OnlyInstantiate,
                    _ => return Err(FormatError::Field { field: "trial" }),
                },
                lines: match fields.u8()? {
                    1 => Lines::AtOnce,
                    2 => Lines::AtTheEnd,
                    _ => return Err(FormatError::Field { field: "lines" }),
                },
                wall_us: fields.u64()?,
                cpu_us: fields.u64()?,
                memory: fields.u64()?,
                seed: fields.array()?,
                input: blob(fields)?,
            })),
            _ => Err(FormatError::Field { field: "order" }),
        })
    }
}

/// What a guest wants that lies outside its sandbox. The executor decides on each, as for a guest of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask<'a> {
    /// A media object.
    Download {
        /// Its reference.
        reference: &'a str,
    },
    /// The end of a stream; answered with the number of its pieces.
    EndStream {
        /// Its number.
        stream: u64,
    },
    /// Granted variables; answered with names and values.
    Environment,
    /// The use of a capability.
    Invoke {
        /// Its text.
        capability: &'a str,
        /// What of it.
        operation: &'a str,
        /// With what.
        arguments: &'a [u8],
    },
    /// A new stream; answered with its number.
    OpenStream {
        /// Its name.
        id: &'a str,
    },
    /// A capability.
    Request {
        /// Its text.
        capability: &'a str,
    },
    /// To keep a media object; answered with its reference.
    Upload {
        /// Media type.
        media_type: &'a str,
        /// The object.
        bytes: &'a [u8],
    },
    /// A piece of a stream; answered when the reader has room again.
    WriteStream {
        /// Its number.
        stream: u64,
        /// The piece.
        bytes: &'a [u8],
    },
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End<'a> {
    /// The guest returned.
    Exit(i32),
    /// It did not.
    Failed {
        /// Reason code.
        reason: &'a str,
        /// More of it.
        detail: &'a str,
    },
}

/// A call that is over. Numbers are the worker's word and nothing more.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended<'a> {
    /// Which.
    pub call: u64,
    /// How.
    pub end: End<'a>,
    /// Largest total memory, bytes.
    pub memory: u64,
    /// Epoch ticks.
    pub ticks: u64,
    /// Fuel used.
    pub fuel: u64,
    /// Growths refused.
    pub refused_growths: u64,
    /// Log lines dropped.
    pub dropped_log_lines: u64,
    /// Log lines that came too fast; they were dropped.
    pub fast_lines: u64,
    /// Metric records that came too fast.
    pub fast_metrics: u64,
    /// What the guest wrote.
    pub output: &'a [u8],
    /// Log lines: the level's number and the text.
    pub log: Vec<(u8, &'a str)>,
    /// Metric records.
    pub metrics: Vec<(&'a str, f64)>,
}

/// What a worker says on a lane.
#[derive(Debug, Clone, PartialEq)]
pub enum FromWorker<'a> {
    /// A question; it waits for the answer.
    Ask(Ask<'a>),
    /// The call is over.
    Ended(Ended<'a>),
    /// A line of the guest's log; nothing is answered.
    Line {
        /// The level's number.
        level: u8,
        /// The text.
        text: &'a str,
    },
    /// Lines of the guest's log that would stand here and are not told; nothing is answered.
    Missed {
        /// How many.
        lines: u64,
    },
}

impl<'a> FromWorker<'a> {
    /// The body of its frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Ask(ask) => put_ask(&mut out, ask),
            Self::Ended(ended) => put_ended(&mut out, ended),
            Self::Line { level, text } => {
                out.extend_from_slice(&[10, *level]);
                put_blob(&mut out, text.as_bytes());
            }
            Self::Missed { lines } => {
                out.push(11);
                out.extend_from_slice(&lines.to_le_bytes());
            }
        }
        out
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn decode(body: &'a [u8]) -> Result<Self, FormatError> {
        whole(body, |fields| {
            let ask = match fields.u8()? {
                1 => Ask::Download { reference: text(fields, "reference")? },
                2 => Ask::EndStream { stream: fields.u64()? },
                3 => Ask::Environment,
                4 => Ask::Invoke {
                    capability: text(fields, "capability")?,
                    operation: text(fields, "operation")?,
                    arguments: blob(fields)?,
                },
                5 => Ask::OpenStream { id: text(fields, "id")? },
                6 => Ask::Request { capability: text(fields, "capability")? },
                7 => Ask::Upload { media_type: text(fields, "media_type")?, bytes: blob(fields)? },
                8 => Ask::WriteStream { stream: fields.u64()?, bytes: blob(fields)? },
                9 => return take_ended(fields).map(Self::Ended),
                10 => return Ok(Self::Line { level: fields.u8()?, text: text(fields, "line")? }),
                11 => return Ok(Self::Missed { lines: fields.u64()? }),
                _ => return Err(FormatError::Field { field: "question" }),
            };
            Ok(Self::Ask(ask))
        })
    }
}

/// The answer to [`Ask::Environment`].
pub fn put_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        put_blob(&mut out, name.as_bytes());
        put_blob(&mut out, value.as_bytes());
    }
    out
}

/// Reads it.
///
/// # Errors
///
/// When it is none.
pub fn take_pairs(bytes: &[u8]) -> Result<Vec<(String, String)>, FormatError> {
    whole(bytes, |fields| {
        let mut pairs = Vec::new();
        while fields.offset() < bytes.len() {
            pairs.push((text(fields, "name")?.to_owned(), text(fields, "value")?.to_owned()));
        }
        Ok(pairs)
    })
}

fn put_ask(out: &mut Vec<u8>, ask: &Ask<'_>) {
    match ask {
        Ask::Download { reference } => {
            out.push(1);
            put_blob(out, reference.as_bytes());
        }
        Ask::EndStream { stream } => {
            out.push(2);
            out.extend_from_slice(&stream.to_le_bytes());
        }
        Ask::Environment => out.push(3),
        Ask::Invoke { capability, operation, arguments } => {
            out.push(4);
            put_blob(out, capability.as_bytes());
            put_blob(out, operation.as_bytes());
            put_blob(out, arguments);
        }
        Ask::OpenStream { id } => {
            out.push(5);
            put_blob(out, id.as_bytes());
        }
        Ask::Request { capability } => {
            out.push(6);
            put_blob(out, capability.as_bytes());
        }
        Ask::Upload { media_type, bytes } => {
            out.push(7);
            put_blob(out, media_type.as_bytes());
            put_blob(out, bytes);
        }
        Ask::WriteStream { stream, bytes } => {
            out.push(8);
            out.extend_from_slice(&stream.to_le_bytes());
            put_blob(out, bytes);
        }
    }
}

fn put_ended(out: &mut Vec<u8>, ended: &Ended<'_>) {
    out.push(9);
    out.extend_from_slice(&ended.call.to_le_bytes());
    match ended.end {
        End::Exit(code) => {
            out.push(1);
            out.extend_from_slice(&code.to_le_bytes());
        }
        End::Failed { reason, detail } => {
            out.push(2);
            put_blob(out, reason.as_bytes());
            put_blob(out, detail.as_bytes());
        }
    }
    let refused = [ended.refused_growths, ended.dropped_log_lines, ended.fast_lines, ended.fast_metrics];
    for number in [ended.memory, ended.ticks, ended.fuel].into_iter().chain(refused) {
        out.extend_from_slice(&number.to_le_bytes());
    }
    put_blob(out, ended.output);
    put_count(out, ended.log.len());
    for (level, line) in &ended.log {
        out.push(*level);
        put_blob(out, line.as_bytes());
    }
    put_count(out, ended.metrics.len());
    for (name, value) in &ended.metrics {
        put_blob(out, name.as_bytes());
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

fn take_ended<'a>(fields: &mut crate::fields::Fields<'a>) -> Result<Ended<'a>, FormatError> {
    let call = fields.u64()?;
    let end = match fields.u8()? {
        1 => End::Exit(fields.array().map(i32::from_le_bytes)?),
        2 => End::Failed { reason: text(fields, "reason")?, detail: text(fields, "detail")? },
        _ => return Err(FormatError::Field { field: "end" }),
    };
    let (memory, ticks, fuel) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let (refused_growths, dropped_log_lines) = (fields.u64()?, fields.u64()?);
    let (fast_lines, fast_metrics) = (fields.u64()?, fields.u64()?);
    let output = blob(fields)?;
    let lines = count(fields, "log", MAX_RECORDS)?;
    let mut log = Vec::new();
    for _ in 0..lines {
        log.push((fields.u8()?, text(fields, "line")?));
    }
    let records = count(fields, "metrics", MAX_RECORDS)?;
    let mut metrics = Vec::new();
    for _ in 0..records {
        metrics.push((text(fields, "name")?, f64::from_bits(fields.u64()?)));
    }
    Ok(Ended {
        call,
        end,
        memory,
        ticks,
        fuel,
        refused_growths,
        dropped_log_lines,
        fast_lines,
        fast_metrics,
        output,
        log,
        metrics,
    })
}
