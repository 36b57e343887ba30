//! The bucket on a service of these tests, which answers as S3 does, lies, or stays silent.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use service::ClientTls;

use super::super::tests::until;
use super::super::{MediaLimits, MediaStore};
use super::*;
use crate::abi::ErrorCode;
use crate::runtime::KillCause;

const LIMITS: MediaLimits = MediaLimits { object: 1 << 20, call: 4 << 20, store: 0 };
const SECRET: &str = "a-secret-that-nobody-reads";

/// How the service behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// As S3.
    Honest,
    /// Gives other bytes than it was given.
    Altering,
    /// Answers the first upload of an object as one that came in between of another.
    Busy,
    /// Gives more than anybody asked for, with no length before it.
    Endless,
    /// Answers 403.
    Forbidding,
    /// Leads somewhere else.
    Redirecting,
    /// Takes the request and says nothing.
    Silent,
}

#[derive(Default)]
struct Shelf {
    objects: HashMap<String, Vec<u8>>,
    requests: Vec<String>,
}

struct Fake {
    port: u16,
    shelf: Arc<Mutex<Shelf>>,
}

impl Fake {
    fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let (of_server, conflicts) = (Arc::clone(&shelf), Arc::new(AtomicUsize::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (shelf, conflicts) = (Arc::clone(&of_server), Arc::clone(&conflicts));
                std::thread::spawn(move || serve(stream, mood, &shelf, &conflicts));
            }
        });
        Self { port, shelf }
    }

    fn settings(&self, folder: &std::path::Path) -> S3Settings {
        let file = folder.join("credentials");
        std::fs::write(&file, format!("test-key\n{SECRET}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        S3Settings {
            url: format!("http://127.0.0.1:{}", self.port),
            region: "eu-test-1".into(),
            bucket: "media".into(),
            prefix: "mentat/".into(),
            style: BucketStyle::Path,
            credentials_file: file,
            timeout: Duration::from_secs(20),
            tls: ClientTls::new("media.s3", None, None, None).unwrap(),
        }
    }

    fn store(&self) -> (MediaStore, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = S3::new(&self.settings(folder.path())).unwrap();
        (MediaStore::over(Box::new(store), LIMITS), folder)
    }
}

