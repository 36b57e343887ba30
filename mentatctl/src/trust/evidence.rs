//! `trust evidence`: everything an executor without a network needs, as one signed file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use hsm::developer::DeveloperKey;
use hsm::{Input, KeyAlgorithm, Passphrase, Purpose, SignatureAlgorithm, Signer as _, SigningIntent};
use serde_json::json;
use tlog::{Checkpoint, Note};
use trust_store::evidence::Evidence;
use trust_store::evidence::signed::{self, EvidenceSigner, SignedEvidence};
use trust_store::provider::AwsLc;
use trust_store::verifier::{ArtifactDigest, Deciding, Verifier};
use trust_store::{Certificate, UnixTime};
use trust_store_files::evidence_file;

use crate::clock;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, Secrecy, make_folder, read_text, write_file};
use crate::net::{TlsFlags, block_on};
use crate::output::{Output, shown};
use crate::pki;
use crate::release::{Release, Use, file_failure};
use crate::verify::refresh;

/// `trust evidence` subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fetch the evidence that releases need and write it as one signed file
    Export(Export),
    /// Verify a signed file and put it where an executor reads it
    Import(Import),
    /// Verify a signed file and show what is inside
    Show(Show),
    /// Make a key that signs evidence
    Keygen(Keygen),
}

/// `trust evidence export`.
#[derive(Debug, Args)]
pub struct Export {
    /// Folders with a signed manifest.yaml, or manifests, that shall be admitted
    #[arg(required = true, value_name = "DIR|MANIFEST")]
    releases: Vec<PathBuf>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Private key that signs, PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Passphrase of an encrypted key
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Hours for which the file may be used
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=2160))]
    valid_hours: u16,
    /// trusted_root.json [default: of the stack, else ~/.mentat/trusted_root.json]
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// Base URL of the signing log
    #[arg(long, value_name = "URL")]
    log_url: Option<String>,
    #[command(flatten)]
    tls: TlsFlags,
}

/// `trust evidence import`.
#[derive(Debug, Args)]
pub struct Import {
    /// The signed file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Public key of whoever signs evidence, PEM; may be repeated
    #[arg(long = "signer", value_name = "FILE", required = true)]
    signers: Vec<PathBuf>,
    /// Where the executor reads it: its evidence.import_file
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// `trust evidence show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The signed file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Public key of whoever signs evidence, PEM; may be repeated
    #[arg(long = "signer", value_name = "FILE", required = true)]
    signers: Vec<PathBuf>,
}

