//! SQL that reads certificates and open issuances.

use ca_pki::{SerialNumber, UnixTime};

use super::rows::{self, certificate_select, get};
use super::sql::{Connection, Parameter, Value, params};
use super::{
    IntentId, Open, Search, Selected, SelectedCount, Selection, State, StoreError, StoredCertificate,
    StoredStatus,
};

pub(super) fn open(
    connection: &Connection,
    which: Open,
    before: UnixTime,
    limit: u32,
) -> Result<Vec<StoredCertificate>, StoreError> {
    let (first, second) = match which {
        Open::Here => (State::Intent, State::Signing),
        Open::AtLog => (State::Signed, State::Logged),
    };
    // The first condition is the index's own.
    let open = certificate_select!(
        "WHERE c.state IN (0, 1, 3, 4) AND c.state IN (?, ?) AND c.created_at < ? ORDER BY c.created_at LIMIT ?"
    );
    rows::all(connection, open, params![first as i64, second as i64, before.0, limit], rows::certificate)
}

pub(super) fn by_serial(
    connection: &Connection,
    serial: &SerialNumber,
) -> Result<Option<StoredCertificate>, StoreError> {
    let query = certificate_select!("WHERE c.serial = ?");
    rows::first(connection, query, params![serial.as_bytes()], rows::certificate)
}

pub(super) fn by_intent(
    connection: &Connection,
    intent: &IntentId,
) -> Result<Option<StoredCertificate>, StoreError> {
    rows::first(connection, certificate_select!("WHERE c.intent = ?"), params![intent], rows::certificate)
}

/// Conditions that all hold, with their parameters.
#[derive(Default)]
pub(super) struct Conditions {
    text: String,
    parameters: Vec<Box<dyn Parameter>>,
}

impl Conditions {
    /// Conditions behind what a statement begins with.
    pub(super) fn after(text: &str) -> Self {
        Self { text: text.to_owned(), parameters: Vec::new() }
    }

    /// The statement so far.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Adds `AND condition` where there is a parameter.
    pub(super) fn demand<T: Parameter + 'static>(&mut self, condition: &str, parameter: Option<T>) {
        if let Some(parameter) = parameter {
            self.text.push_str(condition);
            self.parameters.push(Box::new(parameter));
        }
    }

    pub(super) fn parameters(&self) -> Vec<Value<'_>> {
        self.parameters.iter().map(|parameter| parameter.value()).collect()
    }
}

pub(super) fn search(connection: &Connection, search: &Search) -> Result<Vec<StoredCertificate>, StoreError> {
    let mut conditions = Conditions::default();
    conditions.demand(" AND c.identity = ?", search.identity.clone());
    conditions.demand(" AND c.spki_sha256 = ?", search.spki_sha256);
    if search.requester.is_some() {
        // The words of the index that has them.
        conditions.text.push_str(" AND c.request_id IS NOT NULL AND substr(c.requester, 1, 6) <> 'token:'");
    }
    conditions.demand(" AND c.requester = ?", search.requester.clone());
    conditions.demand(" AND c.request_id = ?", search.request_id.clone());
    conditions.demand(" AND c.state = ?", search.state.map(|state| state as i64));
    conditions.demand(" AND c.created_at >= ?", search.created_from.map(|at| at.0));
    conditions.demand(" AND c.created_at < ?", search.created_before.map(|at| at.0));
    conditions.demand(" AND c.id < ?", search.below);
    conditions.demand(" ORDER BY c.id DESC LIMIT ?", Some(search.limit));
    let query = certificate_select!("WHERE 1 = 1").to_owned() + &conditions.text;
    rows::all(connection, &query, &conditions.parameters(), rows::certificate)
}

