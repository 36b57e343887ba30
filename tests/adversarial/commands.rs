//! A table over every command: one wrong thing each. One clear line that says what is wrong and what to do, the
//! documented exit code, the same as an object with `--json`, no panic.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mentat_tests::agent::{enrol, sentiment, signed, token};
use mentat_tests::binary::binary;
use mentat_tests::command::{Finished, finish, mentatctl};
use mentat_tests::stack::Stack;

/// One wrong command line: arguments, exit code, what the line must name.
type Row = (&'static str, i32, &'static str);

/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:1";

/// Without a stack. `@` is the folder of [`files`], `!` an address where nobody listens.
const ALONE: &[Row] = &[
    // manifests
    ("verify @/none", 2, "does not exist"),
    ("verify @/empty", 2, "malformed"),
    ("verify @/noise", 2, "malformed"),
    ("verify @/big", 2, "larger than"),
    ("verify @/folder", 2, "manifest.yaml does not exist"),
    ("verify @/agent", 2, "sentiment.wasm does not exist"),
    ("verify @/built", 2, "no trusted root is known"),
    ("verify @/built --trusted-root @/broken.json --policy @/empty", 2, "broken.json"),
    ("verify @/built --trusted-root @/none --policy @/empty", 2, "none"),
    ("verify @/built --at yesterday --trusted-root @/none --policy @/empty", 2, "yesterday"),
    ("audit-capabilities @/none", 2, "does not exist"),
    ("audit-capabilities @/empty", 2, "malformed"),
    ("publish @/none --to @/out", 2, "does not exist"),
    ("audit-capabilities @/agent --policy @/none", 2, "trust policy"),
    ("publish @/built --to @/out", 2, "trusted root"),
    ("publish @/built --to oci://nonsense", 2, "names nothing in a registry"),
    ("pull registry.example/agent:1", 2, "names nothing in a registry"),
    ("pull oci://127.0.0.1:1/agent", 2, "neither tag nor digest"),
    ("pull oci://127.0.0.1:1/agent:1", 69, "the registry at 127.0.0.1"),
    ("pull oci://127.0.0.1:1/agent:1 --tls-ca @/empty", 2, "no certificate"),
    // signing
    ("sign @/agent", 2, "signing.key"),
    ("sign @/agent --key @/none --cert @/none", 2, "none"),
    ("sign @/agent --key @/empty --cert @/empty", 2, "not one PEM block"),
    ("sign @/agent --key @/certificate.pem --cert @/certificate.pem", 2, "not a private key"),
    ("sign @/agent --key @/folder --cert @/folder", 2, "name a file"),
    ("sign @/agent --key @/ed25519.key --cert @/certificate.pem", 2, "certificate"),
    ("sign @/agent --key @/ed25519.key --cert @/truncated.der", 2, "truncated.der"),
    ("sign @/agent --key-env MENTAT_NO_SUCH_VARIABLE", 2, "MENTAT_NO_SUCH_VARIABLE"),
    ("sign @/agent --key @/ed25519.key --cert-env MENTAT_NO_SUCH_VARIABLE", 2, "MENTAT_NO_SUCH_VARIABLE"),
    ("sign @/agent --key @/open.key --cert @/certificate.pem", 2, "chmod 600"),
    ("sign @/agent --passphrase-file @/none", 2, "passphrase"),
    ("sign @/agent --passphrase-file @/open", 2, "chmod 600"),
    // running
    ("run @/built", 2, "executor"),
    ("run @/built --executor-url nonsense", 2, "no address of the executor"),
    ("run @/built --executor-url !", 69, "is the executor running"),
    ("run @/built --executor-url ! --input @/none", 2, "cannot read"),
    ("run @/built --executor-url ! --input @/folder", 2, "name a file"),
    ("run @/built --executor-url ! --input @/big", 69, "is the executor running"),
    ("run @/built --executor-url ! --input @/huge", 2, "larger than 32 MiB"),
    ("run no/such/agent --executor-url !", 2, "neither a file nor"),
    ("explain @/empty --executor-url !", 2, "malformed"),
    ("explain @/built --executor-url !", 69, "is the executor running"),
    ("explain @/built --executor-url ! --token-file @/empty", 2, "no bearer token"),
    // certificates
    ("pki request-cert --email a@b.example --ca-url !", 2, "no one-time token"),
    ("pki request-cert --email a@b.example --ca-url ! --token t", 69, "is ca-service running"),
    ("pki request-cert --email a@b.example --ca-url ftp://x --token t", 2, "no address of the certificate"),
    ("pki request-cert --email a@b.example --ca-url ! --token t --key @/folder", 2, "is a folder"),
    ("pki request-cert --email a@b.example --ca-url ! --token t --key @/empty/key", 1, "in the way"),
    ("pki request-cert --email a@b.example --ca-url ! --token t --key @/noise", 2, "not UTF-8"),
    ("pki request-cert --email a@b.example --ca-url ! --token t --key @/empty", 2, "not one PEM block"),
    (
        "pki request-cert --email a\u{e4}@b.example --ca-url ! --token t --key @/new",
        2,
        "no certificate can carry",
    ),
    ("pki request-cert --email a@b.example --ca-url ! --token t --tls-ca @/empty", 2, "no certificate"),
    (
        "pki request-cert --email a@b.example --ca-url ! --token t --tls-ca @/certificate.pem",
        2,
        "certificate.pem",
    ),
    (
        "pki request-cert --email a@b.example --ca-url ! --token t --tls-cert @/empty --tls-key @/empty",
        2,
        "empty",
    ),
    ("pki renew --email a@b.example --ca-url ! --token t --passphrase-file @/none", 2, "passphrase"),
    ("pki token create --email a@b.example", 2, "certificate authority is not known"),
    ("pki token create --email a@b.example --ca-url !", 69, "is ca-service running"),
    ("pki token create --email a@b.example --ca-url ! --admin-token-file @/none", 2, "cannot read"),
    ("pki token create --email a@b.example --ca-url ! --admin-token-file @/empty", 2, "no bearer token"),
    ("pki list", 2, "certificate authority is not known"),
    ("pki list --ca-url !", 69, "is ca-service running"),
    ("pki list --ca-url http://ca.example", 2, "in the clear"),
    ("run @/built --executor-url http://10.1.2.3:80", 2, "in the clear"),
    ("pki revoke --serial xyz --ca-url !", 2, "no serial number"),
    ("pki revoke --cert @/truncated.der --ca-url !", 2, "truncated.der"),
    ("pki revoke --cert @/certificate.pem --ca-url !", 2, "certificate.pem"),
    ("pki revoke --serial 01 --compromised-at yesterday --ca-url !", 2, "RFC 3339"),
    ("pki requests", 2, "certificate authority is not known"),
    ("pki requests --ca-url !", 69, "is ca-service running"),
    ("pki approve xyz --ca-url !", 2, "no id of a request"),
    ("pki approve 00112233445566778899aabbccddeeff --ca-url !", 69, "is ca-service running"),
    ("pki deny xyz --reason no --ca-url !", 2, "no id of a request"),
    ("pki deny 00112233445566778899aabbccddeeff --ca-url !", 2, "--reason"),
    // logs
    ("log proof --index 0", 2, "log keys"),
    ("log proof --index 0 --log-keys @/none", 2, "cannot read"),
    ("log proof --index 0 --log-keys @/broken.json", 2, "broken.json"),
    ("log proof --leaf 12 --log-keys @/broken.json", 2, "broken.json"),
    ("log verify @/none --entry @/empty", 2, "log keys"),
    ("log verify @/none --entry @/empty --log-keys @/folder", 2, "name a file"),
    ("log submit --resume @/built", 2, "transparency log is not known"),
    ("log submit --resume @/built --log-url ! --tsa-url !", 2, "is pending"),
    ("log submit --bundle @/none --log-url ! --tsa-url !", 2, "cannot read"),
    ("log submit --bundle @/broken.json --log-url ! --tsa-url !", 2, "broken.json"),
    ("log submit --artifact @/empty --signature @/noise --cert @/empty --log-url ! --tsa-url !", 2, "empty"),
    ("log monitor", 2, "log keys"),
    ("log monitor --log-keys @/empty", 2, "empty"),
    // trust, executors, TLS
    ("trust export --output @/out", 2, "certificate authority is not known"),
    ("trust export --output @/out --ca-url ! --log-url !", 69, "is ca-service running"),
    ("executor join --output @/out --data-dir @/data", 2, "certificate authority is not known"),
    ("tls init --dir @/empty", 1, "in the way"),
    ("tls issue --dir @/folder --name service", 2, "ca.key"),
    ("tls issue --dir @/folder --name ../service", 2, "cannot be a service's name"),
    // files of other forms
    ("lint @/none", 2, "cannot read"),
    ("lint @/folder", 2, "name a file"),
    ("lint @/big", 2, "larger than"),
    (
        "verify-bundle --bundle @/broken.json --certificate-identity a --certificate-oidc-issuer b @/empty",
        2,
        "",
    ),
    // stacks
    ("--stack @/none pki list", 2, "holds no stack"),
    ("--stack @/folder sign @/agent", 2, "holds no stack"),
    ("--stack @/otherstack pki list", 2, "stack.json"),
    ("--stack @/newer pki list", 2, "version 2"),
    ("up --dir @/agent", 78, "holds no stack but"),
    ("up --dir @/empty", 78, "in the way"),
    ("up --dir /proc/nope", 78, "cannot make the folder"),
    ("up --dir @/fresh --port-base 65535", 2, "1..=65531"),
    ("up --dir @/fresh --port-base 65532", 2, "1..=65531"),
    ("up --dir @/fresh --port-base 0", 2, "1..=65531"),
    ("up --dir @/otherstack", 78, "stack.json"),
    ("demo --keep @/agent", 78, "holds no stack but"),
    ("demo --keep @/otherstack", 78, "holds a stack already"),
    // the command line itself
    ("frobnicate", 2, "frobnicate"),
    ("sign", 2, "required"),
    ("sign @/agent --frobnicate", 2, "--frobnicate"),
    ("pki request-cert", 2, "--email"),
    ("pki request-cert --email a@b.example --uri https://x", 2, "cannot be used with"),
    ("pki list --limit 0", 2, "1..=100000"),
    ("pki token create --email a@b.example --minutes 0", 2, "1..=10080"),
    ("run @/built --deadline-ms soon", 2, "soon"),
    ("conformance nonsense", 2, "nonsense"),
    ("completion tcsh", 2, "tcsh"),
    ("man @/empty", 1, "in the way"),
    ("tls issue --dir x --name y --days 0", 2, "1..=825"),
];

