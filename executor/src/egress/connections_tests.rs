//! Bare connections: what a name leads to, what is connected to, and guests that try more.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use trust_store::capability::{Capability, HostPattern};

use super::connections::Connections;
use super::tests::{egress, lab, names};
use super::{EgressRules, MAX_OF_AGENT, MAX_REQUESTS, Outlet, Refused};
use crate::admission::GrantSources;
use crate::runtime::{Call, CallError, CallLimits, Cancel, Outcome, PrepareError};
use crate::testing::texts::{POLL, RUN, STREAMS};

fn outlet(rules: EgressRules, table: &[(&str, &[&[&str]])]) -> Outlet {
    Outlet::new(&Arc::new(egress(rules, names(table))))
}

pub(super) fn of(outlet: &Outlet, granted: &[&str]) -> Arc<Connections> {
    let granted: Vec<Capability> = granted.iter().map(|text| text.parse().unwrap()).collect();
    outlet.connections(&granted).unwrap()
}

fn connect(connections: &Connections, to: &str) -> Result<(), &'static str> {
    let to: SocketAddr = to.parse().unwrap();
    let result = connections.connect(to).map_err(|refused| refused.reason());
    assert_eq!(connections.approves(to), result.is_ok(), "{to}");
    result
}

pub(super) async fn look_up(connections: &Arc<Connections>, name: &str) -> Result<usize, &'static str> {
    let found = match connections.look_up(name) {
        Ok(found) => found.await,
        Err(refused) => Err(refused),
    };
    found.map(|found| found.len()).map_err(|refused| refused.reason())
}

#[tokio::test]
async fn an_address_is_reached_by_the_name_and_the_port_that_were_granted() {
    let table = names(&[("db.lab.test", &[&["127.0.0.1"]]), ("other.lab.test", &[&["127.0.0.1"]])]);
    let outlet = Outlet::new(&Arc::new(egress(lab(), Arc::clone(&table))));
    let connections = of(&outlet, &["network:tcp:db.lab.test:5432", "network:https:other.lab.test"]);
    for name in ["other.lab.test", "evil.test", "a.db.lab.test", "127.0.0.1", "169.254.169.254"] {
        assert_eq!(look_up(&connections, name).await, Err("egress_denied_destination"), "{name}");
    }
    for name in ["*.lab.test", "db.lab.test.", "db.lab.test:5432", "::1", "", "db lab"] {
        assert_eq!(look_up(&connections, name).await, Err("egress_malformed"), "{name}");
    }
    assert_eq!(table.asked.load(Ordering::Relaxed), 0, "nobody is asked about what was not granted");
    assert_eq!(connect(&connections, "127.0.0.1:5432"), Err("egress_denied_destination"), "not looked up");
    assert_eq!(look_up(&connections, "DB.lab.test").await, Ok(1));
    assert_eq!(connect(&connections, "127.0.0.1:5432"), Ok(()));
    for to in ["127.0.0.1:5433", "127.0.0.1:443", "127.0.0.2:5432", "[::1]:5432", "1.1.1.1:5432"] {
        assert_eq!(connect(&connections, to), Err("egress_denied_destination"), "{to}");
    }
    // What another call looked up is not this one's.
    let another = of(&outlet, &["network:tcp:db.lab.test:5432"]);
    assert_eq!(connect(&another, "127.0.0.1:5432"), Err("egress_denied_destination"));
    assert!(outlet.connections(&["network:https:other.lab.test".parse().unwrap()]).is_none());
}

#[tokio::test]
async fn a_grant_may_name_an_address_or_leave_out_the_port() {
    let outlet = outlet(lab(), &[("db.lab.test", &[&["127.0.0.1"]])]);
    let by_address = of(&outlet, &["network:tcp:127.0.0.1:80"]);
    assert_eq!(connect(&by_address, "127.0.0.1:80"), Ok(()));
    assert_eq!(connect(&by_address, "127.0.0.1:81"), Err("egress_denied_destination"));
    assert_eq!(look_up(&by_address, "127.0.0.1").await, Ok(1));
    let without_port = of(&outlet, &["network:tcp:*.lab.test"]);
    assert_eq!(look_up(&without_port, "db.lab.test").await, Ok(1));
    assert_eq!(connect(&without_port, "127.0.0.1:443"), Ok(()));
    assert_eq!(connect(&without_port, "127.0.0.1:80"), Err("egress_denied_destination"));
}

