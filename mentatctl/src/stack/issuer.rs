//! A development issuer of identity tokens (OpenID Connect): it vouches for ANY e-mail address to whoever holds the stack's
//! secret. It exists so that stock clients, which want a token, can sign against a stack on one machine; it listens on
//! loopback alone, its key lives as long as the process, and an authority that listens elsewhere refuses it.
//!
//! Served: discovery, key set, token endpoint (client credentials, device code, authorization code with PKCE), and the two
//! pages on which a person gives the secret. Tokens are signed with RS256: some stock clients read nothing else.

mod grant;
mod page;

use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ca_pki::key::KeyUse;
use ca_pki::{Identity, SubjectPublicKey};
use hsm::developer::DeveloperKey;
use hsm::{Input, IntentId, KeyAlgorithm, Purpose, SignatureAlgorithm, SigningIntent};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use trust_store::UnixTime;
use trust_store::sorted_json::SortedJson;
use zeroize::Zeroizing;

use self::grant::{Granted, Grants, Refused};
use super::listener::{Answer, Fields, Request};
use crate::exit::{Exit, Failure, OrFail as _, Outcome};

/// How long a token is valid, in seconds.
const TOKEN_LIFETIME: i64 = 600;
/// The audience of tokens when nobody asks for another: the client id of stock clients.
pub const DEFAULT_AUDIENCE: &str = "sigstore";
/// The audience whose tokens get a developer's certificate, of a year.
pub const DEVELOPER_AUDIENCE: &str = "mentat-developer";
/// Longest client id, nonce and state.
const MAX_TEXT: usize = 256;

/// The issuer.
pub struct Issuer {
    url: String,
    key: DeveloperKey,
    key_id: String,
    key_set: Value,
    /// SHA-256 of the secret: what is compared takes the same time whatever was guessed.
    secret: Zeroizing<[u8; 32]>,
    grants: Mutex<Grants>,
}

impl Issuer {
    /// A key for an issuer: RSA, which takes a moment to make.
    ///
    /// # Errors
    /// Exit code 1 when the library fails.
    pub fn make_key() -> Outcome<DeveloperKey> {
        DeveloperKey::generate(KeyAlgorithm::Rsa3072).or_fail(Exit::Failure, "making the issuer's key")
    }

    /// An issuer at `url`, which whoever knows `secret` may ask.
    ///
    /// # Errors
    /// Exit code 1 when the key is of another type.
    pub fn new(url: &str, key: DeveloperKey, secret: &str) -> Outcome<Self> {
        let signer = key.signer();
        let public = SubjectPublicKey::from_spki(signer.public_key().spki_der(), KeyUse::Subscriber)
            .or_fail(Exit::Failure, "the issuer's key")?;
        let (modulus, exponent) =
            public.rsa().ok_or_else(|| Failure::failed("the issuer's key is not RSA"))?;
        let key_id: String = signer.public_key().spki_sha256_hex().chars().take(16).collect();
        let key_set = json!({ "keys": [{
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": key_id,
            "n": URL_SAFE_NO_PAD.encode(modulus), "e": URL_SAFE_NO_PAD.encode(exponent),
        }] });
        let secret = Zeroizing::new(Sha256::digest(secret.trim().as_bytes()).into());
        Ok(Self { url: url.to_owned(), key, key_id, key_set, secret, grants: Mutex::default() })
    }

    /// Answers a request; `None` where nothing is served.
    pub fn answer(&self, request: &Request, now: UnixTime) -> Option<Answer> {
        let ok = |value: &Value| Some(Answer::json(StatusCode::OK, value));
        match (&request.method, request.path.as_str()) {
            (&Method::GET, "/.well-known/openid-configuration") => ok(&self.discovery()),
            (&Method::GET, "/keys") => ok(&self.key_set),
            (&Method::POST, "/token") => Some(self.token(request, now).unwrap_or_else(Refused::into_answer)),
            (&Method::POST, "/device/code") => {
                Some(self.device(&request.form, now).unwrap_or_else(Refused::into_answer))
            }
            (&Method::GET, "/device") => {
                Some(page::device(StatusCode::OK, request.query.get("user_code").unwrap_or_default(), ""))
            }
            (&Method::POST, "/device") => Some(self.approve_device(&request.form, now)),
            (&Method::GET, "/auth") => Some(page::sign_in(StatusCode::OK, &request.query, "")),
            (&Method::POST, "/auth") => Some(self.sign_in(&request.form, now)),
            _ => None,
        }
    }

