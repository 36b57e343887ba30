//! The CA's own certificates with their signers, and everything the domain modules share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use ca_api::AuthorityRole;
use ca_pki::certificate::{Issuer, StatusUrls};
use ca_pki::profile::Profile;
use ca_pki::serial::{InstancePrefix, Period, RANDOM_OCTETS, ShardCount};
use ca_pki::{SerialNumber, SignatureAlgorithm, SubjectPublicKey, UnixTime};
use hsm::pool::OwnedInput;
use hsm::{
    IntentId, KeyProvider as _, KeySpec, KeyUri, Keyring, Purpose, Signer, SigningIntent, SigningPool,
};
use service::rate_limit::RateLimiter;
use tokio::sync::Notify;

use crate::allowance::Allowances;
use crate::approval::Quorum;
use crate::clock::ClockGuard;
use crate::config::Settings;
use crate::delivery::Deliveries;
use crate::error::CaError;
use crate::mail_code::CodeMail;
use crate::mass_revocation::CountedOrders;
use crate::metrics::CaMetrics;
use crate::oidc::Issuers;
use crate::oidc::reuse::Served;
use crate::presigned::Presigned;
use crate::publisher::PublishedCrl;
use crate::renewal_challenge::Challenges;
use crate::responder::{AnswerCache, AskedIssuers};
use crate::revocation::SetAside;
use crate::service_record::ServiceRecords;
use crate::standing::Fall;
use crate::storage::{CertificateStore, CrlPart, StoredAuthority};
use crate::token_refusal::TokenRefusals;
use crate::transparency::{EventLog, IssuanceLog};

/// Names of the authorities, in paths and records.
pub mod names {
    /// Trust anchor.
    pub const ROOT: &str = "root";
    /// CA for code signing.
    pub const CODE_SIGNING: &str = "code-signing";
    /// CA for time stamps.
    pub const TIME_STAMPING: &str = "time-stamping";
    /// OCSP responder of the CA for code signing.
    pub const OCSP_RESPONDER: &str = "ocsp-responder";
    /// Time-stamp authority.
    pub const TIMESTAMP_AUTHORITY: &str = "timestamp-authority";
    /// Key of statements about revocations.
    pub const STATEMENT: &str = "statement";
    /// All of them.
    pub const ALL: [&str; 6] =
        [ROOT, CODE_SIGNING, TIME_STAMPING, OCSP_RESPONDER, TIMESTAMP_AUTHORITY, STATEMENT];

    /// The name of a later authority of a kind: the second CA for code signing is `code-signing-2`. The first has the bare name.
    #[must_use]
    pub fn generation(kind: &str, number: u32) -> String {
        if number > 1 { format!("{kind}-{number}") } else { kind.to_owned() }
    }

    /// Whether a name is that of a root, of whatever generation.
    #[must_use]
    pub fn is_root(name: &str) -> bool {
        split(name).is_some_and(|(kind, _)| kind == ROOT)
    }

    /// The kind in a name, and which of its authorities is meant; none for a name that no authority can have.
    #[must_use]
    pub fn split(name: &str) -> Option<(&'static str, u32)> {
        ALL.into_iter().find_map(|kind| {
            let rest = name.strip_prefix(kind)?;
            if rest.is_empty() {
                return Some((kind, 1));
            }
            let number = rest.strip_prefix('-')?.parse().ok().filter(|number| *number > 1)?;
            (generation(kind, number) == name).then_some((kind, number))
        })
    }
}

/// One certificate or key of the CA, opened.
pub struct LoadedAuthority {
    /// Name in paths and records.
    pub name: String,
    /// What it is for.
    pub role: AuthorityRole,
    /// Its certificate; empty for a bare key.
    pub certificate: Vec<u8>,
    /// Its last second of validity; none for a bare key.
    pub not_after: Option<UnixTime>,
    /// The certificate and its issuers up to the root, in DER; empty for a bare key.
    pub chain: Vec<Vec<u8>>,
    /// The same as PEM, made once: every answer carries it.
    pub chain_pem: Vec<String>,
    /// What builders need of it, for those that issue.
    pub issuer: Option<Issuer>,
    /// Its public key.
    pub public_key: SubjectPublicKey,
    /// The algorithm it signs with.
    pub algorithm: SignatureAlgorithm,
    /// Number of CRL shards; 0 for those that issue nothing.
    pub shards: u16,
    /// Its private key.
    pub signer: Arc<dyn Signer>,
}

