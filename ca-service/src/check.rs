//! The whole-state checker: every record against certificates, revocation lists, the audit trail, and the transparency logs.
//!
//! It trusts nothing that the writing code derived: signatures are verified, objects linted, hashes recomputed.

mod authorisation;
mod compromised_keys;
mod delta;
mod logs;
mod numbers;
mod queue;
mod renewals;
mod trail;
mod unfounded;

use std::collections::{BTreeSet, HashSet};

use ca_pki::lint::{self, CertificateRules, CrlRules};
use ca_pki::profile::Kind;
use ca_pki::{sct, signed};
use serde::Serialize;
use trust_store::provider::AwsLc;
use trust_store::signature::SignatureVerifier as _;

use crate::authority::{CertificateAuthority, LoadedAuthority};
use crate::error::CaError;
use crate::publisher::longest_life;
use crate::storage::{CrlPart, Search, State, Step, StoredCertificate};
pub use logs::{Extent, LogFinding, LogFindingCode, LogFindings, LogRead, LogReport, LogSources};
use trail::Trail;

/// Rows read at once.
const PAGE: u32 = 500;

/// What the checker saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Certificates and open issuances.
    pub certificates: u64,
    /// Revoked certificates.
    pub revoked: u64,
    /// Requests that waited for people and are remembered.
    pub requests: u64,
    /// Published lists.
    pub lists: u64,
    /// Audit records.
    pub audit_records: u64,
    /// The newest of them that the event log has the hash of.
    pub anchored: Option<u64>,
    /// What is wrong; empty when everything agrees.
    pub findings: Vec<String>,
    /// What the logs say to it; none when they were not asked.
    pub logs: Option<LogReport>,
}

/// What a report comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that was looked at agrees.
    Agrees,
    /// Something is wrong.
    Disagrees,
    /// Nothing is known to be wrong, and a log did not answer.
    Unknown,
}

impl Report {
    /// What it comes to.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let of_logs = self.logs.iter().flat_map(|logs| &logs.found.findings);
        let (silences, others): (Vec<_>, Vec<_>) = of_logs.partition(|finding| finding.code.is_silence());
        if !self.findings.is_empty() || !others.is_empty() {
            Verdict::Disagrees
        } else if silences.is_empty() {
            Verdict::Agrees
        } else {
            Verdict::Unknown
        }
    }
}

/// Checks the records, and asks no log.
///
/// # Errors
/// [`CaError`] when the store cannot be read.
pub async fn run(authority: &CertificateAuthority) -> Result<Report, CaError> {
    records(authority).await.map(|(report, _)| report)
}

/// Checks the records, and compares them with the logs.
///
/// # Errors
/// As [`run`]. A log that cannot be read is a finding.
pub async fn run_with_logs(
    authority: &CertificateAuthority,
    sources: &LogSources,
    extent: Extent,
) -> Result<Report, CaError> {
    let (mut report, trail) = records(authority).await?;
    report.logs = Some(logs::compare(authority, &trail, sources, extent).await?);
    Ok(report)
}

/// How often the records are read until what is found is found each time.
const READINGS: usize = 3;

/// Stands in a finding before numbers that a server at work moves. What comes before it says what is wrong of what.
const NOW: &str = " (now ";

/// What a finding is known by in another reading: all of it, but for numbers that may have moved since.
fn known_by(finding: &str) -> &str {
    finding.split_once(NOW).map_or(finding, |(known_by, _)| known_by)
}

/// The server may be working meanwhile, and what it writes between two of the reads here would look like a record without the other.
/// Where the trail grew, only what a further reading finds as well is wrong. So whatever may look wrong for that says of which number: in
/// the next reading it is another one's.
async fn records(authority: &CertificateAuthority) -> Result<(Report, Trail), CaError> {
    let (mut report, mut trail) = reading(authority).await?;
    for _ in 1..READINGS {
        if report.findings.is_empty()
            || authority.store().audit_records(report.audit_records, 1).await?.is_empty()
        {
            break;
        }
        let before: HashSet<String> =
            report.findings.iter().map(|finding| known_by(finding).to_owned()).collect();
        (report, trail) = reading(authority).await?;
        report.findings.retain(|finding| before.contains(known_by(finding)));
    }
    Ok((report, trail))
}

async fn reading(authority: &CertificateAuthority) -> Result<(Report, Trail), CaError> {
    let mut report = Report::default();
    let trail = Trail::read(authority, &mut report).await?;
    let revoked = certificates(authority, &trail, &mut report).await?;
    lists(authority, &revoked, &trail, &mut report).await?;
    numbers::judge(authority, &trail, &mut report).await?;
    queue::requests(authority, &trail, &mut report).await?;
    Ok((report, trail))
}

