//! Seals and opens values at their places. A record opens only in the account, object, version, path and host it was made for.

use volvelle_domain::account::Account;
use volvelle_domain::ids::{Micros, Uid, Version};
use volvelle_domain::item::{Item, ItemVersion};
use volvelle_domain::path::ItemPath;
use volvelle_domain::target::{Target, TargetVersion};
use volvelle_domain::{Credential, Secret};
use volvelle_fragments::{Bound, Place, Sealed};
use volvelle_holder::{Quorum, QuorumError};
use zeroize::Zeroizing;

/// Purpose of a record that holds a version of an item.
const ITEM: u8 = 1;
/// Purpose of a record that holds a version of a target.
const TARGET: u8 = 2;

/// Purpose of a record that proves to a target who calls it.
const CALLER: u8 = 3;

/// The quorum, asked in the product's own words. Cheap to clone.
#[derive(Clone)]
pub struct Vault(Quorum);

impl Vault {
    /// A vault over a quorum.
    #[must_use]
    pub const fn new(quorum: Quorum) -> Self {
        Self(quorum)
    }

    /// The quorum itself.
    #[must_use]
    pub const fn quorum(&self) -> &Quorum {
        &self.0
    }

    /// Seals one version of one slot of an item.
    ///
    /// # Errors
    /// Too few holders answer.
    pub async fn seal_version(
        &self,
        account: &Account,
        item: &Item,
        (host, version): (&str, Version),
        credential: &Credential,
    ) -> Result<Vec<u8>, QuorumError> {
        let place = item_place(account, item, &item.name, host, version);
        self.0.seal(&place, credential.to_plaintext().expose()).await
    }

    /// Opens one version of an item.
    ///
    /// # Errors
    /// Too few holders answer, or the record does not belong there.
    pub async fn open_version(
        &self,
        account: &Account,
        item: &Item,
        version: &ItemVersion,
    ) -> Result<Credential, QuorumError> {
        let place = item_place(account, item, &item.name, &version.host, version.version);
        self.open(&place, &version.sealed).await
    }

    /// Binds one version of an item to its place, once for many readings by [`Self::open_bound`].
    ///
    /// # Errors
    /// The record does not belong there.
    pub fn bind_version(&self, account: &Account, item: &Item, version: &ItemVersion) -> Result<Bound, QuorumError> {
        let place = item_place(account, item, &item.name, &version.host, version.version);
        Ok(Sealed::parse(&version.sealed)?.bind(&place)?)
    }

