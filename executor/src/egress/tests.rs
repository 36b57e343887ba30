//! Attacks on the way out, each with its reason, and what is left: a request that is sent as it was judged.

mod counted;

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::clock;
use crate::runtime::{Cancel, KillCause};

/// Names of these tests: each is asked for in order, the last list stays.
#[derive(Default)]
pub(super) struct Table {
    answers: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
    pub(super) asked: AtomicUsize,
}

impl Names for Table {
    fn addresses(&self, host: &str, _: OwnedSemaphorePermit) -> resolver::Found {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.answers.lock();
        let found = match answers.get_mut(host) {
            Some(lists) if lists.len() > 1 => lists.remove(0),
            Some(lists) => lists[0].clone(),
            None => Vec::new(),
        };
        Box::pin(async move { Ok(found) })
    }
}

pub(super) fn names(table: &[(&str, &[&[&str]])]) -> Arc<Table> {
    let parse = |list: &&[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
    let answers =
        table.iter().map(|(name, lists)| ((*name).to_owned(), lists.iter().map(parse).collect())).collect();
    Arc::new(Table { answers: Mutex::new(answers), asked: AtomicUsize::new(0) })
}

pub(super) fn egress(rules: EgressRules, names: Arc<Table>) -> Egress {
    Egress::with_names([reqwest::Client::builder(), reqwest::Client::builder()], rules, names).unwrap()
}

/// Loopback opened, clear text allowed: for servers of these tests.
pub(super) fn lab() -> EgressRules {
    EgressRules {
        addresses: AddressRules { open: vec!["127.0.0.1".parse().unwrap()], deny: Vec::new() },
        clear_text: vec![HostPattern::new("*.lab.test").unwrap(), HostPattern::new("127.0.0.1").unwrap()],
        ..EgressRules::default()
    }
}

/// A server that answers every connection with `answer`; what it read is handed back.
pub(super) fn server(answer: &'static str) -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut read = Vec::new();
            let mut buffer = [0; 4096];
            while !read.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(count @ 1..) => read.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
            }
            let _ = stream.write_all(answer.as_bytes());
            if sender.send(String::from_utf8_lossy(&read).into_owned()).is_err() {
                return;
            }
        }
    });
    (port, received)
}

fn ask(egress: &Egress, granted: &str, request: &str) -> Result<serde_json::Value, Refused> {
    ask_within(egress, granted, request, Duration::from_secs(20), &Cancel::default())
}

fn ask_within(
    egress: &Egress,
    granted: &str,
    request: &str,
    time: Duration,
    cancel: &Cancel,
) -> Result<serde_json::Value, Refused> {
    let deadline = clock::monotonic() + time;
    let mut used = NetworkUse::default();
    let granted = granted.parse().unwrap();
    let share = Share::default();
    let answer = egress.perform(&share, &granted, request.as_bytes(), cancel, deadline, &mut used)?;
    Ok(serde_json::from_slice(&answer).unwrap())
}

pub(super) fn to(url: &str) -> String {
    serde_json::json!({ "url": url }).to_string()
}

