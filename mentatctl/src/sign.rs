//! `sign`: statement → envelope → timestamp → log → bundle → staples → attestation block.
//!
//! The manifest is not written before everything was obtained and the finished evidence was checked to be about this module: an
//! interrupted run leaves it as it was. When a service is away, the signature waits in a file beside the manifest, and
//! `log submit --resume` finishes it: without the key, which may be gone by then.

mod evidence;
pub mod key;
pub mod keyless;
pub mod module;
pub mod pending;
mod signer;
mod signer_flags;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use trust_store::Certificate;
use trust_store::attestation::{AttestationBlock, Staples};
use trust_store::bundle::Bundle;
use trust_store::dsse::{self, Envelope, IN_TOTO_PAYLOAD_TYPE};
use trust_store::rekor::{HashedRekord, VerifierKey};
use trust_store::statement::Statement;
use trust_store_files::manifest_file::NewBundle;

pub use evidence::{ServiceFlags, Services, crl_url, staples};
pub use pending::Pending;
pub use signer::{Signer, kinds_of, sha256, sha256_of_file};

use crate::clock;
use crate::exit::{Exit, OrFail as _, Outcome};
use crate::home::{Home, check_writable, folder_of};
use crate::net::block_on;
use crate::output::{Output, Tone, shown};
use crate::release::{Release, Target};
use signer_flags::SignerFlags;

/// `sign`.
#[derive(Debug, Args)]
pub struct Sign {
    /// Folders with a manifest.yaml, manifests, or modules. A module is signed with the manifest beside it that names it; without
    /// one as a file, which stock clients verify and no executor admits
    #[arg(required = true, value_name = "DIR|MANIFEST|MODULE")]
    releases: Vec<PathBuf>,
    #[command(flatten)]
    signer: SignerFlags,
    /// Name of the manifest in each folder, and beside each module
    #[arg(long, value_name = "FILE", default_value = "manifest.yaml")]
    manifest: PathBuf,
    /// Write the bundle to MODULE.sigstore.json beside the manifest instead of into it
    #[arg(long)]
    sidecar: bool,
    /// Sign anew what carries an attestation of version 1, which nothing accepts any more
    #[arg(long)]
    upgrade: bool,
    #[command(flatten)]
    services: ServiceFlags,
}

/// Runs `sign`. Every release is tried; the exit code is that of the first failure.
///
/// # Errors
/// When the key, the certificate or the identity token cannot be used.
pub fn run(sign: &Sign, home: &Home, out: &Output) -> Outcome {
    let signer = sign.signer.signer(|| sign.services.client(home), home)?;
    let services = sign.services.services(home)?;
    let mut worst = None;
    for path in &sign.releases {
        match sign_target(path, sign, &signer, &services, out) {
            Ok(()) => {}
            Err(failure) => {
                worst.get_or_insert(failure.exit);
                out.failure(&failure.about(path));
            }
        }
    }
    Ok(worst.unwrap_or(Exit::Ok))
}

fn sign_target(path: &Path, sign: &Sign, signer: &Signer, services: &Services, out: &Output) -> Outcome<()> {
    // One certificate serves the whole call, and it may be one of minutes: what is signed after its time helps nobody.
    signer.refuse_expired(clock::now())?;
    match Target::find(path, &sign.manifest)? {
        Target::Release(release) => sign_release(*release, sign, signer, services, out),
        Target::Module(module) => module::sign(&module, signer, services, out),
    }
}

fn sign_release(
    mut release: Release,
    sign: &Sign,
    signer: &Signer,
    services: &Services,
    out: &Output,
) -> Outcome<()> {
    if !sign.upgrade {
        release.refuse_old_attestation()?;
    }
    if release.assemble_missing_module()? {
        out.line(format!("assembled {}", release.module_path()?.display()));
    }
    release.refuse_stale_pipeline()?;
    let bytes = release.module()?;
    // What would be found out later is found out before anything is signed and recorded.
    if release.pipeline()?.is_none() {
        module::check(&release.module_path()?, &bytes)?;
    }
    check_writable(folder_of(release.path()))?;
    let spinner = out.spinner(format!("signing {}", release.manifest().id()));
    let sidecar = if sign.sidecar { Some(sidecar_name(&release)?) } else { None };
    let statement = Statement::agent_release(release.manifest(), &sha256(&bytes));
    let payload = statement.to_payload().or_fail(Exit::Failure, "writing the statement")?;
    let (mut bundle, entry) = unlogged(payload, signer)?;
    let signed = match complete(&mut bundle, &entry, &signer.chain, services) {
        Ok((staples, log_index)) => Signed { bundle, staples, log_index },
        Err(failure) if failure.exit == Exit::Unavailable => {
            Pending::new(&bundle, &signer.chain, sidecar).store(&release.module_path()?)?;
            return Err(failure.hint("the signature is kept: finish it with `mentatctl log submit --resume`"));
        }
        Err(failure) => return Err(failure),
    };
    drop(spinner);
    store(&mut release, &signed, &signer.chain, sidecar.as_deref())?;
    report(&release, &signed, &signer.name(), sidecar.as_deref(), out);
    Ok(())
}

