//! `sign`: statement → envelope → timestamp → log → bundle → staples → attestation block.
//!
//! The manifest is not written before everything was obtained and the finished evidence was checked to be about this module: an
//! interrupted run leaves it as it was. When a service is away, the signature waits in a file beside the manifest, and
//! `log submit --resume` finishes it: without the key, which may be gone by then.

mod evidence;
pub mod key;
mod module;
pub mod pending;
mod signer;

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

pub use evidence::{Services, crl_url, staples};
pub use key::Source;
pub use pending::Pending;
pub use signer::{Signer, kinds_of, sha256, sha256_of_file};

use crate::exit::{Exit, OrFail as _, Outcome};
use crate::home::{Home, check_writable, folder_of};
use crate::net::{TlsFlags, block_on};
use crate::output::{Output, Tone, shown};
use crate::release::{Release, Use};

/// `sign`.
#[derive(Debug, Args)]
pub struct Sign {
    /// Folders with a manifest.yaml, or manifests
    #[arg(required = true, value_name = "DIR|MANIFEST")]
    releases: Vec<PathBuf>,
    /// Developer certificate with its issuers, PEM [default: ~/.mentat/signing.crt; with --key or --key-env, the newest that the
    /// authority issued for that key]
    #[arg(long, value_name = "FILE", conflicts_with = "cert_env")]
    cert: Option<PathBuf>,
    /// Environment variable that holds the certificate with its issuers in PEM
    #[arg(long, value_name = "NAME")]
    cert_env: Option<String>,
    /// Its key, PEM [default: ~/.mentat/signing.key]; or, where this program was built for it, the reference of a key in a
    /// token or a key service (pkcs11:…, awskms:…)
    #[arg(long, value_name = "FILE|REFERENCE", conflicts_with = "key_env")]
    key: Option<PathBuf>,
    /// Environment variable that holds the key in PEM
    #[arg(long, value_name = "NAME")]
    key_env: Option<String>,
    /// Base URL of the certificate authority, where the certificate is asked for by its key
    #[arg(long, value_name = "URL", conflicts_with_all = ["cert", "cert_env"])]
    ca_url: Option<String>,
    /// Passphrase of an encrypted key
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Name of the manifest in each folder
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

/// Where evidence comes from.
#[derive(Debug, Args)]
pub struct ServiceFlags {
    /// Base URL of the signing log
    #[arg(long, value_name = "URL")]
    log_url: Option<String>,
    /// Full URL of the timestamp authority
    #[arg(long, value_name = "URL")]
    tsa_url: Option<String>,
    #[command(flatten)]
    tls: TlsFlags,
}

impl ServiceFlags {
    /// Base URL of the log, where it was given.
    pub fn log_url(&self) -> Option<&str> {
        self.log_url.as_deref()
    }

    /// Full URL of the timestamp authority, where it was given.
    pub fn tsa_url(&self) -> Option<&str> {
        self.tsa_url.as_deref()
    }

    /// The services.
    ///
    /// # Errors
    /// Exit code 2 when an address is not known or a TLS file cannot be used.
    pub fn services(&self, home: &Home) -> Outcome<Services> {
        let log = home.log_url(self.log_url.as_deref())?;
        Services::new(self.tls.client(home)?, &log, &home.tsa_url(self.tsa_url.as_deref())?)
    }

    /// The HTTP client.
    ///
    /// # Errors
    /// Exit code 2 when a TLS file cannot be used.
    pub fn client(&self, home: &Home) -> Outcome<reqwest::Client> {
        self.tls.client(home)
    }
}

/// Runs `sign`. Every release is tried; the exit code is that of the first failure.
///
/// # Errors
/// When the key or certificate cannot be used.
pub fn run(sign: &Sign, home: &Home, out: &Output) -> Outcome {
    let (key, key_env) = (sign.key.as_deref(), sign.key_env.as_deref());
    let passphrase = sign.passphrase_file.as_deref();
    let signer = match &sign.cert_env {
        Some(name) => {
            let key = key_env.map(Source::Variable).or(key.map(Source::File));
            Signer::load_from(Source::Variable(name), key, passphrase, home)?
        }
        None => match (&sign.cert, key_env.map(Source::Variable).or(key.map(Source::File))) {
            (None, Some(key)) => {
                let (http, ca_url) = (sign.services.client(home)?, sign.ca_url.as_deref());
                Signer::load_by_key(key, passphrase, http, ca_url, home)?
            }
            (cert, _) => {
                let cert = cert.clone().unwrap_or_else(|| home.signing_certificate());
                Signer::load(&cert, key, key_env, passphrase, home)?
            }
        },
    };
    let services = sign.services.services(home)?;
    let mut worst = None;
    for path in &sign.releases {
        match sign_release(path, sign, &signer, &services, out) {
            Ok(()) => {}
            Err(failure) => {
                worst.get_or_insert(failure.exit);
                out.failure(&failure.about(path));
            }
        }
    }
    Ok(worst.unwrap_or(Exit::Ok))
}

fn sign_release(path: &Path, sign: &Sign, signer: &Signer, services: &Services, out: &Output) -> Outcome<()> {
    let manifest = if path.is_dir() { path.join(&sign.manifest) } else { path.to_path_buf() };
    let mut release = Release::open(&manifest, Use::Sign)?;
    if !sign.upgrade {
        release.refuse_old_attestation()?;
    }
    if release.assemble_missing_module()? {
        out.line(format!("assembled {}", release.module_path()?.display()));
    }
    let bytes = release.module()?;
    // What would be found out later is found out before anything is signed and recorded.
    module::check(&release.module_path()?, &bytes)?;
    check_writable(folder_of(release.path()))?;
    let spinner = out.spinner(format!("signing {}", release.manifest().id()));
    let sidecar = if sign.sidecar { Some(sidecar_name(&release)?) } else { None };
    let statement = Statement::agent_release(release.manifest(), &sha256(&bytes));
    let payload = statement.to_payload().or_fail(Exit::Failure, "writing the statement")?;
    let (mut bundle, entry) = unlogged(payload, signer)?;
    let signed = match complete(&mut bundle, &entry, &signer.chain, services) {
        Ok((staples, log_index)) => Signed { bundle, staples, log_index },
        Err(failure) if failure.exit == Exit::Unavailable => {
            Pending::new(&bundle, &signer.chain, sidecar)?.store(&release)?;
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
    Pending::forget(release)
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
