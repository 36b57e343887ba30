//! The configuration file (TOML): raw as written ([`Config`]), and validated ([`Settings`]).

mod database;
mod enrolment;
mod file;
mod keys;
mod logs;
mod mail;
mod retention;
mod status;
mod warnings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ca_pki::NameFields;
use ca_pki::oid::ObjectIdentifier;
use ca_pki::profile::{EXAMPLE_TIME_STAMP_POLICY, Kind, Profile, ProfileConfig, SctPolicy};
use ca_pki::serial::{InstancePrefix, ShardCount};
use hsm::{KeyAlgorithm, KeyUri, PassphraseSource};
use serde::Deserialize;
use service::admin::AdminConfig;
use service::{ServerConfig, StartRefusal};

use crate::oidc;
use crate::oidc::config::{IssuerRule, OidcConfig};
use crate::oidc::roles::{RoleOidcConfig, RoleRule};
pub use database::DatabaseConfig;
pub use enrolment::{EnrolmentConfig, HourlyRate, MutualTls, RequestWebhookConfig};
pub use file::Sections;
pub use keys::KeysConfig;
pub use logs::{CheckConfig, EventLogConfig, IssuanceLogConfig};
pub use mail::{MailConfig, MailTls};
pub use retention::RetentionConfig;
pub use status::StatusConfig;
pub use warnings::ExpiryWarningsConfig;

use crate::approval::ApprovalsConfig;
use crate::blocked_keys::BlockedKeys;
use crate::storage::Database;

/// The file as it is written. Unknown fields are errors. `docs/operations/ca-service.toml` shows every field.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of database, keystore, transcript and chain files, relative to the configuration file. The paths of
    /// `[keys]`, `[issuance_log]` and `[event_log]` are relative to it; those of `[server]` and `[admin]` to the file.
    pub data_dir: PathBuf,
    /// Base of the status URLs that certificates carry, `http://HOST[:PORT]`, without a trailing slash. Fixed at `init`.
    pub status_url: String,
    /// URL that certificates name as the issuer of token identities (Sigstore extensions .1 and .8). Fixed at `init`.
    pub identity_issuer: String,
    /// Listeners.
    #[serde(default)]
    pub server: ServerConfig,
    /// Who administers.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Who may less than administrators.
    #[serde(default)]
    pub roles: RolesConfig,
    /// A PostgreSQL server for the records; absent: SQLite in `data_dir`.
    #[serde(default)]
    pub database: Option<DatabaseConfig>,
    /// Keys.
    pub keys: KeysConfig,
    /// The hierarchy that `init` makes.
    #[serde(default)]
    pub hierarchy: HierarchyConfig,
    /// Subscriber profiles by name; at least one.
    pub profiles: BTreeMap<String, ProfileConfig>,
    /// The issuance log; needed by profiles with an embedded SCT.
    #[serde(default)]
    pub issuance_log: Option<IssuanceLogConfig>,
    /// The event log, where revocations are recorded.
    #[serde(default)]
    pub event_log: Option<EventLogConfig>,
    /// What `check` believes the logs by; absent: it refuses where there are logs, unless it is told to leave them out.
    #[serde(default)]
    pub check: Option<CheckConfig>,
    /// Issuers of identity tokens; none by default.
    #[serde(default)]
    pub oidc: Vec<OidcConfig>,
    /// Revocation lists and status answers.
    #[serde(default)]
    pub status: StatusConfig,
    /// What is forgotten, and when.
    #[serde(default)]
    pub retention: RetentionConfig,
    /// Which certificates people must approve; by default none.
    #[serde(default)]
    pub enrolment: EnrolmentConfig,
    /// How people prove an e-mail address by a code; absent: they cannot.
    #[serde(default)]
    pub mail: Option<MailConfig>,
    /// Who is told of certificates that end soon; absent: nobody.
    #[serde(default)]
    pub expiry_warnings: Option<ExpiryWarningsConfig>,
    /// Time stamps.
    #[serde(default)]
    pub timestamp: TimestampConfig,
    /// Whose approval the root's key needs. Absent: `init` founds without, and nothing uses the root's key afterwards.
    #[serde(default)]
    pub approvals: Option<ApprovalsConfig>,
    /// What the file says, by section and without the words.
    #[serde(skip)]
    pub sections: Sections,
}

