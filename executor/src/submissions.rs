//! What loaded agents were loaded from, kept so that they are there again after a restart.
//!
//! One file for each agent and module, written before the load is answered (docs/formats/agent-record.md):
//!
//! ```text
//! "mentat-agent-1\n" | order | manifest length | attestation length or 2^64-1 | module length   (8 bytes each, little-endian)
//! manifest | attestation | module | SHA-256 of everything before
//! ```
//!
//! What one of them replaces lies beside it until the load is on record.
//!
//! A record proves nothing. What is read back goes through the same door as an upload before it may run.

use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use executor_engine::ModuleDigest;
use executor_engine::limits::MAX_MODULE_BYTES;

use crate::admission::MAX_MANIFEST_TEXT;

const MAGIC: &[u8] = b"mentat-agent-1\n";
const HEAD: usize = MAGIC.len() + 32;
const SUM: usize = 32;

/// What was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Rises with every load: of several releases of an agent the one loaded last is called by its id.
    pub(crate) order: u64,
    pub(crate) manifest: String,
    pub(crate) attestation: Option<String>,
    pub(crate) module: Bytes,
}

/// Whose record a file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordName {
    /// SHA-256 of the agent's id.
    pub(crate) agent: ModuleDigest,
    /// The module.
    pub(crate) module: ModuleDigest,
}

impl RecordName {
    pub(crate) fn of(agent: &str, module: ModuleDigest) -> Self {
        Self { agent: ModuleDigest::of(agent.as_bytes()), module }
    }

    /// What a file's name says; nothing for one that no record has.
    pub(crate) fn of_file(path: &Path) -> Option<Self> {
        let (agent, module) = path.file_stem()?.to_str()?.split_once('-')?;
        Some(Self { agent: ModuleDigest::parse(agent)?, module: ModuleDigest::parse(module)? })
    }

    pub(crate) fn is_of(&self, agent: &str) -> bool {
        self.agent == ModuleDigest::of(agent.as_bytes())
    }

    fn file(&self) -> String {
        format!("{}-{}.agent", self.agent, self.module)
    }
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmissionError {
    #[error("{path} is damaged: {why}; remove it and load the agent again")]
    Damaged { path: PathBuf, why: &'static str },
    #[error("{path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// The folder of records.
#[derive(Debug, Clone)]
pub(crate) struct Submissions {
    directory: PathBuf,
    next: Arc<AtomicU64>,
}

impl Stored {
    /// The record's parts, in the order in which they stand in the file.
    fn encode(&self) -> (Vec<u8>, [u8; SUM]) {
        let attestation = self.attestation.as_deref();
        let mut head = MAGIC.to_vec();
        for length in [
            self.order,
            self.manifest.len() as u64,
            attestation.map_or(u64::MAX, |text| text.len() as u64),
            self.module.len() as u64,
        ] {
            head.extend_from_slice(&length.to_le_bytes());
        }
        head.extend_from_slice(self.manifest.as_bytes());
        head.extend_from_slice(attestation.unwrap_or_default().as_bytes());
        let mut sum = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        sum.update(&head);
        sum.update(&self.module);
        let mut digest = [0u8; SUM];
        for (to, from) in digest.iter_mut().zip(sum.finish().as_ref()) {
            *to = *from;
        }
        (head, digest)
    }

    fn decode(bytes: &Bytes) -> Result<Self, &'static str> {
        let body = bytes.len().checked_sub(SUM).ok_or("it is cut")?;
        let (body, sum) = bytes.split_at_checked(body).ok_or("it is cut")?;
        if ModuleDigest::of(body).0 != *sum {
            return Err("its digest does not match");
        }
        let rest = body.strip_prefix(MAGIC).ok_or("it is of another form")?;
        let mut lengths = rest.chunks_exact(8).map(|bytes| bytes.try_into().map(u64::from_le_bytes));
        let mut length = || lengths.next().and_then(Result::ok).ok_or("it is cut");
        let (order, manifest, attestation, module) = (length()?, length()?, length()?, length()?);
        let size = |length: u64| usize::try_from(length).map_err(|_| "a part is too large");
        let start = HEAD;
        let middle = start.checked_add(size(manifest)?).ok_or("a part is too large")?;
        let attested = if attestation == u64::MAX { 0 } else { size(attestation)? };
        let end = middle.checked_add(attested).ok_or("a part is too large")?;
        if end.checked_add(size(module)?) != Some(body.len()) {
            return Err("its parts do not fill it");
        }
        let text = |from: usize, to: usize| {
            let bytes = body.get(from..to).ok_or("it is cut")?;
            std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "a part is not UTF-8")
        };
        Ok(Self {
            order,
            manifest: text(start, middle)?,
            attestation: if attestation == u64::MAX { None } else { Some(text(middle, end)?) },
            module: bytes.slice(end..body.len()),
        })
    }
}

impl Submissions {
    /// Opens or makes the folder, and removes what an interrupted write left there.
    pub(crate) fn open(state: &Path) -> Result<Self, SubmissionError> {
        let directory = state.join("agents");
        let failed = |source| SubmissionError::File { path: directory.clone(), source };
        std::fs::create_dir_all(&directory).map_err(failed)?;
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            // What was replaced as well: a load that the end of the process left unanswered is judged by what it brought.
            if path.extension().is_some_and(|extension| extension == "new" || extension == "old") {
                std::fs::remove_file(path).map_err(failed)?;
            }
        }
        let next = Arc::new(AtomicU64::new(0));
        let submissions = Self { directory, next };
        let last = submissions
            .list()
            .map_err(|source| SubmissionError::File { path: submissions.directory.clone(), source })?;
        let last = last.last().map_or(0, |(order, _)| *order);
        submissions.next.store(last.saturating_add(1), Ordering::Relaxed);
        Ok(submissions)
    }

