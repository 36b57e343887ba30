//! The known divergences: `exceptions.json`, suite → case → reason. A case that ends in `*` stands for all that begin so.

use std::collections::BTreeMap;

type Exceptions = BTreeMap<String, BTreeMap<String, String>>;

/// Both verdicts on one case: whether it was accepted, and what was said.
pub struct Verdicts {
    /// Name of the case, unique in its suite.
    pub case: String,
    /// Ours.
    pub ours: Result<(), String>,
    /// The judge's.
    pub theirs: Result<(), String>,
}

/// Compares the verdicts with each other and with the exceptions of the suite.
///
/// # Panics
/// If a divergence has no exception, an exception no divergence, or an exception no reason.
pub fn settle(suite: &str, verdicts: &[Verdicts]) {
    let exceptions: Exceptions =
        serde_json::from_str(include_str!("../exceptions.json")).expect("exceptions.json is readable");
    let none = BTreeMap::new();
    let known = exceptions.get(suite).unwrap_or(&none);
    let mut wrong = Vec::new();
    let mut used = BTreeMap::new();
    let mut diverging = 0;
    for Verdicts { case, ours, theirs } in verdicts {
        let exception = known.keys().find(|name| covers(name, case));
        let differs = ours.is_ok() != theirs.is_ok();
        diverging += usize::from(differs);
        match exception {
            None if differs => wrong.push(format!("{case}: ours {ours:?}, theirs {theirs:?}")),
            Some(name) if !differs => {
                wrong.push(format!("{case}: both say {ours:?}, but `{name}` says that they differ"));
            }
            _ => {}
        }
        if let Some(name) = exception {
            *used.entry(name.clone()).or_insert(0_usize) += 1;
        }
    }
    for (name, reason) in known {
        if !used.contains_key(name) {
            wrong.push(format!("`{name}` is no case of {suite}"));
        }
        if reason.split_whitespace().count() < 4 {
            wrong.push(format!("`{name}` has no reason"));
        }
    }
    assert!(wrong.is_empty(), "{suite}: {} of {} cases:\n{}", wrong.len(), verdicts.len(), wrong.join("\n"));
    println!("{suite}: {} cases, {diverging} known divergences", verdicts.len());
}

fn covers(name: &str, case: &str) -> bool {
    match name.strip_suffix('*') {
        Some(front) => case.starts_with(front),
        None => name == case,
    }
}
