//! The configuration files of a stack's servers. They are ordinary files: an operator may edit them afterwards, and
//! `docs/operations` explains every field.

use std::path::Path;

use tlog_client::LogSet;
use toml::{Table, Value};

use super::issuer::{DEFAULT_AUDIENCE, DEVELOPER_AUDIENCE};
use super::layout::Layout;
use super::ports::{Ports, Transport};
use super::raw_log::{RAW, RawLog};
use crate::exit::{Exit, OrFail as _, Outcome};
use crate::home::{Secrecy, write_file};
use crate::tls::Pair;

/// Name of the TLS certificate that all of a stack's servers share.
pub const SERVER: &str = "server";

/// How eagerly status is published and refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tempo {
    /// The defaults of the servers.
    Normal,
    /// Every second, so that a demonstration need not wait.
    Demo,
}

impl Tempo {
    fn seconds(self, normal: i64) -> i64 {
        match self {
            Self::Normal => normal,
            Self::Demo => 1,
        }
    }
}

/// Writes the authority's configuration.
///
/// # Errors
/// When the file cannot be written.
pub fn authority(layout: &Layout, ports: &Ports, tempo: Tempo) -> Outcome<()> {
    let data = layout.data("ca-service");
    let mut config = Table::new();
    config.insert("data_dir".into(), path(&data));
    config.insert("status_url".into(), format!("http://127.0.0.1:{}", ports.status).into());
    config.insert("identity_issuer".into(), ports.url(ports.ca).into());
    let mut server = listener(layout, ports, ports.ca);
    server.push(("read_only_listen", address(ports.status)));
    config.insert("server".into(), table(server));
    config.insert("admin".into(), table([("token_file", path(&layout.admin_token()))]));
    config.insert("keys".into(), table([("passphrase", passphrase(layout, "ca-service"))]));
    let log = |base: &str, more: Vec<(&'static str, Value)>| {
        let url = ("url", format!("{}{base}", ports.url(ports.log)).into());
        table([vec![url], tls_authority(layout, ports), more].concat())
    };
    let key = ("public_key_file", path(&layout.trust("issuance_log.pub.pem")));
    config.insert("issuance_log".into(), log("/issuance", vec![key]));
    config.insert("event_log".into(), log("/event", Vec::new()));
    config.insert("check".into(), table([("log_keys", path(&layout.trust("log_keys.json")))]));
    if let Some(port) = ports.oidc {
        let section = |audience: &str, profile: &str| {
            let issuer = vec![
                ("issuer", ports.url(port).into()),
                ("audience", audience.into()),
                ("profile", profile.into()),
            ];
            table([issuer, tls_authority(layout, ports)].concat())
        };
        // A token for both audiences gets a developer's certificate.
        let sections = [section(DEVELOPER_AUDIENCE, "developer"), section(DEFAULT_AUDIENCE, "keyless")];
        config.insert("oidc".into(), Value::Array(sections.to_vec()));
    }
    if ports.transport == Transport::Https {
        // Developers may show their certificate at the handshake: `pki renew --mtls`.
        config.insert("enrolment".into(), table([("mutual_tls", "accept".into())]));
    }
    config.insert("status".into(), table([("publish_interval_seconds", tempo.seconds(60).into())]));
    config.insert(
        "profiles".into(),
        table([
            ("developer", table([("rules", "internal".into())])),
            ("keyless", table([("rules", "keyless".into())])),
        ]),
    );
    write(layout, "ca-service", &config)
}

/// The main listener of a server.
fn listener(layout: &Layout, ports: &Ports, port: u16) -> Vec<(&'static str, Value)> {
    let mut listener = vec![("listen", address(port))];
    if ports.transport == Transport::Https {
        let files = Pair::named(&layout.tls(), SERVER);
        let tls = table([("certificate_file", path(&files.certificate)), ("key_file", path(&files.key))]);
        listener.push(("tls", tls));
    }
    listener
}

/// The authority of the other servers' certificates, for whoever connects to them.
fn tls_authority(layout: &Layout, ports: &Ports) -> Vec<(&'static str, Value)> {
    match ports.transport {
        Transport::Http => Vec::new(),
        Transport::Https => vec![("tls_ca_file", path(&layout.tls_authority()))],
    }
}

/// Files of those who tell the log something.
pub struct Reporters<'a> {
    /// Certificates of the CAs for code signing, up to their roots.
    pub code_signing_chain: &'a Path,
    /// Certificates of the timestamp authority, up to its root.
    pub time_stamping_chain: &'a Path,
    /// Public key of the authority's statements.
    pub statement_key: &'a Path,
    /// Public key of the executor's statements about its receipts.
    pub receipts_key: &'a Path,
}

