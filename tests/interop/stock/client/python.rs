//! sigstore-python.

use std::path::Path;
use std::process::Command;

use super::super::{Claim, PROVENANCE, Payload, Scene, Trust};
use super::{Client, run};

const SIGN_GIVEN: &str = r#"
import os, sys
from pathlib import Path
from sigstore.dsse import Statement
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityToken
from sigstore.sign import SigningContext
statement, bundle, trust = sys.argv[1:]
followed = trust.startswith("http")
config = ClientTrustConfig.from_tuf(trust) if followed else ClientTrustConfig.from_json(Path(trust).read_text())
with SigningContext.from_trust_config(config).signer(IdentityToken(os.environ["SIGSTORE_ID_TOKEN"])) as signer:
    Path(bundle).write_text(signer.sign_dsse(Statement(Path(statement).read_bytes())).to_json())
"#;

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

    /// By the library: the command line knows predicates of its own list alone.
    fn sign_as_given(&self, scene: &Scene, bundle: &Path) -> Result<(), String> {
        let trust = match scene.trust {
            Trust::Files => scene.stack.text("/client_trust_config"),
            Trust::Repository => scene.stack.text("/tuf/url"),
        };
        let mut command = Command::new(&self.0);
        command.args(["-c", SIGN_GIVEN]).arg(scene.path("statement.json")).arg(bundle).arg(trust);
        run(scene, command.env("SIGSTORE_ID_TOKEN", scene.token()))
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
