//! `ca-service ceremony`: prepare (the dry run), approve, hold, verify.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ca_service::approval::{Intent, MAX_APPROVAL, PAYLOAD_TYPE, Statement};
use ca_service::ceremony::description::Description;
use ca_service::ceremony::plan::{MAX_PLAN, Plan, PlannedStep};
use ca_service::mass_revocation::{MAX_ORDER, Order};
use ca_service::{Config, ceremony, occupancy, transcript};
use clap::{Args, Subcommand};
use hsm::developer::{DeveloperKey, MAX_PEM_LEN};
use hsm::{IntentId, PassphraseSource, Purpose, Signer as _, SigningIntent};
use service::SystemClock;
use service::clock::Clock as _;
use service::exit::Failure;
use sha2::{Digest, Sha256};
use trust_store::dsse::Envelope;

use crate::print;

/// The steps of a ceremony.
#[derive(Subcommand)]
pub(crate) enum Ceremony {
    /// Dry run: build and lint everything the description asks for, and write the plan that approvers sign. Uses no key.
    Prepare {
        /// The configuration file (TOML).
        #[arg(long)]
        config: PathBuf,
        /// The description (TOML); without it the founding ceremony of [hierarchy].
        #[arg(long)]
        description: Option<PathBuf>,
        /// Where to write the plan; never overwritten.
        #[arg(long)]
        out: PathBuf,
    },
    /// Show what a plan does, and whose keys it certifies. Read this before approving.
    Show {
        /// The plan.
        #[arg(long)]
        plan: PathBuf,
    },
    /// Approve a plan with one's own key, and show it once more.
    Approve(Approve),
    /// Hold the ceremony exactly as planned. Stop the server first.
    Hold {
        /// The configuration file (TOML).
        #[arg(long)]
        config: PathBuf,
        /// The plan.
        #[arg(long)]
        plan: PathBuf,
        /// An approval of the plan; once for each approver.
        #[arg(long = "approval")]
        approvals: Vec<PathBuf>,
    },
    /// Check the chain of a transcript and show its last hash.
    Verify {
        /// The transcript.
        #[arg(long)]
        transcript: PathBuf,
    },
}

/// `ceremony approve`.
#[derive(Args)]
pub(crate) struct Approve {
    /// The plan.
    #[arg(long)]
    plan: PathBuf,
    /// One's name in [approvals].
    #[arg(long)]
    approver: String,
    /// One's private key (PEM, PKCS#8).
    #[arg(long)]
    key: PathBuf,
    /// Where the passphrase of an encrypted key is read from: file:PATH, env:NAME or credential:NAME.
    #[arg(long)]
    passphrase: Option<PassphraseSource>,
    /// Where to write the approval; never overwritten.
    #[arg(long)]
    out: PathBuf,
}

/// Runs a step.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn run(step: &Ceremony) -> Result<(), Failure> {
    match step {
        Ceremony::Prepare { config, description, out } => prepare(config, description.as_deref(), out).await,
        Ceremony::Show { plan } => show(&read(plan, MAX_PLAN)?, plan),
        Ceremony::Approve(asked) => approve(asked),
        Ceremony::Hold { config, plan, approvals } => hold(config, plan, approvals).await,
        Ceremony::Verify { transcript } => verify(transcript),
    }
}

async fn prepare(config: &Path, description: Option<&Path>, out: &Path) -> Result<(), Failure> {
    let settings = Config::read(config)?.validate()?;
    let description = match description {
        Some(path) => Description::read(path)?,
        None => Description::of_hierarchy(&settings),
    };
    let bytes = ceremony::prepare(&settings, &description, &SystemClock).await?;
    write_new(out, &bytes)?;
    show(&bytes, out)
}

