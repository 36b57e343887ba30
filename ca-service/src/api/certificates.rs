//! `/api/v1/certificates`: enrol, list, show, revoke, and the certificate of a key.

use std::sync::Arc;

use bytes::Bytes;
use ca_api::limits::{DEFAULT_PAGE, MAX_PAGE};
use ca_api::{
    CertificateList, CertificateRecord, Enrol, IssuedCertificate, ListQuery, Revocation, Revoke,
    StatusOnDate, StatusQuery,
};
use ca_pki::{SerialNumber, UnixTime, pem};
use http::StatusCode;
use service::Problem;
use service::peer::{self, Peer};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::roles::{Access, Caller, connected_as};
use super::{answer, json, queue, request, with};
use crate::CertificateAuthority;
use crate::error::CaError;
use crate::issuance::Issued;
use crate::role::Action;
use crate::storage::{Search, Step, StoredCertificate, StoredRevocation};
use crate::wire::{stored_reason, stored_state, wire_identity, wire_reason, wire_state, wire_status};

/// Most certificates of one key that are looked at, newest first.
const NEWEST_OF_A_KEY: u32 = 16;

pub(super) fn routes(authority: &Arc<CertificateAuthority>, access: &Access) -> BoxedFilter<(Response,)> {
    let enrol = warp::path!("api" / "v1" / "certificates")
        .and(warp::post())
        .and(peer::peer())
        .and(request::json_body())
        .and(with(authority))
        .and_then(|peer, body, authority| async move { answer(enrol(&peer, body, authority).await) });
    let list = warp::path!("api" / "v1" / "certificates")
        .and(warp::get())
        .and(access.filter(Action::Read))
        .and(warp::query::<ListQuery>())
        .and(with(authority))
        .and_then(|_, query, authority| async move { answer(list(query, authority).await) });
    let show = warp::path!("api" / "v1" / "certificates" / String)
        .and(warp::get())
        .and(access.filter(Action::Read))
        .and(with(authority))
        .and_then(|serial, _, authority| async move { answer(show(serial, authority).await) });
    let status = warp::path!("api" / "v1" / "certificates" / String / "status")
        .and(warp::get())
        .and(access.filter(Action::Read))
        .and(warp::query::<StatusQuery>())
        .and(with(authority))
        .and_then(
            |serial, _, query, authority| async move { answer(status(serial, query, authority).await) },
        );
    let revoke = warp::path!("api" / "v1" / "certificates" / String / "revoke")
        .and(warp::post())
        .and(access.filter(Action::Administer))
        .and(request::json_body())
        .and(with(authority))
        .and_then(|serial, caller, body, authority| async move {
            answer(revoke(serial, caller, body, authority).await)
        });
    let of_key = warp::path!("api" / "v1" / "certificates" / "by-key" / String)
        .and(warp::get())
        .and(with(authority))
        .and_then(|key, authority| async move { answer(of_key(key, authority).await) });
    enrol.or(list).unify().or(show).unify().or(status).unify().or(revoke).unify().or(of_key).unify().boxed()
}

async fn enrol(peer: &Peer, body: Bytes, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let asked: Enrol = request::parse(&body)?;
    match authority.enrol_over(&asked, connected_as(Some(peer))).await {
        Ok(issued) => Ok(json(StatusCode::CREATED, &delivered(&authority, &issued)?)),
        Err(error) => Ok(queue::accepted(error)?),
    }
}

async fn list(query: ListQuery, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(CaError::OutOfRange { field: "limit", reason: "must be 1 to 1000" }.into());
    }
    let spki_sha256 = query.spki_sha256.as_deref().map(key_hash).transpose()?;
    let search = Search {
        identity: query.identity,
        spki_sha256,
        state: query.state.map(stored_state),
        created_from: query.created_from.map(UnixTime),
        created_before: query.created_before.map(UnixTime),
        below: query.after,
        // One more than asked for says whether there is another page.
        limit: limit + 1,
        ..Search::default()
    };
    let mut found = authority.store().search(search).await.map_err(CaError::from)?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map(|last| last.row);
    let certificates =
        found.iter().map(|stored| record(&authority, stored)).collect::<Result<_, Problem>>()?;
    Ok(json(StatusCode::OK, &CertificateList { certificates, next }))
}

/// The newest certificate of a key that can be used now. Open to everybody: who has the key's hash has a certificate, and every
/// certificate stands in the issuance log.
async fn of_key(key: String, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let search = Search { spki_sha256: Some(key_hash(&key)?), limit: NEWEST_OF_A_KEY, ..Search::default() };
    let found = authority.store().search(search).await.map_err(CaError::from)?;
    let now = authority.clock.now().map_err(CaError::from)?;
    for stored in found.iter().filter(|stored| stored.identity.is_some()) {
        // Each begins with its issuance; a clock that is a second behind since then makes none unknown.
        if now <= stored.not_after
            && let Some(issued) = authority.delivered(stored.intent).await?
        {
            return Ok(json(StatusCode::OK, &delivered(&authority, &issued)?));
        }
    }
    Err(CaError::CertificateUnknown.into())
}

