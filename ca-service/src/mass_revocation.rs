//! Revoking many certificates: plan → confirm and approve → carry out, a piece at a time.
//!
//! A plan is one text, the [`Order`], that says everything: which certificates, why, from when on, how many. Its exact bytes are
//! confirmed and approved, so nothing that anybody agreed to can change its meaning afterwards. Certificates issued after the
//! plan are not touched, except those of requests that waited for people when it was made and those that came of selected ones by renewal,
//! and a number that differs from the confirmed one stops it. What is in flight is meant too, and is ended before it is signed. Pieces go
//! by row number and repeat harmlessly: whoever was interrupted goes on from the last piece, or from the first.
//!
//! Unless the reason says that the holders are trusted, what came of a selected certificate by renewal ends with it, whatever its key, its
//! issuer and its time; and where the reason is a compromise, everything else that has its key. The plan counts those beside the selected
//! ones, they are confirmed and approved with them, and those that came since end too. So that approvals cannot be avoided by that, as many
//! are needed as the number of the day asks for.

mod reach;

use std::sync::Arc;

use ca_api::{PlanRevocations, RevocationPlan, RevocationSelection, RevokeMany, RevokeManyDone};
use ca_pki::UnixTime;
use ca_pki::crl::RevocationReason;
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::approval::{Approved, Intent, Quorum};
use crate::authority::{CertificateAuthority, names};
use crate::error::CaError;
use crate::revocation::ends_renewals;
use crate::storage::queue::QueueSelection;
use crate::storage::{Selected, Selection, State, StoreError};
use crate::wire::stored_reason;
use reach::{Around, Reach};

/// How long an order may be carried out.
const ORDER_LASTS: i64 = 7 * 86_400;
/// Largest order that is read, in bytes.
pub const MAX_ORDER: usize = 4 * 1024;
/// Most approvals that are read.
const MAX_APPROVALS: usize = crate::approval::MAX_APPROVERS;
/// Most certificates of one piece.
const MAX_PIECE: u32 = 1_000;
/// Longest text of a condition.
const MAX_TEXT: usize = 1_024;
/// Why an order ended a request.
const ENDED: &str = "an order to revoke many meant it";
/// Orders whose number is remembered.
const REMEMBERED: u64 = 64;
/// Attempts to revoke or to end what moves on at the same moment; it moves on twice at most.
const ATTEMPTS: u32 = 4;

/// How many certificates an order matches, by its SHA-256. That never changes, and of renewals there may only be more, so it is counted
/// for the first piece and not for each of thousands.
pub(crate) struct CountedOrders {
    found: Cache<[u8; 32], Found>,
}

/// How many certificates an order selects, and how many others end with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    matching: u64,
    beside: Reach,
}

impl CountedOrders {
    pub(crate) fn new() -> Self {
        Self { found: Cache::builder().max_capacity(REMEMBERED).build() }
    }
}

/// An order to revoke many certificates, as it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// SHA-256 of the issuing authority's key: no other CA takes the order.
    pub authority: String,
    /// Which certificates.
    pub selection: RevocationSelection,
    /// Rows up to this number: what was issued since is not meant, unless it came of a request that was.
    pub through: i64,
    /// Number of the newest open request that was meant; 0, and not written, where there was none. What came of them and of earlier ones
    /// since is revoked with the others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub requests_through: i64,
    /// How many certificates that are.
    pub matching: u64,
    /// How many others had come of them by renewal and end with them; 0, and not written, where none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub renewed: u64,
    /// How many others had one of their keys and end with them; 0, and not written, where none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub same_key: u64,
    /// Why.
    pub reason: ca_api::RevocationReason,
    /// From when on they must not be trusted; none for the time of recording.
    pub compromised_at: Option<i64>,
    /// Void from then on.
    pub void_at: i64,
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

impl Order {
    /// Reads an order; anything that this program would have written otherwise is refused.
    ///
    /// # Errors
    /// [`CaError::OutOfRange`].
    pub fn parse(text: &str) -> Result<Self, CaError> {
        let refused =
            || CaError::OutOfRange { field: "order", reason: "is not the text of a plan, byte for byte" };
        if text.len() > MAX_ORDER {
            return Err(refused());
        }
        let order: Self = serde_json::from_str(text).map_err(|_| refused())?;
        if order.text()? == text { Ok(order) } else { Err(refused()) }
    }

    fn text(&self) -> Result<String, CaError> {
        serde_json::to_string(self).map_err(|_| CaError::Inconsistent("an order cannot be written"))
    }

    /// What is confirmed: every certificate that it ends.
    fn all(&self) -> u64 {
        self.matching.saturating_add(self.beside().all())
    }