/// `trust evidence keygen`.
#[derive(Debug, Args)]
pub struct Keygen {
    /// File for the private key, PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// File for the public key, PEM
    #[arg(long, value_name = "FILE")]
    public: PathBuf,
    /// Encrypt the private key with this passphrase
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Runs a `trust evidence` command.
///
/// # Errors
/// What the command reports.
pub fn run(command: &Command, home: &Home, out: &Output) -> Outcome {
    match command {
        Command::Export(export) => run_export(export, home, out),
        Command::Import(import) => run_import(import, out),
        Command::Show(show) => run_show(show, out),
        Command::Keygen(keygen) => run_keygen(keygen, out),
    }
}

/// Reads the public keys of whoever signs evidence.
///
/// # Errors
/// Exit code 2 when a file cannot be read or holds no key.
pub fn signers(files: &[PathBuf]) -> Outcome<Vec<EvidenceSigner>> {
    if files.len() > signed::MAX_SIGNERS {
        return Err(Failure::usage(format!("more than {} evidence signers", signed::MAX_SIGNERS)));
    }
    files
        .iter()
        .map(|path| EvidenceSigner::from_pem(&read_text(path)?).or_fail(Exit::Usage, path.display()))
        .collect()
}

fn run_export(export: &Export, home: &Home, out: &Output) -> Outcome {
    let passphrase = export.passphrase_file.as_deref().map(pki::passphrase_from).transpose()?;
    let key = pki::read_key(&export.key, passphrase.as_ref())?;
    let created = clock::now();
    let root = super::root_in_force(&home.trusted_root(export.trusted_root.as_deref())?, created)?;
    let verifier = Verifier::new(Arc::new(AwsLc), &root).map_err(crate::verify::denied)?;
    let http = export.tls.client(home)?;
    let log_url = home.log_url(export.log_url.as_deref())?;
    let mut evidence = Evidence::none();
    // An executor also follows the lists about the authorities themselves.
    let authorities = root.certificate_authorities.iter().chain(&root.timestamp_authorities);
    let authorities = authorities.flat_map(|authority| authority.cert_chain.iter());
    let authorities = authorities.filter_map(|der| Certificate::from_der(der).ok()).collect::<Vec<_>>();
    block_on(refresh::lists(&mut evidence, authorities.into_iter(), http.clone()))?;
    for path in &export.releases {
        let release = Release::open(path, Use::Verify)?;
        let (attestation, digest) = (release.attestation()?, ArtifactDigest::of(&release.module()?));
        // Only what leads to a trusted anchor names lists that are worth asking for.
        let chains = verifier.chains(&attestation, digest, Deciding::ByAnyPolicy, created);
        let chains = chains.map_err(crate::verify::denied)?;
        block_on(refresh::refresh(&mut evidence, &attestation, &chains, &root, http.clone(), &log_url))?;
    }
    tidy(&mut evidence);
    authentic(&verifier, &evidence)?;
    let expires = UnixTime(created.0 + i64::from(export.valid_hours) * 3600);
    let payload = signed::payload(&evidence, created, expires).or_fail(Exit::Failure, "the evidence")?;
    let signature = sign(&key, &signed::message(&payload))?;
    let bytes = signed::file(payload, signature).or_fail(Exit::Failure, "the evidence")?;
    write_file(&export.output, &bytes, Secrecy::Public)?;
    let lists = evidence.revocation().crls.len();
    out.line(format!(
        "wrote {}: {lists} revocation lists, {} logs; usable until {}",
        export.output.display(),
        evidence.logs().len(),
        expires.to_rfc3339()
    ));
    out.value(|| json!({
        "ok": true, "file": shown(&export.output), "created": created.to_rfc3339(), "expires": expires.to_rfc3339(),
        "crls": lists, "logs": evidence.logs().iter().map(|log| &log.origin).collect::<Vec<_>>(),
    }));
    Ok(Exit::Ok)
}

/// Several releases name the same lists and trees: each is kept once.
fn tidy(evidence: &mut Evidence) {
    let mut seen = std::collections::BTreeSet::new();
    evidence.revocation_mut().crls.retain(|crl| seen.insert(crl.der().to_vec()));
    let origins: Vec<String> = evidence.logs().iter().map(|log| log.origin.clone()).collect();
    for origin in origins {
        let log = evidence.log_mut(&origin);
        let mut notes = std::collections::BTreeSet::new();
        log.checkpoints.retain(|note| notes.insert(note.clone()));
        let mut proofs = Vec::new();
        log.consistency.retain(|proof| {
            let new = !proofs.contains(proof);
            if new {
                proofs.push(proof.clone());
            }
            new
        });
    }
}

/// Whoever signs vouches for what was collected: a list that no authority of the trusted root signed is not passed on.
fn authentic(verifier: &Verifier, evidence: &Evidence) -> Outcome<()> {
    for crl in &evidence.revocation().crls {
        if verifier.material().authenticate_crl(crl, &AwsLc).is_none() {
            return Err(Failure::new(
                Exit::Denied,
                "a revocation list that was served is signed by no authority of the trusted root",
            )
            .code("revocation_unknown")
            .hint("is the status address that of this authority, and the trusted root the newest?"));
        }
    }
    Ok(())
}

fn sign(key: &DeveloperKey, message: &[u8]) -> Outcome<Vec<u8>> {
    let algorithm = match key.public_key().algorithm() {
        KeyAlgorithm::EcdsaP256 => SignatureAlgorithm::EcdsaP256Sha256,
        KeyAlgorithm::EcdsaP384 => SignatureAlgorithm::EcdsaP384Sha384,
        KeyAlgorithm::Ed25519 => SignatureAlgorithm::Ed25519,
        other => {
            return Err(Failure::usage(format!("evidence is not signed with {other} keys"))
                .hint("make one with `mentatctl trust evidence keygen`"));
        }
    };
    let intent = SigningIntent::fresh(Purpose::Statement).or_fail(Exit::Failure, "signing")?;
    let signature =
        key.sign(Input::Message(message), algorithm, &intent).or_fail(Exit::Failure, "signing")?;
    Ok(signature.into_vec())
}

fn open(file: &Path, signer_files: &[PathBuf]) -> Outcome<SignedEvidence> {
    evidence_file::load_signed(file, &signers(signer_files)?, &AwsLc, clock::now())
        .map_err(|error| file_failure(&error, Exit::Denied))
}

fn run_import(import: &Import, out: &Output) -> Outcome {
    let new = open(&import.file, &import.signers)?;
    if import.output.is_file() {
        // What lies there may have expired or be damaged: then anything that verifies is better.
        if let Ok(old) = open(&import.output, &import.signers)
            && new.created() < old.created()
        {
            let made = new.created().to_rfc3339();
            return Err(Failure::new(
                Exit::Denied,
                format!("the file was made at {made}, the one in place at {}", old.created().to_rfc3339()),
            )
            .code("revocation_stale")
            .hint("export a new one; an executor refuses to go back"));
        }
    }
    let bytes = read_file_of_evidence(&import.file)?;
    if let Some(folder) = import.output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_folder(folder, Secrecy::Public)?;
    }
    write_file(&import.output, &bytes, Secrecy::Public)?;
    out.line(format!(
        "imported into {}; usable until {}",
        import.output.display(),
        new.expires().to_rfc3339()
    ));
    out.value(|| json!({ "ok": true, "file": shown(&import.output), "expires": new.expires().to_rfc3339() }));
    Ok(Exit::Ok)
}

