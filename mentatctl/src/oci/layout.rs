//! Documents of a release in a registry (OCI image specification 1.1; the layout of WebAssembly artifacts).
//!
//! ```text
//! image manifest   config application/vnd.wasm.config.v0+json, one layer application/wasm
//!                  of a pipeline: an empty configuration, one layer application/vnd.mentat.pipeline.v1+json
//!   ▲ subject
//!   ├── referrer   application/vnd.dev.sigstore.bundle.v0.3+json: the bundle, as stock clients look for it
//!   └── referrer   application/vnd.mentat.manifest.v1+yaml: manifest.yaml with its attestation block
//! ```
//!
//! The image says nothing about who signed it: the same module and manifest are the same image, whoever signs them and when.
//! It names the digest of the canonical manifest, so that another manifest is another image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trust_store::bundle::{Bundle, Content, MEDIA_TYPE as BUNDLE};
use trust_store::manifest::{Manifest, Runtime};
use trust_store::statement::Statement;
use wasmparser::{Encoding, Parser, Payload};

use super::reference::Digest;
use crate::exit::{Exit, OrFail as _, Outcome};

/// Media type of an image manifest.
pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of a list of manifests.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a WebAssembly artifact's configuration.
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Media type of a module or component.
pub const WASM: &str = "application/wasm";
/// Media type of the document of a pipeline.
pub const PIPELINE: &str = trust_store::pipeline::MEDIA_TYPE;
/// Media type of a manifest with its attestation block.
pub const MANIFEST: &str = "application/vnd.mentat.manifest.v1+yaml";
/// Largest image manifest or list of manifests that is read, bytes.
pub const MAX_DOCUMENT: usize = 4 << 20;
/// Where an image names the digest of the canonical manifest.
pub const MANIFEST_DIGEST: &str = "internal.mentat.manifest.digest";

/// Media type of a configuration that says nothing.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const TITLE: &str = "org.opencontainers.image.title";
const VERSION: &str = "org.opencontainers.image.version";

/// A pointer to bytes in the same repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// What a manifest is about, in lists of referrers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A pointer to these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }

    fn titled(mut self, name: &str) -> Self {
        self.annotations.insert(TITLE.to_owned(), name.to_owned());
        self
    }

    /// The file name that it is given.
    pub fn title(&self) -> Option<&str> {
        self.annotations.get(TITLE).map(String::as_str)
    }
}

/// An image manifest. Members that are not known are ignored, as the specification asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// 2.
    pub schema_version: u32,
    /// [`IMAGE`].
    #[serde(default)]
    pub media_type: String,
    /// What a referrer is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The content.
    pub layers: Vec<Descriptor>,
    /// What a referrer is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// [`INDEX`].
    #[serde(default)]
    pub media_type: String,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// A list of these.
    pub fn of(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: INDEX.to_owned(), manifests }
    }
}

/// A manifest with the blobs it points at.
#[derive(Clone, Debug)]
pub struct Document {
    /// The manifest as it is stored.
    pub bytes: Vec<u8>,
    /// A pointer to it, as a list of referrers has it.
    pub descriptor: Descriptor,
    /// Configuration and layers.
    pub blobs: Vec<Vec<u8>>,
}