impl LoadedAuthority {
    /// Refuses to sign under a certificate that has ended: nobody would accept the signature.
    ///
    /// # Errors
    /// [`CaError::Inconsistent`].
    pub fn in_force(&self, now: UnixTime) -> Result<(), CaError> {
        match self.not_after {
            Some(end) if end <= now => Err(CaError::Inconsistent("the signer's own certificate has expired")),
            _ => Ok(()),
        }
    }

    /// The lists it publishes.
    pub fn parts(&self) -> impl Iterator<Item = CrlPart> {
        let shards = if self.shards > 1 { self.shards } else { 0 };
        let complete = (self.shards > 0).then_some(CrlPart::Complete);
        complete.into_iter().chain((0..shards).map(|shard| CrlPart::Shard(ca_pki::serial::Shard(shard))))
    }
}

/// Everything the CA works with while it runs.
pub struct CertificateAuthority {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn CertificateStore>,
    pub(crate) clock: ClockGuard,
    pub(crate) authorities: BTreeMap<String, LoadedAuthority>,
    /// Names of those that are revoked, themselves or above them.
    pub(crate) fallen: RwLock<BTreeMap<String, Fall>>,
    /// Signs certificates, lists and statements.
    pub(crate) pool: SigningPool,
    /// Signs what strangers ask for (OCSP answers, time stamps), so that they cannot hold up issuance.
    pub(crate) status_pool: SigningPool,
    pub(crate) fresh_limit: RateLimiter,
    /// What proofs for renewals must name.
    pub(crate) challenges: Challenges,
    /// What each identity and each requester may still have.
    pub(crate) allowances: Allowances,
    /// When the audit trail was last looked at for an anchor, on the monotonic clock.
    pub(crate) anchored_at: Mutex<Option<Duration>>,
    pub(crate) issuance_log: Option<LoggedTo>,
    pub(crate) event_log: Option<Arc<dyn EventLog>>,
    pub(crate) issuers: Issuers,
    /// Which identity tokens served for certificates.
    pub(crate) served_tokens: Served,
    /// Which were refused and are not in the audit trail yet.
    pub(crate) token_refusals: TokenRefusals,
    /// What of the service itself is counted and not recorded yet.
    pub(crate) service_records: ServiceRecords,
    /// Who approves what only a quorum may do while serving.
    pub(crate) quorum: Option<Quorum>,
    /// Who sends codes that prove an e-mail address.
    pub(crate) mail: Option<CodeMail>,
    pub(crate) published: RwLock<BTreeMap<(String, CrlPart), Arc<PublishedCrl>>>,
    pub(crate) changed: Notify,
    pub(crate) event_due: Notify,
    pub(crate) request_due: Notify,
    pub(crate) answers: AnswerCache,
    pub(crate) asked_issuers: AskedIssuers,
    pub(crate) presigned: Presigned,
    pub(crate) counted_orders: CountedOrders,
    /// Held by whoever ends what is due.
    pub(crate) ending: tokio::sync::Mutex<()>,
    pub(crate) set_aside: SetAside,
    pub(crate) deliveries: Deliveries,
    pub(crate) metrics: CaMetrics,
}

/// The issuance log and the key its promises are verified with.
#[derive(Clone)]
pub struct LoggedTo {
    /// The log.
    pub log: Arc<dyn IssuanceLog>,
    /// Its key.
    pub public_key: SubjectPublicKey,
}

impl CertificateAuthority {
    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn CertificateStore> {
        &self.store
    }

    /// The authorities by name.
    #[must_use]
    pub fn authorities(&self) -> &BTreeMap<String, LoadedAuthority> {
        &self.authorities
    }

