//! Parts of the texts of components that the guests of several tests have in common.

/// A core module `libc` with one page of memory and an allocator that only goes up.
macro_rules! libc {
    () => {
        r#"
  (core module $libc
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 32768))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $libc (instantiate $libc))"#
    };
}

/// What is waited for.
macro_rules! poll {
    () => {
        r#"
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $p (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $p))))))
  (alias export $poll "pollable" (type $pollable))"#
    };
}

/// The end of a command.
macro_rules! run {
    () => {
        r#"
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $cli (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $cli))"#
    };
}

pub(crate) const LIBC: &str = libc!();

/// The same with so many pages, which gives out memory from `heap` on.
#[cfg(any(feature = "http-handler", feature = "media"))]
pub(crate) fn libc(pages: u32, heap: usize) -> String {
    LIBC.replace("\"memory\") 1)", &format!("\"memory\") {pages})")).replace("32768", &heap.to_string())
}

pub(crate) const POLL: &str = poll!();

pub(crate) const RUN: &str = run!();

/// The streams of WASI, and [`LIBC`].
pub(crate) const STREAMS: &str = concat!(
    r#"
  (import "wasi:io/error@0.2.0" (instance $io-error (export "error" (type (sub resource)))))
  (alias export $io-error "error" (type $error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "output-stream" (type $os (sub resource)))
    (alias outer 1 $error (type $e))
    (type $se' (variant (case "last-operation-failed" (own $e)) (case "closed")))
    (export "stream-error" (type $se (eq $se')))
    (export "[method]output-stream.blocking-write-and-flush"
      (func (param "self" (borrow $os)) (param "contents" (list u8)) (result (result (error $se)))))))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output-stream (type $os'))
    (export "output-stream" (type $os (eq $os')))
    (export "get-stdout" (func (result (own $os))))))"#,
    libc!(),
    r#"
  (core func $get-stdout (canon lower (func $stdout "get-stdout")))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $libc "memory")))"#
);

/// Sleeps for ten minutes of the host's clock.
pub(crate) const SLEEPS: &str = concat!(
    "(component",
    poll!(),
    r#"
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $p'))
    (export "pollable" (type $p (eq $p')))
    (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core module $main
    (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
    (import "host" "block" (func $block (param i32)))
    (func (export "run") (result i32)
      (call $block (call $subscribe (i64.const 600000000000)))
      (i32.const 0)))
  (core instance $main (instantiate $main
    (with "host" (instance (export "subscribe" (func $subscribe)) (export "block" (func $block))))))"#,
    run!(),
    ")"
);

/// The error of the world `mentat:agent`, which its other interfaces name.
pub(crate) const ERROR: &str = r#"
  (import "mentat:agent/types@1.0.0" (instance $types
    (type $error' (variant (case "invalid" string) (case "bad-handle") (case "not-in-manifest") (case "policy-denied" string)
      (case "limit" string) (case "io" string) (case "timeout") (case "revoked") (case "unsupported")))
    (export "error" (type (eq $error')))))
  (alias export $types "error" (type $error))"#;

/// Capabilities of that world. Comes after [`ERROR`].
pub(crate) const CAPABILITY: &str = r#"
  (import "mentat:agent/capability@1.0.0" (instance $capability
    (alias outer 1 $error (type $e'))
    (export "error" (type $e (eq $e')))
    (export "handle" (type $h (sub resource)))
    (export "[method]handle.invoke" (func (param "self" (borrow $h)) (param "operation" string) (param "args" (list u8))
      (result (result (list u8) (error $e)))))
    (export "request" (func (param "capability" string) (result (result (own $h) (error $e)))))))"#;

/// To open a file, for [`files`].
pub(crate) const OPEN_AT: &str = r#"
    (export "[method]descriptor.open-at" (func (param "self" (borrow $d)) (param "path-flags" $pf) (param "path" string)
      (param "open-flags" $of) (param "flags" $df) (result (result (own $d) (error $ec)))))"#;

/// Files, with these methods of descriptors, and the directories that a guest has. Comes after [`STREAMS`].
pub(crate) fn files(methods: &str) -> String {
    format!(
        r#"
  (import "wasi:filesystem/types@0.2.0" (instance $files
    (export "descriptor" (type $d (sub resource)))
    (type $ec' (enum {codes})) (export "error-code" (type $ec (eq $ec')))
    (type $pf' (flags "symlink-follow")) (export "path-flags" (type $pf (eq $pf')))
    (type $of' (flags "create" "directory" "exclusive" "truncate")) (export "open-flags" (type $of (eq $of')))
    (type $df' (flags "read" "write" "file-integrity-sync" "data-integrity-sync" "requested-write-sync" "mutate-directory"))
    (export "descriptor-flags" (type $df (eq $df'))){methods}))
  (alias export $files "descriptor" (type $descriptor))
  (import "wasi:filesystem/preopens@0.2.0" (instance $preopens
    (alias outer 1 $descriptor (type $d'))
    (export "descriptor" (type $d (eq $d')))
    (export "get-directories" (func (result (list (tuple (own $d) string)))))))
  (core func $directories (canon lower (func $preopens "get-directories") (memory $libc "memory") (realloc (func $libc "realloc"))))"#,
        codes = codes()
    )
}

/// The error codes of files, as an enumeration lists them.
pub(crate) fn codes() -> String {
    const CODES: &str = "access would-block already bad-descriptor busy deadlock quota exist file-too-large \
        illegal-byte-sequence in-progress interrupted invalid io is-directory loop too-many-links message-size \
        name-too-long no-device no-entry no-lock insufficient-memory insufficient-space not-directory not-empty \
        not-recoverable unsupported no-tty no-such-device overflow not-permitted pipe read-only invalid-seek \
        text-file-busy cross-device";
    CODES.split_whitespace().map(|code| format!("\"{code}\" ")).collect()
}
