//! Requests that wait while the configuration changes: what is demanded, and what profile and authority would make of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_api::{
    DenyRequests, Enrol, PlanRevocations, RevocationReason, RevocationSelection, Revoke, RevokeMany,
};
use ca_pki::UnixTime;
use ca_pki::profile::{Profile, ProfileConfig, SubscriberRules};
use ca_service::issuance::AuthorisedRequest;
use ca_service::queue::{Proof, QueueRefusal};
use ca_service::storage::State;
use ca_service::storage::queue::QueueState;
use ca_service::{CaError, CertificateAuthority, check};
use fixture::approvers::{Office, approval};
use fixture::deciders::{approve, approver, ask, queue, refusal, shown};
use fixture::faults::{Fault, FaultyStore};
use fixture::signers::{ObedientKeys, Orders, Refusal};
use fixture::{Server, Site, authorised, check_ca, csr, enrol_request, execute, key, token_request};
use serde_json::{Value, json};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};

const DEV: &str = "dev@example.com";
const APPROVERS: &str = "[roles.approver]\nsubjects = [\"CN=alice\", \"CN=bob\", \"CN=carol\"]\n";

fn one() -> String {
    format!("[enrolment]\ntoken_approvals = 1\n{APPROVERS}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_was_raised_is_demanded_of_what_waits_and_of_what_was_approved() {
    let mut site = Site::with(&one()).await;
    let authority = site.open().await;
    let approved = ask(&authority, "approved@example.com", "r1").await;
    assert_eq!(refusal(authority.enrol(&approved).await), "awaits_approval");
    approve(&authority, &approver("alice")).await.unwrap();
    let waits = ask(&authority, "waits@example.com", "r2").await;
    assert_eq!(refusal(authority.enrol(&waits).await), "awaits_approval");
    let code = authority.create_token(&token_request("code@example.com", "developer"), "mail").await.unwrap();
    let code = enrol_request(&code.token, &key(), Some("r3"));
    drop(authority);

    site.settings.config.enrolment.profile_approvals.insert("developer".to_owned(), 2);
    let authority = site.open().await;
    let now = UnixTime(SystemClock.unix_seconds());
    let request = queue(&authority, QueueState::Approved).await.remove(0);
    let status = authority.request_status(&request, now).unwrap();
    assert_eq!((status.approvals_needed, status.approvals_given), (2, 1));
    assert_eq!(status.state, ca_api::RequestState::Waiting, "as whoever waits for it is told");
    for (asked, given) in [(&approved, 1), (&waits, 0), (&code, 0)] {
        let outcome = authority.enrol(asked).await.unwrap_err();
        let CaError::Queue(QueueRefusal::Awaiting { needed, given: found, .. }) = outcome else {
            panic!("{outcome}")
        };
        assert_eq!((needed, found), (2, given));
    }
    assert!(queue(&authority, QueueState::Approved).await.is_empty(), "it waits again");
    let trail = authority.store().audit_records(0, 1_000).await.unwrap();
    assert_eq!(trail.iter().filter(|record| record.event == "request.reopened").count(), 1);
    for request in queue(&authority, QueueState::Waiting).await {
        for name in ["alice", "bob"] {
            authority.approve_requests(&shown(&request), &approver(name)).await.unwrap();
        }
    }
    for asked in [&approved, &waits, &code] {
        authority.enrol(asked).await.unwrap();
    }
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_approves_after_the_number_was_raised_is_counted_by_the_new_one() {
    let mut site = Site::with(&one()).await;
    let authority = site.open().await;
    let asked = ask(&authority, DEV, "r1").await;
    assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
    approve(&authority, &approver("alice")).await.unwrap();
    drop(authority);
    site.settings.config.enrolment.token_approvals = 3;
    let authority = site.open().await;
    let request = queue(&authority, QueueState::Approved).await.remove(0);
    let status = authority.approve_requests(&shown(&request), &approver("bob")).await.unwrap();
    assert_eq!((status[0].approvals_needed, status[0].approvals_given), (3, 2));
    assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
    drop(authority);
    // Lowered again it has enough, and one of them says so; the number of when it was recorded is the least.
    site.settings.config.enrolment.token_approvals = 2;
    let authority = site.open().await;
    approve(&authority, &approver("bob")).await.unwrap();
    authority.enrol(&asked).await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_approve_any_more_has_approved_nothing_that_was_not_issued() {
    let mut site = Site::with(&one()).await;
    let authority = site.open().await;
    let asked = ask(&authority, DEV, "r1").await;
    assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
    approve(&authority, &approver("alice")).await.unwrap();
    drop(authority);
    site.settings.config.roles.approver.subjects.retain(|subject| subject != "CN=alice");
    let authority = site.open().await;
    assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
    let trail = authority.store().audit_records(0, 1_000).await.unwrap();
    assert!(
        trail.iter().any(|record| record.event == "request.withdrawn" && record.detail.contains("CN=alice"))
    );
    check_ca(&authority).await;
    approve(&authority, &approver("bob")).await.unwrap();
    authority.enrol(&asked).await.unwrap();
    check_ca(&authority).await;
}

/// Nobody is told that it was approved while it needs somebody else, until it is fetched in vain.
#[tokio::test(flavor = "multi_thread")]
async fn an_approval_of_somebody_who_lost_the_role_is_not_counted_by_the_next_one() {
    let mut site = Site::with(&format!("[enrolment]\ntoken_approvals = 2\n{APPROVERS}")).await;
    let authority = site.open().await;
    let asked = ask(&authority, DEV, "r1").await;
    assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
    approve(&authority, &approver("alice")).await.unwrap();
    drop(authority);
    site.settings.config.roles.approver.subjects.retain(|subject| subject != "CN=alice");
    let authority = site.open().await;
    let now = UnixTime(SystemClock.unix_seconds());
    let request = queue(&authority, QueueState::Waiting).await.remove(0);
    assert_eq!(authority.request_status(&request, now).unwrap().approvals_given, 0);
    let status = authority.approve_requests(&shown(&request), &approver("bob")).await.unwrap().remove(0);
    assert_eq!((status.state, status.approvals_given), (ca_api::RequestState::Waiting, 1));
    let trail = authority.store().audit_records(0, 1_000).await.unwrap();
    let of_queue = trail.iter().map(|record| record.event.as_str());
    let of_queue: Vec<&str> = of_queue.filter(|event| event.starts_with("request.")).collect();
    let expected = ["request.recorded", "request.approved", "request.withdrawn", "request.approved"];
    assert_eq!(of_queue, expected);
    let status = authority.approve_requests(&shown(&request), &approver("carol")).await.unwrap().remove(0);
    assert_eq!(status.state, ca_api::RequestState::Approved);
    authority.enrol(&asked).await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issuance_itself_refuses_what_nobody_approved() {
    let site =
        Site::with(&format!("[enrolment]\nprofile_approvals = {{ developer = 2 }}\n{APPROVERS}")).await;
    let authority = site.open().await;
    let outcome = authority.prepare(authorised(DEV, &key())).await;
    let refused = CaError::Queue(QueueRefusal::Unapproved { needed: 2, given: 0 });
    assert_eq!(outcome.unwrap_err().to_string(), refused.to_string());
    let mut free = authorised(DEV, &key());
    free.profile = "unlogged".to_owned();
    drop(authority.prepare(free).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn issuance_itself_demands_what_the_way_of_asking_needs() {
    let section = "[[oidc]]\nissuer = \"https://id.example.org\"\naudience = \"AUDIENCE\"\napprovals = ";
    let more = [("strict", 3), ("lax", 0)]
        .map(|(audience, number)| format!("{}{number}\n", section.replace("AUDIENCE", audience)));
    let site = Site::with(&format!("[enrolment]\ntoken_approvals = 2\n{APPROVERS}{}", more.concat())).await;
    let authority = site.open().await;
    let by_token = |made_by: Option<&str>| AuthorisedRequest {
        proof: Proof::by_token(made_by),
        ..authorised(DEV, &key())
    };
    let by_identity = |audiences: &[&str]| AuthorisedRequest {
        proof: Proof::IdentityToken { audiences: audiences.iter().map(|&name| name.to_owned()).collect() },
        identity_issuer: "https://id.example.org".to_owned(),
        ..authorised(DEV, &key())
    };
    for (asked, expected) in [
        (by_token(Some("issuer:CN=ivan")), 2),
        (by_token(None), 2),
        (by_identity(&["strict"]), 3),
        (by_identity(&["lax", "strict"]), 3),
        (by_identity(&[]), 3),
    ] {
        let proof = asked.proof.clone();
        let outcome = authority.prepare(asked).await.unwrap_err();
        let refused = CaError::Queue(QueueRefusal::Unapproved { needed: expected, given: 0 });
        assert_eq!(outcome.to_string(), refused.to_string(), "{proof:?}");
    }
    for free in [by_identity(&["lax"]), by_token(Some("mail")), authorised(DEV, &key())] {
        drop(authority.prepare(free).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_profile_makes_of_a_request_is_approved_with_it() {
    let mut site = Site::with(&one()).await;
    let authority = site.open().await;
    let approved = ask(&authority, "approved@example.com", "r1").await;
    assert_eq!(refusal(authority.enrol(&approved).await), "awaits_approval");
    approve(&authority, &approver("alice")).await.unwrap();
    let waits = ask(&authority, "waits@example.com", "r2").await;
    assert_eq!(refusal(authority.enrol(&waits).await), "awaits_approval");
    drop(authority);

    let before = site.settings.profiles["developer"].clone();
    let config = || {
        let text = "rules = \"internal\"\nsubject = { country = \"US\", organization = \"MentatLab\" }";
        toml::from_str::<ProfileConfig>(text).unwrap()
    };
    let mut longer = config();
    longer.lifetime_seconds = Some(366 * 86_400);
    let mut renamed = config();
    renamed.subject.organization = Some("Elsewhere".into());
    let mut other_policy = config();
    other_policy.policies = vec!["1.3.6.1.4.1.32473.9.9".to_owned()];
    let mut unlogged = config();
    unlogged.sct = ca_pki::profile::SctPolicy::Absent;
    let mut of_another_kind = config();
    of_another_kind.rules = SubscriberRules::Keyless;
    of_another_kind.subject = ca_pki::name::NameFields::default();
    for changed in [longer, renamed, other_policy, unlogged, of_another_kind] {
        let profile = Profile::subscriber("developer", &changed).unwrap();
        site.settings.profiles.insert("developer".to_owned(), profile);
        let authority = site.open().await;
        assert_eq!(refusal(authority.enrol(&approved).await), "request_changed", "{changed:?}");
        let outcome = approve(&authority, &approver("bob")).await;
        assert_eq!(refusal(outcome), "request_changed", "nobody approves in vain: {changed:?}");
    }
    site.settings.profiles.insert("developer".to_owned(), before);
    let authority = site.open().await;
    authority.enrol(&approved).await.unwrap();
    approve(&authority, &approver("bob")).await.unwrap();
    authority.enrol(&waits).await.unwrap();
    check_ca(&authority).await;
}

/// The answer to an identity token with this key.
async fn come(office: &Office, server: &Server, clock: &TestClock, body: &Value) -> (u16, Value) {
    let now = clock.unix_seconds();
    let mut claims = office.idp.claims(DEV);
    (claims["iat"], claims["exp"]) = (json!(now), json!(now + 300));
    let asked = server.http.post(format!("{}/api/v2/signingCert", server.base));
    let answer = asked.bearer_auth(office.idp.sign(&claims)).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn approve_newest(server: &Server) {
    let request = queue(&server.authority, QueueState::Waiting).await.pop().unwrap();
    server.authority.approve_requests(&shown(&request), &approver("alice")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_asks_anew_once_its_certificate_has_ended_or_never_came() {
    let office = Office::open(&format!("[[oidc]]\nissuer = \"IDP\"\napprovals = 1\n{APPROVERS}")).await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds() + 60));
    let authority = office.site.open_with(office.site.store().await, clock.clone()).await;
    let server = Server::start(authority).await;
    let body = json!({ "certificateSigningRequest": STANDARD.encode(csr(&key())) });

    let (status, first) = come(&office, &server, &clock, &body).await;
    assert_eq!(status, 202, "{first}");
    approve_newest(&server).await;
    let (status, issued) = come(&office, &server, &clock, &body).await;
    assert_eq!(status, 200, "{issued}");
    clock.advance(Duration::from_secs(300));
    assert_eq!(come(&office, &server, &clock, &body).await, (200, issued.clone()), "the same while it lasts");
    // Ten minutes are over: what ended is no answer.
    clock.advance(Duration::from_secs(400));
    let (status, second) = come(&office, &server, &clock, &body).await;
    assert_eq!(status, 202, "{second}");
    assert_ne!(second["id"], first["id"]);
    approve_newest(&server).await;
    let (status, next) = come(&office, &server, &clock, &body).await;
    assert!(status == 200 && next != issued, "{next}");

    // Nor is what was revoked.
    let request = queue(&server.authority, QueueState::Issued).await.pop().unwrap();
    let record = server.authority.store().issuance(request.intent.unwrap()).await.unwrap().unwrap();
    let revoke = Revoke { reason: RevocationReason::Superseded, compromised_at: None };
    server.admin().revoke(&record.serial.to_string(), &revoke).await.unwrap();
    let (status, third) = come(&office, &server, &clock, &body).await;
    assert_eq!(status, 202, "{third}");

    // Whoever was denied is told so for a day.
    let request = server.admin().queued_request(third["id"].as_str().unwrap()).await.unwrap();
    let denial = DenyRequests { requests: approval(&request).requests, reason: "no".to_owned() };
    server.admin().deny_requests(&denial).await.unwrap();
    let (status, denied) = come(&office, &server, &clock, &body).await;
    assert!(status != 202 && denied["message"].as_str().unwrap().contains("denied"), "{status} {denied}");
    clock.advance(Duration::from_secs(86_401));
    let (status, fourth) = come(&office, &server, &clock, &body).await;
    assert_eq!(status, 202, "{fourth}");
    assert_ne!(fourth["id"], third["id"]);
    server.authority.publish_due().await.unwrap();
    server.finish().await;
}

async fn approved(authority: &Arc<CertificateAuthority>, id: &str) -> Enrol {
    let asked = ask(authority, DEV, id).await;
    assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
    approve(authority, &approver("alice")).await.unwrap();
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_means_what_waited_when_it_was_planned_whatever_becomes_of_it() {
    let site = Site::with(&one()).await;
    let orders = Arc::new(Orders::default());
    let keys = ObedientKeys { inner: site.keys(), orders: orders.clone() };
    let store = Arc::new(FaultyStore::new(site.store().await));
    let authority = site.open_over(store.clone(), Arc::new(SystemClock), &keys).await;
    let fetched = approved(&authority, "r1").await;
    let waits = approved(&authority, "r2").await;
    // Whenever it was recorded: it would be issued after that.
    let now = SystemClock.unix_seconds();
    let selection = RevocationSelection {
        identity: Some(DEV.to_owned()),
        issued_from: Some(now + 1_000),
        ..RevocationSelection::default()
    };
    let asked = PlanRevocations { selection, reason: RevocationReason::KeyCompromise, compromised_at: None };
    let plan = authority.plan_revocations(&asked).await.unwrap();
    assert_eq!((plan.matching, plan.open_requests), (0, 2));

    // Before the order is carried out one is fetched, and a later one is being signed.
    let issued = authority.enrol(&fetched).await.unwrap();
    let undone = approved(&authority, "r3").await;
    orders.for_certificates([Some(Refusal::Permanent)]);
    store.arm("undo_signing", Fault::Before);
    assert_eq!(refusal(authority.enrol(&undone).await), "store");
    let order = RevokeMany { order: plan.order, confirm: 0, approvals: vec![], after: None, limit: None };
    let done = authority.revoke_many(&order, "admin:token").await.unwrap();
    assert_eq!((done.revoked, done.ended_requests), (1, 1));
    let record = authority.store().certificate(&issued.serial).await.unwrap().unwrap();
    assert_eq!(record.state, State::Revoked);
    assert_eq!(refusal(authority.enrol(&waits).await), "request_ended");
    // Nothing was signed after all: the order means the request, too.
    let request = queue(&authority, QueueState::Issued).await.pop().unwrap();
    let undo =
        authority.store().undo_signing(request.intent.unwrap(), None, "nothing was signed", UnixTime(now));
    undo.await.unwrap();
    assert_eq!(refusal(authority.enrol(&undone).await), "request_ended");
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_closed_and_lives_again_and_what_vanished_is_found_by_the_check() {
    let site = Site::with(&one()).await;
    let authority = site.open().await;
    let findings = async || check::run(&authority).await.unwrap().findings.join("; ");
    let revived = approved(&authority, "r1").await;
    let request = queue(&authority, QueueState::Approved).await.remove(0);
    let denial = DenyRequests { requests: shown(&request).requests, reason: "no".to_owned() };
    authority.deny_requests(&denial, &approver("bob")).await.unwrap();
    assert_eq!(refusal(authority.enrol(&revived).await), "request_denied");
    assert_eq!(findings().await, "");
    execute(&site.settings, "UPDATE enrolment_request SET state = 1, closed_at = NULL");
    assert!(findings().await.contains("the audit trail says that it was closed"), "{}", findings().await);
    authority.enrol(&revived).await.unwrap();
    assert!(findings().await.contains("after its request was closed"), "{}", findings().await);

    let waits = ask(&authority, "waits@example.com", "r2").await;
    assert_eq!(refusal(authority.enrol(&waits).await), "awaits_approval");
    execute(&site.settings, "DELETE FROM enrolment_request WHERE state = 0");
    assert!(findings().await.contains("its record is missing"), "{}", findings().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_of_other_approvals_than_the_request_has_is_found_by_the_check() {
    let site = Site::with(&one()).await;
    let authority = site.open().await;
    let asked = approved(&authority, "r1").await;
    authority.enrol(&asked).await.unwrap();
    check_ca(&authority).await;
    let intent = queue(&authority, QueueState::Issued).await[0].intent.unwrap();
    let evidence = authority.store().evidence(intent).await.unwrap().unwrap();
    let forged = evidence.replace("CN=alice", "CN=carol");
    assert_ne!(forged, evidence);
    execute(
        &site.settings,
        &format!("UPDATE certificate SET evidence = '{forged}' WHERE evidence = '{evidence}'"),
    );
    let findings = check::run(&authority).await.unwrap().findings.join("; ");
    assert!(findings.contains("of other approvals"), "{findings}");
}

/// Databases sort names each in their own way, and not always in the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_those_who_approved_is_nothing_that_the_check_compares() {
    let site = Site::with(&one().replace("token_approvals = 1", "token_approvals = 2")).await;
    let authority = site.open().await;
    let asked = ask(&authority, DEV, "r1").await;
    assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
    let request = queue(&authority, QueueState::Waiting).await.remove(0);
    for name in ["alice", "bob"] {
        authority.approve_requests(&shown(&request), &approver(name)).await.unwrap();
    }
    authority.enrol(&asked).await.unwrap();
    let intent = queue(&authority, QueueState::Issued).await[0].intent.unwrap();
    let evidence = authority.store().evidence(intent).await.unwrap().unwrap();
    let other = evidence.replace("\"CN=alice\",\"CN=bob\"", "\"CN=bob\",\"CN=alice\"");
    assert_ne!(other, evidence);
    execute(
        &site.settings,
        &format!("UPDATE certificate SET evidence = '{other}' WHERE evidence = '{evidence}'"),
    );
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_given_back_and_vanished_is_found_by_the_check() {
    let site = Site::with(&one()).await;
    let orders = Arc::new(Orders::default());
    let keys = ObedientKeys { inner: site.keys(), orders: orders.clone() };
    let authority = site.open_over(site.store().await, Arc::new(SystemClock), &keys).await;
    let asked = approved(&authority, "r1").await;
    orders.for_certificates([Some(Refusal::Permanent)]);
    assert!(matches!(authority.enrol(&asked).await, Err(CaError::Signing(_))));
    check_ca(&authority).await;
    execute(&site.settings, "DELETE FROM enrolment_request");
    let findings = check::run(&authority).await.unwrap().findings.join("; ");
    assert!(findings.contains("the audit trail has it open, and its record is missing"), "{findings}");
}

/// A second recording of the same would forget who approved the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_recorded_once() {
    let site = Site::with(&one()).await;
    let authority = site.open().await;
    let asked = approved(&authority, "r1").await;
    authority.enrol(&asked).await.unwrap();
    let trail = authority.store().audit_records(0, 1_000).await.unwrap();
    let recorded = trail.iter().find(|record| record.event == "request.recorded").unwrap();
    let detail: serde_json::Value = serde_json::from_str(&recorded.detail).unwrap();
    let same = detail.clone().into();
    let again = authority.store().audit("request.recorded", "somebody", same, recorded.at);
    again.await.unwrap();
    let findings = check::run(&authority).await.unwrap().findings.join("; ");
    assert!(findings.contains("records a request that was recorded before"), "{findings}");
    assert!(!findings.contains("does not have an approval"), "who approved it is still known: {findings}");
    // The same id for something else.
    let other = json!({ "request": detail["request"], "statement_sha256": "00".repeat(32) });
    authority.store().audit("request.recorded", "somebody", other.into(), recorded.at).await.unwrap();
    let findings = check::run(&authority).await.unwrap().findings.join("; ");
    assert_eq!(findings.matches("records a request that was recorded before").count(), 2, "{findings}");
}

/// What was counted with an order, by when it was recorded, is carried out by that: also when its certificate is of after the time that
/// the order ends with.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_before_an_order_ends_is_meant_when_its_certificate_comes_later() {
    let site = Site::with(&one()).await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let asked = approved(&authority, "r1").await;
    let selection = RevocationSelection {
        identity: Some(DEV.to_owned()),
        issued_before: Some(clock.unix_seconds() + 10),
        ..RevocationSelection::default()
    };
    let planned = PlanRevocations { selection, reason: RevocationReason::Superseded, compromised_at: None };
    let plan = authority.plan_revocations(&planned).await.unwrap();
    assert_eq!((plan.matching, plan.open_requests), (0, 1));
    clock.advance(Duration::from_secs(20));
    let issued = authority.enrol(&asked).await.unwrap();
    let order = RevokeMany { order: plan.order, confirm: 0, approvals: vec![], after: None, limit: None };
    assert_eq!(authority.revoke_many(&order, "admin:token").await.unwrap().revoked, 1);
    let record = authority.store().certificate(&issued.serial).await.unwrap().unwrap();
    assert_eq!(record.state, State::Revoked);
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}
