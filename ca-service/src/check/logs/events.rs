//! The event log: every revocation and every anchor that the authority signed is recorded, and what is recorded as being there is.

use ca_pki::SerialNumber;
use tlog_client::VerifiedEntry;
use trust_store::dsse::{Envelope, IN_TOTO_PAYLOAD_TYPE};
use trust_store::json::Value;
use trust_store::statement::Statement;

use super::super::trail::Trail;
use super::super::verify;
use super::finding::{LogFindingCode, LogFindings};
use super::reading::Judge;
use super::rows::Rows;
use super::source::Source;
use crate::authority::{CertificateAuthority, LoadedAuthority, names};
use crate::error::CaError;
use crate::revocation::PREDICATE_TYPE;
use crate::statement::ANCHOR_TYPE;
use crate::storage::Anchor;

/// What was found in the event logs.
pub(super) struct Events<'a> {
    authority: &'a CertificateAuthority,
    trail: &'a Trail,
    /// Keys of statements, present and past.
    signers: Vec<&'a LoadedAuthority>,
    /// The newest anchor that the database has a note of, until it was found.
    pub(super) noted: Option<Anchor>,
    /// Records whose revocation is where they say.
    pub(super) found: Rows,
    /// Anchors that the trail has the record of.
    pub(super) anchors: u64,
    /// Anchors of records that a restore took away.
    pub(super) before_restore: u64,
}

impl<'a> Events<'a> {
    pub(super) async fn of(authority: &'a CertificateAuthority, trail: &'a Trail) -> Result<Self, CaError> {
        Ok(Self {
            authority,
            trail,
            signers: authority.generations(names::STATEMENT).collect(),
            noted: authority.store().latest_anchor().await?,
            found: Rows::default(),
            anchors: 0,
            before_restore: 0,
        })
    }

    /// A statement of the authority; none for one of somebody else, or about something else.
    fn ours(&self, entry: &VerifiedEntry) -> Option<(Statement, Vec<u8>)> {
        let envelope = Envelope::parse(&entry.bytes).ok()?;
        let signature = envelope.single_signature().ok()?;
        if envelope.payload_type != IN_TOTO_PAYLOAD_TYPE {
            return None;
        }
        let statement = Statement::parse(&envelope.payload).ok()?;
        let is_known = [PREDICATE_TYPE, ANCHOR_TYPE].contains(&statement.predicate_type.as_str());
        let message = envelope.pae();
        let signed = |signer: &&LoadedAuthority| verify(signer, &message, &signature.sig).is_ok();
        (is_known && self.signers.iter().any(signed)).then_some(())?;
        Some((statement, envelope.payload))
    }

    async fn revocation(
        &mut self,
        index: u64,
        statement: &Statement,
        payload: &[u8],
    ) -> Result<Option<(LogFindingCode, String)>, CaError> {
        let said = |name: &str| statement.predicate.member(name);
        let Some(serial) =
            said("serial").and_then(Value::as_str).and_then(|text| SerialNumber::from_hex(text).ok())
        else {
            return Ok(Some((LogFindingCode::EntriesInvalid, "it names no serial number".to_owned())));
        };
        let recorded = self.authority.store().certificate(&serial).await?;
        let Some((record, revocation)) = recorded.and_then(|it| Some((it.clone(), it.revocation?))) else {
            let detail = format!("{serial} was revoked, and is not recorded as revoked");
            return Ok(Some((LogFindingCode::RevocationUnrecorded, detail)));
        };
        let (Some(revoked_at), Some(recorded_at)) = (integer(said("revokedAt")), integer(said("recordedAt")))
        else {
            return Ok(Some((LogFindingCode::EntriesInvalid, "it names no times".to_owned())));
        };
        // A date is only ever moved back, by a later version of the record.
        if recorded_at > revocation.recorded_at.0 || revoked_at < revocation.revoked_at.0 {
            let detail = format!("{serial} was revoked later, or from an earlier time on, than is recorded");
            return Ok(Some((LogFindingCode::RevocationUnrecorded, detail)));
        }
        if recorded_at < revocation.recorded_at.0 {
            return Ok(None);
        }
        let expected = self.authority.revocation_statement(&record, &revocation)?;
        if expected.as_str().as_bytes() != payload {
            let detail = format!("the statement about {serial} is not what is recorded");
            return Ok(Some((LogFindingCode::EntryDiffers, detail)));
        }
        if revocation.event_index.is_none_or(|recorded| recorded == index) {
            self.found.insert(record.row);
        }
        Ok(None)
    }

    async fn anchor(
        &mut self,
        index: u64,
        statement: &Statement,
    ) -> Result<Option<(LogFindingCode, String)>, CaError> {
        let said = |name: &str| integer(statement.predicate.member(name));
        let hash = statement.subject.first().and_then(|subject| subject.digest.get("sha256"));
        let sequence = said("sequence").and_then(|it| u64::try_from(it).ok()).filter(|it| *it > 0);
        let (Some(hash), Some(sequence), Some(at)) = (hash, sequence, said("at")) else {
            return Ok(Some((LogFindingCode::EntriesInvalid, "the anchor names no record".to_owned())));
        };
        let record = self.authority.store().audit_records(sequence - 1, 1).await?;
        let matches =
            |it: &&crate::storage::audit::Record| it.sequence == sequence && hex::encode(it.hash) == *hash;
        if record.first().as_ref().is_some_and(matches) {
            self.anchors += 1;
            let noted = |it: &mut Anchor| (it.sequence, it.event_index) == (sequence, index);
            self.noted.take_if(noted);
            return Ok(None);
        }
        // What was recorded after a backup is gone with its restore, which the trail says of itself.
        if self.trail.was_restored(sequence, at) {
            self.before_restore += 1;
            return Ok(None);
        }
        let detail = format!("audit record {sequence} of the trail is not the one that was anchored");
        Ok(Some((LogFindingCode::AnchorMismatch, detail)))
    }
}

impl Judge for Events<'_> {
    async fn entry(
        &mut self,
        source: &Source,
        entry: &VerifiedEntry,
        findings: &mut LogFindings,
    ) -> Result<(), CaError> {
        let Some((statement, payload)) = self.ours(entry) else { return Ok(()) };
        let wrong = if statement.predicate_type == ANCHOR_TYPE {
            self.anchor(entry.index, &statement).await?
        } else {
            self.revocation(entry.index, &statement, &payload).await?
        };
        if let Some((code, detail)) = wrong {
            findings.add(code, &source.origin, format_args!("entry {}: {detail}", entry.index));
        }
        Ok(())
    }

    fn has_found(&self, row: i64) -> bool {
        self.found.contains(row)
    }
}

fn integer(value: Option<&Value>) -> Option<i64> {
    match value {
        Some(Value::Integer(number)) => Some(*number),
        _ => None,
    }
}
