//! A release on disk: a manifest and the module beside it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use trust_store::ReasonCode;
use trust_store::attestation::{Attestation, BundleSource};
use trust_store::manifest::{Manifest, Runtime};
use trust_store::pipeline::Pipeline;
use trust_store_files::{ManifestFile, pipeline_file};

use crate::exit::{Exit, Failure, OrFail as _, Outcome, chain};
use crate::home::{Secrecy, folder_of, read_text, write_file};

/// Name of the manifest in a folder.
pub const MANIFEST_FILE: &str = "manifest.yaml";

/// A manifest with its module's place.
#[derive(Clone, Debug)]
pub struct Release {
    /// The manifest and its attestation block.
    pub file: ManifestFile,
    /// The manifest's text as it is on disk.
    pub text: String,
}

/// What a release is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// To be signed: an attestation it carries already, of whatever version, is not looked at.
    Sign,
    /// To be verified or run.
    Verify,
}

/// What a path is about.
#[derive(Clone, Debug)]
pub enum Target {
    /// A release: its manifest was named, its folder, or the module that the manifest beside it names.
    Release(Box<Release>),
    /// A module without a manifest.
    Module(PathBuf),
}

impl Target {
    /// What is to be signed. `manifest` is the manifest's name in a folder, and beside a module.
    ///
    /// # Errors
    /// As [`Release::open`]; exit code 2 also when the manifest beside a module names another one.
    pub fn find(path: &Path, manifest: &Path) -> Outcome<Self> {
        let release = |path: &Path| Release::open_manifest(path, Use::Sign);
        if path.is_dir() {
            return Ok(Self::Release(Box::new(release(&path.join(manifest))?)));
        }
        if !is_module(path) {
            return Ok(Self::Release(Box::new(release(path)?)));
        }
        let beside = folder_of(path).join(manifest);
        if !beside.exists() {
            return Ok(Self::Module(path.to_path_buf()));
        }
        let release = release(&beside)?;
        release.refuse_other_module(path)?;
        Ok(Self::Release(Box::new(release)))
    }
}

/// Whether a path is that of a module: by its name, or by its first octets.
fn is_module(path: &Path) -> bool {
    let begins = || -> std::io::Result<bool> {
        let mut magic = [0_u8; 4];
        std::fs::File::open(path)?.read_exact(&mut magic)?;
        Ok(magic == *b"\0asm")
    };
    path.extension().is_some_and(|kind| kind == "wasm") || begins().unwrap_or(false)
}

impl Release {
    /// Opens `DIR` (with its `manifest.yaml`), a manifest file, or a module by the `manifest.yaml` beside it that names it.
    ///
    /// # Errors
    /// Exit code 2 when it cannot be read or is no valid manifest; 3 with the reason code when its attestation block is
    /// of no known form.
    pub fn open(path: &Path, purpose: Use) -> Outcome<Self> {
        if path.is_dir() || !is_module(path) {
            return Self::open_manifest(path, purpose);
        }
        let release = Self::open_manifest(&folder_of(path).join(MANIFEST_FILE), purpose)?;
        release.refuse_other_module(path)?;
        Ok(release)
    }

    /// Refuses when this release's module is not the one at a path.
    fn refuse_other_module(&self, path: &Path) -> Outcome<()> {
        let place = |path: &Path| {
            let folder = folder_of(path).canonicalize().ok();
            folder.zip(path.file_name().map(ToOwned::to_owned))
        };
        let named = self.module_path()?;
        if place(&named).is_some() && place(&named) == place(path) {
            return Ok(());
        }
        let (manifest, named) = (self.path().display(), named.display());
        Err(Failure::usage(format!("{manifest} is the manifest of {named}, not of {}", path.display()))
            .hint("name the module's own manifest, or give the module a folder of its own"))
    }