    /// The authority of this name.
    ///
    /// # Errors
    /// [`CaError::Inconsistent`] when a record names an authority that there is not.
    pub fn authority(&self, name: &str) -> Result<&LoadedAuthority, CaError> {
        self.authorities.get(name).ok_or(CaError::Inconsistent("a record names an unknown authority"))
    }

    /// The authority of this name as an issuer.
    ///
    /// # Errors
    /// [`CaError::Inconsistent`] when it issues nothing.
    pub fn issuer(&self, name: &str) -> Result<(&LoadedAuthority, &Issuer), CaError> {
        let authority = self.authority(name)?;
        let issuer = authority.issuer.as_ref().ok_or(CaError::Inconsistent("a record names a non-issuer"))?;
        Ok((authority, issuer))
    }

    /// The authorities of a kind, newest first.
    pub fn generations(&self, kind: &str) -> impl Iterator<Item = &LoadedAuthority> {
        let number = |authority: &&LoadedAuthority| names::split(&authority.name).map(|(_, number)| number);
        let of_kind = |authority: &&LoadedAuthority| {
            names::split(&authority.name).is_some_and(|(found, _)| found == kind)
        };
        let mut found: Vec<_> = self.authorities.values().filter(of_kind).collect();
        found.sort_by_key(|authority| std::cmp::Reverse(number(authority)));
        found.into_iter()
    }

    /// The OCSP responder of a CA for code signing; the others have none, and theirs answers for no other (O1, O2).
    ///
    /// # Errors
    /// [`CaError::Inconsistent`] when it has none.
    pub fn responder_of(&self, issuer: &str) -> Result<&LoadedAuthority, CaError> {
        let Some((names::CODE_SIGNING, number)) = names::split(issuer) else {
            return Err(CaError::Inconsistent("no OCSP responder answers for this authority"));
        };
        self.authority(&names::generation(names::OCSP_RESPONDER, number))
    }

    /// The subscriber profile of this name.
    ///
    /// # Errors
    /// [`CaError::ProfileUnknown`].
    pub fn profile(&self, name: &str) -> Result<&Profile, CaError> {
        self.settings.profiles.get(name).ok_or(CaError::ProfileUnknown)
    }

    /// A fresh serial number for what is made at a time.
    pub(crate) fn serial(&self, at: UnixTime) -> Result<SerialNumber, CaError> {
        random_serial(self.settings.prefix, at)
    }

    /// Has one of the CA's keys sign, off the async threads where it takes longer than the way to another.
    pub(crate) async fn sign(
        &self,
        authority: &LoadedAuthority,
        purpose: Purpose,
        intent: &[u8],
        message: &[u8],
    ) -> Result<Vec<u8>, hsm::Error> {
        self.still_serves().map_err(|error| hsm::Error::Permanent { detail: error.to_string() })?;
        let intent = SigningIntent::new(purpose, IntentId::new(intent)?);
        let algorithm = authority.signer.public_key().algorithm().default_signature();
        let input = OwnedInput::Message(message.to_vec());
        let signer = Arc::clone(&authority.signer);
        let pending = match purpose {
            Purpose::Ocsp | Purpose::Timestamp => self.status_pool.submit(signer, input, algorithm, intent),
            // A request was verified on this thread just so, which takes as long.
            Purpose::Certificate => self.pool.submit_or_sign(signer, input, algorithm, intent),
            _ => self.pool.submit(signer, input, algorithm, intent),
        };
        let outcome = pending?.await;
        self.metrics.key_signs(&authority.name, outcome.is_ok());
        Ok(outcome?.into_vec())
    }
}

/// Random octets of the system.
///
/// # Errors
/// [`CaError::Signing`] when the system's source fails.
pub fn random<const N: usize>() -> Result<[u8; N], CaError> {
    let mut octets = [0; N];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| {
        CaError::Signing(hsm::Error::Transient { detail: "the random source failed".to_owned() })
    })?;
    Ok(octets)
}

