//! `trust`: the files by which relying parties know a stack (trusted root, signing configuration), how they are
//! distributed and followed, and evidence for machines without a network.

pub mod distribution;
pub mod evidence;
pub mod lint;
pub mod reporters;
mod rotate;
mod update;

use std::path::{Path, PathBuf};

use ca_api::{Authorities, AuthorityRole};
use clap::{Args, Subcommand};
use serde_json::json;
use tlog_client::{LogDescription, LogSet};
use trust_store::json::Bytes;
use trust_store::key_details::{HashAlgorithm, KeyDetails};
use trust_store::policy_document::{Logs, Witnesses};
use trust_store::signing_config::{ClientTrustConfig, Service, SigningConfig};
use trust_store::trusted_root::{
    self, CertificateChain, DistinguishedName, KeyId, LogInstance, LogKey, TrustedRoot,
};
use trust_store::validity::Validity;
use trust_store::{Certificate, UnixTime};

use crate::exit::{Exit, Failure, OrFail as _, Outcome, chain};
use crate::home::{Home, Secrecy, make_folder, write_file};
use crate::net::block_on;
use crate::output::{Output, shown};
use crate::pki::{CaFlags, ca_failure};
use crate::release::file_failure;
use crate::{chain_file, log};

/// `trust` subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask an authority and a log for their keys and write the files that relying parties need
    Export(Export),
    /// Follow a repository of trust metadata (TUF) and write what it distributes
    Update(update::Update),
    /// Make a repository of trust metadata (TUF) and its keys
    InitRepository(distribution::Init),
    /// Put new trust files into a repository
    Publish(distribution::Publish),
    /// Sign a repository's timestamp again, and what else nears its end
    Refresh(distribution::Refresh),
    /// Give roles new keys: of a repository, of a stack's authorities and logs
    Rotate(rotate::Rotate),
    /// Check whether stock clients can use trust files
    Lint(lint::Lint),
    /// Evidence for executors without a network, as one signed file
    #[command(subcommand)]
    Evidence(evidence::Command),
}

/// `trust export`.
#[derive(Debug, Args)]
pub struct Export {
    /// Folder for trusted_root.json, signing_config.json and log_keys.json [default: ~/.mentat]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    from: ExportFlags,
}

/// Whom to ask.
#[derive(Debug, Args)]
pub struct ExportFlags {
    /// Base URL of the transparency log server
    #[arg(long, value_name = "URL")]
    log_url: Option<String>,
    #[command(flatten)]
    ca: CaFlags,
}

impl ExportFlags {
    /// The authorities of the servers' TLS certificates, where they were given.
    pub fn tls_ca(&self) -> Option<&Path> {
        self.ca.tls_ca()
    }
}

/// What an authority and a log said of themselves. Worth as much as the connection it came over.
#[derive(Debug)]
pub struct Sources {
    authorities: Authorities,
    ca_url: String,
    log_url: String,
    /// The logs.
    pub logs: LogSet,
}

impl Sources {
    /// Beginning of the URLs under which revocation lists are published.
    ///
    /// # Errors
    /// When the authority names none.
    pub fn status_base(&self) -> Outcome<String> {
        let url = self.authorities.authorities.iter().find_map(|authority| authority.crl.as_deref());
        url.and_then(|url| url.split_once("/crl/").map(|(base, _)| base.to_owned()))
            .ok_or_else(|| Failure::failed("the certificate authority names no revocation list"))
    }

    /// SHA-256 of the root's certificate, to be compared with what the ceremony printed.
    ///
    /// # Errors
    /// When the authority names no root.
    pub fn root_sha256(&self) -> Outcome<String> {
        let root =
            self.authorities.authorities.iter().find(|authority| authority.role == AuthorityRole::Root);
        let pem = root
            .and_then(|root| root.certificate.as_deref())
            .ok_or_else(|| Failure::failed("the certificate authority names no root"))?;
        Ok(hex::encode(chain_file::parse(pem, "root")?.remove(0).fingerprint()))
    }
}

