//! One's own certificates over mutual TLS: the certificate of the connection in the place of a signed proof. What it gives and to whom
//! is decided as for a signature (`own.rs`, `own_renewal.rs`); here is that it is, and that it opens nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ca_api::client::{CaClient, ClientError};
use ca_api::possession::{ListOwn, OwnReason, Renew, RevokeOwn};
use ca_api::{IssuedCertificate, RevocationReason, Revoke};
use ca_service::config::Config;
use ca_service::storage::Search;
use fixture::{ADMIN, Server, Site, csr, enrol_request, key, secret_file, settings_text, token_request};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use service::SystemClock;
use service::clock::{Clock, TestClock};

type Own = (KeyPair, IssuedCertificate);

/// Where a server's own TLS certificate is.
const TLS: &str =
    "[server.tls]\ncertificate_file = \"FOLDER/server.crt\"\nkey_file = \"FOLDER/server.key\"\n";
const ACCEPT: &str = "[enrolment]\nmutual_tls = \"accept\"\nno_renewal = [\"unlogged\"]\n";

fn text(folder: &Path, more: &str) -> String {
    settings_text(folder, &more.replace("FOLDER", folder.to_str().unwrap()), "")
}

/// An authority that speaks TLS, and its server's certificate.
async fn secured(more: &str) -> (Site, String) {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("server.crt"), pair.cert.pem()).unwrap();
    secret_file(&folder.path().join("server.key"), &pair.signing_key.serialize_pem());
    let settings = Config::parse(&text(folder.path(), &format!("{TLS}{more}"))).unwrap().validate().unwrap();
    (Site::with_settings(folder, settings).await, pair.cert.pem())
}

/// The same that answers, with the time of a clock.
async fn serving(site: &Site, certificate: &str, clock: Arc<dyn Clock>) -> Server {
    let mut server = Server::start(site.open_with(site.store().await, clock).await).await;
    server.base = format!("https://localhost:{}", server.serving.running.addr().port());
    server.http = connecting(certificate, None);
    server
}

/// A client that trusts one server, and shows a certificate.
fn connecting(server: &str, shown: Option<&Own>) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(server.as_bytes()).unwrap();
    let mut builder = reqwest::Client::builder().no_proxy().tls_certs_only([root]);
    if let Some((key, issued)) = shown {
        let pem = format!("{}{}", issued.certificate, key.serialize_pem());
        builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
    }
    builder.build().unwrap()
}

async fn enrolled(server: &Server, email: &str, profile: &str) -> Own {
    let token = server.admin().create_token(&token_request(email, profile)).await.unwrap();
    let key = key();
    let issued = server.client().enrol(&enrol_request(&token.token, &key, None)).await.unwrap();
    (key, issued)
}

/// A renewal that says nothing of whose certificate it is about.
fn renewal(new: &KeyPair, request_id: &str) -> Renew {
    Renew { proof: None, csr: csr(new), request_id: request_id.to_owned() }
}

fn list() -> ListOwn {
    ListOwn { proof: None, after: None }
}

