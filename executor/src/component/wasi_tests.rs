//! WASI 0.2 guests: streams that are the call's own, empty contexts, granted directories and what they never lead to.

mod swapped;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use crate::admission::{GrantSet, GrantSources};
use crate::runtime::{Call, CallError, CallLimits, Cancel, KillCause, Outcome};
use crate::testing::texts::{OPEN_AT, RUN, SLEEPS, STREAMS, files};
use crate::testing::{prepare, runtime};

/// Writes `text` to its standard output `times` times; fails when a write fails.
fn writes(text: &str, times: u32) -> String {
    format!(
        r#"(component {STREAMS}
  (core module $main
    (import "host" "get-stdout" (func $get (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "libc" "memory" (memory 1))
    (data (i32.const 8) "{text}")
    (func (export "run") (result i32)
      (local $left i32) (local $out i32)
      (local.set $left (i32.const {times}))
      (local.set $out (call $get))
      (loop $again
        (call $write (local.get $out) (i32.const 8) (i32.const {length}) (i32.const 4096))
        (if (i32.load8_u (i32.const 4096)) (then (return (i32.const 1))))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br_if $again (local.get $left)))
      (i32.const 0)))
  (core instance $main (instantiate $main
    (with "host" (instance (export "get-stdout" (func $get-stdout)) (export "write" (func $write))))
    (with "libc" (instance $libc))))
  {RUN})"#,
        length = text.len()
    )
}

/// An agent that writes pages of bytes with the value 1 to its standard output, so many, and no line feed.
pub(crate) fn one_line(pages: u32) -> String {
    format!(
        r#"(component {STREAMS}
  (core module $main
    (import "host" "get-stdout" (func $get (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "libc" "memory" (memory 1))
    (func (export "process") (result i32)
      (local $left i32) (local $out i32)
      (memory.fill (i32.const 8) (i32.const 1) (i32.const 4096))
      (local.set $left (i32.const {pages}))
      (local.set $out (call $get))
      (loop $again
        (call $write (local.get $out) (i32.const 8) (i32.const 4096) (i32.const 8192))
        (if (i32.load8_u (i32.const 8192)) (then unreachable))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br_if $again (local.get $left)))
      (i32.const 8192)))
  (core instance $main (instantiate $main
    (with "host" (instance (export "get-stdout" (func $get-stdout)) (export "write" (func $write))))
    (with "libc" (instance $libc))))
  (func (export "process") (result (result (error string)))
    (canon lift (core func $main "process") (memory $libc "memory"))))"#
    )
}

