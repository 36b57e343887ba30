//! CRLs on schedule: changed ones within the publish interval, the others before they grow old (R3, R5, §8).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ca_pki::crl::{CrlPlan, CrlScope, RevokedEntry, build};
use ca_pki::lint::{self, CrlRules};
use hsm::Purpose;
use sha2::{Digest, Sha256};

use crate::authority::{CertificateAuthority, names};
use crate::error::CaError;
use crate::http_caching::CachingHeaders;
use crate::storage::{CrlPart, StoreError, StoredCrl};

const DAY: i64 = 86_400;
/// Seconds before the end of one of the CA's own certificates from which on it is warned of.
const EXPIRY_WARNING: i64 = 30 * DAY;

/// A list as it is served.
#[derive(Debug, Clone)]
pub struct PublishedCrl {
    /// cRLNumber.
    pub number: u64,
    /// thisUpdate, seconds since 1970.
    pub this_update: i64,
    /// nextUpdate, seconds since 1970.
    pub next_update: i64,
    /// The list.
    pub der: bytes::Bytes,
    /// What HTTP caches are told of it.
    pub(crate) caching: CachingHeaders,
}

impl PublishedCrl {
    fn of(crl: StoredCrl) -> Arc<Self> {
        let StoredCrl { number, this_update, next_update, der, sha256, .. } = crl;
        let caching = CachingHeaders::new(&sha256, this_update.0, next_update.0);
        Arc::new(Self { number, this_update: this_update.0, next_update: next_update.0, der, caching })
    }
}

/// How long a list of an authority may live at most (R3), in seconds.
pub(crate) fn longest_life(authority: &str) -> i64 {
    let days = if names::is_root(authority) { 366 } else { 10 };
    days * 86_400
}

impl CertificateAuthority {
    /// Puts the stored lists into memory; called before anything is served.
    ///
    /// # Errors
    /// [`CaError::Store`].
    pub async fn load_published(&self) -> Result<(), CaError> {
        let stored = self.store.published_crls().await?;
        let mut ends: BTreeMap<String, i64> = BTreeMap::new();
        for crl in &stored {
            let first = ends.entry(crl.issuer.clone()).or_insert(i64::MAX);
            *first = crl.next_update.0.min(*first);
        }
        let listed = stored.into_iter().map(|crl| ((crl.issuer.clone(), crl.part), PublishedCrl::of(crl)));
        self.published.write().unwrap_or_else(PoisonError::into_inner).extend(listed);
        for (issuer, first) in &ends {
            self.metrics.lists_end(issuer, *first);
        }
        Ok(())
    }

    /// A published list.
    #[must_use]
    pub fn published_crl(&self, issuer: &str, part: CrlPart) -> Option<Arc<PublishedCrl>> {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        published.get(&(issuer.to_owned(), part)).cloned()
    }

