//! Timers of reads, used over and over: a timer that is put off costs nothing, where a new one wakes the thread that waits for
//! the network.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Sleep};

use crate::lock;

/// Timers kept for later, at most.
const KEPT: usize = 64;

/// Timers that nobody uses now. Those of another runtime are of no use to this one.
#[derive(Default)]
pub(super) struct Hedges(Mutex<Vec<(Id, Pin<Box<Sleep>>)>>);

/// One in use; it goes back when it is dropped.
pub(super) struct Hedge<'a> {
    all: &'a Hedges,
    timer: Option<(Id, Pin<Box<Sleep>>)>,
}

impl Hedges {
    /// One that fires after `delay`.
    pub(super) fn after(&self, delay: Duration) -> Hedge<'_> {
        let runtime = Handle::current().id();
        let known = lock(&self.0).pop().filter(|(of, _)| *of == runtime);
        let mut timer = known.unwrap_or_else(|| (runtime, Box::pin(tokio::time::sleep(delay))));
        timer.1.as_mut().reset(Instant::now() + delay);
        Hedge { all: self, timer: Some(timer) }
    }
}

impl Hedge<'_> {
    /// Fires once more, `delay` from now.
    pub(super) fn again(&mut self, delay: Duration) {
        if let Some((_, timer)) = &mut self.timer {
            timer.as_mut().reset(Instant::now() + delay);
        }
    }
}

impl Future for Hedge<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.timer {
            Some((_, timer)) => timer.as_mut().poll(context),
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Hedge<'_> {
    fn drop(&mut self) {
        let mut kept = lock(&self.all.0);
        if let Some(timer) = self.timer.take()
            && kept.len() < KEPT
        {
            kept.push(timer);
        }
    }
}
