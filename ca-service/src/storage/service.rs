//! What the store keeps of the service itself, and what it forgets.

use ca_pki::UnixTime;
use trust_store::sorted_json::SortedJson;

use super::audit::{self, Entry};
use super::rows::{self, column, get};
use super::sql::{Connection, params};
use super::sql_store::SqlStore;
use super::{Answer, StoreError};
use crate::service_record::ServiceNote;

/// Name of the row of `meta` that has the newest [`ServiceNote`].
const NOTE: &str = "service";
/// Tokens that one look goes over.
const PIECE: usize = 1_000;

/// What a look at some of the one-time tokens did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForgottenTokens {
    /// How many were forgotten.
    pub count: u64,
    /// Where the next look begins; none where this one came to the end.
    pub next: Option<[u8; 32]>,
}

/// The part of the CA's memory that is about the service, under the same contract as [`super::CertificateStore`].
pub trait ServiceStore: Send + Sync {
    /// Appends audit records about the service, each an event and its detail, with what its next start is to know.
    fn record_service<'a>(
        &'a self,
        events: Vec<(&'static str, SortedJson)>,
        actor: &'a str,
        at: UnixTime,
        note: ServiceNote,
    ) -> Answer<'a, ()>;

    /// What the newest [`Self::record_service`] left; none before the first.
    fn service_note(&self) -> Answer<'_, Option<ServiceNote>>;

    /// Looks at a bounded number of one-time tokens above a hash, and forgets those that nobody used, that no request holds, and that
    /// expired before a time.
    fn forget_tokens(
        &self,
        above: Option<[u8; 32]>,
        expired_before: UnixTime,
        at: UnixTime,
    ) -> Answer<'_, ForgottenTokens>;
}

impl ServiceStore for SqlStore {
    fn record_service<'a>(
        &'a self,
        events: Vec<(&'static str, SortedJson)>,
        actor: &'a str,
        at: UnixTime,
        note: ServiceNote,
    ) -> Answer<'a, ()> {
        let entry = |(event, detail): (&str, SortedJson)| Entry {
            event: event.to_owned(),
            actor: actor.to_owned(),
            detail,
            at,
        };
        let entries: Vec<Entry> = events.into_iter().map(entry).collect();
        Box::pin(self.writer.change(move |connection| record(connection, entries, &note)))
    }

    fn service_note(&self) -> Answer<'_, Option<ServiceNote>> {
        Box::pin(self.readers.read(note))
    }

    fn forget_tokens(
        &self,
        above: Option<[u8; 32]>,
        expired_before: UnixTime,
        at: UnixTime,
    ) -> Answer<'_, ForgottenTokens> {
        Box::pin(async move {
            let Looked { old, next } =
                self.readers.own_scan(move |connection| look(connection, above, expired_before)).await?;
            let count = match old.is_empty() {
                true => 0,
                false => {
                    self.writer.change(move |connection| forget(connection, &old, expired_before, at)).await?
                }
            };
            Ok(ForgottenTokens { count, next })
        })
    }
}

fn record(connection: &Connection, entries: Vec<Entry>, note: &ServiceNote) -> Result<(), StoreError> {
    let text = serde_json::to_string(note).map_err(|_| rows::corrupted(NOTE))?;
    rows::execute(
        connection,
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![NOTE, text],
    )?;
    audit::append_all(connection, entries)
}

fn note(connection: &Connection) -> Result<Option<ServiceNote>, StoreError> {
    let query = "SELECT value FROM meta WHERE name = ?";
    let text = rows::first(connection, query, params![NOTE], |row| get::<String>(row, 0))?;
    text.map(|text| serde_json::from_str(&text).map_err(|_| rows::corrupted(NOTE))).transpose()
}

/// What a look found: hashes of tokens to forget, and where to go on.
struct Looked {
    old: Vec<[u8; 32]>,
    next: Option<[u8; 32]>,
}

/// That nothing is or will be issued for a token: it is not used, and no request of which people decide holds it, which they may after its
/// end.
macro_rules! unused {
    () => {
        "used_by IS NULL AND NOT EXISTS (SELECT 1 FROM enrolment_request r WHERE r.token = token.hash)"
    };
}

/// The unused tokens among the next ones that are old enough, and where to go on. By the table's own order: an index of what is unused
/// would cost every token that is used.
fn look(
    connection: &Connection,
    above: Option<[u8; 32]>,
    expired_before: UnixTime,
) -> Result<Looked, StoreError> {
    let query =
        concat!("SELECT hash, expires_at, ", unused!(), " FROM token WHERE hash > ? ORDER BY hash LIMIT ?");
    let above = above.map_or_else(Vec::new, Vec::from);
    let limit = i64::try_from(PIECE).unwrap_or(i64::MAX);
    let looked_at = rows::all(connection, query, params![above, limit], |row| {
        Ok((column::<32>(row, 0)?, get::<i64>(row, 1)?, get::<bool>(row, 2)?))
    })?;
    let next = (looked_at.len() == PIECE).then(|| looked_at.last().map(|(hash, ..)| *hash)).flatten();
    let old = |(hash, expires_at, unused): &([u8; 32], i64, bool)| {
        (*unused && *expires_at < expired_before.0).then_some(*hash)
    };
    Ok(Looked { old: looked_at.iter().filter_map(old).collect(), next })
}

fn forget(
    connection: &Connection,
    old: &[[u8; 32]],
    expired_before: UnixTime,
    at: UnixTime,
) -> Result<u64, StoreError> {
    let mut count = 0_u64;
    for hash in old {
        let change = concat!("DELETE FROM token WHERE hash = ? AND expires_at < ? AND ", unused!());
        let deleted = rows::execute(connection, change, params![*hash, expired_before.0])?;
        count = count.saturating_add(u64::try_from(deleted).unwrap_or(u64::MAX));
    }
    if count > 0 {
        let detail = serde_json::json!({ "count": count, "expired_before": expired_before.0 });
        audit::append(connection, "tokens.forgotten", "service", detail, at)?;
    }
    Ok(count)
}
