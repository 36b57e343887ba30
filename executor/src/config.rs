//! The configuration: as it is written ([`ExecutorConfig`]) and as it is used ([`Settings`]).
//!
//! There is no field that skips a check. What weakens a decision is refused when the policy is loaded.

mod callers;
mod extensions;
mod features;
mod limits;
mod media;
mod metrics;
mod network;
mod policy;
mod sections;
mod telemetry;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use executor_engine::Profile;
use executor_engine::limits::LARGE_COMPILE_CPU_SECONDS;
use executor_engine::pool::PoolLimits;
use serde::Deserialize;
use service::admin::AdminConfig;
use service::{ClientTls, StartRefusal};
use trust_store::capability::GuestPath;
use trust_store::evidence::signed::MAX_SIGNERS;

pub use callers::{CallerRole, CallerSection, CallerSettings};
pub use extensions::{ExtensionsSection, KeyValueSection};
pub use features::{AttestationRequired, FeaturesSection, NextPolicy, WasmRuntime};
pub use limits::{LimitsSection, RatesSection};
pub use media::{BucketStyle, MediaPlaces, S3Section, S3Settings};
pub use metrics::MetricsSection;
pub use network::{NetworkMode, NetworkSection, NetworkSettings};
pub use policy::{policy_version, refuse_weak_policy};
pub use sections::{
    CacheSection, EvidenceSection, GrantsSection, IdempotencySection, LogSection, MediaSection,
    OnPolicyChange, OnStale, PolicyChangeSection, PoolSection, ProfileName, ReceiptsSection, WorkersSection,
};
pub use telemetry::{TelemetrySection, TelemetrySettings};

use crate::admission::RuntimeRollout;
use crate::evidence::{EvidenceConfig, OcspMode};
use crate::executor::Withdrawal;
use crate::extensions::key_value::KeyValueLimits;
use crate::idempotency::AnswerLimits;
use crate::media::MediaLimits;
use crate::metrics::MetricsSettings;
use crate::queue::MAX_RUNNING;
use crate::runtime::CallLimits;
use crate::worker::WorkerLimits;

/// The file as it is written (TOML). Unknown fields are errors; paths may be relative to the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutorConfig {
    /// Folder for the cache of machine code, its key, the audit log and remembered checkpoints. Made at the first start.
    pub state_dir: PathBuf,
    /// `trusted_root.json`: the authorities and logs that are believed.
    pub trusted_root: PathBuf,
    /// `policy.yaml`: what is demanded and what may be granted.
    pub policy: PathBuf,
    /// The compile worker; absent: `executor-compiler` beside this executable.
    pub compiler: Option<PathBuf>,
    /// Workers at the same time.
    #[serde(default = "two")]
    pub compilers: usize,
    /// `standard` (epochs), `deterministic` (fuel) or `large` (epochs, more room).
    #[serde(default)]
    pub profile: ProfileName,
    /// Listener, TLS, limits of peers.
    #[serde(default)]
    pub server: service::ServerConfig,
    /// Who may load, unload, stop and refresh. Needed unless the listener is on loopback.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Who may call, and who may only look.
    #[serde(default)]
    pub callers: Vec<CallerSection>,
    /// What is kept of calls with an idempotency key.
    #[serde(default)]
    pub idempotency: IdempotencySection,
    /// Where evidence comes from.
    #[serde(default)]
    pub evidence: EvidenceSection,
    /// Size of the instance pool.
    #[serde(default)]
    pub pool: PoolSection,
    /// Processes for modules of signers that are not trusted.
    #[serde(default)]
    pub workers: WorkersSection,
    /// What one call may use; manifests only lower it.
    #[serde(default)]
    pub limits: LimitsSection,
    /// What granted capabilities are made of.
    #[serde(default)]
    pub grants: GrantsSection,
    /// Where media objects are kept, if not on this machine.
    #[serde(default)]
    pub media: MediaPlaces,
    /// Where traces of calls go; absent: nowhere.
    pub telemetry: Option<TelemetrySection>,
    /// What metrics tell.
    #[serde(default)]
    pub metrics: MetricsSection,
    /// Cache of machine code.
    #[serde(default)]
    pub cache: CacheSection,
    /// Receipts of calls.
    #[serde(default)]
    pub receipts: ReceiptsSection,
    /// What a changed policy does to calls in flight.
    #[serde(default)]
    pub policy_change: PolicyChangeSection,
    /// Flags of a rollout.
    #[serde(default)]
    pub features: FeaturesSection,
}

