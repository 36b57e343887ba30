use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::admission::{GrantSet, GrantSources};
use crate::executor::Terms;
use crate::gauges::{Gauges, MAX_INSTANCES};
use crate::runtime::{CallError, CallLimits, Usage};
use crate::testing::{Server, admitted, wat_echo, wat_spin};

/// What dashboards of the first products read: name, kind, labels. None is renamed, and none loses a label.
const REFERENCE: &[(&str, &str, &[&str])] = &[
    ("mentatlab_attestation_verify_seconds", "histogram", &["result", "signer_org"]),
    ("mentatlab_capability_requests", "counter", &["agent_id", "capability_type", "result"]),
    ("mentatlab_wasm_execution_seconds", "histogram", &["agent_id", "operation"]),
    ("mentatlab_wasm_instantiation_seconds", "histogram", &["agent_id", "engine", "module_size_bucket"]),
    ("mentatlab_wasm_memory_bytes", "gauge", &["agent_id"]),
    ("wasm_compile_duration_seconds", "histogram", &[]),
    ("wasm_execution_duration_seconds", "histogram", &[]),
    ("wasm_fuel_consumed", "counter", &[]),
    ("wasm_instances", "counter", &["status"]),
    ("wasm_memory_usage_bytes", "gauge", &[]),
];

/// The labels of each series of a scrape, by the name of its metric; of a histogram without its bounds.
fn labels(text: &str) -> BTreeMap<&str, BTreeSet<Vec<&str>>> {
    let mut all: BTreeMap<&str, BTreeSet<Vec<&str>>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let named = labels.trim_end_matches('}').split("\",").filter_map(|label| label.split_once("=\""));
        all.entry(name)
            .or_default()
            .insert(named.map(|(name, _)| name).filter(|name| *name != "le").collect());
    }
    all
}

/// The kind of each metric of a scrape.
fn kinds(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    lines.collect()
}

/// A server where everything has been counted once.
async fn used() -> Server {
    let server = Server::start().await;
    let granted = vec!["env:TOKEN".parse().unwrap()];
    let env = [("TOKEN".to_owned(), "s3cret".to_owned())].into();
    let grants =
        GrantSources { env, ..GrantSources::default() }.grant(&granted, granted.clone(), &[]).unwrap();
    let text = r#"(module (import "mentat" "request_capability" (func $request (param i32 i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 0) "env:TOKEN")
        (func (export "process") (result i32) (drop (call $request (i32.const 0) (i32.const 9))) (i32.const 0)))"#;
    let module = admitted(text, grants, CallLimits::default()).called("metrics.agent", "a@example.org");
    server.executor.admit_for_test(module).await;
    // One call in sixteen is measured more closely.
    for _ in 0..16 {
        server.executor.execute("metrics.agent", bytes::Bytes::new(), Terms::default()).await.unwrap();
    }
    server.executor.metrics().verified(Duration::from_micros(700), true, SignerOrg::Nameless);
    server
}

#[tokio::test]
async fn the_names_of_the_first_products_are_there_with_their_labels() {
    let text = used().await.exposition();
    let (labels, kinds) = (labels(&text), kinds(&text));
    for (name, kind, expected) in REFERENCE {
        assert_eq!(kinds.get(name), Some(kind), "{name}");
        let series = match *kind {
            "counter" => format!("{name}_total"),
            "histogram" => format!("{name}_bucket"),
            _ => (*name).to_owned(),
        };
        let told = labels.get(series.as_str()).unwrap_or_else(|| panic!("no series {series}:\n{text}"));
        assert_eq!(*told, BTreeSet::from([expected.to_vec()]), "{name}");
    }
    // Beginning at a microsecond.
    assert!(
        text.contains("wasm_execution_duration_seconds_bucket{le=\"1e-6\"}")
            || text.contains("{le=\"0.000001\"}"),
        "{text}"
    );
}

/// An agent that nobody has called.
async fn uncalled(server: &Server, id: &str) -> Arc<LoadedAgent> {
    let module = admitted(wat_echo(), GrantSet::default(), CallLimits::default());
    server.executor.admit_for_test(module.called(id, "a@example.org")).await;
    server.executor.agent(id).unwrap()
}

/// A call that took a microsecond and a page of memory, and was measured closely.
fn measured() -> Ended {
    let usage = Usage { wall_us: 1, memory_bytes: 65_536, ..Usage::default() };
    let failed = Err(CallError::Host { detail: String::new() });
    Ended { instantiation: Some(Duration::from_micros(1)), ..Ended::plain(failed, usage) }
}

