//! Gathers the evidence of a period from the logs and from executors' audit logs.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use executor_api::audit::{AuditHead, MAX_LINE};
use tlog::tile::TILE_WIDTH;
use tlog::{BundleId, Hash, VerifiedCheckpoint};
use tlog_client::{LogClient, RemoteTree, VerifiedEntry};
use trust_store::UnixTime;
use trust_store::json::Bytes;
use trust_store::provider::AwsLc;

use super::account::{AuditLine, CertificateKey, Revocation, key_of};
use super::evidence::{EntryEvidence, ExecutorEvidence, LogEvidence, MOST, Period, SeenCheckpoint};
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::log::history::Seen;
use crate::log::record::{Record, entry_format, serial_text};
use crate::log::{KnownLog, log_failure};
use crate::output::Output;

/// A log that is being read for a report.
pub struct Reading<'a> {
    known: &'a KnownLog,
    client: &'a LogClient,
    checkpoint: VerifiedCheckpoint,
    out: &'a Output,
}

impl<'a> Reading<'a> {
    /// Fetches and verifies the log's checkpoint.
    ///
    /// # Errors
    /// Exit code 69 when the log cannot be reached, 3 when its checkpoint does not verify.
    pub async fn start(known: &'a KnownLog, client: &'a LogClient, out: &'a Output) -> Outcome<Self> {
        let checkpoint =
            client.checkpoint(&known.description.origin, &known.keys, &AwsLc).await.map_err(log_failure)?;
        Ok(Self { known, client, checkpoint, out })
    }

    fn size(&self) -> u64 {
        self.checkpoint.head().size
    }

