//! One's own certificates: by the certified key itself, without an administrator's token.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ca_api::client::CaClient;
use ca_api::possession::{KeyProof, ListOwn, OwnReason, ProvenDeed, Renew, RevokeOwn};
use ca_api::{CertificateRecord, Revocation};
use clap::Args;
use hsm::{Input, KeyAlgorithm, Passphrase, PublicKey, Purpose, SignatureAlgorithm, Signer, SigningIntent};
use sha2::{Digest as _, Sha256};
use trust_store::Certificate;
use zeroize::Zeroizing;

use super::{CaFlags, Reason, ca_failure, passphrase_from, read_key};
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::Home;
use crate::net::block_on;
use crate::sign::key;
use crate::{chain_file, clock};

/// Most pages of one's own certificates that are read.
const MAX_PAGES: u32 = 100;

/// Whether to act with the certified key in the place of an administrator, and where it is.
#[derive(Debug, Args)]
pub struct OwnFlags {
    /// Act with the key of your own certificate: no administrator is needed
    #[arg(long)]
    pub(super) mine: bool,
    /// With --mine: your certificate [default: ~/.mentat/signing.crt]
    #[arg(long, value_name = "FILE", requires = "mine")]
    signing_cert: Option<PathBuf>,
    /// With --mine: its key [default: ~/.mentat/signing.key], or its reference (pkcs11:…, awskms:…)
    #[arg(long, value_name = "FILE|REFERENCE", requires = "mine")]
    signing_key: Option<PathBuf>,
    /// With --mine: file with the passphrase of the key
    #[arg(long, value_name = "FILE", requires = "mine")]
    passphrase_file: Option<PathBuf>,
    /// With --mine: show the certificate at the TLS handshake, where the authority takes that, instead of signing what is asked for
    #[arg(long, requires = "mine")]
    mtls: bool,
}

/// How the certified key is shown to the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Showing {
    /// At the TLS handshake.
    Handshake,
    /// By a signature over what is asked for.
    Signature,
}

impl Showing {
    /// As the flag says.
    pub fn mutual_tls(wanted: bool) -> Self {
        if wanted { Self::Handshake } else { Self::Signature }
    }
}

/// A certificate with its key.
pub struct Own {
    key: Arc<dyn Signer>,
    pub(super) serial: String,
    certificate_sha256: String,
    /// What is shown at the handshake, in PEM: the certificate with its issuers, and the key.
    shown: Option<(String, Zeroizing<String>)>,
}

impl OwnFlags {
    fn open(&self, home: &Home) -> Outcome<Own> {
        let certificate = self.signing_cert.clone().unwrap_or_else(|| home.signing_certificate());
        let key = self.signing_key.clone().unwrap_or_else(|| home.signing_key());
        let passphrase = self.passphrase_file.as_deref().map(passphrase_from).transpose()?;
        Own::open(&certificate, &key, passphrase.as_ref(), Showing::mutual_tls(self.mtls))
    }
}

impl Own {
    /// Opens a certificate and its key.
    ///
    /// # Errors
    /// Exit code 2 when they cannot be used, are not of each other, or the key cannot be shown so.
    pub fn open(path: &Path, key: &Path, passphrase: Option<&Passphrase>, showing: Showing) -> Outcome<Self> {
        let chain = chain_file::read(path)?;
        let pem: String = chain.iter().map(Certificate::to_pem).collect();
        let certificate = chain.into_iter().next().ok_or_else(|| Failure::usage("no certificate"))?;
        let (key, shown): (Arc<dyn Signer>, _) = match showing {
            Showing::Signature => (key::open(key, passphrase)?, None),
            Showing::Handshake if key::reference(key)?.is_some() => {
                return Err(Failure::usage("a key that lives elsewhere signs no handshakes")
                    .hint("leave --mtls out: it signs what is asked for"));
            }
            Showing::Handshake => {
                let key = read_key(key, passphrase)?;
                let secret = key.to_pem();
                (key::shared(key), Some((pem, secret)))
            }
        };
        let named = PublicKey::from_spki_der(certificate.spki_der()).or_fail(Exit::Usage, path.display())?;
        if named.spki_sha256() != key.public_key().spki_sha256() {
            return Err(Failure::usage(format!("the key is not that of {}", path.display()))
                .hint("name the certificate and its own key"));
        }
        Ok(Self {
            key,
            serial: hex::encode(certificate.serial()),
            certificate_sha256: hex::encode(Sha256::digest(certificate.der())),
            shown,
        })
    }

