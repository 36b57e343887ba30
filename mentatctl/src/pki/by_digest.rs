//! Certificates by what was signed with them: the log knows digests, the authority knows certificates.

use std::collections::BTreeSet;

use serde_json::Value;
use tlog_client::LogClient;
use trust_store::provider::AwsLc;

use crate::exit::{Exit, Failure, Outcome};
use crate::log::record::{Record, entry_format};
use crate::log::{KnownLog, log_failure};

/// Most entries with one digest that are looked at in one log.
const MOST: usize = 1_000;

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

/// Serial numbers of the certificates in a log's entries that have a digest, each entry proven to be in the log. The log's index is
/// its word only, which can leave entries out and cannot make any up.
///
/// # Errors
/// Exit code 69 when the log does not answer, 3 when what it answers does not verify.
pub(super) async fn serials(known: &KnownLog, client: &LogClient, digest: &str) -> Outcome<BTreeSet<String>> {
    let kind = known.description.kind.as_str();
    let indexes = found(client, digest).await?;
    let mut serials = BTreeSet::new();
    if indexes.is_empty() {
        return Ok(serials);
    }
    let checkpoint =
        client.checkpoint(&known.description.origin, &known.keys, &AwsLc).await.map_err(log_failure)?;
    for index in indexes {
        // What was added after the checkpoint is the next call's.
        if index >= checkpoint.head().size {
            continue;
        }
        let entry = client.tree(*checkpoint.head()).entry(index, entry_format(kind)).await;
        let record = Record::read(kind, &entry.map_err(log_failure)?.bytes).map_err(|_| {
            Failure::new(Exit::Denied, format!("entry {index} of the {kind} log is none of its kind"))
        })?;
        let certificate = match record {
            Record::Signature { digest: signed, certificate } if hex::encode(&signed) == digest => {
                certificate
            }
            _ => None,
        };
        serials.extend(certificate.map(|certificate| hex::encode(certificate.serial())));
    }
    Ok(serials)
}

/// Indexes that the log's index names, of every page.
async fn found(client: &LogClient, digest: &str) -> Outcome<Vec<u64>> {
    let mut indexes = Vec::new();
    let mut from = 0;
    loop {
        let page = client.lookup_from("digest", digest, from).await.map_err(log_failure)?;
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
                return Err(Failure::failed(format!("more than {MOST} entries have this digest")));
            }
            _ => return Ok(indexes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn digests_are_read_as_people_write_them() {
        let text = "AB".repeat(32);
        assert_eq!(digest(&text).unwrap(), "ab".repeat(32));
        assert_eq!(digest(&format!("sha256:{text}")).unwrap(), "ab".repeat(32));
        for wrong in ["", "sha256:", &text[2..], "zz", &format!("sha512:{text}")] {
            assert!(digest(wrong).is_err(), "{wrong}");
        }
    }
}
