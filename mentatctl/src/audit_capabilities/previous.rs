//! What a release asks for and imports that the one before did not, and the other way round.

use std::path::Path;

use trust_store::capability::Capability;
use trust_store::manifest::{Manifest, Runtime};

use super::steps::{self, Difference, Step};
use super::{Finding, Imports, imports, names_of};
use crate::exit::{Failure, Outcome};
use crate::release::{Release, Use};

/// The release before.
#[derive(Debug)]
pub(super) struct Previous {
    agent: String,
    version: String,
    requested: Vec<Capability>,
    /// Nothing where its module is not there any more.
    imports: Option<Imports>,
    /// None of them for what is no pipeline, nothing where a pipeline is not there any more.
    steps: Option<Vec<Step>>,
    memory_mb: Option<u32>,
}

/// What changed since then.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) version: String,
    pub(super) added: Vec<Capability>,
    pub(super) removed: Vec<Capability>,
    /// Those that came and those that went; nothing where the module of the release before is not there.
    pub(super) imports: Option<(Vec<String>, Vec<String>)>,
    /// Of a pipeline; nothing where that of then is not there.
    pub(super) steps: Option<Difference>,
    /// Of `wasm.memory.maximum`, before and now, where it is another one.
    pub(super) memory_mb: Option<(Option<u32>, Option<u32>)>,
    /// What counts: it asks for more than the release before.
    pub(super) findings: Vec<Finding>,
}

impl Previous {
    /// Reads a release; its module may be missing.
    ///
    /// # Errors
    /// Exit code 2 when it cannot be read.
    pub(super) fn open(path: &Path) -> Outcome<Self> {
        let release = Release::open(path, Use::Sign)?;
        let manifest = release.manifest();
        // What was released before is often there as its manifest alone.
        let is_there = || release.module_path().map(|path| path.exists());
        let (imports, steps) = match manifest.runtime() {
            Runtime::Pipeline if is_there()? => {
                (Some(Imports::new()), release.pipeline()?.as_ref().map(steps::of))
            }
            Runtime::Pipeline => (Some(Imports::new()), None),
            Runtime::Wasm if is_there()? => (Some(imports(&release.module()?)?), Some(Vec::new())),
            _ => (None, Some(Vec::new())),
        };
        Ok(Self {
            agent: manifest.id().as_str().to_owned(),
            version: manifest.version().as_str().to_owned(),
            requested: manifest.requested_capabilities(),
            imports,
            steps,
            memory_mb: manifest.wasm().memory.maximum_mb,
        })
    }

    /// What a release changes.
    ///
    /// # Errors
    /// Exit code 2 for a release of another agent.
    pub(super) fn changed_by(&self, manifest: &Manifest, imports: &Imports, now: &[Step]) -> Outcome<Change> {
        let agent = manifest.id().as_str();
        if agent != self.agent {
            return Err(Failure::usage(format!(
                "the release before is one of {}, not of {agent}",
                self.agent
            ))
            .hint("name the folder of an earlier release of the same agent"));
        }
        let requested = manifest.requested_capabilities();
        let without = |all: &[Capability], others: &[Capability]| -> Vec<Capability> {
            all.iter().filter(|capability| !others.contains(capability)).cloned().collect()
        };
        let (added, removed) = (without(&requested, &self.requested), without(&self.requested, &requested));
        let mut findings: Vec<Finding> = added
            .iter()
            // A narrower request in the place of a wider one is none that anybody has to look at.
            .filter(|capability| !capability.is_covered_by(&self.requested))
            .map(|capability| more(format!("asks for {capability}, which {} did not", self.version)))
            .collect();
        let memory_mb = manifest.wasm().memory.maximum_mb;
        let memory_mb = (memory_mb != self.memory_mb).then_some((self.memory_mb, memory_mb));
        match memory_mb {
            Some((Some(before), Some(now))) if now > before => {
                findings.push(more(format!("wasm.memory.maximum is {now} MiB, and was {before}")));
            }
            Some((Some(before), None)) => {
                findings.push(more(format!("wasm.memory.maximum is missing, and was {before} MiB")));
            }
            _ => {}
        }
        let imports = self.imports.as_ref().map(|before| {
            let names = |one: &Imports, other: &Imports| names_of(&(one - other));
            (names(imports, before), names(before, imports))
        });
        let steps = self.steps.as_ref().map(|before| steps::between(before, now));
        Ok(Change { version: self.version.clone(), added, removed, imports, steps, memory_mb, findings })
    }
}