fn two() -> usize {
    2
}

/// The validated configuration.
#[derive(Debug)]
pub struct Settings {
    /// Folder of state.
    pub state: PathBuf,
    /// Trusted root file.
    pub trusted_root: PathBuf,
    /// Policy file.
    pub policy: PathBuf,
    /// Worker binary.
    pub compiler: PathBuf,
    /// Workers at once.
    pub compilers: usize,
    /// Profile.
    pub profile: Profile,
    /// Listener.
    pub server: service::ServerConfig,
    /// Administrators.
    pub admin: AdminConfig,
    /// Everybody else who is let in, where somebody is named.
    pub callers: Vec<CallerSettings>,
    /// What is kept of calls with an idempotency key.
    pub answers: AnswerLimits,
    /// Evidence.
    pub evidence: EvidenceConfig,
    /// TLS of requests for evidence.
    pub evidence_tls: ClientTls,
    /// `log_keys.json` with the keys of the event log.
    pub event_keys: Option<PathBuf>,
    /// Where evidence is put that is carried in.
    pub import_file: Option<PathBuf>,
    /// Public keys of whoever signs it.
    pub import_signers: Vec<PathBuf>,
    /// Between two refreshes.
    pub refresh: Duration,
    /// Pool.
    pub pool: PoolLimits,
    /// Calls of one agent at the same time; absent: a quarter of all.
    pub calls_per_agent: Option<u32>,
    /// Processes for modules of signers that are not trusted; absent: those do not run.
    pub workers: Option<WorkerLimits>,
    /// Calls.
    pub limits: CallLimits,
    /// The key of statements about the receipt log, and the time between two of them.
    pub anchor: Option<(PathBuf, Duration)>,
    /// Environment values by name: files.
    pub env: BTreeMap<String, PathBuf>,
    /// Directories by guest path.
    pub files: BTreeMap<GuestPath, PathBuf>,
    /// Media.
    pub media: MediaSection,
    /// The bucket for media, if that is where they are kept.
    pub media_bucket: Option<S3Settings>,
    /// Where traces of calls go, if anywhere.
    pub telemetry: Option<TelemetrySettings>,
    /// What metrics tell.
    pub metrics: MetricsSettings,
    /// Sizes of media.
    pub media_limits: MediaLimits,
    /// What `extension:key-value` keeps, if it is offered.
    pub key_value: Option<KeyValueLimits>,
    /// The way out for guests, if there is one.
    pub network: Option<NetworkSettings>,
    /// Bytes of the cache.
    pub cache_bytes: u64,
    /// What becomes of calls in flight when a changed policy admits their agent no longer.
    pub withdrawal: Withdrawal,
    /// The same when the evidence for it has grown older than policy allows.
    pub on_stale: Withdrawal,
    /// The policy that takes the place of the one in force, and when.
    pub next_policy: Option<NextPolicy>,
    /// Which agents run as WebAssembly.
    pub rollout: RuntimeRollout,
}

impl ExecutorConfig {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// A refusal that names the file, and the line where there is one.
    pub fn read(path: &Path) -> Result<Self, StartRefusal> {
        let refuse = |what: &str, remedy| StartRefusal::new(format!("{} {what}", path.display()), remedy);
        let text = std::fs::read_to_string(path)
            .map_err(|error| refuse("cannot be read", "correct the path after --config").because(error))?;
        toml::from_str(&text).map_err(|error| {
            refuse("cannot be used", "see docs/operations/executor.toml for every field").because(error)
        })
    }

