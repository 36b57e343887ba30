//! Collects the cosignatures that a log's witness policy asks for (C2SP tlog-witness, tlog-policy).
//!
//! All witnesses are asked at once; the answer is there as soon as the quorum is, so a slow witness delays nobody. One
//! line of each witness's configured key is kept, and only those that the quorum needs. The finished checkpoint is opened
//! as readers open it before anybody sees it. Without a quorum there is no answer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::StatusCode;
use log_store::{CheckpointKeys, Cosigner, Error, MAX_NOTE};
use parking_lot::Mutex;
use service::{ClientTls, StartRefusal};
use tlog::checkpoint::VerifiedCheckpoint;
use tlog::consistency::ConsistencyProof;
use tlog::hash::TreeHead;
use tlog::note::{KeyKind, Note, NoteSignature, VerifierKey, parse_signature_lines};
use tlog::policy::{Policy, Witness};
use tlog::witness::{AddCheckpointRequest, parse_size_body};
use trust_store::provider::AwsLc;

/// Largest answer of a witness: some signature lines.
const MAX_ANSWER: usize = 64 << 10;
/// Most signature lines of a checkpoint: readers need not take more (C2SP signed-note), and some do not.
const MAX_LINES: usize = 16;
/// Room for the text of a checkpoint: size, root and line breaks; the origin comes on top.
const TEXT_BYTES: usize = 100;

/// Asks the witnesses of one policy.
#[derive(Debug)]
pub(crate) struct WitnessClient {
    policy: Policy,
    origin: String,
    log_keys: Vec<VerifierKey>,
    urls: Vec<Option<String>>,
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
    timeout: Duration,
    /// Size that each witness recorded last, by place in the policy; 0 when unknown.
    recorded: Mutex<HashMap<usize, u64>>,
    /// The text that a quorum was not reached for last, and the lines over it: these witnesses need not be asked again.
    gathered: Mutex<Option<(String, Vec<Option<NoteSignature>>)>>,
}

/// Why a witness gave no line.
#[derive(Debug)]
struct NoLine {
    why: String,
    /// It has recorded this size, larger than what it was asked about.
    recorded: Option<u64>,
}

impl From<String> for NoLine {
    fn from(why: String) -> Self {
        Self { why, recorded: None }
    }
}

