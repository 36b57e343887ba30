//! The store on SQL: one writer with group commit, a few readers, SQLite or PostgreSQL.

use std::sync::Arc;

use ca_pki::{SerialNumber, UnixTime};
use rusqlite::OpenFlags;
use trust_store::sorted_json::SortedJson;

use super::backup::Restored;
use super::checkpoints::Checkpoints;
use super::database::Database;
use super::issuance::{self, Advance, CertificateStep, Transition};
use super::overview::StoredOverview;
#[cfg(feature = "postgres")]
use super::postgres::occupation::{self, Confirmation};
use super::readers::{PointReads, Readers};
use super::rows;
use super::search::Reading;
use super::sql::{Connection, params};
use super::sqlite::{connect, durable, unavailable};
use super::writer::Writer;
use super::{
    Anchor, Answer, CertificateStore, CrlPart, Expiring, ExpiryMark, IntentId, NewIntent, NewRevocation,
    Open, Search, Selected, SelectedCount, Selection, StartedCrl, State, StoreError, StoredAuthority,
    StoredCertificate, StoredCrl, StoredRevocation, StoredStatus, StoredToken, UsedIdentityToken, audit,
    authorities, backup, certificates, crls, expiry, identity_tokens, migrations, overview, revocations,
    tokens,
};

/// Connections that read a file at once: as many as ask.
const FILE_READERS: usize = 1 << 16;

/// What a database is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// To change it; first of all its schema, where that is an earlier one.
    Change,
    /// To read it.
    Read,
}

/// The CA's records in a database.
pub struct SqlStore {
    pub(super) writer: Writer,
    pub(super) readers: Readers,
    /// That the claim of this process stands, where there is one.
    #[cfg(feature = "postgres")]
    confirmation: Option<Confirmation>,
}

impl SqlStore {
    /// Makes a new database. Never overwrites.
    ///
    /// # Errors
    /// [`StoreError::StateConflict`] when there is one, [`StoreError::Unavailable`].
    pub async fn create(database: &Database) -> Result<Self, StoreError> {
        match database {
            Database::File(path) => {
                if path.exists() {
                    return Err(StoreError::StateConflict);
                }
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
                let connection = connect(path, flags)?;
                durable(&connection)?;
                migrations::create(&connection)?;
                connection.close().map_err(|(_, error)| unavailable(error))?;
            }
            #[cfg(feature = "postgres")]
            Database::Postgres(location) => {
                super::postgres::elsewhere(location, super::postgres::Connection::create).await?;
            }
        }
        Self::open(database).await
    }

    /// Opens an existing database, and brings it to the newest schema.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, [`StoreError::Corrupted`] when it is another program's,
    /// [`StoreError::SchemaDiffers`] when it is of a newer schema, [`StoreError::Unavailable`].
    pub async fn open(database: &Database) -> Result<Self, StoreError> {
        Self::open_to(database, Use::Change).await
    }

    /// Opens an existing database to read it as it is: a schema that is not this program's is left alone, and every change is
    /// refused by the database.
    ///
    /// # Errors
    /// As [`Self::open`], and [`StoreError::SchemaDiffers`] for an earlier schema too.
    pub async fn open_to_read(database: &Database) -> Result<Self, StoreError> {
        Self::open_to(database, Use::Read).await
    }

    async fn open_to(database: &Database, purpose: Use) -> Result<Self, StoreError> {
        #[cfg(feature = "postgres")]
        let mut confirmation = None;
        let (writer, checkpoints, readers) = match database {
            Database::File(path) => {
                if !path.exists() {
                    return Err(StoreError::NotFound);
                }
                let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
                let checkpoints = match purpose {
                    Use::Change => {
                        migrations::migrate(&connection)?;
                        durable(&connection)?;
                        Some(Checkpoints::start(path)?)
                    }
                    Use::Read => {
                        // Not opened for reading alone: the last one to close a database tidies up beside it, and files that are
                        // left there would be of the user who only looked.
                        connection.pragma_update(None, "query_only", true).map_err(unavailable)?;
                        migrations::demand_newest(&connection)?;
                        None
                    }
                };
                let path = path.clone();
                let reader = move || connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).map(Connection::Sqlite);
                let readers = Readers::of(Arc::new(reader), PointReads::Here, FILE_READERS);
                (Connection::Sqlite(connection), checkpoints, readers)
            }
            #[cfg(feature = "postgres")]
            Database::Postgres(location) => {
                let connection = super::postgres::open(location, purpose).await?;
                confirmation = connection.confirmation();
                let runtime = tokio::runtime::Handle::current();
                let location = location.clone();
                let reader =
                    move || super::postgres::Connection::open(&location, &runtime).map(Connection::Postgres);
                let readers =
                    Readers::of(Arc::new(reader), PointReads::Elsewhere, super::postgres::MOST_READERS);
                (Connection::Postgres(connection), None, readers)
            }
        };
        // Whoever cannot read finds out now.
        readers.read(|connection| rows::first(connection, "SELECT 1", &[], |_| Ok(()))).await?;
        let writer = Writer::start(writer, checkpoints)?;
        #[cfg(feature = "postgres")]
        if let (Some(found), Database::Postgres(location)) = (&confirmation, database)
            && let Some(claim) = location.claim()
        {
            tokio::spawn(occupation::watch(location.clone(), claim, found.clone(), writer.watched()));
        }
        Ok(Self {
            writer,
            readers,
            #[cfg(feature = "postgres")]
            confirmation,
        })
    }

    /// Takes for granted, in a database that is a copy of an earlier moment, that whatever was possible since was done.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; nothing was changed then.
    pub(crate) async fn accept_restore(
        &self,
        made_at: UnixTime,
        at: UnixTime,
    ) -> Result<Restored, StoreError> {
        let enter = move |connection: &Connection| backup::enter(connection, made_at.0, at);
        self.writer.change(move |connection| connection.patiently(enter)).await
    }
}

