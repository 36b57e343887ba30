//! SQL of issuances: the transitions of ca-requirements §4, many at once.
//!
//! Whatever waits for the same commit is written together, so that the cost of a sync is shared. Each change has an outcome
//! of its own: a row that is not in the expected state changes nothing.

use ca_pki::{SerialNumber, UnixTime};
use sha2::{Digest, Sha256};
use trust_store::sorted_json::SortedJson;

use super::audit::Entry;
use super::rows::{self, get, stored_index};
use super::sql::{Connection, params};
use super::{
    IntentId, MAX_RENEWALS, NewIntent, State, Step, StoreError, audit, identity_tokens, queue, renewals,
    revocations, tokens,
};

/// Outcome of each change of a group, in order; an error of the whole says that nothing may be committed.
pub(super) type Outcomes = Result<Vec<Result<(), StoreError>>, StoreError>;

/// An intent on its way to the store.
pub(super) struct Intended {
    pub(super) new: NewIntent,
    /// Particulars of the audit record, when its signature begins in the same transaction.
    pub(super) signing: Option<SortedJson>,
}

/// Records intents and uses their tokens up; appends to `entries` what the audit trail must say.
pub(super) fn record_intents(
    connection: &Connection,
    intended: &[Intended],
    entries: &mut Vec<Entry>,
) -> Outcomes {
    intended
        .iter()
        .map(|Intended { new, signing: detail }| {
            let state = if detail.is_some() { State::Signing } else { State::Intent };
            let recorded = record_intent(connection, new, state);
            if let (Ok(()), Some(detail)) = (&recorded, detail) {
                entries.push(signing(new.requester.clone(), detail.clone(), new.at));
            }
            outcome(recorded)
        })
        .collect()
}

/// Separates what one change is refused for from what spoils the whole group.
fn outcome(result: Result<(), StoreError>) -> Result<Result<(), StoreError>, StoreError> {
    match result {
        Err(error) if error.spoils() => Err(error),
        outcome => Ok(outcome),
    }
}

fn record_intent(connection: &Connection, new: &NewIntent, state: State) -> Result<(), StoreError> {
    if revocations::is_compromised(connection, &new.spki_sha256)? {
        return Err(StoreError::KeyCompromised);
    }
    if let Some(renewed) = &new.renews {
        refuse_renewal(connection, renewed, new)?;
    }
    match (&new.approved, &new.token) {
        (_, Some(_)) if new.identity_token.is_some() => return Err(StoreError::StateConflict),
        (None, None) => serve_once(connection, new)?,
        (None, Some(token)) => tokens::consume(connection, token, &new.intent, new.at)?,
        (Some(request), token) => {
            if !queue::sql::steps::is_approved(connection, request, new.at)? {
                return Err(StoreError::StateConflict);
            }
            if let Some(token) = token {
                tokens::consume_held(connection, token, &new.intent, new.at)?;
            }
            serve_once(connection, new)?;
            queue::sql::steps::claim(connection, request, &new.intent, new.at)?;
        }
    }
    rows::execute(
        connection,
        "INSERT INTO certificate (serial, intent, issuer, profile, identity_kind, identity, spki_sha256, requester, \
         request_id, evidence, not_before, not_after, shard, state, step, tbs_sha256, tbs, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?18)",
        params![
            new.serial.as_bytes(),
            new.intent,
            new.issuer,
            new.profile,
            new.identity.as_ref().map(rows::identity_kind),
            new.identity.as_ref().map(|identity| identity.as_str()),
            new.spki_sha256,
            new.requester,
            new.request_id,
            new.evidence.as_str(),
            new.not_before.0,
            new.not_after.0,
            new.shard.0,
            state as i64,
            new.step as i64,
            Sha256::digest(&new.tbs).as_slice(),
            new.tbs,
            new.at.0,
        ],
    )?;
    Ok(())
}

/// Uses an identity token up that is for one certificate, or writes nothing and says that it served.
fn serve_once(connection: &Connection, new: &NewIntent) -> Result<(), StoreError> {
    let Some(token) = &new.identity_token else { return Ok(()) };
    identity_tokens::use_up(connection, token, new.at).map_err(|error| match error {
        StoreError::TokenUsed => StoreError::IdentityTokenUsed,
        error => error,
    })
}

