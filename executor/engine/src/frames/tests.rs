#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::*;

fn orders() -> Vec<Order<'static>> {
    let limits = GuestLimits { memory: 64 << 20, fuel: 7, ..GuestLimits::default() };
    vec![
        Order::Begin { profile: Profile::Standard, slots: 16, lanes: 8, memory: 1 << 32, probe: None },
        Order::Begin {
            profile: Profile::Deterministic,
            slots: 1,
            lanes: 1,
            memory: 1,
            probe: Some(Act::Exec),
        },
        Order::Load {
            module: 3,
            length: 9,
            kind: ModuleKind::Component,
            limits,
            grants: vec!["env:A", "extension:stream"],
        },
        Order::Unload { module: 3 },
    ]
}

fn reports() -> Vec<Report<'static>> {
    let mut all: Vec<_> =
        Mechanism::ALL.into_iter().map(|mechanism| Report::Refused { mechanism, detail: "no" }).collect();
    all.extend([
        Report::Ready,
        Report::Loaded { module: 1 },
        Report::NotLoaded { module: 2, reason: "import_not_granted", name: "a.b", detail: "" },
    ]);
    all
}

fn from_worker() -> Vec<FromWorker<'static>> {
    let ended = Ended {
        call: 5,
        end: End::Exit(-1),
        memory: 65536,
        ticks: 2,
        fuel: 0,
        refused_growths: 1,
        dropped_log_lines: 3,
        fast_lines: 4,
        fast_metrics: 5,
        output: b"out",
        log: vec![(0, "one"), (4, "")],
        metrics: vec![("words_total", 2.5)],
    };
    let failed = Ended { end: End::Failed { reason: "trap", detail: "unreachable" }, ..ended.clone() };
    let mut all: Vec<_> = [
        Ask::Download { reference: "sha256:00" },
        Ask::EndStream { stream: 1 },
        Ask::Environment,
        Ask::Invoke { capability: "env:A", operation: "get", arguments: b"\xff" },
        Ask::OpenStream { id: "s" },
        Ask::Request { capability: "env:A" },
        Ask::Upload { media_type: "text/plain", bytes: b"x" },
        Ask::WriteStream { stream: 1, bytes: b"piece" },
    ]
    .into_iter()
    .map(FromWorker::Ask)
    .collect();
    all.extend([FromWorker::Ended(ended), FromWorker::Ended(failed)]);
    all.extend([FromWorker::Line { level: 2, text: "line" }, FromWorker::Missed { lines: 3 }]);
    all
}

fn to_worker() -> Vec<ToWorker<'static>> {
    let call = CallOrder {
        call: 1,
        module: 2,
        trial: Trial::Call,
        lines: Lines::AtTheEnd,
        wall_us: 3,
        cpu_us: 4,
        memory: 5,
        seed: [6; 32],
        input: b"in",
    };
    vec![
        ToWorker::Answer(Ok(b"bytes")),
        ToWorker::Answer(Err(-4)),
        ToWorker::Call(call),
        ToWorker::Call(CallOrder { trial: Trial::OnlyInstantiate, ..call }),
        ToWorker::Call(CallOrder { lines: Lines::AtOnce, ..call }),
    ]
}

/// What is written is read back; no shorter text and no longer one is the same thing.
fn exact<'a, T: PartialEq + std::fmt::Debug>(
    bytes: &'a [u8],
    longer: &'a [u8],
    value: &T,
    decode: impl Fn(&'a [u8]) -> Result<T, FormatError>,
) {
    assert_eq!(decode(bytes).as_ref(), Ok(value));
    for cut in 0..bytes.len() {
        assert!(decode(&bytes[..cut]).is_err(), "{value:?} cut at {cut}");
    }
    assert_eq!(decode(longer), Err(FormatError::Trailing { offset: bytes.len() }));
}

fn and_one_more(bytes: &[u8]) -> Vec<u8> {
    [bytes, &[0]].concat()
}

#[test]
fn every_message_is_read_back_and_nothing_else_is() {
    for order in orders() {
        let bytes = order.encode();
        exact(&bytes, &and_one_more(&bytes), &order, Order::decode);
    }
    for report in reports() {
        let bytes = report.encode();
        exact(&bytes, &and_one_more(&bytes), &report, Report::decode);
    }
    for message in to_worker() {
        let bytes = message.encode();
        exact(&bytes, &and_one_more(&bytes), &message, ToWorker::decode);
    }
    for message in from_worker() {
        let bytes = message.encode();
        exact(&bytes, &and_one_more(&bytes), &message, FromWorker::decode);
    }
}

#[test]
fn a_claimed_length_allocates_nothing() {
    assert_eq!(body_length(100u32.to_le_bytes(), 100), Ok(100));
    for (claimed, max) in
        [(101u32, 100), (0, 100), (u32::MAX, usize::MAX), (MAX_FRAME as u32 + 1, usize::MAX)]
    {
        assert_eq!(body_length(claimed.to_le_bytes(), max), Err(FormatError::Field { field: "length" }));
    }
    // A blob, a list of lines and a list of records that claim more than there is.
    for body in [&[5, 0xff, 0xff, 0xff, 0xff][..], &[6, 1, 0, 0, 0x80, 0]] {
        assert!(matches!(FromWorker::decode(body), Err(FormatError::Truncated { .. })));
    }
}

#[test]
fn text_is_utf8() {
    let mut bytes = FromWorker::Ask(Ask::OpenStream { id: "ab" }).encode();
    *bytes.last_mut().unwrap() = 0xff;
    assert_eq!(FromWorker::decode(&bytes), Err(FormatError::Field { field: "id" }));
}

#[test]
fn a_stop_is_eleven_bytes() {
    let stop = StopOrder { lane: 0x0102, call: 0x0304_0506_0708_090a, cause: 2 };
    let bytes = [0x02, 0x01, 0x0a, 0x09, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 2];
    assert_eq!((stop.encode(), StopOrder::decode(&bytes)), (bytes, stop));
}

#[test]
fn frames_begin_with_their_length() {
    assert_eq!(frame(b"abc"), b"\x03\0\0\0abc");
}

#[test]
fn names_and_values_are_read_back() {
    let bytes = put_pairs([("A", "1"), ("B", "")].into_iter());
    let pairs = vec![("A".to_owned(), "1".to_owned()), ("B".to_owned(), String::new())];
    assert_eq!(take_pairs(&bytes), Ok(pairs));
    assert!(take_pairs(&bytes[..bytes.len() - 1]).is_err());
    assert_eq!(take_pairs(&put_pairs(std::iter::empty())), Ok(Vec::new()));
}
