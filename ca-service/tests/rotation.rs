//! A rotation of the root that fails, or whose process dies, at any of its steps leaves nothing that stumbles, and is simply repeated.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;

use ca_api::{CertificateRecord, CertificateState, ListQuery};
use ca_service::check;
use ca_service::reconciler::{Reach, Reconciled};
use fixture::faults::{Fault, FaultyStore};
use fixture::program::{command, config, run, said};
use fixture::{Site, check_ca};
use service::SystemClock;
use service::clock::Clock as _;

/// Every storage call that a rotation of the root makes, in their order.
const POINTS: [&str; 3] = ["record_intent", "begin_signing", "add_authority"];

/// The roots on record, newest first, as a restarted server lists and shows them; it proves the whole state at its end.
async fn roots(site: &Site) -> Vec<CertificateRecord> {
    let server = site.serve().await;
    let admin = server.admin();
    let all = admin.list(&ListQuery { limit: Some(1_000), ..ListQuery::default() }).await.unwrap();
    let roots: Vec<_> = all.certificates.into_iter().filter(|each| each.profile == "root").collect();
    for root in &roots {
        assert_eq!(admin.show(&root.serial).await.unwrap().certificate, root.certificate);
    }
    let idle = server.authority.reconcile(Reach::Everything).await.unwrap();
    assert_eq!(idle, Reconciled::default(), "nothing is left open");
    server.authority.log_revocations().await.unwrap();
    assert!(server.authority.store().unlogged_revocations(10).await.unwrap().is_empty());
    server.finish().await;
    roots
}

