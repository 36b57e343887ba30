//! `log submit`: records a signature that was made elsewhere, and finishes one that an outage left pending. No key is needed: the
//! signature is there, its evidence is what is missing.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use hsm::{Input, PublicKey};
use serde_json::json;
use trust_store::Certificate;
use trust_store::bundle::{Bundle, Content};
use trust_store::dsse;
use trust_store::json::base64_decode;

use super::record::signer_name;
use crate::chain_file;
use crate::clock;
use crate::exit::{Exit, Failure, OrFail as _, Outcome, one_line};
use crate::home::{Home, Secrecy, read_file, write_file};
use crate::output::{Output, Tone, shown};
use crate::release::{MANIFEST_FILE, Target};
use crate::sign::module::{self, NO_STAPLES};
use crate::sign::pending::entry_of;
use crate::sign::{
    Pending, ServiceFlags, Services, Signed, complete, kinds_of, report, sha256_of_file, store,
};

/// `log submit`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["resume", "bundle", "signature"]))]
pub struct Submit {
    /// Finish what `sign` left pending when a service was away
    #[arg(long)]
    resume: bool,
    /// With --resume: folders with a manifest.yaml, manifests, or modules [default: the current folder]
    #[arg(value_name = "DIR|MANIFEST|MODULE", requires = "resume")]
    releases: Vec<PathBuf>,
    /// A Sigstore bundle with a certificate that lacks its timestamp or its log entry
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// A detached signature: DER as it is, or in base64
    #[arg(long, value_name = "FILE", requires = "artifact", requires = "cert")]
    signature: Option<PathBuf>,
    /// What it signs: a file, or its digest as sha256:HEX
    #[arg(long, value_name = "FILE|DIGEST", requires = "signature")]
    artifact: Option<String>,
    /// The signer's certificate with its issuers, PEM
    #[arg(long, value_name = "FILE", requires = "signature")]
    cert: Option<PathBuf>,
    /// Where the finished bundle goes [default: over --bundle; with --signature: ARTIFACT.sigstore.json]
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    output: Option<PathBuf>,
    #[command(flatten)]
    services: ServiceFlags,
}

/// Runs `log submit`. With `--resume` every release is tried; the exit code is that of the first failure.
///
/// # Errors
/// Exit code 2 when a file cannot be used or the signature does not verify, 69 when a service cannot be reached, 1 when one
/// refuses.
pub fn submit(submit: &Submit, home: &Home, out: &Output) -> Outcome {
    let services = submit.services.services(home)?;
    if let Some(path) = &submit.bundle {
        let bundle = Bundle::parse(&read_file(path)?).or_fail(Exit::Usage, path.display())?;
        let certificate = bundle.certificate().map(Certificate::from_der).transpose();
        let certificate = certificate.map_err(crate::verify::denied)?.ok_or_else(|| {
            Failure::usage(format!("{} names a bare key", path.display()))
                .hint("the log records signatures of certificates; sign with one")
        })?;
        return finish(bundle, &[certificate], submit.output.as_deref().unwrap_or(path), &services, out);
    }
    if let (Some(signature), Some(artifact), Some(cert)) = (&submit.signature, &submit.artifact, &submit.cert)
    {
        let chain = chain_file::read(cert)?;
        let first = chain.first().ok_or_else(|| Failure::usage("there is no certificate"))?;
        let (digest, default) = artifact_digest(artifact)?;
        let output = submit.output.clone().or(default).ok_or_else(|| {
            Failure::usage("a digest alone does not say where the bundle goes").hint("give --output FILE")
        })?;
        let bundle = Bundle::for_message(first.der().to_vec(), digest, read_signature(signature)?);
        return finish(bundle, &chain, &output, &services, out);
    }
    let here = [PathBuf::from(".")];
    let releases = if submit.releases.is_empty() { &here[..] } else { &submit.releases };
    let mut worst = None;
    for path in releases {
        if let Err(failure) = resume(path, &services, out) {
            worst.get_or_insert(failure.exit);
            out.failure(&failure.about(path));
        }
    }
    Ok(worst.unwrap_or(Exit::Ok))
}

fn resume(path: &Path, services: &Services, out: &Output) -> Outcome<()> {
    match Target::find(path, Path::new(MANIFEST_FILE))? {
        Target::Release(mut release) => {
            let pending = Pending::load(&release)?;
            let (chain, sidecar) = (pending.chain.clone(), pending.sidecar.clone());
            let (signed, signer) = finish_pending(pending, &release.module_path()?, &chain, services, out)?;
            store(&mut release, &signed, &chain, sidecar.as_deref())?;
            report(&release, &signed, &signer, sidecar.as_deref(), out);
            Ok(())
        }
        Target::Module(module) => {
            let pending = Pending::load_of_module(&module)?;
            let (signed, signer) = finish_pending(pending, &module, NO_STAPLES, services, out)?;
            module::store(&module, &signed, &signer, out)
        }
    }
}

