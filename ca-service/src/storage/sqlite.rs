//! The store on SQLite: WAL, `synchronous = FULL`, one writer, a few readers.

use std::path::Path;
use std::time::Duration;

use ca_pki::{SerialNumber, UnixTime};
use rusqlite::{Connection, OpenFlags};

use super::issuance::{self, Advance, CertificateStep, Transition};
use super::readers::Readers;
use super::rows::{self, unavailable};
use super::writer::Writer;
use super::{
    Anchor, Answer, CertificateStore, CrlPart, IntentId, NewIntent, NewRevocation, Open, Search, Selected,
    SelectedCount, Selection, StartedCrl, State, StoreError, StoredAuthority, StoredCertificate, StoredCrl,
    StoredRevocation, StoredStatus, StoredToken, audit, authorities, certificates, crls, migrations,
    revocations, tokens,
};

/// Statements that stay prepared on a connection: every one there is.
const STATEMENTS: usize = 64;
/// KiB of pages that the writer keeps in memory: the inner pages of the indexes of some ten million certificates.
const WRITER_CACHE: i64 = 32 << 10;
/// Pages of the write-ahead log after which they are copied into the database: many changes of a page are copied once.
const CHECKPOINT_PAGES: i64 = 4_000;

/// A store in one file.
pub struct SqliteStore {
    writer: Writer,
    readers: Readers,
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
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        durable(&connection)?;
        migrations::create(&connection)?;
        connection.close().map_err(|(_, error)| unavailable(error))?;
        Self::open(path).await
    }

    /// Opens an existing database, and brings it to the newest schema.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, [`StoreError::Corrupted`] when it is another program's or of a newer
    /// schema, [`StoreError::Unavailable`].
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::NotFound);
        }
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        migrations::migrate(&connection)?;
        durable(&connection)?;
        let readers = Readers::of(path, |path| connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY));
        // Whoever cannot read finds out now.
        readers.read(|connection| rows::first(connection, "SELECT 1", [], |_| Ok(())))?;
        Ok(Self { writer: Writer::start(connection)?, readers })
    }
}

/// A connection that waits for others, without a lock of its own: each is used by one thread at a time.
pub(super) fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(unavailable)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(unavailable)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(unavailable)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Has the connection's commits be durable when they return.
pub(super) fn durable(connection: &Connection) -> Result<(), StoreError> {
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(unavailable)?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(StoreError::Unavailable(format!("the journal's mode is {mode}, not WAL")));
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(unavailable)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE).map_err(unavailable)?;
    connection
        .pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))
        .map_err(unavailable)
}

impl CertificateStore for SqliteStore {
    fn create_token<'a>(&'a self, token: StoredToken, actor: &'a str, at: UnixTime) -> Answer<'a, ()> {
        let actor = actor.to_owned();
        Box::pin(self.writer.change(move |connection| tokens::create(connection, &token, &actor, at)))
    }

