//! Heads of the receipt log, taken to the event log.
//!
//! Whoever holds this executor's key could sign another history of receipts. A head that stands in a log which others follow
//! cannot be taken back: a later history must extend it, or is known to be another one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hsm::developer::DeveloperKey;
use hsm::{Purpose, Signer, SigningIntent};
use serde::{Deserialize, Serialize};
use service::StartRefusal;
use tlog_client::{LogClient, Submission};
use trust_store::dsse::{self, Envelope, IN_TOTO_PAYLOAD_TYPE};
use trust_store::sorted_json::SortedJson;
use trust_store_files::atomic::{self, Readers};

use super::Receipts;
use crate::clock;

/// `predicateType` of a head of a receipt log.
pub const ANCHOR_TYPE: &str = "https://mentat.internal/receipt-anchor/v1";

/// Largest file of the state, bytes.
const MAX_FILE: u64 = 4096;

/// What takes heads to the event log.
pub struct Anchor {
    log: LogClient,
    signer: Arc<dyn Signer>,
    /// The head that was taken last.
    record: PathBuf,
}

/// A head that the event log took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchored {
    /// Origin of the receipt log.
    pub origin: String,
    /// Entries of the receipt log.
    pub size: u64,
    /// Root hash over them, hexadecimal.
    pub root: String,
    /// When, Unix milliseconds.
    pub at_ms: u64,
}

