//! New keys and certificates for those that issue nothing: the OCSP responder and the time-stamp authority.
//!
//! Done beside a stopped server; the next start takes the new ones. What the old ones signed stays valid as long as it was.

use std::path::PathBuf;

use ca_api::AuthorityRole;
use ca_pki::certificate::{Decided, Form, build};
use ca_pki::key::KeyUse;
use ca_pki::lint::{self, CertificateRules};
use ca_pki::profile::Kind;
use ca_pki::{DistinguishedName, SerialNumber, SubjectPublicKey, ToBeSigned, UnixTime, pem};
use der::Encode as _;
use hsm::{KeyAlgorithm, KeySpec, Keyring, Purpose};
use serde::Serialize;

use crate::authority::{CertificateAuthority, LoadedAuthority, generate, names, random, role_name};
use crate::error::CaError;
use crate::storage::{NewIntent, Step, StoredAuthority};

/// What is recorded about a certificate of the CA's own before it is signed.
pub(crate) struct Certified<'a> {
    pub(crate) issuer: &'a str,
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
    /// Serial number of its new certificate.
    pub serial: String,
    /// Last second of validity of the new certificate, RFC 3339.
    pub not_after: String,
    /// PEM file that was written anew.
    pub file: PathBuf,
}

impl CertificateAuthority {
    /// Makes a new key and certificate for the OCSP responder or the time-stamp authority.
    ///
    /// # Errors
    /// [`CaError::OutOfRange`] for any other authority, [`CaError`] when a step fails; a key without a certificate may be
    /// left in the keystore, where it signs nothing.
    pub async fn renew(&self, name: &str, keys: &Keyring) -> Result<Renewed, CaError> {
        let (kind, purpose, issuer_name) = match name {
            names::OCSP_RESPONDER => (Kind::OcspResponder, Purpose::Ocsp, names::CODE_SIGNING),
            names::TIMESTAMP_AUTHORITY => {
                (Kind::TimestampAuthority, Purpose::Timestamp, names::TIME_STAMPING)
            }
            _ => {
                return Err(CaError::OutOfRange {
                    field: "authority",
                    reason: "must be ocsp-responder or timestamp-authority; authorities that issue need a ceremony",
                });
            }
        };
        let now = self.clock.now()?;
        let loaded = self.authority(name)?;
        let label = format!("{name}-{}", hex::encode(random::<8>()?));
        let spec = KeySpec::new(&label, KeyAlgorithm::EcdsaP256, [purpose])?;
        let (signer, uri) = generate(keys, self.settings.key_uris.get(name), &spec)?;
        let public_key = SubjectPublicKey::from_spki(signer.public_key().spki_der(), KeyUse::Subscriber)?;
        let (certificate, serial, not_after) =
            self.certify(loaded, issuer_name, kind, &public_key, now).await?;
        let stored = StoredAuthority {
            name: name.to_owned(),
            role: role_name(loaded.role).to_owned(),
            certificate: Some(certificate.clone()),
            issuer: Some(issuer_name.to_owned()),
            key_uri: uri.to_string(),
            shards: 0,
        };
        self.store.renew_authority(stored, "operator", now).await?;
        let file = self.write_chain(loaded, &certificate)?;
        Ok(Renewed { authority: name.to_owned(), serial, not_after: not_after.to_rfc3339(), file })
    }

    /// Record → sign → store, as every certificate is signed; the subject stays byte for byte.
    async fn certify(
        &self,
        loaded: &LoadedAuthority,
        issuer_name: &str,
        kind: Kind,
        public_key: &SubjectPublicKey,
        now: UnixTime,
    ) -> Result<(Vec<u8>, String, UnixTime), CaError> {
        let (_, issuer) = self.issuer(issuer_name)?;
        let old = ca_pki::certificate::parse(&loaded.certificate)?;
        let subject = old.tbs_certificate().subject().to_der();
        let subject = DistinguishedName::from_der(
            &subject.map_err(|_| CaError::Inconsistent("a subject cannot be read"))?,
        )?;
        let profile = self.settings.infrastructure(kind).map_err(|refusal| {
            tracing::error!(%refusal, "a lifetime is out of range");
            CaError::OutOfRange { field: "hierarchy", reason: "a lifetime is out of its range" }
        })?;
        let serial = self.serial()?;
        let decided = Decided {
            serial: &serial,
            subject: &subject,
            identity: None,
            public_key,
            not_before: now,
            identity_issuer: None,
            claims: &[],
        };
        let tbs = build(&profile, issuer, &decided, Form::Certificate)?;
        lint::certificate(&tbs.unsigned(), &CertificateRules { kind, issuer: Some(issuer) }).into_result()?;
        let not_after = now.plus(profile.lifetime() - 1).min(issuer.not_after);
        let shown = serial.to_string();
        let certified = Certified {
            issuer: issuer_name,
            profile: profile.name(),
            serial,
            public_key,
            requester: "operator",
            not_before: now,
            not_after,
            at: now,
        };
        Ok((self.sign_recorded_infrastructure(certified, &tbs).await?, shown, not_after))
    }

    /// Record → sign → store for a linted certificate of the CA's own.
    pub(crate) async fn sign_recorded_infrastructure(
        &self,
        certified: Certified<'_>,
        tbs: &ToBeSigned,
    ) -> Result<Vec<u8>, CaError> {
        let (signing, issuer) = self.issuer(certified.issuer)?;
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
                shard: certified.serial.shard(issuer.status.shards),
                serial: certified.serial,
                issuer: certified.issuer.to_owned(),
                profile: certified.profile.to_owned(),
                identity: None,
                spki_sha256: certified.public_key.spki_sha256(),
                requester: certified.requester.to_owned(),
                request_id: None,
                evidence: "{}".to_owned(),
                token: None,
                not_before: certified.not_before,
                not_after: certified.not_after,
                step: Step::Certificate,
                tbs: tbs.as_der().to_vec(),
                at,
            })
            .await?;
        self.store.begin_signing(intent, detail.to_string(), at).await?;
        let signature = self.sign(signing, Purpose::Certificate, &intent, tbs.as_der()).await?;
        let certificate = tbs.assemble(&signature)?;
        self.store.record_signed(intent, signature, at).await?;
        self.store.mark_delivered(intent, None, at).await?;
        Ok(certificate)
    }

    /// Writes the file of `chains/` anew that begins with the renewed certificate, in one step.
    fn write_chain(&self, loaded: &LoadedAuthority, certificate: &[u8]) -> Result<PathBuf, CaError> {
        let (file, issuers) = match loaded.role {
            AuthorityRole::TimestampAuthority => {
                ("time-stamping.pem", loaded.chain.get(1..).unwrap_or_default())
            }
            _ => ("ocsp-responder.pem", &[][..]),
        };
        let mut text = pem::encode("CERTIFICATE", certificate)?;
        for issuer in issuers {
            text.push_str(&pem::encode("CERTIFICATE", issuer)?);
        }
        let path = self.settings.data_dir.join("chains").join(file);
        let beside = path.with_extension("pem.new");
        std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &path)).map_err(|error| {
            tracing::error!(%error, path = %path.display(), "the certificate is recorded, but its file is not");
            CaError::Inconsistent("the certificate is recorded, but its file in chains cannot be written")
        })?;
        Ok(path)
    }
}
