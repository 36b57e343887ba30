//! Signed evidence on disk: read, verified, and never older than what was taken before.

use std::path::Path;

use serde::{Deserialize, Serialize};
use trust_store::evidence::Evidence;
use trust_store::evidence::signed::{EvidenceSigner, MAX_SIGNED_EVIDENCE_BYTES, SignedEvidence, is_signed};
use trust_store::json;
use trust_store::signature::SignatureVerifier;
use trust_store::{Denial, ReasonCode, UnixTime};

use crate::atomic::{self, Readers};
use crate::error::Error;
use crate::locked::Locked;

/// Largest memory that is read, in bytes.
const MAX_MEMORY_BYTES: u64 = 4096;

/// What was taken last, so that an older file is noticed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    version: u8,
    /// `created` of the file, RFC 3339.
    created: String,
    /// SHA-256 of its payload, hexadecimal.
    digest: String,
}

/// Reads an evidence file of either form. A signed one needs `signers`; one that is not signed is read only when there
/// are none, since whoever names signers relies on them.
///
/// # Errors
/// [`Error`] of reading; the reasons of [`SignedEvidence::open`]; `signature_invalid` for an unsigned file where signers
/// are named, and for a signed one where none are.
pub fn load(
    path: &Path,
    signers: &[EvidenceSigner],
    crypto: &dyn SignatureVerifier,
    now: UnixTime,
) -> Result<Evidence, Error> {
    let bytes = atomic::read(path, MAX_SIGNED_EVIDENCE_BYTES as u64)?;
    match (is_signed(&bytes), signers.is_empty()) {
        (false, true) => Evidence::parse(&bytes).map_err(Error::content(path)),
        (false, false) => Err(denied(path, ReasonCode::SignatureInvalid, "the evidence file is not signed")),
        (true, _) => SignedEvidence::open(&bytes, signers, crypto, now)
            .map(SignedEvidence::into_evidence)
            .map_err(Error::content(path)),
    }
}

/// Reads a signed evidence file without remembering it.
///
/// # Errors
/// [`Error`] of reading; the reasons of [`SignedEvidence::open`].
pub fn load_signed(
    path: &Path,
    signers: &[EvidenceSigner],
    crypto: &dyn SignatureVerifier,
    now: UnixTime,
) -> Result<SignedEvidence, Error> {
    let bytes = atomic::read(path, MAX_SIGNED_EVIDENCE_BYTES as u64)?;
    SignedEvidence::open(&bytes, signers, crypto, now).map_err(Error::content(path))
}

/// Takes a signed evidence file: verifies it, refuses one that is older than the last one taken or differs from it at
/// the same moment, and remembers it durably in `memory` before it gives it out.
///
/// # Errors
/// As [`load_signed`]; `revocation_stale` for an older file; `malformed` for a damaged memory.
pub fn take(
    path: &Path,
    memory: &Path,
    signers: &[EvidenceSigner],
    crypto: &dyn SignatureVerifier,
    now: UnixTime,
) -> Result<SignedEvidence, Error> {
    let signed = load_signed(path, signers, crypto, now)?;
    // Of two that take at the same time, one would forget what the other took.
    let _one_at_a_time = lock(memory)?;
    let digest = hex_text(signed.digest());
    if let Some(last) = load_memory(memory)? {
        let stale = |detail: String| denied(path, ReasonCode::RevocationStale, detail);
        let at = UnixTime::from_rfc3339(&last.created)
            .ok_or_else(|| denied(memory, ReasonCode::Malformed, "`created` is no time"))?;
        if signed.created() < at {
            let made = signed.created().to_rfc3339();
            return Err(stale(format!(
                "the file was made at {made}, one of {} was taken already",
                last.created
            )));
        }
        if signed.created() == at {
            if last.digest != digest {
                return Err(stale(format!("another file made at {} was taken already", last.created)));
            }
            return Ok(signed);
        }
    }
    let taken = Taken { version: 1, created: signed.created().to_rfc3339(), digest };
    let bytes = json::write_pretty("memory of evidence files", &taken).map_err(Error::content(memory))?;
    atomic::write(memory, &bytes, Readers::Everybody)?;
    Ok(signed)
}

/// Keeps others from this memory.
fn lock(memory: &Path) -> Result<Locked, Error> {
    let path = memory.with_extension("lock");
    Locked::take(&path)?.ok_or_else(|| Error::io(&path)(std::io::ErrorKind::WouldBlock.into()))
}