    /// Signs every list that is due; returns how many.
    ///
    /// # Errors
    /// The first failure, after every other list was tried: one list that cannot be made holds up no other.
    pub async fn publish_due(&self) -> Result<usize, CaError> {
        let now = self.clock.now()?;
        let due = self.store.due_crls(now.plus(-self.settings.refresh_seconds)).await?;
        let mut outcome = Ok(due.len());
        for (issuer, part) in &due {
            if let Err(error) = self.publish(issuer, *part).await {
                tracing::error!(%error, issuer, ?part, "a revocation list could not be published");
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }

    /// Signs every list anew, due or not; returns how many.
    ///
    /// # Errors
    /// The first failure.
    pub async fn publish_all(&self) -> Result<usize, CaError> {
        let mut lists = 0;
        for authority in self.authorities.values() {
            for part in authority.parts() {
                self.publish(&authority.name, part).await?;
                lists += 1;
            }
        }
        Ok(lists)
    }

    async fn publish(&self, name: &str, part: CrlPart) -> Result<(), CaError> {
        let (authority, issuer) = self.issuer(name)?;
        let now = self.clock.now()?;
        let lifetime =
            if names::is_root(name) { self.settings.root_crl_seconds } else { self.settings.crl_seconds };
        let scope = match part {
            CrlPart::Complete | CrlPart::Delta => CrlScope::Complete,
            CrlPart::Shard(shard) => CrlScope::Shard { url: issuer.status.crl(shard) },
        };
        let mut started = self.store.start_crl(name, part, now).await?;
        // Where there are no shards the complete list is short.
        let delta = started.delta.take().filter(|_| authority.shards > 1);
        let plan = CrlPlan {
            number: started.number,
            this_update: now,
            next_update: now.plus(lifetime),
            scope,
            base: None,
            freshest: delta.as_ref().map(|_| issuer.status.delta_crl()),
            // Nothing was ever dropped since the issuer began.
            expired_since: issuer.not_before,
        };
        // The delta first: who reads of it in the complete list finds it.
        if let Some(delta) = delta {
            let plan = CrlPlan { base: Some(delta.base), freshest: None, ..plan.clone() };
            self.sign_list(name, CrlPart::Delta, &plan, &delta.entries).await?;
        }
        self.sign_list(name, part, &plan, &started.entries).await
    }

    /// Builds, lints, signs and stores one list.
    async fn sign_list(
        &self,
        name: &str,
        part: CrlPart,
        plan: &CrlPlan,
        entries: &[RevokedEntry],
    ) -> Result<(), CaError> {
        let (authority, issuer) = self.issuer(name)?;
        let tbs = build(issuer, plan, entries.iter())?;
        let shard_url = match &plan.scope {
            CrlScope::Complete => None,
            CrlScope::Shard { url } => Some(url.as_str()),
        };
        let rules = CrlRules { issuer, shard_url, longest_validity: longest_life(name) };
        lint::crl_to_be_signed(&tbs, &rules).into_result()?;
        let signature =
            self.sign(authority, Purpose::Crl, &crl_intent(name, part, plan.number), tbs.as_der()).await?;
        let der: bytes::Bytes = tbs.assemble(&signature)?.into();
        let crl = StoredCrl {
            issuer: name.to_owned(),
            part,
            number: plan.number,
            this_update: plan.this_update,
            next_update: plan.next_update,
            sha256: Sha256::digest(&der).into(),
            der,
            entries: u32::try_from(entries.len()).unwrap_or(u32::MAX),
        };
        match self.store.publish_crl(crl.clone()).await {
            Ok(()) => {
                self.metrics.lists_published.inc();
                self.show(crl);
            }
            // A newer one was published meanwhile, by another instance.
            Err(StoreError::StateConflict) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Says, once a day, which of the CA's own certificates end within [`EXPIRY_WARNING`].
    fn warn_of_expiry(&self) {
        let now = self.clock.for_records();
        for authority in self.authorities.values() {
            let Some(end) = authority.not_after else { continue };
            if end <= now.plus(EXPIRY_WARNING) {
                tracing::error!(
                    authority = authority.name,
                    not_after = end.to_rfc3339(),
                    "a certificate of the CA itself expires soon: nothing is signed under it after that; renew it"
                );
            }
        }
        let issuing = self.newest_issuing();
        if let Some(incomplete) = self.generations(names::CODE_SIGNING).next()
            && issuing.is_none_or(|issuing| issuing.name != incomplete.name)
        {
            tracing::error!(
                authority = incomplete.name,
                "the newest issuing CA has no OCSP responder: its making was interrupted, and it issues nothing; make the next one"
            );
        }
        if let Some((issuing, issuer)) = issuing.and_then(|each| Some((each, each.issuer.as_ref()?)))
            && self.retires_at(issuer) <= now.plus(EXPIRY_WARNING)
        {
            tracing::error!(
                authority = issuing.name,
                from = self.retires_at(issuer).to_rfc3339(),
                "the issuing CA issues nothing any more soon: make its successor"
            );
        }
    }

    /// Serves a list from now on.
    fn show(&self, crl: StoredCrl) {
        let (issuer, part) = (crl.issuer.clone(), crl.part);
        let served = PublishedCrl::of(crl);
        let first = {
            let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
            published.insert((issuer.clone(), part), served);
            // Those of the issuer alone: whoever asks for a list waits for this.
            let of_issuer = published.range((issuer.clone(), CrlPart::Complete)..);
            let of_issuer = of_issuer.take_while(|((name, _), _)| *name == issuer);
            of_issuer.map(|(_, list)| list.next_update).min()
        };
        if let Some(first) = first {
            self.metrics.lists_end(&issuer, first);
        }
    }

    /// Publishes for ever: a change at once, and so the next ones, a second apart, until the credit of `Pace` is used up;
    /// then one round an interval, so that a burst of revocations costs one list a shard and interval.
    pub async fn run_publisher(self: Arc<Self>) {
        let interval = self.settings.publish_interval;
        let mut pace = Pace::new(interval, self.clock.monotonic());
        // Unchanged lists grow old slowly; looking for them rarely keeps an idle CA idle.
        let quiet = interval.max(Duration::from_secs(60));
        let mut warned_on = None;
        loop {
            let day = self.clock.for_records().0.div_euclid(DAY);
            if warned_on.replace(day) != Some(day) {
                self.warn_of_expiry();
            }
            if let Err(error) = self.look_at_own_certificates().await {
                tracing::error!(%error, "the CA's own certificates could not be looked at");
            }
            let published = self.publish_due().await;
            match &published {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "revocation lists published"),
                Err(error) => tracing::error!(%error, "revocation lists could not be published"),
            }
            match published {
                Ok(0) => {}
                Ok(_) => tokio::time::sleep(pace.published(self.clock.monotonic())).await,
                // A disk or key that is in trouble is not asked without a pause.
                Err(_) => tokio::time::sleep(interval).await,
            }
            // A timeout is as good as a notice: look again.
            let _ = tokio::time::timeout(quiet, self.changed.notified()).await;
        }
    }
}

/// Rounds of publication that may follow each other with only [`EAGER_PAUSE`] between them.
const EAGER_ROUNDS: u32 = 8;
/// The pause between them: what is revoked meanwhile goes into one list.
const EAGER_PAUSE: Duration = Duration::from_secs(1);

/// How long to wait after a round of publication. Each takes one from a credit, which grows by one an interval: a second
/// revocation a moment after the first reaches relying parties at once too, and in the long run there is a round an interval.
struct Pace {
    interval: Duration,
    credit: u32,
    /// Up to when the credit has grown.
    grown: Duration,
}

impl Pace {
    fn new(interval: Duration, now: Duration) -> Self {
        Self { interval, credit: EAGER_ROUNDS, grown: now }
    }

    /// A round ended at `now`, of the monotonic clock: the pause before the next.
    fn published(&mut self, now: Duration) -> Duration {
        while self.credit < EAGER_ROUNDS && self.grown + self.interval <= now {
            self.grown += self.interval;
            self.credit += 1;
        }
        if self.credit == EAGER_ROUNDS {
            self.grown = now;
        }
        match self.credit.checked_sub(1) {
            Some(left) => {
                self.credit = left;
                EAGER_PAUSE.min(self.interval)
            }
            None => {
                // This round waits for its interval, so that it earns nothing.
                self.grown = now + self.interval;
                self.interval
            }
        }
    }
}

/// The intent of a list is the list: issuer, part and number, which exist once.
fn crl_intent(issuer: &str, part: CrlPart, number: u64) -> [u8; 32] {
    let part = match part {
        CrlPart::Complete => "complete".to_owned(),
        CrlPart::Delta => "delta".to_owned(),
        CrlPart::Shard(shard) => shard.0.to_string(),
    };
    Sha256::digest(format!("crl {issuer} {part} {number}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_rounds_follow_each_other_at_once_and_one_an_interval_in_the_long_run() {
        let minute = Duration::from_secs(60);
        let mut now = Duration::from_secs(1000);
        let mut pace = Pace::new(minute, now);
        let mut rounds = |seconds: u64, pace: &mut Pace| {
            let until = now + Duration::from_secs(seconds);
            let mut rounds = 0;
            while now < until {
                now += pace.published(now);
                rounds += 1;
            }
            rounds
        };
        // The second revocation is on a list a second after the first.
        assert_eq!(rounds(2, &mut pace), 2);
        // Something is revoked all the time, for an hour: the credit, and one a minute.
        let hour = rounds(3600, &mut pace);
        assert!((60..=60 + 2 * EAGER_ROUNDS).contains(&hour), "{hour}");
        // After a quiet while there is credit again.
        let later = now + 10 * minute;
        assert_eq!(pace.published(later), EAGER_PAUSE);
        let mut short = Pace::new(Duration::from_millis(100), later);
        assert_eq!(short.published(later), Duration::from_millis(100));
    }
}
