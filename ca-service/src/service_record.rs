//! What the audit trail says of the service itself (A1): when it started, with which configuration and which keys, whether it had been
//! stopped before or had died; when it stopped; who used a role on a day; and how many answers and time stamps were signed in an hour.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::authority::CertificateAuthority;
use crate::config::Sections;
use crate::error::CaError;

/// How long signatures are counted together.
const WINDOW: Duration = Duration::from_secs(3_600);
/// Those who have records of their own on one day; beyond, one record says that there were more.
const MOST_CALLERS: usize = 256;
/// Who causes what nobody asked for.
const ACTOR: &str = "service";

/// What the next start knows of this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNote {
    /// Whether it answers requests now, or died while it did.
    pub running: bool,
    /// The configuration by its sections.
    pub sections: Sections,
}

/// How the run before ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Crashed,
    Nothing,
    Stopped,
}

impl Before {
    fn of(note: Option<&ServiceNote>) -> Self {
        match note {
            None => Self::Nothing,
            Some(ServiceNote { running: true, .. }) => Self::Crashed,
            Some(ServiceNote { running: false, .. }) => Self::Stopped,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Crashed => "crashed",
            Self::Nothing => "nothing",
            Self::Stopped => "stopped",
        }
    }
}

/// Signatures that are in the trail already.
#[derive(Debug, Default, Clone, Copy)]
struct Signed {
    answers: u64,
    ahead: u64,
    timestamps: u64,
}

/// Who used a role today.
#[derive(Debug, Default)]
struct Callers {
    day: i64,
    seen: BTreeSet<String>,
}

impl Callers {
    /// The name to record, if this is the first time today.
    fn first_today(&mut self, actor: &str, day: i64) -> Option<String> {
        if self.day != day {
            *self = Self { day, seen: BTreeSet::new() };
        }
        if self.seen.contains(actor) {
            return None;
        }
        let name = if self.seen.len() < MOST_CALLERS { actor } else { "*" };
        self.seen.insert(name.to_owned()).then(|| name.to_owned())
    }

    /// What could not be recorded is recorded the next time.
    fn forget(&mut self, name: &str) {
        self.seen.remove(name);
    }
}

/// What is counted and not recorded yet.
#[derive(Debug, Default)]
pub(crate) struct ServiceRecords {
    /// Held while they are recorded, so that each is recorded once.
    signed: tokio::sync::Mutex<Signed>,
    callers: Mutex<Callers>,
    /// Where the next look for tokens to forget begins.
    tokens: Mutex<Option<[u8; 32]>>,
}

impl CertificateAuthority {
    /// Records that the service begins to answer, and what of its configuration is another than when it last did.
    ///
    /// # Errors
    /// [`CaError::Store`] when it cannot be recorded: nothing is answered then.
    pub(crate) async fn record_start(&self) -> Result<(), CaError> {
        let before = self.store.service_note().await?;
        let sections = self.settings.config.sections.clone();
        let at = self.clock.for_records();
        let keys: BTreeMap<&str, String> = self
            .authorities
            .values()
            .map(|each| (each.name.as_str(), hex::encode(each.public_key.spki_sha256())))
            .collect();
        let note = ServiceNote { running: true, sections };
        let mut events = Vec::new();
        if let Some(before) = &before {
            let changed = note.sections.differences(&before.sections);
            if !changed.is_empty() {
                let detail = json!({
                    "after": note.sections.digest(),
                    "before": before.sections.digest(),
                    "sections": changed,
                });
                events.push(("configuration.changed", detail.into()));
            }
        }
        let detail = json!({
            "before": Before::of(before.as_ref()).as_str(),
            "configuration": note.sections.digest(),
            "keys": keys,
            "version": env!("CARGO_PKG_VERSION"),
        });
        events.push(("server.started", detail.into()));
        Ok(self.store.record_service(events, ACTOR, at, note).await?)
    }

    /// Records that the service stopped, and what it signed since the last record of that.
    pub(crate) async fn record_stop(&self) {
        self.record_signatures().await;
        let note = ServiceNote { running: false, sections: self.settings.config.sections.clone() };
        let at = self.clock.for_records();
        let stopped = vec![("server.stopped", json!({}).into())];
        if let Err(error) = self.store.record_service(stopped, ACTOR, at, note).await {
            tracing::warn!(%error, "that the service stopped is not in the audit trail");
        }
    }

