//! What a release is made of, as its manifest says and its bytes must be.

use std::sync::Arc;

use executor_engine::ModuleDigest;
use executor_engine::job::ModuleKind;
use trust_store::manifest::{ImageReference, Manifest, Runtime, WasiVersion};
use trust_store::pipeline::Pipeline;

use super::Denied;
use crate::features::Feature;

/// Largest description of a container image, bytes: what registries take.
const MAX_IMAGE_MANIFEST: usize = 4 << 20;

/// The bytes that a release's digest is of.
#[derive(Debug, Clone)]
pub enum Content {
    /// The description of a container image (its image manifest), whose digest is the image's.
    Image(ImageReference),
    /// WebAssembly.
    Module(ModuleKind),
    /// A document that composes other releases.
    Pipeline(Arc<Pipeline>),
}

impl Content {
    /// Step 1, and for images the comparison of step 2 that nobody else can make: the verifier compares the bytes with the signed
    /// digest, this the digest with the image that the manifest names.
    pub(super) fn read(manifest: &Manifest, bytes: &[u8]) -> Result<Self, Denied> {
        match manifest.runtime() {
            Runtime::Wasm => {
                if bytes.starts_with(b"\x7fELF") || wasmtime::Engine::detect_precompiled(bytes).is_some() {
                    let text = "machine code is never accepted from outside; upload the WebAssembly module";
                    return Err(Denied::in_step(1, "native_code_refused", text));
                }
                let Some(kind) = ModuleKind::of(bytes) else {
                    let text = "the module is neither a WebAssembly core module nor a component";
                    return Err(Denied::in_step(1, "malformed", text));
                };
                if sections_named(bytes, b"signature").nth(1).is_some() {
                    let text = "the module has two custom sections `signature`, which two readers may take for different ones";
                    return Err(Denied::in_step(1, "malformed", text));
                }
                Ok(Self::Module(kind))
            }
            Runtime::Pipeline if !Feature::Pipelines.is_built() => Err(Feature::Pipelines.denied()),
            Runtime::Pipeline => {
                let pipeline = Pipeline::from_json(bytes).map_err(trust_store::Denial::from)?;
                Ok(Self::Pipeline(Arc::new(pipeline)))
            }
            Runtime::Java(_) | Runtime::Node(_) | Runtime::Python(_) => Self::image(manifest, bytes),
        }
    }

    /// Whether it can speak the system interface that the manifest names. A module over preview 1 is adapted to preview 2, so that
    /// either name is true of it; nothing makes a component a module over preview 1.
    pub(super) fn speaks(&self, wasi: WasiVersion) -> Result<(), Denied> {
        match (self, wasi) {
            (Self::Module(ModuleKind::Component), WasiVersion::Preview1) => {
                let text = "the manifest says `wasm.wasi.version: preview1`, and the module is a component, which speaks preview2";
                Err(Denied::in_step(1, "unsupported", text))
            }
            (Self::Image(_) | Self::Module(_) | Self::Pipeline(_), _) => Ok(()),
        }
    }

    fn image(manifest: &Manifest, bytes: &[u8]) -> Result<Self, Denied> {
        if bytes.len() > MAX_IMAGE_MANIFEST {
            let text = format!("an image manifest has at most {MAX_IMAGE_MANIFEST} bytes");
            return Err(Denied::in_step(1, "too_large", text));
        }
        let named =
            manifest.image().and_then(|image| Some((image, image.as_str().split_once("@sha256:")?.1)));
        match named {
            Some((image, digest)) if ModuleDigest::parse(digest) == Some(ModuleDigest::of(bytes)) => {
                Ok(Self::Image(image.clone()))
            }
            _ => {
                let text = "what was sent is not the image manifest of the image that the manifest names by its digest";
                Err(Denied::in_step(2, "digest_mismatch", text))
            }
        }
    }

    /// What bytes of this crate's own tests are.
    #[cfg(test)]
    pub(super) fn for_test(bytes: &[u8]) -> Self {
        if let Ok(pipeline) = Pipeline::from_json(bytes) {
            return Self::Pipeline(Arc::new(pipeline));
        }
        if bytes.starts_with(b"{") {
            let image = format!(r#""image":"test@sha256:{}","#, ModuleDigest::of(bytes));
            let text = format!(r#"{{"id":"a",{image}"runtime":"node","version":"1.0.0"}}"#);
            let manifest = Manifest::from_json(text.as_bytes()).expect("a manifest");
            return Self::read(&manifest, bytes).expect("an image");
        }
        Self::Module(ModuleKind::of(bytes).unwrap_or(ModuleKind::Core))
    }

    /// The stable name of the kind: `component`, `container`, `core` or `pipeline`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Image(_) => "container",
            Self::Module(ModuleKind::Component) => "component",
            Self::Module(ModuleKind::Core) => "core",
            Self::Pipeline(_) => "pipeline",
        }
    }
}

