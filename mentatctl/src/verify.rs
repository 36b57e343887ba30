//! `verify`: the executor's own decision, offline, by the same code.

mod ocsp;
pub mod refresh;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use reqwest::Client;
use serde_json::{Value, json};
use trust_store::attestation::Attestation;
use trust_store::capability_rules::Permitted;
use trust_store::evidence::Evidence;
use trust_store::policy::TrustPolicy;
use trust_store::provider::AwsLc;
use trust_store::trusted_root::TrustedRoot;
use trust_store::verifier::{ArtifactDigest, VerifiedArtifact, Verifier};
use trust_store::{Denial, UnixTime};

use crate::clock;
use crate::exit::{Exit, Failure, OrFail as _, Outcome, one_line};
use crate::home::{Home, Secrecy, make_folder, read_file, write_file};
use crate::net::{TlsFlags, block_on};
use crate::output::{Output, Tone, shown};
use crate::pki::{parse_time, time_text};
use crate::release::{Release, Use};
use crate::trust::root_in_force;

/// Heads of logs that were accepted before, below the home folder.
const MEMORY_FILE: &str = "remembered.json";

/// `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// Folders with a signed manifest.yaml, or manifests
    #[arg(required = true, value_name = "DIR|MANIFEST")]
    releases: Vec<PathBuf>,
    #[command(flatten)]
    flags: VerifyFlags,
}

/// What a verification stands on.
#[derive(Debug, Args)]
pub struct VerifyFlags {
    /// trusted_root.json [default: of the stack, else ~/.mentat/trusted_root.json]
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// Trust policy [default: of the stack, else ~/.mentat/policy.yaml]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// File with CRLs, OCSP answers and checkpoints
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
    /// Public key of whoever signs the evidence file, PEM; may be repeated. A file that is not signed is refused then
    #[arg(long = "evidence-signer", value_name = "FILE", requires = "evidence")]
    evidence_signers: Vec<PathBuf>,
    /// Fetch fresh CRLs, OCSP answers and a fresh checkpoint first, and prove that the log only grew since the last
    /// time; without it nothing leaves this machine. An authority that does not answer is no evidence and is named: what
    /// the release brings along decides then, within the policy's ages
    #[arg(long)]
    refresh: bool,
    /// Decide as of this time, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Base URL of the signing log, for --refresh
    #[arg(long, value_name = "URL")]
    log_url: Option<String>,
    #[command(flatten)]
    tls: TlsFlags,
}

impl VerifyFlags {
    /// The HTTP client with the TLS settings of the flags.
    ///
    /// # Errors
    /// Exit code 2 when a file cannot be used.
    pub fn client(&self, home: &Home) -> Outcome<Client> {
        self.tls.client(home)
    }

    /// The policy that the flags name.
    ///
    /// # Errors
    /// Exit code 2 when it cannot be used.
    pub fn policy(&self, home: &Home) -> Outcome<TrustPolicy> {
        load_policy(&home.policy(self.policy.as_deref())?)
    }
}

/// A policy file, with what its capability rules are judged by.
///
/// # Errors
/// Exit code 2 when it cannot be used.
pub fn load_policy(path: &Path) -> Outcome<TrustPolicy> {
    let policy = trust_store_files::load_policy(path).or_fail(Exit::Usage, "the trust policy")?;
    capability_rules::complete(policy).or_fail(Exit::Usage, path.display())
}

/// What was decided of an admitted release.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Name of the signer.
    pub signer: String,
    /// Who vouched for it.
    pub issuer: Option<String>,
    /// Trust level.
    pub level: &'static str,
    /// When it was signed.
    pub signed_at: Option<UnixTime>,
    /// Where its entry stands in the log.
    pub log_index: Option<u64>,
    /// Canonical texts of the capabilities it asks for.
    pub requested: Vec<String>,
    /// Which rules of the policy's `capability_rules` permit which of them; empty where it has none.
    pub permitted: Vec<Permitted>,
    /// What was asked for fresh evidence and gave none; other evidence sufficed.
    pub unanswered: Vec<String>,
}

/// Runs `verify`. Every release is reported; the exit code is 0, or that of the worst.
///
/// # Errors
/// None beyond what is reported.
pub fn run(verify: &Verify, home: &Home, out: &Output) -> Outcome {
    let mut worst = Exit::Ok;
    for path in &verify.releases {
        match verify_path(path, &verify.flags, home) {
            Ok((release, verdict)) => report(&release, &verdict, out),
            Err(failure) => {
                if worst != Exit::Denied {
                    worst = failure.exit;
                }
                refuse(&failure.about(path), out);
            }
        }
    }
    Ok(worst)
}

