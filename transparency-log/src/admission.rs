//! Who may write what.
//!
//! A signing log takes an entry when its signature verifies over the digest and its certificate chains to a configured
//! CA for code signing (or its key is registered); an issuance log takes chains of its own CA; an event log takes
//! statements signed by a key configured for that event type. Everything else is refused with a stable code.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use service::StartRefusal;
use tlog::signature::{Algorithm, SignatureVerifier as _};
use trust_store::UnixTime;
use trust_store::algorithm::{KeyAlgorithm, SubjectPublicKey};
use trust_store::certificate::Certificate;
use trust_store::event::{EventRule, EventRules};
use trust_store::json::Bytes;
use trust_store::oid;
use trust_store::path::{PathPolicy, Precertificates, VerifiedChain, build_path};
use trust_store::pem;
use trust_store::provider::AwsLc;
use trust_store::reason::Denial;
use trust_store::rekor::{HashedRekord, VerifierKey};

use crate::config::EventConfig;
use crate::remembered::RememberedSignatures;
use crate::settings::LogSettings;

/// Seconds that a verified chain is remembered for further entries of the same certificate.
const REMEMBER: i64 = 300;
/// Certificates remembered; about 64 bytes each.
const REMEMBERED: usize = 65_536;
const MAX_PEM: u64 = 1 << 20;
const MAX_CERTIFICATES: usize = 64;

/// Why an entry is not taken: a stable code and a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: &'static str,
    pub(crate) detail: String,
}

impl Refused {
    pub(crate) fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        Self::new(denial.code.as_str(), denial.detail.to_string())
    }
}

impl From<trust_store::error::Error> for Refused {
    fn from(error: trust_store::error::Error) -> Self {
        Self::new("malformed", error.to_string())
    }
}

/// The admission rule of one log.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Any bytes.
    Raw,
    /// Signatures of certificates, or of registered keys (SPKI, DER).
    Signing { authorities: Authorities, registered: Vec<Vec<u8>> },
    /// Chains of the own CA.
    Issuance(Authorities),
    /// Statements, by type.
    Event(EventRules),
}

impl Admission {
    /// Loads what the configuration names.
    pub(crate) fn load(log: &LogSettings) -> Result<Self, StartRefusal> {
        use log_store::LogKind;
        Ok(match log.kind {
            LogKind::Signing => {
                let mut registered = Vec::new();
                for path in &log.raw.registered_keys {
                    registered.extend(load_keys(path)?);
                }
                Self::Signing { authorities: Authorities::load(&log.raw.authorities)?, registered }
            }
            LogKind::Issuance => Self::Issuance(Authorities::load(&log.raw.authorities)?),
            LogKind::Event => Self::Event(event_rules(log)?),
            _ => Self::Raw,
        })
    }

    /// The rules of an event log; none for another kind.
    pub(crate) fn events(&self) -> EventRules {
        match self {
            Self::Event(rules) => rules.clone(),
            _ => EventRules::default(),
        }
    }
}

/// Accepted CAs.
#[derive(Debug)]
pub(crate) struct Authorities {
    anchors: Vec<Certificate>,
    intermediates: Vec<Certificate>,
    /// Fingerprint → the chain was verified at this time and lasts until that.
    verified: Mutex<HashMap<[u8; 32], (i64, i64)>>,
    /// Verifies submitted chains.
    signatures: RememberedSignatures,
}

impl Authorities {
    /// Certificates from PEM files: self-issued ones are anchors.
    pub(crate) fn load(files: &[PathBuf]) -> Result<Self, StartRefusal> {
        let (mut anchors, mut intermediates) = (Vec::new(), Vec::new());
        for path in files {
            let certificates = Certificate::from_pem_chain(&read_text(path)?)
                .map_err(|denial| unusable(path, &denial.to_string()))?;
            for certificate in certificates {
                let list = if certificate.is_self_issued() { &mut anchors } else { &mut intermediates };
                if !list.contains(&certificate) {
                    list.push(certificate);
                }
            }
        }
        if anchors.is_empty() {
            return Err(StartRefusal::new(
                "the authorities hold no self-issued certificate",
                "add the root's certificate to the files",
            ));
        }
        let signatures = RememberedSignatures::by(anchors.iter().map(Certificate::public_key));
        Ok(Self { anchors, intermediates, verified: Mutex::default(), signatures })
    }

