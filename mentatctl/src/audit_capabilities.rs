//! `audit-capabilities`: compares what a module imports with what its manifest asks for, and that with what a policy grants.
//! Offline, without an engine.

mod rulings;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use trust_store::capability::{Capability, FileAccess, Protocol};
use trust_store::manifest::Manifest;
use trust_store::pipeline::{Pipeline, Step};
use trust_store::policy::CapabilityPolicy;
use wasmparser::{Parser, Payload};

use self::rulings::{Ruling, Rulings};
use crate::exit::{Exit, OrFail as _, Outcome};
use crate::output::{Output, Tone, shown};
use crate::release::{Release, Use};
use crate::verify::{load_policy, named};

/// `audit-capabilities`.
#[derive(Debug, Args)]
pub struct Audit {
    /// Folders with a manifest.yaml, or manifests
    #[arg(required = true, value_name = "DIR|MANIFEST")]
    releases: Vec<PathBuf>,
    /// A trust policy: what it does not grant is a finding, as it will be a denial
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Who will sign: what the policy's `capability_rules` would then say of each request
    #[arg(long, value_name = "SUBJECT", requires = "policy")]
    signer: Option<String>,
    /// Who vouches for the signer's name
    #[arg(long, value_name = "URL", requires = "signer")]
    signer_issuer: Option<String>,
}

/// Runs `audit-capabilities`: exit code 0 when clean, 1 with findings, 2 when something cannot be read.
///
/// # Errors
/// Exit code 2 when the policy cannot be read; every release is reported by itself.
pub fn run(audit: &Audit, out: &Output) -> Outcome {
    let policy = audit.policy.as_deref().map(load_policy).transpose()?;
    let signer = audit.signer.as_deref().map(|subject| (subject, audit.signer_issuer.as_deref()));
    let rulings = policy.as_ref().and_then(|policy| Rulings::of(policy, signer));
    if rulings.is_none() && policy.as_ref().is_some_and(|policy| policy.capability_rules.is_some()) {
        out.note("the policy has `capability_rules`, which ask who signs: name that with --signer");
    }
    let granted = policy.as_ref().map(|policy| &policy.capabilities);
    let mut worst = Exit::Ok;
    for path in &audit.releases {
        match audit_one(path, granted, rulings.as_ref(), out) {
            Ok(0) => {}
            Ok(_) if worst == Exit::Ok => worst = Exit::Failure,
            Ok(_) => {}
            Err(failure) => {
                out.failure(&failure.about(path));
                worst = Exit::Usage;
            }
        }
    }
    Ok(worst)
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    code: &'static str,
    text: String,
}

fn audit_one(
    path: &Path,
    granted: Option<&CapabilityPolicy>,
    rulings: Option<&Rulings<'_>>,
    out: &Output,
) -> Outcome<usize> {
    let release = Release::open(path, Use::Sign)?;
    release.assemble_missing_module()?;
    if let Some(pipeline) = release.pipeline()? {
        return Ok(list_steps(&release, &pipeline, out));
    }
    let imports = imports(&release.module()?)?;
    let mut findings = findings(release.manifest(), &imports);
    findings.extend(granted.map(|granted| not_granted(release.manifest(), granted)).unwrap_or_default());
    let rulings = rulings.map(|rulings| rulings.about(release.manifest())).unwrap_or_default();
    findings.extend(rulings.iter().filter_map(Ruling::finding));
    let requested: Vec<String> =
        release.manifest().requested_capabilities().iter().map(ToString::to_string).collect();
    out.line(
        out.paint(Tone::Strong, format!("{} {}", release.manifest().id(), release.manifest().version())),
    );
    out.line(format!(
        "  asks for  {}",
        if requested.is_empty() { "nothing".to_owned() } else { requested.join(", ") }
    ));
    let names: Vec<String> = imports.iter().map(|(module, name)| format!("{module}.{name}")).collect();
    out.line(format!(
        "  imports   {}",
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    ));
    for (capability, rules) in rulings.iter().filter_map(Ruling::permitted) {
        out.line(format!("  {capability} is permitted by {}", named(rules)));
    }
    for finding in &findings {
        out.line(format!("  {} {} [{}]", out.paint(Tone::Bad, "finding"), finding.text, finding.code));
    }
    if findings.is_empty() {
        out.line(format!("  {}", out.paint(Tone::Good, "nothing to remark")));
    }
    out.value(|| json!({
        "manifest": shown(release.path()), "agent": release.manifest().id().as_str(),
        "version": release.manifest().version().as_str(), "requested": requested, "imports": names,
        "findings": findings.iter().map(|f| json!({ "code": f.code, "text": f.text })).collect::<Vec<_>>(),
        "permitted": rulings.iter().filter_map(Ruling::permitted).map(|(capability, rules)| {
            json!({ "capability": capability.to_string(), "rules": rules })
        }).collect::<Vec<_>>(),
    }));
    Ok(findings.len())
}