    /// The file of an agent's release of a module.
    pub(crate) fn path(&self, agent: &str, module: ModuleDigest) -> PathBuf {
        self.directory.join(RecordName::of(agent, module).file())
    }

    /// The place in the order for the next load.
    pub(crate) fn next_order(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Every record in the order in which they were loaded. What its head says is believed only for that: a damaged
    /// one is found when it is read.
    pub(crate) fn list(&self) -> std::io::Result<Vec<(u64, PathBuf)>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "agent") {
                let mut head = [0u8; MAGIC.len() + 8];
                let read = std::fs::File::open(&path)?.read_exact(&mut head).is_ok();
                let order =
                    head.last_chunk::<8>().filter(|_| read).map_or(0, |bytes| u64::from_le_bytes(*bytes));
                paths.push((order, path));
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// Writes a record durably, over the one of the same agent and module, which is kept until [`Self::settle`] or
    /// [`Self::take_back`]. One at a time. Where it fails, what was there before is there. Blocks.
    pub(crate) fn write(&self, path: &Path, stored: &Stored) -> Result<(), SubmissionError> {
        let temporary = path.with_extension("new");
        let (head, sum) = stored.encode();
        let write = || {
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(&head)?;
            file.write_all(&stored.module)?;
            file.write_all(&sum)?;
            file.sync_all()?;
            keep_beside(path)?;
            std::fs::rename(&temporary, path)
        };
        let failed = |source| SubmissionError::File { path: path.to_owned(), source };
        write().map_err(|source| {
            let _ = std::fs::remove_file(&temporary);
            Self::settle(path);
            failed(source)
        })?;
        self.sync().map_err(|source| {
            if let Err(error) = self.take_back(path) {
                tracing::error!(%error, path = %path.display(),
                    "a record that was refused will be tried at the next start");
            }
            failed(source)
        })
    }

    /// The record that was written last stays, and what it replaced goes.
    pub(crate) fn settle(path: &Path) {
        // What is left lies there until the next load or start.
        let _ = Self::remove(&replaced(path));
    }

    /// Puts back what the record that was written last replaced; where it replaced nothing, there is none. Blocks.
    pub(crate) fn take_back(&self, path: &Path) -> std::io::Result<()> {
        match std::fs::rename(replaced(path), path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Self::remove(path)?,
            renamed => renamed?,
        }
        self.sync()
    }

    fn sync(&self) -> std::io::Result<()> {
        std::fs::File::open(&self.directory)?.sync_all()
    }

    /// Reads a record. Blocks.
    pub(crate) fn read(path: &Path) -> Result<Stored, SubmissionError> {
        let failed = |source| SubmissionError::File { path: path.to_owned(), source };
        let mut file = std::fs::File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length > (HEAD + 2 * MAX_MANIFEST_TEXT + MAX_MODULE_BYTES + SUM) as u64 {
            return Err(SubmissionError::Damaged { path: path.to_owned(), why: "it is too large" });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        (&mut file).take(length).read_to_end(&mut bytes).map_err(failed)?;
        Stored::decode(&bytes.into()).map_err(|why| SubmissionError::Damaged { path: path.to_owned(), why })
    }

    /// Removes a record.
    pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Where the record that another one replaces lies meanwhile.
fn replaced(path: &Path) -> PathBuf {
    path.with_extension("old")
}

/// Lets a record have a second name, if there is one: whoever reads it in between finds it. Nothing of an earlier load keeps that name.
fn keep_beside(path: &Path) -> std::io::Result<()> {
    let old = replaced(path);
    Submissions::remove(&old)?;
    match std::fs::hard_link(path, &old) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // Not every file system has second names.
        Err(_) => std::fs::copy(path, &old).and_then(|_| std::fs::File::open(&old)?.sync_all()),
        linked => linked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(attestation: Option<&str>) -> Stored {
        Stored {
            order: 5,
            manifest: "id: a\n".into(),
            attestation: attestation.map(str::to_owned),
            module: Bytes::from_static(b"\0asm"),
        }
    }

    #[test]
    fn the_form_is_frozen() {
        let (head, sum) = stored(Some("{}")).encode();
        assert_eq!(
            hex::encode(&head),
            "6d656e7461742d6167656e742d310a0500000000000000060000000000000002000000000000000400000000000000\
             69643a20610a7b7d"
        );
        assert_eq!(hex::encode(sum), hex::encode(ModuleDigest::of(&[&head[..], b"\0asm"].concat()).0));
    }

    #[test]
    fn records_are_read_back_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let submissions = Submissions::open(dir.path()).unwrap();
        let path = submissions.path("a.b", ModuleDigest::of(b"\0asm"));
        for attestation in [None, Some(""), Some("{}")] {
            submissions.write(&path, &stored(attestation)).unwrap();
            assert_eq!(submissions.list().unwrap(), [(5, path.clone())]);
            assert_eq!(Submissions::read(&path).unwrap(), stored(attestation));
        }
        let genuine = std::fs::read(&path).unwrap();
        for length in 0..genuine.len() {
            std::fs::write(&path, &genuine[..length]).unwrap();
            assert!(matches!(Submissions::read(&path), Err(SubmissionError::Damaged { .. })), "{length}");
        }
        for index in 0..genuine.len() {
            let mut altered = genuine.clone();
            altered[index] ^= 1;
            std::fs::write(&path, &altered).unwrap();
            assert!(matches!(Submissions::read(&path), Err(SubmissionError::Damaged { .. })), "{index}");
        }
        for left in ["new", "old"] {
            std::fs::write(path.with_extension(left), b"half").unwrap();
        }
        let again = Submissions::open(dir.path()).unwrap();
        assert_eq!(again.list().unwrap(), [(5, path.clone())]);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert_eq!(again.next_order(), 6);
        Submissions::remove(&path).unwrap();
        Submissions::remove(&path).unwrap();
        assert!(again.list().unwrap().is_empty());
    }

    #[test]
    fn what_a_record_replaces_is_kept_until_it_is_known_which_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let submissions = Submissions::open(dir.path()).unwrap();
        let path = submissions.path("a.b", ModuleDigest::of(b"\0asm"));
        let write = |order| submissions.write(&path, &Stored { order, ..stored(None) });
        let there = || {
            let files = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
            (Submissions::read(&path).ok().map(|stored| stored.order), files)
        };
        write(1).unwrap();
        submissions.take_back(&path).unwrap();
        assert_eq!(there(), (None, 0), "it replaced nothing");
        write(2).unwrap();
        Submissions::settle(&path);
        write(3).unwrap();
        assert_eq!(there(), (Some(3), 2));
        submissions.take_back(&path).unwrap();
        assert_eq!(there(), (Some(2), 1));
        write(4).unwrap();
        Submissions::settle(&path);
        assert_eq!(there(), (Some(4), 1));
        // What nobody settled is nothing that comes back later.
        write(5).unwrap();
        Submissions::remove(&path).unwrap();
        write(6).unwrap();
        submissions.take_back(&path).unwrap();
        assert_eq!(there(), (None, 0));
        // One that cannot be written changes nothing.
        write(7).unwrap();
        std::fs::create_dir(path.with_extension("new")).unwrap();
        assert!(write(8).is_err());
        assert_eq!(there(), (Some(7), 2));
    }

    #[test]
    fn the_name_of_a_file_says_whose_record_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = Submissions::open(dir.path()).unwrap().path("a.b", ModuleDigest::of(b"m"));
        let name = RecordName::of_file(&path).unwrap();
        assert_eq!(name, RecordName::of("a.b", ModuleDigest::of(b"m")));
        assert!(name.is_of("a.b") && !name.is_of("a.c"));
        for other in ["a-b.agent", "notes.agent", "-.agent", ""] {
            assert_eq!(RecordName::of_file(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for lengths in
            [[0, u64::MAX, 2, 4], [0, u64::MAX - 1, u64::MAX, 4], [0, 6, 2, 3], [0, 6, 2, u64::MAX]]
        {
            let mut bytes = MAGIC.to_vec();
            lengths.iter().for_each(|length| bytes.extend_from_slice(&length.to_le_bytes()));
            bytes.extend_from_slice(b"id: a\n{}\0asm");
            let sum = ModuleDigest::of(&bytes).0;
            bytes.extend_from_slice(&sum);
            assert!(Stored::decode(&bytes.into()).is_err(), "{lengths:?}");
        }
    }
}
