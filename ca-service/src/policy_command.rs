//! `ca-service policy explain`: what would become of an identity token by a configuration file, without a server and without keys of
//! the authority.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ca_pki::jws::{MAX_KEY_SET, MAX_TOKEN, parse_key_set};
use ca_service::Config;
use ca_service::oidc::explanation::{SignatureCheck, explain};
use clap::{Args, Subcommand};
use service::exit::Failure;

use crate::{present, print};

/// Exit code of a token that would be refused, as `mentatctl` has it for denials.
const REFUSED: u8 = 3;

/// What to do with the policy.
#[derive(Subcommand)]
pub(crate) enum Policy {
    /// Say what would become of an identity token, rule by rule (one JSON object): exit code 0 where it would be accepted, also by
    /// people's approval, and 3 where it would be refused. The signature is checked with --keys-file only.
    Explain(Explain),
}

/// `policy explain`.
#[derive(Args)]
pub(crate) struct Explain {
    /// The configuration file (TOML).
    #[arg(long)]
    config: PathBuf,
    /// File with the token: a JWS in its compact form.
    #[arg(long)]
    token_file: PathBuf,
    /// File with the issuer's keys (a JSON Web Key Set), to check the signature with. Without it nothing is said of it.
    #[arg(long)]
    keys_file: Option<PathBuf>,
}

/// Runs a command about the policy.
///
/// # Errors
/// [`Failure`] for files that cannot be read.
pub(crate) fn run(policy: &Policy) -> Result<ExitCode, Failure> {
    let Policy::Explain(asked) = policy;
    let settings = Config::read(&asked.config)?.validate()?;
    let token = read(&asked.token_file, MAX_TOKEN)?;
    let token = std::str::from_utf8(&token).map_err(Failure::failed)?.trim();
    let signature = match &asked.keys_file {
        None => SignatureCheck::NotChecked,
        Some(file) => {
            let keys = parse_key_set(&read(file, MAX_KEY_SET)?).map_err(Failure::failed)?;
            SignatureCheck::by_keys(token, &keys)
        }
    };
    let told = explain(&settings, token, &signature, present());
    print(&told)?;
    Ok(if told.refusal.is_none() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

/// Reads a file of bounded size.
fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let told = |what: String| Failure::failed(format!("{}: {what}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| told(error.to_string()))?;
    let mut bytes = Vec::new();
    // A line break at the end does not count.
    let most = (limit as u64).saturating_add(2);
    file.take(most).read_to_end(&mut bytes).map_err(|error| told(error.to_string()))?;
    if bytes.trim_ascii().len() > limit || bytes.len() as u64 == most {
        return Err(told(format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}
