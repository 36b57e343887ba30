use executor_api::receipt::{ExitClass, FORMAT, Receipt};
use tlog::checkpoint::VerifiedCheckpoint;
use tlog::hash::leaf_hash;
use tlog::note::VerifierKey;
use tlog::proof_file::ProofFile;
use trust_store::provider::AwsLc;

use super::Receipts;
use crate::runtime::InstanceId;

fn receipt(instance: &str) -> Receipt {
    Receipt {
        steps: None,
        agent: "a.b".into(),
        agent_version: "1.0.0".into(),
        audit_hash: None,
        audit_sequence: None,
        ended_ms: 2,
        exit: ExitClass::Ok,
        exit_code: Some(0),
        format: FORMAT.into(),
        fuel: None,
        grants: String::new(),
        input: String::new(),
        instance: instance.into(),
        log_index: Some(7),
        memory_bytes: 65_536,
        module: String::new(),
        output: String::new(),
        policy: String::new(),
        profile: "standard-1".into(),
        reason: "success".into(),
        seed: None,
        signer: "s@example.com".into(),
        started_ms: 1,
        ticks: 0,
        trust_level: "verified".into(),
        wall_us: 3,
        wasmtime: "48.0.8".into(),
    }
}

pub(super) async fn record(receipts: &Receipts, name: &str) {
    let slot = receipts.room().await.unwrap();
    slot.record(InstanceId::parse(name).unwrap(), receipt(name));
}

pub(super) async fn proof_of(receipts: &Receipts, name: &str) -> Vec<u8> {
    for _ in 0..2_000 {
        match receipts.of_instance(name) {
            Ok(proof) => return proof.to_vec(),
            Err(denied) => assert!(matches!(denied.code, "receipt_pending" | "receipt_unknown"), "{denied}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    panic!("no receipt of {name}");
}

/// What anybody does with a receipt and the executor's verifier key, offline.
fn verify(receipts: &Receipts, proof: &[u8]) -> Result<Receipt, Box<dyn std::error::Error>> {
    let file = ProofFile::parse(proof)?;
    let keys = receipts
        .verifier_keys()
        .iter()
        .map(|key| VerifierKey::parse(key))
        .collect::<Result<Vec<VerifierKey>, _>>()?;
    let checkpoint = VerifiedCheckpoint::open(&file.checkpoint.to_bytes(), receipts.origin(), &keys, &AwsLc)?;
    let entry = file.extra.ok_or("no receipt")?;
    let _included = file.proof.verify(&leaf_hash(&entry), checkpoint.head())?;
    Ok(Receipt::from_entry(&entry)?)
}

#[tokio::test]
async fn a_receipt_verifies_offline_and_an_altered_one_does_not() {
    let state = tempfile::tempdir().unwrap();
    let receipts = Receipts::open(state.path()).unwrap();
    let names: Vec<String> = (0..40).map(|n| format!("i-{n:016x}")).collect();
    for name in &names {
        record(&receipts, name).await;
    }
    for name in &names {
        let proof = proof_of(&receipts, name).await;
        assert_eq!(verify(&receipts, &proof).unwrap(), receipt(name));
        let text = String::from_utf8(proof).unwrap();
        let mut file = ProofFile::parse(text.as_bytes()).unwrap();
        let altered =
            String::from_utf8(file.extra.unwrap()).unwrap().replace("\"exit_code\":0", "\"exit_code\":1");
        file.extra = Some(altered.into_bytes());
        assert!(verify(&receipts, file.to_string().as_bytes()).is_err());
    }
    receipts.close().await;
}

#[tokio::test]
async fn receipts_outlive_a_restart_under_the_same_key() {
    let state = tempfile::tempdir().unwrap();
    let name = "i-00000000000000aa";
    let receipts = Receipts::open(state.path()).unwrap();
    record(&receipts, name).await;
    let origin = receipts.origin().to_owned();
    receipts.close().await;
    drop(receipts);

    let again = Receipts::open(state.path()).unwrap();
    assert_eq!(again.origin(), origin);
    let proof = again.of_index(0).unwrap();
    assert_eq!(verify(&again, &proof).unwrap().instance, name);
    assert_eq!(again.of_index(1).unwrap_err().code, "receipt_unknown");
    assert_eq!(
        again.of_instance(name).unwrap_err().code,
        "receipt_unknown",
        "names are known for a while only"
    );
    again.close().await;
}

#[tokio::test]
async fn a_log_without_its_key_is_not_continued_under_another() {
    let state = tempfile::tempdir().unwrap();
    Receipts::open(state.path()).unwrap().close().await;
    std::fs::remove_dir_all(state.path().join("receipt-key")).unwrap();
    assert!(Receipts::open(state.path()).is_err());
    assert!(!state.path().join("receipt-key").exists());
}

#[test]
fn where_there_is_room_nothing_is_waited_for() {
    let state = tempfile::tempdir().unwrap();
    // Without a timer: whatever waits for a time cannot even begin to.
    let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tokio.block_on(async {
        let receipts = Receipts::open(state.path()).unwrap();
        let _slot = receipts.room().await.unwrap();
        assert_eq!(receipts.pending(), 1);
    });
}

#[tokio::test]
async fn a_log_that_takes_nothing_holds_new_work_back() {
    let state = tempfile::tempdir().unwrap();
    let receipts = Receipts::open(state.path()).unwrap();
    // As after a failure of the disk: the log stops, and what is handed over waits.
    receipts.log.close();
    record(&receipts, "i-0000000000000001").await;
    for _ in 0..2_000 {
        if receipts.available().is_err() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert!(receipts.available().is_err());
    assert!(receipts.room().await.is_err());
}
