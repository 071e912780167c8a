//! A gateway whose store holds 100,000 rotated secrets, written past the gateway.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Map, json};
use tokio::task::JoinSet;
use volvelle_domain::account::Account;
use volvelle_domain::connector::ActingAs;
use volvelle_domain::ids::{ItemId, Micros, TargetId, Uid};
use volvelle_domain::item::{Item, ItemKind, ItemVersion, Locking, Rotator, RotatorStatus, Schedule, VersionState};
use volvelle_domain::target::{Target, TargetVersion};
use volvelle_domain::{Credential, ItemPath, Secret};
use volvelle_holder::{Quorum, local};
use volvelle_rotation::Vault;
use volvelle_store::versions::Slot;
use volvelle_store::{Store, accounts, items, targets, versions};
use volvelle_testkit::gateway::DevGateway;

use super::figure::Report;
use crate::host;

/// Secrets in the store.
pub const SECRETS: usize = 100_000;
/// Of these, with values that can be opened.
pub const READABLE: usize = 20_000;
const PER_TRANSACTION: usize = 2_000;
const SEALED_AT_ONCE: usize = 16;
const DAY_SECONDS: i64 = 86_400;

/// A gateway over a full store.
pub struct Full {
    /// The gateway.
    pub gateway: DevGateway,
}

/// What rows are made with.
struct Filler {
    store: Store,
    vault: Vault,
    account: Account,
    now: Micros,
}

/// The path of the n-th secret.
pub fn name(n: usize) -> String {
    format!("/prod/site-{:02}/rack-{:03}/host-{n:06}/root", n % 40, n % 700)
}

impl Full {
    /// Starts a gateway and fills its store.
    pub async fn make(report: &mut Report) -> Result<Self> {
        eprintln!("filling a store with {SECRETS} secrets ...");
        let gateway = DevGateway::start_program(host::built("volvelle")?, &[]).await?;
        let filler = Filler::over(&gateway).await?;
        let target = filler.target().await?;
        let began = Instant::now();
        let mut copied = Vec::new();
        for first in (0..SECRETS).step_by(PER_TRANSACTION) {
            let mut rows: Vec<Item> = (first..first + PER_TRANSACTION).map(|n| filler.item(n, target)).collect();
            let sealed = if first < READABLE { filler.seal(&rows).await? } else { vec![copied.clone(); rows.len()] };
            copied.clone_from(&sealed[0]);
            filler.write(rows.drain(..).zip(sealed)).await?;
        }
        eprintln!("filled in {:.0} s", began.elapsed().as_secs_f64());
        report.note(format!(
            "of the {SECRETS} secrets, {READABLE} are sealed under keys of their own; the others carry a copy of a sealed record"
        ));
        Ok(Self { gateway })
    }
}

impl Filler {
    async fn over(gateway: &DevGateway) -> Result<Self> {
        let folder = gateway.data_dir();
        let setup = local::prepare(&folder.join("holders"), 3, 2)?;
        let store = Store::open(&format!("sqlite://{}", folder.join("volvelle.db").display())).await?;
        let mut tx = store.read().await?;
        let account = accounts::list(&mut tx).await?.into_iter().next().context("the first account")?;
        drop(tx);
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let now = Micros(i64::try_from(since.as_micros())?);
        Ok(Self { store, vault: Vault::new(Quorum::new(&setup.quorum)?), account, now })
    }

    async fn target(&self) -> Result<TargetId> {
        let mut target = Target {
            protection: None,
            account: self.account.id.clone(),
            id: TargetId(0),
            uid: Uid([7; 16]),
            name: ItemPath::parse("/prod/target")?,
            kind: "ssh".to_owned(),
            description: String::new(),
            params: Map::new(),
            last_version: 1,
            max_versions: None,
            delete_protection: false,
            locking: Locking::default(),
            pinned: Vec::new(),
            halted: String::new(),
            parent: None,
            linked: None,
            created_at: self.now,
            modified_at: self.now,
        };
        target.params.insert("host".to_owned(), json!("192.0.2.1"));
        target.params.insert("port".to_owned(), json!("22"));
        target.params.insert("ssh-username".to_owned(), json!("root"));
        let credential = Credential::user_password("root", Secret::from("bench-password"));
        let sealed = self.vault.seal_target(&self.account, &target, 1, &credential).await?;
        let version = TargetVersion {
            version: 1,
            params: target.params.clone(),
            sealed,
            created_at: self.now,
            created_by: "bench".to_owned(),
        };
        let mut tx = self.store.begin().await?;
        let id = targets::add(&mut tx, &target, &version).await?;
        tx.commit().await?;
        Ok(id)
    }

