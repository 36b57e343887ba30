//! GnuTLS reads and verifies the chain, the revocation lists and the OCSP answers.

use mentat_tests::agent::enrol;
use mentat_tests::stack::Stack;

use crate::revoked::Pair;
use crate::{have, run};

#[test]
fn gnutls_verifies_the_chain() {
    if !have("certtool", "gnutls-bin") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let (cert, _) = enrol(&stack, "dev@example.com", "signing");
    let root = stack.dir().join("ca-service/chains/root.pem").display().to_string();
    let (ok, said) = run("certtool", &["--verify", "--load-ca-certificate", &root, "--infile", &cert]);
    assert!(ok, "{said}");
}

#[tokio::test]
async fn gnutls_verifies_lists_and_ocsp_answers() {
    if !have("ocsptool", "gnutls-bin") || !have("openssl", "openssl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let pair = Pair::of(&stack, dir.path()).await;
    for (subject, status) in [(&pair.good, "good"), (&pair.revoked, "revoked")] {
        let list = |ca: &str| {
            run("certtool", &["--verify-crl", "--load-ca-certificate", ca, "--infile", &subject.crl_pem])
        };
        let (ok, said) = list(&pair.issuer);
        assert!(ok, "{said}");
        let (ok, said) = list(&pair.root);
        assert!(!ok, "another authority's key verifies nothing: {said}");
        let ask = format!("--ask={}", pair.ocsp);
        let (leaf, issuer) = (subject.leaf.as_str(), pair.issuer.as_str());
        let args = [&ask, "--load-cert", leaf, "--load-issuer", issuer, "--load-trust", issuer];
        let (ok, said) = run("ocsptool", &args);
        assert!(ok && said.contains("Verifying OCSP Response: Success"), "{said}");
        assert!(said.contains(&format!("Certificate Status: {status}")), "{said}");
    }
}