/// Writes finished evidence into a manifest.
///
/// # Errors
/// When a file cannot be written; the manifest is then as it was.
pub fn store(
    release: &mut Release,
    signed: &Signed,
    chain: &[Certificate],
    sidecar: Option<&str>,
) -> Outcome<()> {
    let block = AttestationBlock::new(&signed.bundle, sidecar, chain, signed.staples.clone())
        .or_fail(Exit::Failure, "making the attestation block")?;
    let json = signed.bundle.to_json().or_fail(Exit::Failure, "writing the bundle")?;
    let bundle = match sidecar {
        Some(name) => NewBundle::Sidecar { name, json: &json },
        None => NewBundle::Inline,
    };
    release
        .file
        .store_attestation(&block, bundle)
        .or_fail(Exit::Failure, "writing the attestation")
        .map_err(|failure| {
            let index = signed.log_index;
            failure.hint(format!("the signature is recorded at log index {index}; make room and sign again"))
        })?;
    Pending::forget(&release.module_path()?)
}

/// Says what was signed.
pub fn report(release: &Release, signed: &Signed, signer: &str, sidecar: Option<&str>, out: &Output) {
    let (manifest, index) = (release.manifest(), signed.log_index);
    out.line(format!(
        "{} {} {} as {signer}, log index {index}",
        out.paint(Tone::Good, "signed"),
        manifest.id(),
        manifest.version(),
    ));
    out.value(|| {
        json!({
            "ok": true, "manifest": shown(release.path()), "agent": manifest.id().as_str(),
            "version": manifest.version().as_str(), "signer": signer, "log_index": index, "sidecar": sidecar,
        })
    });
}

/// What signing made.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The bundle.
    pub bundle: Bundle,
    /// Revocation evidence for the chain, as far as its issuers publish it.
    pub staples: Staples,
    /// Index of the entry in the log.
    pub log_index: u64,
}

/// Signs a statement and collects its evidence.
///
/// # Errors
/// When the key cannot sign, or a service refuses or cannot be reached.
pub fn sign_statement(statement: &Statement, signer: &Signer, services: &Services) -> Outcome<Signed> {
    let payload = statement.to_payload().or_fail(Exit::Failure, "writing the statement")?;
    let (bundle, entry) = unlogged(payload, signer)?;
    collect(bundle, &entry, &signer.chain, services)
}

/// A bundle that holds nothing but its signature, and the entry that belongs into the log.
///
/// # Errors
/// When the key cannot sign.
pub fn unlogged(payload: Vec<u8>, signer: &Signer) -> Outcome<(Bundle, HashedRekord)> {
    let envelope = envelope(payload, signer)?;
    let certificate = signer.certificate().der().to_vec();
    let key = VerifierKey::Certificate(certificate.clone());
    let entry = HashedRekord::for_envelope(&envelope, key, signer.key_details)
        .or_fail(Exit::Failure, "making the log entry")?;
    Ok((Bundle::for_envelope(certificate, envelope), entry))
}

/// Timestamp and log entry of a bundle that holds nothing but its signature, and staples for these certificates.
///
/// # Errors
/// When a service refuses or cannot be reached.
pub fn collect(
    mut bundle: Bundle,
    entry: &HashedRekord,
    chain: &[Certificate],
    services: &Services,
) -> Outcome<Signed> {
    let (staples, log_index) = complete(&mut bundle, entry, chain, services)?;
    Ok(Signed { bundle, staples, log_index })
}

/// Adds to a bundle what it lacks of a timestamp and a log entry, and fetches staples. What was obtained stays in it when a later
/// step fails, so that it is not asked for again. Returns the staples and the entry's index.
///
/// # Errors
/// Exit code 69 when a service cannot be reached, 1 when it refuses.
pub fn complete(
    bundle: &mut Bundle,
    entry: &HashedRekord,
    chain: &[Certificate],
    services: &Services,
) -> Outcome<(Staples, u64)> {
    let signature = bundle.signature().or_fail(Exit::Failure, "reading the signature")?.to_vec();
    let request: Value =
        serde_json::from_slice(&entry.request().or_fail(Exit::Failure, "writing the log entry")?)
            .or_fail(Exit::Failure, "writing the log entry")?;
    let recorded = async {
        // The time is proven first: a log entry without a token would be on record and useless.
        if bundle.timestamps.is_empty() {
            bundle.timestamps.push(services.timestamp(&signature).await?);
        }
        match bundle.log_entries.first() {
            Some(known) => Ok(known.log_index),
            None => {
                let logged = services.record(&request, entry).await?;
                let index = logged.log_index;
                bundle.log_entries.push(logged);
                Ok(index)
            }
        }
    };
    block_on(async {
        // The addresses of status are others, and may be slow.
        let stapled = async { Ok(services.staples(chain).await) };
        let (index, staples) = futures_util::future::try_join(recorded, stapled).await?;
        Ok((staples, index))
    })
}

/// A DSSE envelope of a payload, signed.
///
/// # Errors
/// When the key cannot sign.
pub fn envelope(payload: Vec<u8>, signer: &Signer) -> Outcome<Envelope> {
    let signature = signer.sign(&dsse::pae(IN_TOTO_PAYLOAD_TYPE, &payload))?;
    Ok(Envelope::new(IN_TOTO_PAYLOAD_TYPE, payload, signature))
}

fn sidecar_name(release: &Release) -> Outcome<String> {
    Ok(format!("{}.sigstore.json", release.module_name()?))
}
