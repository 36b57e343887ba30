//! What happened in a period, computed from evidence: issued, signed, revoked, admitted, and what does not fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use executor_api::audit::{AuditEvent, AuditHead};
use serde::{Deserialize, Serialize};
use trust_store::algorithm::SubjectPublicKey;
use trust_store::json::Value;
use trust_store::key_details::KeyDetails;
use trust_store::provider::AwsLc;
use trust_store::signature::SignatureVerifier as _;
use trust_store::statement::Statement;
use trust_store::{Certificate, UnixTime};

use super::evidence::{Evidence, ExecutorEvidence, Period, refused};
use crate::exit::Outcome;
use crate::log::event_key::REVOCATION;
use crate::log::record::{Record, serial_text, signer_name};

/// A certificate or precertificate that the issuance log took in the period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    index: u64,
    time: String,
    identity: String,
    serial: String,
    sha256: String,
    precertificate: bool,
}

/// An entry of the signing log's range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedEntry {
    index: u64,
    identity: String,
    serial: String,
    digest: String,
}

/// A revocation recorded in the period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    index: u64,
    serial: String,
    revoked_at: String,
    recorded_at: String,
    reason: i64,
}

/// An admission of the period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admitted {
    executor: String,
    sequence: u64,
    time: String,
    agent: String,
    version: String,
    digest: String,
    log_index: Option<u64>,
    signer: String,
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Stable word; `docs/formats/audit-report.md` lists them.
    pub code: String,
    /// Log kind and index, or executor and sequence.
    pub at: String,
    /// For people.
    pub text: String,
}

/// The account of a period.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// By the issuance log.
    pub issued: Vec<Issued>,
    /// By the signing log.
    pub signed: Vec<SignedEntry>,
    /// By the event log.
    pub revoked: Vec<Revoked>,
    /// By the executors' audit logs.
    pub admitted: Vec<Admitted>,
    /// What does not fit, in order.
    pub findings: Vec<Finding>,
}

/// A certificate as it is found again in the issuance log, whose precertificates have other bytes: issuer, serial, key.
pub type CertificateKey = (Vec<u8>, Vec<u8>, Vec<u8>);

/// The key of a certificate.
pub fn key_of(certificate: &Certificate) -> CertificateKey {
    (certificate.issuer_der().to_vec(), certificate.serial().to_vec(), certificate.spki_der().to_vec())
}

/// A line of an executor's audit log.
#[derive(Debug, Deserialize)]
pub struct AuditLine {
    /// Place in the chain.
    pub sequence: u64,
    previous: String,
    /// RFC 3339.
    pub timestamp: String,
    /// What happened.
    #[serde(flatten)]
    pub event: AuditEvent,
}

impl AuditLine {
    /// Reads a line and checks that it has the hash it names.
    pub fn read(line: &str) -> Option<Self> {
        let read: Self = serde_json::from_str(line).ok()?;
        let mut hash = [0; 32];
        hex::decode_to_slice(&read.previous, &mut hash).ok()?;
        AuditHead { sequence: read.sequence.checked_sub(1)?, hash }.check(line).ok()?;
        Some(read)
    }

    /// When.
    pub fn time(&self) -> Option<UnixTime> {
        UnixTime::from_rfc3339(&self.timestamp)
    }
}

/// Who made an entry of the signing log.
#[derive(Debug)]
struct Signer {
    identity: String,
    serial: String,
    /// DER of the name of the certificate's issuer.
    issuer: Option<Vec<u8>>,
}

/// A revocation as its statement says it.
#[derive(Clone, Debug)]
pub struct Revocation {
    serial: String,
    revoked_at: UnixTime,
    recorded_at: UnixTime,
    reason: i64,
}

impl Revocation {
    /// Serial number of the certificate, as it is compared.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// When the authority recorded it.
    pub fn recorded_at(&self) -> UnixTime {
        self.recorded_at
    }

    /// Reads a statement; `None` for one of another type or form.
    pub fn read(statement: &Statement) -> Option<Self> {
        if statement.predicate_type != REVOCATION {
            return None;
        }
        let number = |name: &str| match statement.predicate.member(name) {
            Some(Value::Integer(number)) => Some(*number),
            _ => None,
        };
        Some(Self {
            serial: serial_text(statement.predicate.member("serial")?.as_str()?),
            revoked_at: UnixTime(number("revokedAt")?),
            recorded_at: UnixTime(number("recordedAt")?),
            reason: number("reason")?,
        })
    }
}

