//! The store on SQLite: WAL, `synchronous = FULL`, one writer, a few readers.

use std::path::Path;
use std::time::Duration;

use ca_pki::{SerialNumber, UnixTime};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqlitePool};

use super::issuance::{self, Advance, CertificateStep, Transition};
use super::rows::{get, unavailable};
use super::writer::Writer;
use super::{
    Anchor, Answer, CertificateStore, CrlPart, IntentId, NewIntent, NewRevocation, Open, Search, StartedCrl,
    State, StoreError, StoredAuthority, StoredCertificate, StoredCrl, StoredRevocation, StoredStatus,
    StoredToken, audit, authorities, certificates, crls, revocations, tokens,
};

/// Number of the schema in `schema.sql`, kept in SQLite's `user_version`.
const SCHEMA: i64 = 1;
/// SQLite's application id, so that another program's file is not taken for ours ("MnCA").
const APPLICATION_ID: i64 = 0x4d6e_4341;
const READERS: u32 = 4;

/// A store in one file.
pub struct SqliteStore {
    writer: Writer,
    readers: SqlitePool,
}

impl SqliteStore {
    /// Makes a new database. Never overwrites.
    ///
    /// # Errors
    /// [`StoreError::StateConflict`] when the file exists, [`StoreError::Unavailable`].
    pub async fn create(path: &Path) -> Result<Self, StoreError> {
        if path.exists() {
            return Err(StoreError::StateConflict);
        }
        let mut connection = options(path).create_if_missing(true).connect().await.map_err(unavailable)?;
        sqlx::raw_sql(concat!("BEGIN;", include_str!("schema.sql"), "COMMIT;"))
            .execute(&mut connection)
            .await
            .map_err(unavailable)?;
        sqlx::raw_sql("PRAGMA application_id = 1299071809; PRAGMA user_version = 1;")
            .execute(&mut connection)
            .await
            .map_err(unavailable)?;
        connection.close().await.map_err(unavailable)?;
        Self::open(path).await
    }

    /// Opens an existing database.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, [`StoreError::Corrupted`] when it is another program's or of a newer
    /// schema, [`StoreError::Unavailable`].
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::NotFound);
        }
        let mut connection = options(path).connect().await.map_err(unavailable)?;
        for (pragma, expected) in [("PRAGMA application_id", APPLICATION_ID), ("PRAGMA user_version", SCHEMA)]
        {
            let row = sqlx::query(pragma).fetch_one(&mut connection).await.map_err(unavailable)?;
            if get::<i64>(&row, 0)? != expected {
                return Err(StoreError::Corrupted(format!(
                    "{pragma} is not {expected}: not a database of this version"
                )));
            }
        }
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options(path).read_only(true))
            .await
            .map_err(unavailable)?;
        Ok(Self { writer: Writer::start(connection), readers })
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
}

impl CertificateStore for SqliteStore {
    fn create_token<'a>(&'a self, token: StoredToken, actor: &'a str, at: UnixTime) -> Answer<'a, ()> {
        let actor = actor.to_owned();
        Box::pin(self.writer.change(move |connection| {
            Box::pin(async move { tokens::create(connection, &token, &actor, at).await })
        }))
    }

    fn token<'a>(&'a self, hash: &'a [u8; 32]) -> Answer<'a, Option<StoredToken>> {
        Box::pin(tokens::find(&self.readers, hash))
    }

