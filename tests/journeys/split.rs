//! The split form: three services with a configuration file each, on different addresses, with TLS, and mutual TLS for
//! the executor; an executor that joins an authority and a log that exist already. The steps of
//! `docs/operations/split.md`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use mentat_tests::agent::sentiment;
use mentat_tests::binary::binary;
use mentat_tests::command::{Finished, finish, mentatctl, mentatctl_with_input};
use mentat_tests::server::Server;
use serde_json::Value;

/// Three machines on one: an address each, and a port that was free a moment ago.
struct Machines {
    ca: String,
    status: String,
    log: String,
    executor: String,
}

impl Machines {
    fn new() -> Self {
        let free = |host: &str| TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().to_string();
        Self {
            ca: free("127.0.0.2"),
            status: free("127.0.0.2"),
            log: free("127.0.0.3"),
            executor: free("127.0.0.4"),
        }
    }
}

fn serve(name: &str, config: &Path) -> Server {
    let mut command = Command::new(binary(name));
    command.arg("serve").arg("--config").arg(config).arg("--exit-with-stdin");
    Server::start(command)
}

fn init(name: &str, config: &Path) -> Value {
    let mut command = Command::new(binary(name));
    command.arg("init").arg("--config").arg(config);
    let done: Finished = finish(command, b"").success();
    serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn write(path: &Path, content: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

#[test]
fn three_machines_speak_tls_and_an_executor_joins() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let home = root.join("home");
    let machines = Machines::new();
    let tls = root.join("tls");
    let at = |name: &str| -> PathBuf { tls.join(name) };

    mentatctl(&home, ["tls", "init", "--dir", text(&tls)]).success();
    for (name, host) in [("authority", "127.0.0.2"), ("log", "127.0.0.3"), ("executor", "127.0.0.4")] {
        mentatctl(&home, ["tls", "issue", "--dir", text(&tls), "--name", name, "--host", host]).success();
    }
    mentatctl(&home, ["tls", "issue", "--dir", text(&tls), "--name", "operator"]).success();
    // No certificate overwrites the TLS authority's own, or leaves the folder.
    mentatctl(&home, ["tls", "issue", "--dir", text(&tls), "--name", "ca"]).refused(2, "name");
    mentatctl(&home, ["tls", "issue", "--dir", text(&tls), "--name", "../evil"]).refused(2, "name");

    let ca_dir = root.join("ca");
    let secret = |name: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = root.join(name);
        write(&path, "correct horse battery staple 42\n");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let (ca_secret, log_secret) = (secret("ca.pass"), secret("log.pass"));
    let tls_section = |name: &str, more: &str| {
        let (certificate, key) = (at(&format!("{name}.crt")), at(&format!("{name}.key")));
        format!("[server.tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}\n{more}")
    };
    let client_ca = format!("client_ca_file = {:?}\nclient_certificates = \"optional\"\n", at("ca.crt"));
    let ca_config = root.join("ca-service.toml");
    write(
        &ca_config,
        &format!(
            "data_dir = {ca_dir:?}\nstatus_url = \"http://{status}\"\nidentity_issuer = \"https://{ca}\"\n\
             [server]\nlisten = {ca:?}\nread_only_listen = {status:?}\n{tls}\
             [admin]\nsubjects = [\"CN=operator\"]\n[keys]\npassphrase = \"file:{secret}\"\n\
             [issuance_log]\nurl = \"https://{log}/issuance\"\npublic_key_file = {key:?}\ntls_ca_file = {authority:?}\n\
             [event_log]\nurl = \"https://{log}/event\"\ntls_ca_file = {authority:?}\n\
             [status]\npublish_interval_seconds = 1\n[profiles.developer]\nrules = \"internal\"\n",
            status = machines.status,
            ca = machines.ca,
            log = machines.log,
            tls = tls_section("authority", &client_ca),
            secret = ca_secret.display(),
            key = root.join("issuance.pub.pem"),
            authority = at("ca.crt"),
        ),
    );
    let ceremony = init("ca-service", &ca_config);
    let file = |name: &str| ceremony[name].as_str().unwrap().to_owned();

    let log_config = root.join("transparency-log.toml");
    write(
        &log_config,
        &format!(
            "public_url = \"https://{log}\"\ndata = {data:?}\nhead_copies = {copies:?}\n[server]\nlisten = {log:?}\n{tls}\
             [keystore]\ndirectory = {keys:?}\npassphrase = \"file:{secret}\"\n\
             [[log]]\nname = \"signing\"\nkind = \"signing\"\nauthorities = [{chain:?}]\n\
             [[log]]\nname = \"issuance\"\nkind = \"issuance\"\nauthorities = [{chain:?}]\n\
             [[log]]\nname = \"event\"\nkind = \"event\"\n[[log.event]]\n\
             predicate_type = \"https://mentat.internal/revocation/v1\"\nkeys = [{statement:?}]\n[[log.event]]\n\
             predicate_type = \"https://mentat.internal/audit-anchor/v1\"\nkeys = [{statement:?}]\n",
            log = machines.log,
            data = root.join("log"),
            copies = root.join("heads"),
            keys = root.join("log-keys"),
            tls = tls_section("log", ""),
            secret = log_secret.display(),
            chain = file("code_signing_chain"),
            statement = file("statement_public_key"),
        ),
    );
    let logs = init("transparency-log", &log_config);
    let issuance = logs["logs"].as_array().unwrap().iter().find(|log| log["kind"] == "issuance").unwrap();
    let spki = issuance["public_key"].as_str().unwrap();
    write(
        &root.join("issuance.pub.pem"),
        &format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", wrap(spki)),
    );
    let log = serve("transparency-log", &log_config);
    let ca = serve("ca-service", &ca_config);

    let (ca_url, log_url) = (format!("https://{}", machines.ca), format!("https://{}", machines.log));
    let tls_ca = at("ca.crt");
    let operator = |args: &[&str]| {
        let credentials = [
            "--tls-ca",
            text(&tls_ca),
            "--tls-cert",
            text(&at("operator.crt")),
            "--tls-key",
            text(&at("operator.key")),
        ]
        .map(str::to_owned);
        mentatctl(&home, args.iter().map(|arg| (*arg).to_owned()).chain(credentials))
    };

    // Whoever is not the operator is no administrator; whoever does not know the TLS authority gets no answer.
    mentatctl(&home, ["pki", "token", "create", "--email", "dev@example.com", "--ca-url", &ca_url])
        .refused(69, "cannot be reached");
    let stranger = mentatctl(
        &home,
        [
            "pki",
            "token",
            "create",
            "--email",
            "dev@example.com",
            "--ca-url",
            &ca_url,
            "--tls-ca",
            text(&tls_ca),
        ],
    );
    assert_eq!(stranger.code, 1, "{}", stranger.stderr);
    let token = operator(&["pki", "token", "create", "--email", "dev@example.com", "--ca-url", &ca_url])
        .success()
        .stdout;
    mentatctl_with_input(
        &home,
        ["pki", "request-cert", "--email", "dev@example.com", "--ca-url", &ca_url, "--tls-ca", text(&tls_ca)],
        token.as_bytes(),
    )
    .success();

    // The executor joins: trust files, a policy that accepts nobody, its configuration.
    let joined = root.join("executor");
    let executor_data = root.join("executor-state");
    mentatctl(
        &home,
        [
            "executor",
            "join",
            "--output",
            text(&joined),
            "--data-dir",
            text(&executor_data),
            "--ca-url",
            &ca_url,
            "--log-url",
            &log_url,
            "--tls-ca",
            text(&tls_ca),
            "--listen",
            &machines.executor,
            "--server-cert",
            text(&at("executor.crt")),
            "--server-key",
            text(&at("executor.key")),
            "--client-ca",
            text(&tls_ca),
            "--admin",
            "CN=operator",
        ],
    )
    .success();
    let executor = serve("executor", &joined.join("executor.toml"));
    let executor_url = format!("https://{}", machines.executor);

    let release = sentiment(root, "agent", |manifest| manifest);
    let tsa = format!("{ca_url}/api/v1/timestamp");
    mentatctl(
        &home,
        ["sign", text(&release), "--log-url", &log_url, "--tsa-url", &tsa, "--tls-ca", text(&tls_ca)],
    )
    .success();
    operator(&["run", text(&release), "--executor-url", &executor_url]).refused(3, "identity_denied");
    assert_eq!(executor.stop(), 0);

    // The operator names the signers and what they may ask for; then it runs.
    let policy_path = joined.join("policy.yaml");
    let mut policy: Value = serde_json::from_slice(&std::fs::read(&policy_path).unwrap()).unwrap();
    policy["identities"] = serde_json::json!([{ "subject": "dev@example.com", "issuer": "any-of-the-authority", "level": "verified" }]);
    policy["agents"] = serde_json::json!({ "allow": ["mentatlab.*"] });
    policy["capabilities"] =
        serde_json::json!({ "within": ["compute:memory=64MiB,cpu_ms=2000,wall_ms=9000"] });
    std::fs::write(&policy_path, policy.to_string()).unwrap();
    let executor = serve("executor", &joined.join("executor.toml"));
    let ran = operator(&["run", text(&release), "--executor-url", &executor_url]).success();
    assert!(ran.stdout.contains("\"words\":0"), "{}", ran.stdout);
    // Without a client certificate there is not even a handshake.
    mentatctl(&home, ["run", text(&release), "--executor-url", &executor_url, "--tls-ca", text(&tls_ca)])
        .refused(69, "cannot be reached");

    assert_eq!((executor.stop(), ca.stop(), log.stop()), (0, 0, 0));
}

/// PEM lines.
fn wrap(base64: &str) -> String {
    base64
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect::<Vec<_>>()
        .join("\n")
}
