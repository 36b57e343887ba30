//! Certificates that people must approve before they are issued.
//!
//! | word | meaning |
//! |---|---|
//! | `Asked` | somebody whose identity and key were proven, and how many people must approve |
//! | [`RequestContent`] | what would be issued, fixed when the request is recorded |
//! | [`mod@statement`] | the same as text: what approvers are shown, and approve by its SHA-256 |
//! | [`mod@decision`] | who may approve or deny, and what comes of it |
//! | [`Granted`] | the proof that enough different people approved exactly this; the intent of the issuance names them |
//! | [`mod@notice`] | the webhook that is told of new requests |
//!
//! A request is recorded after everything that issuance would refuse was looked at. Its certificate is issued when the requester
//! comes back after the approval, in the order of every issuance, and the request is used up in the transaction that records the
//! intent: whoever comes back twice gets the same certificate.

pub mod decision;
pub mod notice;
pub mod statement;

use std::sync::Arc;

use ca_pki::oid::ObjectIdentifier;
use ca_pki::{SubjectPublicKey, UnixTime};

use crate::authority::{CertificateAuthority, random};
use crate::error::CaError;
use crate::issuance::{AuthorisedRequest, Issued};
use crate::storage::queue::{
    QueueLimit, QueueState, QueuedId, QueuedRequest, RequestContent, RequestOf, Way,
};
use crate::storage::{State, StoreError};
use statement::{digest, statement};

/// Seconds after its end for which a request is remembered: its requester learns what became of it. The audit trail never forgets.
const REMEMBERED: i64 = 30 * 86_400;
/// Attempts of one call while others decide about the same request.
const ATTEMPTS: u32 = 4;

/// Why nothing comes of a request in the queue, or not yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueRefusal {
    /// The approver asked for it, or vouched for whoever did.
    #[error("{0} was asked for, or vouched for, by the approver: somebody else must approve it")]
    ApproverIsRequester(String),
    /// A token that several people may share names nobody.
    #[error("approvals count by person: use a client certificate or an identity token of your own")]
    ApproverUnnamed,
    /// It waits for people.
    #[error("the request {} waits for approval: {given} of {needed} people approved it", hex::encode(.id))]
    Awaiting {
        /// Its id.
        id: QueuedId,
        /// How many must.
        needed: u8,
        /// How many did.
        given: u8,
        /// From then on nothing comes of it.
        expires_at: UnixTime,
    },
    /// It is not what was shown, or not what was approved.
    #[error("the request {0} is not the one that was shown: look at it again")]
    Changed(String),
    /// It was decided before.
    #[error("the request {id} is {state} already")]
    Closed {
        /// Its id.
        id: String,
        /// Where it stands.
        state: &'static str,
    },
    /// Somebody denied it.
    #[error("the request was denied: {0}")]
    Denied(String),
    /// An order or a restore ended it.
    #[error("the request was ended: {0}")]
    Ended(String),
    /// Its time was over.
    #[error("the time of the request was over before its certificate was fetched")]
    Expired,
    /// As many wait as may.
    #[error("too many requests wait for approval")]
    Full(QueueLimit),
    /// There is none of this id.
    #[error("no request has the id {0}")]
    Unknown(String),
}

impl QueueRefusal {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ApproverIsRequester(_) => "approver_is_requester",
            Self::ApproverUnnamed => "approver_unnamed",
            Self::Awaiting { .. } => "awaits_approval",
            Self::Changed(_) => "request_changed",
            Self::Closed { .. } => "request_closed",
            Self::Denied(_) => "request_denied",
            Self::Ended(_) => "request_ended",
            Self::Expired => "request_expired",
            Self::Full(QueueLimit::All) => "queue_full",
            Self::Full(QueueLimit::Identity) => "too_many_waiting",
            Self::Unknown(_) => "request_unknown",
        }
    }
}

/// The name of a state, as the wire writes it.
#[must_use]
pub fn state_name(state: QueueState) -> &'static str {
    match state {
        QueueState::Waiting => "waiting",
        QueueState::Approved => "approved",
        QueueState::Issued => "issued",
        QueueState::Denied => "denied",
        QueueState::Expired => "expired",
        QueueState::Ended => "ended",
    }
}

/// Somebody who was authenticated and proved possession of a key, and whose certificate needs approval.
pub(crate) struct Asked {
    /// What would be issued, with the requester's own id of the request.
    pub(crate) request: AuthorisedRequest,
    /// How they proved who they are.
    pub(crate) way: Way,
    /// Who vouched for them.
    pub(crate) vouched_by: Option<String>,
    /// How many people must approve, at least 1.
    pub(crate) needed: u8,
}

/// The proof that enough different people approved exactly one request. Only `Granted::judge` makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    id: QueuedId,
    statement_sha256: [u8; 32],
    needed: u8,
    approvers: Vec<String>,
}

