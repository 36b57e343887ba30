//! The audit trail against the records: it must be whole, and it must have an entry for everything that it should.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use ca_pki::SerialNumber;
use serde_json::Value;

use super::{PAGE, Report};
use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::storage::{IntentId, State, Step, StoredCertificate, StoredRevocation, audit};

/// What the trail says happened.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// How many signatures were announced for each issuance.
    signings: HashMap<IntentId, u8>,
    /// Date, reason and record of the newest revocation of each serial number.
    revocations: HashMap<String, (i64, u64, u64)>,
    /// Issuer, part and number of published lists, each with its record and its SHA-256, hexadecimal.
    lists: HashMap<(String, i64, u64), (u64, String)>,
    /// How many numbers of every list each restore skipped.
    skipped: Vec<u64>,
    /// Id and statement of every request that needed approval, hexadecimal, with the names of those who approved it.
    requests: HashMap<(String, String), HashSet<String>>,
    /// The ids of those.
    recorded: HashSet<String>,
    /// Requests that were denied or ended, or whose time was over.
    closed: HashSet<String>,
    /// Records of signatures that fewer people had approved than had to, or whose request had been closed before.
    unapproved: Vec<u64>,
    /// Issuances of requests of which a signature was announced: the request, and how many signatures were and were not undone.
    signed: HashMap<IntentId, (String, u8)>,
    /// Records that say of a request once more that it was recorded.
    repeated: Vec<u64>,
    /// Record and time of each restore of a backup.
    restores: Vec<(u64, i64)>,
}

impl Trail {
    /// Reads the whole trail; reports where it is not one chain, and where it ends before its anchor in the event log.
    pub(super) async fn read(authority: &CertificateAuthority, report: &mut Report) -> Result<Self, CaError> {
        let anchor = authority.store().latest_anchor().await?;
        let mut anchored = false;
        let mut trail = Self::default();
        let mut previous: Option<audit::Record> = None;
        loop {
            let after = previous.as_ref().map_or(0, |record| record.sequence);
            let page = authority.store().audit_records(after, PAGE).await?;
            if page.is_empty() {
                break;
            }
            for record in page {
                if !audit::follows(previous.as_ref(), &record) {
                    report.findings.push(format!("audit record {} does not follow", record.sequence));
                    return Ok(trail);
                }
                report.audit_records += 1;
                anchored |= anchor.is_some_and(|it| (it.sequence, it.hash) == (record.sequence, record.hash));
                trail.note(&record);
                previous = Some(record);
            }
        }
        for record in &trail.unapproved {
            report
                .findings
                .push(format!("audit record {record} announces a signature without its approvals, or after its request was closed"));
        }
        for record in &trail.repeated {
            report.findings.push(format!("audit record {record} records a request that was recorded before"));
        }
        if let Some(anchor) = anchor {
            report.anchored = Some(anchor.sequence);
            if !anchored {
                report.findings.push(format!(
                    "the audit trail does not have record {}, of which the event log has the hash at index {}",
                    anchor.sequence, anchor.event_index
                ));
            }
        }
        Ok(trail)
    }

    fn note(&mut self, record: &audit::Record) {
        let detail: Value = serde_json::from_str(&record.detail).unwrap_or_default();
        let text = |name: &str| detail.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |name: &str| detail.get(name).and_then(Value::as_i64).unwrap_or_default();
        match record.event.as_str() {
            "certificate.signing" => {
                let mut intent = IntentId::default();
                if hex::decode_to_slice(text("intent"), &mut intent).is_ok() {
                    let count = self.signings.entry(intent).or_default();
                    *count = count.saturating_add(1);
                }
                if let Some(approval) = detail.get("approval") {
                    let said = |name: &str| approval.get(name).and_then(Value::as_str).unwrap_or_default();
                    let of = (said("request").to_owned(), said("statement_sha256").to_owned());
                    let needed = approval.get("approvals_needed").and_then(Value::as_u64).unwrap_or(u64::MAX);
                    let given = self.requests.get(&of).map_or(0, HashSet::len);
                    if given < usize::try_from(needed).unwrap_or(usize::MAX) || self.closed.contains(&of.0) {
                        self.unapproved.push(record.sequence);
                    }
                    let (_, count) = self.signed.entry(intent).or_insert((of.0, 0));
                    *count = count.saturating_add(1);
                } else if let Entry::Occupied(mut signed) = self.signed.entry(intent) {
                    // The second signature of an issuance names no approval again: it is of what the first one was of.
                    let (_, count) = signed.get_mut();
                    *count = count.saturating_add(1);
                }
            }
            // Where it was the first, the request is given back.
            "certificate.signing-undone" => {
                let mut intent = IntentId::default();
                if hex::decode_to_slice(text("intent"), &mut intent).is_ok()
                    && let Entry::Occupied(mut signed) = self.signed.entry(intent)
                {
                    signed.get_mut().1 = signed.get().1.saturating_sub(1);
                    if signed.get().1 == 0 {
                        signed.remove();
                    }
                }
            }
            // An id is random and comes once: a second recording could only forget who approved the first.
            "request.recorded" => {
                let id = text("request");
                self.requests.entry((id.clone(), text("statement_sha256"))).or_default();
                if !self.recorded.insert(id) {
                    self.repeated.push(record.sequence);
                }
            }
            "request.approved" => {
                let of = (text("request"), text("statement_sha256"));
                // The role comes first; a person counts once whatever they act as.
                let name = record.actor.split_once(':').map_or(&*record.actor, |(_, name)| name);
                // Of what was never recorded nothing can be approved.
                self.requests.entry(of).and_modify(|names| {
                    names.insert(name.to_owned());
                });
            }
            "request.withdrawn" => {
                let of = (text("request"), text("statement_sha256"));
                self.requests.entry(of).and_modify(|names| {
                    names.remove(&text("approver"));
                });
            }
            "request.denied" | "request.ended" | "request.expired" => {
                self.closed.insert(text("request"));
            }
            // What was open when the backup was made may have been announced and signed after it.
            "backup.restored" => {
                self.restores.push((record.sequence, record.at.0));
                self.skipped.push(u64::try_from(number("skipped_crl_numbers")).unwrap_or_default());
                let open = detail.get("maybe_issued").and_then(Value::as_array).into_iter().flatten();
                for intent in open.filter_map(Value::as_str) {
                    let mut octets = IntentId::default();
                    if hex::decode_to_slice(intent, &mut octets).is_ok() {
                        let count = self.signings.entry(octets).or_default();
                        *count = count.saturating_add(1);
                    }
                }
                let ended = detail.get("ended_requests").and_then(Value::as_array).into_iter().flatten();
                self.closed.extend(ended.filter_map(Value::as_str).map(str::to_owned));
            }
            "certificate.revoked" => {
                let reason = u64::try_from(number("reason")).unwrap_or_default();
                let said = (number("revoked_at"), reason, record.sequence);
                self.revocations.insert(text("serial"), said);
            }
            "crl.published" => {
                let number_of_list = u64::try_from(number("number")).unwrap_or_default();
                let published = (record.sequence, text("sha256"));
                self.lists.insert((text("issuer"), number("part"), number_of_list), published);
            }
            _ => {}
        }
    }