/// Roles as they are written; each is recognised like an administrator.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolesConfig {
    /// Makes one-time tokens, lists and shows certificates.
    pub issuer: AdminConfig,
    /// Approves and denies requests, sees what orders to revoke many would do, lists and shows certificates.
    pub approver: AdminConfig,
    /// Lists and shows certificates.
    pub auditor: AdminConfig,
    /// Whose identity tokens give which role; none by default.
    pub oidc: Vec<RoleOidcConfig>,
}

/// The hierarchy as it is written; used by `init` only, except for the serial prefix, the shards and `issuing_days`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HierarchyConfig {
    /// Subject of the root. Default `CN=MentatLab Root CA,O=MentatLab,C=US`.
    pub root: NameFields,
    /// Subject of the CA for code signing. Default `CN=MentatLab Agent CA,…`.
    pub code_signing: NameFields,
    /// Subject of the CA for time stamps. Default `CN=MentatLab Time Stamping CA,…`.
    pub time_stamping: NameFields,
    /// Subject of the OCSP responder. Default `CN=MentatLab OCSP Responder,…`.
    pub ocsp_responder: NameFields,
    /// Subject of the time-stamp authority. Default `CN=MentatLab Time Stamp Authority,…`.
    pub timestamp_authority: NameFields,
    /// Key of the root: `ecdsa-p384` (default), `ecdsa-p256`, `rsa-4096`.
    pub root_key: String,
    /// Keys of the two issuing CAs: `ecdsa-p256` (default), `ecdsa-p384`, `rsa-4096`.
    pub issuer_key: String,
    /// Validity of the root in days. Default 3650.
    pub root_days: u32,
    /// Validity of the issuing CAs in days. Default 1825.
    pub issuer_days: u32,
    /// Days for which a CA for code signing issues; then a successor must, and it signs lists and answers alone. Read at every start.
    /// Default 365.
    pub issuing_days: u32,
    /// Validity of the OCSP responder in days, at most 366. Default 365.
    pub ocsp_responder_days: u32,
    /// Validity of the time-stamp authority in days. Default 1825.
    pub timestamp_authority_days: u32,
    /// CRL shards of the CA for code signing, 1 to 4096, never changed afterwards. Default 128.
    pub crl_shards: u16,
    /// First octet of this instance's serial numbers, 1 to 127; different for every instance of one CA. Default 1.
    pub serial_prefix: u8,
    /// Policy OIDs of the CA for code signing. Default: an example arc of RFC 5612, to be replaced by one's own.
    pub policies: Vec<String>,
}

impl Default for HierarchyConfig {
    fn default() -> Self {
        let named = |common_name: &str| NameFields {
            country: Some("US".to_owned()),
            organization: Some("MentatLab".to_owned()),
            common_name: Some(common_name.to_owned()),
            ..NameFields::default()
        };
        Self {
            root: named("MentatLab Root CA"),
            code_signing: named("MentatLab Agent CA"),
            time_stamping: named("MentatLab Time Stamping CA"),
            ocsp_responder: named("MentatLab OCSP Responder"),
            timestamp_authority: named("MentatLab Time Stamp Authority"),
            root_key: "ecdsa-p384".to_owned(),
            issuer_key: "ecdsa-p256".to_owned(),
            root_days: 3650,
            issuer_days: 1825,
            issuing_days: 365,
            ocsp_responder_days: 365,
            timestamp_authority_days: 1825,
            crl_shards: 128,
            serial_prefix: 1,
            policies: Vec::new(),
        }
    }
}

/// Time stamps as they are written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimestampConfig {
    /// Policy OID of tokens. Default: an example arc of RFC 5612, to be replaced by one's own.
    pub policy: String,
    /// Accuracy that tokens state, in seconds, 1 to 60. Default 1.
    pub accuracy_seconds: u8,
}

impl Default for TimestampConfig {
    fn default() -> Self {
        Self { policy: EXAMPLE_TIME_STAMP_POLICY.to_owned(), accuracy_seconds: 1 }
    }
}

