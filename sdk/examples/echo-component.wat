;; A component over the world `mentat:agent` (executor/wit), in component text: it answers with its input.
;;
;; A component has typed imports instead of pointers: the host hands over lists and results, and the canonical
;; interface functions below move them through the memory of a small core module.
(component
  (import "mentat:agent/types@1.0.0" (instance $types
    (type $error' (variant
      (case "invalid" string) (case "bad-handle") (case "not-in-manifest") (case "policy-denied" string)
      (case "limit" string) (case "io" string) (case "timeout") (case "revoked") (case "unsupported")))
    (export "error" (type $error (eq $error')))
  ))
  (alias export $types "error" (type $error))

  (import "mentat:agent/io@1.0.0" (instance $io
    (alias outer 1 $error (type $error'))
    (export "error" (type $error (eq $error')))
    (export "input-len" (func (result u64)))
    (export "read-input" (func (param "offset" u64) (param "max" u32) (result (result (list u8) (error $error)))))
    (export "write-output" (func (param "data" (list u8)) (result (result (error $error)))))
  ))

  ;; memory and an allocator that only grows: one call an instance, nothing is ever freed
  (core module $memory
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 1024))
    (func (export "realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and
        (i32.add (global.get $next) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
      (global.set $next (i32.add (local.get $at) (local.get $size)))
      (if (i32.gt_u (global.get $next) (i32.shl (memory.size) (i32.const 16)))
        (then (if (i32.lt_s
            (memory.grow (i32.add (i32.shr_u (local.get $size) (i32.const 16)) (i32.const 1)))
            (i32.const 0))
          (then unreachable))))
      (local.get $at)))
  (core instance $memory (instantiate $memory))

  (core func $read_input (canon lower (func $io "read-input")
    (memory $memory "memory") (realloc (func $memory "realloc"))))
  (core func $write_output (canon lower (func $io "write-output")
    (memory $memory "memory") (realloc (func $memory "realloc"))))

  (core module $echo
    (import "host" "read-input" (func $read_input (param i64 i32 i32)))
    (import "host" "write-output" (func $write_output (param i32 i32 i32)))
    (import "memory" "memory" (memory 2))
    ;; result<_, string>: at 0 the tag; 0 is ok. Results of the host are written at 64.
    (func (export "process") (result i32)
      (call $read_input (i64.const 0) (i32.const 8388608) (i32.const 64))
      (if (i32.load8_u (i32.const 64)) (then unreachable))
      (call $write_output (i32.load (i32.const 68)) (i32.load (i32.const 72)) (i32.const 96))
      (if (i32.load8_u (i32.const 96)) (then unreachable))
      (i32.store8 (i32.const 0) (i32.const 0))
      (i32.const 0)))
  (core instance $echo (instantiate $echo
    (with "host" (instance
      (export "read-input" (func $read_input))
      (export "write-output" (func $write_output))))
    (with "memory" (instance $memory))))

  (func (export "process") (result (result (error string)))
    (canon lift (core func $echo "process") (memory $memory "memory"))))
