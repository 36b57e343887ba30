//! What came of a certificate by renewal ends with it: whatever interrupts that, only for what says so, and never further back than whoever
//! asks for it may say.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;
use std::time::Duration;

use ca_api::{PlanRevocations, RevocationSelection, RevokeMany};
use ca_pki::crl::RevocationReason;
use ca_pki::{SerialNumber, UnixTime};
use ca_service::reconciler::Reach;
use ca_service::storage::CertificateStore;
use ca_service::{CaError, CertificateAuthority, check};
use fixture::faults::{Fault, FaultyStore};
use fixture::own::{Own, revocation};
use fixture::{Site, check_ca};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};

fn clock() -> Arc<TestClock> {
    Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()))
}

/// A certificate, one that came of it, and one that came of that.
async fn line(authority: &Arc<CertificateAuthority>, clock: &TestClock, email: &str) -> [Own; 3] {
    let first = Own::enrolled(authority, email).await;
    let second = first.renewed(authority, clock, "a").await.unwrap();
    let third = second.renewed(authority, clock, "a").await.unwrap();
    [first, second, third]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_standing_is_found_renews_nothing_and_ends_at_the_start() {
    for fault in [Fault::Before, Fault::After, Fault::CrashBefore, Fault::CrashAfter] {
        let (site, clock) = (Site::new().await, clock());
        let store = Arc::new(FaultyStore::new(site.store().await));
        let authority = site.open_with(store.clone(), clock.clone()).await;
        let [first, second, third] = line(&authority, &clock, "dev@example.com").await;
        let same = Own::enrolled(&authority, "dev@example.com").await;
        let other = Own::enrolled(&authority, "other@example.com").await;
        store.arm("end_renewals", fault);
        let revoke =
            authority.revoke(&first.issued.serial, RevocationReason::PrivilegeWithdrawn, None, "test");
        let attempt = tokio::select! {
            outcome = revoke => Some(outcome),
            () = store.crashed.notified() => None,
        };
        assert!(matches!(attempt, None | Some(Err(CaError::Store(_)))), "{fault:?}: {attempt:?}");
        assert!(revocation(&authority, &first).await.is_some(), "{fault:?}");
        drop(authority);

        let authority = site.open_with(site.store().await, clock.clone()).await;
        // One of the two generations was in the transaction that the answer came from, if there was one.
        let begun = matches!(fault, Fault::After | Fault::CrashAfter);
        assert_eq!(revocation(&authority, &second).await.is_some(), begun, "{fault:?}");
        assert!(revocation(&authority, &third).await.is_none(), "{fault:?}");
        let found = check::run(&authority).await.unwrap().findings;
        assert!(found.iter().any(|one| one.contains("which it renews, was revoked")), "{fault:?}: {found:?}");
        // Whose key it is that renews is not known until then, except of another identity.
        for own in [&third, &same] {
            let pending = own.renewed(&authority, &clock, "b").await.err();
            assert!(matches!(pending, Some(CaError::IssuancePending)), "{fault:?}: {pending:?}");
        }
        other.renewed(&authority, &clock, "b").await.unwrap();

        let done = authority.reconcile_local(Reach::Everything).await.unwrap();
        assert_eq!(done.renewals, if begun { 1 } else { 2 }, "{fault:?}");
        for own in [&second, &third] {
            let ended = revocation(&authority, own).await.unwrap();
            assert_eq!(ended.reason, RevocationReason::PrivilegeWithdrawn);
        }
        same.renewed(&authority, &clock, "b").await.unwrap();
        assert_eq!(authority.reconcile(Reach::Everything).await.unwrap().renewals, 0);
        authority.publish_due().await.unwrap();
        check_ca(&authority).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_family_of_many_ends_whole() {
    let (site, clock) = (Site::new().await, clock());
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let first = Own::enrolled(&authority, "dev@example.com").await;
    let mut family = Vec::new();
    for number in 0..16 {
        let child = first.renewed(&authority, &clock, &format!("number-{number}")).await.unwrap();
        for id in ["a", "b"] {
            let grandchild = child.renewed(&authority, &clock, id).await.unwrap();
            family.push(grandchild.renewed(&authority, &clock, id).await.unwrap());
            family.push(grandchild);
        }
        family.push(child);
    }
    let counted = async || {
        let count = authority.renewals_of(&first.issued.serial).await.unwrap();
        (count.revoked, count.standing)
    };
    assert_eq!(counted().await, (0, 80));
    authority.revoke(&first.issued.serial, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    assert_eq!(counted().await, (80, 0));
    for own in &family {
        assert!(revocation(&authority, own).await.is_some());
    }
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_says_that_the_holder_is_trusted_leaves_renewals_good() {
    let site = Site::new().await;
    let server = site.serve().await;
    let clock = TestClock::at_unix_seconds(SystemClock.unix_seconds());
    for (reason, stands) in [
        (ca_api::RevocationReason::Unspecified, false),
        (ca_api::RevocationReason::AffiliationChanged, false),
        (ca_api::RevocationReason::PrivilegeWithdrawn, false),
        (ca_api::RevocationReason::Superseded, true),
        (ca_api::RevocationReason::CessationOfOperation, true),
    ] {
        let [first, second, third] = line(&server.authority, &clock, "dev@example.com").await;
        let revoke = ca_api::Revoke { reason, compromised_at: None };
        let answer = server.admin().revoke(&first.issued.serial.to_string(), &revoke).await.unwrap();
        let said = (answer.renewals_revoked, answer.renewals_standing);
        assert_eq!(said, if stands { (Some(0), Some(2)) } else { (Some(2), Some(0)) }, "{reason:?}");
        for own in [&second, &third] {
            assert_eq!(revocation(&server.authority, own).await.is_none(), stands, "{reason:?}");
        }
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_says_nothing_of_what_it_could_not_renew_nor_of_the_past_of_other_keys() {
    let (site, clock) = (Site::new().await, clock());
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let year = Duration::from_secs(300 * 86_400);

    // Found in a backup long after its end.
    let first = Own::enrolled(&authority, "a@example.com").await;
    clock.advance(year);
    let second = first.renewed(&authority, &clock, "a").await.unwrap();
    clock.advance(year);
    let third = second.renewed(&authority, &clock, "a").await.unwrap();
    let ended = first.given_up(&authority, &clock, Some(first.issued.not_before.0)).await;
    assert_eq!(ended.revoked_at, first.issued.not_before);
    assert!(
        revocation(&authority, &second).await.is_none() && revocation(&authority, &third).await.is_none()
    );
    // An administrator says what is known of it.
    let (reason, since) = (RevocationReason::KeyCompromise, Some(first.issued.not_before));
    authority.revoke(&first.issued.serial, reason, since, "test").await.unwrap();
    for own in [&second, &third] {
        assert_eq!(revocation(&authority, own).await.unwrap().revoked_at, own.issued.not_before);
    }

    // While it could renew: what it renewed is not trusted any more, and what that signed before is not touched.
    let [first, second, third] = line(&authority, &clock, "b@example.com").await;
    clock.advance(Duration::from_secs(10 * 86_400));
    let ended = first.given_up(&authority, &clock, Some(first.issued.not_before.0)).await;
    assert_eq!(ended.revoked_at, first.issued.not_before);
    for own in [&second, &third] {
        assert_eq!(revocation(&authority, own).await.unwrap().revoked_at, UnixTime(clock.unix_seconds()));
    }
    // What came of it before the key was lost is the holder's.
    let [first, second, _] = line(&authority, &clock, "c@example.com").await;
    clock.advance(Duration::from_secs(10));
    first.given_up(&authority, &clock, Some(clock.unix_seconds())).await;
    assert!(revocation(&authority, &second).await.is_none());
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

fn of_key(authority: &Own, reason: ca_api::RevocationReason) -> PlanRevocations {
    let spki = trust_store::Certificate::from_der(&authority.issued.certificate).unwrap();
    let spki = <sha2::Sha256 as sha2::Digest>::digest(spki.spki_der());
    let selection =
        RevocationSelection { spki_sha256: Some(hex::encode(spki)), ..RevocationSelection::default() };
    PlanRevocations { selection, reason, compromised_at: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_says_counts_and_reports_what_ends_with_the_certificates_that_it_selects() {
    let site = Site::new().await;
    let clock = TestClock::at_unix_seconds(SystemClock.unix_seconds());
    let server = site.serve().await;
    let admin = server.admin();
    let [first, second, third] = line(&server.authority, &clock, "dev@example.com").await;
    let asked = of_key(&first, ca_api::RevocationReason::KeyCompromise);
    let trusted = PlanRevocations { reason: ca_api::RevocationReason::Superseded, ..asked.clone() };
    assert_eq!(admin.plan_revocations(&trusted).await.unwrap().renewed, 0);
    let plan = admin.plan_revocations(&asked).await.unwrap();
    assert_eq!((plan.matching, plan.revoked, plan.renewed), (1, 0, 2));
    assert!(plan.order.contains("\"matching\":1,\"renewed\":2"), "{}", plan.order);
    let piece = |confirm| RevokeMany {
        order: plan.order.clone(),
        confirm,
        approvals: Vec::new(),
        after: None,
        limit: None,
    };
    let refused = admin.revoke_many(&piece(1)).await.unwrap_err();
    assert_eq!(refused.code(), Some("out_of_range"), "the whole number is confirmed");
    // What the thief renews since then ends too.
    let fourth = third.renewed(&server.authority, &clock, "later").await.unwrap();
    let done = admin.revoke_many(&piece(3)).await.unwrap();
    assert_eq!((done.revoked, done.kept, done.renewed), (1, 0, 3));
    assert_eq!(admin.revoke_many(&piece(3)).await.unwrap(), done, "repeating it says the same");
    for own in [&first, &second, &third, &fourth] {
        assert!(revocation(&server.authority, own).await.is_some());
    }
    let trail = server.authority.store().audit_records(0, 1_000).await.unwrap();
    let order = trail.iter().find(|record| record.event == "revocation.ordered").unwrap();
    assert!(order.detail.contains("\"with_renewals\":true"), "{}", order.detail);
    // Of an identity all are selected, and none is counted twice.
    let [_, other, _] = line(&server.authority, &clock, "other@example.com").await;
    let selection = RevocationSelection {
        identity: Some("other@example.com".to_owned()),
        ..RevocationSelection::default()
    };
    let plan = admin.plan_revocations(&PlanRevocations { selection, ..asked }).await.unwrap();
    assert_eq!((plan.matching, plan.renewed), (3, 0));
    assert!(revocation(&server.authority, &other).await.is_none());
    server.finish().await;
}

/// Neither the operator, who knows since when the key is in other hands, nor the holder, who demands that all of them end, says that the
/// key of the earlier renewal is.
#[tokio::test(flavor = "multi_thread")]
async fn two_demands_that_meet_say_of_no_key_what_neither_says() {
    let (site, clock) = (Site::new().await, clock());
    let store = Arc::new(FaultyStore::new(site.store().await));
    let authority = site.open_with(store.clone(), clock.clone()).await;
    let first = Own::enrolled(&authority, "dev@example.com").await;
    let before = first.renewed(&authority, &clock, "before").await.unwrap();
    let same = Own::enrolled_for(&authority, "pipeline@example.com", before.same_key()).await;
    clock.advance(Duration::from_secs(60));
    let since = UnixTime(clock.unix_seconds());
    clock.advance(Duration::from_secs(60));
    let after = first.renewed(&authority, &clock, "after").await.unwrap();

    // The operator's is recorded and not carried out when the holder's comes.
    store.arm("end_renewals", Fault::Before);
    let operator =
        authority.revoke(&first.issued.serial, RevocationReason::KeyCompromise, Some(since), "test");
    assert!(matches!(operator.await, Err(CaError::Store(_))));
    clock.advance(Duration::from_secs(60));
    let now = UnixTime(clock.unix_seconds());
    first.given_up(&authority, &clock, None).await;
    let ended = async |own: &Own| revocation(&authority, own).await.map(|it| (it.reason, it.revoked_at));
    assert_eq!(ended(&before).await, Some((RevocationReason::PrivilegeWithdrawn, now)));
    assert_eq!(ended(&after).await, Some((RevocationReason::KeyCompromise, after.issued.not_before)));
    assert_eq!(ended(&same).await, None, "nobody said anything of its key");
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_demanded_of_what_has_no_renewals() {
    let (site, clock) = (Site::new().await, clock());
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let own = Own::enrolled(&authority, "dev@example.com").await;
    let store: &Arc<dyn CertificateStore> = authority.store();
    authority.revoke(&own.issued.serial, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    assert_eq!(store.renewal_end(&own.issued.serial).await.unwrap(), None);
    let unknown = SerialNumber::from_hex("4d01").unwrap();
    assert_eq!(authority.renewals_of(&unknown).await.unwrap().standing, 0);
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}
