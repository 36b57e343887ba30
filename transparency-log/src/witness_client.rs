//! Collects the cosignatures that a log's witness policy asks for (C2SP tlog-witness, tlog-policy).
//!
//! All witnesses are asked at once; the answer is there as soon as the quorum is, so a slow witness delays nobody. Only
//! lines that verify with the witness's configured key are kept. Without a quorum there is no answer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::StatusCode;
use log_store::{Cosigner, Error};
use parking_lot::Mutex;
use service::StartRefusal;
use tlog::consistency::ConsistencyProof;
use tlog::hash::TreeHead;
use tlog::note::{Note, NoteSignature, parse_signature_lines};
use tlog::policy::{Policy, Witness};
use tlog::witness::{AddCheckpointRequest, parse_size_body};
use trust_store::provider::AwsLc;

/// Largest answer of a witness: some signature lines.
const MAX_ANSWER: usize = 64 << 10;

/// Asks the witnesses of one policy.
#[derive(Debug)]
pub(crate) struct WitnessClient {
    policy: Policy,
    urls: Vec<Option<String>>,
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
    timeout: Duration,
    /// Size that each witness recorded last, by place in the policy; 0 when unknown.
    recorded: Mutex<HashMap<usize, u64>>,
}

impl WitnessClient {
    /// Reads a policy file. Must be called inside the runtime that will make the requests.
    pub(crate) fn load(
        path: &Path,
        origin: &str,
        timeout: Duration,
    ) -> Result<Option<Arc<Self>>, StartRefusal> {
        let refuse = |why: String| {
            StartRefusal::new(
                format!("cannot use the witness policy {}: {why}", path.display()),
                "write a C2SP tlog-policy file",
            )
        };
        let bytes = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
        let policy = Policy::parse(&bytes).map_err(|error| refuse(error.to_string()))?;
        if policy.is_witnessless() {
            return Ok(None);
        }
        let mut urls = Vec::new();
        for witness in policy.witnesses() {
            if witness.key.name() == origin {
                return Err(refuse("a witness has the log's own name".to_owned()));
            }
            let url = witness.url.clone().map(String::from_utf8).transpose();
            let url = url.map_err(|_| refuse("a witness URL is not UTF-8".to_owned()))?;
            urls.push(url.map(|url| url.trim_end_matches('/').to_owned()));
        }
        if !policy.evaluate(|witness| urls.get(witness).is_some_and(Option::is_some)) {
            return Err(refuse("the witnesses with a URL are no quorum".to_owned()));
        }
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| refuse(error.to_string()))?;
        let runtime = tokio::runtime::Handle::current();
        Ok(Some(Arc::new(Self { policy, urls, client, runtime, timeout, recorded: Mutex::default() })))
    }

    async fn collect(
        &self,
        note: &Note,
        head: &TreeHead,
        consistency: &dyn Fn(u64) -> Result<ConsistencyProof, Error>,
    ) -> Result<Vec<u8>, Error> {
        let mut requests: FuturesUnordered<_> = self
            .policy
            .witnesses()
            .iter()
            .zip(&self.urls)
            .enumerate()
            .filter_map(|(place, (witness, url))| {
                Some(self.ask(place, witness, url.as_deref()?, note, head, consistency))
            })
            .collect();
        let mut cosigned = vec![false; self.policy.witnesses().len()];
        let mut whole = note.clone();
        while let Some((place, answer)) = requests.next().await {
            match answer {
                Ok(lines) => {
                    lines.into_iter().for_each(|line| whole.push(line));
                    if let Some(place) = cosigned.get_mut(place) {
                        *place = true;
                    }
                }
                Err(why) => {
                    let name = self.policy.witnesses().get(place).map_or("", |witness| witness.key.name());
                    tracing::warn!(witness = name, why, "no cosignature");
                }
            }
            if self.policy.evaluate(|witness| cosigned.get(witness) == Some(&true)) {
                return Ok(whole.to_bytes());
            }
        }
        let reached = cosigned.iter().filter(|cosigned| **cosigned).count();
        Err(Error::WitnessQuorum(format!(
            "{reached} of {} witnesses cosigned size {}",
            cosigned.len(),
            head.size
        )))
    }

    /// Asks one witness, once more when it has another size on record than expected.
    async fn ask(
        &self,
        place: usize,
        witness: &Witness,
        url: &str,
        note: &Note,
        head: &TreeHead,
        consistency: &dyn Fn(u64) -> Result<ConsistencyProof, Error>,
    ) -> (usize, Result<Vec<NoteSignature>, String>) {
        let mut old = self.recorded.lock().get(&place).copied().unwrap_or(0).min(head.size);
        let mut outcome = Err("it keeps naming another size".to_owned());
        for _ in 0..2 {
            let proof = match consistency(old) {
                Ok(proof) => proof,
                Err(error) => return (place, Err(error.to_string())),
            };
            let request = AddCheckpointRequest { old_size: old, proof, note: note.clone() };
            match self.post(url, request.to_bytes()).await {
                Ok((StatusCode::OK, body)) => {
                    outcome = verified(&body, witness, note);
                    if outcome.is_ok() {
                        self.recorded.lock().insert(place, head.size);
                    }
                    break;
                }
                Ok((StatusCode::CONFLICT, body)) => match parse_size_body(&body) {
                    Ok(recorded) if recorded <= head.size => old = recorded,
                    Ok(recorded) => {
                        outcome = Err(format!(
                            "it has recorded size {recorded}, larger than {}: was this log restored from a backup?",
                            head.size
                        ));
                        break;
                    }
                    Err(_) => {
                        outcome = Err("its 409 names no size".to_owned());
                        break;
                    }
                },
                Ok((status, _)) => {
                    outcome = Err(format!("status {status}"));
                    break;
                }
                Err(why) => {
                    outcome = Err(why);
                    break;
                }
            }
        }
        (place, outcome)
    }

    async fn post(&self, url: &str, body: Vec<u8>) -> Result<(StatusCode, String), String> {
        let sent = self.client.post(format!("{url}/add-checkpoint")).body(body).send();
        let mut response = sent.await.map_err(|error| error.to_string())?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| error.to_string())? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER {
                return Err("its answer is too long".to_owned());
            }
        }
        String::from_utf8(bytes).map(|text| (status, text)).map_err(|_| "its answer is not UTF-8".to_owned())
    }
}

