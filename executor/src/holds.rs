//! Orders of operators that releases do not run, whoever vouches for them: by signing certificate, by place in the log, by signer,
//! agent or module.
//!
//! A hold is asked for at the door and whenever a verdict is renewed, after verification and never instead of it. It is kept over a
//! restart: whoever starts an executor again does not mean to let run what was stopped.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use executor_api::hold::{Calls, Hold, HoldRequest, Releases};
use executor_engine::ModuleDigest;
use service::StartRefusal;
use trust_store::attestation::Attestation;
use trust_store::certificate::Certificate;
use trust_store::identity::{MAX_NAME, issuer_text};
use trust_store_files::atomic::{self, Readers};

use crate::admission::Denied;
use crate::executor::Withdrawal;
use crate::state_folder::StateFolder;

/// Most orders at the same time.
const MAX_HOLDS: usize = 1024;
/// Largest file, bytes: each order has five texts.
const MAX_FILE: u64 = 16 << 20;
/// Longest reason, bytes.
const MAX_REASON: usize = 512;
/// Seconds that calls have to end by themselves where nobody says how many, and the most.
const DRAIN_SECONDS: u32 = 30;
const MAX_DRAIN_SECONDS: u32 = 3600;
const VERSION: u32 = 1;

/// A release, by what an order may name of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Release<'a> {
    pub(crate) agent: &'a str,
    pub(crate) digest: ModuleDigest,
    pub(crate) signer: &'a str,
    pub(crate) log_index: Option<u64>,
    pub(crate) attestation: &'a Attestation,
}

/// An order as it is asked.
#[derive(Debug)]
pub(crate) struct Order {
    hold: Hold,
    digest: Option<ModuleDigest>,
    certificate: Option<ModuleDigest>,
    serial: Option<Vec<u8>>,
}

/// Every order, kept in one file.
pub(crate) struct Holds {
    path: PathBuf,
    state: Arc<StateFolder>,
    orders: ArcSwap<Vec<Arc<Order>>>,
    changing: tokio::sync::Mutex<()>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    holds: Vec<Hold>,
}

impl Order {
    /// Reads an order, given now.
    ///
    /// # Errors
    ///
    /// `invalid_argument` for one that names nothing, or in a form that nothing has.
    pub(crate) fn read(request: &HoldRequest, now: i64) -> Result<Self, Denied> {
        let drain_seconds = match (request.calls, request.drain_seconds) {
            (Calls::Stop, None) => 0,
            (Calls::Stop, Some(_)) => return Err(invalid("`drain_seconds` is for calls that are drained")),
            (Calls::Drain, seconds) => seconds.unwrap_or(DRAIN_SECONDS),
        };
        if request.calls == Calls::Drain && !(1..=MAX_DRAIN_SECONDS).contains(&drain_seconds) {
            return Err(invalid("`drain_seconds` is from 1 to 3600"));
        }
        let HoldRequest { releases, calls, reason, .. } = request.clone();
        let names = serde_json::to_vec(&releases).map_err(|_| invalid("`releases` cannot be written"))?;
        let id = ModuleDigest::of(&names).to_string().chars().take(16).collect();
        Self::of(Hold { id, releases, calls, drain_seconds, reason, since: now })
    }

    fn of(hold: Hold) -> Result<Self, Denied> {
        let Releases { agent, certificate, digest, from_log_index, issuer, log_index, serial, signer } =
            &hold.releases;
        if agent.is_none()
            && certificate.is_none()
            && digest.is_none()
            && from_log_index.is_none()
            && log_index.is_none()
            && serial.is_none()
            && signer.is_none()
        {
            return Err(invalid("name a certificate, a log index, a signer, an agent or a module"));
        }
        if serial.is_some() != issuer.is_some() {
            return Err(invalid("`serial` and `issuer` belong together: each authority counts by itself"));
        }
        for (text, longest) in [(agent, MAX_NAME), (issuer, 4 * MAX_NAME), (signer, MAX_NAME)] {
            let is_odd =
                |text: &String| text.is_empty() || text.len() > longest || text.chars().any(char::is_control);
            if text.as_ref().is_some_and(is_odd) {
                return Err(invalid("a name is empty, too long, or more than one line"));
            }
        }
        if hold.reason.len() > MAX_REASON || hold.reason.chars().any(char::is_control) {
            return Err(invalid("`reason` is one line of at most 512 bytes"));
        }
        let digest_of = |text: &Option<String>, what: &str| match text {
            None => Ok(None),
            Some(text) => match ModuleDigest::parse(&text.to_ascii_lowercase()) {
                Some(digest) => Ok(Some(digest)),
                None => Err(invalid(&format!("`{what}` is 64 hexadecimal digits"))),
            },
        };
        let (digest, certificate) = (digest_of(digest, "digest")?, digest_of(certificate, "certificate")?);
        let serial = serial.as_deref().map(read_serial).transpose()?;
        Ok(Self { digest, certificate, serial, hold })
    }

    /// The order as it was given.
    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// Whether a release is one that it means.
    pub(crate) fn means(&self, release: &Release<'_>) -> bool {
        let Releases { agent, from_log_index, issuer, log_index, signer, .. } = &self.hold.releases;
        agent.as_ref().is_none_or(|agent| agent == release.agent)
            && self.digest.is_none_or(|digest| digest == release.digest)
            && signer.as_ref().is_none_or(|signer| signer == release.signer)
            && log_index.is_none_or(|index| release.log_index == Some(index))
            // What is in no log that was asked about came at no known time, so it may have come since.
            && from_log_index.is_none_or(|from| release.log_index.is_none_or(|index| index >= from))
            && self.certificate.is_none_or(|asked| fingerprint(release.attestation) == Some(asked))
            && self.serial.as_ref().is_none_or(|serial| {
                release.attestation.certificate().is_some_and(|certificate| {
                    plain(certificate.serial()) == serial.as_slice()
                        && issuer.as_ref().is_some_and(|issuer| *issuer == issuer_text(certificate))
                })
            })
    }

