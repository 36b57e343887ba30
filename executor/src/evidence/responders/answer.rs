//! One answer of a responder: read, authenticated, and compared with the one before.

use trust_store::crl::RevocationReason;
use trust_store::ocsp::{CertificateStatus, OcspResponse, ResponseStatus, response_status};
use trust_store::provider::AwsLc;
use trust_store::{Certificate, ReasonCode, UnixTime};

static CRYPTO: AwsLc = AwsLc;

/// How far ahead of this machine's clock the responder's may be, seconds.
const MAX_SKEW: i64 = 300;

/// An answer about one certificate that its issuer, or its delegate, signed.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    response: OcspResponse,
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
    let response = match response.clone().authenticate(issuer, now, &CRYPTO) {
        Ok(authentic) => authentic,
        // Its responder's own status must be known: for the verifier, who has the lists.
        Err(denial) if denial.code == ReasonCode::RevocationUnknown => response,
        Err(denial) => {
            let why = format!("nobody whom the issuer lets answer signed it: {denial}");
            return Err(Unanswered::Refused(why));
        }
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
    Ok(Reply::Answer(Answer { response, standing, this_update, next_update }))
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
