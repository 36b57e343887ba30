//! OCSP answers that are signed before anybody asks (RFC 9919 §2.2): a folder of files, each under the path by which a GET asks for it.
//!
//! The folder is a shop window, not a memory: whatever lies there is shown only when it is, byte for byte, what would be said now at
//! its own time, with a signature that verifies. So a file that is old, torn, or of a certificate that was revoked meanwhile is
//! worth nothing, and a folder that is lost is filled again. Any web server may serve a copy of it below `/ocsp/`.

mod passes;

use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_pki::ocsp::{self, Answer, CertId, CertIdHash, CertStatus, OcspRequest, signature_of};
use ca_pki::{SerialNumber, UnixTime};
use serde::Deserialize;
use tokio::sync::Notify;
use trust_store::ocsp::{CertificateStatus, OcspResponse};
use trust_store::provider::AwsLc;
use trust_store::signature::SignatureVerifier as _;

pub use self::passes::Presigning;
use crate::authority::{CertificateAuthority, LoadedAuthority, names};
use crate::config::Settings;
use crate::responder::{Lasting, OcspAnswer, is_fresh, status};
use crate::storage::StoredStatus;

/// Largest file that is read: an answer with its responder's certificate has some 1,200 bytes.
const MAX_ANSWER: u64 = 16 * 1024;
/// Certificates that live no longer have none signed ahead (ca-requirements §8): their answers are asked for once, if ever.
const SHORT_LIFE: i64 = 86_400;
/// Revocations whose answers wait to be replaced; beyond, a pass finds them.
const MAX_WAITING: usize = 10_000;

/// Which answers are signed ahead. By default those about revoked certificates: they are the ones that must not be missing, and
/// their number is that of the revocations, not of everything ever issued.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PresignScope {
    /// Those about every certificate that is valid, or was revoked within its validity.
    All,
    /// None.
    None,
    /// Those about certificates that were revoked and would be valid otherwise.
    #[default]
    Revoked,
}

/// The folder, and what waits to be put there.
pub(crate) struct Presigned {
    scope: PresignScope,
    per_second: NonZeroU32,
    folder: PathBuf,
    waiting: Mutex<Vec<Waiting>>,
    /// Whether everything is to be looked at, before its time.
    pass_due: AtomicBool,
    /// When the last whole pass of this process began, seconds since 1970.
    looked_at: AtomicI64,
    due: Notify,
}

/// A revoked certificate, by issuer and serial number.
type Waiting = (String, SerialNumber);

impl Presigned {
    pub(crate) fn new(settings: &Settings) -> Self {
        let status = &settings.config.status;
        Self {
            scope: status.ocsp_presign,
            per_second: status.ocsp_presign_per_second,
            folder: settings.data_dir.join("ocsp"),
            waiting: Mutex::default(),
            pass_due: AtomicBool::new(false),
            looked_at: AtomicI64::new(i64::MIN),
            due: Notify::new(),
        }
    }

    /// Has everything looked at before its time.
    pub(crate) fn demand_pass(&self) {
        self.pass_due.store(true, Ordering::Release);
        self.due.notify_one();
    }

    /// Has what was revoked wait for its answers.
    fn put_off(&self, revoked: impl IntoIterator<Item = Waiting>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for one in revoked {
            if waiting.len() < MAX_WAITING {
                waiting.push(one);
            } else {
                // Once those that wait are done, the lists name the others.
                self.pass_due.store(true, Ordering::Release);
            }
        }
    }

    fn next_waiting(&self) -> Option<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Whether an answer about a certificate of this record is signed ahead.
    fn includes(&self, stored: &StoredStatus, now: UnixTime) -> bool {
        let lives = stored.not_after > now && lives_long(stored.not_before, stored.not_after);
        lives
            && match (self.scope, status(stored, now.0)) {
                (PresignScope::None, _) | (_, CertStatus::Unknown) => false,
                (PresignScope::Revoked, answer) => answer != CertStatus::Good,
                (PresignScope::All, _) => true,
            }
    }

    /// Whether a certificate with this end had ended by the last pass, which took away what lay there about it.
    fn is_over(&self, not_after: UnixTime) -> bool {
        not_after.0 <= self.looked_at.load(Ordering::Acquire)
    }

    /// The file of an answer: below the folder, the path of the GET.
    fn file(&self, request: &OcspRequest) -> PathBuf {
        let mut path = STANDARD.encode(request.to_der());
        if path.ends_with('/') {
            // What web servers look for where a path ends so.
            path.push_str("index");
        }
        self.folder.join(path)
    }

    fn read(&self, request: &OcspRequest) -> Option<Vec<u8>> {
        let mut der = Vec::new();
        fs::File::open(self.file(request)).ok()?.take(MAX_ANSWER).read_to_end(&mut der).ok()?;
        Some(der)
    }