    fn discovery(&self) -> Value {
        let at = |path: &str| format!("{}/{path}", self.url);
        json!({
            "issuer": self.url,
            "authorization_endpoint": at("auth"),
            "token_endpoint": at("token"),
            "device_authorization_endpoint": at("device/code"),
            "jwks_uri": at("keys"),
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "client_credentials", grant::DEVICE_CODE],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid", "email"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "claims_supported": ["iss", "sub", "aud", "exp", "iat", "nbf", "email", "email_verified", "nonce"],
            "development_issuer": "vouches for any address to whoever holds the secret of the stack; never trust it elsewhere",
        })
    }

    fn token(&self, request: &Request, now: UnixTime) -> Result<Answer, Refused> {
        let form = &request.form;
        let granted = match form.get("grant_type") {
            Some("client_credentials") => self.client_credentials(request)?,
            Some(grant::DEVICE_CODE) => {
                let code = form.get("device_code").ok_or(Refused::Request)?;
                self.grants().poll(code, client(form)?, form.get("code_verifier"), now)?
            }
            Some("authorization_code") => {
                let code = form.get("code").ok_or(Refused::Request)?;
                let redirect = form.get("redirect_uri").unwrap_or_default();
                // Clients give their id in the body, or in the header with a secret that nobody checks.
                let basic = basic(request);
                let client = client(form).ok().or(basic.as_ref().map(|(id, _)| id.as_str()));
                let client = client.ok_or(Refused::Request)?;
                self.grants().redeem(code, client, redirect, form.get("code_verifier"), now)?
            }
            _ => return Err(Refused::GrantType),
        };
        let token = self.sign(&granted, now).map_err(|_| Refused::Server)?;
        Ok(Answer::json(
            StatusCode::OK,
            &json!({
                "access_token": token, "id_token": token, "token_type": "Bearer", "expires_in": TOKEN_LIFETIME,
                "scope": "openid email",
            }),
        ))
    }

    /// The flow of programs: the client id is the address that the token will carry, the client secret the stack's.
    fn client_credentials(&self, request: &Request) -> Result<Granted, Refused> {
        let form = &request.form;
        let (email, secret) = match (form.get("client_id"), form.get("client_secret"), basic(request)) {
            (Some(id), Some(secret), None) => (id.to_owned(), Zeroizing::new(secret.to_owned())),
            (_, None, Some((id, secret))) => (id, secret),
            _ => return Err(Refused::Client),
        };
        if !self.knows(&secret) {
            return Err(Refused::Client);
        }
        let audience = form.get("audience").unwrap_or(DEFAULT_AUDIENCE);
        Identity::email(&email).map_err(|_| Refused::Request)?;
        for each in audience.split(' ') {
            short(each)?;
        }
        Ok(Granted { email, audience: audience.to_owned(), nonce: None })
    }

    fn device(&self, form: &Fields, now: UnixTime) -> Result<Answer, Refused> {
        let started = self.grants().start_device(client(form)?, challenge(form)?, now)?;
        let page = format!("{}/device", self.url);
        Ok(Answer::json(
            StatusCode::OK,
            &json!({
                "device_code": started.device_code, "user_code": started.user_code, "verification_uri": page,
                "verification_uri_complete": format!("{page}?user_code={}", started.user_code),
                "expires_in": grant::LIFETIME, "interval": 1,
            }),
        ))
    }

    fn approve_device(&self, form: &Fields, now: UnixTime) -> Answer {
        let user_code = form.get("user_code").unwrap_or_default();
        let again = |status, what| page::device(status, user_code, what);
        let email = match self.signed_in(form) {
            Ok(email) => email,
            Err(what) => return again(StatusCode::FORBIDDEN, what),
        };
        match self.grants().approve(user_code, &email, now) {
            Ok(()) => page::done("The device may go on; this page can be closed."),
            Err(_) => again(StatusCode::BAD_REQUEST, "This code is not known or has expired."),
        }
    }

    fn sign_in(&self, form: &Fields, now: UnixTime) -> Answer {
        let email = match self.signed_in(form) {
            Ok(email) => email,
            Err(what) => return page::sign_in(StatusCode::FORBIDDEN, form, what),
        };
        let refused = |what| page::sign_in(StatusCode::BAD_REQUEST, form, what);
        let redirect = form.get("redirect_uri").unwrap_or_default();
        let Some(mut back) = loopback_redirect(redirect) else {
            return refused("redirect_uri must lead to this machine");
        };
        if form.get("response_type") != Some("code") {
            return refused("response_type must be code");
        }
        let (Ok(client), Ok(Some(challenge))) = (client(form), challenge(form)) else {
            return refused("client_id and a code_challenge by S256 are needed");
        };
        let nonce = form.get("nonce").filter(|nonce| !nonce.is_empty()).map(str::to_owned);
        let granted = Granted { email, audience: client.to_owned(), nonce };
        match self.grants().start_code(granted, redirect, challenge, now) {
            Err(_) => refused("too many sign-ins are under way"),
            Ok(code) => {
                let mut pairs = back.query_pairs_mut();
                pairs.append_pair("code", &code);
                if let Some(state) = form.get("state").filter(|state| state.len() <= MAX_TEXT) {
                    pairs.append_pair("state", state);
                }
                drop(pairs);
                Answer::see_other(back.into())
            }
        }
    }

    /// The address that somebody who knows the secret gave.
    fn signed_in(&self, form: &Fields) -> Result<String, &'static str> {
        if !self.knows(form.get("secret").unwrap_or_default()) {
            return Err("The secret is wrong. It stands in secrets/oidc.secret in the folder of the stack.");
        }
        let email = form.get("email").unwrap_or_default().trim();
        Identity::email(email).map_err(|_| "This is no e-mail address.")?;
        Ok(email.to_owned())
    }

    fn knows(&self, secret: &str) -> bool {
        <[u8; 32]>::from(Sha256::digest(secret.trim().as_bytes())) == *self.secret
    }

    fn sign(&self, granted: &Granted, now: UnixTime) -> Result<String, hsm::Error> {
        let id = uuid::Uuid::new_v4();
        let header = json!({ "alg": "RS256", "kid": self.key_id, "typ": "JWT" });
        let audience = match granted.audience.split_once(' ') {
            None => json!(granted.audience),
            Some(_) => json!(granted.audience.split(' ').collect::<Vec<_>>()),
        };
        let mut claims = json!({
            "iss": self.url, "aud": audience, "sub": granted.email, "email": granted.email,
            "email_verified": true, "iat": now.0, "nbf": now.0, "exp": now.0 + TOKEN_LIFETIME, "jti": id.to_string(),
        });
        if let (Some(nonce), Some(claims)) = (&granted.nonce, claims.as_object_mut()) {
            claims.insert("nonce".to_owned(), nonce.clone().into());
        }
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(SortedJson::from(value).as_str());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let intent = SigningIntent::new(Purpose::Token, IntentId::new(id.as_bytes())?);
        let signature = self.key.signer().sign(
            Input::Message(signed.as_bytes()),
            SignatureAlgorithm::RsaPkcs1Sha256,
            &intent,
        )?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_bytes())))
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client id of public clients; tokens are made for it.
fn client(form: &Fields) -> Result<&str, Refused> {
    short(form.get("client_id").unwrap_or(DEFAULT_AUDIENCE))
}

