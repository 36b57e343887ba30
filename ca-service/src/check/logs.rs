//! The records against the transparency logs, in both directions.
//!
//! Every entry of the issuance log by a key of the authority has a record that says the same, and every record that says that the log
//! has it is right; so it is with revocations and anchors and the event log. No log is believed: its checkpoint is opened with
//! configured keys, and every entry is proven to be in that tree before it is looked at. Entries are read first and records after,
//! because a record is durable before its entry exists; what came to the log in between is looked at once more.

mod events;
mod finding;
mod issuance;
mod reading;
mod rows;
mod source;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use ca_pki::UnixTime;
use serde::Serialize;

use self::events::Events;
pub use self::finding::{LogFinding, LogFindingCode, LogFindings};
use self::issuance::{Issuance, Place};
use self::reading::{Judge, Log, WIDTH, every_bundle, some_bundles};
pub use self::source::LogSources;
use self::source::Source;
use super::PAGE;
use super::trail::Trail;
use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::storage::{Anchor, Search, State, StoredCertificate};

/// Looks for a checkpoint with entries that came while the log was read.
const LATE_LOOKS: u32 = 5;
/// The pause before each of them.
const LATE_PAUSE: Duration = Duration::from_secs(1);
/// Records that wait for such a look; of further ones it is said at once that their entry is missing.
const MAX_LATE: usize = 10_000;

/// A revocation without a statement in the event log for longer is one that the log was not told of, in seconds: it is told at once.
const TELLING_TAKES: i64 = 600;

/// How much is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Every entry, and every record.
    Everything,
    /// So many records, spread evenly, with their entries, and about as many other entries.
    Sample(NonZeroU32),
}

/// What was read of one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogRead {
    /// First line of its checkpoints.
    pub origin: String,
    /// Leaves of the tree of the newest verified checkpoint.
    pub size: u64,
    /// Entries that were compared.
    pub entries: u64,
}

/// What the comparison saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LogReport {
    /// The logs.
    pub logs: Vec<LogRead>,
    /// Certificates whose entry is where their record says.
    pub certificates: u64,
    /// Certificates that were delivered and of which no log was told: no log was configured then.
    pub unlogged: u64,
    /// Revocations whose statement is where their record says.
    pub revocations: u64,
    /// Revocations of which the event log has not been told, as far as their records say.
    pub revocations_unlogged: u64,
    /// Anchors in the event log that the trail has the record of.
    pub anchors: u64,
    /// Anchors of records that a restore took away.
    pub anchors_before_restore: u64,
    /// What is wrong.
    #[serde(flatten)]
    pub found: LogFindings,
}

/// A record whose entry is past the end of its log.
struct Late {
    row: i64,
    index: u64,
    what: String,
}

/// The logs of one kind, and the records that wait for them.
struct Kind<'a> {
    logs: Vec<Log<'a>>,
    late: Vec<Late>,
    /// Records whose entry came after a copy was made.
    behind: u64,
}

impl<'a> Kind<'a> {
    async fn read(
        sources: &'a [Source],
        extent: Extent,
        wanted: &BTreeSet<u64>,
        judge: &mut impl Judge,
        findings: &mut LogFindings,
    ) -> Result<Self, CaError> {
        let mut logs = Vec::with_capacity(sources.len());
        for source in sources {
            let mut log = Log::open(source, findings).await;
            let bundles = match extent {
                Extent::Everything => every_bundle(log.size()),
                Extent::Sample(number) => some_bundles(log.size(), wanted, number.get()),
            };
            log.read(bundles, judge, findings).await?;
            logs.push(log);
        }
        Ok(Self { logs, late: Vec::new(), behind: 0 })
    }

    /// Whether what was not found in any of its logs is in none.
    fn is_conclusive(&self) -> bool {
        self.logs.iter().all(Log::is_conclusive)
    }

