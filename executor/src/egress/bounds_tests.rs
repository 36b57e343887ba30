//! What a guest on the network makes the host keep, ask and wait for: none of it without end.

use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_util::future::join_all;

use super::connections_tests::{begin, code, look_up, of, talks};
use super::resolver::{MAX_LOOKUPS_OF_AGENT, SystemNames};
use super::tests::{egress, lab, names, server, to};
use super::{AddressRules, Egress, EgressRules, MAX_LOOKUPS, MAX_OF_AGENT, MAX_REQUESTS, Outlet};
use crate::clock;
use crate::runtime::{CallLimits, Cancel, HostRates, KillCause, NetworkUse};

#[tokio::test]
async fn what_an_address_has_beside_itself_and_its_port_is_refused() {
    let addresses = AddressRules { open: vec!["::1".parse().unwrap()], deny: Vec::new() };
    let table = names(&[("six.lab.test", &[&["::1"]])]);
    let outlet = Outlet::new(&Arc::new(egress(EgressRules { addresses, ..lab() }, table)));
    let connections = of(&outlet, &["network:tcp:six.lab.test:5432"]);
    assert_eq!(look_up(&connections, "six.lab.test").await, Ok(1));
    let to = |flow, scope| SocketAddrV6::new(Ipv6Addr::LOCALHOST, 5432, flow, scope).into();
    assert_eq!(connections.connect(to(0, 0)), Ok(()));
    for (flow, scope) in [(1, 0), (0, 1), (u32::MAX, u32::MAX)] {
        let refused = connections.connect(to(flow, scope)).unwrap_err();
        assert_eq!(refused.reason(), "egress_malformed", "{flow} {scope}");
        assert!(!connections.approves(to(flow, scope)), "what was judged has neither");
    }
}

/// Questions about names of [`asks`] that nobody answers.
static UNANSWERED: AtomicUsize = AtomicUsize::new(0);
static GIVE_UP: AtomicBool = AtomicBool::new(false);

