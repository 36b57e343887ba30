//! `pki renew` by the key at hand, shown by a signature or at the TLS handshake: a new certificate for a new key, and no token.
//!
//! The new key and the id of the request are written down before the authority is asked, and the certificate is put in its place before
//! its key is: whoever was interrupted repeats the command, and gets the same certificate.

use std::path::Path;

use ca_api::client::{CaClient, ClientError};
use ca_api::possession::{AskChallenge, Renew};
use clap::Args;
use hsm::developer::DeveloperKey;
use hsm::{Passphrase, PublicKey, Signer as _};
use serde_json::json;
use trust_store::identity::Identity;

use super::enrol::{KeyUse, RequestCert, begin, check, one_at_a_time, request_cert};
use super::own::{Own, Showing};
use super::pending::PendingRequest;
use super::{ca_failure, key_advice, passphrase_from, time_text, waiting};
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, Secrecy, folder_of, write_file};
use crate::net::block_on;
use crate::output::{Output, shown};
use crate::sign::key;
use crate::{chain_file, csr};

/// `pki renew`.
#[derive(Debug, Args)]
pub struct Renewal {
    #[command(flatten)]
    request: RequestCert,
    /// Show the certificate at the TLS handshake, where the authority takes that (enrolment.mutual_tls), instead of signing the request
    /// with its key
    #[arg(long, conflicts_with_all = ["email", "uri", "token", "by_mail"])]
    mtls: bool,
}

/// Replaces the certificate at hand: by its key, or, for whoever the command line names, with a one-time token.
///
/// # Errors
/// As [`by_key`] and [`request_cert`].
pub fn run(renewal: &Renewal, home: &Home, out: &Output) -> Outcome {
    if renewal.request.names_somebody() {
        return request_cert(&renewal.request, KeyUse::MakeNew, home, out);
    }
    by_key(&renewal.request, Showing::mutual_tls(renewal.mtls), home, out)
}

