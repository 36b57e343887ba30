//! OCSP answers that are signed before anybody asks (RFC 9919 §2.2): a folder of files, each under the path by which a GET asks for it.
//!
//! The folder is a shop window, not a memory: whatever lies there is shown only when it is, byte for byte, what would be said now at
//! its own time, with a signature that verifies. So a file that is old, torn, or of a certificate that was revoked meanwhile is
//! worth nothing, and a folder that is lost is filled again. Any web server may serve a copy of it below `/ocsp/`.

use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_pki::ocsp::{self, Answer, CertId, CertIdHash, CertStatus, OcspRequest, signature_of};
use ca_pki::{SerialNumber, UnixTime};
use serde::Deserialize;
use tokio::sync::Notify;
use trust_store::crl::Crl;
use trust_store::ocsp::OcspResponse;
use trust_store::provider::AwsLc;
use trust_store::signature::SignatureVerifier as _;

use crate::authority::{CertificateAuthority, LoadedAuthority, names};
use crate::config::Settings;
use crate::error::CaError;
use crate::responder::{OcspAnswer, is_fresh, status};
use crate::standing::Fall;
use crate::storage::{CrlPart, Selection, StoredStatus};

/// Largest file that is read: an answer with its responder's certificate has some 1,200 bytes.
const MAX_ANSWER: u64 = 16 * 1024;
/// Certificates that live no longer have none signed ahead (ca-requirements §8): their answers are asked for once, if ever.
const SHORT_LIFE: i64 = 86_400;
/// Certificates of a page.
const PAGE: u32 = 500;
/// Revocations whose answers wait to be replaced; beyond, the next pass finds them.
const MAX_WAITING: usize = 10_000;
/// The shortest pause between two passes.
const PASS_PAUSE: Duration = Duration::from_secs(60);
/// The pause after a failure of key, clock or store.
const FAILURE_PAUSE: Duration = Duration::from_secs(10);

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
    waiting: Mutex<Vec<(String, SerialNumber)>>,
    due: Notify,
}

/// What a pass did, beside the answers about revocations that waited for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Presigning {
    /// Answers signed.
    pub signed: u64,
    /// Answers that were there and serve on.
    pub kept: u64,
}

impl Presigned {
    pub(crate) fn new(settings: &Settings) -> Self {
        let status = &settings.config.status;
        Self {
            scope: status.ocsp_presign,
            per_second: status.ocsp_presign_per_second,
            folder: settings.data_dir.join("ocsp"),
            waiting: Mutex::default(),
            due: Notify::new(),
        }
    }

    /// Whether an answer about a certificate of this record is signed ahead.
    fn includes(&self, stored: &StoredStatus, now: UnixTime) -> bool {
        let lives = stored.not_after > now && stored.not_after.since(stored.not_before) > SHORT_LIFE;
        lives
            && match (self.scope, status(stored, now.0)) {
                (PresignScope::None, _) | (_, CertStatus::Unknown) => false,
                (PresignScope::Revoked, answer) => answer != CertStatus::Good,
                (PresignScope::All, _) => true,
            }
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
        Some(OcspAnswer { der: der.into(), cacheable: Some((this_update, next_update)) })
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
        if self.presigned.scope == PresignScope::None {
            return;
        }
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
        let mut waiting = self.presigned.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_WAITING {
            waiting.push((issuer.to_owned(), serial.clone()));
        }
        drop(waiting);
        self.presigned.due.notify_one();
    }

    /// Signs what is missing or old about one certificate, and removes what serves no more.
    async fn presign(&self, issuer: &LoadedAuthority, serial: &SerialNumber) -> Result<Presigning, CaError> {
        let mut done = Presigning::default();
        let responder = self.responder_of(&issuer.name)?;
        if self.fall(&responder.name) == Some(Fall::Itself) {
            return Ok(done);
        }
        for request in Self::presigned_requests(issuer, serial) {
            let now = self.clock.now()?;
            let stored = self.store.status(&issuer.name, serial).await?;
            let Some(stored) = stored.filter(|stored| self.presigned.includes(stored, now)) else {
                self.presigned.remove(&request).map_err(unwritable)?;
                continue;
            };
            if self.presigned(&request, responder, &stored, now).is_some() {
                done.kept += 1;
                continue;
            }
            responder.in_force(now)?;
            self.still_serves()?;
            let answer = self.sign_answer(&request, responder, Some(&stored), now).await?;
            self.presigned.write(&request, &answer.der).map_err(unwritable)?;
            self.metrics.ocsp_presigned.inc();
            done.signed += 1;
            // A revocation that came in between removed what was there before this.
            let said = |stored: &StoredStatus| status(stored, now.0);
            if self.store.status(&issuer.name, serial).await?.as_ref().map(said) != Some(said(&stored)) {
                self.presigned.remove(&request).map_err(unwritable)?;
            }
            tokio::time::sleep(Duration::from_secs(1) / self.presigned.per_second.get()).await;
        }
        Ok(done)
    }

