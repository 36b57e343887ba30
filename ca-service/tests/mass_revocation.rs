//! Revoking many: what is planned, confirmed and approved is what happens, and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;

use ca_api::{
    CertificateState, DatedStatus, ListQuery, PlanRevocations, RevocationReason, RevocationSelection,
    RevokeMany, StatusQuery,
};
use ca_service::CaError;
use ca_service::approval::{Intent, PAYLOAD_TYPE, Statement};
use ca_service::enrolment_token;
use ca_service::issuance::AuthorisedRequest;
use ca_service::mass_revocation::Order;
use ca_service::reconciler::Reach;
use ca_service::storage::Open;
use fixture::faults::{Fault, FaultyStore};
use fixture::{Server, Site, authorised, enrol_request, key};
use hsm::developer::DeveloperKey;
use hsm::{IntentId, KeyAlgorithm, Purpose, Signer as _, SigningIntent};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};
use trust_store::dsse::Envelope;

const IDENTITY: &str = "leaver@example.com";

async fn issue(server: &Server, email: &str) -> String {
    let token = server.token(email).await;
    server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap().serial
}

fn of_identity(reason: RevocationReason) -> PlanRevocations {
    let selection =
        RevocationSelection { identity: Some(IDENTITY.to_owned()), ..RevocationSelection::default() };
    PlanRevocations { selection, reason, compromised_at: None }
}

fn piece(order: &str, confirm: u64, after: Option<i64>, limit: u32) -> RevokeMany {
    RevokeMany { order: order.to_owned(), confirm, approvals: Vec::new(), after, limit: Some(limit) }
}

async fn states(server: &Server, identity: &str) -> Vec<CertificateState> {
    let query = ListQuery { identity: Some(identity.to_owned()), ..ListQuery::default() };
    server.admin().list(&query).await.unwrap().certificates.iter().map(|one| one.state).collect()
}

