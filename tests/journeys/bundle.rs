//! `sign-bundle` and `verify-bundle`: the command-line protocol of Sigstore's conformance suite, in the forms in which the
//! suite calls a client. The identity token is redeemed by a stand-in for the one interface that the stack does not have,
//! which asks the stack's own authority for the certificate.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mentat_tests::command::{Finished, mentatctl};
use mentat_tests::stack::Stack;
use serde_json::{Value, json};

/// A token as an identity provider makes it; nobody here verifies its signature.
fn identity_token(email: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "iss": "https://id.example", "aud": "sigstore", "sub": email, "email": email, "email_verified": true });
    format!("{}.{}.c2ln", part(&json!({ "alg": "RS256" })), part(&claims))
}

/// Answers `POST /api/v2/signingCert`: the token is one that was made for the stack's authority, in a disguise.
fn fulcio(authority: String, redeem: impl Fn(&str) -> Option<String> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (head, body) = request(&mut stream);
            let bearer = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("authorization")
                    .then(|| value.strip_prefix("Bearer ").map(str::to_owned))?
            });
            let token = bearer.as_deref().and_then(&redeem);
            let (status, answer) = match (head.starts_with("POST /api/v2/signingCert "), token) {
                (true, Some(token)) => ("200 OK", certificate(&authority, &token, &body)),
                (true, None) => {
                    ("400 Bad Request", json!({ "code": 3, "message": "bad token", "details": [] }))
                }
                (false, _) => ("404 Not Found", Value::Null),
            };
            let answer = answer.to_string();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                answer.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), answer.as_bytes()].concat());
        }
    });
    url
}

fn request(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length: ").map(|length| length.parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or_default()];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

fn certificate(authority: &str, token: &str, body: &[u8]) -> Value {
    let asked: Value = serde_json::from_slice(body).unwrap();
    let csr = STANDARD.decode(asked["certificateSigningRequest"].as_str().unwrap()).unwrap();
    let csr = String::from_utf8(csr).unwrap();
    assert!(
        csr.starts_with("-----BEGIN CERTIFICATE REQUEST-----"),
        "base64 of PEM, as the interface wants it"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let issued: Value = runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let enrol = json!({ "token": token, "csr": csr });
        let url = format!("{authority}/api/v1/certificates");
        client.post(url).json(&enrol).send().await.unwrap().json().await.unwrap()
    });
    let certificates: Vec<Value> =
        std::iter::once(&issued["certificate"]).chain(issued["chain"].as_array().unwrap()).cloned().collect();
    json!({ "signedCertificateEmbeddedSct": { "chain": { "certificates": certificates } } })
}

