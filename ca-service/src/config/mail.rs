//! How people prove an e-mail address: by a code that is sent there.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use service::StartRefusal;

/// The mail server as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailConfig {
    /// Name of the mail server.
    pub host: String,
    /// Its port. Default 465 with TLS from the start, 587 with STARTTLS, 25 without.
    #[serde(default)]
    pub port: Option<u16>,
    /// `implicit` (default: TLS from the start), `starttls`, or `none` for a server on this machine.
    #[serde(default)]
    pub tls: MailTls,
    /// Who is named as the sender, such as `Certificates <ca@example.org>`.
    pub from: String,
    /// Name to log in with; absent: no log-in.
    #[serde(default)]
    pub user: Option<String>,
    /// File with its password, mode 0600.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Domains whose addresses get a code: exactly these, no subdomains.
    pub domains: Vec<String>,
    /// Profile of certificates that a code is good for.
    pub profile: String,
    /// How many people must approve each certificate, or as many as the profile needs if those are more. Default 0.
    #[serde(default)]
    pub approvals: u8,
    /// Minutes that a code is good for, 5 to 60. Default 15.
    #[serde(default = "default_minutes")]
    pub code_minutes: u32,
}

fn default_minutes() -> u32 {
    15
}

/// How the mail server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// TLS from the first octet (RFC 8314).
    #[default]
    Implicit,
    /// TLS before anything is said; never without (RFC 3207).
    Starttls,
    /// Plain, on this machine.
    None,
}

impl MailConfig {
    #[cfg(feature = "smtp")]
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(match self.tls {
            MailTls::Implicit => 465,
            MailTls::Starttls => 587,
            MailTls::None => 25,
        })
    }

    pub(super) fn validate(&self, knows_profile: impl Fn(&str) -> bool) -> Result<(), StartRefusal> {
        let refuse = |what: String, remedy: &str| Err(StartRefusal::new(what, remedy));
        let here = self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
        if self.tls == MailTls::None && !here {
            return refuse(
                format!("mail.tls = \"none\", and {} is another machine", self.host),
                "a code that can be read on its way is worth a certificate: use implicit or starttls",
            );
        }
        if self.user.is_some() != self.password_file.is_some() {
            return refuse(
                "mail.user and mail.password_file belong together".to_owned(),
                "give both, or neither",
            );
        }
        let plain = |domain: &String| {
            !domain.is_empty()
                && domain.bytes().all(|octet| {
                    octet.is_ascii_lowercase() || octet.is_ascii_digit() || matches!(octet, b'-' | b'.')
                })
        };
        if self.domains.is_empty() || !self.domains.iter().all(plain) {
            return refuse(
                "mail.domains are not domains in lower case".to_owned(),
                "name the domains whose addresses get a code, such as [\"example.org\"]",
            );
        }
        if !knows_profile(&self.profile) {
            return refuse(
                format!("mail.profile: there is no profile {}", self.profile),
                "name a section of [profiles]",
            );
        }
        super::in_range("mail.code_minutes", u64::from(self.code_minutes), 5, 60)
    }
}
