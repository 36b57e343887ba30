//! What would become of an identity token: asked of the server, and of the program over a configuration file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_api::{ExplainToken, ListQuery, SignatureStanding, TokenExplanation, TokenOutcome};
use fixture::issuer::FakeIssuer;
use fixture::{Server, Site, csr, key, program, settings_text};
use serde_json::{Value, json};

const DEMANDS: &str = "identity = \"github-workflow\"\nclaims = { repository = [\"acme/agents\"], environment = [\"release\"] }";

fn job(issuer: &FakeIssuer) -> Value {
    let mut job = issuer.claims("dev@example.org");
    for (name, value) in [
        ("repository", "acme/agents"),
        ("environment", "release"),
        ("job_workflow_ref", "acme/agents/.github/workflows/sign.yml@refs/heads/main"),
        ("run_id", "1"),
        ("run_attempt", "1"),
    ] {
        job[name] = json!(value);
    }
    job
}

fn with(job: &Value, name: &str, value: Value) -> Value {
    let mut job = job.clone();
    job[name] = value;
    job
}

/// The rules that a token does not meet, and the code it is refused with.
fn unmet(told: &TokenExplanation) -> (Vec<&str>, Option<&str>) {
    let told_unmet = told.rules.iter().filter(|rule| rule.verdict == ca_api::RuleVerdict::Unmet);
    (
        told_unmet.map(|rule| rule.rule.as_str()).collect(),
        told.refusal.as_ref().map(|refusal| refusal.code.as_str()),
    )
}

async fn told(server: &Server, token: String) -> TokenExplanation {
    server.admin().explain_token(&ExplainToken { token }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_says_what_issuance_would_do_and_does_nothing() {
    let issuer = FakeIssuer::start().await;
    let site = Site::with(&issuer.section(DEMANDS)).await;
    let server = site.serve().await;
    let (job, elsewhere) = (job(&issuer), FakeIssuer::start().await);
    let now = job["iat"].as_i64().unwrap();
    let good = issuer.sign(&job);
    // Sixty-four octets, as a signature has.
    let forged = format!("{}.{}", good.rsplit_once('.').unwrap().0, "A".repeat(86));
    let at_elsewhere = elsewhere.sign(&with(&job, "iss", json!(elsewhere.url)));
    for (what, token, wanted, code) in [
        ("good", issuer.sign(&job), vec![], None),
        (
            "another repository",
            issuer.sign(&with(&job, "repository", json!("mallory/agents"))),
            vec!["claim repository"],
            Some("token_claim_not_allowed"),
        ),
        (
            "two claims, and late",
            issuer.sign(&with(
                &with(&with(&job, "repository", json!("x")), "environment", Value::Null),
                "exp",
                json!(now - 100),
            )),
            vec!["time", "claim environment", "claim repository"],
            Some("token_expired"),
        ),
        (
            "another audience",
            issuer.sign(&with(&job, "aud", json!("somebody"))),
            vec!["audience"],
            Some("token_audience"),
        ),
        (
            "no workflow",
            issuer.sign(&with(&job, "job_workflow_ref", json!(""))),
            vec!["identity"],
            Some("token_claim_missing"),
        ),
        ("forged", forged, vec!["signature"], Some("token_signature")),
        ("another issuer", at_elsewhere, vec!["issuer", "audience"], Some("token_issuer_unknown")),
        ("no token", "secret".to_owned(), vec![], Some("token_malformed")),
    ] {
        let told = told(&server, token.clone()).await;
        assert_eq!(unmet(&told), (wanted, code), "{what}: {told:?}");
        assert_eq!(told.outcome == TokenOutcome::Accepted, code.is_none(), "{what}");
        // The same token, in earnest.
        let body = json!({ "certificateSigningRequest": STANDARD.encode(csr(&key())) });
        let post =
            server.http.post(format!("{}/api/v2/signingCert", server.base)).bearer_auth(token).json(&body);
        assert_eq!(post.send().await.unwrap().status() == 200, code.is_none(), "{what}");
    }
    let good = told(&server, issuer.sign(&job)).await;
    assert_eq!((good.signature, good.section, good.approvals), (SignatureStanding::Verified, Some(1), 0));
    assert_eq!(good.profile.as_deref(), Some("keyless"));
    assert!(
        good.identity.unwrap().as_str().ends_with("acme/agents/.github/workflows/sign.yml@refs/heads/main")
    );
    // Nobody's keys can be asked about a stranger's token.
    let stranger = told(&server, elsewhere.sign(&job)).await;
    assert_eq!(stranger.signature, SignatureStanding::Refused);
    let listed = server.admin().list(&ListQuery::default()).await.unwrap();
    assert_eq!(listed.certificates.iter().filter(|record| record.identity.is_some()).count(), 1);
    let nobody = server.client().explain_token(&ExplainToken { token: issuer.sign(&job) }).await.unwrap_err();
    assert_eq!(nobody.code(), Some("unauthorized"));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_who_must_approve_are_counted() {
    let issuer = FakeIssuer::start().await;
    let approvers = "[roles.approver]\nsubjects = [\"CN=alice\", \"CN=bob\"]\n";
    let site = Site::with(&(issuer.section("approvals = 2") + approvers)).await;
    let server = site.serve().await;
    let told = told(&server, issuer.token("dev@example.org")).await;
    assert_eq!((told.outcome, told.approvals), (TokenOutcome::NeedsApproval, 2));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_explains_without_a_server_and_claims_nothing_that_it_did_not_check() {
    let issuer = FakeIssuer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("ca.toml");
    std::fs::write(&config, settings_text(folder.path(), &issuer.section(DEMANDS), "")).unwrap();
    let (token_file, keys_file) = (folder.path().join("token"), folder.path().join("keys.json"));
    let keys = reqwest::get(format!("{}/keys", issuer.url)).await.unwrap().bytes().await.unwrap();
    std::fs::write(&keys_file, keys).unwrap();
    let explained = |token: String, keys: bool| {
        std::fs::write(&token_file, token + "\n").unwrap();
        let mut arguments = vec!["policy", "explain", "--token-file", token_file.to_str().unwrap()];
        arguments.extend(["--keys-file", keys_file.to_str().unwrap()].into_iter().filter(|_| keys));
        let output = program::run(&config, &arguments);
        let told: TokenExplanation = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", program::said(&output)));
        (output.status.code().unwrap(), told)
    };
    let (job, another) = (job(&issuer), FakeIssuer::start().await);
    let (code, told) = explained(issuer.sign(&job), false);
    assert_eq!((code, told.signature), (0, SignatureStanding::NotChecked));
    assert_eq!(explained(issuer.sign(&job), true).1.signature, SignatureStanding::Verified);
    let (code, told) = explained(another.sign(&job), true);
    assert_eq!((code, told.signature), (3, SignatureStanding::Refused));
    assert_eq!(told.refusal.unwrap().code, "token_signature");
    let (code, told) = explained(issuer.sign(&with(&job, "environment", json!("staging"))), false);
    assert_eq!(code, 3);
    assert_eq!(unmet(&told), (vec!["claim environment"], Some("token_claim_not_allowed")));
}
