//! SIGKILL under load, and old files restored below the real server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use reqwest::Client;
use serde_json::Value;
use server::{Process, Stack, open_checkpoint};
use tlog::{ConsistencyProof, Hash, TreeHead};

async fn checkpoint(client: &Client, stack: &Stack, server: &Process) -> TreeHead {
    let note =
        client.get(format!("{}/raw/checkpoint", server.url)).send().await.unwrap().bytes().await.unwrap();
    *open_checkpoint(stack, "raw", &note).head()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_it_acknowledged_and_never_forks() {
    let stack = Stack::new();
    let acknowledged = Arc::new(Mutex::new(Vec::<(u64, String)>::new()));
    let next = Arc::new(AtomicU64::new(0));
    let mut heads = Vec::new();
    for round in 0..4 {
        let server = stack.serve();
        let client = Client::new();
        let before = acknowledged.lock().clone();
        for (index, body) in before.iter().step_by(11) {
            let answer =
                client.post(format!("{}/raw/add", server.url)).body(body.clone()).send().await.unwrap();
            assert_eq!(
                answer.text().await.unwrap(),
                format!("{index}\n"),
                "round {round}: an acknowledged entry moved"
            );
        }
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..8)
            .map(|_| {
                let (url, next, acknowledged, stop) =
                    (format!("{}/raw/add", server.url), next.clone(), acknowledged.clone(), stop.clone());
                tokio::spawn(async move {
                    let client = Client::new();
                    while !stop.load(Ordering::SeqCst) {
                        let body =
                            format!("entry {} {}", next.fetch_add(1, Ordering::SeqCst), "x".repeat(300));
                        let Ok(answer) = client.post(&url).body(body.clone()).send().await else { break };
                        if answer.status().as_u16() == 200
                            && let Ok(text) = answer.text().await
                        {
                            acknowledged.lock().push((text.trim().parse().unwrap(), body));
                        }
                    }
                })
            })
            .collect();
        let target = acknowledged.lock().len() + 400;
        while acknowledged.lock().len() < target {
            heads.push(checkpoint(&client, &stack, &server).await);
        }
        server.kill();
        stop.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let server = stack.serve();
    let client = Client::new();
    let last = checkpoint(&client, &stack, &server).await;
    let acknowledged = acknowledged.lock().clone();
    assert!(last.size >= acknowledged.len() as u64);
    heads.sort_by_key(|head| head.size);
    heads.dedup();
    for head in heads {
        let answer = client
            .get(format!("{}/raw/api/v1/consistency?old={}", server.url, head.size))
            .send()
            .await
            .unwrap();
        let answer: Value = answer.json().await.unwrap();
        let new = *open_checkpoint(&stack, "raw", answer["checkpoint"].as_str().unwrap().as_bytes()).head();
        let path = answer["hashes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hash| Hash::from_base64(hash.as_str().unwrap()).unwrap());
        ConsistencyProof { path: path.collect() }
            .verify(&head, &new)
            .expect("a published checkpoint was not kept");
    }
    assert_eq!(server.stop(), Some(0));
    let options = log_store::LogOptions::new(
        log_store::LogKind::Raw,
        stack.logs[3]["origin"].as_str().unwrap(),
        &stack.path("data/raw"),
        &stack.path("copies/raw.head"),
    );
    let options = log_store::LogOptions {
        sizes: log_store::EntryFileSizes { segment: 1_048_576, reserve: 65_536 },
        ..options
    };
    let mut stored = Vec::new();
    log_store::check_log(&options, &(Arc::new(log_store::OsDisk) as _), |_, bytes| {
        stored.push(bytes.to_vec())
    })
    .unwrap();
    for (index, body) in &acknowledged {
        assert_eq!(stored[*index as usize], body.as_bytes(), "acknowledged entry {index}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_backup_of_the_data_folder_is_refused_with_the_file_and_the_repair() {
    let stack = Stack::new();
    let add = async |server: &Process, from: u32, to: u32| {
        let client = Client::new();
        for i in from..to {
            let answer = client
                .post(format!("{}/raw/add", server.url))
                .body(format!("entry {i}"))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status().as_u16(), 200);
        }
    };
    let server = stack.serve();
    add(&server, 0, 20).await;
    assert_eq!(server.stop(), Some(0));
    let copy = std::process::Command::new("cp")
        .arg("-a")
        .arg(stack.path("data"))
        .arg(stack.path("backup"))
        .status()
        .unwrap();
    assert!(copy.success());
    let server = stack.serve();
    add(&server, 20, 40).await;
    assert_eq!(server.stop(), Some(0));
    std::fs::remove_dir_all(stack.path("data")).unwrap();
    std::fs::rename(stack.path("backup"), stack.path("data")).unwrap();
    let said = Process::start(env!("CARGO_BIN_EXE_transparency-log"), &stack.config()).err().unwrap();
    assert!(said.starts_with("exit Some(78)"), "{said}");
    // The entries are old too: repair does not help, says so, and changes nothing.
    let binary = env!("CARGO_BIN_EXE_transparency-log");
    let repaired = server::run(binary, &["repair", "--log", "raw", "--config"], &stack.config());
    assert_eq!(repaired.0, Some(78), "{}", repaired.1);
    assert!(repaired.2.contains("ends at entry 20, but the head covers 40"), "{}", repaired.2);
    assert!(
        said.contains("raw/head/head") && said.contains("old head was restored") && said.contains("repair"),
        "{said}"
    );
}
