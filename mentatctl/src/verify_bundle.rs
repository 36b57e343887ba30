//! `verify-bundle`: the command-line protocol of Sigstore's conformance suite, for bundles without a manifest. It
//! decides what a stock client would: revocation, witnesses and freshness are not asked for here, so an executor never
//! uses it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};
use trust_store::bundle::Bundle;
use trust_store::conformance;
use trust_store::provider::AwsLc;
use trust_store::trusted_root::TrustedRoot;

use crate::clock;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, read_text};
use crate::output::{Output, Tone};
use crate::sign::sha256_of_file;

/// `verify-bundle`.
#[derive(Debug, Args)]
pub struct VerifyBundle {
    /// Accepted for the protocol's sake; the trusted root is always a file
    #[arg(long, hide = true)]
    staging: bool,
    /// The bundle
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// The signer's name
    #[arg(
        long,
        value_name = "IDENTITY",
        requires = "certificate_oidc_issuer",
        required_unless_present = "key"
    )]
    certificate_identity: Option<String>,
    /// Who vouched for it
    #[arg(long, value_name = "URL", requires = "certificate_identity")]
    certificate_oidc_issuer: Option<String>,
    /// The signer's public key, PEM, for a bundle without certificate
    #[arg(long, value_name = "PEMFILE", conflicts_with = "certificate_identity")]
    key: Option<PathBuf>,
    /// trusted_root.json [default: of the stack, else ~/.mentat/trusted_root.json]
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// The artifact, or its digest as sha256:HEX
    #[arg(value_name = "FILE_OR_DIGEST")]
    artifact: String,
}

/// Runs `verify-bundle`.
///
/// # Errors
/// Exit code 3 with the reason code when the bundle is denied, 2 when a file cannot be read.
pub fn run(verify: &VerifyBundle, home: &Home, out: &Output) -> Outcome {
    let bundle = read_text(&verify.bundle)?;
    let root_path = home.trusted_root(verify.trusted_root.as_deref())?;
    let root = read_text(&root_path)?;
    // That both are one JSON document each is seen to before they are put into a line.
    Bundle::parse(bundle.as_bytes()).map_err(|error| crate::verify::denied(error.into()))?;
    TrustedRoot::parse(root.as_bytes()).or_fail(Exit::Usage, root_path.display())?;
    crate::trust::root_in_force(&root_path, clock::now())?;
    let path = PathBuf::from(&verify.artifact);
    let digest = match verify.artifact.strip_prefix("sha256:") {
        Some(digits) if !path.exists() => digits.to_owned(),
        _ => hex::encode(sha256_of_file(&path)?),
    };
    for exact in [&verify.certificate_identity, &verify.certificate_oidc_issuer].into_iter().flatten() {
        // The verifier's patterns know a star; here one name is meant.
        if exact.contains('*') {
            return Err(Failure::usage(format!("`{exact}` is no name: names hold no star"))
                .hint("give the name as the certificate bears it"));
        }
    }
    let key = verify.key.as_deref().map(read_text).transpose()?;
    let accepted = json!({
        "identity": verify.certificate_identity, "issuer": verify.certificate_oidc_issuer, "key": key,
    });
    decide(&bundle, &root, &digest, &accepted)?;
    out.line(format!("{} {}", out.paint(Tone::Good, "verified"), verify.artifact));
    out.value(|| json!({ "ok": true, "artifact_digest": digest }));
    Ok(Exit::Ok)
}

/// Decides as a stock client would; `accepted` has the members `identity` and `issuer`, or `key`. Bundle and trusted root
/// are one JSON document each.
///
/// # Errors
/// Exit code 3 with the reason code when the bundle is denied.
pub fn decide(bundle: &str, root: &str, digest: &str, accepted: &Value) -> Outcome<()> {
    let mut accepted = accepted.clone();
    if let Some(members) = accepted.as_object_mut() {
        members.insert("artifact_digest".to_owned(), digest.into());
    }
    // Both are put into a line of JSON as they are, so that nothing in them is lost before the verifier reads it.
    let accepted = accepted.to_string();
    let members = accepted.trim_start_matches('{').trim_end_matches('}');
    let line = format!("{{\"id\":null,\"bundle\":{bundle},\"trusted_root\":{root},{members}}}");
    let answer = conformance::decide_bundle(&line, clock::now(), Arc::new(AwsLc));
    let answer: Value = serde_json::from_str(&answer).or_fail(Exit::Failure, "reading the decision")?;
    let member = |name: &str| answer.get(name).and_then(Value::as_str);
    if member("decision") == Some("admit") {
        return Ok(());
    }
    Err(Failure::new(Exit::Denied, member("detail").unwrap_or("denied"))
        .code(member("reason").unwrap_or("malformed"))
        .hint("docs/operations/denials.md says what to do about each code"))
}