/// Writes the log server's configuration.
///
/// # Errors
/// When the file cannot be written.
pub fn log_server(layout: &Layout, ports: &Ports, raw_log: RawLog, reporters: &Reporters<'_>) -> Outcome<()> {
    let data = layout.data("transparency-log");
    let authorities = Value::Array(vec![path(reporters.code_signing_chain)]);
    let log = |name: &str, more: Vec<(&str, Value)>| {
        let mut log = vec![("name", name.into()), ("kind", name.into())];
        log.extend(more);
        table(log)
    };
    let events = EVENTS.map(|kind| {
        let key = if kind == RECEIPTS { reporters.receipts_key } else { reporters.statement_key };
        let mut event = vec![("predicate_type", kind.into()), ("keys", Value::Array(vec![path(key)]))];
        if kind == REVOCATION {
            // The key speaks for what this authority issued, and for nothing else that the log may be told of one day.
            let issuers = [reporters.code_signing_chain, reporters.time_stamping_chain].map(path);
            event.push(("issuer_certificates", Value::Array(issuers.to_vec())));
        }
        table(event)
    });
    let mut config = Table::new();
    config.insert("public_url".into(), ports.url(ports.log).into());
    config.insert("data".into(), path(&data.join("logs")));
    config.insert("head_copies".into(), path(&data.join("head-copies")));
    config.insert("server".into(), table(listener(layout, ports, ports.log)));
    config.insert(
        "keystore".into(),
        table([
            ("directory", path(&data.join("keys"))),
            ("passphrase", passphrase(layout, "transparency-log")),
        ]),
    );
    let mut logs = vec![
        log("signing", vec![("authorities", authorities.clone())]),
        log("issuance", vec![("authorities", authorities)]),
        log("event", vec![("event", Value::Array(events.to_vec()))]),
    ];
    if raw_log == RawLog::Wanted {
        logs.push(log(RAW, Vec::new()));
    }
    config.insert("log".into(), Value::Array(logs));
    write(layout, "transparency-log", &config)
}

/// Writes the executor's configuration.
///
/// # Errors
/// When the file cannot be written.
pub fn executor(layout: &Layout, ports: &Ports, tempo: Tempo, logs: &LogSet) -> Outcome<()> {
    let events = logs.of_kind("event").map(|log| Value::from(log.url.clone()));
    let logs = logs
        .0
        .iter()
        .filter(|log| log.kind == "signing")
        .map(|log| table([("origin", log.origin.clone().into()), ("url", log.url.clone().into())]))
        .collect();
    let mut config = Table::new();
    config.insert("state_dir".into(), path(&layout.data("executor")));
    config.insert("trusted_root".into(), path(&layout.trust("trusted_root.json")));
    config.insert("policy".into(), path(&layout.trust("policy.yaml")));
    config.insert("server".into(), table(listener(layout, ports, ports.executor)));
    config.insert("admin".into(), table([("token_file", path(&layout.admin_token()))]));
    let mut evidence = tls_authority(layout, ports);
    evidence.extend([
        ("refresh_seconds", tempo.seconds(30).into()),
        ("status_bases", Value::Array(vec![format!("http://127.0.0.1:{}", ports.status).into()])),
        ("logs", Value::Array(logs)),
    ]);
    if let Some(events) = events {
        evidence.extend([("events", events), ("event_keys", path(&layout.trust("log_keys.json")))]);
        let receipts = [("anchor_key_file", path(&layout.anchor_key()))];
        config.insert("receipts".into(), table(receipts));
    }
    config.insert("evidence".into(), table(evidence));
    write(layout, "executor", &config)
}

/// `predicateType` of a revocation.
const REVOCATION: &str = crate::log::event_key::REVOCATION;
/// `predicateType` of the executor's statements: about the head of its receipt log.
const RECEIPTS: &str = "https://mentat.internal/receipt-anchor/v1";

/// Of the authority's statements as well: about revocations, and about the head of its audit trail.
const EVENTS: [&str; 3] = [REVOCATION, "https://mentat.internal/audit-anchor/v1", RECEIPTS];

fn write(layout: &Layout, server: &str, config: &Table) -> Outcome<()> {
    let text =
        toml::to_string(config).or_fail(Exit::Failure, format!("writing the configuration of {server}"))?;
    let head = format!(
        "# Written by `mentatctl up` at its first start; docs/operations/{server}.toml explains every field.\n"
    );
    write_file(&layout.config(server), (head + &text).as_bytes(), Secrecy::Public)
}

fn table<K: Into<String>>(members: impl IntoIterator<Item = (K, Value)>) -> Value {
    Value::Table(members.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

fn path(path: &Path) -> Value {
    Value::String(path.display().to_string())
}

fn passphrase(layout: &Layout, server: &str) -> Value {
    Value::String(format!("file:{}", layout.passphrase(server).display()))
}

fn address(port: u16) -> Value {
    Value::String(format!("127.0.0.1:{port}"))
}
