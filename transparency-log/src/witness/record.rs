//! What the witness remembers of one origin: the record with a second copy in another directory, the newest cosigned note
//! for monitors, and evidence against the log.
//!
//! A witness that forgets cosigns a fork, so the record is written and synced, and then its copy, before a cosignature
//! leaves. A start compares record, copy and note: a record that is older than either was restored or lost a slot, and is
//! refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use log_store::{Disk, Error, Head, HeadFile};
use parking_lot::Mutex;
use service::StartRefusal;
use tlog::checkpoint::VerifiedCheckpoint;
use tlog::hash::{Hash, TreeHead};
use tlog::note::VerifierKey;
use trust_store::provider::AwsLc;

use super::origins::Standing;

/// Requests kept as evidence, of each sort.
const MAX_EVIDENCE: usize = 100;

/// One origin.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) keys: Vec<VerifierKey>,
    pub(super) memory: Mutex<Memory>,
    /// The newest cosigned note with its size, for monitors.
    note: Mutex<Option<(u64, Bytes)>>,
    note_file: PathBuf,
    evidence: PathBuf,
}

/// The files of one origin.
#[derive(Debug, Clone)]
pub(super) struct RecordFiles {
    pub(super) record: PathBuf,
    pub(super) copy: PathBuf,
    pub(super) note: PathBuf,
    pub(super) evidence: PathBuf,
}

impl RecordFiles {
    pub(super) fn of(data: &Path, copies: &Path, origin_hash: &str) -> Self {
        let directory = data.join(origin_hash);
        Self {
            record: directory.join("record"),
            copy: copies.join(format!("{origin_hash}.record")),
            note: directory.join("checkpoint"),
            evidence: directory.join("evidence"),
        }
    }
}

impl Record {
    /// Opens what is remembered of an origin; begins to remember one only where [`Standing::New`] says that nothing ever was.
    ///
    /// # Errors
    /// [`StartRefusal`] when a file is locked, damaged, or gone, or when the record is older than its copy or the note.
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        files: &RecordFiles,
        origin: &str,
        keys: &[VerifierKey],
        standing: Standing,
        now_millis: u64,
    ) -> Result<Self, StartRefusal> {
        let note = stored_note(&files.note, origin, keys);
        let seen = note.as_ref().map(|(tree, _)| *tree);
        Ok(Self {
            keys: keys.to_vec(),
            memory: Mutex::new(Memory::open(disk, files, origin, seen, standing, now_millis)?),
            note: Mutex::new(note.map(|(tree, bytes)| (tree.size, bytes))),
            note_file: files.note.clone(),
            evidence: files.evidence.clone(),
        })
    }

    /// The newest cosigned note.
    pub(super) fn note(&self) -> Option<Bytes> {
        self.note.lock().as_ref().map(|(_, note)| note.clone())
    }

    /// Shows a cosigned note to monitors, unless they have seen a larger one.
    pub(super) fn show(&self, size: u64, note: Bytes) {
        let mut shown = self.note.lock();
        if shown.as_ref().is_none_or(|(before, _)| *before <= size) {
            *shown = Some((size, note));
        }
    }

    /// Writes the note to disk, so that a restart has something to show.
    pub(super) fn save_note(&self) {
        let Some(note) = self.note() else { return };
        if std::fs::read(&self.note_file).ok().as_deref() == Some(&note[..]) {
            return;
        }
        let temporary = self.note_file.with_extension("new");
        let saved =
            std::fs::write(&temporary, &note).and_then(|()| std::fs::rename(&temporary, &self.note_file));
        if let Err(error) = saved {
            tracing::warn!(file = %self.note_file.display(), %error, "cosigned checkpoint not saved");
        }
    }

    /// Keeps a request whose checkpoint the log did sign and that was not cosigned. A checkpoint of the
    /// recorded size with another root is proof of a fork by itself. Beside any other, the proof may be what is wrong, and anybody could have
    /// sent it: these are kept apart, once for each tree, so that they cannot crowd out the former.
    pub(super) fn keep_evidence(
        &self,
        body: &[u8],
        head: &TreeHead,
        recorded: &TreeHead,
        error: &tlog::Error,
    ) {
        let (sort, what) = if head.size == recorded.size && head.root != recorded.root {
            ("forks", "the log signed a fork; the request is kept")
        } else {
            ("unproven", "the proof beside a checkpoint of the log does not verify; the request is kept")
        };
        let directory = self.evidence.join(sort);
        let path = directory.join(format!("{}-{}", head.size, hex::encode(head.root.0)));
        if path.exists() {
            return;
        }
        tracing::error!(file = %path.display(), %error, "{what}");
        let kept = std::fs::read_dir(&directory).map_or(0, Iterator::count);
        // Enough to prove the fault; more would let the log fill the disk.
        if kept >= MAX_EVIDENCE {
            return;
        }
        if let Err(error) = std::fs::create_dir_all(&directory).and_then(|()| std::fs::write(&path, body)) {
            tracing::error!(%error, "the evidence could not be written");
        }
    }
}

