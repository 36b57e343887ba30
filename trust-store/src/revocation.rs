//! Is a certificate revoked? The decision over CRLs (RFC 5280 §6.3) and OCSP responses (RFC 6960 §3.2).
//!
//! * Evidence counts only if its signer is authorised: for a CRL the certificate's issuer or another key with a valid
//!   path to the same trust anchor, not itself revoked; for OCSP the issuer or its direct delegate.
//! * Any valid "revoked" wins over any "good"; among the good ones the newest decides; "unknown" is no evidence.
//! * Evidence that is not current, or older than the policy's maximum age, is [`RevocationStatus::Unknown`]. An
//!   authentic old "revoked" still denies a chain, also one of a delta that no base at hand goes with: revocations are
//!   not taken back. Only a hold of a delta ends with a newer list that no longer shows it.
//! * Past a certificate's expiry, absence from a CRL means "good" only if the CRL carries `expiredCertsOnCRL` that
//!   reaches back to the expiry, and no OCSP "good" counts.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tlog::signature::SignatureVerifier;

use crate::announcement::Announcements;
use crate::budget::Budget;
use crate::certificate::Certificate;
use crate::crl::{Crl, RevocationReason};
use crate::extension::DistributionPoints;
use crate::name_text::wrap;
use crate::ocsp::OcspResponse;
use crate::path::VerifiedChain;
use crate::reason::{Denial, ReasonCode};
use crate::revocation_assessment::{Assessor, Scope, keep_gravest};
use crate::time::UnixTime;
use crate::x690::{Reader, tag};

/// How far apart the clocks of the issuer and the verifier may be by default, in seconds.
pub const DEFAULT_CLOCK_SKEW_SECONDS: i64 = 300;

/// What is known about a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RevocationStatus {
    /// Not revoked, as of the newest current evidence.
    Good {
        /// When that evidence was issued.
        this_update: UnixTime,
        /// Until when it may be relied on.
        next_update: UnixTime,
    },
    /// Revoked.
    Revoked {
        /// From when signatures are not trusted: the revocation date, or the invalidity date if that is earlier.
        at: UnixTime,
        /// Why.
        reason: RevocationReason,
    },
    /// No current and authentic evidence.
    Unknown,
}

/// What "unknown" means for a chain. The default denies.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RevocationMode {
    /// Every certificate below the anchor needs a "good".
    #[default]
    Require,
    /// Only "revoked" denies; "unknown" passes. Weakens the check.
    DangerIfPresent,
    /// Nothing is checked. Weakens the check.
    DangerSkip,
}

/// What a revocation means for a signature that provably existed before it. The default denies.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum EarlierSignatures {
    /// A revoked certificate denies, whenever the signature was made.
    #[default]
    Reject,
    /// A signature that is shown to have been stamped and logged before the revocation takes effect stays good.
    AcceptProvenBefore,
}

/// What is demanded of the certificates of a timestamp authority (RFC 3161 §4.1). A revocation that is shown always denies.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AuthorityStatus {
    /// Nothing needs to be shown: bundles of other clients carry no evidence about an authority, and an operator ends its
    /// service in the trusted root (`validFor`).
    #[default]
    RevokedDenies,
    /// As of the signer's chain: each certificate needs a "good" where the mode demands one.
    LikeTheSigner,
}

/// The rules of a revocation check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RevocationPolicy {
    /// What "unknown" means.
    pub mode: RevocationMode,
    /// The greatest age of evidence in seconds, besides its own next update; `None` for no further limit.
    pub max_age_seconds: Option<i64>,
    /// How many seconds the clocks may differ.
    pub clock_skew_seconds: i64,
    /// What a revocation means for earlier signatures.
    pub earlier_signatures: EarlierSignatures,
    /// What is demanded of timestamp authorities.
    pub timestamp_authorities: AuthorityStatus,
}

