//! Why a token is accepted or refused: asked of the running authority, and of a configuration alone, before it is in force.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mentat_tests::binary::binary;
use mentat_tests::command::finish;
use mentat_tests::stack::Stack;
use serde_json::{Value, json};

/// The section of docs/operations/stock-clients.md.
const GITHUB: &str = "\n[[oidc]]\nissuer = \"https://token.actions.githubusercontent.com\"\nidentity = \"github-workflow\"\n\
                      claims = { repository = [\"acme/agents\"], ref = [\"refs/heads/main\"], environment = [\"release\"] }\n";

/// What GitHub Actions says of a job; nobody has its key here.
fn job(now: i64) -> Value {
    json!({
        "iss": "https://token.actions.githubusercontent.com", "aud": "sigstore", "jti": "1",
        "sub": "repo:acme/agents:environment:release", "iat": now, "nbf": now, "exp": now + 300,
        "repository": "acme/agents", "repository_owner": "acme", "ref": "refs/heads/main", "environment": "release",
        "job_workflow_ref": "acme/agents/.github/workflows/release.yml@refs/heads/main", "job_workflow_sha": "ab".repeat(20),
        "sha": "ab".repeat(20), "event_name": "push", "run_id": "1", "run_attempt": "1", "runner_environment": "github-hosted",
        "actor": "dev", "workflow": "release", "repository_visibility": "public",
    })
}

fn unsigned(claims: &Value) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let header = json!({ "alg": "RS256", "kid": "1", "typ": "JWT" }).to_string();
    format!("{}.{}.{}", part(header), part(claims.to_string()), URL_SAFE_NO_PAD.encode([7; 256]))
}

/// What a token says.
fn claims(token: &str) -> Value {
    let payload = token.trim().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// When it was made: now.
fn made(token: &str) -> i64 {
    claims(token)["iat"].as_i64().unwrap()
}

/// The rules that are not met, by the answer.
fn unmet(told: &Value) -> Vec<&str> {
    let rules = told["rules"].as_array().unwrap().iter();
    rules.filter(|rule| rule["verdict"] == "unmet").map(|rule| rule["rule"].as_str().unwrap()).collect()
}

#[test]
fn a_section_is_tried_on_a_job_of_github_without_server_and_network() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    let keys = dir.path().join("keys.json");
    let url = format!("{}/keys", stack.text("/oidc/url"));
    fs::write(&keys, fetched(&url)).unwrap();
    let own = stack.ctl(&["pki", "identity-token", "--email", "dev@example.com"]).success().stdout;
    assert_eq!(stack.down(), 0);
    // As somebody writes it who has not put it into force: beside the one that is.
    let config = stack.dir().join("config/ca-service.toml");
    let draft = stack.dir().join("config/draft.toml");
    fs::write(&draft, fs::read_to_string(&config).unwrap() + GITHUB).unwrap();
    let token = dir.path().join("token");
    let explain = |config: &Path, claims: &str, more: &[&str]| {
        fs::write(&token, claims).unwrap();
        let mut command = Command::new(binary("ca-service"));
        command.args(["policy", "explain", "--config", config.to_str().unwrap()]);
        command.args(["--token-file", token.to_str().unwrap()]).args(more);
        let said = finish(command, b"");
        let told: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
        (said.code, told)
    };
    let now = made(&own);
    let good = job(now);

    let (code, told) = explain(&config, &unsigned(&good), &[]);
    assert_eq!((code, &told["refusal"]["code"]), (3, &json!("token_issuer_unknown")), "not in force: {told}");
    let (code, told) = explain(&draft, &unsigned(&good), &[]);
    assert_eq!(
        (code, &told["outcome"], &told["profile"]),
        (0, &json!("accepted"), &json!("keyless")),
        "{told}"
    );
    assert_eq!(told["signature"], "not-checked", "and the answer says so");
    let identity = "https://github.com/acme/agents/.github/workflows/release.yml@refs/heads/main";
    assert_eq!(told["identity"]["uri"], identity, "{told}");

    for (name, value, rule, reason) in [
        ("repository", json!("mallory/agents"), "claim repository", "token_claim_not_allowed"),
        ("ref", json!("refs/heads/topic"), "claim ref", "token_claim_not_allowed"),
        ("environment", Value::Null, "claim environment", "token_claim_not_allowed"),
        ("aud", json!("https://github.com/acme"), "audience", "token_audience"),
        ("exp", json!(now - 3_600), "time", "token_expired"),
        ("job_workflow_ref", Value::Null, "identity", "token_claim_missing"),
    ] {
        let mut claims = good.clone();
        claims[name] = value;
        let (code, told) = explain(&draft, &unsigned(&claims), &[]);
        assert_eq!((code, &told["refusal"]["code"]), (3, &json!(reason)), "{name}: {told}");
        assert_eq!(unmet(&told), [rule], "{name}: {told}");
    }
    // With keys the signature counts: of the stack's issuer the token of the stack's issuer is, and the job's is not.
    let with_keys = ["--keys-file", keys.to_str().unwrap()];
    let (code, told) = explain(&draft, own.trim(), &with_keys);
    assert_eq!((code, &told["signature"]), (0, &json!("verified")), "{told}");
    let (code, told) = explain(&draft, &unsigned(&good), &with_keys);
    assert_eq!((code, &told["signature"]), (3, &json!("refused")), "{told}");
}

#[test]
fn somebody_who_was_refused_asks_the_authority_why() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let token = stack.ctl(&["pki", "identity-token", "--email", "dev@example.com"]).success().stdout;
    let file = dir.path().join("token");
    let path = file.to_str().unwrap();
    let explain = ["pki", "policy", "explain", "--token-file", path];
    fs::write(&file, &token).unwrap();
    let said = stack.ctl(&explain).success().stdout;
    for line in
        ["met  signature", "met  issuer", "met  audience", "met  time", "address dev@example.com", "accepted"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    let told = stack.ctl(&[&["--json"], &explain[..]].concat()).success().json();
    assert_eq!(told["explanation"]["outcome"], "accepted");
    // One character of what it says: nobody's word any more.
    let mut parts: Vec<String> = token.trim().split('.').map(str::to_owned).collect();
    let mut altered = claims(&token);
    altered["email"] = json!("root@example.com");
    parts[1] = URL_SAFE_NO_PAD.encode(altered.to_string());
    fs::write(&file, parts.join(".")).unwrap();
    let refused = stack.ctl(&explain).refused(3, "token_signature");
    refused.one_clear_line();
    assert!(refused.stdout.contains("unmet  signature"), "{}", refused.stdout);
    let told = stack.ctl(&[&["--json"], &explain[..]].concat());
    assert_eq!((told.code, &told.json()["code"]), (3, &json!("token_signature")));
    // An issuer that nobody configured: what can be said is said.
    fs::write(&file, unsigned(&job(made(&token)))).unwrap();
    let refused = stack.ctl(&explain).refused(3, "token_issuer_unknown");
    assert!(refused.stdout.contains("the signature was not checked"), "{}", refused.stdout);
    // Nothing came of any of it.
    assert_eq!(stack.ctl(&["--json", "pki", "list", "--identity", "dev@example.com"]).success().stdout, "");
}

fn fetched(url: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { reqwest::get(url).await.unwrap().text().await.unwrap() })
}
