//! Certificates for whoever an identity token names (Fulcio's interface, version 2; sigstore-contract §3).
//!
//! The token proves the identity, the request the possession of the key. What the certificate says comes from the
//! verified token and the configuration alone: a certificate request contributes its key and nothing else.

use std::sync::Arc;

use ca_pki::csr::VerifiedRequest;
use ca_pki::key::{KeyKind, KeyUse, MAX_SPKI};
use ca_pki::{SubjectPublicKey, pem};
use sha2::{Digest as _, Sha256};
use trust_store::provider::AwsLc;
use trust_store::signature::{Algorithm, SignatureVerifier as _};

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::issuance::{AuthorisedRequest, Issued};
use crate::oidc::{OidcError, ProvenIdentity};
use crate::queue::{Asked, Proof};
use crate::storage::StoreError;
use crate::token_refusal::Purpose;

/// Longest PEM public key in characters.
const MAX_KEY_PEM: usize = 2 * MAX_SPKI;
/// Longest proof of possession: a signature of RSA-8192.
pub const MAX_PROOF: usize = 1024;

/// A request for a certificate.
#[derive(Clone)]
pub struct CertificateRequest {
    /// The identity token.
    pub token: String,
    /// The key, and the proof that the requester has its private half.
    pub key: KeyProof,
    /// What the client certificate of the connection names the requester; none where it cannot be read.
    pub connection: Option<Vec<String>>,
}

/// A key with a proof of possession.
#[derive(Clone, Debug)]
pub enum KeyProof {
    /// A public key, and its signature over the challenge: the e-mail address, or the subject of the token.
    Challenge {
        /// SubjectPublicKeyInfo, PEM.
        public_key: String,
        /// The signature; its hash follows from the key.
        signature: Vec<u8>,
    },
    /// A PKCS #10 request, PEM.
    Request(String),
}

impl KeyProof {
    /// The key, once its possession is proven.
    fn verify(&self, challenge: &str, key_use: KeyUse) -> Result<SubjectPublicKey, ca_pki::Error> {
        match self {
            Self::Request(text) => Ok(VerifiedRequest::from_pem(text, key_use, &AwsLc)?.public_key().clone()),
            Self::Challenge { public_key, signature } => {
                let spki = pem::decode("public key", &["PUBLIC KEY"], public_key, MAX_KEY_PEM)?;
                let key = SubjectPublicKey::from_spki(&spki, key_use)?;
                let algorithm = match key.kind() {
                    KeyKind::EcdsaP256 => Algorithm::EcdsaP256Sha256,
                    KeyKind::EcdsaP384 => Algorithm::EcdsaP384Sha384,
                    KeyKind::EcdsaP521 => Algorithm::EcdsaP521Sha512,
                    KeyKind::Rsa(_) => Algorithm::RsaPkcs1Sha256,
                    _ => return Err(ca_pki::Error::ProofOfPossession),
                };
                if signature.len() > MAX_PROOF {
                    return Err(ca_pki::Error::ProofOfPossession);
                }
                AwsLc
                    .verify(algorithm, key.bits(), challenge.as_bytes(), signature)
                    .map_err(|_| ca_pki::Error::ProofOfPossession)?;
                Ok(key)
            }
        }
    }
}

/// The interface knows no ids of requests: whoever comes back with the same key, for a certificate that says the same, means the same
/// one. A later run of a pipeline says something else.
fn same_again(request: &AuthorisedRequest) -> String {
    let claims = request.claims.iter().map(|(oid, text)| (oid.to_string(), text));
    let said = serde_json::json!([
        hex::encode(request.public_key.spki_sha256()),
        request.identity.as_str(),
        request.identity_issuer,
        request.profile,
        claims.collect::<Vec<_>>(),
    ]);
    format!("key-{}", hex::encode(Sha256::digest(said.to_string())))
}

/// What whoever asks is known by, where people approve and must be somebody else. None for the bearer of a token that neither names
/// an address which is theirs nor belongs to a job, and for a connection whose certificate cannot be read.
fn known_by(proven: &ProvenIdentity, connection: Option<Vec<String>>) -> Option<Vec<String>> {
    let mut names = connection?;
    names.extend_from_slice(proven.names());
    proven.is_told_apart().then_some(names)
}

impl CertificateAuthority {
    /// Issues a certificate for the identity that a token proves. Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// [`CaError::Oidc`] for the token, [`CaError::Request`] for the key and its proof, and what issuance reports.
    pub async fn certify_identity(self: &Arc<Self>, request: CertificateRequest) -> Result<Issued, CaError> {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move { this.certify_to_the_end(&request).await });
        task.await.unwrap_or(Err(CaError::Inconsistent("the issuance task ended early")))
    }

    async fn certify_to_the_end(
        self: &Arc<Self>,
        certificate: &CertificateRequest,
    ) -> Result<Issued, CaError> {
        let now = self.clock.now()?;
        let token = self.verified_token(&certificate.token, Purpose::Certificate).await?;
        let proven = match self.issuers.prove(&token, now) {
            Ok(proven) => proven,
            Err(refusal) => return Err(self.refuse_token(&token, Purpose::Certificate, refusal).await),
        };
        let subject = proven.subject();
        let key_use = self.profile(proven.profile())?.key_use();
        let public_key = certificate.key.verify(&subject.challenge, key_use).map_err(CaError::Request)?;
        let authorised = AuthorisedRequest {
            identity: subject.identity.clone(),
            public_key,
            profile: proven.profile().to_owned(),
            identity_issuer: proven.issuer().to_owned(),
            claims: subject.extensions.clone(),
            requester: token.name(),
            request_id: None,
            token: None,
            identity_token: proven.once(),
            proof: Proof::IdentityToken { audiences: proven.audiences().to_vec() },
            approved: None,
            evidence: proven.evidence().into(),
        };
        let needed =
            self.approvals_demanded(proven.profile(), &authorised.proof, &authorised.identity_issuer);
        let outcome = if needed > 0 {
            let request = AuthorisedRequest { request_id: Some(same_again(&authorised)), ..authorised };
            let asked = Asked {
                request,
                requester_names: known_by(&proven, certificate.connection.clone()),
                voucher_names: Vec::new(),
                needed,
            };
            self.certify_approved(&asked).await
        } else {
            self.certify(authorised).await
        };
        match outcome {
            Ok(issued) => {
                if self.served_tokens.again(proven.content_sha256(), issued.intent) {
                    self.metrics.identity_tokens_reused.inc();
                }
                Ok(issued)
            }
            Err(CaError::Store(StoreError::IdentityTokenUsed)) => {
                Err(self.refuse_token(&token, Purpose::Certificate, OidcError::Used).await)
            }
            Err(CaError::Store(StoreError::KeyCompromised)) => Err(CaError::KeyCompromised),
            Err(error) => Err(error),
        }
    }

    /// Whose tokens are accepted.
    #[must_use]
    pub fn issuers(&self) -> &crate::oidc::Issuers {
        &self.issuers
    }
}