/// Refuses to renew what is not good any more, what was renewed under the same request id, and what was renewed too often.
fn refuse_renewal(
    connection: &Connection,
    renewed: &SerialNumber,
    new: &NewIntent,
) -> Result<(), StoreError> {
    let query = "SELECT state, step, spki_sha256 FROM certificate WHERE serial = ?";
    let found = rows::first(connection, query, params![renewed.as_bytes()], |row| {
        Ok((rows::state(get(row, 0)?)?, get::<i64>(row, 1)?, rows::column::<32>(row, 2)?))
    })?;
    let (state, step, key) = found.ok_or(StoreError::NotFound)?;
    let stands = matches!(state, State::Signed | State::Logged | State::Delivered);
    if !stands || step != Step::Certificate as i64 || revocations::is_compromised(connection, &key)? {
        return Err(StoreError::CertificateRevoked);
    }
    // It may have come of one that was revoked a moment ago, and its own revocation be due.
    if let Some(identity) = &new.identity
        && renewals::are_due_of(connection, identity.as_str())?
    {
        return Err(StoreError::RenewalsEnding);
    }
    // Of those that were given up the id is gone; these are the words of the index.
    let query = "SELECT count(*), count(CASE WHEN request_id = ? THEN 1 END) FROM certificate \
                 WHERE requester = ? AND request_id IS NOT NULL AND substr(requester, 1, 6) <> 'token:'";
    let counted = rows::first(connection, query, params![new.request_id, new.requester], |row| {
        Ok((get::<i64>(row, 0)?, get::<i64>(row, 1)?))
    })?;
    match counted {
        Some((_, same)) if same > 0 => Err(StoreError::RenewedAlready),
        Some((all, _)) if all >= i64::from(MAX_RENEWALS) => Err(StoreError::RenewedTooOften),
        _ => Ok(()),
    }
}

/// Refuses the signature on a certificate whose key became known as compromised since its intent was recorded (C9).
fn refuse_compromised(connection: &Connection, intent: &IntentId) -> Result<(), StoreError> {
    let query = "SELECT spki_sha256 FROM certificate WHERE intent = ?";
    let key = rows::first(connection, query, params![intent], |row| rows::column::<32>(row, 0))?;
    match key {
        Some(key) if revocations::is_compromised(connection, &key)? => Err(StoreError::KeyCompromised),
        _ => Ok(()),
    }
}

/// From which states and step to which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transition {
    /// `intent` → `signing`.
    BeginSigning,
    /// Step precertificate: `signing` → `signed`.
    SignPrecertificate,
    /// Step certificate: `signing` or `maybe-issued` → `signed`; → `logged` when the log's index is known.
    Sign,
    /// Step certificate: `signed` or `logged` → `delivered`.
    Deliver,
}

impl Transition {
    const fn states(self) -> (State, State, State) {
        match self {
            Self::BeginSigning => (State::Intent, State::Intent, State::Signing),
            Self::SignPrecertificate => (State::Signing, State::Signing, State::Signed),
            Self::Sign => (State::Signing, State::MaybeIssued, State::Signed),
            Self::Deliver => (State::Signed, State::Logged, State::Delivered),
        }
    }

    /// The steps it applies to.
    const fn steps(self) -> (Step, Step) {
        match self {
            Self::BeginSigning => (Step::Precertificate, Step::Certificate),
            Self::SignPrecertificate => (Step::Precertificate, Step::Precertificate),
            Self::Sign | Self::Deliver => (Step::Certificate, Step::Certificate),
        }
    }
}

/// One conditional change of an issuance's state, with what becomes known by it.
#[derive(Debug, Clone)]
pub(super) struct Advance {
    pub(super) intent: IntentId,
    pub(super) signature: Option<Vec<u8>>,
    pub(super) log_index: Option<u64>,
    /// Particulars of the audit record that goes with it.
    pub(super) detail: Option<SortedJson>,
    pub(super) at: UnixTime,
}

