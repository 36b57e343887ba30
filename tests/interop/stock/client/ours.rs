//! `mentatctl`, by the commands of the conformance protocol.

use std::path::Path;

use super::super::{Claim, Payload, Scene, Trust};
use super::Client;

/// `mentatctl sign-bundle` and `verify-bundle`.
pub(super) struct Ours;

impl Ours {
    /// The files of the repository, where it is followed; else those of the stack, by default.
    fn trust(scene: &Scene) -> Vec<String> {
        let followed = |name: &str| scene.path("followed").join(name).to_str().unwrap().to_owned();
        match scene.trust {
            Trust::Files => Vec::new(),
            Trust::Repository => vec![
                "--trusted-root".to_owned(),
                followed("trusted_root.json"),
                "--signing-config".to_owned(),
                followed("signing_config.json"),
            ],
        }
    }
}

impl Client for Ours {
    fn follow(&self, scene: &Scene) -> Result<(), String> {
        let (folder, memory) = (scene.path("followed"), scene.path("followed/tuf.json"));
        let (mirror, root) = (scene.stack.text("/tuf/url"), scene.stack.text("/tuf/root"));
        let paths = ["--output", folder.to_str().unwrap(), "--memory", memory.to_str().unwrap()];
        let update = ["trust", "update", "--mirror", &mirror, "--root", &root];
        let finished = scene.stack.ctl(&[&update[..], &paths].concat());
        if finished.code == 0 { Ok(()) } else { Err(finished.stderr) }
    }

    fn is_stock(&self) -> bool {
        false
    }

    fn name(&self) -> &'static str {
        "mentatctl"
    }

    fn sign(&self, scene: &Scene, payload: Payload, bundle: &Path) -> Result<(), String> {
        let token = scene.token();
        let file = match payload {
            Payload::Blob => scene.artifact(),
            Payload::Statement => scene.path("statement.json"),
        };
        let (bundle, file) = (bundle.to_str().unwrap(), file.to_str().unwrap().to_owned());
        let mut args = vec!["sign-bundle", "--identity-token", &token, "--bundle", bundle];
        if payload == Payload::Statement {
            args.push("--in-toto");
        }
        let trust = Ours::trust(scene);
        args.extend(trust.iter().map(String::as_str));
        args.push(&file);
        let finished = scene.stack.ctl(&args);
        if finished.code == 0 { Ok(()) } else { Err(finished.stderr) }
    }

    fn verify(&self, scene: &Scene, claim: &Claim<'_>) -> Result<(), String> {
        let issuer = scene.issuer();
        let (bundle, artifact) = (claim.bundle.to_str().unwrap(), claim.artifact.to_str().unwrap());
        let mut args = vec!["verify-bundle", "--bundle", bundle, "--certificate-identity", claim.email];
        args.extend(["--certificate-oidc-issuer", &issuer]);
        let trust = Ours::trust(scene);
        args.extend(trust.iter().take(2).map(String::as_str));
        args.push(artifact);
        let finished = scene.stack.ctl(&args);
        if finished.code == 0 { Ok(()) } else { Err(finished.stderr) }
    }
}