impl Default for RevocationPolicy {
    fn default() -> Self {
        Self {
            mode: RevocationMode::Require,
            max_age_seconds: None,
            clock_skew_seconds: DEFAULT_CLOCK_SKEW_SECONDS,
            earlier_signatures: EarlierSignatures::Reject,
            timestamp_authorities: AuthorityStatus::RevokedDenies,
        }
    }
}

/// CRLs, OCSP responses and the certificates of their signers, in any order. Nothing in it needs to be trusted.
#[derive(Clone, Debug, Default)]
pub struct RevocationEvidence {
    /// Complete and delta lists. Big ones should be [authenticated](Crl::authenticate) once, on load.
    pub crls: Vec<Crl>,
    /// OCSP responses.
    pub ocsp: Vec<OcspResponse>,
    /// OCSP responses of whoever asks about many certificates; looked at for the certificate that each was asked about.
    pub answers: Answers,
    /// Certificates that may be needed for the paths of CRL issuers.
    pub certificates: Vec<Certificate>,
    /// What the CAs announced beside their lists: refuses as a list does that says "revoked", and takes the place of none.
    pub announced: Announcements,
}

/// OCSP responses by the certificate that each was asked about: however many there are, a check reads those of its own
/// certificates. Nothing in it needs to be trusted either. Copying counts references.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<BTreeMap<[u8; 32], Vec<OcspResponse>>>);

impl Answers {
    /// Answers by the SHA-256 of the certificate; several about one are all read.
    pub fn new(answers: impl IntoIterator<Item = ([u8; 32], OcspResponse)>) -> Self {
        let mut all: BTreeMap<[u8; 32], Vec<OcspResponse>> = BTreeMap::new();
        for (certificate, answer) in answers {
            all.entry(certificate).or_default().push(answer);
        }
        Self(Arc::new(all))
    }

    /// All of them, in the order of the certificates' digests.
    pub fn iter(&self) -> impl Iterator<Item = &OcspResponse> {
        self.0.values().flatten()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was answered about this certificate.
    pub(crate) fn of(&self, certificate: &Certificate) -> &[OcspResponse] {
        if self.0.is_empty() {
            return &[];
        }
        self.0.get(&certificate.fingerprint()).map_or(&[], Vec::as_slice)
    }
}

/// One check: evidence, rules and times.
#[derive(Clone, Copy)]
pub struct RevocationCheck<'a> {
    /// What is known.
    pub evidence: &'a RevocationEvidence,
    /// The rules.
    pub policy: &'a RevocationPolicy,
    /// The time at which the evidence must be current.
    pub now: UnixTime,
    /// A time at which the signature in question provably existed already and stood in the log, if any.
    pub proven_at: Option<UnixTime>,
    /// Candidates for the paths of CRL issuers, besides the chain and the evidence's certificates.
    pub intermediates: &'a [Certificate],
    /// Who checks signatures.
    pub verifier: &'a dyn SignatureVerifier,
}

/// The proof that a chain was checked under a policy and not found revoked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NotRevoked {
    statuses: Vec<RevocationStatus>,
    mode: RevocationMode,
}

impl NotRevoked {
    /// The status of every certificate below the anchor, from the first one up; empty if nothing was checked.
    pub fn statuses(&self) -> &[RevocationStatus] {
        &self.statuses
    }

    /// The mode the check was made in.
    pub fn mode(&self) -> RevocationMode {
        self.mode
    }

    /// Until when the evidence of every certificate may be relied on; `None` if some have none.
    pub fn current_until(&self) -> Option<UnixTime> {
        let each = self.statuses.iter().map(|status| match status {
            RevocationStatus::Good { next_update, .. } => Some(*next_update),
            _ => None,
        });
        each.collect::<Option<Vec<_>>>()?.into_iter().min()
    }
}

