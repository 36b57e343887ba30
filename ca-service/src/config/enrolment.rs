//! Which certificates people must approve, and how long requests wait for them.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::Deserialize;
use service::rate_limit::Rate;
use service::{ClientTls, StartRefusal};

use super::{Settings, in_range};
use crate::oidc::config::Bearers;
use crate::role::Role;
use crate::storage::queue::QueueLimits;

/// Most approvals that anything may need.
const MOST_APPROVALS: u8 = 8;
/// Highest number of certificates by the hour: what no authority issues.
const MOST_HOURLY: u64 = 10_000_000;

/// The `[enrolment]` section as it is written. What needs no approval anywhere is issued at once.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnrolmentConfig {
    /// How many people must approve a certificate that is asked for with a one-time token which an operator made. Default 0. Those
    /// for codes by e-mail and for identity tokens stand in `[mail]` and `[[oidc]]`.
    pub token_approvals: u8,
    /// How many must approve those of a profile, however they are asked for. Of two numbers the greater one counts.
    pub profile_approvals: BTreeMap<String, u8>,
    /// Profiles whose certificates are not renewed by their key. Default none; those of ten minutes never are.
    pub no_renewal: BTreeSet<String>,
    /// Whether holders may show a certificate of this authority at the TLS handshake instead of signing what they ask for, to list, renew
    /// and revoke their own: `refuse` (default) or `accept`, which needs `[server.tls]`.
    pub mutual_tls: MutualTls,
    /// Hours from a request to its end, 1 to 720. Default 168. The certificate must be fetched in them, too.
    pub request_hours: u32,
    /// Most requests that wait at once, 1 to 10000. Default 1000. Those by identity token, code and renewal take half of that
    /// each at most, and three quarters together.
    pub most_waiting: u32,
    /// Most requests of one identity that wait at once, 1 to 100. Default 4.
    pub most_waiting_per_identity: u32,
    /// Certificates for one identity of one issuer. Default 600 an hour, 200 at once.
    pub per_identity: HourlyRate,
    /// Certificates for one requester: the subject of an identity token, for example; one-time tokens are requesters of their own.
    /// Default 300 an hour, 100 at once.
    pub per_requester: HourlyRate,
    /// File with keys that get no certificate because others reported them as compromised or weak: SHA-256 of the SubjectPublicKeyInfo in
    /// hexadecimal, one on a line, `#` begins a comment; relative to `data_dir`. Read at the start, at most 64 MiB.
    pub blocked_keys_file: Option<PathBuf>,
    /// Who is told of new requests; absent: nobody.
    pub webhook: Option<RequestWebhookConfig>,
}

impl Default for EnrolmentConfig {
    fn default() -> Self {
        Self {
            token_approvals: 0,
            profile_approvals: BTreeMap::new(),
            no_renewal: BTreeSet::new(),
            mutual_tls: MutualTls::Refuse,
            request_hours: 168,
            most_waiting: 1_000,
            most_waiting_per_identity: 4,
            per_identity: HourlyRate::of(600, 200),
            per_requester: HourlyRate::of(300, 100),
            blocked_keys_file: None,
            webhook: None,
        }
    }
}

/// Whether certificates of this authority are asked for at the handshake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MutualTls {
    /// Those that sign code, for their holders to look after them.
    Accept,
    /// They are not.
    #[default]
    Refuse,
}

/// So many in the long run, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HourlyRate {
    /// An hour, 1 to 10000000.
    pub per_hour: NonZeroU32,
    /// At once, 1 to 10000000.
    pub burst: NonZeroU32,
}

impl HourlyRate {
    /// Zero counts as one.
    fn of(per_hour: u32, burst: u32) -> Self {
        let number = |value| NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN);
        Self { per_hour: number(per_hour), burst: number(burst) }
    }
}

impl From<HourlyRate> for Rate {
    fn from(rate: HourlyRate) -> Self {
        Self::per_hour(rate.per_hour, rate.burst)
    }
}

/// The webhook as it is written; messages are signed like those of `[expiry_warnings]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestWebhookConfig {
    /// Where notices are sent: `https://…`, or `http://` on this machine.
    pub url: String,
    /// File with the secret that signs them (HMAC-SHA256), 16 to 1024 bytes on one line, mode 0600.
    pub secret_file: PathBuf,
    /// PEM file with authorities for the receiver's TLS certificate; absent: those of the system.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
    /// PEM file with the client certificate that the CA shows, then its intermediates.
    #[serde(default)]
    pub tls_cert_file: Option<PathBuf>,
    /// PEM file with its key, mode 0600.
    #[serde(default)]
    pub tls_key_file: Option<PathBuf>,
}

