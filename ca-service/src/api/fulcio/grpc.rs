//! `dev.sigstore.fulcio.v2.CA`: the gRPC form of the interface, which some clients speak instead of REST.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    FAILED_PRECONDITION, INVALID_ARGUMENT, PERMISSION_DENIED, RESOURCE_EXHAUSTED, Refusal, certificates_of,
    chains_of,
};
use crate::CertificateAuthority;
use crate::api::roles::connected_as;
use crate::fulcio::{CertificateRequest, KeyProof};
use ca_pki::jws::MAX_TOKEN;
use service::peer::Peer;

/// The generated code.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::unwrap_used,
    reason = "generated from proto/fulcio/v2/fulcio.proto, where everything is described"
)]
pub mod v2 {
    tonic::include_proto!("dev.sigstore.fulcio.v2");
}

use v2::create_signing_certificate_request::Key;
use v2::credentials::Credentials;
use v2::oidc_issuer::Issuer;
use v2::signing_certificate::Certificate;

/// Largest message, as the REST form.
const MAX_MESSAGE: usize = ca_api::limits::MAX_JSON_BODY;

struct Service(Arc<CertificateAuthority>);

/// The routes for `service::Server::grpc`.
#[must_use]
pub fn routes(authority: &Arc<CertificateAuthority>) -> tonic::service::Routes {
    let service =
        v2::ca_server::CaServer::new(Service(Arc::clone(authority))).max_decoding_message_size(MAX_MESSAGE);
    tonic::service::Routes::new(service)
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal.code {
            INVALID_ARGUMENT => Self::invalid_argument(refusal.message),
            PERMISSION_DENIED => Self::permission_denied(refusal.message),
            RESOURCE_EXHAUSTED => Self::resource_exhausted(refusal.message),
            FAILED_PRECONDITION => Self::failed_precondition(refusal.message),
            _ => Self::internal(refusal.message),
        }
    }
}

#[tonic::async_trait]
impl v2::ca_server::Ca for Service {
    async fn create_signing_certificate(
        &self,
        request: Request<v2::CreateSigningCertificateRequest>,
    ) -> Result<Response<v2::SigningCertificate>, Status> {
        let connection = connected_as(request.extensions().get::<Peer>());
        let asked = CertificateRequest { connection, ..parse(request.into_inner())? };
        let issued = self.0.certify_identity(asked).await.map_err(Refusal::from)?;
        let chain = v2::CertificateChain { certificates: certificates_of(&issued)? };
        let embedded = v2::SigningCertificateEmbeddedSct { chain: Some(chain) };
        let certificate = Some(Certificate::SignedCertificateEmbeddedSct(embedded));
        Ok(Response::new(v2::SigningCertificate { certificate }))
    }

    async fn get_trust_bundle(
        &self,
        _: Request<v2::GetTrustBundleRequest>,
    ) -> Result<Response<v2::TrustBundle>, Status> {
        let chains =
            chains_of(&self.0)?.into_iter().map(|certificates| v2::CertificateChain { certificates });
        Ok(Response::new(v2::TrustBundle { chains: chains.collect() }))
    }

    async fn get_configuration(
        &self,
        _: Request<v2::GetConfigurationRequest>,
    ) -> Result<Response<v2::Configuration>, Status> {
        let issuers = self.0.issuers().rules().iter().map(|rule| {
            let (kind, claim) = rule.identity.described();
            v2::OidcIssuer {
                issuer: Some(Issuer::IssuerUrl(rule.issuer.clone())),
                audience: rule.audience.clone(),
                challenge_claim: claim.to_owned(),
                issuer_type: kind.to_owned(),
            }
        });
        Ok(Response::new(v2::Configuration { issuers: issuers.collect() }))
    }
}

fn parse(asked: v2::CreateSigningCertificateRequest) -> Result<CertificateRequest, Refusal> {
    let Some(Credentials::OidcIdentityToken(token)) = asked.credentials.and_then(|held| held.credentials)
    else {
        return Err(Refusal::invalid("there is no identity token"));
    };
    if token.len() > MAX_TOKEN {
        return Err(Refusal::invalid("the identity token is too long"));
    }
    let key = match asked.key {
        Some(Key::CertificateSigningRequest(pem)) => KeyProof::Request(
            String::from_utf8(pem).map_err(|_| Refusal::invalid("certificate_signing_request is not PEM"))?,
        ),
        Some(Key::PublicKeyRequest(request)) => KeyProof::Challenge {
            public_key: request.public_key.map(|key| key.content).unwrap_or_default(),
            signature: request.proof_of_possession,
        },
        None => {
            return Err(Refusal::invalid("give either certificate_signing_request or public_key_request"));
        }
    };
    Ok(CertificateRequest { token, key, connection: None })
}