/// The conditions of a selection that hold for whatever it means.
fn meant(selection: &Selection) -> Conditions {
    let mut conditions = Conditions::default();
    conditions.text.push_str(" FROM certificate WHERE identity IS NOT NULL");
    conditions.demand(" AND identity = ?", selection.identity.clone());
    conditions.demand(" AND spki_sha256 = ?", selection.spki_sha256);
    conditions.demand(" AND issuer = ?", selection.issuer.clone());
    conditions.demand(" AND profile = ?", selection.profile.clone());
    conditions
}

/// Those that hold for what is counted.
fn issued_within(conditions: &mut Conditions, selection: &Selection) {
    conditions.demand(" AND created_at >= ?", selection.created_from.map(|at| at.0));
    conditions.demand(" AND created_at < ?", selection.created_before.map(|at| at.0));
    conditions.demand(" AND id <= ?", selection.through);
}

/// The conditions of a selection. None of these columns ever changes, so neither does what a selection matches.
fn selection(selection: &Selection) -> Conditions {
    let mut conditions = meant(selection);
    issued_within(&mut conditions, selection);
    conditions
}

pub(super) fn selected(
    connection: &Connection,
    wanted: &Selection,
    after: i64,
    limit: u32,
) -> Result<Vec<Selected>, StoreError> {
    let mut conditions = match (wanted.through, wanted.requests_through) {
        (Some(through), Some(requests)) => {
            let mut conditions = meant(wanted);
            conditions.text.push_str(" AND ((1 = 1");
            issued_within(&mut conditions, wanted);
            conditions.demand(") OR (id > ?", Some(through));
            let came = " AND intent IN (SELECT intent FROM enrolment_request WHERE intent IS NOT NULL AND number <= ?";
            conditions.demand(came, Some(requests));
            conditions.demand(" AND created_at < ?", wanted.created_before.map(|at| at.0));
            conditions.text.push_str(")))");
            conditions
        }
        _ => selection(wanted),
    };
    conditions.demand(" AND id > ?", Some(after));
    conditions.demand(" ORDER BY id LIMIT ?", Some(limit));
    let query = format!("SELECT id, serial, not_before{}", conditions.text);
    rows::all(connection, &query, &conditions.parameters(), |row| {
        Ok(Selected {
            row: get(row, 0)?,
            serial: rows::serial(rows::blob(row, 1)?)?,
            not_before: UnixTime(get(row, 2)?),
        })
    })
}

pub(super) fn count_selected(
    connection: &Connection,
    wanted: &Selection,
) -> Result<SelectedCount, StoreError> {
    let conditions = selection(wanted);
    let query = format!(
        "SELECT count(*), count(CASE WHEN state = 7 THEN 1 END), coalesce(max(id), 0){}",
        conditions.text
    );
    let number = |number: i64| u64::try_from(number).map_err(|_| rows::corrupted("a count"));
    rows::first(connection, &query, &conditions.parameters(), |row| {
        Ok(SelectedCount {
            matching: number(get(row, 0)?)?,
            revoked: number(get(row, 1)?)?,
            newest: get(row, 2)?,
        })
    })?
    .ok_or_else(|| rows::corrupted("a count"))
}

pub(super) fn status(
    connection: &Connection,
    issuer: &str,
    serial: &SerialNumber,
) -> Result<Option<StoredStatus>, StoreError> {
    let query = "SELECT c.state, c.step, c.not_before, c.not_after, r.revoked_at, r.reason FROM certificate c \
                 LEFT JOIN revocation r ON r.issuer = c.issuer AND r.shard = c.shard AND r.serial = c.serial \
                 WHERE c.serial = ? AND c.issuer = ?";
    rows::first(connection, query, params![serial.as_bytes(), issuer], |row| {
        let revocation = match get::<Option<i64>>(row, 4)? {
            None => None,
            Some(at) => Some((UnixTime(at), rows::reason(get(row, 5)?)?)),
        };
        Ok(StoredStatus {
            state: rows::state(get(row, 0)?)?,
            step: rows::step(get(row, 1)?)?,
            not_before: UnixTime(get(row, 2)?),
            not_after: UnixTime(get(row, 3)?),
            revocation,
        })
    })
}
