//! `POST <base>/api/v1/batch`: `{"entries":[request, ...]}`, each as the single endpoint takes it; one checkpoint covers
//! all of them. An issuance log takes chains of both forms, and an entry that asks for `"answer":"index"` gets no promise.
//!
//! The body is cut into its entries without building anything of their content, and the cutting ends with the first entry
//! too many: each piece is then read by the code that reads it alone. What all bodies of a log's batches hold together is
//! bounded (see `room`), and so is how many are verified, or answered, at once (see `turns`): a batch whose request was given
//! up while it is worked on still holds its turn.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use log_store::{Clock as _, Entry, LogKind, Novelty, Receipt};
use serde::de::IgnoredAny;
use serde_json::json;
use service::body::RequestBody;
use service::{Peer, Problem};

use super::entry::{evidence, wait};
use super::problem::{Oversize, of_store};
use super::turns::OF_ONE;
use super::{Handled, Sharing, Submission, Turns, body_within, event, issuance, respond, signing};
use crate::clock::LogClock;
use crate::logs::ServedLog;
use crate::settings::{MAX_BATCH_BYTES, MAX_BATCH_ENTRIES};

/// Longest wait of a whole body for its turn: its bytes are counted meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);

/// The turns of one log's batches: as many as there are processors, of one address half of them. Writers that are named share nothing.
pub(crate) fn turns(sharing: Sharing) -> Turns {
    let all = std::thread::available_parallelism().map_or(2, |count| count.get().max(2));
    let of_one = match sharing {
        Sharing::Writers => all,
        Sharing::PerAddress => all.div_ceil(2).max(OF_ONE),
    };
    Turns::new(all, of_one, PATIENCE)
}

/// Reads and submits a batch.
pub(crate) async fn create(
    log: &Arc<ServedLog>,
    submission: Submission,
    request: Request<RequestBody>,
) -> Handled {
    let peer = request.extensions().get::<Peer>();
    let network = peer.map_or(IpAddr::from([0; 4]), Peer::network);
    // Given back when the batch is answered.
    let place = log.room.enter(peer.map(|peer| peer.address().ip()));
    let room = |length: usize| place.grow(length, LogClock.elapsed());
    let body = tokio::select! {
        body = body_within(request, MAX_BATCH_BYTES, Oversize::PayloadTooLarge, room) => body?,
        given_up = place.given_up() => given_up?,
    };
    place.whole()?;
    if log.kind == LogKind::Issuance {
        return issuance::add_all(log, submission, split(&body)?, network).await;
    }
    answer(log, submission, body, network).await
}

/// Cuts `{"entries":[...]}` into its entries, at most [`MAX_BATCH_ENTRIES`].
fn split(body: &Bytes) -> Result<Vec<Bytes>, Problem> {
    let mut cursor = Cursor { body, at: 0 };
    cursor.expect(b'{')?;
    if cursor.value::<String>()?.0 != "entries" {
        return Err(malformed("the batch has a member other than entries"));
    }
    cursor.expect(b':')?;
    cursor.expect(b'[')?;
    let count = || malformed(&format!("a batch has 1 to {MAX_BATCH_ENTRIES} entries"));
    if cursor.next() == Some(b']') {
        return Err(count());
    }
    let mut entries = Vec::new();
    loop {
        if entries.len() == MAX_BATCH_ENTRIES {
            return Err(count());
        }
        let (IgnoredAny, entry) = cursor.value()?;
        entries.push(entry);
        if cursor.next() != Some(b',') {
            break;
        }
        cursor.at += 1;
    }
    cursor.expect(b']')?;
    cursor.expect(b'}')?;
    if cursor.next().is_some() {
        return Err(malformed("something follows the batch"));
    }
    Ok(entries)
}

fn malformed(detail: &str) -> Problem {
    Problem::bad_request("malformed", detail.to_owned())
}

/// A place in a JSON text.
struct Cursor<'a> {
    body: &'a Bytes,
    at: usize,
}

impl Cursor<'_> {
    fn rest(&self) -> &[u8] {
        self.body.get(self.at..).unwrap_or_default()
    }

    /// The next byte that is no white space.
    fn next(&mut self) -> Option<u8> {
        let space = self.rest().iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
        self.at += space;
        self.rest().first().copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), Problem> {
        if self.next() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(malformed(&format!(
            "the batch is not valid: expected {:?} at byte {}",
            char::from(byte),
            self.at
        )))
    }

    /// The next value, and its bytes.
    fn value<T: serde::de::DeserializeOwned>(&mut self) -> Result<(T, Bytes), Problem> {
        self.next();
        let mut values = serde_json::Deserializer::from_slice(self.rest()).into_iter::<T>();
        let value = match values.next() {
            Some(Ok(value)) => value,
            Some(Err(error)) => return Err(malformed(&format!("the batch is not valid: {error}"))),
            None => return Err(malformed("the batch ends too early")),
        };
        let end = self.at + values.byte_offset();
        let bytes = self.body.slice(self.at..end);
        self.at = end;
        Ok((value, bytes))
    }
}