/// Size and root cosigned last, in two files.
#[derive(Debug)]
pub(super) struct Memory {
    record: HeadFile,
    copy: HeadFile,
    /// Why nothing is known for sure any more: a write or sync failed. The next start reads what is on disk.
    failed: Option<String>,
}

impl Memory {
    fn open(
        disk: &Arc<dyn Disk>,
        files: &RecordFiles,
        origin: &str,
        seen: Option<TreeHead>,
        standing: Standing,
        now_millis: u64,
    ) -> Result<Self, StartRefusal> {
        let refuse = |what: String| {
            StartRefusal::new(
                format!("the record of {origin:?} cannot be used: {what}"),
                format!(
                    "a witness without memory cosigns a fork: never delete it. Restore the newest of {} and {}, and copy it \
                     over the other; compare with what monitors have seen of this witness",
                    files.record.display(),
                    files.copy.display()
                ),
            )
        };
        let never_cosigned = |refusal: StartRefusal| match standing {
            Standing::Unlisted => StartRefusal::new(
                refusal.what(),
                format!(
                    "{}; for a log that this witness never cosigned, run `witness add-log --config FILE`",
                    refusal.remedy()
                ),
            ),
            _ => refusal,
        };
        let identity = Hash::digest(format!("mentat witness\n{origin}\n").as_bytes()).0;
        let unreadable = |error: Error| refuse("it cannot be read".to_owned()).because(error);
        let open = |path: &Path| HeadFile::open(&**disk, path, identity).map_err(unreadable);
        let create = |path: &Path, head| HeadFile::create(&**disk, path, identity, head).map_err(unreadable);
        let record = match (files.record.exists(), files.copy.exists()) {
            (true, _) => open(&files.record)?,
            (false, false) if standing == Standing::New && seen.is_none() => {
                create(&files.record, Head::empty(now_millis, 0))?
            }
            (false, false) => {
                let (record, copy) = (files.record.display(), files.copy.display());
                return Err(never_cosigned(refuse(format!("{record} and {copy} are both gone"))));
            }
            _ => return Err(refuse(format!("{} is gone", files.record.display()))),
        };
        let recorded = record.load();
        let mut copy = match files.copy.exists() {
            true => open(&files.copy)?,
            // The record is made first, so the empty one of a new origin may not have its copy yet.
            false if standing == Standing::New && recorded.tree.size == 0 => create(&files.copy, recorded)?,
            false => {
                let gone = refuse(format!("its second copy {} is gone", files.copy.display()));
                return Err(if recorded.tree.size == 0 { never_cosigned(gone) } else { gone });
            }
        };
        for (path, tree) in [(&files.copy, Some(copy.load().tree)), (&files.note, seen)] {
            let Some(tree) = tree else { continue };
            if tree.size > recorded.tree.size {
                return Err(refuse(format!(
                    "{} holds size {}, but {} holds size {}: an old record was restored, or its newest part is damaged",
                    files.record.display(),
                    recorded.tree.size,
                    path.display(),
                    tree.size
                )));
            }
            if tree.size == recorded.tree.size && tree.root != recorded.tree.root {
                return Err(refuse(format!("{} has another root of the same size", path.display())));
            }
        }
        let copied = copy.load();
        if copied != recorded {
            // The process ended between the two writes, before it answered.
            copy.compare_and_swap(&copied, recorded).map_err(unreadable)?;
        }
        Ok(Self { record, copy, failed: None })
    }

