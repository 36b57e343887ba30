//! The shipped process: its size, its memory when idle, and calls over gRPC end to end.

use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use executor_api::health::health_check_response::ServingStatus;
use executor_api::health::health_client::HealthClient;
use executor_api::health::health_server::{Health, HealthServer};
use executor_api::health::{HealthCheckRequest, HealthCheckResponse};
use executor_api::v1::ExecuteAgentRequest;
use executor_api::v1::executor_client::ExecutorClient;
use tonic::{Request, Response, Status};

use crate::Figures;
use crate::guests::Guests;
use crate::stack::{Stack, binary};

const ROOT: &str = r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[],"certificateAuthorities":[],"ctlogs":[],"timestampAuthorities":[]}"#;
const POLICY: &str = "version: 1\nrevocation: { mode: require }\nfreshness: { within-seconds: 3600 }\nlogs: { witnesses: not-required }\ncapabilities: { within: [] }\n";

/// Callers at the same time.
const CALLERS: usize = 64;

/// Sums of lines of `/proc/PID/status`, KiB.
pub(crate) fn status_kib(pid: u32, names: &[&str]) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = |line: &str| line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok());
    let wanted = |line: &&str| names.iter().any(|name| line.starts_with(&format!("{name}:")));
    text.lines().filter(wanted).filter_map(value).sum()
}

pub(crate) fn measure(figures: &mut Figures) {
    // What is shipped by default; the rest of this bench needs everything.
    let executable = binary("executor-lean");
    let version = Command::new(&executable).arg("--version").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    assert!(version.contains("(features: none)"), "the lean executor is another one: {version}");
    let megabytes = |path: &std::path::Path| std::fs::metadata(path).unwrap().len() as f64 / 1e6;
    figures.insert("binary_mb", megabytes(&executable));
    figures.insert("full_binary_mb", megabytes(&binary("executor")));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("root.json"), ROOT).unwrap();
    std::fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
    let config = "state_dir = 'state'\ntrusted_root = 'root.json'\npolicy = 'policy.yaml'\n[server]\nlisten = '127.0.0.1:0'\n";
    std::fs::write(folder.path().join("executor.toml"), config).unwrap();
    let mut child = Command::new(executable)
        .args(["serve", "--exit-with-stdin", "--config"])
        .arg(folder.path().join("executor.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("ready"), "the executor did not start");
    std::thread::sleep(Duration::from_secs(1));
    figures.insert("idle_rss_mb", status_kib(child.id(), &["VmRSS"]) * 1024.0 / 1e6);
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Calls a loaded agent over gRPC from many callers: admission cached, audit on, one machine for both sides. In turns with it a server
/// of the bare library that does nothing but answer.
pub(crate) async fn grpc(stack: &Stack, guests: &Guests, figures: &mut Figures) {
    stack.ctl(&["run", stack.folder().join(&guests.core.id).to_str().unwrap()]);
    let bare = Bare::serve();
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let calls = || caller(stack.json("/executor/grpc"), stack.admin_token(), guests.core.id.clone());
        ours.push(rate(calls).await);
        peers.push(rate(|| checker(bare.url.clone())).await);
    }
    for (name, mut rates) in [("grpc_calls_per_s", ours), ("peer_bare_grpc_calls_per_s", peers)] {
        rates.sort_by(f64::total_cmp);
        figures.insert(name, rates[1]);
    }
}

/// Time of one measurement.
const LASTING: Duration = Duration::from_secs(3);

/// Calls a second of all callers together.
async fn rate<F>(one: impl Fn() -> F) -> f64
where
    F: Future<Output = u64> + Send + 'static,
{
    let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(one())).collect();
    let mut total = 0;
    for caller in callers {
        total += caller.await.unwrap();
    }
    total as f64 / LASTING.as_secs_f64()
}

async fn caller(url: String, token: String, agent: String) -> u64 {
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let mut client = ExecutorClient::new(channel);
    let asked = ExecuteAgentRequest { agent, input: "the input of a call".into(), ..Default::default() };
    let bearer: tonic::metadata::MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < LASTING {
        let mut request = tonic::Request::new(asked.clone());
        request.metadata_mut().insert("authorization", bearer.clone());
        client.execute_agent(request).await.unwrap();
        count += 1;
    }
    count
}

async fn checker(url: String) -> u64 {
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < LASTING {
        client.check(HealthCheckRequest { service: "the input of a call".into() }).await.unwrap();
        count += 1;
    }
    count
}

/// A server of the bare library on two threads of its own, until it is dropped.
struct Bare {
    url: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Bare {
    fn serve() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let accepted = futures_util::stream::unfold(listener, async |listener| {
                let stream = listener.accept().await.map(|(stream, _)| {
                    stream.set_nodelay(true).unwrap();
                    stream
                });
                Some((stream, listener))
            });
            let server = tonic::transport::Server::builder().add_service(HealthServer::new(Answering));
            server.serve_with_incoming(accepted).await.unwrap();
        });
        Self { url, runtime: Some(runtime) }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // Its threads cannot be waited for by those of another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Answering;

#[tonic::async_trait]
impl Health for Answering {
    type WatchStream = futures_util::stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("nobody watches"))
    }
}
