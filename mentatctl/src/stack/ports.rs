//! The ports of a stack: chosen at the first start, fixed from then on.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpSocket;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::interruption::Interruption;

/// So many ports are tried before the system is asked for one.
const ATTEMPTS: usize = 100;

/// How the listeners of a stack speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// HTTP, on loopback.
    #[default]
    Http,
    /// TLS, with certificates by a private authority of the stack's own. What stands in certificates as a status URL stays
    /// plain: that is what the standards ask for.
    Https,
}

impl Transport {
    fn is_plain(&self) -> bool {
        *self == Self::Http
    }
}

/// Port of each listener on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// Certificate authority.
    pub ca: u16,
    /// Its read-only status listener, whose address stands in certificates.
    pub status: u16,
    /// Transparency log.
    pub log: u16,
    /// Executor.
    pub executor: u16,
    /// `up` itself: development issuer and trust files. Stacks of before have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<u16>,
    /// How they speak; plain HTTP where it is not said.
    #[serde(default, skip_serializing_if = "Transport::is_plain")]
    pub transport: Transport,
}

impl Ports {
    /// URL of one of them, all but the status listener, which speaks plain HTTP always.
    pub fn url(&self, port: u16) -> String {
        match self.transport {
            Transport::Http => format!("http://127.0.0.1:{port}"),
            Transport::Https => format!("https://127.0.0.1:{port}"),
        }
    }

    /// Largest first port: five in a row must exist.
    pub const LARGEST_BASE: u16 = u16::MAX - 4;

    /// Five ports from `base` on, or five that are free, and their reservation: nobody else gets them until it is dropped.
    ///
    /// # Errors
    /// Exit code 78 when a port is in use.
    pub fn reserve(base: Option<u16>, transport: Transport) -> Outcome<(Self, Reservation)> {
        let held = match base {
            Some(base) => {
                let port = |offset: u16| {
                    base.checked_add(offset).ok_or_else(|| {
                        Failure::usage("--port-base is too large")
                            .hint(format!("use at most {}", Self::LARGEST_BASE))
                    })
                };
                let hold = |offset: u16| port(offset).and_then(Reserved::the);
                [hold(0)?, hold(1)?, hold(2)?, hold(3)?, hold(4)?]
            }
            None => {
                let lasting = Lasting::of_this_system();
                let any = || Reserved::any(lasting);
                // All are held at once, so that they differ.
                [any()?, any()?, any()?, any()?, any()?]
            }
        };
        let [ca, status, log, executor, oidc] = &held;
        let ports = Self {
            ca: ca.port,
            status: status.port,
            log: log.port,
            executor: executor.port,
            oidc: Some(oidc.port),
            transport,
        };
        Ok((ports, Reservation { _held: held }))
    }

    /// Waits a little until all of them are free: after a crash the servers of the run before notice that their parent
    /// is gone, and finish what they are doing.
    ///
    /// # Errors
    /// Exit code 78 naming the port; 1 when it was interrupted.
    pub fn wait_until_free(&self, interruption: &Interruption) -> Outcome<()> {
        for _ in 0..50 {
            interruption.check()?;
            if self.check_free().is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.check_free()
    }

    /// Refuses when one of them is taken.
    ///
    /// # Errors
    /// Exit code 78 naming the port.
    pub fn check_free(&self) -> Outcome<()> {
        for port in [self.ca, self.status, self.log, self.executor].into_iter().chain(self.oidc) {
            bind(port)?;
        }
        Ok(())
    }
}

fn bind(port: u16) -> Outcome<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| in_use(port, &error))
}

fn in_use(port: u16, error: &io::Error) -> Failure {
    Failure::refused(format!("port {port} of 127.0.0.1 cannot be used: {error}")).hint(
        "end the program that holds it (another `mentatctl up`?); the ports of a stack are fixed at its first start, \
         choose others for a new one with --port-base",
    )
}

/// The ports of a new stack, held from their choice until its servers have bound them. Keys and hierarchy are made in
/// between, and addresses are written into certificates.
#[derive(Debug)]
pub struct Reservation {
    _held: [Reserved; 5],
}