impl Document {
    fn new(image: &Image, blobs: Vec<Vec<u8>>) -> Outcome<Self> {
        let bytes = serde_json::to_vec(image).or_fail(Exit::Failure, "writing an image manifest")?;
        let mut descriptor = Descriptor::of(IMAGE, &bytes);
        descriptor.artifact_type.clone_from(&image.artifact_type);
        if image.subject.is_some() {
            descriptor.annotations.clone_from(&image.annotations);
        }
        Ok(Self { bytes, descriptor, blobs })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WasmConfig<'a> {
    created: &'a str,
    architecture: &'a str,
    os: &'a str,
    layer_digests: Vec<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<Component>,
}

#[derive(Serialize)]
struct Component {
    exports: Vec<String>,
    imports: Vec<String>,
    target: Option<String>,
}

/// The image of a module with its manifest.
///
/// # Errors
/// Exit code 2 when the module is no WebAssembly.
pub fn image(manifest: &Manifest, name: &str, module: &[u8]) -> Outcome<Document> {
    if *manifest.runtime() == Runtime::Pipeline {
        let config = (EMPTY, b"{}".to_vec());
        return release(
            manifest,
            Some(PIPELINE),
            config,
            Descriptor::of(PIPELINE, module).titled(name),
            module,
        );
    }
    let component = component(module)?;
    let config = WasmConfig {
        // The same release is the same image, whenever it is made.
        created: "1970-01-01T00:00:00Z",
        architecture: "wasm",
        os: if component.is_some() { "wasip2" } else { "wasip1" },
        layer_digests: vec![Digest::of(module)],
        component,
    };
    let config = serde_json::to_vec(&config).or_fail(Exit::Failure, "writing the configuration")?;
    let layer = Descriptor::of(WASM, module).titled(name);
    release(manifest, None, (WASM_CONFIG, config), layer, module)
}

fn release(
    manifest: &Manifest,
    artifact_type: Option<&str>,
    (config_type, config): (&str, Vec<u8>),
    layer: Descriptor,
    module: &[u8],
) -> Outcome<Document> {
    let annotations = BTreeMap::from([
        (MANIFEST_DIGEST.to_owned(), Digest::of(manifest.canonical_json()).to_string()),
        (TITLE.to_owned(), manifest.id().as_str().to_owned()),
        (VERSION.to_owned(), manifest.version().as_str().to_owned()),
    ]);
    let image = Image {
        schema_version: 2,
        media_type: IMAGE.to_owned(),
        artifact_type: artifact_type.map(str::to_owned),
        config: Descriptor::of(config_type, &config),
        layers: vec![layer],
        subject: None,
        annotations,
    };
    Document::new(&image, vec![config, module.to_vec()])
}

/// The referrer with the manifest and, where the attestation names one, the bundle's file.
///
/// # Errors
/// None in practice.
pub fn manifest_referrer(
    subject: &Descriptor,
    manifest: (&str, &[u8]),
    sidecar: Option<(&str, &[u8])>,
) -> Outcome<Document> {
    let mut layers = vec![Descriptor::of(MANIFEST, manifest.1).titled(manifest.0)];
    let mut blobs = vec![manifest.1.to_vec()];
    if let Some((name, bytes)) = sidecar {
        layers.push(Descriptor::of(BUNDLE, bytes).titled(name));
        blobs.push(bytes.to_vec());
    }
    referrer(MANIFEST, subject, layers, blobs, BTreeMap::new())
}

/// The referrer with the bundle, as stock clients look for it.
///
/// # Errors
/// Exit code 1 when the bundle cannot be written.
pub fn bundle_referrer(subject: &Descriptor, bundle: &Bundle) -> Outcome<Document> {
    let json = bundle.to_json().or_fail(Exit::Failure, "writing the bundle")?;
    let mut annotations = BTreeMap::new();
    if let Content::Dsse(envelope) = &bundle.content
        && let Ok(statement) = Statement::parse(&envelope.payload)
    {
        annotations.insert("dev.sigstore.bundle.content".to_owned(), "dsse-envelope".to_owned());
        annotations.insert("dev.sigstore.bundle.predicateType".to_owned(), statement.predicate_type);
    }
    referrer(BUNDLE, subject, vec![Descriptor::of(BUNDLE, &json)], vec![json], annotations)
}

fn referrer(
    artifact_type: &str,
    subject: &Descriptor,
    layers: Vec<Descriptor>,
    mut blobs: Vec<Vec<u8>>,
    annotations: BTreeMap<String, String>,
) -> Outcome<Document> {
    let subject = Descriptor { artifact_type: None, annotations: BTreeMap::new(), ..subject.clone() };
    blobs.push(b"{}".to_vec());
    let image = Image {
        schema_version: 2,
        media_type: IMAGE.to_owned(),
        artifact_type: Some(artifact_type.to_owned()),
        config: Descriptor::of(EMPTY, b"{}"),
        layers,
        subject: Some(subject),
        annotations,
    };
    Document::new(&image, blobs)
}

/// What a component exports and imports; `None` for a core module.
fn component(bytes: &[u8]) -> Outcome<Option<Component>> {
    let mut is_component = false;
    let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0_usize);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.or_fail(Exit::Usage, "the module")? {
            Payload::Version { encoding, .. } if depth == 0 => {
                is_component |= encoding == Encoding::Component
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports
                        .push(import.or_fail(Exit::Usage, "the component's imports")?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports
                        .push(export.or_fail(Exit::Usage, "the component's exports")?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(is_component.then_some(Component { exports, imports, target: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest::from_json(br#"{"id":"a.b","module":"m.wasm","runtime":"wasm","version":"1.0.0"}"#).unwrap()
    }

    #[test]
    fn an_image_is_frozen_and_does_not_know_its_signer() {
        let image = image(&manifest(), "m.wasm", b"\0asm\x01\0\0\0").unwrap();
        assert_eq!(
            String::from_utf8(image.blobs[0].clone()).unwrap(),
            concat!(
                r#"{"created":"1970-01-01T00:00:00Z","architecture":"wasm","os":"wasip1","#,
                r#""layerDigests":["sha256:93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476"]}"#
            )
        );
        assert_eq!(
            String::from_utf8(image.bytes).unwrap(),
            concat!(
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
                r#""config":{"mediaType":"application/vnd.wasm.config.v0+json","digest":"#,
                r#""sha256:f0008e8ea386c51432cec6f4267e350797c9ac65e88e7fb8fdd70574210681d4","size":161},"#,
                r#""layers":[{"mediaType":"application/wasm","digest":"#,
                r#""sha256:93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476","size":8,"#,
                r#""annotations":{"org.opencontainers.image.title":"m.wasm"}}],"#,
                r#""annotations":{"internal.mentat.manifest.digest":"#,
                r#""sha256:f6a8facfb4211ead983d7b4908f54460becff241dfdd3f6469fcf5d2e8c793cf","#,
                r#""org.opencontainers.image.title":"a.b","org.opencontainers.image.version":"1.0.0"}}"#
            )
        );
    }

    #[test]
    fn the_image_of_a_pipeline_has_its_document_as_the_only_layer() {
        let text = br#"{"id":"a.b","module":"p.json","runtime":"pipeline","version":"1.0.0"}"#;
        let image = image(&Manifest::from_json(text).unwrap(), "p.json", b"{}").unwrap();
        let read: Image = serde_json::from_slice(&image.bytes).unwrap();
        assert_eq!(read.artifact_type.as_deref(), Some("application/vnd.mentat.pipeline.v1+json"));
        assert_eq!(read.config.media_type, "application/vnd.oci.empty.v1+json");
        assert_eq!((read.layers.len(), read.layers[0].title()), (1, Some("p.json")));
        assert_eq!(image.blobs, [b"{}".to_vec(), b"{}".to_vec()]);
    }

    #[test]
    fn a_component_says_what_it_imports_and_exports() {
        let text = r#"(component (import "wasi:cli/environment@0.2.0" (instance)) (core module (func)) (component)
            (component $inner) (export "run" (component $inner)))"#;
        let image = image(&manifest(), "m.wasm", &wat::parse_str(text).unwrap()).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&image.blobs[0]).unwrap();
        assert_eq!(config["os"], "wasip2");
        assert_eq!(config["component"]["imports"][0], "wasi:cli/environment@0.2.0");
        assert_eq!(config["component"]["exports"][0], "run");
    }

    #[test]
    fn referrers_name_their_subject_and_kind() {
        let image = image(&manifest(), "m.wasm", b"\0asm\x01\0\0\0").unwrap();
        let referrer =
            manifest_referrer(&image.descriptor, ("manifest.yaml", b"id: a\n"), Some(("m.json", b"{}")))
                .unwrap();
        let read: Image = serde_json::from_slice(&referrer.bytes).unwrap();
        assert_eq!(read.subject.unwrap().digest, image.descriptor.digest);
        assert_eq!(referrer.descriptor.artifact_type.as_deref(), Some(MANIFEST));
        assert_eq!(
            read.layers.iter().map(|layer| layer.title().unwrap()).collect::<Vec<_>>(),
            ["manifest.yaml", "m.json"]
        );
        assert_eq!(referrer.blobs.len(), 3);
    }
}
