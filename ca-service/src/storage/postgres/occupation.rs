//! One process at a time changes a schema: what SQLite's files get by the lock of a file.
//!
//! Two things together. A **lock** of a session keeps a second server from starting; it ends with the session, and a session can
//! end before its process knows of it: a server that was restarted, a tunnel that broke, a machine that stood still. So whoever
//! gets the lock also writes a **claim** into the schema, 16 random octets, under the lock of those who write. Every transaction
//! that writes begins by reading it, under the same lock (`Connection::begin`), and goes on only where it is its own process's. What
//! one process committed is therefore before everything that its successor did, and nothing of it is after.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{Location, WRITERS, connected, unavailable};
use crate::storage::StoreError;
use crate::storage::readers::Readers;
use crate::storage::rows::corrupted;
use crate::storage::sql::Connection;
use crate::storage::writer::Watched;

/// Name of the row of `meta` that has the newest claim.
const CLAIM: &str = "claim";
/// What the lock of a server is called, after the schema.
const SERVER: &str = "mentat ca server";
/// Time between two looks at the lock, and at the claim.
const PAUSE: Duration = Duration::from_secs(1);

/// What says in the schema which process serves it: 16 random octets, hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim(Arc<str>);

impl Claim {
    fn fresh() -> Result<Self, StoreError> {
        let octets = crate::authority::random::<16>();
        let octets = octets.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self(hex::encode(octets).into()))
    }

    fn read(text: &str) -> Result<Self, StoreError> {
        let known = text.len() == 32 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
        if known { Ok(Self(text.into())) } else { Err(corrupted("the claim of a server")) }
    }
}

/// What a transaction that writes must find in the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fence {
    /// Whatever there is: nothing was looked at yet.
    Down,
    /// This; nothing, where nobody ever claimed the schema.
    Up(Option<Claim>),
}

impl Fence {
    /// Refuses a claim that is another's.
    pub(super) fn admit(&self, found: Option<&Claim>) -> Result<(), StoreError> {
        match self {
            Self::Up(own) if own.as_ref() != found => Err(StoreError::AnotherServes),
            _ => Ok(()),
        }
    }
}

/// The statement whose row is the claim; none where there is no claim.
pub(super) fn query() -> String {
    format!("SELECT value AS claim FROM meta WHERE name = '{CLAIM}'")
}

/// The claim among what a script with [`query`] answered.
pub(super) fn among(answer: &[SimpleQueryMessage]) -> Result<Option<Claim>, StoreError> {
    let claim = |message: &SimpleQueryMessage| match message {
        // The rows of the other statements have no such column.
        SimpleQueryMessage::Row(row) => row.try_get("claim").ok().flatten().map(Claim::read),
        _ => None,
    };
    answer.iter().find_map(claim).transpose()
}

/// The right to change a schema, for as long as it lives: its session ends with it, and with that the lock.
#[derive(Debug)]
#[must_use = "the lock ends with this"]
pub struct Occupation {
    keeper: JoinHandle<()>,
}