/// Verifies one release.
///
/// # Errors
/// Exit code 3 with the reason code when it is denied.
pub fn verify_release(
    release: &Release,
    module: &[u8],
    flags: &VerifyFlags,
    home: &Home,
) -> Outcome<Verdict> {
    let mut basis = Basis::of(release, flags, home)?;
    let policy = flags.policy(home)?;
    let memory_path = home.dir().join(MEMORY_FILE);
    let (artifact, unanswered) = basis.decide(module, &policy)?;
    // A decision about another time must not move what is remembered of the present.
    if flags.refresh && flags.at.is_none() {
        remember(&memory_path, &artifact)?;
    }
    Ok(Verdict {
        // A stranger wrote it; on a terminal it must stay one word of ours.
        signer: one_line(artifact.identity().subject()),
        issuer: artifact.issuer().map(str::to_owned),
        level: artifact.trust_level().as_str(),
        signed_at: artifact.signing_time(),
        log_index: artifact.log_index(),
        requested: artifact.requested_capabilities().iter().map(ToString::to_string).collect(),
        permitted: artifact.permitted_by_rules().to_vec(),
        unanswered,
    })
}

/// Everything but the policy that a decision about one release stands on.
pub struct Basis {
    attestation: Attestation,
    evidence: Evidence,
    root: TrustedRoot,
    verifier: Verifier,
    now: UnixTime,
    /// Whom to ask for fresh evidence: by which client, and the log's address.
    fresh: Option<(Client, String)>,
}

impl Basis {
    /// Reads what the flags name.
    ///
    /// # Errors
    /// Files that cannot be used.
    pub fn of(release: &Release, flags: &VerifyFlags, home: &Home) -> Outcome<Self> {
        let now = match &flags.at {
            Some(text) => parse_time(text)?,
            None => clock::now(),
        };
        let root = root_in_force(&home.trusted_root(flags.trusted_root.as_deref())?, now)?;
        let attestation = release.attestation()?;
        let mut evidence = match &flags.evidence {
            Some(path) => crate::trust::evidence::load(path, &flags.evidence_signers, now)?,
            None => Evidence::none(),
        };
        let verifier = Verifier::new(Arc::new(AwsLc), &root).map_err(denied)?;
        let mut fresh = None;
        if flags.refresh {
            // What was accepted before counts where it can be tied to what is served now; without the log nothing could
            // show that two sizes belong to one history, and nothing new is believed either.
            recall(&load_memory(&home.dir().join(MEMORY_FILE))?, &attestation, &mut evidence);
            fresh = Some((flags.tls.client(home)?, home.log_url(flags.log_url.as_deref())?));
        }
        Ok(Self { attestation, evidence, root, verifier, now, fresh })
    }

    /// The decision by this policy, with `--refresh` after fresh evidence was asked for, and what did not answer.
    ///
    /// # Errors
    /// Exit code 3 with the reason code of the denial; 69 when the log cannot be asked.
    pub fn decide(
        &mut self,
        module: &[u8],
        policy: &TrustPolicy,
    ) -> Outcome<(VerifiedArtifact, Vec<String>)> {
        let Self { attestation, evidence, root, verifier, now, fresh } = self;
        let question = refresh::Question {
            verifier,
            attestation,
            digest: ArtifactDigest::of(module),
            policy,
            now: *now,
        };
        match fresh {
            Some((http, log_url)) => block_on(question.decide_afresh(evidence, root, http.clone(), log_url)),
            None => Ok((question.decide_by(evidence).map_err(denied)?, Vec::new())),
        }
    }

    /// As [`Self::decide`], for whom a denial is an answer like another.
    ///
    /// # Errors
    /// Exit code 69 when the log cannot be asked.
    pub fn judge(
        &mut self,
        module: &[u8],
        policy: &TrustPolicy,
    ) -> Outcome<Result<VerifiedArtifact, Denial>> {
        if self.fresh.is_some()
            && let Err(failure) = self.decide(module, policy)
            && failure.exit != Exit::Denied
        {
            return Err(failure);
        }
        let Self { attestation, evidence, verifier, now, .. } = self;
        let question = refresh::Question {
            verifier,
            attestation,
            digest: ArtifactDigest::of(module),
            policy,
            now: *now,
        };
        Ok(question.decide_by(evidence))
    }
}

/// The failure of a denial: exit code 3, the reason code, and where to look it up.
pub fn denied(denial: Denial) -> Failure {
    Failure::new(Exit::Denied, format!("denied at step {}: {}", denial.code.step(), denial.detail))
        .code(denial.code.as_str())
        .hint("docs/operations/denials.md says what to do about each code")
}

