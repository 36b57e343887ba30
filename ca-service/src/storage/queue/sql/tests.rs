//! Queries that must not read what was closed.

use super::*;
use crate::storage::{migrations, sqlite};

#[test]
fn open_requests_are_found_without_reading_the_closed_ones() {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    migrations::create(&connection).unwrap();
    let open = request_select!("state IN (0, 1) AND +number > ? ORDER BY +number LIMIT ?");
    let unannounced =
        request_select!("state IN (0, 1) AND state = 0 AND announced = 0 ORDER BY +number LIMIT ?");
    for (query, parameters, index) in [
        (WAITING, params![1_i64].to_vec(), "enrolment_request_open"),
        (open, params![1_i64, 2_i64].to_vec(), "enrolment_request_open"),
        (unannounced, params![1_i64].to_vec(), "enrolment_request_open"),
        (OPEN_OF_IDENTITY, params![1_i64, "a", "b"].to_vec(), "enrolment_request_open"),
        (OPEN_BY_IDENTITY_TOKEN, params![1_i64].to_vec(), "enrolment_request_open"),
        (steps::OVERDUE, params![1_i64, 2_i64].to_vec(), "enrolment_request_open"),
        (steps::OLD, params![1_i64, 2_i64].to_vec(), "enrolment_request_closed"),
        (HOLDS, params![[0_u8; 32]].to_vec(), "(token=?)"),
        (
            request_select!("requester = ? AND request_id = ? ORDER BY number DESC LIMIT 1"),
            params!["a", "b"].to_vec(),
            "enrolment_request_of",
        ),
    ] {
        let plan = format!("EXPLAIN QUERY PLAN {query}");
        let plan = sqlite::all(&connection, &plan, &parameters, |row| get::<String>(row, 3)).unwrap();
        assert!(plan.join("; ").contains(index), "{query}: {plan:?}");
    }
}
