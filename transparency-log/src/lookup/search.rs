//! `GET <base>/api/v1/lookup`: a search, whose every hit is read from the log and checked.

use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;
use log_store::Publication;
use serde_json::{Value, json};
use service::{Peer, Problem};

use super::PAGE;
use crate::api::{Handled, evidence, json as json_answer, of_store, parameter, published};
use crate::logs::ServedLog;
use crate::terms::{self, TermKind};

/// `GET <base>/api/v1/lookup?digest=HEX|identity=TEXT|publisher=TEXT|serial=HEX|type=TEXT[&from=N]`: entries with fresh
/// proofs, oldest first; `next` says where to go on.
pub(crate) async fn answer(log: &Arc<ServedLog>, query: &str, peer: Option<&Peer>) -> Handled {
    let lookup = log.lookup.as_ref().ok_or_else(|| Problem::not_found("this log has no lookup index"))?;
    let (kind, key) = term(query)?;
    let from = match parameter(query, "from")? {
        Some(text) => {
            text.parse().map_err(|_| Problem::bad_request("malformed", "from is not a decimal number"))?
        }
        None => 0,
    };
    let turn = lookup.turns.next(peer.map_or(IpAddr::from([0; 4]), Peer::network)).await?;
    let publication = published(log)?;
    let (candidates, covered) = lookup.search(kind, &key, from).await?;
    let next = match candidates.last() {
        Some(last) if u32::try_from(candidates.len()) == Ok(PAGE) => Value::from(last + 1),
        _ => Value::Null,
    };
    let size = publication.tree().size;
    let reader = log.clone();
    // Up to a page of entries and proofs is read from disk: not on the threads that answer writers.
    let read = move || {
        let checked = candidates.into_iter().map(|index| checked(&reader, index, kind, &key, &publication));
        checked.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()
    };
    let entries = turn.run(read).await??;
    Ok(json_answer(
        StatusCode::OK,
        &json!({ "covered_size": covered, "tree_size": size, "entries": entries, "next": next }),
    ))
}

/// The entry, if it is published and really has the term.
fn checked(
    log: &ServedLog,
    index: u64,
    kind: TermKind,
    key: &[u8],
    publication: &Publication,
) -> Result<Option<Value>, Problem> {
    if index >= publication.tree().size {
        return Ok(None);
    }
    let stored = log.log.entry(index, publication).map_err(of_store)?;
    if !terms::terms(log.kind, &stored).iter().any(|(found, term)| *found == kind && term == key) {
        tracing::warn!(
            log = log.settings.name,
            index,
            "the lookup index names an entry that does not have the term"
        );
        return Ok(None);
    }
    let json = evidence(log, index, stored, publication)?.to_json().map_err(Problem::internal)?;
    serde_json::from_slice(&json).map(Some).map_err(Problem::internal)
}

fn term(query: &str) -> Result<(TermKind, Vec<u8>), Problem> {
    let malformed = |detail: &str| Problem::bad_request("malformed", detail.to_owned());
    let mut found = None;
    for (name, kind) in [
        ("digest", TermKind::Digest),
        ("identity", TermKind::Identity),
        ("publisher", TermKind::Publisher),
        ("serial", TermKind::Serial),
        ("type", TermKind::Type),
    ] {
        if let Some(text) = parameter(query, name)? {
            if found.is_some() || text.is_empty() {
                return Err(malformed("give exactly one of digest, identity, publisher, serial and type"));
            }
            let hex = || {
                let digits = text.strip_prefix("sha256:").unwrap_or(&text).replace(':', "");
                let even = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
                hex::decode(even).map_err(|_| malformed("digests and serials are hexadecimal"))
            };
            found = Some(match kind {
                TermKind::Digest => (kind, hex()?),
                TermKind::Serial => (kind, terms::serial(&hex()?)),
                _ => (kind, text.into_bytes()),
            });
        }
    }
    found.ok_or_else(|| malformed("give one of digest, identity, publisher, serial and type"))
}