    /// Signs the answers about what was revoked since the last call.
    async fn presign_waiting(&self) -> Result<(), CaError> {
        loop {
            let next = self.presigned.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some((issuer, serial)) = next else { return Ok(()) };
            self.presign(self.authority(&issuer)?, &serial).await?;
        }
    }

    /// Looks at every certificate that has answers signed ahead. What was interrupted goes on where it was: what is there is not
    /// signed again before half of its life is over.
    ///
    /// # Errors
    /// [`CaError`] of store, clock or key; [`CaError::Inconsistent`] where the folder cannot be written.
    pub async fn presign_all(&self) -> Result<Presigning, CaError> {
        let mut done = Presigning::default();
        let issuers: Vec<&LoadedAuthority> = self.generations(names::CODE_SIGNING).collect();
        for issuer in issuers {
            match self.presigned.scope {
                PresignScope::None => {}
                PresignScope::Revoked => {
                    // The lists name them; what is not yet there was handed over by its revocation.
                    for part in issuer.parts().filter(|part| *part != CrlPart::Complete || issuer.shards == 1)
                    {
                        for serial in self.listed(&issuer.name, part) {
                            self.presign_one(issuer, &serial, &mut done).await?;
                        }
                    }
                }
                PresignScope::All => {
                    let of_issuer = Selection { issuer: Some(issuer.name.clone()), ..Selection::default() };
                    let mut after = 0;
                    loop {
                        let page = self.store.selected(of_issuer.clone(), after, PAGE).await?;
                        let Some(last) = page.last() else { break };
                        after = last.row;
                        for certificate in page {
                            self.presign_one(issuer, &certificate.serial, &mut done).await?;
                        }
                    }
                }
            }
        }
        Ok(done)
    }

    async fn presign_one(
        &self,
        issuer: &LoadedAuthority,
        serial: &SerialNumber,
        done: &mut Presigning,
    ) -> Result<(), CaError> {
        // A revocation does not wait for the end of a pass.
        self.presign_waiting().await?;
        let one = self.presign(issuer, serial).await?;
        done.signed += one.signed;
        done.kept += one.kept;
        // Others have their turn although nothing here waits.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// The serial numbers of a published list.
    fn listed(&self, issuer: &str, part: CrlPart) -> Vec<SerialNumber> {
        let Some(published) = self.published_crl(issuer, part) else { return Vec::new() };
        let Ok(list) = Crl::from_der(&published.der) else { return Vec::new() };
        list.entries().filter_map(|(octets, _)| SerialNumber::from_magnitude(octets).ok()).collect()
    }

    /// Signs ahead for ever, not faster than it may.
    pub async fn run_presigning(self: Arc<Self>) {
        if self.presigned.scope == PresignScope::None {
            return;
        }
        // Eight looks in the life of an answer: each is replaced soon after its half.
        let seconds = u64::try_from(self.settings.ocsp_seconds).unwrap_or_default() / 8;
        let pause = Duration::from_secs(seconds).max(PASS_PAUSE);
        let mut next = self.clock.monotonic();
        loop {
            let outcome = if self.clock.monotonic() >= next {
                next = self.clock.monotonic().saturating_add(pause);
                self.presign_all().await.map(|done| {
                    if done.signed > 0 {
                        tracing::info!(?done, "OCSP answers signed ahead");
                    }
                })
            } else {
                self.presign_waiting().await
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, "OCSP answers could not be signed ahead");
                tokio::time::sleep(FAILURE_PAUSE).await;
                continue;
            }
            let left = next.saturating_sub(self.clock.monotonic());
            let _ = tokio::time::timeout(left, self.presigned.due.notified()).await;
        }
    }

    /// Where the answers lie.
    #[must_use]
    pub fn presigned_folder(&self) -> &Path {
        &self.presigned.folder
    }
}

fn unwritable(error: io::Error) -> CaError {
    tracing::error!(%error, "the folder of OCSP answers cannot be written");
    CaError::Inconsistent("the folder of OCSP answers cannot be written")
}