/// A resolver that is silent about `slow.lab.test`.
fn asks(host: &str) -> std::io::Result<Vec<IpAddr>> {
    if host == "slow.lab.test" {
        UNANSWERED.fetch_add(1, Ordering::SeqCst);
        while !GIVE_UP.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(vec![IpAddr::from([127, 0, 0, 1])])
}

/// Threads that wait end with the test, whatever it says.
struct GivesUp;

impl Drop for GivesUp {
    fn drop(&mut self) {
        GIVE_UP.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_names_nobody_answers_leaves_room_for_the_names_of_others() {
    let _ends = GivesUp;
    let clients = [reqwest::Client::builder(), reqwest::Client::builder()];
    let egress = Egress::with_names(clients, lab(), Arc::new(SystemNames::asking(asks))).unwrap();
    let egress = Arc::new(egress);
    let (one, other) = (Outlet::new(&egress), Outlet::new(&egress));
    let granted = ["network:tcp:*.lab.test:5432"];
    for calls in 1..=2 {
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..=MAX_LOOKUPS / MAX_REQUESTS as usize {
            let call = of(&one, &granted);
            for _ in 0..MAX_REQUESTS {
                asked.spawn(call.look_up("slow.lab.test").unwrap());
            }
        }
        while UNANSWERED.load(Ordering::SeqCst) < MAX_LOOKUPS_OF_AGENT {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(look_up(&of(&other, &granted), "db.lab.test").await, Ok(1), "{calls}");
        assert_eq!(UNANSWERED.load(Ordering::SeqCst), MAX_LOOKUPS_OF_AGENT, "{calls}");
        // Whoever gives up gives nothing back: the question is still asked.
        asked.shutdown().await;
    }
    // Requests ask within the same share, however many an agent may make at once.
    let (port, _received) = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
    let never = Cancel::default();
    let requests = |outlet: &Outlet, host: &str, time: Duration, ends: &Cancel| {
        let (outlet, url, ends) = (outlet.clone(), format!("http://{host}:{port}/"), ends.clone());
        tokio::task::spawn_blocking(move || {
            let granted = format!("network:http:*.lab.test:{port}").parse().unwrap();
            let (deadline, mut used) = (clock::monotonic() + time, NetworkUse::default());
            let ended = outlet.perform(&granted, to(&url).as_bytes(), &ends, deadline, &mut used);
            ended.map(drop).map_err(|refused| refused.reason())
        })
    };
    let all = (0..MAX_OF_AGENT).map(|_| requests(&one, "slow.lab.test", Duration::from_millis(500), &never));
    for ended in join_all(all).await {
        assert_eq!(ended.unwrap(), Err("egress_timeout"));
    }
    assert_eq!(UNANSWERED.load(Ordering::SeqCst), MAX_LOOKUPS_OF_AGENT, "its share is used up");
    let long = Duration::from_secs(60);
    assert_eq!(requests(&other, "db.lab.test", long, &never).await.unwrap(), Ok(()));
    // The questions of whoever sent requests alone are as many, however late each begins.
    let (third, ends) = (Outlet::new(&egress), Cancel::default());
    let all: Vec<_> = (0..MAX_OF_AGENT).map(|_| requests(&third, "slow.lab.test", long, &ends)).collect();
    while UNANSWERED.load(Ordering::SeqCst) < 2 * MAX_LOOKUPS_OF_AGENT {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(requests(&other, "db.lab.test", long, &never).await.unwrap(), Ok(()));
    ends.raise(KillCause::CallerGone);
    for ended in join_all(all).await {
        assert!(ended.unwrap().is_err());
    }
    assert_eq!(UNANSWERED.load(Ordering::SeqCst), 2 * MAX_LOOKUPS_OF_AGENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_and_sockets_and_connections_have_the_rate_of_capabilities() {
    let (port, _heard) = silent();
    let granted = format!("network:tcp:db.lab.test:{port}");
    let refused = code("new-socket-limit");
    for (uses, told) in [(0, [refused, refused, 0, 0]), (1, [0, refused, 0, 0]), (2, [0, refused, 0, 0])] {
        // A tick that comes meanwhile fills less than one use up.
        let rates = HostRates { capabilities: uses, ..HostRates::default() };
        let limits = CallLimits { rates, ..CallLimits::default() };
        let text = talks("db.lab.test", port, 1);
        let called = begin(text, granted.clone(), limits, Cancel::default());
        let outcome = called.join().unwrap().unwrap().unwrap();
        assert_eq!(outcome.output, told, "{uses}: {:?}", outcome.log);
        let said = outcome.log.iter().filter(|line| line.text.starts_with("host_call_rate: ")).count();
        assert_eq!(said, 1, "{:?}", outcome.log);
    }
}

/// A server that takes every connection and never says a word, and what tells that it heard somebody.
fn silent() -> (u16, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while matches!(stream.read(&mut buffer), Ok(1..)) {
                    let _ = sender.send(());
                }
            });
        }
    });
    (port, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_waits_for_a_silent_peer_ends_at_its_deadline_and_when_it_is_revoked() {
    let (port, heard) = silent();
    let granted = format!("network:tcp:db.lab.test:{port}");
    let hour = Duration::from_secs(3600);
    let begins = |wall, cancel: &Cancel| {
        let limits = CallLimits { wall, ..CallLimits::default() };
        begin(talks("db.lab.test", port, 1), granted.clone(), limits, cancel.clone())
    };
    let waiting = begins(Duration::from_secs(1), &Cancel::default());
    let ended = waiting.join().unwrap().unwrap().unwrap_err();
    assert_eq!(ended.code(), "deadline_exceeded");
    heard.recv_timeout(Duration::from_secs(60)).expect("it had spoken to its peer, and waited");

    let cancel = Cancel::default();
    let waiting = begins(hour, &cancel);
    heard.recv_timeout(Duration::from_secs(60)).expect("it speaks to its peer");
    // It waits from then on; nothing else would end it before the hour is over.
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waiting.is_finished());
    let raised = clock::monotonic();
    cancel.raise(KillCause::Revoked);
    assert_eq!(waiting.join().unwrap().unwrap().unwrap_err().code(), "revoked");
    let late = clock::monotonic().saturating_duration_since(raised);
    assert!(late < Duration::from_secs(10), "{late:?}");
}
