//! GnuTLS reads and verifies the chain.

use mentat_tests::agent::enrol;
use mentat_tests::stack::Stack;

use crate::run;

#[test]
fn gnutls_verifies_the_chain() {
    if std::process::Command::new("certtool").arg("--version").output().is_err() {
        mentat_tests::skip::skipped("certtool is not installed (Debian: apt-get install gnutls-bin)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let (cert, _) = enrol(&stack, "dev@example.com", "signing");
    let root = stack.dir().join("ca-service/chains/root.pem").display().to_string();
    let (ok, said) = run("certtool", &["--verify", "--load-ca-certificate", &root, "--infile", &cert]);
    assert!(ok, "{said}");
}