    fn record_intent(&self, intent: NewIntent) -> Answer<'_, ()> {
        Box::pin(self.writer.record_intent(intent))
    }

    fn begin_signing<'a>(&'a self, intent: IntentId, detail: String, at: UnixTime) -> Answer<'a, ()> {
        let change = Advance { detail: Some(detail), ..Advance::of(intent, at) };
        Box::pin(self.writer.advance(Transition::BeginSigning, change))
    }

    fn record_precertificate(&self, intent: IntentId, signature: Vec<u8>, at: UnixTime) -> Answer<'_, ()> {
        let change = Advance { signature: Some(signature), ..Advance::of(intent, at) };
        Box::pin(self.writer.advance(Transition::SignPrecertificate, change))
    }

    fn begin_certificate<'a>(
        &'a self,
        intent: IntentId,
        sct: Vec<u8>,
        log_index: Option<u64>,
        tbs: Vec<u8>,
        at: UnixTime,
    ) -> Answer<'a, ()> {
        Box::pin(self.writer.begin_certificate(CertificateStep { intent, sct, log_index, tbs, at }))
    }

    fn record_signed(&self, intent: IntentId, signature: Vec<u8>, at: UnixTime) -> Answer<'_, ()> {
        let change = Advance { signature: Some(signature), ..Advance::of(intent, at) };
        Box::pin(self.writer.advance(Transition::Sign, change))
    }

    fn mark_delivered(&self, intent: IntentId, log_index: Option<u64>, at: UnixTime) -> Answer<'_, ()> {
        let change = Advance { log_index, ..Advance::of(intent, at) };
        Box::pin(self.writer.advance(Transition::Deliver, change))
    }

    fn abandon<'a>(&'a self, intent: IntentId, reason: &'a str, at: UnixTime) -> Answer<'a, ()> {
        let reason = reason.to_owned();
        let states = (State::Intent, State::Abandoned);
        Box::pin(self.writer.change(move |connection| {
            Box::pin(async move {
                let entry = issuance::give_up(&mut *connection, &intent, states, &reason, at).await?;
                audit::append_all(connection, vec![entry]).await
            })
        }))
    }

    fn undo_signing<'a>(
        &'a self,
        intent: IntentId,
        precertificate: Option<Vec<u8>>,
        reason: &'a str,
        at: UnixTime,
    ) -> Answer<'a, ()> {
        let reason = reason.to_owned();
        Box::pin(self.writer.change(move |connection| {
            Box::pin(async move {
                let tbs = precertificate.as_deref();
                let entry = issuance::undo_signing(&mut *connection, &intent, tbs, &reason, at).await?;
                audit::append_all(connection, vec![entry]).await
            })
        }))
    }

    fn mark_maybe_issued<'a>(&'a self, intent: IntentId, reason: &'a str, at: UnixTime) -> Answer<'a, ()> {
        let reason = reason.to_owned();
        let states = (State::Signing, State::MaybeIssued);
        Box::pin(self.writer.change(move |connection| {
            Box::pin(async move {
                let entry = issuance::give_up(&mut *connection, &intent, states, &reason, at).await?;
                audit::append_all(connection, vec![entry]).await
            })
        }))
    }

    fn open_issuances(
        &self,
        which: Open,
        before: UnixTime,
        limit: u32,
    ) -> Answer<'_, Vec<StoredCertificate>> {
        Box::pin(certificates::open(&self.readers, which, before, limit))
    }

    fn certificate<'a>(&'a self, serial: &'a SerialNumber) -> Answer<'a, Option<StoredCertificate>> {
        Box::pin(certificates::by_serial(&self.readers, serial))
    }

    fn issuance(&self, intent: IntentId) -> Answer<'_, Option<StoredCertificate>> {
        Box::pin(async move { certificates::by_intent(&self.readers, &intent).await })
    }

    fn search(&self, search: Search) -> Answer<'_, Vec<StoredCertificate>> {
        Box::pin(async move { certificates::search(&self.readers, &search).await })
    }

    fn status<'a>(&'a self, issuer: &'a str, serial: &'a SerialNumber) -> Answer<'a, Option<StoredStatus>> {
        Box::pin(certificates::status(&self.readers, issuer, serial))
    }

    fn revoke(&self, revocation: NewRevocation) -> Answer<'_, StoredRevocation> {
        Box::pin(self.writer.change_status(move |connection| {
            Box::pin(async move { revocations::revoke(connection, &revocation).await })
        }))
    }

    fn revocation_generation(&self) -> u64 {
        self.writer.generation()
    }

    fn unlogged_revocations(&self, limit: u32) -> Answer<'_, Vec<StoredRevocation>> {
        Box::pin(revocations::unlogged(&self.readers, limit))
    }

    fn record_revocation_logged<'a>(
        &'a self,
        serial: &'a SerialNumber,
        recorded_at: UnixTime,
        index: u64,
    ) -> Answer<'a, ()> {
        let serial = serial.clone();
        Box::pin(self.writer.change(move |connection| {
            Box::pin(async move { revocations::record_logged(connection, &serial, recorded_at, index).await })
        }))
    }

    fn due_crls(&self, older_than: UnixTime) -> Answer<'_, Vec<(String, CrlPart)>> {
        Box::pin(crls::due(&self.readers, older_than))
    }

    fn start_crl<'a>(&'a self, issuer: &'a str, part: CrlPart, at: UnixTime) -> Answer<'a, StartedCrl> {
        let issuer = issuer.to_owned();
        Box::pin(self.writer.change(move |connection| {
            Box::pin(async move { crls::start(connection, &issuer, part, at).await })
        }))
    }

    fn publish_crl(&self, crl: StoredCrl) -> Answer<'_, ()> {
        Box::pin(
            self.writer
                .change(move |connection| Box::pin(async move { crls::publish(connection, &crl).await })),
        )
    }

    fn published_crls(&self) -> Answer<'_, Vec<StoredCrl>> {
        Box::pin(crls::published(&self.readers))
    }

    fn add_authority<'a>(
        &'a self,
        authority: StoredAuthority,
        actor: &'a str,
        at: UnixTime,
    ) -> Answer<'a, ()> {
        let actor = actor.to_owned();
        Box::pin(self.writer.change(move |connection| {
            Box::pin(async move { authorities::add(connection, &authority, &actor, at).await })
        }))
    }

    fn authorities(&self) -> Answer<'_, Vec<StoredAuthority>> {
        Box::pin(authorities::all(&self.readers))
    }

    fn renew_authority<'a>(
        &'a self,
        authority: StoredAuthority,
        actor: &'a str,
        at: UnixTime,
    ) -> Answer<'a, ()> {
        let actor = actor.to_owned();
        Box::pin(self.writer.change(move |connection| {
            Box::pin(async move { authorities::renew(connection, &authority, &actor, at).await })
        }))
    }

    fn accept_time<'a>(&'a self, actor: &'a str, at: UnixTime) -> Answer<'a, ()> {
        let actor = actor.to_owned();
        Box::pin(self.writer.change(move |connection| {
            Box::pin(async move { crls::accept_time(connection, &actor, at).await })
        }))
    }

    fn record_anchor(&self, anchor: Anchor, at: UnixTime) -> Answer<'_, ()> {
        Box::pin(self.writer.change(move |connection| {
            Box::pin(async move { audit::record_anchor(connection, &anchor, at).await })
        }))
    }

    fn latest_anchor(&self) -> Answer<'_, Option<Anchor>> {
        Box::pin(audit::latest_anchor(&self.readers))
    }

    fn audit<'a>(&'a self, event: &'a str, actor: &'a str, detail: String, at: UnixTime) -> Answer<'a, ()> {
        let (event, actor) = (event.to_owned(), actor.to_owned());
        Box::pin(self.writer.change(move |connection| {
            Box::pin(async move { audit::append(connection, &event, &actor, &detail, at).await })
        }))
    }

    fn audit_records(&self, after: u64, limit: u32) -> Answer<'_, Vec<audit::Record>> {
        Box::pin(audit::read(&self.readers, after, limit))
    }

    fn latest_audit(&self) -> Answer<'_, Option<audit::Record>> {
        Box::pin(audit::latest(&self.readers))
    }

    fn probe(&self) -> Answer<'_, ()> {
        Box::pin(self.writer.change(|connection| {
            Box::pin(async move {
                sqlx::query("INSERT INTO meta (name, value) VALUES ('probe', '1') ON CONFLICT (name) DO UPDATE SET value = value + 1")
                    .execute(connection)
                    .await
                    .map_err(unavailable)?;
                Ok(())
            })
        }))
    }
}