    fn tree(&self) -> RemoteTree<'_> {
        self.client.tree(*self.checkpoint.head())
    }

    /// Walks `[from, to)`; `each` says of every entry whether it is kept.
    async fn walk(
        &self,
        from: u64,
        to: u64,
        most: usize,
        mut each: impl FnMut(&VerifiedEntry) -> bool,
    ) -> Outcome<Vec<VerifiedEntry>> {
        let format = entry_format(&self.known.description.kind);
        let bar = self.out.bar(to.saturating_sub(from), &self.known.description.kind);
        let width = u64::from(TILE_WIDTH);
        let mut kept = Vec::new();
        for bundle in from / width..to.div_ceil(width) {
            let Some(id) = BundleId::in_tree(bundle, self.size()) else { break };
            for entry in self.tree().entries(id, format).await.map_err(log_failure)? {
                if (from..to).contains(&entry.index) && each(&entry) {
                    kept.push(entry);
                }
            }
            if kept.len() > most {
                return Err(Failure::failed(format!(
                    "more than {most} entries of the {} log",
                    self.known.description.kind
                ))
                .hint("choose a shorter period, or keep a history of checkpoints with `log monitor`"));
            }
            bar.reach((bundle + 1) * width - from.min((bundle + 1) * width));
        }
        Ok(kept)
    }

    async fn finish(
        self,
        start: u64,
        end: u64,
        mut entries: Vec<VerifiedEntry>,
        seen: [Option<SeenCheckpoint>; 2],
    ) -> Outcome<LogEvidence> {
        entries.sort_by_key(|entry| entry.index);
        entries.dedup_by_key(|entry| entry.index);
        let mut proven = Vec::with_capacity(entries.len());
        for entry in entries {
            let (proof, _) = self.tree().inclusion_proof(entry.index).await.map_err(log_failure)?;
            proven.push(EntryEvidence {
                index: entry.index,
                entry: Bytes(entry.bytes),
                inclusion: proof.path.iter().map(Hash::to_base64).collect(),
            });
        }
        let [seen_before, seen_after] = seen;
        Ok(LogEvidence {
            kind: self.known.description.kind.clone(),
            origin: self.known.description.origin.clone(),
            checkpoint: self.checkpoint.note().to_string(),
            start,
            end,
            seen_before,
            seen_after,
            entries: proven,
            leaves: Vec::new(),
        })
    }

    /// The signing log: the entries between two checkpoints that were seen around the period, and those that executors
    /// admitted.
    ///
    /// # Errors
    /// As the log's client; exit code 3 when a checkpoint of the history contradicts the log.
    pub async fn signing(
        self,
        period: &Period,
        history: &[Seen],
        admitted: &BTreeSet<u64>,
    ) -> Outcome<LogEvidence> {
        let (from, to) = period.bounds()?;
        let before = history.iter().rfind(|seen| seen.time <= from);
        let after = history.iter().find(|seen| seen.time >= to);
        let before = self.seen(before).await?;
        let after = self.seen(after).await?;
        let start = before.as_ref().map_or(0, |(size, _)| *size);
        let end = after.as_ref().map_or(self.size(), |(size, _)| *size).max(start);
        let mut entries = self.walk(start, end, MOST, |_| true).await?;
        for index in admitted.iter().filter(|index| **index < self.size() && !(start..end).contains(*index)) {
            let format = entry_format(&self.known.description.kind);
            entries.push(self.tree().entry(*index, format).await.map_err(log_failure)?);
        }
        self.finish(start, end, entries, [before.map(|(_, seen)| seen), after.map(|(_, seen)| seen)]).await
    }

    async fn seen(&self, seen: Option<&Seen>) -> Outcome<Option<(u64, SeenCheckpoint)>> {
        let Some(seen) = seen else { return Ok(None) };
        let origin = &self.known.description.origin;
        let old = VerifiedCheckpoint::open(seen.note.as_bytes(), origin, &self.known.keys, &AwsLc)
            .map_err(|error| log_failure(error.into()))?;
        let proof = self.tree().consistency_proof(old.head()).await.map_err(log_failure)?;
        let consistency = proof.path.iter().map(Hash::to_base64).collect();
        let evidence =
            SeenCheckpoint { time: seen.time.to_rfc3339(), checkpoint: seen.note.clone(), consistency };
        Ok(Some((old.head().size, evidence)))
    }

    /// The event log, whole: what was revoked before the period matters in it. Of a large one, older events that the
    /// account does not need stand there by their leaf hashes.
    ///
    /// # Errors
    /// As the log's client.
    pub async fn event(self, period: &Period, signing: &LogEvidence) -> Outcome<LogEvidence> {
        let end = self.size();
        let needed = NeededEvents::of(period, signing, end.saturating_sub(MOST as u64))?;
        let mut leaves = Vec::new();
        let keep = |entry: &VerifiedEntry| {
            let needed = needed.has(entry.index, &entry.bytes);
            if !needed {
                leaves.push(entry.leaf.hash().to_base64());
            }
            needed
        };
        let entries = self.walk(0, end, 2 * MOST, keep).await?;
        if leaves.is_empty() {
            return self.finish(0, end, entries, [None, None]).await;
        }
        let entry = |entry: VerifiedEntry| EntryEvidence {
            index: entry.index,
            entry: Bytes(entry.bytes),
            inclusion: Vec::new(),
        };
        let entries = entries.into_iter().map(entry).collect();
        Ok(LogEvidence { entries, leaves, ..self.finish(0, end, Vec::new(), [None, None]).await? })
    }

    /// The issuance log: the entries of the period with their neighbours, and every certificate that signed or was
    /// revoked.
    ///
    /// # Errors
    /// As the log's client; exit code 3 when the log's times go back.
    pub async fn issuance(self, period: &Period, wanted: &Wanted) -> Outcome<LogEvidence> {
        let (from, to) = period.bounds()?;
        let (mut start, mut end, mut last) = (0, 0, 0_u64);
        let mut disordered = None;
        let size = self.size();
        let entries = self
            .walk(0, size, MOST, |entry| {
                let Ok(Record::Issued { time_millis, certificate }) = Record::read("issuance", &entry.bytes)
                else {
                    return true;
                };
                if time_millis < last {
                    disordered.get_or_insert(entry.index);
                }
                last = time_millis;
                let time = UnixTime(i64::try_from(time_millis / 1000).unwrap_or(i64::MAX));
                if time < from {
                    start = entry.index + 1;
                }
                if time < to {
                    end = entry.index + 1;
                }
                let serial = serial_text(&hex::encode(certificate.serial()));
                (from..to).contains(&time)
                    || wanted.certificates.contains(&key_of(&certificate))
                    || wanted.serials.contains(&serial)
            })
            .await?;
        if let Some(index) = disordered {
            return Err(Failure::new(
                Exit::Denied,
                format!("entry {index} of the issuance log is older than the one before"),
            )
            .code("log_inconsistent"));
        }
        let (start, end) = (start.min(end), end);
        self.with_neighbours(start, end, entries).await
    }

    /// The entries beside the range show, by their times, that it has both ends where the period has them.
    async fn with_neighbours(
        self,
        start: u64,
        end: u64,
        mut entries: Vec<VerifiedEntry>,
    ) -> Outcome<LogEvidence> {
        let format = entry_format(&self.known.description.kind);
        for index in [start.checked_sub(1), Some(end).filter(|end| *end < self.size())].into_iter().flatten()
        {
            entries.push(self.tree().entry(index, format).await.map_err(log_failure)?);
        }
        self.finish(start, end, entries, [None, None]).await
    }
}

