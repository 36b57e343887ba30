//! The proof that enough different people approved exactly one request, and the refusal of issuance without it.

use ca_pki::UnixTime;
use ca_pki::oid::ObjectIdentifier;

use super::QueueRefusal;
use super::statement::digest;
use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::issuance::AuthorisedRequest;
use crate::storage::queue::{QueueState, QueuedId, QueuedRequest, RequestContent, StoredApproval};

/// The proof that enough different people approved exactly one request. Only the count of the queue makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    content: Box<RequestContent>,
    statement_sha256: [u8; 32],
    needed: u8,
    approvers: Vec<String>,
}

/// What the approvals of a request come to.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is not what was approved.
    Altered,
    /// Enough.
    Granted(Granted),
    /// So many, and more must.
    TooFew(u8),
}

/// The approvals of a text; those of another text of the same request are none.
pub(crate) fn of_text<'a>(
    request: &'a QueuedRequest,
    text: &str,
) -> impl Iterator<Item = &'a StoredApproval> {
    let statement = digest(text);
    request.approvals.iter().filter(move |approval| approval.statement == statement)
}

/// Counts the approvals of what the request says now, of which `needed` must be there.
pub(crate) fn judge(request: &QueuedRequest, text: &str, needed: u8) -> Verdict {
    // The store keeps one of each person.
    let approvers: Vec<String> = of_text(request, text).map(|approval| approval.approver.clone()).collect();
    let given = u8::try_from(approvers.len()).unwrap_or(u8::MAX);
    if needed > 0 && given >= needed {
        let (content, statement_sha256) = (Box::new(request.content.clone()), digest(text));
        return Verdict::Granted(Granted { content, statement_sha256, needed, approvers });
    }
    // It had enough when it was approved, unless it was another one then.
    if request.state == QueueState::Approved && given < request.content.needed {
        return Verdict::Altered;
    }
    Verdict::TooFew(given)
}

impl Granted {
    /// Id of the request.
    #[must_use]
    pub fn id(&self) -> QueuedId {
        self.content.id
    }

    /// How many people approved it.
    #[must_use]
    pub fn given(&self) -> u8 {
        u8::try_from(self.approvers.len()).unwrap_or(u8::MAX)
    }

    /// What intent and audit trail say of it.
    #[must_use]
    pub fn record(&self) -> serde_json::Value {
        serde_json::json!({
            "request": hex::encode(self.content.id),
            "statement_sha256": hex::encode(self.statement_sha256),
            "approvals_needed": self.needed,
            "approvers": self.approvers,
        })
    }

    /// Whether it is about what is to be issued.
    fn covers(&self, request: &AuthorisedRequest) -> bool {
        let approved = &self.content;
        let claims = |(oid, text): &(ObjectIdentifier, String)| (oid.to_string(), text.clone());
        approved.identity == request.identity
            && approved.spki_sha256 == request.public_key.spki_sha256()
            && approved.profile == request.profile
            && approved.identity_issuer == request.identity_issuer
            && approved.claims == request.claims.iter().map(claims).collect::<Vec<_>>()
            && approved.token == request.token
    }
}

impl CertificateAuthority {
    /// Refuses to issue what people must approve and did not, and what is not what they approved: whoever asks for it, and however.
    pub(crate) fn refuse_unapproved(
        &self,
        request: &AuthorisedRequest,
        now: UnixTime,
    ) -> Result<(), CaError> {
        let granted = request.approved.as_ref();
        let given = granted.map_or(0, Granted::given);
        let needed = self.approvals_demanded(&request.profile, &request.proof, &request.identity_issuer);
        let needed = granted.map_or(0, |granted| granted.needed).max(needed);
        if given < needed {
            return Err(QueueRefusal::Unapproved { needed, given }.into());
        }
        let Some(granted) = &request.approved else { return Ok(()) };
        if granted.covers(request) && self.keeps_its_terms(&granted.content, now)? {
            return Ok(());
        }
        let id = hex::encode(granted.content.id);
        tracing::error!(id, "a request would not become what was approved: configuration or issuer changed");
        Err(QueueRefusal::Changed(id).into())
    }

    /// Refuses approvals of which the audit trail knows nothing.
    pub(crate) async fn are_in_the_trail(
        &self,
        request: &QueuedRequest,
        text: &str,
    ) -> Result<bool, CaError> {
        for approval in of_text(request, text) {
            let Some(before) = approval.record.checked_sub(1) else { return Ok(false) };
            let found = self.store.audit_records(before, 1).await?;
            let said = found.first().filter(|record| {
                let detail: serde_json::Value = serde_json::from_str(&record.detail).unwrap_or_default();
                let says = |name: &str, expected: &[u8]| {
                    detail.get(name).and_then(serde_json::Value::as_str)
                        == Some(hex::encode(expected).as_str())
                };
                record.sequence == approval.record
                    && record.hash == record.expected_hash()
                    && record.event == "request.approved"
                    && record.actor.split_once(':').is_some_and(|(_, name)| name == approval.approver)
                    && says("request", &request.content.id)
                    && says("statement_sha256", &approval.statement)
            });
            if said.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