impl Drop for Occupation {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Takes the lock of a schema and claims it. Whoever is just ending is waited for, so many times for `pause`. The location that is
/// given back is for the stores of this process: what they write is fenced by the claim.
///
/// # Errors
/// [`StoreError::AnotherServes`] when another process has the lock, [`StoreError::Unavailable`].
pub async fn occupy(
    location: &Location,
    attempts: u32,
    pause: Duration,
) -> Result<(Occupation, Location), StoreError> {
    let client = connected(location).await?;
    let mut left = attempts;
    while !lock(&client, location).await? {
        left = left.checked_sub(1).ok_or(StoreError::AnotherServes)?;
        tokio::time::sleep(pause).await;
    }
    let mut location = location.clone();
    // A schema that is not there yet is made under the lock, and claimed by whoever serves it first.
    location.claim = if is_there(&client, &location).await? { Some(claim(&client).await?) } else { None };
    let keeper = tokio::spawn(keep(client, location.clone()));
    Ok((Occupation { keeper }, location))
}

/// Tries to take the lock in this session.
async fn lock(client: &Client, location: &Location) -> Result<bool, StoreError> {
    let name = format!("hashtextextended('{} {SERVER}', 0)", location.schema);
    let row = client.query_one(&format!("SELECT pg_try_advisory_lock({name})"), &[]).await;
    row.and_then(|row| row.try_get(0)).map_err(unavailable)
}

async fn is_there(client: &Client, location: &Location) -> Result<bool, StoreError> {
    let there = format!("SELECT to_regclass('{}.meta') IS NOT NULL", location.schema);
    client.query_one(&there, &[]).await.and_then(|row| row.try_get(0)).map_err(unavailable)
}

/// Writes a new claim: from then on, nobody's before commits anything.
async fn claim(client: &Client) -> Result<Claim, StoreError> {
    let claim = Claim::fresh()?;
    // Whoever stands still in a transaction is given up by the server after thirty seconds (`SESSION`).
    let written = format!(
        "BEGIN; SET LOCAL lock_timeout = '40s'; {WRITERS}; INSERT INTO meta (name, value) VALUES ('{CLAIM}', '{}') \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value; COMMIT",
        claim.0
    );
    client.batch_execute(&written).await.map_err(unavailable)?;
    Ok(claim)
}

/// Keeps the lock while the claim stands. Where its session ended another is made, so that nobody has to be fenced off later; where
/// another process claimed the schema meanwhile, the lock is that one's.
async fn keep(mut client: Client, location: Location) {
    loop {
        tokio::time::sleep(PAUSE).await;
        if !client.is_closed() {
            continue;
        }
        match retake(&location).await {
            Ok(Retaken::Lock(taken)) => {
                tracing::warn!("the session of the server's lock had ended; the lock is taken again");
                client = taken;
            }
            Ok(Retaken::Busy) => tracing::warn!("the server's lock is another process's"),
            Ok(Retaken::Superseded) => return,
            Err(error) => tracing::warn!(%error, "the server's lock cannot be taken again"),
        }
    }
}

/// What an attempt to take the lock again came to.
enum Retaken {
    /// It is held by this session.
    Lock(Client),
    /// Somebody else has it.
    Busy,
    /// Somebody else claimed the schema.
    Superseded,
}

async fn retake(location: &Location) -> Result<Retaken, StoreError> {
    let client = connected(location).await?;
    if !lock(&client, location).await? {
        return Ok(Retaken::Busy);
    }
    // Dropped with its session where it is not ours any more.
    let stands = location.claim.is_none()
        || among(&client.simple_query(&query()).await.map_err(unavailable)?)? == location.claim;
    Ok(if stands { Retaken::Lock(client) } else { Retaken::Superseded })
}

/// Looks at the claim again and again while the writer lives: a server that writes nothing learns of its successor too.
pub(in crate::storage) async fn watch(readers: Readers, claim: Claim, writer: Watched) {
    while writer.is_there() {
        let found = readers.scan(|connection| match connection {
            Connection::Postgres(connection) => connection.claim(),
            Connection::Sqlite(_) => Ok(None),
        });
        // A database that does not answer says nothing about who serves it.
        if found.await.is_ok_and(|found| found.as_ref() != Some(&claim)) {
            tracing::error!("another server serves these records; this one writes and signs nothing more");
            writer.fail(StoreError::AnotherServes);
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_admits_its_own_claim_alone() {
        let (one, other) = (Claim::fresh().unwrap(), Claim::fresh().unwrap());
        assert_ne!(one, other);
        assert_eq!(Claim::read(&one.0), Ok(one.clone()));
        assert!(matches!(Claim::read("nobody"), Err(StoreError::Corrupted(_))));
        let own = Fence::Up(Some(one.clone()));
        assert_eq!(own.admit(Some(&one)), Ok(()));
        for found in [Some(&other), None] {
            assert_eq!(own.admit(found), Err(StoreError::AnotherServes), "{found:?}");
        }
        // Who wrote where nobody had claimed anything is fenced off by the first claim.
        assert_eq!(Fence::Up(None).admit(None), Ok(()));
        assert_eq!(Fence::Up(None).admit(Some(&one)), Err(StoreError::AnotherServes));
        assert_eq!(Fence::Down.admit(Some(&one)), Ok(()));
    }
}
