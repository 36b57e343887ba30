//! Reads: checkpoint, tiles, bundles, proofs, issuers, lookups. Everything is cut to the published checkpoint.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use log_store::{Deduplication, Error, LogKind, Publication};
use serde_json::json;
use service::{Peer, Problem};
use tlog::bundle::append_entry;
use tlog::hash::{Hash, LeafHash};
use tlog::tile::{BundleId, TilePath};

use super::entry::evidence;
use super::problem::{Oversize, of_store};
use super::turns::{OF_ONE, Turns};
use super::{Answer, Handled, issuance, json as json_answer, respond, unknown};
use crate::issuers::Unusable;
use crate::logs::ServedLog;
use crate::lookup::not_indexed;
use crate::terms::TermKind;

const BINARY: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// A checkpoint is replaced within seconds.
const BRIEF: &str = "public, max-age=1";

pub(crate) async fn read(log: &Arc<ServedLog>, rest: &str, query: &str, peer: Option<&Peer>) -> Handled {
    if rest.starts_with("tile/") {
        return tile(log, rest, peer).await;
    }
    match rest {
        "checkpoint" => {
            let note = log.log.checkpoint().ok_or_else(not_published)?;
            Ok(respond(StatusCode::OK, TEXT, BRIEF, note))
        }
        "api/v1/witnessed" => {
            let cosigned = log.log.witnessed().ok_or_else(|| {
                Problem::not_found("no checkpoint of this log was cosigned by a quorum since its start")
            })?;
            Ok(respond(StatusCode::OK, TEXT, BRIEF, cosigned.note().clone()))
        }
        "api/v1/proof" => proof(log, query).await,
        "api/v1/consistency" => consistency(log, query),
        "api/v1/entry" => entry(log, query).await,
        "api/v1/lookup" => crate::lookup::answer(log, query, peer).await,
        "ct/v1/get-roots" if log.kind == LogKind::Issuance => issuance::roots(log),
        _ => match rest.strip_prefix("issuer/") {
            Some(fingerprint) if log.kind == LogKind::Issuance => issuer(log, fingerprint),
            _ => Err(unknown()),
        },
    }
}

pub(crate) fn published(log: &ServedLog) -> Result<Arc<Publication>, Problem> {
    log.log.publication().ok_or_else(not_published)
}

fn not_published() -> Problem {
    Problem::unavailable("not_published", 1).with_detail("no checkpoint reached its witness quorum yet")
}

async fn tile(log: &Arc<ServedLog>, path: &str, peer: Option<&Peer>) -> Handled {
    let publication = published(log)?;
    let store = |error| of_store(error, Oversize::BadRequest);
    let bytes = match TilePath::parse(path).map_err(|_| unknown())? {
        TilePath::Hashes(id) if id.level() <= 5 || log.kind != LogKind::Issuance => {
            log.log.tile(id.level(), id.index(), id.width(), &publication).map_err(store)?
        }
        TilePath::Entries(id) => bundle(log, id, publication, Record::Entry, peer).await?,
        TilePath::Data(id) if log.kind == LogKind::Issuance => {
            bundle(log, id, publication, Record::Data, peer).await?
        }
        _ => return Err(unknown()),
    };
    Ok(respond(StatusCode::OK, BINARY, IMMUTABLE, bytes))
}

/// How entries stand in a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    /// Leaf inputs with their lengths (tlog-tiles).
    Entry,
    /// Records one behind the other (static-ct-api).
    Data,
}

/// Bundles that are put together at the same time, over all logs: each may have 16 MiB.
static BUNDLES: LazyLock<Turns> = LazyLock::new(|| Turns::new(8, OF_ONE, Duration::from_secs(5)));

/// Bytes of the last bundle of each width, rounded up to a power of two, that one log gave: what the next one will have, more
/// or less.
#[derive(Debug, Default)]
pub(crate) struct BundleBytes([AtomicU64; 9]);

impl BundleBytes {
    fn of(&self, entries: u16) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(u32::from(entries).next_power_of_two().trailing_zeros()).ok()?)
    }
}