/// Asks an authority and a log server.
///
/// # Errors
/// Exit code 69 when either cannot be reached.
pub fn ask(flags: &ExportFlags, home: &Home) -> Outcome<Sources> {
    let ca_url = flags.ca.url(home)?;
    let log_url = home.log_url(flags.log_url.as_deref())?;
    let ca = flags.ca.client(home)?;
    let http = flags.ca.http(home)?;
    let (authorities, mut logs) = block_on(async {
        let authorities = ca.authorities().await.map_err(ca_failure)?;
        let logs = LogSet::fetch(http, &log_url).await.map_err(log::log_failure)?;
        Ok((authorities, logs))
    })?;
    reporters::bind(&mut logs, &authorities)?;
    Ok(Sources { authorities, ca_url, log_url, logs })
}

/// The trust files by name.
///
/// # Errors
/// When what was said cannot be trusted as it stands.
pub fn files(sources: &Sources) -> Outcome<Vec<(&'static str, Vec<u8>)>> {
    let root = trusted_root(&chains(&sources.authorities)?, &sources.logs)?;
    let issuers = &sources.authorities.oidc_issuers;
    let config = signing_config(&sources.ca_url, &sources.log_url, issuers, &root)?;
    let both = ClientTrustConfig::new(root.clone(), config.clone());
    Ok(vec![
        ("trusted_root.json", root.to_json().or_fail(Exit::Failure, "writing the trusted root")?),
        (
            "signing_config.json",
            config.to_json().or_fail(Exit::Failure, "writing the signing configuration")?,
        ),
        (
            "client_trust_config.json",
            both.to_json().or_fail(Exit::Failure, "writing the client trust configuration")?,
        ),
        (
            "log_keys.json",
            serde_json::to_vec_pretty(&sources.logs).or_fail(Exit::Failure, "writing the log keys")?,
        ),
    ])
}

/// Runs a `trust` command.
///
/// # Errors
/// What the command reports.
pub fn run(command: &Command, home: &Home, out: &Output) -> Outcome {
    match command {
        Command::Export(export) => run_export(export, home, out),
        Command::Update(update) => update::run(update, home, out),
        Command::InitRepository(init) => distribution::init(init, home, out),
        Command::Publish(publish) => distribution::publish(publish, home, out),
        Command::Refresh(refresh) => distribution::refresh(refresh, out),
        Command::Rotate(rotate) => rotate::run(rotate, home, out),
        Command::Lint(lint) => lint::run(lint, home, out),
        Command::Evidence(command) => evidence::run(command, home, out),
    }
}

/// The failure of distributed metadata: exit code 3 with the reason, 69 when it cannot be fetched.
pub fn distribution_failure(error: &trust_store_files::Error) -> Failure {
    use trust_store_files::tuf::Refusal;
    let Some(refusal) = error.refusal() else { return file_failure(error, Exit::Usage) };
    let exit = if refusal == Refusal::Unavailable { Exit::Unavailable } else { Exit::Denied };
    Failure::new(exit, error.to_string())
        .code(refusal.as_str())
        .hint("docs/operations/trust.md says what to do about each code")
}

/// Reads the trusted root for a decision at `now`.
///
/// # Errors
/// Exit code 2 when it cannot be read; 3 with `tuf_expired` or `tuf_mixed` when it follows a repository and nothing shows
/// that it is still the one to use.
pub fn root_in_force(path: &Path, now: UnixTime) -> Outcome<TrustedRoot> {
    trust_store_files::load_trusted_root_at(path, now).map_err(|error| match error.trust_code() {
        Some(code) => Failure::new(Exit::Denied, error.to_string())
            .code(code)
            .hint("docs/operations/trust.md says what to do about each code"),
        None => Failure::new(Exit::Usage, format!("the trusted root: {}", chain(&error)))
            .hint("give the trusted_root.json that `trust export`, `trust update` or a stack wrote"),
    })
}

