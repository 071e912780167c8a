//! Drives rotations: plans what is due, takes leases, does what the state machine asks for, saves what came of it, and only
//! then goes on.
//!
//! What must stay true: the target hears of a version only after it is stored, and every save carries the fence.

mod books;
pub mod crash;
mod engine;
mod farewell;
mod issue;
mod job;
mod mend;
mod planner;
pub mod rekey;
mod restore;
mod seat;
mod vault;
pub mod work;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use volvelle_domain::connector::{Connector, Failure};
use volvelle_domain::ids::{Clock, Entropy};
use volvelle_holder::QuorumError;
use volvelle_store::{Store, StoreError};

pub use books::DEPENDENTS;
pub use engine::{Engine, Outcome};
pub use farewell::{MANAGED, makes_its_own, may_open};
pub use job::SHARED;
pub use mend::{HostReport, Mended, evidence_word};
pub use seat::{Resolved, Seat};
pub use vault::Vault;
pub use worker::{Job, Jobs, Timing, Worker};

/// Finds the connector of a kind.
pub type Connectors = Arc<dyn Fn(&str) -> Option<Arc<dyn Connector>> + Send + Sync>;

/// What the engine works with. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Seals and opens.
    pub vault: Vault,
    /// The kinds there are.
    pub connectors: Connectors,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where passwords come from.
    pub entropy: Arc<dyn Entropy>,
    /// This gateway's name in leases.
    pub name: String,
    /// Bounds.
    pub settings: Settings,
}

/// Bounds of the engine.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Rotations under way at a time.
    pub at_once: usize,
    /// Of these, on one host of one target.
    pub per_target: u32,
    /// Failed logins that may be caused on an account within [`Self::login_window`].
    pub login_tries: u32,
    /// How long a failed login counts.
    pub login_window: Duration,
    /// Failed rotations in a row on one target before scheduled ones wait.
    pub breaker_after: u32,
    /// Leases and time-outs.
    pub timing: Timing,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            at_once: 32,
            per_target: 1,
            login_tries: 2,
            login_window: Duration::from_secs(30 * 60),
            breaker_after: 3,
            timing: Timing {
                lease: Duration::from_secs(60),
                call: Duration::from_secs(25),
                quiet: Duration::from_secs(5),
            },
        }
    }
}

/// Why the engine did not do it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store refuses or is not there.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The quorum cannot be reached, or a record does not belong where it is.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// The target refuses or cannot be reached, or a parameter is wrong.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The item is no rotated secret.
    #[error("it is no rotated secret")]
    NotRotated,
    /// A rotation of the secret is under way.
    #[error("a rotation of it is under way")]
    Busy,
    /// Nobody knows which value opens the account.
    #[error("no stored value opens the account")]
    OutOfSync,
}
