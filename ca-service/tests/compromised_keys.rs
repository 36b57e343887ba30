//! A certificate that is revoked because its key is in other hands ends every certificate of that key, whatever interrupts it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;
use std::time::Duration;

use ca_api::{PlanRevocations, RevocationSelection, RevokeMany};
use ca_pki::UnixTime;
use ca_pki::crl::RevocationReason;
use ca_service::reconciler::{Reach, Reconciled};
use ca_service::storage::{CrlPart, Search, State};
use ca_service::{CaError, CertificateAuthority, check};
use fixture::faults::{Fault, FaultyStore};
use fixture::own::{Own, revocation};
use fixture::{Site, authorised, check_ca, enrol_request, key, ocsp_request, renewal_at, token_request};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};
use trust_store::ocsp::{CertificateStatus, OcspResponse};

const DAY: i64 = 86_400;

fn clock() -> Arc<TestClock> {
    Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()))
}

fn advance(clock: &TestClock, days: u64) {
    clock.advance(Duration::from_secs(days * 86_400));
}

/// Two certificates of one key, of different people.
async fn pair(authority: &Arc<CertificateAuthority>) -> [Own; 2] {
    let first = Own::enrolled(authority, "dev@example.com").await;
    let second = Own::enrolled_for(authority, "pipeline@example.com", first.same_key()).await;
    [first, second]
}

