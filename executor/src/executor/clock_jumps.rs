//! A wall clock that is set while the executor runs: evidence, enforcement dates and records are dated by it.
//!
//! Nothing is stopped for it. Verdicts end by the time that is shown, in either direction, and a date that was enforced once stays
//! enforced; but whoever reads the records must know where their times do not follow from each other.

use std::sync::Arc;
use std::time::Duration;

use executor_api::audit::AuditEvent;
use service::clock::{Clock, ClockJump, JumpDetector};

use super::Executor;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// What is forgiven between two looks: the steps of a time daemon.
const TOLERANCE: Duration = Duration::from_secs(2);

impl Executor {
    /// Compares the wall clock with one that nobody sets, until the process ends.
    pub async fn keep_clock(self: Arc<Self>, clock: impl Clock) {
        let detector = JumpDetector::new(TOLERANCE);
        loop {
            self.compare_clocks(&detector, &clock);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Records a jump since the last look.
    fn compare_clocks(&self, detector: &JumpDetector, clock: &dyn Clock) {
        let Err(jump) = detector.check(clock) else { return };
        let direction = match jump {
            ClockJump::Back { .. } => "back",
            // A machine that was suspended finds its wall clock ahead, too.
            _ => "ahead",
        };
        self.parts.metrics.clock_jump(direction);
        tracing::warn!(%jump, "times of records do not follow from each other here");
        let event = AuditEvent {
            event_type: "clock_jump".into(),
            detail: Some(jump.to_string()),
            ..AuditEvent::default()
        };
        if self.parts.audit.record(event).is_err() {
            tracing::error!(%jump, "that the clock jumped could not be recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use service::clock::TestClock;

    use super::*;
    use crate::testing::Server;

    #[tokio::test]
    async fn a_clock_that_is_set_is_on_record_with_its_direction_and_one_that_goes_on_is_not() {
        let server = Server::start().await;
        let clock = TestClock::at_unix_seconds(1_000_000);
        let detector = JumpDetector::new(TOLERANCE);
        let look = || server.executor.compare_clocks(&detector, &clock);
        look();
        // Time goes by, and a daemon corrects it a little.
        clock.advance(Duration::from_secs(3600));
        look();
        clock.set_unix_seconds(1_003_602);
        look();
        clock.set_unix_seconds(1_000_002);
        look();
        clock.advance(Duration::from_secs(1));
        look();
        clock.set_unix_seconds(2_000_000);
        look();
        server.executor.close().await;
        let audit = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
        let jumps: Vec<&str> = audit.lines().filter(|line| line.contains("\"clock_jump\"")).collect();
        assert_eq!(jumps.len(), 2, "{audit}");
        assert!(jumps[0].contains("jumped back by 3600000 ms"), "{}", jumps[0]);
        assert!(jumps[1].contains("jumped ahead by 999997000 ms"), "{}", jumps[1]);
        let metrics = server.exposition();
        for line in [
            "mentatlab_clock_jumps_total{reason=\"back\"} 1",
            "mentatlab_clock_jumps_total{reason=\"ahead\"} 1",
        ] {
            assert!(metrics.lines().any(|counted| counted == line), "{line} is not in {metrics}");
        }
    }
}
