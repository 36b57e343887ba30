//! Host directories that guests can be granted, held apart from each other and from what the executor itself keeps.
//!
//! A guest that may write in a directory may move what is in it and put links there. Where one mapped directory lay in another, or
//! held the executor's keys, a grant for the outer one would lead further than it says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use trust_store::capability::GuestPath;

use service::StartRefusal;

/// Refuses mappings that overlap: one with another, with the state folder, or with a file or folder that the executor reads.
///
/// # Errors
///
/// Names the two that overlap, or the directory that cannot be found any more.
pub(crate) fn refuse_overlaps(
    mapped: &BTreeMap<GuestPath, PathBuf>,
    state: &Path,
    read: &[PathBuf],
) -> Result<(), StartRefusal> {
    let resolved = |path: &Path| {
        path.canonicalize().map_err(|error| {
            let what = format!("grants.files: {} cannot be resolved", path.display());
            StartRefusal::new(what, "make it, or remove the line").because(error)
        })
    };
    let mapped: Vec<PathBuf> = mapped.values().map(|path| resolved(path)).collect::<Result<_, _>>()?;
    let refused = |path: &Path, other: &Path| {
        let what = format!("grants.files: {} overlaps with {}", path.display(), other.display());
        Err(StartRefusal::new(what, "map directories of their own, one beside the other"))
    };
    let state = resolved_or_to_be(state);
    // What does not exist yet is nowhere.
    let read: Vec<PathBuf> = read.iter().filter_map(|path| path.canonicalize().ok()).collect();
    for (position, path) in mapped.iter().enumerate() {
        let others = mapped.iter().take(position).chain([&state]);
        if let Some(other) =
            others.into_iter().find(|other| path.starts_with(other) || other.starts_with(path))
        {
            return refused(path, other);
        }
        if let Some(file) = read.iter().find(|file| file.starts_with(path)) {
            return refused(path, file);
        }
    }
    Ok(())
}

/// Where a folder is, or will be when it is made.
fn resolved_or_to_be(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let place = |there: &Path| Some(there.canonicalize().ok()?.join(path.strip_prefix(there).ok()?));
    path.ancestors().find_map(place).map_or_else(|| path.clone(), |place| place.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(folder: &Path, mapped: &[&str]) -> Option<String> {
        let mapped = mapped
            .iter()
            .enumerate()
            .map(|(number, path)| (GuestPath::new(&format!("/{number}")).unwrap(), folder.join(path)))
            .collect();
        refuse_overlaps(
            &mapped,
            &folder.join("state"),
            &[folder.join("etc/policy.yaml"), folder.join("gone")],
        )
        .err()
        .map(|refusal| refusal.to_string())
    }

    #[test]
    fn directories_lie_beside_each_other_and_beside_what_the_executor_keeps() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["data/out", "more", "state/artifacts", "etc/data"] {
            std::fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        std::fs::write(folder.path().join("etc/policy.yaml"), "").unwrap();
        std::os::unix::fs::symlink(folder.path().join("data/out"), folder.path().join("link")).unwrap();
        assert_eq!(told(folder.path(), &["data", "more", "etc/data"]), None);
        for overlapping in [
            &["data", "data/out"][..],
            &["data/out", "data"],
            &["data", "link"],
            &["more", "more"],
            &["state"],
            &["state/artifacts"],
            &["."],
            &["etc"],
        ] {
            let told = told(folder.path(), overlapping).unwrap();
            assert!(told.contains("overlaps with"), "{overlapping:?}: {told}");
        }
        // The same before the state folder was made.
        std::fs::remove_dir_all(folder.path().join("state")).unwrap();
        assert_eq!(told(folder.path(), &["data", "more"]), None);
        assert!(told(folder.path(), &["."]).unwrap().contains("overlaps with"));
        assert!(told(folder.path(), &["nowhere"]).unwrap().contains("cannot be resolved"));
    }
}
