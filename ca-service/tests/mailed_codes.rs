//! Codes that prove an e-mail address, against a mail server of the test's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![cfg(feature = "smtp")]

mod fixture;
#[path = "../../tests/src/skip.rs"]
mod skip;

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use ca_api::RequestCode;
use ca_api::client::ClientError;
use ca_service::Config;
use fixture::{Server, Site, enrol_request, key};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Letters as they came: recipient and content. Refuses every letter while it is told to.
#[derive(Clone, Default)]
struct Post {
    letters: Arc<Mutex<Vec<(String, String)>>>,
    refuse: Arc<Mutex<bool>>,
}

impl Post {
    async fn start(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let this = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                tokio::spawn(async move { this.serve(stream).await });
            }
        });
        port
    }

    async fn serve(&self, stream: TcpStream) {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let mut to = String::new();
        write.write_all(b"220 test ready\r\n").await.unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            let upper = line.to_uppercase();
            let answer: &[u8] = match upper.split([' ', ':']).next().unwrap() {
                "EHLO" => b"250-test\r\n250 8BITMIME\r\n",
                "MAIL" if *self.refuse.lock().unwrap() => b"451 not now\r\n",
                "RCPT" if upper.contains("NOBODY@") => b"550 no such user\r\n",
                "RCPT" => {
                    to = line.split(['<', '>']).nth(1).unwrap().to_owned();
                    b"250 ok\r\n"
                }
                "DATA" => {
                    write.write_all(b"354 go on\r\n").await.unwrap();
                    let mut letter = String::new();
                    while let Some(line) = lines.next_line().await.unwrap() {
                        if line == "." {
                            break;
                        }
                        letter.push_str(&line);
                        letter.push('\n');
                    }
                    self.letters.lock().unwrap().push((to.clone(), letter));
                    b"250 taken\r\n"
                }
                "QUIT" => {
                    let _ = write.write_all(b"221 bye\r\n").await;
                    return;
                }
                _ => b"250 ok\r\n",
            };
            write.write_all(answer).await.unwrap();
        }
    }

    /// The only letter since the last look: its recipient, its text and the code in it.
    fn code(&self) -> (String, String, String) {
        let mut letters = std::mem::take(&mut *self.letters.lock().unwrap());
        assert_eq!(letters.len(), 1, "{letters:?}");
        let (to, text) = letters.remove(0);
        let code = text.lines().find(|line| line.starts_with("mentat_enrol_")).expect("a code").to_owned();
        (to, text, code)
    }
}

fn section(port: u16) -> String {
    format!(
        "[mail]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nfrom = \"Certificates <ca@example.org>\"\n\
         domains = [\"example.com\"]\nprofile = \"developer\"\n"
    )
}

fn refused(outcome: Result<impl std::fmt::Debug, ClientError>) -> (u16, String) {
    match outcome.unwrap_err() {
        ClientError::Problem(problem) => (problem.status, problem.code),
        other => panic!("{other}"),
    }
}

