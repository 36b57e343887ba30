//! Evidence that is carried in as one signed file, for an executor without a network.
//!
//! The file is looked at as often as other evidence is fetched. It counts until it expires, and never goes back to an
//! older one; what is inside is judged piece by piece like everything else.

use std::path::PathBuf;
use std::time::SystemTime;

use parking_lot::Mutex;
use trust_store::UnixTime;
use trust_store::evidence::Evidence;
use trust_store::evidence::signed::EvidenceSigner;
use trust_store::provider::AwsLc;
use trust_store_files::evidence_file;

use super::Source;
use crate::clock;

static CRYPTO: AwsLc = AwsLc;

/// Where carried evidence is put, and who must have signed it.
#[derive(Debug, Clone)]
pub struct ImportConfig {
    /// The file; it need not exist.
    pub file: PathBuf,
    /// Keys, one of which signed it.
    pub signers: Vec<EvidenceSigner>,
}

/// The imported file.
pub(super) struct Imported {
    config: Option<ImportConfig>,
    /// What was taken last, so that an older file is noticed.
    memory: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Time and length of the file that was read last.
    seen: Option<(SystemTime, u64)>,
    evidence: Evidence,
    expires: Option<UnixTime>,
    taken_at: Option<i64>,
    problem: String,
}

impl Imported {
    pub(super) fn new(config: Option<ImportConfig>, state: &std::path::Path) -> Self {
        Self { config, memory: state.join("imported-evidence.json"), state: Mutex::default() }
    }

    /// Looks at the file; gives its evidence if it is another one than before.
    pub(super) fn refresh(&self) -> Option<Evidence> {
        let config = self.config.as_ref()?;
        let now = UnixTime(clock::unix_seconds());
        let mut state = self.state.lock();
        if state.expires.is_some_and(|expires| expires < now) {
            // Lists that were authentic stay known as such; what only the file vouched for ends with it.
            *state = State { seen: state.seen, taken_at: state.taken_at, ..State::default() };
            state.problem = "the evidence file has expired; bring a newer one".to_owned();
        }
        let metadata = match std::fs::metadata(&config.file) {
            Ok(metadata) => metadata,
            Err(error) => {
                state.problem = format!("cannot be read: {error}");
                return None;
            }
        };
        let seen = metadata.modified().ok().map(|modified| (modified, metadata.len()));
        if seen.is_some() && seen == state.seen {
            return None;
        }
        match evidence_file::take(&config.file, &self.memory, &config.signers, &CRYPTO, now) {
            Ok(signed) => {
                state.problem.clear();
                state.expires = Some(signed.expires());
                state.taken_at = Some(now.0);
                state.evidence = signed.into_evidence();
                state.seen = seen;
                Some(state.evidence.clone())
            }
            Err(error) => {
                // The file that was taken before goes on counting until it expires. The next look reads again: the
                // clock or the file may be put right.
                tracing::warn!(file = %config.file.display(), %error, "evidence was not imported");
                state.problem = error.to_string();
                None
            }
        }
    }

    /// Adds the checkpoints and proofs of the file; its lists went the way of all lists.
    pub(super) fn collect(&self, evidence: &mut Evidence, sources: &mut Vec<Source>) {
        let Some(config) = &self.config else { return };
        let state = self.state.lock();
        for log in state.evidence.logs() {
            evidence.log_mut(&log.origin).extend(log);
        }
        // A tree that whoever signed the file had accepted must not be missing from the log either.
        for remembered in state.evidence.remembered() {
            if let Some(head) = remembered.head() {
                evidence.remember(&remembered.origin, &remembered.log_id.0, &head);
            }
        }
        evidence.revocation_mut().ocsp.extend(state.evidence.revocation().ocsp.iter().cloned());
        sources.push(Source {
            kind: "import",
            url: config.file.display().to_string(),
            problem: state.problem.clone(),
            fetched_at: state.taken_at,
        });
    }

    /// As if the file's time were over.
    #[cfg(test)]
    pub(super) fn expire_now(&self) {
        self.state.lock().expires = Some(UnixTime(clock::unix_seconds() - 1));
    }
}
