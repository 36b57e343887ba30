//! The guests that are measured: written as text, signed and logged like anybody's.

use std::path::PathBuf;

use crate::neighbours;
use crate::stack::Stack;

/// One signed release.
pub(crate) struct Guest {
    pub(crate) id: String,
    pub(crate) manifest: String,
    pub(crate) module: Vec<u8>,
}

/// What is run.
pub(crate) struct Guests {
    pub(crate) core: Guest,
    pub(crate) component: Guest,
    pub(crate) echo: Guest,
    pub(crate) host_calls: Guest,
    pub(crate) component_host_calls: Guest,
    pub(crate) compute: Guest,
    pub(crate) spin: Guest,
    pub(crate) wasi: Guest,
    /// One step, and sixteen in a row, of [`Guests::echo`].
    pub(crate) pipelines: [Guest; 2],
    /// Those of [`neighbours::HOSTILE`].
    pub(crate) hostile: [Guest; 4],
    /// Long to compile; not loaded.
    pub(crate) bomb: Guest,
    /// Three releases of one agent.
    pub(crate) releases: [Guest; 3],
    /// Never end by themselves; each signed by somebody who is revoked in the course of the bench.
    pub(crate) revoked: [Guest; 3],
}

/// Who signs a guest that is revoked.
pub(crate) fn signer(id: &str) -> String {
    format!("{id}@example.com")
}

/// Writes, signs and logs every guest.
pub(crate) fn signed(stack: &Stack) -> Guests {
    let echo = sign(stack, "bench.echo", ECHO);
    Guests {
        core: sign(stack, "bench.core", CORE),
        component: sign(stack, "bench.component", COMPONENT),
        pipelines: [1, crate::pipelines::STEPS].map(|steps| pipeline(stack, steps)),
        hostile: neighbours::HOSTILE
            .map(|(name, body)| sign(stack, &format!("bench.{name}"), &neighbours::text(body))),
        bomb: signed_module(stack, "bench.bomb", "bench.bomb", &neighbours::compile_bomb(), &[]),
        echo,
        host_calls: sign(stack, "bench.hostcalls", HOST_CALLS),
        component_host_calls: sign(stack, "bench.componentcalls", COMPONENT_HOST_CALLS),
        compute: sign(stack, "bench.compute", COMPUTE),
        spin: sign(stack, "bench.spin", SPIN),
        wasi: sign(stack, "bench.wasi", WASI),
        releases: ["a", "b", "c"].map(|letter| {
            let text = RELEASE.replace("LETTER", letter);
            sign_as(stack, &format!("bench.deploy-{letter}"), "bench.deploy", &text, &[])
        }),
        revoked: ["bench.gone-a", "bench.gone-b", "bench.gone-c"].map(|id| revoked(stack, id)),
    }
}

fn revoked(stack: &Stack, id: &str) -> Guest {
    let email = signer(id);
    let token = stack.ctl(&["pki", "token", "create", "--email", &email]);
    let path = |name: &str| stack.folder().join(format!("{id}.{name}")).display().to_string();
    let (cert, key) = (path("crt"), path("key"));
    let mut request = vec!["pki", "request-cert", "--email", &email, "--token", token.trim()];
    request.extend(["--output", &cert, "--key", &key]);
    stack.ctl(&request);
    sign_as(stack, id, id, SPIN, &["--cert", &cert, "--key", &key])
}

/// The id of the pipeline of so many steps.
pub(crate) fn pipeline_id(steps: usize) -> String {
    format!("bench.pipeline-{steps}")
}

fn pipeline(stack: &Stack, steps: usize) -> Guest {
    let id = pipeline_id(steps);
    let folder = stack.folder().join(&id);
    std::fs::create_dir_all(&folder).unwrap();
    let step = |n: usize| match n {
        0 => "- {name: s0, release: ../bench.echo}\n".to_owned(),
        n => format!("- {{name: s{n}, release: ../bench.echo, after: [s{}]}}\n", n - 1),
    };
    let text: String = (0..steps).map(step).collect();
    std::fs::write(folder.join("pipeline.yaml"), format!("steps:\n{text}")).unwrap();
    let manifest = format!("id: {id}\nversion: 1.0.0\nruntime: pipeline\nmodule: pipeline.json\n");
    std::fs::write(folder.join("manifest.yaml"), manifest).unwrap();
    stack.ctl(&["sign", folder.to_str().unwrap()]);
    Guest {
        id,
        manifest: std::fs::read_to_string(folder.join("manifest.yaml")).unwrap(),
        module: std::fs::read(folder.join("pipeline.json")).unwrap(),
    }
}

fn sign(stack: &Stack, id: &str, text: &str) -> Guest {
    sign_as(stack, id, id, text, &[])
}

fn sign_as(stack: &Stack, folder: &str, id: &str, text: &str, flags: &[&str]) -> Guest {
    signed_module(stack, folder, id, &wat::parse_str(text).unwrap(), flags)
}

fn signed_module(stack: &Stack, folder: &str, id: &str, module: &[u8], flags: &[&str]) -> Guest {
    let folder: PathBuf = stack.folder().join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("module.wasm"), module).unwrap();
    let manifest = format!("id: {id}\nversion: 1.0.0\nruntime: wasm\nmodule: module.wasm\n");
    std::fs::write(folder.join("manifest.yaml"), manifest).unwrap();
    stack.ctl(&[&["sign"], flags, &[folder.to_str().unwrap()]].concat());
    Guest {
        id: id.to_owned(),
        manifest: std::fs::read_to_string(folder.join("manifest.yaml")).unwrap(),
        module: std::fs::read(folder.join("module.wasm")).unwrap(),
    }
}