impl WitnessClient {
    /// Reads a policy file. Must be called inside the runtime that will make the requests.
    ///
    /// # Errors
    /// [`StartRefusal`] also for a policy whose quorum needs more lines than readers of a checkpoint take.
    pub(crate) fn load(
        path: &Path,
        keys: &CheckpointKeys,
        timeout: Duration,
        tls: &ClientTls,
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
            if witness.key.name() == keys.origin() {
                return Err(refuse("a witness has the log's own name".to_owned()));
            }
            let url = witness.url.clone().map(String::from_utf8).transpose();
            let url = url.map_err(|_| refuse("a witness URL is not UTF-8".to_owned()))?;
            if let Some(url) = &url {
                tls.allow(&format!("{}: the URL of witness {}", path.display(), witness.key.name()), url)?;
            }
            urls.push(url.map(|url| url.trim_end_matches('/').to_owned()));
        }
        if !policy.evaluate(|witness| urls.get(witness).is_some_and(Option::is_some)) {
            return Err(refuse("the witnesses with a URL are no quorum".to_owned()));
        }
        let log_keys: Vec<VerifierKey> = keys.verifier_keys().cloned().collect();
        fits(&policy, &log_keys).map_err(refuse)?;
        let client = tls.client(timeout)?;
        let runtime = tokio::runtime::Handle::current();
        Ok(Some(Arc::new(Self {
            policy,
            origin: keys.origin().to_owned(),
            log_keys,
            urls,
            client,
            runtime,
            timeout,
            recorded: Mutex::default(),
            gathered: Mutex::default(),
        })))
    }

    async fn collect(
        &self,
        note: &Note,
        head: &TreeHead,
        consistency: &dyn Fn(u64) -> Result<ConsistencyProof, Error>,
    ) -> Result<Vec<u8>, Error> {
        let before = self.gathered.lock().take().filter(|(text, _)| text == note.text());
        let mut lines = before.map_or_else(|| vec![None; self.policy.witnesses().len()], |(_, lines)| lines);
        let mut requests: FuturesUnordered<_> = self
            .policy
            .witnesses()
            .iter()
            .zip(&self.urls)
            .enumerate()
            .filter(|(place, _)| lines.get(*place).is_none_or(Option::is_none))
            .filter_map(|(place, (witness, url))| {
                Some(self.ask(place, witness, url.as_deref()?, note, head, consistency))
            })
            .collect();
        let mut ahead = None;
        while let Some((place, answer)) = requests.next().await {
            match answer {
                Ok(line) => {
                    if let Some(kept) = lines.get_mut(place) {
                        *kept = Some(line);
                    }
                }
                Err(NoLine { why, recorded }) => {
                    ahead = ahead.max(recorded);
                    let name = self.policy.witnesses().get(place).map_or("", |witness| witness.key.name());
                    tracing::warn!(witness = name, why, "no cosignature");
                }
            }
            if self.policy.evaluate(|witness| lines.get(witness).is_some_and(Option::is_some)) {
                return self.finish(note, lines);
            }
        }
        let reached = lines.iter().flatten().count();
        let count = lines.len();
        *self.gathered.lock() = Some((note.text().to_owned(), lines));
        let detail = format!("{reached} of {count} witnesses cosigned size {}", head.size);
        Err(match ahead {
            Some(recorded) => Error::WitnessAhead { recorded, detail },
            None => Error::WitnessQuorum(detail),
        })
    }

    /// The note with the lines of a quorum and no more, opened as readers open it.
    fn finish(&self, note: &Note, mut lines: Vec<Option<NoteSignature>>) -> Result<Vec<u8>, Error> {
        let needed = smallest(&self.policy, lines.iter().map(Option::is_some).collect());
        for (line, _) in lines.iter_mut().zip(needed).filter(|(_, needed)| !needed) {
            *line = None;
        }
        let mut whole = note.clone();
        lines.into_iter().flatten().for_each(|line| whole.push(line));
        let whole = whole.to_bytes();
        let unusable = |why: String| Error::WitnessQuorum(format!("the cosigned checkpoint {why}"));
        self.open(&whole).map_err(unusable)?;
        if whole.len() > MAX_NOTE {
            return Err(unusable(format!("has {} bytes; at most {MAX_NOTE} can be stored", whole.len())));
        }
        Ok(whole)
    }

    /// Opens a checkpoint as readers do.
    fn open(&self, note: &[u8]) -> Result<(), String> {
        let witnesses = self.policy.witnesses().iter().map(|witness| &witness.key);
        let keys: Vec<VerifierKey> = self.log_keys.iter().chain(witnesses).cloned().collect();
        let opened = VerifiedCheckpoint::open(note, &self.origin, &keys, &AwsLc)
            .map_err(|error| format!("does not open: {error}"))?;
        let cosigned = |witness: usize| {
            let key = self.log_keys.len() + witness;
            opened.cosignatures().iter().any(|line| line.key_index() == key && line.time().is_some())
        };
        if !self.policy.evaluate(cosigned) {
            return Err("has no quorum".to_owned());
        }
        let lines = opened.log_signatures().len() + opened.cosignatures().len();
        if lines > MAX_LINES { Err(format!("has {lines} lines; readers take {MAX_LINES}")) } else { Ok(()) }
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
    ) -> (usize, Result<NoteSignature, NoLine>) {
        let mut old = self.recorded.lock().get(&place).copied().unwrap_or(0).min(head.size);
        let mut outcome = Err(NoLine::from("it keeps naming another size".to_owned()));
        for _ in 0..2 {
            let proof = match consistency(old) {
                Ok(proof) => proof,
                Err(error) => return (place, Err(error.to_string().into())),
            };
            let request = AddCheckpointRequest { old_size: old, proof, note: note.clone() };
            match self.post(url, request.to_bytes()).await {
                Ok((StatusCode::OK, body)) => {
                    outcome = verified(&body, witness, note).map_err(NoLine::from);
                    if outcome.is_ok() {
                        self.recorded.lock().insert(place, head.size);
                    }
                    break;
                }
                Ok((StatusCode::CONFLICT, body)) => match parse_size_body(&body) {
                    Ok(recorded) if recorded <= head.size => old = recorded,
                    Ok(recorded) => {
                        let why = format!("it has recorded size {recorded}, larger than {}", head.size);
                        outcome = Err(NoLine { why, recorded: Some(recorded) });
                        break;
                    }
                    Err(_) => {
                        outcome = Err("its 409 names no size".to_owned().into());
                        break;
                    }
                },
                Ok((status, _)) => {
                    outcome = Err(format!("status {status}").into());
                    break;
                }
                Err(why) => {
                    outcome = Err(why.into());
                    break;
                }
            }
        }
        (place, outcome)
    }

    async fn post(&self, url: &str, body: Vec<u8>) -> Result<(StatusCode, String), String> {
        let sent = self.client.post(format!("{url}/add-checkpoint")).body(body).send();
        let mut response = sent.await.map_err(|error| with_causes(&error))?;
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

/// An error with what caused it: that a witness refused the connection for want of a certificate stands only there.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A quorum, without the witnesses that it has in excess.
fn smallest(policy: &Policy, mut cosigned: Vec<bool>) -> Vec<bool> {
    for place in 0..cosigned.len() {
        let without = |witness: usize| witness != place && cosigned.get(witness) == Some(&true);
        if policy.evaluate(without)
            && let Some(needed) = cosigned.get_mut(place)
        {
            *needed = false;
        }
    }
    cosigned
}

/// Makes sure that a checkpoint with the quorum can be stored and is taken by readers. Where groups are nested so that some
/// quorums are much larger than others, a checkpoint with one of those is not published when it comes to that.
fn fits(policy: &Policy, log_keys: &[VerifierKey]) -> Result<(), String> {
    let needed = smallest(policy, policy.witnesses().iter().map(|witness| witness.url.is_some()).collect());
    let witnesses = policy.witnesses().iter().zip(needed).filter(|(_, needed)| *needed);
    let keys: Vec<_> = log_keys.iter().chain(witnesses.map(|(witness, _)| &witness.key)).collect();
    if keys.len() > MAX_LINES {
        return Err(format!(
            "its quorum makes checkpoints of {} lines; readers take {MAX_LINES}",
            keys.len()
        ));
    }
    let origin = log_keys.first().map_or(0, |key| key.name().len());
    let bytes: usize = keys.into_iter().map(line_bytes).sum::<usize>() + origin + TEXT_BYTES;
    if bytes > MAX_NOTE {
        return Err(format!("its quorum makes checkpoints of {bytes} bytes; {MAX_NOTE} can be stored"));
    }
    Ok(())
}

/// The most bytes that a line of this key has.
fn line_bytes(key: &VerifierKey) -> usize {
    let signature = if key.kind() == KeyKind::MlDsa44 { 2420 } else { 128 };
    // Dash, two spaces and a line break; base64 of key ID, time and signature.
    key.name().len() + 6 + (4 + 8_usize + signature).div_ceil(3) * 4
}

/// The signature lines behind the log's own, which stand first.
fn lines_after_own<'a>(note: &'a [u8], origin: &str) -> &'a [u8] {
    let own = format!("\u{2014} {origin} ");
    let text = note.windows(2).position(|two| two == b"\n\n").map_or(note.len(), |at| at + 2);
    let mut lines = note.get(text..).unwrap_or_default();
    while lines.starts_with(own.as_bytes()) {
        let end = lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1);
        lines = lines.get(end..).unwrap_or_default();
    }
    lines
}

