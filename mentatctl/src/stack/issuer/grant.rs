//! What is between a question and its token: device codes (RFC 8628) and authorization codes (RFC 6749 section 4.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use trust_store::UnixTime;
use uuid::Uuid;

use crate::stack::listener::Answer;

/// The grant type of device codes.
pub const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// How long a code lives, in seconds.
pub const LIFETIME: i64 = 600;
/// Codes of one kind at the same time.
const MAX_PENDING: usize = 64;
/// Letters of user codes: no vowels, so no words; no letters that look like another.
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// What a token will say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The address.
    pub email: String,
    /// The audience; several with spaces between them.
    pub audience: String,
    /// What the client wants to find again.
    pub nonce: Option<String>,
}

/// Why there is no token (RFC 6749 section 5.2, RFC 8628 section 3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The secret is wrong.
    Client,
    /// The code has expired.
    Expired,
    /// The code is unknown, was used, or is another's.
    Grant,
    /// Another kind of grant.
    GrantType,
    /// Nobody has approved it.
    Pending,
    /// A parameter is missing or not of its form.
    Request,
    /// The key failed.
    Server,
    /// Too many codes are under way.
    TooMany,
}

impl Refused {
    /// The answer of the token endpoint.
    pub fn into_answer(self) -> Answer {
        let (status, code) = match self {
            Self::Client => (StatusCode::UNAUTHORIZED, "invalid_client"),
            Self::Expired => (StatusCode::BAD_REQUEST, "expired_token"),
            Self::Grant => (StatusCode::BAD_REQUEST, "invalid_grant"),
            Self::GrantType => (StatusCode::BAD_REQUEST, "unsupported_grant_type"),
            Self::Pending => (StatusCode::BAD_REQUEST, "authorization_pending"),
            Self::Request => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::Server => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
            Self::TooMany => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
        };
        Answer::json(status, &json!({ "error": code }))
    }
}

/// A device's two codes.
#[derive(Debug)]
pub struct Started {
    /// What the device shows nobody.
    pub device_code: String,
    /// What a person types.
    pub user_code: String,
}

struct Device {
    codes: Started,
    audience: String,
    challenge: Option<String>,
    approved: Option<String>,
    expires: i64,
}

struct Code {
    code: String,
    redirect: String,
    challenge: String,
    granted: Granted,
    expires: i64,
}

/// Everything that is under way.
#[derive(Default)]
pub struct Grants {
    devices: Vec<Device>,
    codes: Vec<Code>,
}

impl Grants {
    /// Begins the flow of a device.
    ///
    /// # Errors
    /// [`Refused::TooMany`].
    pub fn start_device(
        &mut self,
        audience: &str,
        challenge: Option<String>,
        now: UnixTime,
    ) -> Result<Started, Refused> {
        self.devices.retain(|device| now.0 < device.expires);
        if self.devices.len() >= MAX_PENDING {
            return Err(Refused::TooMany);
        }
        let (device_code, user_code) = (random_code(), user_code());
        let started = Started { device_code: device_code.clone(), user_code: user_code.clone() };
        self.devices.push(Device {
            codes: Started { device_code, user_code },
            audience: audience.to_owned(),
            challenge,
            approved: None,
            expires: now.0 + LIFETIME,
        });
        Ok(started)
    }

    /// Somebody who knows the secret approves a device.
    ///
    /// # Errors
    /// [`Refused::Grant`] for a code that does not wait.
    pub fn approve(&mut self, user_code: &str, email: &str, now: UnixTime) -> Result<(), Refused> {
        let typed = user_code.trim().to_ascii_uppercase();
        let waiting = |device: &&mut Device| {
            device.codes.user_code == typed && device.approved.is_none() && now.0 < device.expires
        };
        let device = self.devices.iter_mut().find(waiting).ok_or(Refused::Grant)?;
        device.approved = Some(email.to_owned());
        Ok(())
    }

    /// The device asks for its token; it gets it once.
    ///
    /// # Errors
    /// [`Refused`]: pending, expired, or not this device's.
    pub fn poll(
        &mut self,
        code: &str,
        audience: &str,
        verifier: Option<&str>,
        now: UnixTime,
    ) -> Result<Granted, Refused> {
        let of_code = |device: &Device| device.codes.device_code == code && device.audience == audience;
        let at = self.devices.iter().position(of_code).ok_or(Refused::Grant)?;
        let device = self.devices.get(at).ok_or(Refused::Grant)?;
        if now.0 >= device.expires {
            return Err(Refused::Expired);
        }
        if !device.challenge.as_deref().is_none_or(|challenge| answers(challenge, verifier)) {
            return Err(Refused::Grant);
        }
        let email = device.approved.clone().ok_or(Refused::Pending)?;
        let audience = self.devices.swap_remove(at).audience;
        Ok(Granted { email, audience, nonce: None })
    }

    /// A code for a client that waits at `redirect`.
    ///
    /// # Errors
    /// [`Refused::TooMany`].
    pub fn start_code(
        &mut self,
        granted: Granted,
        redirect: &str,
        challenge: String,
        now: UnixTime,
    ) -> Result<String, Refused> {
        self.codes.retain(|code| now.0 < code.expires);
        if self.codes.len() >= MAX_PENDING {
            return Err(Refused::TooMany);
        }
        let code = random_code();
        let expires = now.0 + LIFETIME;
        self.codes.push(Code {
            code: code.clone(),
            redirect: redirect.to_owned(),
            challenge,
            granted,
            expires,
        });
        Ok(code)
    }

    /// The client exchanges its code. A code is good for one attempt.
    ///
    /// # Errors
    /// [`Refused::Grant`].
    pub fn redeem(
        &mut self,
        code: &str,
        audience: &str,
        redirect: &str,
        verifier: Option<&str>,
        now: UnixTime,
    ) -> Result<Granted, Refused> {
        let at = self.codes.iter().position(|each| each.code == code).ok_or(Refused::Grant)?;
        let held = self.codes.swap_remove(at);
        let valid = now.0 < held.expires
            && held.granted.audience == audience
            && held.redirect == redirect
            && answers(&held.challenge, verifier);
        if valid { Ok(held.granted) } else { Err(Refused::Grant) }
    }
}

/// RFC 7636 section 4.6, method S256.
fn answers(challenge: &str, verifier: Option<&str>) -> bool {
    verifier.is_some_and(|verifier| URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())) == challenge)
}

/// 244 random bits.
fn random_code() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

fn user_code() -> String {
    let random = Uuid::new_v4();
    // The last eight octets, whose first has fixed bits: left out.
    let letters = random.as_bytes().iter().rev().take(7).chain(random.as_bytes().first());
    let mut code: String = letters
        .filter_map(|octet| ALPHABET.get(usize::from(*octet) % ALPHABET.len()))
        .map(|letter| char::from(*letter))
        .collect();
    code.insert(4, '-');
    code
}