impl CertificateStore for SqlStore {
    fn create_token<'a>(&'a self, token: StoredToken, actor: &'a str, at: UnixTime) -> Answer<'a, ()> {
        let actor = actor.to_owned();
        Box::pin(self.writer.change(move |connection| tokens::create(connection, &token, &actor, at)))
    }

    fn token<'a>(&'a self, hash: &'a [u8; 32]) -> Answer<'a, Option<StoredToken>> {
        let hash = *hash;
        Box::pin(self.readers.read(move |connection| tokens::find(connection, &hash)))
    }

    fn use_identity_token(&self, token: UsedIdentityToken, now: UnixTime) -> Answer<'_, ()> {
        Box::pin(self.writer.change(move |connection| identity_tokens::use_up(connection, &token, now)))
    }

    fn record_intent(&self, intent: NewIntent) -> Answer<'_, ()> {
        Box::pin(self.writer.record_intent(intent, None))
    }

    fn begin_issuance(&self, intent: NewIntent, detail: SortedJson) -> Answer<'_, ()> {
        Box::pin(self.writer.record_intent(intent, Some(detail)))
    }

    fn begin_signing<'a>(&'a self, intent: IntentId, detail: SortedJson, at: UnixTime) -> Answer<'a, ()> {
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

    fn end<'a>(&'a self, intent: IntentId, actor: &'a str, reason: &'a str, at: UnixTime) -> Answer<'a, ()> {
        let (actor, reason) = (actor.to_owned(), reason.to_owned());
        Box::pin(
            self.writer.change(move |connection| issuance::end(connection, &intent, &actor, &reason, at)),
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
        Box::pin(
            self.readers.own_scan(move |connection| certificates::open(connection, which, before, limit)),
        )
    }

    fn certificate<'a>(&'a self, serial: &'a SerialNumber) -> Answer<'a, Option<StoredCertificate>> {
        let serial = serial.clone();
        Box::pin(self.readers.read(move |connection| certificates::by_serial(connection, &serial)))
    }

    fn issuance(&self, intent: IntentId) -> Answer<'_, Option<StoredCertificate>> {
        Box::pin(self.readers.read(move |connection| certificates::by_intent(connection, &intent)))
    }

    fn search(&self, search: Search) -> Answer<'_, Vec<StoredCertificate>> {
        let reading = search.reading();
        let read = move |connection: &Connection| certificates::search(connection, &search);
        Box::pin(async move {
            match reading {
                Reading::Narrow => self.readers.own_scan(read).await,
                Reading::Segments => self.readers.look_up(read).await,
                Reading::Wide => self.readers.scan(read).await,
            }
        })
    }

    fn selected(&self, selection: Selection, after: i64, limit: u32) -> Answer<'_, Vec<Selected>> {
        let read =
            move |connection: &Connection| certificates::selected(connection, &selection, after, limit);
        Box::pin(self.readers.scan(read))
    }

    fn count_selected(&self, selection: Selection) -> Answer<'_, SelectedCount> {
        Box::pin(self.readers.scan(move |connection| certificates::count_selected(connection, &selection)))
    }

    fn expiring(&self, window: Expiring) -> Answer<'_, Vec<StoredCertificate>> {
        Box::pin(self.readers.own_scan(move |connection| expiry::expiring(connection, &window)))
    }

    fn overview(&self, now: UnixTime) -> Answer<'_, StoredOverview> {
        Box::pin(self.readers.scan(move |connection| overview::read(connection, now)))
    }

    fn expiry_mark(&self, days: u16) -> Answer<'_, Option<ExpiryMark>> {
        Box::pin(self.readers.read(move |connection| expiry::mark(connection, days)))
    }

    fn note_expiry_mark(&self, days: u16, mark: ExpiryMark) -> Answer<'_, ()> {
        Box::pin(self.writer.change(move |connection| expiry::note_mark(connection, days, &mark)))
    }

    fn status<'a>(&'a self, issuer: &'a str, serial: &'a SerialNumber) -> Answer<'a, Option<StoredStatus>> {
        let (issuer, serial) = (issuer.to_owned(), serial.clone());
        Box::pin(self.readers.read(move |connection| certificates::status(connection, &issuer, &serial)))
    }

    fn revoke(&self, revocation: NewRevocation) -> Answer<'_, StoredRevocation> {
        Box::pin(self.writer.change_status(move |connection| revocations::revoke(connection, &revocation)))
    }

    fn revocation_generation(&self) -> u64 {
        self.writer.generation()
    }

    fn unlogged_revocations(&self, limit: u32) -> Answer<'_, Vec<StoredRevocation>> {
        Box::pin(self.readers.own_scan(move |connection| revocations::unlogged(connection, limit)))
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
        Box::pin(self.readers.own_scan(move |connection| crls::due(connection, older_than)))
    }

    fn start_crl<'a>(&'a self, issuer: &'a str, part: CrlPart, at: UnixTime) -> Answer<'a, StartedCrl> {
        let (issuer, readers) = (issuer.to_owned(), self.readers.clone());
        let name = issuer.clone();
        Box::pin(async move {
            // The view begins while nobody else can write, so it shows the very set that the number was allotted for.
            let allot = move |connection: &Connection| {
                // Without a view the number stays allotted and the list due; the other changes of the batch have nothing to do with it.
                Ok((crls::allot(connection, &name, part, at)?, readers.view()))
            };
            let (allotted, view) = self.writer.change_first(allot).await?;
            view?.read(move |connection| crls::entries(connection, &issuer, part, allotted)).await
        })
    }

    fn publish_crl(&self, crl: StoredCrl) -> Answer<'_, ()> {
        Box::pin(self.writer.change(move |connection| crls::publish(connection, &crl)))
    }

    fn published_crls(&self) -> Answer<'_, Vec<StoredCrl>> {
        Box::pin(self.readers.own_scan(crls::published))
    }

    fn add_authority<'a>(
        &'a self,
        authority: StoredAuthority,
        own: Option<(IntentId, Vec<u8>)>,
        actor: &'a str,
        at: UnixTime,
    ) -> Answer<'a, ()> {
        let actor = actor.to_owned();
        Box::pin(
            self.writer.change(move |connection| authorities::add(connection, &authority, own, &actor, at)),
        )
    }

    fn authorities(&self) -> Answer<'_, Vec<StoredAuthority>> {
        Box::pin(self.readers.own_scan(authorities::all))
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
        Box::pin(self.readers.read(audit::latest_anchor))
    }

    fn audit<'a>(
        &'a self,
        event: &'a str,
        actor: &'a str,
        detail: SortedJson,
        at: UnixTime,
    ) -> Answer<'a, ()> {
        let (event, actor) = (event.to_owned(), actor.to_owned());
        Box::pin(self.writer.change(move |connection| audit::append(connection, &event, &actor, detail, at)))
    }

    fn audit_records(&self, after: u64, limit: u32) -> Answer<'_, Vec<audit::Record>> {
        Box::pin(self.readers.own_scan(move |connection| audit::read(connection, after, limit)))
    }

    fn latest_audit(&self) -> Answer<'_, Option<audit::Record>> {
        Box::pin(self.readers.read(audit::latest))
    }

    fn probe(&self) -> Answer<'_, ()> {
        Box::pin(self.writer.change(|connection| {
            // Another value each time, so that there is something to write.
            let change = "INSERT INTO meta (name, value) VALUES (?1, '1') ON CONFLICT (name) \
                          DO UPDATE SET value = CASE meta.value WHEN '1' THEN '2' ELSE '1' END";
            rows::execute(connection, change, params!["probe"]).map(|_| ())
        }))
    }

    fn write_failure(&self) -> Option<StoreError> {
        let failure = self.writer.failure();
        #[cfg(feature = "postgres")]
        if failure != Some(StoreError::AnotherServes)
            && self.confirmation.as_ref().is_some_and(|confirmation| !confirmation.holds())
        {
            return Some(StoreError::SuccessorUnknown);
        }
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn limit_pages(store: &SqlStore, pages: i64) {
        let limited = store.writer.change(move |connection| match connection {
            Connection::Sqlite(connection) => connection
                .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
                .map_err(unavailable),
            #[cfg(feature = "postgres")]
            Connection::Postgres(_) => Ok(()),
        });
        limited.await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_is_told_apart_and_a_write_that_succeeds_clears_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqlStore::create(&Database::File(folder.path().join("ca.sqlite"))).await.unwrap();
        let write = || {
            store.audit(
                "test.event",
                "test",
                serde_json::Value::from("x".repeat(200_000)).into(),
                UnixTime(1),
            )
        };
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
