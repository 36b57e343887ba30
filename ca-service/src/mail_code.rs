//! Proof of an e-mail address: a one-time token that only the address's owner gets.
//!
//! The code is an enrolment token for exactly that address, so everything after it is enrolment by token. Nobody is told
//! whether an address exists; who asks too often is told to come back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ca_api::{CreateToken, Identity, MailedCode, RequestCode};
use service::rate_limit::ClientKey;

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::mail::{Mailer, NotSent};

/// Who makes the tokens that are sent as codes.
pub(crate) const MAILED: &str = "mail";
/// Time that letters are counted over.
const WINDOW: Duration = Duration::from_secs(3_600);
/// Letters to one address in that time.
const PER_ADDRESS: u32 = 3;
/// Letters that one client may cause in that time.
const PER_CLIENT: u32 = 20;
/// Addresses and clients that are counted at once; beyond, nobody new is served until the oldest hour is over.
const COUNTED: usize = 65_536;

/// What letters need: who sends them, and who was sent one.
pub(crate) struct CodeMail {
    pub(crate) mailer: Arc<dyn Mailer>,
    counts: Mutex<HashMap<Counted, (Duration, u32)>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Counted {
    Address(String),
    Client(ClientKey),
}

impl CodeMail {
    pub(crate) fn by(mailer: Arc<dyn Mailer>) -> Self {
        Self { mailer, counts: Mutex::default() }
    }

    /// Counts a letter, unless it is one too many; then says after how many seconds the next is allowed.
    fn count(&self, whom: [(Counted, u32); 2], now: Duration) -> Result<(), u32> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() + whom.len() > COUNTED {
            counts.retain(|_, (since, _)| now.saturating_sub(*since) < WINDOW);
            if counts.len() + whom.len() > COUNTED {
                return Err(seconds(WINDOW));
            }
        }
        for (counted, most) in &whom {
            if let Some((since, count)) = counts.get(counted)
                && now.saturating_sub(*since) < WINDOW
                && count >= most
            {
                return Err(seconds(WINDOW - now.saturating_sub(*since)));
            }
        }
        for (counted, _) in whom {
            let entry = counts.entry(counted).or_insert((now, 0));
            if now.saturating_sub(entry.0) >= WINDOW {
                *entry = (now, 0);
            }
            entry.1 += 1;
        }
        Ok(())
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1)
}

impl CertificateAuthority {
    /// Sends a code to an address. A `client` without an address of its own is one of the machine itself.
    ///
    /// # Errors
    /// [`CaError::NoMail`], [`CaError::AddressNotAllowed`], [`CaError::TooManyCodes`], [`CaError::Pki`] for what is no address,
    /// [`CaError::Mail`] when the mail server does not take the letter now: the code is worth nothing then, nobody has it. A letter
    /// that it refuses for good is answered like one that was sent: the difference would say which addresses there are.
    pub async fn mail_code(
        &self,
        request: &RequestCode,
        client: Option<ClientKey>,
    ) -> Result<MailedCode, CaError> {
        let (Some(config), Some(mail)) = (&self.settings.config.mail, &self.mail) else {
            return Err(CaError::NoMail);
        };
        let address = ca_pki::Identity::email(&request.email)?;
        let domain = address.as_str().rsplit_once('@').map_or("", |(_, domain)| domain);
        if !config.domains.iter().any(|allowed| domain.eq_ignore_ascii_case(allowed)) {
            return Err(CaError::AddressNotAllowed);
        }
        let client = client.unwrap_or_else(|| ClientKey::Named("this machine".into()));
        let counted = [
            (Counted::Address(address.as_str().to_ascii_lowercase()), PER_ADDRESS),
            (Counted::Client(client), PER_CLIENT),
        ];
        mail.count(counted, self.clock.monotonic())
            .map_err(|after_seconds| CaError::TooManyCodes { after_seconds })?;
        let asked = CreateToken {
            identity: Identity::Email(address.as_str().to_owned()),
            profile: config.profile.clone(),
            ttl_seconds: config.code_minutes * 60,
        };
        let token = self.create_token(&asked, MAILED).await?;
        let authority = &self.settings.config.identity_issuer;
        let text = format!(
            "Somebody asked {authority} for a code-signing certificate with this address.\r\n\r\n\
             If it was you, this code is good for one certificate within {} minutes:\r\n\r\n{}\r\n\r\n\
             If it was not you, do nothing, and give the code to nobody.\r\n",
            config.code_minutes, token.token
        );
        match mail.mailer.send(address.as_str(), "Code for a signing certificate", text).await {
            Err(NotSent::Refused(error)) => {
                tracing::error!(error, "a code was not sent, and who asked for it is not told");
            }
            sent => sent?,
        }
        Ok(MailedCode { expires_at: token.expires_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Mailer for Nobody {
        fn send<'a>(
            &'a self,
            _: &'a str,
            _: &'a str,
            _: String,
        ) -> futures_util::future::BoxFuture<'a, Result<(), crate::mail::NotSent>> {
            Box::pin(async { Ok(()) })
        }
    }

    fn letter(address: &str, client: u16) -> [(Counted, u32); 2] {
        let client = ClientKey::Named(client.to_string().into());
        [(Counted::Address(address.to_owned()), PER_ADDRESS), (Counted::Client(client), PER_CLIENT)]
    }

    #[test]
    fn addresses_and_clients_are_counted_for_an_hour_and_a_refusal_counts_nothing() {
        let mail = CodeMail::by(Arc::new(Nobody));
        let minute = |number: u64| Duration::from_secs(60 * number);
        for number in 0..PER_ADDRESS {
            mail.count(letter("a@example.org", number as u16), minute(0)).unwrap();
        }
        assert_eq!(mail.count(letter("a@example.org", 9), minute(50)), Err(600));
        mail.count(letter("b@example.org", 9), minute(50)).unwrap();
        mail.count(letter("a@example.org", 9), minute(60)).unwrap();
        for number in 0..PER_CLIENT {
            mail.count(letter(&format!("{number}@example.org"), 77), minute(61)).unwrap();
        }
        assert_eq!(mail.count(letter("new@example.org", 77), minute(62)), Err(59 * 60));
        mail.count(letter("new@example.org", 78), minute(62)).unwrap();
    }

    #[test]
    fn the_count_is_bounded_and_makes_room_when_its_hour_is_over() {
        let mail = CodeMail::by(Arc::new(Nobody));
        for number in 0..COUNTED / 2 {
            mail.count(letter(&number.to_string(), u16::try_from(number).unwrap()), Duration::ZERO).unwrap();
        }
        assert_eq!(mail.count(letter("one more", 65_535), Duration::from_secs(1)), Err(3_600));
        mail.count(letter("one more", 65_535), WINDOW).unwrap();
    }
}
