//! SQL of reports of problems.

use ca_api::{ProblemGround, ProblemReport, ProblemState};
use ca_pki::{SerialNumber, UnixTime};

use super::renewals::BY_CERTIFICATE;
use super::rows::{self, corrupted, get};
use super::sql::{Connection, Row, params};
use super::sql_store::SqlStore;
use super::{Answer, StoreError, audit};

/// Reports of a page.
const PAGE: i64 = 100;
/// Who closes what a revocation decides.
const BY_REVOCATION: &str = "revocation";

/// A report to be recorded.
#[derive(Debug, Clone)]
pub struct NewProblem {
    /// The certificate.
    pub serial: SerialNumber,
    /// What is said to be wrong.
    pub ground: ProblemGround,
    /// Who said it and how it is known.
    pub detail: String,
    /// Who wrote it down.
    pub actor: String,
    /// When.
    pub received_at: UnixTime,
    /// Until when it must be decided.
    pub due_at: UnixTime,
    /// Most that may be open, this one among them.
    pub most_open: u32,
    /// Most of whoever wrote it down.
    pub most_open_of_actor: u32,
}

/// How many reports nobody decided, and when the first must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenProblems {
    /// How many.
    pub open: u64,
    /// Of those, how many should have been decided.
    pub overdue: u64,
    /// When the first must be decided.
    pub first_due: Option<UnixTime>,
}

/// The part of the CA's memory that is about reported problems, under the same contract as [`super::CertificateStore`].
pub trait ProblemStore: Send + Sync {
    /// Records a report; its number. [`StoreError::NotFound`] where there is no such certificate, [`StoreError::QueueFull`] where too
    /// many are open, or of this actor: nothing was changed.
    fn report_problem(&self, new: NewProblem) -> Answer<'_, i64>;
    /// Reports with higher numbers, a page of them.
    fn problems(&self, open: bool, after: i64) -> Answer<'_, Vec<ProblemReport>>;
    /// The report of a number.
    fn problem(&self, id: i64) -> Answer<'_, Option<ProblemReport>>;
    /// Decides that a certificate stands. [`StoreError::NotFound`] where there is no such report, [`StoreError::StateConflict`] where it
    /// is closed: nothing was changed.
    fn close_problem<'a>(
        &'a self,
        id: i64,
        decision: &'a str,
        actor: &'a str,
        at: UnixTime,
    ) -> Answer<'a, ()>;
    /// Closes those that a revocation decides, and counts the others.
    fn tend_problems(&self, at: UnixTime) -> Answer<'_, OpenProblems>;
}

impl ProblemStore for SqlStore {
    fn report_problem(&self, new: NewProblem) -> Answer<'_, i64> {
        Box::pin(self.writer.change(move |connection| report(connection, &new)))
    }

    fn problems(&self, open: bool, after: i64) -> Answer<'_, Vec<ProblemReport>> {
        Box::pin(self.readers.scan(move |connection| list(connection, open, after)))
    }

    fn problem(&self, id: i64) -> Answer<'_, Option<ProblemReport>> {
        Box::pin(self.readers.read(move |connection| one(connection, id)))
    }

    fn close_problem<'a>(
        &'a self,
        id: i64,
        decision: &'a str,
        actor: &'a str,
        at: UnixTime,
    ) -> Answer<'a, ()> {
        let (decision, actor) = (decision.to_owned(), actor.to_owned());
        Box::pin(self.writer.change(move |connection| close(connection, id, &decision, &actor, at)))
    }

    fn tend_problems(&self, at: UnixTime) -> Answer<'_, OpenProblems> {
        Box::pin(async move {
            if self.readers.own_scan(any_decided).await? {
                self.writer.change(move |connection| close_decided(connection, at)).await?;
            }
            self.readers.own_scan(move |connection| count(connection, at)).await
        })
    }
}

fn number(ground: ProblemGround) -> u8 {
    match ground {
        ProblemGround::SubscriberRequest => 0,
        ProblemGround::KeyCompromise => 1,
        ProblemGround::SuspectCode => 2,
        ProblemGround::Other => 3,
    }
}

