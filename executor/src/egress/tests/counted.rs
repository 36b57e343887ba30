//! What guests were refused on the way out, in the series where operators see it.

use super::super::connections_tests::talks;
use super::*;
use crate::admission::GrantSources;
use crate::executor::Terms;
use crate::runtime::CallLimits;
use crate::testing::{Server, admitted};

/// A listener that takes connections, and answers none or without end.
fn peer(endless: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming().flatten() {
            if !endless {
                silent.push(stream);
                continue;
            }
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b'x'; 65_536]).is_ok() {}
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sent_and_not_answered_is_counted_by_its_reason() {
    let table: &[(&str, &[&[&str]])] = &[
        ("metadata.lab.test", &[&["169.254.169.254"]]),
        ("mapped.lab.test", &[&["::ffff:10.0.0.7"]]),
        ("swap.lab.test", &[&["127.0.0.1"], &["169.254.169.254"]]),
    ];
    let rules = EgressRules { deny_hosts: vec![HostPattern::new("*.internal.lab.test").unwrap()], ..lab() };
    let way_out = Arc::new(egress(rules, names(table)));
    let (redirects, _received) =
        server("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest/\r\ncontent-length: 0\r\n\r\n");
    let (silent, endless) = (peer(false), peer(true));
    let local =
        |port: u16| (format!("network:http:127.0.0.1:{port}"), to(&format!("http://127.0.0.1:{port}/")));
    let of_lab = |request: String| ("network:http:*.lab.test".to_owned(), request);
    let swap = || {
        (format!("network:http:swap.lab.test:{redirects}"), to(&format!("http://swap.lab.test:{redirects}/")))
    };
    let headers: Vec<(String, String)> = (0..65).map(|n| (format!("x-{n}"), String::new())).collect();
    let flood = serde_json::json!({"url": "https://api.lab.test/", "headers": headers}).to_string();
    let cases = [
        ("egress_malformed", of_lab(to("https://user:pw@api.lab.test/"))),
        (
            "egress_malformed",
            of_lab(r#"{"url":"https://api.lab.test/","headers":[["x","a\r\nb: c"]]}"#.into()),
        ),
        ("egress_too_large", of_lab(flood)),
        (
            "egress_denied_destination",
            ("network:https:*.openai.com".into(), to("https://openai.com.evil.net/")),
        ),
        ("egress_denied_host", ("network:https:*.lab.test".into(), to("https://db.internal.lab.test/"))),
        // The redirect goes back to the guest, which follows it with the handle that it has.
        ("", local(redirects)),
        ("egress_denied_destination", (local(redirects).0, to("http://169.254.169.254/latest/"))),
        ("egress_denied_address", of_lab(to("http://metadata.lab.test/"))),
        ("egress_denied_address", of_lab(to("http://mapped.lab.test/"))),
        // It is connected to what was judged, and judged again the next time.
        ("", swap()),
        ("egress_denied_address", swap()),
        ("egress_timeout", local(silent)),
        ("egress_too_large", local(endless)),
        ("egress_busy", local(silent)),
    ];
    let executor = Server::start().await;
    let sources = GrantSources { network: Some(way_out), ..GrantSources::default() };
    let mut counts = HashMap::new();
    for (number, (reason, (granted, request))) in cases.into_iter().enumerate() {
        let capability = vec![granted.parse().unwrap()];
        let grants = sources.grant(&capability, capability.clone(), &[]).unwrap();
        let share = Arc::clone(&grants.network().unwrap().share.under_way);
        let taken = (reason == "egress_busy")
            .then(|| share.try_acquire_many_owned(u32::try_from(MAX_OF_AGENT).unwrap()).unwrap());
        let wall = Duration::from_secs(if reason == "egress_timeout" { 1 } else { 60 });
        let limits = CallLimits { wall, ..CallLimits::default() };
        let (id, text) = (format!("counted.out.{number}"), guest(&granted, &request));
        executor.executor.admit_for_test(admitted(&text, grants, limits).called(&id, "a@example.org")).await;
        let ended = executor.executor.execute(&id, bytes::Bytes::new(), Terms::default()).await;
        drop(taken);
        if reason.is_empty() {
            assert_eq!(ended.unwrap().outcome.exit_code, 0, "{request}");
            continue;
        }
        let count = counts.entry(reason).or_insert(0);
        *count += 1;
        let counted = executor.counted(&format!("mentatlab_egress_refusals_total{{reason=\"{reason}\"}}"));
        assert_eq!(counted, *count, "{reason}: {request}");
    }
}

/// Guests who look a name up, and connect to this machine by its address where they were refused.
#[tokio::test(flavor = "multi_thread")]
async fn bare_connections_that_are_refused_are_counted_by_their_reason() {
    let table: &[(&str, &[&[&str]])] = &[
        ("db.lab.test", &[&["127.0.0.1"]]),
        ("inner.lab.test", &[&["10.0.0.1"]]),
        ("secret.lab.test", &[&["127.0.0.1"]]),
    ];
    let rules = EgressRules { deny_hosts: vec![HostPattern::new("secret.lab.test").unwrap()], ..lab() };
    let way_out = Arc::new(egress(rules, names(table)));
    let executor = Server::start().await;
    let sources = GrantSources { network: Some(way_out), ..GrantSources::default() };
    let (destination, address) = ("egress_denied_destination", "egress_denied_address");
    let cases: [(&str, &str, u16, &[&str]); 3] = [
        ("network:tcp:db.lab.test:5432", "inner.lab.test", 5432, &[destination, destination]),
        ("network:tcp:*.lab.test:5432", "inner.lab.test", 5432, &[address, destination]),
        ("network:tcp:*.lab.test:5432", "secret.lab.test", 5432, &["egress_denied_host", destination]),
    ];
    let mut counts = HashMap::new();
    for (number, (granted, name, port, reasons)) in cases.into_iter().enumerate() {
        let capability = vec![granted.parse().unwrap()];
        let grants = sources.grant(&capability, capability.clone(), &[]).unwrap();
        let id = format!("counted.connection.{number}");
        let guest = admitted(&talks(name, port, 1), grants, CallLimits::default());
        executor.executor.admit_for_test(guest.called(&id, "a@example.org")).await;
        let ended = executor.executor.execute(&id, bytes::Bytes::new(), Terms::default()).await.unwrap();
        assert_eq!(ended.outcome.exit_code, 0, "{granted} {name}");
        for reason in reasons {
            *counts.entry(*reason).or_insert(0) += 1;
        }
        for (reason, count) in &counts {
            let counted =
                executor.counted(&format!("mentatlab_egress_refusals_total{{reason=\"{reason}\"}}"));
            assert_eq!(counted, *count, "{granted} {name}: {reason}");
        }
    }
}