    /// Opens `DIR` (with its `manifest.yaml`) or a manifest file.
    ///
    /// # Errors
    /// Exit code 2 when it cannot be read or is no valid manifest; 3 with the reason code when its attestation block is
    /// of no known form.
    fn open_manifest(path: &Path, purpose: Use) -> Outcome<Self> {
        let manifest_path = if path.is_dir() { path.join(MANIFEST_FILE) } else { path.to_path_buf() };
        if !manifest_path.exists() {
            return Err(Failure::usage(format!("{} does not exist", manifest_path.display()))
                .hint("name a folder with a manifest.yaml, or the manifest itself"));
        }
        let unattested =
            ManifestFile::load_for_signing(path).map_err(|error| file_failure(&error, Exit::Usage))?;
        let file = match purpose {
            Use::Sign => unattested,
            // The manifest itself is readable, so what is wrong now is wrong with the evidence.
            Use::Verify => ManifestFile::load(path).map_err(|error| file_failure(&error, Exit::Denied))?,
        };
        // Of the same reading: the file may change under us.
        let text = file.text().to_owned();
        Ok(Self { file, text })
    }

    /// Refuses a manifest whose attestation is of a version that nothing accepts any more: whoever signs it over should
    /// know that no one could have verified it until now.
    ///
    /// # Errors
    /// Exit code 2 with the code `unsupported`.
    pub fn refuse_old_attestation(&self) -> Outcome<()> {
        match ManifestFile::load(self.path()) {
            Err(error) if error.code() == Some(ReasonCode::Unsupported) => Err(Failure::usage(chain(&error))
                .code(ReasonCode::Unsupported.as_str())
                .hint("give --upgrade")),
            _ => Ok(()),
        }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        self.file.manifest()
    }

    /// Where the manifest is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Where the module is.
    ///
    /// # Errors
    /// Exit code 2 when the manifest names none: a container is verified by its image digest, not run from here.
    pub fn module_path(&self) -> Outcome<PathBuf> {
        match (self.manifest().runtime(), self.file.module_path()) {
            (Runtime::Pipeline | Runtime::Wasm, Some(path)) => Ok(path),
            _ => Err(Failure::usage(format!("{} names no WebAssembly module", self.path().display()))
                .hint("only manifests with `runtime: wasm` or `runtime: pipeline` are handled here")),
        }
    }

    /// File name of the module.
    ///
    /// # Errors
    /// As [`Release::module_path`].
    pub fn module_name(&self) -> Outcome<String> {
        Ok(self
            .module_path()?
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default())
    }

    /// The module's bytes.
    ///
    /// # Errors
    /// Exit code 2 when it cannot be read.
    pub fn module(&self) -> Outcome<Vec<u8>> {
        let path = self.module_path()?;
        if !path.exists() {
            let make = if self.source()?.exists() {
                "`mentatctl sign` makes it from its text form"
            } else {
                "build it first"
            };
            return Err(Failure::usage(format!("the module {} does not exist", path.display())).hint(make));
        }
        let module = self.file.read_module().map_err(|error| file_failure(&error, Exit::Usage))?;
        module.ok_or_else(|| {
            Failure::usage(format!("{} names no module", self.path().display()))
                .hint("only manifests with a WebAssembly module are handled here")
        })
    }

    /// The attestation, ready to be verified.
    ///
    /// # Errors
    /// Exit code 3 with the reason code when there is none, or it cannot be read.
    pub fn attestation(&self) -> Outcome<Attestation> {
        self.file.read_attestation().map_err(|error| file_failure(&error, Exit::Denied))?.ok_or_else(|| {
            Failure::new(Exit::Denied, format!("{} is not signed", self.path().display()))
                .code("inclusion_missing")
                .hint("sign it with: mentatctl sign")
        })
    }