    fn origin(&self) -> &'a str {
        self.logs.first().map_or("", |log| &log.source.origin)
    }

    /// Takes a record off the list of what is missing for now: its entry is past the end of a log that it may be in.
    fn put_off(&mut self, late: Late, may_be_in: impl Fn(&Log<'_>) -> bool) -> bool {
        let mut past = self.logs.iter().filter(|log| may_be_in(log) && late.index >= log.size()).peekable();
        if past.peek().is_none() {
            return false;
        }
        if past.any(|log| log.source.client.is_copy()) {
            self.behind += 1;
            return true;
        }
        let room = self.late.len() < MAX_LATE;
        if room {
            self.late.push(late);
        }
        room
    }

    /// Reads what came meanwhile.
    async fn catch_up(&mut self, judge: &mut impl Judge, findings: &mut LogFindings) -> Result<(), CaError> {
        for look in 0..LATE_LOOKS {
            if self.late.iter().all(|late| judge.has_found(late.row)) {
                return Ok(());
            }
            if look > 0 {
                tokio::time::sleep(LATE_PAUSE).await;
            }
            for log in &mut self.logs {
                let before = log.size();
                if log.follow(findings).await {
                    let new = before / WIDTH..log.size().div_ceil(WIDTH);
                    log.read(new.collect(), judge, findings).await?;
                }
            }
        }
        Ok(())
    }

    /// Says what is still missing; how many records were found late.
    fn conclude(&self, judge: &impl Judge, missing: LogFindingCode, findings: &mut LogFindings) -> u64 {
        let mut found = 0;
        for late in &self.late {
            if judge.has_found(late.row) {
                found += 1;
            } else if self.is_conclusive() {
                findings.add(missing, self.origin(), &late.what);
            }
        }
        if self.behind > 0 {
            let detail =
                format!("{} records name entries after the end of the copy: make a newer one", self.behind);
            findings.add(LogFindingCode::LogBehind, self.origin(), detail);
        }
        found
    }
}

/// Compares records and logs.
///
/// # Errors
/// [`CaError`] when the store cannot be read.
pub(super) async fn compare(
    authority: &CertificateAuthority,
    trail: &Trail,
    sources: &LogSources,
    extent: Extent,
) -> Result<LogReport, CaError> {
    let mut report = LogReport::default();
    let sample = match extent {
        Extent::Everything => Vec::new(),
        Extent::Sample(number) => sample(authority, number).await?,
    };
    let mut issued = Issuance::of(authority);
    let mut stated = Events::of(authority, trail).await?;
    let indexes =
        |of: fn(&StoredCertificate) -> Option<u64>| sample.iter().filter_map(of).collect::<BTreeSet<u64>>();
    let mut events_wanted = indexes(|it| it.revocation.as_ref()?.event_index);
    events_wanted.extend(stated.noted.map(|anchor| anchor.event_index));
    let wanted = indexes(|it| it.log_index);
    let untold_since = authority.clock.for_records().plus(-TELLING_TAKES);
    let findings = &mut report.found;
    let mut issuance = Kind::read(&sources.issuance, extent, &wanted, &mut issued, findings).await?;
    let mut events = Kind::read(&sources.events, extent, &events_wanted, &mut stated, findings).await?;

    match extent {
        Extent::Sample(_) => {
            for record in &sample {
                demand(record, (&mut issuance, &issued), (&mut events, &stated), &mut report);
                demand_told(record, untold_since, &events, &mut report);
            }
        }
        Extent::Everything => {
            let mut below = None;
            loop {
                let page =
                    authority.store().search(Search { below, limit: PAGE, ..Search::default() }).await?;
                let Some(last) = page.last() else { break };
                below = Some(last.row);
                for record in &page {
                    demand(record, (&mut issuance, &issued), (&mut events, &stated), &mut report);
                    demand_told(record, untold_since, &events, &mut report);
                }
            }
        }
    }

    let findings = &mut report.found;
    issuance.catch_up(&mut issued, findings).await?;
    events.catch_up(&mut stated, findings).await?;
    let noted = stated.noted.filter(|_| !events.logs.is_empty() && events.is_conclusive());
    if let Some(Anchor { sequence, event_index: index, .. }) = noted {
        let what = format!("no anchor of audit record {sequence} at index {index}");
        let is_copy = |log: &Log<'_>| log.source.client.is_copy();
        if !events.put_off(Late { row: 0, index, what: what.clone() }, is_copy) {
            findings.add(LogFindingCode::EventMissing, events.origin(), what);
        }
    }
    report.certificates += issuance.conclude(&issued, LogFindingCode::EntryMissing, findings);
    report.revocations += events.conclude(&stated, LogFindingCode::EventMissing, findings);
    (report.anchors, report.anchors_before_restore) = (stated.anchors, stated.before_restore);
    report.logs = [issuance.logs, events.logs]
        .into_iter()
        .flatten()
        .map(|log| LogRead { origin: log.source.origin.clone(), size: log.size(), entries: log.entries })
        .collect();
    Ok(report)
}