fn ground(number: i64) -> Result<ProblemGround, StoreError> {
    Ok(match number {
        0 => ProblemGround::SubscriberRequest,
        1 => ProblemGround::KeyCompromise,
        2 => ProblemGround::SuspectCode,
        3 => ProblemGround::Other,
        _ => return Err(corrupted("ground of a report")),
    })
}

fn report(connection: &Connection, new: &NewProblem) -> Result<i64, StoreError> {
    let known = "SELECT 1 FROM certificate WHERE serial = ?";
    if rows::first(connection, known, params![new.serial.as_bytes()], |_| Ok(()))?.is_none() {
        return Err(StoreError::NotFound);
    }
    let open = "SELECT COUNT(*), COUNT(CASE WHEN reported_by = ? THEN 1 END) FROM problem_report WHERE closed_at IS NULL";
    let counts = rows::first(connection, open, params![new.actor], |row| {
        Ok((get::<i64>(row, 0)?, get::<i64>(row, 1)?))
    })?;
    let (open, of_actor) = counts.unwrap_or_default();
    if open >= i64::from(new.most_open) || of_actor >= i64::from(new.most_open_of_actor) {
        return Err(StoreError::QueueFull(super::queue::QueueLimit::All));
    }
    rows::execute(
        connection,
        "INSERT INTO problem_report (serial, ground, detail, reported_by, received_at, due_at) \
         VALUES (?, ?, ?, ?, ?, ?)",
        params![
            new.serial.as_bytes(),
            number(new.ground),
            new.detail,
            new.actor,
            new.received_at.0,
            new.due_at.0
        ],
    )?;
    let id = "SELECT MAX(id) FROM problem_report";
    let id =
        rows::first(connection, id, &[], |row| get::<i64>(row, 0))?.ok_or_else(|| corrupted("a report"))?;
    let detail = serde_json::json!({
        "detail": new.detail,
        "due_at": new.due_at.0,
        "ground": new.ground,
        "report": id,
        "serial": new.serial.to_string(),
    });
    audit::append(connection, "problem.reported", &new.actor, detail, new.received_at)?;
    Ok(id)
}

/// Of reports. Those of a page and the open ones of a page are two statements: what is open is found by its own index, however
/// many are closed.
macro_rules! reports {
    ($which:literal) => {
        concat!(
            "SELECT id, serial, ground, detail, reported_by, received_at, due_at, closed_at, closed_by, decision ",
            "FROM problem_report WHERE ",
            $which
        )
    };
}

const REPORTS: &str = reports!("id > ? ORDER BY id LIMIT ?");
const OPEN_REPORTS: &str = reports!("closed_at IS NULL AND id > ? ORDER BY id LIMIT ?");

fn list(connection: &Connection, open: bool, after: i64) -> Result<Vec<ProblemReport>, StoreError> {
    rows::all(connection, if open { OPEN_REPORTS } else { REPORTS }, params![after, PAGE], read)
}

fn one(connection: &Connection, id: i64) -> Result<Option<ProblemReport>, StoreError> {
    rows::first(connection, reports!("id = ?"), params![id], read)
}

fn read(row: &Row<'_>) -> Result<ProblemReport, StoreError> {
    let (closed_by, decision) = (get::<Option<String>>(row, 8)?, get::<Option<String>>(row, 9)?);
    let state = match (&closed_by, &decision) {
        (None, _) => ProblemState::Open,
        (Some(_), None) => ProblemState::Revoked,
        (Some(_), Some(_)) => ProblemState::Stands,
    };
    Ok(ProblemReport {
        id: get(row, 0)?,
        serial: rows::serial(rows::blob(row, 1)?)?.to_string(),
        ground: ground(get(row, 2)?)?,
        detail: get(row, 3)?,
        reported_by: get(row, 4)?,
        received_at: get(row, 5)?,
        due_at: get(row, 6)?,
        state,
        closed_at: get(row, 7)?,
        closed_by,
        decision,
    })
}

fn close(
    connection: &Connection,
    id: i64,
    decision: &str,
    actor: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    let query = "SELECT closed_at FROM problem_report WHERE id = ?";
    match rows::first(connection, query, params![id], |row| get::<Option<i64>>(row, 0))? {
        None => return Err(StoreError::NotFound),
        Some(Some(_)) => return Err(StoreError::StateConflict),
        Some(None) => {}
    }
    rows::execute(
        connection,
        "UPDATE problem_report SET closed_at = ?, closed_by = ?, decision = ? WHERE id = ?",
        params![at.0, actor, decision, id],
    )?;
    let detail = serde_json::json!({ "decision": decision, "report": id });
    audit::append(connection, "problem.closed", actor, detail, at)
}

