//! The first start: ports, secrets, configuration, keys, hierarchy, logs, trust files; `stack.json` last.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hsm::developer::DeveloperKey;
use hsm::{KeyAlgorithm, Passphrase};
use serde::Deserialize;
use tlog_client::LogSet;
use trust_store::capability::Capability;
use trust_store::pattern::Pattern;
use trust_store::policy::{
    AgentPolicy, CapabilityPolicy, FreshnessPolicy, IdentityRule, IssuerRule, SctPolicy, TrustLevel,
};
use trust_store::policy_document::PolicyDocument;

use super::child;
use super::config;
use super::file::{ExecutorService, Log, OidcService, Service, StackFile, TufService};
use super::layout::Layout;
use super::ports::{Ports, Reservation, Transport};
use super::published;
use super::repository;
use super::run::Start;
use super::trust_files::TrustFiles;
use crate::chain_file;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Secrecy, make_folder, write_file};
use crate::interruption::{INTERRUPTED, Interruption};
use crate::output::Output;
use crate::tls;
use crate::trust::{self, Issues, TrustedChain};

/// Days that the servers' TLS certificate is valid; clients refuse more than 398.
const SERVER_DAYS: u16 = 397;

/// What `ca-service init` prints.
#[derive(Debug, Deserialize)]
struct Ceremony {
    code_signing_chain: PathBuf,
    time_stamping_chain: PathBuf,
    statement_public_key: PathBuf,
}

/// What `transparency-log init` prints.
#[derive(Debug, Deserialize)]
struct NewLogs {
    logs: LogSet,
}

/// Creates a stack in an empty folder. Its ports are reserved until its servers have bound them.
///
/// # Errors
/// Exit code 78 when the folder holds something else, an earlier first start was killed, a port is taken, or a server
/// refuses; 1 when it was interrupted: the folder is empty again then.
pub fn create(
    layout: &Layout,
    start: &Start,
    interruption: &Interruption,
    out: &Output,
) -> Outcome<Reservation> {
    let root = layout.root();
    if layout.unfinished_marker().exists() {
        return Err(Failure::refused(format!("the first start in {} was interrupted", root.display()))
            .hint("nothing in it was ever used: remove the folder and start again"));
    }
    let lock = layout.lock_file();
    let mut entries =
        std::fs::read_dir(root).or_fail(Exit::Refused, format!("cannot read {}", root.display()))?;
    if let Some(other) =
        entries.find_map(|entry| entry.ok().map(|entry| entry.path()).filter(|path| *path != lock))
    {
        return Err(Failure::refused(format!("{} holds no stack but {}", root.display(), other.display()))
            .hint("choose an empty folder; if stack.json was lost, restore it from a backup"));
    }
    let (ports, reservation) = Ports::reserve(start.port_base, start.transport)?;
    // An empty folder becomes the stack's own, whatever mode it had: databases and logs are for the owner alone.
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700))
        .or_fail(Exit::Refused, format!("cannot make {} private", root.display()))?;
    // In one step: nothing may be left that is neither an empty folder nor a marked one.
    std::fs::File::create(layout.unfinished_marker()).or_fail(Exit::Refused, "marking the first start")?;
    make(layout, &ports, start, interruption, out).inspect_err(|failure| {
        if failure.code.as_deref() == Some(INTERRUPTED) {
            empty(layout);
        }
    })?;
    Ok(reservation)
}

/// Takes away what an interrupted first start made: the folder was empty before, and nothing in it was ever used.
fn empty(layout: &Layout) {
    let lock = layout.lock_file();
    let Ok(entries) = std::fs::read_dir(layout.root()) else { return };
    let marker = layout.unfinished_marker();
    let others = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut removed = true;
    for path in others.filter(|path| *path != lock && *path != marker) {
        let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed &= gone.is_ok();
    }
    // The mark goes last: what could not be removed must not look like anything but an interrupted start.
    if removed {
        let _ = std::fs::remove_file(marker);
    }
}