impl Granted {
    /// Counts the approvals of what the request says now; those of another text are none.
    ///
    /// # Errors
    /// [`QueueRefusal::Changed`] when there are not enough.
    fn judge(request: &QueuedRequest, text: &str) -> Result<Self, QueueRefusal> {
        let statement_sha256 = digest(text);
        let of_this = request.approvals.iter().filter(|approval| approval.statement == statement_sha256);
        // The store keeps one of each person.
        let approvers: Vec<String> = of_this.map(|approval| approval.approver.clone()).collect();
        let needed = request.content.needed;
        if needed == 0 || approvers.len() < usize::from(needed) {
            return Err(QueueRefusal::Changed(hex::encode(request.content.id)));
        }
        Ok(Self { id: request.content.id, statement_sha256, needed, approvers })
    }

    /// Id of the request.
    #[must_use]
    pub fn id(&self) -> QueuedId {
        self.id
    }

    /// What intent and audit trail say of it.
    #[must_use]
    pub fn record(&self) -> serde_json::Value {
        serde_json::json!({
            "request": hex::encode(self.id),
            "statement_sha256": hex::encode(self.statement_sha256),
            "approvals_needed": self.needed,
            "approvers": self.approvers,
        })
    }
}

impl CertificateAuthority {
    /// Records a request that needs approval, or goes on with the one that there is: says how it stands, or issues its certificate
    /// once it was approved. For a caller that runs to its end itself.
    ///
    /// # Errors
    /// [`CaError::Queue`] while it waits and for what is refused, else as issuance.
    pub(crate) async fn certify_approved(self: &Arc<Self>, asked: &Asked) -> Result<Issued, CaError> {
        let request_id = asked.request.request_id.as_deref();
        let request_id = request_id.ok_or(CaError::OutOfRange {
            field: "request_id",
            reason: "is needed: the certificate waits for approval, and is fetched by repeating the call",
        })?;
        let of = match asked.request.token {
            Some(token) => RequestOf::Token(token),
            None => RequestOf::Requester(asked.request.requester.clone(), request_id.to_owned()),
        };
        for _ in 0..ATTEMPTS {
            let step = match self.store.queued_of(of.clone()).await? {
                None => self.enqueue(asked, request_id).await,
                Some(queued) => {
                    same_request(&queued, asked, request_id)?;
                    self.go_on(queued).await
                }
            };
            match step {
                // Somebody was faster: an approver, the requester on another connection, or time.
                Err(CaError::Store(StoreError::StateConflict)) => {}
                outcome => return outcome,
            }
        }
        Err(CaError::IssuancePending)
    }

    /// Records a request, after everything was looked at that would be refused when its certificate is issued.
    async fn enqueue(&self, asked: &Asked, request_id: &str) -> Result<Issued, CaError> {
        // Built, linted, and thrown away: nobody shall approve what cannot be issued.
        drop(self.decide(asked.request.clone())?);
        let now = self.clock.now()?;
        let config = &self.settings.config.enrolment;
        let request = &asked.request;
        let content = RequestContent {
            id: random::<16>()?,
            requester: request.requester.clone(),
            request_id: request_id.to_owned(),
            token: request.token,
            way: asked.way,
            vouched_by: asked.vouched_by.clone(),
            identity: request.identity.clone(),
            identity_issuer: request.identity_issuer.clone(),
            profile: request.profile.clone(),
            spki: request.public_key.spki().to_vec(),
            spki_sha256: request.public_key.spki_sha256(),
            claims: request.claims.iter().map(|(oid, text)| (oid.to_string(), text.clone())).collect(),
            evidence: request.evidence.clone(),
            needed: asked.needed,
            created_at: now,
            expires_at: now.plus(i64::from(config.request_hours) * 3_600),
        };
        let text = statement(&content, &self.authority_fingerprint()?)?;
        let (id, expires_at) = (content.id, content.expires_at);
        let recorded = self.store.record_request(content, digest(&text), config.limits()).await;
        recorded.map_err(|error| match error {
            StoreError::QueueFull(limit) => QueueRefusal::Full(limit).into(),
            StoreError::KeyCompromised => CaError::KeyCompromised,
            StoreError::TokenExpired => CaError::TokenExpired,
            StoreError::NotFound => CaError::TokenUnknown,
            // It was used by an issuance that was quicker.
            StoreError::TokenUsed => CaError::TokenUsed,
            error => error.into(),
        })?;
        self.metrics.requests_recorded.inc();
        self.request_due.notify_one();
        Err(QueueRefusal::Awaiting { id, needed: asked.needed, given: 0, expires_at }.into())
    }