fn read_file_of_evidence(path: &Path) -> Outcome<Vec<u8>> {
    trust_store_files::atomic::read(path, signed::MAX_SIGNED_EVIDENCE_BYTES as u64)
        .map_err(|error| file_failure(&error, Exit::Usage))
}

fn run_show(show: &Show, out: &Output) -> Outcome {
    let signed = open(&show.file, &show.signers)?;
    let lists: Vec<_> = signed
        .evidence()
        .revocation()
        .crls
        .iter()
        .map(|crl| {
            json!({
                "this_update": crl.this_update().to_rfc3339(),
                "next_update": crl.next_update().map(UnixTime::to_rfc3339),
                "entries": crl.entries().count(),
            })
        })
        .collect();
    let logs: Vec<_> = signed
        .evidence()
        .logs()
        .iter()
        .map(|log| {
            let sizes = log.checkpoints.iter().filter_map(|text| {
                let note = Note::parse(text.as_bytes()).ok()?;
                Some(Checkpoint::parse(note.text()).ok()?.head().size)
            });
            json!({ "origin": log.origin, "size": sizes.max(), "proofs": log.consistency.len() })
        })
        .collect();
    out.line(format!(
        "collected {}, usable until {}, signed by {}",
        signed.created().to_rfc3339(),
        signed.expires().to_rfc3339(),
        hex::encode(signed.signer())
    ));
    for list in &lists {
        out.line(format!("  revocation list {list}"));
    }
    for log in &logs {
        out.line(format!("  log {log}"));
    }
    out.value(|| {
        json!({
            "ok": true, "created": signed.created().to_rfc3339(), "expires": signed.expires().to_rfc3339(),
            "signer": hex::encode(signed.signer()), "crls": lists, "logs": logs,
        })
    });
    Ok(Exit::Ok)
}

fn run_keygen(keygen: &Keygen, out: &Output) -> Outcome {
    for path in [&keygen.key, &keygen.public] {
        if path.exists() {
            return Err(Failure::failed(format!("{} exists already", path.display()))
                .hint("choose other names: a key is never overwritten"));
        }
    }
    let passphrase: Option<Passphrase> =
        keygen.passphrase_file.as_deref().map(pki::passphrase_from).transpose()?;
    let key = DeveloperKey::generate(KeyAlgorithm::Ed25519).or_fail(Exit::Failure, "making the key")?;
    match &passphrase {
        Some(passphrase) => {
            let pem = key
                .to_encrypted_pem(passphrase, hsm::software::KdfProfile::Strong)
                .or_fail(Exit::Failure, "encrypting the key")?;
            write_file(&keygen.key, pem.as_bytes(), Secrecy::Secret)?;
        }
        None => write_file(&keygen.key, key.to_pem().as_bytes(), Secrecy::Secret)?,
    }
    write_file(&keygen.public, key.public_key().to_pem().as_bytes(), Secrecy::Public)?;
    out.line(format!("wrote {} and {}", keygen.key.display(), keygen.public.display()));
    out.value(|| json!({ "ok": true, "key": shown(&keygen.key), "public": shown(&keygen.public) }));
    Ok(Exit::Ok)
}

/// Reads evidence for a verification, of either form.
///
/// # Errors
/// Exit code 2 when it cannot be read, 3 with the reason when a signed file is refused.
pub fn load(path: &Path, signer_files: &[PathBuf], now: UnixTime) -> Outcome<Evidence> {
    evidence_file::load(path, &signers(signer_files)?, &AwsLc, now).map_err(|error| {
        let exit = if matches!(error, trust_store_files::Error::Content { .. }) {
            Exit::Denied
        } else {
            Exit::Usage
        };
        file_failure(&error, exit)
    })
}