    /// Name and bytes of the bundle file beside the manifest, where the attestation names one.
    ///
    /// # Errors
    /// Exit code 2 when it cannot be read.
    pub fn sidecar(&self) -> Outcome<Option<(String, String)>> {
        let Some(block) = self.file.block() else { return Ok(None) };
        match block.bundle().or_fail(Exit::Denied, self.path().display())? {
            BundleSource::Inline(_) => Ok(None),
            BundleSource::Sidecar(name) => {
                let text = read_text(&self.path().with_file_name(&name))?;
                Ok(Some((name, text)))
            }
        }
    }

    /// The text form that the module is made from, where there is one.
    fn source(&self) -> Outcome<PathBuf> {
        let extension = if *self.manifest().runtime() == Runtime::Pipeline { "yaml" } else { "wat" };
        Ok(self.module_path()?.with_extension(extension))
    }

    /// Makes the module from its text form (`.wat` beside it, of a pipeline `.yaml`) when it is missing. Returns whether it was
    /// made.
    ///
    /// # Errors
    /// When the text does not assemble or cannot be written.
    pub fn assemble_missing_module(&self) -> Outcome<bool> {
        let (path, text) = (self.module_path()?, self.source()?);
        if path.exists() || !text.exists() {
            return Ok(false);
        }
        if *self.manifest().runtime() == Runtime::Pipeline {
            write_file(&path, &assemble_pipeline(&text)?, Secrecy::Public)?;
            return Ok(true);
        }
        let binary = wat::parse_str(read_text(&text)?).map_err(|error| {
            Failure::usage(format!("{} does not assemble: {error}", text.display()))
                .hint("correct the text, or put the built module beside the manifest")
        })?;
        write_file(&path, &binary, Secrecy::Public)?;
        Ok(true)
    }

    /// Refuses a pipeline whose text form beside it says something else: what is signed must be what its author reads, and the
    /// digests of its steps change with every build of them.
    ///
    /// # Errors
    /// Exit code 2.
    pub fn refuse_stale_pipeline(&self) -> Outcome<()> {
        let (path, text) = (self.module_path()?, self.source()?);
        if *self.manifest().runtime() != Runtime::Pipeline
            || !text.exists()
            || self.module()? == assemble_pipeline(&text)?
        {
            return Ok(());
        }
        let what = format!("{} is not what {} says now", path.display(), text.display());
        Err(Failure::usage(what).hint("remove it, and `mentatctl sign` makes it anew"))
    }

    /// The pipeline, if the release is one.
    ///
    /// # Errors
    /// Exit code 2 with the reason code when its document cannot be read.
    pub fn pipeline(&self) -> Outcome<Option<Pipeline>> {
        if *self.manifest().runtime() != Runtime::Pipeline {
            return Ok(None);
        }
        let path = self.module_path()?;
        let pipeline = Pipeline::from_json(&self.module()?).map_err(|error| {
            let code = error.code().as_str();
            let failure = Failure::usage(format!("{}: {error}", path.display())).code(code);
            failure.hint(
                "docs/formats/pipeline.md has the rules; `mentatctl sign` makes it from a .yaml beside it",
            )
        })?;
        Ok(Some(pipeline))
    }
}

fn assemble_pipeline(text: &Path) -> Outcome<Vec<u8>> {
    let pipeline = pipeline_file::assemble(text).map_err(|error| file_failure(&error, Exit::Usage))?;
    pipeline.to_json().or_fail(Exit::Usage, text.display())
}

/// The failure of a file: exit code 2 when it cannot be read, else `exit` with the reason code.
pub fn file_failure(error: &trust_store_files::Error, exit: Exit) -> Failure {
    let failure = Failure::new(exit, chain(error));
    match error.code() {
        Some(code) if exit == Exit::Usage => failure.code(code.as_str()).hint("correct the manifest"),
        Some(code) => {
            failure.code(code.as_str()).hint("docs/operations/denials.md says what to do about each code")
        }
        None => Failure { exit: Exit::Usage, ..failure }.hint("check the path and the file's mode"),
    }
}