    /// What a request has come to; issues its certificate when it was approved.
    async fn go_on(self: &Arc<Self>, queued: QueuedRequest) -> Result<Issued, CaError> {
        let now = self.clock.now()?;
        match queued.state_at(now) {
            QueueState::Waiting => Err(QueueRefusal::Awaiting {
                id: queued.content.id,
                needed: queued.content.needed,
                given: u8::try_from(queued.approvals.len()).unwrap_or(u8::MAX),
                expires_at: queued.content.expires_at,
            }
            .into()),
            QueueState::Denied => Err(QueueRefusal::Denied(queued.reason.unwrap_or_default()).into()),
            QueueState::Ended => Err(QueueRefusal::Ended(queued.reason.unwrap_or_default()).into()),
            QueueState::Expired => Err(QueueRefusal::Expired.into()),
            QueueState::Issued => {
                let intent =
                    queued.intent.ok_or(CaError::Inconsistent("an issued request has no issuance"))?;
                if let Some(issued) = self.delivered(intent).await? {
                    return Ok(issued);
                }
                let record = self.store.issuance(intent).await?;
                let record = record.ok_or(CaError::Inconsistent("an issuance is missing"))?;
                match record.state {
                    State::Abandoned | State::MaybeIssued | State::Revoked => Err(CaError::IssuanceFailed),
                    _ => Err(CaError::IssuancePending),
                }
            }
            QueueState::Approved => {
                let text = statement(&queued.content, &self.authority_fingerprint()?)?;
                let granted = Granted::judge(&queued, &text).inspect_err(|_| {
                    let id = hex::encode(queued.content.id);
                    tracing::error!(id, "a request is not what was approved: its record was changed");
                })?;
                let request = self.authorised(queued.content, granted)?;
                self.certify(request).await.map_err(|error| match error {
                    CaError::Store(StoreError::KeyCompromised) => CaError::KeyCompromised,
                    // Its request was used up with it.
                    CaError::Store(StoreError::TokenUsed) => StoreError::StateConflict.into(),
                    error => error,
                })
            }
        }
    }

    /// The request as issuance takes it: what was approved, whatever the requester says by now.
    fn authorised(&self, content: RequestContent, granted: Granted) -> Result<AuthorisedRequest, CaError> {
        let key_use = self.profile(&content.profile)?.key_use();
        let public_key = SubjectPublicKey::from_spki(&content.spki, key_use).map_err(CaError::Request)?;
        let claims = content.claims.into_iter().map(|(oid, text)| {
            let oid = ObjectIdentifier::new(&oid);
            Ok((oid.map_err(|_| CaError::Inconsistent("a request has no OID for a claim"))?, text))
        });
        let claims = claims.collect::<Result<_, CaError>>()?;
        let evidence: serde_json::Value = serde_json::from_str(&content.evidence)
            .map_err(|_| CaError::Inconsistent("the evidence of a request is not JSON"))?;
        let evidence = serde_json::json!({ "approval": granted.record(), "evidence": evidence });
        Ok(AuthorisedRequest {
            identity: content.identity,
            public_key,
            profile: content.profile,
            identity_issuer: content.identity_issuer,
            claims,
            requester: content.requester,
            // Ids of requesters without a token are ours, and no certificate's: that of the request comes once, ever.
            request_id: Some(match content.token {
                Some(_) => content.request_id,
                None => hex::encode(content.id),
            }),
            token: content.token,
            approved: Some(granted),
            evidence: evidence.to_string(),
        })
    }

    /// Notes whose time is over, forgets what was closed long ago, and counts what waits. The reconciler's part.
    ///
    /// # Errors
    /// [`CaError::Store`].
    pub async fn tend_queue(&self) -> Result<u64, CaError> {
        let now = self.clock.for_records();
        let expired = self.store.tend_queue(now, now.plus(-REMEMBERED)).await?;
        self.metrics.requests_expired.inc_by(expired);
        let waiting = self.store.count_waiting(now).await?;
        self.metrics.requests_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        Ok(expired)
    }

    /// The request of an id, as its requester and operators write it.
    ///
    /// # Errors
    /// [`QueueRefusal::Unknown`], [`CaError::Store`].
    pub async fn queued_request(&self, id: &str) -> Result<QueuedRequest, CaError> {
        let unknown = || QueueRefusal::Unknown(id.chars().take(64).collect());
        // In one spelling only: a list of ids with the same one twice is recognised.
        let octets = hex::decode(id).ok().filter(|octets| hex::encode(octets) == id);
        let octets = octets.and_then(|octets| octets.try_into().ok());
        let found = self.store.queued(octets.ok_or_else(unknown)?).await?;
        Ok(found.ok_or_else(unknown)?)
    }
}

/// Refuses whoever comes back to a request as somebody else, or with something else.
fn same_request(queued: &QueuedRequest, asked: &Asked, request_id: &str) -> Result<(), CaError> {
    let content = &queued.content;
    if content.request_id != request_id {
        return Err(CaError::TokenUsed);
    }
    let same = content.spki_sha256 == asked.request.public_key.spki_sha256()
        && content.identity == asked.request.identity
        && content.profile == asked.request.profile;
    if same { Ok(()) } else { Err(CaError::RequestConflict) }
}