    fn token<'a>(&'a self, hash: &'a [u8; 32]) -> Answer<'a, Option<StoredToken>> {
        Box::pin(async move { self.readers.read(|connection| tokens::find(connection, hash)) })
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
        Box::pin(
            self.writer.change(move |connection| issuance::give_up(connection, &intent, states, &reason, at)),
        )
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
            issuance::undo_signing(connection, &intent, precertificate.as_deref(), &reason, at)
        }))
    }

    fn mark_maybe_issued<'a>(&'a self, intent: IntentId, reason: &'a str, at: UnixTime) -> Answer<'a, ()> {
        let reason = reason.to_owned();
        let states = (State::Signing, State::MaybeIssued);
        Box::pin(
            self.writer.change(move |connection| issuance::give_up(connection, &intent, states, &reason, at)),
        )
    }

    fn open_issuances(
        &self,
        which: Open,
        before: UnixTime,
        limit: u32,
    ) -> Answer<'_, Vec<StoredCertificate>> {
        Box::pin(self.readers.scan(move |connection| certificates::open(connection, which, before, limit)))
    }

    fn certificate<'a>(&'a self, serial: &'a SerialNumber) -> Answer<'a, Option<StoredCertificate>> {
        Box::pin(async move { self.readers.read(|connection| certificates::by_serial(connection, serial)) })
    }

    fn issuance(&self, intent: IntentId) -> Answer<'_, Option<StoredCertificate>> {
        Box::pin(async move { self.readers.read(|connection| certificates::by_intent(connection, &intent)) })
    }

    fn search(&self, search: Search) -> Answer<'_, Vec<StoredCertificate>> {
        Box::pin(self.readers.scan(move |connection| certificates::search(connection, &search)))
    }

    fn selected(&self, selection: Selection, after: i64, limit: u32) -> Answer<'_, Vec<Selected>> {
        let read =
            move |connection: &Connection| certificates::selected(connection, &selection, after, limit);
        Box::pin(self.readers.scan(read))
    }

    fn count_selected(&self, selection: Selection) -> Answer<'_, SelectedCount> {
        Box::pin(self.readers.scan(move |connection| certificates::count_selected(connection, &selection)))
    }

    fn status<'a>(&'a self, issuer: &'a str, serial: &'a SerialNumber) -> Answer<'a, Option<StoredStatus>> {
        Box::pin(
            async move { self.readers.read(|connection| certificates::status(connection, issuer, serial)) },
        )
    }

    fn revoke(&self, revocation: NewRevocation) -> Answer<'_, StoredRevocation> {
        Box::pin(self.writer.change_status(move |connection| revocations::revoke(connection, &revocation)))
    }

    fn revocation_generation(&self) -> u64 {
        self.writer.generation()
    }

    fn unlogged_revocations(&self, limit: u32) -> Answer<'_, Vec<StoredRevocation>> {
        Box::pin(self.readers.scan(move |connection| revocations::unlogged(connection, limit)))
    }

    fn record_revocation_logged<'a>(
        &'a self,
        serial: &'a SerialNumber,
        recorded_at: UnixTime,
        index: u64,
    ) -> Answer<'a, ()> {
        let serial = serial.clone();
        Box::pin(
            self.writer.change(move |connection| {
                revocations::record_logged(connection, &serial, recorded_at, index)
            }),
        )
    }

    fn due_crls(&self, older_than: UnixTime) -> Answer<'_, Vec<(String, CrlPart)>> {
        Box::pin(self.readers.scan(move |connection| crls::due(connection, older_than)))
    }

    fn start_crl<'a>(&'a self, issuer: &'a str, part: CrlPart, at: UnixTime) -> Answer<'a, StartedCrl> {
        let issuer = issuer.to_owned();
        Box::pin(self.writer.change(move |connection| crls::start(connection, &issuer, part, at)))
    }

    fn publish_crl(&self, crl: StoredCrl) -> Answer<'_, ()> {
        Box::pin(self.writer.change(move |connection| crls::publish(connection, &crl)))
    }

    fn published_crls(&self) -> Answer<'_, Vec<StoredCrl>> {
        Box::pin(self.readers.scan(crls::published))
    }

    fn add_authority<'a>(
        &'a self,
        authority: StoredAuthority,
        actor: &'a str,
        at: UnixTime,
    ) -> Answer<'a, ()> {
        let actor = actor.to_owned();
        Box::pin(self.writer.change(move |connection| authorities::add(connection, &authority, &actor, at)))
    }

    fn authorities(&self) -> Answer<'_, Vec<StoredAuthority>> {
        Box::pin(self.readers.scan(authorities::all))
    }

    fn renew_authority<'a>(
        &'a self,
        authority: StoredAuthority,
        actor: &'a str,
        at: UnixTime,
    ) -> Answer<'a, ()> {
        let actor = actor.to_owned();
        Box::pin(self.writer.change(move |connection| authorities::renew(connection, &authority, &actor, at)))
    }

    fn accept_time<'a>(&'a self, actor: &'a str, at: UnixTime) -> Answer<'a, ()> {
        let actor = actor.to_owned();
        Box::pin(self.writer.change(move |connection| crls::accept_time(connection, &actor, at)))
    }

    fn record_anchor(&self, anchor: Anchor, at: UnixTime) -> Answer<'_, ()> {
        Box::pin(self.writer.change(move |connection| audit::record_anchor(connection, &anchor, at)))
    }

    fn latest_anchor(&self) -> Answer<'_, Option<Anchor>> {
        Box::pin(async move { self.readers.read(audit::latest_anchor) })
    }

    fn audit<'a>(&'a self, event: &'a str, actor: &'a str, detail: String, at: UnixTime) -> Answer<'a, ()> {
        let (event, actor) = (event.to_owned(), actor.to_owned());
        Box::pin(self.writer.change(move |connection| audit::append(connection, &event, &actor, &detail, at)))
    }

    fn audit_records(&self, after: u64, limit: u32) -> Answer<'_, Vec<audit::Record>> {
        Box::pin(self.readers.scan(move |connection| audit::read(connection, after, limit)))
    }

    fn latest_audit(&self) -> Answer<'_, Option<audit::Record>> {
        Box::pin(async move { self.readers.read(audit::latest) })
    }

    fn probe(&self) -> Answer<'_, ()> {
        Box::pin(self.writer.change(|connection| {
            let count = "INSERT INTO meta (name, value) VALUES ('probe', '1') \
                         ON CONFLICT (name) DO UPDATE SET value = value + 1";
            rows::execute(connection, count, []).map(|_| ())
        }))
    }

    fn write_failure(&self) -> Option<StoreError> {
        self.writer.failure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn limit_pages(store: &SqliteStore, pages: i64) {
        let limited = store.writer.change(move |connection| {
            connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).map_err(unavailable)
        });
        limited.await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_is_told_apart_and_a_write_that_succeeds_clears_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::create(&folder.path().join("ca.sqlite")).await.unwrap();
        let write = || store.audit("test.event", "test", "x".repeat(200_000), UnixTime(1));
        write().await.unwrap();
        assert_eq!(store.write_failure(), None);
        // No fewer pages than there are: none more.
        limit_pages(&store, 1).await;
        let refused = write().await.unwrap_err();
        assert!(matches!(refused, StoreError::Full(_)), "{refused}");
        assert!(matches!(store.write_failure(), Some(StoreError::Full(_))), "{:?}", store.write_failure());
        limit_pages(&store, 100_000).await;
        write().await.unwrap();
        assert_eq!(store.write_failure(), None);
    }
}