    /// Checks every value and combination. `base` is the folder that relative paths start from.
    ///
    /// # Errors
    ///
    /// The first value that cannot be used.
    pub fn validate(mut self, base: &Path) -> Result<Settings, StartRefusal> {
        self.server.resolve_paths(base);
        self.admin.resolve_paths(base);
        let in_range = |name: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(value);
            }
            let what = format!("{name} = {value} is out of range");
            Err(StartRefusal::new(what, format!("choose a value from {low} to {high}")))
        };
        let compiler = match self.compiler {
            Some(path) => base.join(path),
            None => beside_this_executable("executor-compiler")?,
        };
        let refresh = in_range("evidence.refresh_seconds", self.evidence.refresh_seconds, 1, 3600)?;
        let stale = in_range("evidence.stale_drain_seconds", self.evidence.stale_drain_seconds, 1, 3600)?;
        let on_stale = match self.evidence.on_stale {
            OnStale::Drain => Withdrawal::Drain(Duration::from_secs(stale)),
            OnStale::Stop => Withdrawal::Stop,
        };
        let timeout = in_range("evidence.timeout_seconds", self.evidence.timeout_seconds, 1, 300)?;
        let slots = in_range("pool.slots", self.pool.slots.into(), PoolLimits::MIN_SLOTS.into(), 10_000)?;
        let calls_per_agent = self.pool.calls_per_agent;
        if let Some(calls) = calls_per_agent {
            in_range("pool.calls_per_agent", calls.into(), 1, MAX_RUNNING as u64)?;
        }
        let profile = self.profile.into();
        let limits = self.limits.validate(profile, in_range)?;
        let loopback = self.server.validate()?.primary().address().ip().is_loopback();
        if !loopback && self.admin == AdminConfig::default() {
            return Err(StartRefusal::new(
                format!(
                    "server.listen = {} is reachable by others and nobody is an administrator",
                    self.server.listen
                ),
                "add an [admin] section with token_file or subjects",
            ));
        }
        let callers = callers::validate(self.callers, &self.admin, base)?;
        let evidence = &self.evidence;
        // What is signed may come by `http`, as revocation lists do.
        let responder = &evidence.ocsp_responder;
        for base in evidence.status_bases.iter().chain(&evidence.crl_urls).chain(responder) {
            if !(base.starts_with("http://") || base.starts_with("https://")) {
                return Err(StartRefusal::new(
                    format!("evidence: {base} is no http or https URL"),
                    "write a whole URL",
                ));
            }
        }
        if self.evidence.import_file.is_some() == self.evidence.import_signers.is_empty() {
            return Err(StartRefusal::new(
                "evidence.import_file and evidence.import_signers belong together",
                "name the file and the public key of whoever signs it, or neither",
            ));
        }
        in_range(
            "evidence.import_signers",
            self.evidence.import_signers.len() as u64,
            0,
            MAX_SIGNERS as u64,
        )?;
        if self.evidence.ocsp == OcspMode::Never && self.evidence.ocsp_responder.is_some() {
            return Err(StartRefusal::new(
                "evidence.ocsp_responder is named, and evidence.ocsp = \"never\" asks nobody",
                "remove one of the two",
            ));
        }
        if self.evidence.event_keys.is_some() && self.evidence.events.is_none() {
            return Err(StartRefusal::new(
                "evidence.event_keys are the keys of no log",
                "set evidence.events to the event log's URL, or remove event_keys",
            ));
        }
        if self.receipts.anchor_key_file.is_some() && self.evidence.events.is_none() {
            return Err(StartRefusal::new(
                "receipts.anchor_key_file signs statements for no log",
                "set evidence.events to the event log's URL, or remove anchor_key_file",
            ));
        }
        let anchor_seconds = in_range("receipts.anchor_seconds", self.receipts.anchor_seconds, 1, 86_400)?;
        let path = |file: Option<PathBuf>| file.map(|file| base.join(file));
        let event_keys = path(self.evidence.event_keys.take());
        let EvidenceSection { tls_ca_file, tls_cert_file, tls_key_file, .. } = &mut self.evidence;
        let [ca, cert, key] = [tls_ca_file, tls_cert_file, tls_key_file].map(|file| path(file.take()));
        let evidence_tls = ClientTls::new("evidence", ca, cert, key)?;
        if let Some(url) = &self.evidence.events {
            evidence_tls.allow("evidence.events", url)?;
        }
        for log in &self.evidence.logs {
            evidence_tls.allow(&format!("evidence.logs: the url of {:?}", log.origin), &log.url)?;
        }
        let state = base.join(self.state_dir);
        Ok(Settings {
            trusted_root: base.join(self.trusted_root),
            policy: base.join(self.policy),
            compiler,
            compilers: in_range("compilers", self.compilers as u64, 1, 64)? as usize,
            profile,
            server: self.server,
            admin: self.admin,
            callers,
            answers: self.idempotency.validate(in_range)?,
            evidence: EvidenceConfig {
                events: self.evidence.events,
                event_log: None,
                crl_urls: self.evidence.crl_urls,
                status_bases: self.evidence.status_bases,
                ocsp: self.evidence.ocsp,
                ocsp_responder: self.evidence.ocsp_responder,
                logs: self.evidence.logs.into_iter().map(|log| (log.origin, log.url)).collect(),
                import: None,
                root: None,
                state: state.clone(),
                timeout: Duration::from_secs(timeout),
            },
            event_keys,
            import_file: self.evidence.import_file.map(|path| base.join(path)),
            import_signers: self.evidence.import_signers.iter().map(|path| base.join(path)).collect(),
            evidence_tls,
            refresh: Duration::from_secs(refresh),
            pool: PoolLimits {
                slots: u32::try_from(slots).unwrap_or(PoolLimits::MIN_SLOTS),
                ..PoolLimits::of(profile)
            },
            calls_per_agent,
            workers: self.workers.validate(limits.memory, in_range)?,
            anchor: path(self.receipts.anchor_key_file)
                .map(|file| (file, Duration::from_secs(anchor_seconds))),
            limits,
            env: self.grants.env.into_iter().map(|(name, path)| (name, base.join(path))).collect(),
            files: files(self.grants.files, base)?,
            telemetry: self.telemetry.map(|section| section.validate(base)).transpose()?,
            metrics: self.metrics.validate()?,
            media: self.grants.media,
            media_bucket: self.media.validate(base, self.grants.media, self.grants.media_max_mib)?,
            key_value: self.grants.extensions.validate(in_range)?,
            network: self.grants.network.validate(base)?,
            media_limits: MediaLimits {
                store: match self.grants.media_max_mib {
                    Some(mib) => in_range("grants.media_max_mib", mib, 1, 1 << 20)? << 20,
                    None => MediaLimits::default().store,
                },
                ..MediaLimits::default()
            },
            cache_bytes: in_range("cache.max_mib", self.cache.max_mib, 1, 1 << 20)? << 20,
            next_policy: self.features.attestation_required.validate(base)?,
            rollout: self.features.wasm_runtime.validate()?,
            on_stale,
            withdrawal: match self.policy_change.calls {
                OnPolicyChange::Drain => Withdrawal::Drain(Duration::from_secs(in_range(
                    "policy_change.drain_seconds",
                    self.policy_change.drain_seconds,
                    1,
                    3600,
                )?)),
                OnPolicyChange::Stop => Withdrawal::Stop,
            },
            state,
        })
    }
}

