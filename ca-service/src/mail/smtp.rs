//! A mail server over SMTP.

use std::time::Duration;

use futures_util::future::BoxFuture;
use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use service::{StartRefusal, secret};

use super::{Mailer, NotSent};
use crate::config::{MailConfig, MailTls, Settings};

/// Longest time for one letter.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest password, in bytes.
const MAX_PASSWORD: usize = 1024;

/// A mail server.
pub(super) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Smtp {
    /// The configured mail server.
    ///
    /// # Errors
    /// [`StartRefusal`] for an address or a password file that cannot be used.
    pub(super) fn open(settings: &Settings, config: &MailConfig) -> Result<Self, StartRefusal> {
        let refused = |field: &str, error: &dyn std::fmt::Display| {
            StartRefusal::new(format!("mail.{field}: {error}"), "correct the section [mail]")
        };
        let from = config.from.parse().map_err(|error| refused("from", &error))?;
        let parameters = || TlsParameters::new(config.host.clone()).map_err(|error| refused("host", &error));
        let tls = match config.tls {
            MailTls::Implicit => Tls::Wrapper(parameters()?),
            MailTls::Starttls => Tls::Required(parameters()?),
            MailTls::None => Tls::None,
        };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
            .port(config.port())
            .tls(tls)
            .timeout(Some(PATIENCE));
        if let (Some(user), Some(file)) = (&config.user, &config.password_file) {
            let password = secret::read_line(&settings.path(file), MAX_PASSWORD)?;
            let password =
                String::from_utf8(password.to_vec()).map_err(|error| refused("password_file", &error))?;
            transport = transport.credentials(Credentials::new(user.clone(), password));
        }
        Ok(Self { transport: transport.build(), from })
    }
}

impl Mailer for Smtp {
    fn send<'a>(&'a self, to: &'a str, subject: &'a str, text: String) -> BoxFuture<'a, Result<(), NotSent>> {
        Box::pin(async move {
            let failed = |error: &dyn std::fmt::Display| NotSent::Refused(error.to_string());
            let to: Address = to.parse().map_err(|error| failed(&error))?;
            let letter = Message::builder()
                .from(self.from.clone())
                .to(Mailbox::new(None, to))
                .subject(subject)
                .header(ContentType::TEXT_PLAIN)
                .body(text)
                .map_err(|error| failed(&error))?;
            self.transport.send(letter).await.map(|_| ()).map_err(|error| match error.is_permanent() {
                true => NotSent::Refused(error.to_string()),
                false => NotSent::Unavailable(error.to_string()),
            })
        })
    }
}
