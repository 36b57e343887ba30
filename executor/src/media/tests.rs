use std::time::Duration;

use super::*;
use crate::clock;

const SMALL: MediaLimits = MediaLimits { object: 8, call: 20, store: 24 };

pub(super) fn until(time: Duration) -> Until {
    let kill = crate::runtime::Cancel::default();
    Until { kill, deadline: clock::monotonic() + time, admission: crate::runtime::AdmissionId::next() }
}

fn put(store: &MediaStore, bytes: &[u8], uploaded: &mut u64) -> Result<String, ErrorCode> {
    store.upload("text/plain", bytes, uploaded, &until(Duration::from_secs(60)))
}

fn fetch(store: &MediaStore, reference: &str) -> Result<Vec<u8>, ErrorCode> {
    store.download(reference, 1 << 20, &until(Duration::from_secs(60)))
}

#[test]
fn a_call_and_the_store_have_quotas() {
    let dir = tempfile::tempdir().unwrap();
    let store = MediaStore::open(dir.path().to_owned(), SMALL).unwrap();
    let (mut first, mut second) = (0, 0);
    put(&store, b"12345678", &mut first).unwrap();
    // What is known already costs the call and not the store.
    put(&store, b"12345678", &mut first).unwrap();
    assert_eq!(put(&store, b"abcdefgh", &mut first), Err(ErrorCode::Limit), "of the call");
    put(&store, b"abcdefgh", &mut second).unwrap();
    put(&store, b"ABCDEFGH", &mut second).unwrap();
    assert_eq!(put(&store, b"x", &mut 0), Err(ErrorCode::Limit), "of the store");
    std::fs::write(dir.path().join(".interrupted"), b"123456789").unwrap();
    let again = MediaStore::open(dir.path().to_owned(), SMALL).unwrap();
    assert!(!dir.path().join(".interrupted").exists());
    assert_eq!(put(&again, b"x", &mut 0), Err(ErrorCode::Limit), "also after a start");
    std::fs::remove_file(dir.path().join(ModuleDigest::of(b"abcdefgh").to_string())).unwrap();
    let freed = MediaStore::open(dir.path().to_owned(), SMALL).unwrap();
    put(&freed, b"x", &mut 0).unwrap();
}

#[test]
fn objects_are_read_back_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let store = MediaStore::open(dir.path().to_owned(), SMALL).unwrap();
    let reference = put(&store, b"hello", &mut 0).unwrap();
    assert_eq!(fetch(&store, &reference), Ok(b"hello".to_vec()));
    std::fs::write(dir.path().join(&reference[7..]), b"hullo").unwrap();
    assert_eq!(fetch(&store, &reference), Err(ErrorCode::Io));
}

#[test]
fn refuses_sizes_types_and_paths() {
    let dir = tempfile::tempdir().unwrap();
    let store = MediaStore::open(dir.path().to_owned(), SMALL).unwrap();
    assert_eq!(put(&store, b"123456789", &mut 0), Err(ErrorCode::Limit));
    let typeless = store.upload("text", b"1", &mut 0, &until(Duration::from_secs(60)));
    assert_eq!(typeless, Err(ErrorCode::InvalidArgument));
    for reference in ["../../etc/passwd", "sha256:../x", "", "sha256:00"] {
        assert_eq!(fetch(&store, reference), Err(ErrorCode::InvalidArgument), "{reference}");
    }
}

#[test]
fn what_there_is_no_room_for_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = MediaStore::open(dir.path().to_owned(), SMALL).unwrap();
    let reference = put(&store, b"hello", &mut 0).unwrap();
    // Whoever reads these finds that they are others.
    std::fs::write(dir.path().join(&reference[7..]), b"hullo").unwrap();
    let fetch = |room| store.download(&reference, room, &until(Duration::from_secs(60)));
    assert_eq!((fetch(4), fetch(5)), (Err(ErrorCode::Limit), Err(ErrorCode::Io)));
}
