//! `trust init-repository`, `publish`, `refresh`, and the repository's part of `rotate`: the trusted root as static TUF files that any web server can
//! hand out. Keys are in a keystore of their own, one for each role.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use hsm::software::Keystore;
use hsm::{
    Input, KeyAlgorithm, KeyLabel, KeyProvider as _, KeySpec, PassphraseSource, Purpose, SignatureAlgorithm,
    SigningIntent,
};
use serde_json::json;
use trust_store::UnixTime;
use trust_store_files::tuf::{
    Lifetimes, Publisher, Role, RoleSigner, SIGNING_CONFIG, Signers, SigningFailed, State, TRUSTED_ROOT,
};

use crate::clock;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, read_file};
use crate::output::{Output, shown};

/// Where a repository and its keys are.
#[derive(Debug, Args)]
pub struct RepositoryFlags {
    /// Folder of the repository
    #[arg(long, value_name = "DIR")]
    repository: PathBuf,
    /// Folder of the keystore with its keys
    #[arg(long, value_name = "DIR")]
    keystore: PathBuf,
    /// Where the keystore's passphrase is: file:PATH, env:NAME or credential:NAME
    #[arg(long, value_name = "SOURCE")]
    passphrase: PassphraseSource,
}

/// What is distributed.
#[derive(Debug, Args)]
pub struct TargetFlags {
    /// trusted_root.json [default: of the stack, else ~/.mentat/trusted_root.json]
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// signing_config.json [default: beside the trusted root, if there is one]
    #[arg(long, value_name = "FILE")]
    signing_config: Option<PathBuf>,
}

/// `trust init-repository`.
#[derive(Debug, Args)]
pub struct Init {
    #[command(flatten)]
    repository: RepositoryFlags,
    #[command(flatten)]
    targets: TargetFlags,
}

/// `trust publish`.
#[derive(Debug, Args)]
pub struct Publish {
    #[command(flatten)]
    repository: RepositoryFlags,
    #[command(flatten)]
    targets: TargetFlags,
}

/// `trust refresh`.
#[derive(Debug, Args)]
pub struct Refresh {
    #[command(flatten)]
    repository: RepositoryFlags,
}

/// Runs `trust init-repository`.
///
/// # Errors
/// Exit code 1 when there is a repository or keystore already; 2 when a file cannot be read.
pub fn init(init: &Init, home: &Home, out: &Output) -> Outcome {
    let targets = init.targets.read(home)?;
    let flags = &init.repository;
    let passphrase = flags.passphrase.read().or_fail(Exit::Usage, "the passphrase")?;
    let keys =
        Keystore::create(&flags.keystore, &passphrase).or_fail(Exit::Failure, flags.keystore.display())?;
    let publisher = create(&flags.repository, &keys, &targets, clock::now())?;
    report(&flags.repository, publisher.state(), "made", out);
    out.line(format!("relying parties pin {}", flags.repository.join("1.root.json").display()));
    Ok(Exit::Ok)
}

