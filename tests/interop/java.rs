//! Java's PKIX accepts what is good and refuses what is revoked, by lists and by OCSP.

use mentat_tests::stack::Stack;

use crate::revoked::{Pair, Subject};
use crate::{have, run};

#[tokio::test]
async fn java_accepts_what_is_good_and_refuses_what_is_revoked() {
    if !have("java", "default-jdk-headless") || !have("openssl", "openssl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    let pair = Pair::of(&stack, dir.path()).await;
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/Pkix.java");
    let judge = |subject: &Subject, ocsp: &str, crls: &[&str]| {
        let mut args = vec![program, &pair.root, &subject.leaf, &pair.issuer, ocsp];
        args.extend(crls);
        run("java", &args).1
    };
    for (subject, expected) in [(&pair.good, "valid"), (&pair.revoked, "refused: REVOKED: ")] {
        for ocsp in ["-", &pair.ocsp] {
            let said = judge(subject, ocsp, &[&subject.crl, &pair.root_crl]);
            assert!(said.starts_with(expected), "{ocsp}: {said}");
        }
    }
    // Java finds the list of the shard where the certificate says it is. Without an answer it refuses.
    let said = judge(&pair.good, "-", &[&pair.root_crl]);
    assert!(said.starts_with("valid"), "{said}");
    stack.down();
    let said = judge(&pair.good, "-", &[&pair.root_crl]);
    assert!(said.starts_with("refused: UNDETERMINED_REVOCATION_STATUS"), "{said}");
}
