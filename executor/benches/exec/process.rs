//! The shipped process: its size, its memory when idle, and calls over gRPC end to end.

use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use executor_api::v1::ExecuteAgentRequest;
use executor_api::v1::executor_client::ExecutorClient;

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

/// Calls a loaded agent over gRPC from many callers: admission cached, audit on, one machine for both sides.
pub(crate) async fn grpc(stack: &Stack, guests: &Guests, figures: &mut Figures) {
    stack.ctl(&["run", stack.folder().join(&guests.core.id).to_str().unwrap()]);
    let mut rates = Vec::new();
    for _ in 0..3 {
        let lasting = Duration::from_secs(3);
        let calls = (0..CALLERS).map(|_| {
            caller(stack.json("/executor/grpc"), stack.admin_token(), guests.core.id.clone(), lasting)
        });
        let counts = futures_util::future::join_all(calls.map(tokio::spawn)).await;
        let total: u64 = counts.into_iter().map(Result::unwrap).sum();
        rates.push(total as f64 / lasting.as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    figures.insert("grpc_calls_per_s", rates[1]);
}

async fn caller(url: String, token: String, agent: String, lasting: Duration) -> u64 {
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let mut client = ExecutorClient::new(channel);
    let asked = ExecuteAgentRequest { agent, input: "the input of a call".into(), ..Default::default() };
    let bearer: tonic::metadata::MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < lasting {
        let mut request = tonic::Request::new(asked.clone());
        request.metadata_mut().insert("authorization", bearer.clone());
        client.execute_agent(request).await.unwrap();
        count += 1;
    }
    count
}
