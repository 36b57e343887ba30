//! Fulcio's REST interface as stock clients use it: both forms of a request, both profiles, and every refusal in the form
//! that the clients read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ca_api::{ListQuery, RevocationReason, Revoke};
use ca_pki::oid;
use der::Encode as _;
use fixture::issuer::{FakeIssuer, Said};
use fixture::{Server, Site, csr, der, enrol_request, key};
use rcgen::{KeyPair, PublicKeyData as _, RsaKeySize, SigningKey as _};
use serde_json::{Value, json};
use x509_cert::Certificate;

const EMAIL: &str = "dev@example.org";

struct World {
    issuer: FakeIssuer,
    server: Server,
    site: Site,
}

impl World {
    async fn new() -> Self {
        Self::with(FakeIssuer::start().await).await
    }

    async fn with(issuer: FakeIssuer) -> Self {
        let developers = issuer.section("audience = \"developers\"\nprofile = \"developer\"");
        let sections = developers + &issuer.section("");
        let site = Site::with(&sections).await;
        let server = site.serve().await;
        Self { issuer, server, site }
    }

    async fn post(&self, token: Option<&str>, body: &Value) -> (u16, Value) {
        let mut request =
            self.server.http.post(format!("{}/api/v2/signingCert", self.server.base)).json(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.header("accept", "application/pem-certificate-chain").send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }

    /// A refusal: its message, after its form was checked.
    async fn refused(&self, token: Option<&str>, body: &Value) -> String {
        let (status, answer) = self.post(token, body).await;
        assert_eq!((status, &answer["code"], &answer["details"]), (400, &json!(3), &json!([])), "{answer}");
        answer["message"].as_str().unwrap().to_owned()
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.server.http.get(format!("{}{path}", self.server.base)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }

    async fn finish(self) {
        self.server.finish().await;
    }
}

fn with_csr(key: &KeyPair) -> Value {
    json!({ "certificateSigningRequest": STANDARD.encode(csr(key)) })
}

fn pem_of(key: &KeyPair) -> String {
    ca_pki::pem::encode("PUBLIC KEY", &key.subject_public_key_info()).unwrap()
}

fn with_challenge(key: &KeyPair, challenge: &str) -> Value {
    let proof = STANDARD.encode(key.sign(challenge.as_bytes()).unwrap());
    json!({ "publicKeyRequest": { "publicKey": { "algorithm": "ECDSA", "content": pem_of(key) }, "proofOfPossession": proof } })
}

fn chain(answer: &Value) -> Vec<Vec<u8>> {
    let chain = answer["signedCertificateEmbeddedSct"]["chain"]["certificates"].as_array().unwrap();
    chain.iter().map(|pem| der(pem.as_str().unwrap())).collect()
}

fn extension(certificate: &Certificate, oid: oid::ObjectIdentifier) -> Option<Vec<u8>> {
    let extensions = certificate.tbs_certificate().extensions().unwrap();
    extensions.iter().find(|each| each.extn_id == oid).map(|each| each.extn_value.as_bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_gets_its_certificate_in_its_own_way() {
    let world = World::new().await;
    let token = world.issuer.token(EMAIL);
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let in_body = |mut body: Value| {
        body["credentials"] = json!({ "oidcIdentityToken": token });
        body
    };
    let (one, two, three, four, five) = (key(), key(), key(), key(), key());
    // As sigstore-java writes it: the whole key on one line.
    let mut one_line = with_challenge(&five, EMAIL);
    let body = STANDARD.encode(five.subject_public_key_info());
    one_line["publicKeyRequest"]["publicKey"]["content"] =
        json!(format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----"));
    let snake = json!({
        "credentials": { "oidc_identity_token": token },
        "public_key_request": {
            "public_key": { "algorithm": 2, "content": pem_of(&four) },
            "proof_of_possession": URL_SAFE_NO_PAD.encode(four.sign(EMAIL.as_bytes()).unwrap()),
        },
    });
    for (key, header, body) in [
        (&one, Some(token.as_str()), with_csr(&one)),
        (&two, Some(token.as_str()), with_challenge(&two, EMAIL)),
        (&three, None, in_body(with_challenge(&three, EMAIL))),
        (&p384, Some(token.as_str()), in_body(with_challenge(&p384, EMAIL))),
        (&four, None, snake),
        (&five, Some(token.as_str()), one_line),
    ] {
        let (status, answer) = world.post(header, &body).await;
        assert_eq!(status, 200, "{answer}");
        let chain = chain(&answer);
        assert_eq!(chain.len(), 3, "leaf, intermediate, root");
        let leaf = ca_pki::certificate::parse(&chain[0]).unwrap();
        let tbs = leaf.tbs_certificate();
        assert_eq!(tbs.subject_public_key_info().to_der().unwrap(), key.subject_public_key_info());
        assert!(tbs.subject().is_empty());
        let seconds =
            tbs.validity().not_after.to_unix_duration() - tbs.validity().not_before.to_unix_duration();
        assert_eq!(seconds.as_secs(), 599, "ten minutes, the last second included");
        let issuer = world.issuer.url.as_bytes();
        assert_eq!(extension(&leaf, oid::SIGSTORE_ISSUER_V1).unwrap(), issuer);
        assert_eq!(extension(&leaf, oid::SIGSTORE_ISSUER_V2).unwrap()[2..], *issuer);
        assert!(
            extension(&leaf, oid::SCT_LIST).is_some()
                && extension(&leaf, oid::PRECERTIFICATE_POISON).is_none()
        );
        let name = extension(&leaf, oid::SUBJECT_ALT_NAME).unwrap();
        assert!(name.windows(EMAIL.len()).any(|part| part == EMAIL.as_bytes()));
    }
    assert_eq!(world.issuer.asked.load(Ordering::SeqCst), 1, "the keys are kept");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audience_chooses_the_developers_year() {
    let world = World::new().await;
    let mut claims = world.issuer.claims(EMAIL);
    claims["aud"] = json!(["sigstore", "developers"]);
    let key = key();
    let (status, answer) = world.post(Some(&world.issuer.sign(&claims)), &with_csr(&key)).await;
    assert_eq!(status, 200, "{answer}");
    let leaf = ca_pki::certificate::parse(&chain(&answer)[0]).unwrap();
    let validity = leaf.tbs_certificate().validity();
    let days =
        (validity.not_after.to_unix_duration() - validity.not_before.to_unix_duration()).as_secs() / 86_400;
    assert_eq!(days, 364);
    assert!(!leaf.tbs_certificate().subject().is_empty());
    // It is an ordinary certificate of the CA: listed with its identity, revoked like any other, and its key is burnt.
    let query = ListQuery { identity: Some(EMAIL.to_owned()), ..ListQuery::default() };
    let listed = world.server.admin().list(&query).await.unwrap();
    let serial = &listed.certificates[0].serial;
    let revoke = Revoke { reason: RevocationReason::KeyCompromise, compromised_at: None };
    world.server.admin().revoke(serial, &revoke).await.unwrap();
    let message = world.refused(Some(&world.issuer.token(EMAIL)), &with_csr(&key)).await;
    assert!(message.contains("compromised"), "{message}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_the_form_that_gateways_give_it() {
    let world = World::new().await;
    let good = world.issuer.token(EMAIL);
    let ours = key();
    let wrong_proof = with_challenge(&ours, "boss@example.org");
    let mut foreign_key = with_challenge(&ours, EMAIL);
    foreign_key["publicKeyRequest"]["publicKey"]["content"] = json!(pem_of(&key()));
    let mut both = with_csr(&ours);
    both["publicKeyRequest"] = with_challenge(&ours, EMAIL)["publicKeyRequest"].clone();
    let mut unknown = with_csr(&ours);
    unknown["skipVerification"] = json!(true);
    let mut not_base64 = with_challenge(&ours, EMAIL);
    not_base64["publicKeyRequest"]["proofOfPossession"] = json!("?");
    let mut two_tokens = with_csr(&ours);
    two_tokens["credentials"] = json!({ "oidcIdentityToken": world.issuer.token("boss@example.org") });
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let elsewhere = FakeIssuer::start().await;
    let mut expired = world.issuer.claims(EMAIL);
    expired["exp"] = json!(1_000_000_000);
    for (what, token, body, reason) in [
        ("no token", None, with_csr(&ours), "no identity token"),
        ("two tokens", Some(good.clone()), two_tokens, "different tokens"),
        ("no key", Some(good.clone()), json!({}), "either certificateSigningRequest"),
        ("two keys", Some(good.clone()), both, "either certificateSigningRequest"),
        ("unknown field", Some(good.clone()), unknown, "unknown field"),
        ("proof over another name", Some(good.clone()), wrong_proof, "not signed by the key"),
        ("proof by another key", Some(good.clone()), foreign_key, "not signed by the key"),
        ("proof not base64", Some(good.clone()), not_base64, "not base64"),
        ("short RSA key", Some(good.clone()), with_csr(&rsa), "key not allowed"),
        ("Ed25519 key", Some(good.clone()), with_challenge(&ed25519, EMAIL), "key not allowed"),
        ("not a request", Some(good.clone()), json!({ "certificateSigningRequest": "AAAA" }), "malformed"),
        ("another issuer", Some(elsewhere.token(EMAIL)), with_csr(&ours), "issuer is not configured"),
        ("expired", Some(world.issuer.sign(&expired)), with_csr(&ours), "expired"),
        ("not a token", Some("secret".to_owned()), with_csr(&ours), "malformed"),
    ] {
        let message = world.refused(token.as_deref(), &body).await;
        assert!(message.contains(reason), "{what}: {message}");
    }
    let post = world.server.http.post(format!("{}/api/v2/signingCert", world.server.base));
    let basic =
        post.try_clone().unwrap().basic_auth("a", Some("b")).json(&with_csr(&ours)).send().await.unwrap();
    assert_eq!(basic.status(), 400);
    let large = post.bearer_auth(&good).body("x".repeat(100_000)).send().await.unwrap();
    assert_eq!(large.status(), 400);
    assert_eq!(large.json::<Value>().await.unwrap()["code"], 3);
    assert_eq!(elsewhere.asked.load(Ordering::SeqCst), 0, "nobody is asked whom a stranger names");
    // Nothing of all this left a record.
    let listed = world.server.admin().list(&ListQuery::default()).await.unwrap();
    assert!(listed.certificates.iter().all(|record| record.identity.is_none()), "only the CA's own");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_cannot_be_trusted_about_itself_gives_nobody_a_certificate() {
    for said in [
        Said { issuer: Some("http://127.0.0.1:1".to_owned()), jwks_uri: None, padding: 0 },
        Said { issuer: None, jwks_uri: Some("http://keys.example.org/keys".to_owned()), padding: 0 },
        Said { issuer: None, jwks_uri: Some("file:///etc/passwd".to_owned()), padding: 0 },
        Said { issuer: None, jwks_uri: None, padding: 100_000 },
    ] {
        let world = World::with(FakeIssuer::saying(said).await).await;
        let (status, answer) = world.post(Some(&world.issuer.token(EMAIL)), &with_csr(&key())).await;
        assert_eq!((status, &answer["code"]), (500, &json!(13)), "{answer}");
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_away_is_our_fault_and_the_issuance_is_closed_later() {
    let world = World::new().await;
    world.site.log.set_down(true);
    let (status, answer) = world.post(Some(&world.issuer.token(EMAIL)), &with_csr(&key())).await;
    assert_eq!((status, &answer["code"]), (500, &json!(13)), "{answer}");
    world.site.log.set_down(false);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_another_repository_gets_no_certificate() {
    let issuer = FakeIssuer::start().await;
    let demands = "claims = { repository = [\"acme/agents\"], ref = [\"refs/heads/main\"] }";
    let site = Site::with(&issuer.section(&format!("identity = \"github-workflow\"\n{demands}"))).await;
    let world = World { server: site.serve().await, site, issuer };
    let mut job = world.issuer.claims(EMAIL);
    for (name, value) in [
        ("repository", "acme/agents"),
        ("ref", "refs/heads/main"),
        ("job_workflow_ref", "acme/agents/.github/workflows/sign.yml@refs/heads/main"),
        ("run_id", "1"),
        ("run_attempt", "1"),
    ] {
        job[name] = json!(value);
    }
    let (status, answer) = world.post(Some(&world.issuer.sign(&job)), &with_csr(&key())).await;
    assert_eq!(status, 200, "{answer}");
    for (name, value) in [("repository", "mallory/agents"), ("ref", "refs/pull/1/merge")] {
        let mut other = job.clone();
        other[name] = json!(value);
        let (status, answer) = world.post(Some(&world.issuer.sign(&other)), &with_csr(&key())).await;
        assert_eq!((status, &answer["code"]), (403, &json!(7)), "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(&format!("claim {name}")), "{answer}");
    }
    let metrics = world.server.http.get(format!("{}/metrics", world.server.base)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("mentat_ca_identity_tokens_refused_total 2"), "{metrics}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_and_a_requester_get_so_many_certificates_and_no_more() {
    let issuer = FakeIssuer::start().await;
    let limits = "[enrolment]\nper_identity = { per_hour = 60, burst = 3 }\nper_requester = { per_hour = 60, burst = 2 }\n";
    let site = Site::with(&(issuer.section("") + limits)).await;
    let world = World { server: site.serve().await, site, issuer };
    let asked = async |email: &str, subject: &str| {
        let mut claims = world.issuer.claims(email);
        claims["sub"] = json!(subject);
        let post = world.server.http.post(format!("{}/api/v2/signingCert", world.server.base));
        post.bearer_auth(world.issuer.sign(&claims)).json(&with_csr(&key())).send().await.unwrap()
    };
    let limited = |answer: &reqwest::Response| {
        let seconds: u32 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        answer.status() == 429 && (1..=60).contains(&seconds)
    };
    for _ in 0..2 {
        assert_eq!(asked(EMAIL, "first").await.status(), 200);
    }
    let refused = asked(EMAIL, "first").await;
    assert!(limited(&refused), "{refused:?}");
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], 8);
    // Who has had too many takes nothing from the others of the identity, who have what is left.
    assert_eq!(asked(EMAIL, "second").await.status(), 200);
    assert!(limited(&asked(EMAIL, "second").await));
    assert!(limited(&asked(EMAIL, "third").await));
    assert_eq!(asked("other@example.org", "fourth").await.status(), 200);
    // The same name on another's word is another identity, however it is asked for.
    for _ in 0..3 {
        let token = world.server.token(EMAIL).await;
        world.server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    }
    let token = world.server.token(EMAIL).await;
    let refused = world.server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap_err();
    assert_eq!(refused.code(), Some("rate_limited"), "{refused}");
    // Nothing is recorded of what was refused.
    let listed = world.server.admin().list(&ListQuery::default()).await.unwrap();
    assert_eq!(listed.certificates.iter().filter(|record| record.identity.is_some()).count(), 7);
    let metrics = world.server.http.get(format!("{}/metrics", world.server.base)).send().await.unwrap();
    assert!(metrics.text().await.unwrap().contains("mentat_ca_issuance_limited_total 4"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_and_configuration_are_told() {
    let world = World::new().await;
    let bundle = world.get("/api/v2/trustBundle").await;
    let chains = bundle["chains"].as_array().unwrap();
    assert_eq!(chains.len(), 1);
    let certificates = chains[0]["certificates"].as_array().unwrap();
    let root = ca_pki::certificate::parse(&der(certificates.last().unwrap().as_str().unwrap())).unwrap();
    assert_eq!(certificates.len(), 2);
    assert_eq!(root.tbs_certificate().subject(), root.tbs_certificate().issuer());
    let issuer = |audience: &str| json!({ "issuerUrl": world.issuer.url, "audience": audience, "challengeClaim": "email", "issuerType": "email" });
    let expected = json!({ "issuers": [issuer("developers"), issuer("sigstore")] });
    assert_eq!(world.get("/api/v2/configuration").await, expected);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grpc_form_issues_and_refuses_alike() {
    use ca_service::api::fulcio::grpc::v2;
    use v2::create_signing_certificate_request::Key;

    let world = World::new().await;
    let channel = tonic::transport::Endpoint::from_shared(world.server.base.clone()).unwrap();
    let mut client = v2::ca_client::CaClient::new(channel.connect().await.unwrap());
    let key = key();
    let request = |token: &str, challenge: &str| v2::CreateSigningCertificateRequest {
        credentials: Some(v2::Credentials {
            credentials: Some(v2::credentials::Credentials::OidcIdentityToken(token.to_owned())),
        }),
        key: Some(Key::PublicKeyRequest(v2::PublicKeyRequest {
            public_key: Some(v2::PublicKey { algorithm: 2, content: pem_of(&key) }),
            proof_of_possession: key.sign(challenge.as_bytes()).unwrap(),
        })),
    };
    let token = world.issuer.token(EMAIL);
    let issued = client.create_signing_certificate(request(&token, EMAIL)).await.unwrap().into_inner();
    let Some(v2::signing_certificate::Certificate::SignedCertificateEmbeddedSct(embedded)) =
        issued.certificate
    else {
        panic!("no certificate");
    };
    assert_eq!(embedded.chain.unwrap().certificates.len(), 3);
    let by_csr = v2::CreateSigningCertificateRequest {
        key: Some(Key::CertificateSigningRequest(csr(&key).into_bytes())),
        ..request(&token, EMAIL)
    };
    client.create_signing_certificate(by_csr).await.unwrap();
    for (asked, reason) in [
        (request("", EMAIL), "malformed"),
        (request(&token, "boss@example.org"), "not signed by the key"),
        (v2::CreateSigningCertificateRequest { key: None, ..request(&token, EMAIL) }, "give either"),
        (
            v2::CreateSigningCertificateRequest { credentials: None, ..request(&token, EMAIL) },
            "no identity token",
        ),
    ] {
        let refused = client.create_signing_certificate(asked).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains(reason), "{refused}");
    }
    let bundle = client.get_trust_bundle(v2::GetTrustBundleRequest {}).await.unwrap().into_inner();
    assert_eq!(bundle.chains[0].certificates.len(), 2);
    let issuers =
        client.get_configuration(v2::GetConfigurationRequest {}).await.unwrap().into_inner().issuers;
    assert_eq!((issuers.len(), issuers[0].issuer_type.as_str()), (2, "email"));
    drop(client);
    world.finish().await;
}
