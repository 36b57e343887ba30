//! What a search by the time of issuance finds, over HTTP: from its first bound on, and before its second.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;
use std::time::Duration;

use ca_api::ListQuery;
use ca_api::client::CaClient;
use fixture::own::Own;
use fixture::{Server, Site};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};

/// The serial numbers that a search finds, in pages of a size.
async fn found(client: &CaClient, query: &ListQuery, page: u32) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let query = ListQuery { limit: Some(page), after, ..query.clone() };
        let list = client.list(&query).await.unwrap();
        assert!(list.certificates.len() <= page as usize);
        found.extend(list.certificates.into_iter().map(|record| record.serial));
        after = list.next;
        if after.is_none() {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bound_of_a_search_by_time_is_in_it_and_the_second_is_not() {
    let site = Site::new().await;
    // After everything that the ceremony made.
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds() + 1_000));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let (mut serials, mut times) = (Vec::new(), Vec::new());
    for email in ["first@example.com", "second@example.com", "third@example.com"] {
        serials.insert(0, Own::enrolled(&authority, email).await.issued.serial.to_string());
        times.push(clock.unix_seconds());
        clock.advance(Duration::from_secs(100));
    }
    let server = Server::start(authority).await;
    let admin = server.admin();
    let [third, second, first] = &serials[..] else { panic!("three") };
    let recorded = admin.show(second).await.unwrap().created_at;
    assert_eq!(recorded, times[1]);

    for (from, before, expected) in [
        (Some(times[0]), None, vec![third, second, first]),
        (Some(times[1]), None, vec![third, second]),
        (Some(times[1] + 1), None, vec![third]),
        (Some(times[2] + 1), None, vec![]),
        (Some(times[0]), Some(times[1]), vec![first]),
        (Some(times[0]), Some(times[1] + 1), vec![second, first]),
        (Some(times[1]), Some(times[2]), vec![second]),
        (Some(times[1]), Some(times[1]), vec![]),
        (Some(times[2]), Some(times[0]), vec![]),
    ] {
        let query = ListQuery { created_from: from, created_before: before, ..ListQuery::default() };
        for page in [1, 2, 1_000] {
            let found = found(&admin, &query, page).await;
            assert_eq!(found.iter().collect::<Vec<&String>>(), expected, "{from:?} to {before:?} by {page}");
        }
    }
    // With the second bound alone, what the ceremony made comes after what was issued before it.
    let query = ListQuery { created_before: Some(times[1]), ..ListQuery::default() };
    let earlier = found(&admin, &query, 2).await;
    assert!(earlier.len() > 1 && earlier[0] == *first && !earlier.contains(second), "{earlier:?}");
    // Beside other conditions both hold.
    let of_second = Some("second@example.com".to_owned());
    for (from, expected) in [(times[1], 1), (times[1] + 1, 0)] {
        let query =
            ListQuery { identity: of_second.clone(), created_from: Some(from), ..ListQuery::default() };
        assert_eq!(found(&admin, &query, 10).await.len(), expected);
    }
    // As it is written in an address; what is no time is refused.
    let url = |bounds: &str| format!("{}/api/v1/certificates?{bounds}", server.base);
    let asked = server.http.get(url(&format!("created_from={}&created_before={}", times[1], times[2])));
    let answer = asked.bearer_auth(fixture::ADMIN).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(
        (&answer["certificates"][0]["serial"], &answer["next"]),
        (&serde_json::json!(second), &serde_json::Value::Null)
    );
    let refused = server.http.get(url("created_from=yesterday")).bearer_auth(fixture::ADMIN).send().await;
    assert_eq!(refused.unwrap().status(), 400);
    server.finish().await;
}
