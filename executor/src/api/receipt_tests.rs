//! Results that come with their receipts, over both transports.

use bytes::Bytes;
use executor_api::receipt::Receipt;
use executor_api::stream::StreamLine;
use executor_api::v1::executor_client::ExecutorClient as GrpcClient;
use executor_api::{Base64Bytes, Execute, Executed, v1};
use tlog::proof_file::ProofFile;

use super::tests::{channel, post};
use crate::admission::GrantSet;
use crate::runtime::CallLimits;
use crate::testing::{Server, admitted, wat_echo};

const AGENT: &str = "receipts.echo";

async fn server() -> Server {
    let server = Server::start().await;
    let echo = admitted(wat_echo(), GrantSet::default(), CallLimits::default());
    server.executor.admit_for_test(echo.called(AGENT, "dev@example.org")).await;
    server
}

/// The receipt in a proof file, and the size of the tree that it is proved in.
fn read(proof: &[u8]) -> (Receipt, u64) {
    let file = ProofFile::parse(proof).unwrap();
    let checkpoint = file.checkpoint.to_string();
    let size = checkpoint.lines().nth(1).unwrap().parse().unwrap();
    (Receipt::from_entry(&file.extra.unwrap()).unwrap(), size)
}

#[tokio::test]
async fn a_result_comes_with_its_receipt_where_that_is_asked_for() {
    let server = server().await;
    let path = format!("/api/v1/agents/{AGENT}/execute");
    let plain = Execute { input: Base64Bytes(b"hello".to_vec()), ..Execute::default() };
    let (_, text) = post(&server, &path, &plain).await;
    assert_eq!(serde_json::from_slice::<Executed>(&text).unwrap().receipt, None);

    let asked = Execute { receipt: true, ..plain.clone() };
    let (status, text) = post(&server, &path, &asked).await;
    let done: Executed = serde_json::from_slice(&text).unwrap();
    let (receipt, size) = read(done.receipt.unwrap().as_bytes());
    assert_eq!((status, receipt.instance, receipt.exit_code), (200, done.instance_id, Some(0)));
    assert_eq!(receipt.output, executor_engine::ModuleDigest::of(b"hello").to_string());
    assert!(size >= 2, "the tree covers both calls: {size}");

    let stream = format!("http://{}/api/v1/agents/{AGENT}/stream", server.address);
    let lines = reqwest::Client::new().post(stream).json(&asked).send().await.unwrap().text().await.unwrap();
    let Ok(StreamLine::Result(done)) = serde_json::from_str(lines.lines().last().unwrap()) else {
        panic!("{lines}")
    };
    assert_eq!(read(done.receipt.unwrap().as_bytes()).0.instance, done.instance_id);
}

#[tokio::test]
async fn a_repeated_answer_has_the_receipt_of_the_call_that_was_made() {
    let server = server().await;
    let mut client = GrpcClient::new(channel(&server).await);
    let call = |receipt| v1::ExecuteAgentRequest {
        agent: AGENT.into(),
        input: Bytes::from_static(b"hello"),
        idempotency_key: "once".into(),
        receipt,
        ..Default::default()
    };
    let first = client.execute_agent(call(false)).await.unwrap().into_inner();
    assert!(first.receipt.is_empty() && !first.repeated);
    let again = client.execute_agent(call(true)).await.unwrap().into_inner();
    assert!(again.repeated);
    assert_eq!(read(&again.receipt).0.instance, first.instance_id);
    let which = Some(v1::get_receipt_request::Which::InstanceId(first.instance_id));
    let later = client.get_receipt(v1::GetReceiptRequest { which }).await.unwrap().into_inner().proof;
    assert_eq!(read(&later).0, read(&again.receipt).0);
}