/// Rotates the root: the name of the new one.
async fn rotated(site: &Site) -> String {
    site.open().await.renew("root", &site.keyring()).await.unwrap().authority
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_of_the_root_that_ends_at_any_storage_call_is_closed_and_can_be_repeated() {
    let site = Site::new().await;
    let store = Arc::new(FaultyStore::new(site.store().await));
    let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
    store.forget_calls();
    authority.renew("root", &site.keyring()).await.unwrap();
    assert_eq!(store.calls(), POINTS, "each of its calls is among those that fail below");
    drop(authority);
    let mut before = roots(&site).await.len();
    for point in POINTS {
        for fault in Fault::ALL {
            let store = Arc::new(FaultyStore::new(site.store().await));
            let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
            store.arm(point, fault);
            let keys = site.keyring();
            let attempt = tokio::select! {
                outcome = authority.renew("root", &keys) => Some(outcome),
                () = store.crashed.notified() => None,
            };
            assert!(!store.is_armed(), "{point} was never called");
            assert!(!matches!(attempt, Some(Ok(_))), "{point} {fault:?}");
            drop(authority);

            let now = roots(&site).await;
            let done = matches!(fault, Fault::After | Fault::CrashAfter);
            let recorded = usize::from(done || point != "record_intent");
            assert_eq!(now.len(), before + recorded, "{point} {fault:?}");
            before = now.len();
            let expected = match (point, done) {
                ("record_intent", false) => continue,
                ("record_intent", true) | ("begin_signing", false) => CertificateState::Abandoned,
                ("begin_signing", true) | ("add_authority", false) => CertificateState::MaybeIssued,
                _ => CertificateState::Delivered,
            };
            assert_eq!(now[0].state, expected, "{point} {fault:?}");
            // It is there whole, as an authority, or there is nothing of it that could be used.
            let founded = expected == CertificateState::Delivered;
            assert_eq!(now[0].certificate.is_some(), founded, "{point} {fault:?}");
            assert_eq!(site.open().await.authorities().contains_key(&now[0].issuer), founded);
        }
        // Repeated, it makes the next one, of the name that the interrupted one would have had.
        let name = rotated(&site).await;
        let now = roots(&site).await;
        assert_eq!((&now[0].issuer, now[0].state), (&name, CertificateState::Delivered), "{point}");
        before = now.len();
    }
    let authority = site.open().await;
    authority.renew("code-signing", &site.keyring()).await.unwrap();
    let authority = site.open().await;
    authority.publish_due().await.unwrap();
    let newest = authority.generations("root").next().unwrap();
    assert_eq!(authority.generations("code-signing").next().unwrap().chain[1], newest.certificate);
    check_ca(&authority).await;
}

/// Before, a root's signature was recorded without its authority: what that left is in databases.
#[tokio::test(flavor = "multi_thread")]
async fn a_signed_root_without_an_authority_stops_nothing() {
    let site = Site::new().await;
    for (state, expected) in [("5", CertificateState::Delivered), ("3", CertificateState::Revoked)] {
        let name = rotated(&site).await;
        let left = format!(
            "UPDATE certificate SET state = {state} WHERE issuer = '{name}' AND profile = 'root'; \
             DELETE FROM crl_part WHERE issuer = '{name}'; DELETE FROM authority WHERE name = '{name}'"
        );
        fixture::execute(&site.settings, &left);
        // Closed at once where it was open: no log is asked, and nobody waits for the hour of the others.
        let authority = site.open().await;
        let done = authority.reconcile(Reach::Everything).await.unwrap();
        assert_eq!(done.given_up, usize::from(expected == CertificateState::Revoked));
        drop(authority);
        let now = roots(&site).await;
        assert_eq!((now[0].state, &now[0].certificate), (expected, &None));

        // The next rotation takes the name, with another key.
        assert_eq!(rotated(&site).await, name);
        let now = roots(&site).await;
        assert_eq!((&now[0].issuer, &now[1].issuer), (&name, &name));
        assert!(now[0].certificate.is_some() && now[1].certificate.is_none());
        assert_eq!(now[1].state, expected);
    }
}

/// What says of itself that it is such a root must be one.
#[tokio::test(flavor = "multi_thread")]
async fn no_row_hides_from_the_checker_as_a_root_without_an_authority() {
    let site = Site::new().await;
    let name = rotated(&site).await;
    let left =
        format!("DELETE FROM crl_part WHERE issuer = '{name}'; DELETE FROM authority WHERE name = '{name}'");
    fixture::execute(&site.settings, &left);
    let authority = site.open().await;
    let wanted = fixture::token_request("dev@example.com", "developer");
    let token = authority.create_token(&wanted, "test").await.unwrap().token;
    authority.enrol(&fixture::enrol_request(&token, &fixture::key(), None)).await.unwrap();
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
    let findings = async || check::run(&authority).await.unwrap().findings;
    let hidden = "UPDATE certificate SET profile = 'root', identity = NULL, identity_kind = NULL, issuer = 'root-9' \
                  WHERE identity = 'dev@example.com'";
    fixture::execute(&site.settings, hidden);
    let found = findings().await;
    assert!(found.len() == 1 && found[0].ends_with("recorded as a root, and another issuer's"), "{found:?}");
    let unsigned = format!(
        "UPDATE certificate SET signature = tbs_sha256 WHERE issuer = '{name}'; DELETE FROM certificate WHERE issuer = 'root-9'"
    );
    fixture::execute(&site.settings, &unsigned);
    let found = findings().await;
    assert!(found.len() == 1 && found[0].ends_with("has not signed itself"), "{found:?}");
    fixture::execute(
        &site.settings,
        &format!("UPDATE certificate SET spki_sha256 = tbs_sha256 WHERE issuer = '{name}'"),
    );
    let found = findings().await;
    assert!(found.len() == 1 && found[0].ends_with("not the recorded one"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_killed_at_any_moment_leaves_a_sound_authority() {
    let site = Site::new().await;
    let config = config(&site);
    let began = SystemClock.monotonic();
    let whole = run(&config, &["renew", "--authority", "root"]);
    assert!(whole.status.success(), "{}", said(&whole));
    let took = SystemClock.monotonic() - began;
    for part in 0..8 {
        let mut child = command(&config, &["renew", "--authority", "root"]).spawn().unwrap();
        tokio::time::sleep(took * (4 + part) / 12).await;
        child.kill().unwrap();
        child.wait().unwrap();
        // Before anything reconciles it. The first list of a root comes with the next start, whatever became of its rotation.
        let report: serde_json::Value =
            serde_json::from_slice(&run(&config, &["check", "--without-logs"]).stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        let is_of_lists =
            |finding: &serde_json::Value| finding.as_str().unwrap().ends_with("never published");
        assert!(findings.iter().all(is_of_lists), "{part}: {report}");
    }
    let roots = roots(&site).await;
    for root in &roots {
        let known = site.open().await.authorities().contains_key(&root.issuer);
        assert!(root.certificate.is_none() || known, "{root:?}");
        assert!(!matches!(root.state, CertificateState::Intent | CertificateState::Signing), "{root:?}");
    }
    assert!(run(&config, &["renew", "--authority", "root"]).status.success());
    self::roots(&site).await;
    assert!(run(&config, &["check", "--without-logs"]).status.success());
}
