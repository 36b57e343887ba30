//! Queries that must not read what was closed.

use ca_pki::Identity;

use super::super::{QueueLimits, Terms};
use super::*;
use crate::storage::{migrations, sqlite};

fn database() -> Connection {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    migrations::create(&connection).unwrap();
    Connection::Sqlite(connection)
}

/// A request of one requester with one id of theirs, from `at` on for a hundred seconds.
fn request(id: u8, at: i64, instead_of: Option<u8>) -> NewRequest {
    let content = RequestContent {
        id: [id; 16],
        requester: "oidc:https://id.example.org#1".to_owned(),
        request_id: "key-1".to_owned(),
        token: None,
        way: Way::IdentityToken,
        requester_names: vec!["dev@example.org".to_owned()],
        vouched_by: None,
        voucher_names: Vec::new(),
        identity: Identity::Email("dev@example.org".to_owned()),
        identity_issuer: "https://id.example.org".to_owned(),
        profile: "keyless".to_owned(),
        issuer: "code-signing".to_owned(),
        terms: Terms {
            issuer_key: "ab".to_owned(),
            kind: "keyless".to_owned(),
            subject: String::new(),
            lifetime_seconds: 600,
            ends_by: None,
            policies: Vec::new(),
            sct: "absent".to_owned(),
        },
        spki: vec![1],
        spki_sha256: [1; 32],
        claims: Vec::new(),
        evidence: "{}".to_owned(),
        needed: 1,
        created_at: UnixTime(at),
        expires_at: UnixTime(at + 100),
    };
    NewRequest {
        content,
        statement: format!("{id}"),
        limits: QueueLimits { all: 10, identity: 10 },
        instead_of: instead_of.map(|id| [id; 16]),
    }
}

fn state(connection: &Connection, id: u8) -> QueueState {
    find(connection, &[id; 16]).unwrap().unwrap().state
}

/// What the newest audit record says happened.
fn newest(connection: &Connection) -> (String, String) {
    let record = audit::latest(connection).unwrap().unwrap();
    (record.event, record.detail)
}

#[test]
fn a_request_is_not_given_back_beside_another_one_of_its_requester() {
    let connection = database();
    record(&connection, &request(1, 0, None)).unwrap();
    let claimed = "UPDATE enrolment_request SET state = 2, intent = ?, closed_at = 5 WHERE id = ?";
    rows::execute(&connection, claimed, params![[9_u8; 16], [1_u8; 16]]).unwrap();
    record(&connection, &request(2, 10, Some(1))).unwrap();
    // The signer says only now that nothing was signed.
    steps::release(&connection, &[9; 16], UnixTime(20)).unwrap();
    assert_eq!((state(&connection, 1), state(&connection, 2)), (QueueState::Ended, QueueState::Waiting));
    let (event, detail) = newest(&connection);
    assert!(event == "request.ended" && detail.contains(&hex::encode([1; 16])), "{event} {detail}");

    // Of the only one nothing is lost.
    rows::execute(&connection, claimed, params![[8_u8; 16], [2_u8; 16]]).unwrap();
    steps::release(&connection, &[8; 16], UnixTime(30)).unwrap();
    assert_eq!(state(&connection, 2), QueueState::Approved);
}

#[test]
fn a_request_whose_time_is_over_gives_way_noted_or_not() {
    let connection = database();
    record(&connection, &request(1, 0, None)).unwrap();
    assert_eq!(record(&connection, &request(2, 99, Some(1))), Err(StoreError::StateConflict));
    record(&connection, &request(2, 100, Some(1))).unwrap();
    assert_eq!((state(&connection, 1), state(&connection, 2)), (QueueState::Expired, QueueState::Waiting));
    assert_eq!(newest(&connection).0, "request.recorded");
}

#[test]
fn no_way_of_asking_takes_the_places_that_are_kept_for_what_operators_let_in() {
    let connection = database();
    let asked = |id: u8, way: Way| {
        let mut new = request(id, 0, None);
        new.content.way = way;
        new.content.request_id = format!("r-{id}");
        new.content.identity = Identity::Email(format!("dev-{id}@example.org"));
        new.limits = QueueLimits { all: 8, identity: 4 };
        record(&connection, &new)
    };
    let full = Err(StoreError::QueueFull(QueueLimit::All));
    for id in 1..=4 {
        asked(id, Way::Code).unwrap();
    }
    assert_eq!(asked(5, Way::Code), full, "half of them to letters");
    asked(6, Way::Certificate).unwrap();
    asked(7, Way::IdentityToken).unwrap();
    assert_eq!(asked(8, Way::IdentityToken), full, "a quarter is kept");
    assert_eq!(asked(9, Way::Certificate), full, "a quarter is kept");
    asked(10, Way::Token).unwrap();
    asked(11, Way::Token).unwrap();
    assert_eq!(asked(12, Way::Token), full);
}

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
        (OPEN_BY_WAY, params![1_i64, 2_i64].to_vec(), "enrolment_request_open"),
        (OPEN_WITHOUT_OPERATOR, params![1_i64].to_vec(), "enrolment_request_open"),
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
