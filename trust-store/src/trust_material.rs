//! A trusted root, turned once into what checks work with: certificates, anchors and keys.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};
use tlog::note::VerifierKey;
use tlog::signature::SignatureVerifier;

use crate::algorithm::SubjectPublicKey;
use crate::certificate::Certificate;
use crate::crl::Crl;
use crate::error::Error;
use crate::key_details::KeyDetails;
use crate::reason::{Denial, ReasonCode};
use crate::time::UnixTime;
use crate::trusted_root::{Authority, LogInstance, TrustedRoot};
use crate::validity::Validity;

/// What a verifier trusts.
#[derive(Clone, Debug)]
pub struct TrustMaterial {
    version: [u8; 32],
    pub(crate) certificate_authorities: Vec<TrustedAuthority>,
    pub(crate) timestamp_authorities: Vec<TrustedAuthority>,
    pub(crate) logs: Vec<TrustedLog>,
    pub(crate) certificate_logs: Vec<TrustedCertificateLog>,
}

/// One chain of an authority: the last certificate is the anchor, the others are candidates.
#[derive(Clone, Debug)]
pub(crate) struct TrustedAuthority {
    pub(crate) candidates: Vec<Certificate>,
    pub(crate) anchor: Certificate,
    pub(crate) validity: Validity,
}

/// A transparency log of signatures.
#[derive(Clone, Debug)]
pub(crate) struct TrustedLog {
    pub(crate) origin: String,
    pub(crate) log_id: Vec<u8>,
    pub(crate) checkpoint_key: VerifierKey,
    pub(crate) key: Vec<u8>,
    pub(crate) details: KeyDetails,
    pub(crate) validity: Validity,
}

/// A log of certificates.
#[derive(Clone, Debug)]
pub(crate) struct TrustedCertificateLog {
    pub(crate) log_id: [u8; 32],
    pub(crate) key: Vec<u8>,
    pub(crate) validity: Validity,
}

impl TrustMaterial {
    /// Reads every certificate and key of `root`. A log whose key type cannot sign what that log signs (a certificate
    /// log that is not P-256, a checkpoint key of an unknown type) is left out: nothing of it would verify.
    ///
    /// # Errors
    /// `malformed` for a certificate or key that cannot be read.
    pub fn new(root: &TrustedRoot) -> Result<Self, Denial> {
        root.validate()?;
        let canonical = crate::json::write("trusted root", root)?;
        Ok(Self {
            version: Sha256::digest(&canonical).into(),
            certificate_authorities: root
                .certificate_authorities
                .iter()
                .map(authority)
                .collect::<Result<_, _>>()?,
            timestamp_authorities: root
                .timestamp_authorities
                .iter()
                .map(authority)
                .collect::<Result<_, _>>()?,
            logs: root.tlogs.iter().filter_map(|log| log_of(log).transpose()).collect::<Result<_, _>>()?,
            certificate_logs: root
                .ctlogs
                .iter()
                .filter_map(|log| certificate_log(log).transpose())
                .collect::<Result<_, _>>()?,
        })
    }

    /// SHA-256 of the trusted root: the version that caches are keyed by.
    pub fn version(&self) -> &[u8; 32] {
        &self.version
    }

    /// Origins of the trusted logs of signatures.
    pub fn log_origins(&self) -> impl Iterator<Item = &str> {
        self.logs.iter().map(|log| log.origin.as_str())
    }

    /// Origin, `logId` and checkpoint key of each trusted log of signatures: for whoever fetches checkpoints.
    pub fn checkpoint_keys(&self) -> impl Iterator<Item = (&str, &[u8], &VerifierKey)> {
        self.logs.iter().map(|log| (log.origin.as_str(), log.log_id.as_slice(), &log.checkpoint_key))
    }

    /// The list with its signature verified, if a certificate or timestamp authority of the trusted root signed it. For
    /// whoever keeps lists: one that nobody signed must not take the place of one that counts.
    pub fn authenticate_crl(&self, crl: &Crl, crypto: &dyn SignatureVerifier) -> Option<Crl> {
        self.certificate_authorities
            .iter()
            .chain(&self.timestamp_authorities)
            .flat_map(|authority| authority.candidates.iter().chain([&authority.anchor]))
            .filter(|issuer| issuer.subject_name() == crl.issuer_name())
            .find_map(|issuer| crl.clone().authenticate(issuer, crypto).ok())
    }

