//! `init`: the explicit key ceremony. Makes the keys, the hierarchy and the first CRLs, with a hash-chained transcript.
//!
//! Everything is signed the way `serve` signs: linted, recorded durably, then signed through `hsm` with the record's id.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ca_api::AuthorityRole;
use ca_pki::certificate::{Decided, Form, Issuer, build, build_root};
use ca_pki::key::KeyUse;
use ca_pki::lint::{self, CertificateRules};
use ca_pki::profile::Kind;
use ca_pki::{DistinguishedName, NameFields, SerialNumber, SubjectPublicKey, ToBeSigned, UnixTime, pem};
use hsm::software::{Keystore, KeystoreOptions};
use hsm::{Input, IntentId, KeyAlgorithm, KeySpec, KeyUri, Keyring, Purpose, Signer, SigningIntent};
use serde::Serialize;
use service::StartRefusal;
use service::clock::Clock;
use sha2::{Digest, Sha256};

use crate::authority::{generate, names, random, random_serial, role_name, signature_algorithm, status_urls};
use crate::config::Settings;
use crate::error::CaError;
use crate::serve::{Parts, assemble};
use crate::storage::sqlite::SqliteStore;
use crate::storage::{CertificateStore, NewIntent, Step, StoredAuthority};
use crate::transcript::Transcript;

/// What `init` made; printed as one JSON object.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Always true.
    pub initialised: bool,
    /// The data folder.
    pub data_dir: PathBuf,
    /// PEM file of the root: the trust anchor.
    pub root: PathBuf,
    /// SHA-256 of the root certificate, hexadecimal.
    pub root_sha256: String,
    /// PEM file: CA for code signing, then root.
    pub code_signing_chain: PathBuf,
    /// PEM file: time-stamp authority, CA for time stamps, root.
    pub time_stamping_chain: PathBuf,
    /// PEM file of the OCSP responder's certificate.
    pub ocsp_responder: PathBuf,
    /// PEM file with the public key of revocation statements; the event log must know it.
    pub statement_public_key: PathBuf,
    /// The hash-chained transcript.
    pub transcript: PathBuf,
}

/// What one step of the ceremony makes.
struct Plan<'a> {
    name: &'static str,
    role: AuthorityRole,
    kind: Kind,
    subject: &'a NameFields,
    issuer: Option<&'static str>,
    algorithm: KeyAlgorithm,
    purposes: &'static [Purpose],
    shards: u16,
}

const SIGNS_CERTIFICATES: &[Purpose] = &[Purpose::Certificate, Purpose::Crl];

/// A finished step, for the steps below it.
struct Made {
    name: &'static str,
    certificate: Vec<u8>,
    issuer: Option<Issuer>,
    signer: Arc<dyn Signer>,
}

/// Runs the ceremony. Refuses when anything of an earlier one is there.
///
/// # Errors
/// [`StartRefusal`]; what was made before the failure stays, and a new attempt needs an empty data folder.
pub async fn run(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    keystore: KeystoreOptions,
) -> Result<Outcome, StartRefusal> {
    refuse_leftovers(settings)?;
    let passphrase = settings.passphrase.read().map_err(|error| {
        StartRefusal::new("the keystore's passphrase cannot be read", "correct keys.passphrase")
            .because(error)
    })?;
    let folder = &settings.data_dir;
    std::fs::create_dir_all(folder.join("chains")).map_err(|error| {
        StartRefusal::new(format!("{} cannot be made", folder.display()), "choose a folder you may write")
            .because(error)
    })?;
    let transcript_path = folder.join("ceremony.jsonl");
    let transcript =
        Transcript::create(&transcript_path).map_err(|error| io_refusal(&transcript_path, error))?;
    let store = SqliteStore::create(&settings.database()).await.map_err(|error| {
        StartRefusal::new(
            format!("{} cannot be made", settings.database().display()),
            "check the file system",
        )
        .because(error)
    })?;
    let keys = Keystore::create_with(&settings.keystore, &passphrase, keystore).map_err(|error| {
        StartRefusal::new("the keystore cannot be made", "check keys.keystore").because(error)
    })?;
    let now = UnixTime(clock.unix_seconds());
    let keys = Keyring::new(keys);
    let mut ceremony = Ceremony { settings, store: Arc::new(store), keys, transcript, made: Vec::new(), now };
    ceremony.hierarchy().await.map_err(|error| {
        StartRefusal::new(
            "the ceremony failed",
            "correct the configuration, empty the data folder and start again",
        )
        .because(error)
    })?;
    let outcome = ceremony.write_chains(transcript_path)?;
    ceremony.first_lists(clock).await?;
    Ok(outcome)
}