/// One request, then the connection ends.
fn serve(mut stream: TcpStream, mood: Mood, shelf: &Mutex<Shelf>, conflicts: &AtomicUsize) {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(end) = read.windows(4).position(|end| end == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => read.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
    while read.len() < end + length {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => read.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let body = read[end..].to_vec();
    let first = head.lines().next().unwrap().to_owned();
    let (method, target) = first.split_once(' ').unwrap();
    let (path, query) = target.split_once(' ').unwrap().0.split_once('?').unwrap();
    shelf.lock().requests.push(format!("{method} {path}"));
    assert!(query.contains("X-Amz-Signature=") && query.contains("X-Amz-Credential=test-key%2F"), "{query}");
    assert!(!head.contains(SECRET), "{head}");
    let answer = |status: &str, body: &[u8]| {
        let mut bytes =
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len())
                .into_bytes();
        bytes.extend_from_slice(body);
        bytes
    };
    let answered = match (mood, method) {
        (Mood::Silent, _) => {
            std::thread::sleep(Duration::from_secs(60));
            return;
        }
        (Mood::Forbidding, _) => answer("403 Forbidden", SECRET.as_bytes()),
        (Mood::Redirecting, _) => {
            let away = "location: http://127.0.0.1:1/";
            format!("HTTP/1.1 307 Elsewhere\r\n{away}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                .into_bytes()
        }
        (Mood::Endless, "GET") => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
            while stream.write_all(&[0; 4096]).is_ok() {}
            return;
        }
        (_, "PUT") => {
            assert_eq!(header("if-none-match").as_deref(), Some("*"));
            assert!(query.contains("X-Amz-SignedHeaders=host%3Bif-none-match"), "{query}");
            if mood == Mood::Busy && conflicts.fetch_add(1, Ordering::Relaxed) == 0 {
                answer("409 Conflict", b"")
            } else if shelf.lock().objects.contains_key(path) {
                answer("412 Precondition Failed", b"")
            } else {
                shelf.lock().objects.insert(path.to_owned(), body);
                answer("200 OK", b"")
            }
        }
        _ => match shelf.lock().objects.get(path) {
            None => answer("404 Not Found", b""),
            Some(kept) if mood == Mood::Altering => {
                answer("200 OK", &kept.iter().map(|byte| byte ^ 1).collect::<Vec<_>>())
            }
            Some(kept) => answer("200 OK", kept),
        },
    };
    let _ = stream.write_all(&answered);
}

/// As a guest does it: on a thread of its own, which may block.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn round(fake: &Fake, bytes: &'static [u8]) -> (Result<String, ErrorCode>, Result<Vec<u8>, ErrorCode>) {
    let (store, folder) = fake.store();
    on_a_thread(move || {
        let time = until(Duration::from_secs(30));
        let put = store.upload("text/plain", bytes, &mut 0, &time);
        let fetched = store.download(&format!("sha256:{}", ModuleDigest::of(bytes)), 1 << 20, &time);
        drop(folder);
        (put, fetched)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_created_once_under_their_digest_and_read_back() {
    let fake = Fake::start(Mood::Honest);
    let digest = ModuleDigest::of(b"hello");
    let reference = format!("sha256:{digest}");
    for _ in 0..2 {
        assert_eq!(round(&fake, b"hello").await, (Ok(reference.clone()), Ok(b"hello".to_vec())));
    }
    assert_eq!(round(&fake, b"").await.1, Ok(Vec::new()));
    let shelf = fake.shelf.lock();
    let key = format!("/media/mentat/{digest}");
    assert_eq!(
        shelf.requests[..4],
        [format!("PUT {key}"), format!("GET {key}"), format!("PUT {key}"), format!("GET {key}")]
    );
    assert_eq!(shelf.objects.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_lies_refuses_or_leads_away_gives_nothing() {
    for (mood, put, fetched) in [
        (Mood::Altering, None, ErrorCode::Io),
        (Mood::Endless, None, ErrorCode::Limit),
        (Mood::Forbidding, Some(ErrorCode::Io), ErrorCode::Io),
        (Mood::Redirecting, Some(ErrorCode::Io), ErrorCode::Io),
    ] {
        let fake = Fake::start(mood);
        let (stored, read) = round(&fake, b"hello").await;
        assert_eq!((stored.err(), read), (put, Err(fetched)), "{mood:?}");
    }
    let busy = Fake::start(Mood::Busy);
    assert_eq!(round(&busy, b"hello").await.1, Ok(b"hello".to_vec()));
    assert_eq!(busy.shelf.lock().requests.len(), 3, "once more, and not oftener");
    let (store, _folder) = Fake::start(Mood::Honest).store();
    let missing = format!("sha256:{}", ModuleDigest::of(b"nobody"));
    let read = on_a_thread(move || store.read(&missing, u64::MAX, &until(Duration::from_secs(30)))).await;
    assert!(matches!(read, Err(MediaError::NotFound)), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_refused_before_anything_is_sent() {
    let fake = Fake::start(Mood::Honest);
    let (store, _folder) = fake.store();
    let refused = on_a_thread(move || {
        store.upload("text/plain", &vec![0; (1 << 20) + 1], &mut 0, &until(Duration::from_secs(30)))
    })
    .await;
    assert_eq!(refused, Err(ErrorCode::Limit));
    assert!(fake.shelf.lock().requests.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_bucket_holds_nobody_longer_than_the_call_may_take() {
    let fake = Fake::start(Mood::Silent);
    let (store, _folder) = fake.store();
    let store = Arc::new(store);
    let waiting = Arc::clone(&store);
    let late =
        on_a_thread(move || waiting.upload("a/b", b"x", &mut 0, &until(Duration::from_millis(50)))).await;
    assert_eq!(late, Err(ErrorCode::TimedOut));
    let before = fake.shelf.lock().requests.len();
    let stopped = until(Duration::from_secs(60));
    let (kill, waiting) = (stopped.kill.clone(), Arc::clone(&store));
    let call = tokio::task::spawn_blocking(move || waiting.upload("a/b", b"x", &mut 0, &stopped));
    while fake.shelf.lock().requests.len() <= before {
        tokio::task::yield_now().await;
    }
    kill.raise(KillCause::Operator);
    assert_eq!(call.await.unwrap(), Err(ErrorCode::Limit));
}

#[tokio::test]
async fn credentials_are_a_private_file_and_appear_nowhere() {
    let fake = Fake::start(Mood::Honest);
    let folder = tempfile::tempdir().unwrap();
    let settings = fake.settings(folder.path());
    let s3 = S3::new(&settings).unwrap();
    let shown = format!("{s3:?} {settings:?}");
    assert!(!shown.contains(SECRET) && !shown.contains("test-key"), "{shown}");
    for text in ["", "only-one\n", "a\nb\nc\nd\n"] {
        std::fs::write(&settings.credentials_file, text).unwrap();
        let refused = S3::new(&settings).unwrap_err().to_string();
        assert!(refused.contains("holds no credentials"), "{refused}");
    }
    std::fs::write(&settings.credentials_file, format!("key\n{SECRET}\ntoken\n")).unwrap();
    S3::new(&settings).unwrap();
    std::fs::set_permissions(&settings.credentials_file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = S3::new(&settings).unwrap_err().to_string();
    assert!(!refused.contains(SECRET), "{refused}");
}

struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// moto, where `make interop-s3` says that it is installed.
#[tokio::test(flavor = "multi_thread")]
async fn an_emulator_of_other_people_keeps_objects_and_gives_them_back() {
    if std::env::var_os("MENTAT_MOTO").is_none() {
        crate::skip::skipped("MENTAT_MOTO is not set; `make interop-s3` sets it where moto is installed");
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let child = Command::new("moto_server")
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _emulator = Emulator(child);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let bucket = format!("http://127.0.0.1:{port}/media");
    let mut made = None;
    for _ in 0..1200 {
        made = client.put(&bucket).send().await.ok().map(|answer| answer.status());
        if made.is_some_and(|status| status.is_success()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(made.is_some_and(|status| status.is_success()), "moto did not start: {made:?}");
    let fake = Fake { port, shelf: Arc::default() };
    let reference = format!("sha256:{}", ModuleDigest::of(b"hello"));
    // The second time the bucket has it already.
    for _ in 0..2 {
        assert_eq!(round(&fake, b"hello").await, (Ok(reference.clone()), Ok(b"hello".to_vec())));
    }
    let (store, folder) = fake.store();
    let missing = format!("sha256:{}", ModuleDigest::of(b"nobody"));
    let read = on_a_thread(move || store.read(&missing, u64::MAX, &until(Duration::from_secs(30)))).await;
    assert!(matches!(read, Err(MediaError::NotFound)), "{read:?}");
    // What is there stays, whoever writes.
    let digest = ModuleDigest::of(b"hello");
    let s3 = S3::new(&fake.settings(folder.path())).unwrap();
    on_a_thread(move || s3.write(digest, "a/b", b"other", &until(Duration::from_secs(30)))).await.unwrap();
    assert_eq!(round(&fake, b"hello").await.1, Ok(b"hello".to_vec()));
}

#[test]
fn one_agent_has_a_share_of_the_requests_under_way() {
    let all = Arc::default();
    let (one, other) = (AdmissionId::next(), AdmissionId::next());
    let mut held: Vec<_> = (0..MAX_OF_ONE).map(|_| OfAgent::of(&all, one).unwrap()).collect();
    assert!(OfAgent::of(&all, one).is_none());
    held.push(OfAgent::of(&all, other).unwrap());
    drop(held.swap_remove(0));
    assert!(OfAgent::of(&all, one).is_some());
    drop(held);
    assert!(all.lock().is_empty(), "an agent that is gone is not remembered");
}
