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

    /// Adds that a row is of a segment, by what the index is ordered by, and by the numbers of rows as well: whatever a planner reads by, it
    /// reads no other segment.
    fn demand_segment(&mut self, id: &str, segment: Option<i64>) {
        let Some(segment) = segment else { return };
        let (first, last) = rows_of(segment);
        self.demand(&format!(" AND ({id} >> {SEGMENT_BITS}) = ?"), Some(segment));
        self.demand(&format!(" AND {id} >= ?"), Some(first));
        self.demand(&format!(" AND {id} <= ?"), Some(last));
    }

    pub(super) fn parameters(&self) -> Vec<Value<'_>> {
        self.parameters.iter().map(|parameter| parameter.value()).collect()
    }
}

/// Rows that are ordered by identity and by key together: 65,536 (migration 6).
const SEGMENT_BITS: u32 = 16;

/// The run of rows that a row belongs to.
fn segment(row: i64) -> i64 {
    row >> SEGMENT_BITS
}

/// The first and the last row that a run may have.
pub(super) fn rows_of(segment: i64) -> (i64, i64) {
    let first = segment << SEGMENT_BITS;
    (first, first | ((1 << SEGMENT_BITS) - 1))
}

/// The newest row's number; 0 where there is none.
fn newest_row(connection: &Connection) -> Result<i64, StoreError> {
    let newest = "SELECT coalesce(max(id), 0) FROM certificate";
    rows::first(connection, newest, &[], |row| get(row, 0))?.ok_or_else(|| rows::corrupted("a maximum"))
}

/// What the segments are ordered by: an identity's text, a key, or both.
struct Sought<'a> {
    identity: Option<&'a String>,
    spki_sha256: Option<[u8; 32]>,
}

impl Sought<'_> {
    /// The segments that have rows of it among those from `first` to `last`, the newest first. They are looked into by one statement, each
    /// by its index: with a server that is a way away, whoever asks for what is nowhere holds a connection for one answer and not for one
    /// of each segment.
    fn segments(&self, connection: &Connection, first: i64, last: i64) -> Result<Vec<i64>, StoreError> {
        if self.identity.is_none() && self.spki_sha256.is_none() || first > last {
            return Ok(Vec::new());
        }
        let query = self.query(first, last);
        rows::all(connection, query.text(), &query.parameters(), |row| get(row, 0))
    }

    fn query(&self, first: i64, last: i64) -> Conditions {
        let mut query = Conditions::after("WITH RECURSIVE segment (number) AS (");
        query.demand("SELECT ?", Some(last));
        query.demand(" UNION ALL SELECT number - 1 FROM segment WHERE number > ?", Some(first));
        // With a limit it stays a look for each of them, and cannot become a join with all rows.
        query.text.push_str(
            ") SELECT number FROM segment WHERE (SELECT c.id FROM certificate c WHERE (c.id >> 16) = segment.number \
             AND c.id >= (segment.number << 16) AND c.id <= (segment.number << 16) + 65535",
        );
        query.demand(" AND c.identity = ?", self.identity.cloned());
        query.demand(" AND c.spki_sha256 = ?", self.spki_sha256);
        query.text.push_str(" LIMIT 1) IS NOT NULL ORDER BY number DESC");
        query
    }
}

pub(super) fn search(connection: &Connection, search: &Search) -> Result<Vec<StoredCertificate>, StoreError> {
    if search.identity.is_none() && search.spki_sha256.is_none() {
        return search_in(connection, search, None, search.limit);
    }
    let newest = newest_row(connection)?;
    let last = search.below.map_or(newest, |below| newest.min(below.saturating_sub(1)));
    let sought = Sought { identity: search.identity.as_ref(), spki_sha256: search.spki_sha256 };
    let mut found = Vec::new();
    for segment in sought.segments(connection, 0, segment(last))? {
        let left = search.limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        if left == 0 {
            break;
        }
        found.extend(search_in(connection, search, Some(segment), left)?);
    }
    Ok(found)
}

/// Searches a segment, or everything in the order of rows.
fn search_in(
    connection: &Connection,
    search: &Search,
    segment: Option<i64>,
    limit: u32,
) -> Result<Vec<StoredCertificate>, StoreError> {
    let query = search_query(search, segment, limit);
    rows::all(connection, query.text(), &query.parameters(), rows::certificate)
}

fn search_query(search: &Search, segment: Option<i64>, limit: u32) -> Conditions {
    let mut conditions = Conditions::after(certificate_select!("WHERE 1 = 1"));
    conditions.demand_segment("c.id", segment);
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
    conditions.demand(" ORDER BY c.id DESC LIMIT ?", Some(limit));
    conditions
}

/// The segments that have what a selection means, from a row on: one after the other where it names what they are ordered by, else none for
/// all rows at once.
pub(super) fn segments(
    connection: &Connection,
    wanted: &Selection,
    from: i64,
    through: Option<i64>,
) -> Result<Vec<Option<i64>>, StoreError> {
    if wanted.identity.is_none() && wanted.spki_sha256.is_none() {
        return Ok(vec![None]);
    }
    let newest = newest_row(connection)?;
    let last = through.map_or(newest, |through| newest.min(through));
    let sought = Sought { identity: wanted.identity.as_ref(), spki_sha256: wanted.spki_sha256 };
    let segments = sought.segments(connection, segment(from.max(0)), segment(last))?;
    Ok(segments.into_iter().rev().map(Some).collect())
}