    /// How many others it ends.
    fn beside(&self) -> Reach {
        Reach { renewed: self.renewed, same_key: self.same_key }
    }

    fn selection(&self) -> Result<Selection, CaError> {
        let requests_through = Some(self.requests_through).filter(|number| *number > 0);
        Ok(Selection { through: Some(self.through), requests_through, ..selection(&self.selection)? })
    }
}

/// The conditions as the store takes them.
fn selection(wire: &RevocationSelection) -> Result<Selection, CaError> {
    let out_of_range = |field, reason| CaError::OutOfRange { field, reason };
    let texts = [&wire.identity, &wire.issuer, &wire.profile];
    if texts.into_iter().flatten().any(|text| text.len() > MAX_TEXT) {
        return Err(out_of_range("selection", "has a condition of more than 1024 bytes"));
    }
    if *wire == RevocationSelection::default() {
        return Err(out_of_range("selection", "must have a condition"));
    }
    let spki_sha256 = match &wire.spki_sha256 {
        None => None,
        Some(digits) => {
            let octets = hex::decode(digits).ok().and_then(|octets| octets.try_into().ok());
            Some(octets.ok_or_else(|| out_of_range("spki_sha256", "must be 64 hexadecimal digits"))?)
        }
    };
    Ok(Selection {
        identity: wire.identity.clone(),
        spki_sha256,
        issuer: wire.issuer.clone(),
        profile: wire.profile.clone(),
        created_from: wire.issued_from.map(UnixTime),
        created_before: wire.issued_before.map(UnixTime),
        through: None,
        requests_through: None,
    })
}

/// The requests whose certificates an order would mean, were they issued: whenever they were recorded, for they would be issued now.
/// Those of after the plan as well: nothing is lost that cannot be asked for again.
fn requests_meant(wire: &RevocationSelection) -> Result<QueueSelection, CaError> {
    let Selection { identity, spki_sha256, profile, issuer, created_before, .. } = selection(wire)?;
    Ok(QueueSelection { requester: None, identity, spki_sha256, profile, issuer, created_before })
}

impl CertificateAuthority {
    /// Says what a revocation of many would touch. Changes nothing.
    ///
    /// # Errors
    /// [`CaError::OutOfRange`], [`CaError::Store`].
    pub async fn plan_revocations(&self, asked: &PlanRevocations) -> Result<RevocationPlan, CaError> {
        let now = self.clock.for_records();
        if asked.compromised_at.is_some_and(|at| at > now.0) {
            return Err(CaError::OutOfRange { field: "compromised_at", reason: "must not be in the future" });
        }
        let open = self.store.count_requests(requests_meant(&asked.selection)?).await?;
        let count = self.store.count_selected(selection(&asked.selection)?).await?;
        let around = Around::of(selection(&asked.selection)?, asked.reason, asked.compromised_at);
        let Reach { renewed, same_key } = self.reach(&around).await?.all;
        let order = Order {
            authority: self.authority_fingerprint()?,
            selection: asked.selection.clone(),
            through: count.newest,
            requests_through: open.newest,
            matching: count.matching,
            renewed,
            same_key,
            reason: asked.reason,
            compromised_at: asked.compromised_at,
            void_at: now.plus(ORDER_LASTS).0,
        };
        let text = order.text()?;
        Ok(RevocationPlan {
            order_sha256: hex::encode(Sha256::digest(&text)),
            order: text,
            matching: count.matching,
            revoked: count.revoked,
            renewed,
            same_key,
            open_requests: open.count,
            approvals_needed: self.approvers_of(order.all()).map_or(0, Quorum::threshold),
            void_at: order.void_at,
        })
    }

    /// The quorum that has to approve a revocation of so many, if one has to.
    fn approvers_of(&self, ended: u64) -> Option<&Quorum> {
        self.quorum.as_ref().filter(|quorum| ended > quorum.revocations_above())
    }

    /// SHA-256 of the key that signs certificates: what is approved for one authority says nothing to another.
    pub(crate) fn authority_fingerprint(&self) -> Result<String, CaError> {
        Ok(hex::encode(self.authority(names::CODE_SIGNING)?.public_key.spki_sha256()))
    }

