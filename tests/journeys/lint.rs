//! What a running authority publishes is clean by the linter that everybody has at hand.

use mentat_tests::command::mentatctl;
use mentat_tests::stack::Stack;

#[test]
fn published_certificates_and_lists_are_clean_and_what_breaks_a_rule_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let config = std::fs::read_to_string(stack.dir().join("config/ca-service.toml")).unwrap();
    let config: toml::Value = toml::from_str(&config).unwrap();
    let base = config["status_url"].as_str().unwrap().to_owned();
    let fetch = |path: &str| {
        let url = format!("{base}{path}");
        let bytes = tokio::runtime::Runtime::new().unwrap().block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let answer = client.get(&url).send().await.unwrap().error_for_status().unwrap();
            answer.bytes().await.unwrap()
        });
        let file = dir.path().join(path.replace('/', "_"));
        std::fs::write(&file, bytes).unwrap();
        file.display().to_string()
    };
    let lint = |arguments: &[&str]| mentatctl(stack.home(), [&["lint"], arguments].concat());

    let (root, issuer) = (fetch("/ca/root.cer"), fetch("/ca/code-signing.cer"));
    lint(&["--kind", "root", &root]).success();
    lint(&["--kind", "issuer", &issuer]).success();
    let complete = fetch("/crl/code-signing.crl");
    lint(&["--kind", "crl", "--issuer", &issuer, &complete]).success();
    lint(&["--kind", "root-crl", "--issuer", &root, &fetch("/crl/root.crl")]).success();
    let shard = fetch("/crl/code-signing/0.crl");
    let url = format!("{base}/crl/code-signing/0.crl");
    lint(&["--kind", "crl", "--issuer", &issuer, "--shard-url", &url, &shard]).success();

    for (arguments, rule) in [
        (vec!["--kind", "crl", "--issuer", &issuer, &shard], "complete_crl_without_distribution_point"),
        (vec!["--kind", "crl", "--issuer", &root, &complete], "crl_issuer_byte_identical"),
        (vec!["--kind", "root", &issuer], "root_is_self_issued"),
        (vec!["--kind", "ocsp-response", &complete], "ocsp_response_parses"),
    ] {
        let found = lint(&arguments);
        assert_eq!(found.code, 1, "{arguments:?}: {}", found.stderr);
        assert!(found.stdout.contains(rule), "{arguments:?}: {}", found.stdout);
    }
    lint(&["--kind", "crl", &complete]).refused(2, "--issuer");
}
