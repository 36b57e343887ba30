//! `sign-bundle` and `verify-bundle`: the command-line protocol of Sigstore's conformance suite, in the forms in which the
//! suite calls a client, against the stack alone: its development issuer vouches, its authority redeems the token.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mentat_tests::command::{Finished, mentatctl};
use mentat_tests::stack::Stack;
use serde_json::Value;

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

    /// A token of the stack's development issuer.
    fn token(&self, email: &str) -> String {
        self.stack.ctl(&["pki", "identity-token", "--email", email]).success().stdout.trim().to_owned()
    }

    /// A client without defaults, as the suite runs it.
    fn client(&self, args: &[&str]) -> Finished {
        mentatctl(&self.dir.path().join("home"), args)
    }

    fn sign(&self, token: &str, more: &[&str], file: &str) -> Finished {
        let (root, config) = (self.stack.text("/trusted_root"), self.stack.text("/signing_config"));
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
    let issuer = scene.stack.text("/oidc/url");
    let token = scene.token("ci@example.com");
    let refused = scene.sign("no token at all", &[], &artifact).refused(1, "malformed");
    assert!(!refused.stderr.contains("no token at all"), "a token is a secret: {}", refused.stderr);
    assert!(!Path::new(&scene.path("bundle.json")).exists());
    scene.sign(&token, &["--staging"], &artifact).success();

    scene.verify("ci@example.com", &issuer, &artifact).success();
    let digest = "sha256:c0a8a0ea0ed1efd0d65ad0ef1f3dd7d7a6d5b0e2ae7ae7f1fbb0a9ab0b0e7b1f";
    scene.verify("ci@example.com", &issuer, digest).refused(3, "digest_mismatch");
    let digest = sha256("an artifact\n");
    scene.verify("ci@example.com", &issuer, &digest).success();
    // By what was signed, the authority finds the certificate: the index is waited for until it covers the log.
    let listed =
        |digest: &str| scene.stack.ctl(&["--json", "pki", "list", "--digest", digest]).success().stdout;
    let found = listed(&digest);
    assert!(found.contains("ci@example.com"), "{found}");
    assert!(!listed(&sha256("another artifact\n")).contains("ci@example.com"));
    scene.stack.ctl(&["pki", "list", "--digest", "sha256:12"]).refused(2, "64 hexadecimal digits");
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
    let issuer = scene.stack.text("/oidc/url");
    let token = scene.token("ci@example.com");
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