    /// The trust anchors.
    pub(crate) fn anchors(&self) -> &[Certificate] {
        &self.anchors
    }

    /// Finds the chain of a code-signing certificate, valid now.
    pub(crate) fn code_signing(&self, leaf: &Certificate, now: UnixTime) -> Result<(), Refused> {
        let fingerprint = leaf.fingerprint();
        if let Some((since, until)) = self.verified.lock().get(&fingerprint)
            && (*since..=*since + REMEMBER).contains(&now.0)
            && now.0 <= *until
        {
            return Ok(());
        }
        let policy = PathPolicy { required_eku: Some(oid::KP_CODE_SIGNING), ..PathPolicy::default() };
        let chain = build_path(leaf, &self.intermediates, &self.anchors, now, &policy, &AwsLc)?;
        let until =
            chain.certificates().iter().map(|certificate| certificate.not_after().0).min().unwrap_or(0);
        let mut verified = self.verified.lock();
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(fingerprint, (now.0, until));
        Ok(())
    }

    /// Finds the chain of any certificate of the own CA, with the submitted issuers as candidates.
    pub(crate) fn submitted(
        &self,
        leaf: &Certificate,
        issuers: &[Certificate],
        now: UnixTime,
        precertificates: Precertificates,
    ) -> Result<VerifiedChain, Refused> {
        let candidates = [issuers, &self.intermediates].concat();
        let policy = PathPolicy { precertificates, ..PathPolicy::default() };
        Ok(build_path(leaf, &candidates, &self.anchors, now, &policy, &self.signatures)?)
    }
}

/// Verifies a signing-log entry: the signature over the digest, and who made it.
pub(crate) fn verify_signing(
    entry: &HashedRekord,
    authorities: &Authorities,
    registered: &[Vec<u8>],
    now: UnixTime,
) -> Result<(), Refused> {
    let algorithm = entry.key_details.algorithm()?;
    match &entry.verifier {
        VerifierKey::Certificate(der) => {
            let certificate = Certificate::from_der(der)?;
            // First whether anybody here knows it: a stranger's certificate costs a comparison of names, not a signature of
            // the stranger's choice.
            authorities.code_signing(&certificate, now)?;
            verify_digest(algorithm, certificate.key_algorithm(), certificate.public_key(), entry)
        }
        VerifierKey::PublicKey(spki) => {
            if !registered.contains(spki) {
                return Err(Refused::new(
                    "unknown_issuer",
                    "the key is not registered with this log; sign with a certificate",
                ));
            }
            let key = SubjectPublicKey::from_der(spki)
                .map_err(|_| Refused::new("malformed", "the public key is no SubjectPublicKeyInfo"))?;
            verify_digest(algorithm, key.algorithm, key.key, entry)
        }
    }
}

fn verify_digest(
    algorithm: Algorithm,
    key: KeyAlgorithm,
    bits: &[u8],
    entry: &HashedRekord,
) -> Result<(), Refused> {
    if !fits(key, algorithm) {
        return Err(Refused::new("algorithm_not_allowed", "keyDetails are not those of the key"));
    }
    AwsLc
        .verify_digest(algorithm, bits, &entry.digest, &entry.signature)
        .map_err(|_| Refused::new("signature_invalid", "the signature does not verify over the digest"))
}

/// The rules of an event log; none for a log of another kind.
pub(crate) fn event_rules(log: &LogSettings) -> Result<EventRules, StartRefusal> {
    let rules = log.raw.events.iter().map(rules_of_event).collect::<Result<Vec<_>, _>>()?;
    EventRules::new(rules.concat()).map_err(|error| {
        StartRefusal::new(
            format!("the event types of log {:?} cannot be used", log.name),
            "name for each the PEM file of the key that reports it",
        )
        .because(error)
    })
}

