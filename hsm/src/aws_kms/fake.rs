//! A service that answers as KMS does, with software keys: what emulators do not get right is tested here.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::algorithm::{KeyAlgorithm, SignatureAlgorithm};
use crate::signer::Input;
use crate::software::PrivateKey;

/// What the next signatures meet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// Works.
    Well,
    /// Answers with this error of the service and status.
    Refusing(&'static str, u16),
    /// Takes the request and hangs up.
    HangingUp,
    /// Answers with a signature of something else.
    Lying,
}

struct Key {
    private: PrivateKey,
    tags: Value,
}

struct State {
    keys: HashMap<String, Key>,
    mood: Mood,
    signatures: usize,
}

pub(super) struct Fake {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { keys: HashMap::new(), mood: Mood::Well, signatures: 0 };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (connection, shared) = (connection.unwrap(), Arc::clone(&shared));
                std::thread::spawn(move || serve(connection, &shared));
            }
        });
        Self { address, state }
    }

    pub(super) fn mood(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// How often it was asked to sign.
    pub(super) fn signatures(&self) -> usize {
        self.state.lock().unwrap().signatures
    }
}

/// Answers the requests of one connection until it ends.
fn serve(connection: TcpStream, state: &Mutex<State>) {
    let mut writer = connection.try_clone().unwrap();
    let mut reader = BufReader::new(connection);
    loop {
        let (mut target, mut length, mut line) = (String::new(), 0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let header = line.trim_end().to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if header.starts_with("x-amz-target:") {
                target = line.trim_end().rsplit('.').next().unwrap().to_owned();
            }
            if header.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let asked: Value = serde_json::from_slice(&body).unwrap();
        let Some((status, answer)) = answer(&target, &asked, &mut state.lock().unwrap()) else { return };
        let text = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(text.as_bytes())).is_err() {
            return;
        }
    }
}

/// Status and answer; none hangs up.
fn answer(target: &str, asked: &Value, state: &mut State) -> Option<(u16, Value)> {
    let missing = || Some((400, json!({ "__type": "NotFoundException", "message": "no such key" })));
    if target == "CreateKey" {
        let algorithm = match asked["KeySpec"].as_str().unwrap() {
            "ECC_NIST_P256" => KeyAlgorithm::EcdsaP256,
            "ECC_NIST_P384" => KeyAlgorithm::EcdsaP384,
            "RSA_3072" => KeyAlgorithm::Rsa3072,
            "RSA_4096" => KeyAlgorithm::Rsa4096,
            other => panic!("{other}"),
        };
        let id = format!("arn:aws:kms:eu-test-1:111122223333:key/{:08}", state.keys.len());
        let key = Key { private: PrivateKey::generate(algorithm).unwrap(), tags: asked["Tags"].clone() };
        state.keys.insert(id.clone(), key);
        return Some((200, json!({ "KeyMetadata": { "KeyId": id, "Arn": id } })));
    }
    if target == "ListKeys" {
        let keys: Vec<Value> = state.keys.keys().map(|id| json!({ "KeyId": id, "KeyArn": id })).collect();
        return Some((200, json!({ "Keys": keys, "Truncated": false })));
    }
    let id = asked["KeyId"].as_str().unwrap();
    let Some(key) = state.keys.get(id) else { return missing() };
    match target {
        "ListResourceTags" => Some((200, json!({ "Tags": key.tags, "Truncated": false }))),
        "GetPublicKey" => {
            let spki = STANDARD.encode(key.private.public_key().unwrap().spki_der());
            Some((200, json!({ "KeyId": id, "PublicKey": spki, "KeyUsage": "SIGN_VERIFY" })))
        }
        "Sign" => {
            state.signatures += 1;
            let mut bytes = STANDARD.decode(asked["Message"].as_str().unwrap()).unwrap();
            match state.mood {
                Mood::Well => {}
                Mood::Refusing(code, status) => {
                    return Some((status, json!({ "__type": code, "message": "as told" })));
                }
                Mood::HangingUp => return None,
                Mood::Lying => bytes[0] ^= 1,
            }
            let algorithm = algorithm(asked["SigningAlgorithm"].as_str().unwrap());
            // As the service does: a digest is signed as it is, a message is hashed and may have 4,096 bytes.
            let input = match asked["MessageType"].as_str().unwrap() {
                "DIGEST" => Input::Digest(&bytes),
                _ if bytes.len() > 4096 => {
                    return Some((400, json!({ "__type": "ValidationException", "message": "too long" })));
                }
                _ => Input::Message(&bytes),
            };
            let signature = key.private.sign(input, algorithm).unwrap();
            Some((200, json!({ "KeyId": id, "Signature": STANDARD.encode(signature.as_bytes()) })))
        }
        other => panic!("{other}"),
    }
}

fn algorithm(name: &str) -> SignatureAlgorithm {
    match name {
        "ECDSA_SHA_256" => SignatureAlgorithm::EcdsaP256Sha256,
        "ECDSA_SHA_384" => SignatureAlgorithm::EcdsaP384Sha384,
        "RSASSA_PKCS1_V1_5_SHA_256" => SignatureAlgorithm::RsaPkcs1Sha256,
        "RSASSA_PKCS1_V1_5_SHA_384" => SignatureAlgorithm::RsaPkcs1Sha384,
        "RSASSA_PKCS1_V1_5_SHA_512" => SignatureAlgorithm::RsaPkcs1Sha512,
        "RSASSA_PSS_SHA_256" => SignatureAlgorithm::RsaPssSha256,
        "RSASSA_PSS_SHA_384" => SignatureAlgorithm::RsaPssSha384,
        "RSASSA_PSS_SHA_512" => SignatureAlgorithm::RsaPssSha512,
        other => panic!("{other}"),
    }
}
