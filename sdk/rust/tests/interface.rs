//! An agent sees the interface through the types of this crate; the fake host keeps the interface's rules.

use mentat_sdk::fake::Host;
use mentat_sdk::{Agent, Context, Error, HostError, Input, Level, Output, Result, Value, mentat_agent};

/// The three places of the attribute: each is compiled as the export that it is in a module.
mod attribute {
    use super::*;

    #[mentat_agent]
    #[derive(Debug)]
    pub(crate) enum Kind {
        One,
    }

    pub(super) struct Block(Kind);

    #[mentat_agent]
    impl crate::Agent for Block {
        fn init(context: &Context) -> Result<Self> {
            Kind::init(context).map(Block)
        }

        fn process(&mut self, context: &Context, input: Input) -> Result<Output> {
            self.0.process(context, input)
        }
    }

    impl Agent for Kind {
        fn init(_: &Context) -> Result<Self> {
            Ok(Self::One)
        }

        fn process(&mut self, _: &Context, _: Input) -> Result<Output> {
            Ok(Output::text("one"))
        }
    }

    #[mentat_agent]
    pub(super) fn function(context: &Context, input: Input) -> Result<Output> {
        Kind::init(context)?.process(context, input)
    }

    // A name that the export itself once had: it called itself for ever.
    #[mentat_agent]
    pub(super) fn exported(_: &Context, input: Input) -> Result<Output> {
        Ok(Output::bytes(input.bytes()))
    }
}

#[test]
fn the_attribute_leaves_what_it_stands_on_as_it_is() {
    assert_eq!(Host::new().call(attribute::function).text(), "one");
    assert_eq!(Host::new().input("it").call(attribute::exported).text(), "it");
    assert_eq!(Host::new().run::<attribute::Kind>().text(), "one");
    assert_eq!(Host::new().run::<attribute::Block>().text(), "one");
}

/// Counts its own calls: a state that `init` makes.
struct Counting {
    calls: u32,
}

impl Agent for Counting {
    fn init(context: &Context) -> Result<Self> {
        context.debug("init");
        Ok(Self { calls: 0 })
    }

    fn process(&mut self, context: &Context, input: Input) -> Result<Output> {
        self.calls += 1;
        context.metric("input_bytes", input.bytes().len() as f64)?;
        Ok(Output::new().add("calls", self.calls).add("echo", input.text()?))
    }
}

