//! `pki request-cert` and `pki renew`: make a key, prove its possession, fetch the certificate.
//!
//! Order: the request (id, key) reaches the disk → the authority is asked → the certificate is checked to be the one that
//! was asked for → key → certificate → the request is forgotten. Whatever is interrupted is finished by repeating the
//! command with the same token: the authority hands out the certificate of the first call, never a second one.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ca_api::client::{CaClient, ClientError};
use ca_api::limits::MAX_TOKEN;
use ca_api::{Enrol, Identity, IssuedCertificate, RequestCode};
use clap::{Args, ValueEnum};
use hsm::developer::DeveloperKey;
use hsm::software::KdfProfile;
use hsm::{KeyAlgorithm, Passphrase, PublicKey, Signer};
use serde_json::json;
use trust_store::identity;
use zeroize::Zeroizing;

use super::pending::PendingRequest;
use super::waiting::{self, Approval};
use super::{CaFlags, IdentityFlags, ca_failure, key_advice, passphrase_from, read_key, time_text};
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, Secrecy, folder_of, make_folder, write_file};
use crate::net::block_on;
use crate::output::{Output, shown};
use crate::sign::key;
use crate::{chain_file, csr};

/// `pki request-cert` and `pki renew`.
#[derive(Debug, Args)]
pub struct RequestCert {
    #[command(flatten)]
    identity: IdentityFlags,
    /// The one-time token. Better: leave it out and pipe the token to standard input, where no list of processes shows it
    #[arg(long, conflicts_with = "by_mail")]
    pub(super) token: Option<String>,
    /// Have the authority send a code to the --email address, which is then asked for and proves that it is yours
    #[arg(long, requires = "email", conflicts_with = "uri")]
    by_mail: bool,
    /// Where the certificate and its issuers go [default: ~/.mentat/signing.crt]
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Where the key goes, or is read from when it exists [default: ~/.mentat/signing.key]; or, where this program was built for
    /// it, the reference of a key in a token or a key service (pkcs11:…, awskms:…), which is made there when it does not exist
    #[arg(long, value_name = "FILE|REFERENCE")]
    pub(super) key: Option<PathBuf>,
    /// Type of a new key
    #[arg(long, value_enum, default_value = "ecdsa-p256")]
    pub(super) algorithm: KeyType,
    /// Where people must approve the certificate: wait until they did, which is the default. Ctrl-C leaves the request standing, and the same
    /// command with the same token goes on
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Where people must approve the certificate: end with exit code 69 instead of waiting
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
    /// Encrypt a new key with the passphrase in this file
    #[arg(long, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) ca: CaFlags,
}

impl RequestCert {
    /// Whether it is for an identity that the command line names.
    pub(super) fn names_somebody(&self) -> bool {
        self.identity.is_given()
    }
}

/// Key types of developers.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KeyType {
    /// ECDSA on P-256: works with every client
    EcdsaP256,
    /// ECDSA on P-384
    EcdsaP384,
    /// RSA with 3072 bits, where a profile allows it
    Rsa3072,
    /// RSA with 4096 bits, where a profile allows it
    Rsa4096,
}

/// What happens to a key file that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// The certificate is for that key.
    KeepExisting,
    /// The certificate is for a new key, which replaces it.
    MakeNew,
}

/// When a request was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    /// By this call: nobody was asked before.
    Now,
    /// By an earlier call, whose answer is not known.
    Before,
}

