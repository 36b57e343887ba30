//! Every storage call of a revocation fails once, or the process dies there: from the order to the lists and the event log. Afterwards
//! everybody is told of what was acknowledged, each list has a number of its own, and repeating the order is harmless.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_api::{PlanRevocations, RevocationSelection, RevokeMany};
use ca_pki::SerialNumber;
use ca_pki::crl::RevocationReason;
use ca_service::reconciler::Reach;
use ca_service::storage::{CrlPart, Search, State};
use ca_service::{CaError, CertificateAuthority};
use fixture::faults::{Fault, FaultyStore};
use fixture::own::{Own, revocation};
use fixture::{Site, authorised, check_ca, key, ocsp_request};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};
use trust_store::crl::Crl;
use trust_store::ocsp::{CertificateStatus, OcspResponse};

/// Calls that change something; of others it is all the same on which side of them a failure is.
const CHANGES: [&str; 6] =
    ["revoke", "end_renewals", "end_keys", "start_crl", "publish_crl", "record_revocation_logged"];

/// The same of an order to revoke many.
const CHANGES_BY_ORDER: [&str; 6] = ["audit", "end_requests", "revoke", "end", "end_renewals", "end_keys"];

/// Revokes a certificate and tells everybody.
async fn whole(
    authority: &Arc<CertificateAuthority>,
    own: &Own,
    acknowledged: &AtomicBool,
) -> Result<(), CaError> {
    authority.revoke(&own.issued.serial, RevocationReason::KeyCompromise, None, "test").await?;
    acknowledged.store(true, Ordering::SeqCst);
    tell(authority).await
}

async fn tell(authority: &Arc<CertificateAuthority>) -> Result<(), CaError> {
    authority.publish_due().await?;
    while authority.log_revocations().await? > 0 {}
    Ok(())
}

/// A certificate of which nothing is left to be written.
async fn delivered(authority: &Arc<CertificateAuthority>) -> Own {
    settled(authority, Own::enrolled(authority, "dev@example.com").await).await
}

