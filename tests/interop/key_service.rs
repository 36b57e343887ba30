//! A developer's key in a key service, run by `make interop-kms`: one that answers as AWS KMS does, and moto, an emulator. Whether
//! mentatctl was built with the backend, it says itself.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hsm::developer::DeveloperKey;
use hsm::{Input, KeyAlgorithm, Purpose, SignatureAlgorithm, Signer as _, SigningIntent};
use mentat_tests::agent::{sentiment, token};
use mentat_tests::binary::binary;
use mentat_tests::command::{Finished, finish};
use mentat_tests::moto::Moto;
use mentat_tests::stack::Stack;
use serde_json::{Value, json};

/// Keys by id, with their tags.
type Keys = Arc<Mutex<BTreeMap<String, (DeveloperKey, Value)>>>;

/// Starts a service with P-256 keys; its address.
fn service() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let keys = Keys::default();
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let keys = Arc::clone(&keys);
            std::thread::spawn(move || serve(connection, &keys));
        }
    });
    format!("http://{address}")
}

/// Answers the requests of one connection until it ends.
fn serve(connection: TcpStream, keys: &Keys) {
    let mut writer = connection.try_clone().unwrap();
    let mut reader = BufReader::new(connection);
    loop {
        let (mut target, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().unwrap();
                }
                Some((name, value)) if name.eq_ignore_ascii_case("x-amz-target") => {
                    target = value.rsplit('.').next().unwrap().to_owned();
                }
                _ if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let asked: Value = serde_json::from_slice(&body).unwrap();
        let (status, answer) = answer(&target, &asked, &mut keys.lock().unwrap());
        let text = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        if writer.write_all(format!("{head}{text}").as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(target: &str, asked: &Value, keys: &mut BTreeMap<String, (DeveloperKey, Value)>) -> (u16, Value) {
    match target {
        "CreateKey" => {
            assert_eq!(asked["KeySpec"], "ECC_NIST_P256", "{asked}");
            let id = format!("arn:aws:kms:eu-test-1:111122223333:key/{:08}", keys.len());
            let key = DeveloperKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
            keys.insert(id.clone(), (key, asked["Tags"].clone()));
            return (200, json!({ "KeyMetadata": { "KeyId": id, "Arn": id } }));
        }
        "ListKeys" => {
            let keys: Vec<Value> = keys.keys().map(|id| json!({ "KeyId": id, "KeyArn": id })).collect();
            return (200, json!({ "Keys": keys, "Truncated": false }));
        }
        _ => {}
    }
    let id = asked["KeyId"].as_str().unwrap();
    let Some((key, tags)) = keys.get(id) else {
        return (400, json!({ "__type": "NotFoundException", "message": "no such key" }));
    };
    match target {
        "ListResourceTags" => (200, json!({ "Tags": tags, "Truncated": false })),
        "GetPublicKey" => {
            let spki = STANDARD.encode(key.public_key().spki_der());
            (200, json!({ "KeyId": id, "PublicKey": spki, "KeyUsage": "SIGN_VERIFY" }))
        }
        "Sign" => {
            let bytes = STANDARD.decode(asked["Message"].as_str().unwrap()).unwrap();
            let input = match asked["MessageType"].as_str() {
                Some("DIGEST") => Input::Digest(&bytes),
                _ => Input::Message(&bytes),
            };
            let intent = SigningIntent::fresh(Purpose::Statement).unwrap();
            let signature = key.sign(input, SignatureAlgorithm::EcdsaP256Sha256, &intent).unwrap();
            (200, json!({ "KeyId": id, "Signature": STANDARD.encode(signature.as_bytes()) }))
        }
        other => panic!("{other}"),
    }
}

/// `mentatctl` with credentials of the service in its environment.
fn ctl(stack: &Stack, args: &[&str], input: &[u8]) -> Finished {
    let mut command = Command::new(binary("mentatctl"));
    command.env("MENTAT_HOME", stack.home()).arg("--stack").arg(stack.dir()).args(args);
    command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
    finish(command, input)
}

/// Asks for a certificate for a key in the service; none where the backend is not there.
fn certified(stack: &Stack, key: &str, output: &str) -> Option<Finished> {
    let token = token(stack, "dev@example.org");
    let args = ["pki", "request-cert", "--email", "dev@example.org", "--key", key, "--output", output];
    let said = ctl(stack, &args, token.as_bytes());
    if said.stderr.contains("cargo feature aws-kms") {
        mentat_tests::skip::skipped(
            "mentatctl was built without the cargo feature aws-kms (make interop-kms)",
        );
        return None;
    }
    Some(said)
}

#[test]
fn a_key_that_never_leaves_its_service_signs_and_is_certified() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let key = format!("awskms:object=release?region=eu-test-1&endpoint={}", service());
    let certificate = dir.path().join("release.crt").to_str().unwrap().to_owned();
    let Some(said) = certified(&stack, &key, &certificate) else { return };
    said.success();
    let agent = sentiment(dir.path(), "agent", |manifest| manifest);
    let agent = agent.to_str().unwrap();
    ctl(&stack, &["sign", agent, "--cert", &certificate, "--key", &key], b"").success();
    stack.ctl(&["verify", agent]).success();
    // By the key alone: the authority says which certificate is its own.
    ctl(&stack, &["sign", agent, "--key", &key], b"").success();
    stack.ctl(&["verify", agent]).success();
    stack.ctl_with_input(&["run", agent, "--input", "-"], b"good").success();
    let other = key.replace("object=release", "object=nobody");
    ctl(&stack, &["sign", agent, "--cert", &certificate, "--key", &other], b"").refused(2, "key");
    // Without credentials the service is not asked.
    stack.ctl(&["sign", agent, "--key", &key]).refused(2, "AWS_ACCESS_KEY_ID");
}

/// moto makes the key and knows it again. It hashes digests once more, so that its signatures are of something else: none of them
/// may go anywhere.
#[test]
fn an_emulators_wrong_signatures_end_before_anything_is_asked_for_with_them() {
    if std::env::var_os("MENTAT_MOTO").is_none() {
        mentat_tests::skip::skipped(
            "MENTAT_MOTO is not set; `make interop-kms` sets it where moto is installed",
        );
        return;
    }
    let moto = Moto::start();
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let key = format!("awskms:object=release?region=eu-test-1&endpoint={}", moto.endpoint);
    let certificate = dir.path().join("release.crt").to_str().unwrap().to_owned();
    for _ in 0..2 {
        let Some(said) = certified(&stack, &key, &certificate) else { return };
        assert_ne!(said.code, 0, "{}", said.stdout);
        assert!(said.stderr.contains("did not verify against the pinned public key"), "{}", said.stderr);
        assert!(!std::path::Path::new(&certificate).exists());
    }
    let issued = stack.ctl(&["--json", "pki", "list", "--identity", "dev@example.org"]).success().stdout;
    assert_eq!(issued, "", "nothing was issued");
}
