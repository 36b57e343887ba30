//! Tokens that are as they should be, and every way in which one is not.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ca_pki::jws::{Jwk, parse_key_set};
use ca_pki::oid::sigstore;
use der::{Decode as _, Sequence, asn1::UintRef};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::config::{Bearers, IdentityKind, UnverifiedEmail};
use super::demands::Demands;
use super::keys::{KEEP_FOR, PAUSE, REFRESH_AFTER};
use super::*;

const ISSUER: &str = "https://id.example.org";
const NOW: i64 = 1_800_000_000;

/// An issuer's keys: `p` is P-256, `r` is RSA-2048.
struct Keys {
    p: EcdsaKeyPair,
    r: rsa::KeyPair,
}

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Keys {
    fn new() -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        Self {
            p: EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap(),
            r: rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap(),
        }
    }

    fn jwk_p(&self, id: &str) -> Value {
        let point = self.p.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "x": b64(&point[1..33]), "y": b64(&point[33..]) })
    }

    fn jwk_r(&self, id: &str) -> Value {
        let key = RsaPublicKey::from_der(self.r.public_key().as_ref()).unwrap();
        json!({
            "kty": "RSA", "kid": id, "alg": "RS256", "use": "sig",
            "n": b64(key.modulus.as_bytes()), "e": b64(key.exponent.as_bytes()),
        })
    }

    fn set(&self) -> Vec<Jwk> {
        let set = json!({ "keys": [self.jwk_p("p"), self.jwk_r("r"), { "kty": "OKP", "crv": "Ed25519", "x": "AA" }] });
        parse_key_set(set.to_string().as_bytes()).unwrap()
    }

    fn sign(&self, header: &Value, payload: &str) -> String {
        let signed = format!("{}.{}", b64(header.to_string()), b64(payload));
        let signature = if header["alg"] == "RS256" {
            let mut signature = vec![0; self.r.public_modulus_len()];
            self.r.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
            signature
        } else {
            self.p.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec()
        };
        format!("{signed}.{}", b64(signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({ "alg": "ES256", "kid": "p", "typ": "JWT" }), &claims.to_string())
    }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "sigstore", "sub": "user-1", "iat": NOW - 5, "nbf": NOW - 5, "exp": NOW + 300,
        "email": "dev@example.org", "email_verified": true,
    })
}

/// The claims with one of them changed, or removed by null.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

/// A source that counts how often it was asked, and can be switched off.
struct Source {
    keys: Mutex<Option<Vec<Jwk>>>,
    asked: AtomicUsize,
}

impl KeySource for Source {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<Jwk>, OidcError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let keys = self.keys.lock().unwrap().clone();
        Box::pin(async move { keys.ok_or_else(|| OidcError::Unavailable("switched off".to_owned())) })
    }
}

fn rule(audience: &str, profile: &str, identity: IdentityKind) -> IssuerRule {
    IssuerRule {
        issuer: ISSUER.to_owned(),
        audience: audience.to_owned(),
        identity,
        claims: Demands::default(),
        profile: profile.to_owned(),
        tls_ca_file: None,
        approvals: 0,
        bearers: Bearers::People,
        reuse: Reuse::UntilExpiry,
    }
}

fn email() -> IdentityKind {
    IdentityKind::Email { domains: Vec::new(), unverified: UnverifiedEmail::Refuse }
}

fn issuers(keys: &Keys, rules: Vec<IssuerRule>) -> (Issuers, Arc<Source>) {
    let source = Arc::new(Source { keys: Mutex::new(Some(keys.set())), asked: AtomicUsize::new(0) });
    let shared: Arc<dyn KeySource> = source.clone();
    let issuers = Issuers::new(rules, |_| Ok::<_, StartRefusal>(Arc::clone(&shared))).unwrap();
    (issuers, source)
}

async fn prove(issuers: &Issuers, token: &str) -> Result<ProvenIdentity, OidcError> {
    issuers.prove(&issuers.verify(token, Duration::from_secs(1)).await?, UnixTime(NOW))
}

