//! Guests with scratch files.

use std::time::Duration;

use bytes::Bytes;

use crate::admission::{GrantSet, GrantSources};
use crate::component::wasi_tests::{moves, opens};
use crate::runtime::{Call, CallLimits, Cancel, Held, KillCause, Outcome};
use crate::testing::texts::{OPEN_AT, RUN, STREAMS, codes, files};
use crate::testing::{prepare, runtime};

/// Bytes of one write of [`fills`].
const CHUNK: u64 = 16 << 10;

/// Methods of descriptors that [`fills`] uses beside.
const MORE: &str = r#"
    (export "[method]descriptor.write" (func (param "self" (borrow $d)) (param "buffer" (list u8)) (param "offset" u64)
      (result (result u64 (error $ec)))))
    (export "[method]descriptor.read" (func (param "self" (borrow $d)) (param "length" u64) (param "offset" u64)
      (result (result (tuple (list u8) bool) (error $ec)))))
    (export "[method]descriptor.set-size" (func (param "self" (borrow $d)) (param "size" u64)
      (result (result (error $ec)))))"#;

/// Makes a file that must not be there yet in its first directory, and writes to it until that fails. Eight bytes of output:
/// how many directories it has, 0 or 1 + the error code of the open, how many writes succeeded (two bytes), 0 or 1 + the
/// error code of the write that did not, the same of making the file a tebibyte long, the first byte of the file, and
/// whether it ends with its last chunk.
pub(crate) fn fills() -> String {
    format!(
        r#"(component {STREAMS}{files}
  (core func $open (canon lower (func $files "[method]descriptor.open-at") (memory $libc "memory")))
  (core func $put (canon lower (func $files "[method]descriptor.write") (memory $libc "memory")))
  (core func $take (canon lower (func $files "[method]descriptor.read") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core func $size (canon lower (func $files "[method]descriptor.set-size") (memory $libc "memory")))
  (core module $main
    (import "host" "get-stdout" (func $get (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "directories" (func $directories (param i32)))
    (import "host" "open" (func $open (param i32 i32 i32 i32 i32 i32 i32)))
    (import "host" "put" (func $put (param i32 i32 i32 i64 i32)))
    (import "host" "take" (func $take (param i32 i64 i64 i32)))
    (import "host" "size" (func $size (param i32 i64 i32)))
    (import "libc" "memory" (memory 1))
    (data (i32.const 256) "file") (data (i32.const 8192) "x")
    (func (export "run") (result i32) (local $file i32) (local $done i32)
      (call $directories (i32.const 16))
      (i32.store8 (i32.const 0) (i32.load (i32.const 20)))
      (block $end
        (br_if $end (i32.eqz (i32.load (i32.const 20))))
        ;; create and exclusive, read and write
        (call $open (i32.load (i32.load (i32.const 16))) (i32.const 0) (i32.const 256) (i32.const 4)
          (i32.const 5) (i32.const 3) (i32.const 32))
        (if (i32.load8_u (i32.const 32))
          (then (i32.store8 (i32.const 1) (i32.add (i32.const 1) (i32.load8_u (i32.const 36)))) (br $end)))
        (local.set $file (i32.load (i32.const 36)))
        (loop $again
          (call $put (local.get $file) (i32.const 8192) (i32.const {CHUNK})
            (i64.mul (i64.extend_i32_u (local.get $done)) (i64.const {CHUNK})) (i32.const 48))
          (if (i32.eqz (i32.load8_u (i32.const 48)))
            (then
              (local.set $done (i32.add (local.get $done) (i32.const 1)))
              (br_if $again (i32.lt_u (local.get $done) (i32.const 10000))))
            (else (i32.store8 (i32.const 4) (i32.add (i32.const 1) (i32.load8_u (i32.const 56)))))))
        (i32.store16 (i32.const 2) (local.get $done))
        (call $size (local.get $file) (i64.const 1099511627776) (i32.const 48))
        (i32.store8 (i32.const 5)
          (select (i32.add (i32.const 1) (i32.load8_u (i32.const 49))) (i32.const 0) (i32.load8_u (i32.const 48))))
        (call $take (local.get $file) (i64.const 16) (i64.const 0) (i32.const 64))
        (i32.store8 (i32.const 6) (i32.load8_u (i32.load (i32.const 68))))
        (call $take (local.get $file) (i64.const 16)
          (i64.sub (i64.mul (i64.extend_i32_u (local.get $done)) (i64.const {CHUNK})) (i64.const 16)) (i32.const 64))
        (i32.store8 (i32.const 7) (i32.load8_u (i32.const 76))))
      (call $write (call $get) (i32.const 0) (i32.const 8) (i32.const 96))
      (i32.const 0)))
  (core instance $main (instantiate $main
    (with "host" (instance (export "get-stdout" (func $get-stdout)) (export "write" (func $write))
      (export "directories" (func $directories)) (export "open" (func $open)) (export "put" (func $put))
      (export "take" (func $take)) (export "size" (func $size))))
    (with "libc" (instance $libc))))
  {RUN})"#,
        files = files(&format!("{OPEN_AT}{MORE}"))
    )
}

/// Makes `b` and `a` in its first directory and lists it; when one name was told it makes `c`. Its output: the names that were told.
fn lists() -> String {
    format!(
        r#"(component {STREAMS}
  (import "wasi:filesystem/types@0.2.0" (instance $files
    (export "descriptor" (type $d (sub resource)))
    (type $ec' (enum {codes})) (export "error-code" (type $ec (eq $ec')))
    (type $dt' (enum "unknown" "block-device" "character-device" "directory" "fifo" "symbolic-link" "regular-file" "socket"))
    (export "descriptor-type" (type $dt (eq $dt')))
    (type $de' (record (field "type" $dt) (field "name" string))) (export "directory-entry" (type $de (eq $de')))
    (export "directory-entry-stream" (type $des (sub resource)))
    (export "[method]descriptor.create-directory-at" (func (param "self" (borrow $d)) (param "path" string)
      (result (result (error $ec)))))
    (export "[method]descriptor.read-directory" (func (param "self" (borrow $d)) (result (result (own $des) (error $ec)))))
    (export "[method]directory-entry-stream.read-directory-entry" (func (param "self" (borrow $des))
      (result (result (option $de) (error $ec)))))))
  (alias export $files "descriptor" (type $descriptor))
  (import "wasi:filesystem/preopens@0.2.0" (instance $preopens
    (alias outer 1 $descriptor (type $d'))
    (export "descriptor" (type $d (eq $d')))
    (export "get-directories" (func (result (list (tuple (own $d) string)))))))
  (core func $directories (canon lower (func $preopens "get-directories") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core func $make (canon lower (func $files "[method]descriptor.create-directory-at") (memory $libc "memory")))
  (core func $list (canon lower (func $files "[method]descriptor.read-directory") (memory $libc "memory")))
  (core func $next (canon lower (func $files "[method]directory-entry-stream.read-directory-entry") (memory $libc "memory")
    (realloc (func $libc "realloc"))))
  (core module $main
    (import "host" "get-stdout" (func $get (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "directories" (func $directories (param i32)))
    (import "host" "make" (func $make (param i32 i32 i32 i32)))
    (import "host" "list" (func $list (param i32 i32)))
    (import "host" "next" (func $next (param i32 i32)))
    (import "libc" "memory" (memory 1))
    (data (i32.const 256) "bac")
    (func (export "run") (result i32) (local $in i32) (local $names i32)
      (call $directories (i32.const 16))
      (local.set $in (i32.load (i32.load (i32.const 16))))
      (call $make (local.get $in) (i32.const 256) (i32.const 1) (i32.const 32))
      (call $make (local.get $in) (i32.const 257) (i32.const 1) (i32.const 32))
      (call $list (local.get $in) (i32.const 32))
      (block $end (loop $more
        (call $next (i32.load (i32.const 36)) (i32.const 64))
        (br_if $end (i32.or (i32.load8_u (i32.const 64)) (i32.eqz (i32.load8_u (i32.const 68)))))
        (i32.store8 (i32.add (i32.const 512) (local.get $names)) (i32.load8_u (i32.load (i32.const 76))))
        (local.set $names (i32.add (local.get $names) (i32.const 1)))
        (if (i32.eq (local.get $names) (i32.const 1))
          (then (call $make (local.get $in) (i32.const 258) (i32.const 1) (i32.const 48))))
        (br_if $more (i32.lt_u (local.get $names) (i32.const 9)))))
      (call $write (call $get) (i32.const 512) (local.get $names) (i32.const 96))
      (i32.const 0)))
  (core instance $main (instantiate $main
    (with "host" (instance (export "get-stdout" (func $get-stdout)) (export "write" (func $write))
      (export "directories" (func $directories)) (export "make" (func $make)) (export "list" (func $list))
      (export "next" (func $next))))
    (with "libc" (instance $libc))))
  {RUN})"#,
        codes = codes()
    )
}

/// A grant of scratch files.
pub(crate) fn granting(access: &str) -> GrantSet {
    let capability = vec![format!("filesystem:{access}:/tmp").parse().unwrap()];
    let sources = GrantSources { scratch: true, ..GrantSources::default() };
    sources.grant(&capability, capability.clone(), &[]).unwrap()
}

/// What [`fills`] says when so many chunks found room.
pub(crate) fn filled(chunks: u16) -> [u8; 8] {
    let [low, high] = chunks.to_le_bytes();
    let full = 1 + code("insufficient-space");
    [1, 0, low, high, full, full, b'x', 1]
}

fn code(name: &str) -> u8 {
    let codes = codes();
    let position = codes.split_whitespace().position(|code| code.trim_matches('"') == name).unwrap();
    u8::try_from(position).unwrap()
}

fn call(text: &str, grants: GrantSet, limits: CallLimits) -> Outcome {
    let prepared = prepare(text, grants, limits).expect("prepares");
    runtime().call(&prepared, Call { input: Bytes::new(), ..Call::default() }).unwrap()
}

#[test]
fn scratch_files_end_at_their_limit_and_with_their_call() {
    let limits = CallLimits { scratch: 1 << 20, ..CallLimits::default() };
    // What a call leaves behind would be in the way of the next: the file must be a new one.
    for _ in 0..2 {
        let outcome = call(&fills(), granting("write"), limits);
        assert_eq!(outcome.output, filled(63), "a file takes 4 KiB of its 64 times 16 KiB for itself");
        assert_eq!(outcome.usage.refused_growths, 2);
        assert_eq!(outcome.usage.memory_bytes, 65_536 + 4096 + 63 * CHUNK);
    }
    let none = CallLimits { scratch: 0, ..CallLimits::default() };
    let full = 1 + code("insufficient-space");
    assert_eq!(call(&fills(), granting("write"), none).output[..2], [1, full]);
}

#[test]
fn scratch_files_are_memory_of_the_call() {
    let limits = CallLimits { memory: 128 << 10, ..CallLimits::default() };
    let outcome = call(&fills(), granting("write"), limits);
    assert_eq!(outcome.output, filled(3), "64 KiB are left beside the guest's own");
    assert!(outcome.usage.memory_bytes <= 128 << 10);
}

/// What has a name beyond the last one is told: a listing is a place in the directory and no copy of it, which no account knows of.
#[test]
fn a_listing_is_no_copy() {
    assert_eq!(call(&lists(), granting("write"), CallLimits::default()).output, b"abc");
}

#[test]
fn what_files_take_is_told_while_the_guest_runs() {
    let spins =
        fills().replacen("(call $write (call $get)", "(loop $spin (br $spin)) (call $write (call $get)", 1);
    let limits = CallLimits { scratch: 1 << 20, ..CallLimits::default() };
    let prepared = prepare(&spins, granting("write"), limits).unwrap();
    let cancel = Cancel::default();
    std::thread::scope(|scope| {
        let spinning = Call { cancel: Some(cancel.clone()), ..Call::default() };
        let running = scope.spawn(|| runtime().call(&prepared, spinning));
        let of_files =
            |held: &Held| held.owner.admission == prepared.calls.owner.admission && held.memory > 1 << 20;
        while !runtime().live().held().iter().any(of_files) {
            assert!(!running.is_finished(), "{:?}", running.join().unwrap());
            std::thread::sleep(Duration::from_millis(1));
        }
        cancel.raise(KillCause::Operator);
        assert!(running.join().unwrap().is_err());
    });
}

#[test]
fn calls_at_the_same_time_see_nothing_of_each_other() {
    let limits = CallLimits { scratch: 1 << 20, ..CallLimits::default() };
    let prepared = prepare(&fills(), granting("write"), limits).unwrap();
    std::thread::scope(|scope| {
        let calls: Vec<_> =
            (0..4).map(|_| scope.spawn(|| runtime().call(&prepared, Call::default()).unwrap())).collect();
        for called in calls {
            assert_eq!(called.join().unwrap().output, filled(63));
        }
    });
}

#[test]
fn without_a_grant_there_is_nothing_and_a_grant_to_read_changes_nothing() {
    let limits = CallLimits::default();
    assert_eq!(call(&fills(), GrantSet::default(), limits).output, [0; 8]);
    let denied = 1 + code("not-permitted");
    assert_eq!(call(&fills(), granting("read"), limits).output[..2], [1, denied]);
}

#[test]
fn nothing_leads_out_of_scratch_files() {
    let of = |guest: String| call(&guest, granting("write"), CallLimits::default()).output;
    let denied = 1 + code("not-permitted");
    for path in ["/etc/passwd", "../etc/passwd", "..", "/tmp"] {
        for (open_flags, descriptor_flags) in [(0, 1), (1, 2)] {
            assert_eq!(of(opens(path, open_flags, descriptor_flags)), [1, denied], "{path}");
        }
    }
    for (method, from, to) in [
        ("symlink-at", "/etc/passwd", "link"),
        ("symlink-at", "file", "link"),
        ("link-at", "file", "other"),
        ("rename-at", "../etc/passwd", "in"),
        ("rename-at", "file", "../out"),
    ] {
        assert_eq!(of(moves(method, from, to)), [denied], "{method} {from} {to}");
    }
    assert_eq!(of(moves("rename-at", "file", "other")), [1 + code("no-entry")], "it begins empty");
    assert_eq!(of(opens("new", 1, 2)), [1, 0]);
}

/// The library's own directories go on as before, beside it and not into it.
#[test]
fn a_granted_directory_lies_beside_it() {
    use trust_store::capability::GuestPath;

    let host = tempfile::tempdir().unwrap();
    let capabilities: Vec<_> =
        ["filesystem:write:/data", "filesystem:write:/tmp"].map(|text| text.parse().unwrap()).into();
    let files = [(GuestPath::new("/data").unwrap(), host.path().to_owned())].into();
    let sources = GrantSources { files, scratch: true, ..GrantSources::default() };
    let granting = || sources.grant(&capabilities, capabilities.clone(), &[]).unwrap();
    // Both guests use their first directory, which is the one of the host.
    assert_eq!(call(&opens("new", 1, 2), granting(), CallLimits::default()).output, [2, 0]);
    assert!(host.path().join("new").exists());
    let across = moves("rename-at", "new", "moved").replacen(
        "(call $move (local.get $dir)",
        "(call $move (i32.load (i32.add (i32.load (i32.const 16)) (i32.const 12)))",
        1,
    );
    let cross = 1 + code("cross-device");
    assert_eq!(call(&across, granting(), CallLimits::default()).output, [cross]);
    assert!(host.path().join("new").exists());
}
