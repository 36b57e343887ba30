//! The files of `chains/`, which logs and relying parties are given. What they must say follows from the records: every start
//! writes anew what an interrupted renewal left behind.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use ca_pki::pem;

use crate::authority::{CertificateAuthority, LoadedAuthority, names};
use crate::error::CaError;

/// Folder of the files.
const FOLDER: &str = "chains";

impl CertificateAuthority {
    /// Writes every file that does not say what the records say.
    ///
    /// # Errors
    /// [`CaError`]; a file stays as it was, or is whole.
    pub fn write_chains(&self) -> Result<(), CaError> {
        let issues = |name: &str| !self.has_fallen(name) && self.responder_of(name).is_ok();
        let standing = self.generations(names::CODE_SIGNING).filter(|authority| issues(&authority.name));
        let standing: Vec<&LoadedAuthority> = standing.collect();
        // Without any the file says who it was.
        if !standing.is_empty() {
            self.write_signing_chain(&standing)?;
        }
        for root in self.generations(names::ROOT) {
            self.write_chain(&format!("{}.pem", root.name), std::iter::once(&root.certificate))?;
        }
        let statements: Vec<&LoadedAuthority> = self.generations(names::STATEMENT).collect();
        self.write_statement_keys(&statements)?;
        for responder in self.generations(names::OCSP_RESPONDER) {
            let file = format!("{}.pem", responder.name);
            self.write_chain(&file, std::iter::once(&responder.certificate))?;
        }
        let stamps = self.authority(names::TIMESTAMP_AUTHORITY)?;
        self.write_chain("time-stamping.pem", stamps.chain.iter()).map(drop)
    }

    /// Writes the file of the CAs for code signing, the newest first, their roots at its end.
    pub(super) fn write_signing_chain(&self, authorities: &[&LoadedAuthority]) -> Result<PathBuf, CaError> {
        let mut roots: Vec<&Vec<u8>> = Vec::new();
        for root in authorities.iter().filter_map(|authority| authority.chain.last()) {
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        let issuers = authorities.iter().map(|authority| &authority.certificate);
        self.write_chain("code-signing.pem", issuers.chain(roots))
    }

    /// Writes the file of the keys of statements, the newest first: what an older one signed stays in the log.
    pub(super) fn write_statement_keys(&self, keys: &[&LoadedAuthority]) -> Result<PathBuf, CaError> {
        let keys = keys.iter().map(|key| key.signer.public_key().to_pem());
        self.write_file("statement.pub.pem", &keys.collect::<String>())
    }

    /// Writes certificates into a file of `chains/`.
    pub(super) fn write_chain<'a>(
        &self,
        file: &str,
        chain: impl Iterator<Item = &'a Vec<u8>>,
    ) -> Result<PathBuf, CaError> {
        let text: String = chain.map(|der| pem::encode("CERTIFICATE", der)).collect::<Result<_, _>>()?;
        self.write_file(file, &text)
    }

    /// Writes a file of `chains/` in one step, unless it says so already; durable on return.
    fn write_file(&self, file: &str, text: &str) -> Result<PathBuf, CaError> {
        let folder = self.settings.data_dir.join(FOLDER);
        let path = folder.join(file);
        if std::fs::read_to_string(&path).is_ok_and(|found| found == text) {
            return Ok(path);
        }
        let beside = path.with_extension("pem.new");
        let written = File::create(&beside)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&beside, &path))
            .and_then(|()| File::open(&folder)?.sync_all());
        written.map_err(|error| {
            tracing::error!(%error, path = %path.display(), "the certificate is recorded, but its file is not");
            CaError::Inconsistent("the certificate is recorded, but its file in chains cannot be written")
        })?;
        Ok(path)
    }
}