async fn settled(authority: &Arc<CertificateAuthority>, own: Own) -> Own {
    for _ in 0..500 {
        let record = authority.store().certificate(&own.issued.serial).await.unwrap().unwrap();
        if record.state == State::Delivered {
            return own;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it was never delivered");
}

async fn is_good(authority: &CertificateAuthority, own: &Own) -> bool {
    let answer = authority.ocsp(&ocsp_request(&own.issued.chain[0], &own.issued.serial), None).await;
    let response = OcspResponse::from_der(&answer.der).unwrap();
    matches!(response.responses()[0].status(), CertificateStatus::Good)
}

/// The number of each list of the issuing CA, and whether it has a certificate.
fn lists(authority: &CertificateAuthority, own: &Own) -> BTreeMap<CrlPart, (u64, bool)> {
    let parts = (0..4).map(|shard| CrlPart::Shard(ca_pki::serial::Shard(shard)));
    let parts = parts.chain([CrlPart::Complete, CrlPart::Delta]);
    let seen = parts.filter_map(|part| {
        let published = authority.published_crl("code-signing", part)?;
        let list = Crl::from_der(&published.der).unwrap();
        let listed = list.entry(own.issued.serial.as_bytes(), list.issuer_name()).is_some();
        Some((part, (published.number, listed)))
    });
    seen.collect()
}

/// What the event log has about a certificate.
fn statements(site: &Site, own: &Own) -> Vec<Vec<u8>> {
    let about = own.issued.serial.to_string();
    let payloads = site
        .log
        .events()
        .into_iter()
        .map(|event| STANDARD.decode(event["payload"].as_str().unwrap()).unwrap());
    payloads.filter(|payload| String::from_utf8_lossy(payload).contains(&about)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_told_of_a_revocation_finds_it_everywhere_after_a_failure_at_any_call() {
    let site = Site::new().await;
    let opened = async || {
        let store = Arc::new(FaultyStore::new(site.store().await));
        (site.open_with(store.clone(), Arc::new(SystemClock)).await, store)
    };
    let (authority, store) = opened().await;
    tell(&authority).await.unwrap();
    let own = delivered(&authority).await;
    store.forget_calls();
    whole(&authority, &own, &AtomicBool::default()).await.unwrap();
    let calls = store.calls();
    drop(authority);
    for change in CHANGES {
        assert!(calls.contains(&change), "{change}: {calls:?}");
    }
    // The shard, the complete list and the delta to it.
    assert_eq!(calls.iter().filter(|call| **call == "publish_crl").count(), 3, "{calls:?}");
    let revoked_by = calls.iter().position(|call| *call == "revoke").unwrap();

    for (number, call) in calls.iter().enumerate() {
        for fault in Fault::ALL {
            let happened = matches!(fault, Fault::After | Fault::CrashAfter);
            if happened && !CHANGES.contains(call) {
                continue;
            }
            let at = format!("{fault:?} at call {number}, {call}");
            let (authority, store) = opened().await;
            let own = delivered(&authority).await;
            let before = lists(&authority, &own);
            let acknowledged = AtomicBool::default();
            store.forget_calls();
            store.arm_after(number, fault);
            tokio::select! {
                outcome = whole(&authority, &own, &acknowledged) => assert!(outcome.is_err(), "{at}"),
                () = store.crashed.notified() => {}
            }
            assert!(!store.is_armed(), "{at}: it never came");
            // Of two lists that are due, either may come first.
            let call = store.calls()[number];
            drop(authority);

            // The restart.
            let authority = site.open().await;
            authority.reconcile_local(Reach::Everything).await.unwrap();
            tell(&authority).await.unwrap();
            let recorded = number > revoked_by || number == revoked_by && happened;
            let acknowledged = acknowledged.into_inner();
            assert!(recorded || !acknowledged, "{at}");
            let found = revocation(&authority, &own).await;
            assert_eq!(found.is_some(), recorded, "{at}");
            assert_eq!(is_good(&authority, &own).await, !recorded, "{at}");
            let after = lists(&authority, &own);
            assert!(after.values().any(|(_, listed)| *listed) == recorded, "{at}: {after:?}");
            assert_eq!(statements(&site, &own).is_empty(), !recorded, "{at}");
            check_ca(&authority).await;

            // Repeated, it is what it was.
            whole(&authority, &own, &AtomicBool::default()).await.unwrap();
            let again = revocation(&authority, &own).await.unwrap();
            if let Some(found) = found {
                assert_eq!(found, again, "{at}");
            }
            assert!(!is_good(&authority, &own).await, "{at}");
            let shard = CrlPart::Shard(again.shard);
            let last = lists(&authority, &own);
            for part in [shard, CrlPart::Complete, CrlPart::Delta] {
                let (number, listed) = last[&part];
                assert!(listed && number > before[&part].0, "{at}: {part:?} {last:?} {before:?}");
            }
            for (part, (number, _)) in &before {
                assert!(last[part].0 >= *number, "{at}: {part:?}");
            }
            // The log is told once, and again only where the note of that was lost: of the same.
            let said = statements(&site, &own);
            let lost = call == "record_revocation_logged" && !happened;
            assert_eq!(said.len(), if lost { 2 } else { 1 }, "{at}");
            assert_eq!(said.into_iter().collect::<BTreeSet<_>>().len(), 1, "{at}");
            check_ca(&authority).await;
        }
    }
}

/// A certificate and another one in flight, which an order means, and what ends with them: another one of the key, and what came of that.
struct Meant {
    order: String,
    standing: [Own; 3],
    in_flight: SerialNumber,
}

impl Meant {
    async fn by(authority: &Arc<CertificateAuthority>, identity: &str) -> Self {
        let own = settled(authority, Own::enrolled(authority, identity).await).await;
        let other = Own::enrolled_for(authority, "pipeline@example.com", own.same_key()).await;
        let other = settled(authority, other).await;
        let clock = TestClock::at_unix_seconds(SystemClock.unix_seconds());
        let renewal = settled(authority, other.renewed(authority, &clock, "a").await.unwrap()).await;
        let _never_signed = authority.prepare(authorised(identity, &key())).await.unwrap();
        let newest = Search { limit: 1, ..Search::default() };
        let in_flight = authority.store().search(newest).await.unwrap().remove(0);
        assert_eq!(in_flight.state, State::Intent);
        let selection =
            RevocationSelection { identity: Some(identity.to_owned()), ..RevocationSelection::default() };
        let reason = ca_api::RevocationReason::KeyCompromise;
        let asked = PlanRevocations { selection, reason, compromised_at: None };
        let plan = authority.plan_revocations(&asked).await.unwrap();
        assert_eq!((plan.matching, plan.renewed, plan.same_key), (2, 1, 1));
        Self { order: plan.order, standing: [own, other, renewal], in_flight: in_flight.serial }
    }

    /// Carries the order out, one certificate at a time; how many pieces were acknowledged.
    async fn carried_out(&self, authority: &Arc<CertificateAuthority>) -> Result<usize, CaError> {
        let (mut after, mut pieces) = (None, 0);
        loop {
            let (order, approvals) = (self.order.clone(), Vec::new());
            let piece = RevokeMany { order, confirm: 4, approvals, after, limit: Some(1) };
            let done = authority.revoke_many(&piece, "test").await?;
            pieces += 1;
            match done.next {
                None => return Ok(pieces),
                next => after = next,
            }
        }
    }

    /// Records of the trail with an event, about it.
    async fn recorded(&self, authority: &CertificateAuthority, event: &str, about: &str) -> usize {
        let trail = authority.store().audit_records(0, 100_000).await.unwrap();
        trail.iter().filter(|record| record.event == event && record.detail.contains(about)).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_interrupted_at_any_call_is_carried_out_whole_by_repeating_it() {
    let site = Site::new().await;
    let opened = async || {
        let store = Arc::new(FaultyStore::new(site.store().await));
        (site.open_with(store.clone(), Arc::new(SystemClock)).await, store)
    };
    let (authority, store) = opened().await;
    let meant = Meant::by(&authority, "first@example.com").await;
    store.forget_calls();
    let pieces = meant.carried_out(&authority).await.unwrap();
    let calls = store.calls();
    assert_eq!(pieces, 3, "the last one finds nothing");
    for change in CHANGES_BY_ORDER {
        assert!(calls.contains(&change), "{change}: {calls:?}");
    }
    tell(&authority).await.unwrap();
    check_ca(&authority).await;
    drop(authority);

    let revoked_by = calls.iter().position(|call| *call == "revoke").unwrap();
    for (number, call) in calls.iter().enumerate() {
        let changes = CHANGES_BY_ORDER.contains(call);
        for fault in if changes { &Fault::ALL[..] } else { &[Fault::Before] } {
            let at = format!("{fault:?} at call {number}, {call}");
            let happened = matches!(fault, Fault::After | Fault::CrashAfter);
            // Of what was never signed the store itself refuses a revocation, and that stays its answer.
            if *call == "revoke" && number > revoked_by && happened {
                continue;
            }
            let (authority, store) = opened().await;
            let identity = format!("dev{number}-{fault:?}@example.com").to_lowercase();
            let meant = Meant::by(&authority, &identity).await;
            store.forget_calls();
            store.arm_after(number, *fault);
            tokio::select! {
                outcome = meant.carried_out(&authority) => assert!(outcome.is_err(), "{at}"),
                () = store.crashed.notified() => {}
            }
            let made = store.calls();
            assert_eq!((store.is_armed(), made[number]), (false, *call), "{at}");
            let mut ordered = made[..number].iter().filter(|made| **made == "audit").count();
            ordered += usize::from(happened && *call == "audit");
            drop(authority);

            // The restart, and the same order again, from the first piece on.
            let authority = site.open().await;
            authority.reconcile_local(Reach::Everything).await.unwrap();
            let named = &meant.standing[0];
            let before = revocation(&authority, named).await;
            let recorded = number > revoked_by || number == revoked_by && happened;
            assert_eq!(before.is_some(), recorded, "{at}");
            ordered += meant.carried_out(&authority).await.unwrap();
            assert!(before.is_none() || before == revocation(&authority, named).await, "{at}");
            for own in &meant.standing {
                let found = revocation(&authority, own).await.unwrap();
                assert_eq!(found.reason, RevocationReason::KeyCompromise, "{at}");
                let serial = own.issued.serial.to_string();
                assert_eq!(meant.recorded(&authority, "certificate.revoked", &serial).await, 1, "{at}");
                assert!(!is_good(&authority, own).await, "{at}");
            }
            let in_flight = authority.store().certificate(&meant.in_flight).await.unwrap().unwrap();
            assert_eq!((in_flight.state, in_flight.revocation), (State::Abandoned, None), "{at}");
            assert_eq!(meant.recorded(&authority, "revocation.ordered", &identity).await, ordered, "{at}");
            if changes {
                tell(&authority).await.unwrap();
                for own in &meant.standing {
                    assert!(lists(&authority, own).values().any(|(_, listed)| *listed), "{at}");
                }
                check_ca(&authority).await;
            }
        }
    }
}