/// The custom sections of that name, of the outermost module or component, as far as the bytes are one at all: what is not, the
/// compiler refuses.
fn sections_named<'a>(bytes: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        loop {
            let (id, after) = rest.split_first()?;
            let (length, after) = length(after)?;
            let (content, after) = after.split_at_checked(length)?;
            rest = after;
            if *id == 0 {
                let (length, named) = self::length(content)?;
                if let Some((found, content)) = named.split_at_checked(length)
                    && found == name
                {
                    return Some(content);
                }
            }
        }
    })
}

/// An unsigned number of 32 bits in LEB128, and what follows it.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(u32::try_from(value).ok()?).ok()?, bytes.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(runtime: &str, more: &str) -> Manifest {
        let text = format!(r#"{{"id":"a.b",{more}"runtime":"{runtime}","version":"1.0.0"}}"#);
        Manifest::from_json(text.as_bytes()).unwrap()
    }

    fn refused(manifest: &Manifest, bytes: &[u8]) -> (u8, &'static str) {
        let denied = Content::read(manifest, bytes).unwrap_err();
        (denied.step, denied.code)
    }

    #[test]
    fn the_bytes_are_of_the_kind_that_the_manifest_says_if_it_is_not_left_out() {
        let (core, component) = (b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0");
        let digest = "ab".repeat(32);
        let document = format!(
            r#"{{"format":"mentat-pipeline-v1","steps":[{{"after":[],"agent":"a","idempotent":false,"module":"{digest}","name":"s","retries":0,"timeout_ms":1}}]}}"#
        );
        let wasm = manifest("wasm", r#""module":"m","#);
        let pipeline = manifest("pipeline", r#""module":"m","#);
        for (manifest, bytes, kind) in [(&wasm, &core[..], "core"), (&wasm, component, "component")] {
            assert_eq!(Content::read(manifest, bytes).unwrap().as_str(), kind);
        }
        assert_eq!(refused(&wasm, document.as_bytes()), (1, "malformed"));
        assert_eq!(refused(&wasm, b"\x7fELF"), (1, "native_code_refused"));
        if Feature::Pipelines.is_built() {
            assert_eq!(Content::read(&pipeline, document.as_bytes()).unwrap().as_str(), "pipeline");
            assert_eq!(refused(&pipeline, core), (1, "malformed"));
            assert_eq!(refused(&pipeline, &[b' '; (64 << 10) + 1]), (1, "too_large"));
        } else {
            assert_eq!(refused(&pipeline, document.as_bytes()), (0, "feature_not_built"));
        }
    }

    #[test]
    fn a_second_section_named_signature_is_refused_wherever_it_stands() {
        let wasm = manifest("wasm", r#""module":"m","#);
        // The length of the first is written with more bytes than it needs, as compilers do.
        let signature = b"\0\x8c\x80\0\x09signature\x01\x02";
        let other = b"\0\x0a\x09signaturf";
        let types = b"\x01\x04\x01\x60\0\0";
        for kind in [&b"\0asm\x01\0\0\0"[..], b"\0asm\x0d\0\x01\0"] {
            let with = |sections: &[&[u8]]| [&[kind], sections].concat().concat();
            for admitted in [with(&[signature, types, other]), with(&[other, types, signature])] {
                assert!(Content::read(&wasm, &admitted).is_ok());
            }
            for two in [with(&[signature, types, other, signature]), with(&[signature, signature])] {
                assert_eq!(refused(&wasm, &two), (1, "malformed"));
            }
            // What ends too early has no second one; whether it is a module at all the compiler says.
            let cut = with(&[signature, signature]);
            assert!(Content::read(&wasm, &cut[..cut.len() - 1]).is_ok());
        }
        assert_eq!(length(&[0xff; 5]), None);
        assert_eq!(length(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Some((u32::MAX as usize, &[][..])));
        assert_eq!(length(&[0x80]), None);
    }

    #[test]
    fn a_component_is_no_module_over_preview_1() {
        for (kind, version, code) in [
            (ModuleKind::Component, WasiVersion::Preview1, Some("unsupported")),
            (ModuleKind::Component, WasiVersion::Preview2, None),
            (ModuleKind::Core, WasiVersion::Preview1, None),
            (ModuleKind::Core, WasiVersion::Preview2, None),
        ] {
            let refused = Content::Module(kind).speaks(version).err();
            assert_eq!(refused.map(|denied| denied.code), code, "{kind:?} {version:?}");
        }
    }

    #[test]
    fn an_image_is_the_one_that_is_named_by_its_digest() {
        let described = br#"{"schemaVersion":2}"#;
        let of = |digest: String| manifest("node22", &format!(r#""image":"r.example/x@sha256:{digest}","#));
        let named = of(ModuleDigest::of(described).to_string());
        assert_eq!(Content::read(&named, described).unwrap().as_str(), "container");
        assert_eq!(refused(&named, b"{}"), (2, "digest_mismatch"));
        assert_eq!(refused(&named, b"\0asm\x01\0\0\0"), (2, "digest_mismatch"));
        assert_eq!(refused(&named, &[b' '; MAX_IMAGE_MANIFEST + 1]), (1, "too_large"));
    }
}
