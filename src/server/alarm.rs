//! A timer that is moved as rarely as can be.
//!
//! To set a timer takes a lock and may wake the thread that keeps the time, which costs a request more than to read its
//! head. Most deadlines are never met: so one timer serves them all, one after another, and stays where it is as long as
//! it rings before the one that is in force. Then it is moved, if that one is still in force.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer for deadlines of which one is in force at a time.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether `deadline` has come; else the task is woken when it has, or earlier.
    pub fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            if timer.deadline() > deadline || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() == deadline {
                return Poll::Ready(());
            }
        }
    }

    /// Resolves at `deadline`. Safe to drop and call again.
    pub async fn until(&mut self, deadline: Instant) {
        poll_fn(|cx| self.poll(deadline, cx)).await;
    }

    /// Does `work` until the deadline, which is asked for once there is something to wait for; `None`: it has come.
    pub async fn within<T>(
        &mut self,
        deadline: impl FnOnce() -> Instant,
        mut work: impl Future<Output = T> + Unpin,
    ) -> Option<T> {
        let (mut at, mut deadline) = (None, Some(deadline));
        poll_fn(|cx| {
            if let Poll::Ready(done) = Pin::new(&mut work).poll(cx) {
                return Poll::Ready(Some(done));
            }
            at = at.or_else(|| Some(deadline.take()?()));
            at.map_or(Poll::Pending, |at| self.poll(at, cx).map(|()| None))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A deadline that is met late protects nothing, and one that is met early breaks what went well.
    #[tokio::test(start_paused = true)]
    async fn each_deadline_is_met_whichever_came_before() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        for at in [10, 20, 15, 30, 30, 31] {
            let due = start + seconds(at);
            let begun = Instant::now();
            alarm.until(due).await;
            assert_eq!(Instant::now(), due.max(begun), "{at}");
        }
    }

    /// What is dropped before its deadline must neither hold up nor ring for what comes after.
    #[tokio::test(start_paused = true)]
    async fn deadlines_that_were_given_up_do_not_ring() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        for at in [10, 60, 5] {
            let _ = tokio::time::timeout(seconds(1), alarm.until(start + seconds(at))).await;
        }
        assert_eq!(start.elapsed(), seconds(3));
        assert_eq!(
            alarm.within(|| start + seconds(90), Box::pin(tokio::time::sleep(seconds(7)))).await,
            Some(())
        );
        assert_eq!(alarm.within(|| start + seconds(90), pending::<()>()).await, None);
        assert_eq!(start.elapsed(), seconds(90));
    }
}
