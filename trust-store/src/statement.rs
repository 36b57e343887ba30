//! in-toto Statement v1 (v0.1 of older clients is read), and the product's predicate `agent-release/v1`.
//!
//! A release statement has two subjects: the module under its file name, and `manifest.yaml` with the SHA-256 of the
//! manifest's canonical JSON. Its predicate repeats, for readers that know nothing of manifests, what the manifest
//! says; a verifier demands that it equals what it derives from the manifest itself.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::jcs;
use crate::json::{self, Object, Value};
use crate::manifest::Manifest;

/// `_type` of statements of the format's first version, which differ in nothing that is read here. None is written, and no release
/// is one.
pub const OLD_STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v0.1";
/// `_type` of every statement that is written.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// `predicateType` of a release of an agent.
pub const AGENT_RELEASE_TYPE: &str = "https://mentat.internal/agent-release/v1";
/// `predicateType` of an endorsement: another signer vouches for the same module and manifest.
pub const ENDORSEMENT_TYPE: &str = "https://mentat.internal/endorsement/v1";
/// `predicateType` of SLSA provenance.
pub const SLSA_PROVENANCE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// Name of the subject that stands for the manifest.
pub const MANIFEST_SUBJECT: &str = "manifest.yaml";
/// Largest statement that is read, in bytes.
pub const MAX_STATEMENT_BYTES: usize = 3 << 20;
/// Most subjects that are read: large releases have some hundred files.
pub const MAX_SUBJECTS: usize = 1024;

/// An in-toto statement: subjects, and a predicate about them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    /// What the predicate is about.
    pub subject: Vec<Subject>,
    /// URI that names the predicate's schema.
    pub predicate_type: String,
    /// The predicate; its shape depends on the type.
    #[serde(default = "empty_object")]
    pub predicate: Value,
}

/// One subject: a name and digests in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Subject {
    /// Name of the artifact. It decides in a release, where it ties the digest to the manifest ([`Statement::releases`]).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Algorithm name (`sha256`) to lower-case hexadecimal.
    pub digest: BTreeMap<String, String>,
    /// Other fields of an in-toto resource descriptor, read and not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// As `uri`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// As `uri`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_location: Option<String>,
    /// As `uri`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// As `uri`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
}

impl Subject {
    /// A subject with a SHA-256 digest.
    pub fn sha256(name: &str, digest: &[u8; 32]) -> Self {
        Self {
            name: name.to_owned(),
            digest: BTreeMap::from([("sha256".to_owned(), hex::encode(digest))]),
            uri: None,
            content: None,
            download_location: None,
            media_type: None,
            annotations: None,
        }
    }

    /// Whether the subject has exactly this SHA-256 digest.
    pub fn has_sha256(&self, digest: &[u8; 32]) -> bool {
        self.digest.get("sha256").is_some_and(|text| *text == hex::encode(digest))
    }
}

