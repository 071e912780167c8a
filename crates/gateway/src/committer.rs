//! Group commit: many callers' entries in one write. A caller hears back only when its entry is durable;
//! when nothing is being written, its write begins at once.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;

const QUEUE: usize = 4096;
const LARGEST_BATCH: usize = 512;

/// Where entries become durable, all of a batch or none.
#[async_trait]
pub trait Sink<T>: Send + Sync + 'static {
    /// What is said of each entry.
    type Answer: Send + 'static;
    /// Why a batch was not written.
    type Error: Clone + Send + Sync + 'static;

    /// Writes the batch in its order; one answer per entry.
    async fn write(&self, batch: Vec<T>) -> Result<Vec<Self::Answer>, Self::Error>;
}

/// Why an entry is not durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitError<E> {
    /// The sink refused the batch.
    Refused(E),
    /// The committer has stopped; the entry may or may not be durable.
    Stopped,
}

type Waiter<A, E> = oneshot::Sender<Result<A, E>>;

/// Hands entries to one writing task. Clones share it; it ends when the last one is dropped.
pub struct Committer<T, A, E> {
    queue: mpsc::Sender<(T, Waiter<A, E>)>,
}

impl<T, A, E> Clone for Committer<T, A, E> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<T: Send + 'static, A: Send + 'static, E: Clone + Send + Sync + 'static> Committer<T, A, E> {
    /// Starts the writing task.
    pub fn start(sink: Arc<dyn Sink<T, Answer = A, Error = E>>) -> Self {
        let (queue, entries) = mpsc::channel(QUEUE);
        tokio::spawn(write_all(sink, entries));
        Self { queue }
    }

    /// Returns what the sink says of `entry` once its batch is durable.
    ///
    /// # Errors
    /// If it is not, or nobody knows.
    pub async fn commit(&self, entry: T) -> Result<A, CommitError<E>> {
        let (tell, told) = oneshot::channel();
        match self.queue.try_send((entry, tell)) {
            Ok(()) => {}
            // Boxed, and so is whatever else is rare: what waits for a write is small.
            Err(TrySendError::Full(entry)) => {
                Box::pin(self.queue.send(entry)).await.map_err(|_| CommitError::Stopped)?
            }
            Err(TrySendError::Closed(_)) => return Err(CommitError::Stopped),
        }
        told.await.map_err(|_| CommitError::Stopped)?.map_err(CommitError::Refused)
    }
}

async fn write_all<T, A, E>(
    sink: Arc<dyn Sink<T, Answer = A, Error = E>>,
    mut entries: mpsc::Receiver<(T, Waiter<A, E>)>,
) where
    T: Send + 'static,
    A: Send + 'static,
    E: Clone + Send + Sync + 'static,
{
    let mut received = Vec::with_capacity(LARGEST_BATCH);
    while entries.recv_many(&mut received, LARGEST_BATCH).await > 0 {
        let (batch, waiters): (Vec<T>, Vec<Waiter<A, E>>) = received.drain(..).unzip();
        // A caller that has gone does not need the answer; one without an answer hears that nobody knows.
        match sink.write(batch).await {
            Ok(answers) => waiters.into_iter().zip(answers).for_each(|(waiter, answer)| drop(waiter.send(Ok(answer)))),
            Err(error) => waiters.into_iter().for_each(|waiter| drop(waiter.send(Err(error.clone())))),
        }
        // What those have to say who were answered, and those who came meanwhile, is written together: every write has its price.
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Slow {
        batches: Mutex<Vec<Vec<u32>>>,
    }

    #[async_trait]
    impl Sink<u32> for Slow {
        type Answer = u32;
        type Error = String;

        async fn write(&self, batch: Vec<u32>) -> Result<Vec<u32>, String> {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if batch.contains(&999) {
                return Err("full".to_owned());
            }
            self.batches.lock().expect("lock").push(batch.clone());
            Ok(batch)
        }
    }

    #[tokio::test]
    async fn answers_wait_for_their_write_and_crowds_share_one() {
        let sink = Arc::new(Slow::default());
        let committer = Committer::start(Arc::clone(&sink) as Arc<dyn Sink<u32, Answer = u32, Error = String>>);
        committer.commit(0).await.expect("written");
        assert_eq!(*sink.batches.lock().expect("lock"), [[0]]);
        let crowd = (1..=100).map(|n| {
            let (committer, sink) = (committer.clone(), Arc::clone(&sink));
            tokio::spawn(async move {
                assert_eq!(committer.commit(n).await, Ok(n));
                assert!(
                    sink.batches.lock().expect("lock").iter().flatten().any(|&m| m == n),
                    "durable before the answer"
                );
            })
        });
        for task in crowd.collect::<Vec<_>>() {
            task.await.expect("no panic");
        }
        assert!(sink.batches.lock().expect("lock").len() <= 4, "a crowd is written together");
    }

    #[tokio::test]
    async fn a_failed_write_is_reported_and_does_not_end_the_service() {
        let committer = Committer::start(Arc::new(Slow::default()) as Arc<dyn Sink<u32, Answer = u32, Error = String>>);
        assert_eq!(committer.commit(999).await, Err(CommitError::Refused("full".to_owned())));
        assert_eq!(committer.commit(1).await, Ok(1));
    }
}