/// Opens `path` in its first directory and writes two bytes to its output: how many directories it has, and 0 or
/// 1 + the error code of the open. Open flags: 1 create, 8 truncate; descriptor flags: 1 read, 2 write.
pub(super) fn opens(path: &str, open_flags: u32, descriptor_flags: u32) -> String {
    format!(
        r#"(component {STREAMS}{files}
  (core func $open (canon lower (func $files "[method]descriptor.open-at") (memory $libc "memory")))
  (core module $main
    (import "host" "get-stdout" (func $get (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "directories" (func $directories (param i32)))
    (import "host" "open" (func $open (param i32 i32 i32 i32 i32 i32 i32)))
    (import "libc" "memory" (memory 1))
    (data (i32.const 256) "{path}")
    (func (export "run") (result i32)
      (call $directories (i32.const 16))
      (i32.store8 (i32.const 0) (i32.load (i32.const 20)))
      (i32.store8 (i32.const 1) (i32.const 255))
      (if (i32.load (i32.const 20))
        (then
          ;; follow links, as guests do by default
          (call $open (i32.load (i32.load (i32.const 16))) (i32.const 1) (i32.const 256) (i32.const {length})
            (i32.const {open_flags}) (i32.const {descriptor_flags}) (i32.const 32))
          (i32.store8 (i32.const 1)
            (select (i32.add (i32.const 1) (i32.load8_u (i32.const 36))) (i32.const 0) (i32.load8_u (i32.const 32))))))
      (call $write (call $get) (i32.const 0) (i32.const 2) (i32.const 64))
      (i32.const 0)))
  (core instance $main (instantiate $main
    (with "host" (instance (export "get-stdout" (func $get-stdout)) (export "write" (func $write))
      (export "directories" (func $directories)) (export "open" (func $open))))
    (with "libc" (instance $libc))))
  {RUN})"#,
        files = files(OPEN_AT),
        length = path.len(),
    )
}

fn call(text: &str, grants: GrantSet, limits: CallLimits, cancel: Cancel) -> Result<Outcome, CallError> {
    let prepared = prepare(text, grants, limits).expect("prepares");
    runtime().call(&prepared, Call { input: Bytes::new(), cancel: Some(cancel), ..Call::default() })
}

fn run(text: &str) -> Result<Outcome, CallError> {
    call(text, GrantSet::default(), CallLimits::default(), Cancel::default())
}

#[test]
fn a_command_writes_to_the_output_of_its_call() {
    let outcome = run(&writes("hello ", 3)).unwrap();
    assert_eq!((outcome.exit_code, outcome.output.as_slice()), (0, &b"hello hello hello "[..]));
}

#[test]
fn output_ends_at_its_limit() {
    let limits = CallLimits { output: 20, ..CallLimits::default() };
    let ended = call(&writes("0123456789", 5), GrantSet::default(), limits, Cancel::default());
    // The guest is told or ended; in no case is there more than the limit.
    if let Ok(outcome) = ended {
        assert_eq!((outcome.exit_code, outcome.output.len()), (1, 20));
    }
}

#[test]
fn a_guest_that_waits_in_the_host_ends_at_its_deadline_and_when_it_is_stopped() {
    let limits = CallLimits { wall: Duration::from_millis(60), ..CallLimits::default() };
    let ended = call(SLEEPS, GrantSet::default(), limits, Cancel::default()).unwrap_err();
    assert_eq!(ended.code(), "deadline_exceeded");

    let cancel = Cancel::default();
    let raised = cancel.clone();
    let ended = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| call(SLEEPS, GrantSet::default(), CallLimits::default(), cancel));
        raised.raise(KillCause::Revoked);
        waiting.join().unwrap()
    });
    assert_eq!(ended.unwrap_err().code(), "revoked");
}

#[test]
fn without_a_grant_there_is_no_directory() {
    let outcome = run(&opens("etc/passwd", 0, 1)).unwrap();
    assert_eq!(outcome.output, [0, 255]);
}

fn granting(access: &str, host: &Path) -> GrantSet {
    let capability = vec![format!("filesystem:{access}:/data").parse().unwrap()];
    let path = trust_store::capability::GuestPath::new("/data").unwrap();
    let sources = GrantSources { files: [(path, host.to_owned())].into(), ..GrantSources::default() };
    sources.grant(&capability, capability.clone(), &[]).unwrap()
}

fn open(access: &str, host: &Path, path: &str, open_flags: u32, descriptor_flags: u32) -> u8 {
    let guest = opens(path, open_flags, descriptor_flags);
    let outcome = call(&guest, granting(access, host), CallLimits::default(), Cancel::default()).unwrap();
    assert_eq!(outcome.output[0], 1, "one directory");
    outcome.output[1]
}

