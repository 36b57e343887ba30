//! An executor without a network decides by the one signed file that is carried to it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mentat_tests::agent::signed;
use mentat_tests::binary::binary;
use mentat_tests::clock::Deadline;
use mentat_tests::command::mentatctl;
use mentat_tests::server::Server;
use mentat_tests::stack::Stack;
use serde_json::Value;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An executor that has no address to fetch anything from.
struct Alone {
    server: Server,
    url: String,
}

impl Alone {
    fn start(dir: &Path, stack: &Stack, freshness: u32, signer: &Path, file: &Path) -> Self {
        let policy: Value =
            serde_json::from_str(&fs::read_to_string(stack.text("/policy")).unwrap()).unwrap();
        let mut policy = policy;
        policy["freshness"] = serde_json::json!({ "within-seconds": freshness });
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("policy.yaml"), policy.to_string()).unwrap();
        let config = dir.join("executor.toml");
        fs::write(
            &config,
            format!(
                "state_dir = {:?}\ntrusted_root = {:?}\npolicy = \"policy.yaml\"\n[server]\nlisten = \"127.0.0.1:0\"\n\
                 [evidence]\nrefresh_seconds = 1\nimport_file = {file:?}\nimport_signers = [{signer:?}]\n",
                dir.join("state"),
                stack.text("/trusted_root"),
            ),
        )
        .unwrap();
        let mut serve = Command::new(binary("executor"));
        serve.arg("serve").arg("--config").arg(&config).arg("--exit-with-stdin");
        let server = Server::start(serve);
        let url = format!("http://{}", server.ready["listen"].as_str().unwrap());
        Self { server, url }
    }

    /// Waits until the executor decides so.
    fn decides(&self, home: &Path, release: &Path, code: i32, reason: &str) {
        let deadline = Deadline::after(Duration::from_secs(120));
        loop {
            let decided = mentatctl(home, ["explain", text(release), "--executor-url", &self.url]);
            let said = format!("{}{}", decided.stdout, decided.stderr);
            if decided.code == code && said.contains(reason) {
                return;
            }
            assert!(
                !deadline.passed(),
                "not {code} {reason} but {}: {said}\n{}",
                decided.code,
                self.server.stderr()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn an_executor_without_a_network_admits_by_the_carried_file_and_denies_when_it_is_stale() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let token =
        stack.ctl(&["--json", "pki", "token", "create", "--email", "dev@example.com"]).success().json();
    let issued = stack
        .ctl(&[
            "--json",
            "pki",
            "request-cert",
            "--email",
            "dev@example.com",
            "--token",
            token["token"].as_str().unwrap(),
        ])
        .success()
        .json();
    let release = signed(&stack, dir.path(), "agent");
    let at = |name: &str| dir.path().join(name);
    let (key, public) = (at("evidence.key"), at("evidence.pub.pem"));
    stack.ctl(&["trust", "evidence", "keygen", "--key", text(&key), "--public", text(&public)]).success();
    stack
        .ctl(&["trust", "evidence", "keygen", "--key", text(&key), "--public", text(&public)])
        .refused(1, "exists");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&key).unwrap().permissions()) & 0o777,
        0o600
    );
    let carried = at("carried.json");
    let place = at("import/evidence.json");
    fs::create_dir_all(at("import")).unwrap();
    let export = || {
        // The log signs a new checkpoint when it grows.
        signed(&stack, dir.path(), "other");
        stack
            .ctl(&[
                "trust",
                "evidence",
                "export",
                text(&release),
                "--key",
                text(&key),
                "--output",
                text(&carried),
            ])
            .success();
    };
    let import = || {
        stack.ctl(&[
            "trust",
            "evidence",
            "import",
            text(&carried),
            "--signer",
            text(&public),
            "--output",
            text(&place),
        ])
    };

    let executor = Alone::start(&at("alone"), &stack, 15, &public, &place);
    // What the release carries grows stale, and nothing newer is known.
    executor.decides(stack.home(), &release, 3, "checkpoint_stale");
    export();
    import().success();
    executor.decides(stack.home(), &release, 0, "");
    executor.decides(stack.home(), &release, 3, "checkpoint_stale");

    // Somebody else's file, an unsigned one, an older one: all refused where they are read and where they are put.
    let genuine = fs::read(&carried).unwrap();
    let other = (at("other.key"), at("other.pub.pem"));
    stack
        .ctl(&["trust", "evidence", "keygen", "--key", text(&other.0), "--public", text(&other.1)])
        .success();
    stack
        .ctl(&["trust", "evidence", "show", text(&carried), "--signer", text(&other.1)])
        .refused(3, "signature_invalid");
    let shown = stack
        .ctl(&["--json", "trust", "evidence", "show", text(&carried), "--signer", text(&public)])
        .success()
        .json();
    assert!(!shown["crls"].as_array().unwrap().is_empty() && shown["logs"][0]["size"].as_u64() >= Some(1));
    let evidence = ["verify", text(&release), "--evidence", text(&carried)];
    stack.ctl(&evidence).refused(3, "signature_invalid");
    stack.ctl(&[&evidence[..], &["--evidence-signer", text(&public)]].concat()).success();

    // A revocation reaches it by the same way, and an older file does not undo it.
    let serial = issued["serial"].as_str().unwrap();
    stack.ctl(&["pki", "revoke", "--serial", serial, "--reason", "key-compromise"]).success();
    let deadline = Deadline::after(Duration::from_secs(120));
    loop {
        export();
        let verify =
            ["verify", text(&release), "--evidence", text(&carried), "--evidence-signer", text(&public)];
        if stack.ctl(&verify).code == 3 {
            break;
        }
        assert!(!deadline.passed(), "the authority published no list with the revocation");
        std::thread::sleep(Duration::from_millis(500));
    }
    import().success();
    executor.decides(stack.home(), &release, 3, "revoked");
    fs::write(&carried, &genuine).unwrap();
    import().refused(3, "revocation_stale");
    fs::write(&place, &genuine).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    executor.decides(stack.home(), &release, 3, "revoked");
}
