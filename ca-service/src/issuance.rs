//! Issuance in the order of ca-requirements §3: nothing is signed before its record is durable.
//!
//! [`CertificateAuthority::prepare`] decides, builds, lints and records; it returns an [`IssuanceToken`] that
//! [`CertificateAuthority::issue`] consumes. A token exists once, so one intent is signed once. Who goes on at once takes
//! `certify`, where the intent and the beginning of its signature become durable together.

use std::sync::Arc;
use std::time::Duration;

use ca_pki::certificate::{Decided, Form, build};
use ca_pki::lint::{self, CertificateRules};
use ca_pki::oid::ObjectIdentifier;
use ca_pki::profile::{Kind, Profile, SctPolicy};
use ca_pki::sct::{self, SignedCertificateTimestamp};
use ca_pki::{Identity, SerialNumber, SubjectPublicKey, ToBeSigned, UnixTime};
use hsm::{ErrorClass, Purpose};
use trust_store::provider::AwsLc;
use trust_store::sorted_json::SortedJson;

use crate::allowance::Counted;
use crate::authority::{CertificateAuthority, LoadedAuthority, LoggedTo, intent_id};
use crate::error::CaError;
use crate::queue::{Granted, Proof};
use crate::storage::{IntentId, NewIntent, State, Step, StoreError, StoredCertificate, UsedIdentityToken};

/// How long to wait before each further attempt when the signer says that nothing was signed and later may be better.
const TRANSIENT_PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1_500)];

/// A request whose requester was authenticated and authorised.
#[derive(Debug, Clone)]
pub struct AuthorisedRequest {
    /// The identity that was proven.
    pub identity: Identity,
    /// The key whose possession was proven.
    pub public_key: SubjectPublicKey,
    /// Name of the profile.
    pub profile: String,
    /// Who vouches for the identity, a URL.
    pub identity_issuer: String,
    /// Further extensions that the proof justifies, in ascending order of their numbers.
    pub claims: Vec<(ObjectIdentifier, String)>,
    /// Who asks, for records.
    pub requester: String,
    /// The requester's own id of the request.
    pub request_id: Option<String>,
    /// SHA-256 of the one-time token to use up.
    pub token: Option<[u8; 32]>,
    /// The identity token to use up, where its issuer's are for one certificate.
    pub identity_token: Option<UsedIdentityToken>,
    /// How they proved who they are: it counts into how many people must approve.
    pub proof: Proof,
    /// The proof that people approved exactly this, where they must.
    pub approved: Option<Granted>,
    /// What the decision was based on, JSON.
    pub evidence: SortedJson,
}

/// Permission to sign one recorded intent, once.
#[must_use = "an intent that is not issued is abandoned by the reconciler"]
#[derive(Debug)]
pub struct IssuanceToken {
    pub(crate) intent: IntentId,
    pub(crate) serial: SerialNumber,
    pub(crate) issuer: String,
    pub(crate) kind: Kind,
    pub(crate) step: Step,
    pub(crate) tbs: ToBeSigned,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    pub(crate) approved: Option<Granted>,
}

impl IssuanceToken {
    /// Particulars of the audit record that is durable before the signature.
    fn detail(&self) -> SortedJson {
        let mut detail = serde_json::json!({
            "intent": hex::encode(self.intent),
            "serial": self.serial.to_string(),
            "issuer": self.issuer,
            "profile": self.kind.as_str(),
            "tbs_sha256": hex::encode(self.tbs.sha256()),
        });
        if let (Some(approved), Some(members)) = (&self.approved, detail.as_object_mut()) {
            members.insert("approval".to_owned(), approved.record());
        }
        detail.into()
    }
}

/// What became of a precertificate.
pub(crate) struct Finished {
    pub(crate) certificate: Vec<u8>,
    pub(crate) log_index: Option<u64>,
}