/// Why a head was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The event log did not take it.
    #[error("the event log did not take it")]
    Log(#[from] tlog_client::Error),
    /// It could not be signed.
    #[error("it could not be signed")]
    Signing(#[from] hsm::Error),
    /// The statement or the record of it could not be written.
    #[error("it could not be written")]
    Write(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Anchor {
    /// Signs with the key of this PEM file (mode 0600) and submits to this log.
    ///
    /// # Errors
    ///
    /// When the key cannot be used.
    pub fn new(log: LogClient, key: &Path, state: &Path) -> Result<Self, StartRefusal> {
        let pem = service::secret::read(key, hsm::developer::MAX_PEM_LEN)?;
        let refuse = |error: Box<dyn std::error::Error + Send + Sync>| {
            let what = format!("receipts.anchor_key_file: {} cannot be used", key.display());
            StartRefusal::new(what, "write an unencrypted PKCS#8 key in PEM").because(error)
        };
        let pem = std::str::from_utf8(&pem).map_err(|error| refuse(error.into()))?;
        let key = DeveloperKey::from_pem(pem, None).map_err(|error| refuse(error.into()))?;
        Ok(Self { log, signer: key.signer(), record: state.join("receipts.anchored") })
    }

    /// The head that was taken last, by the record of it.
    pub fn last(&self) -> Option<Anchored> {
        serde_json::from_slice(&atomic::read(&self.record, MAX_FILE).ok()?).ok()
    }

    /// Takes the published head to the event log, unless it is the one that was taken last.
    ///
    /// # Errors
    ///
    /// [`AnchorError`]; the next attempt takes the head of then.
    pub async fn take(&self, receipts: &Receipts) -> Result<Option<Anchored>, AnchorError> {
        let Ok(published) = receipts.published() else { return Ok(None) };
        let head = published.tree();
        let anchored = Anchored {
            origin: receipts.origin().to_owned(),
            size: head.size,
            root: hex::encode(head.root.0),
            at_ms: clock::unix_millis(),
        };
        let known = |last: &Anchored| {
            (&last.origin, last.size, &last.root) == (&anchored.origin, anchored.size, &anchored.root)
        };
        if head.size == 0 || self.last().is_some_and(|last| known(&last)) {
            return Ok(None);
        }
        let write = |error: serde_json::Error| AnchorError::Write(error.into());
        let envelope = serde_json::to_value(self.sign(&anchored)?).map_err(write)?;
        // A duplicate: it was taken, and a crash came before the record of it.
        let (Submission::Accepted(_) | Submission::Duplicate { .. }) =
            self.log.submit_event(&envelope).await?;
        let record = serde_json::to_vec(&anchored).map_err(write)?;
        atomic::write(&self.record, &record, Readers::Owner)
            .map_err(|error| AnchorError::Write(error.into()))?;
        Ok(Some(anchored))
    }

    fn sign(&self, anchored: &Anchored) -> Result<Envelope, hsm::Error> {
        let payload = statement(anchored).into_string().into_bytes();
        let message = dsse::pae(IN_TOTO_PAYLOAD_TYPE, &payload);
        let signature = self.signer.sign_message(&message, &SigningIntent::fresh(Purpose::Statement)?)?;
        Ok(Envelope::new(IN_TOTO_PAYLOAD_TYPE, payload, signature.as_bytes().to_vec()))
    }

    /// Takes a head in every interval in which the log grew, until the process ends.
    pub async fn keep(self, receipts: Receipts, interval: Duration) {
        let mut failing = false;
        loop {
            tokio::time::sleep(interval).await;
            match self.take(&receipts).await {
                Ok(None) => {}
                Ok(Some(anchored)) => {
                    failing = false;
                    tracing::info!(
                        size = anchored.size,
                        root = anchored.root,
                        "the head of the receipt log is anchored"
                    );
                }
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    let problem = service::exit::one_line(&error);
                    tracing::warn!(
                        problem,
                        "the head of the receipt log could not be anchored; it is tried again"
                    );
                }
                Err(_) => {}
            }
        }
    }
}

/// What is said of a head.
fn statement(Anchored { origin, size, root, at_ms }: &Anchored) -> SortedJson {
    serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": format!("{origin}, {size} entries"), "digest": { "sha256": root } }],
        "predicateType": ANCHOR_TYPE,
        "predicate": { "origin": origin, "size": size, "at_ms": at_ms },
    })
    .into()
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use trust_store::event::{EventRule, EventRules};
    use trust_store::json::Bytes;
    use trust_store::provider::AwsLc;

    use super::*;
    use crate::receipts::tests::{proof_of, record};

    /// An event log that takes or refuses everything; what it was sent.
    struct EventLog {
        url: String,
        status: Arc<Mutex<&'static str>>,
        taken: Arc<Mutex<Vec<Vec<u8>>>>,
    }

    impl EventLog {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/event", listener.local_addr().unwrap());
            let (status, taken) = (Arc::new(Mutex::new("200 OK")), Arc::new(Mutex::new(Vec::new())));
            let (answer, bodies) = (Arc::clone(&status), Arc::clone(&taken));
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut request = Vec::new();
                    let body = loop {
                        if stream.read_buf(&mut request).await.unwrap_or_default() == 0 {
                            break None;
                        }
                        let text = String::from_utf8_lossy(&request);
                        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                        assert!(head.starts_with("POST /event/api/v1/entries "), "{head}");
                        let length = head.lines().find_map(|line| {
                            line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok()
                        });
                        if body.len() == length.unwrap() {
                            break Some(body.as_bytes().to_vec());
                        }
                    };
                    let status = *answer.lock();
                    bodies.lock().extend(body.filter(|_| status.starts_with('2')));
                    let answer = format!(
                        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
            Self { url, status, taken }
        }
    }

    fn anchor(log: &EventLog, key: &Path, state: &Path) -> Anchor {
        let retry = tlog_client::RetryPolicy { attempts: 1, ..tlog_client::RetryPolicy::default() };
        let client = LogClient::new(reqwest::Client::new(), &log.url).unwrap().with_retry(retry);
        Anchor::new(client, key, state).unwrap()
    }

    #[tokio::test]
    async fn each_new_head_is_taken_to_the_event_log_once() {
        let state = tempfile::tempdir().unwrap();
        let (log, receipts) = (EventLog::start().await, Receipts::open(state.path()).unwrap());
        let key = DeveloperKey::generate(hsm::KeyAlgorithm::EcdsaP256).unwrap();
        let file = state.path().join("anchor.pem");
        service::secret::write_new(&file, key.to_pem().as_bytes()).unwrap();
        let first = anchor(&log, &file, state.path());
        assert!(
            first.take(&receipts).await.unwrap().is_none() && log.taken.lock().is_empty(),
            "there is no entry"
        );

        let name = "i-00000000000000aa";
        record(&receipts, name).await;
        proof_of(&receipts, name).await;
        *log.status.lock() = "503 Service Unavailable";
        assert!(matches!(first.take(&receipts).await, Err(AnchorError::Log(_))));
        *log.status.lock() = "200 OK";
        let taken = first.take(&receipts).await.unwrap().unwrap();
        let head = receipts.published().unwrap().tree();
        assert_eq!((taken.size, taken.root.as_str()), (1, hex::encode(head.root.0).as_str()));
        let written = std::fs::read_to_string(state.path().join("receipts.anchored")).unwrap();
        let Anchored { origin, root, at_ms, .. } = &taken;
        let frozen = format!(r#"{{"origin":"{origin}","size":1,"root":"{root}","at_ms":{at_ms}}}"#);
        assert_eq!((written, first.last()), (frozen, Some(taken)));

        // What the log got is signed by the key that its rules name, and says which head of which log it is.
        let rule = EventRule {
            predicate_type: ANCHOR_TYPE.into(),
            issuer: None,
            issuer_name: None,
            issuer_key: None,
            keys: vec![Bytes(key.signer().public_key().spki_der().to_vec())],
        };
        let sent = log.taken.lock().pop().unwrap();
        let event =
            EventRules::new(vec![rule]).unwrap().verify(&Envelope::parse(&sent).unwrap(), &AwsLc).unwrap();
        let [subject] = &event.statement().subject[..] else { panic!("one subject") };
        assert_eq!(subject.digest.get("sha256"), Some(&hex::encode(head.root.0)));
        let origin = event.statement().predicate.member("origin").and_then(|origin| origin.as_str());
        assert_eq!(origin, Some(receipts.origin()));

        // Not again, also not after a restart; a head that grew is.
        assert!(anchor(&log, &file, state.path()).take(&receipts).await.unwrap().is_none());
        let name = "i-00000000000000bb";
        record(&receipts, name).await;
        proof_of(&receipts, name).await;
        assert_eq!(first.take(&receipts).await.unwrap().unwrap().size, 2);
        assert_eq!(log.taken.lock().len(), 1);
        receipts.close().await;
    }

    #[test]
    fn the_statement_about_a_head_is_frozen() {
        let head = Anchored { origin: "receipts.00".into(), size: 3, root: "ab".into(), at_ms: 5 };
        assert_eq!(
            statement(&head).as_str(),
            r#"{"_type":"https://in-toto.io/Statement/v1","predicate":{"at_ms":5,"origin":"receipts.00","size":3},"predicateType":"https://mentat.internal/receipt-anchor/v1","subject":[{"digest":{"sha256":"ab"},"name":"receipts.00, 3 entries"}]}"#
        );
    }

    #[tokio::test]
    async fn a_key_that_others_can_read_or_that_is_none_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let state = tempfile::tempdir().unwrap();
        let log = EventLog::start().await;
        let client = || LogClient::new(reqwest::Client::new(), &log.url).unwrap();
        let file = state.path().join("anchor.pem");
        service::secret::write_new(&file, b"no key").unwrap();
        let refused = Anchor::new(client(), &file, state.path()).err().unwrap().to_string();
        assert!(refused.contains("receipts.anchor_key_file"), "{refused}");
        let key = DeveloperKey::generate(hsm::KeyAlgorithm::Ed25519).unwrap();
        std::fs::write(&file, key.to_pem().as_bytes()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Anchor::new(client(), &file, state.path()).is_err());
    }
}
