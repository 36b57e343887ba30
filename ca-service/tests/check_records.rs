//! What was done to the records past the authority is found by what is left of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fixture;

use ca_pki::crl::RevocationReason;
use ca_service::check;
use ca_service::storage::CrlPart;
use fixture::faults::FaultyStore;
use fixture::own::Own;
use fixture::{Site, check_ca};
use service::SystemClock;

/// Where the one certificate's issuer has its complete list.
const COMPLETE: &str = "issuer = 'code-signing' AND part = -1";

/// What the checker says after a change of an authority that revoked one certificate and issued another, and has published lists several
/// times.
async fn found_after(change: &str) -> Vec<String> {
    let site = Site::new().await;
    let authority = site.open().await;
    let revoked = Own::enrolled(&authority, "gone@example.com").await;
    Own::enrolled(&authority, "dev@example.com").await;
    authority.revoke(&revoked.issued.serial, RevocationReason::Superseded, None, "test").await.unwrap();
    authority.publish_due().await.unwrap();
    authority.publish_all().await.unwrap();
    check_ca(&authority).await;
    drop(authority);
    fixture::execute(&site.settings, change);
    check::run(&*site.open().await).await.unwrap().findings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_of_a_list_that_nothing_explains_is_found() {
    let lost = format!("DELETE FROM crl_number WHERE {COMPLETE} AND number = 2");
    let ahead = format!(
        "UPDATE crl_part SET allotted = allotted + 4294967296, published = published WHERE {COMPLETE}"
    );
    let behind = format!("UPDATE crl_part SET allotted = allotted - 1 WHERE {COMPLETE}");
    for (change, expected) in [
        (lost, "between its numbers 1 and 3, 1 were neither allotted nor skipped by a restore"),
        (ahead, "4294967296 were neither allotted nor skipped by a restore"),
        (behind, "a number above its highest was used"),
    ] {
        let found = found_after(&change).await;
        assert!(found.iter().any(|one| one.contains(expected)), "{expected}: {found:?}");
        assert!(found.iter().all(|one| one.starts_with("list code-signing Complete: ")), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_not_the_one_of_its_number_is_found() {
    // The number of one list with the hash of another, an earlier one and the present one.
    let other = |number: &str| {
        format!(
            "UPDATE crl_number SET sha256 = (SELECT sha256 FROM crl_number WHERE issuer = 'root' AND number = 1) \
             WHERE {COMPLETE} AND number = {number}"
        )
    };
    for number in ["1", "(SELECT max(published) FROM crl_part WHERE issuer = 'code-signing' AND part = -1)"] {
        let found = found_after(&other(number)).await;
        assert!(found.iter().any(|one| one.contains("announces another list, or none")), "{found:?}");
        let newest = found.iter().any(|one| one.contains("is not what was recorded by its number"));
        assert_eq!(newest, number != "1", "{found:?}");
    }
    let unpublished = format!("UPDATE crl_number SET sha256 = NULL WHERE {COMPLETE} AND number = 1");
    let found = found_after(&unpublished).await;
    assert!(
        found.iter().any(|one| one.contains("of number 1 the audit trail announces another list")),
        "{found:?}"
    );
    // The list itself, in place of another one: the complete list, and the delta.
    for (name, part, other) in [("Complete", -1, -2), ("Delta", -2, -1)] {
        let list = format!(
            "UPDATE crl_list SET der = (SELECT der FROM crl_list WHERE issuer = 'code-signing' AND part = {other}) \
             WHERE issuer = 'code-signing' AND part = {part}"
        );
        let found = found_after(&list).await;
        let expected = format!("list code-signing {name}: it is not the one that the audit trail announces");
        assert!(found.contains(&expected), "{found:?}");
    }
}

/// Whatever is changed in a list is not what its issuer signed.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_whose_signature_is_not_its_issuers_is_found() {
    let site = Site::new().await;
    let authority = site.open().await;
    let revoked = Own::enrolled(&authority, "gone@example.com").await;
    authority.publish_all().await.unwrap();
    authority.revoke(&revoked.issued.serial, RevocationReason::Superseded, None, "test").await.unwrap();
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
    let published = authority.store().published_crls().await.unwrap();
    for (name, part) in [("Complete", CrlPart::Complete), ("Delta", CrlPart::Delta)] {
        let whole = published.iter().find(|crl| crl.issuer == "code-signing" && crl.part == part).unwrap();
        // The entry's time of revocation, a second earlier or later; the form stays what it was.
        let mut altered = whole.der.to_vec();
        let serial = revoked.issued.serial.as_bytes();
        let place = altered.windows(serial.len()).position(|window| window == serial).unwrap();
        let second = place + serial.len() + 2 + "YYMMDDhhmmss".len() - 1;
        altered[second] = if altered[second] == b'0' { b'1' } else { b'0' };
        let store = |der: &[u8]| {
            let number = if part == CrlPart::Delta { -2 } else { -1 };
            let der = fixture::octets(&site.settings, der);
            let condition = format!("issuer = 'code-signing' AND part = {number}");
            fixture::execute(&site.settings, &format!("UPDATE crl_list SET der = {der} WHERE {condition}"));
        };
        store(&altered);
        let found = check::run(&*site.open().await).await.unwrap().findings;
        for expected in
            ["its signature is not the issuer's", "it is not the one that the audit trail announces"]
        {
            assert!(found.contains(&format!("list code-signing {name}: {expected}")), "{found:?}");
        }
        store(&whole.der);
    }
    check_ca(&*site.open().await).await;
}

/// What an authority at work writes between two reads of the checker is no finding; what is wrong is found there, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_beside_an_authority_at_work_finds_what_is_wrong_and_nothing_else() {
    let site = Site::new().await;
    let authority = site.open().await;
    for _ in 0..3 {
        authority.publish_all().await.unwrap();
    }
    drop(authority);
    for wrong in [None, Some("between its numbers 1 and 3, 1 were neither allotted nor skipped by a restore")]
    {
        if wrong.is_some() {
            let lost = format!("DELETE FROM crl_number WHERE {COMPLETE} AND number = 2");
            fixture::execute(&site.settings, &lost);
        }
        let authority = site.open().await;
        let checked = AtomicBool::new(false);
        let work = async {
            let mut certificates = 0;
            while !checked.load(Ordering::Acquire) {
                let own = Own::enrolled(&authority, &format!("dev{certificates}@example.com")).await;
                let (serial, reason) = (own.issued.serial, RevocationReason::Superseded);
                authority.revoke(&serial, reason, None, "test").await.unwrap();
                authority.publish_due().await.unwrap();
                certificates += 1;
            }
            certificates
        };
        let checks = async {
            let mut found = Vec::new();
            for _ in 0..5 {
                found.push(check::run(&authority).await.unwrap().findings);
            }
            checked.store(true, Ordering::Release);
            found
        };
        let (certificates, found) = tokio::join!(work, checks);
        assert!(certificates > 0);
        let announced = "the audit trail announces its number 2, which has no record";
        let expected: Vec<String> = wrong
            .into_iter()
            .flat_map(|wrong| [wrong, announced])
            .map(|wrong| format!("list code-signing Complete: {wrong}"))
            .collect();
        assert_eq!(found, vec![expected; 5]);
    }
}

/// Between two reads of each reading every list is published anew: none of the readings sees what the others saw.
#[tokio::test(flavor = "multi_thread")]
async fn lists_that_are_published_within_every_reading_are_no_finding() {
    let site = Site::new().await;
    let store = Arc::new(FaultyStore::new(site.store().await));
    let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
    for _ in 0..2 {
        authority.publish_all().await.unwrap();
    }
    for point in ["search", "published_crls", "allotted_numbers"] {
        let gate = store.hold(point);
        let (mut checking, mut published) = (Box::pin(check::run(&authority)), 0);
        let report = loop {
            tokio::select! {
                report = &mut checking => break report.unwrap(),
                () = gate.came.notified() => {
                    authority.publish_all().await.unwrap();
                    published += 1;
                    gate.go.notify_one();
                }
            }
        };
        store.hold_none();
        assert_eq!(report.findings, Vec::<String>::new(), "{point}");
        assert!(published >= 2, "{point}: {published}");
    }
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_number_on_a_list_without_a_revocation_is_found() {
    let taken_back = "DELETE FROM revocation; UPDATE certificate SET state = 5 WHERE state = 7";
    let found = found_after(taken_back).await;
    let unfounded = found.iter().filter(|one| one.contains("is on it, and no revocation")).count();
    // Its shard, the complete list and the delta.
    assert_eq!(unfounded, 3, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_what_it_was_issued_for_is_found() {
    let of_dev = "WHERE identity = 'dev@example.com'";
    for (change, expected) in [
        (format!("DELETE FROM token {of_dev}"), "its one-time token is missing"),
        (format!("UPDATE token SET used_by = NULL {of_dev}"), "its one-time token was not used for it"),
        (format!("UPDATE token SET profile = 'hardware' {of_dev}"), "for another identity or profile"),
        (
            format!("UPDATE certificate SET evidence = '{{}}' {of_dev}"),
            "does not name the method one-time-token",
        ),
        (
            format!("UPDATE certificate SET requester = 'token:00' {of_dev}"),
            "which one-time token it was issued for",
        ),
        (format!("UPDATE certificate SET requester = 'somebody' {of_dev}"), "does not name the method oidc"),
    ] {
        let found = found_after(&change).await;
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    }
}