/// A fresh id of an issuance: five octets of the time, then random ones, so that what is recorded together lies together in
/// the store's index.
///
/// # Errors
/// As [`random`].
pub(crate) fn intent_id(at: UnixTime) -> Result<crate::storage::IntentId, CaError> {
    let mut id = random::<16>()?;
    let [_, _, _, time @ ..] = at.0.to_be_bytes();
    id.iter_mut().zip(time).for_each(|(octet, time)| *octet = time);
    Ok(id)
}

/// A serial number: the instance's prefix, the period of a time and 136 random bits (C1).
///
/// # Errors
/// As [`random`].
pub fn random_serial(prefix: InstancePrefix, at: UnixTime) -> Result<SerialNumber, CaError> {
    Ok(SerialNumber::from_random(prefix, Period::of(at), &random::<RANDOM_OCTETS>()?))
}

/// Makes a key in the place that `place` leads to, in the keystore without it; returns it with its full reference.
///
/// # Errors
/// [`CaError::Signing`] when the place cannot be reached, has no such key type, or has a key of this label.
pub fn generate(
    keys: &Keyring,
    place: Option<&KeyUri>,
    spec: &KeySpec,
) -> Result<(Arc<dyn Signer>, KeyUri), CaError> {
    let Some(way) = place else {
        let signer = keys.generate(spec)?;
        let uri = KeyUri::soft(&spec.label).pinned_to(signer.public_key().spki_sha256());
        return Ok((signer, uri));
    };
    let provider = keys.place(way)?;
    let signer = provider.generate(spec)?;
    Ok((signer, provider.reference(&spec.label)?))
}

/// The algorithm an authority's key signs with, as certificates name it.
///
/// # Errors
/// [`CaError::Inconsistent`] for a key type that CAs do not use.
pub fn signature_algorithm(signer: &dyn Signer) -> Result<SignatureAlgorithm, CaError> {
    certificate_algorithm(signer.public_key().algorithm())
}

/// The algorithm that a key of this type signs with, as certificates name it.
///
/// # Errors
/// As [`signature_algorithm`].
pub fn certificate_algorithm(key: hsm::KeyAlgorithm) -> Result<SignatureAlgorithm, CaError> {
    match key.default_signature() {
        hsm::SignatureAlgorithm::EcdsaP256Sha256 => Ok(SignatureAlgorithm::EcdsaP256Sha256),
        hsm::SignatureAlgorithm::EcdsaP384Sha384 => Ok(SignatureAlgorithm::EcdsaP384Sha384),
        hsm::SignatureAlgorithm::RsaPkcs1Sha256 => Ok(SignatureAlgorithm::RsaPkcs1Sha256),
        hsm::SignatureAlgorithm::RsaPkcs1Sha384 => Ok(SignatureAlgorithm::RsaPkcs1Sha384),
        _ => Err(CaError::Inconsistent("a key of a type that the CA does not sign with")),
    }
}

/// Status URLs of an authority.
///
/// # Errors
/// [`CaError::Pki`] for a number of shards out of range.
pub fn status_urls(base: &str, name: &str, shards: u16) -> Result<StatusUrls, CaError> {
    Ok(StatusUrls { base: base.to_owned(), issuer: name.to_owned(), shards: ShardCount::new(shards.max(1))? })
}

/// Puts the stored authorities together with their signers. Refuses when key and certificate differ.
///
/// # Errors
/// [`CaError`] when a record or a key cannot be used; those about a key name its authority.
pub fn load(
    stored: &[StoredAuthority],
    base: &str,
    mut open: impl FnMut(&StoredAuthority) -> Result<Arc<dyn Signer>, hsm::Error>,
) -> Result<BTreeMap<String, LoadedAuthority>, CaError> {
    let mut loaded = BTreeMap::new();
    for record in stored {
        let name = || record.name.clone();
        let signer = open(record).map_err(|because| CaError::AuthorityKey { authority: name(), because })?;
        let algorithm = signature_algorithm(&*signer)?;
        let public_key =
            SubjectPublicKey::from_spki(signer.public_key().spki_der(), ca_pki::key::KeyUse::Subscriber)?;
        let certificate = record.certificate.clone().unwrap_or_default();
        if !certificate.is_empty() && !contains_key(&certificate, &public_key)? {
            return Err(CaError::OtherKey { authority: name() });
        }
        let urls = status_urls(base, &record.name, record.shards)?;
        let issues = record.shards > 0;
        let issuer = issues.then(|| Issuer::from_certificate(&certificate, algorithm, urls)).transpose()?;
        let chain = chain(stored, record)?;
        let chain_pem = chain.iter().map(|der| ca_pki::pem::encode("CERTIFICATE", der));
        let chain_pem = chain_pem.collect::<Result<_, _>>()?;
        let not_after = if certificate.is_empty() { None } else { Some(end_of(&certificate)?) };
        loaded.insert(
            name(),
            LoadedAuthority {
                name: name(),
                role: role(&record.role)?,
                chain,
                chain_pem,
                certificate,
                not_after,
                issuer,
                public_key,
                algorithm,
                shards: record.shards,
                signer,
            },
        );
    }
    Ok(loaded)
}

