//! What the executor and one worker process for guests say to each other.
//!
//! A worker runs modules of one signer that is not trusted (docs/adr/0036-workers-by-signer.md). Whatever it sends was
//! perhaps written by a guest that broke out of its sandbox: [`Report`] and [`FromWorker`] are read as hostile bytes, and the
//! reader says how many it takes before it allocates any.
//!
//! ```text
//! frame    = length(u32) body                                   on every socket but that of stops; length is of the body
//! body     = tag(u8) fields                                     integers are little-endian
//! blob     = length(u32) bytes                                  a text is a blob of UTF-8
//! control  : Order  to the worker, Report from it
//! lane     : ToWorker to it, FromWorker from it; one call at a time, answers in the order of questions
//! stops    : StopOrder to the worker, 11 bytes each
//! ```

use crate::fields::Fields;
use crate::job::ModuleKind;
use crate::{FormatError, Profile, limits};

mod lane;
mod mechanism;

pub use lane::{Ask, CallOrder, End, Ended, FromWorker, Lines, ToWorker, Trial, put_pairs, take_pairs};
pub use mechanism::{Act, Mechanism};

/// Largest body of any frame: an input, an output or a media object, and room for what stands beside it.
pub const MAX_FRAME: usize = limits::MAX_MODULE_BYTES + OVERHEAD;

/// Room for everything in a frame besides its one large field, bytes.
pub const OVERHEAD: usize = 512 << 10;

/// Most grants of one module.
const MAX_GRANTS: usize = 4096;

/// The length of a frame's body, if it is at most `max`.
///
/// # Errors
///
/// When it is longer, or empty.
pub fn body_length(head: [u8; 4], max: usize) -> Result<usize, FormatError> {
    let length = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if length == 0 || length > max.min(MAX_FRAME) {
        Err(FormatError::Field { field: "length" })
    } else {
        Ok(length)
    }
}

/// The bytes of a frame.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + body.len());
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(body);
    out
}

/// Limits of every call of one module; microseconds, bytes and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuestLimits {
    /// Bytes of all memories.
    pub memory: u64,
    /// Bytes of scratch files.
    pub scratch: u64,
    /// Table elements.
    pub table_elements: u64,
    /// Core instances, tables and memories of one store.
    pub instances: u64,
    /// Processor time.
    pub cpu_us: u64,
    /// Wall time.
    pub wall_us: u64,
    /// Bytes of input.
    pub input: u64,
    /// Bytes of output.
    pub output: u64,
    /// Bytes of all streams together.
    pub streamed: u64,
    /// Log lines.
    pub log_lines: u64,
    /// Bytes of log text.
    pub log_bytes: u64,
    /// Metric records.
    pub metrics: u64,
    /// Live handles.
    pub handles: u64,
    /// Bytes of one host call's values.
    pub hostcall_bytes: u64,
    /// Fuel.
    pub fuel: u64,
    /// Log lines in a second.
    pub log_lines_per_second: u64,
    /// Bytes of log text in a second.
    pub log_bytes_per_second: u64,
    /// Metric records in a second.
    pub metrics_per_second: u64,
}

impl GuestLimits {
    fn put(&self, out: &mut Vec<u8>) {
        for value in [
            self.memory,
            self.scratch,
            self.table_elements,
            self.instances,
            self.cpu_us,
            self.wall_us,
            self.input,
            self.output,
            self.streamed,
            self.log_lines,
            self.log_bytes,
            self.metrics,
            self.handles,
            self.hostcall_bytes,
            self.fuel,
            self.log_lines_per_second,
            self.log_bytes_per_second,
            self.metrics_per_second,
        ] {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }

    fn take(fields: &mut Fields<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            memory: fields.u64()?,
            scratch: fields.u64()?,
            table_elements: fields.u64()?,
            instances: fields.u64()?,
            cpu_us: fields.u64()?,
            wall_us: fields.u64()?,
            input: fields.u64()?,
            output: fields.u64()?,
            streamed: fields.u64()?,
            log_lines: fields.u64()?,
            log_bytes: fields.u64()?,
            metrics: fields.u64()?,
            handles: fields.u64()?,
            hostcall_bytes: fields.u64()?,
            fuel: fields.u64()?,
            log_lines_per_second: fields.u64()?,
            log_bytes_per_second: fields.u64()?,
            metrics_per_second: fields.u64()?,
        })
    }
}

/// What the executor tells a worker on the control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order<'a> {
    /// The first one. The socket of stops and those of the lanes come with it as descriptors.
    Begin {
        /// Engine settings.
        profile: Profile,
        /// Slots of the pool.
        slots: u32,
        /// Calls at the same time.
        lanes: u16,
        /// Bytes of memory that the process may write to.
        memory: u64,
        /// What to try instead of serving.
        probe: Option<Act>,
    },
    /// Map a module; its sealed machine code comes with it as a descriptor.
    Load {
        /// By which calls name it.
        module: u64,
        /// Bytes of machine code.
        length: u64,
        /// What the machine code is of.
        kind: ModuleKind,
        /// Of its calls.
        limits: GuestLimits,
        /// Capabilities whose interfaces it may import; the executor decides again on every use.
        grants: Vec<&'a str>,
    },
    /// Forget a module.
    Unload {
        /// Which.
        module: u64,
    },
}

