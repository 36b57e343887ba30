//! Who signs: a developer's key with its certificate chain.

use std::path::Path;

use hsm::developer::DeveloperKey;
use hsm::{Input, KeyAlgorithm, PublicKey, Purpose, SignatureAlgorithm, Signer as _, SigningIntent};
use sha2::{Digest as _, Sha256};
use trust_store::Certificate;
use trust_store::identity::Identity;
use trust_store::key_details::KeyDetails;
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::Home;
use crate::{chain_file, pki, trust};

/// Where PEM text comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A file.
    File(&'a Path),
    /// An environment variable, as CI systems hand out secrets.
    Variable(&'a str),
}

/// A key and the certificate that goes with it.
#[derive(Debug)]
pub struct Signer {
    key: DeveloperKey,
    algorithm: SignatureAlgorithm,
    /// Type of the key, as log entries name it.
    pub key_details: KeyDetails,
    /// The certificate and its issuers, end-entity first.
    pub chain: Vec<Certificate>,
}

impl Signer {
    /// Reads certificate and key; they must belong together.
    ///
    /// # Errors
    /// Exit code 2 when either cannot be read or they do not fit.
    pub fn load(
        cert: &Path,
        key: Option<&Path>,
        key_env: Option<&str>,
        passphrase_file: Option<&Path>,
        home: &Home,
    ) -> Outcome<Self> {
        let key = key_env.map(Source::Variable).or(key.map(Source::File));
        Self::load_from(Source::File(cert), key, passphrase_file, home)
    }

    /// The same from any source; the key is by default that of the home folder.
    ///
    /// # Errors
    /// As [`Signer::load`].
    pub fn load_from(
        cert: Source<'_>,
        key: Option<Source<'_>>,
        passphrase_file: Option<&Path>,
        home: &Home,
    ) -> Outcome<Self> {
        let passphrase = passphrase_file.map(pki::passphrase_from).transpose()?;
        let key = match key {
            Some(Source::Variable(name)) => DeveloperKey::from_pem(&variable(name)?, passphrase.as_ref())
                .or_fail(Exit::Usage, name)
                .map_err(pki::key_advice)?,
            Some(Source::File(path)) => pki::read_key(path, passphrase.as_ref())?,
            None => pki::read_key(&home.signing_key(), passphrase.as_ref()).map_err(|failure| {
                failure.hint("make one with: mentatctl pki request-cert --email ADDRESS")
            })?,
        };
        let chain = match cert {
            Source::Variable(name) => chain_file::parse(&variable(name)?, name)?,
            Source::File(path) => chain_file::read(path)?,
        };
        Self::new(key, chain)
    }

    /// A signer of a key and its chain, end-entity first.
    ///
    /// # Errors
    /// Exit code 2 when they do not fit, or the key's type cannot sign statements.
    pub fn new(key: DeveloperKey, chain: Vec<Certificate>) -> Outcome<Self> {
        let certificate = chain.first().ok_or_else(|| Failure::usage("there is no certificate"))?;
        let named =
            PublicKey::from_spki_der(certificate.spki_der()).or_fail(Exit::Usage, "the certificate's key")?;
        if named.spki_sha256() != key.public_key().spki_sha256() {
            return Err(Failure::usage("certificate and key do not belong together")
                .hint("give the --cert and --key that one `pki request-cert` wrote"));
        }
        let algorithm = match key.public_key().algorithm() {
            KeyAlgorithm::EcdsaP256 => SignatureAlgorithm::EcdsaP256Sha256,
            KeyAlgorithm::EcdsaP384 => SignatureAlgorithm::EcdsaP384Sha384,
            KeyAlgorithm::Ed25519 => SignatureAlgorithm::Ed25519,
            KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => SignatureAlgorithm::RsaPkcs1Sha256,
            other => return Err(Failure::usage(format!("statements are not signed with {other} keys"))),
        };
        let key_details = trust::key_details(key.public_key().algorithm())
            .ok_or_else(|| Failure::usage("no log entry can name this key's type"))?;
        Ok(Self { key, algorithm, key_details, chain })
    }

    /// The end-entity certificate.
    pub fn certificate(&self) -> &Certificate {
        #[allow(clippy::indexing_slicing, reason = "`new` refuses an empty chain")]
        &self.chain[0]
    }

    /// The name in the certificate.
    pub fn name(&self) -> String {
        Identity::of_certificate(self.certificate()).map_or_else(
            |_| trust_store::identity::subject_text(self.certificate()),
            |id| id.subject().to_owned(),
        )
    }

    /// Signs a message: DER for ECDSA, raw bytes for Ed25519.
    ///
    /// # Errors
    /// When the key fails.
    pub fn sign(&self, message: &[u8]) -> Outcome<Vec<u8>> {
        self.sign_input(Input::Message(message))
    }

    /// Signs a message, or a digest by the key's own hash.
    ///
    /// # Errors
    /// When the key fails.
    pub fn sign_input(&self, input: Input<'_>) -> Outcome<Vec<u8>> {
        let intent = SigningIntent::fresh(Purpose::Statement).or_fail(Exit::Failure, "signing")?;
        let signature = self.key.sign(input, self.algorithm, &intent).or_fail(Exit::Failure, "signing")?;
        Ok(signature.into_vec())
    }
}

fn variable(name: &str) -> Outcome<Zeroizing<String>> {
    std::env::var(name).map(Zeroizing::new).map_err(|_| {
        Failure::usage(format!("the environment variable {name} is not set, or is not text"))
            .hint("put the PEM text into it, or name a file instead")
    })
}

/// SHA-256 of a file, read in pieces: artifacts may be large.
///
/// # Errors
/// Exit code 2 when it cannot be read.
pub fn sha256_of_file(path: &Path) -> Outcome<[u8; 32]> {
    use std::io::Read as _;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 16];
    let mut read = || -> std::io::Result<()> {
        let mut file = std::fs::File::open(path)?;
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                count => hasher.update(buffer.get(..count).unwrap_or_default()),
            }
        }
    };
    read().or_fail(Exit::Usage, format!("cannot read {}", path.display()))?;
    Ok(hasher.finalize().into())
}

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
