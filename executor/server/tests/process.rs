//! The server process: what it refuses to start with, what it says, how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

const EXECUTOR: &str = env!("CARGO_BIN_EXE_executor");
const ROOT: &str = r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[],"certificateAuthorities":[],"ctlogs":[],"timestampAuthorities":[]}"#;
const POLICY: &str = "version: 1\nrevocation: { mode: require }\nfreshness: { within-seconds: 3600 }\nlogs: { witnesses: not-required }\ncapabilities: { within: [] }\n";

fn folder(policy: &str, more: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("trusted_root.json", ROOT);
    write("policy.yaml", policy);
    let worker = Path::new(EXECUTOR).with_file_name("executor-compiler");
    assert!(worker.is_file(), "{} is missing: run `cargo build -p executor-compiler`", worker.display());
    let compiler = worker.display();
    write(
        "executor.toml",
        &format!(
            "state_dir = 'state'\ntrusted_root = 'trusted_root.json'\npolicy = 'policy.yaml'\ncompiler = '{compiler}'\n{more}"
        ),
    );
    folder
}

fn serve(folder: &Path) -> Command {
    serve_by(Command::new(EXECUTOR), folder)
}

/// Of the executor that this command becomes.
fn serve_by(mut command: Command, folder: &Path) -> Command {
    command.args(["serve", "--exit-with-stdin", "--config"]).arg(folder.join("executor.toml"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(folder: &Path) -> Child {
    serve(folder).spawn().unwrap()
}

/// A system call, or what is asked of one in its first argument.
type SystemCall = (i64, Option<libc::c_int>);

/// Starts it as on a host whose kernel answers these system calls with this error; 0: as if it had done what was asked.
fn start_where(folder: &Path, calls: &[SystemCall], errno: i32) -> Child {
    let asks = |value: libc::c_int| {
        let value = u64::from(value.cast_unsigned());
        let first = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap();
        SeccompRule::new(vec![first]).unwrap()
    };
    let rules = calls.iter().map(|(call, asked)| (*call, asked.map(asks).into_iter().collect()));
    let answer = SeccompAction::Errno(errno.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter: BpfProgram =
        SeccompFilter::new(rules.collect(), SeccompAction::Allow, answer, arch).unwrap().try_into().unwrap();
    let mut command = serve(folder);
    // What a thread gave up its children lack, and other threads do not.
    std::thread::spawn(move || {
        seccompiler::apply_filter(&filter).unwrap();
        command.spawn().unwrap()
    })
    .join()
    .unwrap()
}

fn refused(folder: &Path) -> String {
    told_by_refusal(start(folder))
}

fn told_by_refusal(mut child: Child) -> String {
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(78), "{text}");
    text
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn serves_confined_and_ends_with_its_parent() {
    let folder = folder(POLICY, "[pool]\nslots = 16\n");
    let mut child = start(folder.path());
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line.is_empty() {
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        panic!("it did not start: {text}");
    }
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(ready["ready"], true);
    let address = ready["listen"].as_str().unwrap();

    let status = get(address, "/api/v1/status");
    for part in ["\"seccomp\"", "\"no-new-privileges\"", "\"agents\":0", "\"wasmtime\":\"48.0.8\""] {
        assert!(status.contains(part), "{part} is not in {status}");
    }
    assert!(get(address, "/readyz").starts_with("HTTP/1.1 200"), "{}", get(address, "/readyz"));
    let metrics = get(address, "/metrics");
    for name in [
        "mentatlab_pool_slots 16",
        "mentatlab_instances_live 0",
        "mentatlab_evidence_age_seconds",
        // At least what is left to the service manager.
        "mentatlab_sandbox_mechanisms_missing ",
    ] {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
    let value = |name: &str| -> usize {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in {metrics}")).parse().unwrap()
    };
    let allowed = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    assert_eq!(value("mentatlab_memory_maps_allowed").to_string(), allowed.trim());
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
    assert!(maps.lines().count() <= value("mentatlab_memory_maps_needed"), "more than a full pool needs");
    assert_eq!(value("mentatlab_pool_memories"), 0);

    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let audit = std::fs::read_to_string(folder.path().join("state/audit.jsonl")).unwrap();
    assert!(audit.contains("\"event_type\":\"start\"") && audit.contains("seccomp"), "{audit}");
}

#[test]
fn without_what_its_tier_requires_it_does_not_start_and_names_it() {
    for (calls, errno, what, remedy) in [
        (
            &[(libc::SYS_seccomp, None)][..],
            libc::EINVAL,
            "seccomp cannot be installed",
            "CONFIG_SECCOMP_FILTER",
        ),
        (
            &[(libc::SYS_seccomp, None), (libc::SYS_prctl, Some(libc::PR_SET_SECCOMP))],
            libc::ENOSYS,
            "seccomp cannot be installed",
            "CONFIG_SECCOMP_FILTER",
        ),
        (
            &[(libc::SYS_prctl, Some(libc::PR_SET_NO_NEW_PRIVS))],
            libc::EINVAL,
            "no_new_privs cannot be set",
            "Linux 3.5",
        ),
    ] {
        let folder = folder(POLICY, "[pool]\nslots = 16\n");
        let told = told_by_refusal(start_where(folder.path(), calls, errno));
        assert!(told.contains(what) && told.contains(remedy), "{told}");
        assert!(!folder.path().join("state/audit.jsonl").exists(), "it began before it was confined");
    }
}

#[test]
fn without_landlock_it_serves_trusted_signers_and_says_so_everywhere() {
    let folder = folder(POLICY, "[pool]\nslots = 16\n");
    let calls =
        [libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self]
            .map(|call| (call, None));
    let mut child = start_where(folder.path(), &calls, libc::ENOSYS);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = ready["listen"].as_str().unwrap();
    let answer = get(address, "/api/v1/status");
    let status: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let texts = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let (enforced, missing) = (texts(&status["confinement"]), texts(&status["unconfined"]));
    assert!(enforced.iter().any(|it| it == "seccomp") && !enforced.iter().any(|it| it.contains("landlock")));
    assert!(missing.iter().any(|it| it.starts_with("landlock: not in this kernel")), "{missing:?}");
    let metrics = get(address, "/metrics");
    let counted = format!("mentatlab_sandbox_mechanisms_missing {}", missing.len());
    assert!(missing.len() == 2 && metrics.contains(&counted), "{metrics}");
    // What their tier requires is missing, too, so modules of other signers do not run here.
    assert!(metrics.contains("mentatlab_tiers_missing 2"), "{metrics}");

    drop(child.stdin.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    let warns = |line: &str| line.contains("WARN") && line.contains("landlock: not in this kernel");
    assert!(said.lines().any(warns), "{said}");
    let audit = std::fs::read_to_string(folder.path().join("state/audit.jsonl")).unwrap();
    let began = audit.lines().find(|line| line.contains("\"event_type\":\"start\"")).unwrap();
    assert!(began.contains("landlock: not in this kernel"), "{began}");
}

#[test]
fn a_sandbox_that_holds_nothing_is_found_out_before_anybody_is_served() {
    for (call, act) in [
        // A kernel that says yes and does nothing.
        (libc::SYS_landlock_restrict_self, "reading a folder that is none of its places"),
        (libc::SYS_seccomp, ""),
    ] {
        let folder = folder(POLICY, "[pool]\nslots = 16\n");
        let told = told_by_refusal(start_where(folder.path(), &[(call, None)], 0));
        let found = format!("the sandbox is closed and still let this happen: {act}");
        assert!(told.contains(&found), "{told}");
        assert!(!folder.path().join("state/audit.jsonl").exists(), "it began before it was confined");
    }
}

#[test]
fn a_pool_that_the_host_cannot_reserve_is_halved_until_it_can_and_that_is_said() {
    let folder = folder(POLICY, "[pool]\nslots = 64\n");
    // Sixteen guests take a quarter of a tebibyte of address space, thirty-two a half.
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v 419430400 && exec \"$0\" \"$@\"", EXECUTOR]);
    let mut child = serve_by(shell, folder.path()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let metrics = get(ready["listen"].as_str().unwrap(), "/metrics");
    assert!(metrics.contains("mentatlab_pool_slots 16\n"), "{metrics}");
    drop(child.stdin.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    let warned = said.lines().find(|line| line.contains("the instance pool is smaller")).expect(&said);
    assert!(warned.contains("16") && warned.contains("64"), "{warned}");
}

#[test]
fn a_replaced_policy_file_is_read_on_sighup_inside_the_sandbox() {
    let folder = folder(POLICY, "[pool]\nslots = 16\n[evidence]\nrefresh_seconds = 3600\n");
    let mut child = start(folder.path());
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = ready["listen"].as_str().unwrap().to_owned();
    let policy = || {
        let answer = get(&address, "/api/v1/status");
        let status: serde_json::Value =
            serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        (status["policy"].as_str().unwrap().to_owned(), status["policy_problem"].as_str().map(str::to_owned))
    };
    let hang_up = |text: &str| {
        let new = folder.path().join("new.yaml");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, folder.path().join("policy.yaml")).unwrap();
        assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    };
    let (first, problem) = policy();
    assert_eq!(problem, None);
    hang_up(&POLICY.replace("3600", "1800"));
    let mut second = policy().0;
    while second == first {
        std::thread::sleep(std::time::Duration::from_millis(20));
        second = policy().0;
    }
    // One that admits more than this executor may: the better one stays in force.
    hang_up(&POLICY.replace("mode: require", "mode: danger-skip"));
    while policy().1.is_none() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(policy().0, second);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn refuses_a_policy_that_skips_a_check() {
    let weak = POLICY.replace("mode: require", "mode: danger-skip");
    assert!(refused(folder(&weak, "").path()).contains("revocation"));
    let weak = POLICY.replace("{ within-seconds: 3600 }", "attested-checkpoint-suffices");
    assert!(refused(folder(&weak, "").path()).contains("any age"));
}

#[test]
fn says_what_is_wrong_and_what_to_do() {
    let missing = folder(POLICY, "");
    std::fs::remove_file(missing.path().join("trusted_root.json")).unwrap();
    assert!(refused(missing.path()).contains("mentatctl trust export"));

    let unknown = folder(POLICY, "verify = false\n");
    assert!(refused(unknown.path()).contains("unknown field"));

    let reachable = folder(POLICY, "[server]\nlisten = '0.0.0.0:0'\n");
    assert!(refused(reachable.path()).contains("plain HTTP"));

    let log = folder(POLICY, "[[evidence.logs]]\norigin = 'x.mentat.internal'\nurl = 'http://127.0.0.1:1'\n");
    assert!(refused(log.path()).contains("does not name it"));
}

#[test]
fn refuses_to_continue_a_shortened_audit_log() {
    let folder = folder(POLICY, "[pool]\nslots = 16\n");
    let mut child = start(folder.path());
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    std::fs::write(folder.path().join("state/audit.jsonl"), "").unwrap();
    assert!(refused(folder.path()).contains("records were removed"));
    // Its head is no proof either, since it lies beside it: the receipt log says how far the audit log reached.
    std::fs::write(folder.path().join("state/audit.head"), [0; 40]).unwrap();
    assert!(refused(folder.path()).contains("records were removed"));
    std::fs::write(folder.path().join("state/audit.head"), b"cut").unwrap();
    let told = refused(folder.path());
    assert!(told.contains("audit.head") && told.contains("keep it and audit.jsonl as evidence"), "{told}");
}

#[test]
fn says_that_the_path_after_config_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    assert!(refused(folder.path()).contains("correct the path after --config"));
}