/// The validated configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The raw file, for the parts that other crates validate.
    pub config: Config,
    /// `data_dir`, absolute or relative to the working folder.
    pub data_dir: PathBuf,
    /// Where the records are.
    pub database: Database,
    /// Keystore folder.
    pub keystore: PathBuf,
    /// Source of the passphrase.
    pub passphrase: PassphraseSource,
    /// References of the keys outside the keystore, by name of the authority.
    pub key_uris: BTreeMap<String, KeyUri>,
    /// Subscriber profiles by name.
    pub profiles: BTreeMap<String, Profile>,
    /// Keys that get no certificate.
    pub blocked_keys: BlockedKeys,
    /// Issuers of identity tokens.
    pub oidc: Vec<IssuerRule>,
    /// Whose identity tokens give roles.
    pub role_rules: Vec<RoleRule>,
    /// Shards of the CA for code signing.
    pub shards: ShardCount,
    /// First octet of serial numbers.
    pub prefix: InstancePrefix,
    /// Key of the root.
    pub root_key: KeyAlgorithm,
    /// Keys of the issuing CAs.
    pub issuer_key: KeyAlgorithm,
    /// Policy of time-stamp tokens.
    pub timestamp_policy: ObjectIdentifier,
    /// When changed lists are signed again.
    pub publish_interval: Duration,
    /// Seconds after which unchanged lists are signed again.
    pub refresh_seconds: i64,
    /// Seconds a list of an issuing CA lives.
    pub crl_seconds: i64,
    /// Seconds the root's list lives.
    pub root_crl_seconds: i64,
    /// Seconds an OCSP answer lives.
    pub ocsp_seconds: i64,
}

impl Config {
    /// Validates the file as a whole.
    ///
    /// # Errors
    /// [`StartRefusal`] naming the field and what it must be.
    pub fn validate(self) -> Result<Settings, StartRefusal> {
        let refuse = |what: &str, remedy: &str| Err(StartRefusal::new(what.to_owned(), remedy.to_owned()));
        check_status_url(&self.status_url)?;
        if ca_pki::Identity::uri(&self.identity_issuer).is_err() {
            return refuse("identity_issuer is not a URL", "write for example https://ca.example.org");
        }
        if self.profiles.is_empty() {
            return refuse("there is no profile", "add a section such as [profiles.developer]");
        }
        let mut profiles = BTreeMap::new();
        for (name, raw) in &self.profiles {
            let valid = !name.is_empty()
                && name.len() <= ca_api::limits::MAX_PROFILE
                && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet));
            if !valid {
                return refuse(
                    "a profile's name is not 1 to 64 letters, digits, - and _",
                    "rename the section",
                );
            }
            if Kind::of_authorities().iter().any(|kind| kind.as_str() == name) {
                return refuse(
                    "a profile has the name of a kind of the CA's own certificates",
                    "rename the section",
                );
            }
            let profile = Profile::subscriber(name, raw).map_err(|error| pki_refusal("profiles", &error))?;
            if profile.sct() == SctPolicy::Embedded && self.issuance_log.is_none() {
                return Err(StartRefusal::new(
                    format!("profile {name} embeds an SCT, but there is no [issuance_log]"),
                    "add the section, or write sct = \"absent\" in the profile",
                ));
            }
            profiles.insert(name.clone(), profile);
        }
        let status = &self.status;
        status.validate()?;
        self.retention.validate()?;
        in_range("hierarchy.issuing_days", u64::from(self.hierarchy.issuing_days), 1, 5_490)?;
        in_range("timestamp.accuracy_seconds", u64::from(self.timestamp.accuracy_seconds), 1, 60)?;
        in_range("keys.threads", self.keys.threads as u64, 1, 64)?;
        let Ok(timestamp_policy) = ObjectIdentifier::new(&self.timestamp.policy) else {
            return refuse("timestamp.policy is not an OID", "write for example 1.3.6.1.4.1.32473.1.2");
        };
        self.approvals.as_ref().map_or(Ok(()), ApprovalsConfig::validate)?;
        let oidc =
            oidc::config::validate(&self.oidc, &self.server.listen, |name| profiles.contains_key(name))?;
        let data_dir = self.data_dir.clone();
        let mut settings = Settings {
            database: database::validated(self.database.as_ref(), &data_dir)?,
            keystore: data_dir.join(&self.keys.keystore),
            passphrase: keys::passphrase(&self.keys.passphrase, &data_dir)?,
            key_uris: keys::uris(&self.keys)?,
            shards: ShardCount::new(self.hierarchy.crl_shards)
                .map_err(|error| pki_refusal("hierarchy.crl_shards", &error))?,
            prefix: InstancePrefix::new(self.hierarchy.serial_prefix)
                .map_err(|error| pki_refusal("hierarchy.serial_prefix", &error))?,
            root_key: authority_key("hierarchy.root_key", &self.hierarchy.root_key)?,
            issuer_key: authority_key("hierarchy.issuer_key", &self.hierarchy.issuer_key)?,
            role_rules: oidc::roles::validate(&self.roles.oidc, &oidc, &self.server.listen)?,
            blocked_keys: BlockedKeys::default(),
            oidc,
            timestamp_policy,
            publish_interval: Duration::from_secs(status.publish_interval_seconds),
            refresh_seconds: i64::from(status.refresh_hours) * 3_600,
            crl_seconds: i64::from(status.crl_days) * 86_400,
            root_crl_seconds: i64::from(status.root_crl_days) * 86_400,
            ocsp_seconds: i64::from(status.ocsp_hours) * 3_600,
            data_dir,
            profiles,
            config: self,
        };
        settings.config.sections.set_database(&settings.database.to_string());
        settings.config.issuance_log.as_ref().map(|log| log.tls(&settings)).transpose()?;
        settings.config.event_log.as_ref().map(|log| log.tls(&settings)).transpose()?;
        let knows = |name: &str| settings.profiles.contains_key(name);
        settings.config.mail.as_ref().map(|mail| mail.validate(knows)).transpose()?;
        settings.config.enrolment.validate(&settings)?;
        if let Some(file) = &settings.config.enrolment.blocked_keys_file {
            settings.blocked_keys = BlockedKeys::read(&settings.path(file))?;
        }
        settings.config.expiry_warnings.as_ref().map(|told| told.validate(&settings)).transpose()?;
        Ok(settings)
    }
}

