//! The split form: three services with a configuration file each, on different addresses, with mutual TLS between them; an
//! executor that joins an authority and a log that exist already. Files and commands are those of
//! `docs/operations/split.md`, taken out of the page; a temporary folder stands for the root of all three machines.

mod grpc;

use std::collections::VecDeque;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mentat_tests::agent::sentiment;
use mentat_tests::binary::binary;
use mentat_tests::clock::Deadline;
use mentat_tests::command::{Finished, finish};
use mentat_tests::server::Server;
use reqwest::{Certificate, Client, Identity};
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

/// The page, with these machines in the place of its names.
struct Page {
    root: PathBuf,
    machines: Machines,
    files: VecDeque<String>,
    commands: VecDeque<Vec<String>>,
}

impl Page {
    fn read(root: &Path) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations/split.md");
        let text = std::fs::read_to_string(path).unwrap();
        let mut page = Self {
            root: root.to_path_buf(),
            machines: Machines::new(),
            files: VecDeque::new(),
            commands: VecDeque::new(),
        };
        // Every other piece between fences is one that is fenced.
        for block in text.split("```").skip(1).step_by(2) {
            let (kind, content) = block.split_once('\n').unwrap();
            match kind {
                "toml" => page.files.push_back(page.here(content)),
                "sh" => {
                    let lines = content.replace("\\\n", " ");
                    let commands = lines.lines().map(|line| page.here(line));
                    let words = commands.map(|line| line.split_whitespace().map(str::to_owned).collect());
                    page.commands.extend(words.collect::<Vec<_>>());
                }
                other => panic!("a block of kind {other:?}"),
            }
        }
        page
    }

    /// Text of the page for these machines.
    fn here(&self, text: &str) -> String {
        let Machines { ca, status, log, executor } = &self.machines;
        let mut text = text.to_owned();
        for (there, here) in [
            ("https://ca.example.com:8443", format!("https://{ca}")),
            ("http://ca.example.com", format!("http://{status}")),
            ("https://log.example.com:8443", format!("https://{log}")),
            ("https://exec.example.com:8443", format!("https://{executor}")),
            ("--listen 0.0.0.0:8443", format!("--listen {executor}")),
            ("\"0.0.0.0:80\"", format!("{status:?}")),
            ("ca.example.com", "127.0.0.2".to_owned()),
            ("log.example.com", "127.0.0.3".to_owned()),
            ("exec.example.com", "127.0.0.4".to_owned()),
            ("/etc/", format!("{}/etc/", self.root.display())),
            ("/var/lib/", format!("{}/var/lib/", self.root.display())),
        ] {
            text = text.replace(there, &here);
        }
        text
    }

    /// A path of the page.
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Writes the next configuration file of the page.
    fn configure(&mut self, path: &str, listen: &str) {
        let content = self.files.pop_front().unwrap().replace("\"0.0.0.0:8443\"", &format!("{listen:?}"));
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn copy(&self, from: &str, to: &str) {
        let to = self.path(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(self.path(from), to).unwrap();
    }

    /// The next command of the page, which begins like this.
    fn command(&mut self, begins: &str) -> Command {
        let words = self.commands.pop_front().unwrap_or_else(|| panic!("the page ends before {begins:?}"));
        assert!(words.join(" ").starts_with(begins), "{begins:?} is not next, but {words:?}");
        self.of(&words)
    }

    fn of(&self, words: &[impl AsRef<str>]) -> Command {
        let mut command = Command::new(binary(words[0].as_ref()));
        command.args(words[1..].iter().map(AsRef::as_ref)).current_dir(&self.root);
        command.env("MENTAT_HOME", self.root.join("home")).env_remove("RUST_BACKTRACE");
        command.env("CREDENTIALS_DIRECTORY", self.root.join("credentials"));
        command
    }

    #[track_caller]
    fn run(&mut self, begins: &str) -> Finished {
        let command = self.command(begins);
        finish(command, b"")
    }

    #[track_caller]
    fn serve(&mut self, begins: &str) -> Server {
        let mut command = self.command(begins);
        command.arg("--exit-with-stdin");
        Server::start(command)
    }

    /// A command that is not on the page, in its words.
    fn other(&self, line: &str) -> Command {
        self.of(&self.here(line).split_whitespace().collect::<Vec<_>>())
    }

    fn serve_again(&self, line: &str) -> Server {
        Server::start(self.other(&format!("{line} --exit-with-stdin")))
    }

    /// An HTTP client that shows a certificate of the page, or none.
    fn client(&self, name: Option<&str>) -> Client {
        let file = |name: &str| std::fs::read(self.root.join("tls").join(name)).unwrap();
        let mut builder = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .tls_certs_only([Certificate::from_pem(&file("ca.crt")).unwrap()]);
        if let Some(name) = name {
            let pem = [file(&format!("{name}.key")), file(&format!("{name}.crt"))].concat();
            builder = builder.identity(Identity::from_pem(&pem).unwrap());
        }
        builder.build().unwrap()
    }

    /// What the log answers to a body that is no entry: status and code.
    async fn submit(&self, name: Option<&str>, path: &str) -> (u16, String) {
        let url = format!("https://{}{path}", self.machines.log);
        let answer = self.client(name).post(url).body("{}").send().await.unwrap();
        let status = answer.status().as_u16();
        let problem: Value = answer.json().await.unwrap();
        (status, problem["code"].as_str().unwrap().to_owned())
    }

    /// Size of a log's tree.
    async fn size(&self, name: Option<&str>, base: &str) -> u64 {
        let url = format!("https://{}{base}/checkpoint", self.machines.log);
        let note = self.client(name).get(url).send().await.unwrap().text().await.unwrap();
        note.lines().nth(1).unwrap().parse().unwrap()
    }
}

/// The issuance log and the event log take nothing from anybody but the authority, and show themselves to everybody.
async fn only_the_authority_writes(page: &Page) {
    for path in [
        "/issuance/ct/v1/add-chain",
        "/issuance/ct/v1/add-pre-chain",
        "/event/api/v1/entries",
        "/event/api/v1/batch",
    ] {
        for stranger in [None, Some("operator"), Some("executor")] {
            let refused = page.submit(stranger, path).await;
            assert_eq!(refused, (403, "not_allowed".to_owned()), "{stranger:?} {path}");
        }
        assert_eq!(page.submit(Some("authority"), path).await.0, 400, "{path}");
    }
    // Here the entry itself says who made it.
    assert_eq!(page.submit(None, "/api/v2/log/entries").await.0, 400);
    assert!(page.size(None, "/issuance").await >= 1, "the authority logged what it issued");
    let deadline = Deadline::after(Duration::from_secs(60));
    while page.size(None, "/event").await == 0 {
        assert!(!deadline.passed(), "the authority never reached the event log");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[test]
fn three_machines_speak_mutual_tls_and_an_executor_joins() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let mut page = Page::read(root);
    let tokio = tokio::runtime::Runtime::new().unwrap();
    std::fs::create_dir_all(root.join("credentials")).unwrap();
    let credential = root.join("credentials/keystore");
    std::fs::write(&credential, "correct horse battery staple 42\n").unwrap();
    std::fs::set_permissions(&credential, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

    for _ in 0..5 {
        page.run("mentatctl tls").success();
    }
    for (folder, name) in [("ca-service", "authority"), ("transparency-log", "log"), ("executor", "executor")]
    {
        for file in [format!("{name}.crt"), format!("{name}.key"), "ca.crt".to_owned()] {
            page.copy(&format!("tls/{file}"), &format!("etc/{folder}/tls/{file}"));
        }
    }
    // No certificate overwrites the TLS authority's own, or leaves the folder.
    for name in ["ca", "../evil"] {
        finish(page.other(&format!("mentatctl tls issue --dir tls --name {name}")), b"").refused(2, "name");
    }

    let (ca_address, log_address) = (page.machines.ca.clone(), page.machines.log.clone());
    page.configure("/etc/ca-service/ca-service.toml", &ca_address);
    page.run("ca-service init").success();
    for file in ["code-signing.pem", "time-stamping.pem", "statement.pub.pem"] {
        page.copy(&format!("var/lib/ca-service/chains/{file}"), &format!("etc/transparency-log/{file}"));
    }
    page.configure("/etc/transparency-log/transparency-log.toml", &log_address);
    page.run("transparency-log init").success();
    page.copy("var/lib/transparency-log/issuance.pub.pem", "etc/ca-service/issuance.pub.pem");
    let log = page.serve("transparency-log serve");
    let ca = page.serve("ca-service serve");

    // Whoever is not the operator is no administrator; whoever does not know the TLS authority gets no answer.
    let ask = "mentatctl pki token create --email dev@example.com --ca-url https://ca.example.com:8443";
    finish(page.other(ask), b"").refused(69, "cannot be reached");
    let stranger = finish(page.other(&format!("{ask} --tls-ca tls/ca.crt")), b"");
    assert_eq!(stranger.code, 1, "{}", stranger.stderr);
    let token = page.run("mentatctl pki token create").success().stdout;
    let request = page.command("mentatctl pki request-cert");
    finish(request, token.as_bytes()).success();
    tokio.block_on(only_the_authority_writes(&page));
    page.run("mentatctl trust export").success();

    // The executor joins: trust files, a policy that accepts nobody, its configuration.
    page.run("mentatctl executor join").success();
    let executor = page.serve("executor serve");
    let _ = sentiment(root, "my-module", |manifest| manifest);
    page.run("mentatctl sign").success();
    let run = page.command("mentatctl run");
    finish(run, b"").refused(3, "identity_denied");
    assert!(page.commands.is_empty() && page.files.is_empty(), "the page has more than was run here");
    assert_eq!(executor.stop(), 0);

    // The operator names the signers and what they may ask for; then it runs. The log lets members in only, from now on.
    let policy_path = page.path("etc/executor/policy/policy.yaml");
    let mut policy: Value = serde_json::from_slice(&std::fs::read(&policy_path).unwrap()).unwrap();
    policy["identities"] = serde_json::json!([{ "subject": "dev@example.com", "issuer": "any-of-the-authority", "level": "verified" }]);
    policy["agents"] = serde_json::json!({ "allow": ["mentatlab.*"] });
    policy["capabilities"] =
        serde_json::json!({ "within": ["compute:memory=64MiB,cpu_ms=2000,wall_ms=9000"] });
    std::fs::write(&policy_path, policy.to_string()).unwrap();
    assert_eq!(log.stop(), 0);
    let log_file = page.path("etc/transparency-log/transparency-log.toml");
    let closed = std::fs::read_to_string(&log_file).unwrap();
    assert!(closed.contains("client_certificates = \"optional\""));
    std::fs::write(&log_file, closed.replace("\"optional\"", "\"required\"")).unwrap();
    let log = page.serve_again("transparency-log serve --config /etc/transparency-log/transparency-log.toml");
    let executor_file = page.path("etc/executor/executor.toml");
    let alone = std::fs::read_to_string(&executor_file).unwrap();
    std::fs::write(&executor_file, alone + grpc::CALLERS).unwrap();
    let executor = page.serve_again("executor serve --config /etc/executor/executor.toml");

    // It became ready, so it has fetched from a log that speaks to nobody without a certificate.
    let ready = format!("https://{}/readyz", page.machines.executor);
    let fetched = async {
        let deadline = Deadline::after(Duration::from_secs(60));
        let client = page.client(Some("operator"));
        loop {
            let answer = client.get(&ready).send().await.unwrap();
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            if status.is_success() {
                break;
            }
            assert!(!deadline.passed(), "{text}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio.block_on(fetched);
    let operator = "--tls-ca tls/ca.crt --tls-cert tls/operator.crt --tls-key tls/operator.key";
    let run = "mentatctl run my-module --executor-url https://exec.example.com:8443";
    let ran = finish(page.other(&format!("{run} {operator}")), b"").success();
    assert!(ran.stdout.contains("\"words\":0"), "{}", ran.stdout);
    tokio.block_on(grpc::who_is_let_in_calls(&page));
    // The operator's key administers: whoever else can read it does too.
    let mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(page.path("tls/operator.key"), permissions).unwrap();
    };
    mode(0o644);
    finish(page.other(&format!("{run} {operator}")), b"").refused(2, "lets others in");
    mode(0o600);
    // Without a client certificate there is not even a handshake.
    finish(page.other(&format!("{run} --tls-ca tls/ca.crt")), b"").refused(69, "cannot be reached");
    let export = "mentatctl trust export --output again --ca-url https://ca.example.com:8443 \
                  --log-url https://log.example.com:8443 --tls-ca tls/ca.crt";
    finish(page.other(export), b"").refused(69, "cannot be reached");
    // The authority still issues, with a promise of the log in the certificate.
    let before = tokio.block_on(page.size(Some("operator"), "/issuance"));
    let again = ask.replace("dev@", "ci@");
    let token = finish(page.other(&format!("{again} {operator}")), b"").success().stdout;
    let request = "mentatctl pki request-cert --email ci@example.com --ca-url https://ca.example.com:8443 \
                   --output ci.crt --tls-ca tls/ca.crt";
    finish(page.other(request), token.as_bytes()).success();
    assert!(tokio.block_on(page.size(Some("operator"), "/issuance")) > before);

    assert_eq!((executor.stop(), ca.stop(), log.stop()), (0, 0, 0));
}
