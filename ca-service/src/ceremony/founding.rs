//! The ceremony that founds an authority: keys, hierarchy and first lists, each step as its plan says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ca_api::AuthorityRole;
use ca_pki::certificate::Issuer;
use ca_pki::key::KeyUse;
use ca_pki::{SerialNumber, SubjectPublicKey, ToBeSigned, UnixTime, pem};
use hsm::{Input, IntentId, KeyAlgorithm, KeySpec, KeyUri, Keyring, Purpose, Signer, SigningIntent};
use service::StartRefusal;
use service::clock::Clock;
use sha2::{Digest, Sha256};

use super::description::Make;
use super::plan::Plan;
use super::step::{self, PlannedStep};
use super::{Outcome, io_refusal};
use crate::authority::{
    CertificateAuthority, certificate_algorithm, generate, names, random, role_name, status_urls,
};
use crate::config::Settings;
use crate::error::CaError;
use crate::serve::{Parts, assemble};
use crate::storage::sql_store::SqlStore;
use crate::storage::{CertificateStore, NewIntent, Step, StoredAuthority};
use crate::transcript::Transcript;

/// A finished step, for the steps below it.
struct Made {
    name: &'static str,
    certificate: Vec<u8>,
    issuer: Option<Issuer>,
    signer: Arc<dyn Signer>,
}

/// A founding ceremony while it is held.
pub(super) struct Founding<'a> {
    settings: &'a Settings,
    plan: &'a Plan,
    store: Arc<SqlStore>,
    keys: Keyring,
    made: Vec<Made>,
    now: UnixTime,
}

pub(super) fn role(make: Make) -> AuthorityRole {
    match make {
        Make::Root => AuthorityRole::Root,
        Make::CodeSigningIssuer => AuthorityRole::CodeSigning,
        Make::TimeStampingIssuer => AuthorityRole::TimeStamping,
        Make::OcspResponder => AuthorityRole::OcspResponder,
        Make::TimestampAuthority => AuthorityRole::TimestampAuthority,
        Make::StatementKey | Make::CrossCertificate | Make::RevocationLists => AuthorityRole::Statement,
    }
}

pub(super) fn purposes(make: Make) -> &'static [Purpose] {
    match make {
        Make::Root | Make::CodeSigningIssuer | Make::TimeStampingIssuer => {
            &[Purpose::Certificate, Purpose::Crl]
        }
        Make::OcspResponder => &[Purpose::Ocsp],
        Make::TimestampAuthority => &[Purpose::Timestamp],
        Make::StatementKey => &[Purpose::Statement],
        Make::CrossCertificate | Make::RevocationLists => &[],
    }
}

/// Writes a line of the transcript; without it nothing goes on.
pub(super) fn record(
    transcript: &mut Transcript,
    event: &str,
    detail: serde_json::Value,
    at: UnixTime,
) -> Result<(), CaError> {
    transcript.record(event, detail, at).map_err(|error| {
        tracing::error!(%error, "the transcript cannot be written");
        CaError::Inconsistent("the transcript cannot be written")
    })
}

