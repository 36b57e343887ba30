//! In a worker: what runs on each lane, and what was told to end.
//!
//! Calls and stops come on sockets of their own, so that nothing is in front of a stop. It may therefore come before the call that
//! it is about has arrived whole, and nobody says it twice: the newest one of each lane is kept, and a call that was stopped
//! before it came ends where it would begin.

use executor_engine::frames::StopOrder;
use parking_lot::Mutex;

use crate::runtime::{Cancel, KillCause};

/// The lanes of a worker.
pub(super) struct Stoppable(Vec<Mutex<Lane>>);

#[derive(Default)]
struct Lane {
    /// The call that runs, by its number.
    call: Option<(u64, Cancel)>,
    /// The last stop, whichever call it was about. Numbers of calls rise, so an older one is of a call that is over.
    stop: Option<StopOrder>,
}

impl Stoppable {
    pub(super) fn on_lanes(count: usize) -> Self {
        Self(std::iter::repeat_with(Mutex::default).take(count).collect())
    }

    /// A call begins: what ends it, and has done so already if it was stopped before it came.
    pub(super) fn begin(&self, lane: usize, call: u64) -> Cancel {
        let cancel = Cancel::default();
        if let Some(lane) = self.0.get(lane) {
            let mut lane = lane.lock();
            if let Some(stop) = lane.stop.filter(|stop| stop.call == call) {
                cancel.raise(cause(stop));
            }
            lane.call = Some((call, cancel.clone()));
        }
        cancel
    }

    /// The call of a lane is over.
    pub(super) fn end(&self, lane: usize) {
        if let Some(lane) = self.0.get(lane) {
            lane.lock().call = None;
        }
    }

    /// Ends a call, now or as soon as it comes.
    pub(super) fn stop(&self, stop: StopOrder) {
        let Some(lane) = self.0.get(usize::from(stop.lane)) else { return };
        let mut lane = lane.lock();
        if let Some((call, cancel)) = &lane.call
            && *call == stop.call
        {
            cancel.raise(cause(stop));
        }
        if lane.stop.is_none_or(|last| last.call < stop.call) {
            lane.stop = Some(stop);
        }
    }
}

fn cause(stop: StopOrder) -> KillCause {
    KillCause::from_code(stop.cause).unwrap_or(KillCause::Operator)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop(lane: u16, call: u64, cause: KillCause) -> StopOrder {
        StopOrder { lane, call, cause: cause as u8 }
    }

    #[test]
    fn a_stop_reaches_its_call_whichever_of_the_two_comes_first() {
        let lanes = Stoppable::on_lanes(2);
        let running = lanes.begin(0, 1);
        lanes.stop(stop(0, 1, KillCause::Revoked));
        assert_eq!(running.raised(), Some(KillCause::Revoked));
        lanes.end(0);
        lanes.stop(stop(0, 3, KillCause::CallerGone));
        assert_eq!(lanes.begin(0, 2).raised(), None, "another call on the same lane");
        lanes.end(0);
        assert_eq!(lanes.begin(1, 3).raised(), None, "another lane");
        assert_eq!(lanes.begin(0, 3).raised(), Some(KillCause::CallerGone));
    }

    #[test]
    fn a_stop_that_is_late_ends_nobody_and_hides_no_newer_one() {
        let lanes = Stoppable::on_lanes(1);
        lanes.stop(stop(0, 7, KillCause::Shutdown));
        let before = lanes.begin(0, 6);
        lanes.stop(stop(0, 5, KillCause::Operator));
        lanes.stop(stop(9, 6, KillCause::Operator));
        assert_eq!(before.raised(), None);
        lanes.end(0);
        assert_eq!(lanes.begin(0, 7).raised(), Some(KillCause::Shutdown));
    }
}
