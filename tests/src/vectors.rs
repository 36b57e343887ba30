//! Third-party vectors: read where `MENTAT_VECTORS` says, by default `../shared/vectors` beside the checkout.

use std::path::{Path, PathBuf};

/// The folder of the vectors, or `None` with a loud line when it is absent.
///
/// # Panics
///
/// Under `CI=true` an absent folder is a failure, not a skip.
pub fn vectors(part: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root");
    let folder = std::env::var_os("MENTAT_VECTORS")
        .map_or_else(|| root.join("../shared/vectors"), PathBuf::from)
        .join(part);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "third-party vectors are missing at {}: set MENTAT_VECTORS",
        folder.display()
    );
    crate::skip::skipped(format_args!(
        "third-party vectors are missing at {}: set MENTAT_VECTORS",
        folder.display()
    ));
    None
}