/// What the evidence says about one certificate, and why it says no more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Assessment {
    /// The status by current evidence.
    pub status: RevocationStatus,
    /// Authentic evidence that is not current says that the certificate is revoked.
    pub revoked_by_old_evidence: Option<(UnixTime, RevocationReason)>,
    /// For [`RevocationStatus::Unknown`]: the best explanation, `revocation_stale` if there was evidence that is
    /// not current, the failure of a signature or a signer if that kept evidence from counting, else
    /// `revocation_unknown`.
    pub shortfall: Option<Denial>,
}

impl Assessment {
    /// The revocation by current evidence, else by evidence that is not current. What older evidence says against the key
    /// itself stays true, but for a hold, which may have ended.
    pub(crate) fn revocation(&self) -> Option<(UnixTime, RevocationReason)> {
        match self.status {
            RevocationStatus::Revoked { at, reason } => {
                let old = self.revoked_by_old_evidence.map(|(_, reason)| reason);
                let old = old.filter(|reason| *reason != RevocationReason::CertificateHold);
                Some((at, old.map_or(reason, |old| reason.or_graver(old))))
            }
            _ => self.revoked_by_old_evidence,
        }
    }
}

impl RevocationCheck<'_> {
    /// Checks every certificate of a chain below its anchor.
    ///
    /// # Errors
    /// `revoked`, `revocation_stale`, `revocation_unknown` or `budget_exceeded`; `revoked` wins, also over the end of
    /// the budget.
    pub fn check_chain(&self, chain: &VerifiedChain, budget: &mut Budget) -> Result<NotRevoked, Denial> {
        self.refuse_listed(chain, budget)?;
        self.weigh_chain(chain, budget)
    }

    /// The first half of [`RevocationCheck::check_chain`], over all links: what was verified on load or announced. For all chains of a
    /// decision before the second half of any: nobody's junk evidence may use up the budget before this is looked at.
    pub(crate) fn refuse_listed(&self, chain: &VerifiedChain, budget: &mut Budget) -> Result<(), Denial> {
        if self.policy.mode == RevocationMode::DangerSkip {
            return Ok(());
        }
        let scope = Scope { chain: chain.certificates() };
        for (certificate, issuer) in chain.links() {
            let listed = Assessor::new(self, scope, budget).listed_when_loaded(certificate, issuer);
            self.refuse_revoked(certificate, self.announced(certificate, issuer))?;
            self.refuse_revoked(certificate, listed)?;
        }
        Ok(())
    }

    /// What the certificate's CA announced, dated no later than the clocks may differ. It refuses, and is no evidence beside
    /// that: a chain whose revocation a policy forgives still needs the lists and answers that the policy demands.
    pub(crate) fn announced(
        &self,
        certificate: &Certificate,
        issuer: &Certificate,
    ) -> Option<(UnixTime, RevocationReason)> {
        let latest = self.now.plus(self.policy.clock_skew_seconds.max(0));
        self.evidence.announced.of(certificate, issuer, latest)
    }

    /// The second half of [`RevocationCheck::check_chain`]: all evidence.
    pub(crate) fn weigh_chain(
        &self,
        chain: &VerifiedChain,
        budget: &mut Budget,
    ) -> Result<NotRevoked, Denial> {
        let mode = self.policy.mode;
        if mode == RevocationMode::DangerSkip {
            return Ok(NotRevoked { statuses: Vec::new(), mode });
        }
        let scope = Scope { chain: chain.certificates() };
        let mut statuses = Vec::new();
        let mut shortfall: Option<Denial> = None;
        let mut exceeded: Option<Denial> = None;
        for (certificate, issuer) in chain.links() {
            let (assessment, weighed) = Assessor::new(self, scope, budget).weigh(certificate, issuer);
            self.refuse_revoked(certificate, assessment.revocation())?;
            exceeded = exceeded.or(weighed.err());
            if assessment.status == RevocationStatus::Unknown && shortfall.is_none() {
                shortfall = Some(denial_of_unknown(certificate, assessment.shortfall));
            }
            statuses.push(assessment.status);
        }
        if let Some(denial) = exceeded {
            return Err(denial);
        }
        match shortfall {
            Some(denial) if mode == RevocationMode::Require => Err(denial),
            _ => Ok(NotRevoked { statuses, mode }),
        }
    }

    /// Checks the chain of an authority that made a token at `time`. A certificate that was retired in order (affiliation
    /// changed, superseded, operation ceased) leaves tokens good that are older than its revocation; with any other
    /// reason, or none, no token of its key counts any more (RFC 3161 §4.1).
    ///
    /// # Errors
    /// As [`RevocationCheck::check_chain`].
    pub fn check_timestamp_authority(
        &self,
        chain: &VerifiedChain,
        time: UnixTime,
        budget: &mut Budget,
    ) -> Result<(), Denial> {
        self.refuse_listed_authority(chain, time, budget)?;
        self.weigh_authority(chain, time, budget)
    }

    /// As [`RevocationCheck::refuse_listed`], for a timestamp authority.
    pub(crate) fn refuse_listed_authority(
        &self,
        chain: &VerifiedChain,
        time: UnixTime,
        budget: &mut Budget,
    ) -> Result<(), Denial> {
        if self.policy.mode == RevocationMode::DangerSkip {
            return Ok(());
        }
        let scope = Scope { chain: chain.certificates() };
        for (certificate, issuer) in chain.links() {
            let listed = Assessor::new(self, scope, budget).listed_when_loaded(certificate, issuer);
            refuse_revoked_authority(certificate, self.announced(certificate, issuer), time)?;
            refuse_revoked_authority(certificate, listed, time)?;
        }
        Ok(())
    }

    /// As [`RevocationCheck::weigh_chain`], for a timestamp authority.
    pub(crate) fn weigh_authority(
        &self,
        chain: &VerifiedChain,
        time: UnixTime,
        budget: &mut Budget,
    ) -> Result<(), Denial> {
        if self.policy.mode == RevocationMode::DangerSkip {
            return Ok(());
        }
        let needs_good = self.policy.mode == RevocationMode::Require
            && self.policy.timestamp_authorities == AuthorityStatus::LikeTheSigner;
        let scope = Scope { chain: chain.certificates() };
        let mut shortfall: Option<Denial> = None;
        let mut exceeded: Option<Denial> = None;
        for (certificate, issuer) in chain.links() {
            let (assessment, weighed) = Assessor::new(self, scope, budget).weigh(certificate, issuer);
            refuse_revoked_authority(certificate, assessment.revocation(), time)?;
            exceeded = exceeded.or(weighed.err());
            if assessment.status == RevocationStatus::Unknown
                && assessment.revocation().is_none()
                && shortfall.is_none()
            {
                shortfall = Some(denial_of_unknown(certificate, assessment.shortfall));
            }
        }
        // Evidence that nobody looked at may be a revocation, whatever else is demanded.
        match exceeded {
            Some(denial) => Err(denial),
            None => shortfall.filter(|_| needs_good).map_or(Ok(()), Err),
        }
    }

    /// What the evidence says about one certificate of this issuer. CRLs of other issuers need a path to `issuer`.
    ///
    /// # Errors
    /// `budget_exceeded`
    pub fn assess(
        &self,
        certificate: &Certificate,
        issuer: &Certificate,
        budget: &mut Budget,
    ) -> Result<Assessment, Denial> {
        let chain = [certificate.clone(), issuer.clone()];
        let mut assessment =
            Assessor::new(self, Scope { chain: &chain }, budget).assess(certificate, issuer)?;
        if let Some((at, reason)) = self.announced(certificate, issuer) {
            let mut revoked = match assessment.status {
                RevocationStatus::Revoked { at, reason } => Some((at, reason)),
                _ => None,
            };
            keep_gravest(&mut revoked, at, reason);
            if let Some((at, reason)) = revoked {
                assessment.status = RevocationStatus::Revoked { at, reason };
            }
        }
        Ok(assessment)
    }

    /// Like [`RevocationCheck::assess`], with one distribution point URI in the place of those that the certificate
    /// names.
    ///
    /// # Errors
    /// `budget_exceeded`, `malformed` for a URI that cannot be one.
    pub fn assess_at(
        &self,
        certificate: &Certificate,
        issuer: &Certificate,
        distribution_point: &str,
        budget: &mut Budget,
    ) -> Result<Assessment, Denial> {
        let value = distribution_points_der(distribution_point);
        let points = Reader::new(&value).and_then(DistributionPoints::read);
        let points = points.map_err(|error| error.denial("distribution point"))?;
        let chain = [certificate.clone(), issuer.clone()];
        let mut assessor = Assessor::new(self, Scope { chain: &chain }, budget);
        assessor.points_of_leaf = Some(points);
        assessor.assess(certificate, issuer)
    }

    fn refuse_revoked(
        &self,
        certificate: &Certificate,
        revocation: Option<(UnixTime, RevocationReason)>,
    ) -> Result<(), Denial> {
        let Some((at, reason)) = revocation.filter(|(at, _)| !self.is_proven_before(*at)) else {
            return Ok(());
        };
        let (serial, reason) = (hex::encode(certificate.serial()), reason.as_str());
        let detail = format!("certificate {serial} is revoked since {at} ({reason})");
        Err(Denial::new(ReasonCode::Revoked, detail))
    }

    fn is_proven_before(&self, revoked_at: UnixTime) -> bool {
        self.policy.earlier_signatures == EarlierSignatures::AcceptProvenBefore
            && self.proven_at.is_some_and(|proven| proven < revoked_at)
    }

    /// True if evidence with these updates is current under the policy.
    pub(crate) fn is_current(&self, this_update: UnixTime, next_update: Option<UnixTime>) -> bool {
        let skew = self.policy.clock_skew_seconds.max(0);
        let young = self.policy.max_age_seconds.is_none_or(|limit| self.now.since(this_update) <= limit);
        this_update <= self.now.plus(skew)
            && next_update.is_some_and(|next| self.now <= next.plus(skew))
            && young
    }
}

