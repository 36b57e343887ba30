//! An OCI registry in memory, on a port of the loopback address: as much of the distribution specification as a release needs,
//! with a login where one is wanted, and with bytes that can be changed behind a client's back.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Whether the registry lists referrers itself, or clients do with a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Referrers {
    /// It does.
    Listed,
    /// It answers 404, as older registries do.
    Unknown,
}

/// Whether the registry asks who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// Anybody.
    Open,
    /// The user `u` with the password `secret`, for a token.
    Token,
}

/// What the registry holds; tests may change it.
#[derive(Debug, Default)]
pub struct Shelf {
    /// Blobs by digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// Manifests by digest or tag: media type and bytes.
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
    /// Methods and paths that were asked for, in order.
    pub requests: Vec<String>,
}

/// A running registry; it ends with the test's process.
pub struct Registry {
    /// Host and port.
    pub host: String,
    /// What it holds, of all repositories together.
    pub shelf: Arc<Mutex<Shelf>>,
}

struct Request {
    method: String,
    path: String,
    content_type: String,
    authorization: String,
    body: Vec<u8>,
}

struct Answer(&'static str, Vec<(&'static str, String)>, Vec<u8>);

impl Registry {
    /// Starts one.
    ///
    /// # Panics
    ///
    /// When no port is free.
    pub fn start(referrers: Referrers, login: Login) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let (held, own) = (Arc::clone(&shelf), host.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that goes away is its own affair.
                serve(stream, &mut held.lock().unwrap(), &own, referrers, login).ok();
            }
        });
        Self { host, shelf }
    }

    /// A reference below this registry.
    pub fn reference(&self, rest: &str) -> String {
        format!("oci://{}/{rest}", self.host)
    }
}

fn serve(
    mut stream: TcpStream,
    shelf: &mut Shelf,
    host: &str,
    referrers: Referrers,
    login: Login,
) -> std::io::Result<()> {
    let request = read(&mut stream)?;
    shelf.requests.push(format!("{} {}", request.method, request.path));
    let Answer(status, headers, body) = if login == Login::Token && request.path.starts_with("/token") {
        // u:secret
        match request.authorization.as_str() {
            "Basic dTpzZWNyZXQ=" => Answer("200 OK", vec![], br#"{"token":"t0ken"}"#.to_vec()),
            _ => Answer("401 Unauthorized", vec![], Vec::new()),
        }
    } else if login == Login::Token && request.authorization != "Bearer t0ken" {
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"test\"");
        Answer("401 Unauthorized", vec![("WWW-Authenticate", challenge)], Vec::new())
    } else {
        answer(&request, shelf, referrers)
    };
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if request.method != "HEAD" {
        stream.write_all(&body)?;
    }
    Ok(())
}

fn read(stream: &mut TcpStream) -> std::io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Request {
        method,
        path,
        content_type: header("content-type"),
        authorization: header("authorization"),
        body,
    })
}

/// What the distribution specification answers. Repositories are not told apart.
fn answer(request: &Request, shelf: &mut Shelf, referrers: Referrers) -> Answer {
    let not_found = || Answer("404 Not Found", vec![], Vec::new());
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let mut parts: Vec<&str> = path.trim_end_matches('/').rsplitn(3, '/').collect();
    parts.resize(3, "");
    match (request.method.as_str(), parts[1], parts[0]) {
        ("POST", "blobs", "uploads") => {
            Answer("202 Accepted", vec![("Location", format!("{path}session?state=1"))], Vec::new())
        }
        ("PUT", "uploads", "session") => {
            let digest = query.split('&').find_map(|pair| pair.strip_prefix("digest=")).unwrap_or_default();
            shelf.blobs.insert(digest.replace("%3A", ":"), request.body.clone());
            Answer("201 Created", vec![], Vec::new())
        }
        ("GET" | "HEAD", "blobs", digest) => match shelf.blobs.get(digest) {
            Some(bytes) => Answer("200 OK", vec![], bytes.clone()),
            None => not_found(),
        },
        ("GET" | "HEAD", "manifests", name) => match shelf.manifests.get(name) {
            Some((kind, bytes)) => Answer("200 OK", vec![("Content-Type", kind.clone())], bytes.clone()),
            None => not_found(),
        },
        ("PUT", "manifests", name) => {
            let manifest = (request.content_type.clone(), request.body.clone());
            shelf.manifests.insert(name.to_owned(), manifest);
            let subject = serde_json::from_slice::<serde_json::Value>(&request.body)
                .ok()
                .and_then(|value| value["subject"]["digest"].as_str().map(str::to_owned));
            let told = subject.filter(|_| referrers == Referrers::Listed);
            let headers = told.map(|subject| ("OCI-Subject", subject)).into_iter().collect();
            Answer("201 Created", headers, Vec::new())
        }
        ("GET", "referrers", digest) if referrers == Referrers::Listed => {
            let kind = "application/vnd.oci.image.index.v1+json";
            let list = listed(shelf, digest).to_string();
            Answer("200 OK", vec![("Content-Type", kind.to_owned())], list.into_bytes())
        }
        _ => not_found(),
    }
}

fn listed(shelf: &Shelf, subject: &str) -> serde_json::Value {
    let mut manifests = Vec::new();
    for (name, (kind, bytes)) in &shelf.manifests {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else { continue };
        if name.starts_with("sha256:") && value["subject"]["digest"] == subject {
            manifests.push(serde_json::json!({"mediaType": kind, "digest": name, "size": bytes.len(),
                "artifactType": value["artifactType"]}));
        }
    }
    serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests})
}
