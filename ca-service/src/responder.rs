//! OCSP (RFC 6960, RFC 9919, RFC 9654): answers from the store, signed by the delegated responder.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ca_pki::lint;
use ca_pki::ocsp::{self, Answer, CertId, CertIdHash, CertStatus, IdForm, OcspFailure, OcspRequest};
use ca_pki::{SerialNumber, UnixTime};
use hsm::{ErrorClass, Purpose};
use moka::sync::Cache;
use service::rate_limit::ClientKey;
use sha2::{Digest as _, Sha256};

use crate::authority::{CertificateAuthority, LoadedAuthority, names, random};
use crate::error::CaError;
use crate::http_caching::CachingHeaders;
use crate::standing::Fall;
use crate::storage::{State, Step, StoredStatus};

/// Signed answers kept in memory.
const CACHED_ANSWERS: u64 = 100_000;
/// Longest time an answer is served from memory; the answer itself lives longer.
const CACHED_FOR: Duration = Duration::from_secs(3_600);

/// An answer with what HTTP caching needs of it.
#[derive(Debug, Clone)]
pub struct OcspAnswer {
    /// The OCSPResponse, DER.
    pub der: bytes::Bytes,
    /// When it was given, seconds since 1970.
    pub given_at: i64,
    /// How long it lasts; none for answers that must not be cached.
    pub cacheable: Option<Arc<Lasting>>,
}

/// The times of an answer, and what HTTP says of them: made when it is first asked for by GET, and not for each request.
#[derive(Debug)]
pub struct Lasting {
    this_update: i64,
    next_update: i64,
    headers: OnceLock<CachingHeaders>,
}

impl Lasting {
    pub(crate) fn of(this_update: i64, next_update: i64) -> Arc<Self> {
        Arc::new(Self { this_update, next_update, headers: OnceLock::new() })
    }

    /// nextUpdate, seconds since 1970.
    #[must_use]
    pub fn next_update(&self) -> i64 {
        self.next_update
    }

    /// What caches are told of the answer, whose bytes these are.
    pub(crate) fn headers(&self, der: &[u8]) -> &CachingHeaders {
        self.headers.get_or_init(|| {
            CachingHeaders::new(&Sha256::digest(der).into(), self.this_update, self.next_update)
        })
    }
}

/// Signed answers to requests that others make as well ([`serves_once`]). A revocation removes its own before it returns; besides, every
/// answer says up to which of the store's generations it is known to hold, and is compared with the record again after a later one (O6).
pub(crate) struct AnswerCache {
    answers: Cache<AskedBy, Arc<Kept>>,
}

/// What clients ask by: all that differs between requests about the certificates of one issuer, so that none takes another's place.
type AskedBy = (CertIdHash, IdForm, SerialNumber);

fn asked_by(request: &OcspRequest) -> AskedBy {
    (request.cert_id.hash, request.id_form(), request.cert_id.serial.clone())
}

struct Kept {
    /// That it is the request's says that the request names its issuer.
    encoded_id: Vec<u8>,
    answer: OcspAnswer,
    status: CertStatus,
    /// Name of the responder that signed it.
    responder: String,
    /// Generation of the store's revocations of which the status is known to hold.
    generation: AtomicU64,
}

impl Kept {
    fn given_at(&self, now: UnixTime) -> OcspAnswer {
        OcspAnswer { given_at: now.0, ..self.answer.clone() }
    }
}

/// The CAs for code signing, newest first, by what certificate ids have of them. They never change while a process lives.
pub(crate) struct AskedIssuers(Vec<AskedIssuer>);

struct AskedIssuer {
    name: String,
    /// Certificate ids by either hash, of any serial number.
    ids: [CertId; 2],
}

impl AskedIssuers {
    /// # Errors
    /// [`CaError::Pki`], which cannot happen: any number serves.
    pub(crate) fn of(authorities: &BTreeMap<String, LoadedAuthority>) -> Result<Self, CaError> {
        let any = SerialNumber::from_magnitude(&[1])?;
        let mut found = Vec::new();
        for authority in authorities.values() {
            if let (Some((names::CODE_SIGNING, number)), Some(issuer)) =
                (names::split(&authority.name), &authority.issuer)
            {
                let ids = [CertIdHash::Sha1, CertIdHash::Sha256]
                    .map(|hash| CertId::new(hash, &issuer.name, &issuer.public_key, any.clone()));
                found.push((number, AskedIssuer { name: authority.name.clone(), ids }));
            }
        }
        found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        Ok(Self(found.into_iter().map(|(_, issuer)| issuer).collect()))
    }

    /// Name of the one that a certificate id names.
    fn named_by(&self, id: &CertId) -> Option<&str> {
        let named = self.0.iter().find(|issuer| issuer.ids.iter().any(|own| own.has_issuer_of(id)));
        named.map(|issuer| issuer.name.as_str())
    }
}