fn run_export(export: &Export, home: &Home, out: &Output) -> Outcome {
    let folder = export.output.clone().unwrap_or_else(|| home.dir().to_path_buf());
    let sources = ask(&export.from, home)?;
    let files = files(&sources)?;
    let root_sha256 = sources.root_sha256()?;
    make_folder(&folder, Secrecy::Public)?;
    // From here on this root is what was asked for now, and follows no repository.
    let root_path = folder.join("trusted_root.json");
    trust_store_files::RootLifetime::remove(&root_path)
        .map_err(|error| file_failure(&error, Exit::Failure))?;
    for (name, bytes) in &files {
        let path = folder.join(name);
        write_file(&path, bytes, Secrecy::Public)?;
        out.line(format!("wrote {}", path.display()));
    }
    out.line(format!("root SHA-256 {root_sha256}: compare it with what the ceremony printed"));
    out.value(|| json!({
        "ok": true, "root_sha256": root_sha256, "files": files.iter().map(|(name, _)| shown(&folder.join(name))).collect::<Vec<_>>(),
    }));
    Ok(Exit::Ok)
}

/// The log section of a trust policy: further keys of the signing log (the ML-DSA-44 key, whose lines carry the signing
/// time), and no witnesses, in words.
pub fn log_policy(signing: &LogDescription) -> Logs {
    let mut text = String::new();
    for key in signing.vkeys.iter().skip(1) {
        text.push_str(&format!("log {key}\n"));
    }
    text.push_str("quorum none\n");
    Logs { threshold: None, policy: Some(text), witnesses: Some(Witnesses::NotRequired) }
}

/// An authority that relying parties trust: its chain, end-entity side first, the root last.
#[derive(Clone, Debug)]
pub struct TrustedChain {
    /// Name, for readers.
    pub name: String,
    /// What it issues.
    pub issues: Issues,
    /// The chain.
    pub certificates: Vec<Certificate>,
}

/// What an authority issues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issues {
    /// Code-signing certificates.
    Certificates,
    /// Timestamp tokens.
    Timestamps,
}

/// Adds the logs and authorities of `present` that `root` does not list yet; returns their names. What is listed stays: what
/// was signed then is verified by it.
pub fn add_instances(root: &mut TrustedRoot, present: TrustedRoot) -> Vec<String> {
    let mut added = Vec::new();
    for (list, logs) in [(&mut root.tlogs, present.tlogs), (&mut root.ctlogs, present.ctlogs)] {
        for log in logs {
            if !list.iter().any(|known| known.log_id == log.log_id) {
                added.push(log.host().to_owned());
                list.push(log);
            }
        }
    }
    for (list, authorities) in [
        (&mut root.certificate_authorities, present.certificate_authorities),
        (&mut root.timestamp_authorities, present.timestamp_authorities),
    ] {
        for authority in authorities {
            if !list.iter().any(|known| known.cert_chain == authority.cert_chain) {
                added.push(authority.subject.common_name.clone());
                list.push(authority);
            }
        }
    }
    added
}

/// The chains that an authority describes.
///
/// # Errors
/// When a certificate cannot be read.
pub fn chains(authorities: &Authorities) -> Outcome<Vec<TrustedChain>> {
    let mut chains = Vec::new();
    for authority in &authorities.authorities {
        let issues = match authority.role {
            AuthorityRole::CodeSigning => Issues::Certificates,
            AuthorityRole::TimestampAuthority => Issues::Timestamps,
            _ => continue,
        };
        let mut certificates = Vec::new();
        for pem in authority.certificate.iter().chain(&authority.chain) {
            certificates.extend(chain_file::parse(pem, &authority.name)?);
        }
        chains.push(TrustedChain { name: authority.name.clone(), issues, certificates });
    }
    Ok(chains)
}

/// The trusted root of authorities and one log server.
///
/// # Errors
/// When either describes something that cannot be trusted as it stands: no signing log, no chain.
pub fn trusted_root(chains: &[TrustedChain], logs: &LogSet) -> Outcome<TrustedRoot> {
    let mut root = TrustedRoot::new();
    for chain in chains {
        let list = match chain.issues {
            Issues::Certificates => &mut root.certificate_authorities,
            Issues::Timestamps => &mut root.timestamp_authorities,
        };
        list.push(authority(chain)?);
    }
    let start = root
        .certificate_authorities
        .iter()
        .filter_map(|authority| authority.valid_for.start)
        .min()
        .ok_or_else(|| {
        Failure::failed("the certificate authority names no issuer of code-signing certificates")
    })?;
    // Every shard: what a frozen one recorded is verified for as long as it is served.
    for log in &logs.0 {
        match log.kind.as_str() {
            "signing" => root.tlogs.push(log_instance(log, start)?),
            "issuance" => root.ctlogs.push(log_instance(log, start)?),
            _ => {}
        }
    }
    if root.tlogs.is_empty() {
        return Err(Failure::failed("the log server has no signing log"));
    }
    Ok(root)
}

