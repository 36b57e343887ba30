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

/// A promise that a writer made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// This record has this index.
    Acknowledged { index: u64, number: u64 },
    /// The log has had this root at this size, for ever.
    Published { size: u64, root: String },
}

impl Said {
    /// Reads a line of a writer.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (kind, number) = (words.next()?, words.next()?.parse().ok()?);
        let last = words.next()?;
        match kind {
            "acknowledged" => Some(Self::Acknowledged { index: number, number: last.parse().ok()? }),
            "published" => Some(Self::Published { size: number, root: last.to_owned() }),
            _ => None,
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

/// Writers beside one another.
const WRITERS: u64 = 3;

/// Writes records and says on stdout what it promises, until it is killed.
pub(crate) fn run(role: &str) {
    let (name, folder) = role.split_once(':').unwrap();
    let acknowledge = |index: u64, number: u64| println!("acknowledged {index} {number}");
    if name == Role::Sled.name() {
        let store = sled::open(Path::new(folder).join("sled")).unwrap();
        for number in 0.. {
            store.insert(u64::to_be_bytes(number), record(number)).unwrap();
            store.flush().unwrap();
            acknowledge(number, number);
        }
    }
    let disk: Arc<dyn Disk> = if name == Role::Log.name() { Arc::new(OsDisk) } else { Arc::new(Unsynced) };
    let log = Log::open(&options(Path::new(folder)), parts(disk)).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let log = &log;
            scope.spawn(move || {
                for number in (writer..).step_by(WRITERS as usize) {
                    let entry = Entry::plain(record(number).into()).unwrap();
                    let ack = if number % 7 == 0 { Ack::Published } else { Ack::Sequenced };
                    let receipt = Log::wait(log.submit(WriterId(writer), entry, ack).unwrap()).unwrap();
                    acknowledge(receipt.index, number);
                    if let Some(publication) = receipt.publication {
                        let tree = publication.tree();
                        println!("published {} {}", tree.size, tree.root.to_base64());
                    }
                }
            });
        }
    });
}

/// How many of the promises do not hold.
pub(crate) fn broken(role: Role, folder: PathBuf, said: &[Said]) -> usize {
    if role == Role::Sled {
        let Ok(store) = sled::open(folder.join("sled")) else { return said.len() };
        let kept = |said: &&Said| match said {
            Said::Acknowledged { number, .. } => {
                store.get(number.to_be_bytes()).ok().flatten().is_some_and(|found| found == record(*number))
            }
            Said::Published { .. } => false,
        };
        return said.len() - said.iter().filter(kept).count();
    }
    let (options, disk) = (options(&folder), Arc::new(OsDisk) as Arc<dyn Disk>);
    let Ok(log) = Log::open(&options, parts(disk.clone())) else { return said.len() };
    let publication = log.publication().unwrap();
    let root_at = |size: u64| log.root_at(size, &publication).map(|root| root.to_base64());
    let forked = |said: &&Said| matches!(said, Said::Published { size, root } if root_at(*size).ok().as_ref() != Some(root));
    let forks = said.iter().filter(forked).count();
    log.close();
    let mut stored = Vec::new();
    if check_log(&options, &disk, |_, bytes| stored.push(bytes.to_vec())).is_err() {
        return said.len();
    }
    let lost = |said: &&Said| match said {
        Said::Acknowledged { index, number } => {
            stored.get(usize::try_from(*index).unwrap()) != Some(&record(*number))
        }
        Said::Published { .. } => false,
    };
    forks + said.iter().filter(lost).count()
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