impl AnswerCache {
    pub(crate) fn new() -> Self {
        let answers = Cache::builder().max_capacity(CACHED_ANSWERS).time_to_live(CACHED_FOR).build();
        Self { answers }
    }

    /// Forgets the answers about a certificate.
    pub(crate) fn forget(&self, serial: &SerialNumber) {
        for hash in [CertIdHash::Sha1, CertIdHash::Sha256] {
            for form in [IdForm::Null, IdForm::Absent] {
                self.answers.invalidate(&(hash, form, serial.clone()));
            }
        }
    }

    fn get(&self, request: &OcspRequest, now: i64) -> Option<Arc<Kept>> {
        if serves_once(request) {
            return None;
        }
        let kept = self.answers.get(&asked_by(request))?;
        let lasting = kept.answer.cacheable.as_ref()?;
        let serves = is_fresh((lasting.this_update, lasting.next_update), now)
            && kept.encoded_id == request.encoded_id();
        serves.then_some(kept)
    }

    fn keep(&self, request: &OcspRequest, kept: Kept) {
        if kept.answer.cacheable.is_some() && !serves_once(request) {
            self.answers.insert(asked_by(request), Arc::new(kept));
        }
    }
}

impl CertificateAuthority {
    /// Answers a request. Every request gets an answer; a `client` for whom too many must be signed that nobody can be given again
    /// (with a nonce, O4, with a certificate id as no client writes it, or about a serial number of which nothing is known) is told to try
    /// later.
    pub async fn ocsp(&self, request: &[u8], client: Option<ClientKey>) -> OcspAnswer {
        let failure =
            |failure: OcspFailure| OcspAnswer { der: failure.to_der().into(), given_at: 0, cacheable: None };
        let request = match OcspRequest::from_der(request) {
            Ok(request) => request,
            // Another hash is a question for another responder.
            Err(ca_pki::Error::Unsupported(_)) => return failure(OcspFailure::Unauthorized),
            Err(_) => return failure(OcspFailure::MalformedRequest),
        };
        let client = client.as_ref();
        if serves_once(&request) && self.is_limited(client) {
            return failure(OcspFailure::TryLater);
        }
        match self.ocsp_answer(&request, client).await {
            Ok(Reply::Answer(answer)) => answer,
            Ok(Reply::Later) => failure(OcspFailure::TryLater),
            Ok(Reply::NotAuthoritative) => failure(OcspFailure::Unauthorized),
            Err(CaError::Store(_) | CaError::Clock(_)) => failure(OcspFailure::TryLater),
            // The queue of the keys that answer strangers is full.
            Err(CaError::Signing(error)) if error.class() == ErrorClass::Transient => {
                failure(OcspFailure::TryLater)
            }
            Err(error) => {
                tracing::error!(%error, "an OCSP answer could not be made");
                failure(OcspFailure::InternalError)
            }
        }
    }

    /// Whether a client has used up its answers that serve once.
    fn is_limited(&self, client: Option<&ClientKey>) -> bool {
        let limited = client
            .is_some_and(|client| self.fresh_limit.take(client.clone(), self.clock.monotonic()).is_err());
        if limited {
            self.metrics.ocsp_limited.inc();
        }
        limited
    }

    async fn ocsp_answer(&self, request: &OcspRequest, client: Option<&ClientKey>) -> Result<Reply, CaError> {
        let now = self.clock.now();
        // Read before the status, so that a revocation between the two is seen as later.
        let generation = self.store.revocation_generation();
        let kept = now.ok().and_then(|now| Some((self.answers.get(request, now.0)?, now)));
        // What was said of this very certificate id needs nothing but what may have changed since.
        if let Some((kept, now)) = &kept
            && kept.generation.load(Ordering::Acquire) == generation
            && self.fall(&kept.responder) != Some(Fall::Itself)
        {
            self.still_serves()?;
            return Ok(Reply::Answer(kept.given_at(*now)));
        }
        let Some(issuer) = self.asked_issuers.named_by(&request.cert_id) else {
            return Ok(Reply::NotAuthoritative);
        };
        let now = now?;
        let responder = self.responder_of(issuer)?;
        // What it said before is not repeated either.
        if self.fall(&responder.name) == Some(Fall::Itself) {
            return Ok(Reply::Later);
        }
        self.still_serves()?;
        let stored = self.store.status(issuer, &request.cert_id.serial).await?;
        if let (Some((kept, _)), Some(stored)) = (&kept, &stored)
            && kept.status == status(stored, now.0)
        {
            kept.generation.store(generation, Ordering::Release);
            return Ok(Reply::Answer(kept.given_at(self.clock.for_records())));
        }
        responder.in_force(now)?;
        let status = stored.as_ref().map_or(CertStatus::Unknown, |stored| status(stored, now.0));
        // Serial numbers of nothing are without number, and answers about them are never kept.
        if stored.is_none() && !serves_once(request) && self.is_limited(client) {
            return Ok(Reply::Later);
        }
        let presigned = match &stored {
            Some(stored) if !serves_once(request) => self.presigned(request, responder, stored, now),
            _ => None,
        };
        let answer = match presigned {
            Some(answer) => answer,
            None => self.sign_answer(request, responder, stored.as_ref(), now).await?,
        };
        // What is unknown now may be good the next moment.
        if status != CertStatus::Unknown {
            let kept = Kept {
                encoded_id: request.encoded_id().to_vec(),
                answer: answer.clone(),
                status,
                responder: responder.name.clone(),
                generation: AtomicU64::new(generation),
            };
            self.answers.keep(request, kept);
        }
        Ok(Reply::Answer(answer))
    }

