//! The manifest as it is written, before its values are validated.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{
    AgentId, ENGINE, ImageReference, MAX_CAPABILITIES, MAX_MEMORY_MB, Manifest, Memory, Metering, ModuleName,
    Runtime, SCHEMA, Version, WasiVersion, Wasm, malformed,
};
use crate::capability::{Capability, EnvName, FileAccess, GuestPath};
use crate::error::Error;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    schema: Option<i64>,
    id: String,
    version: String,
    runtime: String,
    module: Option<String>,
    image: Option<String>,
    wasm: Option<WasmBlock>,
    /// Read only to say why it is refused.
    sandbox: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WasmBlock {
    engine: Option<String>,
    memory: Option<MemoryBlock>,
    #[serde(default)]
    capabilities: Vec<String>,
    #[serde(default)]
    deterministic: bool,
    wasi: Option<WasiBlock>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryBlock {
    initial: Option<i64>,
    maximum: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WasiBlock {
    version: Option<String>,
    #[serde(default)]
    preopens: BTreeMap<String, String>,
    #[serde(default)]
    env: Vec<String>,
}

impl Document {
    pub(super) fn into_manifest(self, canonical: Vec<u8>, digest: [u8; 32]) -> Result<Manifest, Error> {
        if let Some(other) = self.schema.filter(|schema| *schema != SCHEMA) {
            return Err(Error::unsupported(
                "manifest",
                format!("schema {other}; this version reads schema {SCHEMA}"),
            ));
        }
        if self.sandbox.is_some() {
            return Err(Error::unsupported(
                "manifest",
                "the block `sandbox`: how guests are confined is the operator's; a manifest asks for less with wasm.memory.maximum and `compute:` capabilities",
            ));
        }
        let runtime = runtime(&self.runtime)?;
        let module = self.module.as_deref().map(module_name).transpose()?;
        let image = self.image.as_deref().map(image_reference).transpose()?;
        match runtime {
            Runtime::Wasm if module.is_none() => {
                return Err(malformed("runtime `wasm` needs the key `module`"));
            }
            Runtime::Java(_) | Runtime::Node(_) | Runtime::Python(_) => {
                if image.is_none() {
                    return Err(malformed("a container runtime needs the key `image`, by digest"));
                }
                if self.wasm.is_some() {
                    return Err(malformed("the block `wasm` belongs to runtime `wasm` only"));
                }
            }
            Runtime::Pipeline if module.is_none() => {
                return Err(malformed("runtime `pipeline` needs the key `module`, its document"));
            }
            Runtime::Pipeline if image.is_some() || self.wasm.is_some() => {
                // What a step may do stands in the step's own manifest, and nowhere else.
                return Err(malformed(
                    "a pipeline has neither `image` nor the block `wasm`: its steps have them",
                ));
            }
            Runtime::Pipeline | Runtime::Wasm => {}
        }
        let id = agent_id(&self.id)?;
        let version = version(&self.version)?;
        let wasm = self.wasm.unwrap_or_default().into_wasm()?;
        Ok(Manifest { id, version, runtime, module, image, wasm, canonical, digest })
    }
}

impl WasmBlock {
    fn into_wasm(self) -> Result<Wasm, Error> {
        if let Some(engine) = self.engine.filter(|engine| engine != "wasmtime") {
            let detail = format!("{}; the only engine is `wasmtime`", quoted(&engine));
            return Err(Error::unsupported(ENGINE, detail));
        }
        let memory = self.memory.unwrap_or_default().into_memory()?;
        let wasi = self.wasi.unwrap_or_default();
        if self.capabilities.len() + wasi.preopens.len() + wasi.env.len() > MAX_CAPABILITIES {
            return Err(Error::TooLarge { what: "list of capabilities", limit: MAX_CAPABILITIES });
        }
        let mut capabilities: Vec<Capability> =
            self.capabilities.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        capabilities.sort();
        capabilities.dedup();
        let metering = if self.deterministic { Metering::Deterministic } else { Metering::Epoch };
        let version = match wasi.version.as_deref() {
            None | Some("preview2") => WasiVersion::Preview2,
            Some("preview1") => WasiVersion::Preview1,
            Some(other) => {
                let detail =
                    format!("wasm.wasi.version {}; known are `preview2` and `preview1`", quoted(other));
                return Err(Error::unsupported("manifest", detail));
            }
        };
        let preopens = wasi.preopens.iter().map(preopen).collect::<Result<_, _>>()?;
        let mut env: Vec<_> = wasi.env.iter().map(|item| environment(item)).collect::<Result<_, _>>()?;
        env.sort();
        if env.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
            return Err(malformed("wasm.wasi.env names a variable twice"));
        }
        Ok(Wasm { memory, capabilities, metering, wasi: version, preopens, env })
    }
}

impl MemoryBlock {
    fn into_memory(self) -> Result<Memory, Error> {
        let megabytes = |value: Option<i64>| {
            let Some(value) = value else { return Ok(None) };
            let valid = u32::try_from(value).ok().filter(|mb| (1..=MAX_MEMORY_MB).contains(mb));
            valid
                .map(Some)
                .ok_or_else(|| malformed(format!("wasm.memory is {value}; it is 1 to {MAX_MEMORY_MB} MB")))
        };
        let (initial_mb, maximum_mb) = (megabytes(self.initial)?, megabytes(self.maximum)?);
        if let (Some(initial), Some(maximum)) = (initial_mb, maximum_mb)
            && initial > maximum
        {
            return Err(malformed("wasm.memory.initial is above wasm.memory.maximum"));
        }
        Ok(Memory { initial_mb, maximum_mb })
    }
}

fn preopen((path, access): (&String, &String)) -> Result<(GuestPath, FileAccess), Error> {
    let access = match access.as_str() {
        "read-only" => FileAccess::Read,
        "read-write" => FileAccess::Write,
        other => {
            return Err(malformed(format!("preopen mode {}; it is read-only or read-write", quoted(other))));
        }
    };
    Ok((GuestPath::new(path)?, access))
}

fn environment(item: &str) -> Result<(EnvName, String), Error> {
    let (name, value) =
        item.split_once('=').ok_or_else(|| malformed("wasm.wasi.env holds `NAME=value` texts"))?;
    if value.contains('\0') {
        return Err(malformed("a value of wasm.wasi.env holds a NUL"));
    }
    Ok((EnvName::new(name)?, value.to_owned()))
}

/// Whether a text is a dotted agent id.
pub(super) fn is_agent_id(text: &str) -> bool {
    let label = |label: &str| {
        label.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    text.len() <= 128 && text.split('.').all(label)
}

fn agent_id(text: &str) -> Result<AgentId, Error> {
    let rule = "an agent id is dotted labels of a-z, 0-9, `-` and `_`, at most 128 bytes";
    AgentId::new(text).ok_or_else(|| malformed(format!("id {}: {rule}", quoted(text))))
}

/// semver.org 2.0.0, items 2, 9 and 10.
fn version(text: &str) -> Result<Version, Error> {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let identifier =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let pre_identifier =
        |part: &str| identifier(part) && (!part.bytes().all(|b| b.is_ascii_digit()) || number(part));
    let valid = text.len() <= 128
        && core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(pre_identifier))
        && build.is_none_or(|build| build.split('.').all(identifier));
    if !valid {
        return Err(malformed(format!("version {}: it is no semantic version such as 1.4.0", quoted(text))));
    }
    Ok(Version(text.to_owned()))
}

fn runtime(text: &str) -> Result<Runtime, Error> {
    let plain = text.len() <= 32
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':'));
    match text {
        "wasm" => Ok(Runtime::Wasm),
        "pipeline" => Ok(Runtime::Pipeline),
        _ if plain && text.starts_with("python") => Ok(Runtime::Python(text.to_owned())),
        _ if plain && text.starts_with("node") => Ok(Runtime::Node(text.to_owned())),
        _ if plain && text.starts_with("java") => Ok(Runtime::Java(text.to_owned())),
        _ => {
            let detail =
                format!("runtime {}; known are wasm, pipeline, python…, node… and java…", quoted(text));
            Err(Error::unsupported("manifest", detail))
        }
    }
}

fn module_name(text: &str) -> Result<ModuleName, Error> {
    let plain = !matches!(text, "" | "." | "..")
        && text.len() <= 255
        && !text.chars().any(|c| c.is_control() || matches!(c, '/' | '\\' | ':'));
    if !plain {
        return Err(malformed(format!("module {}: it is a file name beside the manifest", quoted(text))));
    }
    Ok(ModuleName(text.to_owned()))
}

fn image_reference(text: &str) -> Result<ImageReference, Error> {
    let digest = text.split_once("@sha256:").filter(|(name, digest)| {
        !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_graphic() && b != b'@')
            && digest.len() == 64
            && digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    });
    if digest.is_none() || text.len() > 512 {
        return Err(malformed(format!(
            "image {}: it is named by digest, name@sha256:<64 hex digits>",
            quoted(text)
        )));
    }
    Ok(ImageReference(text.to_owned()))
}

/// A piece of input for a message: escaped, and short enough for a line.
fn quoted(text: &str) -> String {
    format!("`{}`", text.chars().take(64).flat_map(char::escape_default).collect::<String>())
}