impl<'a> Founding<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        plan: &'a Plan,
        store: SqlStore,
        keys: Keyring,
        now: UnixTime,
    ) -> Self {
        Self { settings, plan, store: Arc::new(store), keys, made: Vec::new(), now }
    }

    /// Makes every authority of the plan.
    pub(super) async fn hierarchy(&mut self, transcript: &mut Transcript) -> Result<(), CaError> {
        let plan = self.plan;
        for step in &plan.steps {
            if let Some(name) = step.make.authority() {
                self.make(step, name, transcript).await?;
            }
        }
        Ok(())
    }

    fn generate(
        &mut self,
        step: &PlannedStep,
        algorithm: KeyAlgorithm,
        transcript: &mut Transcript,
    ) -> Result<(Arc<dyn Signer>, KeyUri), CaError> {
        let purposes: hsm::PurposeSet = purposes(step.make).iter().copied().collect();
        let place = self.settings.key_uris.get(&step.name);
        // The label of a key elsewhere is what its reference calls it.
        let label = place.and_then(|uri| uri.path_attribute("object")).unwrap_or(&step.name);
        let (signer, uri) = generate(&self.keys, place, &KeySpec::new(label, algorithm, purposes)?)?;
        let detail = serde_json::json!({
            "algorithm": algorithm.as_str(),
            "name": step.name,
            "place": uri.scheme().as_str(),
            "protection": signer.protection().as_str(),
            "purposes": purposes.to_string(),
            "spki_sha256": hex::encode(signer.public_key().spki_sha256()),
        });
        record(transcript, "key.generated", detail, self.now)?;
        Ok((signer, uri))
    }

    async fn make(
        &mut self,
        step: &PlannedStep,
        name: &'static str,
        transcript: &mut Transcript,
    ) -> Result<(), CaError> {
        let algorithm = step::algorithm(step)?;
        let (signer, uri) = self.generate(step, algorithm, transcript)?;
        let Some(kind) = step::kind(step.make) else {
            self.store_authority(step, None, &uri).await?;
            self.made.push(Made { name, certificate: Vec::new(), issuer: None, signer });
            return Ok(());
        };
        let key_use = if kind.is_authority() { KeyUse::Authority } else { KeyUse::Subscriber };
        let public_key = SubjectPublicKey::from_spki(signer.public_key().spki_der(), key_use)?;
        let (issuing, issuer) = match &step.issuer {
            None => (Arc::clone(&signer), None),
            Some(name) => self.issuer(name)?,
        };
        let tbs = self.plan.draft(self.settings, step, issuer, &public_key)?;
        let certificate = self.sign(step, &tbs, &*issuing, issuer, &public_key).await?;
        self.store_authority(step, Some(&certificate), &uri).await?;
        let issuer = if step.shards > 0 {
            let urls = status_urls(&self.settings.config.status_url, name, step.shards)?;
            Some(Issuer::from_certificate(&certificate, certificate_algorithm(algorithm)?, urls)?)
        } else {
            None
        };
        let detail = serde_json::json!({
            "issuer": step.issuer.as_deref().unwrap_or(name),
            "name": name,
            "serial": step.serial,
            "sha256": hex::encode(Sha256::digest(&certificate)),
            "subject": step.subject,
        });
        record(transcript, "certificate.issued", detail, self.now)?;
        self.made.push(Made { name, certificate, issuer, signer });
        Ok(())
    }

    fn issuer(&self, name: &str) -> Result<(Arc<dyn Signer>, Option<&Issuer>), CaError> {
        let made = self.made.iter().find(|made| made.name == name);
        let made = made.ok_or(CaError::Inconsistent("the ceremony's steps are out of order"))?;
        Ok((Arc::clone(&made.signer), made.issuer.as_ref()))
    }

    /// Record → sign → store, as every certificate is signed.
    async fn sign(
        &self,
        step: &PlannedStep,
        tbs: &ToBeSigned,
        signer: &dyn Signer,
        issuer: Option<&Issuer>,
        key: &SubjectPublicKey,
    ) -> Result<Vec<u8>, CaError> {
        let profile = step::profile(self.settings, step)?;
        let serial = SerialNumber::from_hex(step.serial.as_deref().unwrap_or_default())?;
        let not_before = UnixTime(self.plan.not_before);
        let end = issuer.map_or(UnixTime(i64::MAX), |issuer| issuer.not_after);
        let id = random::<16>()?;
        let intent = NewIntent {
            intent: id,
            shard: issuer.map_or(ca_pki::serial::Shard(0), |it| serial.shard(it.status.shards)),
            issuer: step.issuer.clone().unwrap_or_else(|| step.name.clone()),
            profile: profile.name().to_owned(),
            identity: None,
            spki_sha256: key.spki_sha256(),
            requester: "ceremony".to_owned(),
            request_id: None,
            evidence: serde_json::json!({}).into(),
            token: None,
            identity_token: None,
            approved: None,
            renews: None,
            not_before,
            not_after: not_before.plus(profile.lifetime() - 1).min(end),
            step: Step::Certificate,
            tbs: tbs.as_der().to_vec(),
            at: self.now,
            serial,
        };
        let detail = serde_json::json!({
            "intent": hex::encode(id),
            "serial": intent.serial.to_string(),
            "tbs_sha256": hex::encode(tbs.sha256()),
        });
        self.store.record_intent(intent).await?;
        self.store.begin_signing(id, detail.into(), self.now).await?;
        let algorithm = signer.public_key().algorithm().default_signature();
        let signing = SigningIntent::new(Purpose::Certificate, IntentId::new(&id)?);
        let signature = signer.sign(Input::Message(tbs.as_der()), algorithm, &signing)?;
        let certificate = tbs.assemble(signature.as_bytes())?;
        self.store.record_signed(id, signature.into_vec(), self.now).await?;
        self.store.mark_delivered(id, None, self.now).await?;
        Ok(certificate)
    }

    async fn store_authority(
        &self,
        step: &PlannedStep,
        certificate: Option<&[u8]>,
        uri: &KeyUri,
    ) -> Result<(), CaError> {
        let stored = StoredAuthority {
            name: step.name.clone(),
            role: role_name(role(step.make)).to_owned(),
            certificate: certificate.map(<[u8]>::to_vec),
            issuer: step.issuer.clone(),
            key_uri: uri.to_string(),
            shards: step.shards,
        };
        Ok(self.store.add_authority(stored, None, "ceremony", self.now).await?)
    }

    /// Writes the files that relying parties and logs are given.
    pub(super) fn write_chains(&self, transcript: PathBuf) -> Result<Outcome, StartRefusal> {
        let folder = self.settings.data_dir.join("chains");
        let made = |name: &str| self.made.iter().find(|made| made.name == name);
        let write = |file: &str, members: &[&str]| -> Result<PathBuf, StartRefusal> {
            let encoded = members
                .iter()
                .filter_map(|member| pem::encode("CERTIFICATE", &made(member)?.certificate).ok());
            write_file(&folder, file, &encoded.collect::<String>())
        };
        let key = made(names::STATEMENT).map(|made| made.signer.public_key().to_pem());
        let root = made(names::ROOT).map(|made| hex::encode(Sha256::digest(&made.certificate)));
        Ok(Outcome {
            initialized: true,
            data_dir: self.settings.data_dir.clone(),
            root: write("root.pem", &[names::ROOT])?,
            root_sha256: root.unwrap_or_default(),
            code_signing_chain: write("code-signing.pem", &[names::CODE_SIGNING, names::ROOT])?,
            time_stamping_chain: write(
                "time-stamping.pem",
                &[names::TIMESTAMP_AUTHORITY, names::TIME_STAMPING, names::ROOT],
            )?,
            ocsp_responder: write("ocsp-responder.pem", &[names::OCSP_RESPONDER])?,
            statement_public_key: write_file(&folder, "statement.pub.pem", &key.unwrap_or_default())?,
            transcript,
        })
    }

    /// The authority that was made: its first lists are signed by the same code that signs all later ones.
    pub(super) async fn open(self, clock: Arc<dyn Clock>) -> Result<CertificateAuthority, CaError> {
        let parts = Parts {
            store: self.store,
            clock,
            issuance_log: None,
            event_log: None,
            issuers: crate::oidc::Issuers::default(),
            quorum: None,
            mailer: None,
        };
        assemble(self.settings.clone(), parts, &self.keys).await
    }
}

/// Writes a file of `chains/`.
pub(super) fn write_file(folder: &Path, file: &str, text: &str) -> Result<PathBuf, StartRefusal> {
    let path = folder.join(file);
    std::fs::write(&path, text).map_err(|error| io_refusal(&path, error))?;
    Ok(path)
}