    fn withdrawal(&self) -> Withdrawal {
        match self.hold.calls {
            Calls::Drain => Withdrawal::Drain(Duration::from_secs(self.hold.drain_seconds.into())),
            Calls::Stop => Withdrawal::Stop,
        }
    }
}

/// SHA-256 of the certificate that an attestation was signed with.
pub(crate) fn fingerprint(attestation: &Attestation) -> Option<ModuleDigest> {
    attestation.certificate().map(Certificate::fingerprint).map(ModuleDigest)
}

/// A serial number as it is written, with or without colons and leading zeros.
fn read_serial(text: &str) -> Result<Vec<u8>, Denied> {
    let odd = || invalid("`serial` is at most 64 hexadecimal digits");
    if text.len() > 128 {
        return Err(odd());
    }
    let digits: String = text.chars().filter(|character| *character != ':').collect();
    let even = if digits.len().is_multiple_of(2) { digits } else { format!("0{digits}") };
    let bytes = hex::decode(&even).map_err(|_| odd())?;
    let serial = plain(&bytes);
    if serial.is_empty() || serial.len() > 32 { Err(odd()) } else { Ok(serial.to_vec()) }
}

/// A number without leading zeros.
fn plain(mut bytes: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

fn invalid(text: &str) -> Denied {
    Denied::new("invalid_argument", text)
}

impl Holds {
    /// Reads the orders that are kept. Blocks.
    ///
    /// # Errors
    ///
    /// When the file is there and cannot be read: guessing would let run what was stopped.
    pub(crate) fn open(state: Arc<StateFolder>) -> Result<Self, StartRefusal> {
        let path = state.directory().join("holds.json");
        let refuse = |error: Box<dyn std::error::Error + Send + Sync>| {
            StartRefusal::new(
                format!("{} cannot be used", path.display()),
                "restore it, or remove it: then nothing is held",
            )
            .because(error)
        };
        let mut orders = Vec::new();
        if path.try_exists().map_err(|error| refuse(error.into()))? {
            let bytes = atomic::read(&path, MAX_FILE).map_err(|error| refuse(error.into()))?;
            let file: File = serde_json::from_slice(&bytes).map_err(|error| refuse(error.into()))?;
            if file.version != VERSION || file.holds.len() > MAX_HOLDS {
                return Err(refuse("its version or its length is not known".into()));
            }
            for hold in file.holds {
                orders.push(Arc::new(Order::of(hold).map_err(|denied| refuse(denied.into()))?));
            }
        }
        let orders = ArcSwap::from_pointee(orders);
        Ok(Self { path, state, orders, changing: tokio::sync::Mutex::default() })
    }

    /// Every order in force.
    pub(crate) fn all(&self) -> Arc<Vec<Arc<Order>>> {
        self.orders.load_full()
    }

    /// What becomes of the calls of a release that an order means, by the strictest of them.
    pub(crate) fn on(&self, release: &Release<'_>) -> Option<Withdrawal> {
        let orders = self.orders.load();
        let meaning = orders.iter().filter(|order| order.means(release));
        meaning.map(|order| order.withdrawal()).reduce(Withdrawal::stricter)
    }

    /// Puts an order into force, in place of one about the same releases.
    ///
    /// # Errors
    ///
    /// `too_many_holds`. When it cannot be kept, it is in force until the executor ends: a full disk keeps no guest running.
    pub(crate) async fn add(&self, order: Order) -> Result<(), Denied> {
        let _alone = self.changing.lock().await;
        let mut orders = Vec::clone(&self.orders.load());
        orders.retain(|known| known.hold.id != order.hold.id);
        if orders.len() >= MAX_HOLDS {
            let text = format!("at most {MAX_HOLDS} holds are in force; name a signer or a range of the log");
            return Err(Denied::new("too_many_holds", text));
        }
        orders.push(Arc::new(order));
        self.orders.store(Arc::new(orders.clone()));
        self.keep(&orders).await.map_err(|denied| {
            let message =
                "the hold is in force until this executor ends, and cannot be kept for the next start";
            Denied { message: message.into(), ..denied }
        })
    }

    /// Takes an order back.
    ///
    /// # Errors
    ///
    /// `hold_unknown`, or when that cannot be kept; it stays in force then.
    pub(crate) async fn remove(&self, id: &str) -> Result<Arc<Order>, Denied> {
        let _alone = self.changing.lock().await;
        let (taken, kept): (Vec<_>, Vec<_>) =
            self.orders.load().iter().cloned().partition(|order| order.hold.id == id);
        let Some(order) = taken.into_iter().next() else {
            let shown: String = id.chars().take(64).flat_map(char::escape_default).collect();
            return Err(Denied::new("hold_unknown", format!("no hold is called {shown}")));
        };
        self.keep(&kept).await?;
        self.orders.store(Arc::new(kept));
        Ok(order)
    }

    async fn keep(&self, orders: &[Arc<Order>]) -> Result<(), Denied> {
        const WHAT: &str = "holds.json";
        let holds = orders.iter().map(|order| order.hold.clone()).collect();
        let bytes = serde_json::to_vec_pretty(&File { version: VERSION, holds })
            .map_err(|error| self.state.failed(&error, WHAT))?;
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || atomic::write(&path, &bytes, Readers::Owner))
            .await
            .map_err(|error| self.state.failed(&error, WHAT))?
            .map_err(|error| self.state.failed(&error, WHAT))?;
        self.state.written();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