    /// Whole or not at all for whoever reads; after a power cut perhaps torn, which shows when it is read.
    fn write(&self, request: &OcspRequest, der: &[u8]) -> io::Result<()> {
        let file = self.file(request);
        fs::create_dir_all(file.parent().unwrap_or(&self.folder))?;
        let new = self.folder.join("new");
        fs::write(&new, der)?;
        fs::rename(new, file)
    }

    fn remove(&self, request: &OcspRequest) -> io::Result<()> {
        match fs::remove_file(self.file(request)) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

/// Whether a certificate lives long enough to have answers signed ahead.
fn lives_long(not_before: UnixTime, not_after: UnixTime) -> bool {
    not_after.since(not_before) > SHORT_LIFE
}

/// Takes away what was signed ahead by another configuration: all of it, or what is not about the revoked.
fn tidy(folder: &Path, scope: PresignScope) -> io::Result<()> {
    match scope {
        PresignScope::All => Ok(()),
        PresignScope::None => match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
        PresignScope::Revoked => {
            let mut folders = vec![folder.to_path_buf()];
            while let Some(next) = folders.pop() {
                let entries = match fs::read_dir(&next) {
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    entries => entries?,
                };
                for entry in entries {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        folders.push(entry.path());
                    } else if !is_about_a_revoked_one(&entry.path()) {
                        fs::remove_file(entry.path())?;
                    }
                }
            }
            Ok(())
        }
    }
}

fn is_about_a_revoked_one(file: &Path) -> bool {
    let mut der = Vec::new();
    let read = fs::File::open(file).and_then(|file| file.take(MAX_ANSWER).read_to_end(&mut der));
    let said = read.ok().and_then(|_| OcspResponse::from_der(&der).ok());
    said.is_some_and(|said| match said.responses() {
        [single] => matches!(single.status(), CertificateStatus::Revoked { .. }),
        _ => false,
    })
}

impl CertificateAuthority {
    /// The answer that lies ready for a request, where it is what would be said of this record.
    pub(crate) fn presigned(
        &self,
        request: &OcspRequest,
        responder: &LoadedAuthority,
        stored: &StoredStatus,
        now: UnixTime,
    ) -> Option<OcspAnswer> {
        if !self.presigned.includes(stored, now) {
            return None;
        }
        let der = self.presigned.read(request)?;
        let said = OcspResponse::from_der(&der).ok()?;
        let [single] = said.responses() else { return None };
        let (this_update, next_update) = (single.this_update().0, single.next_update()?.0);
        if !is_fresh((this_update, next_update), now.0) {
            return None;
        }
        let answer = Answer {
            status: status(stored, now.0),
            this_update: UnixTime(this_update),
            next_update: UnixTime(next_update),
            produced_at: UnixTime(said.produced_at().0),
        };
        let (certificate, key) = (&responder.certificate, &responder.public_key);
        let draft = ocsp::draft(request, &answer, certificate, key, responder.algorithm).ok()?;
        let signature = signature_of(&der).ok()?;
        if draft.assemble(&signature) != der {
            return None;
        }
        let algorithm = key.verification_algorithm(&responder.algorithm.oid(), None)?;
        AwsLc.verify(algorithm, key.bits(), draft.to_be_signed(), &signature).ok()?;
        let cacheable = Some(Lasting::of(this_update, next_update));
        Some(OcspAnswer { der: der.into(), given_at: now.0, cacheable })
    }

    /// The two requests about a certificate.
    fn presigned_requests(issuer: &LoadedAuthority, serial: &SerialNumber) -> Vec<OcspRequest> {
        let Some(names) = &issuer.issuer else { return Vec::new() };
        let id = |hash| CertId::new(hash, &names.name, &names.public_key, serial.clone());
        [CertIdHash::Sha1, CertIdHash::Sha256].map(|hash| OcspRequest::for_certificate(id(hash))).into()
    }

    /// Takes away what lies ready about a certificate whose status changed, and has it signed anew. It is not shown any more in any
    /// case; this is for whoever copies the folder.
    pub(crate) fn withdraw_presigned(&self, issuer: &str, serial: &SerialNumber) {
        // Of what root and time-stamping CA issued nobody answers: their lists alone tell of it.
        if !matches!(names::split(issuer), Some((names::CODE_SIGNING, _))) {
            return;
        }
        let Ok(loaded) = self.authority(issuer) else { return };
        for request in Self::presigned_requests(loaded, serial) {
            if let Err(error) = self.presigned.remove(&request) {
                tracing::error!(%error, %serial, "an OCSP answer that was signed ahead could not be removed");
            }
        }
        if self.presigned.scope != PresignScope::None {
            self.presigned.put_off([(issuer.to_owned(), serial.clone())]);
            self.presigned.due.notify_one();
        }
    }

    /// Where the answers lie.
    #[must_use]
    pub fn presigned_folder(&self) -> &Path {
        &self.presigned.folder
    }
}