fn code<T: std::fmt::Debug>(outcome: Result<T, ca_api::client::ClientError>) -> String {
    outcome.unwrap_err().code().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_is_revoked_in_pieces_and_what_came_later_or_is_another_s_stays() {
    let site = Site::new().await;
    let server = site.serve().await;
    let mut serials = Vec::new();
    for _ in 0..5 {
        serials.push(issue(&server, IDENTITY).await);
    }
    let other = issue(&server, "stays@example.com").await;
    let admin = server.admin();
    let revoke = ca_api::Revoke { reason: RevocationReason::Superseded, compromised_at: None };
    admin.revoke(&serials[1], &revoke).await.unwrap();

    let plan = admin.plan_revocations(&of_identity(RevocationReason::PrivilegeWithdrawn)).await.unwrap();
    assert_eq!((plan.matching, plan.revoked, plan.approvals_needed), (5, 1, 0));
    assert_eq!(
        states(&server, IDENTITY).await.iter().filter(|one| **one == CertificateState::Revoked).count(),
        1
    );
    let later = issue(&server, IDENTITY).await;
    assert_eq!(code(admin.revoke_many(&piece(&plan.order, 4, None, 2)).await), "out_of_range");

    // Interrupted after the first piece, begun again, carried on.
    let first = admin.revoke_many(&piece(&plan.order, 5, None, 2)).await.unwrap();
    assert_eq!((first.revoked, first.kept), (1, 1), "what was revoked for another reason stays so");
    let again = admin.revoke_many(&piece(&plan.order, 5, None, 2)).await.unwrap();
    assert_eq!(again, first, "repeating a piece is harmless");
    let second = admin.revoke_many(&piece(&plan.order, 5, first.next, 2)).await.unwrap();
    let last = admin.revoke_many(&piece(&plan.order, 5, second.next, 2)).await.unwrap();
    assert_eq!((second.revoked, last.revoked, last.next), (2, 1, None));
    for serial in &serials {
        assert_eq!(admin.show(serial).await.unwrap().state, CertificateState::Revoked);
    }
    for serial in [&later, &other] {
        assert_ne!(admin.show(serial).await.unwrap().state, CertificateState::Revoked);
    }

    // Nobody but an administrator, and no order but one's own.
    assert_eq!(code(server.client().revoke_many(&piece(&plan.order, 5, None, 2)).await), "unauthorized");
    let altered = plan.order.replace(IDENTITY, "stays@example.com");
    assert_eq!(code(admin.revoke_many(&piece(&altered, 5, None, 2)).await), "selection_changed");
    let foreign = Order { authority: "00".repeat(32), ..Order::parse(&plan.order).unwrap() };
    let foreign = serde_json::to_string(&foreign).unwrap();
    assert_eq!(code(admin.revoke_many(&piece(&foreign, 5, None, 2)).await), "out_of_range");
    let everything = PlanRevocations {
        selection: RevocationSelection::default(),
        ..of_identity(RevocationReason::Superseded)
    };
    assert_eq!(code(admin.plan_revocations(&everything).await), "out_of_range");

    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_holds_while_certificates_are_in_flight_and_means_them_too() {
    let site = Site::new().await;
    let server = site.serve().await;
    issue(&server, IDENTITY).await;
    let authority = Arc::clone(&server.authority);
    let goes_on = authority.prepare(authorised(IDENTITY, &key())).await.unwrap();
    let late = authority.prepare(authorised(IDENTITY, &key())).await.unwrap();
    issue(&server, IDENTITY).await;
    let admin = server.admin();
    let plan = admin.plan_revocations(&of_identity(RevocationReason::PrivilegeWithdrawn)).await.unwrap();
    assert_eq!(plan.matching, 4);
    authority.issue(goes_on).await.unwrap();
    let done = admin.revoke_many(&piece(&plan.order, 4, None, 1000)).await.unwrap();
    assert_eq!((done.revoked, done.kept, done.next), (3, 1, None));
    let refused = authority.issue(late).await;
    assert!(matches!(refused, Err(CaError::IssuanceFailed)), "{refused:?}");
    // What was never signed changes nothing about the number, nor about the other certificates of a piece.
    let again = admin.revoke_many(&piece(&plan.order, 4, None, 1000)).await.unwrap();
    assert_eq!(again, done);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_order_ends_before_it_was_signed_gives_no_token_back() {
    let site = Site::new().await;
    let server = site.serve().await;
    let authority = Arc::clone(&server.authority);
    let token = server.token(IDENTITY).await.token;
    let hash = enrolment_token::hash(&token);
    let asked = AuthorisedRequest {
        token: Some(hash),
        requester: format!("token:{}", hex::encode(hash)),
        ..authorised(IDENTITY, &key())
    };
    let in_flight = authority.prepare(asked).await.unwrap();
    let admin = server.admin();
    let plan = admin.plan_revocations(&of_identity(RevocationReason::KeyCompromise)).await.unwrap();
    let done = admin.revoke_many(&piece(&plan.order, 1, None, 1000)).await.unwrap();
    assert_eq!((done.revoked, done.kept), (0, 1));
    assert!(matches!(authority.issue(in_flight).await, Err(CaError::IssuanceFailed)));
    let again = server.client().enrol(&enrol_request(&token, &key(), None)).await;
    assert_eq!(code(again), "token_used");
    let trail = authority.store().audit_records(0, 1000).await.unwrap();
    let ended = trail.iter().find(|record| record.event == "certificate.abandoned").unwrap();
    let ordered = trail.iter().find(|record| record.event == "revocation.ordered").unwrap();
    assert_eq!(ended.actor, ordered.actor);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_counted_once_and_not_for_every_piece() {
    let site = Site::new().await;
    let store = Arc::new(FaultyStore::new(site.store().await));
    let server = Server::start(site.open_with(store.clone(), Arc::new(SystemClock)).await).await;
    for _ in 0..3 {
        issue(&server, IDENTITY).await;
    }
    let admin = server.admin();
    let plan = admin.plan_revocations(&of_identity(RevocationReason::Superseded)).await.unwrap();
    let mut done = admin.revoke_many(&piece(&plan.order, 3, None, 1)).await.unwrap();
    store.arm("count_selected", Fault::Before);
    while let Some(next) = done.next {
        done = admin.revoke_many(&piece(&plan.order, 3, Some(next), 1)).await.unwrap();
    }
    assert!(store.is_armed());
    assert!(states(&server, IDENTITY).await.iter().all(|state| *state == CertificateState::Revoked));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_an_order_by_hand_gives_himself_no_more_than_a_plan_does() {
    let site = Site::new().await;
    let server = site.serve().await;
    issue(&server, IDENTITY).await;
    let admin = server.admin();
    let plan = admin.plan_revocations(&of_identity(RevocationReason::KeyCompromise)).await.unwrap();
    let order = Order::parse(&plan.order).unwrap();
    let tomorrow = SystemClock.unix_seconds() + 86_400;
    for written in [
        Order { void_at: order.void_at + 60, ..order.clone() },
        Order { void_at: i64::MAX, ..order.clone() },
        Order { compromised_at: Some(tomorrow), ..order.clone() },
    ] {
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(code(admin.revoke_many(&piece(&text, 1, None, 1000)).await), "out_of_range");
    }
    let trail = server.authority.store().audit_records(0, 1000).await.unwrap();
    assert!(trail.iter().all(|record| record.event != "revocation.ordered"));
    assert_eq!(admin.revoke_many(&piece(&plan.order, 1, None, 1000)).await.unwrap().revoked, 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_go_to_the_event_log_many_in_one_call() {
    let site = Site::new().await;
    let authority = site.open().await;
    for _ in 0..3 {
        let token =
            authority.create_token(&fixture::token_request(IDENTITY, "developer"), "test").await.unwrap();
        authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    }
    let plan = authority.plan_revocations(&of_identity(RevocationReason::Superseded)).await.unwrap();
    let done = authority.revoke_many(&piece(&plan.order, 3, None, 1000), "test").await.unwrap();
    assert_eq!((done.revoked, done.next), (3, None));
    site.log.set_down(true);
    assert!(authority.log_revocations().await.is_err());
    site.log.set_down(false);
    assert_eq!(authority.log_revocations().await.unwrap(), 3);
    assert_eq!(*site.log.batches.lock().unwrap(), [3]);
    assert_eq!(authority.log_revocations().await.unwrap(), 0);
    fixture::check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compromise_dates_each_from_its_own_validity_and_a_date_can_be_asked_about() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let server = Server::start(site.open_with(site.store().await, clock.clone()).await).await;
    let serial = issue(&server, IDENTITY).await;
    let admin = server.admin();
    let record = admin.show(&serial).await.unwrap();
    clock.advance(std::time::Duration::from_secs(5));
    let long_ago =
        PlanRevocations { compromised_at: Some(1_000), ..of_identity(RevocationReason::KeyCompromise) };
    let plan = admin.plan_revocations(&long_ago).await.unwrap();
    admin.revoke_many(&piece(&plan.order, 1, None, 1000)).await.unwrap();
    let revoked = admin.show(&serial).await.unwrap().revocation.unwrap();
    assert_eq!(revoked.revoked_at, record.not_before);
    let on = |at| {
        let (admin, serial) = (admin.clone(), serial.clone());
        async move { admin.status_on(&serial, &StatusQuery { at }).await.unwrap().status }
    };
    assert_eq!(on(record.not_before - 1).await, DatedStatus::NotYetValid);
    let reason = RevocationReason::KeyCompromise;
    assert_eq!(on(record.not_before).await, DatedStatus::Revoked { revoked_at: record.not_before, reason });
    let unrevoked = issue(&server, "other@example.com").await;
    let record = admin.show(&unrevoked).await.unwrap();
    let on = async |at| admin.status_on(&unrevoked, &StatusQuery { at }).await;
    assert_eq!(on(record.not_before).await.unwrap().status, DatedStatus::Good);
    assert_eq!(code(on(record.not_after).await), "out_of_range", "nobody knows the future");
    assert_eq!(code(admin.status_on("0102", &StatusQuery { at: 0 }).await), "certificate_unknown");
    // A void order is not carried out.
    let plan = admin.plan_revocations(&of_identity(reason)).await.unwrap();
    clock.advance(std::time::Duration::from_secs(8 * 86_400));
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    assert_eq!(code(admin.revoke_many(&piece(&plan.order, 1, None, 1)).await), "out_of_range");
    let _ = server.authority.reconcile(Reach::Everything).await;
    assert!(
        server
            .authority
            .store()
            .open_issuances(Open::Here, ca_pki::UnixTime(i64::MAX), 9)
            .await
            .unwrap()
            .is_empty()
    );
    clock.advance(std::time::Duration::from_secs(400 * 86_400));
    assert_eq!(on(record.not_after + 1).await.unwrap().status, DatedStatus::Expired);
    server.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_configured_number_needs_the_quorum_over_these_very_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let keys =
        [KeyAlgorithm::Ed25519, KeyAlgorithm::EcdsaP256].map(|kind| DeveloperKey::generate(kind).unwrap());
    let mut approvals = "\n[approvals]\nthreshold = 2\nrevocations_above = 1\n".to_owned();
    for (name, key) in ["alice", "bob"].into_iter().zip(&keys) {
        let path = folder.path().join(name);
        std::fs::write(&path, key.public_key().to_pem()).unwrap();
        approvals.push_str(&format!(
            "[[approvals.approvers]]\nname = \"{name}\"\npublic_key_file = \"{}\"\n",
            path.display()
        ));
    }
    // The founding ceremony of this site was held without a quorum.
    let founded = fixture::settings(folder.path(), "", "");
    let with = fixture::settings(folder.path(), &approvals, "");
    let mut site = Site::with_settings(folder, founded).await;
    site.settings = with;
    let server = site.serve().await;
    for _ in 0..2 {
        issue(&server, IDENTITY).await;
    }
    let admin = server.admin();
    let plan = admin.plan_revocations(&of_identity(RevocationReason::CessationOfOperation)).await.unwrap();
    assert_eq!((plan.matching, plan.approvals_needed), (2, 2));
    let paper = |who: usize, name: &str, order: &str| {
        let statement = Statement::of(Intent::Revocation, order.as_bytes(), name, 7);
        let (signed, payload) = statement.to_be_signed().unwrap();
        let intent = SigningIntent::new(Purpose::Statement, IntentId::new(&[1; 16]).unwrap());
        let signature = keys[who].sign_message(&signed, &intent).unwrap();
        serde_json::to_string(&Envelope::new(PAYLOAD_TYPE, payload, signature.into_vec())).unwrap()
    };
    let (alice, bob) = (paper(0, "alice", &plan.order), paper(1, "bob", &plan.order));
    let other = admin.plan_revocations(&of_identity(RevocationReason::Superseded)).await.unwrap();
    for (approvals, refusal) in [
        (vec![], "quorum_missing"),
        (vec![alice.clone()], "quorum_missing"),
        (vec![alice.clone(), alice.clone()], "quorum_missing"),
        (vec![alice.clone(), paper(1, "bob", &other.order)], "approval_of_other_intent"),
        (vec![alice.clone(), paper(0, "bob", &plan.order)], "approval_signature_invalid"),
    ] {
        let asked = RevokeMany { approvals, ..piece(&plan.order, 2, None, 1000) };
        assert_eq!(code(admin.revoke_many(&asked).await), refusal);
    }
    assert!(states(&server, IDENTITY).await.iter().all(|state| *state != CertificateState::Revoked));
    let asked = RevokeMany { approvals: vec![bob, alice], ..piece(&plan.order, 2, None, 1000) };
    assert_eq!(admin.revoke_many(&asked).await.unwrap().revoked, 2);
    let trail = server.authority.store().audit_records(0, 1000).await.unwrap();
    let ordered = trail.iter().find(|record| record.event == "revocation.ordered").unwrap();
    assert!(ordered.detail.contains("alice") && ordered.detail.contains("bob"), "{}", ordered.detail);

    // What came of a certificate by renewal counts, also where it came after the plan.
    let (own, new) = (key(), key());
    let token = server.token("renews@example.com").await;
    let issued = server.client().enrol(&enrol_request(&token.token, &own, None)).await.unwrap();
    let record = admin.show(&issued.serial).await.unwrap();
    let selection =
        RevocationSelection { spki_sha256: Some(record.spki_sha256), ..RevocationSelection::default() };
    let asked = PlanRevocations { selection, reason: RevocationReason::KeyCompromise, compromised_at: None };
    let plan = admin.plan_revocations(&asked).await.unwrap();
    assert_eq!((plan.matching, plan.renewed, plan.approvals_needed), (1, 0, 0));
    let of = (&own, issued.serial.as_str(), issued.certificate.as_str());
    server.client().renew(&fixture::renewal(&server.authority, of, &new, "a")).await.unwrap();
    assert_eq!(code(admin.revoke_many(&piece(&plan.order, 1, None, 1)).await), "quorum_missing");
    let plan = admin.plan_revocations(&asked).await.unwrap();
    assert_eq!((plan.matching, plan.renewed, plan.approvals_needed), (1, 1, 2));
    assert!(admin.show(&issued.serial).await.unwrap().revocation.is_none());

    // So does what has the same key.
    let shared = key();
    for who in ["one@example.com", "two@example.com"] {
        let token = server.token(who).await;
        server.client().enrol(&enrol_request(&token.token, &shared, None)).await.unwrap();
    }
    let selection = RevocationSelection {
        identity: Some("one@example.com".to_owned()),
        ..RevocationSelection::default()
    };
    for (reason, same_key, approvals_needed) in
        [(RevocationReason::KeyCompromise, 1, 2), (RevocationReason::PrivilegeWithdrawn, 0, 0)]
    {
        let asked = PlanRevocations { selection: selection.clone(), reason, compromised_at: None };
        let plan = admin.plan_revocations(&asked).await.unwrap();
        assert_eq!((plan.matching, plan.same_key, plan.approvals_needed), (1, same_key, approvals_needed));
    }
    server.finish().await;
}
