//! `manifest.yaml` on disk, with its module and its bundle beside it.

use std::path::{Path, PathBuf};

use trust_store::attestation::{Attestation, AttestationBlock, BundleSource};
use trust_store::bundle::MAX_BUNDLE_BYTES;
use trust_store::manifest::Manifest;

use crate::atomic::{self, Readers};
use crate::error::Error;
use crate::{splice, yaml};

/// Largest manifest file, in bytes: the manifest and an attestation block with an inline bundle.
pub const MAX_MANIFEST_FILE_BYTES: usize = 16 << 20;
/// Largest module that is read, in bytes.
pub const MAX_MODULE_BYTES: u64 = 64 << 20;

/// A manifest file that was read: typed content, and the text it came from.
#[derive(Clone, Debug)]
pub struct ManifestFile {
    path: PathBuf,
    text: String,
    manifest: Manifest,
    block: Option<AttestationBlock>,
}

/// The bundle that goes with a new attestation block.
#[derive(Clone, Copy, Debug)]
pub enum NewBundle<'a> {
    /// It stands in the block.
    Inline,
    /// It is written to this file beside the manifest, before the manifest is.
    Sidecar {
        /// File name, as the block has it.
        name: &'a str,
        /// The bundle's JSON.
        json: &'a [u8],
    },
}

impl ManifestFile {
    /// Reads a manifest; for a directory, its `manifest.yaml`. A version 1 block is an error with a hint; see
    /// [`ManifestFile::load_for_signing`].
    ///
    /// # Errors
    /// [`Error`] of reading, and `malformed`, `unsupported` or `too_large` for the content.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let mut file = Self::load_for_signing(path)?;
        // From the text that was read, not from the file again: it may change.
        let (_, block) = read_document(&file.path, file.text.as_bytes())?;
        file.block = block
            .map(|block| AttestationBlock::from_value(&block))
            .transpose()
            .map_err(Error::content(&file.path))?;
        Ok(file)
    }

    /// Reads a manifest to sign it: whatever stands in its `attestation` block is not looked at.
    ///
    /// # Errors
    /// As [`ManifestFile::load`].
    pub fn load_for_signing(path: &Path) -> Result<Self, Error> {
        let path = if path.is_dir() { path.join("manifest.yaml") } else { path.to_path_buf() };
        let bytes = atomic::read(&path, MAX_MANIFEST_FILE_BYTES as u64)?;
        let (manifest, _) = read_document(&path, &bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Self { path, text, manifest, block: None })
    }

    /// Where the manifest is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's text, as it was read: what the manifest and the block were taken from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The manifest without its attestation block.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The attestation block, if there is one and [`ManifestFile::load`] read it.
    pub fn block(&self) -> Option<&AttestationBlock> {
        self.block.as_ref()
    }

    /// Where the module is: beside the manifest. `None` for a container agent.
    pub fn module_path(&self) -> Option<PathBuf> {
        self.manifest.module().map(|name| self.beside(name.as_str()))
    }

    /// Reads the module.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over [`MAX_MODULE_BYTES`], [`Error::NotAFile`], [`Error::Io`]; `None` for a container agent.
    pub fn read_module(&self) -> Result<Option<Vec<u8>>, Error> {
        self.module_path().map(|path| atomic::read(&path, MAX_MODULE_BYTES)).transpose()
    }

    /// The attestation, with its bundle from the block or from the sidecar file. `None` without a block.
    ///
    /// # Errors
    /// [`Error`] of reading the sidecar, and of the content.
    pub fn read_attestation(&self) -> Result<Option<Attestation>, Error> {
        let Some(block) = &self.block else { return Ok(None) };
        let (bundle, source) = match block.bundle().map_err(Error::content(&self.path))? {
            BundleSource::Inline(bytes) => (bytes, self.path.clone()),
            BundleSource::Sidecar(name) => {
                let path = self.beside(&name);
                (atomic::read(&path, MAX_BUNDLE_BYTES as u64)?, path)
            }
        };
        Attestation::for_manifest(self.manifest.clone(), block, &bundle)
            .map(Some)
            .map_err(Error::content(&source))
    }

    /// Writes the attestation block into the file, in place of an earlier one; every other line stays as it is. A
    /// sidecar is written first, so that a manifest never names a bundle that is not there.
    ///
    /// # Errors
    /// [`Error::NotPreserved`] if the text is not one that a block can be put into, or the result would not read back
    /// as the same manifest with this block; [`Error::Io`].
    pub fn store_attestation(
        &mut self,
        block: &AttestationBlock,
        bundle: NewBundle<'_>,
    ) -> Result<(), Error> {
        let not_preserved = |detail| Error::NotPreserved { path: self.path.clone(), detail };
        let value = block.to_value().map_err(Error::content(&self.path))?;
        let text = splice::with_attestation(&self.text, &value)
            .ok_or_else(|| not_preserved("write the manifest as a block mapping, one key per line"))?;
        let (manifest, written) = read_document(&self.path, text.as_bytes())?;
        let same_block = written
            .and_then(|written| AttestationBlock::from_value(&written).ok())
            .is_some_and(|written| written == *block);
        if manifest != self.manifest || !same_block {
            return Err(not_preserved(
                "the result would read differently; put `attestation` last and sign again",
            ));
        }
        if let NewBundle::Sidecar { name, json } = bundle {
            match block.bundle() {
                Ok(BundleSource::Sidecar(named)) if named == name => {}
                _ => {
                    return Err(not_preserved(
                        "the block names another bundle file than the one to be written",
                    ));
                }
            }
            atomic::write(&self.beside(name), json, Readers::Everybody)?;
        }
        atomic::write(&self.path, text.as_bytes(), Readers::Everybody)?;
        self.text = text;
        self.block = Some(block.clone());
        Ok(())
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }
}

