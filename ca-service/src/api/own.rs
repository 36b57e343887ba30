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
use super::roles::{browser_refused, connected_as, is_of_a_page};
use super::{answer, json, queue, request, with};
use crate::CertificateAuthority;
use crate::error::CaError;

pub(super) fn routes(authority: &Arc<CertificateAuthority>) -> BoxedFilter<(Response,)> {
    let list = warp::path!("api" / "v1" / "own" / "certificates")
        .and(warp::post())
        .and(connection())
        .and(request::json_body())
        .and(with(authority))
        .and_then(
            |connection, body, authority| async move { answer(list(&connection, body, authority).await) },
        );
    let revoke = warp::path!("api" / "v1" / "own" / "revocations")
        .and(warp::post())
        .and(connection())
        .and(request::json_body())
        .and(with(authority))
        .and_then(
            |connection, body, authority| async move { answer(revoke(&connection, body, authority).await) },
        );
    let renew = warp::path!("api" / "v1" / "renewals")
        .and(warp::post())
        .and(connection())
        .and(request::json_body())
        .and(with(authority))
        .and_then(
            |connection, body, authority| async move { answer(renew(&connection, body, authority).await) },
        );
    let challenge = warp::path!("api" / "v1" / "renewals" / "challenges")
        .and(warp::post())
        .and(request::json_body())
        .and(with(authority))
        .and_then(|body, authority| async move { answer(challenge(body, authority).await) });
    list.or(revoke).unify().or(renew).unify().or(challenge).unify().boxed()
}

/// The connection of a request, and whether a web page had a browser send it.
struct Connection {
    peer: Peer,
    of_a_page: bool,
}

fn connection() -> impl Filter<Extract = (Connection,), Error = warp::Rejection> + Clone {
    peer::peer()
        .and(warp::header::headers_cloned())
        .map(|peer, headers| Connection { peer, of_a_page: is_of_a_page(&headers) })
}

impl Connection {
    /// Says that a proof, or the connection where there is none, opened nothing.
    fn note_refused(
        &self,
        authority: &CertificateAuthority,
        deed: ProvenDeed,
        proof: Option<&KeyProof>,
        error: &CaError,
    ) {
        authority.note_refused_proof(deed, proof, self.peer.held_certificate(), error);
    }

    /// The certificate that it shows, for a request with or without a proof. Without one nothing else says that its holder asks, and a
    /// browser shows the certificate to whatever page sends it here.
    fn shown(&self, proof: Option<&KeyProof>) -> Result<Option<&[u8]>, Problem> {
        if proof.is_none() && self.of_a_page {
            return Err(browser_refused());
        }
        Ok(self.peer.held_certificate())
    }
}

async fn list(
    connection: &Connection,
    body: Bytes,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Problem> {
    let asked: ListOwn = request::parse(&body)?;
    let shown = connection.shown(asked.proof.as_ref())?;
    let found = authority.list_own(&asked, shown).await.inspect_err(|error| {
        connection.note_refused(&authority, ProvenDeed::List, asked.proof.as_ref(), error);
    })?;
    let (found, next) = CertificateAuthority::page_of_own(found);
    let certificates =
        found.iter().map(|stored| record(&authority, stored)).collect::<Result<_, Problem>>()?;
    Ok(json(StatusCode::OK, &CertificateList { certificates, next }))
}

async fn revoke(
    connection: &Connection,
    body: Bytes,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Problem> {
    let asked: RevokeOwn = request::parse(&body)?;
    let shown = connection.shown(asked.proof.as_ref())?;
    let revoked = authority.revoke_own(&asked, shown).await.inspect_err(|error| {
        connection.note_refused(&authority, ProvenDeed::Revoke, asked.proof.as_ref(), error);
    })?;
    Ok(json(StatusCode::OK, &revoked_with(&authority, &revoked).await?))
}

async fn challenge(body: Bytes, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let asked: AskChallenge = request::parse(&body)?;
    Ok(json(StatusCode::OK, &authority.renewal_challenge(&asked)?))
}

async fn renew(
    connection: &Connection,
    body: Bytes,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Problem> {
    let asked: Renew = request::parse(&body)?;
    let shown = connection.shown(asked.proof.as_ref())?;
    let renewed = authority.renew_own_over(&asked, shown, connected_as(Some(&connection.peer))).await;
    match renewed.inspect_err(|error| {
        connection.note_refused(&authority, ProvenDeed::Renew, asked.proof.as_ref(), error);
    }) {
        Ok(issued) => Ok(json(StatusCode::CREATED, &delivered(&authority, &issued)?)),
        Err(error) => Ok(queue::accepted(error)?),
    }
}
