//! How a worker comes into being: its size, its sockets, what it is told first, and how it ended if it did not get far.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use executor_engine::Profile;
use executor_engine::frames::{Act, Mechanism, OVERHEAD, Order, Report};
use executor_engine::limits::{MAX_ARTIFACT_BYTES, MAX_TRANSFER_BYTES};
use executor_engine::pool::PoolLimits;

use super::account::Meter;
use super::channel::{Beside, Channel, Stops};
use super::holder::exit;
use super::spawner::{Life, Spawner};

/// How long a worker may take to confine itself and to make its pool.
pub(super) const START: Duration = Duration::from_secs(20);

/// What a worker needs for itself: the engine, stacks, and two copies of an artifact while it is mapped.
const OWN_MEMORY: u64 = (512 << 20) + 2 * MAX_ARTIFACT_BYTES as u64;

/// What carrying one call needs besides the memory of its guest: input and output, a few times each.
const CARRYING: u64 = 16 * MAX_TRANSFER_BYTES as u64;

/// How a worker is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) profile: Profile,
    /// Calls at the same time.
    pub(super) lanes: u16,
    /// The most bytes of memory that the guest of one call may have.
    pub(super) guest_memory: usize,
}

impl Shape {
    /// Slots of its pool.
    pub(super) fn slots(&self) -> u32 {
        u32::from(self.lanes).max(PoolLimits::MIN_SLOTS)
    }

    /// Bytes of memory that it may take.
    pub(super) fn memory(&self) -> u64 {
        OWN_MEMORY
            .saturating_add(u64::from(self.slots()).saturating_mul(self.guest().saturating_add(CARRYING)))
    }

    /// Bytes of addresses that it may write to. Every memory of the pool keeps those that its last guest had, when nothing of
    /// that is left in it.
    fn addresses(&self) -> u64 {
        let memories = PoolLimits { slots: self.slots(), ..PoolLimits::default() }.memories();
        self.memory().saturating_add(u64::from(memories).saturating_mul(self.guest()))
    }

    fn guest(&self) -> u64 {
        u64::try_from(self.guest_memory).unwrap_or(u64::MAX)
    }
}

/// Why there is no worker, or none any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Gone {
    /// The host cannot confine one.
    #[error("{}: {detail}; {}", .mechanism.as_str(), .mechanism.remedy())]
    NotConfined { mechanism: Mechanism, detail: String },
    /// It ended, or was ended.
    #[error("{0}")]
    Lost(String),
}

/// One end of a lane, while no call is on it.
pub(super) struct Lane {
    pub(super) number: u16,
    pub(super) channel: Channel,
}

/// Control, stops and lanes.
pub(super) type Sockets = (Channel, Stops, Vec<Lane>);

/// Starts a process and sends its first order.
pub(super) fn begin(
    spawner: &Spawner,
    number: u64,
    shape: Shape,
    probe: Option<Act>,
) -> Result<Sockets, Gone> {
    let lost = |error: std::io::Error| Gone::Lost(format!("a worker cannot be started: {error}"));
    let pair = || UnixStream::pair().map_err(lost);
    // Everything that can fail comes before the process, which somebody would have to end.
    let (near, far) = pair()?;
    let control = Channel::new(near, Beside::Sender).map_err(lost)?;
    let (near_stops, far_stops) = pair()?;
    let stops = Stops::new(near_stops).map_err(lost)?;
    let mut theirs = vec![far_stops];
    let mut lanes = Vec::new();
    for number in 0..shape.lanes {
        let (near, far) = pair()?;
        lanes.push(Lane { number, channel: Channel::new(near, Beside::Nothing).map_err(lost)? });
        theirs.push(far);
    }
    spawner.spawn(number, far).map_err(lost)?;
    let descriptors: Vec<_> = theirs.iter().map(|socket| socket.as_fd()).collect();
    let order = Order::Begin {
        profile: shape.profile,
        slots: shape.slots(),
        lanes: shape.lanes,
        memory: shape.addresses(),
        probe,
    };
    // One that has refused already is heard all the same.
    let _ = control.send(&order.encode(), &descriptors, START, &mut || false);
    Ok((control, stops, lanes))
}

/// Starts a worker that tries something its sandbox must end it for.
pub(super) fn probe(spawner: &Spawner, number: u64, shape: Shape, act: Act) -> Result<(), Gone> {
    let (mut control, _stops, _lanes) = begin(spawner, number, Shape { lanes: 1, ..shape }, Some(act))?;
    let answer = control.receive(OVERHEAD, START);
    let status = spawner.end(number, Life::Over);
    let refused = match &answer {
        Ok(Some(body)) => Report::decode(body).ok(),
        Ok(None) | Err(_) => None,
    };
    if let Some(Report::Refused { mechanism, detail }) = refused {
        return Err(Gone::NotConfined { mechanism, detail: super::verdict::cut(detail) });
    }
    match &status {
        Ok(status) if signal(*status) == Some(libc::SIGSYS) => Ok(()),
        _ => Err(Gone::NotConfined {
            mechanism: Mechanism::SelfTest,
            detail: format!("`{}` was not stopped ({})", act.as_str(), describe(status)),
        }),
    }
}

/// The kernel's account of whoever sent the first report: the kernel says who that was, not the worker.
pub(super) fn metered(sender: Option<u32>) -> Result<Meter, Gone> {
    let unknown = || std::io::Error::other("its sender is not known");
    sender.ok_or_else(unknown).and_then(Meter::of).map_err(|error| Gone::NotConfined {
        mechanism: Mechanism::ProcessLimits,
        detail: format!(
            "the kernel's account of a worker cannot be read: {error}; mount /proc without hidepid"
        ),
    })
}

/// The signal that ended a worker, which its holder tells by its exit code.
fn signal(status: ExitStatus) -> Option<i32> {
    status.code().map(|code| code - exit::SIGNAL).filter(|signal| *signal > 0).or(status.signal())
}

pub(super) fn describe(ended: std::io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => match (signal(status), status.code()) {
            (Some(signal), _) => format!("ended by signal {signal}"),
            (None, Some(code)) => format!("ended with code {code}"),
            (None, None) => status.to_string(),
        },
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_tells_the_signal_of_its_worker() {
        let of = |raw| signal(ExitStatus::from_raw(raw));
        assert_eq!(of((128 + 31) << 8), Some(31));
        assert_eq!((of(9), of(0), of(70 << 8)), (Some(9), None, None));
    }
}