/// Keeps the lines of the witness's key, each verified; there must be one with a time.
fn verified(body: &str, witness: &Witness, note: &Note) -> Result<Vec<NoteSignature>, String> {
    let lines =
        parse_signature_lines(body).map_err(|error| format!("its answer is no signature line: {error}"))?;
    let mut kept = Vec::new();
    for line in lines {
        if line.key_id() != witness.key.id() || line.name() != witness.key.name() {
            continue;
        }
        let time = witness
            .key
            .verify(note.text(), line.signature(), &AwsLc)
            .map_err(|_| "its cosignature does not verify".to_owned())?;
        if time.is_none() {
            return Err("its cosignature has no time".to_owned());
        }
        kept.push(line);
    }
    if kept.is_empty() { Err("its answer has no line of its key".to_owned()) } else { Ok(kept) }
}

impl Cosigner for WitnessClient {
    fn cosign(
        &self,
        note: &[u8],
        head: &TreeHead,
        consistency: &dyn Fn(u64) -> Result<ConsistencyProof, Error>,
    ) -> Result<Vec<u8>, Error> {
        let note = Note::parse(note).map_err(|error| Error::WitnessQuorum(error.to_string()))?;
        let collected =
            async { tokio::time::timeout(self.timeout * 2, self.collect(&note, head, consistency)).await };
        self.runtime
            .block_on(collected)
            .unwrap_or_else(|_| Err(Error::WitnessQuorum("the witnesses did not answer in time".to_owned())))
    }
}
