//! Every storage call of a revocation fails once, or the process dies there: from the order to the lists and the event log. Afterwards
//! everybody is told of what was acknowledged, each list has a number of its own, and repeating the order is harmless.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_pki::crl::RevocationReason;
use ca_service::reconciler::Reach;
use ca_service::storage::{CrlPart, State};
use ca_service::{CaError, CertificateAuthority};
use fixture::faults::{Fault, FaultyStore};
use fixture::own::{Own, revocation};
use fixture::{Site, check_ca, ocsp_request};
use service::SystemClock;
use trust_store::crl::Crl;
use trust_store::ocsp::{CertificateStatus, OcspResponse};

/// Calls that change something; of others it is all the same on which side of them a failure is.
const CHANGES: [&str; 6] =
    ["revoke", "end_renewals", "end_keys", "start_crl", "publish_crl", "record_revocation_logged"];

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
    let own = Own::enrolled(authority, "dev@example.com").await;
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
