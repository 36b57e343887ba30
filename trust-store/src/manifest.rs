//! The manifest of an agent: typed, with every key known, and its canonical form.
//!
//! What is signed of a manifest is the canonical JSON (RFC 8785) of its model without the `attestation` block;
//! [`Manifest::digest`] is the SHA-256 of it and stands in the statement as the subject `manifest.yaml`. The text form
//! (YAML) is read by `trust-store-files`; this module takes the model as a [`Value`] or canonical JSON.
//!
//! | key | value |
//! |---|---|
//! | `schema` | integer, `1`; absent means 1 |
//! | `id`, `version` | dotted agent id; semantic version |
//! | `runtime` | `wasm`, `pipeline`, or a text that starts with `python`, `node` or `java` |
//! | `module` | file name beside the manifest; demanded by `wasm`, and by `pipeline` for its document, see [`crate::pipeline`] |
//! | `image` | container image by digest (`name@sha256:…`); demanded by the other runtimes |
//! | `wasm.engine` | `wasmtime`, the default |
//! | `wasm.memory.initial`, `wasm.memory.maximum` | MB (2^20 bytes), 1 to 4096; an executor that gives less than the first refuses, and gives no more than the second |
//! | `wasm.capabilities` | list of capability texts, see [`crate::capability`] |
//! | `wasm.deterministic` | boolean; fuel instead of epochs |
//! | `wasm.wasi.version` | `preview2`, the default, or `preview1`, which no component is; modules over preview 1 are adapted |
//! | `wasm.wasi.preopens` | guest path → `read-only` or `read-write` |
//! | `wasm.wasi.env` | list of `NAME=value` |

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use crate::capability::{Capability, EnvName, FileAccess, GuestPath, MAX_CAPABILITIES};
use crate::error::Error;
use crate::jcs;
use crate::json::{self, Value};

mod document;

/// Largest canonical manifest in bytes.
pub const MAX_MANIFEST_BYTES: usize = 256 << 10;
/// What [`Error::Unsupported`] names for another engine than `wasmtime`.
pub const ENGINE: &str = "wasm.engine";
/// The schema version that is read and written.
pub const SCHEMA: i64 = 1;
/// JSON Schema (draft 2020-12) of the manifest's model with its attestation block. The parser refuses everything that the
/// schema refuses, and what a schema cannot say besides; see `docs/formats/manifest.md`.
pub const JSON_SCHEMA: &str = include_str!("../../docs/formats/manifest.schema.json");
/// Largest memory a manifest may name, in MB: the whole of a 32-bit linear memory.
pub const MAX_MEMORY_MB: u32 = 4096;

/// A valid manifest without its attestation block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    id: AgentId,
    version: Version,
    runtime: Runtime,
    module: Option<ModuleName>,
    image: Option<ImageReference>,
    wasm: Wasm,
    canonical: Vec<u8>,
    digest: [u8; 32],
}

/// A dotted agent id such as `mentatlab.wasm-example`: labels of lower-case letters, digits, `-` and `_`, at most 128
/// bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(String);

/// A semantic version (semver.org 2.0.0), kept as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(String);

/// File name of the module beside the manifest: one path component.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModuleName(String);

/// A container image by digest: `name@sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageReference(String);

/// What runs the agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// A Java container; the text as written, for example `java21`.
    Java(String),
    /// A Node container.
    Node(String),
    /// A composition of agents, see [`crate::pipeline`].
    Pipeline,
    /// A Python container.
    Python(String),
    /// The WebAssembly executor.
    Wasm,
}

/// The `wasm` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wasm {
    /// Linear memory.
    pub memory: Memory,
    /// `wasm.capabilities`, sorted, without repetition.
    pub capabilities: Vec<Capability>,
    /// How execution is metered.
    pub metering: Metering,
    /// Which system interface the module speaks.
    pub wasi: WasiVersion,
    /// `wasm.wasi.preopens`, sorted by path.
    pub preopens: Vec<(GuestPath, FileAccess)>,
    /// `wasm.wasi.env`, sorted by name.
    pub env: Vec<(EnvName, String)>,
}

/// `wasm.memory`, in MB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Demanded at the start, if named.
    pub initial_mb: Option<u32>,
    /// Never to be exceeded, if named; smaller limits of policy and module win.
    pub maximum_mb: Option<u32>,
}

