//! New keys and certificates: for the OCSP responders and the time-stamp authority in place of their old ones, and for the CAs
//! that issue, the root and the key of statements, beside them (`issuer.rs`, `root.rs`, `statement.rs`).
//!
//! Done beside a stopped server; the next start takes the new ones. What the old ones signed stays valid as long as it was.

mod chains;
mod issuer;
mod root;
mod statement;

use std::path::PathBuf;
use std::sync::Arc;

use ca_api::AuthorityRole;
use ca_pki::certificate::{Decided, Form, build};
use ca_pki::key::KeyUse;
use ca_pki::lint::{self, CertificateRules};
use ca_pki::profile::{Kind, Profile};
use ca_pki::serial::ShardCount;
use ca_pki::{DistinguishedName, SerialNumber, SubjectPublicKey, ToBeSigned, UnixTime};
use der::Encode as _;
use hsm::{KeyAlgorithm, KeySpec, KeyUri, Keyring, Purpose, Signer};
use serde::Serialize;

use crate::authority::{CertificateAuthority, LoadedAuthority, generate, names, random, role_name};
use crate::error::CaError;
use crate::storage::{IntentId, NewIntent, Step, StoredAuthority};

/// What is recorded about a certificate of the CA's own before it is signed.
pub(crate) struct Certified<'a> {
    pub(crate) issuer: &'a LoadedAuthority,
    pub(crate) profile: &'a str,
    pub(crate) serial: SerialNumber,
    pub(crate) public_key: &'a SubjectPublicKey,
    pub(crate) requester: &'a str,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    pub(crate) at: UnixTime,
}

/// What a renewal made; printed as one JSON object.
#[derive(Debug, Clone, Serialize)]
pub struct Renewed {
    /// Name of the authority.
    pub authority: String,
    /// Serial number of its new certificate; none for a bare key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Last second of validity of the new certificate, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// PEM file that was written anew.
    pub file: PathBuf,
}

impl CertificateAuthority {
    /// Makes a new key and certificate for the authority of this name. One that issues gets a successor beside it.
    ///
    /// # Errors
    /// [`CaError::OutOfRange`] for any other authority, [`CaError`] when a step fails; a key without a certificate may be
    /// left in the keystore, where it signs nothing.
    pub async fn renew(&self, name: &str, keys: &Keyring) -> Result<Renewed, CaError> {
        match names::split(name) {
            Some((kind @ (names::CODE_SIGNING | names::TIME_STAMPING), 1)) => self.succeed(kind, keys).await,
            Some((names::OCSP_RESPONDER, number)) => {
                let issuer = self.authority(&names::generation(names::CODE_SIGNING, number))?;
                self.replace(name, Kind::OcspResponder, issuer, keys).await
            }
            Some((names::TIMESTAMP_AUTHORITY, 1)) => {
                let issuer = self.generations(names::TIME_STAMPING).next();
                let issuer = issuer.ok_or(CaError::Inconsistent("there is no CA for time stamps"))?;
                self.replace(name, Kind::TimestampAuthority, issuer, keys).await
            }
            Some((names::ROOT, 1)) => self.succeed_root(keys).await,
            Some((names::STATEMENT, 1)) => self.succeed_statement_key(keys).await,
            _ => Err(CaError::OutOfRange {
                field: "authority",
                reason: "must be root, code-signing, time-stamping, ocsp-responder, timestamp-authority or statement",
            }),
        }
    }

    /// Gives one that issues nothing a new key, and a certificate of its old subject.
    async fn replace(
        &self,
        name: &str,
        kind: Kind,
        issuer: &LoadedAuthority,
        keys: &Keyring,
    ) -> Result<Renewed, CaError> {
        let now = self.clock.now()?;
        let loaded = self.authority(name)?;
        let old = ca_pki::certificate::parse(&loaded.certificate)?;
        let subject = old.tbs_certificate().subject().to_der();
        let subject = DistinguishedName::from_der(
            &subject.map_err(|_| CaError::Inconsistent("a subject cannot be read"))?,
        )?;
        let made = self.make(name, kind, issuer, &subject, KeyAlgorithm::EcdsaP256, keys, now).await?;
        let stored = StoredAuthority {
            name: name.to_owned(),
            role: role_name(loaded.role).to_owned(),
            certificate: Some(made.certificate.clone()),
            issuer: Some(issuer.name.clone()),
            key_uri: made.uri.to_string(),
            shards: 0,
        };
        self.store.renew_authority(stored, "operator", now).await?;
        let file = match loaded.role {
            AuthorityRole::TimestampAuthority => "time-stamping.pem".to_owned(),
            _ => format!("{name}.pem"),
        };
        let above =
            if loaded.role == AuthorityRole::TimestampAuthority { issuer.chain.as_slice() } else { &[] };
        let chain = std::iter::once(&made.certificate).chain(above);
        let file = self.write_chain(&file, chain)?;
        Ok(made.renewed(name, file))
    }

