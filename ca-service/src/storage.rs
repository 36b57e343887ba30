//! What the CA must not forget, behind one trait. Domain modules see no SQL.
//!
//! A certificate's row moves through the states of ca-requirements §4; [`CertificateStore`]'s methods are its only
//! transitions, each conditional on the state it starts from, so that two instances or a late retry cannot take one twice.

pub mod audit;
mod authorities;
pub mod backup;
mod certificates;
mod checkpoints;
mod compromised_keys;
mod crls;
pub mod database;
mod dated;
mod error;
mod expiry;
mod identity_tokens;
mod issuance;
mod migrations;
pub mod overview;
#[cfg(feature = "postgres")]
pub mod postgres;
mod problem_reports;
pub mod queue;
mod readers;
mod renewals;
mod revocations;
mod rows;
mod search;
mod service;
mod sql;
pub mod sql_store;
mod sqlite;
mod tokens;
mod writer;

pub use audit::Anchor;
pub use authorities::StoredAuthority;
use ca_pki::crl::{RevocationReason, RevokedEntry};
use ca_pki::serial::Shard;
use ca_pki::{Identity, SerialNumber, UnixTime};
pub use compromised_keys::CompromisedKeyStore;
pub use crls::{ListNumber, ListNumberStore};
pub use database::Database;
pub use dated::DatedStatus;
pub use error::StoreError;
use futures_util::future::BoxFuture;
pub use identity_tokens::UsedIdentityToken;
pub use problem_reports::{NewProblem, OpenProblems, ProblemStore};
use queue::{QueueStore, QueuedId};
pub(crate) use renewals::{BY_CERTIFICATE, requester};
pub use renewals::{
    Counted, Dependent, EndRenewals, Ended, EndedCertificate, RenewalCount, RenewalEnd, RenewalStore,
};
pub(crate) use revocations::is_compromise;
pub use revocations::{NewRevocation, StoredRevocation};
pub use search::{Expiring, ExpiryMark, MAX_RENEWALS, Search, Selected, SelectedCount, Selection};
pub use service::{ForgottenTokens, ServiceStore};
pub use tokens::StoredToken;
use trust_store::sorted_json::SortedJson;

/// Answer of a store call.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Id of an issuance: what `hsm` is told as the reason for a signature.
pub type IntentId = [u8; 16];

/// Where an issuance stands. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Recorded; nothing was signed.
    Intent = 0,
    /// Handed to the signer.
    Signing = 1,
    /// A signature may exist without a record of it.
    MaybeIssued = 2,
    /// The signature of the present step is stored.
    Signed = 3,
    /// In the issuance log.
    Logged = 4,
    /// Delivered.
    Delivered = 5,
    /// Given up before any signature; the serial number is burnt.
    Abandoned = 6,
    /// Revoked.
    Revoked = 7,
}

impl State {
    /// Every state, in the order of the numbers.
    pub const ALL: [Self; 8] = [
        Self::Intent,
        Self::Signing,
        Self::MaybeIssued,
        Self::Signed,
        Self::Logged,
        Self::Delivered,
        Self::Abandoned,
        Self::Revoked,
    ];

    /// True for states that a reconciler must move on.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Intent | Self::Signing | Self::Signed | Self::Logged)
    }
}

/// Which open issuances a reconciler looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Those that are closed without anybody's help: `intent` and `signing`.
    Here,
    /// Those that wait for a log or for delivery: `signed` and `logged`.
    AtLog,
}

/// Which object of an issuance the state is about. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The precertificate, which is not a certificate: status answers are never good.
    Precertificate = 0,
    /// The certificate.
    Certificate = 1,
}

/// An issuance to be recorded before anything is signed.
#[derive(Debug, Clone)]
pub struct NewIntent {
    /// Its id.
    pub intent: IntentId,
    /// Serial number, reserved for ever by this record.
    pub serial: SerialNumber,
    /// Name of the issuing authority.
    pub issuer: String,
    /// Profile.
    pub profile: String,
    /// The identity it will carry.
    pub identity: Option<Identity>,
    /// SHA-256 of the subject's SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// Who asked, such as `token:` and the token's hash.
    pub requester: String,
    /// The requester's own id of the request.
    pub request_id: Option<String>,
    /// What the decision was based on, JSON.
    pub evidence: SortedJson,
    /// The token to use up in the same transaction.
    pub token: Option<[u8; 32]>,
    /// The identity token that is for one certificate, to be used up in the same transaction. Never beside a one-time token.
    pub identity_token: Option<UsedIdentityToken>,
    /// The approved request that it is for: it, and the token that it holds, are used up in the same transaction.
    pub approved: Option<QueuedId>,
    /// The certificate that it renews: refused in the same transaction unless that one is good.
    pub renews: Option<SerialNumber>,
    /// First second of validity.
    pub not_before: UnixTime,
    /// Last second of validity.
    pub not_after: UnixTime,
    /// CRL shard.
    pub shard: Shard,
    /// What is signed first.
    pub step: Step,
    /// The linted bytes.
    pub tbs: Vec<u8>,
    /// When.
    pub at: UnixTime,
}