/// The line of the witness's key, verified; it must have a time. Further lines of the key would say nothing more.
fn verified(body: &str, witness: &Witness, note: &Note) -> Result<NoteSignature, String> {
    let lines =
        parse_signature_lines(body).map_err(|error| format!("its answer is no signature line: {error}"))?;
    let line = lines
        .into_iter()
        .find(|line| line.key_id() == witness.key.id() && line.name() == witness.key.name())
        .ok_or("its answer has no line of its key")?;
    let time = witness
        .key
        .verify(note.text(), line.signature(), &AwsLc)
        .map_err(|_| "its cosignature does not verify".to_owned())?;
    if time.is_none() {
        return Err("its cosignature has no time".to_owned());
    }
    Ok(line)
}

impl Cosigner for WitnessClient {
    fn cosignatures<'a>(&self, note: &'a [u8]) -> Option<&'a [u8]> {
        self.open(note).ok()?;
        Some(lines_after_own(note, &self.origin))
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    /// A policy of `count` ML-DSA witnesses of which `needed` must cosign.
    fn policy(count: u8, needed: u8) -> Policy {
        let mut text = String::new();
        let mut names = String::new();
        for number in 0..count {
            let key = VerifierKey::ml_dsa_44(&format!("w{number}.example"), &[number; 1312]).unwrap();
            text += &format!("witness w{number} {key} https://w{number}.example/\n");
            names += &format!(" w{number}");
        }
        Policy::parse(format!("{text}group g {needed}{names}\nquorum g\n").as_bytes()).unwrap()
    }

    #[test]
    fn the_lines_of_witnesses_are_those_behind_the_logs_own() {
        let note = "log.example\n1\nroot\n\n— log.example AAAA\n— log.example BBBB\n— w.example CCCC\n— v.example DDDD\n";
        let lines = lines_after_own(note.as_bytes(), "log.example");
        assert_eq!(lines, "— w.example CCCC\n— v.example DDDD\n".as_bytes());
        assert_eq!(lines_after_own(b"log.example\n1\nroot\n\n", "log.example"), b"");
    }

    #[test]
    fn a_quorum_whose_checkpoints_readers_would_refuse_is_refused_at_start() {
        let own = [VerifierKey::ed25519("log.example", &[7; 32]).unwrap()];
        fits(&policy(15, 15), &own).unwrap();
        fits(&policy(32, 15), &own).unwrap();
        for (count, needed) in [(16, 16), (20, 20), (32, 19)] {
            let refused = fits(&policy(count, needed), &own).unwrap_err();
            assert!(refused.contains("readers take 16"), "{refused}");
        }
    }
}
