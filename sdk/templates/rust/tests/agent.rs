//! The agent on a host that is no executor.

use mentat_sdk::Level;
use mentat_sdk::fake::Host;
use my_agent::greet;

#[test]
fn it_greets_by_name() {
    let done = Host::new().input(r#"{"name":"Ada"}"#).call(greet);
    assert_eq!((done.exit_code, done.text().as_str()), (0, r#"{"greeting":"hello, Ada"}"#));
    assert_eq!(done.log, [(Level::Info, "greeting".to_owned())]);
    assert_eq!(done.metrics, [("name_bytes".to_owned(), 3.0)]);
}

#[test]
fn without_a_name_there_is_no_greeting() {
    let done = Host::new().input("{}").call(greet);
    assert_eq!((done.exit_code, done.output.len()), (2, 0));
    assert_eq!(done.log, [(Level::Error, "input: there is no member `name`".to_owned())]);
}