/// A certificate's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCertificate {
    /// Ascending number of the row.
    pub row: i64,
    /// Id of the issuance.
    pub intent: IntentId,
    /// Serial number.
    pub serial: SerialNumber,
    /// Name of the issuing authority.
    pub issuer: String,
    /// Profile.
    pub profile: String,
    /// The identity it carries.
    pub identity: Option<Identity>,
    /// SHA-256 of the subject's SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// Who asked.
    pub requester: String,
    /// The requester's own id of the request.
    pub request_id: Option<String>,
    /// First second of validity.
    pub not_before: UnixTime,
    /// Last second of validity.
    pub not_after: UnixTime,
    /// CRL shard.
    pub shard: Shard,
    /// Where it stands.
    pub state: State,
    /// What the state is about.
    pub step: Step,
    /// The to-be-signed bytes of the present step.
    pub tbs: Vec<u8>,
    /// The signature of the present step, once stored.
    pub signature: Option<Vec<u8>>,
    /// SHA-256 of the precertificate's to-be-signed bytes and its signature, once the certificate's step began.
    pub precertificate: Option<([u8; 32], Vec<u8>)>,
    /// The embedded SCT, serialized.
    pub sct: Option<Vec<u8>>,
    /// Index of the entry in the issuance log.
    pub log_index: Option<u64>,
    /// When the intent was recorded.
    pub created_at: UnixTime,
    /// Its revocation.
    pub revocation: Option<StoredRevocation>,
}

/// What a status answer needs of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredStatus {
    /// Where it stands.
    pub state: State,
    /// What the state is about.
    pub step: Step,
    /// First second of validity.
    pub not_before: UnixTime,
    /// Last second of validity.
    pub not_after: UnixTime,
    /// Its revocation: from when on, and why.
    pub revocation: Option<(UnixTime, RevocationReason)>,
}

/// One list of an issuer: a shard, the complete one, or the delta to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CrlPart {
    /// Everything the issuer issued.
    Complete,
    /// What was revoked since an earlier complete list.
    Delta,
    /// One shard.
    Shard(Shard),
}

/// A list that was started: its number and its entries, fixed together.
#[derive(Debug, Clone)]
pub struct StartedCrl {
    /// cRLNumber.
    pub number: u64,
    /// The revoked certificates, ordered by serial number.
    pub entries: Vec<RevokedEntry>,
    /// For a complete list, what its delta list says.
    pub delta: Option<StartedDelta>,
}

/// A delta list that was started together with its complete list, whose number it shares (RFC 5280 §5.2.4).
#[derive(Debug, Clone)]
pub struct StartedDelta {
    /// Number of the complete list it builds on.
    pub base: u64,
    /// What was revoked or changed since, ordered by serial number.
    pub entries: Vec<RevokedEntry>,
}

/// A published list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCrl {
    /// Name of the issuing authority.
    pub issuer: String,
    /// Which list.
    pub part: CrlPart,
    /// cRLNumber.
    pub number: u64,
    /// thisUpdate.
    pub this_update: UnixTime,
    /// nextUpdate.
    pub next_update: UnixTime,
    /// The list.
    pub der: bytes::Bytes,
    /// Its SHA-256, computed once: a list may have forty megabytes.
    pub sha256: [u8; 32],
    /// How many entries it has; 0 for one that was read from the store.
    pub entries: u32,
}