/// Verifies the requests of a batch. Up to a thousand signatures must not hold up the threads that answer others.
async fn verified_bodies(
    log: Arc<ServedLog>,
    requests: Vec<Bytes>,
    peer: IpAddr,
) -> Result<Vec<Result<Vec<u8>, Problem>>, Problem> {
    let turn = log.batches.next(peer).await?;
    let verify = move || {
        let limit = if log.kind == LogKind::Signing { signing::MAX_BODY } else { event::MAX_BODY };
        let verify_one = |request: Bytes| match log.kind {
            _ if request.len() > limit => Err(Oversize::BadRequest.problem(limit)),
            LogKind::Signing => signing::verified_body(&log, &request),
            _ => event::verified_body(&log, &request),
        };
        requests.into_iter().map(verify_one).collect()
    };
    turn.run(verify).await
}

/// 200 with one result per entry, in order: `{"entry": ...}`, with `"duplicate": true` where
/// it was there before, or `{"problem": ...}`.
async fn answer(log: &Arc<ServedLog>, submission: Submission, body: Bytes, peer: IpAddr) -> Handled {
    let requests = split(&body)?;
    let store = |error| of_store(error, Oversize::BadRequest);
    let mut verified = Vec::with_capacity(requests.len());
    let mut submitted = Vec::new();
    for body in verified_bodies(log.clone(), requests, peer).await? {
        let body = body.and_then(|body| {
            let bytes = Bytes::from(body);
            submitted.push(Entry::plain(bytes.clone()).map_err(store)?);
            Ok(bytes)
        });
        verified.push(body);
    }
    let mut answers =
        log.log.submit_all(submission.writer, submitted, submission.ack).map_err(store)?.into_iter();
    let mut receipts = Vec::with_capacity(verified.len());
    for body in verified {
        receipts.push(match body {
            Ok(body) => {
                let answer = answers.next().ok_or_else(|| Problem::internal("an entry without an answer"))?;
                Ok((wait(log, answer, submission).await.map_err(store)?, body))
            }
            Err(problem) => Err(problem),
        });
    }
    // Up to a thousand proofs are no more for the threads that answer others than the signatures were.
    let turn = log.batches.next(peer).await?;
    let log = log.clone();
    let results = turn.run(move || results(&log, receipts)).await??;
    Ok(respond(StatusCode::OK, "application/json", "no-store", results.into()))
}

/// The answer of a batch: the newest checkpoint covers every entry.
fn results(log: &ServedLog, receipts: Vec<Result<(Receipt, Bytes), Problem>>) -> Result<Vec<u8>, Problem> {
    let publications = receipts.iter().filter_map(|receipt| receipt.as_ref().ok()?.0.publication.clone());
    let newest = publications.max_by_key(|publication| publication.tree().size);
    let mut text = b"{\"results\":[".to_vec();
    for (place, receipt) in receipts.into_iter().enumerate() {
        if place > 0 {
            text.push(b',');
        }
        match (receipt, &newest) {
            (Ok((receipt, body)), Some(publication)) => {
                let entry = evidence(log, receipt.index, body.to_vec(), publication)?;
                text.extend_from_slice(b"{\"entry\":");
                text.extend_from_slice(entry.to_json().map_err(Problem::internal)?.as_ref());
                let duplicate = receipt.novelty == Novelty::Duplicate;
                text.extend_from_slice(format!(",\"duplicate\":{duplicate}}}").as_bytes());
            }
            (Err(problem), _) => {
                let refused = json!({ "problem": problem.to_document() });
                serde_json::to_writer(&mut text, &refused).map_err(Problem::internal)?;
            }
            _ => return Err(Problem::internal("a batch entry without a checkpoint")),
        }
    }
    text.extend_from_slice(b"]}");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Result<Vec<String>, String> {
        let entries = split(&Bytes::copy_from_slice(text.as_bytes()));
        entries
            .map(|entries| entries.iter().map(|e| String::from_utf8(e.to_vec()).unwrap()).collect())
            .map_err(|problem| serde_json::to_string(&problem.to_document()).unwrap())
    }

    #[test]
    fn entries_keep_their_bytes() {
        let text = " {\"entries\" : [ {\"a\":1,\"a\":[\"]\"]} , \"x\",7 ]\n} ";
        assert_eq!(cut(text).unwrap(), ["{\"a\":1,\"a\":[\"]\"]}", "\"x\"", "7"]);
    }

    #[test]
    fn cutting_ends_with_the_first_entry_too_many() {
        let many =
            |count: usize, end: &str| format!("{{\"entries\":[{}{end}", vec!["{\"\":0}"; count].join(","));
        assert_eq!(cut(&many(1000, "]}")).unwrap().len(), 1000);
        // What follows is not looked at any more.
        let refused = cut(&many(1001, ",{{{")).unwrap_err();
        assert!(refused.contains("1 to 1000"), "{refused}");
        assert!(cut(&many(600_000, "]}")).unwrap_err().contains("1 to 1000"));
    }

    #[test]
    fn other_shapes_are_refused() {
        for text in [
            "",
            "{",
            "[]",
            "{}",
            "{\"entries\":[]}",
            "{\"entries\":{}}",
            "{\"entries\":[1}",
            "{\"entries\":[1,]}",
            "{\"entries\":[1 2]}",
            "{\"entries\":[1],\"entries\":[2]}",
            "{\"entries\":[1],\"more\":2}",
            "{\"more\":[1]}",
            "{\"entries\":[1]}{}",
            "{\"entries\":[tru]}",
        ] {
            let refused = cut(text).unwrap_err();
            assert!(refused.contains("malformed"), "{text}: {refused}");
        }
    }
}
