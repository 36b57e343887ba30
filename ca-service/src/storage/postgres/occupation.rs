//! One process at a time changes a schema: what SQLite's files get by the lock of a file.
//!
//! Two things together. A **lock** of a session keeps a second server from starting; it ends with the session, and a session can
//! end before its process knows of it: a server that was restarted, a tunnel that broke, a machine that stood still. So whoever
//! gets the lock also writes a **claim** into the schema, 16 random octets, under the lock of those who write. Every transaction
//! that writes begins by reading it, under the same lock (`Connection::begin`), and goes on only where it is its own process's. What
//! one process committed is therefore before everything that its successor did, and nothing of it is after.
//!
//! What is given without a transaction (kept OCSP answers, time stamps, lists) has a **confirmation** in place of that: the claim was
//! found to be this process's a few seconds ago, by a look of its own or by a transaction. It ends by itself where the database does
//! not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use service::SystemClock;
use service::clock::Clock as _;
use tokio::task::JoinHandle;
use tokio_postgres::SimpleQueryMessage;

use super::session::{Attached, connected, in_time, late};
use super::{Location, WRITERS};
use crate::storage::StoreError;
use crate::storage::rows::corrupted;
use crate::storage::writer::Watched;

/// Name of the row of `meta` that has the newest claim.
const CLAIM: &str = "claim";
/// What the lock of a server is called, after the schema.
const SERVER: &str = "mentat ca server";
/// Time between two looks at the lock, and at the claim.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest time that a look at the claim takes, the connection included.
const LOOK: Duration = Duration::from_secs(2);
/// For so long a look that found the own claim counts: three that fail in a row change nothing, and what a successor does is not
/// contradicted for longer.
const CONFIRMED_FOR: Duration = Duration::from_secs(10);
/// Longest time that a claim is written for: whoever stands still in a transaction is given up by the server after thirty seconds
/// (`SESSION`).
const CLAIMING: Duration = Duration::from_secs(50);

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

/// When the claim was last found to be this process's.
#[derive(Debug, Clone)]
pub(in crate::storage) struct Confirmation(Arc<AtomicU64>);

impl Confirmation {
    /// One of this moment, for a claim that was just found.
    pub(in crate::storage) fn now() -> Self {
        Self(Arc::new(AtomicU64::new(millis(SystemClock.monotonic()))))
    }

    /// Whether it is recent enough to give away what nothing is recorded of.
    pub(in crate::storage) fn holds(&self) -> bool {
        self.holds_at(SystemClock.monotonic())
    }

    fn holds_at(&self, now: Duration) -> bool {
        millis(now).saturating_sub(self.0.load(Ordering::SeqCst)) <= millis(CONFIRMED_FOR)
    }

