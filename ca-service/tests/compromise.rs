//! A key of the CA itself, or of a subscriber, is in other hands: nothing more is signed under it, what is in flight included.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;
use std::time::Duration;

use ca_pki::SerialNumber;
use ca_pki::crl::RevocationReason;
use ca_service::issuance::Issued;
use ca_service::reconciler::Reach;
use ca_service::standing::NotIssuing;
use ca_service::storage::{CrlPart, Search, State};
use ca_service::{CaError, CertificateAuthority};
use fixture::{Site, authorised, check_ca, enrol_request, key, ocsp_request, token_request};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};
use trust_store::Certificate;
use trust_store::ocsp::{CertificateStatus, OcspResponse};

async fn issued(authority: &Arc<CertificateAuthority>) -> Issued {
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap()
}

fn serial(certificate: &[u8]) -> SerialNumber {
    SerialNumber::from_magnitude(Certificate::from_der(certificate).unwrap().serial()).unwrap()
}

fn issuing_ca(authority: &CertificateAuthority) -> SerialNumber {
    serial(&authority.authorities()["code-signing"].certificate)
}

async fn newest(authority: &CertificateAuthority) -> State {
    let search = Search { limit: 1, ..Search::default() };
    authority.store().search(search).await.unwrap()[0].state
}