/// A finished certificate.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Id of the issuance.
    pub intent: IntentId,
    /// Serial number.
    pub serial: SerialNumber,
    /// Name of the issuing authority.
    pub issuer: String,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// Its issuers, nearest first, the root last, DER.
    pub chain: Vec<Vec<u8>>,
    /// First second of validity.
    pub not_before: UnixTime,
    /// Last second of validity.
    pub not_after: UnixTime,
    /// Index in the issuance log.
    pub log_index: Option<u64>,
}

impl CertificateAuthority {
    /// Decides, builds, lints and records a subscriber's certificate (steps 1 to 5).
    ///
    /// # Errors
    /// [`CaError`]; nothing was signed, and nothing is recorded unless the store says [`crate::storage::StoreError::Unavailable`].
    pub async fn prepare(&self, request: AuthorisedRequest) -> Result<IssuanceToken, CaError> {
        let (token, intent) = self.decide(request)?;
        self.store.record_intent(intent).await?;
        Ok(token)
    }

    /// The whole of an issuance, for a caller that runs to its end itself: as [`Self::prepare`] and [`Self::issue`], but the
    /// intent and the audit record of its signature are durable by one commit instead of two. Both are before the signature.
    /// Refuses an identity or a requester that has had as many as they may.
    pub(crate) async fn certify(self: &Arc<Self>, request: AuthorisedRequest) -> Result<Issued, CaError> {
        let counted = Counted::of(&request);
        let (token, intent) = self.decide(request)?;
        // What could not be signed afterwards is not begun.
        self.still_serves()?;
        self.take_allowance(&counted, &intent)?;
        let begun = self.store.begin_issuance(intent, token.detail()).await;
        begun.inspect_err(|error| {
            // Whether it stands is not known then.
            if !matches!(error, StoreError::Unavailable(_)) {
                self.allowances.give_back(&counted, self.clock.monotonic());
            }
        })?;
        // The CA's own revocation may have been in the same commit.
        if let Err(refused) = self.may_issue(&token.issuer, token.not_before) {
            let (reason, now) = (refused.to_string(), self.clock.for_records());
            self.store.undo_signing(token.intent, None, &reason, now).await?;
            self.metrics.abandoned.inc();
            self.allowances.give_back(&counted, self.clock.monotonic());
            return Err(refused);
        }
        self.sign_begun(token, Some(&counted)).await
    }

    fn take_allowance(&self, counted: &Counted, intent: &NewIntent) -> Result<(), CaError> {
        self.allowances.take(counted, self.clock.monotonic()).map_err(|exceeded| {
            self.metrics.issuance_limited.inc();
            let (requester, after_seconds) = (&intent.requester, exceeded.retry_after_seconds);
            let identity = intent.identity.as_ref().map_or("", Identity::as_str);
            tracing::warn!(requester, identity, after_seconds, "as many certificates as may be were issued");
            CaError::TooManyCertificates { after_seconds }
        })
    }

    /// Decides, builds and lints (steps 1 to 4): what is to be recorded, and the permission to sign it once it is. What people must
    /// approve is refused here without the proof that they did, whoever asks.
    pub(crate) fn decide(&self, request: AuthorisedRequest) -> Result<(IssuanceToken, NewIntent), CaError> {
        self.refuse_unapproved(&request, self.clock.now()?)?;
        self.draw_up(request)
    }

