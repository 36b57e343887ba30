//! `pipeline.yaml`: a pipeline as people write it, from which the document is made that is signed.
//!
//! A step names its agent and module, or with `release:` the folder of a release, from which both are taken:
//!
//! ```yaml
//! steps:
//! - {name: clean, release: ../clean}
//! - {name: judge, release: ../judge, after: [clean], timeout_ms: 500}
//! ```

use std::fmt::Write as _;
use std::path::Path;

use trust_store::ArtifactDigest;
use trust_store::json::{Object, Value};
use trust_store::pipeline::{FORMAT, MAX_PIPELINE_BYTES, MAX_STEPS, Pipeline};

use crate::atomic;
use crate::error::Error;
use crate::manifest_file::ManifestFile;
use crate::yaml;

/// Makes the document of a `pipeline.yaml`. Releases are looked for from its folder on.
///
/// # Errors
/// [`Error`] of reading it, a release's manifest or its module; `malformed`, `unsupported` or `too_large` for what is in it.
pub fn assemble(path: &Path) -> Result<Pipeline, Error> {
    let bytes = atomic::read(path, MAX_PIPELINE_BYTES as u64)?;
    let mut model = yaml::parse("pipeline", &bytes, MAX_PIPELINE_BYTES).map_err(Error::content(path))?;
    if let Value::Object(members) = &mut model {
        members.entry("format".to_owned()).or_insert_with(|| Value::String(FORMAT.to_owned()));
        if let Some(Value::Array(steps)) = members.get_mut("steps") {
            // Whatever is more is refused without reading a module for it.
            for step in steps.iter_mut().take(MAX_STEPS) {
                if let Value::Object(step) = step {
                    resolve(step, path)?;
                }
            }
        }
    }
    Pipeline::from_value(&model).map_err(Error::content(path))
}

/// Puts agent and module into a step that names a release.
fn resolve(step: &mut Object, path: &Path) -> Result<(), Error> {
    let refuse =
        |detail: &str| Error::content(path)(trust_store::error::Error::malformed("pipeline", detail));
    let Some(release) = step.remove("release") else { return Ok(()) };
    let Some(release) = release.as_str() else { return Err(refuse("`release` is a path")) };
    if step.contains_key("agent") || step.contains_key("module") {
        return Err(refuse("a step has `release`, or `agent` and `module`"));
    }
    let manifest = ManifestFile::load_for_signing(&path.with_file_name("").join(release))?;
    let module = manifest.read_module()?.ok_or_else(|| refuse("a release of a step names no module"))?;
    let mut digest = String::with_capacity(64);
    for byte in ArtifactDigest::of(&module).as_bytes() {
        // Writing into a text does not fail.
        let _ = write!(digest, "{byte:02x}");
    }
    step.insert("agent".to_owned(), Value::String(manifest.manifest().id().as_str().to_owned()));
    step.insert("module".to_owned(), Value::String(digest));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn releases_become_agents_and_digests() {
        let dir = tempfile::tempdir().unwrap();
        let release = dir.path().join("clean");
        fs::create_dir(&release).unwrap();
        let manifest = "id: acme.clean\nversion: 1.0.0\nruntime: wasm\nmodule: m.wasm\n";
        fs::write(release.join("manifest.yaml"), manifest).unwrap();
        fs::write(release.join("m.wasm"), b"\0asm\x01\0\0\0").unwrap();
        let file = dir.path().join("pipeline.yaml");
        let digest = "93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476";
        fs::write(
            &file,
            format!(
                "steps:\n- {{name: a, release: clean}}\n- {{name: b, agent: acme.b, module: {digest}, after: [a], idempotent: true, retries: 1}}\n"
            ),
        )
        .unwrap();
        let written = String::from_utf8(assemble(&file).unwrap().to_json().unwrap()).unwrap();
        assert_eq!(
            written,
            format!(
                r#"{{"format":"mentat-pipeline-v1","steps":[{{"after":[],"agent":"acme.clean","idempotent":false,"module":"{digest}","name":"a","retries":0,"timeout_ms":5000}},{{"after":["a"],"agent":"acme.b","idempotent":true,"module":"{digest}","name":"b","retries":1,"timeout_ms":5000}}]}}"#
            )
        );
        for (text, said) in [
            ("steps:\n- {name: a, release: gone}\n", "gone"),
            ("steps:\n- {name: a, release: 5}\n", "is a path"),
            ("steps:\n- {name: a, release: clean, agent: a.b}\n", "or `agent`"),
            ("steps:\n- {name: a, release: clean, env: A}\n", "unknown field"),
            ("format: mentat-pipeline-v2\nsteps: []\n", "format"),
            ("[]\n", "pipeline"),
        ] {
            fs::write(&file, text).unwrap();
            let error = assemble(&file).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