    /// A secret as it stands after some rotations, due within the next month but not during the bench.
    fn item(&self, n: usize, target: TargetId) -> Item {
        let mut uid = [0_u8; 16];
        uid[..8].copy_from_slice(&(n as u64 + 1).to_be_bytes());
        let due = DAY_SECONDS + (n as i64 * 7919) % (29 * DAY_SECONDS);
        let rotator = Rotator {
            target,
            kind: "ssh".to_owned(),
            rotator_type: "password".to_owned(),
            acting: ActingAs::Target,
            acting_spelling: "use-target-creds".to_owned(),
            params: Map::from_iter([("rotated-username".to_owned(), json!("root"))]),
            same_password: true,
            policy: None,
            schedule: Schedule { auto_rotate: true, interval_days: 30, hour: 3, ..Schedule::default() },
            next_rotation_at: Some(self.now.plus_seconds(due)),
            last_rotation_at: Some(self.now.plus_seconds(-DAY_SECONDS)),
            last_verified_at: Some(self.now.plus_seconds(-DAY_SECONDS)),
            status: RotatorStatus::RotationSucceeded,
            last_error: String::new(),
            failures: 0,
        };
        Item {
            protection: None,
            account: self.account.id.clone(),
            id: ItemId(0),
            uid: Uid(uid),
            name: ItemPath::parse(&name(n)).expect("letters, digits and slashes"),
            kind: ItemKind::RotatedSecret,
            description: "root of a host".to_owned(),
            tags: vec!["prod".to_owned(), format!("site-{:02}", n % 40)],
            enabled: true,
            delete_protection: false,
            current_version: 4,
            last_version: 4,
            extras: Map::new(),
            max_versions: None,
            locking: Locking::default(),
            created_at: self.now,
            modified_at: self.now,
            rotator: Some(rotator),
        }
    }

    /// Seals a value for each of the secrets.
    async fn seal(&self, rows: &[Item]) -> Result<Vec<Vec<u8>>> {
        let mut tasks = JoinSet::new();
        for part in rows.chunks(rows.len().div_ceil(SEALED_AT_ONCE)) {
            let (vault, account, part) = (self.vault.clone(), self.account.clone(), part.to_vec());
            tasks.spawn(async move {
                let mut sealed = Vec::with_capacity(part.len());
                for item in &part {
                    let password = format!("bench-{}", item.name);
                    let credential = Credential::user_password("root", Secret::from(password.as_str()));
                    sealed.push((item.uid, vault.seal_version(&account, item, ("", 4), &credential).await?));
                }
                anyhow::Ok(sealed)
            });
        }
        let mut sealed = Vec::with_capacity(rows.len());
        while let Some(part) = tasks.join_next().await {
            sealed.extend(part??);
        }
        sealed.sort_by_key(|(uid, _)| *uid);
        Ok(sealed.into_iter().map(|(_, bytes)| bytes).collect())
    }

    async fn write(&self, rows: impl Iterator<Item = (Item, Vec<u8>)>) -> Result<()> {
        let mut tx = self.store.begin().await?;
        for (item, sealed) in rows {
            let id = items::add(&mut tx, &item).await?;
            let slot = Slot { account: self.account.id.clone(), item: id, host: String::new() };
            let version = ItemVersion {
                version: 4,
                host: String::new(),
                state: VersionState::Current,
                sealed,
                created_at: self.now,
                created_by: "bench".to_owned(),
                reason: "schedule".to_owned(),
                verified_at: Some(self.now),
            };
            versions::add(&mut tx, &slot, &version).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}