fn make(
    layout: &Layout,
    ports: &Ports,
    start: &Start,
    interruption: &Interruption,
    out: &Output,
) -> Outcome<()> {
    let root = layout.root();
    let spinner = out.spinner("creating keys and hierarchy");
    for (folder, secrecy) in [
        ("secrets", Secrecy::Secret),
        ("config", Secrecy::Public),
        ("trust", Secrecy::Public),
        ("output", Secrecy::Public),
    ] {
        make_folder(&root.join(folder), secrecy)?;
    }
    let ports_text = serde_json::to_vec(ports).or_fail(Exit::Failure, "writing the ports")?;
    write_file(&layout.ports_file(), &ports_text, Secrecy::Public)?;
    for server in ["transparency-log", "ca-service", "tuf"] {
        secret(&layout.passphrase(server))?;
    }
    secret(&layout.admin_token())?;
    secret(&layout.oidc_secret())?;
    let receipts_key = anchor_key(layout)?;
    if ports.transport == Transport::Https {
        tls::authority(&layout.tls(), "Mentat stack TLS CA")?;
        certify_servers(layout)?;
    }

    config::authority(layout, ports, start.tempo)?;
    interruption.check()?;
    let ceremony: Ceremony = from_init("ca-service", layout)?;
    interruption.check()?;
    spinner.say("creating the logs");
    config::log_server(
        layout,
        ports,
        start.raw_log,
        &config::Reporters {
            code_signing_chain: &ceremony.code_signing_chain,
            time_stamping_chain: &ceremony.time_stamping_chain,
            statement_key: &ceremony.statement_public_key,
            receipts_key: &receipts_key,
        },
    )?;
    let logs = from_init::<NewLogs>("transparency-log", layout)?.logs;
    interruption.check()?;
    trust_files(layout, ports, &ceremony, &logs)?;
    repository::create(layout)?;
    config::executor(layout, ports, start.tempo, &logs)?;
    interruption.check()?;
    write_stack_file(layout, ports, &logs)?;
    std::fs::remove_file(layout.unfinished_marker()).or_fail(Exit::Failure, "finishing the first start")?;
    drop(spinner);
    Ok(())
}

/// Makes the servers' TLS certificate, at each start anew: none is ever old.
///
/// # Errors
/// When the authority's files cannot be used.
pub fn certify_servers(layout: &Layout) -> Outcome<()> {
    tls::certificate(&layout.tls(), config::SERVER, &["127.0.0.1", "localhost"], SERVER_DAYS).map(drop)
}

fn from_init<T: for<'de> Deserialize<'de>>(server: &str, layout: &Layout) -> Outcome<T> {
    let value = child::init(server, &layout.config(server))?;
    serde_json::from_value(value)
        .or_fail(Exit::Failure, format!("{server} init printed something unexpected"))
}

/// A random secret of 256 bits in text form.
fn secret(path: &Path) -> Outcome<()> {
    let secret = Passphrase::random().or_fail(Exit::Failure, "making a secret")?;
    write_file(path, secret.expose(), Secrecy::Secret)
}

/// The key that signs what the event log is told of the executor's receipts; its public half is for the log.
fn anchor_key(layout: &Layout) -> Outcome<PathBuf> {
    let key = DeveloperKey::generate(KeyAlgorithm::EcdsaP256).or_fail(Exit::Failure, "making a key")?;
    write_file(&layout.anchor_key(), key.to_pem().as_bytes(), Secrecy::Secret)?;
    let public = layout.trust("executor-anchor.pub.pem");
    write_file(&public, key.signer().public_key().to_pem().as_bytes(), Secrecy::Public)?;
    Ok(public)
}

