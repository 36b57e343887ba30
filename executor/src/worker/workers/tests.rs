use super::*;
use crate::runtime::Stop;
use crate::worker::account::tests::write;
use crate::worker::process::tests::silent;

#[test]
fn losses_wait_longer_each_time_and_not_without_end() {
    let mut state = State::default();
    let mut waits = Vec::new();
    for _ in 0..40 {
        let now = clock::monotonic();
        state.lost("why");
        waits.push(state.again_at.unwrap().saturating_duration_since(now));
    }
    assert!(waits.windows(2).all(|pair| pair[1] + Duration::from_millis(50) >= pair[0]));
    assert!(waits[0] < Duration::from_millis(200) && waits[3] > Duration::from_millis(700));
    assert!(waits[39] <= LONGEST_WAIT + Duration::from_secs(1));
}

fn workers(spawner: Spawner) -> Arc<Workers> {
    let limits = WorkerLimits { processes: 1, ..WorkerLimits::default() };
    Arc::new(Workers {
        spawner: Arc::new(spawner),
        limits,
        shape: Shape { profile: Profile::Standard, lanes: 1, guest_memory: 0 },
        slots: Mutex::default(),
        next: AtomicU64::new(1),
        running: Arc::default(),
        room: Mutex::default(),
        listener: OnceLock::new(),
    })
}

fn signer() -> SignerKey {
    SignerKey::for_test("one@example.org", trust_store::policy::TrustLevel::Signed)
}

#[test]
fn a_worker_without_calls_that_uses_what_no_call_was_given_is_ended() {
    let workers = workers(crate::testing::spawner().unwrap());
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    workers.listen(Box::new(move |event| told.lock().push(event)));
    let slot = workers.slot(&signer());
    let (process, files, _far) = silent(&workers.spawner);
    slot.state.lock().process = Some(Arc::new(process.counted(Counted::in_count(&workers.running))));
    workers.look_after(clock::monotonic());
    assert_eq!((workers.running(), events.lock().len()), (1, 0));
    write(&files, Duration::from_secs(3), 1 << 20);
    workers.look_after(clock::monotonic());
    assert_eq!(workers.running(), 0);
    let events = events.lock();
    let [WorkerEvent::Lost { signer: who, why }] = events.as_slice() else { panic!("{events:?}") };
    assert!(*who == signer() && why.contains("more than its calls"), "{why}");
    assert!(slot.state.lock().again_at.is_some(), "it is not started again at once");
}

#[test]
fn whoever_waits_for_a_worker_to_start_hears_what_stops_him() {
    // A spawner that never answers.
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let process = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let channel =
        crate::worker::channel::Channel::new(near, crate::worker::channel::Beside::Nothing).unwrap();
    let workers = workers(Spawner::over(channel, process));
    let slot = workers.slot(&signer());
    for _ in 0..2 {
        let looks = std::cell::Cell::new(0);
        let stopped = || {
            looks.set(looks.get() + 1);
            (looks.get() == 3).then_some(Stop::WallDeadline)
        };
        let entered = workers.enter(&slot, &stopped);
        assert!(matches!(entered, Err(CallError::Stopped(Stop::WallDeadline))));
        assert_eq!(workers.running(), 1, "one start, whoever waits for it");
    }
    // Nobody else finds a place meanwhile, and when the start failed there is one again.
    let other = workers.slot(&SignerKey::for_test("b@example.org", trust_store::policy::TrustLevel::Signed));
    assert!(matches!(workers.enter(&other, &|| None), Err(CallError::Pool { .. })));
    drop(far);
    while workers.running() > 0 {
        std::thread::sleep(LOOK);
    }
    assert!(workers.given_up().is_some());
    assert!(matches!(workers.enter(&slot, &|| None), Err(CallError::WorkerLost { .. })));
}