/// Makes a repository with new keys in `keys`.
///
/// # Errors
/// Exit code 1 when there is one already or a key cannot be made.
pub fn create(
    folder: &Path,
    keys: &Keystore,
    targets: &[(&'static str, Vec<u8>)],
    now: UnixTime,
) -> Outcome<Publisher> {
    let mut signers = Vec::new();
    for role in Role::ALL {
        signers.push(generate(keys, role, 1)?);
    }
    let of = |role: Role| {
        let position = Role::ALL.iter().position(|known| *known == role).unwrap_or_default();
        #[allow(clippy::indexing_slicing, reason = "one signer was made for each role, in this order")]
        Arc::clone(&signers[position])
    };
    let targets: Vec<_> = targets.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    Publisher::create(folder, &Signers::one_each(of), Lifetimes::default(), &targets, now)
        .map_err(|error| super::distribution_failure(&error))
}

/// Runs `trust publish`.
///
/// # Errors
/// Exit code 1 when the keys are not the repository's; 2 when a file cannot be read.
pub fn publish(publish: &Publish, home: &Home, out: &Output) -> Outcome {
    let targets = publish.targets.read(home)?;
    let (mut publisher, keys) = publish.repository.open()?;
    let targets: Vec<_> = targets.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    publish_with(&mut publisher, &keys, &targets, clock::now())?;
    report(&publish.repository.repository, publisher.state(), "published", out);
    Ok(Exit::Ok)
}

/// Publishes targets in a repository with its keys at hand.
///
/// # Errors
/// As [`publish`].
pub fn publish_targets(
    folder: &Path,
    keys: &Keystore,
    targets: &[(&str, &[u8])],
    now: UnixTime,
) -> Outcome<()> {
    let mut publisher =
        Publisher::open(folder, Lifetimes::default()).map_err(|error| super::distribution_failure(&error))?;
    publish_with(&mut publisher, keys, targets, now)
}

fn publish_with(
    publisher: &mut Publisher,
    keys: &Keystore,
    targets: &[(&str, &[u8])],
    now: UnixTime,
) -> Outcome<()> {
    let signers = present(publisher, keys)?;
    publisher.publish(targets, &signers, now).map_err(|error| super::distribution_failure(&error))
}

/// Runs `trust refresh`.
///
/// # Errors
/// Exit code 1 when the keys are not the repository's, or the root has expired.
pub fn refresh(refresh: &Refresh, out: &Output) -> Outcome {
    let (mut publisher, keys) = refresh.repository.open()?;
    let signers = present(&publisher, &keys)?;
    publisher.refresh(&signers, clock::now()).map_err(|error| super::distribution_failure(&error))?;
    report(&refresh.repository.repository, publisher.state(), "refreshed", out);
    Ok(Exit::Ok)
}

/// Gives these roles of a repository new keys, or without any renews its root with the same keys.
///
/// # Errors
/// Exit code 1 when the keys are not the repository's, or a key cannot be made.
pub fn rotate(folder: &Path, keys: &Keystore, roles: &[Role], out: &Output) -> Outcome<()> {
    let mut publisher =
        Publisher::open(folder, Lifetimes::default()).map_err(|error| super::distribution_failure(&error))?;
    let now = present(&publisher, keys)?;
    let version = publisher.state().versions.get(&Role::Root).copied().unwrap_or_default() + 1;
    let mut next = now.clone();
    for role in Role::ALL.into_iter().filter(|role| roles.contains(role)) {
        next = next.with(role, vec![generate(keys, role, version)?], std::num::NonZeroUsize::MIN);
    }
    publisher.rotate(&now, &next, clock::now()).map_err(|error| super::distribution_failure(&error))?;
    report(folder, publisher.state(), "rotated", out);
    Ok(())
}

/// Signs a new timestamp if less than half of the life of the present one is left.
///
/// # Errors
/// As [`refresh`].
pub fn keep_fresh(folder: &Path, keys: &Keystore, now: UnixTime) -> Outcome<()> {
    let lifetimes = Lifetimes::default();
    let mut publisher =
        Publisher::open(folder, lifetimes).map_err(|error| super::distribution_failure(&error))?;
    let end = publisher.state().expires.get(&Role::Timestamp).map_or(0, |end| end.0);
    if end.saturating_sub(now.0) < lifetimes.timestamp / 2 {
        let signers = present(&publisher, keys)?;
        publisher.refresh(&signers, now).map_err(|error| super::distribution_failure(&error))?;
    }
    Ok(())
}

/// Opens a repository's keystore.
///
/// # Errors
/// Exit code 2 when passphrase or keystore cannot be used.
pub fn open_keys(keystore: &Path, passphrase: &PassphraseSource) -> Outcome<Keystore> {
    let passphrase = passphrase.read().or_fail(Exit::Usage, "the passphrase")?;
    Keystore::open(keystore, &passphrase).or_fail(Exit::Usage, keystore.display())
}

impl RepositoryFlags {
    fn open(&self) -> Outcome<(Publisher, Keystore)> {
        let keys = open_keys(&self.keystore, &self.passphrase)?;
        let publisher = Publisher::open(&self.repository, Lifetimes::default())
            .map_err(|error| super::distribution_failure(&error))?;
        Ok((publisher, keys))
    }
}

impl TargetFlags {
    /// The files, checked to be what they are called: a repository hands out nothing that no client can read.
    fn read(&self, home: &Home) -> Outcome<Vec<(&'static str, Vec<u8>)>> {
        let root_path = home.trusted_root(self.trusted_root.as_deref())?;
        let bytes = read_file(&root_path)?;
        trust_store::trusted_root::TrustedRoot::parse(&bytes).or_fail(Exit::Usage, root_path.display())?;
        let mut targets = vec![(TRUSTED_ROOT, bytes)];
        let beside = root_path.with_file_name("signing_config.json");
        let config = self.signing_config.clone().or_else(|| beside.is_file().then_some(beside));
        if let Some(path) = config {
            let bytes = read_file(&path)?;
            trust_store::signing_config::SigningConfig::parse(&bytes).or_fail(Exit::Usage, path.display())?;
            targets.push((SIGNING_CONFIG, bytes));
        }
        Ok(targets)
    }
}

/// A key of a keystore, lent to the metadata.
struct RoleKey {
    signer: Arc<dyn hsm::Signer>,
    public: [u8; 32],
}

impl RoleSigner for RoleKey {
    fn public_key(&self) -> [u8; 32] {
        self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed> {
        let failed = |error: hsm::Error| SigningFailed(error.to_string());
        let intent = SigningIntent::fresh(Purpose::TrustMetadata).map_err(failed)?;
        self.signer
            .sign(Input::Message(message), SignatureAlgorithm::Ed25519, &intent)
            .map(hsm::Signature::into_vec)
            .map_err(failed)
    }
}

fn lend(signer: Arc<dyn hsm::Signer>) -> Outcome<Arc<dyn RoleSigner>> {
    let public = <[u8; 32]>::try_from(signer.public_key().raw())
        .map_err(|_| Failure::failed("a key of the repository is not of type Ed25519"))?;
    Ok(Arc::new(RoleKey { signer, public }))
}

/// Makes the key of a role for a version of the root; one that an interrupted run made is used.
fn generate(keys: &Keystore, role: Role, root_version: u64) -> Outcome<Arc<dyn RoleSigner>> {
    let label = format!("tuf-{role}-{root_version}");
    let known = KeyLabel::new(&label).and_then(|label| keys.open_label(&label));
    if let Ok(signer) = known {
        return lend(signer);
    }
    let spec = KeySpec::new(&label, KeyAlgorithm::Ed25519, Purpose::TrustMetadata)
        .or_fail(Exit::Failure, format!("the {role} key"))?;
    lend(keys.generate(&spec).or_fail(Exit::Failure, format!("making the {role} key"))?)
}

/// The keys that the present root names, as far as the keystore holds them.
fn present(publisher: &Publisher, keys: &Keystore) -> Outcome<Signers> {
    let listed = keys.list().or_fail(Exit::Failure, "listing the keys")?;
    let mut found = Vec::new();
    for role in Role::ALL {
        let wanted = publisher.keys(role);
        let mut signers = Vec::new();
        for info in listed.iter().filter(|info| wanted.iter().any(|key| info.public_key.raw() == key)) {
            signers.push(lend(keys.open(&info.uri).or_fail(Exit::Failure, &info.label)?)?);
        }
        if signers.is_empty() {
            return Err(Failure::failed(format!("the keystore holds no {role} key of this repository"))
                .code("tuf_signature")
                .hint("name the keystore that `trust init-repository` or the last `trust rotate` wrote to"));
        }
        found.push((role, signers));
    }
    let first =
        |role: Role| found.iter().find(|(known, _)| *known == role).and_then(|(_, keys)| keys.first());
    let nobody = || Failure::failed("the repository names no keys");
    let any = Arc::clone(first(Role::Root).ok_or_else(nobody)?);
    let mut signers = Signers::one_each(|role| Arc::clone(first(role).unwrap_or(&any)));
    for (role, keys) in found {
        signers = signers.with(role, keys, publisher.threshold(role));
    }
    Ok(signers)
}

fn report(folder: &Path, state: &State, done: &str, out: &Output) {
    let end = state.expires.values().min().map_or_else(String::new, |end| end.to_rfc3339());
    let version = |role: Role| state.versions.get(&role).copied().unwrap_or_default();
    out.line(format!(
        "{done} {}: root {}, targets {}, snapshot {}, timestamp {}; valid until {end}",
        folder.display(),
        version(Role::Root),
        version(Role::Targets),
        version(Role::Snapshot),
        version(Role::Timestamp),
    ));
    out.value(|| {
        json!({
            "ok": true, "repository": shown(folder), "expires": end, "targets": state.targets,
            "versions": state.versions.iter().map(|(role, version)| (role.as_str(), *version))
                .collect::<std::collections::BTreeMap<_, _>>(),
        })
    });
}
