//! Room for the bodies of one log's batches, from their first byte until they are answered.
//!
//! Each log has its own, so that what is sent to one takes nothing from another; an address may take a part of it, unless
//! only named writers reach the log. Bytes count as they arrive. When there is no room for a body, the oldest one that has
//! been arriving for some time is given up in its favour: who sends slowly on purpose keeps nobody out.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use service::Problem;
use tokio::sync::Notify;

/// Bytes of batch bodies of one log in memory at once.
const ROOM: usize = 128 << 20;
/// One address may hold one part in so many.
const PARTS: usize = 8;
/// A body that is not whole after this long may be given up for another.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who may take how much of a log's room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// One address may hold an eighth.
    PerAddress,
    /// Who submits is known and named in the configuration: each may hold all of it.
    Writers,
}

/// The room of one log.
#[derive(Debug)]
pub(crate) struct BatchRoom {
    total: usize,
    share: usize,
    bodies: Mutex<Bodies>,
}

#[derive(Debug, Default)]
struct Bodies {
    next: u64,
    held: usize,
    bodies: HashMap<u64, Body>,
    /// Those that are not whole, in the order in which their first bytes came.
    arriving: BTreeSet<u64>,
    by_address: HashMap<IpAddr, OfAddress>,
}

/// The same of one address.
#[derive(Debug, Default)]
struct OfAddress {
    held: usize,
    bodies: usize,
    arriving: BTreeSet<u64>,
}

#[derive(Debug)]
struct Body {
    from: IpAddr,
    bytes: usize,
    since: Duration,
    given_up: Arc<Notify>,
}

impl BatchRoom {
    pub(crate) fn new(sharing: Sharing) -> Self {
        let share = match sharing {
            Sharing::PerAddress => ROOM / PARTS,
            Sharing::Writers => ROOM,
        };
        Self { total: ROOM, share, bodies: Mutex::default() }
    }

    /// A body is expected. It takes part with its first byte: streams that are only opened cost nobody anything.
    pub(crate) fn enter(&self, from: Option<IpAddr>) -> Place<'_> {
        let from = from.map_or(IpAddr::from([0; 4]), network);
        Place { room: self, from, id: OnceLock::new(), given_up: Arc::default() }
    }
}

impl Bodies {
    fn of(&self, from: &IpAddr) -> usize {
        self.by_address.get(from).map_or(0, |of_address| of_address.held)
    }

    fn insert(&mut self, body: Body) -> u64 {
        let id = self.next;
        self.next += 1;
        let of_address = self.by_address.entry(body.from).or_default();
        of_address.bodies += 1;
        of_address.arriving.insert(id);
        self.arriving.insert(id);
        self.bodies.insert(id, body);
        id
    }

    fn remove(&mut self, id: u64) -> Option<Body> {
        let body = self.bodies.remove(&id)?;
        self.arriving.remove(&id);
        self.held = self.held.saturating_sub(body.bytes);
        if let Some(of_address) = self.by_address.get_mut(&body.from) {
            of_address.arriving.remove(&id);
            of_address.held = of_address.held.saturating_sub(body.bytes);
            of_address.bodies = of_address.bodies.saturating_sub(1);
            if of_address.bodies == 0 {
                self.by_address.remove(&body.from);
            }
        }
        Some(body)
    }

    fn whole(&mut self, id: u64) -> bool {
        let Some(body) = self.bodies.get(&id) else { return false };
        self.arriving.remove(&id);
        if let Some(of_address) = self.by_address.get_mut(&body.from) {
            of_address.arriving.remove(&id);
        }
        true
    }

    /// Gives up the oldest body that is not whole by now, and not `id`; false when there is none. Whoever came later is not
    /// older, so at most two are looked at.
    fn give_up(&mut self, id: u64, of: Option<IpAddr>, now: Duration) -> bool {
        let arriving = match of {
            None => Some(&self.arriving),
            Some(from) => self.by_address.get(&from).map(|of_address| &of_address.arriving),
        };
        let oldest = arriving.and_then(|arriving| arriving.iter().find(|other| **other != id)).copied();
        let late = oldest.filter(|oldest| {
            self.bodies.get(oldest).is_some_and(|body| body.since.saturating_add(PATIENCE) <= now)
        });
        let Some(body) = late.and_then(|oldest| self.remove(oldest)) else { return false };
        body.given_up.notify_one();
        true
    }
}

/// What one body holds; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    room: &'a BatchRoom,
    from: IpAddr,
    /// Once its first byte came.
    id: OnceLock<u64>,
    /// Tells whoever reads the body that it was given up.
    given_up: Arc<Notify>,
}

impl Place<'_> {
    /// Makes room for `length` bytes in all.
    ///
    /// # Errors
    /// 503 when there is none, 408 when the body was given up for another one.
    pub(crate) fn grow(&self, length: usize, now: Duration) -> Result<(), Problem> {
        let mut bodies = self.room.bodies.lock();
        let id = *self.id.get_or_init(|| {
            let given_up = self.given_up.clone();
            bodies.insert(Body { from: self.from, bytes: 0, since: now, given_up })
        });
        let from = self.from;
        let Some(more) = bodies.bodies.get(&id).map(|body| length.saturating_sub(body.bytes)) else {
            return Err(too_slow());
        };
        while bodies.of(&from) + more > self.room.share {
            if !bodies.give_up(id, Some(from), now) {
                return Err(full("too many batches at once from this address"));
            }
        }
        while bodies.held + more > self.room.total {
            if !bodies.give_up(id, None, now) {
                return Err(full("too many batches at once"));
            }
        }
        bodies.held += more;
        if let Some(of_address) = bodies.by_address.get_mut(&from) {
            of_address.held += more;
        }
        if let Some(body) = bodies.bodies.get_mut(&id) {
            body.bytes += more;
        }
        Ok(())
    }

    /// The body is whole: from now on nobody takes its room.
    ///
    /// # Errors
    /// 408 when it was given up before.
    pub(crate) fn whole(&self) -> Result<(), Problem> {
        match self.id.get() {
            Some(id) if !self.room.bodies.lock().whole(*id) => Err(too_slow()),
            _ => Ok(()),
        }
    }

    /// Ends when the body is given up.
    ///
    /// # Errors
    /// Always 408.
    pub(crate) async fn given_up<T>(&self) -> Result<T, Problem> {
        self.given_up.notified().await;
        Err(too_slow())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.get() {
            self.room.bodies.lock().remove(*id);
        }
    }
}

