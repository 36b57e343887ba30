//! Certificates by what was signed with them, and what was signed with a certificate: the log knows digests, the authority knows
//! certificates.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tlog_client::LogClient;
use trust_store::provider::AwsLc;

use crate::exit::{Exit, Failure, Outcome};
use crate::log::record::{Record, entry_format};
use crate::log::{KnownLog, log_failure};

/// Most entries with one digest that are looked at in one log.
const MOST: usize = 1_000;
/// How often the index is asked until it covers what is published: it follows within a second.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(200);

/// A SHA-256 as people write it: with or without `sha256:`.
///
/// # Errors
/// Exit code 2 for anything else.
pub(super) fn digest(text: &str) -> Outcome<String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    match hex::decode(&digits) {
        Ok(octets) if octets.len() == 32 => Ok(digits),
        _ => Err(Failure::usage("a digest is the 64 hexadecimal digits of a SHA-256")),
    }
}

/// What entries are looked for by.
#[derive(Clone, Copy, Debug)]
pub(super) enum By<'a> {
    /// The digest of what was signed.
    Digest(&'a str),
    /// The serial number of the certificate.
    Serial(&'a str),
}

/// An entry of a signing log, proven to be in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Signed {
    /// Its index.
    pub(super) index: u64,
    /// Digest of what was signed, hexadecimal.
    pub(super) digest: String,
    /// Serial number of the certificate, hexadecimal.
    pub(super) serial: String,
}

impl Signed {
    fn is_by(&self, by: By<'_>) -> bool {
        match by {
            By::Digest(digest) => self.digest == digest,
            By::Serial(serial) => self.serial.trim_start_matches('0') == serial.trim_start_matches('0'),
        }
    }
}

/// Serial numbers of the certificates in a log's entries that have a digest.
///
/// # Errors
/// As [`signed`].
pub(super) async fn serials(known: &KnownLog, client: &LogClient, digest: &str) -> Outcome<BTreeSet<String>> {
    let found = signed(known, client, By::Digest(digest)).await?;
    Ok(found.into_iter().map(|entry| entry.serial).collect())
}

/// Entries of a log, each proven to be in it. The log's index is its word only, which can leave entries out and cannot make any up;
/// what it says of itself is that it covers every entry of the log's newest checkpoint.
///
/// # Errors
/// Exit code 69 when the log does not answer, or its index does not cover the log; 3 when what it answers does not verify.
pub(super) async fn signed(known: &KnownLog, client: &LogClient, by: By<'_>) -> Outcome<Vec<Signed>> {
    let kind = known.description.kind.as_str();
    let checkpoint =
        client.checkpoint(&known.description.origin, &known.keys, &AwsLc).await.map_err(log_failure)?;
    let mut entries = Vec::new();
    for index in found(client, by, checkpoint.head().size, TRIES).await? {
        // What was added after the checkpoint is the next call's.
        if index >= checkpoint.head().size {
            continue;
        }
        let entry = client.tree(*checkpoint.head()).entry(index, entry_format(kind)).await;
        let record = Record::read(kind, &entry.map_err(log_failure)?.bytes).map_err(|_| {
            Failure::new(Exit::Denied, format!("entry {index} of the {kind} log is none of its kind"))
        })?;
        if let Record::Signature { digest, certificate: Some(certificate) } = record {
            let (digest, serial) = (hex::encode(&digest), hex::encode(certificate.serial()));
            entries.push(Signed { index, digest, serial });
        }
    }
    entries.retain(|entry| entry.is_by(by));
    Ok(entries)
}