fn files(
    section: BTreeMap<String, PathBuf>,
    base: &Path,
) -> Result<BTreeMap<GuestPath, PathBuf>, StartRefusal> {
    let mapped = |(guest, host): (String, PathBuf)| {
        let path = GuestPath::new(&guest).map_err(|error| {
            StartRefusal::new(format!("grants.files: {guest} is no guest path"), "write an absolute path")
                .because(error)
        })?;
        let host = base.join(host);
        if !host.is_dir() {
            let what = format!("grants.files: {} is no directory", host.display());
            return Err(StartRefusal::new(what, "make it, or remove the line"));
        }
        Ok((path, host))
    };
    section.into_iter().map(mapped).collect()
}

/// Longest time a compile may take, for whoever waits for a load.
pub const MAX_COMPILE: Duration = Duration::from_secs(2 * LARGE_COMPILE_CPU_SECONDS);

fn beside_this_executable(name: &str) -> Result<PathBuf, StartRefusal> {
    let own = std::env::current_exe().map_err(|error| {
        StartRefusal::new("the path of this executable is not known", "set `compiler`").because(error)
    })?;
    Ok(own.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let text = format!("state_dir = 's'\ntrusted_root = 't'\npolicy = 'p'\n{text}");
        match toml::from_str::<ExecutorConfig>(&text) {
            Ok(config) => config.validate(Path::new("/etc")).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_minimal_file_is_enough_and_paths_are_relative_to_it() {
        let config: ExecutorConfig = toml::from_str(
            "state_dir = 's'\ntrusted_root = '/t.json'\npolicy = 'p.yaml'\nevidence.ca_file = 'ca.pem'",
        )
        .unwrap();
        let settings = config.validate(Path::new("/etc/mentat")).unwrap();
        assert_eq!(settings.state, Path::new("/etc/mentat/s"));
        assert_eq!(settings.trusted_root, Path::new("/t.json"));
        // The name that files of before have.
        assert!(settings.evidence_tls.files().eq([Path::new("/etc/mentat/ca.pem")]));
        assert_eq!(settings.refresh, Duration::from_secs(30));
        assert_eq!(settings.on_stale, Withdrawal::Drain(Duration::from_secs(30)));
        assert!(settings.compiler.ends_with("executor-compiler"));
    }

    #[test]
    fn impossible_values_are_refused_with_a_remedy() {
        assert!(refusal("[limits]\nmemory_mib = 1000").contains("choose a value from 1 to 512"));
        for (rate, most) in [("capabilities", "1000000"), ("log_bytes", "67108864"), ("media", "1000000")] {
            for wrong in ["0", "67108865"] {
                let told = refusal(&format!("[limits.rates]\n{rate} = {wrong}"));
                assert!(told.contains(&format!("limits.rates.{rate} = {wrong} is out of range")), "{told}");
                assert!(told.contains(&format!("from 1 to {most}")), "{told}");
            }
        }
        assert!(refusal("[limits.rates]\nfiles = 1").contains("unknown field"));
        assert!(refusal("[pool]\nslots = 1").contains("pool.slots"));
        assert!(refusal("[pool]\ncalls_per_agent = 0").contains("pool.calls_per_agent"));
        assert!(refusal("[evidence]\nrefresh_seconds = 0").contains("evidence.refresh_seconds"));
        for half in ["import_file = 'f'", "import_signers = ['k']"] {
            assert!(refusal(&format!("[evidence]\n{half}")).contains("belong together"), "{half}");
        }
        assert!(refusal("[evidence]\ntls_cert_file = 'c'").contains("tls_key_file belong together"));
        for wrong in ["status_bases = ['ftp://x']", "ocsp_responder = 'ca.example/ocsp'"] {
            assert!(refusal(&format!("[evidence]\n{wrong}")).contains("no http or https URL"), "{wrong}");
        }
        assert!(refusal("[evidence]\nocsp = 'sometimes'").contains("unknown variant"));
        assert!(
            refusal("[evidence]\nocsp = 'never'\nocsp_responder = 'http://ca.example/ocsp'")
                .contains("asks nobody")
        );
        assert!(refusal("[evidence]\nevent_keys = 'log_keys.json'").contains("keys of no log"));
        assert!(refusal("[receipts]\nanchor_key_file = 'k'").contains("for no log"));
        assert!(refusal("[receipts]\nanchor_seconds = 0").contains("receipts.anchor_seconds"));
        for (section, expected) in [
            ("events = 'http://10.1.2.3/event'", "evidence.events would speak plain HTTP to 10.1.2.3"),
            ("events = 'event'", "evidence.events is no http or https URL"),
            (
                "logs = [{ origin = 'o', url = 'http://log.example' }]",
                "\"o\" would speak plain HTTP to log.example",
            ),
            ("logs = [{ origin = 'o', url = 'file:///x' }]", "\"o\" is no http or https URL"),
            (
                "tls_cert_file = 'c'\ntls_key_file = 'k'\nevents = 'http://127.0.0.1/event'",
                "evidence.tls_cert_file would be shown to nobody",
            ),
        ] {
            let told = refusal(&format!("[evidence]\n{section}"));
            assert!(told.contains(expected), "{section}: {told}");
        }
        assert!(refusal("[policy_change]\ncalls = 'drain'\ndrain_seconds = 0").contains("drain_seconds"));
        assert!(refusal("[policy_change]\ncalls = 'ignore'").contains("unknown variant"));
        assert!(refusal("[evidence]\nstale_drain_seconds = 0").contains("evidence.stale_drain_seconds"));
        assert!(refusal("[evidence]\non_stale = 'ignore'").contains("unknown variant"));
        assert!(refusal("skip_verification = true").contains("unknown field"));
        assert!(refusal("[server]\nlisten = '10.0.0.1:80'").contains("plain HTTP"));
    }
}