#[test]
fn a_type_is_made_and_asked_once_a_call() {
    for _ in 0..2 {
        let done = Host::new().input("ab\"c").run::<Counting>();
        assert_eq!((done.exit_code, done.text().as_str()), (0, r#"{"calls":1,"echo":"ab\"c"}"#));
        assert_eq!(done.log, [(Level::Debug, "init".to_owned())]);
        assert_eq!(done.metrics, [("input_bytes".to_owned(), 4.0)]);
    }
}

#[test]
fn members_are_read_by_type_and_refused_by_name() {
    let ask = |text: &str| {
        Host::new().input(text).call(|_, input| {
            let factor: i64 = input.get("factor")?;
            let names: Vec<String> = input.find("names")?.unwrap_or_default();
            Ok(Output::new().add("factor", factor as f64).add("names", names))
        })
    };
    assert_eq!(ask(r#"{"factor": 3}"#).text(), r#"{"factor":3,"names":[]}"#);
    assert_eq!(ask(r#"{"names":["a","ü"],"factor":-2e1}"#).text(), r#"{"factor":-20,"names":["a","ü"]}"#);
    for (text, line) in [
        ("{}", "input: there is no member `factor`"),
        (r#"{"factor":1.5}"#, "input: `factor` is not a whole number"),
        (r#"{"factor":1,"names":[1]}"#, "input: `names` is not a list of the right items"),
        ("[1]", "input: it is no JSON object"),
        ("", "input: no value at byte 0"),
        (r#"{"a":1,"a":2}"#, "input: a member stands twice before here at byte 13"),
    ] {
        let done = ask(text);
        assert_eq!((done.exit_code, done.log), (2, vec![(Level::Error, line.to_owned())]), "{text}");
        assert!(done.output.is_empty());
    }
}

#[test]
fn what_is_written_is_read_again() {
    let text = r#"{"a":[1,-2.5,1e300,true,null,{"b":"\u0001\n\\\"ü€😀"}],"c":{},"d":[]}"#;
    let value = mentat_sdk::json::parse(text).unwrap();
    assert_eq!(mentat_sdk::json::parse(&value.to_json()).unwrap(), value);
    assert_eq!(value.get("a").and_then(|_| value.get("c")), Some(&Value::Object(vec![])));
    let escaped = mentat_sdk::json::parse(r#""\ud83d\ude00\/\b""#).unwrap();
    assert_eq!(escaped, Value::from("😀/\u{8}"));
}

#[test]
fn what_is_no_json_is_refused_where_it_goes_wrong() {
    let deep = "[".repeat(100);
    for (text, at) in [
        ("01", 1),
        ("1.", 2),
        ("-", 1),
        ("1e", 2),
        ("tru", 0),
        ("[1,]", 3),
        ("{\"a\"}", 4),
        ("{a:1}", 1),
        ("\"a", 2),
        ("\"\\u12\"", 3),
        ("\"\\ud800\"", 7),
        ("\"\\ud800\\u0041\"", 13),
        ("\"\u{1}\"", 1),
        ("1 2", 2),
        ("1e999", 5),
        (deep.as_str(), 65),
    ] {
        assert_eq!(mentat_sdk::json::parse(text).unwrap_err().at, at, "{text}");
    }
}

#[test]
fn what_was_not_granted_is_refused_with_the_number_of_the_interface() {
    let ask = |capability: &'static str| {
        move |context: &Context, _: Input| {
            context.capability(capability)?;
            Ok(Output::new())
        }
    };
    let refused = |capability| Host::new().environment("A", "1").call(ask(capability)).log;
    assert_eq!(refused("env:A"), []);
    assert_eq!(refused("env:B"), [(Level::Error, HostError::NotInManifest.to_string())]);
    assert_eq!(refused("nonsense"), [(Level::Error, HostError::InvalidArgument.to_string())]);
}

#[test]
fn a_capability_is_used_and_its_refusals_arrive() {
    let host = Host::new().grant("network:https:api.example.com", |operation, arguments| match operation {
        "request" => Ok([b"asked: ", arguments].concat()),
        _ => Err(HostError::InvalidArgument),
    });
    let done = host.call(|context, _| {
        let network = context.capability("network:https:api.example.com")?;
        assert_eq!(network.invoke("get", b""), Err(Error::Host(HostError::InvalidArgument)));
        Ok(Output::bytes(network.invoke("request", b"x")?))
    });
    assert_eq!(done.text(), "asked: x");
}

#[test]
fn media_and_streams_are_there_when_they_are_granted() {
    let agent = |context: &Context, _: Input| {
        let reference = context.media().upload("text/plain", b"kept")?;
        let mut stream = context.stream("pieces")?;
        stream.write(&context.media().download(&reference)?)?;
        stream.write(b"more")?;
        Ok(Output::new().add("pieces", stream.end()?))
    };
    let done = Host::new().media().streams().call(agent);
    assert_eq!(done.text(), r#"{"pieces":2}"#);
    assert_eq!(done.streams, [("pieces".to_owned(), vec![b"kept".to_vec(), b"more".to_vec()])]);
    assert_eq!(done.stored[0].1, "text/plain");
    assert_eq!(Host::new().streams().call(agent).log[0].1, HostError::NotInManifest.to_string());
    assert_eq!(Host::new().media().call(agent).log[0].1, HostError::NotSupported.to_string());
}

#[test]
fn names_of_metrics_follow_the_grammar() {
    for (name, value) in [("Upper", 1.0), ("1st", 1.0), ("", 1.0), ("nan", f64::NAN), ("a-b", 1.0)] {
        let done = Host::new().call(|context, _| context.metric(name, value).map(|()| Output::new()));
        assert_eq!((done.exit_code, done.metrics.len()), (3, 0), "{name}");
    }
}

#[test]
fn an_agent_s_own_code_is_the_exit_code() {
    let fail = |code| Host::new().call(move |_, _| Err(Error::with_code(code, "no"))).exit_code;
    assert_eq!([fail(7), fail(-1), fail(0)], [7, -1, 1]);
}

#[test]
fn a_whole_number_is_one_that_the_text_said() {
    let ask = |text: &str| {
        let host = Host::new().input(format!(r#"{{"n":{text}}}"#));
        host.call(|_, input| Ok(Output::new().add("n", input.get::<i64>("n")? as f64)))
    };
    assert_eq!(ask("9007199254740991").text(), r#"{"n":9007199254740991}"#);
    assert_eq!(ask("-9007199254740991").text(), r#"{"n":-9007199254740991}"#);
    // Both are read as 2^53: which of the two was meant cannot be told any more.
    for text in ["9007199254740992", "9007199254740993", "-9007199254740993", "1e300", "0.5"] {
        assert_eq!(ask(text).exit_code, 2, "{text}");
    }
}

#[test]
fn an_agent_that_panics_leaves_nothing_for_the_next_call() {
    let panics = || Host::new().input("left").streams().call(|_, _| panic!("as agents do"));
    assert!(std::panic::catch_unwind(panics).is_err());
    // Outside of a call there is no host: every function says so.
    let reference = mentat_sdk::fake::Host::new().call(|context, _| {
        let stream = context.stream("a");
        Ok(Output::new().add("refused", stream.is_err()))
    });
    assert_eq!(reference.text(), r#"{"refused":true}"#);
    assert_eq!(
        mentat_sdk::run_function(|_, input| Err(Error::with_code(input.bytes().len() as i32 + 7, "no"))),
        7
    );
}