    /// Carries out a piece of an order. Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// [`CaError::OutOfRange`] for an order that is not one, void, or for another number than confirmed;
    /// [`CaError::Approval`], [`CaError::Store`].
    pub async fn revoke_many(
        self: &Arc<Self>,
        asked: &RevokeMany,
        actor: &str,
    ) -> Result<RevokeManyDone, CaError> {
        let order = Order::parse(&asked.order)?;
        let limit = asked.limit.unwrap_or(MAX_PIECE);
        let refuse = |field, reason| Err(CaError::OutOfRange { field, reason });
        if !(1..=MAX_PIECE).contains(&limit) {
            return refuse("limit", "must be 1 to 1000");
        }
        if order.authority != self.authority_fingerprint()? {
            return refuse("order", "is for another authority");
        }
        let now = self.clock.for_records();
        if now.0 >= order.void_at {
            return refuse("order", "is void: plan again");
        }
        // Whoever writes an order does not give himself more time than a plan has.
        if order.void_at > now.plus(ORDER_LASTS).0 {
            return refuse("order", "is void later than seven days from now, which no plan says");
        }
        if order.compromised_at.is_some_and(|at| at > now.0) {
            return refuse("compromised_at", "must not be in the future");
        }
        if asked.confirm != order.all() {
            return refuse(
                "confirm",
                "is not the number of certificates of the order, with what came of them",
            );
        }
        let found = self.found(&order, &asked.order).await?;
        if found.matching != order.matching {
            return Err(CaError::SelectionChanged { planned: order.matching, found: found.matching });
        }
        let ended = found.matching.saturating_add(found.beside.most(order.beside()).all());
        let approved = match self.approvers_of(ended) {
            None => None,
            Some(quorum) => {
                if asked.approvals.len() > MAX_APPROVALS {
                    return refuse("approvals", "are more than there can be approvers");
                }
                let papers: Vec<_> = asked.approvals.iter().map(|paper| paper.as_bytes().to_vec()).collect();
                Some(quorum.judge(Intent::Revocation, asked.order.as_bytes(), &papers)?)
            }
        };
        let piece = Piece { after: asked.after.unwrap_or(0), limit, actor: actor.to_owned() };
        let (this, text) = (Arc::clone(self), asked.order.clone());
        let task = tokio::spawn(async move { this.revoke_piece(&order, &text, approved, &piece).await });
        task.await.unwrap_or(Err(CaError::Inconsistent("the revocation task ended early")))
    }

    /// How many certificates an order matches, and how many came of them by now.
    async fn found(&self, order: &Order, text: &str) -> Result<Found, CaError> {
        let digest: [u8; 32] = Sha256::digest(text).into();
        if let Some(known) = self.counted_orders.found.get(&digest) {
            return Ok(known);
        }
        let selection = order.selection()?;
        let around = Around::of(selection.clone(), order.reason, order.compromised_at);
        let beside = self.reach(&around).await?.all;
        let found = Found { matching: self.store.count_selected(selection).await?.matching, beside };
        self.counted_orders.found.insert(digest, found);
        Ok(found)
    }

    async fn revoke_piece(
        &self,
        order: &Order,
        text: &str,
        approved: Option<Approved>,
        piece: &Piece,
    ) -> Result<RevokeManyDone, CaError> {
        let approved = match approved {
            Some(approved) if approved.covers(text.as_bytes()) => approved.accepted().to_vec(),
            Some(_) => return Err(CaError::Inconsistent("an approval of another order")),
            None => Vec::new(),
        };
        let selection = order.selection()?;
        // The record comes first: what was ordered, by whom, approved by whom.
        let detail = serde_json::json!({
            "order": order,
            "order_sha256": hex::encode(Sha256::digest(text)),
            "after": piece.after,
            "limit": piece.limit,
            "with_renewals": ends_renewals(stored_reason(order.reason)),
            "approved": approved,
        });
        let now = self.clock.for_records();
        self.store.audit("revocation.ordered", &piece.actor, detail.into(), now).await?;
        let mut done = RevokeManyDone::default();
        // Before the certificates are looked for: a request that is fetched until then has its certificate among them, and none is
        // fetched after.
        let meant = requests_meant(&order.selection)?;
        done.ended_requests = self.store.end_requests(meant, &piece.actor, ENDED, now).await?;
        self.metrics.requests_ended.inc_by(done.ended_requests);
        let found = self.store.selected(selection.clone(), piece.after, piece.limit).await?;
        let reason = stored_reason(order.reason);
        let mut outcomes = Vec::with_capacity(found.len());
        for one in &found {
            outcomes.push(self.revoke_selected(one, order, reason, &piece.actor));
        }
        // What is handed in together shares commits.
        for outcome in futures_util::future::join_all(outcomes).await {
            match outcome {
                Ok(Fate::Revoked) => done.revoked += 1,
                Ok(Fate::Kept) => done.kept += 1,
                // The others of the piece stand; repeating it comes to the same.
                Err(error) => return Err(error),
            }
        }
        if found.len() == piece.limit as usize {
            done.next = found.last().map(|last| last.row);
        } else {
            // Of all pieces together, with the last one: several of them may reach the same certificates, and any may be repeated.
            let around = Around::of(selection, order.reason, order.compromised_at);
            let ended = self.reach(&around).await?.revoked;
            (done.renewed, done.same_key) = (ended.renewed, ended.same_key);
        }
        Ok(done)
    }