    /// Signs what is recorded about a certificate.
    pub(crate) async fn sign_answer(
        &self,
        request: &OcspRequest,
        responder: &LoadedAuthority,
        stored: Option<&StoredStatus>,
        now: UnixTime,
    ) -> Result<OcspAnswer, CaError> {
        let status = stored.map_or(CertStatus::Unknown, |stored| status(stored, now.0));
        // An answer is of no use after the certificate that verifies it.
        let longest =
            now.plus(self.settings.ocsp_seconds).min(responder.not_after.unwrap_or(UnixTime(i64::MAX)));
        let next_update = match (stored, status) {
            // "Good" ends with the certificate; after that the revocation list answers (R4).
            (Some(stored), CertStatus::Good) => longest.min(stored.not_after).max(now.plus(1)),
            _ => longest,
        };
        let answer = Answer { status, this_update: now, next_update, produced_at: now };
        let draft = ocsp::draft(
            request,
            &answer,
            &responder.certificate,
            &responder.public_key,
            responder.algorithm,
        )?;
        // Nothing is signed that the rules forbid (rule g).
        lint::ocsp_response(&draft.unsigned(), Some(request)).into_result()?;
        let signature = self.sign(responder, Purpose::Ocsp, &random::<16>()?, draft.to_be_signed()).await?;
        self.metrics.ocsp_signed.inc();
        let cacheable =
            request.nonce.is_none().then(|| Lasting::of(answer.this_update.0, answer.next_update.0));
        // The key may have let it wait.
        let given_at = self.clock.for_records().0;
        Ok(OcspAnswer { der: draft.assemble(&signature).into(), given_at, cacheable })
    }
}

/// What a request that could be read comes to.
enum Reply {
    Answer(OcspAnswer),
    /// The client is told to try later: it asked too much, or the responder needs a successor.
    Later,
    /// This responder does not speak for the issuer.
    NotAuthoritative,
}

/// Whether nobody else can be given the answer to a request: it has a nonce, or a certificate id of a form of which there is no end. It is
/// signed for one client, and neither kept nor looked for.
fn serves_once(request: &OcspRequest) -> bool {
    request.nonce.is_some() || request.id_form() == IdForm::Other
}

/// Whether half of an answer's life is left to whoever receives it.
pub(crate) fn is_fresh((this_update, next_update): (i64, i64), now: i64) -> bool {
    this_update <= now && now - this_update < next_update - now
}

/// The status of a record (ca-requirements §4): good only for what is finished, unrevoked and within its validity.
pub(crate) fn status(stored: &StoredStatus, now: i64) -> CertStatus {
    if let Some((at, reason)) = stored.revocation {
        return CertStatus::Revoked { at, reason };
    }
    let finished = matches!(stored.state, State::Signed | State::Logged | State::Delivered)
        && stored.step == Step::Certificate;
    let valid = (stored.not_before.0..=stored.not_after.0).contains(&now);
    if finished && valid { CertStatus::Good } else { CertStatus::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finished_certificates_within_their_validity_are_good() {
        for state in State::ALL {
            for step in [Step::Precertificate, Step::Certificate] {
                let stored = StoredStatus {
                    state,
                    step,
                    not_before: UnixTime(100),
                    not_after: UnixTime(200),
                    revocation: None,
                };
                let finished = matches!(state, State::Signed | State::Logged | State::Delivered);
                let expected = if finished && step == Step::Certificate {
                    CertStatus::Good
                } else {
                    CertStatus::Unknown
                };
                assert_eq!(status(&stored, 150), expected, "{state:?} {step:?}");
                assert_eq!(status(&stored, 99), CertStatus::Unknown);
                assert_eq!(status(&stored, 201), CertStatus::Unknown);
            }
        }
    }
}