/// Computes the account. The evidence's proofs are verified elsewhere.
///
/// # Errors
/// Exit code 3 when a log is missing from the evidence, or a record of an executor is not in the period.
pub fn account(evidence: &Evidence, period: &Period) -> Outcome<Account> {
    let (from, to) = period.bounds()?;
    let within = |time: UnixTime| (from..to).contains(&time);
    let mut account = Account::default();
    let mut findings = BTreeSet::new();
    let mut find = |code: &str, at: String, text: String| {
        findings.insert(Finding { code: code.to_owned(), at, text });
    };

    let mut issued = BTreeSet::new();
    let mut issuers_of: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let issuance = evidence.log("issuance")?;
    for entry in &issuance.entries {
        let Ok(Record::Issued { time_millis, certificate }) = Record::read("issuance", &entry.entry.0) else {
            find(
                "unreadable_entry",
                format!("issuance {}", entry.index),
                "no certificate can be read".to_owned(),
            );
            continue;
        };
        let time = UnixTime(i64::try_from(time_millis / 1000).unwrap_or(i64::MAX));
        let serial = serial_text(&hex::encode(certificate.serial()));
        issued.insert(key_of(&certificate));
        issuers_of.entry(serial.clone()).or_default().insert(certificate.issuer_der().to_vec());
        let in_range = (issuance.start..issuance.end).contains(&entry.index);
        if within(time) != in_range {
            return Err(refused(&format!(
                "entry {} of the issuance log is on the wrong side of the period",
                entry.index
            )));
        }
        if in_range {
            account.issued.push(Issued {
                index: entry.index,
                time: time.to_rfc3339(),
                identity: signer_name(&certificate),
                serial,
                sha256: hex::encode(certificate.fingerprint()),
                precertificate: certificate.is_precertificate(),
            });
        }
    }

    // By serial number and, where the key speaks for one issuer only, that issuer.
    let mut revocations: BTreeMap<(String, Option<Vec<u8>>), Revocation> = BTreeMap::new();
    let event = evidence.log("event")?;
    for entry in &event.entries {
        let at = format!("event {}", entry.index);
        let Ok(Record::Event { statement, envelope }) = Record::read("event", &entry.entry.0) else {
            find("unreadable_entry", at, "no statement can be read".to_owned());
            continue;
        };
        let verified = match evidence.event_rules.verify(&envelope, &AwsLc) {
            Ok(event) => Some(event),
            Err(_) if evidence.event_rules.is_empty() => None,
            Err(denial) => {
                let known = evidence.event_rules.knows(&statement.predicate_type);
                let kind: String = statement.predicate_type.chars().take(120).collect();
                let code = if known { "event_forged" } else { "event_type_unknown" };
                find(code, at, format!("{kind}: {} [{}]", denial.detail, denial.code.as_str()));
                continue;
            }
        };
        if statement.predicate_type != REVOCATION {
            continue;
        }
        let Some(revocation) = Revocation::read(&statement) else {
            find("unreadable_entry", at, "a revocation that cannot be read".to_owned());
            continue;
        };
        if within(revocation.recorded_at) {
            account.revoked.push(Revoked {
                index: entry.index,
                serial: revocation.serial.clone(),
                revoked_at: revocation.revoked_at.to_rfc3339(),
                recorded_at: revocation.recorded_at.to_rfc3339(),
                reason: revocation.reason,
            });
            let issued = issuers_of.get(&revocation.serial).is_some_and(|issuers| {
                issuers
                    .iter()
                    .any(|issuer| verified.as_ref().is_none_or(|event| event.concerns_issuer(issuer)))
            });
            if !issued {
                let text = format!("serial {} of that issuer is not in the issuance log", revocation.serial);
                find("revoked_not_issued", at, text);
            }
        }
        // The earliest date counts: a later statement may move it back, never forward.
        let names = verified.iter().flat_map(|event| event.issuers().iter());
        let mut issuers: Vec<Option<Vec<u8>>> = names.map(|issuer| Some(issuer.name.0.clone())).collect();
        if issuers.is_empty() {
            issuers.push(None);
        }
        for issuer in issuers {
            let key = (revocation.serial.clone(), issuer);
            match revocations.get(&key) {
                Some(known) if known.revoked_at <= revocation.revoked_at => {}
                _ => drop(revocations.insert(key, revocation.clone())),
            }
        }
    }
    if evidence.event_rules.is_empty() && !event.entries.is_empty() {
        let text = "nobody is known whose events are believed: their signatures were not checked".to_owned();
        find("event_signatures_unchecked", "event".to_owned(), text);
    }

    let signing = evidence.log("signing")?;
    let mut signers: BTreeMap<u64, Signer> = BTreeMap::new();
    for entry in &signing.entries {
        let at = format!("signing {}", entry.index);
        let Ok(Record::Signature { digest, certificate }) = Record::read("signing", &entry.entry.0) else {
            find("unreadable_entry", at, "no signature can be read".to_owned());
            continue;
        };
        let (identity, serial) = match &certificate {
            Some(certificate) => {
                if !issued.contains(&key_of(certificate)) {
                    let text = format!(
                        "signed by {} with certificate {}, which is not in the issuance log",
                        signer_name(certificate),
                        hex::encode(certificate.serial())
                    );
                    find("certificate_not_issued", at, text);
                }
                (signer_name(certificate), serial_text(&hex::encode(certificate.serial())))
            }
            None => {
                find("signed_without_certificate", at, "signed with a bare key".to_owned());
                (String::new(), String::new())
            }
        };
        let issuer = certificate.map(|certificate| certificate.issuer_der().to_vec());
        signers.insert(entry.index, Signer { identity: identity.clone(), serial: serial.clone(), issuer });
        if (signing.start..signing.end).contains(&entry.index) {
            account.signed.push(SignedEntry {
                index: entry.index,
                identity,
                serial,
                digest: hex::encode(digest),
            });
        }
    }

    for executor in &evidence.executors {
        if let Some(broken) = &executor.broken {
            find("audit_log_broken", executor.name.clone(), broken.clone());
        }
        for line in lines(executor)? {
            let at = format!("{} {}", executor.name, line.sequence);
            let time = line.time().filter(|time| within(*time));
            let (Some(time), "admission", Some(agent)) =
                (time, line.event.event_type.as_str(), line.event.agent)
            else {
                return Err(refused(&format!("record {at} is no admission of the period")));
            };
            let agent = Arc::unwrap_or_clone(agent);
            if !agent.attestation.verified {
                find(
                    "admitted_unverified",
                    at.clone(),
                    format!("{} without a verified attestation", agent.id),
                );
            }
            match agent.log_index.and_then(|index| signers.get(&index)) {
                None => {
                    let index = agent
                        .log_index
                        .map_or_else(|| "no index".to_owned(), |index| format!("index {index}"));
                    find(
                        "admitted_not_logged",
                        at,
                        format!("{} with {index}, not in the signing log", agent.id),
                    );
                }
                Some(Signer { identity, .. }) if *identity != agent.attestation.signer => {
                    let text = format!(
                        "{}: the log says {identity}, the executor {}",
                        agent.id, agent.attestation.signer
                    );
                    find("admitted_other_signer", at, text);
                }
                Some(Signer { identity, serial, issuer }) => {
                    let found =
                        [None, issuer.clone()].map(|issuer| revocations.get(&(serial.clone(), issuer)));
                    let earliest = found.into_iter().flatten().min_by_key(|found| found.revoked_at);
                    if let Some(revocation) = earliest.filter(|found| found.revoked_at <= time) {
                        let text = format!(
                            "{} of {identity}: revoked {}, recorded {}",
                            agent.id,
                            revocation.revoked_at.to_rfc3339(),
                            revocation.recorded_at.to_rfc3339()
                        );
                        // Times are whole seconds: in the same second nobody could have known.
                        let known = revocation.recorded_at < time;
                        find(
                            if known {
                                "admitted_after_revocation"
                            } else {
                                "admitted_before_revocation_was_known"
                            },
                            at,
                            text,
                        );
                    }
                }
            }
            account.admitted.push(Admitted {
                executor: executor.name.clone(),
                sequence: line.sequence,
                time: time.to_rfc3339(),
                agent: agent.id,
                version: agent.version,
                digest: agent.digest,
                log_index: agent.log_index,
                signer: agent.attestation.signer,
            });
        }
    }
    account.findings = findings.into_iter().collect();
    Ok(account)
}

/// The records, each with the hash it names, in rising order.
fn lines(executor: &ExecutorEvidence) -> Outcome<Vec<AuditLine>> {
    let mut last = 0;
    let read = |line: &String| {
        let line = AuditLine::read(line)
            .filter(|line| line.sequence > last && line.sequence <= executor.last_sequence);
        last = line.as_ref().map_or(last, |line| line.sequence);
        line.ok_or_else(|| refused(&format!("a record of {} was altered or is out of order", executor.name)))
    };
    executor.admissions.iter().map(read).collect()
}

/// Whether a signature over a message verifies with a key, by the algorithm that goes with the key.
pub fn verifies(spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = SubjectPublicKey::from_der(spki) else { return false };
    KeyDetails::of_key(key.algorithm, key.key)
        .and_then(KeyDetails::algorithm)
        .is_ok_and(|algorithm| AwsLc.verify(algorithm, key.key, message, signature).is_ok())
}