/// One port that is held: bound without listening, by a socket that shares it with those that ask for it by its number and
/// for reuse, as servers do. The system gives it to nobody who asks for any port, and another [`Reserved`] is refused it.
#[derive(Debug)]
struct Reserved {
    port: u16,
    _socket: TcpSocket,
}

impl Reserved {
    /// This port.
    fn the(port: u16) -> Outcome<Self> {
        Self::bind(port).map_err(|error| in_use(port, &error))
    }

    /// A port of those, or if they are all in use any that is free.
    fn any(lasting: Option<Lasting>) -> Outcome<Self> {
        let attempt = |lasting: Lasting| (0..ATTEMPTS).find_map(|_| Self::bind(lasting.any()).ok());
        match lasting.and_then(attempt) {
            Some(reserved) => Ok(reserved),
            None => Self::bind(0).or_fail(Exit::Refused, "asking for a free port"),
        }
    }

    fn bind(port: u16) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // Alone first, and shared afterwards: two that shared from the beginning could both have it.
        socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
        socket.set_reuseaddr(true)?;
        Ok(Self { port: socket.local_addr()?.port(), _socket: socket })
    }
}

/// Ports that the system gives to no connection and to no server that asks for any: what a stack needs, whose ports are
/// fixed, and free while it does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lasting {
    first: u16,
    count: u16,
}

impl Lasting {
    /// Smallest port that is chosen: those below are known to be somebody's.
    const SMALLEST: u16 = 10_000;
    /// Fewer are not worth an attempt.
    const FEWEST: u16 = 1_000;

    fn of_this_system() -> Option<Self> {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
        let (first, last) = range.trim().split_once(char::is_whitespace)?;
        Self::beside(first.parse().ok()?, last.trim().parse().ok()?)
    }

    /// Those below `first` or, where these are few, above `last`.
    fn beside(first: u16, last: u16) -> Option<Self> {
        let below = Self { first: Self::SMALLEST, count: first.saturating_sub(Self::SMALLEST) };
        let first = last.saturating_add(1).max(Self::SMALLEST);
        let above = Self { first, count: u16::MAX - first };
        [below, above].into_iter().find(|ports| ports.count >= Self::FEWEST)
    }

    /// One of them, each time another.
    fn any(self) -> u16 {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        let offset = (high ^ low) % u64::from(self.count);
        self.first.saturating_add(u16::try_from(offset).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_had_by_the_server_it_is_for_and_by_no_other_stack() {
        let (ports, reservation) = Ports::reserve(None, Transport::Http).unwrap();
        let all = [ports.ca, ports.status, ports.log, ports.executor, ports.oidc.unwrap()];
        for port in all {
            let refused = Reserved::the(port).unwrap_err();
            assert!(refused.what.contains(&format!("port {port} ")), "{}", refused.what);
            // As the servers bind: by its number, for reuse.
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
        // Who takes whatever the system gives is given none of them.
        let taken: Vec<_> = (0..500).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        assert!(taken.iter().all(|other| !all.contains(&other.local_addr().unwrap().port())));
        drop(reservation);
        for port in all {
            Reserved::the(port).unwrap();
        }
    }

    #[test]
    fn a_port_in_use_is_refused_with_its_number() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let refused = Ports::reserve(Some(port), Transport::Http).unwrap_err();
        assert_eq!(refused.exit, Exit::Refused);
        assert!(refused.what.contains(&format!("port {port} ")), "{}", refused.what);
    }

    #[test]
    fn ports_are_chosen_where_the_system_gives_none() {
        assert_eq!(Lasting::beside(32_768, 60_999), Some(Lasting { first: 10_000, count: 22_768 }));
        assert_eq!(Lasting::beside(1_024, 60_999), Some(Lasting { first: 61_000, count: 4_535 }));
        assert_eq!(Lasting::beside(1_024, 65_535), None);
        assert_eq!(Lasting::beside(1_024, 65_000), None);
        let lasting = Lasting { first: 65_000, count: 536 };
        assert!((0..1000).all(|_| lasting.any() >= 65_000));
    }
}