/// Reads the manifest from YAML text, as it would be read from a file: the manifest and its attestation block.
///
/// # Errors
/// `malformed`, `unsupported` or `too_large`.
pub fn parse(bytes: &[u8]) -> Result<(Manifest, Option<AttestationBlock>), trust_store::error::Error> {
    let document = yaml::parse("manifest", bytes, MAX_MANIFEST_FILE_BYTES)?;
    let (manifest, block) = Manifest::from_document(document)?;
    Ok((manifest, block.map(|block| AttestationBlock::from_value(&block)).transpose()?))
}

fn read_document(path: &Path, bytes: &[u8]) -> Result<(Manifest, Option<trust_store::json::Value>), Error> {
    let document = yaml::parse("manifest", bytes, MAX_MANIFEST_FILE_BYTES).map_err(Error::content(path))?;
    Manifest::from_document(document).map_err(Error::content(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use trust_store::attestation::Staples;
    use trust_store::bundle::Bundle;
    use trust_store::dsse::Envelope;

    const TEXT: &str = "\
# An agent
id: mentatlab.example   # its name
version: 1.0.0
runtime: wasm
module: agent.wasm

wasm:
  memory: {maximum: 64}
  capabilities:
  - env:A
";

    fn directory(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("manifest.yaml"), text).unwrap();
        let path = directory.path().join("manifest.yaml");
        (directory, path)
    }

    fn bundle() -> Bundle {
        Bundle::for_envelope(b"cert".to_vec(), Envelope::new("t", b"p".to_vec(), b"sig".to_vec()))
    }

    #[test]
    fn digest_of_the_canonical_form_is_frozen() {
        let (directory, path) = directory(TEXT);
        let file = ManifestFile::load(directory.path()).unwrap();
        assert_eq!(file.path(), path);
        let canonical = concat!(
            r#"{"id":"mentatlab.example","module":"agent.wasm","runtime":"wasm","version":"1.0.0","#,
            r#""wasm":{"capabilities":["env:A"],"memory":{"maximum":64}}}"#
        );
        assert_eq!(std::str::from_utf8(file.manifest().canonical_json()).unwrap(), canonical);
    }

    #[test]
    fn block_is_inserted_and_replaced_and_the_text_stays() {
        let (directory, path) = directory(TEXT);
        let mut file = ManifestFile::load(&path).unwrap();
        assert!(file.block().is_none() && file.read_attestation().unwrap().is_none());
        for name in ["a.sigstore.json", "b.sigstore.json"] {
            let block = AttestationBlock::new(&bundle(), Some(name), &[], Staples::default()).unwrap();
            let json = bundle().to_json().unwrap();
            file.store_attestation(&block, NewBundle::Sidecar { name, json: &json }).unwrap();
            let again = ManifestFile::load(&path).unwrap();
            assert_eq!((again.block(), again.manifest()), (Some(&block), file.manifest()));
            assert!(fs::read_to_string(&path).unwrap().starts_with(TEXT));
            assert_eq!(fs::read(directory.path().join(name)).unwrap(), json);
        }
        assert_eq!(fs::read_to_string(&path).unwrap().matches("attestation:").count(), 1);
    }

    #[test]
    fn an_inline_bundle_is_read_back() {
        let (_directory, path) = directory(TEXT);
        let mut file = ManifestFile::load(&path).unwrap();
        let block = AttestationBlock::new(&bundle(), None, &[], Staples::default()).unwrap();
        file.store_attestation(&block, NewBundle::Inline).unwrap();
        // The stand-in certificate is no certificate: reading it is what fails, with its code.
        let error = ManifestFile::load(&path).unwrap().read_attestation().unwrap_err();
        assert_eq!(error.code(), Some(trust_store::ReasonCode::Malformed));
    }

    #[test]
    fn version_one_is_refused_but_can_be_signed_again() {
        let (_directory, path) = directory(&format!("{TEXT}attestation:\n  version: 1\n  signature: c2ln\n"));
        let error = ManifestFile::load(&path).unwrap_err();
        assert_eq!(error.code(), Some(trust_store::ReasonCode::Unsupported));
        assert!(error.to_string().contains("mentatctl sign --upgrade"));
        let mut file = ManifestFile::load_for_signing(&path).unwrap();
        let block = AttestationBlock::new(&bundle(), None, &[], Staples::default()).unwrap();
        file.store_attestation(&block, NewBundle::Inline).unwrap();
        assert_eq!(ManifestFile::load(&path).unwrap().block(), Some(&block));
    }

    #[test]
    fn refuses_what_it_cannot_preserve() {
        let flow = "{id: a.b, version: 1.0.0, runtime: wasm, module: m.wasm}\n";
        let (_directory, path) = directory(flow);
        let mut file = ManifestFile::load(&path).unwrap();
        let block = AttestationBlock::new(&bundle(), None, &[], Staples::default()).unwrap();
        assert!(matches!(file.store_attestation(&block, NewBundle::Inline), Err(Error::NotPreserved { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), flow);
    }

    #[test]
    fn module_is_beside_the_manifest_and_bounded() {
        let (directory, path) = directory(TEXT);
        let file = ManifestFile::load(&path).unwrap();
        assert!(matches!(file.read_module(), Err(Error::Io { .. })));
        fs::write(directory.path().join("agent.wasm"), b"\0asm").unwrap();
        assert_eq!(file.read_module().unwrap().unwrap(), b"\0asm");
    }

    #[test]
    fn bad_manifests_name_the_file_and_the_rule() {
        for (text, code) in [
            ("id: a\nid: b\n", "malformed"),
            ("id: [\n", "malformed"),
            ("id: a.b\nversion: 1.0.0\nruntime: ruby\n", "unsupported"),
            ("id: a.b\nversion: 1.0\nruntime: wasm\nmodule: m\n", "malformed"),
        ] {
            let (_directory, path) = directory(text);
            let error = ManifestFile::load(&path).unwrap_err();
            assert_eq!(error.code().unwrap().as_str(), code, "{text}");
            assert!(error.to_string().contains("manifest.yaml"));
        }
    }
}