fn verify_path(path: &Path, flags: &VerifyFlags, home: &Home) -> Outcome<(Release, Verdict)> {
    let release = Release::open(path, Use::Verify)?;
    let module = release.module()?;
    let verdict = verify_release(&release, &module, flags, home)?;
    Ok((release, verdict))
}

/// A refusal; for scripts with the members that every verdict has.
fn refuse(failure: &Failure, out: &Output) {
    if !out.is_json() {
        return out.failure(failure);
    }
    let mut answer = Output::failure_value(failure);
    if let Some(members) = answer.as_object_mut() {
        members.insert("valid".to_owned(), json!(false));
        members.insert("reason".to_owned(), json!(failure.code));
        members.insert("signer".to_owned(), Value::Null);
        members.insert("timestamp".to_owned(), Value::Null);
    }
    out.value(|| answer);
}

fn report(release: &Release, verdict: &Verdict, out: &Output) {
    out.line(format!(
        "{} {} {} signed by {} at level {}",
        out.paint(Tone::Good, "verified"),
        release.manifest().id(),
        release.manifest().version(),
        verdict.signer,
        verdict.level,
    ));
    if let (Some(time), Some(index)) = (verdict.signed_at, verdict.log_index) {
        out.line(format!("  signed {} and recorded at log index {index}", time_text(time.0)));
    }
    let asks = if verdict.requested.is_empty() { "nothing".to_owned() } else { verdict.requested.join(", ") };
    out.line(format!("  asks for {asks}"));
    for Permitted { capability, rules } in &verdict.permitted {
        out.line(format!("  {capability} is permitted by {}", named(rules)));
    }
    for silent in &verdict.unanswered {
        out.note(format!("no fresh evidence: {silent}"));
    }
    out.value(|| {
        json!({
            "ok": true, "valid": true, "reason": null, "manifest": shown(release.path()),
            "agent": release.manifest().id().as_str(), "version": release.manifest().version().as_str(),
            "signer": { "subject": verdict.signer, "issuer": verdict.issuer }, "trust_level": verdict.level,
            "timestamp": verdict.signed_at.map(|time| time_text(time.0)), "log_index": verdict.log_index,
            "requested": verdict.requested, "unanswered": verdict.unanswered,
            "permitted": verdict.permitted.iter().map(|Permitted { capability, rules }| {
                json!({ "capability": capability.to_string(), "rules": rules })
            }).collect::<Vec<_>>(),
        })
    });
}

/// Names of rules, in a line.
pub fn named(rules: &[String]) -> String {
    one_line(&format!("`{}`", rules.join("`, `")))
}

/// Adds the heads that were accepted before of the logs that the attestation names.
fn recall(memory: &Evidence, attestation: &Attestation, evidence: &mut Evidence) {
    for entry in attestation.bundles().flat_map(|bundle| &bundle.log_entries) {
        let Some(proof) = &entry.inclusion_proof else { continue };
        // The first line of a checkpoint is its origin; what is not one is remembered under no name.
        let origin = proof.checkpoint.lines().next().unwrap_or_default();
        if let Some(head) = memory.remembered_head(origin, &entry.log_id) {
            evidence.remember(origin, &entry.log_id, &head);
        }
    }
}

fn load_memory(path: &Path) -> Outcome<Evidence> {
    if !path.exists() {
        return Ok(Evidence::none());
    }
    Evidence::parse(&read_file(path)?).or_fail(
        Exit::Usage,
        format!(
            "{} (the log heads accepted before; move it away only if you know why it is damaged)",
            path.display()
        ),
    )
}

/// Remembers the heads that were seen, so that a log that goes back is noticed the next time.
fn remember(path: &Path, artifact: &VerifiedArtifact) -> Outcome<()> {
    if let Some(folder) = path.parent() {
        make_folder(folder, Secrecy::Secret)?;
    }
    // Two runs at a time must not forget what one of them saw.
    let lock_path = path.with_extension("lock");
    let lock = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
    let lock = lock.or_fail(Exit::Failure, format!("cannot write {}", lock_path.display()))?;
    lock.lock().or_fail(Exit::Failure, format!("waiting for {}", lock_path.display()))?;
    let mut memory = load_memory(path)?;
    let mut moved = false;
    for entry in artifact.log_entries() {
        for head in entry.observed_heads() {
            let known = memory.remembered_head(entry.origin(), entry.log_id());
            moved |= known.is_none_or(|known| known.size < head.size);
            memory.remember(entry.origin(), entry.log_id(), head);
        }
    }
    if moved {
        let bytes = memory.to_json().or_fail(Exit::Failure, "writing the remembered log heads")?;
        write_file(path, &bytes, Secrecy::Public)?;
    }
    Ok(())
}
