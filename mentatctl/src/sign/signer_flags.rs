//! Which key signs: one of the home folder, of a file, of the environment, of a token or key service, or one for the moment.

use std::path::PathBuf;

use clap::Args;
use reqwest::Client;

use super::key::Source;
use super::keyless::{self, TokenFlags};
use super::signer::Signer;
use crate::exit::Outcome;
use crate::home::Home;

/// Who signs.
#[derive(Debug, Args)]
pub struct SignerFlags {
    /// Developer certificate with its issuers, PEM [default: ~/.mentat/signing.crt; with --key or --key-env, the newest that the
    /// authority issued for that key]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cert_env", "identity_token", "identity_token_file"])]
    cert: Option<PathBuf>,
    /// Environment variable that holds the certificate with its issuers in PEM
    #[arg(long, value_name = "NAME", conflicts_with_all = ["identity_token", "identity_token_file"])]
    cert_env: Option<String>,
    /// Its key, PEM [default: ~/.mentat/signing.key]; or, where this program was built for it, the reference of a key in a
    /// token or a key service (pkcs11:…, awskms:…)
    #[arg(long, value_name = "FILE|REFERENCE", conflicts_with_all = ["key_env", "identity_token", "identity_token_file"])]
    key: Option<PathBuf>,
    /// Environment variable that holds the key in PEM
    #[arg(long, value_name = "NAME", conflicts_with_all = ["identity_token", "identity_token_file"])]
    key_env: Option<String>,
    #[command(flatten)]
    token: TokenFlags,
    /// Base URL of the certificate authority, where the certificate is asked for by its key or by an identity token
    #[arg(long, value_name = "URL", conflicts_with_all = ["cert", "cert_env"])]
    ca_url: Option<String>,
    /// Passphrase of an encrypted key
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl SignerFlags {
    /// The signer. `http` makes the client, where the authority is asked.
    ///
    /// # Errors
    /// Exit code 2 when a key, a certificate or a token cannot be used, or the authority's address is not known; 1 when the
    /// authority refuses, 69 when it cannot be reached.
    pub fn signer(&self, http: impl FnOnce() -> Outcome<Client>, home: &Home) -> Outcome<Signer> {
        let passphrase = self.passphrase_file.as_deref();
        let key = match (&self.key_env, &self.key) {
            (Some(name), _) => Some(Source::Variable(name)),
            (None, Some(path)) => Some(Source::File(path)),
            (None, None) => None,
        };
        let cert = match (&self.cert_env, &self.cert) {
            (Some(name), _) => Some(Source::Variable(name)),
            (None, Some(path)) => Some(Source::File(path)),
            (None, None) => None,
        };
        // A token of the environment is for whoever names nothing else.
        let named = cert.is_some() || key.is_some();
        let token = if named { self.token.given()? } else { self.token.read()? };
        match (token, cert, key) {
            (Some(token), _, _) => keyless::signer(&http()?, &home.ca_url(self.ca_url.as_deref())?, &token),
            (None, Some(cert), key) => Signer::load_from(cert, key, passphrase, home),
            (None, None, Some(key)) => {
                Signer::load_by_key(key, passphrase, http()?, self.ca_url.as_deref(), home)
            }
            (None, None, None) => {
                Signer::load_from(Source::File(&home.signing_certificate()), None, passphrase, home)
            }
        }
    }
}
