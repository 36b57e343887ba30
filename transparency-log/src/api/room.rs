//! Room for the bodies of one log's batches, from their first byte until they are answered.
//!
//! Each log has its own, so that what is sent to one takes nothing from another; an address may take a part of it, unless
//! only named writers reach the log. Bytes count as they arrive. When there is no room for a body, the oldest one that has
//! been arriving for some time is given up in its favour: who sends slowly on purpose keeps nobody out.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
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
    /// In the order in which they came.
    bodies: BTreeMap<u64, Body>,
    by_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Body {
    from: IpAddr,
    bytes: usize,
    since: Duration,
    /// Tells whoever reads the body that it was given up; `None` once it is whole.
    given_up: Option<Arc<Notify>>,
}

impl BatchRoom {
    pub(crate) fn new(sharing: Sharing) -> Self {
        let share = match sharing {
            Sharing::PerAddress => ROOM / PARTS,
            Sharing::Writers => ROOM,
        };
        Self { total: ROOM, share, bodies: Mutex::default() }
    }

    /// A body begins to arrive.
    pub(crate) fn enter(&self, from: Option<IpAddr>, now: Duration) -> Place<'_> {
        let given_up = Arc::new(Notify::new());
        let body = Body {
            from: from.map_or(IpAddr::from([0; 4]), network),
            bytes: 0,
            since: now,
            given_up: Some(given_up.clone()),
        };
        let mut bodies = self.bodies.lock();
        let id = bodies.next;
        bodies.next += 1;
        bodies.bodies.insert(id, body);
        Place { room: self, id, given_up }
    }
}

impl Bodies {
    fn of(&self, from: &IpAddr) -> usize {
        self.by_address.get(from).copied().unwrap_or_default()
    }

    fn remove(&mut self, id: u64) -> Option<Body> {
        let body = self.bodies.remove(&id)?;
        self.held = self.held.saturating_sub(body.bytes);
        let left = self.of(&body.from).saturating_sub(body.bytes);
        if left == 0 {
            self.by_address.remove(&body.from);
        } else {
            self.by_address.insert(body.from, left);
        }
        Some(body)
    }

    /// Gives up the oldest body that is not whole by now, and not `id`; false when there is none.
    fn give_up(&mut self, id: u64, of: Option<IpAddr>, now: Duration) -> bool {
        let oldest = self.bodies.iter().find(|(other, body)| {
            **other != id
                && body.bytes > 0
                && body.given_up.is_some()
                && body.since + PATIENCE <= now
                && of.is_none_or(|from| from == body.from)
        });
        let Some(oldest) = oldest.map(|(other, _)| *other) else { return false };
        if let Some(given_up) = self.remove(oldest).and_then(|body| body.given_up) {
            given_up.notify_one();
        }
        true
    }
}

/// What one body holds; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    room: &'a BatchRoom,
    id: u64,
    given_up: Arc<Notify>,
}

impl Place<'_> {
    /// Makes room for `length` bytes in all.
    ///
    /// # Errors
    /// 503 when there is none, 408 when the body was given up for another one.
    pub(crate) fn grow(&self, length: usize, now: Duration) -> Result<(), Problem> {
        let mut bodies = self.room.bodies.lock();
        let Some((from, more)) =
            bodies.bodies.get(&self.id).map(|body| (body.from, length.saturating_sub(body.bytes)))
        else {
            return Err(too_slow());
        };
        while bodies.of(&from) + more > self.room.share {
            if !bodies.give_up(self.id, Some(from), now) {
                return Err(full("too many batches at once from this address"));
            }
        }
        while bodies.held + more > self.room.total {
            if !bodies.give_up(self.id, None, now) {
                return Err(full("too many batches at once"));
            }
        }
        bodies.held += more;
        *bodies.by_address.entry(from).or_default() += more;
        if let Some(body) = bodies.bodies.get_mut(&self.id) {
            body.bytes += more;
        }
        Ok(())
    }

    /// The body is whole: from now on nobody takes its room.
    ///
    /// # Errors
    /// 408 when it was given up before.
    pub(crate) fn whole(&self) -> Result<(), Problem> {
        match self.room.bodies.lock().bodies.get_mut(&self.id) {
            Some(body) => {
                body.given_up = None;
                Ok(())
            }
            None => Err(too_slow()),
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
        self.room.bodies.lock().remove(self.id);
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
        let held: Vec<_> = (0..64).map(|_| room.enter(address(1), at(0))).collect();
        let taken = held.iter().filter(|place| place.grow(BODY, at(0)).is_ok()).count();
        assert_eq!(taken * BODY, ROOM / PARTS);
        assert_eq!(status(room.enter(address(2), at(0)).grow(BODY, at(0))), 200);
        drop(held);
        assert_eq!(status(room.enter(address(1), at(0)).grow(BODY, at(0))), 200);
        assert_eq!(room.bodies.lock().held, 0);
        assert!(room.bodies.lock().by_address.is_empty());
    }

    #[test]
    fn writers_that_the_configuration_names_may_hold_all_of_it() {
        let room = BatchRoom::new(Sharing::Writers);
        let held: Vec<_> = (0..64).map(|_| room.enter(address(1), at(0))).collect();
        assert_eq!(held.iter().filter(|place| place.grow(BODY, at(0)).is_ok()).count() * BODY, ROOM);
    }

    #[tokio::test]
    async fn the_oldest_body_that_still_arrives_makes_room_for_a_new_one() {
        let room = BatchRoom::new(Sharing::PerAddress);
        let held: Vec<_> = (0..ROOM / BODY)
            .map(|place| room.enter(address(u8::try_from(place % PARTS).unwrap()), at(0)))
            .collect();
        assert!(held.iter().all(|place| place.grow(BODY - 400, at(0)).is_ok()));
        held[0].whole().unwrap();
        let late = room.enter(address(100), at(4));
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

    #[test]
    fn an_address_that_is_at_its_share_gives_up_its_own_bodies_only() {
        let room = BatchRoom::new(Sharing::PerAddress);
        let other = room.enter(address(2), at(0));
        other.grow(BODY, at(0)).unwrap();
        let slow: Vec<_> = (0..ROOM / PARTS / BODY).map(|_| room.enter(address(1), at(0))).collect();
        assert!(slow.iter().all(|place| place.grow(BODY - 400, at(0)).is_ok()));
        assert_eq!(status(room.enter(address(1), at(60)).grow(BODY, at(60))), 200);
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
