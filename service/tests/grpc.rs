//! gRPC beside HTTP on one listener.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::harness;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use harness::{quick, routes, url};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use service::body::RequestBody;
use service::{Peer, Server};

/// Stands for tonic's `Routes`, which is such a service: answers with what it got.
async fn answer(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, Infallible> {
    let peer = request.extensions().get::<Peer>().unwrap().address().ip();
    // tonic says of a body that failed that it does not know why.
    let text = match request.into_body().collect().await {
        Ok(body) => format!("grpc {peer} {}", body.to_bytes().len()),
        Err(error) => format!("unknown: {error}"),
    };
    let mut response = Response::new(Full::from(text));
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    Ok(response)
}

#[tokio::test]
async fn the_content_type_decides_who_answers() {
    let running = Server::new(&quick())
        .unwrap()
        .route(routes(Arc::default()))
        .grpc(tower::service_fn(answer))
        .start()
        .await
        .unwrap();
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let post = |path: &str| client.post(url(running.addr(), path));
    // gRPC messages are limited one by one, not as a whole: the body limit of HTTP is 1000 here.
    let grpc = post("/mentat.executor.v1.Executor/Run").header("content-type", "application/grpc+proto");
    let grpc = grpc.body(vec![0; 5000]).send().await.unwrap();
    assert_eq!(grpc.text().await.unwrap(), "grpc 127.0.0.1 5000");
    let http = post("/echo").body("plain").send().await.unwrap();
    assert_eq!(http.text().await.unwrap(), "plain");
}

/// Sends so many bytes at once, then one now and then, and never ends.
struct Drips {
    first: usize,
    pause: Duration,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Body for Drips {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let pause = self.pause;
        let bytes = match &mut self.timer {
            None => std::mem::take(&mut self.first).max(1),
            Some(timer) => {
                std::task::ready!(timer.as_mut().poll(context));
                1
            }
        };
        self.timer = Some(Box::pin(tokio::time::sleep(pause)));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; bytes])))))
    }
}

/// Bodies of gRPC have the patience and the room of any other, before anybody looks at who sends them.
#[tokio::test]
async fn a_message_that_does_not_come_is_not_waited_for_and_not_kept() {
    let mut config = quick();
    // Two bodies of the largest size always fit.
    config.limits.body_bytes = 1024 * 1024;
    config.limits.request_bytes = 2 * 1024 * 1024;
    config.limits.request_bytes_per_peer = 2 * 1024 * 1024;
    config.limits.body_timeout_ms = 2000;
    let server = Server::new(&config).unwrap().route(routes(Arc::default()));
    let running = server.grpc(tower::service_fn(answer)).start().await.unwrap();
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let send = |first: usize, pause: u64| {
        let body = Drips { first, pause: Duration::from_millis(pause), timer: None };
        let request = client.post(url(running.addr(), "/any.Service/Method"));
        let request = request.header("content-type", "application/grpc").body(reqwest::Body::wrap(body));
        async move {
            let response = request.send().await.unwrap();
            let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(response.status(), 200, "as gRPC refuses");
            (header("grpc-status"), header("mentat-reason"))
        }
    };
    let stalled = ("4".to_owned(), "body_timeout".to_owned());
    assert_eq!(send(5, 60_000).await, stalled, "silence");
    assert_eq!(send(5, 100).await, stalled, "a byte now and then");
    let overloaded = ("14".to_owned(), "overloaded".to_owned());
    assert_eq!(send(3 * 1024 * 1024, 60_000).await, overloaded, "more than there is room for");
}
