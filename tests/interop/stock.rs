//! Stock Sigstore clients against `mentatctl up`: each signs a blob and a statement, and each verifies what every other one
//! signed. No client is given a flag that switches a check off; each must also refuse another artifact and another identity.
//!
//! Found through `MENTAT_PYTHON` (with the package `sigstore`), `MENTAT_NODE_MODULES` (a `node_modules` folder with
//! `@sigstore/sign`, `@sigstore/verify` and `@sigstore/tuf`, and `sigstore`), `MENTAT_GO_BIN` (a folder with `cosign`, `sigstore-go-signing`,
//! `sigstore-go-verification`), `MENTAT_SIGSTORE_RS` (the program of `tests/interop/sigstore-rs`), `MENTAT_JAVA_LIB` (a folder with
//! `sigstore-java` and what it needs). What is missing is named, and its rows and columns are left out.

mod admitted;
mod client;
mod released;
mod rotated;

use std::fs;
use std::path::{Path, PathBuf};

use mentat_tests::stack::Stack;
use serde_json::json;

use client::Client;

/// Who signs.
pub(crate) const EMAIL: &str = "dev@example.org";

/// What the scene's statement says of its artifact.
pub(crate) const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// What is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Blob,
    /// An in-toto statement about the blob.
    Statement,
}

/// Which certificate the signer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Of a year.
    Developer,
    /// Of ten minutes.
    Keyless,
}

/// How clients learn whom to trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// From files.
    Files,
    /// From a repository of metadata (TUF), by its first root.
    Repository,
}

/// A stack, and something to sign.
pub(crate) struct Scene {
    pub dir: tempfile::TempDir,
    pub stack: Stack,
    pub profile: Profile,
    pub trust: Trust,
}

impl Scene {
    fn new() -> Self {
        Self::with(&[], Trust::Files)
    }

    /// A stack by further arguments of `up`.
    fn with(arguments: &[&str], trust: Trust) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stack = Stack::up_with(&dir.path().join("stack"), arguments);
        let scene = Self { dir, stack, profile: Profile::Keyless, trust };
        fs::write(scene.artifact(), "an artifact\n").unwrap();
        fs::write(scene.path("other"), "another artifact\n").unwrap();
        let digest = trust_store::ArtifactDigest::of(b"an artifact\n");
        let hex: String = digest.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let predicate = json!({
            "buildDefinition": { "buildType": "https://example.org/build", "externalParameters": {} },
            "runDetails": { "builder": { "id": "https://example.org/builder" } },
        });
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1", "subject": [{ "name": "artifact", "digest": { "sha256": hex } }],
            "predicateType": PROVENANCE, "predicate": predicate,
        });
        fs::write(scene.path("predicate.json"), predicate.to_string()).unwrap();
        fs::write(scene.path("statement.json"), statement.to_string()).unwrap();
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn artifact(&self) -> PathBuf {
        self.path("artifact")
    }

    /// A token of the stack's issuer.
    pub(crate) fn token(&self) -> String {
        let mut asked = vec!["pki", "identity-token", "--email", EMAIL];
        if self.profile == Profile::Developer {
            asked.push("--developer");
        }
        self.stack.ctl(&asked).success().stdout.trim().to_owned()
    }

    /// The private authority of the stack's TLS certificates, where it speaks TLS.
    pub(crate) fn tls_authority(&self) -> Option<String> {
        self.stack.json["tls_ca"].as_str().map(str::to_owned)
    }

    pub(crate) fn issuer(&self) -> String {
        self.stack.text("/oidc/url")
    }
}

/// What a client is asked to verify.
pub(crate) struct Claim<'a> {
    pub payload: Payload,
    /// What a statement says of its subject.
    pub predicate_type: &'a str,
    pub bundle: &'a Path,
    pub artifact: &'a Path,
    pub email: &'a str,
}

#[test]
fn stock_clients_sign_and_verify_each_other_and_us() {
    matrix(&Scene::new());
}

#[test]
fn the_same_over_tls_with_a_private_authority_and_trust_from_a_repository() {
    let scene = Scene::with(&["--tls"], Trust::Repository);
    assert!(scene.stack.text("/ca/url").starts_with("https://") && scene.tls_authority().is_some());
    matrix(&scene);
}

/// Every client signs, and every client verifies every bundle.
fn matrix(scene: &Scene) {
    let clients = client::installed();
    let mut rows = Vec::new();
    let mut wrong = Vec::new();
    if scene.trust == Trust::Repository {
        for client in &clients {
            if let Err(said) = client.follow(scene) {
                wrong.push(format!("{} does not follow the repository: {said}", client.name()));
            }
        }
    }
    for payload in [Payload::Blob, Payload::Statement] {
        for signer in clients.iter().filter(|signer| signer.signs(scene)) {
            let bundle = scene.path(&format!("{}-{payload:?}.sigstore.json", signer.name()));
            if let Err(said) = signer.sign(scene, payload, &bundle) {
                wrong.push(format!("{} does not sign a {payload:?}: {said}", signer.name()));
                continue;
            }
            let mut cells = Vec::new();
            for verifier in &clients {
                if !verifier.verifies(payload) {
                    cells.push("-");
                    continue;
                }
                let cell = judge(scene, &**verifier, payload, &bundle);
                cells.push(if cell.is_ok() { "yes" } else { "NO" });
                if let Err(said) = cell {
                    wrong.push(format!("{} by {}, {payload:?}: {said}", signer.name(), verifier.name()));
                }
            }
            rows.push(format!("| {} | {payload:?} | {} |", signer.name(), cells.join(" | ")));
        }
    }
    let names: Vec<&str> = clients.iter().map(|client| client.name()).collect();
    eprintln!("| signed by | what | {} |\n|{}", names.join(" | "), "---|".repeat(names.len() + 2));
    rows.iter().for_each(|row| eprintln!("{row}"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The right claim is verified; another artifact and another identity are not.
fn judge(scene: &Scene, verifier: &dyn Client, payload: Payload, bundle: &Path) -> Result<(), String> {
    let (artifact, other) = (scene.artifact(), scene.path("other"));
    let claim = |artifact, email| Claim { payload, predicate_type: PROVENANCE, bundle, artifact, email };
    verifier.verify(scene, &claim(&artifact, EMAIL))?;
    for (what, wrong) in [
        ("another artifact", claim(&other, EMAIL)),
        ("another identity", claim(&artifact, "boss@example.org")),
    ] {
        if verifier.verify(scene, &wrong).is_ok() {
            return Err(format!("accepts {what}"));
        }
    }
    Ok(())
}