async fn show(serial: String, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let serial = parse_serial(&serial)?;
    let stored = authority.store().certificate(&serial).await.map_err(CaError::from)?;
    let stored = stored.ok_or(CaError::CertificateUnknown)?;
    Ok(json(StatusCode::OK, &record(&authority, &stored)?))
}

/// What was known, and holds today, of a certificate on a date: what a verifier that trusts the date must conclude.
async fn status(
    serial: String,
    query: StatusQuery,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Problem> {
    let serial = parse_serial(&serial)?;
    // Nobody knows yet what will hold then.
    if query.at > authority.clock.for_records().0 {
        return Err(CaError::OutOfRange { field: "at", reason: "must not be in the future" }.into());
    }
    let stored = authority.store().certificate(&serial).await.map_err(CaError::from)?;
    let stored = stored.ok_or(CaError::CertificateUnknown)?;
    let status = stored.status_on(UnixTime(query.at));
    let answer =
        StatusOnDate { serial: stored.serial.to_string(), at: query.at, status: wire_status(status) };
    Ok(json(StatusCode::OK, &answer))
}

async fn revoke(
    serial: String,
    caller: Caller,
    body: Bytes,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Problem> {
    let serial = parse_serial(&serial)?;
    let asked: Revoke = request::parse(&body)?;
    let actor = caller.actor();
    let stored = authority
        .revoke(&serial, stored_reason(asked.reason), asked.compromised_at.map(UnixTime), &actor)
        .await?;
    Ok(json(StatusCode::OK, &revoked_with(&authority, &stored).await?))
}

fn key_hash(text: &str) -> Result<[u8; 32], Problem> {
    let octets = hex::decode(text).ok().and_then(|octets| octets.try_into().ok());
    octets.ok_or_else(|| {
        CaError::OutOfRange { field: "spki_sha256", reason: "must be 64 hexadecimal digits" }.into()
    })
}

fn parse_serial(text: &str) -> Result<SerialNumber, Problem> {
    // Whatever is not a serial number is not one of ours.
    SerialNumber::from_hex(text).map_err(|_| CaError::CertificateUnknown.into())
}

fn certificate_pem(der: &[u8]) -> Result<String, Problem> {
    pem::encode("CERTIFICATE", der).map_err(|error| CaError::from(error).into())
}

pub(super) fn delivered(
    authority: &CertificateAuthority,
    issued: &Issued,
) -> Result<IssuedCertificate, Problem> {
    Ok(IssuedCertificate {
        serial: issued.serial.to_string(),
        certificate: certificate_pem(&issued.certificate)?,
        chain: authority.authority(&issued.issuer)?.chain_pem.clone(),
        not_before: issued.not_before.0,
        not_after: issued.not_after.0,
        log_index: issued.log_index,
    })
}

pub(super) fn record(
    authority: &CertificateAuthority,
    stored: &StoredCertificate,
) -> Result<CertificateRecord, Problem> {
    let finished = stored.step == Step::Certificate
        && stored.signature.is_some()
        && !authority.is_unfounded_root(stored);
    let certificate = if finished { Some(certificate_pem(&authority.assembled(stored)?)?) } else { None };
    Ok(CertificateRecord {
        serial: stored.serial.to_string(),
        issuer: stored.issuer.clone(),
        profile: stored.profile.clone(),
        identity: stored.identity.as_ref().map(wire_identity),
        state: wire_state(stored.state),
        not_before: stored.not_before.0,
        not_after: stored.not_after.0,
        crl_shard: stored.shard.0,
        created_at: stored.created_at.0,
        spki_sha256: hex::encode(stored.spki_sha256),
        certificate,
        log_index: stored.log_index,
        revocation: stored.revocation.as_ref().map(revocation),
    })
}

/// A revocation that was just asked for, with what ended with it.
pub(super) async fn revoked_with(
    authority: &CertificateAuthority,
    stored: &StoredRevocation,
) -> Result<Revocation, Problem> {
    let renewals = authority.renewals_of(&stored.serial).await?;
    let (revoked, standing) = (Some(renewals.revoked), Some(renewals.standing));
    let same_key_revoked = authority.ended_with_key(stored).await?;
    let of_it = revocation(stored);
    Ok(Revocation { renewals_revoked: revoked, renewals_standing: standing, same_key_revoked, ..of_it })
}

pub(super) fn revocation(stored: &StoredRevocation) -> Revocation {
    Revocation {
        serial: stored.serial.to_string(),
        issuer: stored.issuer.clone(),
        reason: wire_reason(stored.reason),
        revoked_at: stored.revoked_at.0,
        recorded_at: stored.recorded_at.0,
        crl_shard: stored.shard.0,
        event_log_index: stored.event_index,
        renewals_revoked: None,
        renewals_standing: None,
        same_key_revoked: None,
    }
}