#[tokio::test]
async fn a_name_that_changes_its_mind_leads_nowhere_else() {
    let answers: &[&[&str]] = &[&["127.0.0.1"], &["169.254.169.254"], &["127.0.0.1", "10.0.0.1"], &[]];
    let table = names(&[("db.lab.test", answers)]);
    let outlet = Outlet::new(&Arc::new(egress(lab(), Arc::clone(&table))));
    let connections = of(&outlet, &["network:tcp:db.lab.test:5432"]);
    assert_eq!(look_up(&connections, "db.lab.test").await, Ok(1));
    assert_eq!(connect(&connections, "127.0.0.1:5432"), Ok(()));
    assert_eq!(table.asked.load(Ordering::Relaxed), 1, "nobody is asked between look-up and connection");
    for _ in 0..2 {
        // Link-local; then one of two that is private.
        assert_eq!(look_up(&connections, "db.lab.test").await, Err("egress_denied_address"));
    }
    for to in ["169.254.169.254:5432", "10.0.0.1:5432"] {
        assert_eq!(connect(&connections, to), Err("egress_denied_destination"), "{to}");
    }
    assert_eq!(look_up(&connections, "db.lab.test").await, Err("egress_unreachable"));
    let fresh = of(&outlet, &["network:tcp:db.lab.test:5432"]);
    assert_eq!(connect(&fresh, "127.0.0.1:5432"), Err("egress_denied_destination"));
}