struct Scene {
    dir: tempfile::TempDir,
    stack: Stack,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stack = Stack::up(&dir.path().join("stack"));
        fs::write(dir.path().join("artifact"), "an artifact\n").unwrap();
        Self { dir, stack }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// A signing configuration whose certificate authority redeems this one token.
    fn configure(&self, token: String, email: &str) {
        let one_time =
            self.stack.ctl(&["--json", "pki", "token", "create", "--email", email]).success().json();
        let one_time = one_time["token"].as_str().unwrap().to_owned();
        let url = fulcio(self.stack.text("/ca/url"), move |given| (given == token).then(|| one_time.clone()));
        let text = fs::read_to_string(self.stack.text("/signing_config")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["caUrls"][0]["url"] = url.into();
        fs::write(self.path("signing_config.json"), config.to_string()).unwrap();
    }

    /// A client without defaults, as the suite runs it.
    fn client(&self, args: &[&str]) -> Finished {
        mentatctl(&self.dir.path().join("home"), args)
    }

    fn sign(&self, token: &str, more: &[&str], file: &str) -> Finished {
        let (root, config) = (self.stack.text("/trusted_root"), self.path("signing_config.json"));
        let bundle = self.path("bundle.json");
        let mut args = vec!["sign-bundle", "--identity-token", token, "--bundle", &bundle];
        args.extend(["--trusted-root", &root, "--signing-config", &config]);
        args.extend_from_slice(more);
        args.push(file);
        self.client(&args)
    }

    fn verify(&self, identity: &str, issuer: &str, artifact: &str) -> Finished {
        let (root, bundle) = (self.stack.text("/trusted_root"), self.path("bundle.json"));
        let mut args = vec!["verify-bundle", "--bundle", &bundle];
        args.extend(["--certificate-identity", identity, "--certificate-oidc-issuer", issuer]);
        args.extend(["--trusted-root", &root, artifact]);
        self.client(&args)
    }
}

#[test]
fn bundles_are_signed_and_verified_by_the_protocol_of_the_conformance_suite() {
    let scene = Scene::new();
    let (artifact, other) = (scene.path("artifact"), scene.path("other"));
    fs::write(&other, "another artifact\n").unwrap();
    let issuer = scene.stack.text("/ca/url");
    let token = identity_token("ci@example.com");
    scene.configure(token.clone(), "ci@example.com");
    let refused = scene.sign("no token at all", &[], &artifact).refused(1, "bad token");
    assert!(!refused.stderr.contains("no token at all"), "a token is a secret: {}", refused.stderr);
    assert!(!Path::new(&scene.path("bundle.json")).exists());
    scene.sign(&token, &["--staging"], &artifact).success();

    scene.verify("ci@example.com", &issuer, &artifact).success();
    let digest = "sha256:c0a8a0ea0ed1efd0d65ad0ef1f3dd7d7a6d5b0e2ae7ae7f1fbb0a9ab0b0e7b1f";
    scene.verify("ci@example.com", &issuer, digest).refused(3, "digest_mismatch");
    let digest = sha256("an artifact\n");
    scene.verify("ci@example.com", &issuer, &digest).success();
    scene.verify("ci@example.com", &issuer, &other).refused(3, "digest_mismatch");
    scene.verify("cd@example.com", &issuer, &artifact).refused(3, "identity_denied");
    scene.verify("ci@example.com", "https://elsewhere.example", &artifact).refused(3, "identity_denied");
    scene.verify("*@example.com", &issuer, &artifact).refused(2, "no star");
    scene.verify("ci@example.com", &issuer, &scene.path("none")).refused(2, "none");
    // Half an identity, both kinds of signer, none.
    let bundle = scene.path("bundle.json");
    for args in [
        vec!["verify-bundle", "--bundle", &bundle, &artifact],
        vec!["verify-bundle", "--bundle", &bundle, "--certificate-identity", "ci@example.com", &artifact],
        vec!["verify-bundle", "--certificate-identity", "a", "--certificate-oidc-issuer", "b", &artifact],
        vec![
            "verify-bundle",
            "--bundle",
            &bundle,
            "--key",
            &other,
            "--certificate-identity",
            "a",
            "--certificate-oidc-issuer",
            "b",
            &artifact,
        ],
        vec!["sign-bundle", "--bundle", &bundle, &artifact],
    ] {
        assert_eq!(scene.client(&args).code, 2, "{args:?}");
    }
    // What was altered is not verified, and is no crash.
    let genuine = fs::read_to_string(&bundle).unwrap();
    for (altered, reason) in [
        (genuine.replacen("messageSignature", "messageSignatur", 1), "malformed"),
        (genuine[..genuine.len() / 2].to_owned(), "malformed"),
        (genuine.replacen("\"integratedTime\":\"0\"", "\"integratedTime\":\"0\",\"x\":1", 1), "malformed"),
    ] {
        fs::write(&bundle, altered).unwrap();
        scene.verify("ci@example.com", &issuer, &artifact).refused(3, reason);
    }
}

#[test]
fn in_toto_statements_are_signed_as_they_are() {
    let scene = Scene::new();
    let artifact = scene.path("artifact");
    let digest = sha256("an artifact\n");
    let issuer = scene.stack.text("/ca/url");
    let token = identity_token("ci@example.com");
    scene.configure(token.clone(), "ci@example.com");
    let statement = scene.path("statement.json");
    // Not canonical on purpose: the bytes are the signer's.
    let written = format!(
        "{{ \"_type\": \"https://in-toto.io/Statement/v1\", \"subject\": [ {{\"name\": \"artifact\", \"digest\": {{\"sha256\": \
         \"{}\"}}}} ],\n \"predicateType\": \"https://slsa.dev/provenance/v1\", \"predicate\": {{\"b\": 1.5, \"a\": null}} }}\n",
        digest.trim_start_matches("sha256:")
    );
    fs::write(&statement, &written).unwrap();
    scene.sign(&token, &["--in-toto"], &artifact).refused(2, "artifact");
    scene.sign(&token, &["--in-toto"], &statement).success();
    let bundle: Value =
        serde_json::from_str(&fs::read_to_string(scene.path("bundle.json")).unwrap()).unwrap();
    let payload = STANDARD.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
    assert_eq!(String::from_utf8(payload).unwrap(), written);
    scene.verify("ci@example.com", &issuer, &artifact).success();
    scene.verify("ci@example.com", &issuer, &statement).refused(3, "digest_mismatch");
}

fn sha256(content: &str) -> String {
    let digest = trust_store::ArtifactDigest::of(content.as_bytes());
    let hex: String = digest.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