fn scrape(metrics: &Metrics) -> String {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    encoded(&registry)
}

fn encoded(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

#[tokio::test]
async fn calls_are_counted_by_agent_and_past_the_bound_as_those_of_others() {
    let server = Server::start().await;
    let (first, again) = (uncalled(&server, "metrics.a").await, uncalled(&server, "metrics.a").await);
    assert!(!Arc::ptr_eq(&first, &again), "loaded twice");
    let (late, later) = (uncalled(&server, "metrics.b").await, uncalled(&server, "metrics.c").await);
    let metrics = Metrics::default();
    for agent in [&first, &first, &again] {
        metrics.ended(agent, "success", &measured());
    }
    for n in 1..MAX_AGENT_LABELS {
        assert_eq!(metrics.agent_label(&format!("other{n}")), format!("other{n}"));
    }
    for agent in [&late, &later, &late, &first] {
        metrics.ended(agent, "trap", &measured());
    }
    let text = scrape(&metrics);
    for series in [
        "wasm_instances_total{status=\"success\"} 3",
        "wasm_instances_total{status=\"trap\"} 4",
        "mentatlab_wasm_execution_seconds_count{agent_id=\"metrics.a\",operation=\"process\"} 4",
        "mentatlab_wasm_execution_seconds_count{agent_id=\"other\",operation=\"process\"} 3",
        "mentatlab_wasm_memory_bytes{agent_id=\"metrics.a\"} 65536",
        "mentatlab_wasm_memory_bytes{agent_id=\"other\"} 65536",
    ] {
        assert!(text.lines().any(|line| line == series), "{series} is not in {text}");
    }
    let instantiated = |agent: &str| {
        let series = format!("mentatlab_wasm_instantiation_seconds_count{{agent_id=\"{agent}\",");
        text.lines()
            .filter(|line| line.starts_with(&series))
            .map(|line| line.rsplit_once(' ').unwrap().1)
            .collect::<Vec<_>>()
    };
    assert_eq!((instantiated("metrics.a"), instantiated("other")), (vec!["4"], vec!["3"]));
    assert!(!text.contains("metrics.b") && !text.contains("metrics.c"), "{text}");
}

#[tokio::test]
async fn memory_by_agent_is_not_kept_where_no_scrape_shows_it() {
    let server = Server::start().await;
    let agent = uncalled(&server, "metrics.quiet").await;
    let settings = MetricsSettings { instances: true, ..MetricsSettings::default() };
    let metrics = Metrics::new(settings);
    metrics.ended(&agent, "internal", &measured());
    let mut registry = Registry::default();
    registry.register("execution", "Kept", metrics.0.execution.clone());
    registry.register("memory", "Not kept", metrics.0.memory.clone());
    let text = encoded(&registry);
    assert!(
        text.contains("execution_count{agent_id=\"metrics.quiet\"") && !text.contains("memory{"),
        "{text}"
    );
}

/// A scrape where the operator asked for instances.
fn told_apart(server: &Server) -> String {
    let mut registry = Registry::default();
    let settings = MetricsSettings { instances: true, ..MetricsSettings::default() };
    Metrics::new(settings).register(&mut registry);
    let executor = Arc::clone(&server.executor);
    registry.register_collector(Box::new(Gauges { executor, instances: true }));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_has_a_series_while_it_lives_where_the_operator_asks_for_it() {
    let server = Server::start().await;
    let long =
        CallLimits { wall: Duration::from_secs(60), cpu: Duration::from_secs(60), ..CallLimits::default() };
    let module = admitted(wat_spin(), GrantSet::default(), long).called("metrics.spin", "a@example.org");
    server.executor.admit_for_test(module).await;
    let running = {
        let executor = Arc::clone(&server.executor);
        tokio::spawn(
            async move { executor.execute("metrics.spin", bytes::Bytes::new(), Terms::default()).await },
        )
    };
    let series = |text: &str| -> Vec<String> {
        let own = |line: &&str| {
            line.starts_with("mentatlab_wasm_memory_bytes{agent_id=\"metrics.spin\",instance_id=\"i-")
        };
        text.lines().filter(own).map(str::to_owned).collect()
    };
    let told = loop {
        let text = told_apart(&server);
        if let [told] = &series(&text)[..] {
            assert_eq!(text.matches("# TYPE mentatlab_wasm_memory_bytes ").count(), 1);
            assert!(
                labels(&text)["mentatlab_wasm_memory_bytes"]
                    .iter()
                    .all(|all| *all == ["agent_id", "instance_id"])
            );
            break told.clone();
        }
        assert!(!running.is_finished());
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert!(told.ends_with("\"} 65536"), "{told}");
    assert!(series(&server.exposition()).is_empty(), "not where nobody asked for it");
    server.executor.unload("metrics.spin").await.unwrap();
    assert_eq!(running.await.unwrap().unwrap_err().code, "stopped");
    assert!(series(&told_apart(&server)).is_empty(), "it is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_instances_than_have_series_are_told_in_one_sum() {
    let server = Server::start().await;
    let calls = server.executor.runtime().live().admission(
        Arc::new(crate::runtime::Owner {
            admission: crate::runtime::AdmissionId::next(),
            agent: "metrics.many".into(),
            digest: executor_engine::ModuleDigest::of(b"many"),
            signer: "a@example.org".into(),
        }),
        Arc::default(),
        CallLimits::default(),
    );
    // Larger than any of other tests, so that these are the ones that are told.
    let held: Vec<_> = (0..MAX_INSTANCES + 10).map(|_| calls.register(None)).collect();
    held.iter().for_each(|one| one.holds(1 << 40));
    let text = told_apart(&server);
    let count = text.lines().filter(|line| line.starts_with("mentatlab_wasm_memory_bytes{")).count();
    assert_eq!(count, MAX_INSTANCES + 1);
    let rest = "mentatlab_wasm_memory_bytes{agent_id=\"other\",instance_id=\"other\"} ";
    let rest: u64 = text.lines().find_map(|line| line.strip_prefix(rest)).unwrap().parse().unwrap();
    assert!((10 << 40..11 << 40).contains(&rest), "{rest}");
}

#[test]
fn no_organisation_is_a_label_that_the_operator_did_not_list() {
    let settings = MetricsSettings { signer_orgs: vec!["MentatLab".into()], ..MetricsSettings::default() };
    let metrics = Metrics::new(settings);
    let took = Duration::from_micros(1);
    metrics.verified(took, true, SignerOrg::Named("MentatLab"));
    metrics.verified(took, false, SignerOrg::Named("MentatLab"));
    for n in 0..1_000 {
        metrics.verified(took, true, SignerOrg::Named(&format!("o{n}")));
    }
    metrics.verified(took, true, SignerOrg::Nameless);
    metrics.verified(took, false, SignerOrg::Unverified);
    let text = scrape(&metrics);
    let counts: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("mentatlab_attestation_verify_seconds_count"))
        .collect();
    let expected = [
        "{result=\"valid\",signer_org=\"MentatLab\"} 1",
        "{result=\"invalid\",signer_org=\"MentatLab\"} 1",
        "{result=\"valid\",signer_org=\"other\"} 1000",
        "{result=\"valid\",signer_org=\"none\"} 1",
        "{result=\"invalid\",signer_org=\"unverified\"} 1",
    ];
    assert_eq!(counts, BTreeSet::from(expected));
}

/// Words of a query that are names of metrics or labels, and not of the language.
fn words(query: &str) -> impl Iterator<Item = &str> {
    const LANGUAGE: [&str; 8] = ["by", "clamp_min", "histogram_quantile", "le", "max", "rate", "sum", "m"];
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    query
        .split(word)
        .filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()) && !LANGUAGE.contains(word))
}

#[tokio::test]
async fn the_page_names_every_metric_and_its_queries_ask_for_what_is_there() {
    let page = include_str!("../../../docs/operations/metrics.md");
    let server = used().await;
    let neighbour = admitted(wat_echo(), GrantSet::default(), CallLimits::default());
    server.executor.admit_for_test(neighbour.called("metrics.echo", "a@example.org")).await;
    let text = server.exposition();
    let labels = labels(&text);
    for name in kinds(&text).keys() {
        assert!(
            page.contains(&format!("`{name}`"))
                || page.contains(&format!("`{name}_total`"))
                || page.contains(&format!("`{name}{{"))
                || page.contains(&format!("`{name}_total{{")),
            "{name} is not on the page"
        );
    }
    let queries: Vec<&str> =
        page.split("```promql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(queries.len(), 3, "instances, latency, memory");
    for query in queries {
        let known: BTreeSet<&str> = labels.values().flatten().flatten().copied().collect();
        let mut metrics = 0;
        for word in words(query) {
            metrics += usize::from(labels.contains_key(word));
            assert!(labels.contains_key(word) || known.contains(word), "{word} of {query}");
        }
        assert!(metrics > 0, "{query}");
    }
}