/// Adds what a pending signature lacks, and staples for these certificates; the evidence, and who signed. An outage leaves it pending.
fn finish_pending(
    mut pending: Pending,
    module: &Path,
    stapled: &[Certificate],
    services: &Services,
    out: &Output,
) -> Outcome<(Signed, String)> {
    let certificate = pending.chain.first().ok_or_else(|| Failure::usage("there is no certificate"))?.clone();
    // A token of now would prove that the signature was made after the certificate's time.
    if pending.bundle.timestamps.is_empty() && certificate.not_after() < clock::now() {
        return Err(Failure::usage("the certificate expired before a timestamp could be had")
            .hint("renew it with `mentatctl pki renew`, then sign again"));
    }
    let entry = entry_of(&pending.bundle, &certificate)?;
    let spinner = out.spinner(format!("recording {}", module.display()));
    let (staples, log_index) = match complete(&mut pending.bundle, &entry, stapled, services) {
        Ok(done) => done,
        Err(failure) if failure.exit == Exit::Unavailable => {
            pending.store(module)?;
            return Err(failure.hint("the signature stays pending: repeat the command later"));
        }
        Err(failure) => return Err(failure),
    };
    drop(spinner);
    let signed = Signed { bundle: pending.bundle, staples, log_index };
    Ok((signed, one_line(&signer_name(&certificate))))
}

/// Records a bundle's signature and writes the bundle.
fn finish(
    mut bundle: Bundle,
    chain: &[Certificate],
    output: &Path,
    services: &Services,
    out: &Output,
) -> Outcome {
    let certificate = chain.first().ok_or_else(|| Failure::usage("there is no certificate"))?;
    check(&bundle, certificate)?;
    let entry = entry_of(&bundle, certificate)?;
    let (_, log_index) = complete(&mut bundle, &entry, chain, services)?;
    let json = bundle.to_json().or_fail(Exit::Failure, "writing the bundle")?;
    write_file(output, &json, Secrecy::Public)?;
    let signer = one_line(&signer_name(certificate));
    out.line(format!(
        "{} a signature of {signer} at log index {log_index} into {}",
        out.paint(Tone::Good, "recorded"),
        output.display()
    ));
    out.value(|| json!({ "ok": true, "bundle": shown(output), "signer": signer, "log_index": log_index }));
    Ok(Exit::Ok)
}

/// What does not verify is not sent: the log would refuse it, less clearly.
fn check(bundle: &Bundle, certificate: &Certificate) -> Outcome<()> {
    let key =
        PublicKey::from_spki_der(certificate.spki_der()).or_fail(Exit::Usage, "the certificate's key")?;
    let (algorithm, _) = kinds_of(&key)?;
    let signature = bundle.signature().or_fail(Exit::Usage, "the signature")?;
    let outcome = match &bundle.content {
        Content::Dsse(envelope) => {
            let signed = dsse::pae(&envelope.payload_type, &envelope.payload);
            key.verify(algorithm, Input::Message(&signed), signature)
        }
        Content::Message { digest: Some((_, digest)), .. } => {
            key.verify(algorithm, Input::Digest(digest), signature)
        }
        Content::Message { digest: None, .. } => return Ok(()),
    };
    outcome.map_err(|_| {
        Failure::usage("the signature is not one of this certificate's key over this artifact")
            .code("signature_invalid")
            .hint("give the artifact as it was signed, and the certificate of the key that signed it")
    })
}

/// The digest of an artifact, and where its bundle goes by default.
fn artifact_digest(artifact: &str) -> Outcome<([u8; 32], Option<PathBuf>)> {
    let path = Path::new(artifact);
    match artifact.strip_prefix("sha256:") {
        Some(digits) if !path.exists() => {
            let digest = hex::decode(digits).ok().and_then(|bytes| bytes.try_into().ok());
            let digest = digest.ok_or_else(|| {
                Failure::usage(format!("`{artifact}` is no digest"))
                    .hint("write sha256: and 64 hexadecimal digits")
            })?;
            Ok((digest, None))
        }
        _ => Ok((sha256_of_file(path)?, Some(PathBuf::from(format!("{artifact}.sigstore.json"))))),
    }
}

/// The bytes of a signature file: tools write DER, or base64 of it.
fn read_signature(path: &Path) -> Outcome<Vec<u8>> {
    let bytes = read_file(path)?;
    let text = std::str::from_utf8(&bytes).ok().map(|text| text.split_whitespace().collect::<String>());
    Ok(text.and_then(|text| base64_decode("signature", &text).ok()).unwrap_or(bytes))
}
