//! What guests hold of media, over both boundaries.

use std::sync::Arc;
use std::time::Duration;

use executor_engine::ModuleDigest;

use super::tests::until;
use super::{MediaLimits, MediaStore};
use crate::admission::{GrantSet, GrantSources};
use crate::runtime::{Call, CallLimits, Outcome};
use crate::testing::texts::ERROR;
use crate::testing::{prepare, runtime};

/// Bytes of the object that is there.
const OBJECT: usize = 1 << 20;

/// A store with one object, and its reference.
fn stored() -> (tempfile::TempDir, GrantSet, String) {
    let folder = tempfile::tempdir().unwrap();
    let store = MediaStore::open(folder.path().to_owned(), MediaLimits::default()).unwrap();
    let bytes = vec![7; OBJECT];
    let reference = store.upload("text/plain", &bytes, &mut 0, &until(Duration::from_secs(60))).unwrap();
    assert_eq!(reference, format!("sha256:{}", ModuleDigest::of(&bytes)));
    let sources = GrantSources { media: Some(Arc::new(store)), ..GrantSources::default() };
    let granted = vec!["extension:media".parse().unwrap()];
    (folder, sources.grant(&granted, granted.clone(), &[]).unwrap(), reference)
}

fn called(text: &str, grants: GrantSet) -> Outcome {
    let prepared = prepare(text, grants, CallLimits::default()).unwrap();
    runtime().call(&prepared, Call::default()).unwrap()
}

/// Downloads until it is refused, gives one object back, and may have it again.
#[test]
fn the_objects_of_a_component_are_measured() {
    let (_folder, grants, reference) = stored();
    let text = format!(
        r#"(component{ERROR}
  (import "mentat:agent/media@1.0.0" (instance $media
    (alias outer 1 $error (type $e'))
    (export "error" (type $e (eq $e')))
    (export "object" (type $o (sub resource)))
    (export "download" (func (param "reference" string) (result (result (own $o) (error $e)))))))
  (alias export $media "object" (type $object))
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 32768)))
  (core instance $libc (instantiate $libc))
  (core func $download (canon lower (func $media "download") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core func $drop (canon resource.drop $object))
  (core module $m
    (import "host" "download" (func $download (param i32 i32 i32)))
    (import "host" "drop" (func $drop (param i32)))
    (import "libc" "memory" (memory 1))
    (data (i32.const 1024) "{reference}")
    ;; whether there is an object now; its handle is at 68
    (func $more (result i32)
      (call $download (i32.const 1024) (i32.const 71) (i32.const 64))
      (i32.eqz (i32.load8_u (i32.const 64))))
    (func (export "process") (result i32) (local $count i32) (local $last i32)
      (loop $again
        (if (call $more) (then
          (local.set $last (i32.load (i32.const 68)))
          (local.set $count (i32.add (local.get $count) (i32.const 1)))
          (br $again))))
      ;; the fifth case: a limit
      (if (i32.ne (i32.load8_u (i32.const 68)) (i32.const 4)) (then (unreachable)))
      (call $drop (local.get $last))
      (if (i32.eqz (call $more)) (then (unreachable)))
      (if (call $more) (then (unreachable)))
      ;; an error whose text is as long as the number of objects says
      (i32.store8 (i32.const 0) (i32.const 1))
      (i32.store (i32.const 4) (i32.const 1024))
      (i32.store (i32.const 8) (local.get $count))
      (i32.const 0)))
  (core instance $m (instantiate $m
    (with "host" (instance (export "download" (func $download)) (export "drop" (func $drop))))
    (with "libc" (instance $libc))))
  (func (export "process") (result (result (error string)))
    (canon lift (core func $m "process") (memory $libc "memory"))))"#
    );
    let outcome = called(&text, grants);
    assert_eq!(outcome.log[0].text.len(), CallLimits::default().hostcall_bytes / OBJECT);
}

#[test]
fn the_buffers_of_a_core_module_are_measured() {
    let (_folder, grants, reference) = stored();
    let text = format!(
        r#"(module
  (import "mentat" "download_media" (func $download (param i32 i32) (result i32)))
  (import "mentat" "close" (func $close (param i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "{reference}")
  (func $more (result i32) (call $download (i32.const 0) (i32.const 71)))
  (func (export "process") (result i32) (local $count i32) (local $last i32) (local $now i32)
    (loop $again
      (local.set $now (call $more))
      (if (i32.gt_s (local.get $now) (i32.const 0)) (then
        (local.set $last (local.get $now))
        (local.set $count (i32.add (local.get $count) (i32.const 1)))
        (br $again))))
    (if (i32.ne (local.get $now) (i32.const -6)) (then (unreachable)))
    (drop (call $close (local.get $last)))
    (if (i32.le_s (call $more) (i32.const 0)) (then (unreachable)))
    (if (i32.ne (call $more) (i32.const -6)) (then (unreachable)))
    (local.get $count)))"#
    );
    let outcome = called(&text, grants);
    let most = CallLimits::default().hostcall_bytes / OBJECT;
    assert_eq!(usize::try_from(outcome.exit_code), Ok(most));
}
