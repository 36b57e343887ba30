//! sigstore-python.

use std::path::Path;
use std::process::Command;

use super::super::{Claim, PROVENANCE, Payload, Scene, Trust};
use super::{Client, run};

/// `python -m sigstore`.
pub(super) struct Python(pub String);

impl Python {
    fn command(&self, scene: &Scene) -> Command {
        let mut command = Command::new(&self.0);
        command.args(["-m", "sigstore"]);
        match scene.trust {
            Trust::Files => command.args(["--trust-config", &scene.stack.text("/client_trust_config")]),
            Trust::Repository => command.args(["--instance", &scene.stack.text("/tuf/url")]),
        };
        command
    }
}

impl Client for Python {
    fn follow(&self, scene: &Scene) -> Result<(), String> {
        run(scene, self.command(scene).arg("trust-instance").arg(scene.stack.text("/tuf/root")))
    }

    fn signs_given_statements(&self) -> bool {
        false
    }

    fn name(&self) -> &'static str {
        "sigstore-python"
    }

    fn sign(&self, scene: &Scene, payload: Payload, bundle: &Path) -> Result<(), String> {
        let mut command = self.command(scene);
        match payload {
            Payload::Blob => command.arg("sign"),
            Payload::Statement => command
                .args(["attest", "--predicate-type", PROVENANCE, "--predicate"])
                .arg(scene.path("predicate.json")),
        };
        command.args(["--identity-token", &scene.token(), "--bundle"]).arg(bundle).arg(scene.artifact());
        run(scene, &mut command)
    }

    fn verify(&self, scene: &Scene, claim: &Claim<'_>) -> Result<(), String> {
        let mut command = self.command(scene);
        command.args(["verify", "identity", "--cert-identity", claim.email]);
        command
            .args(["--cert-oidc-issuer", &scene.issuer(), "--bundle"])
            .arg(claim.bundle)
            .arg(claim.artifact);
        run(scene, &mut command)
    }
}