    /// A key in its place, and a certificate for it: record → sign → store, as every certificate is signed.
    #[allow(clippy::too_many_arguments, reason = "each is a field of the certificate, and of nothing else")]
    async fn make(
        &self,
        name: &str,
        kind: Kind,
        issuer: &LoadedAuthority,
        subject: &DistinguishedName,
        algorithm: KeyAlgorithm,
        keys: &Keyring,
        now: UnixTime,
    ) -> Result<Made, CaError> {
        let parameters =
            issuer.issuer.as_ref().ok_or(CaError::Inconsistent("a record names a non-issuer"))?;
        let NewKey { uri, public: public_key, .. } = self.new_key(name, kind, algorithm, keys)?;
        let profile = self.profile_of(kind)?;
        let serial = self.serial(now)?;
        let decided = Decided {
            serial: &serial,
            subject,
            identity: None,
            public_key: &public_key,
            not_before: now,
            identity_issuer: None,
            claims: &[],
        };
        let tbs = build(&profile, parameters, &decided, Form::Certificate)?;
        lint::certificate(&tbs.unsigned(), &CertificateRules { kind, issuer: Some(parameters) })
            .into_result()?;
        let not_after = now.plus(profile.lifetime() - 1).min(parameters.not_after);
        let shown = serial.to_string();
        let certified = Certified {
            issuer,
            profile: profile.name(),
            serial,
            public_key: &public_key,
            requester: "operator",
            not_before: now,
            not_after,
            at: now,
        };
        let certificate = self.sign_recorded_infrastructure(certified, &tbs).await?;
        Ok(Made { certificate, uri, serial: shown, not_after })
    }

    /// The profile of the CA's own certificates of a kind.
    fn profile_of(&self, kind: Kind) -> Result<Profile, CaError> {
        self.settings.infrastructure(kind).map_err(|refusal| {
            tracing::error!(%refusal, "a lifetime is out of range");
            CaError::OutOfRange { field: "hierarchy", reason: "a lifetime is out of its range" }
        })
    }

    /// A key in the place that the configuration says for its kind. Its label is new each time: an attempt before may have
    /// left a key.
    pub(crate) fn new_key(
        &self,
        name: &str,
        kind: Kind,
        algorithm: KeyAlgorithm,
        keys: &Keyring,
    ) -> Result<NewKey, CaError> {
        let (purposes, key_use): (&[Purpose], _) = match kind {
            Kind::OcspResponder => (&[Purpose::Ocsp], KeyUse::Subscriber),
            Kind::TimestampAuthority => (&[Purpose::Timestamp], KeyUse::Subscriber),
            _ => (&[Purpose::Certificate, Purpose::Crl], KeyUse::Authority),
        };
        let label = format!("{name}-{}", hex::encode(random::<8>()?));
        let spec = KeySpec::new(&label, algorithm, purposes.iter().copied().collect::<hsm::PurposeSet>())?;
        let base = names::split(name).map_or(name, |(base, _)| base);
        let (signer, uri) = generate(keys, self.settings.key_uris.get(base), &spec)?;
        let public = SubjectPublicKey::from_spki(signer.public_key().spki_der(), key_use)?;
        Ok(NewKey { signer, uri, public })
    }

    /// Record → sign → store for a linted certificate of the CA's own.
    pub(crate) async fn sign_recorded_infrastructure(
        &self,
        certified: Certified<'_>,
        tbs: &ToBeSigned,
    ) -> Result<Vec<u8>, CaError> {
        let at = certified.at;
        let Signed { intent, signature, certificate } = self.sign_infrastructure(certified, tbs).await?;
        self.store.record_signed(intent, signature, at).await?;
        self.store.mark_delivered(intent, None, at).await?;
        Ok(certificate)
    }

    /// Record → sign for a linted certificate of the CA's own. The caller stores the signature.
    async fn sign_infrastructure(
        &self,
        certified: Certified<'_>,
        tbs: &ToBeSigned,
    ) -> Result<Signed, CaError> {
        let signing = certified.issuer;
        let shards = ShardCount::new(signing.shards)?;
        let at = certified.at;
        let intent = random::<16>()?;
        let detail = serde_json::json!({
            "intent": hex::encode(intent),
            "serial": certified.serial.to_string(),
            "tbs_sha256": hex::encode(tbs.sha256()),
        });
        self.store
            .record_intent(NewIntent {
                intent,
                shard: certified.serial.shard(shards),
                serial: certified.serial,
                issuer: signing.name.clone(),
                profile: certified.profile.to_owned(),
                identity: None,
                spki_sha256: certified.public_key.spki_sha256(),
                requester: certified.requester.to_owned(),
                request_id: None,
                evidence: serde_json::json!({}).into(),
                token: None,
                identity_token: None,
                approved: None,
                renews: None,
                not_before: certified.not_before,
                not_after: certified.not_after,
                step: Step::Certificate,
                tbs: tbs.as_der().to_vec(),
                at,
            })
            .await?;
        self.store.begin_signing(intent, detail.into(), at).await?;
        let signature = self.sign(signing, Purpose::Certificate, &intent, tbs.as_der()).await?;
        let certificate = tbs.assemble(&signature)?;
        Ok(Signed { intent, signature, certificate })
    }
}

/// A certificate whose signature is not stored yet.
struct Signed {
    intent: IntentId,
    signature: Vec<u8>,
    certificate: Vec<u8>,
}

/// A key that was made in its place.
pub(crate) struct NewKey {
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) uri: KeyUri,
    pub(crate) public: SubjectPublicKey,
}

/// A key with its certificate.
struct Made {
    certificate: Vec<u8>,
    uri: KeyUri,
    serial: String,
    not_after: UnixTime,
}

impl Made {
    fn renewed(self, authority: &str, file: PathBuf) -> Renewed {
        let not_after = self.not_after.to_rfc3339();
        Renewed {
            authority: authority.to_owned(),
            serial: Some(self.serial),
            not_after: Some(not_after),
            file,
        }
    }
}
