//! npm's packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::{Claim, Payload, Scene, Trust};
use super::{Client, run};

/// npm `@sigstore/sign` and `@sigstore/verify`, driven as their documentation shows.
pub(super) struct JavaScript(PathBuf);

const JS_SIGN: &str = r#"
const fs = require('fs');
const { bundleBuilderFromSigningConfig } = require('@sigstore/sign');
const { SigningConfig } = require('@sigstore/protobuf-specs');
const { bundleToJSON } = require('@sigstore/bundle');
const [config, bundleType, file, out, mirrorURL, rootPath, cachePath] = process.argv.slice(1);
const identityProvider = { getToken: async () => process.env.SIGSTORE_ID_TOKEN };
const data = fs.readFileSync(file);
const artifact = bundleType === 'dsseEnvelope' ? { data, type: 'application/vnd.in-toto+json' } : { data };
async function services() {
  if (!mirrorURL) return fs.readFileSync(config);
  const { initTUF } = require('@sigstore/tuf');
  return (await initTUF({ mirrorURL, rootPath, cachePath })).getTarget('signing_config.v0.2.json');
}
(async () => {
  const signingConfig = SigningConfig.fromJSON(JSON.parse(await services()));
  const bundle = await bundleBuilderFromSigningConfig({ signingConfig, identityProvider, bundleType }).create(artifact);
  fs.writeFileSync(out, JSON.stringify(bundleToJSON(bundle)));
})();
"#;

const JS_VERIFY: &str = r#"
const fs = require('fs');
const { createHash } = require('crypto');
const { bundleFromJSON } = require('@sigstore/bundle');
const { TrustedRoot } = require('@sigstore/protobuf-specs');
const { toTrustMaterial, toSignedEntity, Verifier } = require('@sigstore/verify');
const [root, bundleFile, file, subjectAlternativeName, issuer, mirrorURL, rootPath, cachePath] = process.argv.slice(1);
const bundle = bundleFromJSON(JSON.parse(fs.readFileSync(bundleFile)));
const artifact = fs.readFileSync(file);
async function trustedRoot() {
  if (!mirrorURL) return TrustedRoot.fromJSON(JSON.parse(fs.readFileSync(root)));
  return require('@sigstore/tuf').getTrustedRoot({ mirrorURL, rootPath, cachePath });
}
(async () => {
  const material = toTrustMaterial(await trustedRoot());
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
})();
"#;

/// Names the repository.
fn followed<'a>(scene: &Scene, command: &'a mut Command) -> &'a mut Command {
    command.args([scene.stack.text("/tuf/url"), scene.stack.text("/tuf/root")]).arg(scene.path("js-tuf"))
}

/// Names the repository, where that is what distributes trust.
fn repository<'a>(scene: &Scene, command: &'a mut Command) -> &'a mut Command {
    match scene.trust {
        Trust::Files => command,
        Trust::Repository => followed(scene, command),
    }
}

impl JavaScript {
    pub(super) fn found() -> Option<Self> {
        let modules = std::env::var_os("MENTAT_NODE_MODULES").map(PathBuf::from);
        let found = modules.filter(|modules| {
            ["sign", "verify", "tuf"].iter().all(|name| modules.join("@sigstore").join(name).is_dir())
        });
        if found.is_none() {
            mentat_tests::skip::skipped(
                "no @sigstore/sign, @sigstore/verify and @sigstore/tuf (npm i --prefix DIR @sigstore/sign@5.1 \
                 @sigstore/verify@4.1 @sigstore/tuf; MENTAT_NODE_MODULES=DIR/node_modules)",
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
        command.args([&scene.stack.text("/signing_config"), kind]).arg(file).arg(bundle);
        run(scene, repository(scene, &mut command))
    }

    fn verify(&self, scene: &Scene, claim: &Claim<'_>) -> Result<(), String> {
        let mut command = self.node(JS_VERIFY);
        command.arg(scene.stack.text("/trusted_root")).arg(claim.bundle).arg(claim.artifact);
        command.args([claim.email, &scene.issuer()]);
        run(scene, repository(scene, &mut command))
    }
}

/// The npm package `sigstore`, which verifies by a repository of metadata in every scene: it has no other way. What it signs it
/// writes to logs of the first generation (`initWitnesses` of its `config.js` makes a `RekorWitness` without a version, and no
/// option of `sign` or `attest` says another), which ours is not.
pub(super) struct Package(PathBuf);

const PACKAGE_VERIFY: &str = r#"
const fs = require('fs');
const { createHash } = require('crypto');
const { verify } = require('sigstore');
const [bundle, file, certificateIdentityEmail, certificateIssuer, tufMirrorURL, tufRootPath, tufCachePath] = process.argv.slice(1);
const options = { certificateIdentityEmail, certificateIssuer, tufMirrorURL, tufRootPath, tufCachePath };
const [signed, artifact] = [JSON.parse(fs.readFileSync(bundle)), fs.readFileSync(file)];
(async () => {
  await verify(signed, artifact, options);
  if (signed.dsseEnvelope) {
    const digest = createHash('sha256').update(artifact).digest('hex');
    const statement = JSON.parse(Buffer.from(signed.dsseEnvelope.payload, 'base64'));
    if (!statement.subject.some((subject) => subject.digest.sha256 === digest)) throw new Error('subject');
  }
})();
"#;

impl Package {
    pub(super) fn found() -> Option<Self> {
        let modules = std::env::var_os("MENTAT_NODE_MODULES").map(PathBuf::from);
        let found = modules.filter(|modules| modules.join("sigstore").is_dir());
        if found.is_none() {
            mentat_tests::skip::skipped(
                "no npm package sigstore (npm i --prefix DIR sigstore@5.0; MENTAT_NODE_MODULES=DIR/node_modules)",
            );
        }
        found.map(Self)
    }
}

impl Client for Package {
    fn name(&self) -> &'static str {
        "npm sigstore"
    }

    fn signs(&self, _scene: &Scene) -> bool {
        false
    }

    fn sign(&self, _scene: &Scene, _payload: Payload, _bundle: &Path) -> Result<(), String> {
        Err("it writes to logs of the first generation".to_owned())
    }

    fn verify(&self, scene: &Scene, claim: &Claim<'_>) -> Result<(), String> {
        let mut command = Command::new("node");
        command.env("NODE_PATH", &self.0).args(["-e", PACKAGE_VERIFY, "--"]);
        command.arg(claim.bundle).arg(claim.artifact).args([claim.email, &scene.issuer()]);
        run(scene, followed(scene, &mut command))
    }
}
