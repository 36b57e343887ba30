//! Until when the trusted root may be used, where it follows a repository of trust metadata.
//!
//! The root itself is read once, at the start. What `trust update` writes beside it is looked at as often as evidence is
//! fetched: an update that confirmed the root prolongs its life, and without one it ends.

use parking_lot::Mutex;
use trust_store_files::RootLifetime;

use super::Source;
use crate::clock;

/// The root's end.
pub(super) struct RootEnd {
    state: Mutex<Option<State>>,
}

struct State {
    lifetime: RootLifetime,
    read_at: i64,
    problem: String,
}

impl RootEnd {
    pub(super) fn new(lifetime: Option<RootLifetime>) -> Self {
        let read_at = clock::unix_seconds();
        let state = lifetime.map(|lifetime| State { lifetime, read_at, problem: String::new() });
        Self { state: Mutex::new(state) }
    }

    /// Looks whether the life was prolonged.
    pub(super) fn refresh(&self) {
        let now = clock::unix_seconds();
        let mut state = self.state.lock();
        let Some(state) = state.as_mut() else { return };
        match state.lifetime.renewed() {
            Ok(renewed) => {
                state.read_at = now;
                state.problem.clear();
                state.lifetime = renewed;
            }
            // What was read before stays true: the root may be used until then.
            Err(error) => state.problem = error.to_string(),
        }
        if let Err(expired) = state.lifetime.check(trust_store::UnixTime(now)) {
            state.problem = expired.to_string();
        }
    }

    /// Adds the source, and gives the last second of the root, seconds since 1970; `None` for one without an end.
    pub(super) fn collect(&self, sources: &mut Vec<Source>) -> Option<i64> {
        let state = self.state.lock();
        let state = state.as_ref()?;
        sources.push(Source {
            kind: "trusted_root",
            url: state.lifetime.path().display().to_string(),
            problem: state.problem.clone(),
            fetched_at: Some(state.read_at),
        });
        Some(state.lifetime.expires().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trust_store::UnixTime;

    #[test]
    fn only_an_update_of_the_same_root_prolongs_its_life() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trusted_root.json");
        let now = clock::unix_seconds();
        let of = |bytes: &[u8], end: i64| RootLifetime::new(&path, bytes, UnixTime(now + end));
        let said = |end: &RootEnd| {
            let mut sources = Vec::new();
            end.refresh();
            let expires = end.collect(&mut sources).map(|expires| expires - now);
            (expires, sources.into_iter().map(|source| (source.kind, source.problem)).collect::<Vec<_>>())
        };
        assert_eq!(said(&RootEnd::new(None)), (None, Vec::new()), "a root without an end is no source");
        let end = RootEnd::new(Some(of(b"root", 100)));
        of(b"root", 200).store().unwrap();
        assert_eq!(said(&end), (Some(200), vec![("trusted_root", String::new())]));
        of(b"another", 900).store().unwrap();
        let (expires, sources) = said(&end);
        assert!(expires == Some(200) && sources[0].1.contains("another trusted root"), "{sources:?}");
        RootLifetime::remove(&path).unwrap();
        let (expires, sources) = said(&end);
        assert!(expires == Some(200) && !sources[0].1.is_empty(), "taking the file away prolongs nothing");
        of(b"root", -1).store().unwrap();
        let (expires, sources) = said(&end);
        assert!(expires == Some(-1) && sources[0].1.contains("valid until"), "{sources:?}");
    }
}