/// What a pipeline is made of. It asks for nothing itself: what a step may do stands in the step's own manifest, so that there is
/// nothing to compare and nothing to find.
fn list_steps(release: &Release, pipeline: &Pipeline, out: &Output) -> usize {
    let (id, version) = (release.manifest().id(), release.manifest().version());
    let after = |step: &Step| -> Vec<&str> {
        step.after().iter().filter_map(|index| pipeline.steps().get(*index)).map(Step::name).collect()
    };
    out.line(out.paint(Tone::Strong, format!("{id} {version}")));
    out.line("  asks for  nothing: each step has the capabilities of its own manifest");
    for step in pipeline.steps() {
        let before = match after(step).as_slice() {
            [] => "the input".to_owned(),
            names => names.join(", "),
        };
        let (name, agent, attempts) = (step.name(), step.agent(), step.repetition().attempts());
        out.line(format!(
            "  step      {name}: {agent} {} on {before}, {} ms, at most {attempts} times",
            hex::encode(step.module()),
            step.timeout_ms(),
        ));
    }
    out.value(|| {
        let steps = pipeline.steps().iter().map(|step| {
            json!({ "name": step.name(), "agent": step.agent().as_str(), "module": hex::encode(step.module()),
                "after": after(step), "timeout_ms": step.timeout_ms(), "attempts": step.repetition().attempts() })
        });
        json!({
            "manifest": shown(release.path()), "agent": id.as_str(), "version": version.as_str(), "requested": [],
            "imports": [], "findings": [], "steps": steps.collect::<Vec<_>>(),
        })
    });
    0
}

