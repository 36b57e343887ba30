//! The worker as its parent sees it: bytes in, reply out, nothing else reachable.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use executor_engine::job::{JobHeader, ModuleKind, RefusalCode, Reply};
use executor_engine::{ModuleDigest, Profile};

const WORKER: &str = env!("CARGO_BIN_EXE_executor-compiler");

/// A worker with its pipes and nothing else, as its parent starts it.
fn worker() -> Command {
    close_fds::set_fds_cloexec(3, &[]);
    Command::new(WORKER)
}

fn run(input: &[u8]) -> Output {
    let mut child =
        worker().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The worker may refuse before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn job(kind: ModuleKind, module: &[u8], digest: ModuleDigest) -> Vec<u8> {
    let mut bytes =
        JobHeader { profile: Profile::Standard, kind, digest, length: module.len() as u64 }.encode();
    bytes.extend_from_slice(module);
    bytes
}

fn refusal(kind: ModuleKind, module: &[u8]) -> (RefusalCode, String) {
    let output = run(&job(kind, module, ModuleDigest::of(module)));
    match Reply::decode(&output.stdout).expect("a reply") {
        Reply::Refused { code, detail } => (code, detail.to_owned()),
        Reply::Compiled { .. } => panic!("compiled"),
    }
}

#[test]
fn compiles_core_modules_and_components() {
    let core = wat::parse_str("(module (func (export \"process\") (result i32) i32.const 7))").unwrap();
    let component = wat::parse_str("(component)").unwrap();
    for (kind, module) in [(ModuleKind::Core, core), (ModuleKind::Component, component)] {
        let output = run(&job(kind, &module, ModuleDigest::of(&module)));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        match Reply::decode(&output.stdout).expect("a reply") {
            Reply::Compiled { artifact, .. } => assert!(artifact.starts_with(b"\x7fELF")),
            Reply::Refused { code, detail } => panic!("{code:?}: {detail}"),
        }
    }
}

#[test]
fn the_same_bytes_give_the_same_artifact() {
    let module =
        wat::parse_str("(module (func (export \"f\") (param f64) (result f64) local.get 0))").unwrap();
    let bytes = job(ModuleKind::Core, &module, ModuleDigest::of(&module));
    assert_eq!(run(&bytes).stdout, run(&bytes).stdout);
}

#[test]
fn refuses_machine_code_from_outside() {
    let own = std::fs::read(WORKER).unwrap();
    let elf = &own[..4096];
    assert_eq!(refusal(ModuleKind::Core, elf).0, RefusalCode::NativeCodeRefused);

    let module = wat::parse_str("(module)").unwrap();
    let output = run(&job(ModuleKind::Core, &module, ModuleDigest::of(&module)));
    let Ok(Reply::Compiled { artifact, .. }) = Reply::decode(&output.stdout) else { panic!("no artifact") };
    assert_eq!(refusal(ModuleKind::Core, artifact).0, RefusalCode::NativeCodeRefused);
}

#[test]
fn refuses_other_bytes_than_announced() {
    let module = wat::parse_str("(module)").unwrap();
    let output = run(&job(ModuleKind::Core, &module, ModuleDigest::of(b"other")));
    let Ok(Reply::Refused { code, .. }) = Reply::decode(&output.stdout) else { panic!("no refusal") };
    assert_eq!(code, RefusalCode::DigestMismatch);
}

#[test]
fn refuses_features_that_are_off_and_says_where() {
    for text in [
        "(module (memory i64 1))",
        "(module (memory 1) (memory 1))",
        "(module (memory 1 1 shared))",
        "(module (func (param v128) (result v128) local.get 0 i32x4.relaxed_trunc_f32x4_s))",
        "(module (type (struct)) (func (param (ref 0))))",
        "(module (func $f return_call $f))",
    ] {
        let module = wat::parse_str(text).unwrap();
        let (code, detail) = refusal(ModuleKind::Core, &module);
        assert_eq!(code, RefusalCode::InvalidModule, "{text}");
        assert!(detail.contains("offset"), "{text}: {detail}");
    }
    assert_eq!(refusal(ModuleKind::Component, b"\0asm\x01\0\0\0").0, RefusalCode::InvalidModule);
    assert_eq!(refusal(ModuleKind::Core, b"no module at all").0, RefusalCode::InvalidModule);
}

#[test]
fn a_world_in_a_module_is_what_the_module_becomes_or_is_refused() {
    let module = |imports: &str| {
        let text = format!(
            r#"(module {imports} (memory (export "memory") 1) (func (export "process") (result i32) i32.const 0)
              (@custom "component-type:mentat:agent" "no world"))"#
        );
        wat::parse_str(text).unwrap()
    };
    let (code, detail) = refusal(ModuleKind::Core, &module(""));
    assert_eq!(code, RefusalCode::InvalidModule);
    assert!(detail.contains("cannot be made a component"), "{detail}");
    // An agent on the core ABI is none, whatever else is written in it.
    let agent = module(r#"(import "mentat" "input_len" (func (result i64)))"#);
    let output = run(&job(ModuleKind::Core, &agent, ModuleDigest::of(&agent)));
    assert!(matches!(Reply::decode(&output.stdout), Ok(Reply::Compiled { .. })));
}

#[test]
fn a_malformed_job_is_refused() {
    let module = wat::parse_str("(module)").unwrap();
    let mut bytes = job(ModuleKind::Core, &module, ModuleDigest::of(&module));
    bytes.push(0);
    let output = run(&bytes);
    assert!(matches!(Reply::decode(&output.stdout), Ok(Reply::Refused { code: RefusalCode::Internal, .. })));
    assert_eq!(run(b"").status.code(), Some(74));
}

#[test]
fn the_sandbox_kills_what_a_compiler_never_does() {
    for act in ["abort", "connect", "exec", "open", "signal", "stat", "thread"] {
        let status = worker().args(["probe", act]).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{act}: {status}");
    }
}

/// As the kernel tells it of a worker that waits for its input.
#[test]
fn a_worker_that_waits_has_no_capability_no_way_to_gain_one_and_a_filter() {
    const LINES: [&str; 5] = [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ];
    let mut child =
        worker().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    // For as long as it takes to make two engines on a busy machine, and then some.
    for look in 0.. {
        let told = std::fs::read_to_string(&status).unwrap();
        let missing = LINES.iter().find(|line| told.lines().all(|known| known != **line));
        let Some(missing) = missing else { break };
        assert!(look < 6_000, "{missing}\n{told}");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(74));
}