    /// The certificates of the timestamp authorities, without their anchors: for whoever fetches revocation lists.
    pub fn timestamp_certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.timestamp_authorities.iter().flat_map(|authority| &authority.candidates)
    }

    /// The trusted log with this id.
    pub(crate) fn log(&self, log_id: &[u8]) -> Option<&TrustedLog> {
        self.logs.iter().find(|log| log.log_id == log_id)
    }

    /// The trusted log with this id whose key was in service at every one of `times`. A key that was retired, because it
    /// leaked perhaps, still signs whatever tree its holder likes.
    pub(crate) fn log_in_service(&self, log_id: &[u8], times: &[UnixTime]) -> Option<&TrustedLog> {
        let serves = |log: &&TrustedLog| times.iter().all(|time| log.validity.contains(*time));
        self.logs.iter().filter(|log| log.log_id == log_id).find(serves)
    }

    /// Anchors and candidates of the authorities in `list` that were in service at `time`.
    pub(crate) fn in_service(
        list: &[TrustedAuthority],
        time: UnixTime,
    ) -> (Vec<Certificate>, Vec<Certificate>) {
        let serving = || list.iter().filter(move |authority| authority.validity.contains(time));
        let mut anchors: Vec<Certificate> = Vec::new();
        for authority in serving() {
            if !anchors.contains(&authority.anchor) {
                anchors.push(authority.anchor.clone());
            }
        }
        let candidates = serving().flat_map(|authority| authority.candidates.iter().cloned()).collect();
        (anchors, candidates)
    }
}

impl TrustedLog {
    /// The keys that open a checkpoint of this log: its own, and further ones of the same origin.
    pub(crate) fn keys<'a>(&'a self, further: &'a [VerifierKey]) -> impl Iterator<Item = &'a VerifierKey> {
        core::iter::once(&self.checkpoint_key)
            .chain(further.iter().filter(|key| key.name() == self.origin && key.kind().signs_checkpoints()))
    }
}

fn authority(authority: &Authority) -> Result<TrustedAuthority, Denial> {
    let mut chain: Vec<Certificate> =
        authority.cert_chain.iter().map(Certificate::from_der).collect::<Result<_, _>>()?;
    let anchor = chain
        .pop()
        .ok_or(Denial::new(ReasonCode::Malformed, "an authority of the trusted root has no chain"))?;
    Ok(TrustedAuthority { candidates: chain, anchor, validity: authority.valid_for })
}

fn log_of(log: &LogInstance) -> Result<Option<TrustedLog>, Denial> {
    let details = log.public_key.key_details;
    // Before the key is read: under its deprecated names it is no SubjectPublicKeyInfo.
    if !matches!(
        details,
        KeyDetails::Ed25519
            | KeyDetails::EcdsaP256Sha256
            | KeyDetails::EcdsaP384Sha384
            | KeyDetails::EcdsaP521Sha512
    ) {
        return Ok(None);
    }
    let spki = &log.public_key.raw_bytes.0;
    let key = SubjectPublicKey::from_der(spki).map_err(|error| error.denial("log key"))?;
    let origin = log.host();
    let checkpoint_key = match details {
        KeyDetails::Ed25519 => match <&[u8; 32]>::try_from(key.key) {
            Ok(key) => VerifierKey::ed25519(origin, key),
            Err(_) => return Err(Error::malformed("log key", "an Ed25519 key has 32 bytes").into()),
        },
        _ => VerifierKey::ecdsa(origin, spki),
    };
    let checkpoint_key =
        checkpoint_key.map_err(|error| Denial::new(ReasonCode::Malformed, error.to_string()))?;
    Ok(Some(TrustedLog {
        origin: origin.to_string(),
        log_id: log.log_id.key_id.0.clone(),
        checkpoint_key,
        key: key.key.to_vec(),
        details,
        validity: log.public_key.valid_for,
    }))
}

fn certificate_log(log: &LogInstance) -> Result<Option<TrustedCertificateLog>, Denial> {
    // Before the key is read: under its deprecated names it is no SubjectPublicKeyInfo.
    if log.public_key.key_details != KeyDetails::EcdsaP256Sha256 {
        return Ok(None);
    }
    let spki = &log.public_key.raw_bytes.0;
    let key = SubjectPublicKey::from_der(spki).map_err(|error| error.denial("certificate log key"))?;
    // RFC 6962 section 3.2: the id of a certificate log is the hash of its key, whatever the file says.
    let log_id: [u8; 32] = Sha256::digest(spki).into();
    Ok(Some(TrustedCertificateLog { log_id, key: key.key.to_vec(), validity: log.public_key.valid_for }))
}
