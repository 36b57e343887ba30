//! Every storage call of an issuance fails once, or the process dies there: afterwards the state is closed and provable.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;
use std::time::Duration;

use ca_api::{Enrol, PlanRevocations, RevocationSelection, RevokeMany};
use ca_pki::crl::RevocationReason;
use ca_service::CaError;
use ca_service::reconciler::Reach;
use ca_service::storage::{CertificateStore as _, Search, State, Step, StoreError, StoredCertificate};
use fixture::faults::{Fault, FaultyStore, ISSUANCE_POINTS};
use fixture::{Site, authorised, check_ca, enrol_request, key, token_request};
use service::SystemClock;
use service::clock::TestClock;

async fn subscribers(authority: &ca_service::CertificateAuthority) -> Vec<StoredCertificate> {
    let all = authority.store().search(Search { limit: 1000, ..Search::default() }).await.unwrap();
    all.into_iter().filter(|record| record.identity.is_some()).collect()
}

/// Where the reconciler leaves an issuance that failed at a point (ca-requirements §4).
fn expected(point: &str, fault: Fault) -> &'static [State] {
    let done = matches!(fault, Fault::After | Fault::CrashAfter);
    match (point, done) {
        ("record_intent" | "begin_issuance", false) => &[],
        ("record_intent", true) | ("begin_signing", false) => &[State::Abandoned],
        ("begin_issuance" | "begin_signing", true) | ("record_precertificate", false) => {
            &[State::MaybeIssued]
        }
        ("record_precertificate", true) | ("begin_certificate", false) => &[State::Delivered],
        ("begin_certificate", true) | ("record_signed", false) => &[State::MaybeIssued],
        _ => &[State::Delivered],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_issuance_is_closed_after_a_failure_at_any_step() {
    let site = Site::new().await;
    for point in ISSUANCE_POINTS {
        for fault in Fault::ALL {
            let store = Arc::new(FaultyStore::new(site.store().await));
            let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
            let before = subscribers(&authority).await.len();
            let token =
                authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
            let (key, id) = (key(), format!("{point}-{fault:?}").replace('_', "-"));
            let asked = enrol_request(&token.token, &key, Some(&id));
            store.arm(point, fault);
            // The last one is written behind the answer.
            let behind = point == "mark_delivered";
            let attempt = tokio::select! {
                outcome = authority.enrol(&asked) => Some(outcome),
                () = store.crashed.notified(), if !behind => None,
            };
            for _ in 0..200 {
                if !store.is_armed() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(!store.is_armed(), "{point} was never called");
            match fault {
                _ if behind => assert!(matches!(attempt, Some(Ok(_))), "{point} {fault:?}"),
                Fault::Before | Fault::After | Fault::Full => {
                    assert!(matches!(attempt, Some(Err(CaError::Store(_)))), "{point} {fault:?}");
                }
                Fault::CrashBefore | Fault::CrashAfter => assert!(attempt.is_none(), "{point} {fault:?}"),
            }
            drop(authority);

            // The restart.
            let authority = site.open().await;
            authority.reconcile_local(Reach::Everything).await.unwrap();
            authority.reconcile(Reach::Everything).await.unwrap();
            let all = subscribers(&authority).await;
            let new: Vec<State> = all.iter().take(all.len() - before).map(|record| record.state).collect();
            assert_eq!(new, expected(point, fault), "{point} {fault:?}");
            let idle = authority.reconcile(Reach::Everything).await.unwrap();
            assert_eq!(idle, ca_service::reconciler::Reconciled::default(), "{point} {fault:?}");
            check_ca(&authority).await;

            // The requester comes back with the same request.
            let retried = authority.enrol(&asked).await;
            match new.first() {
                // What was abandoned used nothing up.
                None | Some(State::Delivered | State::Abandoned) => {
                    assert!(retried.is_ok(), "{point} {fault:?}: {retried:?}");
                }
                Some(_) => assert!(matches!(retried, Err(CaError::IssuanceFailed)), "{point} {fault:?}"),
            }
            // Whatever may have been signed can be revoked by its serial number, and never answers good.
            if let Some(record) = all.first().filter(|_| new.first() == Some(&State::MaybeIssued)) {
                let reason = RevocationReason::KeyCompromise;
                authority.revoke(&record.serial, reason, None, "test").await.unwrap();
            }
        }
    }
    let authority = site.open().await;
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
    let serials: std::collections::BTreeSet<_> =
        subscribers(&authority).await.into_iter().map(|record| record.serial).collect();
    assert_eq!(serials.len(), subscribers(&authority).await.len(), "no serial number twice");
}

/// What is logged after its signature may be delivered once the log has it, which its record says later than the answer did.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_found_while_its_delivery_is_noted_and_where_that_fails() {
    let site = Site::new().await;
    for fault in [Fault::CrashBefore, Fault::Before, Fault::After] {
        let store = Arc::new(FaultyStore::new(site.store().await));
        let server = fixture::Server::start(site.open_with(store.clone(), Arc::new(SystemClock)).await).await;
        let wanted = token_request("dev@example.com", "unlogged");
        let token = server.authority.create_token(&wanted, "test").await.unwrap();
        let asked = enrol_request(&token.token, &key(), Some("once"));
        store.arm("mark_delivered", fault);
        let issued = server.authority.enrol(&asked).await.unwrap();
        while store.is_armed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let record = server.authority.store().certificate(&issued.serial).await.unwrap().unwrap();
        let key = hex::encode(record.spki_sha256);
        let found = server.client().certificate_of_key(&key).await.unwrap();
        assert_eq!(found.serial, issued.serial.to_string(), "{fault:?}");
        let repeated = server.authority.enrol(&asked).await.unwrap();
        assert_eq!((repeated.serial, repeated.log_index), (issued.serial, issued.log_index), "{fault:?}");
        server.serving.stop().await;
    }
    let authority = site.open().await;
    authority.reconcile(Reach::Everything).await.unwrap();
    assert!(subscribers(&authority).await.iter().all(|record| record.state == State::Delivered));
    check_ca(&authority).await;
}

/// Of a half-issued certificate the key is known as well: an order for the key ends it, and so does the revocation of another certificate of
/// the key.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_issued_certificate_is_revoked_by_its_key() {
    let site = Site::new().await;
    for (point, fault) in [
        ("begin_issuance", Fault::After),
        ("record_precertificate", Fault::Before),
        ("begin_certificate", Fault::After),
        ("record_signed", Fault::Before),
    ] {
        for by_order in [true, false] {
            let at = format!("{fault:?} at {point}");
            let store = Arc::new(FaultyStore::new(site.store().await));
            let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
            let stolen = key();
            let whole = if by_order {
                None
            } else {
                let decided = authority.prepare(authorised("pipeline@example.com", &stolen)).await;
                Some(authority.issue(decided.unwrap()).await.unwrap())
            };
            let token =
                authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
            store.arm(point, fault);
            assert!(authority.enrol(&enrol_request(&token.token, &stolen, None)).await.is_err(), "{at}");
            drop(authority);

            let authority = site.open().await;
            authority.reconcile_local(Reach::Everything).await.unwrap();
            let half = subscribers(&authority).await.swap_remove(0);
            assert_eq!(half.state, State::MaybeIssued, "{at}");
            match &whole {
                Some(whole) => {
                    let reason = RevocationReason::KeyCompromise;
                    authority.revoke(&whole.serial, reason, None, "test").await.unwrap();
                }
                None => {
                    let selection = RevocationSelection {
                        spki_sha256: Some(hex::encode(half.spki_sha256)),
                        ..RevocationSelection::default()
                    };
                    let reason = ca_api::RevocationReason::KeyCompromise;
                    let asked = PlanRevocations { selection, reason, compromised_at: None };
                    let plan = authority.plan_revocations(&asked).await.unwrap();
                    assert_eq!(plan.matching, 1, "{at}");
                    let order = RevokeMany {
                        order: plan.order,
                        confirm: 1,
                        approvals: Vec::new(),
                        after: None,
                        limit: None,
                    };
                    let done = authority.revoke_many(&order, "test").await.unwrap();
                    assert_eq!((done.revoked, done.kept), (1, 0), "{at}");
                }
            }
            let ended = authority.store().certificate(&half.serial).await.unwrap().unwrap();
            assert_eq!(ended.revocation.unwrap().reason, RevocationReason::KeyCompromise, "{at}");
            authority.publish_due().await.unwrap();
            let part = ca_service::storage::CrlPart::Shard(half.shard);
            let list = authority.published_crl("code-signing", part).unwrap();
            let list = trust_store::crl::Crl::from_der(&list.der).unwrap();
            assert!(list.entry(half.serial.as_bytes(), list.issuer_name()).is_some(), "{at}");
            check_ca(&authority).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuance_of_two_calls_is_closed_after_a_failure_of_either() {
    let site = Site::new().await;
    for point in ["record_intent", "begin_signing"] {
        for fault in Fault::ALL {
            let store = Arc::new(FaultyStore::new(site.store().await));
            let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
            let before = subscribers(&authority).await.len();
            store.arm(point, fault);
            let both = async {
                let permission = authority.prepare(authorised("dev@example.com", &key())).await?;
                authority.issue(permission).await
            };
            let attempt = tokio::select! {
                outcome = both => Some(outcome),
                () = store.crashed.notified() => None,
            };
            assert!(!store.is_armed(), "{point} was never called");
            assert!(matches!(attempt, None | Some(Err(CaError::Store(_)))), "{point} {fault:?}: {attempt:?}");
            drop(authority);

            let authority = site.open().await;
            authority.reconcile_local(Reach::Everything).await.unwrap();
            let all = subscribers(&authority).await;
            let new: Vec<State> = all.iter().take(all.len() - before).map(|record| record.state).collect();
            assert_eq!(new, expected(point, fault), "{point} {fault:?}");
            check_ca(&authority).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_open_is_closed_at_once_and_what_is_in_flight_is_not() {
    let site = Site::new().await;
    let begun = |authority: std::sync::Arc<ca_service::CertificateAuthority>, id: &'static str| async move {
        let token =
            authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
        let asked = enrol_request(&token.token, &key(), Some(id));
        assert!(matches!(authority.enrol(&asked).await, Err(CaError::Log(_))));
        asked
    };
    let authority = site.open().await;
    site.log.set_down(true);
    let before = begun(authority.clone(), "before").await;
    drop(authority);

    // The restart, within the second of the record.
    let authority = site.open().await;
    let leftovers = authority.leftovers().await.unwrap();
    let after = begun(authority.clone(), "after").await;
    site.log.set_down(false);
    assert_eq!(authority.reconcile(Reach::Serving(&leftovers)).await.unwrap().finished, 1);
    authority.enrol(&before).await.unwrap();
    assert!(matches!(authority.enrol(&after).await, Err(CaError::IssuancePending)), "left to its request");
    assert_eq!(authority.reconcile(Reach::Everything).await.unwrap().finished, 1);
    authority.enrol(&after).await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_down_delays_and_one_that_lies_stops_issuance() {
    let site = Site::new().await;
    let authority = site.open().await;
    let enrol = |id: &'static str| {
        let authority = authority.clone();
        async move {
            let token =
                authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
            let asked = enrol_request(&token.token, &key(), Some(id));
            (authority.enrol(&asked).await, asked)
        }
    };
    site.log.set_down(true);
    let (outcome, asked): (_, Enrol) = enrol("down").await;
    assert!(matches!(outcome, Err(CaError::Log(_))));
    assert!(matches!(authority.enrol(&asked).await, Err(CaError::IssuancePending)));
    let waiting = authority.reconcile(Reach::Everything).await.unwrap();
    assert_eq!(waiting.waiting, 1);
    site.log.set_down(false);
    assert_eq!(authority.reconcile(Reach::Everything).await.unwrap().finished, 1);
    authority.enrol(&asked).await.unwrap();

    site.log.set_lying(true);
    let (outcome, _) = enrol("lying").await;
    assert!(matches!(outcome, Err(CaError::Pki(ca_pki::Error::SctMismatch(_)))));
    let stuck = &subscribers(&authority).await[0];
    assert_eq!((stuck.state, stuck.step), (State::Signed, Step::Precertificate));
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_precertificate_that_is_never_logged_is_given_up() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(service::clock::Clock::unix_seconds(&SystemClock)));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    site.log.set_down(true);
    let asked = enrol_request(&token.token, &key(), Some("never"));
    assert!(authority.enrol(&asked).await.is_err());
    clock.advance(Duration::from_secs(3_700));
    assert_eq!(authority.reconcile(Reach::Everything).await.unwrap().given_up, 1);
    assert!(matches!(authority.enrol(&asked).await, Err(CaError::IssuanceFailed)));
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_while_the_clock_is_in_doubt() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(service::clock::Clock::unix_seconds(&SystemClock) + 10));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    clock.set_unix_seconds(1_000_000);
    let asked = enrol_request(&token.token, &key(), None);
    assert!(matches!(authority.enrol(&asked).await, Err(CaError::Clock(_))));
    assert!(matches!(authority.publish_due().await, Err(CaError::Clock(_))));
    assert_eq!(subscribers(&authority).await.len(), 0);
    let query =
        ca_pki::timestamp::TimestampRequest::for_digest(ca_pki::timestamp::ImprintHash::Sha256, &[7; 32]);
    assert!(query.is_ok());
    let reply = authority.timestamp_digest(ca_pki::timestamp::ImprintHash::Sha256, &[7; 32]).await;
    assert_eq!(reply, ca_pki::timestamp::Failure::TimeNotAvailable.to_der());
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_list_keeps_its_number_and_the_next_one_is_higher() {
    let site = Site::new().await;
    let store = Arc::new(FaultyStore::new(site.store().await));
    let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let issued = authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    let shard = authority.store().certificate(&issued.serial).await.unwrap().unwrap().shard;
    authority.revoke(&issued.serial, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    store.arm("publish_crl", Fault::Before);
    assert!(authority.publish_due().await.is_err());
    drop(authority);
    let authority = site.open().await;
    assert!(authority.publish_due().await.unwrap() >= 1);
    let part = ca_service::storage::CrlPart::Shard(shard);
    let published = authority.published_crl("code-signing", part).unwrap();
    let crl = trust_store::crl::Crl::from_der(&published.der).unwrap();
    assert!(crl.entry(issued.serial.as_bytes(), crl.issuer_name()).is_some());
    assert!(published.number >= 2);
    check_ca(&authority).await;
}

/// What ends with revoked certificates and cannot be gone on with holds up no issuance.
#[tokio::test(flavor = "multi_thread")]
async fn an_issuance_is_closed_although_what_is_due_of_revocations_fails() {
    let site = Site::new().await;
    let store = Arc::new(FaultyStore::new(site.store().await));
    let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
    let _never_signed = authority.prepare(authorised("dev@example.com", &key())).await.unwrap();
    store.arm("end_renewals", Fault::Before);
    let failed = authority.reconcile(Reach::Everything).await;
    assert!(matches!(failed, Err(CaError::Store(_))), "{failed:?}");
    assert_eq!(subscribers(&authority).await[0].state, State::Abandoned);
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_has_its_own_code_and_readiness_follows_the_last_write() {
    let site = Site::new().await;
    let store = Arc::new(FaultyStore::new(site.store().await));
    let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
    let server = fixture::Server::start(authority).await;
    let ready = async || {
        let answer = server.http.get(format!("{}/readyz", server.base)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ready().await.0, 200);
    store.arm("create_token", Fault::Full);
    let asked = server.http.post(format!("{}/api/v1/tokens", server.base)).bearer_auth(fixture::ADMIN);
    let refused = asked.json(&token_request("dev@example.com", "developer")).send().await.unwrap();
    assert_eq!(refused.status(), 507);
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "storage_full");
    assert!(problem["detail"].as_str().unwrap().contains("disk is full"), "{problem}");
    assert!(!problem.to_string().contains("injected"), "{problem}");
    let (status, text) = ready().await;
    assert!(status == 503 && text.contains("disk of the database is full"), "{status} {text}");
    // Nobody writes any more, and still it finds out that it can.
    for _ in 0..600 {
        if ready().await.0 == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the CA never became ready again: {:?}", ready().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_successor_could_contradict_is_not_begun_and_costs_nobody_a_token() {
    let site = Site::new().await;
    let store = Arc::new(FaultyStore::new(site.store().await));
    let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let request = enrol_request(&token.token, &key(), None);
    let prepared = authority.prepare(authorised("dev@example.com", &key())).await.unwrap();
    store.say_failed(StoreError::SuccessorUnknown);
    store.forget_calls();
    let unknown = |outcome: Result<_, CaError>| {
        matches!(outcome.unwrap_err(), CaError::Store(StoreError::SuccessorUnknown))
    };
    assert!(unknown(authority.enrol(&request).await));
    assert!(unknown(authority.issue(prepared).await));
    let calls = store.calls();
    for call in ["begin_issuance", "begin_signing", "undo_signing"] {
        assert!(!calls.contains(&call), "{calls:?}");
    }
    store.probe().await.unwrap();
    authority.enrol(&request).await.unwrap();
    authority.reconcile_local(Reach::Everything).await.unwrap();
    check_ca(&authority).await;
}
