//! The clients, each by its own command line or library.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Claim, Payload, Scene};

/// A client that signs and verifies.
pub(crate) trait Client {
    fn name(&self) -> &'static str;
    /// Signs the scene's artifact, or the statement about it, and writes the bundle.
    fn sign(&self, scene: &Scene, payload: Payload, bundle: &Path) -> Result<(), String>;
    /// Whether it signs a statement as it is given, and not only predicates of its own list.
    fn signs_given_statements(&self) -> bool {
        true
    }
    /// Whether it is somebody else's.
    fn is_stock(&self) -> bool {
        true
    }
    /// Verifies a bundle for an artifact and an identity.
    fn verify(&self, scene: &Scene, claim: &Claim<'_>) -> Result<(), String>;
}

/// The clients that are there.
pub(crate) fn installed() -> Vec<Box<dyn Client>> {
    let mut clients: Vec<Box<dyn Client>> = vec![Box::new(Ours)];
    if let Some(python) = crate::python::python(&["sigstore.models"], "sigstore") {
        clients.push(Box::new(Python(python)));
    }
    if let Some(modules) = JavaScript::found() {
        clients.push(Box::new(modules));
    }
    if let (Some(signing), Some(verification)) = (go("sigstore-go-signing"), go("sigstore-go-verification")) {
        clients.push(Box::new(Go { signing, verification }));
    }
    if let Some(cosign) = go("cosign") {
        clients.push(Box::new(Cosign(cosign)));
    }
    clients
}

/// Runs a command with its own folders below the scene's; its words on failure.
fn run(scene: &Scene, command: &mut Command) -> Result<(), String> {
    let home = scene.path("client-home");
    std::fs::create_dir_all(&home).unwrap();
    for name in ["HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TUF_ROOT"] {
        command.env(name, &home);
    }
    let output = command.current_dir(scene.dir.path()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let from = said.char_indices().rev().nth(1500).map_or(0, |(at, _)| at);
    Err(said[from..].to_owned())
}

/// `mentatctl sign-bundle` and `verify-bundle`.
struct Ours;

impl Client for Ours {
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
        args.push(&file);
        let finished = scene.stack.ctl(&args);
        if finished.code == 0 { Ok(()) } else { Err(finished.stderr) }
    }

    fn verify(&self, scene: &Scene, claim: &Claim<'_>) -> Result<(), String> {
        let issuer = scene.issuer();
        let (bundle, artifact) = (claim.bundle.to_str().unwrap(), claim.artifact.to_str().unwrap());
        let mut args = vec!["verify-bundle", "--bundle", bundle, "--certificate-identity", claim.email];
        args.extend(["--certificate-oidc-issuer", &issuer, artifact]);
        let finished = scene.stack.ctl(&args);
        if finished.code == 0 { Ok(()) } else { Err(finished.stderr) }
    }
}

/// `python -m sigstore`.
struct Python(String);

impl Python {
    fn command(&self, scene: &Scene) -> Command {
        let mut command = Command::new(&self.0);
        command.args(["-m", "sigstore", "--trust-config", &scene.stack.text("/client_trust_config")]);
        command
    }
}

impl Client for Python {
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
                .args(["attest", "--predicate-type", "https://slsa.dev/provenance/v1", "--predicate"])
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

/// npm `@sigstore/sign` and `@sigstore/verify`, driven as their documentation shows.
struct JavaScript(PathBuf);

const JS_SIGN: &str = r#"
const fs = require('fs');
const { bundleBuilderFromSigningConfig } = require('@sigstore/sign');
const { SigningConfig } = require('@sigstore/protobuf-specs');
const { bundleToJSON } = require('@sigstore/bundle');
const [config, bundleType, file, out] = process.argv.slice(1);
const signingConfig = SigningConfig.fromJSON(JSON.parse(fs.readFileSync(config)));
const identityProvider = { getToken: async () => process.env.SIGSTORE_ID_TOKEN };
const data = fs.readFileSync(file);
const artifact = bundleType === 'dsseEnvelope' ? { data, type: 'application/vnd.in-toto+json' } : { data };
bundleBuilderFromSigningConfig({ signingConfig, identityProvider, bundleType })
  .create(artifact).then((bundle) => fs.writeFileSync(out, JSON.stringify(bundleToJSON(bundle))));
"#;

const JS_VERIFY: &str = r#"
const fs = require('fs');
const { createHash } = require('crypto');
const { bundleFromJSON } = require('@sigstore/bundle');
const { TrustedRoot } = require('@sigstore/protobuf-specs');
const { toTrustMaterial, toSignedEntity, Verifier } = require('@sigstore/verify');
const [root, bundleFile, file, subjectAlternativeName, issuer] = process.argv.slice(1);
const bundle = bundleFromJSON(JSON.parse(fs.readFileSync(bundleFile)));
const artifact = fs.readFileSync(file);
const material = toTrustMaterial(TrustedRoot.fromJSON(JSON.parse(fs.readFileSync(root))));
const verifier = new Verifier(material, { tlogThreshold: 1, ctlogThreshold: 1, timestampThreshold: 1 });
const policy = { subjectAlternativeName, extensions: { issuer } };
if (bundle.content.$case === 'dsseEnvelope') {
  verifier.verify(toSignedEntity(bundle), policy);
  const digest = createHash('sha256').update(artifact).digest('hex');
  const statement = JSON.parse(bundle.content.dsseEnvelope.payload);
  if (!statement.subject.some((subject) => subject.digest.sha256 === digest)) throw new Error('subject');
} else {
  verifier.verify(toSignedEntity(bundle, artifact), policy);
}
"#;

impl JavaScript {
    fn found() -> Option<Self> {
        let modules = std::env::var_os("MENTAT_NODE_MODULES").map(PathBuf::from);
        let found = modules.filter(|modules| {
            ["sign", "verify"].iter().all(|name| modules.join("@sigstore").join(name).is_dir())
        });
        if found.is_none() {
            mentat_tests::skip::skipped(
                "no @sigstore/sign and @sigstore/verify (npm i --prefix DIR @sigstore/sign@5.1 @sigstore/verify@4.1; \
                 MENTAT_NODE_MODULES=DIR/node_modules)",
            );
        }
        found.map(Self)
    }

