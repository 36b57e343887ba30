//! What every server of this workspace shares, and nothing about what they serve.
//!
//! A server hands its `warp` routes (and gRPC routes, if it has any) to [`Server`] and gets: a listener with TLS or
//! mutual TLS, limits on everything a peer can send or hold open, problem documents for every refusal, `/healthz`,
//! `/readyz` and `/metrics`, rate limits, and a shutdown that lets requests finish.
//!
//! ```no_run
//! use warp::Filter;
//! # async fn example(config: &service::ServerConfig) -> Result<(), service::StartRefusal> {
//! let routes = warp::path!("api" / "v1" / "hello").map(|| "hello");
//! let running = service::Server::new(config)?.route(routes).start().await?;
//! service::ready::announce(&running)?;
//! running.run_until(service::shutdown::signal(false)).await;
//! # Ok(())
//! # }
//! ```
//!
//! Out of scope: domain types, storage, keys of authorities (only the TLS key is read here).
//!
//! The layers of one request, outermost first:
//!
//! | Layer | File | Refuses |
//! |---|---|---|
//! | accept | `listener.rs` | too many connections, in all and per peer |
//! | TLS | `tls.rs`, `holder.rs` | slow handshakes, missing or foreign client certificates |
//! | protocol | `connection.rs`, `stream.rs`, `watch.rs` | slow or oversized headers, peers that do not read, idle peers |
//! | dispatch | `dispatch.rs` | too many requests, oversized bodies by their declared length |
//! | body | `body.rs` | oversized and slow bodies while they are read |
//! | routes | the server's own | everything else, as a [`Problem`] |
//! | answer | `answers.rs`, `response.rs` | more bytes of answers than peers may leave unread, peers that read too slowly |
#![forbid(unsafe_code)]

pub mod admin;
mod answers;
mod aside;
pub mod body;
mod both;
mod budget;
pub mod client;
pub mod clock;
pub mod config;
mod connection;
pub mod deadline;
mod dispatch;
pub mod exit;
mod grpc;
pub mod holder;
mod linger;
mod listener;
pub mod logging;
pub mod metrics;
pub mod page;
pub mod peer;
pub mod problem;
pub mod rate_limit;
pub mod ready;
mod rejection;
mod response;
pub mod secret;
pub mod server;
pub mod shutdown;
mod stream;
pub mod tls;
mod watch;

pub use client::ClientTls;
pub use clock::{Clock, SystemClock, TestClock};
pub use config::{Listen, ServerConfig, Settings};
pub use exit::{Failure, StartRefusal};
pub use peer::{ClientCertificate, Peer};
pub use problem::Problem;
pub use ready::Readiness;
pub use rejection::problem_of;
pub use server::{Running, Server};