/// Module and name of every import of a core module, interface and nothing of a component.
fn imports(bytes: &[u8]) -> Outcome<BTreeSet<(String, String)>> {
    let mut found = BTreeSet::new();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.or_fail(Exit::Usage, "the module")? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ImportSection(section) if depth == 0 => {
                for import in section.into_imports() {
                    let import = import.or_fail(Exit::Usage, "the module's imports")?;
                    found.insert((import.module.to_owned(), import.name.to_owned()));
                }
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.or_fail(Exit::Usage, "the component's imports")?;
                    let name = import.name.name;
                    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
                    found.insert((interface.to_owned(), version.to_owned()));
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// What verification with this policy would deny at step 14: every request that no grant covers.
fn not_granted(manifest: &Manifest, granted: &CapabilityPolicy) -> Vec<Finding> {
    let CapabilityPolicy::Within(granted) = granted else { return Vec::new() };
    let requested = manifest.requested_capabilities().into_iter();
    let beyond = requested.filter(|capability| !capability.is_covered_by(granted));
    let text = |capability| format!("asks for {capability}, which the policy does not grant");
    beyond.map(|capability| Finding { code: "not_granted", text: text(capability) }).collect()
}

/// Interfaces that executors know, as a core module and as a component names them.
fn is_known(module: &str) -> bool {
    matches!(module, "mentat" | "wasi_snapshot_preview1")
        || module.starts_with("mentat:agent/")
        || module.starts_with("wasi:")
}

fn findings(manifest: &Manifest, imports: &BTreeSet<(String, String)>) -> Vec<Finding> {
    let requested = manifest.requested_capabilities();
    let mut found = Vec::new();
    let mut add = |code, text: String| found.push(Finding { code, text });
    let core = |name: &str| imports.contains(&("mentat".to_owned(), name.to_owned()));
    let interface = |prefix: &str| imports.iter().any(|(module, _)| module.starts_with(prefix));

    let foreign: BTreeSet<&str> =
        imports.iter().map(|(module, _)| module.as_str()).filter(|module| !is_known(module)).collect();
    for module in foreign {
        add("unknown_import", format!("imports from `{module}`, which no executor offers"));
    }
    let of = |name: &str| imports.iter().any(|(module, _)| module == name);
    if of("mentat") && of("wasi_snapshot_preview1") {
        add(
            "two_interfaces",
            "imports `mentat` and `wasi_snapshot_preview1`, and no executor links one module to both"
                .to_owned(),
        );
    }
    let uses_handles = core("request_capability") || interface("mentat:agent/capability");
    let uses_media = core("download_media") || core("upload_media") || interface("mentat:agent/media");
    let uses_streams = core("start_stream") || interface("mentat:agent/stream");
    let uses_network = interface("wasi:http/outgoing") || interface("wasi:sockets/tcp");
    let uses_files = interface("wasi:filesystem/preopens") || interface("wasi_snapshot_preview1");
    let uses_env = interface("wasi:cli/environment") || interface("wasi_snapshot_preview1");

    for (extension, used) in [("media", uses_media), ("stream", uses_streams)] {
        let declared =
            requested.iter().any(|c| matches!(c, Capability::Extension { name, .. } if name == extension));
        if used && !declared {
            add(
                "undeclared",
                format!("imports {extension} functions but does not ask for extension:{extension}"),
            );
        }
        if declared && !used {
            add("unused", format!("asks for extension:{extension} but imports none of its functions"));
        }
    }
    if uses_network && !requested.iter().any(|c| matches!(c, Capability::Network { .. })) {
        add("undeclared", "imports network interfaces but asks for no network capability".to_owned());
    }
    for capability in &requested {
        let reachable = match capability {
            Capability::Compute(_) | Capability::Extension { .. } => true,
            Capability::Network { .. } => uses_handles || uses_network,
            Capability::Filesystem { .. } => uses_handles || uses_files,
            Capability::Env(_) => uses_handles || uses_env,
        };
        if !reachable {
            add("unused", format!("asks for {capability} but imports nothing that could use it"));
        }
        match capability {
            Capability::Network { host, .. } if host.to_string().starts_with("*.") => {
                add("wide", format!("{capability} names every host below a domain"));
            }
            _ => {}
        }
        if let Capability::Network { protocol: Protocol::Http, .. } = capability {
            add(
                "clear_text",
                format!("{capability} may be clear text where policy permits it; ask for https"),
            );
        }
        if let Capability::Filesystem { access: FileAccess::Write, .. } = capability {
            add("write", format!("{capability} means reading and writing"));
        }
    }
    if uses_handles
        && requested.iter().all(|c| matches!(c, Capability::Compute(_) | Capability::Extension { .. }))
    {
        add("undeclared", "requests capabilities at run time but the manifest asks for none".to_owned());
    }
    if manifest.wasm().memory.maximum_mb.is_none() {
        add("no_limit", "wasm.memory.maximum is missing: the operator's limit decides alone".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(capabilities: &str, memory: &str) -> Manifest {
        let text = format!(
            r#"{{"id":"a.b","module":"m.wasm","runtime":"wasm","version":"1.0.0","wasm":{{"capabilities":[{capabilities}]{memory}}}}}"#
        );
        Manifest::from_json(text.as_bytes()).unwrap()
    }

    fn codes(manifest: &Manifest, wat: &str) -> Vec<&'static str> {
        let imports = imports(&wat::parse_str(wat).unwrap()).unwrap();
        findings(manifest, &imports).into_iter().map(|f| f.code).collect()
    }

    const LIMIT: &str = r#","memory":{"maximum":8}"#;
    const READS: &str = r#"(module (import "mentat" "input_len" (func (result i64))))"#;
    const ASKS: &str =
        r#"(module (import "mentat" "request_capability" (func (param i32 i32) (result i32))))"#;

    #[test]
    fn a_module_that_asks_for_what_it_uses_is_clean() {
        assert!(codes(&manifest("", LIMIT), READS).is_empty());
        assert!(codes(&manifest(r#""network:https:api.example.com""#, LIMIT), ASKS).is_empty());
    }

    #[test]
    fn unused_undeclared_and_wide_requests_are_found() {
        assert_eq!(codes(&manifest(r#""env:KEY""#, LIMIT), READS), ["unused"]);
        assert_eq!(codes(&manifest("", LIMIT), ASKS), ["undeclared"]);
        assert_eq!(codes(&manifest(r#""network:https:*.example.com""#, LIMIT), ASKS), ["wide"]);
        assert_eq!(codes(&manifest(r#""network:http:api.example.com""#, LIMIT), ASKS), ["clear_text"]);
        assert_eq!(codes(&manifest("", ""), READS), ["no_limit"]);
        let foreign = r#"(module (import "env" "abort" (func)) (import "env" "exit" (func)))"#;
        assert_eq!(codes(&manifest("", LIMIT), foreign), ["unknown_import"]);
        let component =
            r#"(component (import "wasi:cli/environment@0.2.0" (instance)) (import "acme:x/y" (instance)))"#;
        assert_eq!(codes(&manifest("", LIMIT), component), ["unknown_import"]);
    }

    #[test]
    fn a_module_over_two_interfaces_is_found() {
        let wasi = r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32))))"#;
        assert!(codes(&manifest("", LIMIT), wasi).is_empty());
        let both = r#"(module (import "mentat" "input_len" (func (result i64)))
            (import "wasi_snapshot_preview1" "sched_yield" (func (result i32))))"#;
        assert_eq!(codes(&manifest("", LIMIT), both), ["two_interfaces"]);
    }

    #[test]
    fn what_the_policy_does_not_grant_is_found() {
        let asks = manifest(r#""env:A","filesystem:read:/data/in","network:https:api.example.com""#, LIMIT);
        let grants = |texts: &[&str]| {
            CapabilityPolicy::Within(texts.iter().map(|text| text.parse().unwrap()).collect())
        };
        let beyond =
            |policy| not_granted(&asks, &policy).into_iter().map(|finding| finding.text).collect::<Vec<_>>();
        assert!(
            beyond(grants(&["env:A", "filesystem:write:/data", "network:https:*.example.com"])).is_empty()
        );
        assert!(beyond(CapabilityPolicy::LeftToTheExecutor).is_empty());
        let found = beyond(grants(&["filesystem:read:/data/in", "network:https:api.example.com:8443"]));
        assert_eq!(found.len(), 2);
        assert!(
            found[0].contains("env:A") && found[1].contains("network:https:api.example.com"),
            "{found:?}"
        );
    }

    #[test]
    fn imports_of_nested_modules_are_not_the_components_own() {
        let component = r#"(component (core module (import "mentat" "log" (func (param i32 i32 i32)))))"#;
        assert!(imports(&wat::parse_str(component).unwrap()).unwrap().is_empty());
        assert!(imports(b"not wasm").is_err());
    }
}