/// A private key.
const ED25519: &[u8] =
    b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\n\
                         -----END PRIVATE KEY-----\n";

/// Files with something wrong with each.
fn files(folder: &Path) {
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
    write("empty", b"");
    write("open", b"a passphrase that everybody can read\n");
    write("noise", &[0xff; 300]);
    write("truncated.der", &[0x30, 0x82, 0x01]);
    write("broken.json", b"{\"mediaType\":");
    write("certificate.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    write("big", &vec![b'a'; (16 << 20) + 1]);
    let huge = std::fs::File::create(folder.join("huge")).unwrap();
    huge.set_len((32 << 20) + 1).unwrap();
    for (name, mode) in [("ed25519.key", 0o600), ("open.key", 0o644)] {
        write(name, ED25519);
        std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    for name in ["folder", "otherstack", "newer"] {
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    write("otherstack/stack.json", b"{]");
    write("newer/stack.json", b"{\"version\":2}");
    sentiment(folder, "agent", |manifest| manifest);
    let built = sentiment(folder, "built", |manifest| manifest);
    std::fs::write(built.join("sentiment.wasm"), b"\0asm\x01\0\0\0").unwrap();
}

fn check(row: &Row, run: impl Fn(&[String]) -> Finished, folder: &Path) {
    let (line, code, names) = row;
    let word = |word: &str| match word {
        "!" => NOBODY.to_owned(),
        word => word.replace("@/", &format!("{}/", folder.display())),
    };
    let words: Vec<String> = line.split(' ').map(word).collect();
    let plain = run(&words);
    assert_eq!(plain.code, *code, "{line}: {}{}", plain.stdout, plain.stderr);
    assert!(plain.stderr.contains(names), "{line} does not name `{names}`: {}", plain.stderr);
    plain.one_clear_line();
    // Advice about the form of the command line is for command lines: here files and addresses are wrong.
    assert!(!plain.stderr.contains("; --help says what is expected"), "{line}: {}", plain.stderr);
    let json = run(&[&["--json".to_owned()][..], &words].concat());
    assert_eq!(json.code, *code, "{line}: {}{}", json.stdout, json.stderr);
    let answer: serde_json::Value = json
        .stdout
        .lines()
        .filter_map(|text| serde_json::from_str(text).ok())
        .find(|value: &serde_json::Value| value["ok"] == false)
        .unwrap_or_else(|| panic!("{line}: no object with `--json`: {}{}", json.stdout, json.stderr));
    assert_eq!(answer["exit"], *code, "{line}: {answer}");
    assert!(answer["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{line}: {answer}");
}

#[test]
fn every_wrong_thing_is_one_clear_line_with_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("files");
    std::fs::create_dir(&folder).unwrap();
    files(&folder);
    let home = dir.path().join("home");
    for row in ALONE {
        // What a row leaves must not explain the next one away.
        let _ = std::fs::remove_dir_all(&home);
        check(row, |words| mentatctl(&home, words), &folder);
    }
    for left in ["out", "fresh"] {
        assert!(!folder.join(left).exists(), "what was refused left nothing: {left}");
    }
}

#[test]
fn a_broken_home_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for (text, names) in
        [("ca_url = 1", "config.toml"), ("surprise = 1", "surprise"), ("stack = \"/none\"", "/none")]
    {
        std::fs::write(dir.path().join("config.toml"), text).unwrap();
        mentatctl(dir.path(), ["pki", "list"]).refused(2, names).one_clear_line();
    }
}

/// With a stack that runs.
#[test]
fn what_a_running_stack_refuses_is_one_clear_line_too() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let agent = signed(&stack, dir.path(), "signed").display().to_string();
    let (other, _) = enrol(&stack, "other@example.com", "other");
    let unknown = sentiment(dir.path(), "unknown", |text| {
        text.replace("- compute:cpu_ms=1000,wall_ms=5000", "- telepathy:read:minds")
    });
    let unknown = unknown.display().to_string();
    what_cannot_be_used_is_not_recorded(&stack, dir.path(), &agent);
    let spent = token(&stack, "spent@example.com");
    let out = dir.path().join("out").display().to_string();
    stack
        .ctl(&[
            "pki",
            "request-cert",
            "--email",
            "spent@example.com",
            "--token",
            &spent,
            "--output",
            &out,
            "--key",
            &format!("{out}.key"),
        ])
        .success();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = port.local_addr().unwrap().port().to_string();
    let fresh = dir.path().join("fresh").display().to_string();
    let rows: Vec<(Vec<&str>, i32, &str)> = vec![
        (
            vec![
                "pki",
                "request-cert",
                "--email",
                "a@b.example",
                "--token",
                "mentat_enrol_00",
                "--key",
                "/tmp/x/..",
            ],
            2,
            "folder",
        ),
        (vec!["pki", "renew", "--email", "a@b.example", "--token", "mentat_enrol_00"], 1, "token_unknown"),
        (vec!["pki", "renew", "--email", "spent@example.com", "--token", &spent], 1, "token_used"),
        (vec!["pki", "token", "create", "--email", "nonsense"], 1, "identity_not_allowed"),
        (vec!["pki", "token", "create", "--email", "a@b.example", "--profile", "none"], 1, "profile_unknown"),
        (vec!["pki", "revoke", "--serial", "00ff"], 1, "certificate_unknown"),
        (vec!["sign", &agent, "--cert", &other], 2, "do not belong together"),
        (vec!["sign", &unknown], 2, "telepathy"),
        (vec!["run", &unknown], 2, "telepathy"),
        (vec!["run", "mentatlab.none"], 1, "mentatlab.none"),
        (vec!["log", "proof", "--index", "4000"], 1, "no entry 4000"),
        (vec!["log", "proof", "--log", "none", "--index", "0"], 2, "none"),
        (vec!["up", "--dir", &fresh, "--port-base", &taken], 78, "port"),
        (vec!["verify", &agent, "--at", "2001-01-01T00:00:00Z"], 3, "step"),
    ];
    for (line, code, names) in rows {
        let done = stack.ctl(&line);
        assert_eq!(done.code, code, "{line:?}: {}{}", done.stdout, done.stderr);
        assert!(done.stderr.contains(names), "{line:?} does not name `{names}`: {}", done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "{line:?}: {}", done.stderr);
        assert!(done.stderr.starts_with("error: ") && !done.stderr.contains("panicked"), "{}", done.stderr);
    }
}

/// A log entry is for ever: bytes that no executor can load, and a folder that cannot take the attestation, are found out
/// before anything is submitted.
fn what_cannot_be_used_is_not_recorded(stack: &Stack, folder: &Path, agent: &str) {
    let size = || stack.ctl(&["--json", "log", "fsck"]).success().json()["size"].as_u64().unwrap();
    let before = size();
    let built = std::fs::read(Path::new(agent).join("sentiment.wasm")).unwrap();
    for (index, module) in [&b""[..], b"hello", &built[..built.len() - 1]].into_iter().enumerate() {
        let broken = sentiment(folder, &format!("broken{index}"), |manifest| manifest);
        std::fs::write(broken.join("sentiment.wasm"), module).unwrap();
        stack.ctl(&["sign", broken.to_str().unwrap()]).refused(2, "malformed").one_clear_line();
    }
    // Files may not grow here: what a full disk or a folder of somebody else's is to a user other than root.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""]).arg(binary("mentatctl"));
    command.arg("--stack").arg(stack.dir()).args(["sign", agent]).env("MENTAT_HOME", stack.home());
    finish(command, b"").refused(1, "cannot write in the folder").one_clear_line();
    assert_eq!(size(), before, "nothing was recorded");
    // Developer keys that others can read are refused, as the servers refuse such secrets.
    let key = stack.home().join("signing.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    stack.ctl(&["sign", agent]).refused(2, "chmod 600").one_clear_line();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Every command that `--help` names, however deep, as words with spaces between them.
pub(crate) fn every_command(home: &Path) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(path) = open.pop() {
        let help = mentatctl(home, [&path[..], &["--help".to_owned()]].concat()).success().stdout;
        let commands = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
        let commands = commands.split("\n\n").next().unwrap_or_default();
        for line in commands.lines() {
            let name = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '));
            let Some(name) = name.and_then(|rest| rest.split_whitespace().next()) else { continue };
            if name != "help" && seen.insert([&path[..], &[name.to_owned()]].concat().join(" ")) {
                open.push([&path[..], &[name.to_owned()]].concat());
            }
        }
    }
    seen
}

/// Every command that exists, however deep: `--help` explains it, an unknown flag is one line.
#[test]
fn every_command_explains_itself_and_refuses_what_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let seen = every_command(dir.path());
    for command in seen.iter().map(String::as_str).chain([""]) {
        let words = command.split(' ').filter(|word| !word.is_empty()).chain(["--no-such-flag"]);
        mentatctl(dir.path(), words).refused(2, "--no-such-flag").one_clear_line();
    }
    // Each has a manual page of its own, with the same text.
    let pages = dir.path().join("man1");
    mentatctl(dir.path(), ["man", pages.to_str().unwrap()]).success();
    for command in &seen {
        let page = pages.join(format!("mentatctl-{}.1", command.replace(' ', "-")));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        assert!(text.contains(".TH mentatctl"), "{command}");
    }
    for known in
        ["up", "demo", "pki request-cert", "pki token create", "log proof", "trust export", "executor join"]
    {
        assert!(seen.contains(known), "{seen:?}");
    }
}

/// The servers read their configuration before anything else.
#[test]
fn a_server_with_a_broken_configuration_refuses_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let configs = [
        write("empty.toml", b""),
        write("noise.toml", &[0xff; 100]),
        write("json.toml", b"{\"data\":"),
        write("unknown.toml", b"surprise = 1\n"),
        dir.path().join("none.toml"),
        dir.path().to_path_buf(),
    ];
    for server in ["ca-service", "transparency-log", "executor", "witness"] {
        for config in &configs {
            let mut command = Command::new(binary(server));
            command.args(["serve", "--config"]).arg(config).env_remove("RUST_BACKTRACE");
            let done = finish(command, b"").refused(78, "refused to start");
            done.one_clear_line();
            assert!(done.stderr.contains(config.to_str().unwrap()), "{server}: {}", done.stderr);
        }
        for (wrong, named) in [
            (&["frobnicate"][..], "frobnicate"),
            (&[], "no command is given"),
            (&["serve"], "--config"),
            (&["serve", "--config", "x", "--surprise"], "--surprise"),
        ] {
            let mut command = Command::new(binary(server));
            command.args(wrong);
            finish(command, b"").refused(2, named).one_clear_line();
        }
        let mut command = Command::new(binary(server));
        command.arg("--help");
        assert!(finish(command, b"").success().stdout.contains("Usage:"), "{server}");
    }
}
