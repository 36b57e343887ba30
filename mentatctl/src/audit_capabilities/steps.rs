//! The steps of a pipeline, and which of them are others than in the release before.

use trust_store::pipeline::Pipeline;

/// One step, with everything that makes it another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) agent: String,
    /// Digest of its module.
    pub(super) module: String,
    /// Names of the steps whose outputs it gets; none where that is the pipeline's input.
    pub(super) after: Vec<String>,
    pub(super) timeout_ms: u32,
    pub(super) attempts: u32,
}

/// Names of steps that came, that went, and that are others under the same name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) added: Vec<String>,
    pub(super) removed: Vec<String>,
    pub(super) changed: Vec<String>,
}

/// Every step, in order.
pub(super) fn of(pipeline: &Pipeline) -> Vec<Step> {
    let name_of = |index: &usize| pipeline.steps().get(*index).map(|step| step.name().to_owned());
    let step = |step: &trust_store::pipeline::Step| Step {
        name: step.name().to_owned(),
        agent: step.agent().as_str().to_owned(),
        module: hex::encode(step.module()),
        after: step.after().iter().filter_map(name_of).collect(),
        timeout_ms: step.timeout_ms(),
        attempts: step.repetition().attempts(),
    };
    pipeline.steps().iter().map(step).collect()
}

/// What became of the steps of before.
pub(super) fn between(before: &[Step], now: &[Step]) -> Difference {
    let without = |all: &[Step], others: &[Step]| -> Vec<String> {
        let is_new = |step: &&Step| others.iter().all(|other| other.name != step.name);
        all.iter().filter(is_new).map(|step| step.name.clone()).collect()
    };
    let is_other = |step: &&Step| before.iter().any(|old| old.name == step.name && old != *step);
    Difference {
        added: without(now, before),
        removed: without(before, now),
        changed: now.iter().filter(is_other).map(|step| step.name.clone()).collect(),
    }
}

impl Step {
    /// For people.
    pub(super) fn text(&self) -> String {
        let Self { name, agent, module, after, timeout_ms, attempts } = self;
        let before = if after.is_empty() { "the input".to_owned() } else { after.join(", ") };
        format!("{name}: {agent} {module} on {before}, {timeout_ms} ms, at most {attempts} times")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::super::previous::Previous;
    use super::super::{Against, examine};
    use crate::exit::Outcome;
    use crate::release::{Release, Use};
    use crate::verify::load_policy;

    const WHOLE: &str = "id: test.whole\nversion: 1.0.0\nruntime: pipeline\nmodule: pipeline.json\n";

    /// A pipeline of these steps in a row: name, agent, and a digit of the module's digest.
    fn composed(folder: &Path, steps: &[(&str, &str, char)]) {
        let steps: Vec<Value> = steps
            .iter()
            .enumerate()
            .map(|(at, (name, agent, digit))| {
                let after: Vec<&str> = at.checked_sub(1).map(|before| steps[before].0).into_iter().collect();
                json!({ "after": after, "agent": agent, "idempotent": false, "module": digit.to_string().repeat(64),
                    "name": name, "retries": 0, "timeout_ms": 1000 })
            })
            .collect();
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("manifest.yaml"), WHOLE).unwrap();
        let text = json!({ "format": "mentat-pipeline-v1", "steps": steps }).to_string();
        std::fs::write(folder.join("pipeline.json"), text).unwrap();
    }

    fn told(folder: &Path, against: &Against<'_>) -> Outcome<(usize, Value)> {
        let release = Release::open(folder, Use::Sign)?;
        let report = examine(&release, against)?;
        Ok((report.findings.len(), report.value()))
    }

    const NOTHING: Against<'_> = Against { policy: None, signer: None, rulings: None, previous: None };

    #[test]
    fn who_may_not_sign_an_agent_may_not_sign_a_pipeline() {
        let dir = tempfile::tempdir().unwrap();
        let whole = dir.path().join("whole");
        composed(&whole, &[("a", "test.a", '1')]);
        let rule = |subject: &str, agents: &str| json!({ "subject": subject, "issuer": "any-of-the-authority", "level": "signed", "agents": [agents] });
        let text = json!({ "version": 1, "required_level": "signed",
            "identities": [rule("dev@example.com", "test.*"), rule("other@example.com", "other.*")] });
        let file = dir.path().join("policy.yaml");
        let policy = |text: &Value| {
            std::fs::write(&file, text.to_string()).unwrap();
            load_policy(&file).unwrap()
        };
        let admitting = policy(&text);
        let mut demanding = text.clone();
        demanding["required_level"] = "verified".into();
        let demanding = policy(&demanding);
        for (policy, signer, code) in [
            (&admitting, "dev@example.com", None),
            (&admitting, "other@example.com", Some("agent_not_for_signer")),
            (&admitting, "nobody@example.com", Some("identity_denied")),
            (&demanding, "dev@example.com", Some("trust_level")),
        ] {
            let against = Against { policy: Some(policy), signer: Some((signer, None)), ..NOTHING };
            let (count, value) = told(&whole, &against).unwrap();
            assert_eq!(count, usize::from(code.is_some()), "{signer}: {value}");
            assert_eq!(value["findings"][0]["code"].as_str(), code, "{signer}");
            assert_eq!(value["steps"][0]["agent"], "test.a");
            assert!(value["notes"].is_array() && value["levels"].is_array() && value["previous"].is_null());
        }
    }

    #[test]
    fn what_became_of_the_steps_of_the_release_before_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| dir.path().join(name));
        composed(&old, &[("a", "test.a", '1'), ("b", "test.b", '2'), ("c", "test.c", '3')]);
        composed(&new, &[("a", "test.a", '1'), ("b", "test.b", '9'), ("d", "test.d", '4')]);
        let since = |folder: &Path, now: &Path| {
            let against = Against { previous: Some(Previous::open(folder).unwrap()), ..NOTHING };
            told(now, &against).unwrap()
        };
        let (count, value) = since(&old, &new);
        let steps = json!({ "added": ["d"], "removed": ["c"], "changed": ["b"] });
        assert_eq!((count, &value["previous"]["steps"]), (0, &steps), "each step is audited by itself");
        let (_, value) = since(&new, &new);
        let steps = json!({ "added": [], "removed": [], "changed": [] });
        assert_eq!(value["previous"]["steps"], steps);
        // The composition of then is not there any more.
        std::fs::remove_file(old.join("pipeline.json")).unwrap();
        assert_eq!(since(&old, &new).1["previous"]["steps"], Value::Null);
        std::fs::write(old.join("manifest.yaml"), WHOLE.replace("test.whole", "test.other")).unwrap();
        let against = Against { previous: Some(Previous::open(&old).unwrap()), ..NOTHING };
        assert!(told(&new, &against).is_err(), "another agent's");
    }
}