/// Reads its input, touches memory, writes its output: what any agent does.
const CORE: &str = r#"(module
  (import "mentat" "read_input" (func $read (param i32 i32 i32) (result i32)))
  (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 1024) "a segment that every fresh instance starts with")
  (func (export "process") (result i32)
    (drop (call $write (i32.const 4096) (call $read (i32.const 4096) (i32.const 64) (i32.const 0))))
    (i32.const 0)))"#;

/// The same work for a component without imports: `process` alone.
const COMPONENT: &str = r#"(component
  (core module $m
    (memory (export "memory") 2)
    (data (i32.const 1024) "a segment that every fresh instance starts with")
    (func (export "process") (result i32)
      (i32.store (i32.const 4096) (i32.load (i32.const 1024)))
      (i32.const 0)))
  (core instance $m (instantiate $m))
  (func (export "process") (result (result (error string)))
    (canon lift (core func $m "process") (memory $m "memory"))))"#;

/// Input to output, whatever its size up to 64 KiB.
const ECHO: &str = r#"(module
  (import "mentat" "read_input" (func $read (param i32 i32 i32) (result i32)))
  (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "process") (result i32)
    (drop (call $write (i32.const 0) (call $read (i32.const 0) (i32.const 65536) (i32.const 0))))
    (i32.const 0)))"#;

/// Calls the host as many times as its input has bytes × 100,000.
const HOST_CALLS: &str = r#"(module
  (import "mentat" "input_len" (func $len (result i64)))
  (memory (export "memory") 1)
  (func (export "process") (result i32)
    (local $n i64)
    (local.set $n (i64.mul (call $len) (i64.const 100000)))
    (block $end
      (loop $again
        (br_if $end (i64.eqz (local.get $n)))
        (drop (call $len))
        (local.set $n (i64.sub (local.get $n) (i64.const 1)))
        (br $again)))
    (i32.const 0)))"#;

/// The same as a component.
const COMPONENT_HOST_CALLS: &str = r#"(component
  (import "mentat:agent/io@1.0.0" (instance $io (export "input-len" (func (result u64)))))
  (core func $len (canon lower (func $io "input-len")))
  (core module $m
    (import "io" "len" (func $len (result i64)))
    (memory (export "memory") 1)
    (func (export "process") (result i32)
      (local $n i64)
      (local.set $n (i64.mul (call $len) (i64.const 100000)))
      (block $end
        (loop $again
          (br_if $end (i64.eqz (local.get $n)))
          (drop (call $len))
          (local.set $n (i64.sub (local.get $n) (i64.const 1)))
          (br $again)))
      (i32.const 0)))
  (core instance $m (instantiate $m (with "io" (instance (export "len" (func $len))))))
  (func (export "process") (result (result (error string)))
    (canon lift (core func $m "process") (memory $m "memory"))))"#;

/// A sieve over 1 MiB, as many rounds as its input has bytes; the count of primes is the output.
const COMPUTE: &str = r#"(module
  (import "mentat" "input_len" (func $len (result i64)))
  (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 17)
  (func $sieve (result i32)
    (local $i i32) (local $j i32) (local $count i32)
    (memory.fill (i32.const 65536) (i32.const 0) (i32.const 1048576))
    (local.set $i (i32.const 2))
    (loop $outer
      (if (i32.eqz (i32.load8_u (i32.add (i32.const 65536) (local.get $i))))
        (then
          (local.set $count (i32.add (local.get $count) (i32.const 1)))
          (local.set $j (i32.add (local.get $i) (local.get $i)))
          (block $done
            (loop $inner
              (br_if $done (i32.ge_u (local.get $j) (i32.const 1048576)))
              (i32.store8 (i32.add (i32.const 65536) (local.get $j)) (i32.const 1))
              (local.set $j (i32.add (local.get $j) (local.get $i)))
              (br $inner)))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $outer (i32.lt_u (local.get $i) (i32.const 1048576))))
    (local.get $count))
  (func (export "process") (result i32)
    (local $n i64)
    (local.set $n (call $len))
    (block $end
      (loop $again
        (br_if $end (i64.eqz (local.get $n)))
        (i32.store (i32.const 0) (call $sieve))
        (local.set $n (i64.sub (local.get $n) (i64.const 1)))
        (br $again)))
    (drop (call $write (i32.const 0) (i32.const 4)))
    (i32.const 0)))"#;

/// Never ends by itself.
const SPIN: &str = r#"(module (memory (export "memory") 1)
  (func (export "process") (result i32) (loop $l (br $l)) (i32.const 0)))"#;

/// Answers with one letter.
const RELEASE: &str = r#"(module
  (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "LETTER")
  (func (export "process") (result i32) (drop (call $write (i32.const 0) (i32.const 1))) (i32.const 0)))"#;

/// A WASI 0.2 command that writes 19 bytes to its standard output.
const WASI: &str = r#"(component
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
    (export "get-stdout" (func (result (own $os))))))
  (core module $libc (memory (export "memory") 2))
  (core instance $libc (instantiate $libc))
  (core func $get-stdout (canon lower (func $stdout "get-stdout")))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $libc "memory")))
  (core module $main
    (import "host" "get-stdout" (func $get (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "libc" "memory" (memory 1))
    (data (i32.const 8) "the input of a call")
    (func (export "run") (result i32)
      (call $write (call $get) (i32.const 8) (i32.const 19) (i32.const 4096))
      (i32.load8_u (i32.const 4096))))
  (core instance $main (instantiate $main
    (with "host" (instance (export "get-stdout" (func $get-stdout)) (export "write" (func $write))))
    (with "libc" (instance $libc))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $cli (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $cli)))"#;