#[test]
fn a_granted_directory_is_all_a_guest_sees_of_the_host() {
    let host = tempfile::tempdir().unwrap();
    let inside = host.path().join("inside");
    std::fs::create_dir_all(inside.join("sub")).unwrap();
    std::fs::write(inside.join("file"), b"text").unwrap();
    std::fs::write(host.path().join("secret"), b"secret").unwrap();
    std::os::unix::fs::symlink("../secret", inside.join("link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", inside.join("absolute")).unwrap();
    std::os::unix::fs::symlink("..", inside.join("up")).unwrap();

    assert_eq!(open("read", &inside, "file", 0, 1), 0);
    assert_eq!(open("read", &inside, "sub/../file", 0, 1), 0, "inside is inside");
    for path in
        ["../secret", "sub/../../secret", "/etc/passwd", "link", "absolute", "up/secret", "up", "..", "file/"]
    {
        assert_ne!(open("read", &inside, path, 0, 1), 0, "{path}");
        assert_ne!(open("write", &inside, path, 0, 1), 0, "{path}");
    }
}

#[test]
fn reading_never_changes_a_file() {
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("file"), b"text").unwrap();
    for (path, open_flags, descriptor_flags) in
        [("file", 0, 2), ("file", 8, 1), ("file", 8, 2), ("new", 1, 1), ("new", 1, 2)]
    {
        assert_ne!(open("read", host.path(), path, open_flags, descriptor_flags), 0, "{path} {open_flags}");
    }
    assert_eq!(std::fs::read(host.path().join("file")).unwrap(), b"text");
    assert!(!host.path().join("new").exists());

    assert_eq!(open("write", host.path(), "new", 1, 2), 0);
    assert!(host.path().join("new").exists());
    assert_eq!(open("write", host.path(), "file", 8, 2), 0);
    assert_eq!(std::fs::read(host.path().join("file")).unwrap(), b"");
}

