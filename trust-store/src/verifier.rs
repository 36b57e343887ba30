//! The one offline decision: may this artifact run?
//!
//! [`Verifier::verify`] runs the numbered steps in their order. Each step takes what the one before proved and gives a
//! value that only it can make. The first failure is reported, except that `revoked` wins over every failure after
//! step 5: whoever holds a revoked key must not be able to hide behind another fault.
//!
//! | step | what |
//! |---|---|
//! | 1 | limits, parsing, shape of the attestation |
//! | 2 | artifact and manifest digests, copies for readers |
//! | 3 | signature over the statement, algorithm |
//! | 4 | signing time |
//! | 5 | certificate chain at that time |
//! | 6 | identity |
//! | 7 | certificate transparency |
//! | 8 | log entry and inclusion |
//! | 9 | checkpoint |
//! | 10 | witnesses |
//! | 11 | freshness and memory |
//! | 12 | revocation |
//! | 13 | trust policy |
//! | 14 | capabilities |

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use tlog::signature::SignatureVerifier;

use crate::attestation::{self, Attestation};
use crate::budget::Budget;
use crate::bundle::Bundle;
use crate::certificate::Certificate;
use crate::evidence::Evidence;
use crate::key_details::KeyDetails;
use crate::meter::Meter;
use crate::path::VerifiedChain;
use crate::policy::{SigningTimePolicy, TrustPolicy};
use crate::reason::{Denial, ReasonCode};
use crate::revocation::RevocationEvidence;
use crate::signature_cache::{CachedVerifier, OneVerification, SignatureCache};
use crate::time::UnixTime;
use crate::trust_material::TrustMaterial;
use crate::trusted_root::TrustedRoot;
use crate::tsp::TimestampToken;
use crate::verified::VerifiedSigning;

use self::chain::Accepted;

pub use crate::verified::{ArtifactDigest, VerifiedArtifact, VerifiedLogEntry};

mod chain;
mod content;
mod log;
mod log_view;
mod revocation;
mod signing_time;
mod trust;

#[cfg(test)]
mod tests;

/// Verifies attestations against one trusted root. Cheap to share; holds no mutable state of its own.
#[derive(Clone)]
pub struct Verifier {
    crypto: Arc<dyn SignatureVerifier>,
    cache: Option<Arc<dyn SignatureCache>>,
    material: TrustMaterial,
    #[cfg(test)]
    skipped_step: Option<u8>,
}

impl Verifier {
    /// A verifier that trusts `root` and checks signatures with `crypto`.
    ///
    /// # Errors
    /// `malformed` for a root with a certificate or key that cannot be read.
    pub fn new(crypto: Arc<dyn SignatureVerifier>, root: &TrustedRoot) -> Result<Self, Denial> {
        Ok(Self {
            crypto,
            cache: None,
            material: TrustMaterial::new(root)?,
            #[cfg(test)]
            skipped_step: None,
        })
    }

    /// Puts a cache in front of the signatures that do not belong to one artifact: certificates, SCTs, CRLs, OCSP
    /// responses, and checkpoints from the evidence.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<dyn SignatureCache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Verifies the signatures of the CRLs in `evidence` once, where their issuer is an authority of the trusted root.
    /// For evidence that serves many verifications; what does not verify stays as it is and is judged later.
    pub fn prepare(&self, evidence: &mut Evidence) {
        for crl in &mut evidence.revocation_mut().crls {
            if let Some(prepared) = self.material.authenticate_crl(crl, &*self.crypto) {
                *crl = prepared;
            }
        }
    }

    /// What this verifier trusts.
    pub fn material(&self) -> &TrustMaterial {
        &self.material
    }

    /// Decides whether the artifact with `digest` may be used, at `now`, under `policy`.
    ///
    /// # Errors
    /// The [`Denial`] of the first step that fails, or `revoked`; its code names the step.
    pub fn verify(
        &self,
        attestation: &Attestation,
        digest: ArtifactDigest,
        policy: &TrustPolicy,
        evidence: &Evidence,
        now: UnixTime,
    ) -> Result<VerifiedArtifact, Denial> {
        self.in_session(attestation, digest, policy, evidence, now, |session, meter| {
            // A check that the meter refused looks like a signature that does not verify: evidence against the artifact may
            // have gone unread, so an admission does not stand either. A revocation that was shown does.
            match session.verify(attestation) {
                Err(denial) if denial.code == ReasonCode::Revoked => Err(denial),
                _ if meter.has_refused() => Err(meter.exceeded()),
                _ if session.unread.get() => Err(Denial::new(
                    ReasonCode::BudgetExceeded,
                    "the budget ended before all evidence of revocation was looked at",
                )),
                decided => decided,
            }
        })
    }