fn load_memory(path: &Path) -> Result<Option<Taken>, Error> {
    let bytes = match atomic::read(path, MAX_MEMORY_BYTES) {
        Ok(bytes) => bytes,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let taken: Taken =
        json::parse("memory of evidence files", &bytes, bytes.len()).map_err(Error::content(path))?;
    if taken.version != 1 {
        return Err(denied(path, ReasonCode::Malformed, "its version is not 1"));
    }
    Ok(Some(taken))
}

fn denied(path: &Path, code: ReasonCode, detail: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::content(path)(Denial::new(code, detail))
}

fn hex_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    use hsm::developer::DeveloperKey;
    use hsm::{Input, KeyAlgorithm, Purpose, SignatureAlgorithm, Signer as _, SigningIntent};
    use trust_store::evidence::signed;
    use trust_store::provider::AwsLc;

    const NOW: UnixTime = UnixTime(1_790_000_000);

    struct Scene {
        directory: tempfile::TempDir,
        key: DeveloperKey,
    }

    impl Scene {
        fn new() -> Self {
            let key = DeveloperKey::generate(KeyAlgorithm::Ed25519).unwrap();
            Self { directory: tempfile::tempdir().unwrap(), key }
        }

        fn write(&self, created: i64, note: &str) -> std::path::PathBuf {
            let mut evidence = Evidence::none();
            evidence.log_mut("o").add_checkpoint(note);
            let created = UnixTime(NOW.0 + created);
            let payload = signed::payload(&evidence, created, UnixTime(created.0 + 3600)).unwrap();
            let message = signed::message(&payload);
            let intent = SigningIntent::fresh(Purpose::Statement).unwrap();
            let signature =
                self.key.sign(Input::Message(&message), SignatureAlgorithm::Ed25519, &intent).unwrap();
            let path = self.directory.path().join("evidence.json");
            fs::write(&path, signed::file(payload, signature.into_vec()).unwrap()).unwrap();
            path
        }

        fn signers(&self) -> Vec<EvidenceSigner> {
            vec![EvidenceSigner::from_spki_der(self.key.public_key().spki_der()).unwrap()]
        }

        fn take(&self, path: &Path) -> Result<SignedEvidence, &'static str> {
            take(path, &self.directory.path().join("taken.json"), &self.signers(), &AwsLc, NOW)
                .map_err(|error| error.code().map_or("", ReasonCode::as_str))
        }
    }

    #[test]
    fn an_older_file_is_refused_and_the_same_one_is_not() {
        let scene = Scene::new();
        assert!(scene.take(&scene.write(-100, "a")).is_ok());
        assert!(scene.take(&scene.write(-100, "a")).is_ok(), "the same file again");
        assert_eq!(
            scene.take(&scene.write(-100, "b")).unwrap_err(),
            "revocation_stale",
            "another of that moment"
        );
        assert!(scene.take(&scene.write(-50, "b")).is_ok());
        assert_eq!(scene.take(&scene.write(-100, "a")).unwrap_err(), "revocation_stale");
        let memory = fs::read_to_string(scene.directory.path().join("taken.json")).unwrap();
        assert!(
            memory.starts_with(
                "{\n  \"version\": 1,\n  \"created\": \"2026-09-21T14:12:30Z\",\n  \"digest\": \""
            )
        );
        fs::write(scene.directory.path().join("taken.json"), memory.replace(": 1", ": 2")).unwrap();
        assert_eq!(scene.take(&scene.write(-10, "c")).unwrap_err(), "malformed");
        assert_eq!(scene.take(&scene.write(-3601, "c")).unwrap_err(), "revocation_stale", "expired");
    }

    #[test]
    fn nobody_waits_for_another_process_that_holds_the_memory() {
        let scene = Scene::new();
        let path = scene.write(0, "a");
        let held = lock(&scene.directory.path().join("taken.json")).unwrap();
        assert_eq!(scene.take(&path).unwrap_err(), "", "an error of the system, no verdict about the file");
        drop(held);
        assert!(scene.take(&path).is_ok());
    }

    #[test]
    fn whoever_names_signers_gets_nothing_unsigned() {
        let scene = Scene::new();
        let path = scene.write(0, "a");
        let code = |signers: &[EvidenceSigner], path: &Path| {
            load(path, signers, &AwsLc, NOW).map_err(|error| error.code().map_or("", ReasonCode::as_str))
        };
        assert_eq!(code(&scene.signers(), &path).unwrap().logs().len(), 1);
        assert_eq!(code(&[], &path).unwrap_err(), "signature_invalid");
        crate::store_evidence(&path, &Evidence::none()).unwrap();
        assert_eq!(code(&scene.signers(), &path).unwrap_err(), "signature_invalid");
        assert!(code(&[], &path).is_ok());
        assert_eq!(scene.take(&path).unwrap_err(), "malformed");
    }
}