    /// What was cosigned last.
    pub(super) fn head(&self) -> Head {
        self.record.load()
    }

    /// Remembers a tree, durably and twice. After a failure nothing is remembered, nor cosigned, until the next start.
    pub(super) fn remember(&mut self, tree: TreeHead, time_millis: u64) -> Result<(), String> {
        if let Some(cause) = &self.failed {
            return Err(cause.clone());
        }
        let old = self.record.load();
        if tree == old.tree {
            return Ok(());
        }
        let new = Head { tree, time_millis, tail: 0 };
        let written =
            self.record.compare_and_swap(&old, new).and_then(|()| self.copy.compare_and_swap(&old, new));
        written.map_err(|error| self.failed.insert(error.to_string()).clone())
    }
}

fn stored_note(path: &Path, origin: &str, keys: &[VerifierKey]) -> Option<(TreeHead, Bytes)> {
    let note = std::fs::read(path).ok()?;
    let opened = VerifiedCheckpoint::open(&note, origin, keys, &AwsLc).ok()?;
    Some((*opened.head(), note.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use log_store::OsDisk;

    const ORIGIN: &str = "log.example";

    fn tree(size: u64) -> TreeHead {
        TreeHead { size, root: Hash([size as u8; 32]) }
    }

    fn open(files: &RecordFiles) -> Result<Record, StartRefusal> {
        open_as(files, Standing::New)
    }

    fn open_as(files: &RecordFiles, standing: Standing) -> Result<Record, StartRefusal> {
        Record::open(&(Arc::new(OsDisk) as _), files, ORIGIN, &[], standing, 1000)
    }

    /// A record that reached size 2, and its bytes from when it had size 1.
    fn grown(folder: &Path) -> (RecordFiles, Vec<u8>) {
        let files = RecordFiles::of(&folder.join("records"), &folder.join("copies"), "00");
        let record = open(&files).unwrap();
        record.memory.lock().remember(tree(1), 1001).unwrap();
        let old = std::fs::read(&files.record).unwrap();
        record.memory.lock().remember(tree(2), 1002).unwrap();
        (files, old)
    }

    fn refused(files: &RecordFiles, why: &str) {
        let refusal = open(files).unwrap_err();
        assert!(refusal.what().contains(why), "{refusal:?}");
        let copy = files.copy.display().to_string();
        assert!(refusal.remedy().contains(&copy), "the repair is not named: {refusal:?}");
    }

    #[test]
    fn what_was_cosigned_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (files, _) = grown(folder.path());
        assert_eq!(open(&files).unwrap().memory.lock().head().tree, tree(2));
    }

    #[test]
    fn an_old_copy_of_the_record_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (files, old) = grown(folder.path());
        std::fs::write(&files.record, old).unwrap();
        refused(&files, "an old record was restored");
        // The repair that the refusal names.
        std::fs::copy(&files.copy, &files.record).unwrap();
        assert_eq!(open(&files).unwrap().memory.lock().head().tree, tree(2));
    }

    #[test]
    fn damage_to_the_newest_slot_does_not_bring_back_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let (files, _) = grown(folder.path());
        let good = std::fs::read(&files.record).unwrap();
        let mut seen = 0;
        for at in [20, 4096 + 20] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&files.record, bad).unwrap();
            match open(&files) {
                Ok(record) => assert_eq!(record.memory.lock().head().tree, tree(2)),
                Err(refusal) => {
                    assert!(refusal.what().contains("its newest part is damaged"), "{refusal:?}");
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 1, "one of the two slots is the newest");
    }

    #[test]
    fn a_record_or_copy_that_is_gone_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (files, _) = grown(folder.path());
        std::fs::rename(&files.record, folder.path().join("aside")).unwrap();
        refused(&files, "is gone");
        std::fs::rename(folder.path().join("aside"), &files.record).unwrap();
        std::fs::remove_file(&files.copy).unwrap();
        refused(&files, "is gone");
    }

    #[test]
    fn a_witness_that_had_a_record_never_begins_another() {
        let folder = tempfile::tempdir().unwrap();
        let (files, _) = grown(folder.path());
        // As when neither volume is mounted.
        std::fs::rename(folder.path().join("records"), folder.path().join("records.aside")).unwrap();
        std::fs::rename(folder.path().join("copies"), folder.path().join("copies.aside")).unwrap();
        for standing in [Standing::Listed, Standing::Unlisted] {
            let refusal = open_as(&files, standing).unwrap_err();
            assert!(refusal.what().contains("are both gone"), "{refusal:?}");
            assert_eq!(refusal.remedy().contains("add-log"), standing == Standing::Unlisted, "{refusal:?}");
            for path in [&files.record, &files.copy] {
                assert!(refusal.what().contains(&path.display().to_string()), "{refusal:?}");
                assert!(!path.exists());
            }
        }
        // An empty record that was brought back, without its copy, says nothing either.
        drop(open_as(&files, Standing::New).unwrap());
        std::fs::remove_file(&files.copy).unwrap();
        assert!(open_as(&files, Standing::Listed).unwrap_err().what().contains("is gone"));
    }

    #[test]
    fn a_copy_that_lags_behind_is_brought_up() {
        let folder = tempfile::tempdir().unwrap();
        let files = RecordFiles::of(&folder.path().join("records"), &folder.path().join("copies"), "00");
        let record = open(&files).unwrap();
        record.memory.lock().remember(tree(1), 1001).unwrap();
        let old = std::fs::read(&files.copy).unwrap();
        record.memory.lock().remember(tree(2), 1002).unwrap();
        drop(record);
        let new = std::fs::read(&files.copy).unwrap();
        std::fs::write(&files.copy, &old).unwrap();
        assert_eq!(open(&files).unwrap().memory.lock().head().tree, tree(2));
        assert_eq!(std::fs::read(&files.copy).unwrap(), new);
    }

    #[test]
    fn junk_beside_honest_checkpoints_does_not_crowd_out_a_fork() {
        let folder = tempfile::tempdir().unwrap();
        let (files, _) = grown(folder.path());
        let record = open(&files).unwrap();
        let error = tlog::Error::NoTrustedSignature;
        for size in 3..203 {
            for proof in ["one", "another"] {
                record.keep_evidence(proof.as_bytes(), &tree(size), &tree(2), &error);
            }
        }
        record.keep_evidence(b"a proof where none belongs", &tree(2), &tree(2), &error);
        let count = |sort: &str| std::fs::read_dir(files.evidence.join(sort)).map_or(0, Iterator::count);
        assert_eq!((count("unproven"), count("forks")), (MAX_EVIDENCE, 0));
        let fork = TreeHead { size: 2, root: Hash([99; 32]) };
        record.keep_evidence(b"fork", &fork, &tree(2), &error);
        let kept = files.evidence.join("forks").join(format!("2-{}", "63".repeat(32)));
        assert_eq!(std::fs::read(kept).unwrap(), b"fork");
    }

    #[test]
    fn monitors_are_never_shown_a_smaller_tree_again() {
        let folder = tempfile::tempdir().unwrap();
        let (files, _) = grown(folder.path());
        let record = open(&files).unwrap();
        record.show(20, Bytes::from_static(b"twenty"));
        record.show(10, Bytes::from_static(b"ten"));
        assert_eq!(record.note().unwrap(), "twenty");
        record.show(20, Bytes::from_static(b"refreshed"));
        assert_eq!(record.note().unwrap(), "refreshed");
    }
}
