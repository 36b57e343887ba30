//! Paths that are no UTF-8 text, in every command and both forms of output. A name of bytes has no form in JSON and none
//! in a configuration file: it is shown with replacement characters or refused, and nothing panics – above all not after
//! the command has acted.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use mentat_tests::agent::{sentiment, token};
use mentat_tests::command::{Finished, mentatctl_with_input};
use mentat_tests::stack::Stack;

use crate::commands::every_command;

/// A command line and its exit code. `@` is a folder whose name is no text, `&` the stack's, `%` one with a plain name;
/// `<` stands before an address for which a one-time token is piped in.
const ROWS: &[(&str, i32)] = &[
    ("tls init --dir @/tls", 0),
    ("tls issue --dir @/tls --name service", 0),
    ("man @/man", 0),
    ("schema manifest", 0),
    ("completion bash", 0),
    ("conformance path", 0),
    // certificates and trust files
    ("pki token create --email x@example.com", 0),
    ("pki request-cert --email one@example.com --output @/one.crt --key @/one.key < one@example.com", 0),
    ("pki request-cert --email two@example.com --output @/two.crt --key @/two.key < two@example.com", 0),
    ("pki renew --email two@example.com --output @/two.crt --key @/two.key < two@example.com", 0),
    ("pki list", 0),
    ("pki requests", 0),
    ("pki approve 00112233445566778899aabbccddeeff", 1),
    ("pki deny 00112233445566778899aabbccddeeff --reason no", 1),
    ("lint @/one.crt", 0),
    ("trust export --output @/trust", 0),
    ("trust lint --trusted-root @/trust/trusted_root.json", 0),
    ("trust evidence keygen --key @/evidence.key --public @/evidence.pub", 0),
    ("trust init-repository --repository @/tuf --keystore @/keys --passphrase file:%/passphrase", 0),
    ("trust publish --repository @/tuf --keystore @/keys --passphrase file:%/passphrase", 0),
    ("trust refresh --repository @/tuf --keystore @/keys --passphrase file:%/passphrase", 0),
    ("trust rotate --repository @/tuf --keystore @/keys --passphrase file:%/passphrase", 0),
    ("trust update --mirror &/trust/tuf --root @/none", 2),
    // releases
    ("audit-capabilities @/agent", 0),
    ("sign @/agent --cert @/one.crt --key @/one.key", 0),
    ("sign --sidecar @/agent --cert @/one.crt --key @/one.key", 0),
    ("verify @/agent", 0),
    ("verify --refresh @/agent", 0),
    ("endorse @/agent --cert @/two.crt --key @/two.key", 0),
    ("publish @/agent --to @/releases", 0),
    ("explain @/agent", 0),
    ("run @/agent", 0),
    ("run @/none", 2),
    ("verify @/none", 2),
    (
        "verify-bundle --bundle @/none --certificate-identity a --certificate-oidc-issuer b @/agent/manifest.yaml",
        2,
    ),
    ("sign-bundle --identity-token t --bundle @/bundle --trusted-root @/none @/agent/manifest.yaml", 2),
    // logs
    ("log proof --manifest @/agent --output @/proof --entry-output @/entry", 0),
    ("log verify @/proof --entry @/entry", 0),
    ("log monitor --state @/monitor.json", 0),
    ("log export --output @/copy", 0),
    ("log fsck --export @/copy", 0),
    ("audit report --from 2020-01-01 --to 2020-01-02 --output @/report --cert @/one.crt --key @/one.key", 0),
    ("audit verify @/none", 2),
    ("trust evidence export @/agent --output @/evidence --key @/evidence.key", 0),
    ("trust evidence show @/evidence --signer @/evidence.pub", 0),
    ("trust evidence import @/evidence --signer @/evidence.pub --output @/imported/evidence", 0),
    // what a configuration file would have to name is refused before anything is made
    ("executor join --output @/join --data-dir @/data", 2),
    ("executor join --output @/join --data-dir /var/lib/executor", 0),
    ("up --dir @/stack", 78),
    ("demo --keep @/stack", 78),
    ("pki revoke --cert @/two.crt", 0),
];

/// Folders and stack that a row's signs stand for.
struct Places<'a> {
    strange: PathBuf,
    plain: &'a Path,
    stack: &'a Stack,
}

impl Places<'_> {
    fn run(&self, row: &str, json: bool) -> Finished {
        let (line, address) = row.split_once(" < ").unwrap_or((row, ""));
        let input = if address.is_empty() { String::new() } else { token(self.stack, address) };
        let mut words: Vec<OsString> = vec!["--stack".into(), self.stack.dir().into()];
        words.extend(json.then(|| "--json".into()));
        words.extend(line.split(' ').map(|word| self.word(word)));
        mentatctl_with_input(&self.strange.join("home"), words, input.as_bytes())
    }

    fn word(&self, word: &str) -> OsString {
        let mut bytes = Vec::new();
        for (index, byte) in word.bytes().enumerate() {
            let followed = word.as_bytes().get(index + 1) == Some(&b'/');
            match byte {
                b'@' if followed => bytes.extend(self.strange.as_os_str().as_bytes()),
                b'%' if followed => bytes.extend(self.plain.as_os_str().as_bytes()),
                b'&' if followed => bytes.extend(self.stack.dir().as_os_str().as_bytes()),
                other => bytes.push(other),
            }
        }
        OsString::from_vec(bytes)
    }
}

#[test]
fn names_that_are_no_text_make_no_command_panic() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let passphrase = dir.path().join("passphrase");
    std::fs::write(&passphrase, b"long enough for a keystore of a test\n").unwrap();
    std::fs::set_permissions(&passphrase, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut wrong = Vec::new();
    for (name, json) in [(&b"text\xff"[..], false), (b"json\xff", true)] {
        let strange = dir.path().join(OsStr::from_bytes(name));
        std::fs::create_dir(&strange).unwrap();
        sentiment(&strange, "agent", |manifest| manifest);
        let places = Places { strange, plain: dir.path(), stack: &stack };
        for (row, code) in ROWS {
            let done = places.run(row, json);
            if done.code != *code || done.stderr.contains("panicked") || done.stderr.contains("[internal]") {
                wrong.push(format!("{row} (json: {json}) → {}: {}{}", done.code, done.stdout, done.stderr));
            }
        }
        assert!(!places.strange.join("stack").exists(), "what was refused made nothing");
        // A command that somebody adds without a row at least does not panic.
        for command in every_command(dir.path()) {
            if !ROWS.iter().any(|(row, _)| row.starts_with(&command)) {
                let done = places.run(&format!("{command} @/none"), json);
                let harmless = (0..=78).contains(&done.code) && !done.stderr.contains("[internal]");
                assert!(harmless, "{command} → {}: {}{}", done.code, done.stdout, done.stderr);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
