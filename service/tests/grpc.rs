//! gRPC beside HTTP on one listener.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod harness;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use harness::{quick, routes, url};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use service::body::RequestBody;
use service::{Peer, Server};

/// Stands for tonic's `Routes`, which is such a service: answers with what it got.
async fn answer(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, Infallible> {
    let peer = request.extensions().get::<Peer>().unwrap().address().ip();
    let length = request.into_body().collect().await.unwrap().to_bytes().len();
    let mut response = Response::new(Full::from(format!("grpc {peer} {length}")));
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
