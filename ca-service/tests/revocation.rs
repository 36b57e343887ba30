//! Revocations that must hold whatever happens around them: callers that leave, lost answers, clocks that are behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;
use std::time::Duration;

use ca_pki::crl::RevocationReason;
use ca_service::CaError;
use ca_service::CertificateAuthority;
use ca_service::config::Config;
use ca_service::issuance::Issued;
use ca_service::reconciler::Reach;
use ca_service::storage::{CrlPart, Open, State};
use fixture::faults::{Fault, FaultyStore};
use fixture::{Site, check_ca, enrol_request, key, ocsp_request, token_request};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};
use trust_store::ReasonCode;
use trust_store::budget::Budget;
use trust_store::crl::Crl;
use trust_store::ocsp::{CertificateStatus, OcspResponse};
use trust_store::path::{PathPolicy, build_path};
use trust_store::provider::AwsLc;
use trust_store::revocation::{RevocationCheck, RevocationEvidence, RevocationPolicy, RevocationStatus};

async fn issued(authority: &Arc<CertificateAuthority>, profile: &str) -> Issued {
    let token = authority.create_token(&token_request("dev@example.com", profile), "test").await.unwrap();
    authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap()
}

async fn is_good(authority: &CertificateAuthority, issued: &Issued) -> bool {
    let answer = authority.ocsp(&ocsp_request(&issued.chain[0], &issued.serial), None).await;
    let response = OcspResponse::from_der(&answer.der).unwrap();
    matches!(response.responses()[0].status(), CertificateStatus::Good)
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_whose_caller_leaves_is_recorded_and_no_good_answer_is_kept() {
    let site = Site::new().await;
    let authority = site.open().await;
    let issued = issued(&authority, "developer").await;
    assert!(is_good(&authority, &issued).await);
    let revoking = authority.revoke(&issued.serial, RevocationReason::KeyCompromise, None, "test");
    // Polled once and dropped, as a server does with a closed connection's request.
    let _ = tokio::time::timeout(Duration::ZERO, revoking).await;
    eventually("the status is revoked", async || !is_good(&authority, &issued).await).await;
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_whose_answer_is_lost_leaves_no_good_answer_behind() {
    let site = Site::new().await;
    let store = Arc::new(FaultyStore::new(site.store().await));
    let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
    let issued = issued(&authority, "developer").await;
    assert!(is_good(&authority, &issued).await);
    store.arm("revoke", Fault::After);
    assert!(authority.revoke(&issued.serial, RevocationReason::KeyCompromise, None, "test").await.is_err());
    assert!(!is_good(&authority, &issued).await);
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_answer_is_compared_with_the_record_after_any_revocation() {
    let site = Site::new().await;
    let authority = site.open().await;
    let first = issued(&authority, "developer").await;
    let second = issued(&authority, "developer").await;
    assert!(is_good(&authority, &first).await && is_good(&authority, &second).await);
    // Past everything that revoking through the CA does besides.
    let new = ca_service::storage::NewRevocation {
        serial: first.serial.clone(),
        revoked_at: first.not_before,
        reason: RevocationReason::KeyCompromise,
        actor: "test".to_owned(),
        at: first.not_before,
        renewals: None,
    };
    authority.store().revoke(new).await.unwrap();
    assert!(!is_good(&authority, &first).await);
    assert!(is_good(&authority, &second).await);
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_log_is_asked_once_a_pass_and_holds_up_nothing_else() {
    let site = Site::new().await;
    let authority = site.open().await;
    let attempt = async || {
        let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await;
        authority.enrol(&enrol_request(&token.unwrap().token, &key(), None)).await
    };
    site.log.set_down(true);
    for _ in 0..3 {
        assert!(matches!(attempt().await, Err(CaError::Log(_))));
    }
    let before = site.log.asked();
    let done = authority.reconcile(Reach::Everything).await.unwrap();
    assert_eq!((done.waiting, site.log.asked() - before), (3, 1));
    site.log.set_down(false);
    assert_eq!(authority.reconcile(Reach::Everything).await.unwrap().finished, 3);
    check_ca(&authority).await;
}

/// A statement of a CA that this process does not know, because it was made beside it, and one that the log refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_cannot_be_made_or_is_refused_holds_up_no_other() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let reason = RevocationReason::CessationOfOperation;
    authority.renew("code-signing", &site.keyring()).await.unwrap();
    let beside = std::fs::read_to_string(site.settings.data_dir.join("chains/ocsp-responder-2.pem")).unwrap();
    let beside = trust_store::Certificate::from_der(&fixture::der(&beside)).unwrap();
    let beside = ca_pki::SerialNumber::from_magnitude(beside.serial()).unwrap();
    authority.revoke(&beside, reason, None, "test").await.unwrap();
    let refused = issued(&authority, "developer").await;
    authority.revoke(&refused.serial, reason, None, "test").await.unwrap();
    site.log.refuse(&refused.serial.to_string());
    clock.advance(Duration::from_secs(5));
    let good = issued(&authority, "developer").await;
    authority.revoke(&good.serial, reason, None, "test").await.unwrap();

    assert_eq!(authority.log_revocations().await.unwrap(), 1);
    assert_eq!(site.log.events().len(), 1);
    let index = async |serial| {
        let record = authority.store().certificate(serial).await.unwrap().unwrap();
        record.revocation.unwrap().event_index
    };
    assert_eq!(
        (index(&good.serial).await, index(&refused.serial).await, index(&beside).await),
        (Some(0), None, None)
    );
    // Tried again in a while, and by the next process, which knows the other CA.
    clock.advance(Duration::from_secs(61));
    assert_eq!(authority.log_revocations().await.unwrap(), 0);
    let next = site.open_with(site.store().await, clock).await;
    assert_eq!(next.log_revocations().await.unwrap(), 1);
    assert_eq!(index(&beside).await, Some(1));
    next.publish_due().await.unwrap();
    check_ca(&next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_answers_are_limited_for_each_client() {
    let site = Site::with_status("ocsp_nonce_per_second = 1").await;
    let authority = site.open().await;
    let issued = issued(&authority, "developer").await;
    let asked = fixture::ocsp_request_with_nonce(&issued.chain[0], &issued.serial, &[7; 32]);
    let client = |name: &str| Some(service::rate_limit::ClientKey::Named(name.into()));
    let try_later = ca_pki::ocsp::OcspFailure::TryLater.to_der();
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(authority.ocsp(&asked, client("one")).await.der.to_vec() == try_later);
    }
    assert_eq!(answers, [false, false, true]);
    assert_ne!(authority.ocsp(&asked, client("two")).await.der.to_vec(), try_later);
    // Without a nonce nothing is signed that serves once, so nothing is counted.
    let plain = ocsp_request(&issued.chain[0], &issued.serial);
    assert_ne!(authority.ocsp(&plain, client("one")).await.der.to_vec(), try_later);
    // Of serial numbers that were never given there is no end, and each answer is signed for itself.
    let mut answers = Vec::new();
    for number in 1..=3_u8 {
        let nobody = ca_pki::SerialNumber::from_magnitude(&[1, number]).unwrap();
        let asked = ocsp_request(&issued.chain[0], &nobody);
        answers.push(authority.ocsp(&asked, client("three")).await.der.to_vec() == try_later);
    }
    assert_eq!(answers, [false, false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_about_certificates_that_have_ended_are_not_limited() {
    let site = Site::with_status("ocsp_nonce_per_second = 1").await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let issued = issued(&authority, "keyless").await;
    clock.advance(Duration::from_secs(3_600));
    let asked = ocsp_request(&issued.chain[0], &issued.serial);
    let client = || Some(service::rate_limit::ClientKey::Named("one".into()));
    let try_later = ca_pki::ocsp::OcspFailure::TryLater.to_der();
    for _ in 0..5 {
        assert_ne!(authority.ocsp(&asked, client()).await.der.to_vec(), try_later);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_whose_caller_leaves_is_finished() {
    let site = Site::new().await;
    let authority = site.open().await;
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let asked = enrol_request(&token.token, &key(), Some("left"));
    let _ = tokio::time::timeout(Duration::ZERO, authority.enrol(&asked)).await;
    eventually("the certificate is delivered", async || {
        let search = ca_service::storage::Search { limit: 1, ..Default::default() };
        let newest = authority.store().search(search).await.unwrap();
        newest[0].request_id.as_deref() == Some("left") && newest[0].state == State::Delivered
    })
    .await;
    authority.enrol(&asked).await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compromise_replaces_another_reason_and_bars_the_key() {
    let site = Site::new().await;
    let authority = site.open().await;
    let token = async |id: &str| {
        let token = authority.create_token(&token_request(id, "developer"), "test").await;
        token.unwrap().token
    };
    let key = key();
    let asked = enrol_request(&token("one@example.com").await, &key, None);
    let serial = authority.enrol(&asked).await.unwrap().serial;
    let revoke = async |reason| authority.revoke(&serial, reason, None, "test").await;
    let first = revoke(RevocationReason::Superseded).await.unwrap();
    // Neither reason nor key is barred by a revocation that says nothing about the key.
    let other = authority.enrol(&enrol_request(&token("two@example.com").await, &key, None)).await.unwrap();
    assert!(matches!(
        revoke(RevocationReason::CessationOfOperation).await,
        Err(CaError::RevokedForAnotherReason)
    ));
    let graver = revoke(RevocationReason::KeyCompromise).await.unwrap();
    assert_eq!(graver.reason, RevocationReason::KeyCompromise);
    assert_eq!(graver.revoked_at, first.revoked_at);
    assert!(graver.recorded_at > first.recorded_at && graver.event_index.is_none());
    assert!(matches!(revoke(RevocationReason::Superseded).await, Err(CaError::RevokedForAnotherReason)));
    assert_eq!(revoke(RevocationReason::KeyCompromise).await.unwrap(), graver);
    let other = authority.store().certificate(&other.serial).await.unwrap().unwrap();
    assert_eq!(other.revocation.unwrap().reason, RevocationReason::KeyCompromise);

    let unused = token("three@example.com").await;
    let refused = authority.enrol(&enrol_request(&unused, &key, None)).await;
    assert!(matches!(refused, Err(CaError::KeyCompromised)), "{refused:?}");
    // The refusal used nothing up.
    authority.enrol(&enrol_request(&unused, &fixture::key(), None)).await.unwrap();
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_behind_keeps_nobody_from_revoking() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds() + 10));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let issued = issued(&authority, "developer").await;
    clock.set_unix_seconds(issued.not_before.0 - 86_400);
    let reason = RevocationReason::KeyCompromise;
    let revoked = authority.revoke(&issued.serial, reason, None, "test").await.unwrap();
    assert_eq!(revoked.revoked_at, issued.not_before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_log_ever_takes_rightly_is_given_up() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let attempt = async |profile| {
        let token = authority.create_token(&token_request("dev@example.com", profile), "test").await.unwrap();
        authority.enrol(&enrol_request(&token.token, &key(), None)).await
    };
    // A log that lies, and one that takes no certificate.
    site.log.set_lying(true);
    assert!(matches!(attempt("developer").await, Err(CaError::Pki(_))));
    site.log.set_lying(false);
    site.log.set_down(true);
    assert!(matches!(attempt("unlogged").await, Err(CaError::Log(_))));
    site.log.set_down(false);
    site.log.set_lying(true);
    assert_eq!(authority.reconcile(Reach::Everything).await.unwrap().given_up, 0);
    clock.advance(Duration::from_secs(3_700));
    site.log.set_down(true);
    let second = authority.reconcile(Reach::Everything).await.unwrap();
    assert_eq!(second.waiting, 0);
    assert!(second.given_up >= 1);
    for which in [Open::Here, Open::AtLog] {
        let open = authority.store().open_issuances(which, ca_pki::UnixTime(i64::MAX), 10).await.unwrap();
        assert_eq!(open, []);
    }
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_published_holds_up_no_other() {
    let site = Site::new().await;
    let store = Arc::new(FaultyStore::new(site.store().await));
    let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
    authority.publish_due().await.unwrap();
    let issued = issued(&authority, "developer").await;
    authority.revoke(&issued.serial, RevocationReason::Superseded, None, "test").await.unwrap();
    // Two lists are due: the shard and the complete one.
    store.arm("publish_crl", Fault::Before);
    assert!(authority.publish_due().await.is_err());
    assert_eq!(authority.publish_due().await.unwrap(), 1);
    check_ca(&authority).await;
}

/// No open CA keeps them: what was signed with the certificate is looked at for as long (R4).
#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_is_on_the_lists_eleven_years_after_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let longer = "crl_shards = 4\nroot_days = 7300\nissuer_days = 5475";
    let settings = fixture::settings_text(folder.path(), "", "").replace("crl_shards = 4", longer);
    let settings = Config::parse(&settings).unwrap().validate().unwrap();
    let site = Site::with_settings(folder, settings).await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let (revoked, kept) = (issued(&authority, "developer").await, issued(&authority, "developer").await);
    authority.revoke(&revoked.serial, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    clock.advance(Duration::from_secs(12 * 365 * 86_400));
    let now = trust_store::UnixTime(clock.unix_seconds());
    assert!(revoked.not_after.0 + 11 * 365 * 86_400 <= clock.unix_seconds() + 2);
    authority.publish_due().await.unwrap();

    let list = |issuer, part| Crl::from_der(&authority.published_crl(issuer, part).unwrap().der).unwrap();
    let root = list("root", CrlPart::Complete);
    for one in [&revoked, &kept] {
        let shard = authority.store().certificate(&one.serial).await.unwrap().unwrap().shard;
        for part in [CrlPart::Complete, CrlPart::Shard(shard)] {
            let list = list("code-signing", part);
            let entry = list.entry(one.serial.as_bytes(), list.issuer_name());
            assert_eq!(entry.is_some(), one.serial == revoked.serial, "{part:?}");
            let keeps = list.expired_certificates_from().unwrap();
            assert!(keeps.0 <= one.not_after.0 && list.is_current(now), "{part:?}");
            // What a verifier makes of it, to whom the signature is shown to be of back then.
            let of_then = trust_store::UnixTime(one.not_before.0 + 3_600);
            let read = |der: &[u8]| trust_store::Certificate::from_der(der).unwrap();
            let chain = build_path(
                &read(&one.certificate),
                &[read(&one.chain[0])],
                &[read(&one.chain[1])],
                of_then,
                &PathPolicy::default(),
                &AwsLc,
            );
            let evidence =
                RevocationEvidence { crls: vec![list, root.clone()], ..RevocationEvidence::default() };
            let check = RevocationCheck {
                evidence: &evidence,
                policy: &RevocationPolicy::default(),
                now,
                proven_at: None,
                intermediates: &[],
                verifier: &AwsLc,
            };
            let judged =
                check.check_chain(&chain.unwrap(), &mut Budget::default()).map_err(|denial| denial.code);
            if one.serial == revoked.serial {
                assert_eq!(judged.err(), Some(ReasonCode::Revoked), "{part:?}");
            } else {
                let good = |status: &RevocationStatus| matches!(status, RevocationStatus::Good { .. });
                assert!(judged.unwrap().statuses().iter().all(good), "{part:?}");
            }
        }
    }
    check_ca(&authority).await;
}
