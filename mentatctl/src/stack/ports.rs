//! The ports of a stack: chosen at the first start, fixed from then on.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::interruption::Interruption;

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

    /// Five ports from `base` on, or five that the system says are free.
    ///
    /// # Errors
    /// Exit code 78 when a port is in use.
    pub fn choose(base: Option<u16>, transport: Transport) -> Outcome<Self> {
        let ports = match base {
            Some(base) => {
                let port = |offset: u16| {
                    base.checked_add(offset).ok_or_else(|| {
                        Failure::usage("--port-base is too large")
                            .hint(format!("use at most {}", Self::LARGEST_BASE))
                    })
                };
                Self {
                    ca: port(0)?,
                    status: port(1)?,
                    log: port(2)?,
                    executor: port(3)?,
                    oidc: Some(port(4)?),
                    transport,
                }
            }
            None => {
                // All are held at once, so that they differ.
                let held = [bind(0)?, bind(0)?, bind(0)?, bind(0)?, bind(0)?];
                let number = |listener: &TcpListener| {
                    listener
                        .local_addr()
                        .map(|address| address.port())
                        .or_fail(Exit::Refused, "asking for a free port")
                };
                let [a, b, c, d, e] = &held;
                Self {
                    ca: number(a)?,
                    status: number(b)?,
                    log: number(c)?,
                    executor: number(d)?,
                    oidc: Some(number(e)?),
                    transport,
                }
            }
        };
        ports.check_free()?;
        Ok(ports)
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
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
        Failure::refused(format!("port {port} of 127.0.0.1 cannot be used: {error}")).hint(
            "end the program that holds it (another `mentatctl up`?); the ports of a stack are fixed at its first start, \
             choose others for a new one with --port-base",
        )
    })
}