    /// What was sealed: the fields of a credential as one JSON object, to be handed on as they are.
    ///
    /// # Errors
    /// Too few holders answer, or the record does not belong there.
    pub async fn open_bound(&self, bound: &Bound, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, QuorumError> {
        let plain = self.0.open_bound(bound, sealed).await?;
        if plain.starts_with(b"{") && plain.ends_with(b"}") {
            return Ok(plain);
        }
        Err(QuorumError::Record(volvelle_fragments::Error::Encoding("the value")))
    }

    /// The record of one version for the item under another name.
    ///
    /// # Errors
    /// As opening and sealing.
    pub async fn move_version(
        &self,
        account: &Account,
        item: &Item,
        to: &ItemPath,
        version: &ItemVersion,
    ) -> Result<Vec<u8>, QuorumError> {
        let from = item_place(account, item, &item.name, &version.host, version.version);
        let to = item_place(account, item, to, &version.host, version.version);
        self.0.rewrap(&from, &to, &version.sealed).await
    }

    /// Binds one version of a target to its place.
    ///
    /// # Errors
    /// The record does not belong there.
    pub fn bind_target(
        &self,
        account: &Account,
        target: &Target,
        version: &TargetVersion,
    ) -> Result<Bound, QuorumError> {
        let place = target_place(account, target, &target.name, version.version);
        Ok(Sealed::parse(&version.sealed)?.bind(&place)?)
    }

    /// Seals the secret parameters of one version of a target.
    ///
    /// # Errors
    /// Too few holders answer.
    pub async fn seal_target(
        &self,
        account: &Account,
        target: &Target,
        version: Version,
        credential: &Credential,
    ) -> Result<Vec<u8>, QuorumError> {
        let place = target_place(account, target, &target.name, version);
        self.0.seal(&place, credential.to_plaintext().expose()).await
    }

    /// Opens the secret parameters of one version of a target.
    ///
    /// # Errors
    /// Too few holders answer, or the record does not belong there.
    pub async fn open_target(
        &self,
        account: &Account,
        target: &Target,
        version: &TargetVersion,
    ) -> Result<Credential, QuorumError> {
        self.open(&target_place(account, target, &target.name, version.version), &version.sealed).await
    }

    /// The record of one version for the target under another name.
    ///
    /// # Errors
    /// As opening and sealing.
    pub async fn move_target(
        &self,
        account: &Account,
        target: &Target,
        to: &ItemPath,
        version: &TargetVersion,
    ) -> Result<Vec<u8>, QuorumError> {
        let from = target_place(account, target, &target.name, version.version);
        self.0.rewrap(&from, &target_place(account, target, to, version.version), &version.sealed).await
    }

    /// A proof that a request for this item comes from a gateway of the account, good until `until`. Only the account's gateways
    /// can make one, and any of them can check it.
    ///
    /// # Errors
    /// Too few holders answer.
    pub async fn prove_caller(&self, account: &Account, item: &Item, until: Micros) -> Result<String, QuorumError> {
        let place = Place { purpose: CALLER, ..item_place(account, item, &item.name, "", 0) };
        let record = self.0.seal(&place, &until.0.to_be_bytes()).await?;
        Ok(format!("{}.{}.{}", account.id.0, hex::encode(item.name.as_str()), hex::encode(record)))
    }

    /// Whether a record is a proof for this item that is still good at `now`.
    ///
    /// # Errors
    /// Too few holders answer.
    pub async fn check_caller(
        &self,
        account: &Account,
        item: &Item,
        record: &[u8],
        now: Micros,
    ) -> Result<bool, QuorumError> {
        let place = Place { purpose: CALLER, ..item_place(account, item, &item.name, "", 0) };
        match self.0.open(&place, record).await {
            Ok(until) => Ok(until.as_slice().try_into().is_ok_and(|until| i64::from_be_bytes(until) > now.0)),
            Err(QuorumError::Record(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn open(&self, place: &Place, record: &[u8]) -> Result<Credential, QuorumError> {
        let mut plain = self.0.open(place, record).await?;
        let plain = Secret::new(std::mem::take(&mut *plain));
        Credential::from_plaintext(&plain).ok_or(QuorumError::Record(volvelle_fragments::Error::Encoding("the value")))
    }
}

fn item_place(account: &Account, item: &Item, name: &ItemPath, host: &str, version: Version) -> Place {
    place_of_item(account, item.uid, name, host, version)
}

/// The host stands behind the path, after a character that no path contains, so that holders judge by the path.
pub(crate) fn place_of_item(account: &Account, uid: Uid, name: &ItemPath, host: &str, version: Version) -> Place {
    let path = if host.is_empty() { name.as_str().to_owned() } else { format!("{name}\n{host}") };
    Place { realm: account.realm.0, key_id: account.key_id, purpose: ITEM, item: uid.0, version, path }
}

fn target_place(account: &Account, target: &Target, name: &ItemPath, version: Version) -> Place {
    place_of_target(account, target.uid, name, version)
}

pub(crate) fn place_of_target(account: &Account, uid: Uid, name: &ItemPath, version: Version) -> Place {
    let path = name.as_str().to_owned();
    Place { realm: account.realm.0, key_id: account.key_id, purpose: TARGET, item: uid.0, version, path }
}