/// The signing configuration for stock clients.
///
/// # Errors
/// When the root names no authority.
pub fn signing_config(
    ca_url: &str,
    log_url: &str,
    issuers: &[String],
    root: &TrustedRoot,
) -> Outcome<SigningConfig> {
    let start = root.tlogs.first().and_then(|log| log.public_key.valid_for.start);
    let start = start.ok_or_else(|| Failure::failed("the trusted root names no log"))?;
    let operator = root.tlogs.first().map(|log| log.host().to_owned()).unwrap_or_default();
    let service = |url: String, major_api_version| Service {
        url,
        major_api_version,
        valid_for: Validity::since(start),
        operator: operator.clone(),
    };
    let mut config = SigningConfig::new();
    config.ca_urls.push(service(ca_url.to_owned(), 1));
    config.oidc_urls.extend(issuers.iter().map(|url| service(url.clone(), 1)));
    config.rekor_tlog_urls.push(service(log_url.to_owned(), 2));
    config.tsa_urls.push(service(format!("{ca_url}/api/v1/timestamp"), 1));
    Ok(config)
}

fn authority(chain: &TrustedChain) -> Outcome<trusted_root::Authority> {
    let first = chain
        .certificates
        .first()
        .ok_or_else(|| Failure::failed(format!("the authority `{}` has no certificate", chain.name)))?;
    Ok(trusted_root::Authority {
        subject: DistinguishedName {
            organization: String::new(),
            common_name: trust_store::identity::subject_text(first),
        },
        uri: format!("https://{}.mentat.internal", chain.name),
        valid_for: Validity::since(first.not_before()),
        operator: String::new(),
        cert_chain: CertificateChain::new(
            chain.certificates.iter().map(|certificate| certificate.der().to_vec()),
        ),
    })
}

fn log_instance(log: &LogDescription, start: UnixTime) -> Outcome<LogInstance> {
    let spki = log.spki().or_fail(Exit::Failure, &log.origin)?;
    let key = hsm::PublicKey::from_spki_der(&spki).or_fail(Exit::Failure, &log.origin)?;
    let key_details = key_details(key.algorithm()).ok_or_else(|| {
        Failure::failed(format!("the key of {} is of a type that no client reads", log.origin))
    })?;
    Ok(LogInstance {
        // Nobody dials this address: the origin is all that it says.
        base_url: format!("https://{}", log.origin),
        hash_algorithm: HashAlgorithm::Sha256,
        public_key: LogKey { raw_bytes: Bytes(spki), key_details, valid_for: Validity::since(start) },
        log_id: KeyId { key_id: Bytes(log_id(log)?) },
        checkpoint_key_id: None,
        operator: String::new(),
    })
}

/// The log's id as bytes; servers write it in base64 or hexadecimal.
fn log_id(log: &LogDescription) -> Outcome<Vec<u8>> {
    let text = log.log_id.trim();
    let bytes = if text.len() == 64 { hex::decode(text).ok() } else { None };
    bytes
        .or_else(|| trust_store::json::base64_decode("log id", text).ok())
        .filter(|id| id.len() == 32)
        .ok_or_else(|| Failure::failed(format!("the id of {} is not 32 bytes", log.origin)))
}

/// How entries and trusted roots name a key type.
pub fn key_details(algorithm: hsm::KeyAlgorithm) -> Option<KeyDetails> {
    use hsm::KeyAlgorithm as Key;
    Some(match algorithm {
        Key::EcdsaP256 => KeyDetails::EcdsaP256Sha256,
        Key::EcdsaP384 => KeyDetails::EcdsaP384Sha384,
        Key::Ed25519 => KeyDetails::Ed25519,
        Key::Rsa3072 => KeyDetails::RsaPkcs1v15_3072Sha256,
        Key::Rsa4096 => KeyDetails::RsaPkcs1v15_4096Sha256,
        Key::MlDsa44 => KeyDetails::MlDsa44,
        _ => return None,
    })
}