/// Bundles are hundreds of kilobytes: they are read and put together off the request threads, in turn, and not for who could
/// not be given another one anyway.
async fn bundle(
    log: &Arc<ServedLog>,
    id: BundleId,
    publication: Arc<Publication>,
    form: Record,
    peer: Option<&Peer>,
) -> Result<Bytes, Problem> {
    let may_take = || {
        let expected = log.bundle_bytes.of(id.width()).map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        if peer.is_none_or(|peer| peer.may_take(expected)) {
            return Ok(());
        }
        Err(Problem::unavailable("overloaded", 1)
            .with_detail("too many bytes of answers are under way; read them, then repeat the call"))
    };
    may_take()?;
    let turn = BUNDLES.next(peer.map_or(IpAddr::from([0; 4]), Peer::network)).await?;
    // Others that it asked for may have been given since.
    may_take()?;
    let (served, log) = (log, log.clone());
    let read = move || {
        let mut bytes = Vec::new();
        let mut unfit = false;
        log.log.read(id.first_entry(), u64::from(id.width()), &publication, |_, stored| match form {
            Record::Data => bytes.extend_from_slice(stored),
            Record::Entry => match log.kind.leaf_input(stored) {
                Some(leaf) => unfit |= append_entry(&mut bytes, &leaf).is_err(),
                None => unfit = true,
            },
        })?;
        Ok((bytes, unfit))
    };
    match turn.run(read).await? {
        Ok((bytes, false)) => {
            if let Some(last) = served.bundle_bytes.of(id.width()) {
                last.store(bytes.len() as u64, Ordering::Relaxed);
            }
            Ok(bytes.into())
        }
        Ok((_, true)) => Err(Problem::internal("an entry does not fit into a bundle")),
        Err(error) => Err(of_store(error, Oversize::BadRequest)),
    }
}

/// One parameter of a query: decimal numbers, hex and percent-encoded text.
pub(crate) fn parameter(query: &str, name: &str) -> Result<Option<String>, Problem> {
    let mut found = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key == name {
            if found.is_some() {
                return Err(Problem::bad_request("malformed", format!("{name} is given twice")));
            }
            found = Some(percent_decode(value).ok_or_else(|| {
                Problem::bad_request("malformed", format!("{name} is not percent-encoded UTF-8"))
            })?);
        }
    }
    Ok(found)
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'%' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = tail;
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok()
}

fn number(query: &str, name: &str) -> Result<Option<u64>, Problem> {
    let Some(text) = parameter(query, name)? else { return Ok(None) };
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    text.parse()
        .ok()
        .filter(|_| canonical)
        .map(Some)
        .ok_or_else(|| Problem::bad_request("malformed", format!("{name} is not a decimal number")))
}

/// The index that `index=` gives or `leaf=` leads to.
async fn wanted(log: &ServedLog, query: &str, publication: &Publication) -> Result<u64, Problem> {
    let store = |error| of_store(error, Oversize::BadRequest);
    let leaf = match (number(query, "index")?, parameter(query, "leaf")?) {
        (Some(index), None) => return Ok(index),
        (None, Some(leaf)) => leaf,
        _ => return Err(Problem::bad_request("malformed", "give either index or leaf")),
    };
    let mut hash = [0; 32];
    hex::decode_to_slice(&leaf, &mut hash)
        .map_err(|_| Problem::bad_request("malformed", "leaf is not 64 hexadecimal digits"))?;
    let leaf = LeafHash::from_stored(Hash(hash));
    let size = publication.tree().size;
    let missing = || store(Error::NotFound).with_member("tree_size", size);
    // The deduplication index does not know the leaves of these: the lookup index alone says that there is no such leaf.
    let alone = log.kind == LogKind::Issuance || log.settings.deduplication == Deduplication::Off;
    let lookup = match (log.log.index_of(&leaf, publication), &log.lookup) {
        (Err(Error::NotFound), Some(lookup)) if alone => lookup,
        (Err(Error::NotFound), _) => return Err(missing()),
        (found, _) => return found.map_err(store),
    };
    // The hash that the proof leads to is computed from the entry, so a wrong candidate proves nothing.
    let in_tree = |index: &u64| {
        log.log.entry(*index, publication).ok().and_then(|stored| log.kind.leaf_hash(&stored)) == Some(leaf)
    };
    let (candidates, covered) = lookup.search(TermKind::Leaf, &hash, 0).await?;
    // What is found needs no coverage, which only says what is not there.
    if let Some(index) = candidates.into_iter().find(in_tree) {
        return Ok(index);
    }
    if covered >= size {
        return Err(missing());
    }
    if !lookup.reaches(size).await {
        return Err(not_indexed(&format!("{} of {size} entries", lookup.covered())));
    }
    let (candidates, covered) = lookup.search(TermKind::Leaf, &hash, 0).await?;
    match candidates.into_iter().find(in_tree) {
        Some(index) => Ok(index),
        None if covered < size => Err(not_indexed(&format!("{covered} of {size} entries"))),
        None => Err(missing()),
    }
}

