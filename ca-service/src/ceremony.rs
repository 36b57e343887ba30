//! Key ceremonies: described by a file, planned in a dry run, approved, held, with a hash-chained transcript.
//!
//! | module | what |
//! |---|---|
//! | [`description`] | the file that people write |
//! | [`plan`] | everything decided beforehand, built and linted; its bytes are what approvers sign |
//! | `step` | one step of a plan, and what follows from what was decided about it |
//! | `founding` | holds the ceremony that makes an authority |
//! | `succession` | makes CAs beside those in use, with what belongs to them |
//! | `further` | cross-certificates and lists |
//! | `order` | which authority a step makes, and where it may stand |
//! | `existing` | the authority that is there, as a plan sees it |
//! | `foreign` | another root, to be cross-certified |
//!
//! Everything is signed the way `serve` signs: linted, recorded durably, then signed through `hsm` with the record's id.

pub mod description;
mod existing;
mod foreign;
mod founding;
mod further;
mod order;
pub mod plan;
mod step;
mod succession;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ca_pki::UnixTime;
use hsm::Keyring;
use hsm::software::{Keystore, KeystoreOptions};
use serde::Serialize;
use service::StartRefusal;
use service::clock::Clock;
use sha2::{Digest, Sha256};

use crate::CertificateAuthority;
use crate::approval::{Approved, Intent, Quorum};
use crate::authority::names;
use crate::config::Settings;
use crate::error::CaError;
use crate::serve;
use crate::storage::sql_store::SqlStore;
use crate::storage::{CertificateStore as _, StoreError, StoredAuthority};
use crate::transcript::Transcript;
use description::Description;
use founding::{Founding, record};
use plan::{Plan, PlanRefusal};

/// Folder of the PEM files that relying parties get.
const CHAINS: &str = "chains";
/// Folder of the transcripts of every ceremony but the first.
pub const TRANSCRIPTS: &str = "ceremonies";

/// What a founding ceremony made; printed as one JSON object.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Always true.
    pub initialized: bool,
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

/// What a held ceremony made; printed as one JSON object.
#[derive(Debug, Clone, Serialize)]
pub struct Held {
    /// What was founded, if it was a founding ceremony.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub founded: Option<Outcome>,
    /// SHA-256 of the plan, hexadecimal.
    pub plan_sha256: String,
    /// Who approved.
    pub approved_by: Vec<String>,
    /// Authorities that were made, or got a new key, beside those in use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<String>,
    /// PEM files of the cross-certificates.
    pub cross_certificates: Vec<PathBuf>,
    /// How many revocation lists were signed.
    pub lists: usize,
    /// The hash-chained transcript.
    pub transcript: PathBuf,
}

/// Who allows a ceremony.
enum Permission {
    /// The configuration names no approvers, and the ceremony founds the authority that could have any.
    Founder,
    /// The root's key is not used.
    NotNeeded,
    /// A quorum approved these bytes.
    Quorum(Approved),
}

/// Holds the founding ceremony that the `[hierarchy]` section describes, in one go. Refuses when anything of an earlier one is
/// there, and when the configuration names approvers: then the ceremony is planned, approved and held.
///
/// # Errors
/// [`StartRefusal`]; what was made before the failure stays, and a new attempt needs an empty data folder.
pub async fn run(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    keystore: KeystoreOptions,
) -> Result<Outcome, StartRefusal> {
    refuse_leftovers(settings).await?;
    if settings.config.approvals.is_some() {
        return Err(StartRefusal::new(
            "[approvals] names approvers, and the root's key is not used without them",
            "run `ca-service ceremony prepare`, have the plan approved, and hold it with `ca-service ceremony hold`",
        ));
    }
    let bytes = prepare(settings, &Description::of_hierarchy(settings), &*clock).await?;
    let held = hold(settings, clock, keystore, &bytes, &[]).await?;
    held.founded.ok_or_else(|| StartRefusal::new("nothing was founded", "report this as a defect"))
}

/// Makes the plan of a ceremony: the dry run. Nothing is written, and no key is used.
///
/// # Errors
/// [`StartRefusal`] naming the step that cannot be meant or whose certificate does not pass the linter.
pub async fn prepare(
    settings: &Settings,
    description: &Description,
    clock: &dyn Clock,
) -> Result<Vec<u8>, StartRefusal> {
    let existing = existing(settings, Schema::AsItIs).await?;
    let now = UnixTime(clock.unix_seconds());
    let plan = Plan::prepare(settings, description, &existing, now).map_err(refused)?;
    plan.to_bytes().map_err(refused)
}