fn trust_files(layout: &Layout, ports: &Ports, ceremony: &Ceremony, logs: &LogSet) -> Outcome<()> {
    let chain = |name: &str, issues, path: &Path| -> Outcome<TrustedChain> {
        Ok(TrustedChain { name: name.to_owned(), issues, certificates: chain_file::read(path)? })
    };
    let chains = [
        chain("code-signing", Issues::Certificates, &ceremony.code_signing_chain)?,
        chain("timestamp", Issues::Timestamps, &ceremony.time_stamping_chain)?,
    ];
    let root = trust::trusted_root(&chains, logs)?;
    TrustFiles::of(ports, &root)?.write(layout)?;
    let write = |name: &str, bytes: &[u8]| write_file(&layout.trust(name), bytes, Secrecy::Public);
    write("log_keys.json", &serde_json::to_vec_pretty(logs).or_fail(Exit::Failure, "writing the log keys")?)?;
    write("policy.yaml", &policy(logs)?.to_json().or_fail(Exit::Failure, "writing the policy")?)?;
    if let Some(issuance) = logs.of_kind("issuance") {
        let spki = issuance.spki().or_fail(Exit::Failure, &issuance.origin)?;
        let key = hsm::PublicKey::from_spki_der(&spki).or_fail(Exit::Failure, &issuance.origin)?;
        write("issuance_log.pub.pem", key.to_pem().as_bytes())?;
    }
    Ok(())
}

/// The policy of a fresh stack: whoever this authority certified may run agents that need computing time and nothing
/// else. There are no witnesses on one machine, and the policy says so.
fn policy(logs: &LogSet) -> Outcome<PolicyDocument> {
    let pattern = |text: &str| Pattern::new(text).or_fail(Exit::Failure, "writing the policy");
    let signing =
        logs.of_kind("signing").ok_or_else(|| Failure::failed("the log server made no signing log"))?;
    let mut policy = PolicyDocument::default();
    policy.identities = vec![IdentityRule {
        subject: pattern("**")?,
        issuer: IssuerRule::AnyOfTheAuthority,
        level: TrustLevel::Verified,
        agents: None,
    }];
    policy.sct = Some(SctPolicy::Require);
    policy.logs = Some(trust::log_policy(signing));
    policy.freshness = Some(FreshnessPolicy::WithinSeconds(3600));
    policy.agents = Some(AgentPolicy { allow: vec![pattern("**")?], deny: Vec::new() });
    let computing: Capability = "compute:memory=64MiB,cpu_ms=10000,wall_ms=30000"
        .parse()
        .or_fail(Exit::Failure, "writing the policy")?;
    policy.capabilities = Some(CapabilityPolicy::Within(vec![computing]));
    Ok(policy)
}

fn write_stack_file(layout: &Layout, ports: &Ports, logs: &LogSet) -> Outcome<()> {
    let url = |port: u16| ports.url(port);
    let mut file = StackFile::new();
    file.ca = Some(Service { url: url(ports.ca) });
    file.tsa = Some(Service { url: format!("{}/api/v1/timestamp", url(ports.ca)) });
    file.executor = Some(ExecutorService { url: url(ports.executor), grpc: url(ports.executor) });
    for log in &logs.0 {
        file.logs.insert(log.kind.clone(), Log::described(log));
    }
    file.log = file.logs.get("signing").cloned();
    file.trusted_root = Some(layout.trust("trusted_root.json"));
    file.signing_config = Some(layout.trust("signing_config.json"));
    file.client_trust_config = Some(layout.trust("client_trust_config.json"));
    if let Some(url) = ports.oidc.map(url) {
        let root = layout.trust("tuf").join("1.root.json");
        file.tuf = Some(TufService { url: format!("{url}{}/tuf", published::PATH), root });
        file.oidc = Some(OidcService { url, secret_file: layout.oidc_secret() });
    }
    file.log_keys = Some(layout.trust("log_keys.json"));
    file.policy = Some(layout.trust("policy.yaml"));
    file.admin_token_file = Some(layout.admin_token());
    file.tls_ca = (ports.transport == Transport::Https).then(|| layout.tls_authority());
    file.store(&layout.stack_file())
}
