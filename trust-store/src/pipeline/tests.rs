use super::*;

fn step(name: &str, after: &str, more: &str) -> String {
    let digest = "ab".repeat(32);
    format!(
        r#"{{"after":[{after}],"agent":"a.{name}","idempotent":false,"module":"{digest}","name":"{name}","retries":0,"timeout_ms":1000{more}}}"#
    )
}

fn document(steps: &[String]) -> String {
    format!(r#"{{"format":"mentat-pipeline-v1","steps":[{}]}}"#, steps.join(","))
}

fn diamond() -> String {
    let steps =
        [step("a", "", ""), step("b", r#""a""#, ""), step("c", r#""a""#, ""), step("d", r#""c","b""#, "")];
    document(&steps)
}

fn refused(text: &str) -> String {
    match Pipeline::from_json(text.as_bytes()) {
        Err(Error::Malformed { detail, .. }) => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_form_is_frozen_and_read_in_no_other_form() {
    let text = diamond();
    let pipeline = Pipeline::from_json(text.as_bytes()).unwrap();
    assert_eq!(pipeline.to_json().unwrap(), text.as_bytes());
    assert_eq!(
        hex::encode(crate::ArtifactDigest::of(text.as_bytes()).as_bytes()),
        "fb4e0a5be9bb8d09931a976ec305db881539d14668ddc0326fc10a3181457ae9"
    );
    assert_eq!(
        jcs::canonicalize(&json::parse("test", text.as_bytes(), 1 << 16).unwrap()).unwrap(),
        text.as_bytes()
    );
    let names: Vec<&str> = pipeline.steps().iter().map(Step::name).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    assert_eq!(pipeline.steps()[3].after(), [2, 1], "in the order in which they are named");
    assert_eq!(pipeline.steps()[1].agent().as_str(), "a.b");
    let uses: Vec<_> = (0..5).map(|index| pipeline.last_use(index)).collect();
    assert_eq!(uses, [Some(2), Some(3), Some(3), None, None]);
    for other in [
        text.replacen(r#""retries":0,"#, "", 1),
        text.replacen(":[", ": [", 1),
        format!("{text}\n"),
        text.replacen(r#""idempotent":false,"module""#, r#""module""#, 1),
    ] {
        assert!(refused(&other).contains("canonical"), "{other}");
    }
}

#[test]
fn people_may_leave_out_what_has_a_default() {
    let text = document(&[format!(r#"{{"name":"a","agent":"a.a","module":"{}"}}"#, "ab".repeat(32))]);
    let typed = Pipeline::from_value(&json::parse("test", text.as_bytes(), 1 << 16).unwrap()).unwrap();
    let written = typed.to_json().unwrap();
    assert_eq!(Pipeline::from_json(&written).unwrap(), typed);
    assert_eq!((typed.steps()[0].timeout_ms(), typed.steps()[0].repetition().attempts()), (5_000, 1));
    let again = text.replace(r#""name""#, r#""idempotent":true,"retries":3,"name""#);
    let typed = Pipeline::from_value(&json::parse("test", again.as_bytes(), 1 << 16).unwrap()).unwrap();
    assert_eq!(typed.steps()[0].repetition(), Repetition::Idempotent { retries: 3 });
    assert_eq!(Pipeline::from_json(&typed.to_json().unwrap()).unwrap(), typed);
}

#[test]
fn a_cycle_cannot_be_written_and_everything_leads_to_the_last_step() {
    for (steps, detail) in [
        (vec![step("a", r#""a""#, "")], "does not stand before it"),
        (vec![step("a", r#""b""#, ""), step("b", r#""a""#, "")], "does not stand before it"),
        (vec![step("a", "", ""), step("b", r#""x""#, "")], "does not stand before it"),
        (vec![step("a", "", ""), step("b", r#""a","a""#, "")], "twice"),
        (vec![step("a", "", ""), step("a", r#""a""#, "")], "another step has this name"),
        (vec![step("a", "", ""), step("b", "", "")], "nothing is after the step `a`"),
        (
            vec![step("a", "", ""), step("b", r#""a""#, ""), step("c", r#""a""#, "")],
            "nothing is after the step `b`",
        ),
        (vec![], "no step"),
    ] {
        let said = refused(&document(&steps));
        assert!(said.contains(detail), "{detail}: {said}");
    }
}

#[test]
fn values_outside_their_grammar_are_refused() {
    let digest = "ab".repeat(32);
    let upper = "AB".repeat(32);
    let long = "x".repeat(65);
    for (from, to, detail) in [
        (r#""name":"d""#, r#""name":"D""#, "name"),
        (r#""name":"d""#, r#""name":"""#, "name"),
        (r#""name":"d""#, r#""name":"-d""#, "name"),
        (r#""name":"d""#, &format!(r#""name":"{long}""#), "name"),
        (r#""agent":"a.d""#, r#""agent":"A""#, "agent id"),
        (digest.as_str(), &digest[2..], "64 hexadecimal"),
        (digest.as_str(), upper.as_str(), "lower case"),
        (r#""timeout_ms":1000"#, r#""timeout_ms":0"#, "timeout_ms"),
        (r#""timeout_ms":1000"#, r#""timeout_ms":600001"#, "timeout_ms"),
        (r#""retries":0"#, r#""retries":1"#, "idempotent"),
        (r#""idempotent":false,"#, r#""env":"A","idempotent":false,"#, "unknown field"),
    ] {
        let text = diamond().replacen(from, to, 1);
        assert_ne!(text, diamond(), "{from}");
        let said = refused(&text);
        assert!(said.contains(detail), "{to}: {said}");
    }
    let many = diamond().replacen(r#""idempotent":false"#, r#""idempotent":true"#, 1);
    assert!(refused(&many.replacen(r#""retries":0"#, r#""retries":4"#, 1)).contains("at most 3"));
    assert!(Pipeline::from_json(many.as_bytes()).is_ok());
    let other = diamond().replace("pipeline-v1", "pipeline-v2");
    assert!(matches!(Pipeline::from_json(other.as_bytes()), Err(Error::Unsupported { .. })));
}

#[test]
fn thirty_two_steps_fit_and_one_more_is_refused_before_it_is_looked_at() {
    let chain = |count: usize| {
        let named = |n: usize| format!("{}{n}", "n".repeat(60));
        let steps: Vec<String> = (0..count)
            .map(|n| {
                step(
                    &named(n),
                    &(0..n).map(|m| format!("\"{}\"", named(m))).collect::<Vec<_>>().join(","),
                    "",
                )
            })
            .collect();
        document(&steps)
    };
    let whole = chain(32);
    assert!(whole.len() < MAX_PIPELINE_BYTES, "{}", whole.len());
    assert_eq!(Pipeline::from_json(whole.as_bytes()).unwrap().steps().len(), 32);
    let wide = |count: usize| {
        let mut steps: Vec<String> = (0..count - 1).map(|n| step(&n.to_string(), "", "")).collect();
        let all: Vec<String> = (0..count - 1).map(|n| format!("\"{n}\"")).collect();
        steps.push(step("last", &all.join(","), ""));
        document(&steps)
    };
    assert!(Pipeline::from_json(wide(32).as_bytes()).is_ok());
    assert_eq!(
        Pipeline::from_json(wide(33).as_bytes()),
        Err(Error::TooLarge { what: "list of steps", limit: MAX_STEPS })
    );
    let long = alloc::vec![b' '; MAX_PIPELINE_BYTES + 1];
    assert_eq!(
        Pipeline::from_json(&long),
        Err(Error::TooLarge { what: "pipeline", limit: MAX_PIPELINE_BYTES })
    );
}

#[test]
fn one_output_is_passed_on_as_it_is_and_several_behind_their_lengths() {
    assert_eq!(join(&[b"abc"]), b"abc");
    assert_eq!(
        hex::encode(join(&[b"abc", b"", b"d"])),
        "03000000000000006162630000000000000000010000000000000064"
    );
    for parts in [&[&b"abc"[..]][..], &[b"abc", b""], &[b"abc", b"", b"d"]] {
        let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        assert_eq!(joined_length(&lengths), Some(join(parts).len()));
    }
    assert_eq!(joined_length(&[usize::MAX, 1]), None);
}
