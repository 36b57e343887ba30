//! The CA for code signing is revoked: whoever checks the whole chain refuses what it issued, though no list of its own names it.

use mentat_tests::stack::Stack;

use crate::revoked::Pair;
use crate::{have, run};

#[tokio::test]
async fn below_a_revoked_issuer_every_program_refuses_what_it_accepted_before() {
    if !have("openssl", "openssl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let pair = Pair::of(&stack, dir.path()).await;
    let file = |name: &str| dir.path().join(name).display().to_string();
    let lists = |pair: &Pair| {
        let (ok, said) =
            run("openssl", &["crl", "-inform", "DER", "-in", &pair.root_crl, "-out", &file("root.crl.pem")]);
        assert!(ok, "{said}");
        let text =
            [&pair.good.crl_pem, &file("root.crl.pem")].map(|path| std::fs::read_to_string(path).unwrap());
        std::fs::write(file("all.crl.pem"), text.concat()).unwrap();
    };
    let chain = [&pair.good.leaf, &pair.issuer].map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(file("chain.pem"), chain.concat()).unwrap();
    let all = file("all.crl.pem");

    let by_openssl = |extent: &str| {
        let (root, issuer) = (pair.root.as_str(), pair.issuer.as_str());
        let chain =
            ["-CAfile", root, "-untrusted", issuer, "-CRLfile", &all, "-purpose", "any", &pair.good.leaf];
        run("openssl", &[&["verify", extent][..], &chain].concat())
    };
    let by_gnutls = || {
        let (root, root_crl, chain) = (pair.root.as_str(), file("root.crl.pem"), file("chain.pem"));
        let chain = ["--load-ca-certificate", root, "--load-crl", &root_crl, "--infile", &chain];
        run("certtool", &[&["--verify"][..], &chain].concat())
    };
    let by_java = || {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/Pkix.java");
        let (leaf, issuer) = (pair.good.leaf.as_str(), pair.issuer.as_str());
        run("java", &[program, &pair.root, leaf, issuer, "-", &pair.good.crl, &pair.root_crl]).1
    };
    let gnutls = have("certtool", "gnutls-bin");
    let java = have("java", "default-jdk-headless");

    lists(&pair);
    let (ok, said) = by_openssl("-crl_check_all");
    assert!(ok, "{said}");
    if gnutls {
        let (ok, said) = by_gnutls();
        assert!(ok && said.contains("The certificate is trusted"), "{said}");
    }
    if java {
        let said = by_java();
        assert!(said.starts_with("valid"), "{said}");
    }

    pair.revoke_issuer(&stack).await;
    lists(&pair);
    // The leaf is on no list: what is asked about it alone still passes.
    let (ok, said) = by_openssl("-crl_check");
    assert!(ok, "{said}");
    let (ok, said) = by_openssl("-crl_check_all");
    assert!(!ok && said.contains("error 23 at 1 depth lookup: certificate revoked"), "{said}");
    if gnutls {
        let (_, said) = by_gnutls();
        assert!(said.contains("NOT trusted") && said.contains("revoked"), "{said}");
    }
    if java {
        let said = by_java();
        assert!(said.starts_with("refused: REVOKED: "), "{said}");
    }
}
