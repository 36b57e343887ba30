//! The CA and the log as processes, with shipped settings.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use base64::Engine as _;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const ADMIN: &str = "0123456789abcdef0123456789abcdef";

/// A server that ends with its handle.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
    /// From the start of the process to its first answer.
    pub(crate) start_ms: f64,
}

impl Process {
    fn start(program: &Path, config: &Path) -> Self {
        let began = Instant::now();
        let mut child = Command::new(program)
            .args(["serve", "--exit-with-stdin", "--config"])
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(config.with_extension("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let start_ms = began.elapsed().as_secs_f64() * 1000.0;
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("no start: {}", std::fs::read_to_string(config.with_extension("stderr")).unwrap())
        });
        Self { child, address: ready["listen"].as_str().unwrap().to_owned(), start_ms }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// A folder with a CA and a log, and the two servers.
pub(crate) struct Stack {
    pub(crate) folder: TempDir,
    pub(crate) log: Option<Process>,
    pub(crate) ca: Option<Process>,
}

/// The programs as they are shipped: beside the one of this package.
fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_ca-service")).with_file_name(name);
    assert!(path.exists(), "{} is missing: build it with `make bench-ca`", path.display());
    path
}

fn secret(path: &Path, text: &str) {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}

fn run(program: &Path, arguments: &[&str], config: &Path) -> Value {
    let done = Command::new(program).args(arguments).arg("--config").arg(config).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

impl Stack {
    /// Holds the ceremony and makes the logs; `issuer_key` as the configuration writes it.
    pub(crate) fn new(issuer_key: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        secret(&root.join("passphrase"), "a passphrase for benches only");
        secret(&root.join("admin-token"), ADMIN);
        std::fs::write(root.join("ca.toml"), ca_config(root, issuer_key, "http://127.0.0.1:1")).unwrap();
        run(&program("ca-service"), &["init"], &root.join("ca.toml"));
        let chain = root.join("ca/chains/code-signing.pem");
        let statement = root.join("ca/chains/statement.pub.pem");
        std::fs::write(
            root.join("log.toml"),
            format!(
                "data = \"log\"\nhead_copies = \"copies\"\n[server]\nlisten = \"127.0.0.1:0\"\n\
                 [keystore]\ndirectory = \"log-keys\"\npassphrase = \"file:log-pass\"\n\
                 [[log]]\nname = \"issuance\"\nkind = \"issuance\"\nauthorities = [{chain:?}]\n\
                 [[log]]\nname = \"event\"\nkind = \"event\"\n\
                 [[log.event]]\npredicate_type = \"https://mentat.internal/revocation/v1\"\nkeys = [{statement:?}]\n\
                 [[log.event]]\npredicate_type = \"https://mentat.internal/audit-anchor/v1\"\nkeys = [{statement:?}]\n"
            ),
        )
        .unwrap();
        let made = run(&program("transparency-log"), &["init"], &root.join("log.toml"));
        let logs = made["logs"].as_array().unwrap();
        let issuance = logs.iter().find(|log| log["kind"] == "issuance").unwrap();
        let spki = base64::engine::general_purpose::STANDARD
            .decode(issuance["public_key"].as_str().unwrap())
            .unwrap();
        let pem = ca_pki::pem::encode("PUBLIC KEY", &spki).unwrap();
        std::fs::write(root.join("ca/issuance-log.pub.pem"), pem).unwrap();
        let log = Process::start(&program("transparency-log"), &root.join("log.toml"));
        let url = format!("http://{}", log.address);
        std::fs::write(root.join("ca.toml"), ca_config(root, issuer_key, &url)).unwrap();
        Self { folder, log: Some(log), ca: None }
    }

    /// Starts the CA, or starts it again.
    pub(crate) fn start_ca(&mut self) -> &Process {
        self.ca = None;
        self.ca.insert(Process::start(&program("ca-service"), &self.config()))
    }

    pub(crate) fn stop_ca(&mut self) {
        self.ca = None;
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("ca.toml")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("ca/ca.sqlite")
    }

    pub(crate) fn address(&self) -> String {
        self.ca.as_ref().unwrap().address.clone()
    }

    /// CPU time of both servers.
    pub(crate) fn cpu(&self) -> std::time::Duration {
        let processes = self.ca.iter().chain(&self.log);
        processes.map(|process| crate::machine::cpu(process.id())).sum()
    }
}

fn ca_config(root: &Path, issuer_key: &str, log: &str) -> String {
    let root = root.display();
    format!(
        r#"
data_dir = "ca"
status_url = "http://status.example.org"
identity_issuer = "https://ca.example.org"
[server]
listen = "127.0.0.1:0"
[admin]
token_file = "admin-token"
[keys]
passphrase = "file:{root}/passphrase"
[hierarchy]
issuer_key = "{issuer_key}"
[issuance_log]
url = "{log}/issuance"
public_key_file = "issuance-log.pub.pem"
[event_log]
url = "{log}/event"
[status]
# One load generator stands for many clients.
ocsp_nonce_per_second = 1000000
[profiles.developer]
rules = "internal"
subject = {{ country = "US", organization = "Example" }}
[profiles.plain]
rules = "internal"
sct = "absent"
subject = {{ country = "US", organization = "Example" }}
"#
    )
}