    /// A client without the administrator's token, which shows the certificate where that is how it is shown.
    ///
    /// # Errors
    /// When the address is not known, or not one of TLS where it must be.
    pub fn client(&self, ca: &CaFlags, home: &Home) -> Outcome<CaClient> {
        let url = ca.url(home)?;
        let http = match &self.shown {
            None => ca.http(home)?,
            Some(_) if !url.starts_with("https://") => {
                return Err(Failure::usage(format!("--mtls needs TLS, and {url} has none"))
                    .hint("give an https:// address in --ca-url, or leave --mtls out"));
            }
            Some((chain, key)) => ca.tls.client_showing(chain.as_bytes(), key, home)?,
        };
        Ok(CaClient::new(http, &url))
    }

    /// Whether the handshake shows the key.
    pub fn is_shown(&self) -> bool {
        self.shown.is_some()
    }

    /// The proof for one deed, of now; none where the handshake is the proof.
    ///
    /// # Errors
    /// Exit code 1 when the key does not sign.
    pub fn proof(&self, deed: ProvenDeed, content: &str) -> Outcome<Option<KeyProof>> {
        if self.shown.is_some() {
            return Ok(None);
        }
        let algorithm = match self.key.public_key().algorithm() {
            KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => SignatureAlgorithm::RsaPkcs1Sha256,
            other => other.default_signature(),
        };
        let time = clock::now().0;
        let message = KeyProof::message(deed, &self.certificate_sha256, time, content);
        let intent = SigningIntent::fresh(Purpose::Request).or_fail(Exit::Failure, "the proof")?;
        let signature = self.key.sign(Input::Message(message.as_bytes()), algorithm, &intent);
        let signature = hex::encode(signature.or_fail(Exit::Failure, "signing the proof")?.as_bytes());
        Ok(Some(KeyProof { serial: self.serial.clone(), time, challenge: None, signature }))
    }

    /// The proof for a renewal, which names a challenge of the authority; none where the handshake shows the key.
    ///
    /// # Errors
    /// As [`Self::proof`].
    pub fn renewal(&self, challenge: String, request_id: &str, csr: &str) -> Outcome<Option<KeyProof>> {
        let proof = self.proof(ProvenDeed::Renew, &Renew::content(&challenge, request_id, csr))?;
        Ok(proof.map(|proof| KeyProof { challenge: Some(challenge), ..proof }))
    }
}

/// The newest certificates of one's own identity, so many at most.
///
/// # Errors
/// Exit code 2 when certificate or key cannot be used; what the authority refuses.
pub fn list(own: &OwnFlags, limit: u32, ca: &CaFlags, home: &Home) -> Outcome<Vec<CertificateRecord>> {
    let own = own.open(home)?;
    let client = own.client(ca, home)?;
    let (mut found, mut after) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let proof = own.proof(ProvenDeed::List, &ListOwn::content(after))?;
        let asked = ListOwn { proof, after };
        let page = block_on(async { client.list_own(&asked).await.map_err(ca_failure) })?;
        found.extend(page.certificates);
        after = page.next;
        if after.is_none() || found.len() >= limit as usize {
            break;
        }
    }
    found.truncate(limit as usize);
    Ok(found)
}

/// Revokes one's own certificate.
///
/// # Errors
/// Exit code 2 for a reason that is not its holder's to give; as [`list`].
pub fn revoke(
    own: &OwnFlags,
    reason: Reason,
    compromised_at: Option<i64>,
    ca: &CaFlags,
    home: &Home,
) -> Outcome<Revocation> {
    let reason = match reason {
        Reason::KeyCompromise => OwnReason::KeyCompromise,
        Reason::Superseded => OwnReason::Superseded,
        Reason::CessationOfOperation => OwnReason::CessationOfOperation,
        _ => {
            return Err(Failure::usage("your own certificate is revoked for a reason of yours")
                .hint("give --reason key-compromise, superseded or cessation-of-operation"));
        }
    };
    let own = own.open(home)?;
    let client = own.client(ca, home)?;
    let proof = own.proof(ProvenDeed::Revoke, &RevokeOwn::content(reason, compromised_at))?;
    let asked = RevokeOwn { proof, reason, compromised_at };
    block_on(async { client.revoke_own(&asked).await.map_err(ca_failure) })
}
