//! `sign-bundle`: the command-line protocol of Sigstore's conformance suite. Signs a file, or an in-toto statement, with a
//! key that lives for this one signature and a certificate for whoever the identity token names.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use trust_store::UnixTime;
use trust_store::bundle::Bundle;
use trust_store::signing_config::{Service, SigningConfig};
use trust_store::statement::{MAX_STATEMENT_BYTES, Statement};

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, Secrecy, read_file, read_text, write_file};
use crate::net::TlsFlags;
use crate::output::{Output, Tone, shown};
use crate::sign::keyless::{self, TokenFlags};
use crate::sign::module::{NO_STAPLES, unlogged_file};
use crate::sign::{Services, Signer, collect, sha256_of_file, unlogged};
use crate::{clock, verify_bundle};

/// `sign-bundle`.
#[derive(Debug, Args)]
pub struct SignBundle {
    /// Accepted for the protocol's sake; the addresses always come from the signing configuration
    #[arg(long, hide = true)]
    staging: bool,
    /// The file is an in-toto statement, to be signed as it is
    #[arg(long)]
    in_toto: bool,
    #[command(flatten)]
    token: TokenFlags,
    /// The bundle to write
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// trusted_root.json, by which the new bundle is verified before it is written [default: of the stack, else
    /// ~/.mentat/trusted_root.json]
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// signing_config.json [default: beside the trusted root]
    #[arg(long, value_name = "FILE")]
    signing_config: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsFlags,
    /// The file to sign
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs `sign-bundle`.
///
/// # Errors
/// Exit code 2 when a file cannot be read, 69 when a service cannot be reached, 1 when one refuses, 3 when what came out
/// does not verify.
pub fn run(sign: &SignBundle, home: &Home, out: &Output) -> Outcome {
    let root_path = home.trusted_root(sign.trusted_root.as_deref())?;
    let root = read_text(&root_path)?;
    let config_path =
        sign.signing_config.clone().unwrap_or_else(|| root_path.with_file_name("signing_config.json"));
    let config =
        SigningConfig::parse(&read_file(&config_path)?).or_fail(Exit::Usage, config_path.display())?;
    let now = clock::now();
    let ca = service(&config.ca_urls, 1, "certificate authority", now)?;
    let log = service(&config.rekor_tlog_urls, 2, "transparency log", now)?;
    let tsa = service(&config.tsa_urls, 1, "timestamp authority", now)?;
    let http = sign.tls.client(home)?;
    let services = Services::new(http.clone(), &log.url, &tsa.url)?;
    let token = sign.token.read()?.ok_or_else(keyless::missing)?;
    // Read before a certificate is asked for: what cannot be signed needs none.
    let input = Artifact::read(&sign.file, sign.in_toto)?;
    let signer = keyless::signer(&http, &ca.url, &token)?;
    let (bundle, digest) = input.sign(&signer, &services)?;
    let json = bundle.to_json().or_fail(Exit::Failure, "writing the bundle")?;
    verify_own(&json, &root, &digest, &signer)?;
    write_file(&sign.bundle, &json, Secrecy::Public)?;
    out.line(format!("{} {} as {}", out.paint(Tone::Good, "signed"), sign.file.display(), signer.name()));
    out.value(|| json!({ "ok": true, "bundle": shown(&sign.bundle), "signer": signer.name() }));
    Ok(Exit::Ok)
}

/// What is to be signed.
enum Artifact {
    /// A file, by its digest.
    Blob([u8; 32]),
    /// The bytes of an in-toto statement, and the digest of one of its subjects.
    Statement(Vec<u8>, String),
}

impl Artifact {
    fn read(path: &Path, in_toto: bool) -> Outcome<Self> {
        if !in_toto {
            return Ok(Self::Blob(sha256_of_file(path)?));
        }
        let bytes = trust_store_files::atomic::read(path, MAX_STATEMENT_BYTES as u64)
            .map_err(|error| crate::release::file_failure(&error, Exit::Usage))?;
        let statement = Statement::parse(&bytes).or_fail(Exit::Usage, path.display())?;
        let digests = statement.subject.iter().find_map(|subject| subject.digest.get("sha256").cloned());
        let digest = digests
            .ok_or_else(|| Failure::usage(format!("{} names no subject by its SHA-256", path.display())))?;
        Ok(Self::Statement(bytes, digest))
    }

    fn sign(self, signer: &Signer, services: &Services) -> Outcome<(Bundle, String)> {
        let digest = match self {
            Self::Statement(payload, digest) => {
                let (bundle, entry) = unlogged(payload, signer)?;
                return Ok((collect(bundle, &entry, NO_STAPLES, services)?.bundle, digest));
            }
            Self::Blob(digest) => digest,
        };
        let (bundle, entry) = unlogged_file(&digest, signer)?;
        Ok((collect(bundle, &entry, NO_STAPLES, services)?.bundle, hex::encode(digest)))
    }
}

fn service<'a>(list: &'a [Service], version: u32, what: &str, now: UnixTime) -> Outcome<&'a Service> {
    SigningConfig::select(list, version, now).ok_or_else(|| {
        Failure::usage(format!(
            "the signing configuration names no {what} with API version {version} that is valid at this time"
        ))
    })
}

/// What is written is what verifies.
fn verify_own(bundle: &[u8], root: &str, digest: &str, signer: &Signer) -> Outcome<()> {
    let identity = trust_store::identity::Identity::of_certificate(signer.certificate())
        .map_err(crate::verify::denied)?;
    let bundle = std::str::from_utf8(bundle).or_fail(Exit::Failure, "writing the bundle")?;
    verify_bundle::decide(
        bundle,
        root,
        digest,
        &json!({
            "identity": identity.subject(), "issuer": identity.issuer(),
        }),
    )
}
