//! `endorse`: another signer vouches for a release that somebody else signed. What that is worth is for the verifier's
//! policy to say: the level `community` takes a number of endorsers that the policy accepts.
//!
//! The endorsement is a bundle of its own (statement, timestamp, log entry) beside the release's; the signature of the
//! release is not touched. A release that does not verify here is not endorsed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use trust_store::Certificate;
use trust_store::attestation::{Attestation, AttestationBlock, MAX_FURTHER_BUNDLES, MAX_STAPLES};
use trust_store::bundle::{Bundle, Content};
use trust_store::evidence::Evidence;
use trust_store::identity::Identity;
use trust_store::json::Bytes;
use trust_store::policy::{EndorsementPolicy, TrustLevel};
use trust_store::provider::AwsLc;
use trust_store::statement::{ENDORSEMENT_TYPE, Statement};
use trust_store::verifier::{ArtifactDigest, Verifier};
use trust_store_files::manifest_file::NewBundle;

use crate::clock;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, check_writable, folder_of};
use crate::net::block_on;
use crate::output::{Output, Tone, shown};
use crate::release::{Release, Use};
use crate::sign::{ServiceFlags, Services, Signed, Signer, sha256, sign_statement};
use crate::trust::root_in_force;
use crate::verify::refresh::Question;
use crate::verify::{denied, load_policy};

/// `endorse`.
#[derive(Debug, Args)]
pub struct Endorse {
    /// Folders with a signed manifest.yaml, or manifests
    #[arg(required = true, value_name = "DIR|MANIFEST")]
    releases: Vec<PathBuf>,
    /// Your certificate with its issuers, PEM [default: ~/.mentat/signing.crt]
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its key, PEM [default: ~/.mentat/signing.key]
    #[arg(long, value_name = "FILE", conflicts_with = "key_env")]
    key: Option<PathBuf>,
    /// Environment variable that holds the key in PEM
    #[arg(long, value_name = "NAME")]
    key_env: Option<String>,
    /// Passphrase of an encrypted key
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// trusted_root.json [default: of the stack, else ~/.mentat/trusted_root.json]
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// Trust policy that the release must meet, but for its trust level [default: of the stack, else ~/.mentat/policy.yaml]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    services: ServiceFlags,
}

/// Runs `endorse`. Every release is tried; the exit code is that of the first failure.
///
/// # Errors
/// When the key or certificate cannot be used.
pub fn run(endorse: &Endorse, home: &Home, out: &Output) -> Outcome {
    let cert = endorse.cert.clone().unwrap_or_else(|| home.signing_certificate());
    let signer = Signer::load(
        &cert,
        endorse.key.as_deref(),
        endorse.key_env.as_deref(),
        endorse.passphrase_file.as_deref(),
        home,
    )?;
    let mut worst = None;
    for path in &endorse.releases {
        if let Err(failure) = one(path, endorse, &signer, home, out) {
            worst.get_or_insert(failure.exit);
            out.failure(&Failure { what: format!("{}: {}", path.display(), failure.what), ..failure });
        }
    }
    Ok(worst.unwrap_or(Exit::Ok))
}

