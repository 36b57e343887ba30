//! One answer of a responder: read, authenticated, and compared with the one before.

use trust_store::crl::RevocationReason;
use trust_store::ocsp::{CertificateStatus, OcspResponse, Responder, ResponseStatus, response_status};
use trust_store::provider::AwsLc;
use trust_store::{Certificate, UnixTime};

static CRYPTO: AwsLc = AwsLc;

/// How far ahead of this machine's clock the responder's may be, seconds.
const MAX_SKEW: i64 = 300;

/// An answer about one certificate that its issuer, or its delegate, signed.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    response: OcspResponse,
    /// SHA-256 of the key of a delegate whose own revocation status must be known before its answer counts; `None`: the issuer
    /// signed it, or a delegate of whom that is not asked.
    delegate: Option<[u8; 32]>,
    standing: Standing,
    this_update: UnixTime,
    next_update: Option<UnixTime>,
}

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    /// Revoked, but that may be taken back.
    OnHold,
    Revoked,
}

/// What came from a responder.
#[derive(Debug)]
pub(super) enum Reply {
    Answer(Answer),
    /// `unauthorized` (RFC 6960 §2.3): it does not speak for the issuer.
    NotAuthoritative,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The responder could not be reached, or did not go on.
    Silent(String),
    /// It is not able to answer anything now.
    Unable(String),
    /// It said something else.
    Refused(String),
}

impl Answer {
    pub(super) fn response(&self) -> &OcspResponse {
        &self.response
    }

    /// When newer information is due, seconds since 1970.
    pub(super) fn next_update(&self) -> Option<i64> {
        self.next_update.map(|at| at.0)
    }

    pub(super) fn is_current(&self, now: UnixTime) -> bool {
        self.next_update.is_some_and(|next| now <= next)
    }

    /// Whose it is, of those whose answers may not count.
    pub(super) fn delegate(&self) -> Option<[u8; 32]> {
        self.delegate
    }

    pub(super) fn this_update(&self) -> UnixTime {
        self.this_update
    }

    /// Whether verdicts made with it stand when `other` takes its place: both say the same, and it would have counted for some time yet.
    pub(super) fn is_renewed_by(&self, other: &Self, now: UnixTime) -> bool {
        let is_young =
            |next: UnixTime| now.0.saturating_sub(self.this_update.0) < next.0.saturating_sub(now.0);
        self.standing == other.standing && (self.is_final() || self.next_update.is_some_and(is_young))
    }

    /// Whether it says nothing against the certificate.
    pub(super) fn is_good(&self) -> bool {
        self.standing == Standing::Good
    }

    /// Whether it says what is never taken back.
    pub(super) fn is_final(&self) -> bool {
        self.standing == Standing::Revoked
    }

    /// Whether `other`, which came later, does not replace it.
    pub(super) fn outlasts(&self, other: &Self) -> bool {
        self.this_update > other.this_update || (self.is_final() && !other.is_final())
    }
}

/// Reads an answer about this certificate. Who signed it is checked here, so that what anybody on the way makes up takes no genuine
/// answer's place.
pub(super) fn read(
    body: &[u8],
    certificate: &Certificate,
    issuer: &Certificate,
    now: UnixTime,
) -> Result<Reply, Unanswered> {
    let refused = |why: &str| Unanswered::Refused(why.to_owned());
    match response_status(body) {
        Ok(ResponseStatus::Successful) => {}
        Ok(ResponseStatus::Unauthorized) => return Ok(Reply::NotAuthoritative),
        Ok(status) => return Err(Unanswered::Refused(format!("the responder answers {status:?}"))),
        Err(denial) => return Err(Unanswered::Refused(denial.to_string())),
    }
    let response = OcspResponse::from_der(body).map_err(|denial| Unanswered::Refused(denial.to_string()))?;
    if let Some(problem) = response.unusable() {
        return Err(refused(problem));
    }
    let nobody =
        |denial| Unanswered::Refused(format!("nobody whom the issuer lets answer signed it: {denial}"));
    let (response, delegate) = match response.find_responder(issuer, now, &CRYPTO).map_err(nobody)? {
        // Its own status must be known: for the verifier, who has the lists.
        Responder::Delegate(delegate) if !delegate.has_ocsp_nocheck() => {
            (response, Some(delegate.key_digest()))
        }
        _ => (response.authenticate(issuer, now, &CRYPTO).map_err(nobody)?, None),
    };
    let latest = now.plus(MAX_SKEW);
    let mut found: Option<(Standing, UnixTime, Option<UnixTime>)> = None;
    let mut known = true;
    for single in response.responses_for(certificate, issuer) {
        let standing = match single.status() {
            CertificateStatus::Good => Standing::Good,
            CertificateStatus::Revoked {
                reason: RevocationReason::CertificateHold | RevocationReason::RemoveFromCrl,
                ..
            } => Standing::OnHold,
            CertificateStatus::Revoked { .. } => Standing::Revoked,
            CertificateStatus::Unknown => {
                known = false;
                continue;
            }
        };
        if single.this_update() > latest {
            return Err(refused("the answer was given in the future"));
        }
        // Of several the gravest is what it says; the verifier reads them all.
        if found.is_none_or(|(so_far, ..)| so_far.gravity() < standing.gravity()) {
            found = Some((standing, single.this_update(), single.next_update()));
        }
    }
    let Some((standing, this_update, next_update)) = found else {
        return Err(refused(if known {
            "the answer is about another certificate"
        } else {
            "the responder does not know the certificate"
        }));
    };
    // A revocation stays true however old the answer is.
    if standing != Standing::Revoked && next_update.is_none_or(|next| next < now) {
        return Err(refused("the answer is not current"));
    }
    Ok(Reply::Answer(Answer { response, delegate, standing, this_update, next_update }))
}

impl Standing {
    fn gravity(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::OnHold => 1,
            Self::Revoked => 2,
        }
    }
}