    async fn revoke_selected(
        &self,
        one: &Selected,
        order: &Order,
        reason: RevocationReason,
        actor: &str,
    ) -> Result<Fate, CaError> {
        // Nobody could trust a certificate before its validity.
        let from = order.compromised_at.map(|at| UnixTime(at).max(one.not_before));
        for _ in 0..ATTEMPTS {
            match self.record_revocation(&one.serial, reason, from, actor).await {
                Ok(_) => return Ok(Fate::Revoked),
                Err(CaError::RevokedForAnotherReason) => return Ok(Fate::Kept),
                Err(CaError::NothingToRevoke) => {}
                Err(error) => return Err(error),
            }
            // Nothing is signed. Of what is in flight nothing will be.
            let record = self.store.certificate(&one.serial).await?.ok_or(CaError::CertificateUnknown)?;
            if record.state == State::Abandoned {
                return Ok(Fate::Kept);
            }
            let now = self.clock.for_records();
            match self.store.end(record.intent, actor, "an order to revoke many meant it", now).await {
                Ok(()) => {
                    self.metrics.abandoned.inc();
                    return Ok(Fate::Kept);
                }
                // It moved on at this very moment.
                Err(StoreError::StateConflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CaError::Inconsistent("a certificate can be neither revoked nor ended"))
    }
}

/// What an order did to one certificate.
enum Fate {
    Revoked,
    /// Revoked for another reason before, or never signed.
    Kept,
}

/// Which part of an order, and who has it carried out.
struct Piece {
    after: i64,
    limit: u32,
    actor: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order {
            authority: "ab".repeat(32),
            selection: RevocationSelection {
                identity: Some("dev@example.com".to_owned()),
                ..RevocationSelection::default()
            },
            through: 7,
            requests_through: 0,
            matching: 3,
            renewed: 0,
            same_key: 0,
            reason: ca_api::RevocationReason::KeyCompromise,
            compromised_at: Some(1_700_000_000),
            void_at: 1_800_000_000,
        }
    }

    #[test]
    fn what_is_approved_is_frozen_and_read_back_only_byte_for_byte() {
        let text = order().text().unwrap();
        let expected = format!(
            "{{\"authority\":\"{}\",\"selection\":{{\"identity\":\"dev@example.com\"}},\"through\":7,\"matching\":3,\
             \"reason\":\"key-compromise\",\"compromised_at\":1700000000,\"void_at\":1800000000}}",
            "ab".repeat(32)
        );
        assert_eq!(text, expected);
        assert_eq!(Order::parse(&text).unwrap(), order());
        let with_requests = Order { requests_through: 9, ..order() };
        let expected = expected.replace("\"through\":7,", "\"through\":7,\"requests_through\":9,");
        assert_eq!(with_requests.text().unwrap(), expected);
        assert_eq!(Order::parse(&expected).unwrap(), with_requests);
        let with_renewals = Order { renewed: 4, ..order() };
        let expected = text.replace("\"matching\":3,", "\"matching\":3,\"renewed\":4,");
        assert_eq!((with_renewals.text().unwrap(), with_renewals.all()), (expected.clone(), 7));
        let of_keys = Order { same_key: 5, ..with_renewals };
        let expected = expected.replace("\"renewed\":4,", "\"renewed\":4,\"same_key\":5,");
        assert_eq!((of_keys.text().unwrap(), of_keys.all()), (expected, 12));
        for other in [
            format!("{text} "),
            text.replace(":3,", ": 3,"),
            text.replace("{\"authority\"", "{\"matching\":3,\"authority\""),
            text.replace("\"through\"", "\"all\":true,\"through\""),
            format!("{text}{}", " ".repeat(MAX_ORDER)),
        ] {
            assert!(
                matches!(Order::parse(&other), Err(CaError::OutOfRange { field: "order", .. })),
                "{other}"
            );
        }
    }

    #[test]
    fn a_selection_of_everything_is_refused() {
        assert!(selection(&RevocationSelection::default()).is_err());
        let wire = |key: &str| RevocationSelection {
            spki_sha256: Some(key.to_owned()),
            ..RevocationSelection::default()
        };
        assert!(selection(&wire(&"ab".repeat(32))).is_ok());
        assert!(selection(&wire("ab")).is_err());
        let long = RevocationSelection { profile: Some("x".repeat(1025)), ..RevocationSelection::default() };
        assert!(selection(&long).is_err());
    }
}
