//! The only place of the harness that reads a clock: deadlines for processes that do not answer, and the time of steps that is
//! printed and never asserted.
#![allow(clippy::disallowed_methods, reason = "this is the file that reads the clock")]

use std::time::{Duration, Instant};

/// A point in time after which waiting is given up.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline so far from now.
    pub fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        Instant::now() >= self.0
    }

    /// What is left, zero when it has passed.
    pub fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// The time that the steps of a journey take.
#[derive(Clone, Debug)]
pub struct Stopwatch {
    steps: Vec<(&'static str, Duration)>,
    last: Instant,
}

impl Stopwatch {
    /// Begins now.
    pub fn start() -> Self {
        Self { steps: Vec::new(), last: Instant::now() }
    }

    /// A step ends here, and the next one begins.
    pub fn step(&mut self, name: &'static str) {
        let now = Instant::now();
        self.steps.push((name, now.saturating_duration_since(self.last)));
        self.last = now;
    }
}

impl std::fmt::Display for Stopwatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, time) in &self.steps {
            write!(f, "{name} {:.1} s, ", time.as_secs_f64())?;
        }
        let whole: Duration = self.steps.iter().map(|(_, time)| *time).sum();
        write!(f, "together {:.1} s", whole.as_secs_f64())
    }
}