impl Advance {
    /// A change by which nothing more becomes known.
    pub(super) fn of(intent: IntentId, at: UnixTime) -> Self {
        Self { intent, signature: None, log_index: None, detail: None, at }
    }
}

/// Advances issuances by one transition; appends to `entries` what the audit trail must say.
pub(super) fn advance(
    connection: &Connection,
    transition: Transition,
    changes: &[Advance],
    entries: &mut Vec<Entry>,
) -> Outcomes {
    changes.iter().map(|change| outcome(advance_one(connection, transition, change, entries))).collect()
}

/// Advances one issuance; nothing is written where its state is another.
pub(super) fn advance_alone(
    connection: &Connection,
    transition: Transition,
    change: &Advance,
) -> Result<(), StoreError> {
    let mut entries = Vec::new();
    advance_one(connection, transition, change, &mut entries)?;
    audit::append_all(connection, entries)
}

fn advance_one(
    connection: &Connection,
    transition: Transition,
    change: &Advance,
    entries: &mut Vec<Entry>,
) -> Result<(), StoreError> {
    if transition == Transition::BeginSigning {
        refuse_compromised(connection, &change.intent)?;
    }
    let (from, or_from, to) = transition.states();
    let (step, or_step) = transition.steps();
    // What is signed and has its place in the log is logged.
    let to_if_logged = if transition == Transition::Sign { State::Logged } else { to };
    let requester = rows::first(
        connection,
        "UPDATE certificate SET state = CASE WHEN log_index IS NULL THEN ?2 ELSE ?3 END, \
         signature = coalesce(?4, signature), log_index = coalesce(?5, log_index), updated_at = ?6 \
         WHERE intent = ?1 AND state IN (?7, ?8) AND step IN (?9, ?10) RETURNING requester",
        params![
            change.intent,
            to as i64,
            to_if_logged as i64,
            change.signature,
            change.log_index.map(stored_index).transpose()?,
            change.at.0,
            from as i64,
            or_from as i64,
            step as i64,
            or_step as i64,
        ],
        |row| get::<String>(row, 0),
    )?
    .ok_or(StoreError::StateConflict)?;
    if let Some(detail) = &change.detail {
        entries.push(signing(requester, detail.clone(), change.at));
    }
    Ok(())
}

/// The audit record that is durable before a signature.
fn signing(actor: String, detail: SortedJson, at: UnixTime) -> Entry {
    Entry { event: "certificate.signing".to_owned(), actor, detail, at }
}

/// The second step of an issuance: its SCT, and the to-be-signed bytes of the certificate.
#[derive(Debug, Clone)]
pub(super) struct CertificateStep {
    pub(super) intent: IntentId,
    pub(super) sct: Vec<u8>,
    pub(super) log_index: Option<u64>,
    pub(super) tbs: Vec<u8>,
    pub(super) at: UnixTime,
}

/// Step precertificate, `signed` → step certificate, `signing`.
pub(super) fn begin_certificates(
    connection: &Connection,
    steps: &[CertificateStep],
    entries: &mut Vec<Entry>,
) -> Outcomes {
    steps.iter().map(|new| outcome(begin_certificate(connection, new, entries))).collect()
}

fn begin_certificate(
    connection: &Connection,
    new: &CertificateStep,
    entries: &mut Vec<Entry>,
) -> Result<(), StoreError> {
    refuse_compromised(connection, &new.intent)?;
    let digest = Sha256::digest(&new.tbs);
    let requester = rows::first(
        connection,
        "UPDATE certificate SET state = ?2, step = ?3, precertificate_sha256 = tbs_sha256, \
         precertificate_signature = signature, signature = NULL, sct = ?4, log_index = ?5, tbs = ?6, tbs_sha256 = ?7, \
         updated_at = ?8 WHERE intent = ?1 AND state = ?9 AND step = ?10 RETURNING requester",
        params![
            new.intent,
            State::Signing as i64,
            Step::Certificate as i64,
            new.sct,
            new.log_index.map(stored_index).transpose()?,
            new.tbs,
            digest.as_slice(),
            new.at.0,
            State::Signed as i64,
            Step::Precertificate as i64,
        ],
        |row| get::<String>(row, 0),
    )?
    .ok_or(StoreError::StateConflict)?;
    let detail = serde_json::json!({
        "intent": hex::encode(new.intent),
        "tbs_sha256": hex::encode(digest),
        "log_index": new.log_index,
    });
    entries.push(signing(requester, detail.into(), new.at));
    Ok(())
}