fn code<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    answer.unwrap_err().code().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_a_certificate_renews_lists_and_revokes_that_certificate() {
    let (site, tls) = secured(ACCEPT).await;
    let server = serving(&site, &tls, Arc::new(SystemClock)).await;
    let (own, theirs) = (
        enrolled(&server, "dev@example.com", "developer").await,
        enrolled(&server, "other@example.com", "developer").await,
    );
    let by = |own: &Own| CaClient::new(connecting(&tls, Some(own)), &server.base);
    let new = key();
    let issued = by(&own).renew(&renewal(&new, "a")).await.unwrap();
    let (record, old) = (
        server.admin().show(&issued.serial).await.unwrap(),
        server.admin().show(&own.1.serial).await.unwrap(),
    );
    assert_eq!((&record.identity, &record.profile), (&old.identity, &old.profile));
    let by_whom = format!("certificate:{}", own.1.serial);
    let trail = server.authority.store().audit_records(0, 1_000).await.unwrap();
    assert!(trail.iter().any(|record| record.actor == by_whom && record.event == "certificate.signing"));
    // Sent again, and by a signature instead: one request.
    assert_eq!(by(&own).renew(&renewal(&new, "a")).await.unwrap(), issued);
    let signed = fixture::renewal(&server.authority, (&own.0, &own.1.serial, &own.1.certificate), &new, "a");
    assert_eq!(server.client().renew(&signed).await.unwrap(), issued);
    assert_eq!(code(by(&own).renew(&renewal(&key(), "a")).await), "request_conflict");
    // What came of it connects, too.
    let new = (new, issued);
    let listed = by(&new).list_own(&list()).await.unwrap().certificates;
    let serials: Vec<_> = listed.into_iter().map(|record| record.serial).collect();
    assert_eq!(serials, [new.1.serial.clone(), own.1.serial.clone()], "and nobody else's");

    let given_up = RevokeOwn { proof: None, reason: OwnReason::Superseded, compromised_at: None };
    let revoked = by(&own).revoke_own(&given_up).await.unwrap();
    assert_eq!(
        (revoked.serial.as_str(), revoked.reason),
        (own.1.serial.as_str(), RevocationReason::Superseded)
    );
    assert!(server.admin().show(&theirs.1.serial).await.unwrap().revocation.is_none());
    assert!(server.admin().show(&new.1.serial).await.unwrap().revocation.is_none());
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_signature_would_not_get_a_connection_does_not_get() {
    let (site, tls) = secured(ACCEPT).await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let server = serving(&site, &tls, clock.clone()).await;
    let by = |own: &Own| CaClient::new(connecting(&tls, Some(own)), &server.base);
    let own = enrolled(&server, "dev@example.com", "developer").await;
    assert_eq!(code(by(&own).renew(&renewal(&own.0, "a")).await), "key_unchanged");
    assert_eq!(code(by(&own).renew(&renewal(&key(), "no id")).await), "out_of_range");
    for profile in ["unlogged", "keyless"] {
        let other = enrolled(&server, "dev@example.com", profile).await;
        assert_eq!(code(by(&other).renew(&renewal(&key(), "a")).await), "not_renewable", "{profile}");
    }
    // A proof in the request is what counts: that of another certificate, and none for this request.
    let theirs = enrolled(&server, "other@example.com", "developer").await;
    let mut signed = fixture::renewal(
        &server.authority,
        (&theirs.0, &theirs.1.serial, &theirs.1.certificate),
        &key(),
        "a",
    );
    signed.request_id = "b".to_owned();
    assert_eq!(code(by(&own).renew(&signed).await), "proof_invalid");
    // Revoked: nothing. Over the connection that was there before, too.
    let before = by(&theirs);
    before.list_own(&list()).await.unwrap();
    let revoke = Revoke { reason: RevocationReason::PrivilegeWithdrawn, compromised_at: None };
    server.admin().revoke(&theirs.1.serial, &revoke).await.unwrap();
    for client in [before, by(&theirs)] {
        assert_eq!(code(client.list_own(&list()).await), "certificate_revoked");
        assert_eq!(code(client.renew(&renewal(&key(), "a")).await), "certificate_revoked");
    }
    // Expired: it renews and lists nothing, and is revoked all the same.
    clock.advance(Duration::from_secs(2 * 366 * 86_400));
    assert_eq!(code(by(&own).list_own(&list()).await), "certificate_expired");
    assert_eq!(code(by(&own).renew(&renewal(&key(), "a")).await), "certificate_expired");
    let compromised = RevokeOwn { proof: None, reason: OwnReason::KeyCompromise, compromised_at: None };
    assert_eq!(by(&own).revoke_own(&compromised).await.unwrap().serial, own.1.serial);
    server.finish().await;
}

/// A page of somebody else's in the browser that has the certificate: it sends without asking anybody, and needs not read the answer.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_web_page_has_a_browser_send_is_refused() {
    let (site, tls) = secured(ACCEPT).await;
    let server = serving(&site, &tls, Arc::new(SystemClock)).await;
    let own = enrolled(&server, "dev@example.com", "developer").await;
    let browser = connecting(&tls, Some(&own));
    let sent = async |path: &str, body: &Value, origin: Option<&str>| {
        // What needs no leave of the server before it.
        let asked = browser.post(format!("{}{path}", server.base)).header("content-type", "text/plain");
        let asked = origin.into_iter().fold(asked, |asked, origin| asked.header("origin", origin));
        let answer = asked.body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["code"].as_str().map(str::to_owned))
    };
    let asked = [
        ("/api/v1/own/certificates", json!({}), 200),
        ("/api/v1/renewals", serde_json::to_value(renewal(&key(), "a")).unwrap(), 201),
        ("/api/v1/own/revocations", json!({ "reason": "superseded" }), 200),
    ];
    let refused = (403, Some("browser_refused".to_owned()));
    for (path, body, _) in &asked {
        for origin in ["https://elsewhere.example", "null"] {
            assert_eq!(sent(path, body, Some(origin)).await, refused, "{path}");
        }
    }
    let issued = server.authority.store().search(Search { limit: 100, ..Search::default() }).await.unwrap();
    let theirs: Vec<_> = issued.iter().filter(|stored| stored.identity.is_some()).collect();
    assert!(theirs.len() == 1 && theirs[0].revocation.is_none(), "{theirs:?}");
    // What is signed for this very request says who asks, whatever sends it.
    let signed =
        fixture::renewal(&server.authority, (&own.0, &own.1.serial, &own.1.certificate), &key(), "b");
    let signed = serde_json::to_value(signed).unwrap();
    assert_eq!(sent("/api/v1/renewals", &signed, Some("https://elsewhere.example")).await, (201, None));
    for (path, body, status) in &asked {
        assert_eq!(sent(path, body, None).await, (*status, None), "{path}");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_does_not_connect() {
    let (site, tls) = secured(ACCEPT).await;
    let server = serving(&site, &tls, Arc::new(SystemClock)).await;
    // Of the same names: only the key differs.
    let (elsewhere, _) = secured("").await;
    let authority = elsewhere.open().await;
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let own = key();
    let issued = authority.enrol(&enrol_request(&token.token, &own, None)).await.unwrap();
    let pem = ca_pki::pem::encode("CERTIFICATE", &issued.certificate).unwrap();
    for shown in [pem + &own.serialize_pem(), {
        let certificate = CertificateParams::default().self_signed(&own).unwrap();
        certificate.pem() + &own.serialize_pem()
    }] {
        let root = reqwest::Certificate::from_pem(tls.as_bytes()).unwrap();
        let identity = reqwest::Identity::from_pem(shown.as_bytes()).unwrap();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([root]).identity(identity);
        let client = CaClient::new(http.build().unwrap(), &server.base);
        let refused = client.list_own(&list()).await.unwrap_err();
        assert!(matches!(refused, ClientError::Transport { .. }), "{refused:?}");
    }
    // Without one the connection stands, and shows nothing.
    assert_eq!(code(server.client().list_own(&list()).await), "proof_missing");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn such_a_certificate_gives_no_role_whatever_else_its_holder_bears() {
    // Even where its subject is named for every role.
    let roles = "[roles.issuer]\nsubjects = [\"SUBJECT\"]\n[roles.approver]\nsubjects = [\"SUBJECT\"]\n\
                 [roles.auditor]\nsubjects = [\"SUBJECT\"]\n";
    let subject = "CN=dev@example.com,O=MentatLab,C=US";
    let (site, tls) = secured(&format!("{ACCEPT}{}", roles.replace("SUBJECT", subject))).await;
    let server = serving(&site, &tls, Arc::new(SystemClock)).await;
    let own = enrolled(&server, "dev@example.com", "developer").await;
    let der = fixture::der(&own.1.certificate);
    let named = service::ClientCertificate::new(der.into()).unwrap();
    assert_eq!(named.subject(), subject, "else nobody would be named");
    let http = connecting(&tls, Some(&own));
    let enrol = json!({ "token": "x", "csr": csr(&key()) });
    for (method, path, body) in [
        ("GET", "/api/v1/certificates", Value::Null),
        ("GET", &*format!("/api/v1/certificates/{}", own.1.serial), Value::Null),
        ("POST", "/api/v1/certificates", enrol),
        (
            "POST",
            &*format!("/api/v1/certificates/{}/revoke", own.1.serial),
            json!({ "reason": "superseded" }),
        ),
        ("POST", "/api/v1/tokens", json!({})),
        ("GET", "/api/v1/requests", Value::Null),
        ("POST", "/api/v1/requests/approve", json!({ "requests": [] })),
        ("POST", "/api/v1/revocations/plan", json!({})),
        ("POST", "/api/v1/revocations", json!({})),
        ("POST", "/api/v1/policy/explain", json!({})),
        ("POST", "/api/v2/signingCert", json!({})),
        ("GET", "/api/v1/overview", Value::Null),
        ("GET", "/api/v1/authorities", Value::Null),
        ("GET", "/metrics", Value::Null),
        ("GET", "/", Value::Null),
        ("POST", "/api/v1/renewals/", json!({})),
        ("POST", "/api/v1/%72enewals", json!({})),
    ] {
        for admin in [None, Some(ADMIN)] {
            let asked = http.request(method.parse().unwrap(), format!("{}{path}", server.base)).json(&body);
            let asked = admin.into_iter().fold(asked, reqwest::RequestBuilder::bearer_auth);
            let answer = asked.send().await.unwrap();
            assert_eq!(answer.status(), 403, "{method} {path}");
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(problem["code"], "certificate_not_for_this", "{method} {path}");
        }
    }
    let call = http.post(format!("{}/dev.sigstore.fulcio.v2.CA/GetTrustBundle", server.base));
    let call = call.header("content-type", "application/grpc").body("").send().await.unwrap();
    assert_eq!(call.status(), 403);
    let problem: Value = call.json().await.unwrap();
    assert_eq!(problem["code"], "certificate_not_for_this");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_operator_did_not_ask_for_it_nobody_is_asked_for_a_certificate() {
    let (site, tls) = secured("").await;
    let server = serving(&site, &tls, Arc::new(SystemClock)).await;
    let own = enrolled(&server, "dev@example.com", "developer").await;
    let client = CaClient::new(connecting(&tls, Some(&own)), &server.base);
    assert_eq!(code(client.renew(&renewal(&key(), "a")).await), "proof_missing");
    server.finish().await;
    // And it cannot be asked for where there is no handshake.
    let folder = tempfile::tempdir().unwrap();
    let refusal = Config::parse(&text(folder.path(), ACCEPT)).unwrap().validate().unwrap_err().to_string();
    assert!(refusal.contains("enrolment.mutual_tls") && refusal.contains("[server.tls]"), "{refusal}");
}