fn short(text: &str) -> Result<&str, Refused> {
    let plain =
        !text.is_empty() && text.len() <= MAX_TEXT && text.bytes().all(|octet| octet.is_ascii_graphic());
    plain.then_some(text).ok_or(Refused::Request)
}

/// The PKCE challenge (RFC 7636); `plain` is refused.
fn challenge(form: &Fields) -> Result<Option<String>, Refused> {
    match (form.get("code_challenge"), form.get("code_challenge_method")) {
        (None, _) => Ok(None),
        (Some(challenge), Some("S256")) if challenge.len() == 43 => Ok(Some(challenge.to_owned())),
        _ => Err(Refused::Request),
    }
}

/// Name and password of the `Authorization` header, form-encoded as RFC 6749 section 2.3.1 demands.
fn basic(request: &Request) -> Option<(String, Zeroizing<String>)> {
    let encoded = request.authorization.as_deref()?.strip_prefix("Basic ")?;
    let text = Zeroizing::new(String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?);
    let (name, password) = text.split_once(':')?;
    let decoded = |text: &str| Fields::parse(format!("v={text}").as_bytes()).get("v").map(str::to_owned);
    Some((decoded(name)?, Zeroizing::new(decoded(password)?)))
}

/// Where codes may be sent: a client that waits on this machine.
fn loopback_redirect(text: &str) -> Option<url::Url> {
    let url = url::Url::parse(text).ok()?;
    let here = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
    (text.len() <= 2 * MAX_TEXT && url.scheme() == "http" && here && url.fragment().is_none()).then_some(url)
}

#[cfg(test)]
mod tests;