/// The CA's memory.
///
/// Implementations MUST be durable when a changing call returns `Ok`, MUST make each call one transaction together with
/// its audit record, MUST refuse without writing anything where the documentation says "nothing was changed", and MUST
/// keep serial numbers and (issuer, list, CRL number) unique for ever. Calls may come from many tasks at once.
pub trait CertificateStore:
    CompromisedKeyStore + ListNumberStore + ProblemStore + QueueStore + RenewalStore + ServiceStore
{
    /// Records a token. `actor` asked for it.
    fn create_token<'a>(&'a self, token: StoredToken, actor: &'a str, at: UnixTime) -> Answer<'a, ()>;

    /// Looks a token up by the hash of its secret.
    fn token<'a>(&'a self, hash: &'a [u8; 32]) -> Answer<'a, Option<StoredToken>>;

    /// Notes that an identity token served. Refused ([`StoreError::TokenUsed`]) when it is noted already.
    fn use_identity_token(&self, token: UsedIdentityToken, now: UnixTime) -> Answer<'_, ()>;

    /// Reserves the serial number, records the intent and uses up its token, in one transaction. Refused for a key that a
    /// revocation says is compromised, ([`StoreError::IdentityTokenUsed`]) for an identity token that served, and ([`StoreError::StateConflict`]) for a request that is not approved any more.
    fn record_intent(&self, intent: NewIntent) -> Answer<'_, ()>;

    /// [`Self::record_intent`] and [`Self::begin_signing`] in one transaction, `detail` being of the audit record. Refused as both.
    fn begin_issuance(&self, intent: NewIntent, detail: SortedJson) -> Answer<'_, ()>;

    /// `intent` → `signing`, with the audit record that must be durable before the signature. Refused for a compromised key.
    fn begin_signing<'a>(&'a self, intent: IntentId, detail: SortedJson, at: UnixTime) -> Answer<'a, ()>;

    /// Step precertificate: `signing` → `signed`.
    fn record_precertificate(&self, intent: IntentId, signature: Vec<u8>, at: UnixTime) -> Answer<'_, ()>;

    /// Step precertificate, `signed` → step certificate, `signing`: stores the SCT, the log index and the certificate's
    /// to-be-signed bytes, with the audit record. Happens once per issuance.
    fn begin_certificate<'a>(
        &'a self,
        intent: IntentId,
        sct: Vec<u8>,
        log_index: Option<u64>,
        tbs: Vec<u8>,
        at: UnixTime,
    ) -> Answer<'a, ()>;

    /// Step certificate: `signing` → `signed`, or → `logged` when the precertificate's entry is the log's record.
    fn record_signed(&self, intent: IntentId, signature: Vec<u8>, at: UnixTime) -> Answer<'_, ()>;

    /// `signed` or `logged` → `delivered`, with the index of the log's entry where that is new.
    fn mark_delivered(&self, intent: IntentId, log_index: Option<u64>, at: UnixTime) -> Answer<'_, ()>;

    /// `intent` → `abandoned`: nothing came of it, and its token may serve again.
    fn abandon<'a>(&'a self, intent: IntentId, reason: &'a str, at: UnixTime) -> Answer<'a, ()>;

    /// `intent` → `abandoned` by an order of `actor`: nothing may come of it, so its token stays used up.
    fn end<'a>(&'a self, intent: IntentId, actor: &'a str, reason: &'a str, at: UnixTime) -> Answer<'a, ()>;

    /// Takes back a `signing` that the signer answered with "nothing was signed": → `abandoned`, with the token free again,
    /// or in the step certificate back to its signed `precertificate`, whose to-be-signed bytes the caller gives back.
    fn undo_signing<'a>(
        &'a self,
        intent: IntentId,
        precertificate: Option<Vec<u8>>,
        reason: &'a str,
        at: UnixTime,
    ) -> Answer<'a, ()>;

    /// `signing` → `maybe-issued`.
    fn mark_maybe_issued<'a>(&'a self, intent: IntentId, reason: &'a str, at: UnixTime) -> Answer<'a, ()>;

    /// Issuances in an open state that were recorded before `before`, oldest first.
    fn open_issuances(&self, which: Open, before: UnixTime, limit: u32)
    -> Answer<'_, Vec<StoredCertificate>>;

    /// A certificate by serial number.
    fn certificate<'a>(&'a self, serial: &'a SerialNumber) -> Answer<'a, Option<StoredCertificate>>;

    /// A certificate by the id of its issuance.
    fn issuance(&self, intent: IntentId) -> Answer<'_, Option<StoredCertificate>>;

    /// Certificates, newest first.
    fn search(&self, search: Search) -> Answer<'_, Vec<StoredCertificate>>;

    /// Certificates of a selection above a row, in the order of the rows.
    fn selected(&self, selection: Selection, after: i64, limit: u32) -> Answer<'_, Vec<Selected>>;

    /// How much a selection touches.
    fn count_selected(&self, selection: Selection) -> Answer<'_, SelectedCount>;

    /// Subscribers' certificates of more than a week that end in a window and are not revoked, in the order of their ends.
    fn expiring(&self, window: Expiring) -> Answer<'_, Vec<StoredCertificate>>;

    /// What an operator sees at a glance. MUST NOT read more for a larger database.
    fn overview(&self, now: UnixTime) -> Answer<'_, overview::StoredOverview>;

    /// Up to which end warnings of so many days were taken.
    fn expiry_mark(&self, days: u16) -> Answer<'_, Option<ExpiryMark>>;

    /// Notes up to which end warnings of so many days were taken.
    fn note_expiry_mark(&self, days: u16, mark: ExpiryMark) -> Answer<'_, ()>;

    /// What a status answer needs; `None` for a serial number this issuer never assigned.
    fn status<'a>(&'a self, issuer: &'a str, serial: &'a SerialNumber) -> Answer<'a, Option<StoredStatus>>;

    /// Revokes, and notes what becomes of renewals. Repeating returns what is recorded; an earlier date moves the date back, and a
    /// compromise replaces another reason (R2). No other reason changes: that which stays is returned.
    fn revoke(&self, revocation: NewRevocation) -> Answer<'_, StoredRevocation>;

    /// Changes after every revocation that may have become durable, before anybody is told of it. What was read before a
    /// change says nothing after it.
    fn revocation_generation(&self) -> u64;

    /// Revocations whose statement is not yet in the event log, oldest first.
    fn unlogged_revocations(&self, limit: u32) -> Answer<'_, Vec<StoredRevocation>>;

    /// Notes the event log's index of a revocation as it was recorded at `recorded_at`.
    fn record_revocation_logged<'a>(
        &'a self,
        serial: &'a SerialNumber,
        recorded_at: UnixTime,
        index: u64,
    ) -> Answer<'a, ()>;

    /// The lists that must be signed: changed, never published, interrupted, or with a thisUpdate before `older_than`.
    fn due_crls(&self, older_than: UnixTime) -> Answer<'_, Vec<(String, CrlPart)>>;

    /// Allots the next number and fixes the entries, in one transaction. The entries may be read after it, as it left them, so that
    /// nobody waits for the reading of a long list.
    fn start_crl<'a>(&'a self, issuer: &'a str, part: CrlPart, at: UnixTime) -> Answer<'a, StartedCrl>;

    /// Stores a signed list. Nothing is changed unless its number is above the published one's. Once a day a complete list
    /// becomes the base of the delta lists after it.
    fn publish_crl(&self, crl: StoredCrl) -> Answer<'_, ()>;

    /// Every published list.
    fn published_crls(&self) -> Answer<'_, Vec<StoredCrl>>;

    /// Records one of the CA's own, and the rows of its lists; with `own`, the signature that its own row waits for. Never overwrites.
    fn add_authority<'a>(
        &'a self,
        authority: StoredAuthority,
        own: Option<(IntentId, Vec<u8>)>,
        actor: &'a str,
        at: UnixTime,
    ) -> Answer<'a, ()>;

    /// The CA's own certificates and keys in the order in which they were made.
    fn authorities(&self) -> Answer<'_, Vec<StoredAuthority>>;

    /// Gives an authority that issues nothing a new certificate and key. Refused for any other change.
    fn renew_authority<'a>(
        &'a self,
        authority: StoredAuthority,
        actor: &'a str,
        at: UnixTime,
    ) -> Answer<'a, ()>;

    /// Declares `at` the present time although later times were used: records it in the audit trail, from which the next
    /// start takes it, and makes every list that was dated later due.
    fn accept_time<'a>(&'a self, actor: &'a str, at: UnixTime) -> Answer<'a, ()>;

    /// Appends an audit record.
    fn audit<'a>(
        &'a self,
        event: &'a str,
        actor: &'a str,
        detail: SortedJson,
        at: UnixTime,
    ) -> Answer<'a, ()>;

    /// Notes that an audit record stands in the event log.
    fn record_anchor(&self, anchor: Anchor, at: UnixTime) -> Answer<'_, ()>;

    /// The newest note of [`Self::record_anchor`].
    fn latest_anchor(&self) -> Answer<'_, Option<Anchor>>;

    /// Audit records above `after`, in order.
    fn audit_records(&self, after: u64, limit: u32) -> Answer<'_, Vec<audit::Record>>;

    /// The newest audit record.
    fn latest_audit(&self) -> Answer<'_, Option<audit::Record>>;

    /// Fails unless a write transaction can be made durable now.
    fn probe(&self) -> Answer<'_, ()>;

    /// What the last change failed with, if the store did not make it durable; [`StoreError::AnotherServes`] once that is known, and
    /// [`StoreError::SuccessorUnknown`] while it is not known whether the records are this process's. MUST NOT block.
    fn write_failure(&self) -> Option<StoreError>;
}
