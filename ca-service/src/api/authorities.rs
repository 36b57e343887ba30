//! `GET /api/v1/authorities`.

use std::sync::Arc;

use ca_api::{Authorities, Authority};
use ca_pki::pem;
use http::StatusCode;
use service::Problem;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::{answer, json, with};
use crate::CertificateAuthority;
use crate::authority::{LoadedAuthority, names, status_urls};
use crate::error::CaError;
use crate::oidc::config::IdentityKind;
use crate::storage::CrlPart;

pub(super) fn routes(authority: &Arc<CertificateAuthority>) -> BoxedFilter<(Response,)> {
    warp::path!("api" / "v1" / "authorities")
        .and(warp::get())
        .and(with(authority))
        .and_then(|authority: Arc<CertificateAuthority>| async move { answer(list(&authority)) })
        .boxed()
}

/// Order of the answer: from the root down, of each kind the newest first.
const ORDER: [&str; 6] = [
    names::ROOT,
    names::CODE_SIGNING,
    names::TIME_STAMPING,
    names::OCSP_RESPONDER,
    names::TIMESTAMP_AUTHORITY,
    names::STATEMENT,
];

fn list(authority: &CertificateAuthority) -> Result<Response, Problem> {
    let config = &authority.settings().config;
    let base = &config.status_url;
    let authorities = ORDER
        .iter()
        .flat_map(|kind| authority.generations(kind))
        .map(|loaded| describe(loaded, base).map_err(Problem::from))
        .collect::<Result<_, _>>()?;
    let mut oidc_issuers: Vec<String> = Vec::new();
    for rule in authority.issuers().rules() {
        if matches!(rule.identity, IdentityKind::Email { .. }) && !oidc_issuers.contains(&rule.issuer) {
            oidc_issuers.push(rule.issuer.clone());
        }
    }
    Ok(json(
        StatusCode::OK,
        &Authorities {
            oidc_issuers,
            identity_issuer: config.identity_issuer.clone(),
            ocsp: format!("{base}/ocsp"),
            profiles: authority.settings().profiles.keys().cloned().collect(),
            authorities,
        },
    ))
}

fn describe(loaded: &LoadedAuthority, base: &str) -> Result<Authority, CaError> {
    let urls = status_urls(base, &loaded.name, loaded.shards)?;
    let certificates =
        loaded.chain.iter().map(|der| pem::encode("CERTIFICATE", der)).collect::<Result<Vec<_>, _>>()?;
    let shards = loaded.parts().filter_map(|part| match part {
        CrlPart::Complete | CrlPart::Delta => None,
        CrlPart::Shard(shard) => Some(urls.crl(shard)),
    });
    Ok(Authority {
        name: loaded.name.clone(),
        role: loaded.role,
        certificate: certificates.first().cloned(),
        chain: certificates.into_iter().skip(1).collect(),
        public_key: pem::encode("PUBLIC KEY", loaded.public_key.spki())?,
        protection: loaded.signer.protection().as_str().to_owned(),
        crl: (loaded.shards > 0).then(|| urls.full_crl()),
        crl_shards: shards.collect(),
    })
}