/// What people compare before they approve: one JSON object.
fn show(bytes: &[u8], path: &Path) -> Result<(), Failure> {
    let plan = Plan::parse(bytes).map_err(Failure::failed)?;
    let steps: Vec<_> = plan.steps.iter().map(PlannedStep::summary).collect();
    let time = |seconds| ca_pki::UnixTime(seconds).to_rfc3339();
    print(&serde_json::json!({
        "plan": path,
        "plan_sha256": hex::encode(Sha256::digest(bytes)),
        "name": plan.name,
        "not_before": time(plan.not_before),
        "hold_before": time(plan.hold_before),
        "founds": plan.founds(),
        "uses_the_root": plan.uses_the_root(),
        "authority": plan.state,
        "steps": steps,
    }))
}

fn approve(asked: &Approve) -> Result<(), Failure> {
    let bytes = read(&asked.plan, MAX_PLAN)?;
    Plan::parse(&bytes).map_err(Failure::failed)?;
    sign(asked, Intent::Ceremony, &bytes)?;
    show(&bytes, &asked.plan)
}

/// `approve-revocation`: shows what an order to revoke many does, and approves it.
///
/// # Errors
/// [`Failure`].
pub(crate) fn approve_revocation(asked: &Approve) -> Result<(), Failure> {
    let bytes = read(&asked.plan, MAX_ORDER)?;
    let text = std::str::from_utf8(&bytes).map_err(Failure::failed)?;
    let order = Order::parse(text).map_err(Failure::failed)?;
    sign(asked, Intent::Revocation, &bytes)?;
    print(&serde_json::json!({
        "plan": asked.plan,
        "order_sha256": hex::encode(Sha256::digest(&bytes)),
        "order": order,
    }))
}

/// Signs the approval of these bytes and writes it.
fn sign(asked: &Approve, intent: Intent, bytes: &[u8]) -> Result<(), Failure> {
    let passphrase = asked.passphrase.as_ref().map(PassphraseSource::read).transpose();
    let passphrase = passphrase.map_err(Failure::failed)?;
    let pem = zeroize::Zeroizing::new(read(&asked.key, MAX_PEM_LEN)?);
    let pem = std::str::from_utf8(&pem).map_err(Failure::failed)?;
    let key = DeveloperKey::from_pem(pem, passphrase.as_ref()).map_err(Failure::failed)?;
    let statement = Statement::of(intent, bytes, &asked.approver, SystemClock.unix_seconds());
    let (signed, payload) = statement.to_be_signed().map_err(Failure::failed)?;
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let intent = SigningIntent::new(Purpose::Statement, IntentId::new(&digest).map_err(Failure::failed)?);
    let signature = key.sign_message(&signed, &intent).map_err(Failure::failed)?;
    let envelope = Envelope::new(PAYLOAD_TYPE, payload, signature.into_vec());
    write_new(&asked.out, &serde_json::to_vec(&envelope).map_err(Failure::failed)?)
}

async fn hold(config: &Path, plan: &Path, approvals: &[PathBuf]) -> Result<(), Failure> {
    let mut settings = Config::read(config)?.validate()?;
    let _occupied = occupancy::occupy(&mut settings).await?;
    let bytes = read(plan, MAX_PLAN)?;
    let approvals =
        approvals.iter().map(|path| read(path, MAX_APPROVAL)).collect::<Result<Vec<_>, Failure>>()?;
    let options = hsm::software::KeystoreOptions::default();
    print(&ceremony::hold(&settings, Arc::new(SystemClock), options, &bytes, &approvals).await?)
}

fn verify(path: &Path) -> Result<(), Failure> {
    let lines = transcript::verify(path).map_err(Failure::failed)?;
    let finished = lines.last().is_some_and(|line| line.event == "ceremony.finished");
    print(&serde_json::json!({
        "transcript": path,
        "lines": lines.len(),
        "finished": finished,
        "last_hash": lines.last().map(|line| line.hash.clone()),
    }))
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > limit {
        return Err(Failure::failed(format!("{} is larger than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write as _;
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
}
