//! Certificates by the time of their issuance: `--issued-from` is in what is found, `--issued-before` is not.

use std::time::Duration;

use mentat_tests::agent::enrol;
use mentat_tests::stack::Stack;
use serde_json::Value;
use trust_store::UnixTime;

#[test]
fn a_search_by_time_finds_from_one_second_on_and_before_another() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let mut issued = Vec::new();
    for name in ["first", "second", "third"] {
        // Times are of whole seconds.
        std::thread::sleep(Duration::from_millis(1_100));
        enrol(&stack, &format!("{name}@example.com"), name);
        let listed = stack.ctl(&["--json", "pki", "list", "--identity", &format!("{name}@example.com")]);
        let listed = listed.success().json();
        issued.push((listed["serial"].as_str().unwrap().to_owned(), listed["created_at"].as_i64().unwrap()));
    }
    let [first, second, third] = [0, 1, 2].map(|place: usize| issued[place].clone());
    assert!(first.1 < second.1 && second.1 < third.1, "{issued:?}");
    let at = |seconds: i64| UnixTime(seconds).to_string();
    let found = |bounds: &[&str]| {
        let said = stack.ctl(&[&["--json", "pki", "list"][..], bounds].concat()).success().stdout;
        let serial =
            |line: &str| serde_json::from_str::<Value>(line).unwrap()["serial"].as_str().unwrap().to_owned();
        said.lines().map(serial).collect::<Vec<_>>()
    };
    let (of_first, of_second, of_third) = (at(first.1), at(second.1), at(third.1));
    assert_eq!(found(&["--issued-from", &of_second]), [third.0.clone(), second.0.clone()]);
    assert_eq!(found(&["--issued-from", &at(second.1 + 1)]), [third.0]);
    assert_eq!(found(&["--issued-from", &of_first, "--issued-before", &of_second]), [first.0]);
    assert_eq!(
        found(&["--issued-from", &of_second, "--issued-before", &of_third]),
        std::slice::from_ref(&second.0)
    );
    assert_eq!(found(&["--issued-from", &of_second, "--issued-before", &of_second]), [""; 0]);
    // Another place on earth, the same moment.
    let elsewhere = at(second.1 + 7_200).replace('Z', "+02:00");
    assert_eq!(found(&["--issued-from", &elsewhere, "--issued-before", &of_third]), [second.0]);
    let said =
        stack.ctl(&["pki", "list", "--issued-from", &of_third, "--issued-before", &of_first]).success();
    assert!(said.stdout.contains("no certificates"), "{}", said.stdout);
    stack.ctl(&["pki", "list", "--issued-from", "yesterday"]).refused(2, "RFC 3339").one_clear_line();
}