    /// The chains that a decision about this attestation rests on: of its signer, of those who vouch for it in its further
    /// bundles, and of their timestamp authorities, each built to an anchor of the trusted root. What does not verify
    /// gives none, and neither does a signing time for which there is none; whether that denies is for the decision to say.
    ///
    /// For whoever asks for fresh evidence: any other certificate that came along, and any address in it, was chosen by
    /// whoever wrote the attestation.
    ///
    /// # Errors
    /// `budget_exceeded` if the work ended before all of them were found: somebody might not be asked about.
    pub fn chains(
        &self,
        attestation: &Attestation,
        digest: ArtifactDigest,
        deciding: Deciding<'_>,
        now: UnixTime,
    ) -> Result<Vec<VerifiedChain>, Denial> {
        let widest;
        let policy = match deciding {
            Deciding::By(policy) => policy,
            Deciding::ByAnyPolicy => {
                widest = TrustPolicy {
                    algorithms: KeyDetails::ALL.iter().map(|(details, _)| *details).collect(),
                    signing_time: SigningTimePolicy::TokenOrLogTime,
                    ..TrustPolicy::default()
                };
                &widest
            }
        };
        self.in_session(attestation, digest, policy, &Evidence::none(), now, |session, meter| {
            let found = session.all_chains(attestation, deciding);
            if meter.has_refused() { Err(meter.exceeded()) } else { found }
        })
    }

    fn in_session<R>(
        &self,
        attestation: &Attestation,
        digest: ArtifactDigest,
        policy: &TrustPolicy,
        evidence: &Evidence,
        now: UnixTime,
        run: impl FnOnce(&Session<'_>, &Meter<'_>) -> R,
    ) -> R {
        let further = attestation.further.len();
        let meter = Meter::new(&*self.crypto, further);
        let own = OneVerification::default();
        let cached = CachedVerifier::new(&meter, self.cache.as_deref().unwrap_or(&own));
        let session = Session {
            verifier: self,
            crypto: &meter,
            cached: &cached,
            budget: RefCell::new(Budget::for_bundles(further)),
            policy,
            evidence,
            revocation: evidence.with_staples(attestation),
            issuers: attestation.issuers(),
            digest,
            now,
            unread: Cell::new(false),
        };
        run(&session, &meter)
    }
}

/// Whose decision the chains of [`Verifier::chains`] stand behind.
#[derive(Clone, Copy)]
pub enum Deciding<'a> {
    /// A decision by this policy: the bundles, algorithms and signing times that it looks at.
    By(&'a TrustPolicy),
    /// A decision by whichever policy: every algorithm, signing time and statement about the artifact.
    ByAnyPolicy,
}

/// One bundle to be verified: the attestation's own, or one of its further ones.
#[derive(Clone, Copy)]
struct Part<'a> {
    bundle: &'a Bundle,
    certificate: Option<&'a Certificate>,
    tokens: &'a [Result<TimestampToken, Denial>],
}

impl<'a> Part<'a> {
    /// The attestation's own bundle.
    fn own(attestation: &'a Attestation) -> Self {
        Self {
            bundle: attestation.bundle(),
            certificate: attestation.certificate(),
            tokens: &attestation.tokens,
        }
    }
}

/// Everything that stays the same during one verification.
struct Session<'a> {
    verifier: &'a Verifier,
    crypto: &'a dyn SignatureVerifier,
    cached: &'a dyn SignatureVerifier,
    /// What is left for building paths and for the evidence of revocation, of all bundles together.
    budget: RefCell<Budget>,
    policy: &'a TrustPolicy,
    evidence: &'a Evidence,
    revocation: RevocationEvidence,
    issuers: &'a [Certificate],
    digest: ArtifactDigest,
    now: UnixTime,
    /// Whether the budget ended before all evidence of revocation was looked at, for whichever bundle.
    unread: Cell<bool>,
}