/// Issuer, shard and serial number of what is revoked.
type Revoked = BTreeSet<(String, u16, Vec<u8>)>;

async fn certificates(
    authority: &CertificateAuthority,
    trail: &Trail,
    report: &mut Report,
) -> Result<Revoked, CaError> {
    let mut revoked = Revoked::new();
    let mut below = None;
    loop {
        let page = authority.store().search(Search { below, limit: PAGE, ..Search::default() }).await?;
        let Some(last) = page.last() else { return Ok(revoked) };
        below = Some(last.row);
        for record in &page {
            report.certificates += 1;
            let mut outcome = certificate(authority, record).and_then(|()| trail.covers(record));
            if outcome.is_ok() {
                outcome = renewals::judge(authority, record).await?;
            }
            if outcome.is_ok() {
                outcome = compromised_keys::judge(authority, record).await?;
            }
            if outcome.is_ok() {
                outcome = authorisation::judge(authority, record).await?;
            }
            if let Some(revocation) = &record.revocation {
                report.revoked += 1;
                outcome = outcome.and_then(|()| trail.agrees(revocation));
                revoked.insert((record.issuer.clone(), record.shard.0, record.serial.as_bytes().to_vec()));
            }
            if let Err(finding) = outcome {
                report.findings.push(format!("certificate {}: {finding}", record.serial));
            }
        }
    }
}

fn certificate(authority: &CertificateAuthority, record: &StoredCertificate) -> Result<(), String> {
    let text = |error: CaError| error.to_string();
    // There is no issuer to check it by. That it was announced before it was signed is demanded of it as of all others.
    if authority.is_unfounded_root(record) {
        return unfounded::judge(record);
    }
    let loaded = authority.authority(&record.issuer).map_err(text)?;
    let (_, issuer) = authority.issuer(&record.issuer).map_err(text)?;
    if record.serial.shard(issuer.status.shards) != record.shard {
        return Err("its shard is not that of its serial number".to_owned());
    }
    if (record.state == State::Revoked) != record.revocation.is_some() {
        return Err("state and revocation disagree".to_owned());
    }
    let Some(signature) = &record.signature else {
        let may_lack = matches!(
            record.state,
            State::Intent | State::Signing | State::Abandoned | State::MaybeIssued | State::Revoked
        );
        return if may_lack { Ok(()) } else { Err("its signature is missing".to_owned()) };
    };
    let object = authority.assembled(record).map_err(text)?;
    verify(loaded, &record.tbs, signature)?;
    let kind = kind(authority, record);
    let self_issued = kind == Kind::Root;
    let rules = CertificateRules { kind, issuer: if self_issued { None } else { Some(issuer) } };
    lint::certificate(&object, &rules).into_result().map_err(|error| error.to_string())?;
    let parsed = ca_pki::certificate::parse(&object).map_err(|error| error.to_string())?;
    let tbs = parsed.tbs_certificate();
    if ca_pki::SerialNumber::from_magnitude(tbs.serial_number().as_bytes()).ok().as_ref()
        != Some(&record.serial)
    {
        return Err("its serial number is not the recorded one".to_owned());
    }
    if ca_pki::time::unix_time(tbs.validity().not_before) != record.not_before
        || ca_pki::time::unix_time(tbs.validity().not_after) != record.not_after
    {
        return Err("its validity is not the recorded one".to_owned());
    }
    if record.step == Step::Certificate
        && let Some((hash, signature)) = &record.precertificate
    {
        let announced = sct::precertificate_of(&record.tbs).map_err(|error| error.to_string())?;
        if *hash != <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&announced)) {
            return Err("it does not correspond to its precertificate".to_owned());
        }
        verify(loaded, &announced, signature)?;
    }
    Ok(())
}

fn verify(issuer: &LoadedAuthority, message: &[u8], signature: &[u8]) -> Result<(), String> {
    let (oid, parameters) = (issuer.algorithm.oid(), None);
    let algorithm = issuer
        .public_key
        .verification_algorithm(&oid, parameters)
        .ok_or("the issuer's key does not fit its algorithm")?;
    AwsLc
        .verify(algorithm, issuer.public_key.bits(), message, signature)
        .map_err(|_| "its signature is not the issuer's".to_owned())
}