#[tokio::test]
async fn the_operator_narrows_and_no_grant_widens() {
    let own = "127.0.0.1:8446".parse().unwrap();
    let rules = EgressRules {
        deny_hosts: vec![HostPattern::new("secret.lab.test").unwrap()],
        blocked_ports: vec![9000],
        own: vec![own],
        ..lab()
    };
    let table: &[(&str, &[&[&str]])] = &[
        ("db.lab.test", &[&["127.0.0.1"]]),
        ("secret.lab.test", &[&["127.0.0.1"]]),
        ("inner.lab.test", &[&["10.0.0.1"]]),
        ("mapped.lab.test", &[&["::ffff:169.254.169.254"]]),
    ];
    let outlet = outlet(rules, table);
    let ports = ["22", "25", "3389", "9000", "8446", "5432"];
    let granted: Vec<String> = ports.map(|port| format!("network:tcp:*.lab.test:{port}")).into();
    let connections = of(&outlet, &granted.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(look_up(&connections, "secret.lab.test").await, Err("egress_denied_host"));
    for name in ["inner.lab.test", "mapped.lab.test"] {
        assert_eq!(look_up(&connections, name).await, Err("egress_denied_address"), "{name}");
    }
    assert_eq!(look_up(&connections, "db.lab.test").await, Ok(1));
    for port in ["22", "25", "3389", "9000"] {
        assert_eq!(connect(&connections, &format!("127.0.0.1:{port}")), Err("egress_denied_port"), "{port}");
        let granted = format!("network:tcp:db.lab.test:{port}").parse().unwrap();
        let Capability::Network { protocol, host, port } = &granted else { unreachable!() };
        assert_eq!(outlet.egress.lacks(*protocol, host, *port), Some("the port is blocked for guests"));
    }
    assert_eq!(connect(&connections, "127.0.0.1:8446"), Err("egress_denied_address"), "the executor itself");
    assert_eq!(connect(&connections, "127.0.0.1:5432"), Ok(()));
    // An address that is granted by itself is judged like any other.
    let metadata = of(&outlet, &["network:tcp:169.254.169.254:80"]);
    assert_eq!(connect(&metadata, "169.254.169.254:80"), Err("egress_denied_address"));
    assert_eq!(look_up(&metadata, "169.254.169.254").await, Err("egress_denied_address"));
}

#[tokio::test]
async fn sockets_and_questions_are_counted() {
    let outlet = outlet(lab(), &[("db.lab.test", &[&["127.0.0.1"]])]);
    let granted = ["network:tcp:db.lab.test:5432"];
    let calls: Vec<_> = (0..MAX_OF_AGENT as u32 / MAX_REQUESTS).map(|_| of(&outlet, &granted)).collect();
    for call in &calls {
        for socket in 0..MAX_REQUESTS {
            call.keep(socket, call.open().unwrap());
        }
        assert_eq!(call.open().unwrap_err(), Refused::Quota);
        // Giving one back makes room for others and not for this call.
        assert_eq!(call.used().requests, MAX_REQUESTS + 1);
    }
    let late = of(&outlet, &granted);
    assert_eq!(late.open().unwrap_err(), Refused::Busy);
    calls[0].let_go(7);
    assert_eq!(calls[0].open().unwrap_err(), Refused::Quota);
    late.keep(0, late.open().unwrap());
    assert_eq!(late.open().unwrap_err(), Refused::Busy);
    drop(calls);
    late.keep(1, late.open().unwrap());
    for _ in 0..MAX_REQUESTS {
        assert_eq!(look_up(&late, "db.lab.test").await, Ok(1));
    }
    assert_eq!(look_up(&late, "db.lab.test").await, Err("egress_quota"));
}

/// Looks `name` up, connects to what it leads to or, if that fails, to 127.0.0.1, on `port`, says "ping" `times` times, waits for
/// an answer and reads once. Its output: 0 or 1 + the error code of the look-up, of the beginning of the connection, of the connection,
/// whether writing and reading failed, and what it read.
pub(super) fn talks(name: &str, port: u16, times: u32) -> String {
    format!(
        r#"(component {STREAMS}{POLL}
  (import "wasi:io/error@0.2.1" (instance $io-error-2 (export "error" (type (sub resource)))))
  (alias export $io-error-2 "error" (type $error-2))
  (import "wasi:io/streams@0.2.1" (instance $input
    (export "input-stream" (type $is (sub resource)))
    (alias outer 1 $error-2 (type $e))
    (type $se' (variant (case "last-operation-failed" (own $e)) (case "closed")))
    (export "stream-error" (type $se (eq $se')))
    (alias outer 1 $pollable (type $p')) (export "pollable" (type $p (eq $p')))
    (export "[method]input-stream.subscribe" (func (param "self" (borrow $is)) (result (own $p))))
    (export "[method]input-stream.blocking-read"
      (func (param "self" (borrow $is)) (param "len" u64) (result (result (list u8) (error $se)))))))
  (alias export $input "input-stream" (type $input-stream))
  (import "wasi:sockets/network@0.2.0" (instance $network
    (export "network" (type (sub resource)))
    (type $ec' (enum {codes})) (export "error-code" (type (eq $ec')))
    (type $family' (enum "ipv4" "ipv6")) (export "ip-address-family" (type (eq $family')))
    (type $v4' (tuple u8 u8 u8 u8)) (export "ipv4-address" (type $v4 (eq $v4')))
    (type $v6' (tuple u16 u16 u16 u16 u16 u16 u16 u16)) (export "ipv6-address" (type $v6 (eq $v6')))
    (type $ip' (variant (case "ipv4" $v4) (case "ipv6" $v6))) (export "ip-address" (type (eq $ip')))
    (type $s4' (record (field "port" u16) (field "address" $v4))) (export "ipv4-socket-address" (type $s4 (eq $s4')))
    (type $s6' (record (field "port" u16) (field "flow-info" u32) (field "address" $v6) (field "scope-id" u32)))
    (export "ipv6-socket-address" (type $s6 (eq $s6')))
    (type $sa' (variant (case "ipv4" $s4) (case "ipv6" $s6))) (export "ip-socket-address" (type (eq $sa')))))
  (alias export $network "network" (type $net))
  (alias export $network "error-code" (type $code))
  (alias export $network "ip-address-family" (type $family))
  (alias export $network "ip-address" (type $ip))
  (alias export $network "ip-socket-address" (type $address))
  (import "wasi:sockets/instance-network@0.2.0" (instance $instance
    (alias outer 1 $net (type $n'))
    (export "network" (type $n (eq $n')))
    (export "instance-network" (func (result (own $n))))))
  (import "wasi:sockets/ip-name-lookup@0.2.0" (instance $lookup
    (alias outer 1 $net (type $n')) (export "network" (type $n (eq $n')))
    (alias outer 1 $code (type $ec')) (export "error-code" (type $ec (eq $ec')))
    (alias outer 1 $ip (type $ip')) (export "ip-address" (type $ip (eq $ip')))
    (alias outer 1 $pollable (type $p')) (export "pollable" (type $p (eq $p')))
    (export "resolve-address-stream" (type $ras (sub resource)))
    (export "resolve-addresses" (func (param "network" (borrow $n)) (param "name" string)
      (result (result (own $ras) (error $ec)))))
    (export "[method]resolve-address-stream.resolve-next-address" (func (param "self" (borrow $ras))
      (result (result (option $ip) (error $ec)))))
    (export "[method]resolve-address-stream.subscribe" (func (param "self" (borrow $ras)) (result (own $p))))))
  (import "wasi:sockets/tcp@0.2.0" (instance $tcp
    (alias outer 1 $net (type $n')) (export "network" (type $n (eq $n')))
    (alias outer 1 $code (type $ec')) (export "error-code" (type $ec (eq $ec')))
    (alias outer 1 $address (type $sa')) (export "ip-socket-address" (type $sa (eq $sa')))
    (alias outer 1 $pollable (type $p')) (export "pollable" (type $p (eq $p')))
    (alias outer 1 $input-stream (type $is')) (export "input-stream" (type $is (eq $is')))
    (alias outer 1 $output-stream (type $os')) (export "output-stream" (type $os (eq $os')))
    (export "tcp-socket" (type $t (sub resource)))
    (export "[method]tcp-socket.start-connect" (func (param "self" (borrow $t)) (param "network" (borrow $n))
      (param "remote-address" $sa) (result (result (error $ec)))))
    (export "[method]tcp-socket.finish-connect" (func (param "self" (borrow $t))
      (result (result (tuple (own $is) (own $os)) (error $ec)))))
    (export "[method]tcp-socket.subscribe" (func (param "self" (borrow $t)) (result (own $p))))))
  (alias export $tcp "tcp-socket" (type $socket))
  (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $create
    (alias outer 1 $code (type $ec')) (export "error-code" (type $ec (eq $ec')))
    (alias outer 1 $family (type $f')) (export "ip-address-family" (type $f (eq $f')))
    (alias outer 1 $socket (type $t')) (export "tcp-socket" (type $t (eq $t')))
    (export "create-tcp-socket" (func (param "address-family" $f) (result (result (own $t) (error $ec)))))))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $net (canon lower (func $instance "instance-network")))
  (core func $ask (canon lower (func $lookup "resolve-addresses") (memory $libc "memory")))
  (core func $next (canon lower (func $lookup "[method]resolve-address-stream.resolve-next-address") (memory $libc "memory")))
  (core func $ask-poll (canon lower (func $lookup "[method]resolve-address-stream.subscribe")))
  (core func $create (canon lower (func $create "create-tcp-socket") (memory $libc "memory")))
  (core func $start (canon lower (func $tcp "[method]tcp-socket.start-connect") (memory $libc "memory")))
  (core func $finish (canon lower (func $tcp "[method]tcp-socket.finish-connect") (memory $libc "memory")))
  (core func $tcp-poll (canon lower (func $tcp "[method]tcp-socket.subscribe")))
  (core func $input-poll (canon lower (func $input "[method]input-stream.subscribe")))
  (core func $read (canon lower (func $input "[method]input-stream.blocking-read") (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core module $main
    (import "host" "get-stdout" (func $get (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "block" (func $block (param i32)))
    (import "host" "net" (func $net (result i32)))
    (import "host" "ask" (func $ask (param i32 i32 i32 i32)))
    (import "host" "next" (func $next (param i32 i32)))
    (import "host" "ask-poll" (func $ask-poll (param i32) (result i32)))
    (import "host" "create" (func $create (param i32 i32)))
    (import "host" "start" (func $start (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "host" "finish" (func $finish (param i32 i32)))
    (import "host" "tcp-poll" (func $tcp-poll (param i32) (result i32)))
    (import "host" "input-poll" (func $input-poll (param i32) (result i32)))
    (import "host" "read" (func $read (param i32 i64 i32)))
    (import "libc" "memory" (memory 1))
    (data (i32.const 256) "{name}") (data (i32.const 8192) "ping")
    ;; where an address lies: 127.0.0.1 until a name leads elsewhere
    (data (i32.const 134) "\7f\00\00\01")
    (func (export "run") (result i32) (local $net i32) (local $socket i32) (local $left i32) (local $length i32)
      (local.set $length (i32.const 4))
      (local.set $net (call $net))
      (block $end
        (call $ask (local.get $net) (i32.const 256) (i32.const {length}) (i32.const 16))
        (if (i32.load8_u (i32.const 16))
          (then (i32.store8 (i32.const 0) (i32.add (i32.const 1) (i32.load8_u (i32.const 20)))))
          (else
            (call $block (call $ask-poll (i32.load (i32.const 20))))
            (call $next (i32.load (i32.const 20)) (i32.const 128))
            (if (i32.load8_u (i32.const 128))
              (then
                (i32.store8 (i32.const 0) (i32.add (i32.const 1) (i32.load8_u (i32.const 130))))
                (i32.store (i32.const 134) (i32.const 0x0100007f))))))
        (call $create (i32.const 0) (i32.const 32))
        (if (i32.load8_u (i32.const 32))
          (then (i32.store8 (i32.const 1) (i32.add (i32.const 1) (i32.load8_u (i32.const 36)))) (br $end)))
        (local.set $socket (i32.load (i32.const 36)))
        (call $start (local.get $socket) (local.get $net) (i32.const 0) (i32.const {port})
          (i32.load8_u (i32.const 134)) (i32.load8_u (i32.const 135)) (i32.load8_u (i32.const 136)) (i32.load8_u (i32.const 137))
          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 48))
        (if (i32.load8_u (i32.const 48))
          (then (i32.store8 (i32.const 1) (i32.add (i32.const 1) (i32.load8_u (i32.const 49)))) (br $end)))
        (call $block (call $tcp-poll (local.get $socket)))
        (call $finish (local.get $socket) (i32.const 64))
        (if (i32.load8_u (i32.const 64))
          (then (i32.store8 (i32.const 2) (i32.add (i32.const 1) (i32.load8_u (i32.const 68)))) (br $end)))
        (local.set $left (i32.const {times}))
        (loop $again
          (call $write (i32.load (i32.const 72)) (i32.const 8192) (i32.const {piece}) (i32.const 80))
          (if (i32.load8_u (i32.const 80)) (then (i32.store8 (i32.const 3) (i32.const 1)) (br $end)))
          (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (call $block (call $input-poll (i32.load (i32.const 68))))
        (call $read (i32.load (i32.const 68)) (i64.const 100) (i32.const 96))
        (if (i32.load8_u (i32.const 96)) (then (i32.store8 (i32.const 3) (i32.const 2)) (br $end)))
        (local.set $length (i32.add (i32.const 4) (i32.load (i32.const 104))))
        (memory.copy (i32.const 4) (i32.load (i32.const 100)) (i32.load (i32.const 104))))
      (call $write (call $get) (i32.const 0) (local.get $length) (i32.const 160))
      (i32.const 0)))
  (core instance $main (instantiate $main
    (with "host" (instance (export "get-stdout" (func $get-stdout)) (export "write" (func $write))
      (export "block" (func $block)) (export "net" (func $net)) (export "ask" (func $ask)) (export "next" (func $next))
      (export "ask-poll" (func $ask-poll)) (export "create" (func $create)) (export "start" (func $start))
      (export "finish" (func $finish)) (export "tcp-poll" (func $tcp-poll))
      (export "input-poll" (func $input-poll)) (export "read" (func $read))))
    (with "libc" (instance $libc))))
  {RUN})"#,
        length = name.len(),
        piece = if times == 1 { 4 } else { 4096 },
        codes = CODES.iter().map(|code| format!("\"{code}\" ")).collect::<String>(),
    )
}

const CODES: [&str; 21] = [
    "unknown",
    "access-denied",
    "not-supported",
    "invalid-argument",
    "out-of-memory",
    "timeout",
    "concurrency-conflict",
    "not-in-progress",
    "would-block",
    "invalid-state",
    "new-socket-limit",
    "address-not-bindable",
    "address-in-use",
    "remote-unreachable",
    "connection-refused",
    "connection-reset",
    "connection-aborted",
    "datagram-too-large",
    "name-unresolvable",
    "temporary-resolver-failure",
    "permanent-resolver-failure",
];

/// 1 + an error code, as guests write it.
pub(super) fn code(name: &str) -> u8 {
    1 + u8::try_from(CODES.iter().position(|code| *code == name).unwrap()).unwrap()
}

/// A server that answers "pong" to the first bytes of each connection, and reads on until its end.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut buffer = vec![0; 64 << 10];
                if matches!(stream.read(&mut buffer), Ok(1..)) && stream.write_all(b"pong").is_ok() {
                    while matches!(stream.read(&mut buffer), Ok(1..)) {}
                }
            });
        }
    });
    port
}