/// `GET <base>/api/v1/proof?index=N` or `?leaf=HEX`.
async fn proof(log: &ServedLog, query: &str) -> Handled {
    let publication = published(log)?;
    let index = wanted(log, query, &publication).await?;
    let store = |error| of_store(error, Oversize::BadRequest);
    let stored = log.log.entry(index, &publication).map_err(store)?;
    let entry = evidence(log, index, stored.clone(), &publication)?;
    let leaf = log.kind.leaf_hash(&stored).ok_or_else(|| Problem::internal("an entry of another kind"))?;
    let proof = entry.inclusion_proof.ok_or_else(|| Problem::internal("evidence without a proof"))?;
    Ok(json_answer(
        StatusCode::OK,
        &json!({
            "leaf_index": index,
            "leaf_hash": hex::encode(leaf.as_bytes()),
            "tree_size": proof.tree_size,
            "root_hash": proof.root_hash.to_base64(),
            "hashes": proof.hashes.iter().map(Hash::to_base64).collect::<Vec<_>>(),
            "checkpoint": proof.checkpoint,
        }),
    ))
}

/// `GET <base>/api/v1/entry?index=N` or `?leaf=HEX`: the entry as a write answered it, with a fresh proof.
async fn entry(log: &ServedLog, query: &str) -> Handled {
    let publication = published(log)?;
    let index = wanted(log, query, &publication).await?;
    let stored = log.log.entry(index, &publication).map_err(|error| of_store(error, Oversize::BadRequest))?;
    let json = evidence(log, index, stored, &publication)?.to_json().map_err(Problem::internal)?;
    Ok(respond(StatusCode::OK, "application/json", "no-store", json.into()))
}

/// `GET <base>/api/v1/consistency?old=N`: from an older size to the published one.
fn consistency(log: &ServedLog, query: &str) -> Handled {
    let publication = published(log)?;
    let old = number(query, "old")?.ok_or_else(|| Problem::bad_request("malformed", "old is missing"))?;
    let proof = log
        .log
        .consistency_proof(old, &publication)
        .map_err(|error| of_store(error, Oversize::BadRequest))?;
    let checkpoint = std::str::from_utf8(publication.note()).map_err(Problem::internal)?;
    Ok(json_answer(
        StatusCode::OK,
        &json!({
            "old_size": old,
            "new_size": publication.tree().size,
            "hashes": proof.path.iter().map(Hash::to_base64).collect::<Vec<_>>(),
            "checkpoint": checkpoint,
        }),
    ))
}

fn issuer(log: &ServedLog, fingerprint: &str) -> Result<Answer, Problem> {
    let mut digest = [0; 32];
    let lower = fingerprint.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !lower || hex::decode_to_slice(fingerprint, &mut digest).is_err() {
        return Err(unknown());
    }
    let issuers = log.issuers.as_ref().ok_or_else(unknown)?;
    let der = issuers.find(&digest).map_err(|why| match why {
        Unusable::Missing => unknown(),
        Unusable::Damaged => Problem::internal("a stored issuer is damaged"),
    })?;
    Ok(respond(StatusCode::OK, "application/pkix-cert", IMMUTABLE, der.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_once_and_must_be_single() {
        assert_eq!(parameter("identity=a%40b.c&x=1", "identity").unwrap().as_deref(), Some("a@b.c"));
        assert_eq!(parameter("x=1", "identity").unwrap(), None);
        assert!(parameter("a=1&a=2", "a").is_err());
        for bad in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert!(parameter(bad, "a").is_err(), "{bad}");
        }
        assert_eq!(number("n=10", "n").unwrap(), Some(10));
        for bad in ["n=", "n=01", "n=-1", "n=+1", "n=99999999999999999999", "n=x"] {
            assert!(number(bad, "n").is_err(), "{bad}");
        }
    }
}