fn contains_key(certificate: &[u8], key: &SubjectPublicKey) -> Result<bool, CaError> {
    use der::Encode;
    let parsed = ca_pki::certificate::parse(certificate)?;
    let spki = parsed.tbs_certificate().subject_public_key_info().to_der();
    Ok(spki.is_ok_and(|spki| spki == key.spki()))
}

fn end_of(certificate: &[u8]) -> Result<UnixTime, CaError> {
    let end = ca_pki::certificate::parse(certificate)?.tbs_certificate().validity().not_after;
    Ok(UnixTime(i64::try_from(end.to_unix_duration().as_secs()).unwrap_or(i64::MAX)))
}

/// A certificate and its issuers up to the root.
fn chain(stored: &[StoredAuthority], record: &StoredAuthority) -> Result<Vec<Vec<u8>>, CaError> {
    let mut chain = Vec::new();
    let mut next = Some(record);
    while let Some(current) = next {
        chain.extend(current.certificate.clone());
        next = match &current.issuer {
            None => None,
            Some(name) => Some(
                stored
                    .iter()
                    .find(|candidate| candidate.name == *name)
                    .ok_or(CaError::Inconsistent("an authority's issuer is missing"))?,
            ),
        };
        // Three levels exist; more would be a loop of records.
        if chain.len() > 4 {
            return Err(CaError::Inconsistent("the authorities' records form a loop"));
        }
    }
    Ok(chain)
}

/// The role as records write it.
#[must_use]
pub fn role_name(role: AuthorityRole) -> &'static str {
    match role {
        AuthorityRole::Root => "root",
        AuthorityRole::CodeSigning => "code-signing",
        AuthorityRole::TimeStamping => "time-stamping",
        AuthorityRole::TimestampAuthority => "timestamp-authority",
        AuthorityRole::OcspResponder => "ocsp-responder",
        AuthorityRole::Statement => "statement",
    }
}

fn role(name: &str) -> Result<AuthorityRole, CaError> {
    [
        AuthorityRole::Root,
        AuthorityRole::CodeSigning,
        AuthorityRole::TimeStamping,
        AuthorityRole::TimestampAuthority,
        AuthorityRole::OcspResponder,
        AuthorityRole::Statement,
    ]
    .into_iter()
    .find(|role| role_name(*role) == name)
    .ok_or(CaError::Inconsistent("an authority has an unknown role"))
}

#[cfg(test)]
mod tests {
    use super::names::{ALL, CODE_SIGNING, OCSP_RESPONDER, generation, split};

    #[test]
    fn names_of_later_authorities_are_read_as_they_are_written_and_no_other() {
        for kind in ALL {
            for number in [1, 2, 10, 4_000_000_000] {
                assert_eq!(split(&generation(kind, number)), Some((kind, number)));
            }
        }
        assert_eq!(split("code-signing-10"), Some((CODE_SIGNING, 10)));
        assert_eq!(split("ocsp-responder"), Some((OCSP_RESPONDER, 1)));
        for none in [
            "code-signing-1",
            "code-signing-02",
            "code-signing-+2",
            "code-signing-",
            "code-signing2",
            "",
            "code",
        ] {
            assert_eq!(split(none), None, "{none}");
        }
    }
}
