//! Seals and opens values at their places. A record opens only in the account, object, version, path and host it was made for.
//!
//! What must stay true: what has a protection key with a customer's fragment is sealed with that fragment or not at all, and a
//! record without it is not believed.

use volvelle_domain::account::Account;
use volvelle_domain::ids::{Micros, Uid, Version};
use volvelle_domain::item::{CustomerKey, Item, ItemVersion, Protection};
use volvelle_domain::path::ItemPath;
use volvelle_domain::target::{Target, TargetVersion};
use volvelle_domain::{Credential, Secret};
use volvelle_fragments::{Bound, Error, Place, Sealed};
use volvelle_holder::{Presence, Quorum, QuorumError, Wanted};
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

    /// Whether this gateway has what takes part in sealing; `None` if no customer's fragment does.
    #[must_use]
    pub fn presence(&self, protection: Option<&Protection>) -> Option<Presence> {
        Protection::customer(protection).map(|customer| self.0.customer().presence(wanted(customer)))
    }

    /// Refuses unless this gateway has the customer's fragment that takes part, if one does.
    ///
    /// # Errors
    /// It has not.
    pub fn require(&self, protection: Option<&Protection>) -> Result<(), QuorumError> {
        match Protection::customer(protection) {
            Some(customer) => self.0.customer().find(wanted(customer)).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Refuses a record whose kind is not the one that the protection asks for: whoever can write the database could else have
    /// the next value sealed without the customer's fragment.
    fn admit<'a>(&self, protection: Option<&Protection>, record: &'a [u8]) -> Result<Sealed<'a>, QuorumError> {
        let sealed = Sealed::parse(record)?;
        self.require(protection)?;
        let with_customer = Protection::customer(protection).is_some();
        if sealed.with_customer() == with_customer { Ok(sealed) } else { Err(Error::Place.into()) }
    }

    /// Seals one version of one slot of an item.
    ///
    /// # Errors
    /// Too few holders answer, or this gateway lacks the customer's fragment.
    pub async fn seal_version(
        &self,
        account: &Account,
        item: &Item,
        (host, version): (&str, Version),
        credential: &Credential,
    ) -> Result<Vec<u8>, QuorumError> {
        let place = item_place(account, item, &item.name, host, version);
        let customer = Protection::customer(item.protection.as_ref()).map(wanted);
        self.0.seal_with(&place, customer, credential.to_plaintext().expose()).await
    }

    /// Opens one version of an item.
    ///
    /// # Errors
    /// Too few holders answer, the record does not belong there, or this gateway lacks the customer's fragment.
    pub async fn open_version(
        &self,
        account: &Account,
        item: &Item,
        version: &ItemVersion,
    ) -> Result<Credential, QuorumError> {
        self.admit(item.protection.as_ref(), &version.sealed)?;
        let place = item_place(account, item, &item.name, &version.host, version.version);
        self.open(&place, &version.sealed).await
    }

    /// Binds one version of an item to its place, once for many readings by [`Self::open_bound`].
    ///
    /// # Errors
    /// The record does not belong there, or this gateway lacks the customer's fragment.
    pub fn bind_version(&self, account: &Account, item: &Item, version: &ItemVersion) -> Result<Bound, QuorumError> {
        let place = item_place(account, item, &item.name, &version.host, version.version);
        Ok(self.admit(item.protection.as_ref(), &version.sealed)?.bind(&place)?)
    }

    /// What was sealed: the fields of a credential as one JSON object, to be handed on as they are.
    ///
    /// # Errors
    /// Too few holders answer, or the record does not belong there.
    pub async fn open_bound(&self, bound: &Bound, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, QuorumError> {
        object(self.0.open_bound(bound, sealed).await?)
    }

    /// The same if its key is in memory; `None` if the holders must be asked.
    ///
    /// # Errors
    /// The record was changed.
    pub fn open_cached(&self, bound: &Bound, sealed: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, QuorumError> {
        self.0.open_cached(bound, sealed)?.map(object).transpose()
    }

    /// The record of one version for the item as it is to be: under another name, or sealed with another key.
    ///
    /// # Errors
    /// As opening and sealing.
    pub async fn move_version(
        &self,
        account: &Account,
        (from, to): (&Item, &Item),
        version: &ItemVersion,
    ) -> Result<Vec<u8>, QuorumError> {
        let places = (
            item_place(account, from, &from.name, &version.host, version.version),
            item_place(account, to, &to.name, &version.host, version.version),
        );
        self.change(places, (from.protection.as_ref(), to.protection.as_ref()), &version.sealed).await
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
    /// Too few holders answer, or this gateway lacks the customer's fragment.
    pub async fn seal_target(
        &self,
        account: &Account,
        target: &Target,
        version: Version,
        credential: &Credential,
    ) -> Result<Vec<u8>, QuorumError> {
        let place = target_place(account, target, &target.name, version);
        let customer = Protection::customer(target.protection.as_ref()).map(wanted);
        self.0.seal_with(&place, customer, credential.to_plaintext().expose()).await
    }

    /// Opens the secret parameters of one version of a target.
    ///
    /// # Errors
    /// Too few holders answer, the record does not belong there, or this gateway lacks the customer's fragment.
    pub async fn open_target(
        &self,
        account: &Account,
        target: &Target,
        version: &TargetVersion,
    ) -> Result<Credential, QuorumError> {
        self.admit(target.protection.as_ref(), &version.sealed)?;
        self.open(&target_place(account, target, &target.name, version.version), &version.sealed).await
    }

    /// The record of one version for the target as it is to be: under another name, or sealed with another key.
    ///
    /// # Errors
    /// As opening and sealing.
    pub async fn move_target(
        &self,
        account: &Account,
        (from, to): (&Target, &Target),
        version: &TargetVersion,
    ) -> Result<Vec<u8>, QuorumError> {
        let places = (
            target_place(account, from, &from.name, version.version),
            target_place(account, to, &to.name, version.version),
        );
        self.change(places, (from.protection.as_ref(), to.protection.as_ref()), &version.sealed).await
    }

    /// Another name is a new wrap of the same payload. Another key seals anew, under a fresh salt: a cached key of the former record
    /// is then none of the new one.
    async fn change(
        &self,
        (from, to): (Place, Place),
        (before, after): (Option<&Protection>, Option<&Protection>),
        record: &[u8],
    ) -> Result<Vec<u8>, QuorumError> {
        self.admit(before, record)?;
        if before == after {
            return self.0.rewrap(&from, &to, record).await;
        }
        let customer = Protection::customer(after).map(wanted);
        self.require(after)?;
        let plain = self.0.open(&from, record).await?;
        self.0.seal_with(&to, customer, &plain).await
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
        Credential::from_plaintext(&plain).ok_or(QuorumError::Record(Error::Encoding("the value")))
    }
}

/// Sealed values are JSON objects.
fn object(plain: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, QuorumError> {
    let whole = plain.starts_with(b"{") && plain.ends_with(b"}");
    if whole { Ok(plain) } else { Err(QuorumError::Record(Error::Encoding("the value"))) }
}

fn wanted(customer: &CustomerKey) -> Wanted<'_> {
    Wanted { id: &customer.fragment, check: &customer.check }
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