    /// Builds and lints what would be issued.
    pub(crate) fn draw_up(&self, request: AuthorisedRequest) -> Result<(IssuanceToken, NewIntent), CaError> {
        let now = self.clock.now()?;
        let profile = self.profile(&request.profile)?;
        if profile.kind() == Kind::CodeSigningBaseline {
            return Err(CaError::KeyEvidenceMissing);
        }
        if self.settings.blocked_keys.contains(&request.public_key.spki_sha256()) {
            return Err(CaError::KeyCompromised);
        }
        let (issuing, issuer) = self.issuing(now)?;
        let serial = self.serial(now)?;
        let subject = profile.subject_for(&request.identity)?;
        let (form, step) = match profile.sct() {
            SctPolicy::Embedded => (Form::Precertificate, Step::Precertificate),
            SctPolicy::Absent => (Form::Certificate, Step::Certificate),
        };
        let decided = Decided {
            serial: &serial,
            subject: &subject,
            identity: Some(&request.identity),
            public_key: &request.public_key,
            not_before: now,
            identity_issuer: Some(&request.identity_issuer),
            claims: &request.claims,
        };
        let tbs = build(profile, issuer, &decided, form)?;
        let rules = CertificateRules { kind: profile.kind(), issuer: Some(issuer) };
        lint::certificate(&tbs.unsigned(), &rules).into_result()?;
        let not_after = now.plus(profile.lifetime() - 1).min(issuer.not_after);
        let intent = intent_id(now)?;
        let renews = match request.proof {
            Proof::Certificate { serial: Some(serial), .. } => Some(serial),
            Proof::Certificate { serial: None, .. } => {
                return Err(CaError::Inconsistent("a renewal does not say of what"));
            }
            Proof::Code | Proof::IdentityToken { .. } | Proof::Token { .. } => None,
        };
        let new = NewIntent {
            intent,
            shard: serial.shard(issuer.status.shards),
            serial: serial.clone(),
            issuer: issuing.name.clone(),
            profile: profile.name().to_owned(),
            spki_sha256: request.public_key.spki_sha256(),
            identity: Some(request.identity),
            requester: request.requester,
            request_id: request.request_id,
            evidence: request.evidence,
            token: request.token,
            identity_token: request.identity_token,
            approved: request.approved.as_ref().map(Granted::id),
            renews,
            not_before: now,
            not_after,
            step,
            tbs: tbs.as_der().to_vec(),
            at: now,
        };
        let token = IssuanceToken {
            intent,
            serial,
            issuer: issuing.name.clone(),
            kind: profile.kind(),
            step,
            tbs,
            not_before: now,
            not_after,
            approved: request.approved,
        };
        Ok((token, new))
    }