    /// Takes note of a look, or of a transaction, that began at this moment and found the claim: what happened between the answer's
    /// making and its arrival counts against it.
    pub(super) fn confirm(&self, asked_at: Duration) {
        self.0.fetch_max(millis(asked_at), Ordering::SeqCst);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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
    let session = connected(location).await?;
    let mut left = attempts;
    while !lock(&session, location).await? {
        left = left.checked_sub(1).ok_or(StoreError::AnotherServes)?;
        tokio::time::sleep(pause).await;
    }
    let mut location = location.clone();
    // A schema that is not there yet is made under the lock, and claimed by whoever serves it first.
    location.claim = if is_there(&session, &location).await? { Some(claim(&session).await?) } else { None };
    let keeper = tokio::spawn(keep(session, location.clone()));
    Ok((Occupation { keeper }, location))
}

/// Tries to take the lock in this session.
async fn lock(session: &Attached, location: &Location) -> Result<bool, StoreError> {
    let name = format!("hashtextextended('{} {SERVER}', 0)", location.schema);
    ask(session, &format!("SELECT pg_try_advisory_lock({name})")).await
}

async fn is_there(session: &Attached, location: &Location) -> Result<bool, StoreError> {
    ask(session, &format!("SELECT to_regclass('{}.meta') IS NOT NULL", location.schema)).await
}

/// Asks for one truth value.
async fn ask(session: &Attached, query: &str) -> Result<bool, StoreError> {
    let row = async { session.client.query_one(query, &[]).await.and_then(|row| row.try_get(0)) };
    in_time(CONFIRMED_FOR, row).await
}

/// Writes a new claim: from then on, nobody's before commits anything.
async fn claim(session: &Attached) -> Result<Claim, StoreError> {
    let claim = Claim::fresh()?;
    let written = format!(
        "BEGIN; SET LOCAL lock_timeout = '40s'; SET LOCAL statement_timeout = '45s'; {WRITERS}; INSERT INTO meta (name, value) VALUES ('{CLAIM}', '{}') \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value; COMMIT",
        claim.0
    );
    in_time(CLAIMING, session.client.batch_execute(&written)).await?;
    Ok(claim)
}

/// Keeps the lock while the claim stands. Where its session ended, or answers nothing, another is made, so that nobody has to be
/// fenced off later; where another process claimed the schema meanwhile, the lock is that one's.
async fn keep(session: Attached, location: Location) {
    let mut held = Some(session);
    loop {
        tokio::time::sleep(PAUSE).await;
        if let Some(session) = &held
            && in_time(CONFIRMED_FOR, session.client.batch_execute("SELECT 1")).await.is_ok()
        {
            continue;
        }
        // Given up with its connection: the server must not keep for it what is asked for anew.
        held = None;
        match retake(&location).await {
            Ok(Retaken::Lock(taken)) => {
                tracing::warn!("the session of the server's lock had ended; the lock is taken again");
                held = Some(taken);
            }
            Ok(Retaken::Busy) => tracing::warn!("the server's lock is another session's"),
            Ok(Retaken::Superseded) => return,
            Err(error) => tracing::warn!(%error, "the server's lock cannot be taken again"),
        }
    }
}

/// What an attempt to take the lock again came to.
enum Retaken {
    /// It is held by this session.
    Lock(Attached),
    /// Somebody else has it.
    Busy,
    /// Somebody else claimed the schema.
    Superseded,
}

async fn retake(location: &Location) -> Result<Retaken, StoreError> {
    let session = connected(location).await?;
    if !lock(&session, location).await? {
        return Ok(Retaken::Busy);
    }
    // Dropped with its session where it is not ours any more.
    let stands = location.claim.is_none() || found_in(&session).await? == location.claim;
    Ok(if stands { Retaken::Lock(session) } else { Retaken::Superseded })
}

/// The claim that stands in the schema.
async fn found_in(session: &Attached) -> Result<Option<Claim>, StoreError> {
    among(&in_time(LOOK, session.client.simple_query(&query())).await?)
}

/// Looks at the claim again and again while the writer lives, over a session of its own: a server that writes nothing learns of its
/// successor too, and one that cannot look does not know that it has none.
pub(in crate::storage) async fn watch(
    location: Location,
    claim: Claim,
    confirmation: Confirmation,
    writer: Watched,
) {
    let (mut session, mut known) = (None, true);
    while writer.is_there() {
        let asked_at = SystemClock.monotonic();
        let looked = tokio::time::timeout(LOOK, look(&location, &mut session)).await;
        match looked.unwrap_or_else(|_| Err(late())) {
            Ok(found) if found.as_ref() == Some(&claim) => confirmation.confirm(asked_at),
            Ok(_) => {
                tracing::error!(
                    "another server serves these records; this one writes and signs nothing more"
                );
                writer.fail(StoreError::AnotherServes);
                return;
            }
            // It says nothing about who serves the records: for a while nothing has changed, then anything may have.
            Err(error) => {
                tracing::debug!(%error, "nobody answers who serves these records");
                session = None;
            }
        }
        match (known, confirmation.holds()) {
            (true, false) => tracing::error!(
                "the database does not answer who serves these records: nothing is given that it does not record"
            ),
            (false, true) => tracing::warn!("the database answers again: this server serves these records"),
            _ => {}
        }
        known = confirmation.holds();
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(location: &Location, session: &mut Option<Attached>) -> Result<Option<Claim>, StoreError> {
    let session = match session {
        Some(session) => session,
        None => session.insert(connected(location).await?),
    };
    found_in(session).await
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

    #[test]
    fn a_confirmation_ends_by_itself_and_a_late_answer_does_not_prolong_it() {
        let confirmation = Confirmation(Arc::default());
        assert!(confirmation.holds_at(CONFIRMED_FOR));
        assert!(!confirmation.holds_at(CONFIRMED_FOR + Duration::from_millis(1)));
        let asked_at = Duration::from_secs(7);
        confirmation.confirm(asked_at);
        // The answer to an earlier look, which came later.
        confirmation.confirm(Duration::from_secs(3));
        assert!(confirmation.holds_at(asked_at + CONFIRMED_FOR));
        assert!(!confirmation.holds_at(asked_at + CONFIRMED_FOR + Duration::from_millis(1)));
    }
}
