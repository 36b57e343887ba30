//! A pipeline: agents that run one after the other, each on what those before it put out.
//!
//! The document is what `module` names in a manifest with `runtime: pipeline`: its bytes are hashed, stated, signed and logged as
//! those of a module are, so that one signed manifest vouches for the composition. It names its steps by agent id and module
//! digest and gives them nothing: each step is admitted, and granted, by its own manifest. `docs/formats/pipeline.md` is the
//! format.
//!
//! In scope: the document, its rules, and how the outputs of several steps become one input. Out of scope: running anything.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::jcs;
use crate::json::{self, Value};
use crate::manifest::AgentId;

/// Media type of the document.
pub const MEDIA_TYPE: &str = "application/vnd.mentat.pipeline.v1+json";
/// The only value of the member `format`.
pub const FORMAT: &str = "mentat-pipeline-v1";
/// Largest document, bytes: room for [`MAX_STEPS`] steps that are each after all those before them.
pub const MAX_PIPELINE_BYTES: usize = 64 << 10;
/// Most steps.
pub const MAX_STEPS: usize = 32;
/// Longest name of a step, bytes.
pub const MAX_NAME: usize = 64;
/// Longest time of one attempt of a step, milliseconds.
pub const MAX_TIMEOUT_MS: u32 = 600_000;
/// What a step has if its text form says nothing, milliseconds.
pub const DEFAULT_TIMEOUT_MS: u32 = 5_000;
/// Most further attempts of a step.
pub const MAX_RETRIES: u8 = 3;

/// A valid pipeline: at least one step, no cycle, and one last step that everything leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    name: String,
    agent: AgentId,
    module: [u8; 32],
    after: Vec<usize>,
    timeout_ms: u32,
    repetition: Repetition,
}

/// Whether a step that failed may run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// Running it twice is as good as once.
    Idempotent {
        /// Further attempts, at most [`MAX_RETRIES`].
        retries: u8,
    },
    /// It runs once.
    Never,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    steps: Vec<StepDocument>,
}

/// The members in alphabetical order, so that what is written is canonical.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepDocument {
    #[serde(default)]
    after: Vec<String>,
    agent: String,
    #[serde(default)]
    idempotent: bool,
    module: String,
    name: String,
    #[serde(default)]
    retries: u8,
    #[serde(default = "default_timeout")]
    timeout_ms: u32,
}

const fn default_timeout() -> u32 {
    DEFAULT_TIMEOUT_MS
}

impl Pipeline {
    /// Reads the document. Only its canonical form is read: every member is there, nothing stands between them.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over [`MAX_PIPELINE_BYTES`] or [`MAX_STEPS`]; [`Error::Unsupported`] for another `format`;
    /// [`Error::Malformed`] for an unknown or missing member, a name, digest or number outside its grammar, a step that is after
    /// one that does not stand before it (so no cycle can be written), steps that do not all lead to the last one, and any other
    /// form of the same document.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Error> {
        let document: Document = json::parse("pipeline", bytes, MAX_PIPELINE_BYTES)?;
        let pipeline = Self::from_document(document)?;
        if pipeline.to_json()? != bytes {
            return Err(malformed(
                "the JSON is not in canonical form: every member, in alphabetical order, without spaces",
            ));
        }
        Ok(pipeline)
    }

    /// Types a model in which members that have a default (`after`: none, `idempotent`: no, `retries`: 0, `timeout_ms`:
    /// [`DEFAULT_TIMEOUT_MS`]) may be missing, as people write it.
    ///
    /// # Errors
    /// As [`Pipeline::from_json`], but for the form.
    pub fn from_value(model: &Value) -> Result<Self, Error> {
        let canonical = jcs::canonicalize(model)?;
        Self::from_document(json::parse("pipeline", &canonical, MAX_PIPELINE_BYTES)?)
    }

    fn from_document(document: Document) -> Result<Self, Error> {
        if document.format != FORMAT {
            return Err(Error::unsupported(
                "pipeline",
                format!("another format; this version reads {FORMAT}"),
            ));
        }
        if document.steps.len() > MAX_STEPS {
            return Err(Error::TooLarge { what: "list of steps", limit: MAX_STEPS });
        }
        let mut steps: Vec<Step> = Vec::with_capacity(document.steps.len());
        for step in document.steps {
            let step = step.after(&steps)?;
            steps.push(step);
        }
        let (Some(last), earlier) = (steps.last(), steps.len().saturating_sub(1)) else {
            return Err(malformed("it has no step"));
        };
        let leads_on = |index: usize| steps.iter().any(|step| step.after.contains(&index));
        if let Some(stray) = (0..earlier).find(|index| !leads_on(*index)).and_then(|index| steps.get(index)) {
            let (stray, last) = (&stray.name, &last.name);
            return Err(malformed(format!(
                "nothing is after the step `{stray}`; every step leads to the last one, `{last}`"
            )));
        }
        Ok(Self { steps })
    }

    /// The document's bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for steps whose names take more than [`MAX_PIPELINE_BYTES`].
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        let steps = self.steps.iter().map(|step| StepDocument::of(step, &self.steps)).collect();
        let bytes = json::write("pipeline", &Document { format: FORMAT.to_owned(), steps })?;
        if bytes.len() > MAX_PIPELINE_BYTES {
            return Err(Error::TooLarge { what: "pipeline", limit: MAX_PIPELINE_BYTES });
        }
        Ok(bytes)
    }

    /// The steps in the order in which they run. The last one's output is the pipeline's.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Index of the last step that needs the output of this one; `None` for the output of the pipeline, and past the end.
    pub fn last_use(&self, index: usize) -> Option<usize> {
        self.steps.iter().rposition(|step| step.after.contains(&index))
    }
}