/// Demands of the logs what a record says that they have.
fn demand(
    record: &StoredCertificate,
    (issuance, issued): (&mut Kind<'_>, &Issuance<'_>),
    (events, stated): (&mut Kind<'_>, &Events<'_>),
    report: &mut LogReport,
) {
    let findings = &mut report.found;
    if !issuance.logs.is_empty() {
        let serial = &record.serial;
        match Place::of(record) {
            Err(error) => {
                let detail = format!("the promise of {serial} cannot be read: {error}");
                findings.add(LogFindingCode::SctMismatch, issuance.origin(), detail);
            }
            Ok(None) => {
                let is_delivered = matches!(record.state, State::Logged | State::Delivered);
                report.unlogged += u64::from(is_delivered && record.identity.is_some());
            }
            Ok(Some(_)) if issued.found.contains(record.row) => report.certificates += 1,
            Ok(Some(place)) => missing_entry(record, &place, issuance, findings),
        }
    }
    let index = record.revocation.as_ref().and_then(|revocation| revocation.event_index);
    let Some(index) = index.filter(|_| !events.logs.is_empty()) else { return };
    let what = format!("the revocation of {} is not at index {index}", record.serial);
    if stated.found.contains(record.row) {
        report.revocations += 1;
    } else if events.is_conclusive() {
        let late = Late { row: record.row, index, what: what.clone() };
        if !events.put_off(late, |_| true) {
            findings.add(LogFindingCode::EventMissing, events.origin(), what);
        }
    }
}

/// Demands that the event log was told of a revocation, unless it is of a moment ago. While the log does not answer nothing is said: the
/// authority could not tell it either.
fn demand_told(
    record: &StoredCertificate,
    untold_since: UnixTime,
    events: &Kind<'_>,
    report: &mut LogReport,
) {
    let Some(revocation) = record.revocation.as_ref().filter(|it| it.event_index.is_none()) else { return };
    if events.logs.is_empty() {
        return;
    }
    report.revocations_unlogged += 1;
    if revocation.recorded_at <= untold_since && events.is_conclusive() {
        let since = revocation.recorded_at.to_rfc3339();
        let detail = format!("the log was not told of the revocation of {}, recorded {since}", record.serial);
        report.found.add(LogFindingCode::RevocationUnlogged, events.origin(), detail);
    }
}

/// Says of a record that was not found what that means.
fn missing_entry(
    record: &StoredCertificate,
    place: &Place,
    issuance: &mut Kind<'_>,
    findings: &mut LogFindings,
) {
    let of_place = |log: &Log<'_>| match (&place.log_id, &log.source.promises) {
        (Some(id), Some(key)) => key.spki_sha256() == *id,
        _ => true,
    };
    let known: Vec<(&str, bool)> = issuance
        .logs
        .iter()
        .filter(|log| of_place(log))
        .map(|log| (log.source.origin.as_str(), log.is_conclusive()))
        .collect();
    let serial = &record.serial;
    let Some((origin, _)) = known.first() else {
        let id = place.log_id.map(hex::encode).unwrap_or_default();
        let detail = format!("{serial} has a promise of log {id}, which is not among those that are known");
        findings.add(LogFindingCode::LogUnknown, issuance.origin(), detail);
        return;
    };
    if known.iter().any(|(_, conclusive)| !conclusive) {
        return;
    }
    let origin = (*origin).to_owned();
    let what = match place.index {
        Some(index) => format!("{serial} is not at index {index}"),
        None => format!("{serial} is not there"),
    };
    let late = place.index.map(|index| Late { row: record.row, index, what: what.clone() });
    if !late.is_some_and(|late| issuance.put_off(late, of_place)) {
        findings.add(LogFindingCode::EntryMissing, &origin, what);
    }
}

/// Records spread evenly over all of them, and over those that are revoked.
async fn sample(
    authority: &CertificateAuthority,
    number: NonZeroU32,
) -> Result<Vec<StoredCertificate>, CaError> {
    let mut sample: Vec<StoredCertificate> = Vec::new();
    for state in [None, Some(State::Revoked)] {
        let first = |below| Search { below, state, limit: 1, ..Search::default() };
        let Some(newest) = authority.store().search(first(None)).await?.pop() else { continue };
        let step = (newest.row / i64::from(number.get())).max(1);
        let mut next = Some(newest);
        for _ in 0..number.get() {
            let Some(record) = next else { break };
            let below = record.row.saturating_sub(step).saturating_add(1);
            sample.push(record);
            next = authority.store().search(first(Some(below))).await?.pop();
        }
    }
    sample.sort_by_key(|record| record.row);
    sample.dedup_by_key(|record| record.row);
    Ok(sample)
}
