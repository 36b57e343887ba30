//! Letters to people: a trait, and its implementation over SMTP (RFC 5321) behind the cargo feature `smtp`.

#[cfg(feature = "smtp")]
mod smtp;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use service::StartRefusal;

use crate::config::Settings;

/// A letter was not taken; whether it arrives is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// For good: of this address or sender the server takes no letter. Which addresses that are is told to nobody.
    #[error("the mail server refuses the letter: {0}")]
    Refused(String),
    /// For now: it is not there, is busy, or may have taken the letter.
    #[error("the mail server did not take the letter: {0}")]
    Unavailable(String),
}

/// Sends letters. The text may hold a secret: implementations MUST NOT log it.
pub trait Mailer: Send + Sync {
    /// Sends a plain text to one address; returns when the mail server took it.
    fn send<'a>(&'a self, to: &'a str, subject: &'a str, text: String) -> BoxFuture<'a, Result<(), NotSent>>;
}

/// The configured mail server, if there is one.
///
/// # Errors
/// [`StartRefusal`] for an address or a password file that cannot be used, and where this program was built without SMTP.
#[cfg(feature = "smtp")]
pub fn configured(settings: &Settings) -> Result<Option<Arc<dyn Mailer>>, StartRefusal> {
    let Some(config) = &settings.config.mail else { return Ok(None) };
    Ok(Some(Arc::new(smtp::Smtp::open(settings, config)?)))
}

/// As with the feature `smtp`, without which there is no mail server.
///
/// # Errors
/// [`StartRefusal`] when one is configured.
#[cfg(not(feature = "smtp"))]
pub fn configured(settings: &Settings) -> Result<Option<Arc<dyn Mailer>>, StartRefusal> {
    match &settings.config.mail {
        None => Ok(None),
        Some(_) => Err(StartRefusal::new(
            "[mail] names a mail server, and this program was built without SMTP",
            "build it with `--features ca-service/smtp`, or remove the section",
        )),
    }
}