fn is_refused<T>(outcome: Result<T, CaError>, why: NotIssuing) -> bool {
    matches!(outcome, Err(CaError::NotIssuing(reason)) if reason == why)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_ca_issues_nothing_more_and_answers_for_what_it_issued() {
    let site = Site::new().await;
    let server = site.serve().await;
    let authority = Arc::clone(&server.authority);
    let old = issued(&authority).await;
    let ready = async |address: Option<std::net::SocketAddr>| {
        let url = format!("http://{}/readyz", address.unwrap());
        server.http.get(url).send().await.unwrap().status().as_u16()
    };
    let (main, readers) = (Some(server.serving.running.addr()), server.serving.running.read_only_addr());
    assert_eq!((ready(main).await, ready(readers).await), (200, 200));
    let token = server.token("late@example.com").await;
    let revoke = ca_api::Revoke { reason: ca_api::RevocationReason::CaCompromise, compromised_at: None };
    server.admin().revoke(&issuing_ca(&authority).to_string(), &revoke).await.unwrap();

    let refused = server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap_err();
    assert_eq!(refused.code(), Some("issuing_ca_revoked"));
    assert_eq!((ready(main).await, ready(readers).await), (503, 200), "lists and answers are still served");
    authority.publish_due().await.unwrap();
    let list = authority.published_crl("root", CrlPart::Complete).unwrap();
    let list = trust_store::crl::Crl::from_der(&list.der).unwrap();
    assert_eq!(
        list.entries().map(|(serial, _)| serial.to_vec()).collect::<Vec<_>>(),
        [issuing_ca(&authority).as_bytes()]
    );
    let answer = authority.ocsp(&ocsp_request(&old.chain[0], &old.serial), None).await;
    let status = OcspResponse::from_der(&answer.der).unwrap().responses()[0].status();
    assert_eq!(status, CertificateStatus::Good);
    server.serving.stop().await;

    // A restart changes nothing; a successor does.
    let authority = site.open().await;
    let asked = enrol_request(&token.token, &key(), None);
    assert!(is_refused(authority.enrol(&asked).await, NotIssuing::Revoked));
    let renewed = authority.renew("code-signing", &site.keyring()).await.unwrap();
    let file = std::fs::read_to_string(&renewed.file).unwrap();
    let filed: Vec<_> = file.split_inclusive("-----END CERTIFICATE-----\n").map(fixture::der).collect();
    let authority = site.open().await;
    let new = authority.enrol(&asked).await.unwrap();
    assert_ne!(new.chain[0], old.chain[0]);
    assert_eq!(filed, new.chain, "whoever judges by this file is not told of the revoked CA");
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_was_succeeded_never_issues_again() {
    let site = Site::new().await;
    let authority = site.open().await;
    let retired = issuing_ca(&authority);
    authority.renew("code-signing", &site.keyring()).await.unwrap();
    drop(authority);
    let authority = site.open().await;
    let successor = serial(&authority.authorities()["code-signing-2"].certificate);
    assert_ne!(successor, retired);
    authority.revoke(&successor, RevocationReason::CaCompromise, None, "test").await.unwrap();
    for authority in [authority, site.open().await] {
        let refused = authority.prepare(authorised("dev@example.com", &key())).await;
        assert!(is_refused(refused, NotIssuing::Revoked));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_that_was_revoked_answers_nothing_and_its_ca_s_others_do() {
    let site = Site::new().await;
    let authority = site.open().await;
    let issued = authority.prepare(authorised("dev@example.com", &key())).await.unwrap();
    let issued = authority.issue(issued).await.unwrap();
    let asked = ocsp_request(&issued.chain[0], &issued.serial);
    let later = ca_pki::ocsp::OcspFailure::TryLater.to_der();
    assert_ne!(authority.ocsp(&asked, None).await.der.to_vec(), later, "an answer that is kept");
    let responder = serial(&authority.authorities()["ocsp-responder"].certificate);
    authority.revoke(&responder, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    assert_eq!(authority.ocsp(&asked, None).await.der.to_vec(), later);
    // The responder of a CA that fell goes on telling of it.
    let site = Site::new().await;
    let authority = site.open().await;
    let issued = authority.prepare(authorised("dev@example.com", &key())).await.unwrap();
    let issued = authority.issue(issued).await.unwrap();
    let ca = issuing_ca(&authority);
    authority.revoke(&ca, RevocationReason::CaCompromise, None, "test").await.unwrap();
    let asked = ocsp_request(&issued.chain[0], &issued.serial);
    assert_ne!(authority.ocsp(&asked, None).await.der.to_vec(), later);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_before_the_ca_fell_is_not_signed() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let decided = authority.prepare(authorised("dev@example.com", &key())).await.unwrap();
    // A precertificate that waits for its log.
    site.log.set_down(true);
    let waiting = authority.prepare(authorised("dev@example.com", &key())).await.unwrap();
    assert!(matches!(authority.issue(waiting).await, Err(CaError::Log(_))));
    site.log.set_down(false);

    let ca = issuing_ca(&authority);
    authority.revoke(&ca, RevocationReason::CaCompromise, None, "test").await.unwrap();
    assert!(is_refused(authority.issue(decided).await, NotIssuing::Revoked));
    let done = authority.reconcile(Reach::Everything).await.unwrap();
    assert_eq!((done.abandoned, done.finished, done.waiting), (1, 0, 1), "{done:?}");
    clock.advance(Duration::from_secs(3_700));
    let done = authority.reconcile(Reach::Everything).await.unwrap();
    assert_eq!((done.given_up, done.waiting), (1, 0));
    assert_eq!(newest(&authority).await, State::Revoked);
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_takes_everything_below_it_along() {
    let site = Site::new().await;
    let authority = site.open().await;
    let root = serial(&authority.authorities()["root"].certificate);
    authority.revoke(&root, RevocationReason::CaCompromise, None, "test").await.unwrap();
    let refused = authority.prepare(authorised("dev@example.com", &key())).await;
    assert!(is_refused(refused, NotIssuing::Revoked));
    let digest = [7; 32];
    let stamp = authority.timestamp(&trust_store::tsp::request(&digest, &[1])).await;
    assert!(trust_store::tsp::TimestampToken::from_response(&stamp).is_err());
    // Found by the next process too.
    let reopened = site.open().await;
    assert!(is_refused(reopened.prepare(authorised("dev@example.com", &key())).await, NotIssuing::Revoked));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_whose_certificate_has_ended_issues_nothing() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    clock.advance(Duration::from_secs(6 * 365 * 86_400));
    let refused = authority.prepare(authorised("dev@example.com", &key())).await;
    assert!(is_refused(refused, NotIssuing::Expired));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_known_as_compromised_meanwhile_gets_no_signature() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let stolen = key();
    let first = authority.prepare(authorised("dev@example.com", &stolen)).await.unwrap();
    let first = authority.issue(first).await.unwrap();
    let decided = authority.prepare(authorised("dev@example.com", &stolen)).await.unwrap();
    site.log.set_down(true);
    let waiting = authority.prepare(authorised("dev@example.com", &stolen)).await.unwrap();
    assert!(matches!(authority.issue(waiting).await, Err(CaError::Log(_))));
    site.log.set_down(false);
    authority.revoke(&first.serial, RevocationReason::KeyCompromise, None, "test").await.unwrap();

    let refused = authority.issue(decided).await;
    assert!(matches!(refused, Err(CaError::KeyCompromised)), "{refused:?}");
    // The precertificate, which waits for its log, ended with the first: it gets no certificate.
    let search = Search { state: Some(State::Revoked), limit: 10, ..Search::default() };
    assert_eq!(authority.store().search(search).await.unwrap().len(), 2);
    let done = authority.reconcile(Reach::Everything).await.unwrap();
    assert_eq!((done.abandoned, done.finished, done.waiting), (1, 0, 0), "{done:?}");
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}
