//! Certificates that people must approve: who may, what exactly, and what becomes of a request otherwise.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_api::{
    ApproveRequests, Identity, ListQuery, QueueQuery, RequestState, RequestStatement, RevocationReason,
};
use ca_service::{Config, check};
use fixture::approvers::{Office, approval, awaits, refused, shown};
use fixture::receiver::{Receiver, SECRET};
use fixture::{Server, csr, enrol_request, execute, key, secret_file, token_request};
use serde_json::{Value, json};

const DEV: &str = "dev@example.com";
const TWO: &str = "[enrolment]\nprofile_approvals = { developer = 2 }\n";
const ONE: &str = "[enrolment]\ntoken_approvals = 1\n";

async fn issued_to(server: &Server, identity: &str) -> usize {
    let query = ListQuery { identity: Some(identity.to_owned()), ..ListQuery::default() };
    server.admin().list(&query).await.unwrap().certificates.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_approve_and_one_certificate_comes_of_it() {
    let office = Office::open(TWO).await;
    let server = office.site.serve().await;
    let (token, key) = (office.invite(&server, DEV).await, key());
    let asked = enrol_request(&token, &key, Some("r1"));

    // Without an id the certificate could not be fetched; nothing is recorded.
    let without = enrol_request(&token, &key, None);
    assert_eq!(refused(server.client().enrol(&without).await), (400, "out_of_range".to_owned()));
    let url = format!("{}/api/v1/certificates", server.base);
    let answer = server.http.post(&url).json(&asked).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    assert_eq!(answer.headers()["retry-after"], "15");
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(location, format!("/api/v1/requests/{}/status", body["id"].as_str().unwrap()));
    let stands: Value =
        server.http.get(format!("{}{location}", server.base)).send().await.unwrap().json().await.unwrap();
    assert_eq!(stands, body, "whoever has the id may ask");

    // Repeated, it is the same request; and everything is as the approver sees it.
    let waits = awaits(server.client().enrol(&asked).await);
    assert_eq!(
        (waits.id.as_str(), waits.approvals_needed, waits.approvals_given),
        (body["id"].as_str().unwrap(), 2, 0)
    );
    let request = office.only(&server).await;
    let statement: RequestStatement = serde_json::from_str(&request.statement).unwrap();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
    assert_eq!(statement.spki_sha256, hex::encode(<sha2::Sha256 as sha2::Digest>::digest(spki)));
    assert_eq!(statement.identity, Identity::Email(DEV.to_owned()));
    let maker = format!("issuer:{}", office.name("ivan"));
    assert_eq!(
        (statement.profile.as_str(), statement.vouched_by.as_deref()),
        ("developer", Some(maker.as_str()))
    );
    assert_eq!(statement.voucher_names, [office.name("ivan"), "ivan@example.org".to_owned()]);
    // What profile and authority make of it.
    assert_eq!((statement.kind.as_str(), statement.lifetime_seconds), ("internal", 365 * 86_400));
    // It cannot outlive who issues it.
    let issuer = server.authority.authority("code-signing").unwrap();
    assert_eq!(statement.ends_by, issuer.not_after.map(|end| end.0));
    assert_eq!(statement.subject, "CN=dev@example.com,O=MentatLab,C=US");
    assert_eq!((statement.policies.len(), statement.sct.as_str()), (1, "embedded"));
    assert_eq!(statement.issuer, "code-signing");
    assert_eq!(
        issued_to(&server, DEV).await,
        0,
        "nothing is recorded as an issuance, and no serial number is spent"
    );
    let seen = office.approver(&server, "reader").list(&ListQuery::default()).await.unwrap();
    assert_eq!(seen.certificates.len(), 5);
    assert_eq!(server.admin().queued_request(&waits.id).await.unwrap(), request);

    // One person counts once.
    for _ in 0..2 {
        let status = office.approve(&server, "alice").await.unwrap();
        assert_eq!((status.state, status.approvals_given), (RequestState::Waiting, 1));
    }
    assert_eq!(awaits(server.client().enrol(&asked).await).approvals_given, 1);
    let status = office.approve(&server, "bob").await.unwrap();
    assert_eq!((status.state, status.approvals_given), (RequestState::Approved, 2));
    // Too late, but who approved may repeat themselves.
    assert_eq!(office.approve(&server, "bob").await.unwrap(), status);
    assert_eq!(refused(office.approve(&server, "carol").await), (409, "request_closed".to_owned()));
    assert_eq!(server.client().request_status(&waits.id).await.unwrap(), status);
    // With its token nobody else gets anything.
    let other = enrol_request(&token, &fixture::key(), Some("r1"));
    assert_eq!(refused(server.client().enrol(&other).await), (409, "request_conflict".to_owned()));
    let other = enrol_request(&token, &key, Some("r2"));
    assert_eq!(refused(server.client().enrol(&other).await), (409, "token_used".to_owned()));

    let polls = (0..8).map(|_| {
        let (client, asked) = (server.client(), asked.clone());
        tokio::spawn(async move { client.enrol(&asked).await })
    });
    let mut serials = Vec::new();
    for poll in polls.collect::<Vec<_>>() {
        match poll.await.unwrap() {
            Ok(issued) => serials.push(issued.serial),
            Err(error) => assert_eq!(error.code(), Some("issuance_pending"), "{error}"),
        }
    }
    let issued = server.client().enrol(&asked).await.unwrap();
    assert!(!serials.is_empty() && serials.iter().all(|serial| *serial == issued.serial), "{serials:?}");
    assert_eq!(issued_to(&server, DEV).await, 1);
    assert_eq!(server.client().request_status(&waits.id).await.unwrap().state, RequestState::Issued);
    assert_eq!(server.authority.overview().await.unwrap().waiting_requests, 0);

    // The record of the signature names who approved it, and comes after them.
    let trail = server.authority.store().audit_records(0, 1_000).await.unwrap();
    let at = |event: &str| trail.iter().position(|record| record.event == event).unwrap();
    let announced = |record: &&ca_service::storage::audit::Record| {
        record.event == "certificate.signing" && record.detail.contains("approval")
    };
    let signing: Value = serde_json::from_str(&trail.iter().find(announced).unwrap().detail).unwrap();
    let people = json!([office.name("alice"), office.name("bob")]);
    assert_eq!(signing["approval"]["approvers"], people, "{signing}");
    assert!(at("request.recorded") < at("request.approved"));
    assert_eq!(trail.iter().filter(|record| record.event == "request.approved").count(), 2);
    let report = check::run(&server.authority).await.unwrap();
    assert_eq!(report.requests, 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_approves_for_themselves_and_a_shared_token_approves_nothing() {
    let office = Office::open(ONE).await;
    let server = office.site.serve().await;
    // The certificate would name the approver.
    let token = office.invite(&server, "alice@example.org").await;
    let asked = enrol_request(&token, &key(), Some("r1"));
    let id = awaits(server.client().enrol(&asked).await).id;
    assert_eq!(refused(office.approve(&server, "alice").await), (403, "approver_is_requester".to_owned()));
    assert_eq!(refused(office.approve(&server, "ALICE").await), (403, "approver_is_requester".to_owned()));

    let request = office.only(&server).await;
    let by = |token: &str| server.client().with_admin_token(token);
    for (client, expected) in [
        (server.admin(), (403, "approver_unnamed")),
        (by(&office.token("a@example.org", &["auditors"])), (403, "role_insufficient")),
        (by(&office.token("i@example.org", &["issuers"])), (403, "role_insufficient")),
        (by(&office.token("s@example.org", &["staff"])), (403, "role_not_given")),
        (server.client(), (401, "unauthorized")),
    ] {
        let outcome = client.approve_requests(&approval(&request)).await;
        assert_eq!(refused(outcome), (expected.0, expected.1.to_owned()));
    }
    // One token decides once, and a web page never.
    let bob = office.token("bob@example.org", &["approvers"]);
    let answer = server.http.post(format!("{}/api/v1/requests/approve", server.base));
    let answer = answer.bearer_auth(&bob).header("origin", "https://elsewhere.example");
    assert_eq!(answer.json(&approval(&request)).send().await.unwrap().status(), 403);
    by(&bob).approve_requests(&approval(&request)).await.unwrap();
    assert_eq!(refused(by(&bob).approve_requests(&approval(&request)).await), (401, "token_used".to_owned()));
    server.client().enrol(&asked).await.unwrap();
    assert_eq!(server.client().request_status(&id).await.unwrap().state, RequestState::Issued);

    // Whoever made the token vouched for its holder, and is no second person.
    let both = || by(&office.token("carol@example.org", &["issuers", "approvers"]));
    let token = both().create_token(&token_request(DEV, "developer")).await.unwrap().token;
    awaits(server.client().enrol(&enrol_request(&token, &key(), Some("r2"))).await);
    let request = office.only(&server).await;
    assert_eq!(
        refused(both().approve_requests(&approval(&request)).await),
        (403, "approver_is_requester".to_owned())
    );
    // Denying is no favour: they may.
    assert_eq!(
        office.deny(&server, "carol", &request, "by mistake").await.unwrap().state,
        RequestState::Denied
    );
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_approved_is_what_was_shown_and_nothing_else_is_issued() {
    let office = Office::open(ONE).await;
    let server = office.site.serve().await;
    let asked = enrol_request(&office.invite(&server, DEV).await, &key(), Some("r1"));
    awaits(server.client().enrol(&asked).await);
    let request = office.only(&server).await;
    let alter = |column: &str, value: &str| {
        execute(&office.site.settings, &format!("UPDATE enrolment_request SET {column} = '{value}'"));
    };
    let findings = async || check::run(&server.authority).await.unwrap().findings;

    // Somebody changes the record between the look and the approval.
    alter("identity", "mallory@example.com");
    let approve = async || office.approver(&server, "alice").approve_requests(&approval(&request)).await;
    assert_eq!(refused(approve().await), (409, "request_changed".to_owned()));
    let now = server.admin().queued_request(&request.status.id).await.unwrap();
    assert!(now.statement.contains("mallory"), "who looks again sees what it is now");
    assert_eq!(findings().await.len(), 1, "{:?}", findings().await);
    alter("identity", DEV);
    assert_eq!(findings().await, Vec::<String>::new());
    // Half of a list that is not as it was shown is not decided either.
    let mut wrong = shown(&request);
    wrong.id = "0".repeat(32);
    let both = ApproveRequests { requests: vec![shown(&request), wrong] };
    let outcome = office.approver(&server, "alice").approve_requests(&both).await;
    assert_eq!(refused(outcome), (404, "request_unknown".to_owned()));
    assert_eq!(office.only(&server).await.status.approvals_given, 0);
    let twice = ApproveRequests { requests: vec![shown(&request), shown(&request)] };
    let outcome = office.approver(&server, "alice").approve_requests(&twice).await;
    assert_eq!(refused(outcome), (400, "out_of_range".to_owned()));

    // Or between the approval and the certificate.
    approve().await.unwrap();
    alter("profile", "unlogged");
    assert_eq!(refused(server.client().enrol(&asked).await), (409, "request_conflict".to_owned()));
    alter("profile", "developer");
    alter("identity_issuer", "https://mallory.example.com");
    assert_eq!(refused(server.client().enrol(&asked).await), (409, "request_conflict".to_owned()));
    alter("identity_issuer", fixture::ISSUER);
    let said: RequestStatement = serde_json::from_str(&request.statement).unwrap();
    alter("evidence", "{}");
    assert_eq!(refused(server.client().enrol(&asked).await), (409, "request_changed".to_owned()));
    assert!(!findings().await.is_empty());
    alter("evidence", &said.evidence);
    assert_eq!(issued_to(&server, DEV).await, 0);
    // An approval that was never given counts for nothing: the trail does not have it.
    let name = office.name("alice");
    let as_of = |name: &str| {
        execute(&office.site.settings, &format!("UPDATE enrolment_approval SET approver = '{name}'"));
    };
    as_of(&office.name("mallory"));
    assert_eq!(refused(server.client().enrol(&asked).await), (409, "request_changed".to_owned()));
    assert!(findings().await[0].contains("does not have an approval"), "{:?}", findings().await);
    as_of(&name);
    server.client().enrol(&asked).await.unwrap();
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_says_approved_is_no_approval() {
    let office = Office::open(ONE).await;
    let server = office.site.serve().await;
    let genuine = enrol_request(&office.invite(&server, DEV).await, &key(), Some("r1"));
    awaits(server.client().enrol(&genuine).await);
    office.approve(&server, "alice").await.unwrap();
    server.client().enrol(&genuine).await.unwrap();
    // The writer of the database knows the statement, and a record of a genuine approval.
    let other = enrol_request(&office.invite(&server, "mallory@example.com").await, &key(), Some("r2"));
    let id = awaits(server.client().enrol(&other).await).id;
    let statement = shown(&office.only(&server).await).statement_sha256;
    let blob = |digits: &str| match office.site.settings.database.file() {
        Some(_) => format!("x'{digits}'"),
        None => format!("decode('{digits}', 'hex')"),
    };
    let forged = format!(
        "INSERT INTO enrolment_approval (request, approver, statement, names, record, at) \
         SELECT {0}, approver, {1}, names, record, at FROM enrolment_approval; \
         UPDATE enrolment_request SET state = 1 WHERE id = {0}",
        blob(&id),
        blob(&statement)
    );
    execute(&office.site.settings, &forged);
    assert_eq!(refused(server.client().enrol(&other).await), (409, "request_changed".to_owned()));
    assert_eq!(issued_to(&server, "mallory@example.com").await, 0);
    let findings = check::run(&server.authority).await.unwrap().findings;
    assert!(findings[0].contains("does not have an approval"), "{findings:?}");
    let undo = format!(
        "DELETE FROM enrolment_approval WHERE request = {0}; UPDATE enrolment_request SET state = 0 WHERE id = {0}",
        blob(&id)
    );
    execute(&office.site.settings, &undo);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_denied_or_ended_by_an_order_never_becomes_a_certificate() {
    let office = Office::open(ONE).await;
    let server = office.site.serve().await;
    let (token, key) = (office.invite(&server, DEV).await, key());
    let asked = enrol_request(&token, &key, Some("r1"));
    let id = awaits(server.client().enrol(&asked).await).id;
    let request = office.only(&server).await;
    for reason in ["", "  ", "a\nb", &"x".repeat(257)] {
        let outcome = office.deny(&server, "bob", &request, reason).await;
        assert_eq!(refused(outcome), (400, "out_of_range".to_owned()), "{reason:?}");
    }
    // An approved one can still be denied, until its certificate was issued.
    office.approve(&server, "alice").await.unwrap();
    let denied = office.deny(&server, "bob", &request, "left the project").await.unwrap();
    assert_eq!((denied.state, denied.reason.as_deref()), (RequestState::Denied, Some("left the project")));
    for _ in 0..2 {
        let outcome = server.client().enrol(&asked).await.unwrap_err();
        assert!(outcome.to_string().contains("left the project"), "{outcome}");
        assert_eq!(outcome.code(), Some("request_denied"));
    }
    assert_eq!(server.client().request_status(&id).await.unwrap(), denied);
    let again = office.approver(&server, "carol").approve_requests(&approval(&request)).await;
    assert_eq!(refused(again), (409, "request_closed".to_owned()));
    // The token is worth nothing any more, whoever has it.
    let other = enrol_request(&token, &fixture::key(), Some("r2"));
    assert_eq!(refused(server.client().enrol(&other).await), (409, "token_used".to_owned()));

    // An order ends what it would have revoked, waiting or approved.
    let mut waiting = Vec::new();
    for (number, email) in [DEV, DEV, "other@example.com"].into_iter().enumerate() {
        let id = format!("o{number}");
        let asked = enrol_request(&office.invite(&server, email).await, &fixture::key(), Some(&id));
        awaits(server.client().enrol(&asked).await);
        waiting.push(asked);
    }
    let listed = server.admin().queue(&QueueQuery::default()).await.unwrap().requests;
    let first = ApproveRequests { requests: vec![shown(&listed[0])] };
    office.approver(&server, "alice").approve_requests(&first).await.unwrap();
    let of = ca_api::RevocationSelection { identity: Some(DEV.to_owned()), ..Default::default() };
    let asked = ca_api::PlanRevocations {
        selection: of,
        reason: RevocationReason::KeyCompromise,
        compromised_at: None,
    };
    let plan = server.admin().plan_revocations(&asked).await.unwrap();
    assert_eq!((plan.matching, plan.open_requests), (0, 2));
    let order =
        ca_api::RevokeMany { order: plan.order, confirm: 0, approvals: vec![], after: None, limit: None };
    assert_eq!(server.admin().revoke_many(&order).await.unwrap().ended_requests, 2);
    assert_eq!(server.admin().revoke_many(&order).await.unwrap().ended_requests, 0);
    for asked in &waiting[..2] {
        assert_eq!(refused(server.client().enrol(asked).await), (409, "request_ended".to_owned()));
    }
    awaits(server.client().enrol(&waiting[2]).await);
    assert_eq!(
        (issued_to(&server, DEV).await, office.only(&server).await.status.state),
        (0, RequestState::Waiting)
    );
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_became_known_as_compromised_is_approved_by_nobody() {
    let office = Office::open("[enrolment]\nprofile_approvals = { developer = 1 }\n").await;
    let server = office.site.serve().await;
    let key = key();
    let free = server.admin().create_token(&token_request(DEV, "unlogged")).await.unwrap().token;
    let issued = server.client().enrol(&enrol_request(&free, &key, None)).await.unwrap();
    let ask = async |id: &str| {
        let asked = enrol_request(&office.invite(&server, DEV).await, &key, Some(id));
        let id = awaits(server.client().enrol(&asked).await).id;
        (asked, server.admin().queued_request(&id).await.unwrap())
    };
    let (waits, approved) = (ask("r0").await, ask("r1").await);
    let by_alice = office.approver(&server, "alice");
    by_alice.approve_requests(&approval(&approved.1)).await.unwrap();
    let revoke = ca_api::Revoke { reason: RevocationReason::KeyCompromise, compromised_at: None };
    server.admin().revoke(&issued.serial, &revoke).await.unwrap();
    for (asked, request) in [waits, approved] {
        let late = office.approver(&server, "bob").approve_requests(&approval(&request)).await;
        assert_eq!(refused(late), (409, "request_closed".to_owned()));
        assert_eq!(refused(server.client().enrol(&asked).await), (409, "request_ended".to_owned()));
    }
    let second = enrol_request(&office.invite(&server, DEV).await, &key, Some("r2"));
    assert_eq!(refused(server.client().enrol(&second).await), (422, "key_compromised".to_owned()));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_bounded_for_each_identity_and_in_all() {
    let office = Office::open(&format!("{ONE}most_waiting = 3\nmost_waiting_per_identity = 2\n")).await;
    let server = office.site.serve().await;
    let ask = async |email: &str, id: &str| {
        server.client().enrol(&enrol_request(&office.invite(&server, email).await, &key(), Some(id))).await
    };
    for id in ["a", "b"] {
        awaits(ask(DEV, id).await);
    }
    assert_eq!(refused(ask(DEV, "c").await), (429, "too_many_waiting".to_owned()));
    awaits(ask("other@example.com", "d").await);
    assert_eq!(refused(ask("third@example.com", "e").await), (503, "queue_full".to_owned()));
    // What cannot be issued is not queued: nobody approves in vain.
    let bad = office.invite_to(&server, "x@example.com", "hardware").await;
    let outcome = server.client().enrol(&enrol_request(&bad, &key(), Some("f"))).await;
    assert_eq!(refused(outcome), (422, "key_evidence_missing".to_owned()));
    // Pages of the list.
    let query = QueueQuery { limit: Some(2), ..QueueQuery::default() };
    let page = server.admin().queue(&query).await.unwrap();
    let rest = server.admin().queue(&QueueQuery { after: page.next, ..query }).await.unwrap();
    assert_eq!((page.requests.len(), rest.requests.len(), rest.next), (2, 1, None));
    // A decision makes room.
    office.deny(&server, "alice", &page.requests[0], "no").await.unwrap();
    awaits(ask(DEV, "g").await);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_asks_the_same_way_and_comes_back_with_the_same_key() {
    let office = Office::open("[[oidc]]\nissuer = \"IDP\"\napprovals = 1\n").await;
    let server = office.site.serve().await;
    let key = key();
    let body = json!({ "certificateSigningRequest": STANDARD.encode(csr(&key)) });
    let post = async |token: String, body: &Value| {
        let asked =
            server.http.post(format!("{}/api/v2/signingCert", server.base)).bearer_auth(token).json(body);
        let answer = asked.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, waits) = post(office.idp.token(DEV), &body).await;
    assert_eq!((status, &waits["state"]), (202, &json!("waiting")), "{waits}");
    let again = post(office.idp.token(DEV), &body).await;
    assert_eq!(again, (202, waits.clone()));
    // Another key is another request; somebody else's with the same key too.
    let other = json!({ "certificateSigningRequest": STANDARD.encode(csr(&fixture::key())) });
    assert_ne!(post(office.idp.token(DEV), &other).await.1["id"], waits["id"]);
    let theirs = post(office.idp.token("alice@example.org"), &body).await;
    assert_ne!(theirs.1["id"], waits["id"]);
    let shown_to = async |name: &str, id: &Value| {
        let request = server.admin().queued_request(id.as_str().unwrap()).await.unwrap();
        office.approver(&server, name).approve_requests(&approval(&request)).await
    };
    assert_eq!(refused(shown_to("alice", &theirs.1["id"]).await), (403, "approver_is_requester".to_owned()));
    shown_to("alice", &waits["id"]).await.unwrap();
    let (status, issued) = post(office.idp.token(DEV), &body).await;
    assert_eq!(status, 200, "{issued}");
    assert_eq!(post(office.idp.token(DEV), &body).await, (200, issued), "one request, one certificate");
    assert_eq!(issued_to(&server, DEV).await, 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_is_told_of_each_request_once() {
    let receiver = Receiver::default();
    let url = receiver.start().await;
    let webhook = format!("[enrolment.webhook]\nurl = \"{url}\"\nsecret_file = \"../webhook\"\n");
    let office = Office::open(&format!("{ONE}{webhook}")).await;
    secret_file(&office.site.folder.path().join("webhook"), SECRET);
    let server = office.site.serve().await;
    let asked = enrol_request(&office.invite(&server, DEV).await, &key(), Some("r1"));
    let waits = awaits(server.client().enrol(&asked).await);
    let mut told = Vec::new();
    while told.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        told = receiver.taken();
    }
    assert_eq!(told[0]["type"], "https://mentat.internal/request-waiting/v1");
    assert_eq!(told[0]["requests"].as_array().unwrap().len(), 1);
    assert_eq!(told[0]["requests"][0]["request"], json!(waits.id));
    assert_eq!((told.len(), &told[0]["requests"][0]["identity"]), (1, &json!(DEV)));
    awaits(server.client().enrol(&asked).await);
    server.finish().await;
    let authority = office.site.open().await;
    let config = office.site.settings.config.enrolment.webhook.clone().unwrap();
    let webhook = ca_service::webhook::Webhook::of_requests(&office.site.settings, &config).unwrap();
    assert_eq!(authority.send_request_notices(&webhook).await.unwrap(), 0, "not again after a restart");
}

#[test]
fn approvals_that_nobody_could_give_are_refused_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let with = |section: &str| {
        let text = fixture::settings_text(folder.path(), section, "");
        Config::parse(&text).unwrap().validate().map(|_| ()).map_err(|refusal| refusal.to_string())
    };
    let approvers = "[roles.approver]\nsubjects = [\"CN=alice\", \"CN=bob\"]\n";
    with(&format!("{TWO}{approvers}")).unwrap();
    for (section, why) in [
        (ONE.to_owned(), "1 approvals, and there are not as many approvers"),
        (format!("{TWO}[roles.approver]\nsubjects = [\"CN=alice\", \"CN=alice\"]\n"), "2 approvals"),
        (format!("[enrolment]\nprofile_approvals = {{ nobody = 1 }}\n{approvers}"), "no profile nobody"),
        (format!("[enrolment]\ntoken_approvals = 9\n{approvers}"), "number of approvals = 9"),
        (format!("[enrolment]\nrequest_hours = 0\n{approvers}"), "enrolment.request_hours"),
        (format!("[enrolment]\nmost_waiting = 0\n{approvers}"), "enrolment.most_waiting"),
    ] {
        let refused = with(&section).unwrap_err();
        assert!(refused.contains(why), "{section}: {refused}");
    }
}
