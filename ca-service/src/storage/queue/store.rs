//! The queue of the store on SQL.

use ca_pki::UnixTime;

use super::super::sql_store::SqlStore;
use super::super::{Answer, IntentId};
use super::sql::{self, steps};
use super::{
    Decided, NewDecision, NewRequest, OpenRequests, QueueSearch, QueueSelection, QueueStore, QueuedId,
    QueuedRequest, RequestOf,
};

impl QueueStore for SqlStore {
    fn record_request(&self, new: NewRequest) -> Answer<'_, ()> {
        Box::pin(self.writer.change(move |connection| sql::record(connection, &new)))
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
        Box::pin(self.readers.own_scan(move |connection| sql::waiting(connection, now)))
    }

    fn decide(&self, decision: NewDecision) -> Answer<'_, Vec<QueuedRequest>> {
        Box::pin(self.writer.change(move |connection| steps::decide(connection, &decision)))
    }

    fn reopen_request(&self, decided: Decided, at: UnixTime) -> Answer<'_, ()> {
        Box::pin(self.writer.change(move |connection| steps::reopen(connection, &decided, at)))
    }

    fn withdraw_approvals(&self, decided: Decided, approvers: Vec<String>, at: UnixTime) -> Answer<'_, ()> {
        let withdraw = move |connection: &_| steps::withdraw(connection, &decided, &approvers, at);
        Box::pin(self.writer.change(withdraw))
    }

    fn tend_queue(&self, now: UnixTime, forget_before: UnixTime) -> Answer<'_, u64> {
        Box::pin(async move {
            let needed = move |connection: &_| steps::needs_tending(connection, now, forget_before);
            // Mostly there is nothing to do, and a transaction that writes costs everybody a turn.
            if !self.readers.own_scan(needed).await? {
                return Ok(0);
            }
            self.writer.change(move |connection| steps::tend(connection, now, forget_before)).await
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
        let end = move |connection: &_| steps::end(connection, &selection, &actor, &reason, at);
        Box::pin(self.writer.change(end))
    }

    fn count_requests(&self, selection: QueueSelection) -> Answer<'_, OpenRequests> {
        Box::pin(self.readers.scan(move |connection| sql::count_selected(connection, &selection)))
    }

    fn unannounced(&self, limit: u32) -> Answer<'_, Vec<QueuedRequest>> {
        Box::pin(self.readers.own_scan(move |connection| sql::unannounced(connection, limit)))
    }

    fn evidence(&self, intent: IntentId) -> Answer<'_, Option<String>> {
        Box::pin(self.readers.read(move |connection| sql::evidence(connection, &intent)))
    }

    fn note_announced(&self, ids: Vec<QueuedId>) -> Answer<'_, ()> {
        Box::pin(self.writer.change(move |connection| sql::note_announced(connection, &ids)))
    }
}
