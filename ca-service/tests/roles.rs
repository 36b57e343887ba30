//! What each role may do, and that nobody else may.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_api::client::{CaClient, ClientError};
use ca_api::{ListQuery, PlanRevocations, RevocationReason, RevocationSelection, Revoke};
use fixture::issuer::FakeIssuer;
use fixture::{Server, Site, csr, enrol_request, key, settings, token_request};
use serde_json::{Value, json};
use service::secret;

const ISSUER: &str = "issuer-0123456789abcdef0123456789";
const AUDITOR: &str = "auditor-0123456789abcdef01234567";

fn code<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> String {
    outcome.unwrap_err().code().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn issuers_let_others_enrol_auditors_read_and_strangers_do_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut roles = String::new();
    for (role, token) in [("issuer", ISSUER), ("auditor", AUDITOR)] {
        let path = folder.path().join(role);
        secret::write_new(&path, token.as_bytes()).unwrap();
        roles.push_str(&format!("\n[roles.{role}]\ntoken_file = \"{}\"\n", path.display()));
    }
    let settings = settings(folder.path(), &roles, "");
    let site = Site::with_settings(folder, settings).await;
    let server = site.serve().await;
    let by = |token: &str| server.client().with_admin_token(token);
    let (issuer, auditor, stranger) = (by(ISSUER), by(AUDITOR), by("somebody-0123456789abcdef0123456"));

    let token = issuer.create_token(&token_request("dev@example.com", "developer")).await.unwrap();
    let issued = server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    let revoke = Revoke { reason: RevocationReason::Superseded, compromised_at: None };
    let reads = |client: CaClient| {
        let serial = issued.serial.clone();
        async move {
            assert_eq!(client.list(&ListQuery::default()).await.unwrap().certificates.len(), 6);
            assert_eq!(client.show(&serial).await.unwrap().serial, serial);
        }
    };
    reads(issuer.clone()).await;
    reads(auditor.clone()).await;
    let wanted = token_request("dev2@example.com", "developer");
    assert_eq!(code(auditor.create_token(&wanted).await), "role_insufficient");
    for client in [&issuer, &auditor] {
        assert_eq!(code(client.revoke(&issued.serial, &revoke).await), "role_insufficient");
    }
    // A page of somebody else's in the browser of who may: the browser says that there is one.
    for (origin, status) in [(Some("https://elsewhere.example"), 403), (Some("null"), 403), (None, 201)] {
        let asked =
            server.http.post(format!("{}/api/v1/tokens", server.base)).bearer_auth(ISSUER).json(&wanted);
        let asked = origin.into_iter().fold(asked, |asked, origin| asked.header("origin", origin));
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), status, "{origin:?}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["code"].as_str(), origin.map(|_| "browser_refused"), "{body}");
    }
    for client in [&stranger, &server.client()] {
        assert_eq!(code(client.create_token(&wanted).await), "unauthorized");
        assert_eq!(code(client.list(&ListQuery::default()).await), "unauthorized");
        assert_eq!(code(client.show(&issued.serial).await), "unauthorized");
        assert_eq!(code(client.revoke(&issued.serial, &revoke).await), "unauthorized");
    }
    server.admin().revoke(&issued.serial, &revoke).await.unwrap();
    server.finish().await;
}

/// An identity issuer with three groups of operators, each with its role.
async fn operators() -> (FakeIssuer, Server, Site) {
    let idp = FakeIssuer::start().await;
    let section = |role: &str, more: &str| {
        format!(
            "\n[[roles.oidc]]\nissuer = \"{}\"\naudience = \"ca-roles\"\nrole = \"{role}\"\n{more}\n\
             [roles.oidc.claims]\ngroups = [\"{role}s\"]\n",
            idp.url
        )
    };
    let roles = ["auditor", "approver", "issuer"].map(|role| section(role, "max_age_seconds = 120")).concat();
    let site = Site::with(&(roles + &idp.section(""))).await;
    let server = site.serve().await;
    (idp, server, site)
}

static MADE: AtomicU64 = AtomicU64::new(0);

fn operator(idp: &FakeIssuer, groups: &[&str]) -> Value {
    let mut claims = idp.claims("operator@example.org");
    claims["aud"] = json!("ca-roles");
    claims["groups"] = json!(groups);
    // As issuers do it: no two tokens are the same.
    claims["jti"] = json!(MADE.fetch_add(1, Ordering::Relaxed).to_string());
    claims
}