impl Statement {
    /// A statement about `subject`.
    pub fn new(subject: Vec<Subject>, predicate_type: &str, predicate: Value) -> Self {
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject,
            predicate_type: predicate_type.to_owned(),
            predicate,
        }
    }

    /// The statement that releases a module (or an image, by its digest) with its manifest.
    pub fn agent_release(manifest: &Manifest, artifact_digest: &[u8; 32]) -> Self {
        let subject = vec![
            Subject::sha256(artifact_name(manifest), artifact_digest),
            Subject::sha256(MANIFEST_SUBJECT, manifest.digest()),
        ];
        Self::new(subject, AGENT_RELEASE_TYPE, release_predicate(manifest))
    }

    /// The statement by which another signer endorses a release: the same subjects, an empty predicate.
    pub fn endorsement(manifest: &Manifest, artifact_digest: &[u8; 32]) -> Self {
        let release = Self::agent_release(manifest, artifact_digest);
        Self::new(release.subject, ENDORSEMENT_TYPE, empty_object())
    }

    /// Reads a statement.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over [`MAX_STATEMENT_BYTES`] or [`MAX_SUBJECTS`]; [`Error::Malformed`] for unknown fields,
    /// no subject, or a subject without digest; [`Error::Unsupported`] for another `_type`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let statement: Self = json::parse("in-toto statement", bytes, MAX_STATEMENT_BYTES)?;
        if ![STATEMENT_TYPE, OLD_STATEMENT_TYPE].contains(&statement.statement_type.as_str()) {
            let shown: String = statement.statement_type.chars().take(80).collect();
            return Err(Error::unsupported(
                "in-toto statement",
                alloc::format!("_type {shown}; known are {STATEMENT_TYPE} and v0.1"),
            ));
        }
        if statement.subject.len() > MAX_SUBJECTS {
            return Err(Error::TooLarge { what: "list of subjects", limit: MAX_SUBJECTS });
        }
        if statement.subject.is_empty() || statement.subject.iter().any(|subject| subject.digest.is_empty()) {
            return Err(Error::malformed(
                "in-toto statement",
                "every statement has a subject, and every subject a digest",
            ));
        }
        Ok(statement)
    }

    /// The payload to sign: canonical JSON where the predicate allows it, else compact JSON.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the predicate holds a number that was not kept.
    pub fn to_payload(&self) -> Result<Vec<u8>, Error> {
        let compact = json::write("in-toto statement", self)?;
        let value: Value = json::parse("in-toto statement", &compact, MAX_STATEMENT_BYTES)?;
        Ok(jcs::canonicalize(&value).unwrap_or(compact))
    }

    /// Whether a subject has this SHA-256 digest; the manifest's subject does not count.
    pub fn names_artifact(&self, digest: &[u8; 32]) -> bool {
        self.subject.iter().any(|subject| subject.name != MANIFEST_SUBJECT && subject.has_sha256(digest))
    }

    /// Whether this is the release of exactly this manifest with this artifact: the predicate type, one manifest subject
    /// with its digest, one subject of the name that the manifest gives its module or image with the artifact's digest,
    /// and a predicate equal to the one derived from the manifest. Another file of the same release must not run with
    /// this manifest's grants.
    pub fn releases(&self, manifest: &Manifest, artifact_digest: &[u8; 32]) -> bool {
        self.statement_type == STATEMENT_TYPE
            && self.predicate_type == AGENT_RELEASE_TYPE
            && self.names_manifest(manifest)
            && self.only_subject(artifact_name(manifest)).is_some_and(|file| file.has_sha256(artifact_digest))
            && self.predicate == release_predicate(manifest)
    }

    /// Whether exactly one subject stands for a manifest, and it is this one.
    pub fn names_manifest(&self, manifest: &Manifest) -> bool {
        self.only_subject(MANIFEST_SUBJECT).is_some_and(|subject| subject.has_sha256(manifest.digest()))
    }

    /// The subject of this name; `None` if there are several.
    fn only_subject(&self, name: &str) -> Option<&Subject> {
        let mut named = self.subject.iter().filter(|subject| subject.name == name);
        named.next().filter(|_| named.next().is_none())
    }
}

/// Name of the subject that stands for the artifact: the manifest's module, else its image.
fn artifact_name(manifest: &Manifest) -> &str {
    match (manifest.module(), manifest.image()) {
        (Some(module), _) => module.as_str(),
        (None, Some(image)) => image.as_str(),
        (None, None) => "artifact",
    }
}

/// The predicate of a release: `id`, `version`, `runtime`, `capabilities`, and for WebAssembly `wasi` and `limits`.
fn release_predicate(manifest: &Manifest) -> Value {
    let text = |text: &str| Value::String(text.to_owned());
    let capabilities =
        manifest.requested_capabilities().iter().map(|item| Value::String(item.to_string())).collect();
    let mut predicate = Object::from([
        ("id".to_owned(), text(manifest.id().as_str())),
        ("version".to_owned(), text(manifest.version().as_str())),
        ("runtime".to_owned(), text(manifest.runtime().as_str())),
        ("capabilities".to_owned(), Value::Array(capabilities)),
    ]);
    if *manifest.runtime() == crate::manifest::Runtime::Wasm {
        let memory = manifest.wasm().memory;
        let limits = [("memory_initial_mb", memory.initial_mb), ("memory_maximum_mb", memory.maximum_mb)];
        let limits = limits
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), Value::Integer(i64::from(value?)))))
            .collect();
        predicate.insert("limits".to_owned(), Value::Object(limits));
        predicate.insert("wasi".to_owned(), text(manifest.wasm().wasi.as_str()));
    }
    Value::Object(predicate)
}

