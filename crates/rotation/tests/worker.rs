//! A worker against a real SQLite store and an account kept in a file, with faults at every place of a change.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use volvelle_domain::account::{Account, AccountSettings};
use volvelle_domain::connector::{ActingAs, ApplyOutcome, Evidence, Failure, FailureClass, ProbeOutcome};
use volvelle_domain::ids::{AccountId, Clock, ItemId, Micros, TargetId, Uid, Version};
use volvelle_domain::item::{ItemVersion, VersionState};
use volvelle_domain::rotation::{Stage, State};
use volvelle_rotation::{Job, Jobs, Timing, Worker};
use volvelle_store::rotations::Rotation;
use volvelle_store::versions::Slot;
use volvelle_store::{Store, StoreError, Tx, accounts, rotations, versions};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    CutBeforeSend,
    CutBeforeApply,
    CutAfterApply,
    Policy,
}

/// An account in a file, and what goes wrong with the first change of it.
#[derive(Clone)]
struct FileAccount {
    file: PathBuf,
    fault: Fault,
    calls: Arc<AtomicU32>,
}

#[async_trait]
impl Jobs for FileAccount {
    async fn job(&self, _: &Rotation) -> Result<Box<dyn Job>, Failure> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Job for FileAccount {
    fn acting(&self) -> ActingAs {
        ActingAs::User
    }
    fn object(&self) -> String {
        "/file".to_owned()
    }
    async fn preflight(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    async fn candidate(&mut self, version: Version) -> Result<Vec<u8>, Failure> {
        Ok(format!("value {version}").into_bytes())
    }
    async fn apply(&mut self, version: &ItemVersion) -> (ApplyOutcome, Option<Vec<u8>>) {
        let fault = if self.calls.fetch_add(1, Ordering::SeqCst) == 0 { self.fault } else { Fault::None };
        let failure = |class| Failure::new(class, "injected", "");
        if matches!(fault, Fault::None | Fault::CutAfterApply) {
            std::fs::write(&self.file, &version.sealed).expect("the account is written");
        }
        let outcome = match fault {
            Fault::None => ApplyOutcome::Applied,
            Fault::CutBeforeSend => ApplyOutcome::NotReached(failure(FailureClass::Unreachable)),
            Fault::Policy => ApplyOutcome::Rejected(failure(FailureClass::Policy)),
            _ => ApplyOutcome::Ambiguous(failure(FailureClass::Timeout)),
        };
        (outcome, None)
    }
    async fn revoke(&mut self, _: &[ItemVersion]) -> Result<(), Failure> {
        Ok(())
    }
    async fn probe(&mut self, versions: &[ItemVersion]) -> Vec<ProbeOutcome> {
        let real = std::fs::read(&self.file).expect("the account is read");
        let ask = |v: &ItemVersion| {
            if v.sealed == real { ProbeOutcome::Opens(Evidence::Login) } else { ProbeOutcome::Refused(Evidence::Login) }
        };
        versions.iter().map(ask).collect()
    }
    async fn prepare(&mut self, _: &ItemVersion) -> Result<(), Failure> {
        Ok(())
    }
    async fn write(&mut self, _: &mut Tx, _: &Rotation, _: &State, _: Micros) -> Result<(), StoreError> {
        Ok(())
    }
    fn written(&mut self, _: &Rotation, _: &State) {}
}

struct Time(AtomicI64);
impl Clock for Time {
    fn now(&self) -> Micros {
        Micros(self.0.load(Ordering::SeqCst))
    }
}

async fn rotates(fault: Fault) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(&format!("sqlite://{}/s.db", dir.path().display())).await.expect("opens");
    let file = dir.path().join("account");
    std::fs::write(&file, "value 1").expect("writes");
    let id = AccountId("acc-000000000001".to_owned());
    let slot = Slot { account: id.clone(), item: ItemId(1), host: String::new() };
    let settings = AccountSettings::default();
    let (realm, name) = (Uid([1; 16]), "a".to_owned());
    let account = Account {
        id,
        name,
        realm,
        key_id: 1,
        generation: 0,
        content: 0,
        operator: false,
        created_at: Micros(0),
        settings,
    };
    let first = ItemVersion {
        version: 1,
        host: String::new(),
        state: VersionState::Current,
        sealed: b"value 1".to_vec(),
        created_at: Micros(0),
        created_by: String::new(),
        reason: "create".to_owned(),
        verified_at: None,
    };
    let mut tx = store.begin().await.expect("begins");
    accounts::add(&mut tx, &account).await.expect("account");
    versions::add(&mut tx, &slot, &first).await.expect("version");
    let state = State::new(Some(1), vec![]);
    let row = rotations::enqueue(&mut tx, &slot, TargetId(1), &state, ("manual", "p"), Micros(1)).await.expect("row");
    tx.commit().await.expect("commits");
    let second = Duration::from_secs(1);
    let timing = Timing { lease: 30 * second, call: 5 * second, quiet: 10 * second };
    let time = Arc::new(Time(AtomicI64::new(1_000_000)));
    let jobs = Arc::new(FileAccount { file: file.clone(), fault, calls: Arc::default() });
    let worker = Worker::new(store.clone(), jobs, time.clone(), "w".to_owned(), timing);
    for _ in 0..6 {
        worker.turn().await.expect("turns");
        time.0.fetch_add(60_000_000, Ordering::SeqCst);
    }
    let mut tx = store.read().await.expect("reads");
    let ended = rotations::load(&mut tx, &slot.account, row).await.expect("loads");
    assert_eq!(ended.state.stage, Stage::Done, "{fault:?}");
    let open = versions::open_set(&mut tx, &slot).await.expect("lists");
    assert_eq!((open.len(), open[0].state), (1, VersionState::Current), "{fault:?}");
    assert_eq!(open[0].sealed, std::fs::read(&file).expect("reads"), "{fault:?}");
    assert!(open[0].version > 1);
}

#[tokio::test]
async fn every_fault_ends_with_current_opening_the_account() {
    for fault in [Fault::None, Fault::CutBeforeSend, Fault::CutBeforeApply, Fault::CutAfterApply, Fault::Policy] {
        rotates(fault).await;
    }
}