/// Which events of a large log the account needs: the newest, and of older ones the revocations that were recorded in the
/// period or are of a certificate that signed what the report is about, and what cannot be read, which is a finding.
#[derive(Debug)]
pub struct NeededEvents {
    newest_from: u64,
    from: UnixTime,
    to: UnixTime,
    serials: BTreeSet<String>,
}

impl NeededEvents {
    /// For a report of a period with these entries of the signing log; all from index `newest_from` on are needed.
    ///
    /// # Errors
    /// As [`Period::bounds`].
    pub fn of(period: &Period, signing: &LogEvidence, newest_from: u64) -> Outcome<Self> {
        let (from, to) = period.bounds()?;
        let records = signing.entries.iter().filter_map(|entry| Record::read("signing", &entry.entry.0).ok());
        Ok(Self { newest_from, from, to, serials: records.filter_map(|record| record.serial()).collect() })
    }

    /// Whether the event with these bytes is needed.
    pub fn has(&self, index: u64, bytes: &[u8]) -> bool {
        if index >= self.newest_from {
            return true;
        }
        let Ok(Record::Event { statement, .. }) = Record::read("event", bytes) else { return true };
        Revocation::read(&statement).is_some_and(|revocation| {
            (self.from..self.to).contains(&revocation.recorded_at())
                || self.serials.contains(revocation.serial())
        })
    }
}

/// Certificates that the account looks up in the issuance log.
#[derive(Debug, Default)]
pub struct Wanted {
    certificates: BTreeSet<CertificateKey>,
    serials: BTreeSet<String>,
}

impl Wanted {
    /// Those of the signing log's entries and of the revocations.
    pub fn of(signing: &LogEvidence, event: &LogEvidence) -> Self {
        let mut wanted = Self::default();
        for entry in &signing.entries {
            if let Ok(Record::Signature { certificate: Some(certificate), .. }) =
                Record::read("signing", &entry.entry.0)
            {
                wanted.certificates.insert(key_of(&certificate));
            }
        }
        for entry in &event.entries {
            if let Ok(record @ Record::Event { .. }) = Record::read("event", &entry.entry.0)
                && matches!(&record, Record::Event { statement, .. } if Revocation::read(statement).is_some())
            {
                wanted.serials.extend(record.serial());
            }
        }
        wanted
    }
}

/// Reads an executor's audit log: checks the whole chain and keeps the admissions of the period.
///
/// # Errors
/// Exit code 2 when the file cannot be read. A broken chain is no error but part of the evidence.
pub fn audit_log(name: &str, path: &Path, period: &Period) -> Outcome<(ExecutorEvidence, BTreeSet<u64>)> {
    let (from, to) = period.bounds()?;
    let (mut admissions, mut indices) = (Vec::new(), BTreeSet::new());
    let (head, broken) = walk_chain(path, |_, text| {
        let Some(read) = AuditLine::read(text).filter(|line| line.event.event_type == "admission") else {
            return Ok(());
        };
        if read.time().is_some_and(|time| (from..to).contains(&time)) && read.event.agent.is_some() {
            indices.extend(read.event.agent.and_then(|agent| agent.log_index));
            admissions.push(text.to_owned());
        }
        if admissions.len() > MOST {
            return Err(
                Failure::failed(format!("more than {MOST} admissions")).hint("choose a shorter period")
            );
        }
        Ok(())
    })?;
    let evidence = ExecutorEvidence {
        name: name.to_owned(),
        last_sequence: head.sequence,
        last_hash: hex::encode(head.hash),
        broken,
        admissions,
    };
    Ok((evidence, indices))
}

/// Checks the chain of an audit log record by record; `each` sees every good one and the head that it makes. Returns the last
/// good head, and what is wrong behind it.
///
/// # Errors
/// Exit code 2 when the file cannot be read, and what `each` fails with.
pub fn walk_chain(
    path: &Path,
    mut each: impl FnMut(&AuditHead, &str) -> Outcome<()>,
) -> Outcome<(AuditHead, Option<String>)> {
    let file = std::fs::File::open(path).or_fail(Exit::Usage, format!("cannot read {}", path.display()))?;
    let mut reader = BufReader::new(file);
    let mut head = AuditHead::EMPTY;
    loop {
        let mut line = Vec::new();
        (&mut reader)
            .take(MAX_LINE as u64 + 1)
            .read_until(b'\n', &mut line)
            .or_fail(Exit::Usage, format!("cannot read {}", path.display()))?;
        if line.pop() != Some(b'\n') {
            // The torn end of a write that nobody was told of, or the end of the file.
            return Ok((head, None));
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            return Ok((head, Some(format!("line {} is no text", head.sequence + 1))));
        };
        match head.check(text) {
            Ok(next) => head = next,
            Err(error) => return Ok((head, Some(error.to_string()))),
        }
        each(&head, text)?;
    }
}
