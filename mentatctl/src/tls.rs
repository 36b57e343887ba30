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
    let (certificate, key) = (init.dir.join("ca.crt"), init.dir.join("ca.key"));
    refuse_existing(&[&certificate, &key])?;
    make_folder(&init.dir, Secrecy::Public)?;
    let mut params = named(&init.name, 3650);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pair = KeyPair::generate().or_fail(Exit::Failure, "making a key")?;
    let made = params.self_signed(&pair).or_fail(Exit::Failure, "signing the authority's certificate")?;
    write_file(&key, pair.serialize_pem().as_bytes(), Secrecy::Secret)?;
    write_file(&certificate, made.pem().as_bytes(), Secrecy::Public)?;
    report(out, &certificate, &key);
    Ok(Exit::Ok)
}

fn make_certificate(issue: &Issue, out: &Output) -> Outcome {
    let plain = !issue.name.is_empty()
        && issue.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !plain || issue.name.starts_with('.') || issue.name == "ca" {
        return Err(Failure::usage(format!("`{}` cannot be a service's name", issue.name))
            .hint("use letters, digits, hyphen, dot and underscore"));
    }
    let (certificate, key) =
        (issue.dir.join(format!("{}.crt", issue.name)), issue.dir.join(format!("{}.key", issue.name)));
    refuse_existing(&[&certificate, &key])?;
    let ca_pair =
        KeyPair::from_pem(&read_secret(&issue.dir.join("ca.key"))?).or_fail(Exit::Usage, "reading ca.key")?;
    let ca_pem = read_text(&issue.dir.join("ca.crt"))?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, &ca_pair).or_fail(Exit::Usage, "reading ca.crt")?;
    let mut params = named(&issue.name, i64::from(issue.days));
    params.subject_alt_names =
        issue.hosts.iter().map(|host| alternative_name(host)).collect::<Outcome<_>>()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let pair = KeyPair::generate().or_fail(Exit::Failure, "making a key")?;
    let made = params.signed_by(&pair, &issuer).or_fail(Exit::Failure, "signing the certificate")?;
    write_file(&key, pair.serialize_pem().as_bytes(), Secrecy::Secret)?;
    write_file(&certificate, format!("{}{ca_pem}", made.pem()).as_bytes(), Secrecy::Public)?;
    report(out, &certificate, &key);
    Ok(Exit::Ok)
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

fn refuse_existing(paths: &[&Path]) -> Outcome<()> {
    match paths.iter().find(|path| path.exists()) {
        Some(path) => Err(Failure::failed(format!("{} exists already", path.display()))
            .hint("choose another name, or remove it if it is no longer used")),
        None => Ok(()),
    }
}

fn report(out: &Output, certificate: &Path, key: &Path) {
    out.line(format!("wrote {} and {}", certificate.display(), key.display()));
    out.value(|| json!({ "ok": true, "certificate": shown(certificate), "key": shown(key) }));
}
