//! SIGKILL before each step that changes a file, and in the middle of each write: the process is really gone, the files are
//! what it left. Nothing acknowledged is lost, no second history is signed, and the next start needs no repair.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use fixture::{Fixture, add, add_all, copy_tree, entry, os};
use log_store::{Access, Ack, Disk, DiskFile, Log, LogKind, OsDisk};
use tlog::hash::{Hash, TreeHead};

/// Folder, step and moment for a process that kills itself there.
const CHILD: &str = "MENTAT_TEST_KILLED_AT";
const SIGKILL: i32 = 9;
/// Entries before the process that is killed.
const BEFORE: u64 = 300;

/// When in a step the end comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    /// Of a write: half of its bytes are in the file.
    Within,
}

/// The operating system's disk, until the process is killed.
#[derive(Debug, Clone)]
struct Deadly {
    /// Steps until then.
    left: Arc<AtomicI64>,
    moment: Moment,
    said: Arc<File>,
}

impl Deadly {
    fn step(&self, what: &str, path: &Path, begin: impl FnOnce()) {
        if self.left.fetch_sub(1, Ordering::SeqCst) != 0 {
            return;
        }
        if self.moment == Moment::Within {
            begin();
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let parent = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        // In one call: other threads speak too.
        (&*self.said).write_all(format!("killed {what} {parent}/{name}\n").as_bytes()).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        // What other threads do until the signal is there must not end this step.
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}

impl Disk for Deadly {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step("create_dir", path, || ());
        OsDisk.create_dir_all(path)
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        if access == Access::CreateNew {
            self.step("create", path, || ());
        }
        let file = OsDisk.open(path, access)?;
        Ok(Arc::new(DeadlyFile { file, path: path.to_owned(), disk: self.clone() }))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step("rename", to, || ());
        OsDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step("remove", path, || ());
        OsDisk.remove(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step("sync_dir", path, || ());
        OsDisk.sync_dir(path)
    }
}

#[derive(Debug)]
struct DeadlyFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    disk: Deadly,
}

impl DiskFile for DeadlyFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.disk.step("write", &self.path, || {
            self.file.write_at(&buffer[..buffer.len() / 2], offset).unwrap();
        });
        self.file.write_at(buffer, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.disk.step("sync", &self.path, || ());
        self.file.sync_data()
    }
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.step("allocate", &self.path, || ());
        self.file.allocate(offset, length)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.disk.step("set_len", &self.path, || ());
        self.file.set_len(length)
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}

/// A log whose files are in `folder`.
fn in_folder(folder: &Path) -> Fixture {
    let mut fixture = Fixture::uninitialised(LogKind::Raw);
    fixture.options.directory = folder.join("log");
    fixture.options.head = folder.join("log").join("head").join("head");
    fixture.options.head_copy = folder.join("copy").join("head");
    fixture
}

/// What the process does until it is killed: a batch over the end of a tile, then single entries of both levels. It says what
/// it was told, once it was told.
fn live(folder: &Path, step: i64, moment: Moment) {
    let said = Arc::new(File::options().append(true).create(true).open(folder.join("said")).unwrap());
    let disk = Deadly { left: Arc::new(AtomicI64::new(step)), moment, said: said.clone() };
    let log = in_folder(folder).open_on(Arc::new(disk)).unwrap();
    let say = |line: String| (&*said).write_all(line.as_bytes()).unwrap();
    let head = |head: TreeHead| say(format!("head {} {}\n", head.size, head.root.to_base64()));
    head(log.publication().unwrap().tree());
    for (index, bytes) in add_all(&log, BEFORE..BEFORE + 230) {
        say(format!(
            "acknowledged {index} {}\n",
            String::from_utf8(bytes).unwrap().split(' ').nth(1).unwrap()
        ));
    }
    for i in BEFORE + 230..BEFORE + 236 {
        let ack = if i % 2 == 0 { Ack::Published } else { Ack::Sequenced };
        let receipt = add(&log, &entry(i), ack).unwrap();
        say(format!("acknowledged {} {i}\n", receipt.index));
        receipt.publication.iter().for_each(|publication| head(publication.tree()));
    }
    log.close();
}

/// Whether the process was killed, and where; its promises are kept.
fn killed(base: &Path, step: i64, moment: Moment) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    copy_tree(base, folder.path());
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_is_killed_at_any_step_keeps_its_promises"])
        .env(CHILD, format!("{} {step} {moment:?}", folder.path().display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    let said = std::fs::read_to_string(folder.path().join("said")).unwrap();
    let mut acknowledged: Vec<_> = (0..BEFORE).map(|i| (i, entry(i))).collect();
    let (mut heads, mut at) = (Vec::new(), None);
    for line in said.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["acknowledged", index, i] => {
                acknowledged.push((index.parse().unwrap(), entry(i.parse().unwrap())));
            }
            ["head", size, root] => {
                heads.push(TreeHead { size: size.parse().unwrap(), root: Hash::from_base64(root).unwrap() });
            }
            ["killed", ..] => at = Some(line.to_owned()),
            _ => panic!("{line:?}"),
        }
    }
    assert_eq!(status.signal(), at.is_some().then_some(SIGKILL), "step {step}, {moment:?}: {status}");
    assert!(at.is_some() || status.success(), "step {step}, {moment:?}: {status}");
    let what = format!("step {step}, {moment:?}: {at:?}");
    let fixture = in_folder(folder.path());
    let log = fixture.open().unwrap_or_else(|error| panic!("{what}: {error}"));
    let publication = add(&log, b"one more", Ack::Published).unwrap().publication.unwrap();
    for head in &heads {
        let proof = log.consistency_proof(head.size, &publication);
        let proof = proof.unwrap_or_else(|error| panic!("{what}: {error}"));
        proof
            .verify(head, &publication.tree())
            .unwrap_or_else(|error| panic!("{what}: a second history: {error}"));
    }
    log.close();
    fixture.check(&acknowledged);
    at
}

#[test]
fn a_process_that_is_killed_at_any_step_keeps_its_promises() {
    if let Ok(child) = std::env::var(CHILD) {
        let [folder, step, moment] = child.split(' ').collect::<Vec<_>>()[..] else { panic!("{child}") };
        let moment = if moment == "Within" { Moment::Within } else { Moment::Before };
        return live(Path::new(folder), step.parse().unwrap(), moment);
    }
    let base = tempfile::tempdir().unwrap();
    let fixture = in_folder(base.path());
    Log::create(&fixture.options, &os(), &*fixture.clock).unwrap();
    let log = fixture.open().unwrap();
    assert_eq!(add_all(&log, 0..BEFORE).len() as u64, BEFORE);
    log.close();

    let mut places = BTreeSet::new();
    for moment in [Moment::Before, Moment::Within] {
        let mut step = 0;
        while let Some(place) = killed(base.path(), step, moment) {
            // Only a write has a middle.
            if moment == Moment::Before || place.starts_with("killed write ") {
                places.insert(format!("{moment:?}: {place}"));
            }
            step += 1;
        }
        assert!(step > 20, "only {step} steps");
    }
    let every = places.iter().cloned().collect::<Vec<_>>().join("\n");
    for place in ["write entries/", "sync entries/", "write head/head", "sync head/head", "write copy/head"] {
        assert!(every.contains(&format!("Before: killed {place}")), "never before {place}:\n{every}");
    }
    for place in ["entries/", "head/head", "copy/head", "log/checkpoint"] {
        assert!(every.contains(&format!("Within: killed write {place}")), "never within {place}:\n{every}");
    }
}