/// Ends an intent because of an order, whose actor the audit trail names. The requester's token and id of the request stay used up:
/// the order means that nothing comes of them.
pub(super) fn end(
    connection: &Connection,
    intent: &IntentId,
    actor: &str,
    reason: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    let changed = rows::execute(
        connection,
        "UPDATE certificate SET state = ?, reason = ?, updated_at = ? WHERE intent = ? AND state = ?",
        params![State::Abandoned as i64, reason, at.0, intent, State::Intent as i64],
    )?;
    if changed != 1 {
        return Err(StoreError::StateConflict);
    }
    let detail = serde_json::json!({ "intent": hex::encode(intent), "reason": reason });
    audit::append(connection, "certificate.abandoned", actor, detail, at)
}

/// `intent` → `abandoned` or `signing` → `maybe-issued`, with the reason in row and audit trail. Of what was abandoned nothing
/// exists, so the token, the approved request and the requester's id of the request may serve again.
pub(super) fn give_up(
    connection: &Connection,
    intent: &IntentId,
    (from, to): (State, State),
    reason: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    let changed = rows::execute(
        connection,
        "UPDATE certificate SET state = ?1, reason = ?2, updated_at = ?3, \
         request_id = CASE ?1 WHEN ?6 THEN NULL ELSE request_id END WHERE intent = ?4 AND state = ?5",
        params![to as i64, reason, at.0, intent, from as i64, State::Abandoned as i64],
    )?;
    if changed != 1 {
        return Err(StoreError::StateConflict);
    }
    if to == State::Abandoned {
        tokens::release(connection, intent, at)?;
    }
    let event = if to == State::Abandoned { "certificate.abandoned" } else { "certificate.maybe-issued" };
    let detail = serde_json::json!({ "intent": hex::encode(intent), "reason": reason });
    audit::append(connection, event, "reconciler", detail, at)
}

/// Takes back a `signing` of which the signer says that nothing was signed.
pub(super) fn undo_signing(
    connection: &Connection,
    intent: &IntentId,
    precertificate: Option<&[u8]>,
    reason: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    let changed = match precertificate {
        // The precertificate and its place in the log stand; only the certificate's step is taken back.
        Some(tbs) => rows::execute(
            connection,
            "UPDATE certificate SET state = ?, step = ?, tbs = ?, tbs_sha256 = precertificate_sha256, \
             signature = precertificate_signature, precertificate_sha256 = NULL, precertificate_signature = NULL, \
             sct = NULL, log_index = NULL, reason = ?, updated_at = ? \
             WHERE intent = ? AND state = ? AND precertificate_sha256 = ?",
            params![
                State::Signed as i64,
                Step::Precertificate as i64,
                tbs,
                reason,
                at.0,
                intent,
                State::Signing as i64,
                Sha256::digest(tbs).as_slice(),
            ],
        )?,
        // Nothing exists, so the token and the requester's id of the request may serve again.
        None => rows::execute(
            connection,
            "UPDATE certificate SET state = ?, request_id = NULL, reason = ?, updated_at = ? \
             WHERE intent = ? AND state = ? AND precertificate_sha256 IS NULL",
            params![State::Abandoned as i64, reason, at.0, intent, State::Signing as i64],
        )?,
    };
    if changed != 1 {
        return Err(StoreError::StateConflict);
    }
    if precertificate.is_none() {
        tokens::release(connection, intent, at)?;
    }
    let detail = serde_json::json!({ "intent": hex::encode(intent), "reason": reason });
    audit::append(connection, "certificate.signing-undone", "issuance", detail, at)
}