fn refuse_leftovers(settings: &Settings) -> Result<(), StartRefusal> {
    for path in [settings.database(), settings.keystore.clone(), settings.data_dir.join("ceremony.jsonl")] {
        if path.exists() {
            return Err(StartRefusal::new(
                format!("{} exists: a ceremony was held here", path.display()),
                "start the server with `serve`, or choose another data_dir; nothing is ever overwritten",
            ));
        }
    }
    Ok(())
}

fn io_refusal(path: &Path, error: std::io::Error) -> StartRefusal {
    StartRefusal::new(format!("{} cannot be written", path.display()), "check the file system").because(error)
}

struct Ceremony<'a> {
    settings: &'a Settings,
    store: Arc<SqliteStore>,
    keys: Keyring,
    transcript: Transcript,
    made: Vec<Made>,
    now: UnixTime,
}

impl Ceremony<'_> {
    async fn hierarchy(&mut self) -> Result<(), CaError> {
        let settings = self.settings;
        let hierarchy = &settings.config.hierarchy;
        let plans = [
            Plan {
                name: names::ROOT,
                role: AuthorityRole::Root,
                kind: Kind::Root,
                subject: &hierarchy.root,
                issuer: None,
                algorithm: settings.root_key,
                purposes: SIGNS_CERTIFICATES,
                shards: 1,
            },
            Plan {
                name: names::CODE_SIGNING,
                role: AuthorityRole::CodeSigning,
                kind: Kind::CodeSigningIssuer,
                subject: &hierarchy.code_signing,
                issuer: Some(names::ROOT),
                algorithm: settings.issuer_key,
                purposes: SIGNS_CERTIFICATES,
                shards: settings.shards.get(),
            },
            Plan {
                name: names::TIME_STAMPING,
                role: AuthorityRole::TimeStamping,
                kind: Kind::TimeStampingIssuer,
                subject: &hierarchy.time_stamping,
                issuer: Some(names::ROOT),
                algorithm: settings.issuer_key,
                purposes: SIGNS_CERTIFICATES,
                shards: 1,
            },
            Plan {
                name: names::OCSP_RESPONDER,
                role: AuthorityRole::OcspResponder,
                kind: Kind::OcspResponder,
                subject: &hierarchy.ocsp_responder,
                issuer: Some(names::CODE_SIGNING),
                algorithm: KeyAlgorithm::EcdsaP256,
                purposes: &[Purpose::Ocsp],
                shards: 0,
            },
            Plan {
                name: names::TIMESTAMP_AUTHORITY,
                role: AuthorityRole::TimestampAuthority,
                kind: Kind::TimestampAuthority,
                subject: &hierarchy.timestamp_authority,
                issuer: Some(names::TIME_STAMPING),
                algorithm: KeyAlgorithm::EcdsaP256,
                purposes: &[Purpose::Timestamp],
                shards: 0,
            },
        ];
        for plan in &plans {
            self.make(plan).await?;
        }
        let (signer, uri) =
            self.generate(names::STATEMENT, KeyAlgorithm::EcdsaP256, &[Purpose::Statement])?;
        self.store_authority(names::STATEMENT, AuthorityRole::Statement, None, None, &uri, 0).await?;
        self.made.push(Made { name: names::STATEMENT, certificate: Vec::new(), issuer: None, signer });
        Ok(())
    }

    fn generate(
        &mut self,
        name: &str,
        algorithm: KeyAlgorithm,
        purposes: &[Purpose],
    ) -> Result<(Arc<dyn Signer>, KeyUri), CaError> {
        let purposes: hsm::PurposeSet = purposes.iter().copied().collect();
        let place = self.settings.key_uris.get(name);
        // The label of a key elsewhere is what its reference calls it.
        let label = place.and_then(|uri| uri.path_attribute("object")).unwrap_or(name);
        let (signer, uri) = generate(&self.keys, place, &KeySpec::new(label, algorithm, purposes)?)?;
        let detail = serde_json::json!({
            "algorithm": algorithm.as_str(),
            "name": name,
            "place": uri.scheme().as_str(),
            "protection": signer.protection().as_str(),
            "purposes": purposes.to_string(),
            "spki_sha256": hex::encode(signer.public_key().spki_sha256()),
        });
        self.record("key.generated", detail)?;
        Ok((signer, uri))
    }

    fn record(&mut self, event: &str, detail: serde_json::Value) -> Result<(), CaError> {
        self.transcript.record(event, detail, self.now).map_err(|error| {
            tracing::error!(%error, "the transcript cannot be written");
            CaError::Inconsistent("the transcript cannot be written")
        })
    }

    async fn make(&mut self, plan: &Plan<'_>) -> Result<(), CaError> {
        let (signer, uri) = self.generate(plan.name, plan.algorithm, plan.purposes)?;
        let key_use = if plan.kind.is_authority() { KeyUse::Authority } else { KeyUse::Subscriber };
        let public_key = SubjectPublicKey::from_spki(signer.public_key().spki_der(), key_use)?;
        let subject = DistinguishedName::from_fields(plan.subject)?;
        let serial = random_serial(self.settings.prefix)?;
        let profile = self.settings.infrastructure(plan.kind).map_err(|refusal| {
            tracing::error!(%refusal, "a lifetime is out of range");
            CaError::OutOfRange { field: "hierarchy", reason: "a lifetime is out of its range" }
        })?;
        let request = Decided {
            serial: &serial,
            subject: &subject,
            identity: None,
            public_key: &public_key,
            not_before: self.now,
            identity_issuer: None,
            claims: &[],
        };
        let urls = status_urls(&self.settings.config.status_url, plan.name, plan.shards)?;
        let algorithm = signature_algorithm(&*signer)?;
        let (tbs, issuing, issuer) = match plan.issuer {
            None => (build_root(&profile, algorithm, &request, &urls)?, Arc::clone(&signer), None),
            Some(name) => {
                let (issuer, issuing) = self.issuer(name)?;
                (build(&profile, issuer, &request, Form::Certificate)?, issuing, Some(issuer))
            }
        };
        let rules = CertificateRules { kind: plan.kind, issuer };
        lint::certificate(&tbs.unsigned(), &rules).into_result()?;
        let not_after =
            self.now.plus(profile.lifetime() - 1).min(issuer.map_or(UnixTime(i64::MAX), |it| it.not_after));
        let shard = issuer.map_or(ca_pki::serial::Shard(0), |it| serial.shard(it.status.shards));
        let issuer_name = plan.issuer.unwrap_or(plan.name);
        let intent = NewIntent {
            intent: random::<16>()?,
            serial: serial.clone(),
            issuer: issuer_name.to_owned(),
            profile: profile.name().to_owned(),
            identity: None,
            spki_sha256: public_key.spki_sha256(),
            requester: "ceremony".to_owned(),
            request_id: None,
            evidence: "{}".to_owned(),
            token: None,
            not_before: self.now,
            not_after,
            shard,
            step: Step::Certificate,
            tbs: tbs.as_der().to_vec(),
            at: self.now,
        };
        let certificate = self.sign(intent, &tbs, &*issuing, &serial).await?;
        self.store_authority(plan.name, plan.role, Some(&certificate), plan.issuer, &uri, plan.shards)
            .await?;
        let issuer = if plan.shards > 0 {
            Some(Issuer::from_certificate(&certificate, algorithm, urls)?)
        } else {
            None
        };
        let detail = serde_json::json!({
            "issuer": issuer_name,
            "name": plan.name,
            "serial": serial.to_string(),
            "sha256": hex::encode(Sha256::digest(&certificate)),
            "subject": subject.as_text(),
        });
        self.record("certificate.issued", detail)?;
        self.made.push(Made { name: plan.name, certificate, issuer, signer });
        Ok(())
    }

    fn issuer(&self, name: &str) -> Result<(&Issuer, Arc<dyn Signer>), CaError> {
        let made = self.made.iter().find(|made| made.name == name);
        let made = made.ok_or(CaError::Inconsistent("the ceremony's steps are out of order"))?;
        let issuer =
            made.issuer.as_ref().ok_or(CaError::Inconsistent("the ceremony's steps are out of order"))?;
        Ok((issuer, Arc::clone(&made.signer)))
    }

    /// Record → sign → store, as every certificate is signed.
    async fn sign(
        &self,
        intent: NewIntent,
        tbs: &ToBeSigned,
        signer: &dyn Signer,
        serial: &SerialNumber,
    ) -> Result<Vec<u8>, CaError> {
        let id = intent.intent;
        self.store.record_intent(intent).await?;
        let detail = serde_json::json!({
            "intent": hex::encode(id),
            "serial": serial.to_string(),
            "tbs_sha256": hex::encode(tbs.sha256()),
        });
        self.store.begin_signing(id, detail.to_string(), self.now).await?;
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
        name: &str,
        role: AuthorityRole,
        certificate: Option<&[u8]>,
        issuer: Option<&str>,
        uri: &KeyUri,
        shards: u16,
    ) -> Result<(), CaError> {
        let stored = StoredAuthority {
            name: name.to_owned(),
            role: role_name(role).to_owned(),
            certificate: certificate.map(<[u8]>::to_vec),
            issuer: issuer.map(str::to_owned),
            key_uri: uri.to_string(),
            shards,
        };
        Ok(self.store.add_authority(stored, "ceremony", self.now).await?)
    }

    fn write_chains(&self, transcript: PathBuf) -> Result<Outcome, StartRefusal> {
        let folder = self.settings.data_dir.join("chains");
        let write = |file: &str, members: &[&str]| -> Result<PathBuf, StartRefusal> {
            let path = folder.join(file);
            let mut text = String::new();
            for member in members {
                let made = self.made.iter().find(|made| made.name == *member);
                let encoded = made.map(|made| pem::encode("CERTIFICATE", &made.certificate));
                text.push_str(&encoded.and_then(Result::ok).unwrap_or_default());
            }
            std::fs::write(&path, text).map_err(|error| io_refusal(&path, error))?;
            Ok(path)
        };
        let statement = folder.join("statement.pub.pem");
        let root = self.made.iter().find(|made| made.name == names::ROOT);
        let key = self.made.iter().find(|made| made.name == names::STATEMENT);
        let key = key.map(|made| made.signer.public_key().to_pem()).unwrap_or_default();
        std::fs::write(&statement, key).map_err(|error| io_refusal(&statement, error))?;
        Ok(Outcome {
            initialised: true,
            data_dir: self.settings.data_dir.clone(),
            root: write("root.pem", &[names::ROOT])?,
            root_sha256: root.map(|made| hex::encode(Sha256::digest(&made.certificate))).unwrap_or_default(),
            code_signing_chain: write("code-signing.pem", &[names::CODE_SIGNING, names::ROOT])?,
            time_stamping_chain: write(
                "time-stamping.pem",
                &[names::TIMESTAMP_AUTHORITY, names::TIME_STAMPING, names::ROOT],
            )?,
            ocsp_responder: write("ocsp-responder.pem", &[names::OCSP_RESPONDER])?,
            statement_public_key: statement,
            transcript,
        })
    }

    /// The first list of every issuer and shard, signed by the same code that signs all later ones.
    async fn first_lists(mut self, clock: Arc<dyn Clock>) -> Result<(), StartRefusal> {
        let failed = |error: CaError| {
            StartRefusal::new(
                "the first revocation lists cannot be made",
                "empty the data folder and start again",
            )
            .because(error)
        };
        let parts = Parts { store: self.store.clone(), clock, issuance_log: None, event_log: None };
        let authority = assemble(self.settings.clone(), parts, &self.keys).await.map_err(failed)?;
        let count = authority.publish_due().await.map_err(failed)?;
        self.record("crl.published", serde_json::json!({ "lists": count })).map_err(failed)?;
        self.record("ceremony.finished", serde_json::json!({})).map_err(failed)
    }
}