/// How execution is metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metering {
    /// By fuel: the same input takes the same number of steps everywhere.
    Deterministic,
    /// By epoch deadlines: faster; the default.
    Epoch,
}

/// `wasm.wasi.version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WasiVersion {
    /// WASI 0.1 through the adapter.
    Preview1,
    /// WASI 0.2; the default.
    Preview2,
}

impl Manifest {
    /// Splits a manifest document into the typed manifest and its `attestation` block, if it has one.
    ///
    /// # Errors
    /// As [`Manifest::from_value`].
    pub fn from_document(document: Value) -> Result<(Self, Option<Value>), Error> {
        let Value::Object(mut members) = document else {
            return Err(malformed(format!("it is of type {}, not an object", document.type_name())));
        };
        let attestation = members.remove("attestation");
        Ok((Self::from_value(&Value::Object(members))?, attestation))
    }

    /// Types a manifest without attestation block.
    ///
    /// # Errors
    /// [`Error::Malformed`] for an unknown or missing key, a value outside its range or grammar, a `null` or a number
    /// that is not an integer; [`Error::Unsupported`] for another schema version, runtime or engine;
    /// [`Error::TooLarge`] over [`MAX_MANIFEST_BYTES`].
    pub fn from_value(model: &Value) -> Result<Self, Error> {
        let canonical = jcs::canonicalize(model).map_err(|error| malformed(error.to_string()))?;
        Self::from_canonical(canonical)
    }

    /// Reads the canonical form.
    ///
    /// # Errors
    /// As [`Manifest::from_value`], and [`Error::Malformed`] if the bytes are not canonical.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Error> {
        let model = json::parse::<Value>("manifest", bytes, MAX_MANIFEST_BYTES)?;
        let manifest = Self::from_value(&model)?;
        if manifest.canonical != bytes {
            return Err(malformed("the JSON is not in canonical form (RFC 8785)"));
        }
        Ok(manifest)
    }

    fn from_canonical(canonical: Vec<u8>) -> Result<Self, Error> {
        let document: document::Document = json::parse("manifest", &canonical, MAX_MANIFEST_BYTES)?;
        let digest = Sha256::digest(&canonical).into();
        document.into_manifest(canonical, digest)
    }

    /// The dotted agent id.
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// The semantic version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// What runs the agent.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The module's file name; always present for [`Runtime::Wasm`] and [`Runtime::Pipeline`].
    pub fn module(&self) -> Option<&ModuleName> {
        self.module.as_ref()
    }

    /// The container image; always present for a container's runtime.
    pub fn image(&self) -> Option<&ImageReference> {
        self.image.as_ref()
    }

    /// The `wasm` block, with its defaults.
    pub fn wasm(&self) -> &Wasm {
        &self.wasm
    }

    /// Everything the manifest asks for, in canonical order: its capabilities, and one for each preopened path and
    /// environment variable. A request, never a grant.
    pub fn requested_capabilities(&self) -> Vec<Capability> {
        let mut requested = self.wasm.capabilities.clone();
        requested.extend(
            self.wasm
                .preopens
                .iter()
                .map(|(path, access)| Capability::Filesystem { access: *access, path: path.clone() }),
        );
        requested.extend(self.wasm.env.iter().map(|(name, _)| Capability::Env(name.clone())));
        requested.sort();
        requested.dedup();
        requested
    }

    /// The bytes that are signed.
    pub fn canonical_json(&self) -> &[u8] {
        &self.canonical
    }

    /// SHA-256 of [`Manifest::canonical_json`].
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

macro_rules! text_accessor {
    ($($name:ident)*) => { $(
        impl $name {
            /// The text as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )* };
}
text_accessor!(AgentId Version ModuleName ImageReference);

impl AgentId {
    /// Reads an id; `None` for a text that is none.
    pub fn new(text: &str) -> Option<Self> {
        document::is_agent_id(text).then(|| Self(text.to_string()))
    }
}

impl Runtime {
    /// The text as written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Java(text) | Self::Node(text) | Self::Python(text) => text,
            Self::Pipeline => "pipeline",
            Self::Wasm => "wasm",
        }
    }
}

impl WasiVersion {
    /// The text of the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preview1 => "preview1",
            Self::Preview2 => "preview2",
        }
    }
}

fn malformed(detail: impl Into<String>) -> Error {
    Error::malformed("manifest", detail)
}

#[cfg(test)]
mod tests;