    fn node(&self, script: &str) -> Command {
        let mut command = Command::new("node");
        command.env("NODE_PATH", &self.0).args(["-e", script, "--"]);
        command
    }
}

impl Client for JavaScript {
    fn name(&self) -> &'static str {
        "sigstore-js"
    }

    fn sign(&self, scene: &Scene, payload: Payload, bundle: &Path) -> Result<(), String> {
        let (kind, file) = match payload {
            Payload::Blob => ("messageSignature", scene.artifact()),
            Payload::Statement => ("dsseEnvelope", scene.path("statement.json")),
        };
        let mut command = self.node(JS_SIGN);
        command.env("SIGSTORE_ID_TOKEN", scene.token());
        run(scene, command.args([&scene.stack.text("/signing_config"), kind]).arg(file).arg(bundle))
    }

    fn verify(&self, scene: &Scene, claim: &Claim<'_>) -> Result<(), String> {
        let mut command = self.node(JS_VERIFY);
        command.arg(scene.stack.text("/trusted_root")).arg(claim.bundle).arg(claim.artifact);
        run(scene, command.args([claim.email, &scene.issuer()]))
    }
}

/// A program of the folder `MENTAT_GO_BIN`, or of the path.
fn go(name: &str) -> Option<PathBuf> {
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
struct Go {
    signing: PathBuf,
    verification: PathBuf,
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
        command.args(["-trustedrootJSONpath", &scene.stack.text("/trusted_root")]);
        command.args(["-expectedSAN", claim.email, "-expectedIssuer", &scene.issuer()]);
        run(scene, command.arg("-artifact").arg(claim.artifact).arg(claim.bundle))
    }
}

/// `cosign`.
struct Cosign(PathBuf);

impl Client for Cosign {
    fn signs_given_statements(&self) -> bool {
        false
    }

    fn name(&self) -> &'static str {
        "cosign"
    }

    fn sign(&self, scene: &Scene, payload: Payload, bundle: &Path) -> Result<(), String> {
        let mut command = Command::new(&self.0);
        command.arg(if payload == Payload::Blob { "sign-blob" } else { "attest-blob" });
        command.args(["--yes", "--identity-token", &scene.token()]);
        command.args(["--signing-config", &scene.stack.text("/signing_config")]);
        command.args(["--trusted-root", &scene.stack.text("/trusted_root"), "--bundle"]).arg(bundle);
        if payload == Payload::Statement {
            command.args(["--type", "slsaprovenance1", "--predicate"]).arg(scene.path("predicate.json"));
        }
        run(scene, command.arg(scene.artifact()))
    }

    fn verify(&self, scene: &Scene, claim: &Claim<'_>) -> Result<(), String> {
        let mut command = Command::new(&self.0);
        match claim.payload {
            Payload::Blob => command.arg("verify-blob"),
            Payload::Statement => command.args(["verify-blob-attestation", "--type", "slsaprovenance1"]),
        };
        command.arg("--bundle").arg(claim.bundle);
        command.args(["--trusted-root", &scene.stack.text("/trusted_root")]);
        command.args(["--certificate-identity", claim.email, "--certificate-oidc-issuer", &scene.issuer()]);
        run(scene, command.arg(claim.artifact))
    }
}
