//! Backups of a CA, also of one that serves, and restoring one into an empty folder.
//!
//! A backup is a folder: the database as of one moment, the keystore (its files are encrypted; the passphrase is never
//! among them), the public files, and `backup.json`, written last, with the SHA-256 of each file and the newest audit
//! record.
//!
//! What happened after a backup is unknown to it. So a restored CA takes for granted that everything that was possible
//! then was done: issuances that were open may have been signed (`maybe-issued`: never signed again, and revocable), unused
//! tokens are void, and CRL numbers go on far above any that can have been published. Serial numbers are 136 random bits
//! and cannot come again.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use ca_pki::UnixTime;
use serde::{Deserialize, Serialize};
use service::StartRefusal;
use sha2::{Digest, Sha256};

use crate::config::Settings;
use crate::storage::CertificateStore as _;
use crate::storage::backup::{AuditHead, Restored, copy_database, enter_restored, prove_database};
use crate::storage::sql_store::SqlStore;

/// Name of the inventory.
const INVENTORY: &str = "backup.json";
/// Number of the format below.
const FORMAT: u32 = 1;
/// Largest inventory that is read, in bytes.
const MAX_INVENTORY: u64 = 1 << 20;
const DATABASE: &str = "ca.sqlite";
const KEYSTORE: &str = "keys";
/// What else belongs to a CA, as it lies in `data_dir`.
const PUBLIC: [&str; 3] = ["ceremony.jsonl", crate::ceremony::TRANSCRIPTS, "chains"];

/// What a backup holds; the content of `backup.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// Number of this format.
    pub format: u32,
    /// When it was made, seconds since 1970.
    pub made_at: i64,
    /// The newest audit record.
    pub audit: AuditHead,
    /// SHA-256 of each file, by its path in the backup.
    pub files: BTreeMap<String, String>,
}

/// Makes a backup in a new folder.
///
/// # Errors
/// [`StartRefusal`] saying what cannot be read or written; an unfinished backup has no `backup.json`.
pub fn create(settings: &Settings, out: &Path, now: UnixTime) -> Result<Inventory, StartRefusal> {
    let failed = |path: &Path, error: io::Error| {
        StartRefusal::new(
            format!("{} cannot be backed up", path.display()),
            "name a new folder on a disk with room, and run it as the user of the server",
        )
        .because(error)
    };
    let source = file_of(settings)?;
    DirBuilder::new().mode(0o700).create(out).map_err(|error| failed(out, error))?;
    let mut files = BTreeMap::new();
    // The database first: every key that it names is in the keystore by then.
    let database = out.join(DATABASE);
    copy_database(source, &database).map_err(unusable)?;
    sync(&database).map_err(|error| failed(&database, error))?;
    files.insert(DATABASE.to_owned(), digest(&database).map_err(|error| failed(&database, error))?);
    let mut sources = vec![(settings.keystore.clone(), PathBuf::from(KEYSTORE))];
    sources.extend(PUBLIC.map(|name| (settings.data_dir.join(name), PathBuf::from(name))));
    // Only an authority that held further ceremonies, or was founded since they exist, has their folder.
    let there = |(source, name): &(PathBuf, PathBuf)| {
        source.exists() || name != Path::new(crate::ceremony::TRANSCRIPTS)
    };
    for (source, name) in sources.into_iter().filter(there) {
        copy_below(&source, out, &name, &mut files).map_err(|error| failed(&source, error))?;
    }
    let audit = prove_database(&database).map_err(unusable)?;
    let inventory = Inventory { format: FORMAT, made_at: now.0, audit, files };
    let text = serde_json::to_vec_pretty(&inventory).map_err(|error| failed(out, error.into()))?;
    write_new(&out.join(INVENTORY), &text).map_err(|error| failed(out, error))?;
    sync(out).map_err(|error| failed(out, error))?;
    Ok(inventory)
}

