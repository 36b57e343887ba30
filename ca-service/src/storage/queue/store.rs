//! The queue of the store on SQL.

use ca_pki::UnixTime;

use super::super::Answer;
use super::super::sql_store::SqlStore;
use super::{
    NewDecision, QueueLimits, QueueSearch, QueueSelection, QueueStore, QueuedId, QueuedRequest,
    RequestContent, RequestOf, sql,
};

impl QueueStore for SqlStore {
    fn record_request(
        &self,
        content: RequestContent,
        statement: [u8; 32],
        limits: QueueLimits,
    ) -> Answer<'_, ()> {
        let record = move |connection: &_| sql::record(connection, &content, &statement, limits);
        Box::pin(self.writer.change(record))
    }

    fn queued(&self, id: QueuedId) -> Answer<'_, Option<QueuedRequest>> {
        Box::pin(self.readers.read(move |connection| sql::find(connection, &id)))
    }

    fn queued_of(&self, of: RequestOf) -> Answer<'_, Option<QueuedRequest>> {
        Box::pin(self.readers.read(move |connection| sql::find_of(connection, &of)))
    }

    fn queue(&self, search: QueueSearch) -> Answer<'_, Vec<QueuedRequest>> {
        Box::pin(self.readers.scan(move |connection| sql::search(connection, &search)))
    }

    fn count_waiting(&self, now: UnixTime) -> Answer<'_, u64> {
        Box::pin(self.readers.scan(move |connection| sql::waiting(connection, now)))
    }

    fn decide(&self, decision: NewDecision) -> Answer<'_, Vec<QueuedRequest>> {
        Box::pin(self.writer.change(move |connection| sql::decide(connection, &decision)))
    }

    fn tend_queue(&self, now: UnixTime, forget_before: UnixTime) -> Answer<'_, u64> {
        Box::pin(async move {
            let needed = move |connection: &_| sql::needs_tending(connection, now, forget_before);
            // Mostly there is nothing to do, and a transaction that writes costs everybody a turn.
            if !self.readers.scan(needed).await? {
                return Ok(0);
            }
            self.writer.change(move |connection| sql::tend(connection, now, forget_before)).await
        })
    }

    fn end_requests<'a>(
        &'a self,
        selection: QueueSelection,
        actor: &'a str,
        reason: &'a str,
        at: UnixTime,
    ) -> Answer<'a, u64> {
        let (actor, reason) = (actor.to_owned(), reason.to_owned());
        let end = move |connection: &_| sql::end(connection, &selection, &actor, &reason, at);
        Box::pin(self.writer.change(end))
    }

    fn count_requests(&self, selection: QueueSelection) -> Answer<'_, u64> {
        Box::pin(self.readers.scan(move |connection| sql::count_selected(connection, &selection)))
    }

    fn unannounced(&self, limit: u32) -> Answer<'_, Vec<QueuedRequest>> {
        Box::pin(self.readers.scan(move |connection| sql::unannounced(connection, limit)))
    }

    fn note_announced(&self, ids: Vec<QueuedId>) -> Answer<'_, ()> {
        Box::pin(self.writer.change(move |connection| sql::note_announced(connection, &ids)))
    }
}
