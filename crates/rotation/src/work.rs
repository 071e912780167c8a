//! What the engine does by itself has a name, by which its evaluations are found in the holders' logs and its entries in the audit log.
//!
//! What must stay true: the name follows from what is done, so that what a crash interrupted and somebody else finishes has the same one.

use std::sync::{Arc, LazyLock};

use sha2::{Digest as _, Sha256};
use volvelle_domain::ids::AccountId;
use volvelle_holder::asker::{Asker, Identity, RequestName};

/// No client is behind it.
static OWN: LazyLock<Arc<Identity>> =
    LazyLock::new(|| Arc::new(Identity { principal: "volvelle".to_owned(), ..Identity::default() }));

/// How the gateway itself is known to the holders.
#[must_use]
pub fn own() -> Arc<Identity> {
    Arc::clone(&OWN)
}

/// The piece of work of this kind on that object of an account.
#[must_use]
pub fn of(kind: &str, account: &AccountId, id: i64) -> Asker {
    Asker::known(bytes(kind, account, id), own())
}

/// Its name as it stands in the logs.
#[must_use]
pub fn name(kind: &str, account: &AccountId, id: i64) -> String {
    hex::encode(bytes(kind, account, id))
}

fn bytes(kind: &str, account: &AccountId, id: i64) -> RequestName {
    let mut hash = Sha256::new_with_prefix(b"volvelle-work");
    for part in [kind.as_bytes(), account.0.as_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let hash = hash.chain_update(id.to_be_bytes()).finalize();
    let mut name = [0; 8];
    name.copy_from_slice(&hash[..8]);
    name
}
