//! Copies of a log: they verify offline, and the first byte that is wrong is named.

use std::sync::Arc;

use mentat_tests::agent::signed;
use mentat_tests::lying_proxy;
use mentat_tests::stack::Stack;

#[test]
fn an_export_verifies_offline_and_every_wrong_byte_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    signed(&stack, dir.path(), "first");
    let copy = |kind: &str| dir.path().join(kind).display().to_string();
    for kind in ["signing", "issuance", "event"] {
        stack.ctl(&["log", "fsck", "--log", kind]).success();
        stack.ctl(&["log", "export", "--log", kind, "--output", &copy(kind)]).success();
    }
    // What grew is added, and the old beginning is proven.
    signed(&stack, dir.path(), "second");
    let report = stack.ctl(&["--json", "log", "export", "--output", &copy("signing")]).success().json();
    assert_eq!(report["size"], 2);

    // A server that serves one wrong byte.
    let lie: Arc<lying_proxy::Lie> = Arc::new(|path, mut body| {
        if path.contains("tile/entries/000.p/2") {
            body[20] ^= 1;
        }
        body
    });
    let address = lying_proxy::start(&stack.text("/log/url"), lie);
    stack
        .ctl(&["log", "fsck", "--log-url", &address])
        .refused(3, "tile/entries/000.p/2 byte 0: entry 0 is not the one that the tree holds [damaged]");
    let other = dir.path().join("other").display().to_string();
    stack.ctl(&["log", "export", "--log-url", &address, "--output", &other]).refused(3, "damaged");
    assert!(!dir.path().join("other/checkpoint").exists(), "a copy that is not whole has no checkpoint");

    // Nobody is asked any more.
    stack.down();
    for kind in ["signing", "issuance", "event"] {
        stack.ctl(&["log", "fsck", "--log", kind, "--export", &copy(kind)]).success();
    }
    let signing = dir.path().join("signing");
    let check = |file: &str, change: &dyn Fn(&mut Vec<u8>), names: &str| {
        let path = signing.join(file);
        let before = std::fs::read(&path).unwrap();
        let mut bytes = before.clone();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        stack.ctl(&["log", "fsck", "--export", &copy("signing")]).refused(3, names);
        std::fs::write(&path, before).unwrap();
    };
    check(
        "tile/0/000.p/2",
        &|bytes| bytes[37] ^= 4,
        "tile/0/000.p/2 byte 37: the tile does not match the entries",
    );
    check("tile/0/000.p/2", &|bytes| bytes.truncate(40), "tile/0/000.p/2 byte 40: the file has 40 bytes");
    let second = |bytes: &[u8]| 2 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    let at = second(&std::fs::read(signing.join("tile/entries/000.p/2")).unwrap());
    check("tile/entries/000.p/2", &|bytes| bytes[at + 9] ^= 1, &format!("byte {at}: entry 1 is not the one"));
    check("tile/entries/000.p/2", &|bytes| bytes[at] ^= 0x80, &format!("byte {at}: entry bundle"));
    check("tile/entries/000.p/2", &|bytes| bytes.push(0), "entry bundle does not hold exactly its entries");
    check("checkpoint", &|bytes| bytes.truncate(200), "");
    std::fs::remove_file(signing.join("tile/0/000.p/2")).unwrap();
    stack
        .ctl(&["log", "fsck", "--export", &copy("signing")])
        .refused(3, "tile/0/000.p/2 byte 0: the file is missing");

    // The log's own folder, while nothing runs.
    let data = stack.dir().join("transparency-log/logs/signing");
    let head_copy = stack.dir().join("transparency-log/head-copies/signing.head").display().to_string();
    let own = ["log", "fsck", "--data", data.to_str().unwrap(), "--head-copy", &head_copy];
    stack.ctl(&own).success();
    let entries = data.join("entries/00000000.entries");
    let mut bytes = std::fs::read(&entries).unwrap();
    bytes[64 + 16 + 5] ^= 1;
    std::fs::write(&entries, &bytes).unwrap();
    stack.ctl(&own).refused(3, "00000000.entries");
    bytes[64 + 16 + 5] ^= 1;
    std::fs::write(&entries, &bytes).unwrap();
    stack.ctl(&own).success();
    std::fs::remove_file(data.join("checkpoint")).unwrap();
    stack.ctl(&own).refused(3, "the file is missing");
    assert!(!data.join("checkpoint").exists(), "a check makes no file");
}
