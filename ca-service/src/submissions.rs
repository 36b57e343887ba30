//! Chains on their way to the issuance log: what comes while calls are under way goes into the next call together, so that
//! a certificate costs a share of a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use tlog_client::{ChainResult, LogClient, Wanted};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::transparency::{IssuanceLog, LogError, log_error};

/// Calls under way at once: while the log syncs one, the next is read and verified.
const CALLS: usize = 2;
/// Most chains of one call: some hundred KiB of a log's limit of 4 MiB.
const MAX_CHAINS: usize = 128;
/// Chains that may wait; beyond, callers wait for room.
const QUEUE: usize = 4096;

struct Waiting {
    chain: Vec<Vec<u8>>,
    wanted: Wanted,
    reply: oneshot::Sender<Result<ChainResult, LogError>>,
}

/// The issuance log over HTTP.
pub struct Submissions {
    queue: mpsc::Sender<Waiting>,
}

impl Submissions {
    /// Starts the tasks that call the log; they end with the returned value. Needs a runtime.
    #[must_use]
    pub fn start(log: LogClient) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        let one_by_one = Arc::new(AtomicBool::new(false));
        for _ in 0..CALLS {
            tokio::spawn(run(log.clone(), Arc::clone(&receiver), Arc::clone(&one_by_one)));
        }
        Self { queue }
    }

    async fn submit(&self, chain: Vec<Vec<u8>>, wanted: Wanted) -> Result<ChainResult, LogError> {
        let gone = || LogError::Unavailable("the submitting task has stopped".to_owned());
        let (reply, answer) = oneshot::channel();
        self.queue.send(Waiting { chain, wanted, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

async fn run(log: LogClient, receiver: Arc<Mutex<mpsc::Receiver<Waiting>>>, one_by_one: Arc<AtomicBool>) {
    let mut batch = Vec::with_capacity(MAX_CHAINS);
    loop {
        let received = receiver.lock().await.recv_many(&mut batch, MAX_CHAINS).await;
        if received == 0 {
            return;
        }
        let outcomes = call(&log, &batch, &one_by_one).await;
        let silent = match outcomes.last() {
            Some(Err(error @ LogError::Unavailable(_))) => Some(error.clone()),
            _ => None,
        };
        for (waiting, outcome) in batch.drain(..).zip(outcomes) {
            // A caller that went away has no use for the answer; the reconciler asks again.
            let _ = waiting.reply.send(outcome);
        }
        // Who waited behind a log that does not answer is told so too, instead of waiting for as long once more. A lock
        // that is held says that nobody waits.
        if let Some(error) = silent
            && let Ok(mut receiver) = receiver.try_lock()
        {
            while let Ok(waiting) = receiver.try_recv() {
                let _ = waiting.reply.send(Err(error.clone()));
            }
        }
    }
}

/// The outcome of each chain, in order.
async fn call(
    log: &LogClient,
    batch: &[Waiting],
    one_by_one: &AtomicBool,
) -> Vec<Result<ChainResult, LogError>> {
    if !one_by_one.load(Ordering::Relaxed) {
        let chains: Vec<_> = batch.iter().map(|waiting| (waiting.chain.as_slice(), waiting.wanted)).collect();
        match log.submit_chains(&chains).await {
            Ok(results) => return results.into_iter().map(judged).collect(),
            // A log of RFC 6962 alone.
            Err(tlog_client::Error::Status { status: 404 | 405, .. }) => {
                one_by_one.store(true, Ordering::Relaxed);
            }
            Err(error) => {
                let error = log_error(error);
                return batch.iter().map(|_| Err(error.clone())).collect();
            }
        }
    }
    futures_util::future::join_all(batch.iter().map(|waiting| alone(log, waiting))).await
}

async fn alone(log: &LogClient, waiting: &Waiting) -> Result<ChainResult, LogError> {
    let chain: Vec<_> = waiting.chain.iter().map(Vec::as_slice).collect();
    let promise = match waiting.wanted {
        Wanted::Sct => log.add_pre_chain(&chain).await,
        Wanted::Index => log.add_chain(&chain).await,
    };
    promise.map(ChainResult::Promised).map_err(log_error)
}

fn judged(result: ChainResult) -> Result<ChainResult, LogError> {
    match result {
        ChainResult::Refused { status: status @ (429 | 503 | 504 | 507), problem } => {
            Err(LogError::Unavailable(format!("{status}: {problem}")))
        }
        ChainResult::Refused { status, problem } => Err(LogError::Refused(format!("{status}: {problem}"))),
        taken => Ok(taken),
    }
}

impl IssuanceLog for Submissions {
    fn add_precertificate(&self, chain: Vec<Vec<u8>>) -> BoxFuture<'_, Result<Vec<u8>, LogError>> {
        Box::pin(async move {
            match self.submit(chain, Wanted::Sct).await? {
                ChainResult::Promised(sct) => {
                    sct.to_bytes().map_err(|error| LogError::Refused(error.to_string()))
                }
                _ => Err(LogError::Refused("the log promised nothing".to_owned())),
            }
        })
    }

    fn add_certificate(&self, chain: Vec<Vec<u8>>) -> BoxFuture<'_, Result<u64, LogError>> {
        Box::pin(async move {
            let index = match self.submit(chain, Wanted::Index).await? {
                ChainResult::Sequenced { index } => Some(index),
                ChainResult::Promised(sct) => sct.extensions.index(),
                ChainResult::Refused { .. } => None,
            };
            index.ok_or_else(|| LogError::Refused("the log's answer names no index".to_owned()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    /// What a log of tests understands.
    #[derive(Clone, Copy, PartialEq)]
    enum Knows {
        Batches,
        NothingNow,
        SingleChains,
    }

    /// A log that answers every chain with the first octet of its certificate as index, and refuses 0xff.
    async fn log(knows: Knows) -> (LogClient, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, knows, Arc::clone(&counted)));
            }
        });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let retry = tlog_client::RetryPolicy { attempts: 1, ..Default::default() };
        (LogClient::new(http, &url).unwrap().with_retry(retry), calls)
    }

    async fn serve(mut stream: TcpStream, knows: Knows, calls: Arc<AtomicUsize>) {
        let mut seen = Vec::new();
        loop {
            let Some(head) = seen.windows(4).position(|window| window == b"\r\n\r\n") else {
                if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                    return;
                }
                continue;
            };
            let text = String::from_utf8_lossy(&seen[..head]).to_lowercase();
            let length = text.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            let end = head + 4 + length.trim().parse::<usize>().unwrap();
            while seen.len() < end {
                assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
            }
            let body: serde_json::Value = serde_json::from_slice(&seen[head + 4..end]).unwrap();
            seen.drain(..end);
            calls.fetch_add(1, Ordering::SeqCst);
            // Long enough for the others to come.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let (status, answer) = answer(knows, text.starts_with("post /api/v1/batch"), &body);
            let answer = answer.to_string();
            let response = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
            stream.write_all(response.as_bytes()).await.unwrap();
        }
    }

    fn answer(knows: Knows, batch: bool, body: &serde_json::Value) -> (u16, serde_json::Value) {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let first = |chain: &serde_json::Value| STANDARD.decode(chain[0].as_str().unwrap()).unwrap()[0];
        match (knows, batch) {
            (Knows::Batches, true) => {
                let results = body["entries"].as_array().unwrap().iter().map(|entry| {
                    assert_eq!(entry["answer"], "index");
                    match first(&entry["chain"]) {
                        0xff => serde_json::json!({ "problem": { "status": 400, "code": "unknown_issuer" } }),
                        index => serde_json::json!({ "index": index }),
                    }
                });
                (200, serde_json::json!({ "results": results.collect::<Vec<_>>() }))
            }
            (Knows::SingleChains, false) => {
                let extensions = [0, 0, 5, 0, 0, 0, 0, first(&body["chain"])];
                let sct = serde_json::json!({
                    "sct_version": 0,
                    "id": STANDARD.encode([7; 32]),
                    "timestamp": 1_800_000_000_000_u64,
                    "extensions": STANDARD.encode(extensions),
                    "signature": STANDARD.encode(b"\x04\x03\0\x02ab"),
                });
                (200, sct)
            }
            (Knows::NothingNow, _) => (503, serde_json::json!({ "code": "overloaded" })),
            _ => (404, serde_json::json!({ "code": "not_found" })),
        }
    }

    async fn submit_many(
        submissions: &Submissions,
        firsts: impl Iterator<Item = u8>,
    ) -> Vec<Result<u64, LogError>> {
        let submitted = firsts.map(|first| submissions.add_certificate(vec![vec![first, 1], vec![2]]));
        futures_util::future::join_all(submitted).await
    }

    #[tokio::test]
    async fn chains_that_wait_share_a_call_and_each_gets_its_own_answer() {
        let (client, calls) = log(Knows::Batches).await;
        let submissions = Submissions::start(client);
        let mut outcomes = submit_many(&submissions, (0..60).chain([0xff])).await;
        assert!(
            matches!(outcomes.pop(), Some(Err(LogError::Refused(text))) if text.contains("unknown_issuer"))
        );
        assert_eq!(outcomes, (0..60).map(Ok).collect::<Vec<_>>());
        let calls = calls.load(Ordering::SeqCst);
        assert!(calls <= 1 + CALLS, "{calls} calls for 61 chains");
    }

    #[tokio::test]
    async fn a_log_without_batches_is_asked_for_one_chain_at_a_time() {
        let (client, calls) = log(Knows::SingleChains).await;
        let submissions = Submissions::start(client);
        assert_eq!(submit_many(&submissions, 3..6).await, [Ok(3), Ok(4), Ok(5)]);
        let before = calls.load(Ordering::SeqCst);
        assert_eq!(submit_many(&submissions, 8..9).await, [Ok(8)]);
        assert_eq!(calls.load(Ordering::SeqCst), before + 1, "it is not asked for batches again");
    }

    #[tokio::test]
    async fn who_waits_behind_a_log_that_does_not_answer_is_told_so_at_once() {
        let (client, calls) = log(Knows::NothingNow).await;
        let chains = MAX_CHAINS * 8;
        let outcomes =
            submit_many(&Submissions::start(client), (0..chains).map(|number| (number % 250) as u8)).await;
        assert_eq!(outcomes.len(), chains);
        assert!(
            outcomes.iter().all(|outcome| matches!(outcome, Err(LogError::Unavailable(_)))),
            "{outcomes:?}"
        );
        let calls = calls.load(Ordering::SeqCst);
        assert!(calls <= 1 + CALLS, "{calls} calls for {chains} chains");
    }
}