impl Step {
    /// Its name, unique in the pipeline.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Agent id of the release that it runs.
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// SHA-256 of that release's module.
    pub fn module(&self) -> &[u8; 32] {
        &self.module
    }

    /// Indices of the steps whose outputs are its input, in this order; none: its input is that of the pipeline.
    pub fn after(&self) -> &[usize] {
        &self.after
    }

    /// Wall time of one attempt, milliseconds.
    pub fn timeout_ms(&self) -> u32 {
        self.timeout_ms
    }

    /// Whether it may run again.
    pub fn repetition(&self) -> Repetition {
        self.repetition
    }
}

impl Repetition {
    /// Most attempts.
    pub fn attempts(self) -> u32 {
        match self {
            Self::Idempotent { retries } => 1 + u32::from(retries),
            Self::Never => 1,
        }
    }
}

impl StepDocument {
    fn of(step: &Step, steps: &[Step]) -> Self {
        let (idempotent, retries) = match step.repetition {
            Repetition::Idempotent { retries } => (true, retries),
            Repetition::Never => (false, 0),
        };
        Self {
            after: step
                .after
                .iter()
                .filter_map(|index| steps.get(*index))
                .map(|step| step.name.clone())
                .collect(),
            agent: step.agent.as_str().to_owned(),
            idempotent,
            module: hex::encode(step.module),
            name: step.name.clone(),
            retries,
            timeout_ms: step.timeout_ms,
        }
    }

    /// The step behind these.
    fn after(self, earlier: &[Step]) -> Result<Step, Error> {
        if !is_name(&self.name) {
            let rule = "a name is a-z, 0-9, `-` and `_`, at most 64 bytes, and begins with a letter or digit";
            return Err(malformed(format!("the name of step {}: {rule}", earlier.len() + 1)));
        }
        let name = self.name;
        let of_step = |detail: &str| malformed(format!("step `{name}`: {detail}"));
        if earlier.iter().any(|step| step.name == name) {
            return Err(of_step("another step has this name"));
        }
        let agent = AgentId::new(&self.agent).ok_or_else(|| of_step("`agent` is no agent id"))?;
        let mut module = [0; 32];
        let lower = !self.module.bytes().any(|byte| byte.is_ascii_uppercase());
        if !lower || hex::decode_to_slice(&self.module, &mut module).is_err() {
            return Err(of_step("`module` is 64 hexadecimal digits in lower case"));
        }
        let mut after = Vec::with_capacity(self.after.len().min(earlier.len()));
        for other in &self.after {
            let index = earlier
                .iter()
                .position(|step| step.name == *other)
                .ok_or_else(|| of_step("it is after a step that does not stand before it"))?;
            if after.contains(&index) {
                return Err(of_step("it is after one step twice"));
            }
            after.push(index);
        }
        if !(1..=MAX_TIMEOUT_MS).contains(&self.timeout_ms) {
            return Err(of_step("`timeout_ms` is 1 to 600000"));
        }
        let repetition = match (self.idempotent, self.retries) {
            (true, retries) if retries <= MAX_RETRIES => Repetition::Idempotent { retries },
            (true, _) => return Err(of_step("`retries` is at most 3")),
            (false, 0) => Repetition::Never,
            (false, _) => return Err(of_step("only what is idempotent has `retries`")),
        };
        Ok(Step { name, agent, module, after, timeout_ms: self.timeout_ms, repetition })
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

/// Length of what [`join`] makes of parts of these lengths; `None` past what fits `usize`.
pub fn joined_length(parts: &[usize]) -> Option<usize> {
    match parts {
        [only] => Some(*only),
        many => many.iter().try_fold(0_usize, |sum, part| sum.checked_add(8)?.checked_add(*part)),
    }
}

/// The input of a step that is after these outputs: the output itself where it is one, else each of them behind its length (8
/// bytes, little-endian), in the order of `after`.
pub fn join(parts: &[&[u8]]) -> Vec<u8> {
    match parts {
        [only] => only.to_vec(),
        many => {
            let mut joined = Vec::with_capacity(many.iter().map(|part| 8 + part.len()).sum());
            for part in many {
                joined.extend_from_slice(&(part.len() as u64).to_le_bytes());
                joined.extend_from_slice(part);
            }
            joined
        }
    }
}

fn malformed(detail: impl Into<String>) -> Error {
    Error::malformed("pipeline", detail)
}

#[cfg(test)]
mod tests;
