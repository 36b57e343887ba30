//! `stock-sigstore-rs sign blob|statement FILE BUNDLE` and `verify FILE BUNDLE IDENTITY ISSUER`, with nothing switched off.
//!
//! Trust comes from the files in `SIGNING_CONFIG` and `TRUSTED_ROOT`, or, where `TUF_URL` is set, from that repository, pinned by
//! the file in `TUF_ROOT_FILE`. The token is in `SIGSTORE_ID_TOKEN`.
#![forbid(unsafe_code)]

use std::error::Error;
use std::{env, fs};

use sigstore_sign::oidc::IdentityToken;
use sigstore_sign::trust_root::{SigningConfig, TrustedRoot, TufConfig};
use sigstore_sign::types::Bundle;
use sigstore_sign::{SigningContext, SigningServices};
use sigstore_verify::{VerificationPolicy, Verifier};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["sign", payload, file, bundle] => sign(payload, file, bundle).await,
        ["verify", file, bundle, identity, issuer] => verify(file, bundle, identity, issuer).await,
        _ => Err("sign blob|statement FILE BUNDLE, or verify FILE BUNDLE IDENTITY ISSUER".into()),
    }
}

/// The repository to follow, where one is named.
fn repository() -> Outcome<Option<TufConfig>> {
    let Ok(url) = env::var("TUF_URL") else { return Ok(None) };
    Ok(Some(TufConfig::custom_from_file(url, env::var("TUF_ROOT_FILE")?)?.without_cache()))
}

async fn sign(payload: &str, file: &str, bundle: &str) -> Outcome<()> {
    let context = match repository()? {
        Some(repository) => SigningContext::from_tuf(repository).await?,
        None => {
            let config = SigningConfig::from_file(env::var("SIGNING_CONFIG")?)?;
            SigningContext::new(SigningServices::from_signing_config(&config)?)
        }
    };
    let signer = context.signer(IdentityToken::from_jwt(&env::var("SIGSTORE_ID_TOKEN")?)?);
    let bytes = fs::read(file)?;
    let signed = match payload {
        "blob" => signer.sign(bytes.as_slice()).await?,
        _ => signer.sign_raw_statement(&bytes).await?,
    };
    Ok(fs::write(bundle, signed.to_json()?)?)
}

async fn verify(file: &str, bundle: &str, identity: &str, issuer: &str) -> Outcome<()> {
    let root = match repository()? {
        Some(repository) => TrustedRoot::from_tuf(repository).await?,
        None => TrustedRoot::from_file(env::var("TRUSTED_ROOT")?)?,
    };
    let bundle = Bundle::from_json(&fs::read_to_string(bundle)?)?;
    let policy = VerificationPolicy::new(identity, issuer);
    Verifier::new(&root)?.verify(fs::read(file)?.as_slice(), &bundle, &policy)?;
    Ok(())
}
