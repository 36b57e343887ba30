//! The recipes of `docs/ci`: they are what their platforms read, they pin what they use, and their steps do what they say. The
//! steps run here as they stand, in the shell that the platform gives them; what builds and fetches is stood in for.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mentat_tests::agent::{enrol, sentiment};
use mentat_tests::binary::binary;
use mentat_tests::command::{Finished, finish};
use mentat_tests::registry::{Login, Referrers, Registry};
use mentat_tests::stack::Stack;
use serde_json::Value;

use crate::commands::words;

const EMAIL: &str = "ci@example.com";

/// A recipe as its platform reads it.
fn recipe(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ci").join(name);
    let value = trust_store_files::yaml::parse("recipe", &fs::read(path).unwrap(), 1 << 20).unwrap();
    serde_json::from_slice(&trust_store::jcs::canonicalize(&value).unwrap()).unwrap()
}

/// The steps of both jobs.
fn github() -> Vec<Value> {
    let recipe = recipe("github-actions.yml");
    ["build", "sign"]
        .iter()
        .flat_map(|job| recipe["jobs"][job]["steps"].as_array().unwrap().clone())
        .collect()
}

/// Lines of a job of GitLab, before the script and in it.
fn gitlab(job: &str) -> Vec<String> {
    let recipe = recipe("gitlab-ci.yml");
    let lines = |name: &str| recipe[job][name].as_array().cloned().unwrap_or_default();
    let all = lines("before_script").into_iter().chain(lines("script"));
    all.map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// Every `mentatctl` command line of the recipes, in words.
fn command_lines() -> Vec<Vec<String>> {
    let steps = github();
    let scripts = steps.iter().filter_map(|step| step["run"].as_str()).map(str::to_owned);
    let jobs = ["tools", "build", "sign"].into_iter().flat_map(gitlab);
    let text: Vec<String> = scripts.chain(jobs).map(|script| script.replace("\\\n", " ")).collect();
    let mut found = Vec::new();
    for line in text.iter().flat_map(|script| script.lines()) {
        for (at, _) in line.match_indices("mentatctl ") {
            let begins = line[..at].trim_end();
            if begins.is_empty() || [";", "then", "else", "do"].iter().any(|word| begins.ends_with(word)) {
                found.push(words(&line[at..]));
            }
        }
    }
    found
}

#[test]
fn every_command_of_the_recipes_is_understood() {
    let lines = command_lines();
    let commands: Vec<&str> = lines.iter().map(|line| line[1].as_str()).collect();
    for command in ["audit-capabilities", "sign", "verify", "publish"] {
        assert!(commands.iter().filter(|found| **found == command).count() >= 2, "{command}: {commands:?}");
    }
    for line in &lines {
        // Help is asked for last: what comes before it was read by then.
        let mut command = Command::new(binary("mentatctl"));
        command.args(&line[1..]).arg("--help");
        let said = finish(command, b"");
        assert_eq!(said.code, 0, "{line:?}: {}", said.stderr);
    }
}

#[test]
fn the_recipes_pin_what_they_use_and_ask_for_no_more_rights_than_they_need() {
    let recipe = recipe("github-actions.yml");
    assert_eq!(recipe["permissions"], serde_json::json!({ "contents": "read" }));
    let rights = serde_json::json!({ "contents": "read", "id-token": "write", "packages": "write" });
    assert_eq!(recipe["jobs"]["sign"]["permissions"], rights);
    // What the modules are built of runs where nobody may sign, and leaves nothing behind but the modules.
    assert!(recipe["jobs"]["build"]["permissions"].is_null());
    let signing = recipe["jobs"]["sign"]["steps"].to_string();
    assert!(!signing.contains("make -C") && !signing.contains("actions/cache"), "{signing}");
    for job in ["build", "sign"] {
        let image = recipe["jobs"][job]["runs-on"].as_str().unwrap();
        assert!(!image.ends_with("latest"), "{image}");
    }
    let used: Vec<String> =
        github().iter().filter_map(|step| step["uses"].as_str().map(str::to_owned)).collect();
    assert!(used.len() >= 3, "{used:?}");
    for action in &used {
        let (_, commit) = action.split_once('@').unwrap();
        assert!(commit.len() == 40 && commit.bytes().all(|octet| octet.is_ascii_hexdigit()), "{action}");
    }
    // No expression stands in a script, where its value would be read as commands.
    for script in github().iter().filter_map(|step| step["run"].as_str()) {
        assert!(!script.contains("${{"), "{script}");
    }

    let recipe = self::recipe("gitlab-ci.yml");
    let image = recipe["default"]["image"].as_str().unwrap();
    assert!(image.contains(':') && !image.ends_with("latest"), "{image}");
    assert_eq!(recipe["sign"]["id_tokens"]["SIGSTORE_ID_TOKEN"]["aud"], "sigstore");
    let installs: Vec<String> = gitlab("tools");
    let steps = github();
    let installs =
        installs.iter().map(String::as_str).chain(steps.iter().filter_map(|step| step["run"].as_str()));
    let installs: Vec<&str> =
        installs.flat_map(str::lines).filter(|line| line.contains(" install --locked ")).collect();
    assert_eq!(installs.len(), 7, "{installs:?}");
    for line in installs {
        assert!(line.contains("--locked"), "{line}");
        assert!(line.contains("--rev \"$MENTAT_REVISION\"") || line.contains("_VERSION\""), "{line}");
    }
}

/// A pipeline's machine: its folder with `agents` and `trust`, the variables, and what stands in for programs of others.
struct Machine<'a> {
    dir: PathBuf,
    variables: BTreeMap<&'static str, String>,
    stack: &'a Stack,
    registry: Registry,
}

