;; The sentiment analyser as a core module over the `mentat` interface, written by hand so that the demo needs no
;; WebAssembly toolchain. README.md beside this file describes the algorithm; every implementation of it gives the same
;; bytes for the same input.
;;
;; Memory (24 pages of 64 KiB; one call an instance, so nothing is ever freed):
;;   0x000000  constants: texts of the answer, the word lists
;;   0x001000  the answer while it is built (4 KiB)
;;   0x002000  the table of distinct words: 16384 slots of 16 bytes {address, length, count, hash}, count 0 = free
;;   0x048000  the input, lower-cased in place (1 MiB)
(module
  (import "mentat" "input_len" (func $input_len (result i64)))
  (import "mentat" "read_input" (func $read_input (param i32 i32 i32) (result i32)))
  (import "mentat" "write_output" (func $write_output (param i32 i32) (result i32)))
  (import "mentat" "log" (func $log (param i32 i32 i32)))
  (import "mentat" "record_metric" (func $record_metric (param i32 i32 f64) (result i32)))

  (memory (export "memory") 24 24)
  (global (export "mentat_abi") i32 (i32.const 1))
  (global (export "agent_version") i32 (i32.const 1))

  (global $table i32 (i32.const 0x2000))
  (global $slots i32 (i32.const 16384))
  (global $input i32 (i32.const 0x48000))
  (global $input_max i32 (i32.const 0x100000))
  (global $answer i32 (i32.const 0x1000))
  (global $answer_len (mut i32) (i32.const 0))
  (global $words (mut i32) (i32.const 0))
  (global $distinct (mut i32) (i32.const 0))
  (global $sentences (mut i32) (i32.const 0))
  (global $positive (mut i32) (i32.const 0))
  (global $negative (mut i32) (i32.const 0))

  ;; texts
  (data (i32.const 0x100) "{\"words\":")
  (data (i32.const 0x110) ",\"distinct\":")
  (data (i32.const 0x120) ",\"sentences\":")
  (data (i32.const 0x130) ",\"top\":[")
  (data (i32.const 0x140) "{\"word\":\"")
  (data (i32.const 0x150) "\",\"count\":")
  (data (i32.const 0x160) "],\"positive\":")
  (data (i32.const 0x170) ",\"negative\":")
  (data (i32.const 0x180) ",\"score\":")
  (data (i32.const 0x190) ",\"label\":\"")
  (data (i32.const 0x1a0) "positive")
  (data (i32.const 0x1a8) "negative")
  (data (i32.const 0x1b0) "neutral")
  (data (i32.const 0x1b8) "\"}")
  (data (i32.const 0x1c0) "input is larger than 1 MiB")
  (data (i32.const 0x1e0) "words")

  ;; word lists: length byte and letters, ended by a length of 0
  (data (i32.const 0x400)
    "\04good\05great\09excellent\04love\05loves\05happy\04best\06better\04nice\09wonderful\04fast\04safe\06secure"
    "\07trusted\08reliable\05clear\06simple\04easy\07correct\05works\06strong\05clean\06useful\07helpful\04wins\00")
  (data (i32.const 0x600)
    "\03bad\05worse\05worst\08terrible\05awful\04hate\05hates\03sad\05angry\04slow\06broken\05fails\04fail"
    "\07failure\05error\06errors\03bug\04bugs\05wrong\04ugly\08annoying\07useless\04lost\04poor\04weak\09confusing\00")
  (data (i32.const 0x800) "\03not\02no\05never\07nothing\07without\00")

  ;; 1 when the byte is an ASCII letter
  (func $is_letter (param $byte i32) (result i32)
    (i32.lt_u (i32.sub (i32.or (local.get $byte) (i32.const 0x20)) (i32.const 0x61)) (i32.const 26)))

  ;; 1 when two byte strings of one length are equal
  (func $equal (param $a i32) (param $b i32) (param $len i32) (result i32)
    (loop $next
      (if (i32.eqz (local.get $len)) (then (return (i32.const 1))))
      (if (i32.ne (i32.load8_u (local.get $a)) (i32.load8_u (local.get $b))) (then (return (i32.const 0))))
      (local.set $a (i32.add (local.get $a) (i32.const 1)))
      (local.set $b (i32.add (local.get $b) (i32.const 1)))
      (local.set $len (i32.sub (local.get $len) (i32.const 1)))
      (br $next))
    (unreachable))

  ;; 1 when a word is in a list
  (func $in_list (param $list i32) (param $word i32) (param $len i32) (result i32)
    (local $entry i32)
    (loop $next
      (local.set $entry (i32.load8_u (local.get $list)))
      (if (i32.eqz (local.get $entry)) (then (return (i32.const 0))))
      (local.set $list (i32.add (local.get $list) (i32.const 1)))
      (if (i32.eq (local.get $entry) (local.get $len))
        (then (if (call $equal (local.get $list) (local.get $word) (local.get $len))
          (then (return (i32.const 1))))))
      (local.set $list (i32.add (local.get $list) (local.get $entry)))
      (br $next))
    (unreachable))

  ;; FNV-1a over the letters
  (func $hash (param $word i32) (param $len i32) (result i32)
    (local $hash i32)
    (local.set $hash (i32.const 0x811c9dc5))
    (loop $next
      (if (local.get $len)
        (then
          (local.set $hash (i32.mul
            (i32.xor (local.get $hash) (i32.load8_u (local.get $word)))
            (i32.const 0x01000193)))
          (local.set $word (i32.add (local.get $word) (i32.const 1)))
          (local.set $len (i32.sub (local.get $len) (i32.const 1)))
          (br $next))))
    (local.get $hash))

  ;; counts one word in the table; a full table counts no new ones
  (func $tally (param $word i32) (param $len i32)
    (local $hash i32) (local $index i32) (local $slot i32)
    (local.set $hash (call $hash (local.get $word) (local.get $len)))
    (local.set $index (i32.and (local.get $hash) (i32.sub (global.get $slots) (i32.const 1))))
    (loop $probe
      (local.set $slot (i32.add (global.get $table) (i32.shl (local.get $index) (i32.const 4))))
      (if (i32.eqz (i32.load offset=8 (local.get $slot)))
        (then
          ;; three quarters full is where probing would get long
          (if (i32.lt_u (global.get $distinct) (i32.const 12288))
            (then
              (i32.store (local.get $slot) (local.get $word))
              (i32.store offset=4 (local.get $slot) (local.get $len))
              (i32.store offset=8 (local.get $slot) (i32.const 1))
              (i32.store offset=12 (local.get $slot) (local.get $hash))
              (global.set $distinct (i32.add (global.get $distinct) (i32.const 1)))))
          (return)))
      (if (i32.and
            (i32.eq (i32.load offset=12 (local.get $slot)) (local.get $hash))
            (i32.eq (i32.load offset=4 (local.get $slot)) (local.get $len)))
        (then (if (call $equal (i32.load (local.get $slot)) (local.get $word) (local.get $len))
          (then
            (i32.store offset=8 (local.get $slot) (i32.add (i32.load offset=8 (local.get $slot)) (i32.const 1)))
            (return)))))
      (local.set $index
        (i32.and (i32.add (local.get $index) (i32.const 1)) (i32.sub (global.get $slots) (i32.const 1))))
      (br $probe)))

  ;; 1 when the first slot's word comes before the second's in the alphabet
  (func $before (param $a i32) (param $b i32) (result i32)
    (local $i i32) (local $x i32) (local $y i32)
    (loop $next
      (if (i32.ge_u (local.get $i) (i32.load offset=4 (local.get $a))) (then (return (i32.const 1))))
      (if (i32.ge_u (local.get $i) (i32.load offset=4 (local.get $b))) (then (return (i32.const 0))))
      (local.set $x (i32.load8_u (i32.add (i32.load (local.get $a)) (local.get $i))))
      (local.set $y (i32.load8_u (i32.add (i32.load (local.get $b)) (local.get $i))))
      (if (i32.ne (local.get $x) (local.get $y)) (then (return (i32.lt_u (local.get $x) (local.get $y)))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next))
    (unreachable))

  ;; appends bytes to the answer
  (func $put (param $from i32) (param $len i32)
    (memory.copy (i32.add (global.get $answer) (global.get $answer_len)) (local.get $from) (local.get $len))
    (global.set $answer_len (i32.add (global.get $answer_len) (local.get $len))))

  (func $put_byte (param $byte i32)
    (i32.store8 (i32.add (global.get $answer) (global.get $answer_len)) (local.get $byte))
    (global.set $answer_len (i32.add (global.get $answer_len) (i32.const 1))))

  ;; appends a number in decimal
  (func $put_number (param $n i32)
    (if (i32.ge_u (local.get $n) (i32.const 10))
      (then (call $put_number (i32.div_u (local.get $n) (i32.const 10)))))
    (call $put_byte (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10)))))

  ;; appends thousandths as a decimal number with three digits
  (func $put_thousandths (param $n i32)
    (if (i32.lt_s (local.get $n) (i32.const 0))
      (then
        (call $put_byte (i32.const 45))
        (local.set $n (i32.sub (i32.const 0) (local.get $n)))))
    (call $put_byte (i32.add (i32.const 48) (i32.div_u (local.get $n) (i32.const 1000))))
    (call $put_byte (i32.const 46))
    (call $put_byte (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $n) (i32.const 100)) (i32.const 10))))
    (call $put_byte (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $n) (i32.const 10)) (i32.const 10))))
    (call $put_byte (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10)))))

  ;; appends the most frequent words of 4 to 32 letters, at most five, and takes them out of the table
  (func $put_top
    (local $round i32) (local $index i32) (local $slot i32) (local $best i32)
    (loop $rounds
      (local.set $best (i32.const 0))
      (local.set $index (i32.const 0))
      (loop $scan
        (local.set $slot (i32.add (global.get $table) (i32.shl (local.get $index) (i32.const 4))))
        (block $skip
          (br_if $skip (i32.eqz (i32.load offset=8 (local.get $slot))))
          (br_if $skip (i32.lt_u (i32.load offset=4 (local.get $slot)) (i32.const 4)))
          (br_if $skip (i32.gt_u (i32.load offset=4 (local.get $slot)) (i32.const 32)))
          (if (local.get $best)
            (then
              (br_if $skip (i32.lt_u (i32.load offset=8 (local.get $slot)) (i32.load offset=8 (local.get $best))))
              (if (i32.eq (i32.load offset=8 (local.get $slot)) (i32.load offset=8 (local.get $best)))
                (then (br_if $skip (call $before (local.get $best) (local.get $slot)))))))
          (local.set $best (local.get $slot)))
        (local.set $index (i32.add (local.get $index) (i32.const 1)))
        (br_if $scan (i32.lt_u (local.get $index) (global.get $slots))))
      (if (i32.eqz (local.get $best)) (then (return)))
      (if (local.get $round) (then (call $put_byte (i32.const 44))))
      (call $put (i32.const 0x140) (i32.const 9))
      (call $put (i32.load (local.get $best)) (i32.load offset=4 (local.get $best)))
      (call $put (i32.const 0x150) (i32.const 10))
      (call $put_number (i32.load offset=8 (local.get $best)))
      (call $put_byte (i32.const 125))
      (i32.store offset=4 (local.get $best) (i32.const 0))
      (local.set $round (i32.add (local.get $round) (i32.const 1)))
      (br_if $rounds (i32.lt_u (local.get $round) (i32.const 5)))))

  ;; walks the input: words, sentences, sentiment
  (func $analyse (param $len i32)
    (local $at i32) (local $end i32) (local $byte i32) (local $start i32) (local $word_len i32)
    (local $negated i32) (local $open i32)
    (local.set $at (global.get $input))
    (local.set $end (i32.add (global.get $input) (local.get $len)))
    (loop $bytes
      (if (i32.ge_u (local.get $at) (local.get $end))
        (then
          ;; text after the last mark is a sentence too
          (global.set $sentences (i32.add (global.get $sentences) (local.get $open)))
          (return)))
      (local.set $byte (i32.load8_u (local.get $at)))
      (if (call $is_letter (local.get $byte))
        (then
          (local.set $start (local.get $at))
          (loop $letters
            (i32.store8 (local.get $at) (i32.or (local.get $byte) (i32.const 0x20)))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (if (i32.lt_u (local.get $at) (local.get $end))
              (then
                (local.set $byte (i32.load8_u (local.get $at)))
                (br_if $letters (call $is_letter (local.get $byte))))))
          (local.set $word_len (i32.sub (local.get $at) (local.get $start)))
          (global.set $words (i32.add (global.get $words) (i32.const 1)))
          (local.set $open (i32.const 1))
          (call $tally (local.get $start) (local.get $word_len))
          (if (call $in_list (i32.const 0x400) (local.get $start) (local.get $word_len))
            (then (if (local.get $negated)
              (then (global.set $negative (i32.add (global.get $negative) (i32.const 1))))
              (else (global.set $positive (i32.add (global.get $positive) (i32.const 1))))))
            (else (if (call $in_list (i32.const 0x600) (local.get $start) (local.get $word_len))
              (then (if (local.get $negated)
                (then (global.set $positive (i32.add (global.get $positive) (i32.const 1))))
                (else (global.set $negative (i32.add (global.get $negative) (i32.const 1)))))))))
          (local.set $negated (call $in_list (i32.const 0x800) (local.get $start) (local.get $word_len))))
        (else
          (if (i32.or (i32.or
                (i32.eq (local.get $byte) (i32.const 46))
                (i32.eq (local.get $byte) (i32.const 33)))
                (i32.eq (local.get $byte) (i32.const 63)))
            (then
              (global.set $sentences (i32.add (global.get $sentences) (local.get $open)))
              (local.set $open (i32.const 0))
              (local.set $negated (i32.const 0))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))))
      (br $bytes)))

  ;; 0 done; 1 the input is larger than 1 MiB; 2 the host refused the input; 3 the host refused the output
  (func (export "process") (result i32)
    (local $len i32) (local $read i32) (local $got i32) (local $score i32) (local $sum i32)
    (if (i64.gt_u (call $input_len) (i64.extend_i32_u (global.get $input_max)))
      (then
        (call $log (i32.const 0) (i32.const 0x1c0) (i32.const 26))
        (return (i32.const 1))))
    (local.set $len (i32.wrap_i64 (call $input_len)))
    (loop $more
      (if (i32.lt_u (local.get $read) (local.get $len))
        (then
          (local.set $got (call $read_input
            (i32.add (global.get $input) (local.get $read))
            (i32.sub (local.get $len) (local.get $read))
            (local.get $read)))
          (if (i32.le_s (local.get $got) (i32.const 0)) (then (return (i32.const 2))))
          (local.set $read (i32.add (local.get $read) (local.get $got)))
          (br $more))))
    (call $analyse (local.get $len))

    (local.set $sum (i32.add (global.get $positive) (global.get $negative)))
    (if (local.get $sum)
      (then (local.set $score (i32.div_s
        (i32.mul (i32.sub (global.get $positive) (global.get $negative)) (i32.const 1000))
        (local.get $sum)))))

    (call $put (i32.const 0x100) (i32.const 9))
    (call $put_number (global.get $words))
    (call $put (i32.const 0x110) (i32.const 12))
    (call $put_number (global.get $distinct))
    (call $put (i32.const 0x120) (i32.const 13))
    (call $put_number (global.get $sentences))
    (call $put (i32.const 0x130) (i32.const 8))
    (call $put_top)
    (call $put (i32.const 0x160) (i32.const 13))
    (call $put_number (global.get $positive))
    (call $put (i32.const 0x170) (i32.const 12))
    (call $put_number (global.get $negative))
    (call $put (i32.const 0x180) (i32.const 9))
    (call $put_thousandths (local.get $score))
    (call $put (i32.const 0x190) (i32.const 10))
    (if (i32.gt_s (local.get $score) (i32.const 200))
      (then (call $put (i32.const 0x1a0) (i32.const 8)))
      (else (if (i32.lt_s (local.get $score) (i32.const -200))
        (then (call $put (i32.const 0x1a8) (i32.const 8)))
        (else (call $put (i32.const 0x1b0) (i32.const 7))))))
    (call $put (i32.const 0x1b8) (i32.const 2))

    (drop (call $record_metric (i32.const 0x1e0) (i32.const 5) (f64.convert_i32_u (global.get $words))))
    (if (i32.lt_s (call $write_output (global.get $answer) (global.get $answer_len)) (i32.const 0))
      (then (return (i32.const 3))))
    (i32.const 0)))
