//! A worker that was started with more than its pipes. In a program of its own: what is left open here reaches every process that
//! is started meanwhile.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};

#[test]
fn a_worker_with_a_descriptor_that_is_not_its_own_reads_nothing() {
    // What this test was started with is not what it is about.
    close_fds::set_fds_cloexec(3, &[]);
    let worker = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_executor-compiler"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
    };
    // An empty input is no job.
    assert_eq!(worker().status.code(), Some(74));
    let secret = tempfile::tempfile().unwrap();
    fcntl_setfd(&secret, FdFlags::empty()).unwrap();
    let refused = worker();
    assert_eq!((refused.status.code(), refused.stdout), (Some(70), Vec::new()));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("descriptors were left open for it: 4 instead of 3"), "{said}");
}
