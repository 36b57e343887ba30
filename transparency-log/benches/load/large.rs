//! A log of ten million entries: how long it takes to start, what memory it holds, and whether appends still cost what
//! they cost at ten thousand. The bulk loader is the storage library itself, so the files are the real ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hsm::software::Keystore;
use hsm::{KeyLabel, PassphraseSource};
use log_store::{
    Ack, CheckpointKeys, Entry, Log, LogKind, LogOptions, LogParts, OsDisk, SystemClock, WriterId,
};

use crate::client::Loop;
use crate::server::Stack;
use crate::{Figures, RawAdds, process, saturate};

const FEW: u64 = 10_000;
const MANY: u64 = 10_000_000;
/// Entries of one call to the library.
const STEP: u64 = 1000;

pub(crate) fn measure(timing: Loop, figures: &mut Figures) {
    let many = Stack::with_sizes("", "", "");
    let begin = Instant::now();
    load(&many, MANY);
    figures.insert("large_load_per_s", MANY as f64 / begin.elapsed().as_secs_f64());

    // No run sends what another sent: that would measure how fast duplicates are found.
    let mut first = 0;
    let mut rate = |stack: &Stack| {
        first += 1 << 40;
        let begin = Instant::now();
        let server = stack.serve();
        let started = begin.elapsed().as_secs_f64();
        let (address, mut adds) =
            (server.url.trim_start_matches("http://"), RawAdds::from("/raw/add", first));
        let run = saturate(address, server.id(), &mut adds, &timing);
        adds.assert_appended(address);
        let resident = process::resident_mib(server.id());
        assert_eq!(server.stop(), Some(0));
        (started, run.per_s, resident)
    };
    let (mut ratios, mut starts, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..crate::RUNS {
        // Anew each time: a run leaves some hundred thousand entries behind.
        let few = Stack::with_sizes("", "", "");
        load(&few, FEW);
        let (_, small, _) = rate(&few);
        let (start, large, memory) = rate(&many);
        ratios.push(large / small);
        starts.push(start);
        resident.push(memory);
    }
    figures.insert("large_adds_ratio", crate::median(ratios));
    figures.insert("large_restart_s", crate::median(starts));
    figures.insert("large_resident_mib", crate::median(resident));
}

/// Fills the raw log of a stack that is not being served.
fn load(stack: &Stack, count: u64) {
    let passphrase: PassphraseSource =
        format!("file:{}", stack.path("pass").display()).parse::<PassphraseSource>().unwrap();
    let keystore = Keystore::open(&stack.path("keys"), &passphrase.read().unwrap()).unwrap();
    let signers = ["raw-ed25519", "raw-mldsa44"]
        .map(|label| keystore.open_label(&KeyLabel::new(label).unwrap()).unwrap());
    let (origin, _) = stack.keys("raw");
    let keys = CheckpointKeys::new(LogKind::Raw, &origin, signers.into()).unwrap();
    let mut options =
        LogOptions::new(LogKind::Raw, &origin, &stack.path("data/raw"), &stack.path("copies/raw.head"));
    options.batching.queue_entries = 64 * 1024;
    options.publishing.unhurried = Duration::from_secs(1);
    let parts = LogParts {
        disk: Arc::new(OsDisk),
        clock: Arc::new(SystemClock),
        signer: Arc::new(keys),
        cosigner: None,
    };
    let log = Log::open(&options, parts).unwrap();
    let mut waiting = std::collections::VecDeque::new();
    for first in (0..count).step_by(usize::try_from(STEP).unwrap()) {
        let entries = (first..first + STEP).map(|number| {
            let mut bytes = vec![b'-'; 1024];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            Entry::plain(Bytes::from(bytes)).unwrap()
        });
        waiting.push_back(log.submit_all(WriterId(first), entries.collect(), Ack::Sequenced).unwrap());
        // A few calls under way keep the sequencer busy without filling its queue.
        while waiting.len() > 8 {
            for answer in waiting.pop_front().unwrap() {
                Log::wait(answer).unwrap();
            }
        }
        while log.metrics().tile_backlog > 4096 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    for answer in waiting.into_iter().flatten() {
        Log::wait(answer).unwrap();
    }
    log.close();
}
