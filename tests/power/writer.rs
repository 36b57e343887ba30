//! The process that writes, acknowledges and is cut off; and what is left of its promises.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use log_store::{
    Access, Ack, CheckpointSigner, Disk, DiskFile, Entry, EntryFileSizes, Log, LogKind, LogOptions, LogParts,
    OsDisk, SystemClock, WriterId, check_log,
};
use tlog::TreeHead;

/// Environment variable that makes this test binary a writer: `NAME:FOLDER`.
pub(crate) const ROLE: &str = "MENTAT_POWER_ROLE";

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Log,
    LogWithoutSyncs,
    Sled,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::LogWithoutSyncs => "log-without-syncs",
            Self::Sled => "sled",
        }
    }
}

/// Makes what must be there, durably, before the writer starts.
pub(crate) fn prepare(role: Role, folder: PathBuf) {
    match role {
        Role::Sled => drop(sled::open(folder.join("sled")).unwrap()),
        Role::Log | Role::LogWithoutSyncs => {
            let disk: Arc<dyn Disk> = Arc::new(OsDisk);
            Log::create(&options(&folder), &disk, &SystemClock).unwrap();
        }
    }
    let synced = std::process::Command::new("sync").arg("-f").arg(folder).status().unwrap();
    assert!(synced.success());
}

/// Writes records and acknowledges each on stdout, until it is killed.
pub(crate) fn run(role: &str) {
    let (name, folder) = role.split_once(':').unwrap();
    let acknowledge = |number: u64| println!("acknowledged {number}");
    if name == Role::Sled.name() {
        let store = sled::open(Path::new(folder).join("sled")).unwrap();
        for number in 0.. {
            store.insert(u64::to_be_bytes(number), record(number)).unwrap();
            store.flush().unwrap();
            acknowledge(number);
        }
    }
    let disk: Arc<dyn Disk> = if name == Role::Log.name() { Arc::new(OsDisk) } else { Arc::new(Unsynced) };
    let log = Log::open(&options(Path::new(folder)), parts(disk)).unwrap();
    for number in 0.. {
        let entry = Entry::plain(record(number).into()).unwrap();
        let receipt = Log::wait(log.submit(WriterId(1), entry, Ack::Sequenced).unwrap()).unwrap();
        assert_eq!(receipt.index, number);
        acknowledge(number);
    }
}

/// How many of the acknowledged records are not there.
pub(crate) fn missing(role: Role, folder: PathBuf, acknowledged: &[u64]) -> usize {
    if role == Role::Sled {
        let Ok(store) = sled::open(folder.join("sled")) else { return acknowledged.len() };
        let there = |number: &&u64| {
            store.get(number.to_be_bytes()).ok().flatten().is_some_and(|found| found == record(**number))
        };
        return acknowledged.len() - acknowledged.iter().filter(there).count();
    }
    let (options, disk) = (options(&folder), Arc::new(OsDisk) as Arc<dyn Disk>);
    let Ok(log) = Log::open(&options, parts(disk.clone())) else { return acknowledged.len() };
    log.close();
    let mut stored = Vec::new();
    if check_log(&options, &disk, |_, bytes| stored.push(bytes.to_vec())).is_err() {
        return acknowledged.len();
    }
    let there = |number: &&u64| stored.get(usize::try_from(**number).unwrap()) == Some(&record(**number));
    acknowledged.len() - acknowledged.iter().filter(there).count()
}

fn record(number: u64) -> Vec<u8> {
    let mut bytes = vec![b'.'; 300];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn options(folder: &Path) -> LogOptions {
    let mut options = LogOptions::new(
        LogKind::Raw,
        "raw.01234567.mentat.internal",
        &folder.join("log"),
        &folder.join("copy"),
    );
    options.sizes = EntryFileSizes { segment: 1 << 20, reserve: 64 << 10 };
    options
}

fn parts(disk: Arc<dyn Disk>) -> LogParts {
    LogParts { disk, clock: Arc::new(SystemClock), signer: Arc::new(Unsigned), cosigner: None }
}

/// The head is what matters here; nobody reads the checkpoint.
#[derive(Debug)]
struct Unsigned;

impl CheckpointSigner for Unsigned {
    fn sign(&self, head: &TreeHead, time_millis: u64) -> log_store::Result<Vec<u8>> {
        Ok(format!("test\n{}\n{}\n\n— test {time_millis}\n", head.size, head.root.to_base64()).into_bytes())
    }
}

/// The operating system's disk for a program whose syncs were removed.
#[derive(Debug)]
struct Unsynced;

impl Disk for Unsynced {
    fn create_dir_all(&self, path: &Path) -> std::io::Result<()> {
        OsDisk.create_dir_all(path)
    }
    fn open(&self, path: &Path, access: Access) -> std::io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UnsyncedFile(OsDisk.open(path, access)?)))
    }
    fn list(&self, path: &Path) -> std::io::Result<Vec<String>> {
        OsDisk.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        OsDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        OsDisk.remove(path)
    }
    fn sync_dir(&self, _: &Path) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct UnsyncedFile(Arc<dyn DiskFile>);

impl DiskFile for UnsyncedFile {
    fn length(&self) -> std::io::Result<u64> {
        self.0.length()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, buffer: &[u8], offset: u64) -> std::io::Result<()> {
        self.0.write_at(buffer, offset)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        Ok(())
    }
    fn allocate(&self, offset: u64, length: u64) -> std::io::Result<()> {
        self.0.allocate(offset, length)
    }
    fn set_len(&self, length: u64) -> std::io::Result<()> {
        self.0.set_len(length)
    }
    fn try_lock(&self) -> std::io::Result<bool> {
        self.0.try_lock()
    }
}