/// The DER value of a cRLDistributionPoints extension with one URI.
fn distribution_points_der(uri: &str) -> Vec<u8> {
    // uniformResourceIdentifier, fullName, distributionPoint, DistributionPoint, CRLDistributionPoints
    [0x86, 0xa0, 0xa0, tag::SEQUENCE, tag::SEQUENCE]
        .iter()
        .fold(uri.as_bytes().to_vec(), |content, tag| wrap(*tag, &content))
}

/// Refuses a timestamp authority's certificate that is revoked, but for one retired in order after the token's `time`.
fn refuse_revoked_authority(
    certificate: &Certificate,
    revocation: Option<(UnixTime, RevocationReason)>,
    time: UnixTime,
) -> Result<(), Denial> {
    let Some((at, reason)) = revocation.filter(|(at, reason)| !(reason.is_retirement() && time < *at)) else {
        return Ok(());
    };
    let (serial, reason) = (hex::encode(certificate.serial()), reason.as_str());
    let detail = format!("certificate {serial} of the timestamp authority is revoked since {at} ({reason})");
    Err(Denial::new(ReasonCode::Revoked, detail))
}

/// The denial for a chain: only the two codes of step 12, with what stood in the way as detail.
fn denial_of_unknown(certificate: &Certificate, shortfall: Option<Denial>) -> Denial {
    let serial = hex::encode(certificate.serial());
    match shortfall {
        Some(Denial { code: ReasonCode::RevocationStale, detail }) => {
            Denial::new(ReasonCode::RevocationStale, format!("certificate {serial}: {detail}"))
        }
        Some(Denial { detail, .. }) => {
            Denial::new(ReasonCode::RevocationUnknown, format!("certificate {serial}: {detail}"))
        }
        None => Denial::new(ReasonCode::RevocationUnknown, format!("certificate {serial}: no evidence")),
    }
}