/// Gets a certificate.
///
/// # Errors
/// Exit code 2 when a file or the token cannot be used; 1 when the authority refuses; 69 when it cannot be reached or
/// cannot answer now: the same command then continues.
pub fn request_cert(request: &RequestCert, key_use: KeyUse, home: &Home, out: &Output) -> Outcome {
    let certificate_path = request.output.clone().unwrap_or_else(|| home.signing_certificate());
    let given = request.key.clone().unwrap_or_else(|| home.signing_key());
    let elsewhere = key::reference(&given)?;
    // What is written down about a request stands beside the key, or, where that is elsewhere, beside the certificate.
    let key_path = if elsewhere.is_some() { certificate_path.clone() } else { given.clone() };
    let identity = request.identity.identity()?;
    let passphrase = request.passphrase_file.as_deref().map(passphrase_from).transpose()?;
    // Without the administrator's token: enrolment proves itself by the one-time token alone.
    let client = CaClient::new(request.ca.http(home)?, &request.ca.url(home)?);
    // What could not be written later is noticed before the one-time token is spent.
    for (path, secrecy) in [(&key_path, Secrecy::Secret), (&certificate_path, Secrecy::Public)] {
        if path.is_dir() || path.file_name().is_none() {
            return Err(Failure::usage(format!("{} is a folder", path.display())).hint("name a file"));
        }
        make_folder(folder_of(path), secrecy)?;
    }
    if request.by_mail {
        send_code(&client, &identity, out)?;
    }
    let token = read_token(request.token.as_deref(), out)?;
    let _turn = one_at_a_time(folder_of(&key_path))?;
    let (pending, key, begun): (_, Arc<dyn Signer>, _) = match PendingRequest::find(&key_path)? {
        Some(pending) if pending.is_for(&token) => {
            let key = match pending.new_key() {
                Some(pem) => DeveloperKey::from_pem(pem, passphrase.as_ref())
                    .or_fail(Exit::Usage, pending.path().display())
                    .map_err(key_advice)
                    .map(key::shared)?,
                None => key::open(&given, passphrase.as_ref())?,
            };
            out.note(format!("continuing the request in {}", pending.path().display()));
            (pending, key, Begun::Before)
        }
        other => {
            if let Some(other) = other {
                out.note(format!(
                    "{} held a request with another token that was never finished; this one takes its place",
                    other.path().display()
                ));
            }
            match &elsewhere {
                None => {
                    let (pending, key) =
                        begin(&key_path, key_use, request.algorithm, &token, passphrase.as_ref())?;
                    (pending, key::shared(key), Begun::Now)
                }
                Some(_) if key_use == KeyUse::MakeNew => {
                    return Err(Failure::usage("a key that lives elsewhere is not replaced")
                        .hint("name another object in --key with `pki request-cert`: it is made there"));
                }
                Some(uri) => {
                    let key = key::open_or_make(uri, request.algorithm.into())?;
                    (PendingRequest::begin(&key_path, &token, None)?, key, Begun::Now)
                }
            }
        }
    };
    let enrol = Enrol {
        token: token.as_str().to_owned(),
        csr: csr::request_pem(&*key, &identity)?,
        request_id: Some(pending.request_id().to_owned()),
    };
    let approval = if request.no_wait { Approval::Ask } else { Approval::Await };
    let answer = block_on(async { Ok(waiting::enrol(&client, &enrol, approval, out).await) })?;
    let issued = match answer {
        Ok(issued) => issued,
        Err(error) => return Err(refusal(error, pending, begun)),
    };
    let chain = check(&issued, &*key, identity.as_str())?;
    if let Some(pem) = pending.new_key() {
        write_file(&key_path, pem.as_bytes(), Secrecy::Secret)?;
    }
    write_file(&certificate_path, chain.as_bytes(), Secrecy::Public).map_err(|failure| {
        failure
            .hint("the certificate is not lost: repeat the command with the same token and another --output")
    })?;
    pending.forget()?;
    out.line(format!(
        "certificate {} for {identity}, valid to {}",
        issued.serial,
        time_text(issued.not_after)
    ));
    match elsewhere {
        None => out.line(format!("wrote {} and {}", certificate_path.display(), key_path.display())),
        Some(_) => out.line(format!("wrote {}; the key stays where it is", certificate_path.display())),
    }
    out.value(|| json!({
        "ok": true, "serial": issued.serial, "certificate": shown(&certificate_path), "key": shown(&given),
        "not_before": issued.not_before, "not_after": issued.not_after, "log_index": issued.log_index,
    }));
    Ok(Exit::Ok)
}

/// Has a code sent to the address of an identity.
fn send_code(client: &CaClient, identity: &Identity, out: &Output) -> Outcome<()> {
    let asked = RequestCode { email: identity.as_str().to_owned() };
    let sent = block_on(async { client.request_code(&asked).await.map_err(ca_failure) })?;
    out.note(format!("a code was sent to {identity}; it is good until {}", time_text(sent.expires_at)));
    Ok(())
}

/// The one-time token, from the command line or standard input.
fn read_token(given: Option<&str>, out: &Output) -> Outcome<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    match given {
        Some(token) => text.push_str(token),
        None => {
            let stdin = std::io::stdin();
            let read = if stdin.is_terminal() {
                // Not echoed: until it is used it is worth a certificate, and terminals are recorded and shared.
                out.note(
                    "paste the one-time token, or the code of the letter, and press Enter (it is not shown):",
                );
                rpassword::read_password().map(|typed| text = Zeroizing::new(typed))
            } else {
                stdin.take(MAX_TOKEN as u64 * 4).read_to_string(&mut text).map(|_| ())
            };
            read.or_fail(Exit::Usage, "reading the token from standard input")?;
        }
    }
    let token = Zeroizing::new(text.trim().to_owned());
    if token.is_empty() {
        return Err(Failure::usage("no one-time token").hint(NEW_TOKEN));
    }
    if token.len() > MAX_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Failure::usage("what was given is no one-time token").hint(NEW_TOKEN));
    }
    Ok(token)
}

