//! What follows from whether a change may have been sent, the same for every kind.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use volvelle_domain::Credential;
use volvelle_domain::connector::{ApplyOutcome, Failure, ProbeOutcome, ProbeReport};

/// Whether something was sent that may change the target.
#[derive(Debug, Default)]
pub(crate) struct Sent(AtomicBool);

impl Sent {
    /// From here on the change may arrive.
    pub(crate) fn mark(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the change may have arrived.
    pub(crate) fn may_have_arrived(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// The outcome of a change that may take this long; `late` says that it took longer.
    pub(crate) async fn within(
        &self,
        time: Duration,
        change: impl Future<Output = ApplyOutcome>,
        late: fn() -> Failure,
    ) -> ApplyOutcome {
        match tokio::time::timeout(time, Box::pin(change)).await {
            Ok(outcome) => outcome,
            Err(_) if self.may_have_arrived() => ApplyOutcome::Ambiguous(late()),
            Err(_) => ApplyOutcome::NotReached(late()),
        }
    }
}

/// The report of a probe that found nothing out, for this reason.
pub(crate) fn nobody_knows(credentials: &[&Credential], failure: &Failure) -> ProbeReport {
    let outcomes = credentials.iter().map(|_| ProbeOutcome::Unknown(failure.clone())).collect();
    ProbeReport { outcomes, failed_logins: 0 }
}

#[cfg(test)]
mod tests {
    use volvelle_domain::connector::FailureClass;

    use super::*;

    fn late() -> Failure {
        Failure::new(FailureClass::Timeout, "late", "")
    }

    #[tokio::test]
    async fn a_change_that_takes_too_long_is_ambiguous_only_if_it_was_sent() {
        let (unsent, sent) = (Sent::default(), Sent::default());
        let outcome = unsent.within(Duration::from_millis(5), std::future::pending(), late).await;
        assert_eq!(outcome, ApplyOutcome::NotReached(late()));
        let change = async {
            sent.mark();
            std::future::pending().await
        };
        let outcome = sent.within(Duration::from_millis(5), change, late).await;
        assert_eq!(outcome, ApplyOutcome::Ambiguous(late()));
    }
}
