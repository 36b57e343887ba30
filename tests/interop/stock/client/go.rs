//! sigstore-go and cosign.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::{Claim, Payload, Scene, Trust};
use super::{Client, run};

/// A program of the folder `MENTAT_GO_BIN`, or of the path.
pub(in super::super) fn program(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("MENTAT_GO_BIN").into_iter().chain(std::env::var_os("PATH"));
    let found = folders
        .flat_map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        mentat_tests::skip::skipped(format!("no {name} (go install, docs/interop.md; MENTAT_GO_BIN=DIR)"));
    }
    found
}

/// The example programs of sigstore-go.
pub(super) struct Go {
    pub signing: PathBuf,
    pub verification: PathBuf,
}

impl Client for Go {
    fn name(&self) -> &'static str {
        "sigstore-go"
    }

    fn sign(&self, scene: &Scene, payload: Payload, bundle: &Path) -> Result<(), String> {
        let mut command = Command::new("sh");
        // The program prints its bundle as the last line, after what it did.
        command.args(["-c", "\"$0\" \"$@\" > go.out && grep '^{' go.out | tail -1 > \"$BUNDLE\""]);
        command.env("BUNDLE", bundle).arg(&self.signing);
        command.args(["-id-token", &scene.token(), "-tsa", "-rekor"]);
        // This program signs with files only; its verifying half follows a repository.
        command.args(["-signing-config", &scene.stack.text("/signing_config")]);
        command.args(["-trusted-root", &scene.stack.text("/trusted_root")]);
        match payload {
            Payload::Blob => command.arg(scene.artifact()),
            Payload::Statement => command.arg("-in-toto").arg(scene.path("statement.json")),
        };
        run(scene, &mut command)
    }

    fn verify(&self, scene: &Scene, claim: &Claim<'_>) -> Result<(), String> {
        let mut command = Command::new(&self.verification);
        match scene.trust {
            Trust::Files => command.args(["-trustedrootJSONpath", &scene.stack.text("/trusted_root")]),
            Trust::Repository => {
                command.args(["-tufRootURL", &scene.stack.text("/tuf/url")]);
                command.args(["-tufTrustedRoot", &scene.stack.text("/tuf/root")])
            }
        };
        command.args(["-expectedSAN", claim.email, "-expectedIssuer", &scene.issuer()]);
        run(scene, command.arg("-artifact").arg(claim.artifact).arg(claim.bundle))
    }
}

/// `cosign`.
pub(super) struct Cosign(pub PathBuf);

impl Client for Cosign {
    fn follow(&self, scene: &Scene) -> Result<(), String> {
        let mut command = Command::new(&self.0);
        command.args(["initialize", "--mirror", &scene.stack.text("/tuf/url")]);
        run(scene, command.args(["--root", &scene.stack.text("/tuf/root")]))
    }

    fn name(&self) -> &'static str {
        "cosign"
    }

    fn sign(&self, scene: &Scene, payload: Payload, bundle: &Path) -> Result<(), String> {
        let mut command = Command::new(&self.0);
        command.arg(if payload == Payload::Blob { "sign-blob" } else { "attest-blob" });
        command.args(["--yes", "--identity-token", &scene.token()]);
        if scene.trust == Trust::Files {
            command.args(["--signing-config", &scene.stack.text("/signing_config")]);
            command.args(["--trusted-root", &scene.stack.text("/trusted_root")]);
        }
        command.arg("--bundle").arg(bundle);
        match payload {
            Payload::Blob => command.arg(scene.artifact()),
            Payload::Statement => command.arg("--statement").arg(scene.path("statement.json")),
        };
        run(scene, &mut command)
    }

    fn verify(&self, scene: &Scene, claim: &Claim<'_>) -> Result<(), String> {
        let mut command = Command::new(&self.0);
        match claim.payload {
            Payload::Blob => command.arg("verify-blob"),
            Payload::Statement => command.args(["verify-blob-attestation", "--type", claim.predicate_type]),
        };
        command.arg("--bundle").arg(claim.bundle);
        if scene.trust == Trust::Files {
            command.args(["--trusted-root", &scene.stack.text("/trusted_root")]);
        }
        command.args(["--certificate-identity", claim.email, "--certificate-oidc-issuer", &scene.issuer()]);
        run(scene, command.arg(claim.artifact))
    }
}
