//! Before a secret is deleted: the credential that Volvelle made for it is taken off the target.
//!
//! What must stay true: only what Volvelle made itself is taken off, and doing it again is harmless, so that a deletion that a crash broke
//! off is simply asked for again.

use volvelle_domain::account::Account;
use volvelle_domain::connector::{ActingAs, Connector};
use volvelle_domain::ids::Version;
use volvelle_domain::item::{Item, ItemVersion, Rotator, VersionState};
use volvelle_store::versions::Slot;
use volvelle_store::{rotations, versions};

use crate::engine::Engine;
use crate::{EngineError, job};

/// Extra of an item: its credential is one that Volvelle made, because none was given when the item was.
pub const MANAGED: &str = "managed";

/// Whether the target makes this secret's credentials beside each other, with its own credential acting: if none is given when the secret
/// is made, all of them are Volvelle's.
#[must_use]
pub fn makes_its_own(connector: &dyn Connector, rotator: &Rotator) -> bool {
    let kind = rotator.rotator_type.as_str();
    let beside = connector.issues(kind) && !connector.declaration().capabilities.blind.contains(&kind);
    beside && rotator.acting == ActingAs::Target && kind != "target"
}

impl Engine {
    /// Takes off the target what Volvelle made there for this secret; gives the versions that may open the account. Nothing is done for a
    /// secret whose first credential was somebody else's.
    ///
    /// # Errors
    /// A rotation is under way, or the target refuses or does not answer: then some of it may still be there.
    pub async fn take_leave(&self, account: &Account, item: &Item) -> Result<Vec<(String, Version)>, EngineError> {
        if !item.extras.contains_key(MANAGED) {
            return Ok(Vec::new());
        }
        let mut tx = self.parts().store.read().await?;
        if !rotations::open_of(&mut tx, &account.id, item.id).await?.is_empty() {
            return Err(EngineError::Busy);
        }
        let mut open = versions::list_item(&mut tx, &account.id, item.id).await?;
        drop(tx);
        open.retain(|version| may_open(version.state));
        // What acts as a guard against taking off too much goes last.
        open.sort_by_key(|version| version.state == VersionState::Current);
        for version in open.iter().filter(|version| version.reason != "update") {
            self.take_one_off(account, item, version).await?;
        }
        Ok(open.into_iter().map(|version| (version.host, version.version)).collect())
    }

    async fn take_one_off(&self, account: &Account, item: &Item, version: &ItemVersion) -> Result<(), EngineError> {
        let slot = Slot { account: account.id.clone(), item: item.id, host: version.host.clone() };
        let mut seat = job::load(self.parts(), &slot).await?;
        seat.may_call()?;
        let credential = self.parts().vault.open_version(account, item, version).await?;
        if version.state == VersionState::Current {
            // A connector takes nothing off that is current.
            seat.current = seat.nameless()?;
        }
        let call = seat.call(0, self.parts().settings.timing.call * 4 / 5);
        seat.connector.revoke(&call, &credential).await.map_err(EngineError::from)
    }
}

/// Whether a version in this state may open the account.
#[must_use]
pub const fn may_open(state: VersionState) -> bool {
    matches!(state, VersionState::Candidate | VersionState::Current | VersionState::Grace)
}