/// Moves `from` in its first directory to `to`, or makes a hard link or a symbolic link of it there; writes one byte to its output: 0 or
/// 1 + the error code.
pub(super) fn moves(method: &str, from: &str, to: &str) -> String {
    // Parameters of the method and of the function it is lowered to, and the arguments.
    let (typed, lowered, arguments) = match method {
        "rename-at" => (
            r#"(param "old-path" string) (param "new-descriptor" (borrow $d)) (param "new-path" string)"#,
            "i32 i32 i32 i32 i32 i32 i32",
            "(local.get $dir) (i32.const 256) (i32.const $from) (local.get $dir) (i32.const 1024) (i32.const $to) (i32.const 32)",
        ),
        "link-at" => (
            r#"(param "old-path-flags" $pf) (param "old-path" string) (param "new-descriptor" (borrow $d)) (param "new-path" string)"#,
            "i32 i32 i32 i32 i32 i32 i32 i32",
            "(local.get $dir) (i32.const 0) (i32.const 256) (i32.const $from) (local.get $dir) (i32.const 1024) (i32.const $to) (i32.const 32)",
        ),
        _ => (
            r#"(param "old-path" string) (param "new-path" string)"#,
            "i32 i32 i32 i32 i32 i32",
            "(local.get $dir) (i32.const 256) (i32.const $from) (i32.const 1024) (i32.const $to) (i32.const 32)",
        ),
    };
    let arguments = arguments.replace("$from", &from.len().to_string()).replace("$to", &to.len().to_string());
    format!(
        r#"(component {STREAMS}{files}
  (core func $move (canon lower (func $files "[method]descriptor.{method}") (memory $libc "memory")))
  (core module $main
    (import "host" "get-stdout" (func $get (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "directories" (func $directories (param i32)))
    (import "host" "move" (func $move (param {lowered})))
    (import "libc" "memory" (memory 1))
    (data (i32.const 256) "{from}") (data (i32.const 1024) "{to}")
    (func (export "run") (result i32) (local $dir i32)
      (call $directories (i32.const 16))
      (local.set $dir (i32.load (i32.load (i32.const 16))))
      (call $move {arguments})
      (i32.store8 (i32.const 0)
        (select (i32.add (i32.const 1) (i32.load8_u (i32.const 33))) (i32.const 0) (i32.load8_u (i32.const 32))))
      (call $write (call $get) (i32.const 0) (i32.const 1) (i32.const 64))
      (i32.const 0)))
  (core instance $main (instantiate $main
    (with "host" (instance (export "get-stdout" (func $get-stdout)) (export "write" (func $write))
      (export "directories" (func $directories)) (export "move" (func $move))))
    (with "libc" (instance $libc))))
  {RUN})"#,
        files = files(&format!(
            r#"
    (export "[method]descriptor.{method}" (func (param "self" (borrow $d)) {typed} (result (result (error $ec)))))"#
        ))
    )
}

#[test]
fn nothing_is_moved_or_linked_out_of_a_granted_directory_or_into_it() {
    let host = tempfile::tempdir().unwrap();
    let inside = host.path().join("inside");
    std::fs::create_dir_all(&inside).unwrap();
    std::fs::write(inside.join("file"), b"text").unwrap();
    std::fs::write(host.path().join("secret"), b"secret").unwrap();
    std::os::unix::fs::symlink("..", inside.join("up")).unwrap();
    let moved = |access: &str, method: &str, from: &str, to: &str| {
        let guest = moves(method, from, to);
        let limits = CallLimits::default();
        call(&guest, granting(access, &inside), limits, Cancel::default()).unwrap().output[0]
    };
    let absolute = host.path().join("out").display().to_string();
    for method in ["rename-at", "link-at"] {
        for (from, to) in [
            ("file", "../out"),
            ("file", "up/out"),
            ("file", absolute.as_str()),
            ("../secret", "in"),
            ("up/secret", "in"),
        ] {
            assert_ne!(moved("write", method, from, to), 0, "{method} {from} {to}");
        }
        // Reading changes nothing, not even a name.
        assert_ne!(moved("read", method, "file", "other"), 0, "{method}");
    }
    assert_ne!(moved("write", "symlink-at", "/etc/passwd", "absolute"), 0, "a link to everywhere");
    assert!(
        !host.path().join("out").exists() && !inside.join("in").exists() && !inside.join("other").exists()
    );
    assert_eq!(std::fs::read(inside.join("file")).unwrap(), b"text");

    assert_eq!(moved("write", "link-at", "file", "other"), 0);
    assert_eq!(moved("write", "rename-at", "other", "third"), 0);
    assert_eq!(std::fs::read(inside.join("third")).unwrap(), b"text");
}

#[test]
fn a_flood_of_random_bytes_ends_the_guest() {
    let asks = |length: u64| {
        format!(
            r#"(component {STREAMS}
  (import "wasi:random/random@0.2.0" (instance $random
    (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
  (core func $bytes (canon lower (func $random "get-random-bytes") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core module $main
    (import "host" "bytes" (func $bytes (param i64 i32)))
    (func (export "run") (result i32) (call $bytes (i64.const {length}) (i32.const 16)) (i32.const 0)))
  (core instance $main (instantiate $main (with "host" (instance (export "bytes" (func $bytes))))))
  {RUN})"#
        )
    };
    assert_eq!(run(&asks(1_000)).unwrap().exit_code, 0);
    for length in [1 << 20, 1 << 40, i64::MAX as u64] {
        assert_eq!(run(&asks(length)).unwrap_err().code(), "trap", "{length}");
    }
}

/// What a guest writes to its standard error before it ends is why it ends; its standard output is half of an answer.
#[test]
fn a_command_that_traps_leaves_its_last_words() {
    let text = writes("panicked at row 3", 1)
        .replace("stdout", "stderr")
        .replace("(br_if $again (local.get $left)))", "(br_if $again (local.get $left))) (unreachable)");
    let prepared = prepare(&text, GrantSet::default(), CallLimits::default()).unwrap();
    let registration = runtime().register(&prepared, None);
    let ended = runtime().call_registered(&prepared, Call::default(), registration, None);
    assert_eq!(ended.result.unwrap_err().code(), "trap");
    assert_eq!(ended.said.unwrap().log[0].text, "panicked at row 3");
}