fn one(path: &Path, endorse: &Endorse, signer: &Signer, home: &Home, out: &Output) -> Outcome<()> {
    let mut release = Release::open(path, Use::Verify)?;
    let module = release.module()?;
    let attestation = release.attestation()?;
    check_writable(folder_of(release.path()))?;
    let block = release.file.block().cloned();
    let mut block = block.ok_or_else(|| Failure::failed("the release has no attestation block"))?;
    verify(endorse, &attestation, &module, home, out)?;
    let own = Identity::of_certificate(signer.certificate()).map_err(denied)?;
    let signed_by = attestation.certificate().map(Identity::of_certificate).transpose().map_err(denied)?;
    if signed_by.as_ref() == Some(&own) {
        return Err(Failure::failed(format!("{own} signed this release, and nobody endorses their own"))
            .code("endorsement_missing")
            .hint("another accepted signer must endorse it"));
    }
    let http = endorse.services.client(home)?;
    let services = Services::new(
        http,
        &home.log_url(endorse.services.log_url())?,
        &home.tsa_url(endorse.services.tsa_url())?,
    )?;
    let spinner = out.spinner(format!("endorsing {}", release.manifest().id()));
    let statement = Statement::endorsement(release.manifest(), &sha256(&module));
    let signed = sign_statement(&statement, signer, &services)?;
    drop(spinner);
    add(&mut block, &attestation, &signed, &own)?;
    let sidecar = release.sidecar()?;
    let bundle = match &sidecar {
        Some((name, json)) => NewBundle::Sidecar { name, json: json.as_bytes() },
        None => NewBundle::Inline,
    };
    release.file.store_attestation(&block, bundle).or_fail(Exit::Failure, "writing the endorsement")?;
    let count = endorsers(&block).len();
    out.line(format!(
        "{} {} {} as {own}, log index {}; {count} endorsements in all",
        out.paint(Tone::Good, "endorsed"),
        release.manifest().id(),
        release.manifest().version(),
        signed.log_index,
    ));
    out.value(|| {
        json!({
            "ok": true, "manifest": shown(release.path()), "agent": release.manifest().id().as_str(),
            "version": release.manifest().version().as_str(), "endorser": own.subject(),
            "log_index": signed.log_index, "endorsements": count,
        })
    });
    Ok(())
}

/// The release must be what the policy demands, but for its level, which is what endorsements are for.
fn verify(
    endorse: &Endorse,
    attestation: &Attestation,
    module: &[u8],
    home: &Home,
    out: &Output,
) -> Outcome<()> {
    let now = clock::now();
    let root = root_in_force(&home.trusted_root(endorse.trusted_root.as_deref())?, now)?;
    let mut policy = load_policy(&home.policy(endorse.policy.as_deref())?)?;
    policy.required_level = TrustLevel::Signed;
    policy.endorsements = EndorsementPolicy::NobodyEndorses;
    let log_url = home.log_url(endorse.services.log_url())?;
    let http = endorse.services.client(home)?;
    let verifier = Verifier::new(Arc::new(AwsLc), &root).map_err(denied)?;
    let digest = ArtifactDigest::of(module);
    let question = Question { verifier: &verifier, attestation, digest, policy: &policy, now };
    let mut evidence = Evidence::none();
    let (_, unanswered) = block_on(question.decide_afresh(&mut evidence, &root, http, &log_url))?;
    for silent in unanswered {
        out.note(format!("no fresh evidence: {silent}"));
    }
    Ok(())
}

/// Puts the endorsement into the block, in place of an earlier one of the same signer.
fn add(
    block: &mut AttestationBlock,
    attestation: &Attestation,
    signed: &Signed,
    own: &Identity,
) -> Outcome<()> {
    let json = signed.bundle.to_json().or_fail(Exit::Failure, "writing the endorsement")?;
    let mut kept = Vec::new();
    for (bytes, bundle) in block.further_bundles.iter().zip(attestation.further()) {
        if endorser(bundle).as_ref() != Some(own) {
            kept.push(bytes.clone());
        }
    }
    kept.push(Bytes(json));
    if kept.len() > MAX_FURTHER_BUNDLES {
        return Err(Failure::failed(format!(
            "the release carries {MAX_FURTHER_BUNDLES} further bundles already"
        ))
        .hint("remove one that no policy asks for"));
    }
    block.further_bundles = kept;
    for crl in &signed.staples.crl {
        if !block.revocation.crl.contains(crl) && block.revocation.crl.len() < MAX_STAPLES {
            block.revocation.crl.push(crl.clone());
        }
    }
    Ok(())
}

/// Who made an endorsement; `None` for another kind of bundle. Not verified.
fn endorser(bundle: &Bundle) -> Option<Identity> {
    let Content::Dsse(envelope) = &bundle.content else { return None };
    let statement = Statement::parse(&envelope.payload).ok()?;
    let certificate = Certificate::from_der(bundle.certificate()?).ok()?;
    (statement.predicate_type == ENDORSEMENT_TYPE).then(|| Identity::of_certificate(&certificate).ok())?
}

fn endorsers(block: &AttestationBlock) -> Vec<Identity> {
    let bundles = block.further_bundles.iter().filter_map(|bytes| Bundle::parse(&bytes.0).ok());
    bundles.filter_map(|bundle| endorser(&bundle)).collect()
}
