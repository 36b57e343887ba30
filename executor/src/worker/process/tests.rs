use std::os::unix::net::UnixStream;

use super::*;
use crate::worker::account::tests::written;
use crate::worker::channel::Beside;

/// A worker that the kernel says nothing bad of, and that says nothing itself.
pub(in crate::worker) fn silent(spawner: &Arc<Spawner>) -> (Process, [std::fs::File; 2], [UnixStream; 2]) {
    let (meter, files) = written(Duration::ZERO, 1 << 20);
    let [(control, far_control), (stops, far_stops)] = [(); 2].map(|()| UnixStream::pair().unwrap());
    let control = Channel::new(control, Beside::Sender).unwrap();
    let sockets = (control, Stops::new(stops).unwrap(), Vec::new());
    (Process::over(spawner, 1, sockets, meter, 1 << 30), files, [far_control, far_stops])
}

fn sealed() -> Arc<Sealed> {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[1; 32]);
    let tag = aws_lc_rs::hmac::sign(&key, b"code").as_ref().try_into().unwrap();
    Arc::new(Sealed::authenticate(b"", &mut &b"code"[..], 4, &tag, &key).unwrap())
}

#[test]
fn whoever_waits_for_a_module_to_be_mapped_hears_what_stops_him() {
    let spawner = Arc::new(crate::testing::spawner().unwrap());
    let (process, _files, far) = silent(&spawner);
    let process = Arc::new(process);
    let load = || Load { module: 1, order: Order::Unload { module: 1 }.encode(), code: sealed() };
    // The first asks the worker, the second waits for the first.
    for _ in 0..2 {
        let looks = std::cell::Cell::new(0);
        let stopped = || {
            looks.set(looks.get() + 1);
            (looks.get() == 3).then_some(Stop::WallDeadline)
        };
        assert!(matches!(process.load(load(), &stopped), Err(Hindrance::Stopped(Stop::WallDeadline))));
    }
    // The order was given once, and nobody who waits for a worker that is gone waits on.
    assert!(process.lives());
    drop(far);
    let gone = loop {
        match process.load(load(), &|| None) {
            Err(Hindrance::Gone(Gone::Lost(why))) => break why,
            other => assert!(other.is_ok(), "neither refused nor stopped"),
        }
    };
    assert!(gone.contains("mapped"), "{gone}");
}

#[test]
fn a_worker_that_did_not_answer_is_asked_nothing_more_and_nobody_visits_it() {
    let spawner = Arc::new(crate::testing::spawner().unwrap());
    let (process, _files, [far_control, _far_stops]) = silent(&spawner);
    let process = Arc::new(process);
    drop(far_control);
    let load = || Load { module: 1, order: Order::Unload { module: 1 }.encode(), code: sealed() };
    let why = |answer| match answer {
        Err(Hindrance::Gone(Gone::Lost(why))) => why,
        _ => String::new(),
    };
    assert!(why(process.load(load(), &|| None)).starts_with("while a module was mapped"));
    assert!(process.is_idle(), "the answer is the end of the visit");
    // Although it did not close its sockets itself, and whoever asked may be gone.
    assert!(!process.lives());
    assert!(why(process.load(load(), &|| None)).contains("mapped before"));
}

#[test]
fn a_module_that_is_let_go_while_another_one_is_mapped_does_not_stay() {
    let spawner = Arc::new(crate::testing::spawner().unwrap());
    let (process, _files, [far, _far_stops]) = silent(&spawner);
    let process = Arc::new(process);
    let mut far = Channel::new(far, Beside::Nothing).unwrap();
    let load = |module| {
        let process = Arc::clone(&process);
        let load = Load { module, order: b"map".to_vec(), code: sealed() };
        std::thread::spawn(move || process.load(load, &|| None).is_ok())
    };
    let asked = |far: &mut Channel| far.receive(OVERHEAD, Duration::from_secs(10)).unwrap();
    let answer = |far: &Channel, module| {
        far.send(&Report::Loaded { module }.encode(), &[], LOOK, &mut || true).unwrap();
    };
    let first = load(1);
    assert_eq!(asked(&mut far).as_deref(), Some(&b"map"[..]));
    answer(&far, 1);
    assert!(first.join().unwrap());
    let second = load(2);
    assert_eq!(asked(&mut far).as_deref(), Some(&b"map"[..]));
    process.unload(1);
    answer(&far, 2);
    assert!(second.join().unwrap());
    assert_eq!(asked(&mut far), Some(Order::Unload { module: 1 }.encode()));
    assert_eq!(process.mapped_one(), Some(2));
    // Without a load under way at once.
    process.unload(2);
    assert_eq!(asked(&mut far), Some(Order::Unload { module: 2 }.encode()));
}