/// Holds a planned ceremony.
///
/// # Errors
/// [`StartRefusal`]: without the quorum, with a plan that is out of date, or when a step fails. What was made before the failure
/// stays; a founding ceremony's new attempt needs an empty data folder.
pub async fn hold(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    keystore: KeystoreOptions,
    bytes: &[u8],
    approvals: &[Vec<u8>],
) -> Result<Held, StartRefusal> {
    let plan = Plan::parse(bytes).map_err(refused)?;
    let existing = existing(settings, Schema::BroughtForward).await?;
    let now = UnixTime(clock.unix_seconds());
    plan.check_current(settings, &existing, now).map_err(refused)?;
    let permission = permission(settings, &plan, bytes, approvals)?;
    if plan.founds() {
        refuse_leftovers(settings).await?;
    }
    for folder in [CHAINS, TRANSCRIPTS] {
        std::fs::create_dir_all(settings.data_dir.join(folder)).map_err(|error| {
            StartRefusal::new(
                format!("{} cannot be made", settings.data_dir.display()),
                "choose a folder you may write",
            )
            .because(error)
        })?;
    }
    let plan_sha256 = hex::encode(Sha256::digest(bytes));
    // Named by the plan: a plan that was held once is refused here.
    let file = if plan.founds() {
        "ceremony.jsonl".to_owned()
    } else {
        format!("{TRANSCRIPTS}/{}.jsonl", plan_sha256.get(..16).unwrap_or_default())
    };
    let path = settings.data_dir.join(file);
    let mut transcript = Transcript::create(&path).map_err(|error| io_refusal(&path, error))?;
    let approved_by = begin(&mut transcript, &plan, &plan_sha256, &permission, now)
        .map_err(|error| step_failed(&plan, error))?;

    let mut authorities = Vec::new();
    let (founded, authority) = if plan.founds() {
        let (outcome, authority) =
            found(settings, clock, keystore, &plan, &mut transcript, path.clone(), now).await?;
        (Some(outcome), authority)
    } else {
        let keys = serve::keyring(settings)?;
        let (authority, made) = extend(settings, clock, &keys, &plan, &mut transcript, now)
            .await
            .map_err(|error| step_failed(&plan, error))?;
        authorities = made;
        (None, authority)
    };
    let further = further::hold(&authority, &plan, &mut transcript, now)
        .await
        .map_err(|error| step_failed(&plan, error))?;
    record(&mut transcript, "ceremony.finished", serde_json::json!({}), now)
        .map_err(|error| step_failed(&plan, error))?;
    Ok(Held {
        founded,
        plan_sha256,
        approved_by,
        authorities,
        cross_certificates: further.cross_certificates,
        lists: further.lists,
        transcript: path,
    })
}

async fn found(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    keystore: KeystoreOptions,
    plan: &Plan,
    transcript: &mut Transcript,
    path: PathBuf,
    now: UnixTime,
) -> Result<(Outcome, CertificateAuthority), StartRefusal> {
    let passphrase = settings.passphrase.read().map_err(|error| {
        StartRefusal::new("the keystore's passphrase cannot be read", "correct keys.passphrase")
            .because(error)
    })?;
    let store = SqlStore::create(&settings.database).await.map_err(|error| {
        StartRefusal::new(
            format!("{} cannot be made", settings.database),
            "check the file system, or the server and the rights of its user",
        )
        .because(error)
    })?;
    let keys = Keystore::create_with(&settings.keystore, &passphrase, keystore).map_err(|error| {
        StartRefusal::new("the keystore cannot be made", "check keys.keystore").because(error)
    })?;
    let mut founding = Founding::new(settings, plan, store, Keyring::new(keys), now);
    founding.hierarchy(transcript).await.map_err(|error| step_failed(plan, error))?;
    let outcome = founding.write_chains(path)?;
    let authority = founding.open(clock).await.map_err(|error| step_failed(plan, error))?;
    Ok((outcome, authority))
}

/// The authority that is there, after the steps that make authorities beside those in use; their names.
async fn extend(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    keys: &Keyring,
    plan: &Plan,
    transcript: &mut Transcript,
    now: UnixTime,
) -> Result<(CertificateAuthority, Vec<String>), CaError> {
    let authority = reopen(settings, Arc::clone(&clock), keys).await?;
    // Lists are signed under a root that fell as well.
    let issuers = plan.steps.iter().filter_map(|step| step.issuer.as_deref());
    for root in issuers.filter(|issuer| names::is_root(issuer)) {
        authority.may_issue(root, now)?;
    }
    let made = succession::hold(&authority, keys, plan, transcript, now).await?;
    if made.is_empty() {
        return Ok((authority, made));
    }
    // The steps that follow are for the new ones too.
    let authority = reopen(settings, clock, keys).await?;
    authority.write_chains()?;
    Ok((authority, made))
}

/// The authority that is there, without its logs: a ceremony does not need them.
async fn reopen(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    keys: &Keyring,
) -> Result<CertificateAuthority, CaError> {
    let parts = serve::Parts {
        store: Arc::new(SqlStore::open(&settings.database).await?),
        clock,
        issuance_log: None,
        event_log: None,
        issuers: crate::oidc::Issuers::default(),
        quorum: None,
        mailer: None,
    };
    serve::assemble(settings.clone(), parts, keys).await
}

