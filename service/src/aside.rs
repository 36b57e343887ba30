//! Polls a future that is rarely ready only when it was woken.
//!
//! A connection's task is polled several times for each request, while its timer and the stop signal matter once in
//! seconds; looking at them takes locks that all connections share. They get a waker of their own, which wakes the task
//! and remembers that it was they who asked.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// The waker of the rare future, and whether it was used.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    side: Option<(Arc<Side>, Waker)>,
}

#[derive(Debug)]
struct Side {
    task: Waker,
    woken: AtomicBool,
}

impl Wake for Side {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl Aside {
    /// The future is a new one: it must be polled before it can wake anybody.
    pub(crate) fn look_at_once(&mut self) {
        if let Some((side, _)) = &self.side {
            side.woken.store(true, Ordering::Relaxed);
        }
    }

    /// Polls the future, if it asked for it.
    pub(crate) fn poll<F: Future>(&mut self, context: &Context<'_>, future: Pin<&mut F>) -> Poll<F::Output> {
        let known = self.side.as_ref().is_some_and(|(side, _)| side.task.will_wake(context.waker()));
        if !known {
            let side = Arc::new(Side { task: context.waker().clone(), woken: AtomicBool::new(true) });
            self.side = Some((side.clone(), side.into()));
        }
        match &self.side {
            Some((side, waker))
                if side.woken.load(Ordering::Relaxed) && side.woken.swap(false, Ordering::Acquire) =>
            {
                future.poll(&mut Context::from_waker(waker))
            }
            _ => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicU32;

    #[tokio::test]
    async fn the_rare_future_is_polled_at_first_and_when_it_was_woken_and_never_else() {
        // In a task, as connections are: the waker of a bare runtime may differ from its own clone by its table's address.
        tokio::spawn(polled_when_woken()).await.unwrap();
    }

    async fn polled_when_woken() {
        let polled = AtomicU32::new(0);
        let (ring, bell) = tokio::sync::oneshot::channel::<u8>();
        let mut bell = pin!(bell);
        let mut rare = pin!(poll_fn(|context| {
            polled.fetch_add(1, Ordering::Relaxed);
            bell.as_mut().poll(context)
        }));
        let mut aside = Aside::default();
        for _ in 0..5 {
            let pending =
                poll_fn(|context| Poll::Ready(aside.poll(context, rare.as_mut()).is_pending())).await;
            assert!(pending);
        }
        assert_eq!(polled.load(Ordering::Relaxed), 1);
        let waiting = poll_fn(|context| aside.poll(context, rare.as_mut()));
        let (heard, ()) = tokio::join!(waiting, async { ring.send(7).unwrap() });
        assert_eq!((heard, polled.load(Ordering::Relaxed)), (Ok(7), 2));
        aside.look_at_once();
        let mut other = pin!(std::future::ready(8));
        let found = poll_fn(|context| aside.poll(context, other.as_mut())).await;
        assert_eq!(found, 8);
    }
}
