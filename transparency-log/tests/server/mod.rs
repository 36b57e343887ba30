//! Runs the real server binaries in a temporary folder, with a small CA made by rcgen.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SigningKey as _,
};
use serde_json::{Value, json};

/// A root, a code-signing CA below it, and a leaf.
pub(crate) struct Authority {
    pub(crate) root_pem: String,
    pub(crate) ca_pem: String,
    pub(crate) ca_der: Vec<u8>,
    pub(crate) root_der: Vec<u8>,
    ca: Issuer<'static, KeyPair>,
}

/// A code-signing certificate with its key.
pub(crate) struct Leaf {
    pub(crate) der: Vec<u8>,
    pub(crate) key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let root_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Test Root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(params, root_key);

        let ca_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        let ca = params.signed_by(&ca_key, &root_issuer).unwrap();
        Self {
            root_pem: root.pem(),
            ca_pem: ca.pem(),
            ca_der: ca.der().to_vec(),
            root_der: root.der().to_vec(),
            ca: Issuer::new(params, ca_key),
        }
    }

    pub(crate) fn leaf(&self, email: &str) -> Leaf {
        self.issue(email, &[])
    }

    /// A certificate with the CT poison extension.
    pub(crate) fn precertificate(&self, email: &str) -> Leaf {
        let mut poison = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 11129, 2, 4, 3], vec![5, 0]);
        poison.set_criticality(true);
        self.issue(email, &[poison])
    }

    fn issue(&self, email: &str, extensions: &[CustomExtension]) -> Leaf {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, email);
        params.distinguished_name.push(DnType::OrganizationName, "Example Works");
        params.subject_alt_names = vec![SanType::Rfc822Name(email.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        params.use_authority_key_identifier_extension = true;
        params.custom_extensions = extensions.to_vec();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        Leaf { der: certificate.der().to_vec(), key }
    }
}

impl Leaf {
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message).unwrap()
    }

    /// A `hashedRekordRequestV002` over `artifact`.
    pub(crate) fn request(&self, artifact: &[u8]) -> Value {
        use base64::Engine as _;
        let b64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        json!({"hashedRekordRequestV002": {
            "digest": b64(&tlog::Hash::digest(artifact).0),
            "signature": {
                "content": b64(&self.sign(artifact)),
                "verifier": {"x509Certificate": {"rawBytes": b64(&self.der)}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"},
            },
        }})
    }
}

/// A folder with a configuration of all four kinds, initialised.
pub(crate) struct Stack {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) authority: Authority,
    pub(crate) reporter: KeyPair,
    pub(crate) logs: Value,
}

pub(crate) const EVENT_TYPE: &str = "https://example.test/event/revocation/v1";

impl Stack {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// `extra` is put into the table of the signing log.
    pub(crate) fn with(extra: &str) -> Self {
        Self::with_sizes(extra, "", "segment_bytes = 1048576\nreserve_bytes = 65536\n")
    }

    /// `raw` is put into the table of the raw log, `small` into each.
    pub(crate) fn with_sizes(extra: &str, raw: &str, small: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let reporter = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("root.pem", &authority.root_pem);
        write("ca.pem", &authority.ca_pem);
        write("reporter.pem", &reporter.public_key_pem());
        write(
            "log.toml",
            &format!(
                "data = \"data\"\nhead_copies = \"copies\"\n[server]\nlisten = \"127.0.0.1:0\"\n\
                 [keystore]\ndirectory = \"keys\"\npassphrase = \"file:pass\"\n\
                 [[log]]\nname = \"signing\"\nkind = \"signing\"\nauthorities = [\"root.pem\", \"ca.pem\"]\n{small}{extra}\n\
                 [[log]]\nname = \"issuance\"\nkind = \"issuance\"\nauthorities = [\"root.pem\", \"ca.pem\"]\n{small}\
                 [[log]]\nname = \"event\"\nkind = \"event\"\n{small}[[log.event]]\npredicate_type = \"{EVENT_TYPE}\"\nkeys = [\"reporter.pem\"]\n\
                 [[log]]\nname = \"raw\"\nkind = \"raw\"\n{small}{raw}"
            ),
        );
        let mut stack = Self { folder, authority, reporter, logs: Value::Null };
        let made = run(env!("CARGO_BIN_EXE_transparency-log"), &["init", "--config"], &stack.config());
        assert_eq!(made.0, Some(0), "{}", made.2);
        stack.logs = serde_json::from_str::<Value>(&made.1).unwrap()["logs"].clone();
        stack
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("log.toml")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn serve(&self) -> Process {
        Process::start(env!("CARGO_BIN_EXE_transparency-log"), &self.config())
            .unwrap_or_else(|line| panic!("{line}"))
    }

    /// The verifier keys of a log, as init printed them.
    pub(crate) fn keys(&self, name: &str) -> (String, Vec<tlog::VerifierKey>) {
        let log = self.logs.as_array().unwrap().iter().find(|log| log["name"] == name).unwrap();
        let origin = log["origin"].as_str().unwrap().to_owned();
        let keys = log["vkeys"].as_array().unwrap().iter().map(|vkey| {
            match tlog::VerifierKey::parse(vkey.as_str().unwrap()) {
                Ok(key) => key,
                // The key of a certificate log is not in its vkey.
                Err(_) => {
                    use base64::Engine as _;
                    let spki = base64::engine::general_purpose::STANDARD
                        .decode(log["public_key"].as_str().unwrap())
                        .unwrap();
                    tlog::VerifierKey::tree_head(&origin, &spki).unwrap()
                }
            }
        });
        (origin.clone(), keys.collect())
    }
}

/// A running server.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
}

impl Process {
    /// Starts a server; `Err` is what it said instead of the readiness line, with its exit code.
    pub(crate) fn start(binary: &str, config: &Path) -> Result<Self, String> {
        Self::start_with(binary, config, &[])
    }

    /// Starts a server with more in its environment.
    pub(crate) fn start_with(binary: &str, config: &Path, more: &[(&str, &str)]) -> Result<Self, String> {
        let mut child = Command::new(binary)
            .args(["serve", "--exit-with-stdin", "--config"])
            .arg(config)
            .envs(more.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            let output = child.wait_with_output().unwrap();
            return Err(format!(
                "exit {:?}: {}",
                output.status.code(),
                String::from_utf8_lossy(&output.stderr)
            ));
        };
        // What it logs must not fill the pipe.
        let stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut BufReader::new(stderr), &mut std::io::sink()));
        Ok(Self { child, url: format!("http://{}", ready["listen"].as_str().unwrap()) })
    }

    /// Its process number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The end of stdin; the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end: code, stdout, stderr.
pub(crate) fn run(binary: &str, arguments: &[&str], config: &Path) -> (Option<i32>, String, String) {
    let output = Command::new(binary).args(arguments).arg(config).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Opens a checkpoint with the log's own keys.
pub(crate) fn open_checkpoint(stack: &Stack, name: &str, note: &[u8]) -> tlog::VerifiedCheckpoint {
    let (origin, keys) = stack.keys(name);
    tlog::VerifiedCheckpoint::open(note, &origin, &keys, &trust_store::provider::AwsLc).unwrap()
}