impl Settings {
    /// A path of the configuration: relative ones are relative to `data_dir`.
    #[must_use]
    pub fn path(&self, path: &Path) -> PathBuf {
        self.data_dir.join(path)
    }

    /// The infrastructure profile of a kind.
    ///
    /// # Errors
    /// [`StartRefusal`] when a lifetime is out of its range.
    pub fn infrastructure(&self, kind: Kind) -> Result<Profile, StartRefusal> {
        let hierarchy = &self.config.hierarchy;
        let days = match kind {
            Kind::Root => hierarchy.root_days,
            Kind::CodeSigningIssuer | Kind::CrossCertificate | Kind::TimeStampingIssuer => {
                hierarchy.issuer_days
            }
            Kind::OcspResponder => hierarchy.ocsp_responder_days,
            _ => hierarchy.timestamp_authority_days,
        };
        Profile::infrastructure(kind, days, &self.infrastructure_policies(kind))
            .map_err(|error| pki_refusal("hierarchy", &error))
    }

    /// Policy OIDs of the CA's own certificates of a kind; empty for those that have none, or the default.
    #[must_use]
    pub fn infrastructure_policies(&self, kind: Kind) -> Vec<String> {
        match kind {
            Kind::Root | Kind::OcspResponder => Vec::new(),
            Kind::CodeSigningIssuer | Kind::CrossCertificate => self.config.hierarchy.policies.clone(),
            _ => vec![self.config.timestamp.policy.clone()],
        }
    }
}

/// Status URLs stand in certificates: plain `http`, a host, nothing that a path could be confused with.
fn check_status_url(url: &str) -> Result<(), StartRefusal> {
    let host = url.strip_prefix("http://").unwrap_or_default();
    let valid = !host.is_empty()
        && !host.ends_with('/')
        && host.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._:[]/".contains(&octet));
    if valid {
        Ok(())
    } else {
        Err(StartRefusal::new(
            "status_url is not http://HOST[:PORT][/PATH]",
            "relying parties fetch CRLs over plain http (they are signed); do not end it with a slash",
        ))
    }
}

pub(crate) fn authority_key(field: &str, text: &str) -> Result<KeyAlgorithm, StartRefusal> {
    match text {
        "ecdsa-p256" => Ok(KeyAlgorithm::EcdsaP256),
        "ecdsa-p384" => Ok(KeyAlgorithm::EcdsaP384),
        "rsa-4096" => Ok(KeyAlgorithm::Rsa4096),
        "rsa-2048" | "rsa-3072" => Err(StartRefusal::new(
            format!("{field} = {text}: RSA keys of a CA need at least 4096 bits"),
            "write rsa-4096, or ecdsa-p256 or ecdsa-p384",
        )),
        _ => Err(StartRefusal::new(
            format!("{field} is not a key type for a CA"),
            "write ecdsa-p256, ecdsa-p384 or rsa-4096",
        )),
    }
}

fn in_range(field: &str, value: u64, low: u64, high: u64) -> Result<(), StartRefusal> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(StartRefusal::new(
            format!("{field} = {value} is out of range"),
            format!("choose {low} to {high}"),
        ))
    }
}

fn pki_refusal(field: &str, error: &ca_pki::Error) -> StartRefusal {
    StartRefusal::new(format!("{field}: {error}"), "correct the configuration")
}

#[cfg(test)]
mod tests;