/// Open reports that a revocation decides. One of a compromised key, whoever demanded it and whenever, that says the same of the key: any
/// other leaves the key's other certificates and the signatures of before it good. One of something else, by any that was recorded since;
/// of what is said against the holder, not by the holder's own.
const DECIDED: &str = "SELECT p.id FROM problem_report p JOIN certificate c ON c.serial = p.serial \
                       JOIN revocation r ON r.issuer = c.issuer AND r.shard = c.shard AND r.serial = c.serial \
                       WHERE p.closed_at IS NULL AND CASE p.ground WHEN 1 THEN r.reason IN (1, 2) \
                       WHEN 0 THEN r.recorded_at >= p.received_at \
                       ELSE r.recorded_at >= p.received_at AND substr(r.actor, 1, 12) <> 'certificate:' END";

/// Closes what a revocation decides at the moment when somebody demands it, whether it changes the record or only agrees with it: the record
/// keeps who changed it last, and not who agreed. What ends with another certificate is demanded by nobody, and decides where it changes the
/// record. What is said of a key is decided by what the record says ([`DECIDED`]), what is said against the holder not by the holder.
pub(super) fn decide(
    connection: &Connection,
    serial: &SerialNumber,
    actor: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    let grounds = if actor.starts_with(BY_CERTIFICATE) { OPEN_OF_HOLDER } else { OPEN_OF_ALL };
    for id in rows::all(connection, grounds, params![serial.as_bytes()], |row| get::<i64>(row, 0))? {
        close_one(connection, id, at)?;
    }
    Ok(())
}

/// Open reports of a certificate that its holder decides: the holder's own wish.
const OPEN_OF_HOLDER: &str =
    "SELECT id FROM problem_report WHERE closed_at IS NULL AND serial = ? AND ground = 0 ORDER BY id";
/// Those that anybody else decides, too.
const OPEN_OF_ALL: &str =
    "SELECT id FROM problem_report WHERE closed_at IS NULL AND serial = ? AND ground <> 1 ORDER BY id";

fn any_decided(connection: &Connection) -> Result<bool, StoreError> {
    Ok(rows::first(connection, &format!("{DECIDED} LIMIT 1"), &[], |_| Ok(()))?.is_some())
}

fn close_decided(connection: &Connection, at: UnixTime) -> Result<(), StoreError> {
    for id in rows::all(connection, &format!("{DECIDED} ORDER BY p.id"), &[], |row| get::<i64>(row, 0))? {
        close_one(connection, id, at)?;
    }
    Ok(())
}

fn close_one(connection: &Connection, id: i64, at: UnixTime) -> Result<(), StoreError> {
    rows::execute(
        connection,
        "UPDATE problem_report SET closed_at = ?, closed_by = ? WHERE id = ?",
        params![at.0, BY_REVOCATION, id],
    )?;
    audit::append(connection, "problem.closed", BY_REVOCATION, serde_json::json!({ "report": id }), at)
}

fn count(connection: &Connection, at: UnixTime) -> Result<OpenProblems, StoreError> {
    let query = "SELECT due_at FROM problem_report WHERE closed_at IS NULL ORDER BY due_at";
    let due = rows::all(connection, query, &[], |row| get::<i64>(row, 0))?;
    Ok(OpenProblems {
        open: due.len() as u64,
        overdue: due.iter().filter(|due| **due < at.0).count() as u64,
        first_due: due.first().copied().map(UnixTime),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_revocation_decides_is_found_by_its_certificate_however_many_reports_there_are() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        super::super::migrations::create(&connection).unwrap();
        for query in [OPEN_OF_HOLDER, OPEN_OF_ALL] {
            let query = format!("EXPLAIN QUERY PLAN {query}");
            let parameters = params![[0_u8; 20]];
            let plan =
                super::super::sqlite::all(&connection, &query, parameters, |row| get::<String>(row, 3));
            let plan = plan.unwrap().join("; ");
            assert!(plan.contains("problem_report_open_of (serial=?)"), "{plan}");
            assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}