impl RequestWebhookConfig {
    pub(crate) fn tls(&self, settings: &Settings) -> Result<ClientTls, StartRefusal> {
        let path = |file: &Option<PathBuf>| file.as_deref().map(|file| settings.path(file));
        let [ca, cert, key] = [&self.tls_ca_file, &self.tls_cert_file, &self.tls_key_file].map(path);
        let tls = ClientTls::new("enrolment.webhook", ca, cert, key)?;
        tls.allow("enrolment.webhook.url", &self.url)?;
        Ok(tls)
    }
}

impl EnrolmentConfig {
    /// How many people must approve a certificate of a profile that is asked for in a way that needs `way` of them.
    #[must_use]
    pub fn approvals(&self, profile: &str, way: u8) -> u8 {
        self.profile_approvals.get(profile).copied().unwrap_or(0).max(way)
    }

    pub(crate) fn limits(&self) -> QueueLimits {
        QueueLimits { all: self.most_waiting, identity: self.most_waiting_per_identity }
    }

    pub(super) fn validate(&self, settings: &Settings) -> Result<(), StartRefusal> {
        in_range("enrolment.request_hours", u64::from(self.request_hours), 1, 720)?;
        in_range("enrolment.most_waiting", u64::from(self.most_waiting), 1, 10_000)?;
        let of_one = u64::from(self.most_waiting_per_identity);
        in_range("enrolment.most_waiting_per_identity", of_one, 1, 100)?;
        for (name, rate) in [("per_identity", self.per_identity), ("per_requester", self.per_requester)] {
            in_range(&format!("enrolment.{name}.per_hour"), u64::from(rate.per_hour.get()), 1, MOST_HOURLY)?;
            in_range(&format!("enrolment.{name}.burst"), u64::from(rate.burst.get()), 1, MOST_HOURLY)?;
        }
        for profile in self.profile_approvals.keys() {
            if !settings.profiles.contains_key(profile) {
                return Err(StartRefusal::new(
                    format!("enrolment.profile_approvals: there is no profile {profile}"),
                    "name a section of [profiles]",
                ));
            }
        }
        if let Some(profile) = self.no_renewal.iter().find(|name| !settings.profiles.contains_key(*name)) {
            return Err(StartRefusal::new(
                format!("enrolment.no_renewal: there is no profile {profile}"),
                "name a section of [profiles]",
            ));
        }
        if self.mutual_tls == MutualTls::Accept && settings.config.server.tls.is_none() {
            return Err(StartRefusal::new(
                "enrolment.mutual_tls = \"accept\", and there is no [server.tls]",
                "add the section: certificates are shown at its handshake; or leave the setting out",
            ));
        }
        let mail = settings.config.mail.as_ref().map_or(0, |mail| mail.approvals);
        let tokens = settings.oidc.iter().map(|rule| rule.approvals);
        let numbers = self.profile_approvals.values().copied().chain(tokens);
        let most = numbers.chain([mail, self.token_approvals]).max().unwrap_or(0);
        in_range("the number of approvals", u64::from(most), 0, u64::from(MOST_APPROVALS))?;
        for rule in &settings.oidc {
            // Their tokens have no address to be compared.
            let waits = self.approvals(&rule.profile, rule.approvals) > 0;
            if rule.identity.is_of_jobs() && waits && rule.bearers == Bearers::People {
                return Err(StartRefusal::new(
                    format!(
                        "[[oidc]] {}: certificates of jobs need approval, and jobs have no e-mail address",
                        rule.issuer
                    ),
                    "write workload = true: whoever starts a job is compared with whoever approves as far as its token names them",
                ));
            }
        }
        if !can_approve(settings, most) {
            return Err(StartRefusal::new(
                format!("certificates need {most} approvals, and there are not as many approvers"),
                "name them by client certificate (roles.approver.subjects) or identity token ([[roles.oidc]]): \
                 a shared token names nobody",
            ));
        }
        self.webhook.as_ref().map(|told| told.tls(settings)).transpose()?;
        Ok(())
    }
}

/// Whether so many people can be told apart: by certificate they are counted, by identity token there may be any number.
fn can_approve(settings: &Settings, number: u8) -> bool {
    let config = &settings.config;
    let mut subjects: Vec<&String> =
        config.roles.approver.subjects.iter().chain(&config.admin.subjects).collect();
    subjects.sort_unstable();
    subjects.dedup();
    subjects.len() >= usize::from(number)
        || settings.role_rules.iter().any(|rule| rule.role == Role::Approver)
}