fn plan() -> PlanRevocations {
    let of = RevocationSelection {
        identity: Some("dev@example.com".to_owned()),
        ..RevocationSelection::default()
    };
    PlanRevocations { selection: of, reason: RevocationReason::Superseded, compromised_at: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_gives_the_role_that_its_claims_earn_and_no_more() {
    let (idp, server, site) = operators().await;
    let by = |groups: &[&str]| server.client().with_admin_token(&idp.sign(&operator(&idp, groups)));
    let wanted = token_request("dev@example.com", "developer");
    let token = by(&["issuers"]).create_token(&wanted).await.unwrap();
    let issued = server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    let revoke = Revoke { reason: RevocationReason::Superseded, compromised_at: None };

    for group in ["auditors", "approvers", "issuers"] {
        let holder = by(&[group]);
        // Reading, one token serves as often as its bearer likes.
        for _ in 0..2 {
            assert_eq!(holder.show(&issued.serial).await.unwrap().serial, issued.serial);
        }
        assert_eq!(code(holder.revoke(&issued.serial, &revoke).await), "role_insufficient");
        if group != "approvers" {
            assert_eq!(code(holder.plan_revocations(&plan()).await), "role_insufficient");
        }
        if group != "issuers" {
            assert_eq!(code(holder.create_token(&wanted).await), "role_insufficient");
        }
    }
    assert_eq!(by(&["approvers"]).plan_revocations(&plan()).await.unwrap().matching, 1);
    // Two roles reach as far as both.
    let both = by(&["approvers", "issuers"]);
    both.plan_revocations(&plan()).await.unwrap();
    both.create_token(&wanted).await.unwrap();

    let records = site.store().await.audit_records(0, 1000).await.unwrap();
    let actor = format!("issuer:oidc:{}#id-of-operator@example.org", idp.url);
    assert_eq!(records.iter().filter(|r| r.event == "token.created" && r.actor == actor).count(), 2);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_earns_no_role_is_refused_with_its_reason() {
    let (idp, server, _site) = operators().await;
    let good = operator(&idp, &["auditors"]);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let (now, other) = (good["iat"].as_i64().unwrap(), FakeIssuer::start().await);
    let mut unsaid = good.clone();
    unsaid.as_object_mut().unwrap().remove("iat");
    for (token, wanted) in [
        (idp.sign(&with("aud", json!("sigstore"))), "token_audience"),
        (idp.sign(&with("exp", json!(now - 60))), "token_expired"),
        (idp.sign(&with("nbf", json!(now + 600))), "token_not_yet_valid"),
        (idp.sign(&with("iat", json!(now - 200))), "token_too_old"),
        (idp.sign(&unsaid), "token_claim_missing"),
        (idp.sign(&with("groups", json!(["staff"]))), "role_not_given"),
        (idp.sign(&with("groups", json!({ "auditors": true }))), "role_not_given"),
        (other.sign(&with("iss", json!(other.url))), "token_issuer_unknown"),
        (other.sign(&good), "token_signature"),
        ("a.b.c".to_owned(), "token_malformed"),
    ] {
        let client = server.client().with_admin_token(&token);
        assert_eq!(code(client.list(&ListQuery::default()).await), wanted, "{token}");
    }
    // What a role is given for is no proof of an identity, though the issuer vouches for those too.
    let body = json!({ "certificateSigningRequest": STANDARD.encode(csr(&key())) });
    let asked = server.http.post(format!("{}/api/v2/signingCert", server.base)).bearer_auth(idp.sign(&good));
    let answer: Value = asked.json(&body).send().await.unwrap().json().await.unwrap();
    assert!(answer["message"].as_str().unwrap().contains("audience"), "{answer}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_changes_something_once_whatever_its_signature_looks_like() {
    let (idp, server, site) = operators().await;
    let wanted = token_request("dev@example.com", "developer");
    let claims = operator(&idp, &["issuers"]);
    let token = idp.sign(&claims);
    let holder = server.client().with_admin_token(&token);
    holder.create_token(&wanted).await.unwrap();
    assert_eq!(code(holder.create_token(&wanted).await), "token_used");
    // Another valid signature over the same content, as everybody can make of an ECDSA signature, and the issuer anyway.
    let again = idp.sign(&claims);
    assert_ne!(again, token);
    let holder = server.client().with_admin_token(&again);
    assert_eq!(code(holder.create_token(&wanted).await), "token_used");
    holder.list(&ListQuery::default()).await.unwrap();
    server.finish().await;
    // Not even after a restart.
    let server = site.serve().await;
    let holder = server.client().with_admin_token(&token);
    assert_eq!(code(holder.create_token(&wanted).await), "token_used");
    server.finish().await;
}