fn reason(egress: &Egress, granted: &str, request: &str) -> &'static str {
    ask(egress, granted, request).unwrap_err().reason()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_names_hosts_by_whole_labels() {
    let names = names(&[]);
    let egress = egress(EgressRules::default(), Arc::clone(&names));
    let granted = "network:https:*.openai.com";
    for url in [
        "https://evilopenai.com/",
        "https://openai.com.evil.net/",
        "https://openai.com/",
        "https://xn--openi-6ve.com/",
        "https://api.openai.com:8443/",
        "http://api.openai.com/",
        "https://a.b.evil/?x=.openai.com",
    ] {
        assert_eq!(reason(&egress, granted, &to(url)), "egress_denied_destination", "{url}");
    }
    assert_eq!(names.asked.load(Ordering::Relaxed), 0, "nothing was asked about what is not granted");
    // The granted ones get as far as their name, in whatever case they are written.
    for url in ["https://api.openai.com/v1", "https://API.OpenAI.com", "https://a.b.openai.com:443/"] {
        assert_eq!(reason(&egress, granted, &to(url)), "egress_unreachable", "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_two_readings_is_refused_before_policy() {
    let names = names(&[]);
    let egress = egress(lab(), Arc::clone(&names));
    for url in [
        "https://api.lab.test@evil.net/",
        "https://user:pw@api.lab.test/",
        "https:api.lab.test/",
        "//api.lab.test/",
        "https:\\\\api.lab.test/",
        "https://api.lab.test\\@evil.net/",
        "https://api.lab.test./",
        "https:///api.lab.test/",
        "https://api.lab.test:0443/",
        "https://api.lab.test:+443/",
        "https://api.lab.test:/",
        "https://api.lab.test:0/",
        "https://api.lab.test:65536/",
        "https://api%2elab.test/",
        "https://äpi.lab.test/",
        "https://[::1]/",
        "https://[::ffff:7f00:1]/",
        "https://127.1/",
        "https://0x7f.0.0.1/",
        "https://2130706433/",
        "https://127.0.0.01/",
        "https://api.lab.test/#f",
        "https://api.lab.test/\u{9}",
        "https://api.lab.test/ x",
        "ftp://api.lab.test/",
        "file:///etc/passwd",
        "https://*.lab.test/",
        "HTTPS://api.lab.test/",
        "https://api_x.lab.test/",
        "",
    ] {
        assert_eq!(reason(&egress, "network:http:*.lab.test", &to(url)), "egress_malformed", "{url}");
    }
    let with = |members: &str| format!(r#"{{"url":"https://api.lab.test/",{members}}}"#);
    for members in [
        r#""method":"CONNECT""#,
        r#""method":"TRACE""#,
        r#""method":"get""#,
        r#""method":"GET /x HTTP/1.1\r\nA: b""#,
        r#""headers":[["host","evil.net"]]"#,
        r#""headers":[["Host","api.lab.test"]]"#,
        r#""headers":[["content-length","0"],["content-length","5"]]"#,
        r#""headers":[["transfer-encoding","chunked"]]"#,
        r#""headers":[["x","a\r\nhost: evil.net"]]"#,
        r#""headers":[["x\r\ny","z"]]"#,
        r#""headers":[["","z"]]"#,
        r#""headers":[["proxy-authorization","x"]]"#,
        r#""headers":[["connection","upgrade"]]"#,
        r#""body":"aGk=""#,
        r#""method":"POST","body":"aGk=","text":"hi""#,
        r#""method":"POST","body":"?""#,
        r#""proxy":"http://evil.net""#,
        r#""timeout":0"#,
    ] {
        assert_eq!(
            reason(&egress, "network:http:*.lab.test", &with(members)),
            "egress_malformed",
            "{members}"
        );
    }
    let many: Vec<(String, String)> = (0..65).map(|n| (format!("x-{n}"), String::new())).collect();
    let long = vec![("x".to_owned(), "y".repeat(message::MAX_HEADER_BYTES))];
    for headers in [many, long] {
        let request = serde_json::json!({"url": "https://api.lab.test/", "headers": headers}).to_string();
        assert_eq!(reason(&egress, "network:http:*.lab.test", &request), "egress_too_large");
    }
    assert_eq!(names.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_decides_over_every_grant() {
    let rules = EgressRules {
        deny_hosts: vec![HostPattern::new("*.internal.test").unwrap()],
        blocked_ports: vec![8080],
        ..lab()
    };
    let egress = egress(rules, names(&[]));
    let cases = [
        ("network:https:*.internal.test", "https://db.internal.test/", "egress_denied_host"),
        ("network:http:api.lab.test:22", "https://api.lab.test:22/", "egress_denied_port"),
        ("network:https:api.lab.test:25", "https://api.lab.test:25/", "egress_denied_port"),
        ("network:https:api.lab.test:3389", "https://api.lab.test:3389/", "egress_denied_port"),
        ("network:https:api.lab.test:8080", "https://api.lab.test:8080/", "egress_denied_port"),
        ("network:http:api.other.test", "http://api.other.test/", "egress_denied_clear_text"),
        ("network:https:api.lab.test", "http://api.lab.test/", "egress_denied_destination"),
        ("network:https:10.0.0.1", "https://10.0.0.1/", "egress_denied_address"),
        ("network:https:169.254.169.254", "https://169.254.169.254/latest/", "egress_denied_address"),
    ];
    for (granted, url, expected) in cases {
        assert_eq!(reason(&egress, granted, &to(url)), expected, "{url}");
    }
    let lacks = |text: &str| {
        let Ok(Capability::Network { protocol, host, port }) = text.parse() else { panic!("{text}") };
        egress.lacks(protocol, &host, port)
    };
    for refused in
        ["network:tcp:api.lab.test:22", "network:https:api.lab.test:22", "network:https:*.db.internal.test"]
    {
        assert!(lacks(refused).is_some(), "{refused}");
    }
    for provided in
        ["network:https:api.lab.test", "network:tcp:api.lab.test", "network:tcp:api.lab.test:5432"]
    {
        assert_eq!(lacks(provided), None, "{provided}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_where_guests_may_not_go_is_refused() {
    let table: &[(&str, &[&[&str]])] = &[
        ("metadata.lab.test", &[&["169.254.169.254"]]),
        ("loop.lab.test", &[&["127.0.0.2"]]),
        ("private.lab.test", &[&["10.0.0.7"]]),
        ("mapped.lab.test", &[&["::ffff:169.254.169.254"]]),
        ("six.lab.test", &[&["::1"]]),
        ("unique.lab.test", &[&["fd00:ec2::254"]]),
        // One good address does not buy the other one's way in.
        ("mixed.lab.test", &[&["1.1.1.1", "192.168.0.1"]]),
    ];
    let egress = egress(lab(), names(table));
    for (name, _) in table {
        for scheme in ["http", "https"] {
            let refused = reason(&egress, "network:http:*.lab.test", &to(&format!("{scheme}://{name}/")));
            assert_eq!(refused, "egress_denied_address", "{scheme} {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_asked_for_once_and_what_was_judged_is_connected_to() {
    let (port, received) =
        server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: b\r\nconnection: close\r\n\r\nhi");
    // After the first answer the name means the metadata service.
    let names = names(&[("swap.lab.test", &[&["127.0.0.1"], &["169.254.169.254"]])]);
    let egress = egress(lab(), Arc::clone(&names));
    let granted = format!("network:http:swap.lab.test:{port}");
    let request = serde_json::json!({
        "method": "POST", "url": format!("http://swap.lab.test:{port}/v1?x=1"), "headers": [["x-own", "1"]], "text": "body",
    });
    let answer = ask(&egress, &granted, &request.to_string()).unwrap();
    assert_eq!(names.asked.load(Ordering::Relaxed), 1);
    assert_eq!((answer["status"].as_u64(), answer["text"].as_str()), (Some(200), Some("hi")));
    let fields = answer["headers"].as_array().unwrap();
    assert!(fields.contains(&serde_json::json!(["x-a", "b"])), "{fields:?}");
    assert!(!fields.iter().any(|field| field[0] == "connection"), "{fields:?}");
    let sent = received.recv().unwrap().to_lowercase();
    assert!(sent.starts_with("post /v1?x=1 http/1.1\r\n"), "{sent}");
    assert!(sent.contains(&format!("host: swap.lab.test:{port}\r\n")) && sent.contains("x-own: 1"), "{sent}");
    assert!(sent.contains("content-length: 4"), "{sent}");
    // The next request asks anew, and no connection of before is used again.
    assert_eq!(reason(&egress, &granted, &request.to_string()), "egress_denied_address");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_opened_is_not_reached_on_the_ports_of_this_executor() {
    let (port, asked) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let names = || names(&[("own.lab.test", &[&["127.0.0.1"]])]);
    let requests = ["127.0.0.1", "own.lab.test"]
        .map(|host| (format!("network:http:{host}:{port}"), to(&format!("http://{host}:{port}/"))));
    let egress_with = |own: &str| egress(EgressRules { own: vec![own.parse().unwrap()], ..lab() }, names());
    for own in [format!("0.0.0.0:{port}"), format!("[::]:{port}"), format!("127.0.0.1:{port}")] {
        for (granted, request) in &requests {
            assert_eq!(reason(&egress_with(&own), granted, request), "egress_denied_address", "{own}");
        }
    }
    assert!(asked.try_recv().is_err(), "nobody was asked");
    for (granted, request) in &requests {
        assert!(ask(&egress_with("127.0.0.1:1"), granted, request).is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_goes_back_to_the_guest() {
    let (port, _received) =
        server("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest/\r\ncontent-length: 0\r\n\r\n");
    let egress = egress(lab(), names(&[]));
    let granted = format!("network:http:127.0.0.1:{port}");
    let answer = ask(&egress, &granted, &to(&format!("http://127.0.0.1:{port}/"))).unwrap();
    assert_eq!(answer["status"], 302);
    let follow = to("http://169.254.169.254/latest/");
    assert_eq!(reason(&egress, &granted, &follow), "egress_denied_destination");
    assert_eq!(reason(&egress, "network:http:169.254.169.254", &follow), "egress_denied_clear_text");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_answers_costs_the_time_of_the_call_and_no_more() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let egress = egress(lab(), names(&[]));
    let (granted, request) =
        (format!("network:http:127.0.0.1:{port}"), to(&format!("http://127.0.0.1:{port}/")));
    let short = Duration::from_millis(50);
    let late = ask_within(&egress, &granted, &request, short, &Cancel::default()).unwrap_err();
    assert_eq!(late.reason(), "egress_timeout");
    let revoked = Cancel::default();
    revoked.raise(KillCause::Revoked);
    let stopped = ask_within(&egress, &granted, &request, Duration::from_secs(600), &revoked).unwrap_err();
    assert_eq!(stopped.reason(), "egress_stopped");
    drop(silent);
    assert_eq!(reason(&egress, &granted, &request), "egress_unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_agent_never_has_the_whole_way_out() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let egress = Arc::new(egress(lab(), names(&[])));
    let granted = format!("network:http:127.0.0.1:{port}").parse().unwrap();
    let request = to(&format!("http://127.0.0.1:{port}/"));
    let (greedy, other) = (Outlet::new(&egress), Outlet::new(&egress));
    let taken: Vec<_> =
        (0..MAX_OF_AGENT).map(|_| Arc::clone(&greedy.share.under_way).try_acquire_owned().unwrap()).collect();
    let reason = |outlet: &Outlet| {
        let deadline = clock::monotonic() + Duration::from_millis(50);
        let mut used = NetworkUse::default();
        let ended = outlet.perform(&granted, request.as_bytes(), &Cancel::default(), deadline, &mut used);
        ended.unwrap_err().reason()
    };
    assert_eq!(reason(&greedy), "egress_busy");
    assert_eq!(reason(&other), "egress_timeout", "it was sent");
    drop(taken);
    assert_eq!(reason(&greedy), "egress_timeout");
    assert_eq!(MAX_OF_AGENT * 4, MAX_UNDER_WAY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_has_a_share_of_the_network() {
    let egress = egress(lab(), names(&[]));
    let share = Share::default();
    let granted = "network:https:api.lab.test".parse().unwrap();
    let (cancel, deadline) = (Cancel::default(), clock::monotonic() + Duration::from_secs(20));
    let mut used = NetworkUse::default();
    let ask = |used: &mut NetworkUse, request: &str| {
        egress.perform(&share, &granted, request.as_bytes(), &cancel, deadline, used).unwrap_err().reason()
    };
    // What is refused counts as well: probing is work too.
    for _ in 0..MAX_REQUESTS {
        assert_eq!(ask(&mut used, "{}"), "egress_malformed");
    }
    assert_eq!(ask(&mut used, "{}"), "egress_quota");
    let mut used = NetworkUse { sent: MAX_BYTES, ..NetworkUse::default() };
    let request = r#"{"method":"PUT","url":"https://api.lab.test/","text":"x"}"#;
    assert_eq!(ask(&mut used, request), "egress_quota");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_is_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 65_536]).is_ok() {}
    });
    let egress = egress(lab(), names(&[]));
    let request = to(&format!("http://127.0.0.1:{port}/"));
    assert_eq!(reason(&egress, &format!("network:http:127.0.0.1:{port}"), &request), "egress_too_large");
}

/// A core module that uses one handle once and writes out what came.
fn guest(capability: &str, request: &str) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let (c, r) = (capability.len(), request.len());
    format!(
        r#"(module
          (import "mentat" "request_capability" (func $request (param i32 i32) (result i32)))
          (import "mentat" "invoke_capability" (func $invoke (param i32 i32 i32 i32 i32) (result i32)))
          (import "mentat" "buffer_read" (func $read (param i32 i32 i32 i64) (result i32)))
          (import "mentat" "write_output" (func $write (param i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "{}") (data (i32.const 1000) "request") (data (i32.const 2000) "{}")
          (func (export "process") (result i32) (local $b i32)
            (local.set $b (call $invoke (call $request (i32.const 0) (i32.const {c}))
                                        (i32.const 1000) (i32.const 7) (i32.const 2000) (i32.const {r})))
            (if (i32.lt_s (local.get $b) (i32.const 0)) (then (return (local.get $b))))
            (drop (call $write (i32.const 8000)
                               (call $read (local.get $b) (i32.const 8000) (i32.const 9000) (i64.const 0))))
            (i32.const 0)))"#,
        quoted(capability),
        quoted(request),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_reaches_what_was_granted_and_learns_why_it_does_not_reach_more() {
    let (port, _received) = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
    let granted = format!("network:http:127.0.0.1:{port}");
    let network = Some(Arc::new(egress(lab(), names(&[]))));
    let sources = crate::admission::GrantSources { network, ..Default::default() };
    let run = |url: String| {
        let capability = vec![granted.parse().unwrap()];
        let grants = sources.grant(&capability, capability.clone(), &[]).unwrap();
        let text = guest(&granted, &to(&url));
        std::thread::spawn(move || {
            let limits = crate::runtime::CallLimits::default();
            let prepared = crate::testing::prepare(&text, grants, limits).unwrap();
            crate::testing::runtime().call(&prepared, crate::runtime::Call::default()).unwrap()
        })
    };
    let reached = run(format!("http://127.0.0.1:{port}/")).join().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&reached.output).unwrap();
    assert_eq!((answer["status"].as_u64(), answer["text"].as_str()), (Some(200), Some("hi")));

    let refused = run("http://169.254.169.254/".to_owned()).join().unwrap();
    assert_eq!(refused.exit_code, ErrorCode::PolicyDenied as i32);
    assert!(refused.log[0].text.starts_with("egress_denied_destination: "), "{:?}", refused.log);
}
