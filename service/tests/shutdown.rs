//! Stopping without losing what is under way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{quick, read_to_end, start, start_gated, url};
use service::server::Drained;
use service::{Server, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

#[tokio::test]
async fn requests_under_way_are_answered_and_new_ones_are_not_taken() {
    let (running, gate) = start_gated(&quick()).await;
    let address = running.addr();
    let request = tokio::spawn(reqwest::get(url(address, "/slow")));
    gate.entered.notified().await;
    let stop = tokio::spawn(running.stop());
    // The listener is closed before the request has ended.
    for attempt in 0.. {
        if TcpStream::connect(address).await.is_err() {
            break;
        }
        assert!(attempt < 200, "still accepting");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!stop.is_finished());
    gate.release.notify_one();
    assert_eq!(request.await.unwrap().unwrap().text().await.unwrap(), "done");
    assert_eq!(stop.await.unwrap(), Drained::Complete);
}

#[tokio::test]
async fn requests_under_way_over_http2_are_answered() {
    let (running, gate) = start_gated(&quick()).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let request = tokio::spawn(client.get(url(running.addr(), "/slow")).send());
    gate.entered.notified().await;
    let stop = tokio::spawn(running.stop());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!stop.is_finished());
    gate.release.notify_one();
    assert_eq!(request.await.unwrap().unwrap().text().await.unwrap(), "done");
    assert_eq!(stop.await.unwrap(), Drained::Complete);
}

#[tokio::test]
async fn idle_connections_do_not_hold_a_stop_up() {
    let running = start(&quick()).await;
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 1024];
    assert!(stream.read(&mut answer).await.unwrap() > 0);
    let _silent = TcpStream::connect(running.addr()).await.unwrap();
    assert_eq!(running.stop().await, Drained::Complete);
    assert_eq!(read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_off() {
    let (running, gate) = start_gated(&ServerConfig { drain_seconds: 0, ..quick() }).await;
    let request = tokio::spawn(reqwest::get(url(running.addr(), "/slow")));
    gate.entered.notified().await;
    assert_eq!(running.stop().await, Drained::CutOff);
    assert!(request.await.unwrap().is_err());
}

/// What a request still does after its connection was cut off has ended when the stop has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_cuts_off_waits_for_the_requests_of_http_2_too() {
    struct Leaves(Arc<AtomicBool>);
    impl Drop for Leaves {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_millis(300));
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let (entered, left) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (tell, flag) = (entered.clone(), left.clone());
    let answer = tower::service_fn(move |_: http::Request<service::body::RequestBody>| {
        let (tell, leaves) = (tell.clone(), Leaves(flag.clone()));
        async move {
            tell.notify_one();
            std::future::pending::<()>().await;
            drop(leaves);
            Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
        }
    });
    let config = ServerConfig { drain_seconds: 0, ..quick() };
    let running = Server::new(&config).unwrap().service(answer).start().await.unwrap();
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let request = tokio::spawn(client.get(url(running.addr(), "/")).send());
    entered.notified().await;
    assert_eq!(running.stop().await, Drained::CutOff);
    assert!(left.load(Ordering::SeqCst), "a request went on after the stop");
    assert!(request.await.unwrap().is_err());
}

#[tokio::test]
async fn a_server_runs_until_what_it_waits_for_and_then_drains() {
    let (running, gate) = start_gated(&quick()).await;
    let held = tokio::spawn(reqwest::get(url(running.addr(), "/slow")));
    gate.entered.notified().await;
    let outcome = running.run_until(async {
        gate.release.notify_one();
        "signal"
    });
    assert_eq!(outcome.await, "signal");
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
}
