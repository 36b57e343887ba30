//! People who approve certificates of a stack, known by identity tokens of its development issuer.

use std::path::{Path, PathBuf};

use crate::stack::Stack;

/// The audience of tokens that give roles.
const AUDIENCE: &str = "ca-roles";

/// Who makes one-time tokens: where people must approve, those of a shared token are worth nothing.
const MAKER: &str = "ivan@example.com";

/// A one-time token for an address that somebody in particular made.
///
/// # Panics
///
/// When the authority refuses.
pub fn invite(stack: &Stack, dir: &Path, address: &str) -> String {
    let maker = identity(stack, dir, MAKER);
    let maker = maker.to_str().expect("a readable path");
    let asked = ["--json", "pki", "token", "create", "--email", address, "--admin-token-file", maker];
    stack.ctl(&asked).success().json()["token"].as_str().expect("a token").to_owned()
}

/// Has every developer's certificate of a stack need so many of these people, and restarts it.
///
/// # Panics
///
/// When the configuration cannot be changed.
pub fn demand(stack: &mut Stack, needed: u8, people: &[&str]) {
    assert_eq!(stack.down(), 0);
    let path = stack.dir().join("config/ca-service.toml");
    let mut text = std::fs::read_to_string(&path).expect("the authority's configuration");
    let issuer = stack.text("/oidc/url");
    for (role, people) in [("approver", people), ("issuer", &[MAKER][..])] {
        let section = format!(
            "\n[[roles.oidc]]\nissuer = \"{issuer}\"\naudience = \"{AUDIENCE}\"\nrole = \"{role}\"\n\
             [roles.oidc.claims]\nemail = {people:?}\n"
        );
        text.push_str(&section);
    }
    text.push_str(&format!("[enrolment]\nprofile_approvals = {{ developer = {needed} }}\n"));
    std::fs::write(&path, text).expect("changing the authority's configuration");
    stack.restart();
}

/// Writes an identity token of somebody into a file below `dir`: good for one decision.
///
/// # Panics
///
/// When the issuer gives none.
pub fn identity(stack: &Stack, dir: &Path, email: &str) -> PathBuf {
    let secret =
        std::fs::read_to_string(stack.dir().join("secrets/oidc.secret")).expect("the issuer's secret");
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}&audience={AUDIENCE}",
        email.replace('@', "%40"),
        secret.trim()
    );
    let url = format!("{}/token", stack.text("/oidc/url"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answer: serde_json::Value = runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let request = client.post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
        request.send().await.expect("an answer of the issuer").json().await.expect("a token")
    });
    let path = dir.join(format!("{email}.token"));
    write_secret(&path, answer["id_token"].as_str().expect("an identity token"));
    path
}

fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).expect("a file");
    std::io::Write::write_all(&mut file, text.as_bytes()).expect("writing a token");
}

/// Approves a request as its text says now.
///
/// # Panics
///
/// When it is refused.
pub fn approve(stack: &Stack, dir: &Path, email: &str, id: &str) {
    let token = identity(stack, dir, email);
    let token = token.to_str().expect("a readable path");
    let shown = stack.ctl(&["--json", "pki", "approve", id, "--admin-token-file", token]).success().json();
    let digest = shown["statement_sha256"].as_str().expect("a digest");
    stack.ctl(&["pki", "approve", id, "--confirm", digest, "--admin-token-file", token]).success();
}

/// Ids of the requests that wait or were approved, oldest first.
///
/// # Panics
///
/// When they cannot be listed.
pub fn open_requests(stack: &Stack) -> Vec<String> {
    let listed = stack.ctl(&["--json", "pki", "requests"]).success().stdout;
    let requests =
        listed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a request"));
    requests.map(|request| request["status"]["id"].as_str().expect("an id").to_owned()).collect()
}
