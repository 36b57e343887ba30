//! SQL of issuances: the transitions of ca-requirements §4, many at once.
//!
//! Whatever waits for the same commit goes into one statement of its kind, so that the cost of a statement is shared as the
//! cost of a sync is. Each change still has an outcome of its own: a row that is not in the expected state changes nothing.

use std::collections::HashMap;

use ca_pki::UnixTime;
use sha2::{Digest, Sha256};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::audit::Entry;
use super::rows::{self, column, get, stored_index, unavailable};
use super::{IntentId, NewIntent, State, Step, StoreError, revocations, tokens};

/// Outcome of each change of a group, in order; an error of the whole says that nothing may be committed.
pub(super) type Outcomes = Result<Vec<Result<(), StoreError>>, StoreError>;

/// Records intents and uses their tokens up.
pub(super) async fn record_intents(connection: &mut SqliteConnection, new: &[NewIntent]) -> Outcomes {
    let keys: Vec<[u8; 32]> = new.iter().map(|intent| intent.spki_sha256).collect();
    let compromised = revocations::compromised(&mut *connection, &keys).await?;
    let mut usable = tokens::usable(&mut *connection, new).await?;
    let mut accepted = Vec::with_capacity(new.len());
    let mut outcomes = Vec::with_capacity(new.len());
    for intent in new {
        let outcome = if compromised.contains(&intent.spki_sha256) {
            Err(StoreError::KeyCompromised)
        } else {
            intent.token.map_or(Ok(()), |token| usable.take(&token, intent.at))
        };
        if outcome.is_ok() {
            accepted.push(intent);
        }
        outcomes.push(outcome);
    }
    for part in rows::portions(&accepted) {
        tokens::consume(&mut *connection, part).await?;
        insert(&mut *connection, part).await?;
    }
    Ok(outcomes)
}

async fn insert(connection: &mut SqliteConnection, new: &[&NewIntent]) -> Result<(), StoreError> {
    let mut query: QueryBuilder<Sqlite> = QueryBuilder::new(
        "INSERT INTO certificate (serial, intent, issuer, profile, identity_kind, identity, spki_sha256, requester, \
         request_id, evidence, not_before, not_after, shard, state, step, tbs_sha256, tbs, created_at, updated_at) ",
    );
    query.push_values(new, |mut row, new| {
        row.push_bind(new.serial.as_bytes())
            .push_bind(new.intent.as_slice())
            .push_bind(&new.issuer)
            .push_bind(&new.profile)
            .push_bind(new.identity.as_ref().map(rows::identity_kind))
            .push_bind(new.identity.as_ref().map(|identity| identity.as_str()))
            .push_bind(new.spki_sha256.as_slice())
            .push_bind(&new.requester)
            .push_bind(&new.request_id)
            .push_bind(&new.evidence)
            .push_bind(new.not_before.0)
            .push_bind(new.not_after.0)
            .push_bind(i64::from(new.shard.0))
            .push_bind(State::Intent as i64)
            .push_bind(new.step as i64)
            .push_bind(Sha256::digest(&new.tbs).to_vec())
            .push_bind(&new.tbs)
            .push_bind(new.at.0)
            .push_bind(new.at.0);
    });
    query.build().execute(connection).await.map_err(unavailable)?;
    Ok(())
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
    pub(super) detail: Option<String>,
    pub(super) at: UnixTime,
}

impl Advance {
    /// A change by which nothing more becomes known.
    pub(super) fn of(intent: IntentId, at: UnixTime) -> Self {
        Self { intent, signature: None, log_index: None, detail: None, at }
    }
}

