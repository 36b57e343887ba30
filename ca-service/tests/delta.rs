//! Delta lists: base and delta together say what the complete list of the same number says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ca_pki::SerialNumber;
use ca_pki::crl::RevocationReason;
use ca_service::storage::CrlPart;
use ca_service::{CertificateAuthority, check};
use der::Decode as _;
use der::oid::ObjectIdentifier;
use fixture::{Server, Site, check_ca, enrol_request, key, token_request};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};
use x509_cert::crl::CertificateList;

const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
const DELTA_CRL_INDICATOR: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.27");
const FRESHEST_CRL: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.46");

struct List {
    number: u64,
    base: Option<u64>,
    freshest: Option<Vec<u8>>,
    serials: BTreeSet<Vec<u8>>,
}

fn list(der: &[u8]) -> List {
    let parsed: CertificateList = CertificateList::from_der(der).unwrap();
    let parsed = parsed.tbs_cert_list;
    let extensions = parsed.crl_extensions.unwrap();
    let value = |wanted| {
        extensions
            .iter()
            .find(|extension| extension.extn_id == wanted)
            .map(|found| found.extn_value.as_bytes())
    };
    let number = |wanted| value(wanted).map(|der| u64::from_der(der).unwrap());
    let revoked = parsed.revoked_certificates.unwrap_or_default();
    let serials: Vec<Vec<u8>> = revoked.iter().map(|entry| entry.serial_number.as_bytes().to_vec()).collect();
    assert!(serials.is_sorted(), "those of all shards ascend together");
    List {
        number: number(CRL_NUMBER).unwrap(),
        base: number(DELTA_CRL_INDICATOR),
        freshest: value(FRESHEST_CRL).map(<[u8]>::to_vec),
        serials: serials.into_iter().collect(),
    }
}

fn published(authority: &CertificateAuthority, part: CrlPart) -> Option<List> {
    authority.published_crl("code-signing", part).map(|found| list(&found.der))
}

async fn revoked(authority: &Arc<CertificateAuthority>) -> SerialNumber {
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let issued = authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    authority.revoke(&issued.serial, RevocationReason::Superseded, None, "test").await.unwrap();
    issued.serial
}

#[tokio::test(flavor = "multi_thread")]
async fn base_and_delta_say_what_the_complete_list_of_the_same_number_says() {
    let site = Site::new().await;
    let authority = site.open().await;
    let base = published(&authority, CrlPart::Complete).unwrap();
    assert!(base.freshest.is_none(), "the first list has no delta to name");
    assert!(published(&authority, CrlPart::Delta).is_none());

    let mut expected = BTreeSet::new();
    for _ in 0..3 {
        expected.insert(revoked(&authority).await.as_bytes().to_vec());
        authority.publish_due().await.unwrap();
        let complete = published(&authority, CrlPart::Complete).unwrap();
        let delta = published(&authority, CrlPart::Delta).unwrap();
        assert_eq!((delta.number, delta.base), (complete.number, Some(base.number)));
        assert!(complete.base.is_none() && delta.freshest.is_none());
        let url = b"http://status.example.org/crl/code-signing/delta.crl";
        assert!(complete.freshest.unwrap().windows(url.len()).any(|window| window == url));
        assert_eq!(complete.serials, expected);
        assert_eq!(base.serials.union(&delta.serials).cloned().collect::<BTreeSet<_>>(), expected);
    }
    let der = authority.published_crl("code-signing", CrlPart::Delta).unwrap().der.clone();
    check_ca(&authority).await;

    // A restart serves it again, and it never becomes due by itself.
    let reopened = site.open().await;
    assert_eq!(reopened.publish_due().await.unwrap(), 0);
    assert_eq!(reopened.published_crl("code-signing", CrlPart::Delta).unwrap().der, der);
    assert!(reopened.published_crl("root", CrlPart::Delta).is_none());
    let server = Server::start(reopened).await;
    let answer = server.http.get(format!("{}/crl/code-signing/delta.crl", server.base)).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/pkix-crl");
    assert_eq!(answer.bytes().await.unwrap(), der);
    server.finish().await;
}

/// A base of the future would be the base for as long as that: nothing that is revoked until then would be in any delta.
#[tokio::test(flavor = "multi_thread")]
async fn deltas_are_whole_after_the_clock_was_ahead() {
    let site = Site::new().await;
    let present = SystemClock.unix_seconds();
    let wrong = Arc::new(TestClock::at_unix_seconds(present + 30 * 86_400));
    let ahead = site.open_with(site.store().await, wrong).await;
    revoked(&ahead).await;
    ahead.publish_due().await.unwrap();
    revoked(&ahead).await;
    ahead.publish_due().await.unwrap();
    assert!(published(&ahead, CrlPart::Delta).is_some());
    drop(ahead);
    let right = Arc::new(TestClock::at_unix_seconds(present + 60));
    let authority = site.open_with(site.store().await, right.clone()).await;
    authority.accept_time("test").await.unwrap();
    drop(authority);

    let authority = site.open_with(site.store().await, right.clone()).await;
    assert!(published(&authority, CrlPart::Delta).is_none(), "that of the future is withdrawn");
    authority.publish_due().await.unwrap();
    let base = published(&authority, CrlPart::Complete).unwrap();
    right.advance(Duration::from_secs(5));
    let late = revoked(&authority).await;
    authority.publish_due().await.unwrap();
    let delta = published(&authority, CrlPart::Delta).unwrap();
    assert_eq!(delta.base, Some(base.number));
    assert!(delta.serials.contains(late.as_bytes()));
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_steps_back_a_second_leaves_out_no_delta() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    revoked(&authority).await;
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let late = authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap().serial;
    authority.publish_due().await.unwrap();
    let before = published(&authority, CrlPart::Delta).unwrap();
    let stepped = clock.unix_seconds() - 1;
    clock.set_unix_seconds(stepped);
    authority.revoke(&late, RevocationReason::Superseded, None, "test").await.unwrap();
    authority.publish_due().await.unwrap();
    let complete = published(&authority, CrlPart::Complete).unwrap();
    let delta = published(&authority, CrlPart::Delta).unwrap();
    assert_eq!((delta.base, delta.number), (before.base, complete.number));
    assert!(delta.serials.contains(late.as_bytes()));
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deltas_have_what_was_revoked_while_the_clock_was_behind() {
    let site = Site::new().await;
    let present = SystemClock.unix_seconds();
    let clock = Arc::new(TestClock::at_unix_seconds(present));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let issued = authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    clock.set_unix_seconds(present - 2 * 86_400);
    authority.revoke(&issued.serial, RevocationReason::Superseded, None, "test").await.unwrap();
    clock.set_unix_seconds(present + 1);
    clock.advance(Duration::from_secs(20));
    let _ = authority.publish_due().await;
    clock.advance(Duration::from_secs(20));
    authority.publish_due().await.unwrap();
    let delta = published(&authority, CrlPart::Delta).unwrap();
    assert!(delta.serials.contains(issued.serial.as_bytes()));
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_lacks_a_revocation_is_found() {
    let site = Site::new().await;
    let authority = site.open().await;
    revoked(&authority).await;
    // As of a clock that is behind by decades.
    let Some(database) = site.settings.database.file() else { return };
    let database = rusqlite::Connection::open(database).unwrap();
    database.execute_batch("UPDATE revocation SET recorded_at = 0").unwrap();
    authority.publish_due().await.unwrap();
    let findings = check::run(&authority).await.unwrap().findings;
    assert!(findings.iter().any(|finding| finding.contains("neither in the base nor here")), "{findings:?}");
}
