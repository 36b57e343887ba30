//! Names that mean something else from one moment to the next.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;

/// Ends the thread that swaps, also where the test fails: whoever waits for it would wait for ever.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_directory_that_becomes_a_link_while_it_is_used_leads_nowhere() {
    let host = tempfile::tempdir().unwrap();
    let inside = host.path().join("inside");
    std::fs::create_dir_all(inside.join("swap")).unwrap();
    std::fs::write(host.path().join("secret"), b"secret").unwrap();
    std::os::unix::fs::symlink("..", inside.join("link")).unwrap();
    // Where `swap` is a directory there is no such file, and where it is a link there is one, outside.
    let guest = opens("swap/secret", 0, 1);
    let prepared = prepare(&guest, granting("read", &inside), CallLimits::default()).unwrap();
    let (swap, link) = (inside.join("swap"), inside.join("link"));
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let _done = Done(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &swap, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let mut seen = BTreeSet::new();
        let mut opened = 0;
        // Until it was met as both.
        while opened < 2_000 || (seen.len() < 2 && opened < 1_000_000) {
            let outcome = runtime().call(&prepared, Call::default()).unwrap();
            assert_eq!(outcome.output[0], 1, "one directory");
            seen.insert(outcome.output[1]);
            opened += 1;
        }
        seen
    });
    assert!(!seen.contains(&0), "what lies outside was opened");
    assert!(seen.len() >= 2, "it was never swapped: {seen:?}");
}