fn empty_object() -> Value {
    Value::Object(Object::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(version: &str) -> Manifest {
        let text = alloc::format!(
            r#"{{"id":"a.b","module":"agent.wasm","runtime":"wasm","version":"{version}","wasm":{{"capabilities":["env:A"],"memory":{{"maximum":8}}}}}}"#
        );
        Manifest::from_json(text.as_bytes()).unwrap()
    }

    #[test]
    fn release_statement_is_frozen() {
        let statement = Statement::agent_release(&manifest("1.0.0"), &[1; 32]);
        let expected = alloc::format!(
            concat!(
                r#"{{"_type":"https://in-toto.io/Statement/v1","predicate":{{"capabilities":["env:A"],"id":"a.b","#,
                r#""limits":{{"memory_maximum_mb":8}},"runtime":"wasm","version":"1.0.0","wasi":"preview2"}},"#,
                r#""predicateType":"https://mentat.internal/agent-release/v1","subject":[{{"digest":{{"sha256":"{}"}},"#,
                r#""name":"agent.wasm"}},{{"digest":{{"sha256":"{}"}},"name":"manifest.yaml"}}]}}"#
            ),
            "01".repeat(32),
            hex::encode(manifest("1.0.0").digest()),
        );
        let payload = statement.to_payload().unwrap();
        assert_eq!(core::str::from_utf8(&payload).unwrap(), expected);
        assert_eq!(Statement::parse(&payload).unwrap(), statement);
    }

    #[test]
    fn binds_artifact_and_manifest() {
        let statement = Statement::agent_release(&manifest("1.0.0"), &[1; 32]);
        assert!(statement.names_artifact(&[1; 32]));
        assert!(!statement.names_artifact(&[2; 32]));
        assert!(!statement.names_artifact(manifest("1.0.0").digest()), "a manifest is no artifact");
        assert!(statement.releases(&manifest("1.0.0"), &[1; 32]));
        assert!(!statement.releases(&manifest("1.0.0"), &[2; 32]));
        assert!(!statement.releases(&manifest("1.0.1"), &[1; 32]));
        let mut other = statement.clone();
        other.predicate = release_predicate(&manifest("1.0.1"));
        assert!(
            !other.releases(&manifest("1.0.0"), &[1; 32]),
            "the predicate must say what the manifest says"
        );
        let mut twice = statement.clone();
        twice.subject.push(Subject::sha256(MANIFEST_SUBJECT, &[3; 32]));
        assert!(!twice.releases(&manifest("1.0.0"), &[1; 32]));
        let mut tool = statement.clone();
        tool.subject.push(Subject::sha256("tool.wasm", &[2; 32]));
        assert!(tool.releases(&manifest("1.0.0"), &[1; 32]));
        assert!(!tool.releases(&manifest("1.0.0"), &[2; 32]), "the manifest is the agent's, not the tool's");
        tool.subject.push(Subject::sha256("agent.wasm", &[2; 32]));
        for digest in [[1; 32], [2; 32]] {
            assert!(!tool.releases(&manifest("1.0.0"), &digest), "two files of one name");
        }
    }

    #[test]
    fn refuses_other_types_and_empty_subjects() {
        let payload = Statement::agent_release(&manifest("1.0.0"), &[1; 32]).to_payload().unwrap();
        let text = String::from_utf8(payload).unwrap();
        assert!(matches!(
            Statement::parse(text.replace("Statement/v1", "Statement/v2").as_bytes()),
            Err(Error::Unsupported { .. })
        ));
        // Older clients' statements are read, and are no releases of ours.
        let old = Statement::parse(text.replace("Statement/v1", "Statement/v0.1").as_bytes()).unwrap();
        assert!(old.names_artifact(&[1; 32]) && !old.releases(&manifest("1.0.0"), &[1; 32]));
        for bad in [
            text.replace("\"_type\"", "\"x\":1,\"_type\""),
            text.replace("\"digest\":{\"sha256\":", "\"digest\":{},\"x\":{\"y\":"),
        ] {
            assert!(matches!(Statement::parse(bad.as_bytes()), Err(Error::Malformed { .. })));
        }
        let none =
            br#"{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"p","predicate":{}}"#;
        assert!(Statement::parse(none).is_err());
    }
}
