//! A signature whose evidence is not complete because a service was away: a JSON file beside the module, without any secret.
//!
//! | member | value |
//! |---|---|
//! | `version` | 1 |
//! | `bundle` | the Sigstore bundle as far as it got: the envelope, and a timestamp if there was one |
//! | `certificate_chain` | PEM, end-entity first |
//! | `sidecar` | the name of the bundle's file, if it is not to stand in the manifest |

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use trust_store::Certificate;
use trust_store::bundle::{Bundle, Content};
use trust_store::rekor::{HashedRekord, VerifierKey};
use trust_store::statement::Statement;

use super::signer::{kinds_of, sha256, sha256_of_file};
use crate::exit::{Exit, Failure, OrFail as _, Outcome, file_failure};
use crate::home::{Secrecy, read_file, write_file};
use crate::release::Release;

/// The version that is read and written.
const VERSION: u32 = 1;

/// A signature that waits for its evidence.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The bundle as far as it got.
    pub bundle: Bundle,
    /// The signer's certificate and its issuers.
    pub chain: Vec<Certificate>,
    /// The name of the bundle's file, if it is not to stand in the manifest.
    pub sidecar: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    bundle: Value,
    certificate_chain: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sidecar: Option<String>,
}

impl Pending {
    /// A signature that waits.
    pub fn new(bundle: &Bundle, chain: &[Certificate], sidecar: Option<String>) -> Self {
        Self { bundle: bundle.clone(), chain: chain.to_vec(), sidecar }
    }

    /// Where the signature of a module, or of its release, waits.
    pub fn path(module: &Path) -> PathBuf {
        let mut name = module.file_name().unwrap_or_default().to_owned();
        name.push(".pending.json");
        module.with_file_name(name)
    }

    /// Keeps it beside the module, in place of an earlier one.
    ///
    /// # Errors
    /// Exit code 1 when it cannot be written.
    pub fn store(&self, module: &Path) -> Outcome<()> {
        let bundle = self.bundle.to_json().or_fail(Exit::Failure, "writing the bundle")?;
        let file = File {
            version: VERSION,
            bundle: serde_json::from_slice(&bundle).or_fail(Exit::Failure, "writing the bundle")?,
            certificate_chain: self.chain.iter().map(Certificate::to_pem).collect(),
            sidecar: self.sidecar.clone(),
        };
        let json = serde_json::to_vec(&file).or_fail(Exit::Failure, "writing the pending signature")?;
        write_file(&Self::path(module), &json, Secrecy::Public)
    }

    /// The signature that waits beside a manifest, checked to be about this manifest and this module.
    ///
    /// # Errors
    /// Exit code 2 when none waits, it cannot be read, or the release changed since it was signed.
    pub fn load(release: &Release) -> Outcome<Self> {
        let module = release.module_path()?;
        let pending = Self::read(&module, release.path())?;
        let statement = Statement::agent_release(release.manifest(), &sha256(&release.module()?));
        let expected = statement.to_payload().or_fail(Exit::Failure, "writing the statement")?;
        match &pending.bundle.content {
            Content::Dsse(envelope) if envelope.payload == expected => Ok(pending),
            _ => Err(broken(&Self::path(&module), "the manifest or the module changed since it was signed")),
        }
    }

    /// The signature that waits beside a module without a manifest, checked to be about this module.
    ///
    /// # Errors
    /// As [`Pending::load`].
    pub fn load_of_module(module: &Path) -> Outcome<Self> {
        let pending = Self::read(module, module)?;
        let expected = sha256_of_file(module)?;
        match &pending.bundle.content {
            Content::Message { digest: Some((_, digest)), .. } if *digest == expected => Ok(pending),
            _ => Err(broken(
                &Self::path(module),
                "the module changed since it was signed, or has a manifest no more",
            )),
        }
    }

    fn read(module: &Path, of: &Path) -> Outcome<Self> {
        let path = Self::path(module);
        if !path.exists() {
            return Err(Failure::usage(format!("no signature of {} is pending", of.display()))
                .hint("sign it with: mentatctl sign"));
        }
        let file: File = serde_json::from_slice(&read_file(&path)?)
            .map_err(|_| broken(&path, "not a pending signature, or of a later version"))?;
        if file.version != VERSION {
            return Err(broken(&path, "not a pending signature, or of a later version"));
        }
        let bundle =
            Bundle::parse(file.bundle.to_string().as_bytes()).or_fail(Exit::Usage, path.display())?;
        let chain =
            crate::chain_file::parse(&file.certificate_chain.join("\n"), &path.display().to_string())?;
        if bundle.certificate() != chain.first().map(Certificate::der) {
            return Err(broken(&path, "its certificate is not the one that signed"));
        }
        Ok(Self { bundle, chain, sidecar: file.sidecar })
    }

    /// Removes what waited beside a module that is signed now.
    ///
    /// # Errors
    /// Exit code 1 when it cannot be removed.
    pub fn forget(module: &Path) -> Outcome<()> {
        let path = Self::path(module);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(file_failure(Exit::Failure, path.display(), &error))
            }
            _ => Ok(()),
        }
    }
}

fn broken(path: &Path, what: &str) -> Failure {
    Failure::usage(format!("{}: {what}", path.display())).hint("sign again with: mentatctl sign")
}

/// The entry that belongs into the log for a bundle with a certificate.
///
/// # Errors
/// Exit code 2 for a bundle with a bare key, without the digest of what was signed, or with a key that no entry can name.
pub fn entry_of(bundle: &Bundle, certificate: &Certificate) -> Outcome<HashedRekord> {
    let key = hsm::PublicKey::from_spki_der(certificate.spki_der())
        .or_fail(Exit::Usage, "the certificate's key")?;
    let (_, details) = kinds_of(&key)?;
    let verifier = VerifierKey::Certificate(certificate.der().to_vec());
    match &bundle.content {
        Content::Dsse(envelope) => HashedRekord::for_envelope(envelope, verifier, details),
        Content::Message { digest: Some((_, digest)), signature } => {
            HashedRekord::new(digest.clone(), signature.clone(), verifier, details)
        }
        Content::Message { digest: None, .. } => {
            return Err(Failure::usage("the bundle does not say which digest was signed").hint(
                "give the artifact and the signature instead: --artifact FILE --signature FILE --cert FILE",
            ));
        }
    }
    .or_fail(Exit::Usage, "the log entry")
}
