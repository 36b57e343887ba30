//! `/api/v1/own` and `/api/v1/renewals`: one's own certificates, by proof of a certified key in the request, or at the handshake.

use std::sync::Arc;

use bytes::Bytes;
use ca_api::CertificateList;
use ca_api::possession::{AskChallenge, KeyProof, ListOwn, ProvenDeed, Renew, RevokeOwn};
use http::StatusCode;
use service::Problem;
use service::peer::{self, Peer};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::certificates::{delivered, record, revoked_with};
use super::roles::connected_as;
use super::{answer, json, queue, request, with};
use crate::CertificateAuthority;

pub(super) fn routes(authority: &Arc<CertificateAuthority>) -> BoxedFilter<(Response,)> {
    let list = warp::path!("api" / "v1" / "own" / "certificates")
        .and(warp::post())
        .and(peer::peer())
        .and(request::json_body())
        .and(with(authority))
        .and_then(|peer, body, authority| async move { answer(list(&peer, body, authority).await) });
    let revoke = warp::path!("api" / "v1" / "own" / "revocations")
        .and(warp::post())
        .and(peer::peer())
        .and(request::json_body())
        .and(with(authority))
        .and_then(|peer, body, authority| async move { answer(revoke(&peer, body, authority).await) });
    let renew = warp::path!("api" / "v1" / "renewals")
        .and(warp::post())
        .and(peer::peer())
        .and(request::json_body())
        .and(with(authority))
        .and_then(|peer, body, authority| async move { answer(renew(&peer, body, authority).await) });
    let challenge = warp::path!("api" / "v1" / "renewals" / "challenges")
        .and(warp::post())
        .and(request::json_body())
        .and(with(authority))
        .and_then(|body, authority| async move { answer(challenge(body, authority).await) });
    list.or(revoke).unify().or(renew).unify().or(challenge).unify().boxed()
}

/// Whose key a proof names, for the log.
fn named(proof: Option<&KeyProof>) -> &str {
    proof.map_or("of the connection", |proof| &proof.serial)
}

async fn list(peer: &Peer, body: Bytes, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let asked: ListOwn = request::parse(&body)?;
    let found = authority.list_own(&asked, peer.held_certificate()).await.inspect_err(|error| {
        authority.note_refused_proof(ProvenDeed::List, named(asked.proof.as_ref()), error);
    })?;
    let (found, next) = CertificateAuthority::page_of_own(found);
    let certificates =
        found.iter().map(|stored| record(&authority, stored)).collect::<Result<_, Problem>>()?;
    Ok(json(StatusCode::OK, &CertificateList { certificates, next }))
}

async fn revoke(peer: &Peer, body: Bytes, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let asked: RevokeOwn = request::parse(&body)?;
    let revoked = authority.revoke_own(&asked, peer.held_certificate()).await.inspect_err(|error| {
        authority.note_refused_proof(ProvenDeed::Revoke, named(asked.proof.as_ref()), error);
    })?;
    Ok(json(StatusCode::OK, &revoked_with(&authority, &revoked).await?))
}

async fn challenge(body: Bytes, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let asked: AskChallenge = request::parse(&body)?;
    Ok(json(StatusCode::OK, &authority.renewal_challenge(&asked)?))
}

async fn renew(peer: &Peer, body: Bytes, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let asked: Renew = request::parse(&body)?;
    let renewed = authority.renew_own_over(&asked, peer.held_certificate(), connected_as(Some(peer))).await;
    match renewed.inspect_err(|error| {
        authority.note_refused_proof(ProvenDeed::Renew, named(asked.proof.as_ref()), error);
    }) {
        Ok(issued) => Ok(json(StatusCode::CREATED, &delivered(&authority, &issued)?)),
        Err(error) => Ok(queue::accepted(error)?),
    }
}