fn full(detail: &str) -> Problem {
    Problem::unavailable("overloaded", 1).with_detail(detail)
}

fn too_slow() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout")
        .with_detail("the body came too slowly while others waited for its room")
        .with_retry_after(1)
}

/// Who an address belongs to: an IPv6 host has a whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => std::net::Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: usize = 4 << 20;

    fn address(number: u8) -> Option<IpAddr> {
        Some([192, 0, 2, number].into())
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn status(result: Result<(), Problem>) -> u16 {
        result.map_or_else(|problem| problem.status().as_u16(), |()| 200)
    }

    #[test]
    fn an_address_holds_its_share_and_leaves_the_rest_to_others() {
        let room = BatchRoom::new(Sharing::PerAddress);
        let held: Vec<_> = (0..64).map(|_| room.enter(address(1))).collect();
        let taken = held.iter().filter(|place| place.grow(BODY, at(0)).is_ok()).count();
        assert_eq!(taken * BODY, ROOM / PARTS);
        assert_eq!(status(room.enter(address(2)).grow(BODY, at(0))), 200);
        drop(held);
        assert_eq!(status(room.enter(address(1)).grow(BODY, at(0))), 200);
        assert_eq!(room.bodies.lock().held, 0);
        assert!(room.bodies.lock().by_address.is_empty());
    }

    #[test]
    fn writers_that_the_configuration_names_may_hold_all_of_it() {
        let room = BatchRoom::new(Sharing::Writers);
        let held: Vec<_> = (0..64).map(|_| room.enter(address(1))).collect();
        assert_eq!(held.iter().filter(|place| place.grow(BODY, at(0)).is_ok()).count() * BODY, ROOM);
    }

    #[tokio::test]
    async fn the_oldest_body_that_still_arrives_makes_room_for_a_new_one() {
        let room = BatchRoom::new(Sharing::PerAddress);
        let held: Vec<_> =
            (0..ROOM / BODY).map(|place| room.enter(address(u8::try_from(place % PARTS).unwrap()))).collect();
        assert!(held.iter().all(|place| place.grow(BODY - 400, at(0)).is_ok()));
        held[0].whole().unwrap();
        let late = room.enter(address(100));
        // Whoever has sent for a short time only is not interrupted.
        assert_eq!(status(late.grow(BODY, at(4))), 503);
        assert_eq!(status(late.grow(BODY, at(5))), 200);
        assert_eq!(status(held[0].grow(BODY - 400, at(5))), 200, "a whole body was given up");
        let given_up = held[1].given_up::<()>().await.unwrap_err();
        assert_eq!((given_up.status().as_u16(), given_up.code()), (408, "body_timeout"));
        assert_eq!(status(held[1].grow(BODY, at(5))), 408);
        assert_eq!(status(held[1].whole()), 408);
        drop(held);
        drop(late);
        assert_eq!(room.bodies.lock().held, 0);
    }

    /// Streams without a byte are nobody's to walk over, and cost the room nothing.
    #[test]
    fn a_body_takes_part_with_its_first_byte() {
        let room = BatchRoom::new(Sharing::PerAddress);
        let opened: Vec<_> = (0..100_000).map(|_| room.enter(address(1))).collect();
        let body = room.enter(address(1));
        body.grow(1, at(0)).unwrap();
        {
            let bodies = room.bodies.lock();
            assert_eq!((bodies.bodies.len(), bodies.arriving.len(), bodies.by_address.len()), (1, 1, 1));
        }
        assert_eq!(status(opened[0].whole()), 200, "a batch without a body is for its reader to refuse");
        body.whole().unwrap();
        assert!(room.bodies.lock().arriving.is_empty(), "a whole body is not looked at any more");
        drop(body);
        assert!(room.bodies.lock().by_address.is_empty());
    }

    #[test]
    fn an_address_that_is_at_its_share_gives_up_its_own_bodies_only() {
        let room = BatchRoom::new(Sharing::PerAddress);
        let other = room.enter(address(2));
        other.grow(BODY, at(0)).unwrap();
        let slow: Vec<_> = (0..ROOM / PARTS / BODY).map(|_| room.enter(address(1))).collect();
        assert!(slow.iter().all(|place| place.grow(BODY - 400, at(0)).is_ok()));
        assert_eq!(status(room.enter(address(1)).grow(BODY, at(60))), 200);
        assert_eq!(status(other.whole()), 200);
        assert_eq!(status(slow[0].whole()), 408);
    }

    #[test]
    fn one_host_is_one_address() {
        for (one, other) in [("2001:db8::1", "2001:db8::ffff"), ("192.0.2.1", "::ffff:192.0.2.1")] {
            assert_eq!(network(one.parse().unwrap()), network(other.parse().unwrap()));
        }
        assert_ne!(network("2001:db8::1".parse().unwrap()), network("2001:db8:0:1::1".parse().unwrap()));
    }
}