/// Runs a guest that was granted `granted`, where `db.lab.test` is this machine.
async fn run(text: String, granted: String) -> Result<Outcome, PrepareError> {
    let minute = std::time::Duration::from_secs(60);
    let limits = CallLimits { wall: minute, cpu: minute, ..CallLimits::default() };
    let called = begin(text, granted, limits, Cancel::default());
    called.join().unwrap().map(|ended| ended.unwrap())
}

/// As [`run`], under other limits, on a thread of its own, until `cancel` is raised.
pub(super) fn begin(
    text: String,
    granted: String,
    limits: CallLimits,
    cancel: Cancel,
) -> JoinHandle<Result<Result<Outcome, CallError>, PrepareError>> {
    let table: &[(&str, &[&[&str]])] =
        &[("db.lab.test", &[&["127.0.0.1"]]), ("inner.lab.test", &[&["10.0.0.1"]])];
    let network = Some(Arc::new(egress(lab(), names(table))));
    let sources = GrantSources { network, ..Default::default() };
    let capability = vec![granted.parse().unwrap()];
    let grants = sources.grant(&capability, capability.clone(), &[]).unwrap();
    std::thread::spawn(move || {
        let prepared = crate::testing::prepare(&text, grants, limits)?;
        Ok(crate::testing::runtime().call(&prepared, Call { cancel: Some(cancel), ..Call::default() }))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_talks_to_a_granted_host_over_tcp() {
    let port = server();
    let granted = |port| format!("network:tcp:db.lab.test:{port}");
    let told = run(talks("db.lab.test", port, 1), granted(port)).await.unwrap();
    assert_eq!(told.output, b"\0\0\0\0pong", "{:?}", told.log);

    // Another name than the granted one, and its address after all.
    let told = run(talks("inner.lab.test", port, 1), granted(port)).await.unwrap();
    assert_eq!(told.output, [code("access-denied"), code("access-denied"), 0, 0]);
    let lines: Vec<_> = told.log.iter().map(|line| line.text.as_str()).collect();
    assert!(lines.iter().all(|line| line.starts_with("egress_denied_destination: ")), "{lines:?}");
    assert_eq!(lines.len(), 2);
    // Another port of the granted host.
    let told = run(talks("db.lab.test", port, 1), granted(1)).await.unwrap();
    assert_eq!(told.output, [0, code("access-denied"), 0, 0]);
    // A granted name that leads where guests may not go.
    let told = run(talks("inner.lab.test", port, 1), format!("network:tcp:*.lab.test:{port}")).await.unwrap();
    assert_eq!(told.output, [code("access-denied"), code("access-denied"), 0, 0]);
    assert!(told.log[0].text.starts_with("egress_denied_address: "), "{:?}", told.log);
    // Nobody listens there.
    let told = run(talks("db.lab.test", 1, 1), granted(1)).await.unwrap();
    assert_eq!(told.output, [0, 0, code("connection-refused"), 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_sends_no_more_than_its_share() {
    let port = server();
    // 64 MiB in pieces of 4 KiB, and one more.
    let told = run(talks("db.lab.test", port, (64 << 20) / 4096), format!("network:tcp:db.lab.test:{port}"));
    assert_eq!(told.await.unwrap().output, b"\0\0\0\0pong");
    let told =
        run(talks("db.lab.test", port, (64 << 20) / 4096 + 1), format!("network:tcp:db.lab.test:{port}"));
    let told = told.await.unwrap();
    assert_eq!(told.output, [0, 0, 0, 1]);
    assert!(told.log.iter().any(|line| line.text.starts_with("egress_quota: ")), "{:?}", told.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_bound_and_without_the_grant_there_are_no_sockets() {
    let port = server();
    let granted = format!("network:tcp:db.lab.test:{port}");
    let binds = talks("db.lab.test", port, 1)
        .replace("start-connect", "start-bind")
        .replace("remote-address", "local-address");
    assert_eq!(run(binds, granted.clone()).await.unwrap().output, [0, code("access-denied"), 0, 0]);
    assert_eq!(run(udp(), granted).await.unwrap().output, [code("access-denied")]);
    for text in [talks("db.lab.test", port, 1), udp()] {
        let refused = run(text, "network:https:db.lab.test".to_owned()).await.err().unwrap();
        let PrepareError::ImportNotGranted { name } = refused else { panic!("{refused:?}") };
        assert!(name.starts_with("wasi:sockets/"), "{name}");
    }
}

/// Asks for a socket of UDP; one byte of output: 0 or 1 + the error code.
fn udp() -> String {
    format!(
        r#"(component {STREAMS}
  (import "wasi:sockets/network@0.2.0" (instance $network
    (type $ec' (enum {codes})) (export "error-code" (type (eq $ec')))
    (type $family' (enum "ipv4" "ipv6")) (export "ip-address-family" (type (eq $family')))))
  (alias export $network "error-code" (type $code))
  (alias export $network "ip-address-family" (type $family))
  (import "wasi:sockets/udp@0.2.0" (instance $udp (export "udp-socket" (type (sub resource)))))
  (alias export $udp "udp-socket" (type $socket))
  (import "wasi:sockets/udp-create-socket@0.2.0" (instance $create
    (alias outer 1 $code (type $ec')) (export "error-code" (type $ec (eq $ec')))
    (alias outer 1 $family (type $f')) (export "ip-address-family" (type $f (eq $f')))
    (alias outer 1 $socket (type $u')) (export "udp-socket" (type $u (eq $u')))
    (export "create-udp-socket" (func (param "address-family" $f) (result (result (own $u) (error $ec)))))))
  (core func $create (canon lower (func $create "create-udp-socket") (memory $libc "memory")))
  (core module $main
    (import "host" "get-stdout" (func $get (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "create" (func $create (param i32 i32)))
    (import "libc" "memory" (memory 1))
    (func (export "run") (result i32)
      (call $create (i32.const 0) (i32.const 16))
      (if (i32.load8_u (i32.const 16)) (then (i32.store8 (i32.const 0) (i32.add (i32.const 1) (i32.load8_u (i32.const 20))))))
      (call $write (call $get) (i32.const 0) (i32.const 1) (i32.const 64))
      (i32.const 0)))
  (core instance $main (instantiate $main
    (with "host" (instance (export "get-stdout" (func $get-stdout)) (export "write" (func $write))
      (export "create" (func $create))))
    (with "libc" (instance $libc))))
  {RUN})"#,
        codes = CODES.iter().map(|code| format!("\"{code}\" ")).collect::<String>(),
    )
}