    /// Signs, records, logs (steps 6 to 10). Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// [`CaError`]; what was recorded stays, and the reconciler closes it.
    pub async fn issue(self: &Arc<Self>, token: IssuanceToken) -> Result<Issued, CaError> {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move { this.sign_and_log(token).await });
        match task.await {
            Ok(outcome) => outcome,
            Err(_) => Err(CaError::Inconsistent("the issuance task ended early")),
        }
    }

    /// As [`Self::issue`], for a caller that runs to its end itself.
    pub(crate) async fn sign_and_log(self: &Arc<Self>, token: IssuanceToken) -> Result<Issued, CaError> {
        let now = self.clock.now()?;
        // Decided before, perhaps while the CA's own certificate was being revoked.
        self.may_issue(&token.issuer, now)?;
        self.still_serves()?;
        self.store.begin_signing(token.intent, token.detail(), now).await.map_err(|error| match error {
            // An order that meant it, too, was faster.
            StoreError::StateConflict => CaError::IssuanceFailed,
            error => at_signing(error),
        })?;
        self.sign_begun(token, None).await
    }

    /// Signs what is recorded as being signed, records and logs it; gives back what it was counted as where nothing was signed.
    async fn sign_begun(
        self: &Arc<Self>,
        token: IssuanceToken,
        counted: Option<&Counted>,
    ) -> Result<Issued, CaError> {
        let IssuanceToken { intent, serial, issuer, kind, step, tbs, not_before, not_after, .. } = token;
        let signed = self.sign_recorded(&issuer, &intent, &tbs, None).await;
        let (signature, signed) = signed.inspect_err(|error| {
            if let (Some(counted), CaError::Signing(error)) = (counted, error)
                && says_that_nothing_was_signed(error)
            {
                self.allowances.give_back(counted, self.clock.monotonic());
            }
        })?;
        let (certificate, log_index) = match step {
            Step::Certificate => {
                self.store.record_signed(intent, signature, self.clock.for_records()).await?;
                let index = self.submit_certificate(&issuer, &signed).await?;
                (signed, index)
            }
            Step::Precertificate => {
                self.store.record_precertificate(intent, signature.clone(), self.clock.for_records()).await?;
                let finished = self.finish_precertificate(&intent, &issuer, kind, &tbs, &signature).await?;
                (finished.certificate, finished.log_index)
            }
        };
        self.mark_delivered_behind(intent, log_index);
        self.metrics.issued.inc();
        let chain = self.authority(&issuer)?.chain.clone();
        Ok(Issued { intent, serial, issuer, certificate, chain, not_before, not_after, log_index })
    }

    /// Signs bytes whose record is durable; returns the signature and the object, which contains exactly those bytes (C12).
    /// `precertificate` has the to-be-signed bytes of the step before, if there was one.
    async fn sign_recorded(
        &self,
        issuer: &str,
        intent: &IntentId,
        tbs: &ToBeSigned,
        precertificate: Option<&[u8]>,
    ) -> Result<(Vec<u8>, Vec<u8>), CaError> {
        let authority = self.authority(issuer)?;
        let mut pauses = TRANSIENT_PAUSES.iter();
        let outcome = loop {
            match self.sign(authority, Purpose::Certificate, intent, tbs.as_der()).await {
                // A full queue or a limit of the moment: nothing was signed, so the same intent may be handed in again.
                Err(error) if error.class() == ErrorClass::Transient => match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => break Err(error),
                },
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(signature) => {
                let object = tbs.assemble(&signature)?;
                Ok((signature, object))
            }
            Err(error) if says_that_nothing_was_signed(&error) => {
                let (reason, before) = (error.to_string(), precertificate.map(<[u8]>::to_vec));
                self.store.undo_signing(*intent, before, &reason, self.clock.for_records()).await?;
                if precertificate.is_none() {
                    self.metrics.abandoned.inc();
                }
                tracing::warn!(intent = hex::encode(intent), reason, "nothing was signed");
                Err(error.into())
            }
            Err(error) => {
                // Whether a signature exists is known to the key's device alone; the record says so.
                let reason = error.to_string();
                self.metrics.maybe_issued.inc();
                self.store.mark_maybe_issued(*intent, &reason, self.clock.for_records()).await?;
                tracing::error!(
                    intent = hex::encode(intent),
                    reason,
                    "a signature may exist without a record"
                );
                Err(error.into())
            }
        }
    }

    /// Takes a signed precertificate to its certificate: log, verify the SCT, embed, check, lint, record, sign, record.
    pub(crate) async fn finish_precertificate(
        &self,
        intent: &IntentId,
        issuer_name: &str,
        kind: Kind,
        tbs: &ToBeSigned,
        signature: &[u8],
    ) -> Result<Finished, CaError> {
        let LoggedTo { log, public_key } = self
            .issuance_log
            .as_ref()
            .ok_or(CaError::Inconsistent("a precertificate without an issuance log"))?;
        let (authority, issuer) = self.issuer(issuer_name)?;
        let mut chain = vec![tbs.assemble(signature)?];
        chain.extend(authority.chain.iter().cloned());
        let serialized = log.add_precertificate(chain).await?;
        let promise = SignedCertificateTimestamp::parse(&serialized)?;
        let now = self.clock.now()?;
        promise.verify(tbs.as_der(), &issuer.public_key, public_key, now, &AwsLc)?;
        let certificate = sct::embed(tbs, &promise)?;
        sct::corresponds(tbs.as_der(), certificate.as_der())?;
        let rules = CertificateRules { kind, issuer: Some(issuer) };
        lint::certificate(&certificate.unsigned(), &rules).into_result()?;
        let bytes = certificate.as_der().to_vec();
        self.may_issue(issuer_name, now)?;
        self.still_serves()?;
        let begun = self.store.begin_certificate(*intent, serialized, promise.leaf_index(), bytes, now).await;
        begun.map_err(at_signing)?;
        let (signature, object) =
            self.sign_recorded(issuer_name, intent, &certificate, Some(tbs.as_der())).await?;
        self.store.record_signed(*intent, signature, self.clock.for_records()).await?;
        Ok(Finished { certificate: object, log_index: promise.leaf_index() })
    }

    /// Has a certificate without an embedded SCT logged, where a log is configured (rule c: before delivery); returns the
    /// index of its entry.
    async fn submit_certificate(&self, issuer: &str, certificate: &[u8]) -> Result<Option<u64>, CaError> {
        let Some(LoggedTo { log, .. }) = &self.issuance_log else { return Ok(None) };
        let mut chain = vec![certificate.to_vec()];
        chain.extend(self.authority(issuer)?.chain.iter().cloned());
        Ok(Some(log.add_certificate(chain).await?))
    }

    /// Takes a signed certificate to its delivery, as its own request would have.
    pub(crate) async fn finish_certificate(&self, record: &StoredCertificate) -> Result<(), CaError> {
        if record.step != Step::Certificate || !matches!(record.state, State::Signed | State::Logged) {
            return Ok(());
        }
        self.demand_unblocked(record)?;
        let index = match record.state {
            State::Signed => self.submit_certificate(&record.issuer, &self.assembled(record)?).await?,
            _ => None,
        };
        match self.store.mark_delivered(record.intent, index, self.clock.for_records()).await {
            // Somebody else delivered or revoked it meanwhile.
            Ok(()) | Err(StoreError::StateConflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The certificate of an issuance; `None` when it has none that may be delivered.
    pub(crate) async fn delivered(&self, intent: IntentId) -> Result<Option<Issued>, CaError> {
        // Asked before the record: it is known here until the record that says the same is durable.
        let answered = self.deliveries.answered(&intent);
        let Some(record) = self.store.issuance(intent).await? else { return Ok(None) };
        let deliverable = match record.state {
            State::Logged | State::Delivered => true,
            State::Signed => self.issuance_log.is_none() || answered.is_some(),
            _ => false,
        };
        if !deliverable || record.step != Step::Certificate {
            return Ok(None);
        }
        let authority = self.authority(&record.issuer)?;
        Ok(Some(Issued {
            certificate: self.assembled(&record)?,
            chain: authority.chain.clone(),
            intent,
            serial: record.serial,
            issuer: record.issuer,
            not_before: record.not_before,
            not_after: record.not_after,
            log_index: record.log_index.or(answered.flatten()),
        }))
    }

    /// The signed object of a record's present step.
    ///
    /// # Errors
    /// [`CaError::Inconsistent`] when it has no signature.
    pub fn assembled(&self, record: &StoredCertificate) -> Result<Vec<u8>, CaError> {
        let authority = self.authority(&record.issuer)?;
        let signature =
            record.signature.as_deref().ok_or(CaError::Inconsistent("a signed record has no signature"))?;
        Ok(recorded_tbs(authority, record).assemble(signature)?)
    }
}

/// Why an issuance may not go on to its signature.
fn at_signing(error: StoreError) -> CaError {
    match error {
        StoreError::KeyCompromised => CaError::KeyCompromised,
        error => error.into(),
    }
}

/// Whether a signer's refusal leaves no doubt that no signature exists. A signature that was made and withheld, or whose
/// fate is unknown, is not among these.
fn says_that_nothing_was_signed(error: &hsm::Error) -> bool {
    match error {
        hsm::Error::SelfCheck { .. } => false,
        error => error.class() != ErrorClass::Ambiguous,
    }
}

/// The to-be-signed bytes of a record.
pub(crate) fn recorded_tbs(issuer: &LoadedAuthority, record: &StoredCertificate) -> ToBeSigned {
    ToBeSigned::from_record(record.tbs.clone(), issuer.algorithm)
}

/// The profile of a record, when it is a subscriber's and still configured.
pub(crate) fn recorded_kind(profile: Option<&Profile>) -> Kind {
    profile.map_or(Kind::Internal, Profile::kind)
}
