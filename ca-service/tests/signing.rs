//! What the CA makes of a key's answers: nothing signed, unknown, or slow.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;
use std::time::Duration;

use ca_service::reconciler::Reach;
use ca_service::storage::{Search, State, Step, StoredCertificate};
use ca_service::{CaError, CertificateAuthority};
use fixture::signers::{ObedientKeys, Orders, Refusal};
use fixture::{Site, check_ca, enrol_request, key, token_request};
use service::SystemClock;

async fn site() -> (Site, Arc<CertificateAuthority>, Arc<Orders>) {
    with(Site::new().await).await
}

async fn with(site: Site) -> (Site, Arc<CertificateAuthority>, Arc<Orders>) {
    let orders = Arc::new(Orders::default());
    let keys = ObedientKeys { inner: site.keys(), orders: orders.clone() };
    let authority = site.open_over(site.store().await, Arc::new(SystemClock), &keys).await;
    (site, authority, orders)
}

async fn newest(authority: &CertificateAuthority) -> StoredCertificate {
    authority.store().search(Search { limit: 1, ..Search::default() }).await.unwrap().remove(0)
}

async fn request(authority: &CertificateAuthority) -> ca_api::Enrol {
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    enrol_request(&token.token, &key(), Some("the-request"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_says_nothing_was_signed_abandons_and_the_same_call_may_be_repeated() {
    let (_site, authority, orders) = site().await;
    let asked = request(&authority).await;
    orders.for_certificates([Some(Refusal::Permanent)]);
    assert!(matches!(authority.enrol(&asked).await, Err(CaError::Signing(_))));
    let abandoned = newest(&authority).await;
    assert_eq!(abandoned.state, State::Abandoned);
    let issued = authority.enrol(&asked).await.unwrap();
    assert_ne!(issued.serial, abandoned.serial, "a serial number that was recorded is never used again");
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_signed_counts_for_nobody() {
    let few = "[enrolment]\nper_identity = { per_hour = 1, burst = 1 }\n";
    let (_site, authority, orders) = with(Site::with(few).await).await;
    let asked = request(&authority).await;
    // Those that come back while the key is away are not refused when it is there again; what may have been signed counts.
    for _ in 0..3 {
        orders.for_certificates([Some(Refusal::Permanent)]);
        assert!(matches!(authority.enrol(&asked).await, Err(CaError::Signing(_))));
    }
    authority.enrol(&asked).await.unwrap();
    let refused = authority.enrol(&request(&authority).await).await;
    assert!(matches!(refused, Err(CaError::TooManyCertificates { .. })), "{refused:?}");
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_the_precertificate_is_finished_later_with_the_same_serial_number() {
    let (_site, authority, orders) = site().await;
    let asked = request(&authority).await;
    orders.for_certificates([None, Some(Refusal::Permanent)]);
    assert!(matches!(authority.enrol(&asked).await, Err(CaError::Signing(_))));
    let waiting = newest(&authority).await;
    assert_eq!((waiting.state, waiting.step), (State::Signed, Step::Precertificate));
    assert!(waiting.precertificate.is_none() && waiting.sct.is_none() && waiting.log_index.is_none());
    check_ca(&authority).await;
    assert!(matches!(authority.enrol(&asked).await, Err(CaError::IssuancePending)));
    assert_eq!(authority.reconcile(Reach::Everything).await.unwrap().finished, 1);
    assert_eq!(authority.enrol(&asked).await.unwrap().serial, waiting.serial);
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_maybe_issued_and_never_signed_again() {
    let (_site, authority, orders) = site().await;
    let asked = request(&authority).await;
    orders.for_certificates([Some(Refusal::Ambiguous)]);
    assert!(matches!(authority.enrol(&asked).await, Err(CaError::Signing(_))));
    assert_eq!(newest(&authority).await.state, State::MaybeIssued);
    authority.reconcile(Reach::Everything).await.unwrap();
    assert!(matches!(authority.enrol(&asked).await, Err(CaError::IssuanceFailed)));
    assert_eq!(newest(&authority).await.state, State::MaybeIssued);
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_keep_the_status_keys_busy_do_not_hold_up_issuance() {
    let (_site, authority, orders) = site().await;
    let issued = authority.enrol(&request(&authority).await).await.unwrap();
    orders.hold_ocsp(true);
    let asked = fixture::ocsp_request(&issued.chain[0], &issued.serial);
    let stuck: Vec<_> = (0..8)
        .map(|_| {
            let (authority, asked) = (authority.clone(), asked.clone());
            tokio::spawn(async move { authority.ocsp(&asked, None).await })
        })
        .collect();
    while orders.waiting() < authority.settings().config.keys.threads {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let asked = enrol_request(&token.token, &key(), None);
    let second = authority.enrol(&asked);
    tokio::time::timeout(Duration::from_secs(20), second).await.expect("issuance waits for OCSP").unwrap();
    orders.hold_ocsp(false);
    for task in stuck {
        task.await.unwrap();
    }
    check_ca(&authority).await;
}
