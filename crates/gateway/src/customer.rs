//! The customer's fragments of a gateway: where they come from, and what is said when one that is needed is not there.

use std::path::Path;

use anyhow::{Context as _, Result};
use volvelle_domain::ids::ItemId;
use volvelle_domain::item::Protection;
use volvelle_holder::customer::TokenFragment;
pub use volvelle_holder::customer::fresh;
use volvelle_holder::{CustomerFragments, Presence};
use volvelle_rotation::Vault;
use volvelle_store::Store;
use volvelle_store::keys::{self, CustomerUse};

/// The fragments of a file and of a token, if there are to be any.
///
/// # Errors
/// The file is wrong, or everybody can read it; the token cannot be used.
pub fn load(file: Option<&Path>, token: Option<&TokenFragment>) -> Result<CustomerFragments> {
    let mut fragments = CustomerFragments::default();
    if let Some(file) = file {
        fragments = CustomerFragments::read(file).context("the customer's fragments cannot be used")?;
    }
    match token {
        Some(token) => {
            let id = &token.id;
            fragments.with_token(token).with_context(|| format!("the customer's fragment {id} cannot be used"))
        }
        None => Ok(fragments),
    }
}

/// Whether this gateway has the fragment of a key.
pub(crate) fn presence(vault: &Vault, used: &CustomerUse) -> Presence {
    let protection = Protection { key: ItemId(0), customer: Some(used.customer.clone()) };
    vault.presence(Some(&protection)).unwrap_or(Presence::Missing)
}

/// The worst that is to be said of the fragments of these keys; `None` if there are no keys.
#[must_use]
pub fn worst(vault: &Vault, used: &[CustomerUse]) -> Option<Presence> {
    let all: Vec<Presence> = used.iter().map(|key| presence(vault, key)).collect();
    let worst = [Presence::Wrong, Presence::Missing].into_iter().find(|state| all.contains(state));
    worst.or_else(|| all.first().copied())
}

/// Says at the start which fragments are here, and which are needed and are not.
///
/// # Errors
/// The store failed.
pub async fn announce(store: &Store, vault: &Vault) -> Result<()> {
    for held in vault.quorum().customer().iter() {
        tracing::info!(fragment = held.id, name = held.name, "a customer's fragment is loaded");
    }
    let mut tx = store.read().await?;
    for key in keys::with_customer(&mut tx).await? {
        let state = presence(vault, &key);
        if state == Presence::Present {
            continue;
        }
        let (items, targets) = keys::sealed_with(&mut tx, &key.account, key.id).await?;
        tracing::error!(
            fragment = key.customer.fragment, state = state.as_str(), key = %key.key, account = key.account.0, items, targets,
            "a customer's fragment is not the one that is needed: what is sealed with this key is neither read, written nor \
             rotated here"
        );
    }
    Ok(())
}