/// Indexes that the log's index names, of every page.
///
/// # Errors
/// Exit code 69 when the index does not cover `size` entries after so many tries: what it does not cover it cannot have searched.
async fn found(client: &LogClient, by: By<'_>, size: u64, tries: u32) -> Outcome<Vec<u64>> {
    let (field, value) = match by {
        By::Digest(digest) => ("digest", digest),
        By::Serial(serial) => ("serial", serial),
    };
    let mut indexes = Vec::new();
    let (mut from, mut left) = (0, tries);
    loop {
        let page = client.lookup_from(field, value, from).await.map_err(log_failure)?;
        let covered = page.get("covered_size").and_then(Value::as_u64).unwrap_or(0);
        if covered < size {
            left = left.saturating_sub(1);
            if left == 0 {
                return Err(not_covered(covered, size));
            }
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let entries = page.get("entries").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for entry in entries {
            let index = entry.get("logIndex").and_then(|index| {
                index.as_u64().or_else(|| index.as_str().and_then(|text| text.parse().ok()))
            });
            indexes.push(index.ok_or_else(|| Failure::failed("the log's answer names no index"))?);
        }
        match page.get("next").and_then(Value::as_u64) {
            Some(next) if next > from && indexes.len() < MOST => from = next,
            Some(_) if indexes.len() >= MOST => {
                return Err(Failure::failed(format!("more than {MOST} entries have this {field}")));
            }
            _ => return Ok(indexes),
        }
    }
}

fn not_covered(covered: u64, size: u64) -> Failure {
    let what =
        format!("the log's index covers {covered} of {size} entries: nobody knows what the others signed");
    Failure::new(Exit::Unavailable, what).code("not_indexed").hint(
        "ask again when the log has read or made its index, or read every entry with `mentatctl log monitor`",
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener};

    use serde_json::json;
    use tlog_client::LogClient;

    use super::{By, Signed, digest, found};
    use crate::exit::{Exit, Outcome};
    use crate::net::block_on;

    #[test]
    fn digests_are_read_as_people_write_them() {
        let text = "AB".repeat(32);
        assert_eq!(digest(&text).unwrap(), "ab".repeat(32));
        assert_eq!(digest(&format!("sha256:{text}")).unwrap(), "ab".repeat(32));
        for wrong in ["", "sha256:", &text[2..], "zz", &format!("sha512:{text}")] {
            assert!(digest(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_entry_that_the_index_names_must_be_one_of_what_was_asked_for() {
        let entry = Signed { index: 1, digest: "ab".repeat(32), serial: "00af".to_owned() };
        assert!(entry.is_by(By::Digest(&"ab".repeat(32))) && !entry.is_by(By::Digest(&"cd".repeat(32))));
        assert!(entry.is_by(By::Serial("af")) && !entry.is_by(By::Serial("00ae")));
    }

    /// What is found in a log of seven entries whose answers have these sizes, entries and next pages; the last one is repeated.
    fn asked(answers: &[(u64, &[u64], Option<u64>)], tries: u32) -> Outcome<Vec<u64>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers: Vec<String> = answers
            .iter()
            .map(|(covered, entries, next)| {
                let entries: Vec<_> =
                    entries.iter().map(|index| json!({ "logIndex": index.to_string() })).collect();
                json!({ "covered_size": covered, "tree_size": 7, "entries": entries, "next": next })
                    .to_string()
            })
            .collect();
        std::thread::spawn(move || {
            for (asked, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                assert!(stream.read(&mut request).unwrap() > 0);
                let body = answers.get(asked).or(answers.last()).unwrap();
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                )
                .unwrap();
            }
        });
        let http = crate::net::loopback_client(None).unwrap();
        let client = LogClient::new(http, &url).unwrap();
        block_on(found(&client, By::Digest(&"ab".repeat(32)), 7, tries))
    }

    #[test]
    fn an_index_that_does_not_cover_the_log_finds_nothing_out() {
        assert_eq!(asked(&[(7, &[], None)], 1).unwrap(), Vec::<u64>::new());
        assert_eq!(
            asked(&[(0, &[], None), (6, &[1], None), (8, &[1, 5], Some(6)), (8, &[6], None)], 3).unwrap(),
            [1, 5, 6]
        );
        for answers in [&[(0, &[][..], None)][..], &[(6, &[1], None)], &[(7, &[1], Some(2)), (0, &[], None)]]
        {
            let refused = asked(answers, 2).unwrap_err();
            assert_eq!((refused.exit, refused.code.as_deref()), (Exit::Unavailable, Some("not_indexed")));
            assert!(refused.what.contains("of 7 entries"), "{}", refused.what);
        }
    }
}