/// Decides whether the ceremony may be held. The root's key is never used without a quorum where there is one, and on an authority
/// that is in use there must be one.
fn permission(
    settings: &Settings,
    plan: &Plan,
    bytes: &[u8],
    approvals: &[Vec<u8>],
) -> Result<Permission, StartRefusal> {
    match &settings.config.approvals {
        Some(config) if plan.uses_the_root() || !approvals.is_empty() => {
            let quorum = Quorum::load(config, &settings.data_dir)?;
            let approved = quorum.judge(Intent::Ceremony, bytes, approvals).map_err(|error| {
                StartRefusal::new(
                    "the plan is not approved",
                    "have it approved with `ca-service ceremony approve` by as many as approvals.threshold says",
                )
                .because(error)
            })?;
            Ok(Permission::Quorum(approved))
        }
        None if !approvals.is_empty() => {
            Err(StartRefusal::new("nobody may approve", "name the approvers in [approvals]"))
        }
        None if plan.uses_the_root() && !plan.founds() => Err(StartRefusal::new(
            "the root's key of an authority in use is not used without a quorum",
            "name the approvers in [approvals], and have the plan approved",
        )),
        None if plan.uses_the_root() => Ok(Permission::Founder),
        _ => Ok(Permission::NotNeeded),
    }
}

/// The first lines: which plan, allowed by whom, with the proofs.
fn begin(
    transcript: &mut Transcript,
    plan: &Plan,
    plan_sha256: &str,
    permission: &Permission,
    now: UnixTime,
) -> Result<Vec<String>, CaError> {
    let rule = match permission {
        Permission::Founder => "founder",
        Permission::NotNeeded => "root-not-used",
        Permission::Quorum(_) => "quorum",
    };
    let detail = serde_json::json!({
        "name": plan.name,
        "not_before": plan.not_before,
        "permission": rule,
        "plan_sha256": plan_sha256,
        "steps": plan.steps.len(),
    });
    record(transcript, "ceremony.begun", detail, now)?;
    let Permission::Quorum(approved) = permission else { return Ok(Vec::new()) };
    for one in approved.accepted() {
        let detail = serde_json::json!({
            "approver": one.approver,
            "at": one.at,
            "envelope": one.envelope,
            "spki_sha256": one.spki_sha256,
        });
        record(transcript, "approval.accepted", detail, now)?;
    }
    Ok(approved.accepted().iter().map(|one| one.approver.clone()).collect())
}

/// What becomes of a database of an earlier schema.
enum Schema {
    /// It is refused: a dry run writes nothing.
    AsItIs,
    /// It is brought to the present one.
    BroughtForward,
}

/// The authority's certificates; none before it is founded.
async fn existing(settings: &Settings, schema: Schema) -> Result<Vec<StoredAuthority>, StartRefusal> {
    let database = &settings.database;
    let failed = |error| serve::database_refusal(database, error);
    if !database.exists().await.map_err(failed)? {
        return Ok(Vec::new());
    }
    let opened = match schema {
        Schema::AsItIs => SqlStore::open_to_read(database).await,
        Schema::BroughtForward => SqlStore::open(database).await,
    };
    opened.map_err(failed)?.authorities().await.map_err(failed)
}

async fn refuse_leftovers(settings: &Settings) -> Result<(), StartRefusal> {
    let database = &settings.database;
    let unreadable = |error: StoreError| {
        StartRefusal::new(
            format!("{database} cannot be reached"),
            "check the server and the rights of its user",
        )
        .because(error)
    };
    let mut found = database.exists().await.map_err(unreadable)?.then(|| database.to_string());
    for path in [settings.keystore.clone(), settings.data_dir.join("ceremony.jsonl")] {
        found = found.or(path.exists().then(|| path.display().to_string()));
    }
    match found {
        None => Ok(()),
        Some(found) => Err(StartRefusal::new(
            format!("{found} exists: a ceremony was held here"),
            "start the server with `serve`, or choose another data_dir or schema; nothing is ever overwritten",
        )),
    }
}

fn refused(error: PlanRefusal) -> StartRefusal {
    StartRefusal::new("the ceremony cannot be held", "correct the description and prepare it anew")
        .because(error)
}

fn step_failed(plan: &Plan, error: CaError) -> StartRefusal {
    let remedy = if plan.founds() {
        "correct the configuration, empty the data folder and start again"
    } else {
        "correct what failed, and prepare a new plan: this one is used up"
    };
    StartRefusal::new("the ceremony failed", remedy).because(error)
}

fn io_refusal(path: &Path, error: std::io::Error) -> StartRefusal {
    if error.kind() == std::io::ErrorKind::AlreadyExists {
        return StartRefusal::new(
            format!("{} exists: this ceremony was held", path.display()),
            "prepare a new plan; nothing is ever done twice",
        );
    }
    StartRefusal::new(format!("{} cannot be written", path.display()), "check the file system").because(error)
}
