//! How often an identity token serves, and what the audit trail says of those that were refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_service::storage::audit::Record;
use fixture::issuer::FakeIssuer;
use fixture::{Server, Site, csr, key};
use rcgen::KeyPair;
use serde_json::{Value, json};

const EMAIL: &str = "dev@example.org";

async fn serving(issuer: &FakeIssuer, section: &str, more: &str) -> (Site, Server) {
    let site = Site::with(&(issuer.section(section) + more)).await;
    let server = site.serve().await;
    (site, server)
}

/// Asks for a certificate; status and text of the answer.
async fn asked(server: &Server, token: &str, key: &KeyPair) -> (u16, String) {
    let body = json!({ "certificateSigningRequest": STANDARD.encode(csr(key)) });
    let post = server.http.post(format!("{}/api/v2/signingCert", server.base));
    let answer = post.bearer_auth(token).json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn metric(server: &Server, name: &str) -> u64 {
    let text =
        server.http.get(format!("{}/metrics", server.base)).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}_total "))).unwrap();
    line.parse().unwrap()
}

async fn refusals(site: &Site) -> Vec<(Record, Value)> {
    let trail = site.store().await.audit_records(0, 10_000).await.unwrap();
    let of_tokens = trail.into_iter().filter(|record| record.event == "identity-token.refused");
    of_tokens.map(|record| (record.clone(), serde_json::from_str(&record.detail).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_serves_until_it_expires_and_is_counted_and_limited() {
    let issuer = FakeIssuer::start().await;
    let limits = "[enrolment]\nper_requester = { per_hour = 60, burst = 3 }\n";
    let (_site, server) = serving(&issuer, "", limits).await;
    let token = issuer.token(EMAIL);
    for served in 0..3 {
        let (status, text) = asked(&server, &token, &key()).await;
        assert_eq!(status, 200, "{text}");
        assert_eq!(metric(&server, "mentat_ca_identity_tokens_reused").await, served);
    }
    assert_eq!(asked(&server, &token, &key()).await.0, 429);
    // What got no certificate did not serve.
    assert_eq!(metric(&server, "mentat_ca_identity_tokens_reused").await, 2);
    assert_eq!(metric(&server, "mentat_ca_issuance_limited").await, 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_issuer_says_so_a_token_serves_once_and_stays_used() {
    let issuer = FakeIssuer::start().await;
    let (site, server) = serving(&issuer, "single_use = true", "").await;
    let claims = issuer.claims(EMAIL);
    let token = issuer.sign(&claims);
    assert_eq!(asked(&server, &token, &key()).await.0, 200);
    let used = |(status, text): (u16, String)| {
        assert_eq!(status, 400, "{text}");
        assert!(text.contains("the token was used"), "{text}");
    };
    used(asked(&server, &token, &key()).await);
    // Another signature over the same content is the same token.
    let again = issuer.sign(&claims);
    assert_ne!(again, token);
    used(asked(&server, &again, &key()).await);
    // The next one is another one, though of the same bearer.
    let mut later = claims.clone();
    later["jti"] = json!("2");
    assert_eq!(asked(&server, &issuer.sign(&later), &key()).await.0, 200);
    server.finish().await;

    let server = site.serve().await;
    used(asked(&server, &token, &key()).await);
    // Whoever asks at once gets one certificate in all.
    later["jti"] = json!("3");
    let (token, keys) = (issuer.sign(&later), [key(), key(), key(), key()]);
    let all = keys.iter().map(|key| asked(&server, &token, key));
    let all = futures_util::future::join_all(all).await;
    assert_eq!(all.iter().filter(|(status, _)| *status == 200).count(), 1, "{all:?}");
    // A token that does not say when it was made could have served before a restore.
    later.as_object_mut().unwrap().remove("iat");
    let (status, text) = asked(&server, &issuer.sign(&later), &key()).await;
    assert!(status == 400 && text.contains("lacks the claim iat"), "{text}");
    server.finish().await;
    // That it was refused, and why, stands in the trail.
    let codes: Vec<_> = refusals(&site).await.into_iter().map(|(_, detail)| detail["code"].clone()).collect();
    assert!(
        codes.contains(&json!("token_used")) && codes.contains(&json!("token_claim_missing")),
        "{codes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_before_a_restore_may_have_served_and_does_not_serve_again() {
    let issuer = FakeIssuer::start().await;
    let (site, server) = serving(&issuer, "single_use = true", "").await;
    let mut claims = issuer.claims(EMAIL);
    let now = claims["iat"].as_i64().unwrap();
    // As `ca-service restore` leaves it.
    let from = format!("INSERT INTO meta (name, value) VALUES ('identity-tokens-from', '{now}');");
    server.finish().await;
    fixture::execute(&site.settings, &from);
    let server = site.serve().await;
    claims["iat"] = json!(now - 1);
    let (status, text) = asked(&server, &issuer.sign(&claims), &key()).await;
    assert!(status == 400 && text.contains("the token was used"), "{text}");
    claims["iat"] = json!(now);
    assert_eq!(asked(&server, &issuer.sign(&claims), &key()).await.0, 200);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_tokens_that_their_issuer_made_stand_in_the_trail() {
    let (issuer, other) = (FakeIssuer::start().await, FakeIssuer::start().await);
    let roles = format!(
        "\n[[roles.oidc]]\nissuer = \"{}\"\naudience = \"ca-roles\"\nrole = \"issuer\"\n\
         [roles.oidc.claims]\ngroups = [\"issuers\"]\n",
        issuer.url
    );
    let section = "claims = { team = [\"release\"] }";
    let (site, server) = serving(&issuer, section, &roles).await;
    let good = issuer.claims(EMAIL);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let now = good["iat"].as_i64().unwrap();
    // By what they say.
    for claims in [
        with("team", json!("visitors")),
        with("aud", json!("elsewhere")),
        with("exp", json!(now - 60)),
        with("team", json!("visitors")),
        with("team", json!("visitors")),
    ] {
        assert_ne!(asked(&server, &issuer.sign(&claims), &key()).await.0, 200);
    }
    // As a role: of other groups, and used twice.
    let mut operator = with("aud", json!("ca-roles"));
    operator["groups"] = json!(["issuers"]);
    let used = issuer.sign(&operator);
    operator["groups"] = json!(["staff"]);
    let wanted = fixture::token_request(EMAIL, "developer");
    for token in [&issuer.sign(&operator), &used, &used] {
        let _ = server.client().with_admin_token(token).create_token(&wanted).await;
    }
    // What nobody can be blamed for: another's signature, an issuer that is not known, no token.
    let forged = other.sign(&good);
    let unknown = other.sign(&other.claims(EMAIL));
    for junk in [forged.as_str(), unknown.as_str(), "a.b.c", "junk"] {
        assert_ne!(asked(&server, junk, &key()).await.0, 200);
        let _ = server.client().with_admin_token(junk).create_token(&wanted).await;
    }
    assert_eq!(metric(&server, "mentat_ca_identity_tokens_refused").await, 9);
    // `junk` is no token for a role, and is not looked at as one.
    assert_eq!(metric(&server, "mentat_ca_role_tokens_refused").await, 5);

    let bearer = format!("oidc:{}#id-of-{EMAIL}", issuer.url);
    let told = |found: &[(Record, Value)]| {
        assert!(found.iter().all(|(record, _)| record.actor == bearer), "{found:?}");
        let told = found.iter().map(|(_, detail)| {
            let text = |name: &str| detail[name].as_str().unwrap().to_owned();
            (text("purpose"), text("code"), detail["count"].as_u64().unwrap())
        });
        told.collect::<Vec<_>>()
    };
    let one = |purpose: &str, code: &str| (purpose.to_owned(), code.to_owned(), 1);
    let mut expected = vec![
        one("certificate", "token_claim_not_allowed"),
        one("certificate", "token_audience"),
        one("certificate", "token_expired"),
        one("role", "role_not_given"),
        one("role", "token_used"),
    ];
    let found = refusals(&site).await;
    assert_eq!(told(&found), expected);
    let text = format!("{found:?}");
    assert!(!text.contains(&used) && !text.contains(used.split('.').nth(1).unwrap()), "tokens are secrets");
    // The other two of the first kind are one number, written at the latest when the server stops.
    server.finish().await;
    expected.push(("certificate".to_owned(), "token_claim_not_allowed".to_owned(), 2));
    assert_eq!(told(&refusals(&site).await), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refusals_adds_a_handful_of_records() {
    let issuer = FakeIssuer::start().await;
    let (site, server) = serving(&issuer, "", "").await;
    let key = key();
    for number in 0..60 {
        let mut claims = issuer.claims(EMAIL);
        claims["sub"] = json!(format!("branch-{number}"));
        claims["aud"] = json!("elsewhere");
        assert_eq!(asked(&server, &issuer.sign(&claims), &key).await.0, 400);
    }
    server.finish().await;
    let found = refusals(&site).await;
    // A slow machine may see the beginning of another minute.
    assert!(found.len() < 50, "{}", found.len());
    let counted: u64 = found.iter().map(|(_, detail)| detail["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, 60, "each is counted once");
    let nobody = format!("oidc:{}#*", issuer.url);
    assert!(found.iter().any(|(record, detail)| record.actor == nobody && detail["subject"].is_null()));
}
