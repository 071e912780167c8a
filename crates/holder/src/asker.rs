//! For whom a gateway asks its holders: the request it works for, who made that, and what shows that he may.
//!
//! It stands in the task that does the work, so that nobody on the way has to hand it on. Every evaluation of one piece of work has a
//! name that begins in the same way, in the holders' logs and in the gateway's. What must stay true: work that evaluated something is
//! known to have done so until somebody has written that down.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// How the names of evaluations of one piece of work begin.
pub type RequestName = [u8; 8];

tokio::task_local! {
    static ASKER: Asker;
}

/// Who asks the gateway.
#[derive(Debug, Default)]
pub struct Identity {
    /// His name, for the holders' logs.
    pub principal: String,
    /// What shows that he may; see [`crate::authorization`].
    pub authorization: Vec<u8>,
}

/// One piece of work of a gateway.
#[derive(Debug)]
pub struct Asker {
    request: RequestName,
    identity: OnceLock<Arc<Identity>>,
    /// Evaluations asked for, and how many of them are written down.
    made: AtomicU64,
    noted: AtomicU64,
}

impl Asker {
    /// For a client who is not known yet.
    #[must_use]
    pub const fn new(request: RequestName) -> Self {
        Self { request, identity: OnceLock::new(), made: AtomicU64::new(0), noted: AtomicU64::new(0) }
    }

    /// For what the gateway does by itself.
    #[must_use]
    pub fn known(request: RequestName, identity: Arc<Identity>) -> Self {
        let asker = Self::new(request);
        asker.identity.get_or_init(|| identity);
        asker
    }

    /// Does `work` for it.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        ASKER.scope(self, work)
    }
}

/// Says who it is for, once that is known.
pub fn identify(identity: &Arc<Identity>) {
    ASKER.try_with(|asker| asker.identity.get_or_init(|| Arc::clone(identity)).principal.len()).ok();
}

/// The name of the present piece of work, if it has evaluated anything.
#[must_use]
pub fn evaluated() -> Option<String> {
    let name = |asker: &Asker| (asker.made.load(Ordering::Relaxed) > 0).then(|| hex::encode(asker.request));
    ASKER.try_with(name).ok().flatten()
}

/// Whether the present piece of work has evaluated anything that is not written down.
#[must_use]
pub fn is_unnoted() -> bool {
    let unnoted = |asker: &Asker| asker.made.load(Ordering::Relaxed) > asker.noted.load(Ordering::Relaxed);
    ASKER.try_with(unnoted).unwrap_or(false)
}

/// What was evaluated so far is written down.
pub fn note() {
    ASKER.try_with(|asker| asker.noted.store(asker.made.load(Ordering::Relaxed), Ordering::Relaxed)).ok();
}

/// The name of the next evaluation, and for whom it is; nothing outside of any work.
pub(crate) fn next() -> Option<([u8; 16], Option<Arc<Identity>>)> {
    let next = |asker: &Asker| {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&asker.request);
        name[8..].copy_from_slice(&asker.made.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        (name, asker.identity.get().cloned())
    };
    ASKER.try_with(next).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_knows_what_it_has_evaluated_until_that_is_written_down() {
        assert!(next().is_none() && evaluated().is_none() && !is_unnoted());
        let identity = Arc::new(Identity { principal: "p-1".into(), authorization: vec![1] });
        Asker::new([0xab; 8])
            .scope(async {
                assert!(evaluated().is_none() && !is_unnoted());
                assert!(next().expect("in work").1.is_none());
                identify(&identity);
                let (name, known) = next().expect("in work");
                assert_eq!((name[7], name[15], known.expect("known").principal.as_str()), (0xab, 1, "p-1"));
                assert_eq!((evaluated().as_deref(), is_unnoted()), (Some("abababababababab"), true));
                note();
                assert!(!is_unnoted() && evaluated().is_some());
                next();
                assert!(is_unnoted());
            })
            .await;
    }
}
