//! Containers: the seam behind which an engine for them would be.
//!
//! What a manifest with a container's runtime releases is an image by its digest. It is verified, and judged by the same policy, as
//! every module is; then a [`ContainerBackend`] runs it. This executor has none that runs anything: [`NoEngine`] refuses and names
//! what is missing, and nothing falls back to something else in either direction.

use std::sync::Arc;

use bytes::Bytes;
use trust_store::manifest::{ImageReference, Runtime};

use crate::admission::{AdmittedModule, Content, Denied};
use crate::clock;
use crate::runtime::{Call, CallError, CallLimits, Cancel, Ended, Outcome, Registration, Stop, Usage};

/// Runs images of containers.
pub trait ContainerBackend: Send + Sync {
    /// Whether images of this runtime can be run here. It is asked at every admission, before anything else of the backend is.
    ///
    /// # Errors
    ///
    /// What is missing, and what to do.
    fn available(&self, runtime: &Runtime) -> Result<(), EngineUnavailable>;

    /// Runs an image once, in a container of its own that is gone when this returns. Blocks.
    ///
    /// An implementation MUST run exactly the image of the digest, MUST keep the limits, and MUST end the container within 20
    /// milliseconds after [`Cancel::raised`] says so. It MUST NOT give the container anything that the call does not name:
    /// no network, no files, no environment.
    ///
    /// # Errors
    ///
    /// As a guest's: [`CallError`].
    fn run(&self, image: &AdmittedImage, call: ContainerCall<'_>) -> Result<ContainerOutcome, CallError>;
}

/// Why images cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the manifest asks for the container runtime `{runtime}`; {missing}")]
pub struct EngineUnavailable {
    /// The runtime, as the manifest writes it.
    pub runtime: String,
    /// What is missing, and what to do.
    pub missing: String,
}

impl From<EngineUnavailable> for Denied {
    fn from(unavailable: EngineUnavailable) -> Self {
        Self::new("container_engine_unavailable", unavailable.to_string())
    }
}

/// An image whose release was admitted. Only admission makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedImage {
    reference: ImageReference,
}

impl AdmittedImage {
    /// The image of an admitted release, if it is one.
    pub(crate) fn of(admitted: &AdmittedModule) -> Option<Self> {
        match admitted.content() {
            Content::Image(reference) => Some(Self { reference: reference.clone() }),
            Content::Module(_) | Content::Pipeline(_) => None,
        }
    }

    /// Name and digest: `name@sha256:…`.
    pub fn reference(&self) -> &ImageReference {
        &self.reference
    }
}

/// One call of an image.
#[derive(Debug)]
pub struct ContainerCall<'a> {
    /// Standard input.
    pub input: Bytes,
    /// What the container may use.
    pub limits: &'a CallLimits,
    /// By which it is ended.
    pub cancel: Cancel,
}

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerOutcome {
    /// Standard output.
    pub output: Vec<u8>,
    /// 0 is success.
    pub exit_code: i32,
    /// Largest memory, bytes; 0 where it is not known.
    pub memory_bytes: u64,
}

/// The backend of a build without an engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEngine;

impl ContainerBackend for NoEngine {
    fn available(&self, runtime: &Runtime) -> Result<(), EngineUnavailable> {
        let missing =
            "this executor has no container engine: build the agent as WebAssembly (`runtime: wasm`)";
        Err(EngineUnavailable { runtime: runtime.as_str().to_owned(), missing: missing.to_owned() })
    }

    fn run(&self, image: &AdmittedImage, _: ContainerCall<'_>) -> Result<ContainerOutcome, CallError> {
        Err(CallError::Host { detail: format!("no container engine runs {}", image.reference()) })
    }
}

/// An admitted image with what runs it.
#[derive(Clone)]
pub(crate) struct ContainerImage {
    pub(crate) image: AdmittedImage,
    pub(crate) backend: Arc<dyn ContainerBackend>,
}

impl ContainerImage {
    /// Runs the image once. Blocks. The call stays in the list of what can be stopped until its container is gone.
    pub(crate) fn run(&self, limits: CallLimits, call: Call, registration: Registration) -> Ended {
        let began = clock::monotonic();
        let limits = limits.lowered(call.lowered);
        let ran = if call.input.len() > limits.input {
            Err(CallError::InputTooLarge { limit: limits.input })
        } else if let Some(cause) = registration.raised() {
            Err(CallError::Stopped(Stop::Killed(cause)))
        } else {
            let call = ContainerCall { input: call.input, limits: &limits, cancel: registration.cancel() };
            self.backend.run(&self.image, call)
        };
        let wall = clock::monotonic().saturating_duration_since(began);
        let mut usage =
            Usage { wall_us: wall.as_micros().try_into().unwrap_or(u64::MAX), ..Usage::default() };
        let result = ran.map(|ran| {
            usage.memory_bytes = ran.memory_bytes;
            Outcome {
                instance: registration.id,
                output: ran.output,
                exit_code: ran.exit_code,
                usage,
                log: Vec::new(),
                metrics: Vec::new(),
            }
        });
        Ended::plain(result, usage)
    }
}