impl<'a> Machine<'a> {
    fn new(dir: &Path, stack: &'a Stack) -> Self {
        let registry = Registry::start(Referrers::Listed, Login::Open);
        let (agents, trust, tools) = (dir.join("agents"), dir.join("trust"), dir.join("stand-ins"));
        for folder in [&agents, &trust, &tools] {
            fs::create_dir_all(folder).unwrap();
        }
        sentiment(&agents, "first", |manifest| manifest);
        // Of another version: the registry keeps one shelf for all repositories.
        sentiment(&agents, "second", |text| {
            text.replace("mentatlab.sentiment", "mentatlab.second")
                .replace("version: 1.0.0", "version: 1.0.1")
        });
        fs::copy(stack.text("/trusted_root"), trust.join("trusted_root.json")).unwrap();
        fs::copy(stack.text("/policy"), trust.join("policy.yaml")).unwrap();
        let program = |name: &str, text: &str| {
            let path = tools.join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("make", "test \"$1 $2\" = '-C agents'");
        program("cargo", "test \"$1 $2 $3\" = 'audit --file agents/Cargo.lock'");
        program("wasm-tools", "test \"$1\" = validate && test -s \"$2\"");
        program("rustup", "exit 0");
        // The platform's answer to who asks for a token of the right audience.
        program(
            "curl",
            "case \"$*\" in *'Bearer asks-for-it'*'/token?v=1&audience=sigstore') printf '{\"value\":\"%s\"}' \"$JOB_TOKEN\" ;; *) exit 22 ;; esac",
        );
        program("jq", "test \"$1 $2\" = '-re .value' && sed 's/.*\"value\":\"\\([^\"]*\\)\".*/\\1/'");
        let own = binary("mentatctl").parent().unwrap().to_owned();
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{}:{path}", tools.display(), own.display());
        let variables = [
            ("PATH", path),
            ("MENTAT_CA_URL", stack.text("/ca/url")),
            ("MENTAT_LOG_URL", stack.text("/log/url")),
            ("MENTAT_TSA_URL", stack.text("/tsa/url")),
            ("MENTAT_HOME", dir.join("home").display().to_string()),
            ("RUNNER_TEMP", dir.display().to_string()),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "asks-for-it".to_owned()),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://platform.example/token?v=1".to_owned()),
            ("TOOLS", dir.join("mentat-tools").display().to_string()),
            ("CI_REGISTRY_USER", "u".to_owned()),
            ("CI_REGISTRY_PASSWORD", "secret".to_owned()),
        ];
        let mut machine = Self { dir: dir.to_owned(), variables: variables.into(), stack, registry };
        machine.variables.insert("REGISTRY", machine.registry.reference("acme").replace("oci://", ""));
        machine
            .variables
            .insert("CI_REGISTRY_IMAGE", machine.registry.reference("acme").replace("oci://", ""));
        // What `make` would have built.
        for folder in ["first", "second"].map(|name| agents.join(name)) {
            machine.stack.ctl(&["statement", folder.to_str().unwrap()]).success();
            assert!(folder.join("sentiment.wasm").exists());
            fs::remove_file(folder.join("sentiment.wat")).unwrap();
        }
        machine
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.variables.insert(name, value.to_owned());
    }