const NEW_TOKEN: &str = "an administrator makes one with: mentatctl pki token create --email ADDRESS";

/// Two requests in one folder could leave the key of one beside the certificate of the other. The lock ends with the
/// value, and with the process.
pub(super) fn one_at_a_time(folder: &Path) -> Outcome<File> {
    let lock = File::open(folder).or_fail(Exit::Usage, format!("cannot use {}", folder.display()))?;
    lock.lock().or_fail(Exit::Usage, format!("cannot lock {}", folder.display()))?;
    Ok(lock)
}

pub(super) fn begin(
    key_path: &Path,
    key_use: KeyUse,
    algorithm: KeyType,
    token: &str,
    passphrase: Option<&Passphrase>,
) -> Outcome<(PendingRequest, DeveloperKey)> {
    if key_use == KeyUse::KeepExisting && key_path.exists() {
        let key = read_key(key_path, passphrase)?;
        return Ok((PendingRequest::begin(key_path, token, None)?, key));
    }
    let key = DeveloperKey::generate(algorithm.into()).or_fail(Exit::Failure, "making a key")?;
    let pem = match passphrase {
        Some(passphrase) => Zeroizing::new(
            key.to_encrypted_pem(passphrase, KdfProfile::Strong)
                .or_fail(Exit::Usage, "encrypting the key")?,
        ),
        None => key.to_pem(),
    };
    Ok((PendingRequest::begin(key_path, token, Some(&pem))?, key))
}

/// The failure of a request, and what becomes of the file beside the key.
fn refusal(error: ClientError, pending: PendingRequest, begun: Begun) -> Failure {
    // The authority looks for the token first, then for what was issued with it, and only then at the rest. A refusal
    // with a code of its own therefore says that no certificate will come of this request; one without is by somebody
    // else, such as a proxy, and an authority that never saw the token may be the wrong one.
    let hopeless = match &error {
        ClientError::Problem(problem) => match problem.code.as_str() {
            "http_error" | "unauthorized" => false,
            // The request stands; it goes on once its record is repaired, or the configuration says again what was approved.
            "request_changed" => false,
            "token_unknown" | "request_conflict" => begun == Begun::Now,
            _ => (400..500).contains(&problem.status) && problem.status != 429,
        },
        _ => false,
    };
    let failure = ca_failure(error);
    if hopeless {
        return match pending.forget() {
            Ok(()) => failure,
            Err(other) => other,
        };
    }
    if failure.exit != Exit::Unavailable {
        return failure;
    }
    let path = pending.path().display();
    let again = format!("the same command with the same token continues the request kept in {path}");
    let hint = match &failure.hint {
        Some(hint) if hint.ends_with('?') => format!("{hint} {again}"),
        Some(hint) if failure.code.as_deref() == Some("awaits_approval") => format!("{hint}; {again}"),
        _ => again,
    };
    failure.hint(hint)
}

/// The certificate with its issuers in PEM, after it was seen to be for this key and this identity.
pub(super) fn check(issued: &IssuedCertificate, key: &dyn Signer, identity: &str) -> Outcome<String> {
    let answer = "the certificate authority's answer";
    let bad = |failure: Failure| Failure { exit: Exit::Failure, ..failure };
    let certificate = chain_file::parse(&issued.certificate, answer).map_err(bad)?.remove(0);
    let named = PublicKey::from_spki_der(certificate.spki_der()).or_fail(Exit::Failure, answer)?;
    if named.spki_sha256() != key.public_key().spki_sha256() {
        return Err(Failure::failed(
            "the certificate authority certified another key than the one of the request",
        )
        .hint("is --ca-url the authority that made the token?"));
    }
    let certified = identity::Identity::of_certificate(&certificate).or_fail(Exit::Failure, answer)?;
    if !certified.subject().eq_ignore_ascii_case(identity) {
        return Err(Failure::failed(format!(
            "the token was made for {}, not for {identity}",
            certified.subject()
        ))
        .hint("repeat the command with that identity to take its certificate, or ask for another token"));
    }
    // The root is a trust anchor: relying parties have it, and a chain that carries it proves nothing more.
    let mut chain = issued.certificate.clone();
    for pem in issued.chain.iter().take(issued.chain.len().saturating_sub(1)) {
        chain.push_str(pem);
    }
    chain_file::parse(&chain, answer).map_err(bad)?;
    Ok(chain)
}

impl From<KeyType> for KeyAlgorithm {
    fn from(key_type: KeyType) -> Self {
        match key_type {
            KeyType::EcdsaP256 => Self::EcdsaP256,
            KeyType::EcdsaP384 => Self::EcdsaP384,
            KeyType::Rsa3072 => Self::Rsa3072,
            KeyType::Rsa4096 => Self::Rsa4096,
        }
    }
}
