//! `audit-capabilities`: compares what a module imports with what its manifest asks for, and that with what a policy grants.
//! Offline, without an engine.

mod previous;
mod report;
mod rulings;
mod standing;
mod steps;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use trust_store::capability::{Capability, FileAccess, Protocol};
use trust_store::manifest::Manifest;
use trust_store::policy::{CapabilityPolicy, TrustPolicy};
use wasmparser::{Parser, Payload};

use self::previous::Previous;
use self::report::Report;
use self::rulings::{Ruling, Rulings};
use self::standing::Signer;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::output::Output;
use crate::release::{Release, Use};
use crate::verify::load_policy;

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
    /// The release before: what this one asks for beyond it is a finding, and every difference is told
    #[arg(long, value_name = "DIR|MANIFEST")]
    previous: Option<PathBuf>,
}

/// Runs `audit-capabilities`: exit code 0 when clean, 1 with findings, 2 when something cannot be read.
///
/// # Errors
/// Exit code 2 when the policy or the release before cannot be read; every release is reported by itself.
pub fn run(audit: &Audit, out: &Output) -> Outcome {
    let policy = audit.policy.as_deref().map(load_policy).transpose()?;
    let signer = audit.signer.as_deref().map(|subject| (subject, audit.signer_issuer.as_deref()));
    let rulings = policy.as_ref().and_then(|policy| Rulings::of(policy, signer));
    if rulings.is_none() && policy.as_ref().is_some_and(|policy| policy.capability_rules.is_some()) {
        out.note("the policy has `capability_rules`, which ask who signs: name that with --signer");
    }
    if audit.previous.is_some() && audit.releases.len() > 1 {
        return Err(Failure::usage("`--previous` is one release's, and there are several")
            .hint("audit one release at a time"));
    }
    let previous = audit.previous.as_deref().map(Previous::open).transpose()?;
    let against = Against { policy: policy.as_ref(), signer, rulings, previous };
    let mut worst = Exit::Ok;
    for path in &audit.releases {
        match audit_one(path, &against, out) {
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

/// What releases are held against, besides themselves.
struct Against<'a> {
    policy: Option<&'a TrustPolicy>,
    signer: Option<Signer<'a>>,
    rulings: Option<Rulings<'a>>,
    previous: Option<Previous>,
}

/// Module and name of every import of a core module, interface and version of every one of a component.
type Imports = BTreeSet<(String, String)>;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    code: &'static str,
    text: String,
}

fn audit_one(path: &Path, against: &Against<'_>, out: &Output) -> Outcome<usize> {
    let release = Release::open(path, Use::Sign)?;
    release.assemble_missing_module()?;
    let report = examine(&release, against)?;
    report.tell(out);
    Ok(report.findings.len())
}

fn examine<'a>(release: &'a Release, against: &Against<'_>) -> Outcome<Report<'a>> {
    let manifest = release.manifest();
    let steps = release.pipeline()?.as_ref().map(steps::of);
    let (imports, mut findings) = match &steps {
        // What a step may do stands in the step's own manifest: here is nothing to compare.
        Some(_) => (Imports::new(), Vec::new()),
        None => {
            let imports = imports(&release.module()?)?;
            let findings = findings(manifest, &imports);
            (imports, findings)
        }
    };
    let mut standings = Vec::new();
    if let Some(policy) = against.policy {
        findings.extend(not_granted(manifest, &policy.capabilities));
        standings = standing::standings(policy, against.signer, manifest);
        findings.extend(standing::findings(policy, against.signer, manifest, &standings));
    }
    let rulings = against.rulings.as_ref().map(|rulings| rulings.about(manifest)).unwrap_or_default();
    findings.extend(rulings.iter().filter_map(Ruling::finding));
    let now = steps.as_deref().unwrap_or_default();
    let change =
        against.previous.as_ref().map(|previous| previous.changed_by(manifest, &imports, now)).transpose()?;
    findings.extend(change.iter().flat_map(|change| change.findings.iter().cloned()));
    let notes = empty_contexts(manifest, &imports);
    Ok(Report { release, imports, steps, findings, notes, rulings, standings, change })
}

fn imports(bytes: &[u8]) -> Outcome<Imports> {
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

/// Imports as they are told.
fn names_of(imports: &Imports) -> Vec<String> {
    imports.iter().map(|(module, name)| format!("{module}.{name}")).collect()
}

/// Interfaces of WASI that are linked and lead to nothing, since the manifest asks for nothing that they could show. Libraries of
/// languages import them whether a program uses them or not, so that this counts as no finding: whoever does use them gets errors.
fn empty_contexts(manifest: &Manifest, imports: &Imports) -> Vec<Finding> {
    const PREVIEW1: &str = "wasi_snapshot_preview1";
    let requested = manifest.requested_capabilities();
    let of = |is_it: fn(&str, &str) -> bool| -> BTreeSet<String> {
        let those = imports.iter().filter(|(module, name)| is_it(module, name));
        let told = |(module, name): &(String, String)| {
            if module == PREVIEW1 { format!("{module}.{name}") } else { module.clone() }
        };
        those.map(told).collect()
    };
    let files = of(|module, name| {
        module.starts_with("wasi:filesystem/")
            || (module == PREVIEW1 && (name.starts_with("path_") || name.starts_with("fd_prestat_")))
    });
    let variables = of(|module, name| {
        module == "wasi:cli/environment" || (module == PREVIEW1 && name.starts_with("environ_"))
    });
    let asks = |is_it: fn(&Capability) -> bool| requested.iter().any(is_it);
    let mut notes = Vec::new();
    for (names, asks, lacks) in [
        (
            files,
            asks(|capability| matches!(capability, Capability::Filesystem { .. })),
            "asks for no filesystem capability: it finds no directory",
        ),
        (
            variables,
            asks(|capability| matches!(capability, Capability::Env(_))),
            "asks for no env capability: it finds no variable",
        ),
    ] {
        if !names.is_empty() && !asks {
            let names: Vec<_> = names.into_iter().collect();
            let text = format!("imports {} and {lacks}", names.join(", "));
            notes.push(Finding { code: "empty_context", text });
        }
    }
    notes
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

fn findings(manifest: &Manifest, imports: &Imports) -> Vec<Finding> {
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
    let uses_sockets = interface("wasi:sockets/tcp");
    let uses_network = interface("wasi:http/outgoing") || uses_sockets;
    let is_bare = |c: &Capability| matches!(c, Capability::Network { protocol: Protocol::Tcp, .. });
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
    } else if uses_sockets && !requested.iter().any(is_bare) {
        add("undeclared", "imports wasi:sockets but asks for no network:tcp".to_owned());
    }
    for capability in &requested {
        let reachable = match capability {
            Capability::Compute(_) | Capability::Extension { .. } => true,
            Capability::Network { protocol: Protocol::Tcp, .. } => uses_sockets,
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
        if is_bare(capability) {
            add("bare", format!("{capability} is what the module makes of it: nobody sees what is sent"));
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
        let sockets = r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)))"#;
        assert_eq!(codes(&manifest(r#""network:tcp:db.example.com:5432""#, LIMIT), sockets), ["bare"]);
        assert_eq!(codes(&manifest(r#""network:tcp:db.example.com:5432""#, LIMIT), ASKS), ["unused", "bare"]);
        assert_eq!(codes(&manifest(r#""network:https:db.example.com""#, LIMIT), sockets), ["undeclared"]);
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
    fn interfaces_that_lead_to_nothing_are_noted_and_no_finding() {
        let noted = |capabilities: &str, wat: &str| -> Vec<String> {
            let (manifest, imports) =
                (manifest(capabilities, LIMIT), imports(&wat::parse_str(wat).unwrap()).unwrap());
            assert!(findings(&manifest, &imports).is_empty());
            let notes = empty_contexts(&manifest, &imports);
            assert!(notes.iter().all(|note| note.code == "empty_context"));
            notes.into_iter().map(|note| note.text).collect()
        };
        let component = r#"(component (import "wasi:filesystem/types@0.2.0" (instance))
            (import "wasi:filesystem/preopens@0.2.0" (instance)) (import "wasi:cli/environment@0.2.0" (instance))
            (import "wasi:cli/stdout@0.2.0" (instance)))"#;
        assert_eq!(
            noted("", component),
            [
                "imports wasi:filesystem/preopens, wasi:filesystem/types and asks for no filesystem capability: it finds no directory",
                "imports wasi:cli/environment and asks for no env capability: it finds no variable",
            ]
        );
        assert_eq!(noted(r#""env:KEY""#, component).len(), 1);
        let core = r#"(module (import "wasi_snapshot_preview1" "environ_get" (func (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#;
        let [text] = &noted("", core)[..] else { panic!("one note") };
        assert!(text.starts_with("imports wasi_snapshot_preview1.environ_get and"), "{text}");
        assert!(noted(r#""env:KEY""#, core).is_empty() && noted("", READS).is_empty());
    }

    #[test]
    fn imports_of_nested_modules_are_not_the_components_own() {
        let component = r#"(component (core module (import "mentat" "log" (func (param i32 i32 i32)))))"#;
        assert!(imports(&wat::parse_str(component).unwrap()).unwrap().is_empty());
        assert!(imports(b"not wasm").is_err());
    }
}
