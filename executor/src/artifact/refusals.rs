//! Modules that the worker refused, so that the same bytes do not cost the same time again.

use std::time::Instant;

use executor_engine::ModuleDigest;

use super::worker::{Memory, WorkerError};
use crate::recent::Recent;

/// Most refusals remembered.
const MAX_REFUSALS: usize = 1024;

/// Refusals by module, each for as long as its reason holds.
#[derive(Debug)]
pub(super) struct Refusals(Recent<ModuleDigest, (WorkerError, Option<Instant>)>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Recent::new(MAX_REFUSALS))
    }
}

impl Refusals {
    /// Remembers a refusal if the same bytes would meet it again.
    pub(super) fn remember(&self, digest: ModuleDigest, error: &WorkerError, now: Instant) {
        let until = match error.memory() {
            Memory::Always => None,
            Memory::For(time) => Some(now + time),
            Memory::None => return,
        };
        self.0.insert(digest, (error.clone(), until));
    }

    /// Why this module is not tried at `now`.
    pub(super) fn of(&self, digest: ModuleDigest, now: Instant) -> Option<WorkerError> {
        let (error, until) = self.0.get(&digest)?;
        until.is_none_or(|until| now < until).then_some(error)
    }

    /// Lets the module be tried again.
    pub(super) fn forget(&self, digest: ModuleDigest) {
        self.0.remove(&digest);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use executor_engine::job::RefusalCode;

    use super::*;

    #[test]
    fn what_a_module_is_stays_and_what_a_machine_could_not_do_is_tried_again() {
        let refusals = Refusals::default();
        let now = crate::clock::monotonic();
        let digest = ModuleDigest::of(b"m");
        let hours = Duration::from_secs(3600);
        let refused = |code| WorkerError::Refused { code, detail: String::new() };

        refusals.remember(digest, &refused(RefusalCode::InvalidModule), now);
        assert_eq!(refusals.of(digest, now + 100 * hours).unwrap().code(), "invalid_module");
        refusals.forget(digest);
        assert!(refusals.of(digest, now).is_none());

        refusals.remember(digest, &WorkerError::Budget { detail: "killed".into() }, now);
        assert_eq!(refusals.of(digest, now).unwrap().code(), "compile_budget");
        assert!(refusals.of(digest, now + hours).is_none(), "not for good");
        refusals.forget(digest);

        refusals.remember(digest, &refused(RefusalCode::Internal), now);
        refusals.remember(digest, &WorkerError::Unavailable { detail: String::new() }, now);
        assert!(refusals.of(digest, now).is_none());
    }
}
