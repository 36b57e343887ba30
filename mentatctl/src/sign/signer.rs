//! Who signs: a developer's key with its certificate chain.

use std::path::Path;
use std::sync::Arc;

use ca_api::client::CaClient;
use hsm::{Input, KeyAlgorithm, PublicKey, Purpose, SignatureAlgorithm, SigningIntent};
use sha2::{Digest as _, Sha256};
use trust_store::identity::Identity;
use trust_store::key_details::KeyDetails;
use trust_store::{Certificate, UnixTime};

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::Home;
use crate::net::block_on;
use crate::{chain_file, pki, trust};

use super::key::{self, Source};

/// A key and the certificate that goes with it.
pub struct Signer {
    key: Arc<dyn hsm::Signer>,
    algorithm: SignatureAlgorithm,
    /// Type of the key, as log entries name it.
    pub key_details: KeyDetails,
    /// The certificate and its issuers, end-entity first.
    pub chain: Vec<Certificate>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signer").field(self.key.public_key()).finish()
    }
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
        let key = key::read(key, passphrase_file, home)?;
        let chain = match cert {
            Source::Variable(name) => chain_file::parse(&key::variable(name)?, name)?,
            Source::File(path) => chain_file::read(path)?,
        };
        Self::new(key, chain)
    }

    /// A signer of a key alone: the certificate is the one in the home folder if it is this key's, else the newest that the
    /// authority issued for the key. Such a pipeline keeps one secret, and its certificate may be renewed without it.
    ///
    /// # Errors
    /// Exit code 2 when the key cannot be read or the authority's address is not known, 1 when it has no certificate of this
    /// key that can be used now, 69 when it cannot be reached.
    pub fn load_by_key(
        key: Source<'_>,
        passphrase_file: Option<&Path>,
        http: reqwest::Client,
        ca_url: Option<&str>,
        home: &Home,
    ) -> Outcome<Self> {
        let key = key::read(Some(key), passphrase_file, home)?;
        let own = hex::encode(key.public_key().spki_sha256());
        let path = home.signing_certificate();
        if path.is_file()
            && let Ok(chain) = chain_file::read(&path)
            && chain.first().is_some_and(|certificate| hex::encode(sha256(certificate.spki_der())) == own)
        {
            return Self::new(key, chain);
        }
        let authority = CaClient::new(http, &home.ca_url(ca_url)?);
        let issued = block_on(async { authority.certificate_of_key(&own).await.map_err(pki::ca_failure) })
            .map_err(|failure| match failure.code.as_deref() {
                Some("certificate_unknown") => Failure::failed(
                    "the authority has no certificate for this key that can be used now",
                )
                .code("certificate_unknown")
                .hint("get one with `mentatctl pki request-cert --key FILE`, or name one with --cert or --cert-env"),
                _ => failure,
            })?;
        let chain: Vec<&str> =
            std::iter::once(&issued.certificate).chain(&issued.chain).map(String::as_str).collect();
        // The root is the verifier's own; `pki request-cert` leaves it out as well.
        let chain = chain_file::parse(&chain.join("\n"), "the authority's answer")
            .map_err(|failure| Failure { exit: Exit::Failure, ..failure })?;
        let chain = chain.into_iter().filter(|link| link.subject_der() != link.issuer_der()).collect();
        Self::new(key, chain)
    }

    /// A signer of a key and its chain, end-entity first.
    ///
    /// # Errors
    /// Exit code 2 when they do not fit, or the key's type cannot sign statements.
    pub fn new(key: Arc<dyn hsm::Signer>, chain: Vec<Certificate>) -> Outcome<Self> {
        let certificate = chain.first().ok_or_else(|| {
            Failure::usage("there is no certificate").hint("give a PEM file with the certificate first")
        })?;
        let named =
            PublicKey::from_spki_der(certificate.spki_der()).or_fail(Exit::Usage, "the certificate's key")?;
        if named.spki_sha256() != key.public_key().spki_sha256() {
            return Err(Failure::usage("certificate and key do not belong together")
                .hint("give the --cert and --key that one `pki request-cert` wrote"));
        }
        let (algorithm, key_details) = kinds_of(key.public_key())?;
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

    /// Refuses a certificate whose time is over: what is signed with it is recorded for ever and verifies nowhere.
    ///
    /// # Errors
    /// Exit code 2.
    pub fn refuse_expired(&self, now: UnixTime) -> Outcome<()> {
        let end = self.certificate().not_after();
        if now <= end {
            return Ok(());
        }
        Err(Failure::usage(format!("the certificate of {} expired at {}", self.name(), end.to_rfc3339()))
            .code("expired_at_signing")
            .hint("renew it with `mentatctl pki renew`; with an identity token, get a new token and sign what is left"))
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

/// How a key signs, and what log entries call its type.
///
/// # Errors
/// Exit code 2 for a type that signs no statements.
pub fn kinds_of(key: &PublicKey) -> Outcome<(SignatureAlgorithm, KeyDetails)> {
    let algorithm = match key.algorithm() {
        KeyAlgorithm::EcdsaP256 => SignatureAlgorithm::EcdsaP256Sha256,
        KeyAlgorithm::EcdsaP384 => SignatureAlgorithm::EcdsaP384Sha384,
        KeyAlgorithm::Ed25519 => SignatureAlgorithm::Ed25519,
        KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => SignatureAlgorithm::RsaPkcs1Sha256,
        other => {
            return Err(Failure::usage(format!("statements are not signed with {other} keys"))
                .hint("use an ECDSA, Ed25519 or RSA key"));
        }
    };
    let details = trust::key_details(key.algorithm())
        .ok_or_else(|| Failure::usage("no log entry can name this key's type"))?;
    Ok((algorithm, details))
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