#[tokio::test]
async fn both_algorithms_prove_the_address() {
    let keys = Keys::new();
    let (issuers, _) = issuers(&keys, vec![rule("sigstore", "keyless", email())]);
    let rs256 = keys.sign(&json!({ "alg": "RS256", "kid": "r" }), &claims().to_string());
    let without_kid = keys.sign(&json!({ "alg": "ES256" }), &claims().to_string());
    for token in [keys.token(&claims()), rs256, without_kid] {
        let proven = prove(&issuers, &token).await.unwrap();
        assert_eq!(proven.subject().identity.as_str(), "dev@example.org");
        assert_eq!(proven.subject().challenge, "dev@example.org");
        assert_eq!((proven.issuer(), proven.profile()), (ISSUER, "keyless"));
        let evidence = proven.evidence().to_string();
        assert!(evidence.contains("user-1") && !evidence.contains(token.as_str()), "{evidence}");
    }
}

#[tokio::test]
async fn whatever_is_wrong_with_a_token_has_its_own_code() {
    let keys = Keys::new();
    let other = Keys::new();
    let (issuers, source) = issuers(&keys, vec![rule("sigstore", "keyless", email())]);
    let good = keys.token(&claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let text = claims().to_string();
    let header_of = |header: Value| keys.sign(&header, &text);
    let twice = text.replacen("\"email\":", "\"email\":\"boss@example.org\",\"email\":", 1);
    let cases: Vec<(&str, String, &str)> = vec![
        ("empty", String::new(), "token_malformed"),
        ("two parts", signed.to_owned(), "token_malformed"),
        ("five parts", format!("{good}.AA.AA"), "token_malformed"),
        ("padding", format!("{signed}.{signature}=="), "token_malformed"),
        ("too long", format!("{good}{}", "A".repeat(ca_pki::jws::MAX_TOKEN)), "token_malformed"),
        ("none", format!("{}.{payload}.", b64(r#"{"alg":"none"}"#)), "token_algorithm"),
        (
            "shared secret",
            format!("{}.{payload}.{signature}", b64(r#"{"alg":"HS256","kid":"p"}"#)),
            "token_algorithm",
        ),
        ("no algorithm", format!("{}.{payload}.{signature}", b64("{}")), "token_malformed"),
        (
            "critical extension",
            header_of(json!({ "alg": "ES256", "kid": "p", "crit": ["x"], "x": 1 })),
            "token_malformed",
        ),
        (
            "unencoded payload",
            header_of(json!({ "alg": "ES256", "kid": "p", "b64": false })),
            "token_malformed",
        ),
        ("another algorithm's key", header_of(json!({ "alg": "ES256", "kid": "r" })), "token_key_unknown"),
        ("unknown key", header_of(json!({ "alg": "ES256", "kid": "q" })), "token_key_unknown"),
        (
            "a key that the token brings along",
            other.sign(&json!({ "alg": "ES256", "kid": "p", "jwk": other.jwk_p("p") }), &text),
            "token_signature",
        ),
        ("another's signature", other.token(&claims()), "token_signature"),
        (
            "another's payload",
            format!("{header}.{}.{signature}", b64(with("sub", json!("x")).to_string())),
            "token_signature",
        ),
        ("empty signature", format!("{signed}."), "token_malformed"),
        ("signature of zeros", format!("{signed}.{}", b64([0; 64])), "token_signature"),
        ("claims twice", keys.sign(&json!({ "alg": "ES256", "kid": "p" }), &twice), "token_malformed"),
        ("not JSON", keys.sign(&json!({ "alg": "ES256", "kid": "p" }), "dev@example.org"), "token_malformed"),
        (
            "another issuer",
            keys.token(&with("iss", json!("https://evil.example.org"))),
            "token_issuer_unknown",
        ),
        (
            "issuer with a slash",
            keys.token(&with("iss", json!(format!("{ISSUER}/")))),
            "token_issuer_unknown",
        ),
        ("another audience", keys.token(&with("aud", json!("sigstore2"))), "token_audience"),
        ("other audiences", keys.token(&with("aud", json!(["a", "b"]))), "token_audience"),
        ("no audience", keys.token(&with("aud", Value::Null)), "token_malformed"),
        ("no expiry", keys.token(&with("exp", Value::Null)), "token_malformed"),
        ("no subject", keys.token(&with("sub", Value::Null)), "token_malformed"),
        ("empty subject", keys.token(&with("sub", json!(""))), "token_malformed"),
        ("subject with a line end", keys.token(&with("sub", json!("a\nb"))), "token_malformed"),
        ("expired", keys.token(&with("exp", json!(NOW - claims::CLOCK_SKEW))), "token_expired"),
        ("not begun", keys.token(&with("nbf", json!(NOW + claims::CLOCK_SKEW + 1))), "token_not_yet_valid"),
        ("made later", keys.token(&with("iat", json!(NOW + claims::CLOCK_SKEW + 1))), "token_not_yet_valid"),
        ("expiry as text", keys.token(&with("exp", json!("2000000000"))), "token_malformed"),
        ("expiry beyond all dates", keys.token(&with("exp", json!(1e300))), "token_malformed"),
        ("no address", keys.token(&with("email", Value::Null)), "token_claim_missing"),
        ("unverified", keys.token(&with("email_verified", json!(false))), "email_not_verified"),
        ("unverified in words", keys.token(&with("email_verified", json!("false"))), "email_not_verified"),
        ("not known to be verified", keys.token(&with("email_verified", Value::Null)), "email_not_verified"),
        ("two addresses", keys.token(&with("email", json!("a@b.org,c@d.org"))), "identity_not_allowed"),
        ("no address in it", keys.token(&with("email", json!("root"))), "identity_not_allowed"),
    ];
    for (what, token, code) in cases {
        assert_eq!(prove(&issuers, &token).await.map(|_| ()).unwrap_err().code(), code, "{what}");
    }
    // One look for the first token, one for the unknown key; nobody else made the CA ask.
    assert_eq!(source.asked.load(Ordering::SeqCst), 1);
    let nobody = Issuers::default();
    assert_eq!(prove(&nobody, &good).await.unwrap_err(), OidcError::IssuerUnknown);
}

#[tokio::test]
async fn times_are_compared_with_a_little_slack_and_no_more() {
    let keys = Keys::new();
    let (issuers, _) = issuers(&keys, vec![rule("sigstore", "keyless", email())]);
    for claims in [
        with("exp", json!(NOW - claims::CLOCK_SKEW + 1)),
        with("exp", json!(NOW as f64 + 0.5)),
        with("nbf", json!(NOW + claims::CLOCK_SKEW)),
        with("iat", json!(NOW + claims::CLOCK_SKEW)),
        with("nbf", Value::Null),
        with("email_verified", json!("true")),
        with("aud", json!(["other", "sigstore"])),
    ] {
        prove(&issuers, &keys.token(&claims)).await.unwrap();
    }
}

#[tokio::test]
async fn the_first_section_whose_audience_fits_decides() {
    let keys = Keys::new();
    let only_here =
        IdentityKind::Email { domains: vec!["example.org".to_owned()], unverified: UnverifiedEmail::Accept };
    let rules = vec![rule("developers", "developer", only_here), rule("sigstore", "keyless", email())];
    let (issuers, source) = issuers(&keys, rules);
    let profile = async |claims: &Value| {
        prove(&issuers, &keys.token(claims)).await.map(|proven| proven.profile().to_owned())
    };
    assert_eq!(profile(&claims()).await.unwrap(), "keyless");
    assert_eq!(profile(&with("aud", json!("developers"))).await.unwrap(), "developer");
    assert_eq!(profile(&with("aud", json!(["sigstore", "developers"]))).await.unwrap(), "developer");
    let mut elsewhere = with("aud", json!(["sigstore", "developers"]));
    elsewhere["email"] = json!("dev@sub.example.org");
    // A refusal of the section that decides is final: the next one is not tried.
    assert_eq!(profile(&elsewhere).await.unwrap_err(), OidcError::IdentityNotAllowed);
    let mut unverified = with("aud", json!("developers"));
    unverified["email_verified"] = json!(false);
    assert_eq!(profile(&unverified).await.unwrap(), "developer");
    assert_eq!(source.asked.load(Ordering::SeqCst), 1, "sections of one issuer share its keys");
}

#[tokio::test]
async fn keys_are_asked_for_when_they_are_needed_and_not_more_often() {
    let keys = Keys::new();
    let (issuers, source) = issuers(&keys, vec![rule("sigstore", "keyless", email())]);
    let asked = || source.asked.load(Ordering::SeqCst);
    let unknown = keys.sign(&json!({ "alg": "ES256", "kid": "new" }), &claims().to_string());
    let good = keys.token(&claims());
    let at = async |token: &str, at: Duration| issuers.verify(token, at).await.map(drop);
    let start = Duration::from_secs(10);
    at(&good, start).await.unwrap();
    for _ in 0..20 {
        assert_eq!(at(&unknown, start).await, Err(TokenRefusal::KeyUnknown.into()));
    }
    assert_eq!(asked(), 1);
    assert_eq!(at(&unknown, start + PAUSE).await, Err(TokenRefusal::KeyUnknown.into()));
    assert_eq!(asked(), 2);
    // The issuer gets a new key: found by its name, without waiting for the old ones to age.
    let set = json!({ "keys": [keys.jwk_p("new")] }).to_string();
    *source.keys.lock().unwrap() = Some(parse_key_set(set.as_bytes()).unwrap());
    let fetched = start + PAUSE * 2;
    at(&unknown, fetched).await.unwrap();
    assert_eq!(at(&good, fetched).await, Err(TokenRefusal::KeyUnknown.into()), "the old key was withdrawn");
    // An outage: what is kept serves for an hour, and no longer.
    *source.keys.lock().unwrap() = None;
    at(&unknown, fetched + REFRESH_AFTER).await.unwrap();
    at(&unknown, fetched + KEEP_FOR - Duration::from_millis(1)).await.unwrap();
    let gone = at(&unknown, fetched + KEEP_FOR).await.unwrap_err();
    assert_eq!(gone.code(), "issuer_unavailable");
}

#[test]
fn unusable_keys_are_left_out_and_unusable_sets_refused() {
    let keys = Keys::new();
    let count = |set: Value| parse_key_set(set.to_string().as_bytes()).map(|keys| keys.len());
    let changed = |mut key: Value, name: &str, value: Value| {
        key[name] = value;
        key
    };
    let (p, r) = (keys.jwk_p("p"), keys.jwk_r("r"));
    for unusable in [
        changed(p.clone(), "use", json!("enc")),
        changed(p.clone(), "alg", json!("ES384")),
        changed(p.clone(), "crv", json!("P-384")),
        changed(p.clone(), "d", json!("AA")),
        changed(p.clone(), "x", json!("AAAA")),
        changed(r.clone(), "alg", json!("PS256")),
        changed(r.clone(), "n", json!(b64([0xff; 128]))),
        changed(r.clone(), "n", json!(b64([0xff; 1025]))),
        changed(r.clone(), "n", json!(STANDARD.encode([0xff; 256]))),
        json!({ "kty": "oct", "k": "AA" }),
    ] {
        assert_eq!(count(json!({ "keys": [unusable, r] })), Ok(1), "{unusable}");
    }
    assert_eq!(count(json!({ "keys": vec![p.clone(); 64] })), Ok(64));
    assert!(count(json!({ "keys": vec![p; 65] })).is_err());
    assert!(count(json!([])).is_err());
}

fn job() -> Value {
    json!({
        "iss": ISSUER, "aud": "sigstore", "sub": "repo:o/r:ref:refs/heads/main", "iat": NOW, "exp": NOW + 300,
        "job_workflow_ref": "o/r/.github/workflows/ci.yml@refs/heads/main", "job_workflow_sha": "aa",
        "event_name": "push", "sha": "bb", "workflow": "CI", "repository": "o/r", "ref": "refs/heads/main",
        "runner_environment": "github-hosted", "repository_id": "7", "repository_owner": "o", "repository_owner_id": "8",
        "workflow_ref": "o/r/.github/workflows/ci.yml@refs/heads/main", "workflow_sha": "cc", "run_id": "9",
        "run_attempt": "1", "repository_visibility": "public",
    })
}

#[tokio::test]
async fn a_ci_job_is_named_by_its_workflow_and_described_by_extensions() {
    let keys = Keys::new();
    let kind = IdentityKind::GithubWorkflow { url: "https://github.com".to_owned() };
    let (issuers, _) = issuers(&keys, vec![rule("sigstore", "keyless", kind)]);
    let proven = prove(&issuers, &keys.token(&job())).await.unwrap();
    let subject = proven.subject();
    let workflow = "https://github.com/o/r/.github/workflows/ci.yml@refs/heads/main";
    assert_eq!(subject.identity.as_str(), workflow);
    assert_eq!(subject.challenge, "repo:o/r:ref:refs/heads/main");
    let value =
        |oid| subject.extensions.iter().find(|(each, _)| *each == oid).map(|(_, value)| value.as_str());
    assert_eq!(value(sigstore::WORKFLOW_TRIGGER), Some("push"));
    assert_eq!(value(sigstore::BUILD_SIGNER_URI), Some(workflow));
    assert_eq!(value(sigstore::SOURCE_REPOSITORY_URI), Some("https://github.com/o/r"));
    assert_eq!(value(sigstore::RUN_INVOCATION_URI), Some("https://github.com/o/r/actions/runs/9/attempts/1"));
    assert_eq!(value(sigstore::REPOSITORY_VISIBILITY), Some("public"));
    let last_arc = |oid: &ca_pki::oid::ObjectIdentifier| oid.arcs().last().unwrap();
    assert!(subject.extensions.is_sorted_by(|(a, _), (b, _)| last_arc(a) < last_arc(b)));
    for (name, value, code) in [
        ("job_workflow_ref", Value::Null, "token_claim_missing"),
        ("repository", json!(""), "token_claim_missing"),
        ("run_id", json!(9), "token_malformed"),
        ("workflow", json!("a\u{7}b"), "token_malformed"),
        ("workflow", json!("w".repeat(2000)), "token_malformed"),
        ("job_workflow_ref", json!("o/r x"), "identity_not_allowed"),
    ] {
        let mut job = job();
        job[name] = value;
        assert_eq!(prove(&issuers, &keys.token(&job)).await.unwrap_err().code(), code, "{name}");
    }
}

#[tokio::test]
async fn a_job_gets_a_certificate_by_what_its_section_demands_and_that_is_recorded() {
    let keys = Keys::new();
    let demanded = json!({ "repository": ["org/repo"], "environment": ["release"] });
    let claims = Demands::new(&serde_json::from_value(demanded).unwrap()).unwrap();
    let github = IdentityKind::GithubWorkflow { url: "https://github.com".to_owned() };
    let (issuers, _) = issuers(&keys, vec![IssuerRule { claims, ..rule("sigstore", "keyless", github) }]);
    let mut job = job();
    (job["repository"], job["environment"]) = (json!("org/repo"), json!("release"));
    let proven = prove(&issuers, &keys.token(&job)).await.unwrap();
    assert_eq!(proven.evidence()["claims"], json!({ "repository": "org/repo", "environment": "release" }));
    for (name, value) in [("repository", "org/other"), ("environment", "staging")] {
        let mut job = job.clone();
        job[name] = json!(value);
        let refusal = prove(&issuers, &keys.token(&job)).await.unwrap_err();
        assert_eq!(
            (refusal.code(), &refusal),
            ("token_claim_not_allowed", &OidcError::ClaimNotAllowed(name.to_owned()))
        );
    }
}

#[tokio::test]
async fn pipelines_and_subjects_stay_below_their_configured_place() {
    let keys = Keys::new();
    let gitlab = IdentityKind::GitlabPipeline { url: "https://gitlab.com".to_owned() };
    let uri = IdentityKind::Uri { prefix: "spiffe://example.org/".to_owned() };
    let (issuers, _) =
        issuers(&keys, vec![rule("sigstore", "keyless", gitlab), rule("workloads", "keyless", uri)]);
    let pipeline = |config: &str| {
        json!({
            "iss": ISSUER, "aud": "sigstore", "sub": "project_path:g/p", "exp": NOW + 60, "ci_config_ref_uri": config,
            "project_path": "g/p", "job_id": "5", "ref": "main", "ref_type": "branch", "namespace_path": "g",
        })
    };
    let proven = prove(&issuers, &keys.token(&pipeline("gitlab.com/g/p//.gitlab-ci.yml@refs/heads/main")))
        .await
        .unwrap();
    assert_eq!(proven.subject().identity.as_str(), "https://gitlab.com/g/p//.gitlab-ci.yml@refs/heads/main");
    assert!(
        proven
            .subject()
            .extensions
            .contains(&(sigstore::SOURCE_REPOSITORY_REF, "refs/heads/main".to_owned()))
    );
    let elsewhere = keys.token(&pipeline("gitlab.com.evil.org/g/p"));
    assert_eq!(prove(&issuers, &elsewhere).await.unwrap_err(), OidcError::IdentityNotAllowed);
    let workload = |sub: &str| json!({ "iss": ISSUER, "aud": "workloads", "sub": sub, "exp": NOW + 60 });
    let proven = prove(&issuers, &keys.token(&workload("spiffe://example.org/ci"))).await.unwrap();
    assert_eq!(proven.subject().challenge, "spiffe://example.org/ci");
    let elsewhere = keys.token(&workload("spiffe://example.organised/ci"));
    assert_eq!(prove(&issuers, &elsewhere).await.unwrap_err(), OidcError::IdentityNotAllowed);
}

/// By any of the sections that it fits, in whatever order they come, and whatever its certificate's name comes from.
#[tokio::test]
async fn whoever_started_a_job_is_known_by_every_section_of_jobs() {
    let keys = Keys::new();
    let uri = || IdentityKind::Uri { prefix: "repo:org/".to_owned() };
    let jobs = IssuerRule { bearers: Bearers::Jobs, ..rule("jobs", "keyless", uri()) };
    let people = rule("people", "keyless", uri());
    let said = |audiences: &[&str], actor: Value| {
        json!({ "iss": ISSUER, "aud": audiences, "sub": "repo:org/x:ref:refs/heads/main", "exp": NOW + 60,
                "actor": actor, "user_email": "alice@example.org", "user_login": "alice" })
    };
    for rules in [[jobs.clone(), people.clone()], [people, jobs]] {
        let (issuers, _) = issuers(&keys, rules.to_vec());
        let names = async |audiences: &[&str]| {
            let proven = prove(&issuers, &keys.token(&said(audiences, json!("al")))).await.unwrap();
            proven.names().to_vec()
        };
        assert_eq!(names(&["jobs"]).await, ["al", "alice@example.org", "alice"]);
        assert_eq!(names(&["jobs", "people"]).await, ["al", "alice@example.org", "alice"]);
        assert!(names(&["people"]).await.is_empty(), "elsewhere the same claims mean anything or nothing");
        let unreadable = keys.token(&said(&["jobs"], json!({ "login": "al" })));
        assert_eq!(prove(&issuers, &unreadable).await.unwrap_err().code(), "token_malformed");
    }
}
