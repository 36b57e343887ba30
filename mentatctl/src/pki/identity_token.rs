//! `pki identity-token`: a token of a stack's development issuer, for clients that sign with one.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::exit::{Exit, Failure, OrFail as _, Outcome, chain};
use crate::home::{Home, read_secret};
use crate::net::{block_on, loopback_client};
use crate::output::Output;
use crate::stack::{DEFAULT_AUDIENCE, DEVELOPER_AUDIENCE};

/// Largest answer of the issuer, bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// `pki identity-token`.
#[derive(Debug, Args)]
pub struct IdentityToken {
    /// E-mail address that the token vouches for
    #[arg(long, value_name = "ADDRESS")]
    email: String,
    /// Ask for a developer's certificate, of a year, in place of a keyless one, of ten minutes
    #[arg(long)]
    developer: bool,
}

#[derive(Deserialize)]
struct Granted {
    id_token: String,
}

/// Runs `pki identity-token`.
///
/// # Errors
/// Exit code 2 when there is no stack with an issuer, 69 when it does not answer, 1 when it refuses.
pub fn run(asked: &IdentityToken, home: &Home, out: &Output) -> Outcome {
    let issuer = home.development_issuer()?;
    let secret = read_secret(&issuer.secret_file)?;
    let mut audience = DEFAULT_AUDIENCE.to_owned();
    if asked.developer {
        // Clients look for their own audience too; the authority takes the developer's first.
        audience = format!("{DEVELOPER_AUDIENCE} {DEFAULT_AUDIENCE}");
    }
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .append_pair("client_id", &asked.email)
        .append_pair("client_secret", secret.trim())
        .append_pair("audience", &audience)
        .finish();
    let url = format!("{}/token", issuer.url);
    let granted = block_on(async {
        let unreachable = |error: reqwest::Error| {
            Failure::new(Exit::Unavailable, format!("the development issuer at {url}: {}", chain(&error)))
                .hint("start the stack with `mentatctl up`")
        };
        let request = loopback_client(home.stack_tls_ca())?.post(&url).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                return Err(Failure::failed("the development issuer's answer is too large"));
            }
        }
        if !status.is_success() {
            let words: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            return Err(Failure::failed(format!("the development issuer answers {status}: {words}"))
                .hint("give an e-mail address; the secret is that of the stack that --stack names"));
        }
        serde_json::from_slice::<Granted>(&body).or_fail(Exit::Failure, "the development issuer's answer")
    })?;
    out.line(&granted.id_token);
    out.value(
        || json!({ "ok": true, "token": granted.id_token, "issuer": issuer.url, "audience": audience }),
    );
    Ok(Exit::Ok)
}
