//! What is told of one release: text for people, a value for scripts (`docs/formats/capability-audit.md`).

use serde_json::{Value, json};
use trust_store::capability::Capability;

use super::previous::Change;
use super::rulings::Ruling;
use super::standing::Standing;
use super::steps::{Difference, Step};
use super::{Finding, Imports, names_of};
use crate::output::{Output, Tone, shown};
use crate::release::Release;
use crate::verify::named;

/// Everything about one release.
pub(super) struct Report<'a> {
    pub(super) release: &'a Release,
    pub(super) imports: Imports,
    /// Of a pipeline.
    pub(super) steps: Option<Vec<Step>>,
    /// What counts for the exit code.
    pub(super) findings: Vec<Finding>,
    /// What does not.
    pub(super) notes: Vec<Finding>,
    pub(super) rulings: Vec<Ruling>,
    pub(super) standings: Vec<Standing>,
    pub(super) change: Option<Change>,
}

impl Report<'_> {
    pub(super) fn tell(&self, out: &Output) {
        self.tell_people(out);
        out.value(|| self.value());
    }

    fn requested(&self) -> Vec<Capability> {
        self.release.manifest().requested_capabilities()
    }

    fn tell_people(&self, out: &Output) {
        let manifest = self.release.manifest();
        out.line(out.paint(Tone::Strong, format!("{} {}", manifest.id(), manifest.version())));
        match &self.steps {
            None => {
                out.line(format!("  asks for  {}", listed(&texts(&self.requested()))));
                out.line(format!("  imports   {}", listed(&names_of(&self.imports))));
            }
            Some(steps) => {
                out.line("  asks for  nothing: each step has the capabilities of its own manifest");
                steps.iter().for_each(|step| out.line(format!("  step      {}", step.text())));
            }
        }
        // A pipeline runs nowhere itself.
        for Standing { level, isolation, granted, beyond } in
            self.standings.iter().filter(|_| self.steps.is_none())
        {
            let granted = listed(&texts(granted));
            out.line(format!("  as {level} it gets {granted}, in the {}", isolation.as_str()));
            for (capability, why) in beyond {
                out.line(format!("    not {capability}: {why}"));
            }
        }
        for (capability, rules) in self.rulings.iter().filter_map(Ruling::permitted) {
            out.line(format!("  {capability} is permitted by {}", named(rules)));
        }
        if let Some(change) = &self.change {
            tell_change(change, out);
        }
        for note in &self.notes {
            out.line(format!("  note {} [{}]", note.text, note.code));
        }
        for finding in &self.findings {
            out.line(format!("  {} {} [{}]", out.paint(Tone::Bad, "finding"), finding.text, finding.code));
        }
        if self.findings.is_empty() {
            out.line(format!("  {}", out.paint(Tone::Good, "nothing to remark")));
        }
    }

    pub(super) fn value(&self) -> Value {
        let manifest = self.release.manifest();
        let finding = |finding: &Finding| json!({ "code": finding.code, "text": finding.text });
        let permitted = self
            .rulings
            .iter()
            .filter_map(Ruling::permitted)
            .map(|(capability, rules)| json!({ "capability": capability.to_string(), "rules": rules }));
        let beyond = |(capability, why): &(Capability, &str)| json!({ "capability": capability.to_string(), "why": why });
        let levels = self.standings.iter().map(|standing| {
            json!({
                "level": standing.level.as_str(), "isolation": standing.isolation.as_str(),
                "granted": texts(&standing.granted),
                "beyond_ceiling": standing.beyond.iter().map(beyond).collect::<Vec<_>>(),
            })
        });
        let mut value = json!({
            "manifest": shown(self.release.path()), "agent": manifest.id().as_str(),
            "version": manifest.version().as_str(), "requested": texts(&self.requested()),
            "imports": names_of(&self.imports),
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
            "notes": self.notes.iter().map(finding).collect::<Vec<_>>(),
            "permitted": permitted.collect::<Vec<_>>(), "levels": levels.collect::<Vec<_>>(),
            "previous": self.change.as_ref().map(change_value),
        });
        if let (Some(steps), Some(members)) = (&self.steps, value.as_object_mut()) {
            let step = |Step { name, agent, module, after, timeout_ms, attempts }: &Step| {
                json!({ "name": name, "agent": agent, "module": module, "after": after, "timeout_ms": timeout_ms,
                    "attempts": attempts })
            };
            members.insert("steps".to_owned(), steps.iter().map(step).collect());
        }
        value
    }
}

fn tell_change(change: &Change, out: &Output) {
    let mut told = false;
    let mut tell = |text: String| {
        told = true;
        out.line(format!("  since {}: {text}", change.version));
    };
    change.added.iter().for_each(|capability| tell(format!("asks for {capability}")));
    change.removed.iter().for_each(|capability| tell(format!("asks for {capability} no longer")));
    if let Some((came, went)) = &change.imports {
        came.iter().for_each(|name| tell(format!("imports {name}")));
        went.iter().for_each(|name| tell(format!("imports {name} no longer")));
    }
    if let Some((before, now)) = change.memory_mb {
        let mib = |limit: Option<u32>| limit.map_or("no limit".to_owned(), |mib| format!("{mib} MiB"));
        tell(format!("memory {} instead of {}", mib(now), mib(before)));
    }
    if let Some(Difference { added, removed, changed }) = &change.steps {
        added.iter().for_each(|name| tell(format!("has the step {name}")));
        removed.iter().for_each(|name| tell(format!("has the step {name} no longer")));
        changed.iter().for_each(|name| tell(format!("has another step {name}")));
    } else {
        tell("the steps of then are not there, so that they are not compared".to_owned());
    }
    if change.imports.is_none() {
        tell("the module of then is not there, so that imports are not compared".to_owned());
    }
    if !told {
        out.line(format!("  since {}: asks for, imports and composes the same", change.version));
    }
}

fn change_value(change: &Change) -> Value {
    let imports = change.imports.as_ref().map(|(came, went)| json!({ "added": came, "removed": went }));
    let memory = change.memory_mb.map(|(before, now)| json!({ "before": before, "now": now }));
    let steps = change.steps.as_ref().map(|Difference { added, removed, changed }| {
        json!({ "added": added, "removed": removed, "changed": changed })
    });
    json!({
        "version": change.version, "added": texts(&change.added), "removed": texts(&change.removed),
        "imports": imports, "memory_mb": memory, "steps": steps,
    })
}

fn texts(capabilities: &[Capability]) -> Vec<String> {
    capabilities.iter().map(ToString::to_string).collect()
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
