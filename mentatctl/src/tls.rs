//! A small private authority for the TLS certificates of the services themselves, for the split form. It has nothing to
//! do with code signing: its certificates name hosts and services, never people.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::clock;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Secrecy, make_folder, read_secret, read_text, write_file};
use crate::output::{Output, shown};

/// `tls` subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the private authority: ca.crt and ca.key
    Init(Init),
    /// Make a certificate for a service or a client: NAME.crt and NAME.key
    Issue(Issue),
}

/// `tls init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Folder for ca.crt and ca.key
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Common name of the authority
    #[arg(long, default_value = "Mentat private TLS CA")]
    name: String,
}

/// `tls issue`.
#[derive(Debug, Args)]
pub struct Issue {
    /// Folder of ca.crt and ca.key
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Common name: the name under which servers list this client
    #[arg(long)]
    name: String,
    /// Host name or IP address the certificate is good for; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Days until it expires
    #[arg(long, default_value_t = 397, value_parser = clap::value_parser!(u16).range(1..=825))]
    days: u16,
}

/// Runs a `tls` command.
///
/// # Errors
/// When a file exists already, cannot be read or written, or a host is not a name.
pub fn run(command: &Command, out: &Output) -> Outcome {
    match command {
        Command::Init(init) => make_authority(init, out),
        Command::Issue(issue) => make_certificate(issue, out),
    }
}

fn make_authority(init: &Init, out: &Output) -> Outcome {
    let made = authority(&init.dir, &init.name)?;
    report(out, &made);
    Ok(Exit::Ok)
}

fn make_certificate(issue: &Issue, out: &Output) -> Outcome {
    let plain = !issue.name.is_empty()
        && issue.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !plain || issue.name.starts_with('.') || issue.name == "ca" {
        return Err(Failure::usage(format!("`{}` cannot be a service's name", issue.name))
            .hint("use letters, digits, hyphen, dot and underscore"));
    }
    refuse_existing(&Pair::named(&issue.dir, &issue.name))?;
    let made = certificate(&issue.dir, &issue.name, &issue.hosts, issue.days)?;
    report(out, &made);
    Ok(Exit::Ok)
}

/// The files of a certificate and its key.
#[derive(Debug)]
pub struct Pair {
    /// PEM file with the certificate, and its issuer.
    pub certificate: PathBuf,
    /// PEM file with the key, for its owner alone.
    pub key: PathBuf,
}

impl Pair {
    /// The files of this name.
    pub fn named(dir: &Path, name: &str) -> Self {
        Self { certificate: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) }
    }
}

/// Makes an authority: `ca.crt` and `ca.key`, valid for ten years.
///
/// # Errors
/// When there is one already, or a file cannot be written.
pub fn authority(dir: &Path, name: &str) -> Outcome<Pair> {
    let files = Pair::named(dir, "ca");
    refuse_existing(&files)?;
    make_folder(dir, Secrecy::Public)?;
    let mut params = named(name, 3650);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pair = KeyPair::generate().or_fail(Exit::Failure, "making a key")?;
    let made = params.self_signed(&pair).or_fail(Exit::Failure, "signing the authority's certificate")?;
    write_file(&files.key, pair.serialize_pem().as_bytes(), Secrecy::Secret)?;
    write_file(&files.certificate, made.pem().as_bytes(), Secrecy::Public)?;
    Ok(files)
}

/// Makes a certificate for these hosts by the authority of the folder, for so many days. What has the name is replaced.
///
/// # Errors
/// When the authority cannot be read, a host is not a name, or a file cannot be written.
pub fn certificate(dir: &Path, name: &str, hosts: &[impl AsRef<str>], days: u16) -> Outcome<Pair> {
    let files = Pair::named(dir, name);
    let ca = Pair::named(dir, "ca");
    let ca_pair = KeyPair::from_pem(&read_secret(&ca.key)?).or_fail(Exit::Usage, "reading ca.key")?;
    let ca_pem = read_text(&ca.certificate)?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, &ca_pair).or_fail(Exit::Usage, "reading ca.crt")?;
    let mut params = named(name, i64::from(days));
    params.subject_alt_names =
        hosts.iter().map(|host| alternative_name(host.as_ref())).collect::<Outcome<_>>()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let pair = KeyPair::generate().or_fail(Exit::Failure, "making a key")?;
    let made = params.signed_by(&pair, &issuer).or_fail(Exit::Failure, "signing the certificate")?;
    write_file(&files.key, pair.serialize_pem().as_bytes(), Secrecy::Secret)?;
    write_file(&files.certificate, format!("{}{ca_pem}", made.pem()).as_bytes(), Secrecy::Public)?;
    Ok(files)
}

/// Valid from an hour ago (clocks differ) for so many days.
fn named(name: &str, days: i64) -> CertificateParams {
    let now = OffsetDateTime::from_unix_timestamp(clock::now().0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(days);
    params
}

fn alternative_name(host: &str) -> Outcome<SanType> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let name = host.try_into().map_err(|_| {
        Failure::usage(format!("`{host}` is neither a host name nor an address"))
            .hint("write it without scheme and port")
    })?;
    Ok(SanType::DnsName(name))
}

fn refuse_existing(files: &Pair) -> Outcome<()> {
    match [&files.certificate, &files.key].into_iter().find(|path| path.exists()) {
        Some(path) => Err(Failure::failed(format!("{} exists already", path.display()))
            .hint("choose another name, or remove it if it is no longer used")),
        None => Ok(()),
    }
}

fn report(out: &Output, made: &Pair) {
    let Pair { certificate, key } = made;
    out.line(format!("wrote {} and {}", certificate.display(), key.display()));
    out.value(|| json!({ "ok": true, "certificate": shown(certificate), "key": shown(key) }));
}
