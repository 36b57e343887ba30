//! `statement` and `attach`: a release signed by another client. The client signs the statement that `statement` prints, and
//! `attach` puts its bundle into the manifest, with issuers and revocation evidence.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use trust_store::Certificate;
use trust_store::attestation::AttestationBlock;
use trust_store::bundle::{Bundle, Content};
use trust_store::dsse::IN_TOTO_PAYLOAD_TYPE;
use trust_store::statement::Statement;
use trust_store::trusted_root::TrustedRoot;
use trust_store_files::manifest_file::NewBundle;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, read_file};
use crate::net::{TlsFlags, block_on};
use crate::output::{Output, Tone, shown};
use crate::release::{Release, Use};
use crate::sign::{sha256, staples};

/// `statement`.
#[derive(Debug, Args)]
pub struct PrintStatement {
    /// Folder with a manifest.yaml, or a manifest
    #[arg(value_name = "DIR|MANIFEST")]
    release: PathBuf,
}

/// `attach`.
#[derive(Debug, Args)]
pub struct Attach {
    /// The bundle that the other client wrote
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// trusted_root.json, where the certificate's issuers are looked for [default: of the stack, else
    /// ~/.mentat/trusted_root.json]
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsFlags,
    /// Folder with a manifest.yaml, or a manifest
    #[arg(value_name = "DIR|MANIFEST")]
    release: PathBuf,
}

/// Runs `statement`.
///
/// # Errors
/// Exit code 2 when manifest or module cannot be read.
pub fn print_statement(print: &PrintStatement, out: &Output) -> Outcome {
    let release = open(&print.release)?;
    let statement = Statement::agent_release(release.manifest(), &sha256(&release.module()?));
    out.raw(&statement.to_payload().or_fail(Exit::Failure, "writing the statement")?);
    Ok(Exit::Ok)
}

/// Runs `attach`. The manifest is written only when the bundle is about this release; whether its signer is trusted is for
/// `verify` to say.
///
/// # Errors
/// Exit code 2 when a file cannot be used, 3 when the bundle is about something else or nobody known issued its certificate.
pub fn attach(attach: &Attach, home: &Home, out: &Output) -> Outcome {
    let release = open(&attach.release)?;
    let bundle = Bundle::parse(&read_file(&attach.bundle)?).or_fail(Exit::Usage, attach.bundle.display())?;
    let about = match &bundle.content {
        Content::Dsse(envelope) if envelope.payload_type == IN_TOTO_PAYLOAD_TYPE => {
            Statement::parse(&envelope.payload).or_fail(Exit::Denied, "the statement in the bundle")?
        }
        _ => {
            return Err(Failure::new(Exit::Denied, "the bundle holds no in-toto statement")
                .hint("let the client sign, as an attestation, what `mentatctl statement` prints"));
        }
    };
    if !about.releases(release.manifest(), &sha256(&release.module()?)) {
        return Err(Failure::new(Exit::Denied, "the bundle is about another release")
            .code("manifest_mismatch")
            .hint("let the client sign what `mentatctl statement` prints now"));
    }
    let root = home.trusted_root(attach.trusted_root.as_deref())?;
    let root = TrustedRoot::parse(&read_file(&root)?).or_fail(Exit::Usage, root.display())?;
    let chain = chain(&bundle, &root)?;
    let staples = block_on(async { Ok(staples(&attach.tls.client(home)?, &chain).await) })?;
    let block = AttestationBlock::new(&bundle, None, &chain, staples)
        .or_fail(Exit::Failure, "making the attestation block")?;
    let mut release = release;
    release
        .file
        .store_attestation(&block, NewBundle::Inline)
        .or_fail(Exit::Failure, "writing the attestation")?;
    let (id, version) = (release.manifest().id(), release.manifest().version());
    out.line(format!("{} the signature of {id} {version}", out.paint(Tone::Good, "attached")));
    out.value(|| {
        json!({
            "ok": true, "manifest": shown(release.path()), "agent": id.as_str(), "version": version.as_str(),
        })
    });
    Ok(Exit::Ok)
}

fn open(path: &Path) -> Outcome<Release> {
    let release = Release::open(path, Use::Sign)?;
    release.assemble_missing_module()?;
    Ok(release)
}

/// The bundle's certificate and its issuers by name; their signatures are verified with everything else.
fn chain(bundle: &Bundle, root: &TrustedRoot) -> Outcome<Vec<Certificate>> {
    let leaf =
        bundle.certificate().ok_or_else(|| Failure::new(Exit::Denied, "the bundle has no certificate"))?;
    let mut chain = vec![Certificate::from_der(leaf).map_err(crate::verify::denied)?];
    let known: Vec<Certificate> = root
        .certificate_authorities
        .iter()
        .flat_map(|authority| authority.cert_chain.iter())
        .filter_map(|der| Certificate::from_der(der).ok())
        .collect();
    while let Some(last) = chain.last()
        && !last.is_self_issued()
        && chain.len() <= known.len() + 1
    {
        let issuer = known.iter().find(|each| {
            each.subject_name() == last.issuer_name()
                && each.subject_key_identifier()
                    == last.authority_key_identifier().and_then(|id| id.key_identifier)
        });
        let issuer = issuer.ok_or_else(|| {
            Failure::new(Exit::Denied, "the trusted root does not hold the certificate's issuer")
                .code("unknown_issuer")
                .hint("give the trusted root of the authority that issued it")
        })?;
        chain.push(issuer.clone());
    }
    Ok(chain)
}