/// The conditions of a selection that hold for whatever it means.
fn meant(selection: &Selection, segment: Option<i64>) -> Conditions {
    let mut conditions = Conditions::default();
    conditions.text.push_str(" FROM certificate WHERE identity IS NOT NULL");
    conditions.demand_segment("id", segment);
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
fn selection(selection: &Selection, segment: Option<i64>) -> Conditions {
    let mut conditions = meant(selection, segment);
    issued_within(&mut conditions, selection);
    conditions
}

pub(super) fn selected(
    connection: &Connection,
    wanted: &Selection,
    after: i64,
    limit: u32,
) -> Result<Vec<Selected>, StoreError> {
    // What requests brought forth later lies above.
    let through = if wanted.requests_through.is_some() { None } else { wanted.through };
    let mut found = Vec::new();
    for segment in segments(connection, wanted, after.saturating_add(1), through)? {
        let left = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        if left == 0 {
            break;
        }
        found.extend(selected_in(connection, wanted, segment, after, left)?);
    }
    Ok(found)
}

fn selected_in(
    connection: &Connection,
    wanted: &Selection,
    segment: Option<i64>,
    after: i64,
    limit: u32,
) -> Result<Vec<Selected>, StoreError> {
    let mut conditions = match (wanted.through, wanted.requests_through) {
        (Some(through), Some(requests)) => {
            let mut conditions = meant(wanted, segment);
            conditions.text.push_str(" AND ((1 = 1");
            issued_within(&mut conditions, wanted);
            conditions.demand(") OR (id > ?", Some(through));
            let came = " AND intent IN (SELECT intent FROM enrolment_request WHERE intent IS NOT NULL AND number <= ?";
            conditions.demand(came, Some(requests));
            conditions.demand(" AND created_at < ?", wanted.created_before.map(|at| at.0));
            conditions.text.push_str(")))");
            conditions
        }
        _ => selection(wanted, segment),
    };
    conditions.demand(" AND id > ?", Some(after));
    conditions.demand(" ORDER BY id LIMIT ?", Some(limit));
    let query = format!("SELECT id, serial, not_before, not_after, spki_sha256{}", conditions.text);
    rows::all(connection, &query, &conditions.parameters(), |row| {
        Ok(Selected {
            row: get(row, 0)?,
            serial: rows::serial(rows::blob(row, 1)?)?,
            not_before: UnixTime(get(row, 2)?),
            not_after: UnixTime(get(row, 3)?),
            spki_sha256: rows::column::<32>(row, 4)?,
        })
    })
}

pub(super) fn count_selected(
    connection: &Connection,
    wanted: &Selection,
) -> Result<SelectedCount, StoreError> {
    let mut all = SelectedCount::default();
    for segment in segments(connection, wanted, 0, wanted.through)? {
        let counted = count_selected_in(connection, wanted, segment)?;
        all.matching = all.matching.saturating_add(counted.matching);
        all.revoked = all.revoked.saturating_add(counted.revoked);
        all.newest = all.newest.max(counted.newest);
    }
    Ok(all)
}

fn count_selected_in(
    connection: &Connection,
    wanted: &Selection,
    segment: Option<i64>,
) -> Result<SelectedCount, StoreError> {
    let conditions = selection(wanted, segment);
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

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::storage::{migrations, sqlite};

    const KEY: [u8; 32] = [7; 32];
    /// On both sides of where segments meet.
    const ROWS: [i64; 6] = [1, 65_535, 65_536, 65_537, 131_072, 400_000];

    /// Certificates of one identity and key, and one of others' beside each.
    fn filled() -> Connection {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        migrations::create(&connection).unwrap();
        let insert = "INSERT INTO certificate (id, serial, intent, issuer, profile, identity_kind, identity, spki_sha256, \
                      requester, evidence, not_before, not_after, shard, state, step, tbs_sha256, tbs, created_at, updated_at) \
                      VALUES (?1, ?2, ?3, 'code-signing', 'developer', 0, ?4, ?5, 'test', '{}', 0, 1, 0, ?6, 1, ?7, ?2, ?1, ?1)";
        for row in ROWS {
            for (id, identity, key, state) in
                [(row, "one@example.org", KEY, 5), (row + 10, "other@example.org", [8; 32], 7)]
            {
                let serial = id.to_be_bytes();
                let mut intent = [0; 16];
                intent[..8].copy_from_slice(&serial);
                let digest = Sha256::digest(serial);
                let values = rusqlite::params![id, serial, intent, identity, key, state, digest.as_slice()];
                connection.execute(insert, values).unwrap();
            }
        }
        Connection::Sqlite(connection)
    }

    fn found(connection: &Connection, wanted: &Search) -> Vec<i64> {
        search(connection, wanted).unwrap().into_iter().map(|certificate| certificate.row).collect()
    }

    #[test]
    fn a_search_goes_through_the_segments_from_the_newest_row_and_ends_where_it_has_enough() {
        let connection = filled();
        let newest_first: Vec<i64> = ROWS.into_iter().rev().collect();
        let by_identity =
            Search { identity: Some("one@example.org".to_owned()), limit: 100, ..Search::default() };
        let by_key = Search { spki_sha256: Some(KEY), limit: 100, ..Search::default() };
        for wanted in [by_identity, by_key] {
            assert_eq!(found(&connection, &wanted), newest_first);
            assert_eq!(found(&connection, &Search { limit: 3, ..wanted.clone() }), newest_first[..3]);
            assert_eq!(found(&connection, &Search { limit: 0, ..wanted.clone() }), [0_i64; 0]);
            let below = Search { below: Some(65_537), ..wanted.clone() };
            assert_eq!(found(&connection, &below), [65_536, 65_535, 1]);
            assert_eq!(found(&connection, &Search { below: Some(1), ..wanted }), [0_i64; 0]);
        }
    }

    #[test]
    fn a_selection_is_counted_and_paged_through_all_segments() {
        let connection = filled();
        let of_key = Selection { spki_sha256: Some(KEY), ..Selection::default() };
        let of_other = Selection { identity: Some("other@example.org".to_owned()), ..Selection::default() };
        let all = SelectedCount { matching: 6, revoked: 0, newest: 400_000 };
        assert_eq!(count_selected(&connection, &of_key).unwrap(), all);
        let others = SelectedCount { matching: 6, revoked: 6, newest: 400_010 };
        assert_eq!(count_selected(&connection, &of_other).unwrap(), others);
        let through = Selection { through: Some(65_536), ..of_key.clone() };
        assert_eq!(count_selected(&connection, &through).unwrap().matching, 3);

        for selection in [of_key.clone(), Selection { through: Some(131_072), ..of_key }] {
            let last = selection.through.unwrap_or(i64::MAX);
            let (mut paged, mut after) = (Vec::new(), 0);
            loop {
                let page = selected(&connection, &selection, after, 2).unwrap();
                let Some(end) = page.last() else { break };
                assert!(page.len() <= 2);
                after = end.row;
                paged.extend(page.iter().map(|selected| selected.row));
            }
            let wanted: Vec<i64> = ROWS.into_iter().filter(|row| *row <= last).collect();
            assert_eq!(paged, wanted);
        }
    }

    #[test]
    fn only_segments_that_have_something_are_read_and_one_statement_finds_them() {
        let connection = filled();
        let segments = |identity: Option<&str>, key: Option<[u8; 32]>, first, last| {
            let identity = identity.map(str::to_owned);
            let sought = Sought { identity: identity.as_ref(), spki_sha256: key };
            sought.segments(&connection, first, last).unwrap()
        };
        assert_eq!(segments(None, Some(KEY), 0, 6), [6, 2, 1, 0]);
        assert_eq!(segments(Some("other@example.org"), None, 1, 5), [2, 1]);
        assert_eq!(segments(Some("one@example.org"), Some(KEY), 3, 1_000), [6]);
        for (identity, key) in [
            (None, None),
            (None, Some([9; 32])),
            (Some("nobody"), None),
            (Some("other@example.org"), Some(KEY)),
        ] {
            assert_eq!(segments(identity, key, 0, 1_000), [0_i64; 0]);
        }
        assert_eq!(segments(None, Some(KEY), 1, 0), [0_i64; 0]);
    }

    fn plan(connection: &rusqlite::Connection, query: &Conditions) -> String {
        let text = format!("EXPLAIN QUERY PLAN {}", query.text());
        let steps = sqlite::all(connection, &text, &query.parameters(), |row| get::<String>(row, 3));
        steps.unwrap().join("; ")
    }

    #[test]
    fn segments_are_read_by_their_index_and_in_its_order() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        migrations::create(&connection).unwrap();
        let identity = "one@example.org".to_owned();
        for (identity, spki_sha256, index) in [
            (Some(identity), None, "certificate_identity (<expr>=? AND identity=?"),
            (None, Some(KEY), "certificate_key (<expr>=? AND spki_sha256=?"),
        ] {
            let sought = Sought { identity: identity.as_ref(), spki_sha256 }.query(0, 9);
            let page =
                Search { identity: identity.clone(), spki_sha256, below: Some(9), ..Search::default() };
            let selection = Selection { identity, spki_sha256, ..Selection::default() };
            let mut selected = super::selection(&selection, Some(1));
            selected.text.insert_str(0, "SELECT id");
            selected.demand(" AND id > ?", Some(7_i64));
            selected.demand(" ORDER BY id LIMIT ?", Some(5_u32));
            for query in [sought, search_query(&page, Some(1), 5), selected] {
                let plan = plan(&connection, &query);
                assert!(plan.contains(index), "{plan}");
                // But for the few numbers of segments nothing is put into an order.
                assert!(query.text().starts_with("WITH") || !plan.contains("TEMP B-TREE"), "{plan}");
            }
        }
    }
}