/// Advances issuances by one transition; appends to `entries` what the audit trail must say.
pub(super) async fn advance(
    connection: &mut SqliteConnection,
    transition: Transition,
    changes: &[Advance],
    entries: &mut Vec<Entry>,
) -> Outcomes {
    let (from, or_from, to) = transition.states();
    let (step, or_step) = transition.steps();
    let mut changed = HashMap::with_capacity(changes.len());
    for part in rows::portions(changes) {
        let indices = part
            .iter()
            .map(|change| change.log_index.map(stored_index).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        let mut query: QueryBuilder<Sqlite> =
            QueryBuilder::new("WITH change (intent, signature, log_index, at) AS (");
        query.push_values(part.iter().zip(indices), |mut row, (change, index)| {
            row.push_bind(change.intent.as_slice())
                .push_bind(change.signature.as_deref())
                .push_bind(index)
                .push_bind(change.at.0);
        });
        // What is signed and has its place in the log is logged.
        query
            .push(") UPDATE certificate SET state = CASE WHEN ")
            .push_bind(transition == Transition::Sign)
            .push(" AND certificate.log_index IS NOT NULL THEN ")
            .push_bind(State::Logged as i64)
            .push(" ELSE ")
            .push_bind(to as i64)
            .push(" END, signature = coalesce(change.signature, certificate.signature), ")
            .push("log_index = coalesce(change.log_index, certificate.log_index), updated_at = change.at ")
            .push("FROM change WHERE certificate.intent = change.intent AND certificate.state IN (")
            .push_bind(from as i64)
            .push(", ")
            .push_bind(or_from as i64)
            .push(") AND certificate.step IN (")
            .push_bind(step as i64)
            .push(", ")
            .push_bind(or_step as i64)
            .push(") RETURNING intent, requester");
        collect(&mut *connection, query, &mut changed).await?;
    }
    Ok(outcomes(
        changes.iter().map(|change| (change.intent, change.detail.clone(), change.at)),
        &mut changed,
        entries,
    ))
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
pub(super) async fn begin_certificates(
    connection: &mut SqliteConnection,
    steps: &[CertificateStep],
    entries: &mut Vec<Entry>,
) -> Outcomes {
    let mut changed = HashMap::with_capacity(steps.len());
    for part in rows::portions(steps) {
        let indices = part
            .iter()
            .map(|new| new.log_index.map(stored_index).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        let mut query: QueryBuilder<Sqlite> =
            QueryBuilder::new("WITH change (intent, sct, log_index, tbs, tbs_sha256, at) AS (");
        query.push_values(part.iter().zip(indices), |mut row, (new, index)| {
            row.push_bind(new.intent.as_slice())
                .push_bind(&new.sct)
                .push_bind(index)
                .push_bind(&new.tbs)
                .push_bind(Sha256::digest(&new.tbs).to_vec())
                .push_bind(new.at.0);
        });
        query
            .push(") UPDATE certificate SET state = ")
            .push_bind(State::Signing as i64)
            .push(", step = ")
            .push_bind(Step::Certificate as i64)
            .push(", precertificate_sha256 = certificate.tbs_sha256, precertificate_signature = certificate.signature, ")
            .push("signature = NULL, sct = change.sct, log_index = change.log_index, tbs = change.tbs, ")
            .push("tbs_sha256 = change.tbs_sha256, updated_at = change.at ")
            .push("FROM change WHERE certificate.intent = change.intent AND certificate.state = ")
            .push_bind(State::Signed as i64)
            .push(" AND certificate.step = ")
            .push_bind(Step::Precertificate as i64)
            .push(" RETURNING intent, requester");
        collect(&mut *connection, query, &mut changed).await?;
    }
    let particulars = steps.iter().map(|new| {
        let detail = serde_json::json!({
            "intent": hex::encode(new.intent),
            "tbs_sha256": hex::encode(Sha256::digest(&new.tbs)),
            "log_index": new.log_index,
        });
        (new.intent, Some(detail.to_string()), new.at)
    });
    Ok(outcomes(particulars, &mut changed, entries))
}

/// Runs a group's statement; keeps which rows it changed, with their requesters.
async fn collect(
    connection: &mut SqliteConnection,
    mut query: QueryBuilder<Sqlite>,
    changed: &mut HashMap<IntentId, String>,
) -> Result<(), StoreError> {
    for row in query.build().fetch_all(connection).await.map_err(unavailable)? {
        changed.insert(column::<16>(&row, 0)?, get(&row, 1)?);
    }
    Ok(())
}

/// Each change's outcome, and the audit records of those that happened.
fn outcomes(
    changes: impl Iterator<Item = (IntentId, Option<String>, UnixTime)>,
    changed: &mut HashMap<IntentId, String>,
    entries: &mut Vec<Entry>,
) -> Vec<Result<(), StoreError>> {
    changes
        .map(|(intent, detail, at)| {
            let requester = changed.remove(&intent).ok_or(StoreError::StateConflict)?;
            if let Some(detail) = detail {
                entries.push(Entry { event: "certificate.signing".to_owned(), actor: requester, detail, at });
            }
            Ok(())
        })
        .collect()
}

/// `intent` → `abandoned` or `signing` → `maybe-issued`, with the reason in row and audit trail.
pub(super) async fn give_up(
    connection: &mut SqliteConnection,
    intent: &IntentId,
    (from, to): (State, State),
    reason: &str,
    at: UnixTime,
) -> Result<Entry, StoreError> {
    let changed = sqlx::query(
        "UPDATE certificate SET state = ?, reason = ?, updated_at = ? WHERE intent = ? AND state = ?",
    )
    .bind(to as i64)
    .bind(reason)
    .bind(at.0)
    .bind(intent.as_slice())
    .bind(from as i64)
    .execute(connection)
    .await
    .map_err(unavailable)?;
    if changed.rows_affected() != 1 {
        return Err(StoreError::StateConflict);
    }
    let event = if to == State::Abandoned { "certificate.abandoned" } else { "certificate.maybe-issued" };
    let detail = serde_json::json!({ "intent": hex::encode(intent), "reason": reason });
    Ok(Entry { event: event.to_owned(), actor: "reconciler".to_owned(), detail: detail.to_string(), at })
}

/// Takes back a `signing` of which the signer says that nothing was signed.
pub(super) async fn undo_signing(
    connection: &mut SqliteConnection,
    intent: &IntentId,
    precertificate: Option<&[u8]>,
    reason: &str,
    at: UnixTime,
) -> Result<Entry, StoreError> {
    let changed = match precertificate {
        // The precertificate and its place in the log stand; only the certificate's step is taken back.
        Some(tbs) => sqlx::query(
            "UPDATE certificate SET state = ?, step = ?, tbs = ?, tbs_sha256 = precertificate_sha256, \
             signature = precertificate_signature, precertificate_sha256 = NULL, precertificate_signature = NULL, \
             sct = NULL, log_index = NULL, reason = ?, updated_at = ? \
             WHERE intent = ? AND state = ? AND precertificate_sha256 = ?",
        )
        .bind(State::Signed as i64)
        .bind(Step::Precertificate as i64)
        .bind(tbs)
        .bind(reason)
        .bind(at.0)
        .bind(intent.as_slice())
        .bind(State::Signing as i64)
        .bind(Sha256::digest(tbs).to_vec())
        .execute(&mut *connection)
        .await
        .map_err(unavailable)?,
        // Nothing exists, so the token and the requester's id of the request may serve again.
        None => sqlx::query(
            "UPDATE certificate SET state = ?, request_id = NULL, reason = ?, updated_at = ? \
             WHERE intent = ? AND state = ? AND precertificate_sha256 IS NULL",
        )
        .bind(State::Abandoned as i64)
        .bind(reason)
        .bind(at.0)
        .bind(intent.as_slice())
        .bind(State::Signing as i64)
        .execute(&mut *connection)
        .await
        .map_err(unavailable)?,
    };
    if changed.rows_affected() != 1 {
        return Err(StoreError::StateConflict);
    }
    if precertificate.is_none() {
        tokens::release(connection, intent).await?;
    }
    let detail = serde_json::json!({ "intent": hex::encode(intent), "reason": reason });
    Ok(Entry {
        event: "certificate.signing-undone".to_owned(),
        actor: "issuance".to_owned(),
        detail: detail.to_string(),
        at,
    })
}
