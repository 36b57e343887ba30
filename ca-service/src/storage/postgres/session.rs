//! A session on the server: how it begins, how long its answers are waited for, and how it ends.
//!
//! Two limits. What reads or writes few rows is answered in seconds or not at all. What goes through a table takes as long as the
//! table is: it is waited for while the server says, over another connection, that it is at work on it. The server has both limits
//! too, a little lower, so that nothing goes on there that nobody waits for.

use std::collections::HashMap;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, Statement};

use super::Location;
use crate::storage::StoreError;

/// Longest time to wait for a connection, and for one that is ready to be used.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time to wait for what a server does at once or not at all; it gives up the wait for a lock after five seconds itself.
pub(super) const PROMPT: Duration = Duration::from_secs(10);
/// What every connection begins with. A writer that vanished gives its lock back when its transaction idles for too long, and a
/// session whose machine is gone ends after half a minute.
const SESSION: &str = "SET synchronous_commit = on; SET lock_timeout = '5s'; SET statement_timeout = '25s'; \
     SET idle_in_transaction_session_timeout = '30s'; SET default_transaction_isolation = 'read committed'; \
     SET tcp_keepalives_idle = 20; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3";

/// How long a statement may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// It is about few rows. A connection through a tunnel that is dead and not closed ends with this.
    Few,
    /// It is about as many rows as there are: the largest authorities have some ten millions, of 3 KB each.
    Many,
}

impl Patience {
    /// Longest time that its answer is waited for.
    pub(super) const fn limit(self) -> Duration {
        match self {
            Self::Few => Duration::from_secs(30),
            Self::Many => Duration::from_secs(900),
        }
    }

    /// What tells the server to give up a little earlier.
    pub(super) const fn setting(self) -> &'static str {
        match self {
            Self::Few => "SET statement_timeout = '25s'",
            Self::Many => "SET statement_timeout = '890s'",
        }
    }
}

/// Finds out by itself that a peer is gone, where the network does not say so.
pub(super) fn keep_alive(config: &mut Config) {
    config.keepalives_idle(Duration::from_secs(20)).keepalives_interval(Duration::from_secs(5));
    config.keepalives_retries(3).tcp_user_timeout(Duration::from_secs(35));
}

pub(super) struct Session {
    pub(super) attached: Attached,
    pub(super) statements: HashMap<String, Statement>,
}

/// A session on the server with what drives it. Dropped, its connection is closed, also where an answer is still outstanding.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) client: Client,
    /// Number of the server's process.
    pub(super) process: i32,
    driver: AbortHandle,
}

impl Attached {
    /// Asks the server to give up what it is doing for this session: closing the connection alone it notices when it is done.
    pub(super) fn canceller(&self, runtime: &Handle) -> impl FnOnce() + Send + use<> {
        let (token, runtime) = (self.client.cancel_token(), runtime.clone());
        move || {
            runtime.spawn(async move {
                let asked = tokio::time::timeout(CONNECT_TIMEOUT, token.cancel_query(NoTls)).await;
                if !matches!(asked, Ok(Ok(()))) {
                    tracing::debug!("a statement that was given up could not be cancelled");
                }
            });
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

pub(super) fn connect(location: &Location, runtime: &Handle) -> Result<Session, StoreError> {
    Ok(Session { attached: runtime.block_on(connected(location))?, statements: HashMap::new() })
}

/// A session in the schema, on a server that keeps what it acknowledged.
pub(super) async fn connected(location: &Location) -> Result<Attached, StoreError> {
    let session = async {
        let (client, driver) = location.config.connect(NoTls).await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::warn!(%error, "a connection to the database ended");
            }
        });
        let mut attached = Attached { client, process: 0, driver: driver.abort_handle() };
        let schema = &location.schema;
        attached.client.batch_execute(&format!("{SESSION}; SET search_path = {schema}")).await?;
        let told = "SELECT current_setting('fsync'), pg_backend_pid()";
        let told = attached.client.query_one(told, &[]).await?;
        attached.process = told.try_get(1)?;
        Ok((attached, told.try_get::<_, String>(0)?))
    };
    let (attached, syncs) = in_time(CONNECT_TIMEOUT, session).await?;
    if syncs != "on" {
        return Err(StoreError::Unavailable(
            "the server runs with fsync = off and would lose commits".to_owned(),
        ));
    }
    Ok(attached)
}

/// Whether the server says that one of its processes is at work on a statement. A session of its own asks: that of the statement
/// may be dead.
pub(super) async fn still_at_work(location: &Location, process: i32) -> bool {
    let asked = async {
        let session = connected(location).await?;
        let active = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND state = 'active')";
        let active = async { session.client.query_one(active, &[&process]).await?.try_get::<_, bool>(0) };
        in_time(CONNECT_TIMEOUT, active).await
    };
    asked.await.unwrap_or(false)
}

pub(super) type Answered<T> = Result<T, tokio_postgres::Error>;

/// What the server answers, if it does in time. The session is of no use where it does not.
pub(super) async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = Answered<T>>,
) -> Result<T, StoreError> {
    let answered = tokio::time::timeout(limit, answer).await.map_err(|_| late())?;
    answered.map_err(unavailable)
}

pub(super) fn late() -> StoreError {
    StoreError::Unavailable("the PostgreSQL server has not answered in time".to_owned())
}

/// What the server's error says about the store.
pub(super) fn unavailable(error: tokio_postgres::Error) -> StoreError {
    let text = match error.as_db_error() {
        Some(told) => format!("{}: {}", told.code().code(), told.message()),
        None => error.to_string(),
    };
    if error.code() == Some(&SqlState::DISK_FULL) {
        StoreError::Full(text)
    } else {
        StoreError::Unavailable(text)
    }
}