/// One rule, or one for each issuer that is named.
fn rules_of_event(config: &EventConfig) -> Result<Vec<EventRule>, StartRefusal> {
    let mut keys = Vec::new();
    for path in &config.keys {
        keys.extend(load_keys(path)?.into_iter().map(Bytes));
    }
    let chain = |path: &PathBuf| {
        let chain = Certificate::from_pem_chain(&read_text(path)?);
        chain.map_err(|denial| unusable(path, &denial.to_string()))
    };
    // By name and key: authorities that were set up alike have one name.
    let identity =
        |issuer: &Certificate| (Bytes(issuer.subject_der().to_vec()), Bytes(issuer.key_digest().to_vec()));
    let mut issuers = BTreeSet::new();
    if let Some(path) = &config.issuer_certificate {
        let certificates = chain(path)?;
        let first = certificates.first().ok_or_else(|| unusable(path, "it holds no certificate"))?;
        issuers.insert(identity(first));
    }
    for path in &config.issuer_certificates {
        let certificates = chain(path)?;
        // A chain brings the CAs above along, below which there may be other authorities: who is to speak for a root's
        // certificates is given its file.
        let is_above = |it: &&Certificate| {
            certificates.iter().any(|one| {
                one != *it && one.is_ca() && !one.is_self_issued() && one.issuer_der() == it.subject_der()
            })
        };
        let authorities = certificates.iter().filter(|it| it.is_ca() && !is_above(it));
        let authorities: Vec<_> = authorities.map(identity).collect();
        if authorities.is_empty() {
            return Err(unusable(path, "it holds no certificate of a CA"));
        }
        issuers.extend(authorities);
    }
    let rule = |issuer_name, issuer_key| EventRule {
        predicate_type: config.predicate_type.clone(),
        issuer: config.issuer.clone(),
        issuer_name,
        issuer_key,
        keys: keys.clone(),
    };
    if issuers.is_empty() {
        return Ok(vec![rule(None, None)]);
    }
    Ok(issuers.into_iter().map(|(name, key)| rule(Some(name), Some(key))).collect())
}

fn fits(key: KeyAlgorithm, algorithm: Algorithm) -> bool {
    use Algorithm as A;
    match key {
        KeyAlgorithm::EcdsaP256 => {
            matches!(algorithm, A::EcdsaP256Sha256 | A::EcdsaP256Sha384 | A::EcdsaP256Sha512)
        }
        KeyAlgorithm::EcdsaP384 => {
            matches!(algorithm, A::EcdsaP384Sha256 | A::EcdsaP384Sha384 | A::EcdsaP384Sha512)
        }
        KeyAlgorithm::EcdsaP521 => algorithm == A::EcdsaP521Sha512,
        KeyAlgorithm::Rsa => matches!(
            algorithm,
            A::RsaPkcs1Sha256
                | A::RsaPkcs1Sha384
                | A::RsaPkcs1Sha512
                | A::RsaPssSha256
                | A::RsaPssSha384
                | A::RsaPssSha512
        ),
        _ => false,
    }
}

/// Public keys (SPKI, DER) of a PEM file with keys or certificates.
fn load_keys(path: &Path) -> Result<Vec<Vec<u8>>, StartRefusal> {
    let text = read_text(path)?;
    let keys = if text.contains("BEGIN CERTIFICATE") {
        let certificates =
            Certificate::from_pem_chain(&text).map_err(|denial| unusable(path, &denial.to_string()))?;
        certificates.iter().map(|certificate| certificate.spki_der().to_vec()).collect()
    } else {
        pem::decode(&text, "PUBLIC KEY", MAX_CERTIFICATES)
            .map_err(|denial| unusable(path, &denial.to_string()))?
    };
    for spki in &keys {
        SubjectPublicKey::from_der(spki).map_err(|_| unusable(path, "not a supported public key"))?;
    }
    Ok(keys)
}

fn read_text(path: &Path) -> Result<String, StartRefusal> {
    let large = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > MAX_PEM);
    if large {
        return Err(unusable(path, "it is larger than 1 MiB"));
    }
    std::fs::read_to_string(path).map_err(|error| unusable(path, &error.to_string()))
}

fn unusable(path: &Path, why: &str) -> StartRefusal {
    StartRefusal::new(
        format!("cannot use {}: {why}", path.display()),
        "name a readable PEM file in the configuration",
    )
}