/// Renews the certificate whose key is at hand.
///
/// # Errors
/// Exit code 2 when certificate or key cannot be used; 1 when the authority refuses; 69 when it cannot answer now, or people must
/// approve: the same command then continues.
fn by_key(request: &RequestCert, showing: Showing, home: &Home, out: &Output) -> Outcome {
    if request.token.is_some() {
        return Err(Failure::usage("a token is for one identity").hint("give --email or --uri with --token"));
    }
    let certificate_path = request.output.clone().unwrap_or_else(|| home.signing_certificate());
    let key_path = request.key.clone().unwrap_or_else(|| home.signing_key());
    if key::reference(&key_path)?.is_some() {
        return Err(Failure::usage("a key that lives elsewhere is not replaced")
            .hint("name another object in --key with `pki request-cert`: it is made there"));
    }
    let passphrase = request.passphrase_file.as_deref().map(passphrase_from).transpose()?;
    request.ca.url(home)?;
    let _turn = one_at_a_time(folder_of(&key_path))?;
    let certificate = chain_file::read(&certificate_path)?.remove(0);
    let identity = Identity::of_certificate(&certificate).or_fail(Exit::Usage, certificate_path.display())?;
    let certified = PublicKey::from_spki_der(certificate.spki_der());
    let certified = certified.or_fail(Exit::Usage, certificate_path.display())?;
    let mut found = None;
    if let Some(pending) = PendingRequest::find(&key_path)? {
        if let Some(new) = new_key(&pending, passphrase.as_ref()) {
            if new.public_key().spki_sha256() == certified.spki_sha256() {
                // The certificate is in its place already; its key was on the way.
                let serial = hex::encode(certificate.serial());
                put_key(pending, &key_path)?;
                out.line(format!("certificate {serial} has its key in {}", key_path.display()));
                let (certificate, key) = (shown(&certificate_path), shown(&key_path));
                out.value(|| json!({ "ok": true, "serial": serial, "certificate": certificate, "key": key }));
                return Ok(Exit::Ok);
            }
            found = Some((pending, new));
        } else {
            return Err(Failure::usage(format!(
                "{} is a request for a certificate",
                pending.path().display()
            ))
            .hint("finish it with the command and the token that began it, or move it away"));
        }
    }
    let own = Own::open(&certificate_path, &key_path, passphrase.as_ref(), showing)?;
    let client = own.client(&request.ca, home)?;
    let mark = format!("certificate:{}", own.serial);
    let (pending, key) = match found {
        Some((pending, key)) if pending.is_for(&mark) => {
            out.note(format!("continuing the request in {}", pending.path().display()));
            (pending, key)
        }
        Some((pending, _)) => {
            return Err(Failure::usage(format!("{} is a request with a token", pending.path().display()))
                .hint("finish it with the command and the token that began it, or move it away"));
        }
        None => begin(&key_path, KeyUse::MakeNew, request.algorithm, &mark, passphrase.as_ref())?,
    };
    let csr = csr::bare_request_pem(&key)?;
    let request_id = pending.request_id().to_owned();
    let answer = block_on(async {
        let proof = if own.is_shown() {
            None
        } else {
            let asked = AskChallenge { serial: own.serial.clone() };
            match client.renewal_challenge(&asked).await {
                Ok(challenge) => own.renewal(challenge.challenge, &request_id, &csr)?,
                Err(error) => return Ok(Err(error)),
            }
        };
        Ok(waiting::renew(&client, &Renew { proof, csr, request_id }, out).await)
    })?;
    let issued = match answer {
        Ok(issued) => issued,
        Err(error) if is_hopeless(&error) => {
            // Its answer may have been lost, and whatever is refused now was not then: the key of a certificate is not thrown away.
            let spki = hex::encode(key.public_key().spki_sha256());
            let client = CaClient::new(request.ca.http(home)?, &request.ca.url(home)?);
            match block_on(async { Ok(client.certificate_of_key(&spki).await) })? {
                Ok(issued) => issued,
                Err(none) if none.code() == Some("certificate_unknown") => {
                    pending.forget()?;
                    return Err(ca_failure(error));
                }
                Err(_) => return Err(refusal(error, &pending)),
            }
        }
        Err(error) => return Err(refusal(error, &pending)),
    };
    let chain = check(&issued, &key, identity.subject())?;
    write_file(&certificate_path, chain.as_bytes(), Secrecy::Public)?;
    put_key(pending, &key_path)?;
    let valid_to = time_text(issued.not_after);
    out.line(format!("certificate {} for {}, valid to {valid_to}", issued.serial, identity.subject()));
    out.line(format!("wrote {} and {}", certificate_path.display(), key_path.display()));
    out.value(|| json!({
        "ok": true, "serial": issued.serial, "certificate": shown(&certificate_path), "key": shown(&key_path),
        "not_before": issued.not_before, "not_after": issued.not_after, "log_index": issued.log_index, "renews": own.serial,
    }));
    Ok(Exit::Ok)
}

/// The new key of a request, if it has one that can be read with this passphrase.
fn new_key(pending: &PendingRequest, passphrase: Option<&Passphrase>) -> Option<DeveloperKey> {
    pending.new_key().and_then(|pem| DeveloperKey::from_pem(pem, passphrase).ok())
}

/// Puts the new key in its place; the request is over.
fn put_key(pending: PendingRequest, key_path: &Path) -> Outcome<()> {
    if let Some(pem) = pending.new_key() {
        write_file(key_path, pem.as_bytes(), Secrecy::Secret).map_err(key_advice)?;
    }
    pending.forget()
}

/// Whether no certificate will come of a request that is refused so. Without a code of its own it is somebody else's answer, such as a
/// proxy's.
fn is_hopeless(error: &ClientError) -> bool {
    match error {
        ClientError::Problem(problem) => match problem.code.as_str() {
            "challenge_expired" | "http_error" | "proof_expired" | "proof_missing" | "request_changed"
            | "request_conflict" => false,
            _ => (400..500).contains(&problem.status) && problem.status != 429,
        },
        _ => false,
    }
}

/// The failure of a renewal whose file beside the key is kept.
fn refusal(error: ClientError, pending: &PendingRequest) -> Failure {
    let failure = ca_failure(error);
    if failure.exit != Exit::Unavailable {
        return failure;
    }
    let again = format!("the same command continues the request kept in {}", pending.path().display());
    match &failure.hint {
        Some(hint) => {
            let hint = format!("{hint}{} {again}", if hint.ends_with('?') { "" } else { ";" });
            failure.hint(hint)
        }
        None => failure.hint(again),
    }
}