impl Session<'_> {
    /// Steps 1 to 14.
    fn verify(&self, attestation: &Attestation) -> Result<VerifiedArtifact, Denial> {
        let statement = self.step_1_shape(attestation)?;
        self.step_2_digests(attestation, statement.as_ref())?;
        let part = Part::own(attestation);
        let agent = attestation.manifest().map(|manifest| manifest.id().as_str());
        let signed =
            self.verify_signing(&part, Accepted::Signers { rules: &self.policy.identities, agent })?;
        let standing = self.step_13_trust(attestation, &signed)?;
        let granting = self.step_14_capabilities(attestation.manifest(), &signed.identity, standing.level)?;
        Ok(VerifiedArtifact {
            digest: self.digest,
            signed,
            level: standing.level,
            endorsers: standing.endorsers,
            statement,
            manifest: attestation.manifest().cloned(),
            requested: granting.requested,
            permitted: granting.permitted,
        })
    }

    /// Steps 3 to 12 for one bundle.
    fn verify_signing(&self, part: &Part<'_>, accepted: Accepted<'_>) -> Result<VerifiedSigning, Denial> {
        let signer = self.step_3_signature(part)?;
        let times = self.step_4_signing_time(part)?;
        let mut chains = self.step_5_chains(&signer, &times)?;
        let mut logged = None;
        let result = self.steps_6_to_11(part, accepted, &signer, &times, chains.last(), &mut logged);
        let revocation = self.step_12_revocation(&chains, &times, logged);
        let (standing, logs) = match (result, revocation) {
            // Not only when everything else passed: a revocation that is shown is always what is reported.
            (_, Err(revoked)) if revoked.code == ReasonCode::Revoked => return Err(revoked),
            (Err(denial), _) => return Err(denial),
            (Ok(_), Err(denial)) => return Err(denial),
            (Ok(passed), Ok(_)) => passed,
        };
        Ok(VerifiedSigning {
            identity: standing.identity,
            level: standing.level,
            times: times.all(),
            chain: chains.pop(),
            logs,
        })
    }

    /// The chains of the attestation's own bundle and of those further ones that step 13 looks at.
    fn all_chains(
        &self,
        attestation: &Attestation,
        deciding: Deciding<'_>,
    ) -> Result<Vec<VerifiedChain>, Denial> {
        let mut chains = Vec::new();
        extend_by(&mut chains, self.chains(&Part::own(attestation)))?;
        for bundle in &attestation.further {
            if !self.is_looked_at(bundle, deciding) {
                continue;
            }
            let Ok(certificate) = bundle.certificate().map(Certificate::from_der).transpose() else {
                continue;
            };
            let tokens = attestation::read_tokens(bundle);
            let part = Part { bundle, certificate: certificate.as_ref(), tokens: &tokens };
            extend_by(&mut chains, self.chains(&part))?;
        }
        Ok(chains)
    }

    /// The chains of one bundle: steps 3 to 5, each signing time by itself.
    fn chains(&self, part: &Part<'_>) -> Result<Vec<VerifiedChain>, Denial> {
        let signer = self.step_3_signature(part)?;
        let times = self.step_4_signing_time(part)?;
        let mut chains = self.chains_of_each_time(&signer, &times)?;
        chains.extend(times.authorities().map(|(chain, _)| chain.clone()));
        Ok(chains)
    }

    /// `logged` becomes the time from which the signature is shown to have stood in its logs, also where a later step
    /// fails: step 12 needs it to tell a signature that is older than a revocation.
    fn steps_6_to_11(
        &self,
        part: &Part<'_>,
        accepted: Accepted<'_>,
        signer: &content::VerifiedSignature<'_>,
        times: &signing_time::SigningTimes,
        chain: Option<&VerifiedChain>,
        logged: &mut Option<UnixTime>,
    ) -> Result<(chain::AcceptedIdentity, Vec<VerifiedLogEntry>), Denial> {
        let standing = self.step_6_identity(signer, accepted)?;
        self.step_7_certificate_transparency(chain)?;
        let included = self.step_8_inclusion(part, signer)?;
        let views = self.step_9_checkpoints(included, times)?;
        *logged = self.logged_since(&views);
        self.step_10_witnesses(&views)?;
        let logs = self.step_11_freshness(views)?;
        Ok((standing, logs))
    }

    /// The only gate between a check and its consequence. A build for this crate's own tests can open the gate of one
    /// step, to show that exactly that step's tests then fail; no other build has the switch.
    fn enforce(&self, step: u8, result: Result<(), Denial>) -> Result<(), Denial> {
        #[cfg(test)]
        if self.verifier.skipped_step == Some(step) {
            return Ok(());
        }
        debug_assert!((1..=14).contains(&step), "steps are numbered 1 to 14");
        result
    }
}

/// Adds what was found. That a bundle does not verify is an answer; that nobody knows is none.
fn extend_by(
    chains: &mut Vec<VerifiedChain>,
    found: Result<Vec<VerifiedChain>, Denial>,
) -> Result<(), Denial> {
    match found {
        Err(denial) if denial.code == ReasonCode::BudgetExceeded => return Err(denial),
        Err(_) => {}
        Ok(found) => chains.extend(found),
    }
    Ok(())
}

fn denied(code: ReasonCode, detail: impl Into<alloc::borrow::Cow<'static, str>>) -> Denial {
    Denial::new(code, detail)
}