impl<'a> Order<'a> {
    /// The body of its frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Begin { profile, slots, lanes, memory, probe } => {
                out.push(1);
                out.push(profile.code());
                out.extend_from_slice(&slots.to_le_bytes());
                out.extend_from_slice(&lanes.to_le_bytes());
                out.extend_from_slice(&memory.to_le_bytes());
                out.push(probe.map_or(0, Act::code));
            }
            Self::Load { module, length, kind, limits, grants } => {
                out.push(2);
                out.extend_from_slice(&module.to_le_bytes());
                out.extend_from_slice(&length.to_le_bytes());
                out.push(kind.to_code());
                limits.put(&mut out);
                put_count(&mut out, grants.len());
                grants.iter().for_each(|grant| put_blob(&mut out, grant.as_bytes()));
            }
            Self::Unload { module } => {
                out.push(3);
                out.extend_from_slice(&module.to_le_bytes());
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
            1 => {
                let profile =
                    Profile::from_code(fields.u8()?).ok_or(FormatError::Field { field: "profile" })?;
                let slots = fields.array().map(u32::from_le_bytes)?;
                let lanes = fields.array().map(u16::from_le_bytes)?;
                let memory = fields.u64()?;
                let probe = match fields.u8()? {
                    0 => None,
                    code => Some(
                        Act::ALL
                            .into_iter()
                            .find(|act| act.code() == code)
                            .ok_or(FormatError::Field { field: "probe" })?,
                    ),
                };
                Ok(Self::Begin { profile, slots, lanes, memory, probe })
            }
            2 => {
                let (module, length) = (fields.u64()?, fields.u64()?);
                let kind = ModuleKind::from_code(fields.u8()?).ok_or(FormatError::Field { field: "kind" })?;
                let limits = GuestLimits::take(fields)?;
                let count = count(fields, "grants", MAX_GRANTS)?;
                let mut grants = Vec::new();
                for _ in 0..count {
                    grants.push(text(fields, "grant")?);
                }
                Ok(Self::Load { module, length, kind, limits, grants })
            }
            3 => Ok(Self::Unload { module: fields.u64()? }),
            _ => Err(FormatError::Field { field: "order" }),
        })
    }
}

/// What a worker says on the control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report<'a> {
    /// It is confined and serves.
    Ready,
    /// It is not confined, and ends.
    Refused {
        /// What is missing.
        mechanism: Mechanism,
        /// What the system said.
        detail: &'a str,
    },
    /// A module can be called.
    Loaded {
        /// Which.
        module: u64,
    },
    /// A module cannot be called.
    NotLoaded {
        /// Which.
        module: u64,
        /// Reason code.
        reason: &'a str,
        /// What it is about: the name of an import, for example.
        name: &'a str,
        /// More of it.
        detail: &'a str,
    },
}

impl<'a> Report<'a> {
    /// The body of its frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Ready => out.push(1),
            Self::Refused { mechanism, detail } => {
                out.extend_from_slice(&[2, mechanism.code()]);
                put_blob(&mut out, detail.as_bytes());
            }
            Self::Loaded { module } => {
                out.push(3);
                out.extend_from_slice(&module.to_le_bytes());
            }
            Self::NotLoaded { module, reason, name, detail } => {
                out.push(4);
                out.extend_from_slice(&module.to_le_bytes());
                [reason, name, detail].iter().for_each(|text| put_blob(&mut out, text.as_bytes()));
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
            1 => Ok(Self::Ready),
            2 => {
                let code = usize::from(fields.u8()?);
                let mechanism =
                    Mechanism::ALL.get(code).copied().ok_or(FormatError::Field { field: "mechanism" })?;
                Ok(Self::Refused { mechanism, detail: text(fields, "detail")? })
            }
            3 => Ok(Self::Loaded { module: fields.u64()? }),
            4 => Ok(Self::NotLoaded {
                module: fields.u64()?,
                reason: text(fields, "reason")?,
                name: text(fields, "name")?,
                detail: text(fields, "detail")?,
            }),
            _ => Err(FormatError::Field { field: "report" }),
        })
    }
}

/// Ends one call of a worker: 11 bytes on a socket of its own, so that nothing it waits for is in front of it. It is said once, and may
/// come before its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopOrder {
    /// The lane.
    pub lane: u16,
    /// The call on it; another one is not meant.
    pub call: u64,
    /// The cause, by its number.
    pub cause: u8,
}

impl StopOrder {
    /// Bytes of one.
    pub const SIZE: usize = 11;

    /// Its bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0u8; Self::SIZE];
        let bytes = self.lane.to_le_bytes().into_iter().chain(self.call.to_le_bytes()).chain([self.cause]);
        out.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        out
    }

    /// Reads one.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        let [l0, l1, c0, c1, c2, c3, c4, c5, c6, c7, cause] = *bytes;
        let call = u64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
        Self { lane: u16::from_le_bytes([l0, l1]), call, cause }
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
}

fn put_blob(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn count(fields: &mut Fields<'_>, field: &'static str, max: usize) -> Result<usize, FormatError> {
    let count = usize::from(fields.array().map(u16::from_le_bytes)?);
    if count > max { Err(FormatError::Field { field }) } else { Ok(count) }
}

fn blob<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], FormatError> {
    let length = fields.array().map(u32::from_le_bytes)?;
    fields.bytes(usize::try_from(length).unwrap_or(usize::MAX))
}

fn text<'a>(fields: &mut Fields<'a>, field: &'static str) -> Result<&'a str, FormatError> {
    core::str::from_utf8(blob(fields)?).map_err(|_| FormatError::Field { field })
}

/// Reads a value that ends where its bytes end.
fn whole<'a, T>(
    body: &'a [u8],
    read: impl FnOnce(&mut Fields<'a>) -> Result<T, FormatError>,
) -> Result<T, FormatError> {
    let mut fields = Fields::new(body);
    let value = read(&mut fields)?;
    match fields.offset() {
        offset if offset == body.len() => Ok(value),
        offset => Err(FormatError::Trailing { offset }),
    }
}

#[cfg(test)]
mod tests;