    /// Records each hour what was signed in it. A stop between does not cut a record short: it waits for it, and records the rest.
    pub async fn run_signature_records(self: Arc<Self>) {
        loop {
            tokio::time::sleep(WINDOW).await;
            let this = Arc::clone(&self);
            // A task that panicked is said by the runtime, and the next hour has what it left.
            let _ = tokio::spawn(async move { this.record_signatures().await }).await;
        }
    }

    /// Records how many OCSP answers and time stamps were signed since the last time. What cannot be recorded is with the next record.
    pub async fn record_signatures(&self) {
        let mut recorded = self.service_records.signed.lock().await;
        let now = Signed {
            answers: self.metrics.ocsp_signed.get(),
            ahead: self.metrics.ocsp_presigned.get(),
            timestamps: self.metrics.timestamps.get(),
        };
        let answers = now.answers.saturating_sub(recorded.answers);
        let ahead = now.ahead.saturating_sub(recorded.ahead);
        if self.record_signed("ocsp.signed", answers, json!({ "ahead": ahead, "count": answers })).await {
            (recorded.answers, recorded.ahead) = (now.answers, now.ahead);
        }
        let timestamps = now.timestamps.saturating_sub(recorded.timestamps);
        if self.record_signed("timestamp.signed", timestamps, json!({ "count": timestamps })).await {
            recorded.timestamps = now.timestamps;
        }
    }

    /// Whether a number is in the trail now.
    async fn record_signed(&self, event: &'static str, count: u64, detail: serde_json::Value) -> bool {
        if count == 0 {
            return false;
        }
        let written = self.store.audit(event, ACTOR, detail.into(), self.clock.for_records()).await;
        if let Err(error) = &written {
            tracing::error!(%error, event, count, "what was signed is not in the audit trail yet");
        }
        written.is_ok()
    }

    /// Forgets one-time tokens that nobody used and that expired long ago: looks at some of them in each call, and begins again after
    /// the last.
    ///
    /// # Errors
    /// [`CaError::Store`].
    pub async fn forget_tokens(&self) -> Result<u64, CaError> {
        let at = self.clock.for_records();
        let kept = self.settings.config.retention.unused_token_seconds();
        let above = *self.service_records.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = self.store.forget_tokens(above, at.plus(-kept), at).await?;
        *self.service_records.tokens.lock().unwrap_or_else(PoisonError::into_inner) = forgotten.next;
        Ok(forgotten.count)
    }

    /// Records the first time on a day that somebody uses a role. A trail that cannot be written keeps nobody from looking at it; what
    /// changes something is recorded with the change.
    pub(crate) async fn note_role(&self, actor: &str) {
        let at = self.clock.for_records();
        let first = {
            let mut callers = self.service_records.callers.lock().unwrap_or_else(PoisonError::into_inner);
            callers.first_today(actor, at.0.div_euclid(86_400))
        };
        let Some(actor) = first else { return };
        if let Err(error) = self.store.audit("role.used", &actor, json!({}).into(), at).await {
            self.service_records.callers.lock().unwrap_or_else(PoisonError::into_inner).forget(&actor);
            tracing::error!(%error, actor, "who used a role is not in the audit trail");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_recorded_once_a_day_and_so_many_callers_at_most() {
        let mut callers = Callers::default();
        assert_eq!(callers.first_today("auditor:a", 7).as_deref(), Some("auditor:a"));
        assert_eq!(callers.first_today("auditor:a", 7), None);
        assert_eq!(callers.first_today("issuer:a", 7).as_deref(), Some("issuer:a"));
        assert_eq!(callers.first_today("auditor:a", 8).as_deref(), Some("auditor:a"), "another day");
        let recorded: Vec<String> =
            (0..10_000).filter_map(|number| callers.first_today(&format!("auditor:{number}"), 9)).collect();
        assert_eq!(recorded.len(), MOST_CALLERS + 1);
        assert_eq!(recorded.last().map(String::as_str), Some("*"));
    }

    #[test]
    fn a_run_that_did_not_say_that_it_stopped_crashed() {
        let note = |running| ServiceNote { running, sections: Sections::default() };
        assert_eq!(Before::of(None), Before::Nothing);
        assert_eq!(Before::of(Some(&note(false))), Before::Stopped);
        assert_eq!(Before::of(Some(&note(true))), Before::Crashed);
    }
}
