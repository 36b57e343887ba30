//! Requests that wait for people, when the store fails, the process dies, time passes or a backup comes back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;

use ca_api::RequestState;
use ca_pki::UnixTime;
use ca_service::queue::QueueRefusal;
use ca_service::reconciler::Reach;
use ca_service::storage::queue::QueueState;
use ca_service::storage::{Search, State};
use ca_service::{CaError, CertificateAuthority, backup};
use fixture::deciders::{approver, ask, queue, refusal, shown};
use fixture::faults::{Fault, FaultyStore};
use fixture::signers::{ObedientKeys, Orders, Refusal};
use fixture::{Site, check_ca};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};

const ONE: &str = "[enrolment]\ntoken_approvals = 1\n[roles.approver]\nsubjects = [\"CN=alice\"]\n";
const DAY: i64 = 86_400;

async fn certificates(authority: &CertificateAuthority, email: &str) -> Vec<State> {
    let search = Search { identity: Some(email.to_owned()), limit: 10, ..Search::default() };
    authority.store().search(search).await.unwrap().into_iter().map(|record| record.state).collect()
}

/// Drives a request from its recording to its certificate while one call of the store fails, or the process dies there; then
/// everything is open again, the requester comes back, and people decide what they had not decided.
async fn interrupted(site: &Site, point: &'static str, fault: Fault) {
    let email = format!("{point}-{fault:?}@example.com").to_lowercase();
    let store = Arc::new(FaultyStore::new(site.store().await));
    let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
    let asked = ask(&authority, &email, "r1").await;
    let run = async {
        if point == "record_request" {
            store.arm(point, fault);
        }
        match authority.enrol(&asked).await {
            Err(CaError::Queue(QueueRefusal::Awaiting { .. })) => {}
            other => return refusal(other),
        }
        if point == "decide" {
            store.arm(point, fault);
        }
        let request = queue(&authority, QueueState::Waiting).await.pop().unwrap();
        if let Err(error) = authority.approve_requests(&shown(&request), &approver("alice")).await {
            return refusal(Err::<(), _>(error));
        }
        store.arm(point, fault);
        refusal(authority.enrol(&asked).await)
    };
    let dies = matches!(fault, Fault::CrashBefore | Fault::CrashAfter);
    tokio::select! {
        code = run => assert!(!dies && code == "store", "{point} {fault:?}: {code}"),
        () = store.crashed.notified() => assert!(dies, "{point} {fault:?}"),
    }
    assert!(!store.is_armed(), "{point} was never called");
    drop(authority);

    // The restart.
    let authority = site.open().await;
    authority.reconcile_local(Reach::Everything).await.unwrap();
    authority.reconcile(Reach::Everything).await.unwrap();
    check_ca(&authority).await;
    let done = matches!(fault, Fault::After | Fault::CrashAfter);
    if point == "begin_issuance" && done {
        // It may have been signed: never again.
        assert_eq!(certificates(&authority, &email).await, [State::MaybeIssued]);
        assert_eq!(refusal(authority.enrol(&asked).await), "issuance_failed", "{point} {fault:?}");
        assert_eq!(certificates(&authority, &email).await.len(), 1);
        return;
    }
    if point != "begin_issuance" && !(point == "decide" && done) {
        assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval", "{point} {fault:?}");
        let request = queue(&authority, QueueState::Waiting).await.pop().unwrap();
        assert_eq!(request.content.identity.as_str(), email);
        let status = authority.approve_requests(&shown(&request), &approver("alice")).await.unwrap();
        assert_eq!(status[0].state, RequestState::Approved);
    }
    // Approved before the crash is approved after it.
    let issued = authority.enrol(&asked).await.unwrap();
    assert_eq!(authority.enrol(&asked).await.unwrap().serial, issued.serial);
    assert_eq!(certificates(&authority, &email).await.len(), 1, "{point} {fault:?}");
    authority.reconcile(Reach::Everything).await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_survives_a_failure_at_every_step_and_becomes_one_certificate() {
    let site = Site::with(ONE).await;
    for point in ["record_request", "decide", "begin_issuance"] {
        for fault in Fault::ALL {
            interrupted(&site, point, fault).await;
        }
    }
    let authority = site.open().await;
    assert!(queue(&authority, QueueState::Waiting).await.is_empty());
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_request_serves_again_when_nothing_was_signed() {
    let site = Site::with(ONE).await;
    let orders = Arc::new(Orders::default());
    let keys = ObedientKeys { inner: site.keys(), orders: orders.clone() };
    let authority = site.open_over(site.store().await, Arc::new(SystemClock), &keys).await;
    let asked = ask(&authority, "dev@example.com", "r1").await;
    assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
    let request = queue(&authority, QueueState::Waiting).await.pop().unwrap();
    authority.approve_requests(&shown(&request), &approver("alice")).await.unwrap();
    orders.for_certificates([Some(Refusal::Permanent)]);
    assert!(matches!(authority.enrol(&asked).await, Err(CaError::Signing(_))));
    let open = queue(&authority, QueueState::Approved).await;
    assert_eq!((open.len(), open[0].intent), (1, None));
    check_ca(&authority).await;
    authority.enrol(&asked).await.unwrap();
    assert_eq!(certificates(&authority, "dev@example.com").await.len(), 2, "one of them was given up");
    assert_eq!(queue(&authority, QueueState::Issued).await.len(), 1);
    check_ca(&authority).await;
}

/// The second signature is taken back alone: the request stays one that was signed, also when its record is forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signature_that_failed_does_not_open_the_request_again() {
    let site = Site::with(ONE).await;
    let orders = Arc::new(Orders::default());
    let keys = ObedientKeys { inner: site.keys(), orders: orders.clone() };
    let authority = site.open_over(site.store().await, Arc::new(SystemClock), &keys).await;
    let asked = ask(&authority, "dev@example.com", "r1").await;
    assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
    let request = queue(&authority, QueueState::Waiting).await.pop().unwrap();
    authority.approve_requests(&shown(&request), &approver("alice")).await.unwrap();
    orders.for_certificates([None, Some(Refusal::Permanent)]);
    assert!(matches!(authority.enrol(&asked).await, Err(CaError::Signing(_))));
    assert_eq!(certificates(&authority, "dev@example.com").await, [State::Signed]);
    assert_eq!(queue(&authority, QueueState::Issued).await.len(), 1);
    check_ca(&authority).await;
    authority.reconcile(Reach::Everything).await.unwrap();
    assert_eq!(certificates(&authority, "dev@example.com").await, [State::Delivered]);
    let trail = authority.store().audit_records(0, 1_000).await.unwrap();
    assert_eq!(trail.iter().filter(|record| record.event == "certificate.signing-undone").count(), 1);
    // As after a month.
    fixture::execute(&site.settings, "DELETE FROM enrolment_request");
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_ends_with_its_time_approved_or_not() {
    let site = Site::with(ONE).await;
    let authority = site.open().await;
    let (first, second) =
        (ask(&authority, "a@example.com", "a").await, ask(&authority, "b@example.com", "b").await);
    for asked in [&first, &second] {
        assert_eq!(refusal(authority.enrol(asked).await), "awaits_approval");
    }
    let waiting = queue(&authority, QueueState::Waiting).await;
    authority.approve_requests(&shown(&waiting[0]), &approver("alice")).await.unwrap();
    drop(authority);

    let later = async |days: i64| {
        let clock = TestClock::at_unix_seconds(SystemClock.unix_seconds() + days * DAY);
        site.open_with(site.store().await, Arc::new(clock)).await
    };
    // The token's own time is over long before, and does not count.
    let authority = later(6).await;
    assert_eq!(refusal(authority.enrol(&second).await), "awaits_approval");
    drop(authority);
    let authority = later(8).await;
    // Before and after the reconciler noted it.
    for noted in [false, true] {
        for asked in [&first, &second] {
            assert_eq!(refusal(authority.enrol(asked).await), "request_expired");
        }
        let late = authority.approve_requests(&shown(&waiting[1]), &approver("alice")).await;
        assert_eq!(refusal(late), "request_closed");
        assert_eq!(authority.tend_queue().await.unwrap(), if noted { 0 } else { 2 });
    }
    assert_eq!(queue(&authority, QueueState::Expired).await.len(), 2);
    drop(authority);
    let authority = later(8 + 31).await;
    authority.tend_queue().await.unwrap();
    assert!(
        queue(&authority, QueueState::Expired).await.is_empty(),
        "remembered for a month, and in the trail for ever"
    );
    assert!(matches!(authority.enrol(&first).await, Err(CaError::TokenExpired)));
    let trail = authority.store().audit_records(0, 1_000).await.unwrap();
    assert_eq!(trail.iter().filter(|record| record.event == "request.expired").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_when_the_backup_was_made_is_ended_by_its_restore() {
    let site = Site::with(ONE).await;
    let authority = site.open().await;
    let asked = ask(&authority, "dev@example.com", "r1").await;
    assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
    let request = queue(&authority, QueueState::Waiting).await.remove(0);
    if authority.settings().database.file().is_none() {
        return;
    }
    let now = UnixTime(SystemClock.unix_seconds());
    let out = site.folder.path().join("backup");
    backup::create(&site.settings, &out, now).unwrap();
    // What happens to it afterwards the backup does not know.
    authority.approve_requests(&shown(&request), &approver("alice")).await.unwrap();
    authority.enrol(&asked).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let settings = fixture::settings(folder.path(), ONE, "");
    let other = Site { settings, folder, outcome: site.outcome.clone(), log: site.log.clone() };
    let restored = backup::restore(&other.settings, &out, now).unwrap();
    assert_eq!(restored.ended_requests, 1);
    let authority = other.open().await;
    assert_eq!(refusal(authority.enrol(&asked).await), "request_ended");
    let late = authority.approve_requests(&shown(&request), &approver("alice")).await;
    assert_eq!(refusal(late), "request_closed");
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

/// A policy that is taken back does not free what was asked for under it.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_stays_one_when_approval_is_not_needed_any_more() {
    let mut site = Site::with(ONE).await;
    let authority = site.open().await;
    let asked = ask(&authority, "dev@example.com", "r1").await;
    assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
    drop(authority);
    site.settings.config.enrolment.token_approvals = 0;
    let authority = site.open().await;
    assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
    let request = queue(&authority, QueueState::Waiting).await.remove(0);
    authority.approve_requests(&shown(&request), &approver("alice")).await.unwrap();
    let issued = authority.enrol(&asked).await.unwrap();
    assert_eq!(authority.enrol(&asked).await.unwrap().serial, issued.serial);
    // Others need nobody now.
    authority.enrol(&ask(&authority, "free@example.com", "r2").await).await.unwrap();
    check_ca(&authority).await;
}