fn more(text: String) -> Finding {
    Finding { code: "more_than_before", text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(id: &str, capabilities: &str, memory: &str) -> Manifest {
        let text = format!(
            r#"{{"id":"{id}","module":"m.wasm","runtime":"wasm","version":"1.0.0","wasm":{{"capabilities":[{capabilities}]{memory}}}}}"#
        );
        Manifest::from_json(text.as_bytes()).unwrap()
    }

    fn previous(manifest: &Manifest, imports: Option<Imports>) -> Previous {
        Previous {
            agent: manifest.id().as_str().to_owned(),
            version: "0.9.0".into(),
            requested: manifest.requested_capabilities(),
            imports,
            steps: Some(Vec::new()),
            memory_mb: manifest.wasm().memory.maximum_mb,
        }
    }

    fn set(names: &[&str]) -> Imports {
        names.iter().map(|name| ("mentat".to_owned(), (*name).to_owned())).collect()
    }

    #[test]
    fn what_came_and_what_went_is_told_and_more_than_before_is_a_finding() {
        let before =
            manifest("a.b", r#""env:KEY","network:https:*.example.com""#, r#","memory":{"maximum":8}"#);
        let now = manifest(
            "a.b",
            r#""env:OTHER","network:https:api.example.com","network:https:example.org""#,
            r#","memory":{"maximum":16}"#,
        );
        let change = previous(&before, Some(set(&["log", "input_len"])))
            .changed_by(&now, &set(&["log", "request_capability"]), &[])
            .unwrap();
        let text = |list: &[Capability]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(text(&change.added), "env:OTHER network:https:api.example.com network:https:example.org");
        assert_eq!(text(&change.removed), "env:KEY network:https:*.example.com");
        let imports = (vec!["mentat.request_capability".to_owned()], vec!["mentat.input_len".to_owned()]);
        assert_eq!(change.imports, Some(imports));
        assert_eq!(change.memory_mb, Some((Some(8), Some(16))));
        let found: Vec<&str> = change.findings.iter().map(|finding| finding.text.as_str()).collect();
        // One host of those that were asked for before is no more than they were.
        assert_eq!(
            found,
            [
                "asks for env:OTHER, which 0.9.0 did not",
                "asks for network:https:example.org, which 0.9.0 did not",
                "wasm.memory.maximum is 16 MiB, and was 8"
            ]
        );
    }

    #[test]
    fn less_than_before_and_the_same_are_no_findings() {
        let before = manifest("a.b", r#""env:KEY""#, "");
        let now = manifest("a.b", "", r#","memory":{"maximum":16}"#);
        let change = previous(&before, None).changed_by(&now, &set(&["log"]), &[]).unwrap();
        assert!(change.findings.is_empty() && change.imports.is_none(), "{change:?}");
        let same = previous(&now, Some(set(&[]))).changed_by(&now, &set(&[]), &[]).unwrap();
        let nothing = Change {
            version: "0.9.0".into(),
            imports: Some(Default::default()),
            steps: Some(Difference::default()),
            ..Change::default()
        };
        assert_eq!(same, nothing);
        let lost = previous(&now, None).changed_by(&before, &set(&[]), &[]).unwrap();
        assert_eq!(lost.findings.len(), 2, "a request, and a limit that is gone: {lost:?}");
        assert!(previous(&before, None).changed_by(&manifest("a.c", "", ""), &set(&[]), &[]).is_err());
    }
}