    fn token(&self) -> String {
        self.stack.ctl(&["pki", "identity-token", "--email", EMAIL]).success().stdout.trim().to_owned()
    }

    /// Runs a script as the platform does: `bash -e`, and GitHub's with `pipefail` too.
    fn run(&self, script: &str) -> Finished {
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script]);
        command.current_dir(&self.dir).env_remove("SIGSTORE_ID_TOKEN").envs(&self.variables);
        finish(command, b"")
    }

    fn signer(&self) -> String {
        let folder = self.dir.join("agents/second");
        let verdict = self.stack.ctl(&["--json", "verify", folder.to_str().unwrap()]).success().json();
        verdict["signer"]["subject"].as_str().unwrap().to_owned()
    }

    fn published(&self) -> usize {
        let shelf = self.registry.shelf.lock().unwrap();
        shelf
            .requests
            .iter()
            .filter(|line| line.starts_with("PUT ") && line.contains("/manifests/1.0."))
            .count()
    }
}

fn folders() -> (tempfile::TempDir, Stack) {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    (dir, stack)
}

#[test]
fn the_steps_for_github_build_check_sign_verify_and_publish() {
    let (dir, stack) = folders();
    let (_, key) = enrol(&stack, "release@example.com", "release");
    let mut machine = Machine::new(&dir.path().join("machine"), &stack);
    // Those that install are the platform's; `if` and `env` of the others are as they stand.
    let steps = github();
    let from = steps.iter().position(|step| step["run"] == "make -C agents").unwrap();
    let scripts = steps[from..].iter().filter_map(|step| step["run"].as_str());
    let steps: Vec<&str> =
        scripts.filter(|script| !script.contains("cargo \"+$RUST_VERSION\" install")).collect();
    assert_eq!(steps.len(), 7);
    machine.set("MENTAT_SIGNING_KEY", "");
    machine.set("JOB_TOKEN", &machine.token());
    for step in &steps {
        machine.run(step).success();
    }
    assert_eq!((machine.signer(), machine.published()), (EMAIL.to_owned(), 2));
    // With a key in a secret.
    machine.set("MENTAT_SIGNING_KEY", &fs::read_to_string(key).unwrap());
    machine.set("JOB_TOKEN", "none");
    machine.run(steps[4]).success();
    assert_eq!(machine.signer(), "release@example.com");
    // What is refused ends the job, and what another than the policy's identities signed is not published.
    machine.set("MENTAT_SIGNING_KEY", "");
    machine.run(steps[4]).refused(1, "malformed");
    fs::write(machine.dir.join("agents/first/sentiment.wasm"), b"\0asm\x01\0\0\0").unwrap();
    machine.run(steps[5]).refused(3, "digest_mismatch");
    machine.run(steps[6]).refused(3, "digest_mismatch");
}

#[test]
fn the_jobs_for_gitlab_do_the_same() {
    let (dir, stack) = folders();
    let (_, key) = enrol(&stack, "release@example.com", "release");
    let mut machine = Machine::new(&dir.path().join("machine"), &stack);
    let jobs = ["build", "sign"].map(|job| gitlab(job).join("\n"));
    machine.set("SIGSTORE_ID_TOKEN", &machine.token());
    for job in &jobs {
        machine.run(job).success();
    }
    assert_eq!((machine.signer(), machine.published()), (EMAIL.to_owned(), 2));
    machine.set("MENTAT_SIGNING_KEY", &fs::read_to_string(key).unwrap());
    // The same release with another signature: a registry takes it beside the first.
    machine.run(&jobs[1]).success();
    assert_eq!(machine.signer(), "release@example.com");
}
