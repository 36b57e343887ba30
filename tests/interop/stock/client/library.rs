//! sigstore-rust and sigstore-java: small programs around the libraries, which read their trust out of the environment.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::{Claim, Payload, Scene, Trust};
use super::{Client, run};

/// Says where trust comes from, and who signs.
fn told<'a>(scene: &Scene, command: &'a mut Command) -> &'a mut Command {
    if scene.trust == Trust::Repository {
        command
            .env("TUF_URL", scene.stack.text("/tuf/url"))
            .env("TUF_ROOT_FILE", scene.stack.text("/tuf/root"));
    }
    command.env("SIGNING_CONFIG", scene.stack.text("/signing_config"));
    command.env("TRUSTED_ROOT", scene.stack.text("/trusted_root"))
}

fn sign(scene: &Scene, mut command: Command, payload: Payload, bundle: &Path) -> Result<(), String> {
    match payload {
        Payload::Blob => command.args(["sign", "blob"]).arg(scene.artifact()),
        Payload::Statement => command.args(["sign", "statement"]).arg(scene.path("statement.json")),
    };
    command.arg(bundle).env("SIGSTORE_ID_TOKEN", scene.token());
    run(scene, told(scene, &mut command))
}

fn verify(scene: &Scene, mut command: Command, claim: &Claim<'_>) -> Result<(), String> {
    command.arg("verify").arg(claim.artifact).arg(claim.bundle).args([claim.email, &scene.issuer()]);
    run(scene, told(scene, &mut command))
}

/// The crates `sigstore-sign` and `sigstore-verify`: the program of `tests/interop/sigstore-rs`.
pub(super) struct Rust(PathBuf);

impl Rust {
    pub(super) fn found() -> Option<Self> {
        let given = std::env::var_os("MENTAT_SIGSTORE_RS").map(PathBuf::from);
        let found = given.filter(|path| path.is_file());
        if found.is_none() {
            mentat_tests::skip::skipped(
                "no stock-sigstore-rs (cargo build --manifest-path tests/interop/sigstore-rs/Cargo.toml; \
                 MENTAT_SIGSTORE_RS=FILE)",
            );
        }
        found.map(Self)
    }
}

impl Client for Rust {
    fn name(&self) -> &'static str {
        "sigstore-rust"
    }

    fn sign(&self, scene: &Scene, payload: Payload, bundle: &Path) -> Result<(), String> {
        sign(scene, Command::new(&self.0), payload, bundle)
    }

    fn verify(&self, scene: &Scene, claim: &Claim<'_>) -> Result<(), String> {
        verify(scene, Command::new(&self.0), claim)
    }
}

/// `dev.sigstore:sigstore-java` with everything that it needs, in one folder.
pub(super) struct Java(PathBuf);

impl Java {
    pub(super) fn found() -> Option<Self> {
        let given = std::env::var_os("MENTAT_JAVA_LIB").map(PathBuf::from);
        let there = |folder: &PathBuf| {
            let files = std::fs::read_dir(folder).ok()?;
            let mut names = files.flatten().map(|file| file.file_name());
            names.find(|name| name.to_string_lossy().starts_with("sigstore-java-"))
        };
        let found = given.filter(|folder| there(folder).is_some());
        if found.is_none() {
            mentat_tests::skip::skipped(
                "no sigstore-java (mvn dependency:copy-dependencies, docs/interop.md; MENTAT_JAVA_LIB=FOLDER)",
            );
        }
        found.map(Self)
    }

    /// `java Stock.java`, with the stack's TLS authority among those that the virtual machine trusts.
    fn command(&self, scene: &Scene) -> Result<Command, String> {
        let mut command = Command::new("java");
        if let Some(authority) = scene.tls_authority() {
            let store = scene.path("java-trust.p12");
            if !store.is_file() {
                let mut import = Command::new("keytool");
                import.args(["-importcert", "-noprompt", "-alias", "stack", "-storetype", "PKCS12"]);
                import.args(["-storepass", "changeit", "-file", &authority, "-keystore"]).arg(&store);
                run(scene, &mut import)?;
            }
            command.arg(format!("-Djavax.net.ssl.trustStore={}", store.display()));
            command.args(["-Djavax.net.ssl.trustStorePassword=changeit"]);
        }
        command.arg("-cp").arg(format!("{}/*", self.0.display()));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/stock/Stock.java"));
        Ok(command)
    }
}

impl Client for Java {
    fn name(&self) -> &'static str {
        "sigstore-java"
    }

    /// `KeylessVerifier.checkDsseEnvelope` of release 2.0 reads the entry of a statement as one of type `dsse`, 0.0.1 or 0.0.2, which
    /// logs and the other clients have given up. It signs statements all the same: the log re-encodes its request.
    fn verifies(&self, payload: Payload) -> bool {
        payload == Payload::Blob
    }

    /// Its half for certificates is gRPC over TLS and nothing else.
    fn signs(&self, scene: &Scene) -> bool {
        scene.tls_authority().is_some()
    }

    fn sign(&self, scene: &Scene, payload: Payload, bundle: &Path) -> Result<(), String> {
        sign(scene, self.command(scene)?, payload, bundle)
    }

    fn verify(&self, scene: &Scene, claim: &Claim<'_>) -> Result<(), String> {
        verify(scene, self.command(scene)?, claim)
    }
}
