//! Whose approval counts: nobody in particular, the requester and the voucher in another form, and one person twice never do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_api::RequestState;
use ca_api::client::CaClient;
use ca_service::queue::person::{Operator, Person};
use ca_service::storage::queue::QueueState;
use fixture::approvers::{Office, approval, awaits, refused};
use fixture::deciders::{approve, approver, ask, person, queue, refusal};
use fixture::{Server, Site, check_ca, csr, enrol_request, key, token_request};
use serde_json::{Value, json};

const DEV: &str = "dev@example.com";
const ONE: &str = "[enrolment]\ntoken_approvals = 1\n";
const TWO: &str = "[enrolment]\ntoken_approvals = 2\n";
const BY_CERTIFICATE: &str = "[roles.approver]\nsubjects = [\"CN=alice\", \"CN=bob\"]\n";

/// Who approves with an identity token that says this.
fn with_token(office: &Office, server: &Server, sub: &str, email: Option<Value>) -> CaClient {
    let mut claims = office.idp.claims("unused@example.org");
    let members = claims.as_object_mut().unwrap();
    members.insert("aud".to_owned(), json!("ca-roles"));
    members.insert("groups".to_owned(), json!(["approvers"]));
    members.insert("sub".to_owned(), json!(sub));
    match email {
        None => drop(members.remove("email")),
        Some(email) => members.extend(email.as_object().unwrap().clone()),
    }
    server.client().with_admin_token(&office.idp.sign(&claims))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_in_particular_made_is_worth_nothing_where_people_must_approve() {
    let office = Office::open(ONE).await;
    let server = office.site.serve().await;
    // The bearer of the shared token could be the approver.
    let made = server.admin().create_token(&token_request(DEV, "developer")).await;
    assert_eq!(refused(made), (403, "voucher_unnamed".to_owned()));
    server.finish().await;

    // Nor is one that was made before anybody had to approve: by a shared token, or by nobody knows whom.
    let mut site = office.site;
    site.settings.config.enrolment.token_approvals = 0;
    let authority = site.open().await;
    let mut made = Vec::new();
    for id in ["a", "b"] {
        let token = authority.create_token(&token_request(DEV, "developer"), "admin:token").await.unwrap();
        made.push(enrol_request(&token.token, &key(), Some(id)));
    }
    drop(authority);
    fixture::execute(
        &site.settings,
        "UPDATE token SET created_by = NULL WHERE hash = (SELECT max(hash) FROM token)",
    );
    site.settings.config.enrolment.token_approvals = 1;
    let authority = site.open().await;
    for asked in &made {
        assert_eq!(refusal(authority.enrol(asked).await), "voucher_unnamed");
    }
    assert!(queue(&authority, QueueState::Waiting).await.is_empty());
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_vouched_is_no_second_person_by_whatever_way_they_come() {
    let site = Site::with(&format!("{ONE}{BY_CERTIFICATE}")).await;
    let authority = site.open().await;
    // Made by ivan's client certificate; he comes back with an identity token, which has his address and nothing else in common.
    let asked = ask(&authority, DEV, "r1").await;
    assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
    let name = "oidc:https://id.example.org#7".to_owned();
    let again = Person::known_by(name, ["Ivan@Example.org".to_owned()]);
    let again = Operator { actor: "approver:oidc:https://id.example.org#7".to_owned(), person: again };
    assert_eq!(refusal(approve(&authority, &again).await), "approver_is_requester");
    assert_eq!(refusal(approve(&authority, &person("approver", "ivan")).await), "approver_is_requester");
    let nobody = Operator::from("approver:CN=x");
    assert_eq!(refusal(approve(&authority, &nobody).await), "approver_unnamed");
    approve(&authority, &approver("alice")).await.unwrap();
    authority.enrol(&asked).await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requester_is_known_by_their_address_where_each_audience_has_another_subject() {
    let office = Office::open("[[oidc]]\nissuer = \"IDP\"\napprovals = 1\n").await;
    let server = office.site.serve().await;
    let mut claims = office.idp.claims("alice@example.org");
    claims["sub"] = json!("pairwise-for-certificates");
    let body = json!({ "certificateSigningRequest": STANDARD.encode(csr(&key())) });
    let url = format!("{}/api/v2/signingCert", server.base);
    let asked = server.http.post(url).bearer_auth(office.idp.sign(&claims)).json(&body);
    assert_eq!(asked.send().await.unwrap().status(), 202);
    let request = office.only(&server).await;
    for (email, expected) in [
        (Some(json!({ "email": "alice@example.org", "email_verified": true })), "approver_is_requester"),
        // Left out, or not known to be theirs: whoever that is may be the requester.
        (None, "approver_unnamed"),
        (Some(json!({ "email": "else@example.org", "email_verified": false })), "approver_unnamed"),
    ] {
        let client = with_token(&office, &server, "pairwise-for-roles", email);
        let outcome = client.approve_requests(&approval(&request)).await;
        assert_eq!(refused(outcome), (403, expected.to_owned()));
    }
    office.approve(&server, "bob").await.unwrap();
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_counts_once_under_any_number_of_names() {
    let office = Office::open(TWO).await;
    let server = office.site.serve().await;
    let asked = enrol_request(&office.invite(&server, DEV).await, &key(), Some("r1"));
    awaits(server.client().enrol(&asked).await);
    let request = office.only(&server).await;
    let address = || Some(json!({ "email": "alice@example.org" }));
    with_token(&office, &server, "one", address()).approve_requests(&approval(&request)).await.unwrap();
    let again = with_token(&office, &server, "two", address()).approve_requests(&approval(&request)).await;
    assert_eq!(refused(again), (403, "approver_repeated".to_owned()));
    // In a batch, too, nothing of which is decided then.
    let certificate = approver("alice");
    let outcome = server.authority.approve_requests(&approval(&request), &certificate).await;
    assert_eq!(refusal(outcome), "approver_repeated");
    assert_eq!(awaits(server.client().enrol(&asked).await).approvals_given, 1);
    let status = office.approve(&server, "bob").await.unwrap();
    assert_eq!((status.state, status.approvals_given), (RequestState::Approved, 2));
    server.client().enrol(&asked).await.unwrap();
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_an_issuer_lets_in_keeps_nobody_else_out() {
    let limits = format!("{ONE}most_waiting = 2\n[[oidc]]\nissuer = \"IDP\"\napprovals = 1\n");
    let office = Office::open(&limits).await;
    let server = office.site.serve().await;
    let url = format!("{}/api/v2/signingCert", server.base);
    for (email, expected) in [("a@example.org", 202), ("b@example.org", 429)] {
        let body = json!({ "certificateSigningRequest": STANDARD.encode(csr(&key())) });
        let asked = server.http.post(&url).bearer_auth(office.idp.token(email)).json(&body);
        assert_eq!(asked.send().await.unwrap().status(), expected, "{email}");
    }
    let asked = enrol_request(&office.invite(&server, DEV).await, &key(), Some("r1"));
    awaits(server.client().enrol(&asked).await);
    server.finish().await;
}