fn kind(authority: &CertificateAuthority, record: &StoredCertificate) -> Kind {
    let infrastructure = [
        Kind::Root,
        Kind::CodeSigningIssuer,
        Kind::CrossCertificate,
        Kind::TimeStampingIssuer,
        Kind::OcspResponder,
        Kind::TimestampAuthority,
    ];
    infrastructure.into_iter().find(|kind| kind.as_str() == record.profile).unwrap_or_else(|| {
        authority
            .settings()
            .profiles
            .get(&record.profile)
            .map_or(Kind::Internal, ca_pki::profile::Profile::kind)
    })
}

async fn lists(
    authority: &CertificateAuthority,
    revoked: &Revoked,
    trail: &Trail,
    report: &mut Report,
) -> Result<(), CaError> {
    let published = authority.store().published_crls().await?;
    // A list that is due may lack the newest revocations; everything else must have them.
    let due = authority.store().due_crls(ca_pki::UnixTime(0)).await?;
    for loaded in authority.authorities().values() {
        let Ok((_, issuer)) = authority.issuer(&loaded.name) else { continue };
        if !due.contains(&(loaded.name.clone(), CrlPart::Complete)) {
            report.findings.extend(delta::findings(&loaded.name, &published, trail));
        }
        let has_delta = published.iter().any(|crl| crl.issuer == loaded.name && crl.part == CrlPart::Delta);
        for part in loaded.parts().chain(has_delta.then_some(CrlPart::Delta)) {
            let name = format!("list {} {part:?}", loaded.name);
            let Some(crl) = published.iter().find(|crl| crl.issuer == loaded.name && crl.part == part) else {
                report.findings.push(format!("{name}: never published"));
                continue;
            };
            report.lists += 1;
            match trail.sha256(&loaded.name, numbers::of_part(part), crl.number) {
                None => report.findings.push(format!(
                    "{name}: the audit trail does not have the publication of its number {}",
                    crl.number
                )),
                Some(announced) if announced == hex::encode(crl.sha256) => {}
                Some(_) => {
                    report.findings.push(format!("{name}: it is not the one that the audit trail announces"))
                }
            }
            let url = match part {
                CrlPart::Complete | CrlPart::Delta => None,
                CrlPart::Shard(shard) => Some(issuer.status.crl(shard)),
            };
            let longest_validity = longest_life(&loaded.name);
            let rules = CrlRules { issuer, shard_url: url.as_deref(), longest_validity };
            if let Err(error) = lint::crl(&crl.der, &rules).into_result() {
                report.findings.push(format!("{name}: {error}"));
            }
            match signed::take_apart(&crl.der) {
                Err(error) => report.findings.push(format!("{name}: {error}")),
                Ok((tbs, _, signature)) => {
                    if let Err(finding) = verify(loaded, tbs, signature) {
                        report.findings.push(format!("{name}: {finding}"));
                    }
                }
            }
            let listed = match trust_store::crl::Crl::from_der(&crl.der) {
                Ok(listed) => listed,
                Err(error) => {
                    report.findings.push(format!("{name}: {error:?}"));
                    continue;
                }
            };
            let expected = revoked.iter().filter(|(issuer, shard, _)| {
                *issuer == loaded.name
                    && (part == CrlPart::Complete || part == CrlPart::Shard(ca_pki::serial::Shard(*shard)))
            });
            let unfounded = |octets: &[u8]| {
                let serial = ca_pki::SerialNumber::from_magnitude(octets).ok()?;
                let shard = serial.shard(issuer.status.shards);
                let is_recorded =
                    revoked.contains(&(loaded.name.clone(), shard.0, serial.as_bytes().to_vec()));
                let is_elsewhere = matches!(part, CrlPart::Shard(own) if own != shard);
                (!is_recorded || is_elsewhere).then_some(serial)
            };
            for serial in listed.entries().filter_map(|(octets, _)| unfounded(octets)) {
                report.findings.push(format!("{name}: {serial} is on it, and no revocation of this list"));
            }
            let is_due = due.contains(&(loaded.name.clone(), part));
            for (_, _, serial) in expected {
                if listed.entry(serial, listed.issuer_name()).is_none() && !is_due {
                    report.findings.push(format!("{name}: {} is missing", hex::encode(serial)));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_known_again_by_what_is_wrong_of_what_and_not_by_numbers_that_move() {
        let delta = |number: u64, complete: u64| {
            format!("list code-signing Delta: {}", delta::of_another_number(number, complete))
        };
        assert_ne!(delta(5, 7), delta(5, 8));
        assert_eq!(known_by(&delta(5, 7)), known_by(&delta(5, 8)), "the same list, left behind");
        assert_ne!(known_by(&delta(5, 4)), known_by(&delta(6, 5)), "another one each time");
        assert_eq!(known_by("list root Complete: never published"), "list root Complete: never published");
    }
}