/// Restores a backup where there is no CA. The database comes last, so that an interrupted restore leaves nothing that
/// could be served.
///
/// # Errors
/// [`StartRefusal`] when there is a CA already, when the backup is unfinished or altered, or when files fail.
pub fn restore(settings: &Settings, from: &Path, now: UnixTime) -> Result<Restored, StartRefusal> {
    let database = file_of(settings)?;
    for path in [database, settings.keystore.as_path()] {
        if path.exists() {
            return Err(StartRefusal::new(
                format!("{} exists", path.display()),
                "restore into an empty data_dir; nothing is ever overwritten",
            ));
        }
    }
    let altered = |what: String| {
        StartRefusal::new(format!("the backup cannot be used: {what}"), "take another backup, unaltered")
    };
    let inventory = inventory(from).map_err(|error| altered(error.to_string()))?;
    if inventory.format != FORMAT || !inventory.files.contains_key(DATABASE) {
        return Err(altered("it is not of this program".to_owned()));
    }
    for (name, expected) in &inventory.files {
        let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || digest(&from.join(name)).ok().as_ref() != Some(expected) {
            return Err(altered(format!("{name} is missing or was altered")));
        }
    }
    let failed = |path: &Path, error: io::Error| {
        StartRefusal::new(format!("{} cannot be restored", path.display()), "check the file system")
            .because(error)
    };
    let staged = settings.data_dir.join("ca.sqlite.restoring");
    for name in inventory.files.keys() {
        let target = match name.strip_prefix("keys/") {
            Some(key) => settings.keystore.join(key),
            None if name == DATABASE => staged.clone(),
            None => settings.data_dir.join(name),
        };
        copy_file(&from.join(name), &target).map_err(|error| failed(&target, error))?;
    }
    if prove_database(&staged).map_err(unusable)? != inventory.audit {
        return Err(altered("its database does not end with the audit record that it names".to_owned()));
    }
    let restored = enter_restored(&staged, inventory.made_at, now).map_err(unusable)?;
    sync(&staged).map_err(|error| failed(&staged, error))?;
    fs::rename(&staged, database)
        .and_then(|()| sync(&settings.data_dir))
        .map_err(|error| failed(database, error))?;
    Ok(restored)
}

/// Takes for granted, where the database was restored by other programs than this one, that whatever was possible after its last
/// record was done: what [`restore`] does by itself.
///
/// # Errors
/// [`StartRefusal`] when the database cannot be opened or written.
pub async fn accept(settings: &Settings, now: UnixTime) -> Result<Restored, StartRefusal> {
    let store = SqlStore::open(&settings.database).await.map_err(unusable)?;
    let latest = store.latest_audit().await.map_err(unusable)?;
    store.accept_restore(latest.map_or(UnixTime(0), |record| record.at), now).await.map_err(unusable)
}

/// The file to copy. A server's database is backed up by its own programs.
fn file_of(settings: &Settings) -> Result<&Path, StartRefusal> {
    settings.database.file().ok_or_else(|| {
        StartRefusal::new(
            format!("the records are in {}", settings.database),
            "back it up with pg_dump, then copy data_dir; after pg_restore run `ca-service accept-restore`",
        )
    })
}

fn unusable(error: crate::storage::StoreError) -> StartRefusal {
    StartRefusal::new("the database cannot be copied or proven", "check the database and the file system")
        .because(error)
}

fn inventory(from: &Path) -> io::Result<Inventory> {
    let mut text = Vec::new();
    let read = File::open(from.join(INVENTORY))?.take(MAX_INVENTORY + 1).read_to_end(&mut text)?;
    if read as u64 > MAX_INVENTORY {
        return Err(io::Error::other("backup.json is too large"));
    }
    Ok(serde_json::from_slice(&text)?)
}

/// Copies a file, or the files of a folder, to the same name below `out`.
fn copy_below(
    source: &Path,
    out: &Path,
    name: &Path,
    files: &mut BTreeMap<String, String>,
) -> io::Result<()> {
    if source.is_dir() {
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            copy_below(&entry.path(), out, &name.join(entry.file_name()), files)?;
        }
        return Ok(());
    }
    let target = out.join(name);
    copy_file(source, &target)?;
    let name = name.to_str().ok_or_else(|| io::Error::other("a file's name is not UTF-8"))?;
    files.insert(name.to_owned(), digest(&target)?);
    Ok(())
}

/// Copies one file durably, readable by the owner only. Never overwrites.
fn copy_file(source: &Path, target: &Path) -> io::Result<()> {
    if let Some(folder) = target.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
    io::copy(&mut File::open(source)?, &mut file)?;
    file.sync_all()
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn digest(path: &Path) -> io::Result<String> {
    let (mut file, mut hasher) = (File::open(path)?, Sha256::new());
    let mut part = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut part)?;
        match part.get(..read) {
            Some(octets) if read > 0 => hasher.update(octets),
            _ => return Ok(hex::encode(hasher.finalize())),
        }
    }
}