    /// Every signature was announced before it was made.
    pub(super) fn covers(&self, record: &StoredCertificate) -> Result<(), String> {
        let may_be_signed = record.signature.is_some()
            || matches!(record.state, State::Signing | State::MaybeIssued | State::Revoked);
        let expected = match (&record.precertificate, record.step) {
            (Some(_), Step::Certificate) => 2,
            _ => u8::from(may_be_signed),
        };
        if self.signings.get(&record.intent).copied().unwrap_or(0) < expected {
            return Err("the audit trail does not announce its signature".to_owned());
        }
        Ok(())
    }

    /// The trail's newest word on a revocation is what is recorded.
    pub(super) fn agrees(&self, revocation: &StoredRevocation) -> Result<(), String> {
        let recorded = (revocation.revoked_at.0, u64::from(revocation.reason.code()));
        match self.revocations.get(&revocation.serial.to_string()) {
            Some((date, reason, _)) if (*date, *reason) == recorded => Ok(()),
            Some(_) => Err("the audit trail has another date or reason of its revocation".to_owned()),
            None => Err("the audit trail does not have its revocation".to_owned()),
        }
    }

    /// Whether the trail has the recording of a request with this statement.
    pub(super) fn has_request(&self, id: &[u8], statement: &[u8]) -> bool {
        self.requests.contains_key(&(hex::encode(id), hex::encode(statement)))
    }

    /// Whether the trail has somebody's approval of a statement.
    pub(super) fn has_approval(&self, id: &[u8], statement: &[u8], approver: &str) -> bool {
        let of = (hex::encode(id), hex::encode(statement));
        self.requests.get(&of).is_some_and(|names| names.contains(approver))
    }

    /// Requests that were recorded, and neither closed nor signed: they are open.
    pub(super) fn open_requests(&self) -> impl Iterator<Item = &str> {
        let signed: HashSet<&str> = self.signed.values().map(|(request, _)| request.as_str()).collect();
        let recorded = self.recorded.iter().map(String::as_str);
        recorded.filter(move |id| !self.closed.contains(*id) && !signed.contains(id))
    }

    /// Whether the trail says that a request was closed.
    pub(super) fn has_closed(&self, id: &[u8]) -> bool {
        self.closed.contains(&hex::encode(id))
    }

    /// The record of the publication of a list.
    pub(super) fn published(&self, issuer: &str, part: i64, number: u64) -> Option<u64> {
        self.lists.get(&(issuer.to_owned(), part, number)).map(|(record, _)| *record)
    }

    /// The SHA-256 of a published list, hexadecimal.
    pub(super) fn sha256(&self, issuer: &str, part: i64, number: u64) -> Option<&str> {
        self.lists.get(&(issuer.to_owned(), part, number)).map(|(_, sha256)| &**sha256)
    }

    /// The numbers of the published lists of one part.
    pub(super) fn numbers(&self, issuer: &str, part: i64) -> impl Iterator<Item = u64> {
        let of_it = self.lists.keys().filter(move |(name, number, _)| name == issuer && *number == part);
        of_it.map(|(_, _, number)| *number)
    }

    /// How many numbers of every list each restore skipped, in their order.
    pub(super) fn skipped(&self) -> &[u64] {
        &self.skipped
    }

    /// Whether a restore took away what was recorded at this place at that time, and something else took the place.
    pub(super) fn was_restored(&self, sequence: u64, at: i64) -> bool {
        self.restores.iter().any(|(restore, since)| *restore <= sequence && at <= *since)
    }

    /// The newest record of a serial number's revocation.
    pub(super) fn revoked(&self, serial: &SerialNumber) -> Option<u64> {
        self.revocations.get(&serial.to_string()).map(|(_, _, record)| *record)
    }
}