async fn is_good(authority: &CertificateAuthority, own: &Own) -> bool {
    let answer = authority.ocsp(&ocsp_request(&own.issued.chain[0], &own.issued.serial), None).await;
    let response = OcspResponse::from_der(&answer.der).unwrap();
    matches!(response.responses()[0].status(), CertificateStatus::Good)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_standing_is_found_gets_nothing_more_and_ends_at_the_start() {
    let (site, clock) = (Site::new().await, clock());
    for point in ["revoke", "end_keys"] {
        for fault in Fault::ALL {
            let store = Arc::new(FaultyStore::new(site.store().await));
            let authority = site.open_with(store.clone(), clock.clone()).await;
            let [first, second] = pair(&authority).await;
            store.arm(point, fault);
            let revoke =
                authority.revoke(&first.issued.serial, RevocationReason::KeyCompromise, None, "test");
            let attempt = tokio::select! {
                outcome = revoke => Some(outcome),
                () = store.crashed.notified() => None,
            };
            assert!(matches!(attempt, None | Some(Err(CaError::Store(_)))), "{point} {fault:?}: {attempt:?}");
            drop(authority);

            let authority = site.open_with(site.store().await, clock.clone()).await;
            let happened = matches!(fault, Fault::After | Fault::CrashAfter);
            let (recorded, ended) = (happened || point == "end_keys", happened && point == "end_keys");
            assert_eq!(revocation(&authority, &first).await.is_some(), recorded, "{point} {fault:?}");
            assert_eq!(revocation(&authority, &second).await.is_some(), ended, "{point} {fault:?}");
            let found = check::run(&authority).await.unwrap().findings;
            let stands = found.iter().any(|one| one.contains("although its key was revoked as compromised"));
            assert_eq!(stands, recorded && !ended, "{point} {fault:?}: {found:?}");
            let token = authority.create_token(&token_request("a@example.com", "developer"), "test").await;
            let asked = enrol_request(&token.unwrap().token, &first.key, None);
            if !recorded {
                assert_eq!(
                    authority.reconcile_local(Reach::Everything).await.unwrap(),
                    Reconciled::default()
                );
                continue;
            }
            // For the key there is no other one, and the one that is left brings none forth.
            assert!(matches!(authority.enrol(&asked).await, Err(CaError::KeyCompromised)));
            let renewed = second.renewed(&authority, &clock, "a").await.err();
            assert!(matches!(renewed, Some(CaError::Possession(_))), "{point} {fault:?}: {renewed:?}");

            let done = authority.reconcile_local(Reach::Everything).await.unwrap();
            assert_eq!(done.of_keys, usize::from(!ended), "{point} {fault:?}");
            assert_eq!(
                revocation(&authority, &second).await.unwrap().reason,
                RevocationReason::KeyCompromise
            );
            assert_eq!(authority.reconcile_local(Reach::Everything).await.unwrap(), Reconciled::default());
            authority.publish_due().await.unwrap();
            check_ca(&authority).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_many_certificates_ends_whole_and_the_answer_counts_them() {
    let site = Site::new().await;
    let server = site.serve().await;
    let authority = &server.authority;
    let stolen = key();
    let mut all = Vec::new();
    for _ in 0..70 {
        let decided = authority.prepare(authorised("pipeline@example.com", &stolen)).await.unwrap();
        all.push(authority.issue(decided).await.unwrap());
    }
    let of_another = Own::enrolled(authority, "pipeline@example.com").await;
    let revoke = |reason| ca_api::Revoke { reason, compromised_at: None };
    let admin = server.admin();

    // Of the key that says nothing.
    let serial = all[0].serial.to_string();
    let answer = admin.revoke(&serial, &revoke(ca_api::RevocationReason::Superseded)).await.unwrap();
    assert_eq!(answer.same_key_revoked, None);
    let standing = async || {
        let search = Search { limit: 1000, ..Search::default() };
        let found = authority.store().search(search).await.unwrap();
        found.iter().filter(|one| one.identity.is_some() && one.state != State::Revoked).count()
    };
    assert_eq!(standing().await, 70);

    let serial = all[40].serial.to_string();
    let answer = admin.revoke(&serial, &revoke(ca_api::RevocationReason::KeyCompromise)).await.unwrap();
    assert_eq!((answer.same_key_revoked, answer.renewals_revoked), (Some(69), Some(0)));
    assert_eq!(standing().await, 1);
    assert!(is_good(authority, &of_another).await);
    authority.publish_due().await.unwrap();
    let list = authority.published_crl("code-signing", CrlPart::Complete).unwrap();
    let list = trust_store::crl::Crl::from_der(&list.der).unwrap();
    for one in &all {
        assert!(list.entry(one.serial.as_bytes(), list.issuer_name()).is_some());
    }
    let repeated = admin.revoke(&serial, &revoke(ca_api::RevocationReason::KeyCompromise)).await.unwrap();
    assert_eq!(repeated.same_key_revoked, Some(69));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_dated_from_the_compromise_on_and_takes_what_came_of_it_along() {
    let (site, clock) = (Site::new().await, clock());
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let [first, replaced] = pair(&authority).await;
    advance(&clock, 1);
    let reason = RevocationReason::Superseded;
    let replaced_at =
        authority.revoke(&replaced.issued.serial, reason, None, "test").await.unwrap().revoked_at;
    advance(&clock, 5);
    let later = Own::enrolled_for(&authority, "dev@example.com", first.same_key()).await;
    let came_of_it = later.renewed(&authority, &clock, "a").await.unwrap();
    assert!(is_good(&authority, &later).await && is_good(&authority, &came_of_it).await);
    advance(&clock, 5);

    let since = first.issued.not_before.plus(3 * DAY);
    authority
        .revoke(&first.issued.serial, RevocationReason::KeyCompromise, Some(since), "test")
        .await
        .unwrap();
    for (own, expected) in [
        (&first, since),
        // A compromise replaces another reason, and the date stays the earlier one.
        (&replaced, replaced_at),
        // Nobody could trust them before their validity.
        (&later, later.issued.not_before),
        (&came_of_it, came_of_it.issued.not_before),
    ] {
        let ended = revocation(&authority, own).await.unwrap();
        assert_eq!((ended.reason, ended.revoked_at), (RevocationReason::KeyCompromise, expected));
        assert!(!is_good(&authority, own).await);
    }
    // Learnt later: the key was lost earlier than was said.
    let earlier = since.plus(-3 * DAY);
    authority
        .revoke(&first.issued.serial, RevocationReason::KeyCompromise, Some(earlier), "test")
        .await
        .unwrap();
    assert_eq!(
        revocation(&authority, &replaced).await.unwrap().revoked_at,
        replaced.issued.not_before.max(earlier)
    );
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_date_counts_by_the_other_word_for_a_compromise_too() {
    use RevocationReason::{CaCompromise, KeyCompromise, Superseded};
    let (site, clock) = (Site::new().await, clock());
    let authority = site.open_with(site.store().await, clock.clone()).await;
    for (first_word, second_word) in [(CaCompromise, KeyCompromise), (KeyCompromise, CaCompromise)] {
        let [first, second] = pair(&authority).await;
        advance(&clock, 5);
        let serial = &first.issued.serial;
        authority.revoke(serial, first_word, None, "test").await.unwrap();
        let earlier = first.issued.not_before.plus(DAY);
        let moved = authority.revoke(serial, second_word, Some(earlier), "test").await.unwrap();
        assert_eq!((moved.reason, moved.revoked_at), (first_word, earlier), "{first_word:?}");
        assert_eq!(revocation(&authority, &second).await.unwrap().revoked_at, earlier, "{first_word:?}");
        let other = authority.revoke(serial, Superseded, Some(earlier), "test").await;
        assert!(matches!(other, Err(CaError::RevokedForAnotherReason)), "{other:?}");
    }
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_holder_ends_every_certificate_of_the_key_and_no_renewal_that_the_key_could_not_make() {
    let (site, clock) = (Site::new().await, clock());
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let old = Own::enrolled(&authority, "dev@example.com").await;
    let of_old = old.renewed(&authority, &clock, "a").await.unwrap();
    advance(&clock, 360);
    let new = Own::enrolled_for(&authority, "dev@example.com", old.same_key()).await;
    advance(&clock, 20);
    let of_new = new.renewed(&authority, &clock, "a").await.unwrap();
    assert!(old.issued.not_after.0 < clock.unix_seconds(), "the first has ended");

    let since = new.issued.not_before.plus(DAY);
    old.given_up(&authority, &clock, Some(since.0)).await;
    assert_eq!(revocation(&authority, &new).await.unwrap().revoked_at, since);
    assert_eq!(revocation(&authority, &of_new).await.unwrap().revoked_at, UnixTime(clock.unix_seconds()));
    assert!(revocation(&authority, &of_old).await.is_none());
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_an_old_key_ends_what_came_of_it_and_nothing_else_of_the_keys_of_that() {
    let (site, clock) = (Site::new().await, clock());
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let old = Own::enrolled(&authority, "dev@example.com").await;
    let new = old.renewed(&authority, &clock, "a").await.unwrap();
    let newest = new.renewed(&authority, &clock, "a").await.unwrap();
    // The keys of the renewals have certificates of others, too, and those were renewed.
    let pipeline = Own::enrolled_for(&authority, "pipeline@example.com", new.same_key()).await;
    let of_pipeline = pipeline.renewed(&authority, &clock, "a").await.unwrap();
    let other = Own::enrolled_for(&authority, "other@example.com", newest.same_key()).await;

    let reason = async |own: &Own| revocation(&authority, own).await.map(|it| it.reason);
    old.given_up(&authority, &clock, None).await;
    assert_eq!(reason(&old).await, Some(RevocationReason::KeyCompromise));
    for renewal in [&new, &newest] {
        assert_eq!(reason(renewal).await, Some(RevocationReason::PrivilegeWithdrawn));
        assert!(!is_good(&authority, renewal).await);
    }
    for of_others in [&pipeline, &of_pipeline, &other] {
        assert!(is_good(&authority, of_others).await);
    }
    let again = Own::enrolled_for(&authority, "pipeline@example.com", new.same_key()).await;
    assert!(is_good(&authority, &again).await, "nothing was said of the key");
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;

    // An operator says it of everything that came of the key.
    authority.revoke(&old.issued.serial, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    for own in [&new, &newest, &pipeline, &of_pipeline, &other, &again] {
        assert_eq!(reason(own).await, Some(RevocationReason::KeyCompromise));
    }
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_counts_confirms_and_reports_what_has_the_keys_that_it_means() {
    let site = Site::new().await;
    let clock = TestClock::at_unix_seconds(SystemClock.unix_seconds());
    let server = site.serve().await;
    let (admin, authority) = (server.admin(), &server.authority);
    let [selected, other] = pair(authority).await;
    let of_other = other.renewed(authority, &clock, "a").await.unwrap();
    let third = Own::enrolled_for(authority, "dev@example.com", selected.same_key()).await;
    let asked = |reason| PlanRevocations {
        selection: RevocationSelection {
            identity: Some("dev@example.com".to_owned()),
            ..RevocationSelection::default()
        },
        reason,
        compromised_at: None,
    };
    let withdrawn =
        admin.plan_revocations(&asked(ca_api::RevocationReason::PrivilegeWithdrawn)).await.unwrap();
    assert_eq!((withdrawn.matching, withdrawn.renewed, withdrawn.same_key), (2, 0, 0));
    let plan = admin.plan_revocations(&asked(ca_api::RevocationReason::KeyCompromise)).await.unwrap();
    // What came of the other one by renewal, and each of them once.
    assert_eq!((plan.matching, plan.renewed, plan.same_key), (2, 1, 1));
    assert!(plan.order.contains("\"matching\":2,\"renewed\":1,\"same_key\":1"), "{}", plan.order);
    let piece = |confirm, after| RevokeMany {
        order: plan.order.clone(),
        confirm,
        approvals: Vec::new(),
        after,
        limit: Some(1),
    };
    let refused = admin.revoke_many(&piece(3, None)).await.unwrap_err();
    assert_eq!(refused.code(), Some("out_of_range"), "the whole number is confirmed");
    assert!(revocation(authority, &other).await.is_none());
    let first = admin.revoke_many(&piece(4, None)).await.unwrap();
    assert_eq!((first.revoked, first.renewed, first.same_key), (1, 0, 0));
    let second = admin.revoke_many(&piece(4, first.next)).await.unwrap();
    assert_eq!((second.revoked, second.renewed, second.same_key), (1, 0, 0));
    let last = admin.revoke_many(&piece(4, second.next)).await.unwrap();
    assert_eq!((last.revoked, last.renewed, last.same_key), (0, 1, 1), "all that ended beside, once");
    assert_eq!(last.next, None);
    for own in [&selected, &other, &of_other, &third] {
        assert_eq!(revocation(authority, own).await.unwrap().reason, RevocationReason::KeyCompromise);
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_counts_what_the_keys_of_renewals_have_and_so_on_to_the_last() {
    let site = Site::new().await;
    let clock = TestClock::at_unix_seconds(SystemClock.unix_seconds());
    let server = site.serve().await;
    let (admin, authority) = (server.admin(), &server.authority);
    let selected = Own::enrolled(authority, "dev@example.com").await;
    let renewal = selected.renewed(authority, &clock, "a").await.unwrap();
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(Own::enrolled_for(authority, "pipeline@example.com", renewal.same_key()).await);
    }
    let of_pipeline = all[0].renewed(authority, &clock, "a").await.unwrap();
    all.push(Own::enrolled_for(authority, "other@example.com", of_pipeline.same_key()).await);
    all.extend([renewal, of_pipeline]);
    let stays = Own::enrolled(authority, "pipeline@example.com").await;

    let key = rcgen::PublicKeyData::subject_public_key_info(&selected.key);
    let spki_sha256 = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(key));
    let asked = PlanRevocations {
        selection: RevocationSelection { spki_sha256: Some(spki_sha256), ..RevocationSelection::default() },
        reason: ca_api::RevocationReason::KeyCompromise,
        compromised_at: None,
    };
    let plan = admin.plan_revocations(&asked).await.unwrap();
    assert_eq!((plan.matching, plan.renewed, plan.same_key), (1, 2, 4));
    let piece = |confirm| RevokeMany {
        order: plan.order.clone(),
        confirm,
        approvals: Vec::new(),
        after: None,
        limit: None,
    };
    assert_eq!(admin.revoke_many(&piece(3)).await.unwrap_err().code(), Some("out_of_range"));
    let done = admin.revoke_many(&piece(7)).await.unwrap();
    assert_eq!((done.revoked, done.renewed, done.same_key), (1, 2, 4));
    for own in all.iter().chain([&selected]) {
        assert_eq!(revocation(authority, own).await.unwrap().reason, RevocationReason::KeyCompromise);
    }
    assert!(is_good(authority, &stays).await);
    server.finish().await;
}

/// Two pieces reach certificates of one key: each of them is reported once, whatever is repeated and wherever that fails.
#[tokio::test(flavor = "multi_thread")]
async fn the_pieces_of_an_order_report_together_what_its_plan_counted() {
    let (site, clock) = (Site::new().await, clock());
    let store = Arc::new(FaultyStore::new(site.store().await));
    let authority = site.open_with(store.clone(), clock.clone()).await;
    let selected = [
        Own::enrolled(&authority, "dev@example.com").await,
        Own::enrolled(&authority, "other@example.com").await,
    ];
    clock.advance(Duration::from_secs(60));
    let before = clock.unix_seconds();
    // Both are renewed with the key of one pipeline, which has a certificate of its own.
    let shared = key();
    for own in &selected {
        let (serial, certificate) = (own.issued.serial.to_string(), own.certificate());
        let old = (&own.key, serial.as_str(), certificate.as_str());
        let asked = renewal_at(&authority, old, &shared, "a", clock.unix_seconds());
        authority.renew_own(&asked, None).await.unwrap();
    }
    let pipeline = Own::enrolled_for(&authority, "pipeline@example.com", shared).await;
    let asked = PlanRevocations {
        selection: RevocationSelection { issued_before: Some(before), ..RevocationSelection::default() },
        reason: ca_api::RevocationReason::KeyCompromise,
        compromised_at: None,
    };
    let plan = authority.plan_revocations(&asked).await.unwrap();
    assert_eq!((plan.matching, plan.renewed, plan.same_key), (2, 2, 1));
    let carried_out = async || {
        let (mut after, mut ended) = (None, Vec::new());
        loop {
            let piece = RevokeMany {
                order: plan.order.clone(),
                confirm: 5,
                approvals: Vec::new(),
                after,
                limit: Some(1),
            };
            // What is asked for again after a failure comes to the same.
            store.arm("others_of_keys", Fault::Before);
            let done = match authority.revoke_many(&piece, "test").await {
                Ok(done) => done,
                Err(_) => authority.revoke_many(&piece, "test").await.unwrap(),
            };
            ended.push((done.revoked, done.renewed + done.same_key));
            after = done.next;
            if after.is_none() {
                return ended;
            }
        }
    };
    // With the first certificate ends all that has the pipeline's key, whoever renewed with it.
    for _ in 0..2 {
        assert_eq!(carried_out().await, [(1, 0), (1, 0), (0, 3)], "three in all, also when it is repeated");
    }
    assert!(revocation(&authority, &pipeline).await.is_some());
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}
