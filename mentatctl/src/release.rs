//! A release on disk: a manifest and the module beside it.

use std::path::{Path, PathBuf};

use trust_store::manifest::{Manifest, Runtime};

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Secrecy, read_file, read_text, write_file};

/// Name of the manifest in a folder.
pub const MANIFEST_FILE: &str = "manifest.yaml";

/// A manifest with its module's place.
#[derive(Clone, Debug)]
pub struct Release {
    /// Path of the manifest.
    pub manifest_path: PathBuf,
    /// The manifest's text as it is on disk.
    pub text: String,
    /// The typed manifest, without the attestation block.
    pub manifest: Manifest,
}

impl Release {
    /// Opens `DIR` (with its `manifest.yaml`) or a manifest file.
    ///
    /// # Errors
    /// Exit code 2 when it cannot be read or is no valid manifest.
    pub fn open(path: &Path) -> Outcome<Self> {
        let manifest_path = if path.is_dir() { path.join(MANIFEST_FILE) } else { path.to_path_buf() };
        if !manifest_path.exists() {
            return Err(Failure::usage(format!("{} does not exist", manifest_path.display()))
                .hint("name a folder with a manifest.yaml, or the manifest itself"));
        }
        let text = read_text(&manifest_path)?;
        let file = trust_store_files::ManifestFile::parse(&text).or_fail(Exit::Usage, manifest_path.display())?;
        Ok(Self { manifest: file.manifest().clone(), manifest_path, text })
    }

    /// The folder the manifest lies in.
    pub fn folder(&self) -> &Path {
        self.manifest_path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Where the module is.
    ///
    /// # Errors
    /// Exit code 2 when the manifest names none: a container is verified by its image digest, not run from here.
    pub fn module_path(&self) -> Outcome<PathBuf> {
        match (self.manifest.runtime(), self.manifest.module()) {
            (Runtime::Wasm, Some(module)) => Ok(self.folder().join(module.as_str())),
            _ => Err(Failure::usage(format!("{} names no WebAssembly module", self.manifest_path.display()))
                .hint("only `runtime: wasm` manifests are handled here")),
        }
    }

    /// The module's bytes.
    ///
    /// # Errors
    /// Exit code 2 when it cannot be read.
    pub fn module(&self) -> Outcome<Vec<u8>> {
        read_file(&self.module_path()?)
    }

    /// Makes the module from its text form (`.wat` beside it) when it is missing. Returns whether it was made.
    ///
    /// # Errors
    /// When the text does not assemble or cannot be written.
    pub fn assemble_missing_module(&self) -> Outcome<bool> {
        let path = self.module_path()?;
        let text = path.with_extension("wat");
        if path.exists() || !text.exists() {
            return Ok(false);
        }
        let binary = wat::parse_str(read_text(&text)?)
            .map_err(|error| Failure::usage(format!("{} does not assemble: {error}", text.display())))?;
        write_file(&path, &binary, Secrecy::Public)?;
        Ok(true)
    }
}
