//! Rows into types; a row that this program could not have written is reported, never guessed.

use ca_pki::crl::RevocationReason;
use ca_pki::serial::Shard;
use ca_pki::{Identity, SerialNumber, UnixTime};
use sha2::{Digest, Sha256};

use super::sql::Row;
pub(super) use super::sql::{all, blob, execute, first, get};
use super::{CrlPart, State, Step, StoreError, StoredCertificate, StoredRevocation};

/// The columns of [`certificate`], with its revocation joined.
macro_rules! certificate_select {
    ($rest:literal) => {
        concat!(
            "SELECT c.id, c.intent, c.serial, c.issuer, c.profile, c.identity_kind, c.identity, c.spki_sha256, ",
            "c.requester, c.request_id, c.not_before, c.not_after, c.shard, c.state, c.step, c.tbs, c.signature, ",
            "c.precertificate_sha256, c.precertificate_signature, c.sct, c.log_index, c.created_at, ",
            "r.revoked_at, r.recorded_at, r.reason, r.event_index, c.tbs_sha256 ",
            "FROM certificate c LEFT JOIN revocation r ",
            "ON r.issuer = c.issuer AND r.shard = c.shard AND r.serial = c.serial ",
            $rest
        )
    };
}
pub(super) use certificate_select;

pub(super) fn corrupted(what: &str) -> StoreError {
    StoreError::Corrupted(what.to_owned())
}

/// A BLOB of exactly `N` octets.
pub(super) fn column<const N: usize>(row: &Row<'_>, index: usize) -> Result<[u8; N], StoreError> {
    blob(row, index)?.try_into().map_err(|_| corrupted("a value has the wrong length"))
}

pub(super) fn state(number: i64) -> Result<State, StoreError> {
    State::ALL.into_iter().find(|state| *state as i64 == number).ok_or_else(|| corrupted("unknown state"))
}

pub(super) fn step(number: i64) -> Result<Step, StoreError> {
    [Step::Precertificate, Step::Certificate]
        .into_iter()
        .find(|step| *step as i64 == number)
        .ok_or_else(|| corrupted("unknown step"))
}

pub(super) fn reason(number: i64) -> Result<RevocationReason, StoreError> {
    u8::try_from(number)
        .ok()
        .and_then(RevocationReason::from_code)
        .ok_or_else(|| corrupted("unknown revocation reason"))
}

pub(super) fn serial(bytes: &[u8]) -> Result<SerialNumber, StoreError> {
    SerialNumber::from_magnitude(bytes).map_err(|_| corrupted("serial number"))
}

pub(super) fn shard(number: i64) -> Result<Shard, StoreError> {
    u16::try_from(number).map(Shard).map_err(|_| corrupted("CRL shard"))
}

pub(super) fn part(number: i64) -> Result<CrlPart, StoreError> {
    match number {
        -1 => Ok(CrlPart::Complete),
        -2 => Ok(CrlPart::Delta),
        number => shard(number).map(CrlPart::Shard),
    }
}

pub(super) fn part_number(part: CrlPart) -> i64 {
    match part {
        CrlPart::Complete => -1,
        CrlPart::Delta => -2,
        CrlPart::Shard(shard) => i64::from(shard.0),
    }
}

pub(super) fn index(number: Option<i64>) -> Result<Option<u64>, StoreError> {
    number.map(u64::try_from).transpose().map_err(|_| corrupted("log index"))
}

pub(super) fn stored_index(index: u64) -> Result<i64, StoreError> {
    i64::try_from(index).map_err(|_| corrupted("log index"))
}

pub(super) fn identity_kind(identity: &Identity) -> i64 {
    match identity {
        Identity::Email(_) => 0,
        Identity::Uri(_) => 1,
    }
}

pub(super) fn identity(kind: i64, text: String) -> Result<Identity, StoreError> {
    match kind {
        0 => Ok(Identity::Email(text)),
        1 => Ok(Identity::Uri(text)),
        _ => Err(corrupted("unknown kind of identity")),
    }
}

/// A row of [`certificate_select`].
pub(super) fn certificate(row: &Row<'_>) -> Result<StoredCertificate, StoreError> {
    let serial = serial(blob(row, 2)?)?;
    let issuer: String = get(row, 3)?;
    let shard = shard(get(row, 12)?)?;
    let identity = match (get::<Option<i64>>(row, 5)?, get::<Option<String>>(row, 6)?) {
        (Some(kind), Some(text)) => Some(identity(kind, text)?),
        _ => None,
    };
    let precertificate = match get::<Option<Vec<u8>>>(row, 18)? {
        Some(signature) => Some((column::<32>(row, 17)?, signature)),
        None => None,
    };
    let revocation = match get::<Option<i64>>(row, 22)? {
        None => None,
        Some(revoked_at) => Some(StoredRevocation {
            serial: serial.clone(),
            issuer: issuer.clone(),
            shard,
            revoked_at: UnixTime(revoked_at),
            recorded_at: UnixTime(get(row, 23)?),
            reason: reason(get(row, 24)?)?,
            event_index: index(get(row, 25)?)?,
        }),
    };
    let tbs: Vec<u8> = get(row, 15)?;
    if column::<32>(row, 26)? != <[u8; 32]>::from(Sha256::digest(&tbs)) {
        return Err(corrupted("a certificate's recorded bytes do not have their recorded hash"));
    }
    Ok(StoredCertificate {
        row: get(row, 0)?,
        intent: column::<16>(row, 1)?,
        serial,
        issuer,
        profile: get(row, 4)?,
        identity,
        spki_sha256: column::<32>(row, 7)?,
        requester: get(row, 8)?,
        request_id: get(row, 9)?,
        not_before: UnixTime(get(row, 10)?),
        not_after: UnixTime(get(row, 11)?),
        shard,
        state: state(get(row, 13)?)?,
        step: step(get(row, 14)?)?,
        tbs,
        signature: get(row, 16)?,
        precertificate,
        sct: get(row, 19)?,
        log_index: index(get(row, 20)?)?,
        created_at: UnixTime(get(row, 21)?),
        revocation,
    })
}

/// A row of `issuer, shard, serial, revoked_at, recorded_at, reason, event_index`.
pub(super) fn revocation(row: &Row<'_>) -> Result<StoredRevocation, StoreError> {
    Ok(StoredRevocation {
        issuer: get(row, 0)?,
        shard: shard(get(row, 1)?)?,
        serial: serial(blob(row, 2)?)?,
        revoked_at: UnixTime(get(row, 3)?),
        recorded_at: UnixTime(get(row, 4)?),
        reason: reason(get(row, 5)?)?,
        event_index: index(get(row, 6)?)?,
    })
}