async fn site(post: &Post) -> (Site, Server) {
    let site = Site::with(&section(post.start().await)).await;
    let server = site.serve().await;
    (site, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_from_the_letter_is_good_for_one_certificate_of_the_address() {
    let post = Post::default();
    let (_site, server) = site(&post).await;
    let asked = RequestCode { email: "dev@example.com".to_owned() };
    let sent = server.client().request_code(&asked).await.unwrap();
    let (to, text, code) = post.code();
    assert_eq!(to, "dev@example.com");
    assert!(text.contains("ca@example.org") && text.contains("15 minutes"), "{text}");
    assert!(sent.expires_at > 0);
    let issued = server.client().enrol(&enrol_request(&code, &key(), None)).await.unwrap();
    let record = server.admin().show(&issued.serial).await.unwrap();
    assert_eq!((record.identity.unwrap().as_str(), &*record.profile), ("dev@example.com", "developer"));
    let again = server.client().enrol(&enrol_request(&code, &key(), None)).await;
    assert_eq!(refused(again), (409, "token_used".to_owned()));
    server.finish().await;
}

/// `mentatctl pki request-cert --by-mail` for an address; none, said loudly, where the command is not built beside this suite.
fn request_by_mail(site: &Site, server: &Server, email: &str, name: &str) -> Option<Child> {
    let program = Path::new(env!("CARGO_BIN_EXE_ca-service")).with_file_name("mentatctl");
    if !program.is_file() {
        skip::skipped(format_args!("{} is not built (make interop-smtp)", program.display()));
        return None;
    }
    let file = |extension: &str| site.folder.path().join(format!("{name}.{extension}"));
    let mut command = Command::new(program);
    command.env("MENTAT_HOME", site.folder.path()).args(["--json", "pki", "request-cert", "--by-mail"]);
    command.args(["--email", email, "--ca-url", &server.base]);
    command.arg("--output").arg(file("crt")).arg("--key").arg(file("key"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command.spawn().unwrap())
}

/// Types a code, and waits for the end.
async fn typed(mut child: Child, code: &str) -> Output {
    let mut stdin = child.stdin.take().unwrap();
    let code = format!("{code}\n");
    let ended = tokio::task::spawn_blocking(move || {
        // A command that refuses early closes its input.
        let _ = stdin.write_all(code.as_bytes());
        drop(stdin);
        child.wait_with_output().unwrap()
    });
    ended.await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_asks_for_a_code_and_enrols_with_the_one_of_the_letter() {
    let post = Post::default();
    let (site, server) = site(&post).await;
    let Some(child) = request_by_mail(&site, &server, "dev@example.com", "first") else { return };
    // The command waits for the code that only the letter has.
    for _ in 0..1_200 {
        if !post.letters.lock().unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (to, _, code) = post.code();
    assert_eq!(to, "dev@example.com");
    assert!(!site.folder.path().join("first.crt").exists());
    let output = typed(child, &code).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("a code was sent to dev@example.com; it is good until"),
        "{}",
        said(&output)
    );
    let issued: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let record = server.admin().show(issued["serial"].as_str().unwrap()).await.unwrap();
    assert_eq!((record.identity.unwrap().as_str(), &*record.profile), ("dev@example.com", "developer"));
    let written = std::fs::read_to_string(site.folder.path().join("first.crt")).unwrap();
    assert!(written.starts_with(&record.certificate.unwrap()), "{written}");

    // A code of an earlier letter, one that nobody sent, and an address that gets none: no certificate, no key.
    let unknown = format!("mentat_enrol_{}", "0".repeat(48));
    for (name, email, typed_code, expected) in [
        ("again", "dev@example.com", code.as_str(), "token_used"),
        ("guessed", "dev@example.com", &unknown, "token_unknown"),
        ("elsewhere", "dev@example.org", &code, "address_not_allowed"),
    ] {
        let child = request_by_mail(&site, &server, email, name).unwrap();
        let output = typed(child, typed_code).await;
        assert_eq!(output.status.code(), Some(1), "{name}: {}", said(&output));
        // With `--json` the refusal is there too, by its code.
        let all = [output.stdout.clone(), output.stderr.clone()].concat();
        assert!(String::from_utf8_lossy(&all).contains(expected), "{name}: {}", said(&output));
        for extension in ["crt", "key"] {
            assert!(!site.folder.path().join(format!("{name}.{extension}")).exists(), "{name}");
        }
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_go_to_the_configured_domains_only_and_not_without_end() {
    let post = Post::default();
    let (_site, server) = site(&post).await;
    let ask =
        async |email: &str| server.client().request_code(&RequestCode { email: email.to_owned() }).await;
    for elsewhere in ["dev@example.org", "dev@sub.example.com", "dev@example.com.evil.test"] {
        assert_eq!(refused(ask(elsewhere).await), (403, "address_not_allowed".to_owned()), "{elsewhere}");
    }
    for malformed in
        ["", "example.com", "a@example.com\r\nRCPT TO:<b@example.org>@example.com", "two@at@example.com"]
    {
        let (status, code) = refused(ask(malformed).await);
        assert!((400..500).contains(&status), "{malformed:?}: {status} {code}");
    }
    assert!(post.letters.lock().unwrap().is_empty(), "nobody was written to");
    // A letter that the mail server does not take: later is better.
    *post.refuse.lock().unwrap() = true;
    assert_eq!(refused(ask("dev@example.com").await), (503, "mail_unavailable".to_owned()));
    *post.refuse.lock().unwrap() = false;
    // One that it never takes is answered like any other: nobody learns which addresses there are.
    let answer = ask("nobody@example.com").await.unwrap();
    let known = ask("somebody@example.com").await.unwrap();
    assert!((known.expires_at - answer.expires_at).abs() <= 5, "{answer:?} {known:?}");
    assert_eq!(post.code().0, "somebody@example.com");
    for _ in 0..2 {
        ask("dev@example.com").await.unwrap();
    }
    assert_eq!(refused(ask("DEV@example.com").await), (429, "too_many_requests".to_owned()));
    ask("other@example.com").await.unwrap();
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_without_a_mail_server_says_so() {
    let site = Site::new().await;
    let server = site.serve().await;
    let outcome = server.client().request_code(&RequestCode { email: "dev@example.com".to_owned() }).await;
    assert_eq!(refused(outcome), (404, "no_mail".to_owned()));
    let Some(child) = request_by_mail(&site, &server, "dev@example.com", "signing") else { return };
    let output = typed(child, "").await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    // With --json an error is a line of standard output.
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("no_mail"), "{told} {}", said(&output));
}

#[test]
fn a_mail_server_that_could_be_overheard_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let with = |section: &str| {
        let text = fixture::settings_text(folder.path(), section, "");
        Config::parse(&text).unwrap().validate().map(|_| ()).map_err(|refusal| refusal.to_string())
    };
    let good = section(25);
    with(&good).unwrap();
    for (from, to, why) in [
        ("\"127.0.0.1\"", "\"mail.example.org\"", "another machine"),
        ("[\"example.com\"]", "[]", "mail.domains"),
        ("[\"example.com\"]", "[\"Example.com\"]", "mail.domains"),
        ("\"developer\"\n", "\"nobody\"\n", "no profile nobody"),
        ("tls = \"none\"", "tls = \"none\"\nuser = \"ca\"", "belong together"),
        ("tls = \"none\"", "tls = \"none\"\ncode_minutes = 61", "mail.code_minutes"),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good);
        let refused = with(&text).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
}
